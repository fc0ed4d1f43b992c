//! The tree of a script.

use crate::router::pattern::Kind;

/// Offset in the source.
pub type At = u32;

/// Commands one after the other.
pub type Block = Vec<Chain>;

/// Pipelines joined by `&&` and `||`. Both bind to the right: `a && b || c` runs `b || c` when `a` succeeds.
#[derive(Clone, Debug)]
pub struct Chain {
    /// What runs first.
    pub first: Pipeline,
    /// What follows, and when.
    pub rest: Option<(Junction, Box<Chain>)>,
}

/// When the next pipeline runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Junction {
    /// `&&`: after success.
    And,
    /// `||`: after failure.
    Or,
}

/// Commands that hand their output on.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// At least one.
    pub commands: Vec<Command>,
}

/// A command with its redirections.
#[derive(Clone, Debug)]
pub struct Command {
    /// Where it begins.
    pub at: At,
    /// What it is.
    pub kind: CommandKind,
    /// In the order written.
    pub redirections: Vec<Redirection>,
}

/// The kinds of commands.
#[derive(Clone, Debug)]
pub enum CommandKind {
    /// `a=b name word...`
    Simple(Simple),
    /// `name (a, b) body`
    Function(Function),
    /// `{ ... }`: a scope of its own.
    Group(Block),
    /// `( ... )`: what it changes is gone behind it.
    Subshell(Block),
    /// `if`
    If {
        /// Conditions and what they guard.
        branches: Vec<(Block, Block)>,
        /// `else`
        otherwise: Block,
    },
    /// `while` or `until`
    While {
        /// Tested before each round.
        condition: Block,
        /// The round.
        body: Block,
        /// Goes on while the condition fails.
        until: bool,
    },
    /// `for`
    For {
        /// Its variable, local to the loop.
        variable: Box<[u8]>,
        /// What it takes; none: the arguments of the function.
        words: Option<Vec<Word>>,
        /// The round.
        body: Block,
    },
    /// `case`
    Case {
        /// What is looked at.
        word: Word,
        /// In order; the first that fits is run.
        arms: Vec<Arm>,
    },
    /// `ssift` or `tsift`
    Sift {
        /// Bytes or tokens.
        kind: Kind,
        /// What is looked at.
        word: Word,
        /// In order; each that fits is run.
        rules: Vec<Rule>,
    },
    /// `local a b`
    Local(Vec<Box<[u8]>>),
}

/// Assignments and words.
#[derive(Clone, Debug, Default)]
pub struct Simple {
    /// For this command only when there are words.
    pub assignments: Vec<(Box<[u8]>, Word)>,
    /// Name and arguments.
    pub words: Vec<Word>,
}

/// A function definition.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name.
    pub name: Box<[u8]>,
    /// Named parameters.
    pub parameters: Vec<Box<[u8]>>,
    /// What it runs.
    pub body: Pipeline,
}

/// `a|b) ... ;;`
#[derive(Clone, Debug)]
pub struct Arm {
    /// Patterns.
    pub patterns: Vec<Word>,
    /// What they guard.
    pub body: Block,
}

/// `label body ;;`
#[derive(Clone, Debug)]
pub struct Rule {
    /// Where the label stands.
    pub at: At,
    /// A pattern; its expansions are replaced when it is tested.
    pub label: Word,
    /// What it guards.
    pub body: Block,
}

/// A word: its parts joined.
#[derive(Clone, Debug, Default)]
pub struct Word {
    /// Where it begins.
    pub at: At,
    /// Its parts.
    pub parts: Vec<Part>,
}

impl Word {
    /// The text of a word that is one unquoted literal.
    #[must_use]
    pub fn plain(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [
                Part::Literal {
                    text,
                    quoted: false,
                },
            ] => Some(text),
            _ => None,
        }
    }
}

/// A part of a word.
#[derive(Clone, Debug)]
pub enum Part {
    /// Text.
    Literal {
        /// As written, quoting removed.
        text: Box<[u8]>,
        /// Keeps an empty word, and makes pattern characters ordinary.
        quoted: bool,
    },
    /// `$x`
    Parameter {
        /// Which.
        parameter: Parameter,
        /// In double quotes.
        quoted: bool,
    },
    /// `${x-word}` and its kin.
    Conditional {
        /// Which.
        parameter: Parameter,
        /// Which of `- = ? +`.
        operator: u8,
        /// With `:`: empty counts as unset.
        colon: bool,
        /// The operand.
        word: Word,
        /// In double quotes.
        quoted: bool,
    },
    /// `$(...)`
    Command {
        /// What is run.
        block: Block,
        /// In double quotes.
        quoted: bool,
    },
    /// `(a b)`
    List(Vec<Word>),
    /// `\1`: a group of the innermost sift.
    Group(u8),
}

/// What `$` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// `$name`
    Named(Box<[u8]>),
    /// `${$name}`: the variable that is named by another.
    Indirect(Box<[u8]>),
    /// `$1`; `$0` is the function's name.
    Positional(u32),
    /// `$#`
    Count,
    /// `$#name`
    CountOf(Box<[u8]>),
    /// `$*`
    Star,
    /// `$@`
    At,
    /// `$?`
    Status,
    /// `$$`
    Process,
    /// `$-`
    Flags,
}

/// `2>file` and its kin.
#[derive(Clone, Debug)]
pub struct Redirection {
    /// Where it stands.
    pub at: At,
    /// The descriptor that it changes.
    pub descriptor: u8,
    /// To what.
    pub target: Target,
}

/// What a descriptor becomes.
#[derive(Clone, Debug)]
pub enum Target {
    /// `< file`
    Read(Word),
    /// `> file`
    Write(Word),
    /// `>> file`
    Append(Word),
    /// `<< word`: number of the text in [`super::Parsed::here_texts`].
    Here(usize),
    /// `>&1`
    Same(u8),
    /// `>&-`
    Closed,
}
