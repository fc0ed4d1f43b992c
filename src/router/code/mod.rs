//! The compiled form of a script: a list of small operations for the machine.
//!
//! Words are built by a builder that is opened, fed and closed; arguments gather behind a mark; what must be undone
//! (scopes, redirections, loops, captures) is opened and closed in pairs, so that `break`, `return` and `exit` can
//! leave from anywhere.

mod command;
mod compile;
mod symbol;
mod word;

use std::rc::Rc;

use super::diagnostic::Source;
use super::pattern::{Glob, Pattern};
use super::syntax::ast::At;
use super::value::Text;

pub use compile::compile;
pub use symbol::{Symbol, Symbols};

/// A place in a code: index of an operation.
pub type Place = u32;

/// One step of the machine.
#[derive(Clone, Debug)]
pub enum Op {
    /// Opens a word that may become several arguments.
    Begin,
    /// Opens a word that becomes one value.
    BeginValue,
    /// Adds a text to the word.
    Literal(u32),
    /// Adds a text whose pattern characters are magic.
    Magic(u32),
    /// Adds a parameter.
    Parameter {
        /// Which.
        parameter: Param,
        /// An empty one keeps the word.
        quoted: bool,
    },
    /// Adds a group of the innermost sift.
    Group(u8),
    /// Keeps the word even when it stays empty.
    Keep,
    /// Closes the word: it becomes no, one or several arguments.
    EndArgument,
    /// Closes the word: it becomes one value.
    EndValue,
    /// A value that is one text.
    ValueLiteral(u32),
    /// A value that is one variable's.
    ValueVariable(Symbol),
    /// An argument that is one text.
    ArgumentLiteral(u32),
    /// An argument that is one variable.
    ArgumentVariable {
        /// Which.
        symbol: Symbol,
        /// An empty one stays.
        quoted: bool,
    },
    /// An argument that is one parameter other than a variable, `$*` and `$@`.
    ArgumentParameter {
        /// Which.
        parameter: Param,
        /// An empty one stays.
        quoted: bool,
    },
    /// A value that is such a parameter.
    ValueParameter(Param),
    /// Goes there when the parameter is unset, or with `colon` empty.
    JumpIfUnset {
        /// Which.
        parameter: Param,
        /// Empty counts as unset.
        colon: bool,
        /// Where to.
        to: Place,
    },
    /// `${x=word}`: assigns the value on top and adds it to the word.
    AssignDefault(Param),
    /// `${x?word}`: says the value on top and exits with status 1.
    Complain(Param),
    /// Arguments gather from here.
    Mark,
    /// The arguments since the mark become a list, which is added to the word.
    EndList,
    /// The same, and the list is an argument.
    ListArgument,
    /// The same, and the list is a value.
    ListValue,
    /// Output is caught from here.
    Capture,
    /// The value or the output of what ran is added to the word.
    EndCapture {
        /// Not split at blanks.
        quoted: bool,
    },
    /// The same, and the word ends with it: it becomes no, one or several arguments.
    CaptureArgument {
        /// Not split at blanks.
        quoted: bool,
    },
    /// The same, and the word becomes one value.
    CaptureValue {
        /// An empty one keeps the word.
        quoted: bool,
    },
    /// Assigns the value on top.
    Assign(Symbol),
    /// Assigns the value on top until [`Op::EndTemporary`].
    AssignTemporary(Symbol),
    /// Undoes that many temporary assignments.
    EndTemporary(u32),
    /// Runs the command whose name and arguments stand behind the mark.
    Call,
    /// The same with a name that is known: [`Op::Mark`] and the arguments only.
    CallNamed(Symbol),
    /// Redirections follow; when one fails, go there.
    Redirect(Place),
    /// The descriptor reads, writes or appends to the file named by the value on top.
    File {
        /// Which descriptor.
        descriptor: u8,
        /// How.
        mode: FileMode,
    },
    /// The descriptor reads the value on top.
    Here(u8),
    /// The descriptor becomes the same as another.
    Duplicate {
        /// Which descriptor.
        descriptor: u8,
        /// As which.
        of: u8,
    },
    /// The descriptor is closed.
    Close(u8),
    /// Ends the redirections of the last [`Op::Redirect`].
    EndRedirect,
    /// What runs now writes into a pipe.
    Pipe,
    /// What runs now reads what was written into the pipe.
    PipeInput,
    /// Both: what read a pipe and wrote into the next has ended.
    PipeNext,
    /// Ends [`Op::PipeInput`].
    EndPipe,
    /// Goes there.
    Jump(Place),
    /// Goes there after failure.
    JumpIfFailed(Place),
    /// Goes there after success.
    JumpIfSucceeded(Place),
    /// Sets the status.
    Status(u8),
    /// Variables from here on can be local.
    Scope,
    /// Locals end.
    EndScope,
    /// The variable is local, and nil.
    Local(Symbol),
    /// A loop: where `break` and `continue` go.
    Loop {
        /// Behind the loop, at its [`Op::EndLoop`].
        exit: Place,
        /// The next round.
        again: Place,
    },
    /// Ends a loop.
    EndLoop,
    /// The arguments since the mark are taken one by one.
    For,
    /// The next one becomes the variable's value; after the last, go there.
    ForNext {
        /// The variable.
        symbol: Symbol,
        /// Behind the loop.
        exit: Place,
    },
    /// Ends [`Op::For`].
    EndFor,
    /// Pushes the words that the function was called with as arguments.
    Positionals,
    /// The value on top is what a `case` looks at.
    Case,
    /// Goes there when the pattern on top fits.
    CaseMatch(Place),
    /// The same with a pattern that is known.
    CaseFixed {
        /// In [`Code::globs`].
        glob: u32,
        /// Where to.
        to: Place,
    },
    /// The other way round: goes there when it does not fit.
    CaseUnless {
        /// In [`Code::globs`].
        glob: u32,
        /// Where to.
        to: Place,
    },
    /// Ends a case.
    EndCase,
    /// A sift begins; assignments to these variables make it look again.
    Sift(u32),
    /// The value on top is what the sift looks at.
    SiftBody(SiftKind),
    /// A label begins: when a watched variable changed, evaluate the expression there again first.
    SiftLabel(Place),
    /// Goes there when the pattern does not fit.
    SiftTest {
        /// In [`Code::patterns`].
        pattern: u32,
        /// The next label.
        otherwise: Place,
    },
    /// The same with the pattern on top.
    SiftTestDynamic(Place),
    /// Ends a sift.
    EndSift,
    /// Defines a function.
    Define(u32),
    /// Runs a block whose changes end with it.
    Subshell(u32),
    /// Routes the next member of a list; after the last, go there.
    Member(Place),
    /// Takes what came of a member and goes back there.
    MemberRouted(Place),
    /// The members found are the value.
    MembersEnd,
    /// The end of a function or script.
    Return,
}

/// Bytes or tokens.
pub type SiftKind = super::pattern::Kind;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileMode {
    /// For reading.
    Read,
    /// Emptied first.
    Write,
    /// At its end.
    Append,
}

/// A parameter by symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Param {
    /// A variable.
    Variable(Symbol),
    /// The variable whose name is this one's value.
    Indirect(Symbol),
    /// An argument.
    Positional(u32),
    /// Number of arguments.
    Count,
    /// Length of a list.
    CountOf(Symbol),
    /// All arguments as one word.
    Star,
    /// All arguments.
    At,
    /// Status of the last command.
    Status,
    /// Number of the process.
    Process,
    /// Options that are set.
    Flags,
}

/// A script, a function or a block.
#[derive(Debug)]
pub struct Code {
    /// What runs.
    pub ops: Vec<Op>,
    /// Where each operation comes from.
    pub places: Vec<At>,
    /// The script.
    pub source: Rc<Source>,
    /// Texts of literals.
    pub texts: Vec<Text>,
    /// Labels without expansions.
    pub patterns: Vec<Pattern>,
    /// Patterns of cases without expansions.
    pub globs: Vec<Glob>,
    /// Variables that sifts look at.
    pub watches: Vec<Vec<Symbol>>,
    /// Functions that it defines.
    pub functions: Vec<Rc<Function>>,
    /// Blocks of subshells.
    pub blocks: Vec<Rc<Code>>,
    /// Names in it that were made since the configuration was loaded.
    pub made: Vec<Symbol>,
}

impl Code {
    /// `file:line` of the operation before `place`; empty: it stands in no script.
    #[must_use]
    pub fn place_of(&self, place: Place) -> String {
        if self.source.name.is_empty() {
            return String::new();
        }
        let number = place.saturating_sub(1) as usize;
        let at = self.places.get(number).copied().unwrap_or(0);
        let (line, _) = self.source.line_column(at as usize);
        format!("{}:{line}", self.source.name)
    }
}

/// A function.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: Symbol,
    /// Parameters that take arguments.
    pub parameters: Vec<Symbol>,
    /// What it runs.
    pub code: Rc<Code>,
}
