//! Directories where other programs leave files, on the same simulated disk: submission by rename.
//!
//! Operations happen at once, one after the other, as those of a process that waits for each. What is
//! not durable meets the same fate as in the log's directory: a power cut keeps, loses or tears it.

use std::collections::BTreeMap;

use super::faults::Faults;
use super::image::Inode;
use super::names::{NameVersion, Names};
use super::persistence::Persistence;
use super::rng::mix;
use super::tally::{Fate, OpKind, Tally};
use super::{EEXIST, ENOENT, Fault};

/// A file in one of the directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// Which directory.
    pub dir: u8,
    /// Its name there.
    pub name: u64,
}

/// The directories. A clone is a second disk in the same state.
#[derive(Clone, Debug)]
pub struct Tree {
    moment: u64,
    names: Names<Path>,
    inodes: BTreeMap<u64, Inode>,
    /// What happened at each moment.
    kinds: BTreeMap<u64, OpKind>,
    faults: Faults,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            moment: 1,
            names: Names::new(),
            inodes: BTreeMap::new(),
            kinds: BTreeMap::new(),
            faults: Faults::default(),
        }
    }
}

impl Tree {
    /// Makes an empty file that must not exist.
    ///
    /// # Errors
    /// The `errno`.
    pub fn create(&mut self, path: Path) -> Result<(), i32> {
        if self.names.find(&path).is_some() {
            return Err(EEXIST);
        }
        let order = self.tick(OpKind::Create);
        self.inodes.insert(order, Inode::default());
        let version = NameVersion::single(order, Some(order));
        self.names.change(path, version);
        Ok(())
    }

    /// Writes bytes; only a sync of the file makes them durable.
    ///
    /// # Errors
    /// The `errno`.
    pub fn write(&mut self, path: Path, offset: usize, bytes: &[u8]) -> Result<(), i32> {
        if let Some(fault) = self.faults.strike(true) {
            return Err(fault.errno());
        }
        let inode = self.names.find(&path).ok_or(ENOENT)?;
        let order = self.tick(OpKind::MailFileWrite);
        let inode = self.inodes.get_mut(&inode).ok_or(ENOENT)?;
        inode.write(order, offset, bytes);
        Ok(())
    }

    /// Makes what was written to a file durable.
    ///
    /// # Errors
    /// The `errno`.
    pub fn sync_file(&mut self, path: Path) -> Result<(), i32> {
        let inode = self.names.find(&path).ok_or(ENOENT)?;
        let inode = self.inodes.get_mut(&inode).ok_or(ENOENT)?;
        if let Some(fault) = self.faults.strike(false) {
            inode.sync_failed(self.moment);
            return Err(fault.errno());
        }
        inode.sync(self.moment);
        Ok(())
    }

    /// Gives a file another name, which must be free. Each of the two names is durable by a sync of its
    /// directory.
    ///
    /// # Errors
    /// The `errno`.
    pub fn rename(&mut self, from: Path, to: Path) -> Result<(), i32> {
        let inode = self.free_for(from, to)?;
        let order = self.tick(OpKind::Rename);
        for (part, path, inode) in [(0, from, None), (1, to, Some(inode))] {
            let version = NameVersion {
                part: (part, 2),
                ..NameVersion::single(order, inode)
            };
            self.names.change(path, version);
        }
        Ok(())
    }

    /// Gives a file a second name, which must be free.
    ///
    /// # Errors
    /// The `errno`.
    pub fn link(&mut self, from: Path, to: Path) -> Result<(), i32> {
        let inode = self.free_for(from, to)?;
        let order = self.tick(OpKind::Link);
        let version = NameVersion::single(order, Some(inode));
        self.names.change(to, version);
        Ok(())
    }

    fn free_for(&self, from: Path, to: Path) -> Result<u64, i32> {
        if self.names.find(&to).is_some() {
            return Err(EEXIST);
        }
        self.names.find(&from).ok_or(ENOENT)
    }

    /// Removes a name.
    ///
    /// # Errors
    /// The `errno`.
    pub fn unlink(&mut self, path: Path) -> Result<(), i32> {
        self.names.find(&path).ok_or(ENOENT)?;
        let order = self.tick(OpKind::Unlink);
        self.names.change(path, NameVersion::single(order, None));
        Ok(())
    }

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// The `errno`.
    pub fn sync_dir(&mut self, dir: u8) -> Result<(), i32> {
        let within = |path: &Path| path.dir == dir;
        if let Some(fault) = self.faults.strike(false) {
            self.names.sync_failed(self.moment, within);
            return Err(fault.errno());
        }
        self.names.sync(self.moment, within);
        let needed = self.names.needed();
        self.inodes.retain(|inode, _| needed.contains(inode));
        Ok(())
    }

    /// The next write or sync fails.
    pub fn fail_next(&mut self, fault: Fault) {
        self.faults.add_next(fault);
    }

    /// The bytes of a file, as reads see them, and its number, which no other file has.
    #[must_use]
    pub fn read(&self, path: Path) -> Option<(u64, &[u8])> {
        let number = self.names.find(&path)?;
        Some((number, self.inodes.get(&number)?.visible().bytes()))
    }

    /// The files of a directory, ascending.
    pub fn list(&self, dir: u8) -> impl Iterator<Item = Path> + '_ {
        let paths = self.names.iter().map(|(path, _)| *path);
        paths.filter(move |path| path.dir == dir)
    }

    /// A number that is the same for two directories with the same names and bytes, and in practice for
    /// no others.
    #[must_use]
    pub fn image_hash(&self, dir: u8) -> u64 {
        self.list(dir).fold(0, |hash, path| {
            let (number, bytes) = self.names.find(&path).map_or((0, 0), |inode| {
                let bytes = self.inodes.get(&inode);
                (inode, bytes.map_or(0, |inode| inode.visible().hash()))
            });
            mix(hash ^ mix(path.name ^ mix(number)) ^ mix(bytes))
        })
    }

    /// The directories as found after the power was cut now; what was lost is added to `fates`.
    #[must_use]
    pub fn power_cut(&self, choice: &mut Persistence, fates: &mut Vec<Fate>) -> Self {
        let writes = self.inodes.values().flat_map(Inode::orders);
        let mut orders: Vec<u64> = self.names.orders().chain(writes).collect();
        orders.sort_unstable();
        orders.dedup();
        choice.begin(&orders);
        let mut tally = Tally::default();
        let none = std::iter::empty();
        let found = self.names.cut(none, choice, &mut tally);
        let mut after = Self {
            moment: self.moment,
            names: Names::settled(found),
            ..Self::default()
        };
        for (_, inode) in after.names.iter() {
            // Under two names it is cut once.
            if let (false, Some(file)) = (after.inodes.contains_key(inode), self.inodes.get(inode))
            {
                after
                    .inodes
                    .insert(*inode, file.cut(&[], choice, &mut tally));
            }
        }
        fates.extend(tally.fates(|order| self.kinds.get(&order).copied()));
        after
    }

    fn tick(&mut self, kind: OpKind) -> u64 {
        self.kinds.insert(self.moment, kind);
        self.moment += 1;
        self.moment - 1
    }
}
