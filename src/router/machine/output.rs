//! What commands write, read and return.

use super::{Evaluation, Flow, Pause, Turn};
use crate::router::code::{FileMode, Place};
use crate::router::request::{Answer, Request};
use crate::router::value::{List, Value};

/// What the last command returned.
#[derive(Clone, Debug)]
pub enum Returned {
    /// No value.
    Nothing,
    /// One value.
    One(Value),
    /// Several, which are joined where a text is needed.
    Chain(Vec<Value>),
    /// Several, each an argument of its own.
    Elements(Vec<Value>),
}

impl Returned {
    /// These values, joined where a text is needed.
    pub(in crate::router) fn all_of(mut values: impl ExactSizeIterator<Item = Value>) -> Self {
        match values.len() {
            1 => values.next().map_or(Self::Nothing, Self::One),
            _ => Self::Chain(values.collect()),
        }
    }

    /// As one value; several texts are joined.
    pub(super) fn into_value(self) -> Option<Value> {
        match self {
            Self::Nothing => None,
            Self::One(value) => Some(value),
            Self::Chain(mut values) | Self::Elements(mut values) => match values.len() {
                0 => None,
                1 => values.pop(),
                _ => Some(Value::List(List::new(values))),
            },
        }
    }

    pub(super) fn first(&self) -> Option<&Value> {
        match self {
            Self::Nothing => None,
            Self::One(value) => Some(value),
            Self::Chain(values) | Self::Elements(values) => values.first(),
        }
    }

    pub(super) fn values(&self) -> &[Value] {
        match self {
            Self::Nothing => &[],
            Self::One(value) => std::slice::from_ref(value),
            Self::Chain(values) | Self::Elements(values) => values,
        }
    }
}

/// Where the standard descriptors go: places in the machine's sinks and inputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Io {
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) error: usize,
}

impl Default for Io {
    fn default() -> Self {
        Self {
            input: 0,
            output: 0,
            error: 1,
        }
    }
}

/// What is put back when a redirection, pipe or capture ends.
pub(super) struct Saved {
    io: Io,
    sinks: usize,
    inputs: usize,
    /// Behind the command, which is not run when a redirection fails.
    behind: Place,
}

/// Where output goes.
pub(super) enum Sink {
    /// The script's own descriptor.
    Standard { descriptor: u8, bytes: Vec<u8> },
    /// Into the machine.
    Buffer(Vec<u8>),
    /// Into a file.
    File { path: Vec<u8>, bytes: Vec<u8> },
    /// Nowhere.
    Closed,
}

/// Where input comes from.
pub(super) enum Input {
    /// The script's own.
    Standard,
    /// Bytes, from a place on.
    Bytes { bytes: Vec<u8>, at: usize },
    /// Nothing.
    Closed,
}

pub(super) fn standard_sinks() -> Vec<Sink> {
    [1, 2]
        .map(|descriptor| Sink::Standard {
            descriptor,
            bytes: Vec::new(),
        })
        .into()
}

/// Output of the script that is held back before it is handed out.
const HELD_BYTES_MAX: usize = 64 << 10;

impl Evaluation {
    pub(in crate::router) fn write(&mut self, bytes: &[u8]) {
        self.write_to(self.io.output, bytes);
    }

    pub(in crate::router) fn write_error(&mut self, bytes: &[u8]) {
        self.write_to(self.io.error, bytes);
    }

    fn write_to(&mut self, sink: usize, bytes: &[u8]) {
        let (Sink::Standard { bytes: held, .. }
        | Sink::Buffer(held)
        | Sink::File { bytes: held, .. }) = &mut self.sinks[sink]
        else {
            return;
        };
        self.limits.allocate(bytes.len());
        if self.limits.allows(held.len() + bytes.len()) {
            held.extend_from_slice(bytes);
        }
    }

    /// The command returns a value; it is shown when nobody takes it.
    pub(in crate::router) fn returns(&mut self, returned: Returned) {
        self.returned = returned;
        self.unshown = !matches!(self.returned, Returned::Nothing);
    }

    /// Shows a value that nobody took.
    pub(super) fn settle(&mut self) {
        if !std::mem::take(&mut self.unshown) {
            return;
        }
        let mut text = Vec::new();
        for (number, value) in self.returned.values().iter().enumerate() {
            if number > 0 {
                text.push(b' ');
            }
            value.grind(&mut text);
        }
        text.push(b'\n');
        self.write(&text);
    }

    /// A command begins: what the last one returned is shown and gone.
    pub(super) fn settle_for_command(&mut self) {
        self.settle();
        // Most commands return nothing; there is nothing to give up then.
        if !matches!(self.returned, Returned::Nothing) {
            self.returned = Returned::Nothing;
        }
    }

    pub(super) fn save_io(&mut self, behind: Place) {
        self.saved.push(Saved {
            io: self.io,
            sinks: self.sinks.len(),
            inputs: self.inputs.len(),
            behind,
        });
    }

    /// Behind the command whose redirections are being opened.
    pub(super) fn behind_command(&self) -> Place {
        self.saved.last().map_or(self.place, |saved| saved.behind)
    }

    /// Ends the last redirection, pipe or capture; files are written afterwards.
    pub(super) fn close_io(&mut self) -> Vec<u8> {
        let Some(saved) = self.saved.pop() else {
            return Vec::new();
        };
        self.io = saved.io;
        self.inputs.truncate(saved.inputs);
        let mut caught = Vec::new();
        for sink in self.sinks.drain(saved.sinks..) {
            match sink {
                Sink::Buffer(bytes) => caught = bytes,
                Sink::File { path, bytes } if !bytes.is_empty() => {
                    self.unwritten.push((path, bytes));
                    self.switched = true;
                }
                _ => {}
            }
        }
        caught
    }

    pub(super) fn open_buffer(&mut self) {
        self.save_io(0);
        self.sinks.push(Sink::Buffer(Vec::new()));
        self.io.output = self.sinks.len() - 1;
    }

    pub(super) fn open_input(&mut self, bytes: Vec<u8>) {
        self.save_io(0);
        self.push_input(bytes);
    }

    pub(super) fn push_input(&mut self, bytes: Vec<u8>) {
        self.inputs.push(Input::Bytes { bytes, at: 0 });
        self.io.input = self.inputs.len() - 1;
    }

    pub(super) fn open_capture(&mut self) {
        self.settle_for_command();
        self.open_buffer();
    }

    /// The value that what ran inside `$(...)` returned, when it is one: what it wrote does not count. Otherwise
    /// [`Self::end_capture`] has to be called.
    pub(super) fn returned_alone(&mut self) -> Option<Value> {
        if !matches!(self.returned, Returned::One(_)) {
            return None;
        }
        self.unshown = false;
        self.close_io();
        match std::mem::replace(&mut self.returned, Returned::Nothing) {
            Returned::One(value) => Some(value),
            _ => None,
        }
    }

    /// What ran inside `$(...)`: its value, or what it wrote.
    pub(super) fn end_capture(&mut self, quoted: bool) {
        self.unshown = false;
        let text = self.close_io();
        match std::mem::replace(&mut self.returned, Returned::Nothing) {
            Returned::Nothing => {
                let text = squeezed(&text);
                if quoted {
                    self.add_text(&text, true);
                } else {
                    self.add_split(&text);
                }
            }
            Returned::One(value) => self.add_returned(&value, quoted),
            Returned::Chain(values) => {
                for value in &values {
                    self.add_returned(value, quoted);
                }
            }
            Returned::Elements(values) if quoted => {
                for value in &values {
                    self.add_returned(value, true);
                }
            }
            Returned::Elements(values) => self.add_elements(&values),
        }
    }

    fn add_returned(&mut self, value: &Value, quoted: bool) {
        match value {
            Value::Text(text) if !quoted => {
                let text = text.clone();
                self.add_split(&text);
            }
            _ => self.add_value(value, true),
        }
    }

    /// Hands out what the script has written on its own descriptors; `then` goes on.
    pub(super) fn flush_then(&mut self, then: impl FnOnce(&mut Self) -> Flow + 'static) -> Flow {
        match self.take_output() {
            None => then(self),
            Some(request) => self.need(request, move |machine, _| machine.flush_then(then)),
        }
    }

    fn take_output(&mut self) -> Option<Request> {
        for sink in &mut self.sinks[..2] {
            if let Sink::Standard { descriptor, bytes } = sink
                && !bytes.is_empty()
            {
                return Some(Request::Output {
                    descriptor: *descriptor,
                    bytes: std::mem::take(bytes),
                });
            }
        }
        None
    }

    /// Much was written: hand it out before more is.
    pub(super) fn output_is_due(&self) -> bool {
        self.sinks[..2].iter().any(|sink| match sink {
            Sink::Standard { bytes, .. } => bytes.len() > HELD_BYTES_MAX,
            _ => false,
        })
    }

    /// Writes the next file whose redirection has ended.
    pub(super) fn write_next(&mut self) -> Flow {
        let (path, bytes) = self.unwritten.remove(0);
        let request = Request::Write {
            path,
            append: true,
            bytes,
        };
        self.need(request, |machine, answer| {
            if let Answer::Done(Err(failure)) = answer {
                machine.complain(&failure.text);
                machine.status = 1;
            }
            Ok(())
        })
    }

    /// The end of the script: output first, then the traps of the end, then done.
    pub(super) fn finish(&mut self, status: i32) -> Turn {
        if self.saved.is_empty() {
            self.settle();
        }
        if self.limits.audit_due()
            && let Err(limit) = self.audit()
        {
            return self.stop(limit);
        }
        if !self.unwritten.is_empty() {
            return turn_of(self.write_next());
        }
        // Where scripts are typed, the end of one is not the end.
        let over = self.exited || !self.router.interactive;
        if over && let Some(code) = self.take_exit_trap() {
            let returned = std::mem::replace(&mut self.returned, Returned::Nothing);
            self.unshown = false;
            self.before_trap = Some((status, returned));
            self.enter_script(code, Vec::new());
            return Turn::More;
        }
        match self.take_output() {
            Some(request) => {
                let turn = turn_of(self.need(request, |_, _| Ok(())));
                self.ended = Some(status);
                turn
            }
            None => Turn::Done(status),
        }
    }

    /// The evaluation ends here; what it held is given up.
    pub(super) fn stop(&mut self, limit: super::Limit) -> Turn {
        self.begin();
        Turn::Stopped(limit)
    }

    pub(super) fn waiting_turn(&mut self, turn: Turn) {
        match turn {
            Turn::Need(request) => self.again = Some(request),
            Turn::Stopped(limit) => self.stopped = Some(limit),
            Turn::Done(_) | Turn::More => {}
        }
    }

    /// Descriptor `descriptor` goes where `mode` says.
    pub(super) fn set_sink(&mut self, descriptor: u8, sink: Sink) {
        self.sinks.push(sink);
        let at = self.sinks.len() - 1;
        match descriptor {
            1 => self.io.output = at,
            2 => self.io.error = at,
            _ => {}
        }
    }

    pub(super) fn file_mode_request(path: Vec<u8>, mode: FileMode) -> Request {
        match mode {
            FileMode::Read => Request::Read { path, user: None },
            FileMode::Write | FileMode::Append => Request::Write {
                path,
                append: mode == FileMode::Append,
                bytes: Vec::new(),
            },
        }
    }
}

fn turn_of(flow: Flow) -> Turn {
    match flow {
        Ok(()) => Turn::More,
        Err(Pause::Turn(turn)) => *turn,
    }
}

/// Output as a text: blanks at its ends go, each run of blanks becomes one (a newline when it begins with one).
fn squeezed(text: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(text.len());
    let mut blank = None;
    for byte in text {
        if byte.is_ascii_whitespace() || *byte == 0x0b {
            blank.get_or_insert(if *byte == b'\n' { b'\n' } else { b' ' });
            continue;
        }
        if let Some(blank) = blank.take()
            && !result.is_empty()
        {
            result.push(blank);
        }
        result.push(*byte);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::squeezed;

    #[test]
    fn output_is_squeezed() {
        assert_eq!(squeezed(b"  a \t b\n\n c  \n"), b"a b\nc");
        assert_eq!(squeezed(b" \n"), b"");
        assert_eq!(squeezed(b"a \nb"), b"a b");
    }
}
