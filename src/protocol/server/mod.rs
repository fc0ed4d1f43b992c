//! The receiving session: takes bytes, appends replies, says what it needs.
//!
//! One struct per state (`state`), holding what is true in that state and nothing else. The caller
//! answers [`Want::Policy`] with [`Session::verdict`], [`Want::Begin`] with [`Session::begin`] and
//! [`Want::Store`] with [`Session::stored`]; until then no input is taken.

mod body;
mod commands;
mod settings;
mod state;
#[cfg(test)]
mod tests;
mod transfer;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use super::Input;
use super::command;
use crate::base::clock::Now;
use crate::mail::target::Target;

pub use super::command::{BodyKind, Ret};
use body::Body;
pub use settings::Settings;
use state::State;

/// The client.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address, never an IPv4-mapped one.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

/// What the session needs.
#[derive(Debug)]
pub enum Want {
    /// More bytes.
    Input,
    /// An id and a date for the Received line: [`Session::begin`].
    Begin,
    /// A judgement: [`Session::verdict`].
    Policy(Question),
    /// The message to be stored: [`Session::stored`].
    Store(Box<Transaction>),
    /// Nothing: flush the output, then close.
    Close,
}

/// What policy is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// May this sender send?
    Sender {
        /// Address without brackets; empty: null.
        address: Vec<u8>,
    },
    /// May the client send to this recipient?
    Recipient {
        /// Address without brackets.
        address: Vec<u8>,
    },
}

/// Policy's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Accept,
    /// No, with this reply line.
    Reject(Cow<'static, str>),
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored<'a> {
    /// It is on disk under this id.
    Accepted {
        /// The id.
        id: &'a str,
    },
    /// There is no room.
    Full,
    /// The disk refused it.
    Failed,
    /// The spool cannot hold it.
    TooLarge,
}

impl Stored<'_> {
    /// What happened, in a few words.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "stored",
            Self::Full => "the spool is full",
            Self::Failed => "the disk refused it",
            Self::TooLarge => "it is too large for the spool",
        }
    }
}

/// A recipient with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientParams {
    /// Address without brackets.
    pub address: Vec<u8>,
    /// NOTIFY bits as in [`command::Rcpt`].
    pub notify: u8,
    /// ORCPT as given.
    pub orcpt: Option<Vec<u8>>,
    /// XTARGET and XPRIVILEGE: a program or file in the place of a user, and the account it is delivered as. LMTP only.
    pub target: Option<(Target, u32)>,
}

/// A complete message with its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Reverse path; empty: null.
    pub sender: Vec<u8>,
    /// Recipients, one at least.
    pub recipients: Vec<RecipientParams>,
    /// Declared body.
    pub body: BodyKind,
    /// SMTPUTF8 was given.
    pub smtputf8: bool,
    /// RET.
    pub ret: Option<Ret>,
    /// ENVID as given.
    pub envid: Option<Vec<u8>>,
    /// XSPOOLID as given: id and arrival of the message in the spool it comes from. LMTP only.
    pub spool_id: Option<Vec<u8>>,
    /// The name the client gave.
    pub helo: Vec<u8>,
    /// How it came.
    pub protocol: &'static str,
    /// A Received line, then the content, with CR LF line ends and without dot-stuffing; without what
    /// was taken by [`Session::take_content`].
    pub content: Vec<u8>,
}

/// How the client introduced itself.
#[derive(Clone, Debug, Default)]
struct Hello {
    name: Vec<u8>,
    extended: bool,
}

/// What outlives a state.
#[derive(Debug)]
struct Context {
    settings: Arc<Settings>,
    peer: Peer,
    hello: Hello,
    errors_count: u32,
    transactions_count: u32,
    stopping: bool,
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    context: Context,
    state: State,
    active_at: u64,
    ends_at: u64,
}

/// Longest input whose line end has not come.
enum Line<'a> {
    Complete(&'a [u8]),
    Partial,
    TooLong,
}

impl Session {
    /// A session for a client that has just connected.
    #[must_use]
    pub fn new(settings: Arc<Settings>, peer: Peer, now: Now) -> Self {
        let ends_at = now.after_ns(settings.total_ns);
        let context = Context {
            settings,
            peer,
            hello: Hello::default(),
            errors_count: 0,
            transactions_count: 0,
            stopping: false,
        };
        Self {
            context,
            state: State::Command(state::Command::Unknown),
            active_at: now.mono_ns,
            ends_at,
        }
    }

    /// Writes the greeting.
    pub fn greet(&mut self, output: &mut Vec<u8>) {
        let hostname = &self.context.settings.hostname;
        output.extend_from_slice(format!("220 {hostname} ESMTP ZMailer\r\n").as_bytes());
    }

    /// Takes what it can from `input`, appends replies to `output`, stops at the first thing it
    /// needs. A partial command line is left in `input`.
    pub fn receive(&mut self, input: &mut Input<'_>, now: Now, output: &mut Vec<u8>) -> Want {
        if !input.remaining().is_empty() {
            self.active_at = now.mono_ns;
        }
        loop {
            let state = std::mem::replace(&mut self.state, State::Closed);
            let (state, want) = match state {
                State::Command(command) => self.command_line(command, input, output),
                State::Content(content) => content.receive(&mut self.context, input, output),
                State::Chunk(chunk) => chunk.receive(&mut self.context, input, output),
                waiting @ (State::Judged(_) | State::Beginning(_) | State::Storing(_)) => {
                    (waiting, Some(Want::Input))
                }
                State::SkipLine(command) => Self::skip_line(command, input),
                State::Closed => (State::Closed, Some(Want::Close)),
            };
            self.state = state;
            self.leave_if_stopping(output);
            if let Some(want) = want {
                return if matches!(self.state, State::Closed) && matches!(want, Want::Input) {
                    Want::Close
                } else {
                    want
                };
            }
        }
    }

    /// At a command boundary of a server that is going down: 421 and the end.
    fn leave_if_stopping(&mut self, output: &mut Vec<u8>) {
        if self.context.stopping && matches!(self.state, State::Command(_)) {
            let hostname = &self.context.settings.hostname;
            output.extend_from_slice(
                format!("421 4.3.2 {hostname} is going down, try again later\r\n").as_bytes(),
            );
            self.state = State::Closed;
        }
    }

    fn command_line(
        &mut self,
        command: state::Command,
        input: &mut Input<'_>,
        output: &mut Vec<u8>,
    ) -> (State, Option<Want>) {
        let limit = self.context.settings.command_line_bytes_max;
        let line = match next_line(input, limit) {
            Line::Partial => return (State::Command(command), Some(Want::Input)),
            Line::TooLong => {
                let next = self
                    .context
                    .error(command, "500 5.5.2 command line too long", output);
                return match next {
                    State::Command(command) => (State::SkipLine(command), None),
                    other => (other, None),
                };
            }
            Line::Complete(line) => line,
        };
        // The rule against smuggling, see the module `protocol`.
        if memchr::memchr3(b'\r', b'\n', 0, line).is_some() {
            let reply = "500 5.5.2 a lone CR, LF or NUL is in the command";
            return (self.context.error(command, reply, output), None);
        }
        match command::parse(line) {
            Ok(parsed) => command.handle(parsed, &mut self.context, output),
            Err(error) if error.ends_session() => {
                put_line(output, error.reply());
                (State::Closed, None)
            }
            Err(error) => (self.context.error(command, error.reply(), output), None),
        }
    }

    fn skip_line(command: state::Command, input: &mut Input<'_>) -> (State, Option<Want>) {
        match memchr::memmem::find(input.remaining(), b"\r\n") {
            Some(at) => {
                input.take(at + 2);
                (State::Command(command), None)
            }
            None => {
                // A CR at the end may belong to the line end.
                let keep = usize::from(input.remaining().ends_with(b"\r"));
                input.take(input.remaining().len() - keep);
                (State::SkipLine(command), Some(Want::Input))
            }
        }
    }

    /// Answers [`Want::Policy`].
    pub fn verdict(&mut self, verdict: Verdict, now: Now, output: &mut Vec<u8>) {
        self.active_at = now.mono_ns;
        let state = std::mem::replace(&mut self.state, State::Closed);
        self.state = match state {
            State::Judged(judged) => judged.verdict(verdict, &mut self.context, output),
            other => other,
        };
    }

    /// Answers [`Want::Begin`] with the id the message will have.
    pub fn begin(&mut self, id: &str, now: Now, output: &mut Vec<u8>) {
        let state = std::mem::replace(&mut self.state, State::Closed);
        self.state = match state {
            State::Beginning(beginning) => beginning.begin(&mut self.context, id, now, output),
            other => other,
        };
    }

    /// Answers [`Want::Store`].
    pub fn stored(&mut self, stored: Stored<'_>, now: Now, output: &mut Vec<u8>) {
        self.active_at = now.mono_ns;
        let State::Storing(replies) = self.state else {
            return;
        };
        for _ in 0..replies {
            put_stored(stored, output);
        }
        self.state = State::Command(state::Command::Ready);
        self.leave_if_stopping(output);
    }

    /// Answers [`Want::Store`] in LMTP: a reply line for each recipient, in their order.
    pub fn stored_each(&mut self, replies: &[String], now: Now, output: &mut Vec<u8>) {
        self.active_at = now.mono_ns;
        if matches!(self.state, State::Storing(_)) {
            for reply in replies {
                put_line(output, reply);
            }
            self.state = State::Command(state::Command::Ready);
            self.leave_if_stopping(output);
        }
    }

    /// The caller had stopped reading and goes on: the client's idle time begins now.
    pub fn resumed(&mut self, now: Now) {
        self.active_at = now.mono_ns;
    }

    /// Monotonic time at which [`Self::timeout`] is due.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        self.ends_at
            .min(self.active_at.saturating_add(self.context.settings.idle_ns))
    }

    /// RFC 5321 4.5.3.2.7: says 421 and ends.
    pub fn timeout(&mut self, now: Now, output: &mut Vec<u8>) {
        let what = if now.mono_ns >= self.ends_at {
            "session too long"
        } else {
            "idle too long"
        };
        let hostname = &self.context.settings.hostname;
        output.extend_from_slice(format!("421 4.4.2 {hostname} {what}, closing\r\n").as_bytes());
        self.state = State::Closed;
        // What is still to be flushed gets one more idle time.
        self.active_at = now.mono_ns;
        self.ends_at = now.after_ns(self.context.settings.idle_ns);
    }

    /// The server goes down: 421 at the next command boundary, which may be now.
    pub fn shutdown(&mut self, output: &mut Vec<u8>) {
        self.context.stopping = true;
        self.leave_if_stopping(output);
    }

    /// Between DATA (or the first BDAT) and the end of the content.
    #[must_use]
    pub fn is_receiving_content(&self) -> bool {
        matches!(self.state, State::Content(_) | State::Chunk(_))
    }

    /// Between DATA or the first BDAT and the end of the content, also between its chunks.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.is_receiving_content()
            || matches!(self.state, State::Command(state::Command::Chunks(_)))
    }

    fn body(&mut self) -> Option<&mut Body> {
        match &mut self.state {
            State::Content(content) => Some(&mut content.body),
            State::Chunk(chunk) => chunk.body(),
            State::Command(command) => command.body(),
            _ => None,
        }
    }

    /// Bytes of content held.
    pub fn held_bytes(&mut self) -> usize {
        self.body().map_or(0, |body| body.buffer.len())
    }

    /// Memory that holds content, used or not.
    pub fn held_capacity(&mut self) -> usize {
        self.body().map_or(0, |body| body.buffer.capacity())
    }

    /// Takes whole blocks of the content that has arrived; the transaction that is handed out holds what
    /// follows them. May be nothing.
    pub fn take_content(&mut self, block_bytes: usize) -> Vec<u8> {
        self.body()
            .map_or_else(Vec::new, |body| body.take(block_bytes))
    }
}

impl Context {
    /// A refused command: replies, counts, and ends the session above the limit.
    fn error(&mut self, command: state::Command, reply: &str, output: &mut Vec<u8>) -> State {
        self.errors_count += 1;
        if self.errors_count > self.settings.errors_max {
            output.extend_from_slice(b"421 4.7.0 too many errors, closing\r\n");
            return State::Closed;
        }
        put_line(output, reply);
        State::Command(command)
    }
}

fn put_stored(stored: Stored<'_>, output: &mut Vec<u8>) {
    match stored {
        Stored::Accepted { id } => {
            output.extend_from_slice(b"250 2.0.0 ");
            output.extend_from_slice(id.as_bytes());
            output.extend_from_slice(b" accepted\r\n");
        }
        Stored::Full => output.extend_from_slice(b"452 4.3.1 insufficient system storage\r\n"),
        Stored::Failed => output.extend_from_slice(b"451 4.3.0 the message was not stored\r\n"),
        Stored::TooLarge => output.extend_from_slice(b"552 5.3.4 the message is too large\r\n"),
    }
}

/// Appends a reply line.
fn put_line(output: &mut Vec<u8>, line: &str) {
    output.extend_from_slice(line.as_bytes());
    output.extend_from_slice(b"\r\n");
}

fn next_line<'a>(input: &mut Input<'a>, limit: usize) -> Line<'a> {
    let rest = input.remaining();
    let window = rest.get(..limit).unwrap_or(rest);
    match memchr::memmem::find(window, b"\r\n") {
        Some(at) => {
            let line = input.take(at + 2);
            Line::Complete(line.get(..at).unwrap_or_default())
        }
        None if rest.len() >= limit => Line::TooLong,
        None => Line::Partial,
    }
}
