//! What an evaluation needs from outside, and the answers.
//!
//! The router does no input or output: it asks, and whoever drives it answers, at once or later.

use std::fmt;

use super::machine::MapRequest;
use super::relation::{Question, Reply};

/// Something that only the outside can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The content of a file.
    Read {
        /// Its path.
        path: Vec<u8>,
        /// With whose rights; none: the router's own.
        user: Option<u32>,
    },
    /// Bytes into a file, which is made when it is not there.
    Write {
        /// Its path.
        path: Vec<u8>,
        /// At its end; otherwise it is emptied first.
        append: bool,
        /// What to write.
        bytes: Vec<u8>,
    },
    /// What a file is.
    Stat {
        /// Its path.
        path: Vec<u8>,
        /// A link itself, not what it leads to.
        link: bool,
        /// With whose rights; none: the router's own.
        user: Option<u32>,
    },
    /// Paths that fit a pattern, sorted.
    Glob {
        /// The pattern.
        pattern: Vec<u8>,
    },
    /// The file that a program's name runs; none: it runs nothing.
    Program {
        /// Its name.
        name: Vec<u8>,
        /// Directories in which it is looked for, as in `PATH`.
        path: Vec<u8>,
    },
    /// An account by name.
    Account(Vec<u8>),
    /// An account by number.
    AccountOf(u32),
    /// The members of a group.
    Group(Vec<u8>),
    /// Runs a program.
    Run(Run),
    /// Another working directory.
    Directory(Vec<u8>),
    /// The mask of new files; none: says it only.
    Umask(Option<u32>),
    /// Output of the script itself.
    Output {
        /// 1 or 2.
        descriptor: u8,
        /// What it wrote.
        bytes: Vec<u8>,
    },
    /// The next line of the standard input, with its newline; empty: the end.
    Line,
    /// Waits.
    Sleep {
        /// Seconds.
        seconds: u64,
    },
    /// A line for the operator.
    Log {
        /// Priority as of syslog, `info` when none was given.
        priority: String,
        /// The text.
        text: Vec<u8>,
    },
    /// What a relation asks of the outside.
    Ask(Question),
    /// Something about a map.
    Map(MapRequest),
    /// The name of this host.
    Hostname,
    /// The time.
    Time,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Name and arguments.
    pub arguments: Vec<Vec<u8>>,
    /// Directories in which its name is looked for, as in `PATH`.
    pub path: Vec<u8>,
    /// Its environment.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// What it reads; none: the router's own input.
    pub input: Option<Vec<u8>>,
    /// Its output and its errors are one stream.
    pub merge: bool,
    /// Nothing is waited for or caught: the program uses the router's own descriptors.
    pub inherit: bool,
}

/// What came of a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A file's content and what it is.
    File(Result<(Vec<u8>, Stat), Failure>),
    /// What a file is.
    Stat(Result<Stat, Failure>),
    /// Paths.
    Paths(Vec<Vec<u8>>),
    /// An account; none: there is no such one.
    Account(Result<Option<Account>, Failure>),
    /// Members; none: there is no such group.
    Group(Result<Option<Vec<Vec<u8>>>, Failure>),
    /// A program has run.
    Ran {
        /// 0 to 255; 128 and more: ended by a signal.
        status: i32,
        /// What it wrote.
        output: Vec<u8>,
        /// What it wrote as errors.
        errors: Vec<u8>,
        /// Bytes of its input that it has read.
        consumed: usize,
    },
    /// The program could not be run: not found, not allowed.
    NotRun(String),
    /// Done, or why not.
    Done(Result<(), Failure>),
    /// Of an outside database.
    Reply(Reply),
    /// The mask as it was.
    Umask(u32),
    /// A line.
    Line(Vec<u8>),
    /// A name.
    Hostname(Vec<u8>),
    /// Seconds since 1970.
    Time(u64),
}

/// Why a file could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// There is no such file: not a reason to try again.
    pub missing: bool,
    /// It may be there later: who needs it has to wait.
    pub temporary: bool,
    /// Text for people.
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Type and permission bits as of stat(2).
    pub mode: u32,
    /// Owner.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970 of the last change.
    pub modified: i64,
    /// Device and inode: the identity.
    pub identity: (u64, u64),
    /// What the asking process may do: read 4, write 2, execute 1.
    pub access: u8,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: Vec<u8>,
    /// Its number.
    pub user: u32,
    /// Full name field, as it stands.
    pub full_name: Vec<u8>,
    /// Home directory.
    pub home: Vec<u8>,
}
