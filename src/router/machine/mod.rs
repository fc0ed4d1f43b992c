//! Runs compiled scripts.
//!
//! An [`Evaluation`] holds everything a script can see. It runs until it is done, needs something from outside or has
//! run long enough for one turn, and goes on from there: no call of a script is a call of the machine. What a script
//! may use is bounded by [`Limits`].

mod call;
mod database;
mod eval;
mod expansion;
mod flow;
mod frame;
mod limits;
mod living;
mod members;
mod output;
mod parameter;
mod redirect;
mod service;
mod sift;
mod state;
mod trace;
mod word;

use std::rc::Rc;

use super::code::{self, Code, Place, Symbol};
use super::diagnostic::{Diagnostic, Source};
use super::relation::Maps;
use super::request::{Answer, Request};
use super::syntax;
use super::value::{Text, Value};
use crate::base::clock::Now;

pub use database::MapRequest;
pub use expansion::Expansion;
pub use limits::{Limit, Limits};
pub use output::Returned;
pub use service::Surroundings;
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
pub enum Pause {
    /// See [`Turn`]. In a box: nearly all operations simply end.
    Turn(Box<Turn>),
}

impl Pause {
    fn of(turn: Turn) -> Self {
        Self::Turn(Box::new(turn))
    }
}

/// What operations and built-ins return.
pub type Flow = Result<(), Pause>;

/// What goes on with an answer.
type Waiting = Box<dyn FnOnce(&mut Evaluation, Answer) -> Flow>;

/// A running, waiting or idle script.
pub struct Evaluation {
    pub(super) state: State,
    pub(super) limits: Limits,
    pub(super) trace: Trace,
    /// What is run.
    code: Rc<Code>,
    place: Place,
    /// The next operation may be one of another code, or something else is to be done before it.
    switched: bool,
    frames: Vec<Frame>,
    pub(super) arguments: Vec<Value>,
    marks: Vec<usize>,
    values: Vec<Value>,
    builders: Vec<Builder>,
    buffer: Vec<u8>,
    /// Pattern characters of the last value, for `case`.
    magic: Vec<(usize, usize)>,
    /// Which bytes of a `case` pattern are quoted.
    quoted: Vec<bool>,
    stacks: Stacks,
    cases: Vec<Text>,
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
    /// What the answer to a request asked for next.
    again: Option<Request>,
    /// A limit that an answer reached.
    stopped: Option<Limit>,
    ended: Option<i32>,
    /// The script's status and value, while the trap of its end runs.
    before_trap: Option<(i32, Returned)>,
    databases: database::Databases,
    evals: eval::Evals,
    expansions: Vec<Expansion>,
    pub(super) router: Surroundings,
    /// As they were when the configuration was loaded.
    kept_surroundings: Option<Box<Surroundings>>,
    /// With whose rights files are read; none: the router's own.
    user: Option<u32>,
    /// Runs its arguments as a command.
    forwarding: Option<Rc<Code>>,
    /// Walks over the members of a list.
    expanding: Option<Rc<Code>>,
    /// Errors of scripts that scripts ran.
    errors: Vec<Diagnostic>,
    /// When the turn began.
    now: Now,
    /// The empty text, which is used often.
    empty: Value,
    /// Scripts that were loaded before [`Self::keep`].
    sources: Vec<Rc<Source>>,
    collecting: bool,
    /// The script has called `exit`.
    exited: bool,
}

impl Evaluation {
    /// An evaluation that knows the built-ins only.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let mut state = State::new();
        state.add_builtins();
        let mut evaluation = Self::bare(limits, state);
        evaluation.add_predefined();
        evaluation
    }

    fn bare(limits: Limits, state: State) -> Self {
        let source = Source::new("", b"");
        let code = Rc::new(Code::empty(&source));
        Self {
            state,
            limits,
            trace: Trace::default(),
            code,
            place: 0,
            switched: false,
            frames: Vec::new(),
            arguments: Vec::new(),
            marks: Vec::new(),
            values: Vec::new(),
            builders: Vec::new(),
            buffer: Vec::new(),
            magic: Vec::new(),
            quoted: Vec::new(),
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
            again: None,
            stopped: None,
            ended: Some(0),
            before_trap: None,
            databases: database::Databases::default(),
            evals: eval::Evals::default(),
            expansions: Vec::new(),
            router: Surroundings::default(),
            kept_surroundings: None,
            user: None,
            forwarding: None,
            expanding: None,
            errors: Vec::new(),
            now: Now::default(),
            empty: Value::from(""),
            sources: Vec::new(),
            collecting: false,
            exited: false,
        }
    }

    /// Makes a script what runs next.
    ///
    /// # Errors
    /// All errors of the script; nothing is changed then.
    pub fn load(
        &mut self,
        source: &Rc<Source>,
        arguments: &[&[u8]],
    ) -> Result<(), Vec<Diagnostic>> {
        let code = self.compile(source)?;
        let positionals = arguments.iter().map(|text| Value::from(*text)).collect();
        self.begin();
        self.enter_script(code, positionals);
        Ok(())
    }

    /// An evaluation that starts with what this one kept, to run beside it.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut fork = Self::bare(self.limits.clone(), self.state.fork());
        fork.databases = self.fork_databases();
        fork.router = match &self.kept_surroundings {
            Some(kept) => (**kept).clone(),
            None => self.router.clone(),
        };
        fork.kept_surroundings = self.kept_surroundings.clone();
        fork
    }

    /// Makes a function what runs next; what it writes is kept for [`Self::take_printed`]. `false`: there is no
    /// function of that name.
    pub fn call(&mut self, name: &[u8], arguments: Vec<Value>) -> bool {
        let Some(symbol) = self.state.symbols.lookup(name) else {
            return false;
        };
        let Some(Callable::Function(function)) = self.state.callable(symbol) else {
            return false;
        };
        self.begin();
        self.open_buffer();
        self.marks.push(self.arguments.len());
        self.arguments.extend(arguments);
        self.enter_function(&function).is_ok()
    }

    /// Runs for a turn. `now` ages what relations remember.
    pub fn run(&mut self, maps: &dyn Maps, now: Now) -> Turn {
        self.now = now;
        if let Some(request) = self.again.take() {
            return Turn::Need(request);
        }
        if let Some(limit) = self.stopped.take() {
            return self.stop(limit);
        }
        let turn_end = self.limits.turn_end();
        while self.limits.steps_used < turn_end {
            let flow = match (&self.databases.work, self.ended) {
                (Some(_), _) => self.do_work(maps, now),
                (None, Some(status)) => return self.finish(status),
                (None, None) => self.run_operations(turn_end),
            };
            if let Err(Pause::Turn(turn)) = flow {
                return self.turn_ended(*turn);
            }
            if self.limits.audit_due()
                && let Err(limit) = self.audit()
            {
                return self.stop(limit);
            }
        }
        if self.output_is_due()
            && let Err(Pause::Turn(turn)) = self.flush_then(|_| Ok(()))
        {
            return self.turn_ended(*turn);
        }
        self.turn_ended(Turn::More)
    }

    /// Whatever the turn ends with, steps are bounded.
    fn turn_ended(&mut self, turn: Turn) -> Turn {
        match (turn, self.limits.check()) {
            (Turn::Stopped(limit), _) | (_, Some(limit)) => self.stop(limit),
            (turn, None) => turn,
        }
    }

    /// What is loaded now is what each later call starts with.
    pub fn keep(&mut self) {
        self.state.keep();
        self.settle_databases();
        self.kept_surroundings = Some(Box::new(self.router.clone()));
        self.collecting = false;
    }

    /// Forgets what was assigned, defined, added and set since [`Self::keep`].
    pub fn reset(&mut self) {
        self.begin();
        self.state.reset();
        self.reset_databases();
        if let Some(kept) = &self.kept_surroundings
            && self.router != **kept
        {
            self.router = (**kept).clone();
        }
    }

    /// A variable, for who calls functions of the script.
    #[must_use]
    pub fn variable_named(&self, name: &[u8]) -> Option<Value> {
        match self.state.symbols.lookup(name) {
            Some(symbol) => self.state.value(symbol).cloned(),
            None => self.state.members.list(name),
        }
    }

    /// Sets a variable. `false`: there are too many names.
    pub fn set_variable(&mut self, name: &[u8], value: Value) -> bool {
        match self.symbol(name) {
            Ok(symbol) => {
                self.state.assign(symbol, value);
                true
            }
            Err(_) => false,
        }
    }

    /// A variable of the process that runs the script: the script and its programs see it.
    pub fn set_environment(&mut self, name: &[u8], value: &[u8]) {
        if self.set_variable(name, Value::from(value)) {
            self.state.add_environment(name, value);
        }
    }

    /// Whether there is a function of that name.
    #[must_use]
    pub fn has_function(&self, name: &[u8]) -> bool {
        let symbol = self.state.symbols.lookup(name);
        symbol.is_some_and(|symbol| {
            matches!(self.state.callable(symbol), Some(Callable::Function(_)))
        })
    }

    /// Operations that the current call has taken.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.limits.steps_used
    }

    /// What it may use from the next call on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// What scripts set for the router around them.
    pub fn surroundings(&mut self) -> &mut Surroundings {
        &mut self.router
    }

    /// What the script did, when it was told to remember.
    pub fn trace(&mut self) -> &mut Trace {
        &mut self.trace
    }

    /// Errors of scripts that scripts ran.
    pub fn take_errors(&mut self) -> Vec<Diagnostic> {
        std::mem::take(&mut self.errors)
    }

    /// Remembers the scripts that are loaded from now on, up to [`Self::keep`], for [`Self::sources`].
    pub fn collect_sources(&mut self) {
        self.collecting = true;
    }

    /// Scripts that were loaded, with those that they ran by `.`, in order.
    #[must_use]
    pub fn sources(&self) -> &[Rc<Source>] {
        &self.sources
    }

    /// Whether the last script has called `exit`: who types scripts wants to leave.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        self.exited
    }

    /// Whether a name is a function or a relation.
    #[must_use]
    pub fn is_defined(&self, name: &[u8]) -> bool {
        let symbol = self.state.symbols.lookup(name);
        symbol.is_some_and(|symbol| self.state.callable(symbol).is_some())
    }

    /// Goes on with an answer; the next turn shows what came of it.
    pub fn answer(&mut self, answer: Answer) {
        let Some(waiting) = self.waiting.take() else {
            return;
        };
        match waiting(self, answer) {
            Err(Pause::Turn(turn)) => self.waiting_turn(*turn),
            Ok(()) => self.command_ended(),
        }
    }

    /// What a [`Self::call`] that has ended wrote.
    pub fn take_printed(&mut self) -> Vec<u8> {
        self.close_io()
    }

    /// What the last command returned: the value of a [`Self::call`].
    #[must_use]
    pub fn take_returned(&mut self) -> Option<Value> {
        self.unshown = false;
        std::mem::replace(&mut self.returned, Returned::Nothing).into_value()
    }

    pub(super) fn compile(&mut self, source: &Rc<Source>) -> Result<Rc<Code>, Vec<Diagnostic>> {
        if self.collecting && !matches!(source.name.as_str(), "eval" | "trap") {
            self.sources.push(Rc::clone(source));
        }
        let parsed = syntax::parse(source)?;
        let code =
            code::compile(source, &parsed, &mut self.state.symbols).map_err(|error| vec![error])?;
        self.state.grow();
        Ok(code)
    }

    /// Asks for something; `then` goes on with the answer.
    pub(super) fn need(
        &mut self,
        request: Request,
        then: impl FnOnce(&mut Self, Answer) -> Flow + 'static,
    ) -> Flow {
        self.waiting = Some(Box::new(then));
        Err(Pause::of(Turn::Need(request)))
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
        let known = self.state.symbols.len();
        let symbol = self.state.symbols.intern(name);
        if self.state.symbols.len() > known {
            self.limits.allocate(name.len() + limits::NAME_BYTES);
            self.state.grow();
        }
        symbol.ok_or_else(|| Pause::of(Turn::Stopped(Limit::Names)))
    }
}

#[cfg(test)]
mod tests;
