//! Running commands: functions, built-ins, programs.

use std::rc::Rc;

use super::output::{Input, Sink};
use super::state::{Arguments, Callable};
use super::{Evaluation, Flow, Limit};
use crate::router::code::{Code, Symbol};
use crate::router::diagnostic::Source;
use crate::router::request::{Answer, Request, Run};
use crate::router::value::Value;

/// Where programs are looked for without a `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/bin:/bin";

impl Evaluation {
    /// Runs the command whose name is the first argument behind the mark.
    pub(super) fn call_dynamic(&mut self) -> Flow {
        let start = self.marks.last().copied().unwrap_or(0);
        let name = match self.arguments.get(start) {
            Some(Value::Text(name)) => name.clone(),
            Some(Value::List(_)) | None => {
                // The name expanded to nothing: there is no command.
                self.marks.pop();
                self.arguments.truncate(start);
                return Ok(());
            }
        };
        self.arguments.remove(start);
        let symbol = self.symbol(&name)?;
        self.call_named(symbol)
    }

    pub(super) fn call_named(&mut self, symbol: Symbol) -> Flow {
        self.settle_for_command();
        if self.state.options.show_commands {
            self.show_command(symbol);
        }
        match self.state.callable(symbol) {
            Some(Callable::Function(function)) => self.enter_function(&function),
            Some(Callable::Relation(number)) => self.ask_relation(number),
            None => self.call_inner(symbol),
        }
    }

    /// Runs a built-in or a program, whatever functions there are.
    pub(in crate::router) fn call_inner(&mut self, symbol: Symbol) -> Flow {
        match self.state.builtin(symbol) {
            Some(builtin) => {
                let start = self.marks.pop().unwrap_or(0);
                if !self.allows_arguments(start) {
                    return Ok(());
                }
                let flow = (builtin.run)(self, Arguments { start });
                self.arguments.truncate(start);
                flow?;
                self.command_ended();
                Ok(())
            }
            None => self.run_program(symbol),
        }
    }

    /// `set -e` leaves after a failure; much output is handed out.
    pub(super) fn command_ended(&mut self) {
        if self.status != 0 && self.state.options.exit_on_failure {
            self.exit(self.status);
        }
    }

    fn show_command(&mut self, symbol: Symbol) {
        let start = self.marks.last().copied().unwrap_or(0);
        let mut line = b"+ ".to_vec();
        line.extend_from_slice(self.state.symbols.name(symbol));
        for value in &self.arguments[start..] {
            line.push(b' ');
            value.grind(&mut line);
        }
        line.push(b'\n');
        self.write_error(&line);
    }

    /// Counts what is alive.
    pub(super) fn audit(&mut self) -> Result<(), Limit> {
        let living = self.living_bytes();
        self.limits.work(living);
        self.limits.audited(living)
    }

    /// The texts that arguments are, without lists: what programs and built-ins of the `echo` kind see.
    pub(in crate::router) fn texts(&self, arguments: Arguments) -> Vec<Vec<u8>> {
        self.arguments[arguments.start..]
            .iter()
            .filter_map(|value| Some(value.text()?.to_vec()))
            .collect()
    }

    /// The same, where they stand.
    pub(in crate::router) fn words(&self, arguments: Arguments) -> impl Iterator<Item = &[u8]> {
        self.arguments[arguments.start..]
            .iter()
            .filter_map(|value| Some(&**value.text()?))
    }

    /// Whether the arguments are small enough to be copied. The same text may be there many times.
    fn allows_arguments(&mut self, start: usize) -> bool {
        let sizes = self.arguments[start..]
            .iter()
            .map(|value| value.bytes().len());
        let bytes = sizes.sum::<usize>();
        self.limits.work(bytes);
        self.limits.allows(bytes)
    }

    fn run_program(&mut self, symbol: Symbol) -> Flow {
        let start = self.marks.pop().unwrap_or(0);
        if !self.allows_arguments(start) {
            return Ok(());
        }
        let mut arguments = vec![self.state.symbols.name(symbol).to_vec()];
        arguments.extend(self.texts(Arguments { start }));
        self.arguments.truncate(start);
        let (output, error) = (self.io.output, self.io.error);
        let standard = |sink: usize| matches!(self.sinks[sink], Sink::Standard { .. });
        let inherit = standard(output) && standard(error) && output != error;
        let run = Run {
            arguments,
            path: self.program_path(),
            environment: self.environment(),
            input: self.input_ahead(),
            merge: output == error,
            inherit,
        };
        self.flush_then(move |machine| {
            machine.need(Request::Run(run), |machine, answer| {
                machine.program_ended(answer);
                Ok(())
            })
        })
    }

    /// Where programs are looked for.
    pub(in crate::router) fn program_path(&self) -> Vec<u8> {
        let path = self
            .state
            .symbols
            .lookup(b"PATH")
            .and_then(|path| self.state.value(path));
        path.map_or_else(|| DEFAULT_PATH.to_vec(), |path| path.bytes().to_vec())
    }

    /// Exported variables, and those that the command has for itself.
    fn environment(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut environment = self.state.environment().clone();
        let mut put = |name: Vec<u8>, value: Vec<u8>| {
            environment.retain(|(known, _)| *known != name);
            environment.push((name, value));
        };
        for (name, value) in self.state.exported() {
            put(name, value);
        }
        for symbol in self.state.temporary_names() {
            if let Some(Value::Text(text)) = self.state.value(symbol) {
                put(self.state.symbols.name(symbol).to_vec(), text.to_vec());
            }
        }
        environment
    }

    /// What a program reads: the rest of the input; none: the script's own.
    fn input_ahead(&self) -> Option<Vec<u8>> {
        match &self.inputs[self.io.input] {
            Input::Standard => None,
            Input::Bytes { bytes, at } => Some(bytes[*at..].to_vec()),
            Input::Closed => Some(Vec::new()),
        }
    }

    fn consume(&mut self, count: usize) {
        if let Input::Bytes { bytes, at } = &mut self.inputs[self.io.input] {
            *at = at.saturating_add(count).min(bytes.len());
        }
    }

    fn program_ended(&mut self, answer: Answer) {
        match answer {
            Answer::Ran {
                status,
                output,
                errors,
                consumed,
            } => {
                self.consume(consumed);
                self.write(&output);
                self.write_error(&errors);
                self.status = status;
            }
            Answer::NotRun(why) => {
                self.complain(&why);
                self.status = 1;
            }
            answer => unreachable!("{answer:?} answers no program"),
        }
        self.command_ended();
    }

    /// The next line of the input, without its newline; `then` goes on with none at the end.
    pub(in crate::router) fn read_line(
        &mut self,
        then: impl FnOnce(&mut Self, Option<Vec<u8>>) -> Flow + 'static,
    ) -> Flow {
        let line = match &mut self.inputs[self.io.input] {
            Input::Closed => None,
            Input::Bytes { bytes, at } if *at >= bytes.len() => None,
            Input::Bytes { bytes, at } => {
                let rest = &bytes[*at..];
                let end = memchr::memchr(b'\n', rest);
                *at += end.map_or(rest.len(), |end| end + 1);
                Some(rest[..end.unwrap_or(rest.len())].to_vec())
            }
            Input::Standard => {
                return self.flush_then(move |machine| {
                    machine.need(Request::Line, move |machine, answer| {
                        let Answer::Line(mut line) = answer else {
                            unreachable!("{answer:?} is no line")
                        };
                        let end = line.is_empty();
                        if line.last() == Some(&b'\n') {
                            line.pop();
                        }
                        then(machine, (!end).then_some(line))
                    })
                });
            }
        };
        then(self, line)
    }

    /// Everything that is left of the input, which is given up.
    pub(in crate::router) fn rest_of_input(&mut self) -> Vec<u8> {
        match &mut self.inputs[self.io.input] {
            Input::Bytes { bytes, at } => {
                let mut rest = std::mem::take(bytes);
                rest.drain(..std::mem::take(at));
                rest
            }
            Input::Standard | Input::Closed => Vec::new(),
        }
    }

    pub(super) fn take_exit_trap(&mut self) -> Option<Rc<Code>> {
        let at = self
            .state
            .traps
            .iter()
            .position(|(signal, _)| *signal == 0)?;
        let (_, text) = self.state.traps.remove(at);
        match self.compile(&Source::new("trap", &text)) {
            Ok(code) => Some(code),
            Err(errors) => {
                for error in errors {
                    self.write_error(format!("{error}\n").as_bytes());
                }
                None
            }
        }
    }
}
