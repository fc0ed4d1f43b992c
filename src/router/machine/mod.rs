//! Runs compiled scripts.
//!
//! An [`Evaluation`] holds everything a script can see. It runs until it is done, needs something from outside or has
//! run long enough for one turn, and goes on from there: no call of a script is a call of the machine. What a script
//! may use is bounded by [`Limits`].

mod call;
mod flow;
mod frame;
mod limits;
mod output;
mod redirect;
mod sift;
mod state;
mod trace;
mod word;

use std::rc::Rc;

use super::code::{self, Code, Op, Place, Symbol};
use super::diagnostic::{Diagnostic, Source};
use super::request::{Answer, Request};
use super::syntax;
use super::value::{Text, Value};

pub use limits::{Limit, Limits};
pub use output::Returned;
pub use state::{Arguments, Callable};
pub use trace::{Event, Trace};

use frame::{Frame, Stacks};
use output::{Input, Io, Sink};
use sift::Sift;
use state::State;
use word::Builder;

/// What came of a turn.
#[derive(Debug)]
pub enum Turn {
    /// The script has ended with this status.
    Done(i32),
    /// It goes on with the answer to this.
    Need(Request),
    /// It has run for long; it goes on with the next turn.
    More,
    /// It used more than it may.
    Stopped(Limit),
}

/// Why an operation did not simply end.
pub(super) enum Pause {
    /// See [`Turn`].
    Turn(Turn),
}

/// What operations and built-ins return.
pub(super) type Flow = Result<(), Pause>;

/// What goes on with an answer.
type Waiting = Box<dyn FnOnce(&mut Evaluation, Answer) -> Flow>;

/// Operations of one turn.
const TURN_STEPS: u64 = 20_000;

/// A running, waiting or idle script.
pub struct Evaluation {
    pub(super) state: State,
    pub(super) limits: Limits,
    pub(super) trace: Trace,
    /// What is run.
    code: Rc<Code>,
    place: Place,
    frames: Vec<Frame>,
    pub(super) arguments: Vec<Value>,
    marks: Vec<usize>,
    values: Vec<Value>,
    builders: Vec<Builder>,
    buffer: Vec<u8>,
    /// Pattern characters of the last value, for `case`.
    magic: Vec<(usize, usize)>,
    stacks: Stacks,
    cases: Vec<Value>,
    sifts: Vec<Sift>,
    sift_tools: sift::Tools,
    io: Io,
    saved: Vec<output::Saved>,
    sinks: Vec<Sink>,
    inputs: Vec<Input>,
    /// Files that were written behind a redirection that has ended.
    unwritten: Vec<(Vec<u8>, Vec<u8>)>,
    returned: Returned,
    /// The value has not been shown yet.
    unshown: bool,
    pub(super) status: i32,
    waiting: Option<Waiting>,
    ended: Option<i32>,
}

impl Evaluation {
    /// An evaluation that knows the built-ins only.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let source = Source::new("", b"");
        let mut state = State::new();
        let code = Rc::new(Code::empty(&source));
        state.add_builtins();
        Self {
            state,
            limits,
            trace: Trace::default(),
            code,
            place: 0,
            frames: Vec::new(),
            arguments: Vec::new(),
            marks: Vec::new(),
            values: Vec::new(),
            builders: Vec::new(),
            buffer: Vec::new(),
            magic: Vec::new(),
            stacks: Stacks::default(),
            cases: Vec::new(),
            sifts: Vec::new(),
            sift_tools: sift::Tools::default(),
            io: Io::default(),
            saved: Vec::new(),
            sinks: output::standard_sinks(),
            inputs: vec![Input::Standard],
            unwritten: Vec::new(),
            returned: Returned::Nothing,
            unshown: false,
            status: 0,
            waiting: None,
            ended: None,
        }
    }

    /// Makes a script what runs next.
    ///
    /// # Errors
    /// All errors of the script; nothing is changed then.
    pub fn load(&mut self, source: &Rc<Source>, arguments: &[&[u8]]) -> Result<(), Vec<Diagnostic>> {
        let code = self.compile(source)?;
        let positionals = arguments.iter().map(|text| Value::from(*text)).collect();
        self.begin();
        self.enter_script(code, positionals);
        Ok(())
    }

    /// Makes a function what runs next. `false`: there is no function of that name.
    pub fn call(&mut self, name: &[u8], arguments: Vec<Value>) -> bool {
        let Some(symbol) = self.state.symbols.lookup(name) else {
            return false;
        };
        let Some(Callable::Function(function)) = self.state.callable(symbol) else {
            return false;
        };
        self.begin();
        self.marks.push(self.arguments.len());
        self.arguments.extend(arguments);
        self.enter_function(&function).is_ok()
    }

    /// Runs for a turn.
    pub fn run(&mut self) -> Turn {
        let mut steps = 0;
        loop {
            if let Some(status) = self.ended {
                return self.finish(status);
            }
            if steps >= TURN_STEPS {
                self.limits.steps_used += steps;
                return match self.limits.check() {
                    Some(limit) => self.stop(limit),
                    None => Turn::More,
                };
            }
            steps += 1;
            if let Err(Pause::Turn(turn)) = self.step() {
                self.limits.steps_used += steps;
                if let Turn::Stopped(limit) = turn {
                    return self.stop(limit);
                }
                return turn;
            }
        }
    }

    /// Goes on with an answer; the next turn shows what came of it.
    pub fn answer(&mut self, answer: Answer) {
        if let Some(waiting) = self.waiting.take()
            && let Err(Pause::Turn(turn)) = waiting(self, answer)
        {
            self.waiting_turn(turn);
        }
    }

    /// What the last command returned: the value of a [`Self::call`].
    #[must_use]
    pub fn take_returned(&mut self) -> Option<Value> {
        self.unshown = false;
        std::mem::replace(&mut self.returned, Returned::Nothing).into_value()
    }

    pub(super) fn compile(&mut self, source: &Rc<Source>) -> Result<Rc<Code>, Vec<Diagnostic>> {
        let parsed = syntax::parse(source)?;
        let code = code::compile(source, &parsed, &mut self.state.symbols).map_err(|error| vec![error])?;
        self.state.grow();
        Ok(code)
    }

    /// Asks for something; `then` goes on with the answer.
    pub(super) fn need(&mut self, request: Request, then: impl FnOnce(&mut Self, Answer) -> Flow + 'static) -> Flow {
        self.waiting = Some(Box::new(then));
        Err(Pause::Turn(Turn::Need(request)))
    }

    /// Says something about the place that is run, on the error output.
    pub(super) fn complain(&mut self, message: &str) {
        let place = self.place.saturating_sub(1) as usize;
        let at = self.code.places.get(place).copied().unwrap_or(0);
        let (line, _) = self.code.source.line_column(at as usize);
        let name = &self.code.source.name;
        let text = if name.is_empty() {
            format!("{message}\n")
        } else {
            format!("{name}:{line}: {message}\n")
        };
        self.write_error(text.as_bytes());
    }

    pub(super) fn symbol(&mut self, name: &[u8]) -> Result<Symbol, Pause> {
        let symbol = self.state.symbols.intern(name);
        self.state.grow();
        symbol.ok_or(Pause::Turn(Turn::Stopped(Limit::Names)))
    }

    /// A text made by the script: it counts.
    pub(super) fn new_text(&mut self, bytes: &[u8]) -> Text {
        self.limits.allocate(bytes.len());
        Text::from(bytes)
    }
}
