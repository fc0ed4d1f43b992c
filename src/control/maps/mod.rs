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

use crate::router::machine::MapRequest;
use crate::router::relation::{Held, MapId, Maps, Source, Unavailable, Version};

/// A new version of a map.
#[derive(Clone, Debug)]
pub struct Published {
    /// Of which.
    pub source: Arc<Source>,
    /// The version.
    pub version: Version,
}

/// The maps of one script, as a shard has them. A copy shares the maps.
#[derive(Clone, Debug, Default)]
pub struct Versions {
    sources: Vec<Source>,
    versions: Vec<Option<Version>>,
}

impl Versions {
    /// For a script's sources, in the order of their numbers; no version is there yet.
    #[must_use]
    pub fn new(sources: Vec<Source>) -> Self {
        Self {
            versions: vec![None; sources.len()],
            sources,
        }
    }

    /// The versions that `maps` has of a script's sources.
    #[must_use]
    pub fn seen_in(maps: &dyn Maps, sources: &[Source]) -> Self {
        let version = |number| Some(maps.map(MapId(number)).ok()?.version().clone());
        Self {
            versions: (0..)
                .zip(sources)
                .map(|(number, _)| version(number))
                .collect(),
            sources: sources.to_vec(),
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

    /// Takes from another script what this one has no version of.
    pub fn fill(&mut self, others: &Self) {
        for (source, version) in self.sources.iter().zip(&mut self.versions) {
            if version.is_none() {
                let known = others.sources.iter().position(|known| known == source);
                *version = known.and_then(|at| others.versions[at].clone());
            }
        }
    }

    /// Sources of which there is no version.
    #[must_use]
    pub fn missing(&self) -> Vec<Source> {
        let all = self.sources.iter().zip(&self.versions);
        let missing = all.filter(|(_, version)| version.is_none());
        missing.map(|(source, _)| source.clone()).collect()
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
    sources: RefCell<Vec<Option<Source>>>,
    problems: RefCell<Vec<String>>,
}

impl Live {
    /// Does what a script asks of its maps.
    ///
    /// # Errors
    /// Why it cannot be done. A map that is opened may still be missing: that shows when it is used.
    pub fn obey(&self, request: &MapRequest) -> Result<(), String> {
        match request {
            MapRequest::Open { id, source } => {
                let mut sources = self.sources.borrow_mut();
                let at = id.0 as usize;
                if sources.len() <= at {
                    sources.resize(at + 1, None);
                }
                sources[at] = Some(source.clone());
                Ok(())
            }
            MapRequest::Append { id, line } => self
                .with(*id, |store, source| store.append(source, line))
                .map(drop),
            MapRequest::Reload(id) => self.with(*id, Store::reload).map(drop),
        }
    }

    /// Reads every map that was opened and says what is wrong with them.
    #[must_use]
    pub fn judge(&self) -> Vec<String> {
        let sources = self.sources.borrow();
        let mut store = self.store.borrow_mut();
        let judged = sources.iter().flatten().filter_map(|source| {
            let read = store.get(source).err();
            read.or_else(|| store.problem(source).map(str::to_owned))
        });
        judged.collect()
    }

    /// What went wrong since this was asked last, each once.
    #[must_use]
    pub fn take_problems(&self) -> Vec<String> {
        self.problems.take()
    }

    fn with(
        &self,
        id: MapId,
        act: impl FnOnce(&mut Store, &Source) -> Result<Version, String>,
    ) -> Result<Version, String> {
        let sources = self.sources.borrow();
        let source = sources.get(id.0 as usize).and_then(Option::as_ref);
        let source = source.ok_or_else(|| "this map was never opened".to_owned())?;
        act(&mut self.store.borrow_mut(), source)
    }
}

/// Different things that went wrong and are remembered.
const PROBLEMS_MAX: usize = 100;

impl Maps for Live {
    fn map(&self, id: MapId) -> Result<Held<'_>, Unavailable> {
        let version = self.with(id, |store, source| {
            if source.watched {
                store.freshen(source)
            } else {
                store.get(source)
            }
        });
        version.map(Held::Shared).map_err(|problem| {
            let mut problems = self.problems.borrow_mut();
            if problems.len() < PROBLEMS_MAX && !problems.contains(&problem) {
                problems.push(problem);
            }
            Unavailable::io()
        })
    }
}
