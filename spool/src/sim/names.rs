//! Names of files: what a lookup sees, what is durable, and the changes between the two.
//!
//! Each name is a place of its own: of two changes that are not durable the later may be found and the
//! earlier lost. A rename changes two names, and may be found in one of them only.

use std::collections::{BTreeMap, BTreeSet};

use super::persistence::{Mark, Persistence};
use super::tally::Tally;

/// A name after a change that is not durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameVersion {
    pub(super) order: u64,
    /// Which name of the change, of how many.
    pub(super) part: (usize, usize),
    /// A sync that should have made it durable failed: no later sync helps.
    pub(super) limbo: bool,
    /// The file; `None`: the name is gone.
    pub(super) inode: Option<u64>,
}

impl NameVersion {
    /// A change of one name.
    pub(super) fn single(order: u64, inode: Option<u64>) -> Self {
        Self {
            order,
            part: (0, 1),
            limbo: false,
            inode,
        }
    }

    fn mark(&self) -> Mark {
        Mark {
            order: self.order,
            part: self.part.0,
            parts: self.part.1,
        }
    }
}

/// The names of a disk.
#[derive(Clone, Debug)]
pub(super) struct Names<K> {
    visible: BTreeMap<K, u64>,
    durable: BTreeMap<K, u64>,
    /// Changes that are not durable, oldest first.
    pending: BTreeMap<K, Vec<NameVersion>>,
}

impl<K: Ord + Copy> Names<K> {
    pub(super) fn new() -> Self {
        Self::settled(BTreeMap::new())
    }

    /// Names all of which are durable.
    pub(super) fn settled(names: BTreeMap<K, u64>) -> Self {
        Self {
            visible: names.clone(),
            durable: names,
            pending: BTreeMap::new(),
        }
    }

    pub(super) fn find(&self, name: &K) -> Option<u64> {
        self.visible.get(name).copied()
    }

    /// Names and files, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &u64)> {
        self.visible.iter()
    }

    pub(super) fn change(&mut self, name: K, version: NameVersion) {
        match version.inode {
            Some(inode) => self.visible.insert(name, inode),
            None => self.visible.remove(&name),
        };
        self.pending.entry(name).or_default().push(version);
    }

    /// A successful sync, issued at `issued`, of the names that `within` accepts.
    pub(super) fn sync(&mut self, issued: u64, within: impl Fn(&K) -> bool) {
        for (name, versions) in self.pending.iter_mut().filter(|(name, _)| within(name)) {
            let covered = |version: &NameVersion| version.order < issued && !version.limbo;
            let Some(newest) = versions.iter().rposition(covered) else {
                continue;
            };
            match versions[newest].inode {
                Some(inode) => self.durable.insert(*name, inode),
                None => self.durable.remove(name),
            };
            versions.drain(..=newest);
        }
        self.pending.retain(|_, versions| !versions.is_empty());
    }

    /// A failed sync of the same.
    pub(super) fn sync_failed(&mut self, issued: u64, within: impl Fn(&K) -> bool) {
        for (_, versions) in self.pending.iter_mut().filter(|(name, _)| within(name)) {
            for version in versions {
                version.limbo |= version.order < issued;
            }
        }
    }

    /// Of changes that a sync could not write, `written` says whether the disk has them all the same.
    /// Lookups see the disk from now on.
    pub(super) fn forget_failed(&mut self, mut written: impl FnMut() -> bool) {
        let pending = std::mem::take(&mut self.pending);
        for (name, versions) in pending {
            if !versions.iter().all(|version| version.limbo) {
                self.pending.insert(name, versions);
                continue;
            }
            let newest = versions.last().filter(|_| written());
            match newest.map(|version| version.inode) {
                Some(Some(inode)) => self.durable.insert(name, inode),
                Some(None) => self.durable.remove(&name),
                None => None,
            };
            match self.durable.get(&name) {
                Some(inode) => self.visible.insert(name, *inode),
                None => self.visible.remove(&name),
            };
        }
    }

    /// Files that have a name, or may be found under one.
    pub(super) fn needed(&self) -> BTreeSet<u64> {
        let pending = self.pending.values().flatten();
        let pending = pending.filter_map(|version| version.inode);
        let named = self.visible.values().chain(self.durable.values()).copied();
        pending.chain(named).collect()
    }

    /// The moments of all changes that are not durable.
    pub(super) fn orders(&self) -> impl Iterator<Item = u64> + '_ {
        let versions = self.pending.values().flatten();
        versions.map(|version| version.order)
    }

    /// The names as found after a power cut, where `flying` are the changes in flight.
    pub(super) fn cut(
        &self,
        flying: impl Iterator<Item = (K, NameVersion)>,
        choice: &mut Persistence,
        tally: &mut Tally,
    ) -> BTreeMap<K, u64> {
        let mut pending = self.pending.clone();
        for (name, version) in flying {
            pending.entry(name).or_default().push(version);
        }
        let mut found = self.durable.clone();
        for (name, versions) in pending {
            let marks: Vec<Mark> = versions.iter().map(NameVersion::mark).collect();
            let kept = choice.version(&marks);
            tally.place(marks.iter().map(|mark| mark.order), kept);
            match kept.map(|kept| versions[kept].inode) {
                Some(Some(inode)) => found.insert(name, inode),
                Some(None) => found.remove(&name),
                None => None,
            };
        }
        found
    }
}
