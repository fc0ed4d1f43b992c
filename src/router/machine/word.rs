//! Words: what is opened by `Begin` becomes arguments or a value.

use super::state::Callable;
use super::{Evaluation, Limits};
use crate::router::code::{Code, Op, Param};
use crate::router::value::{List, Text, Value};

/// A word that is being built: its text lies in the machine's buffer.
pub(super) struct Builder {
    start: usize,
    /// Becomes one value: nothing is split.
    one: bool,
    /// Something was added, or it must not vanish.
    used: bool,
    /// Text was added, even empty one.
    text: bool,
    /// The first list that was added.
    list: Option<List>,
    /// Pattern characters, in the buffer.
    magic: Vec<(usize, usize)>,
}

impl Evaluation {
    /// Operations about words; `false`: it is none.
    #[inline(always)]
    pub(super) fn word_op(&mut self, code: &Code, op: &Op) -> bool {
        match op {
            Op::Begin => self.open_word(false),
            Op::BeginValue => self.open_word(true),
            Op::Literal(text) => self.add_text(&code.texts[*text as usize], true),
            Op::Parameter { parameter, quoted } => self.add_parameter(*parameter, *quoted),
            Op::EndArgument => self.end_argument(),
            Op::EndValue => self.end_value(),
            Op::ValueLiteral(text) => {
                self.push_value(Value::Text(code.texts[*text as usize].clone()));
            }
            Op::ValueVariable(symbol) => {
                let value = self.state.copy(*symbol);
                self.push_parameter(Param::Variable(*symbol), value);
            }
            Op::ArgumentLiteral(text) => {
                let text = code.texts[*text as usize].clone();
                self.arguments.push(Value::Text(text));
            }
            Op::ArgumentVariable { symbol, quoted } => {
                let value = self.state.copy(*symbol);
                self.push_argument(Param::Variable(*symbol), value, *quoted);
            }
            Op::Mark => self.marks.push(self.arguments.len()),
            Op::ListArgument => {
                let list = self.take_list();
                self.arguments.push(list);
            }
            Op::Capture => self.open_capture(),
            Op::CaptureArgument { quoted } => self.capture_argument(*quoted),
            Op::CaptureValue { quoted } => self.capture_value(*quoted),
            Op::Assign(symbol) => {
                let value = self.pop_value();
                self.state.assign(*symbol, value);
                self.sift_sees(*symbol);
            }
            _ => return false,
        }
        true
    }

    /// Those that scripts need less often; `false`: it is none.
    pub(super) fn rarer_word_op(&mut self, code: &Code, op: &Op) -> bool {
        match op {
            Op::Magic(text) => self.add_magic(&code.texts[*text as usize]),
            Op::Group(number) => self.add_group(*number),
            Op::Keep => self.keep_word(),
            Op::ArgumentParameter { parameter, quoted } => {
                let value = self.parameter(*parameter);
                self.push_argument(*parameter, value, *quoted);
            }
            Op::ValueParameter(parameter) => {
                let value = self.parameter(*parameter);
                self.push_parameter(*parameter, value);
            }
            Op::JumpIfUnset {
                parameter,
                colon,
                to,
            } => {
                if !self.is_set(*parameter, *colon) {
                    self.jump(*to);
                }
            }
            Op::AssignDefault(parameter) => self.assign_default(*parameter),
            Op::Complain(parameter) => self.complain_unset(*parameter),
            Op::EndList => {
                let list = self.take_list();
                self.add_value(&list, true);
            }
            Op::ListValue => {
                let list = self.take_list();
                self.push_value(list);
            }
            Op::EndCapture { quoted } => self.end_capture(*quoted),
            Op::AssignTemporary(symbol) => {
                let value = self.pop_value();
                self.state.assign_temporary(*symbol, value);
                self.sift_sees(*symbol);
            }
            Op::EndTemporary(count) => {
                self.state.end_temporaries(*count as usize);
            }
            _ => return false,
        }
        true
    }

    /// An argument that is one parameter; an empty one stays when it is quoted.
    #[inline(always)]
    fn push_argument(&mut self, parameter: Param, value: Option<Value>, quoted: bool) {
        match value {
            Some(Value::Text(text)) if text.is_empty() && !quoted => {}
            Some(value) => self.arguments.push(value),
            None => {
                let ended = self.unset_parameter(parameter);
                if quoted && !ended {
                    self.arguments.push(self.empty_text());
                }
            }
        }
    }

    /// A value that is one parameter; the empty text when it has none.
    #[inline(always)]
    fn push_parameter(&mut self, parameter: Param, value: Option<Value>) {
        self.magic.clear();
        if value.is_none() && self.unset_parameter(parameter) {
            return;
        }
        self.values.push(value.unwrap_or_else(|| self.empty_text()));
    }

    fn open_word(&mut self, one: bool) {
        self.builders.push(Builder {
            start: self.buffer.len(),
            one,
            used: false,
            text: false,
            list: None,
            magic: Vec::new(),
        });
    }

    fn builder(&mut self) -> &mut Builder {
        open_builder(&mut self.builders)
    }

    /// Adds text; an empty one counts when it is `kept`.
    pub(super) fn add_text(&mut self, text: &[u8], kept: bool) {
        append(
            &mut self.limits,
            &mut self.buffer,
            &mut self.builders,
            text,
            kept,
        );
    }

    fn add_magic(&mut self, text: &[u8]) {
        let start = self.buffer.len();
        self.add_text(text, true);
        let end = self.buffer.len();
        self.builder().magic.push((start, end));
    }

    fn keep_word(&mut self) {
        let builder = self.builder();
        builder.used = true;
        builder.text |= builder.list.is_none();
    }

    pub(super) fn add_value(&mut self, value: &Value, kept: bool) {
        match value {
            Value::Text(text) => self.add_text(text, kept),
            Value::List(list) => {
                let builder = self.builder();
                builder.used = true;
                builder.list.get_or_insert_with(|| list.clone());
            }
        }
    }

    /// Ends the word that is open and opens the next.
    fn break_word(&mut self) {
        if let Some(value) = self.finish_builder() {
            self.arguments.push(value);
        }
    }

    /// Takes what the builder holds and leaves it empty.
    fn finish_builder(&mut self) -> Option<Value> {
        let buffered = self.buffer.len();
        let builder = self.builder();
        let (start, used, text) = (builder.start.min(buffered), builder.used, builder.text);
        let list = builder.list.take();
        builder.used = false;
        builder.text = false;
        if !used {
            return None;
        }
        if let (Some(list), false) = (list, text) {
            return Some(Value::List(list));
        }
        let text = Text::from(&self.buffer[start..]);
        self.limits.allocate(text.len());
        self.buffer.truncate(start);
        Some(Value::Text(text))
    }

    fn end_argument(&mut self) {
        if let Some(value) = self.finish_builder() {
            self.arguments.push(value);
        }
        self.builders.pop();
    }

    fn end_value(&mut self) {
        let value = self.finish_builder().unwrap_or_else(|| self.empty_text());
        self.values.push(value);
        self.magic.clear();
        if let Some(builder) = self.builders.pop() {
            let moved = builder
                .magic
                .iter()
                .map(|(start, end)| (start - builder.start, end - builder.start));
            self.magic.extend(moved);
        }
    }

    /// The arguments since the mark as a list.
    fn take_list(&mut self) -> Value {
        let start = self.marks.pop().unwrap_or(0);
        let values = self.arguments.split_off(start);
        self.limits
            .allocate(values.len() * super::limits::VALUE_BYTES);
        Value::list(values)
    }

    /// A value in which no byte is a pattern character.
    fn push_value(&mut self, value: Value) {
        self.magic.clear();
        self.values.push(value);
    }

    /// What `$(...)` returned is an argument as it is, unless it has to be split.
    fn capture_argument(&mut self, quoted: bool) {
        match self.returned_alone() {
            Some(Value::Text(text)) if !quoted && !self.is_one_word(&text) => {
                self.open_word(false);
                self.add_split(&text);
                self.end_argument();
            }
            Some(value) => self.arguments.push(value),
            None => {
                self.open_word(false);
                self.end_capture(quoted);
                self.end_argument();
            }
        }
    }

    fn capture_value(&mut self, quoted: bool) {
        match self.returned_alone() {
            Some(value) => self.push_value(value),
            None => {
                self.open_word(true);
                self.end_capture(quoted);
                self.end_value();
            }
        }
    }

    /// Whether splitting leaves it as it is.
    fn is_one_word(&self, text: &[u8]) -> bool {
        let separators = &self.state.separators;
        !text.is_empty() && !text.iter().any(|byte| separators[usize::from(*byte)])
    }

    /// Adds text that is split at separators, unless the word becomes one value.
    pub(super) fn add_split(&mut self, text: &[u8]) {
        if self.builder().one {
            return self.add_text(text, false);
        }
        let separators = self.state.separators;
        let mut rest = text;
        loop {
            let end = rest.iter().position(|byte| separators[usize::from(*byte)]);
            let (piece, behind) = match end {
                Some(end) => rest.split_at(end),
                None => (rest, &b""[..]),
            };
            self.add_text(piece, false);
            if behind.is_empty() {
                return;
            }
            let next = behind
                .iter()
                .position(|byte| !separators[usize::from(*byte)]);
            if self.builder().used {
                self.break_word();
            }
            match next {
                Some(next) => rest = &behind[next..],
                None => return,
            }
        }
    }

    /// Adds values that are arguments of their own.
    pub(super) fn add_elements(&mut self, values: &[Value]) {
        self.count_values(values.len());
        let one = self.builder().one;
        for value in values {
            if one {
                self.add_value(value, false);
                continue;
            }
            self.break_word();
            self.arguments.push(value.clone());
        }
    }

    fn add_parameter(&mut self, parameter: Param, quoted: bool) {
        if let Param::Variable(symbol) = parameter
            && let Some(Value::Text(text)) = self.state.value(symbol)
        {
            return append(
                &mut self.limits,
                &mut self.buffer,
                &mut self.builders,
                text,
                quoted,
            );
        }
        match parameter {
            Param::At => self.add_all(quoted),
            Param::Star => self.add_joined(quoted),
            _ => match self.parameter(parameter) {
                Some(value) => {
                    let kept = quoted || !matches!(&value, Value::Text(text) if text.is_empty());
                    self.add_value(&value, kept);
                }
                None if self.unset_parameter(parameter) => {}
                None => self.add_text(b"", quoted),
            },
        }
    }

    /// `$@`: each argument stays a word.
    fn add_all(&mut self, quoted: bool) {
        let values: Vec<Value> = self
            .frame()
            .map(|frame| frame.positionals.clone())
            .unwrap_or_default();
        let one = self.builder().one;
        if values.is_empty() {
            self.add_text(b"", quoted);
        }
        for (number, value) in values.iter().enumerate() {
            if number > 0 && one {
                self.add_text(b" ", true);
            } else if number > 0 {
                self.break_word();
            }
            self.add_value(value, quoted);
        }
    }

    /// `$*`: all arguments, a blank between them; lists are empty there.
    fn add_joined(&mut self, quoted: bool) {
        let values: Vec<Value> = self
            .frame()
            .map(|frame| frame.positionals.clone())
            .unwrap_or_default();
        if values.is_empty() {
            self.add_text(b"", quoted);
        }
        for (number, value) in values.iter().enumerate() {
            if number > 0 {
                self.add_text(b" ", true);
            }
            self.add_text(value.bytes(), true);
        }
    }

    pub(super) fn define(&mut self, function: &std::rc::Rc<crate::router::code::Function>) {
        let callable = Callable::Function(std::rc::Rc::clone(function));
        self.state.define(function.name, Some(callable));
    }
}

fn open_builder(builders: &mut [Builder]) -> &mut Builder {
    match builders.last_mut() {
        Some(builder) => builder,
        None => unreachable!("no word is open"),
    }
}

/// Adds text to the word that is open; an empty one counts when it is `kept`.
fn append(
    limits: &mut Limits,
    buffer: &mut Vec<u8>,
    builders: &mut [Builder],
    text: &[u8],
    kept: bool,
) {
    if !limits.allows(buffer.len() + text.len()) {
        return;
    }
    buffer.extend_from_slice(text);
    if kept || !text.is_empty() {
        let builder = open_builder(builders);
        builder.used = true;
        builder.text = true;
    }
}
