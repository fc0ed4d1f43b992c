//! The databases that scripts name: files read into memory and watched, and questions to name servers and
//! databases of others.
//!
//! [`Store`] reads and watches; in the daemon a thread of its own has it ([`start`]), since a large file takes
//! its time, and hands new versions to whoever publishes them to the shards. A shard has its versions in
//! [`Versions`], a tool asks the store itself ([`Live`]). [`Answers`] answers what a look-up asks outside.
//!
//! A new version replaces the old one only when it is whole: a file that cannot be read, has an error or is
//! gone leaves the version that was there, and is reported once. Only a map that never could be read is
//! unavailable; what asks for it is tried again later.

mod answers;
mod bind;
mod engines;
mod own;
mod store;
mod thread;

use std::cell::RefCell;
use std::sync::Arc;

pub use answers::Answers;
pub use own::OwnAddresses;
pub use store::Store;
pub use thread::{Done, Order, Orders, start};

use crate::router::relation::{Held, MapId, Maps, Source, Unavailable, Version};

/// A new version of a map.
#[derive(Clone, Debug)]
pub struct Published {
    /// Of which.
    pub source: Arc<Source>,
    /// The version.
    pub version: Version,
}

/// The maps of one script, as a shard has them.
#[derive(Debug, Default)]
pub struct Versions {
    sources: Vec<Source>,
    versions: Vec<Option<Version>>,
}

impl Versions {
    /// For a script's sources, in their order; none is there yet.
    #[must_use]
    pub fn new(sources: Vec<Source>) -> Self {
        Self {
            versions: vec![None; sources.len()],
            sources,
        }
    }

    /// Takes a new version. False: the script does not use it.
    pub fn take(&mut self, published: &Published) -> bool {
        let mut used = false;
        for (source, version) in self.sources.iter().zip(&mut self.versions) {
            if *source == *published.source {
                *version = Some(published.version.clone());
                used = true;
            }
        }
        used
    }

    /// The sources.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }
}

impl Maps for Versions {
    fn map(&self, id: MapId) -> Result<Held<'_>, Unavailable> {
        let version = self.versions.get(id.0 as usize).and_then(Option::as_ref);
        version.map(Held::Lent).ok_or_else(Unavailable::io)
    }
}

/// The maps of a tool that runs one script: it looks at the file of a watched one before each look-up.
#[derive(Debug, Default)]
pub struct Live {
    store: RefCell<Store>,
    sources: RefCell<Vec<Source>>,
    problems: RefCell<Vec<String>>,
}

impl Live {
    /// Takes a source in.
    pub fn add(&self, source: Source) -> MapId {
        let mut sources = self.sources.borrow_mut();
        sources.push(source);
        MapId(u32::try_from(sources.len() - 1).unwrap_or(u32::MAX))
    }

    /// Reads a map again, for `db flush`.
    pub fn reload(&self, id: MapId) {
        self.with(id, Store::reload);
    }

    /// Appends a line to the file of a map, for `db add`. False: it failed.
    #[must_use]
    pub fn append(&self, id: MapId, line: &[u8]) -> bool {
        self.with(id, |store, source| store.append(source, line))
            .is_some()
    }

    /// What went wrong since this was asked last.
    #[must_use]
    pub fn take_problems(&self) -> Vec<String> {
        self.problems.take()
    }

    fn with(
        &self,
        id: MapId,
        act: impl FnOnce(&mut Store, &Source) -> Result<Version, String>,
    ) -> Option<Version> {
        let sources = self.sources.borrow();
        let source = sources.get(id.0 as usize)?;
        match act(&mut self.store.borrow_mut(), source) {
            Ok(version) => Some(version),
            Err(problem) => {
                self.problems.borrow_mut().push(problem);
                None
            }
        }
    }
}

impl Maps for Live {
    fn map(&self, id: MapId) -> Result<Held<'_>, Unavailable> {
        let version = self.with(id, |store, source| {
            if source.watched {
                store.freshen(source)
            } else {
                store.get(source)
            }
        });
        version.map(Held::Shared).ok_or_else(Unavailable::io)
    }
}
