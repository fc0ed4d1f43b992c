//! Relations: databases that a script looks things up in, as if they were functions.
//!
//! A [`Definition`] is what the words of the `relation` built-in say; a [`Relation`] is a definition under
//! its name. A [`Lookup`] walks the keys that its driver makes of one key, through a [`Table`] that the
//! script fills itself, a [`Map`] that somebody loaded, or questions to the outside ([`Question`]), and
//! suspends for the latter. [`Command`] is the `db` built-in.
//!
//! Nothing here reads a file: a map is built of bytes ([`build`]) and found by its [`MapId`] among the
//! [`Maps`] of who runs the script. A map that cannot be had is a temporary failure and never a miss.

mod cache;
mod command;
pub mod compiled;
pub mod dbases;
mod definition;
mod driver;
mod header;
mod hosts;
mod kind;
mod lookup;
mod networks;
mod patterns;
pub mod source;
mod table;
mod text;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

pub use cache::{Answers, Cache};
pub use command::{Command, Effect, Report, Verb, contents};
pub use compiled::Compiled;
pub(crate) use definition::with_extension;
pub use definition::{Definition, Failure, Finish, Fold, Parsed, Source, Taken};
pub use header::{Meaning, Role};
pub use hosts::HostsFile;
pub use kind::{Driver, Engine, Kind, Record};
pub use lookup::{Lookup, Question, Reply, Step, Value};
pub use networks::Networks;
pub use patterns::Patterns;
pub use table::Table;
pub use text::{Indirect, Text};

/// Longest key that is looked up; a longer one is in no database.
pub const KEY_BYTES_MAX: usize = 8192;

/// A map of a script: the place of its [`Source`] in the script's list of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MapId(pub u32);

/// A definition under its name.
#[derive(Clone, Debug)]
pub struct Relation {
    /// Name of the function.
    pub name: Box<[u8]>,
    /// What it does.
    pub definition: Definition,
    /// The map behind it, for kinds that have a [`Source`].
    pub map: Option<MapId>,
}

impl Relation {
    /// The relations that are there before a script begins, with what they hold: the semantics of header
    /// names, trusted accounts, and three that a script may fill with accounts.
    #[must_use]
    pub fn predefined() -> Vec<(Self, Table)> {
        let of = |name: &str, kind: Kind, table: Table| {
            let relation = Self {
                name: name.as_bytes().into(),
                definition: Definition::of(kind),
                map: None,
            };
            (relation, table)
        };
        let mut list = vec![of("headers", Kind::Header, Table::of_headers())];
        for name in ["trusted", "pwuid", "pwnam", "fullname"] {
            list.push(of(name, Kind::Incore, Table::new(Kind::Incore)));
        }
        list
    }
}

/// A table in memory that nobody changes; a new version replaces it.
pub trait Map: Send + Sync + fmt::Debug {
    /// The value of a key.
    fn get<'a>(&'a self, key: &[u8]) -> Option<Cow<'a, [u8]>>;

    /// Entries, as `db count` prints them.
    fn count(&self) -> u64;

    /// What `db print` prints.
    fn print(&self, out: &mut Vec<u8>);

    /// Bytes of memory it takes, roughly.
    fn bytes(&self) -> usize;
}

/// A version of a map: the map and whose file it came from.
#[derive(Clone, Debug)]
pub struct Version {
    /// The table.
    pub map: Arc<dyn Map>,
    /// Account that owned the file when it was read.
    pub owner: u32,
}

/// How a version is handed out: a shard lends its own, a tool that may replace it shares it.
#[derive(Debug)]
pub enum Held<'a> {
    /// Of who runs the script; stays as long as the borrow.
    Lent(&'a Version),
    /// Counted.
    Shared(Version),
}

impl Held<'_> {
    /// The version.
    #[must_use]
    pub fn version(&self) -> &Version {
        match self {
            Self::Lent(version) => version,
            Self::Shared(version) => version,
        }
    }
}

/// Why a map cannot be had now: the text for `$defer`, such as `IO:error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub Vec<u8>);

impl Unavailable {
    /// A file that cannot be read, or is not what it should be.
    #[must_use]
    pub fn io() -> Self {
        Self(b"IO:error".to_vec())
    }
}

/// The current versions of a script's maps.
pub trait Maps {
    /// The current version.
    ///
    /// # Errors
    /// When there is none; what asks for it must be tried again later.
    fn map(&self, id: MapId) -> Result<Held<'_>, Unavailable>;
}

/// Maps of a script that has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMaps;

impl Maps for NoMaps {
    fn map(&self, _: MapId) -> Result<Held<'_>, Unavailable> {
        Err(Unavailable::io())
    }
}

/// Makes a map of the bytes of its file, and of the second file where the source names one.
///
/// # Errors
/// What is wrong with the file, for the operator.
pub fn build(source: &Source, bytes: Vec<u8>, second: Vec<u8>) -> Result<Arc<dyn Map>, String> {
    Ok(match source.kind {
        Kind::Unordered | Kind::Ordered if source.second.is_some() => {
            Arc::new(Indirect::new(Text::new(bytes)?, second))
        }
        Kind::Unordered | Kind::Ordered => Arc::new(Text::new(bytes)?),
        Kind::HostsFile => Arc::new(HostsFile::new(&bytes)),
        Kind::Aliases => Arc::new(source::map(&bytes, source::Syntax::Aliases)?),
        Kind::Keyed => Arc::new(source::map(&bytes, source::Syntax::Keyed)?),
        Kind::Compiled(_) => Arc::new(Compiled::new(bytes)?),
        Kind::Regex => Arc::new(Patterns::new(bytes)?),
        Kind::Cidr => Arc::new(Networks::new(bytes)?),
        _ => return Err(format!("type {} is not kept in a file", source.kind.name())),
    })
}

#[cfg(test)]
mod tests;
