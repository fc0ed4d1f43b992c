//! The power cut: from what completed, what was synced and what is in flight to a disk as found.

use std::collections::BTreeSet;

use crate::op::{FileId, Op};

use super::image::Inode;
use super::persistence::{Mark, Persistence};
use super::{InFlight, NameVersion, SimDisk, aligned};

impl SimDisk {
    /// The disk as found after the power was cut now: nothing in flight, no file open, no faults.
    #[must_use]
    pub fn power_cut(&self, choice: &mut Persistence) -> Self {
        choice.begin(&self.orders());
        let mut after = Self::new(self.rng.clone().next_u64());
        after.capacity_bytes = self.capacity_bytes;
        let mut versions = self.name_versions.clone();
        for (order, flying) in self.flying() {
            let (file, inode) = match flying.request.op {
                Op::Create { file } if !self.names.contains_key(&file) => (file, Some(NEW_INODE)),
                Op::Remove { file } => (file, None),
                _ => continue,
            };
            let version = NameVersion {
                order,
                limbo: false,
                inode,
            };
            versions.entry(file).or_default().push(version);
        }
        let mut found = self.names_durable.clone();
        for (file, versions) in versions {
            let marks: Vec<Mark> = versions
                .iter()
                .map(|version| Mark {
                    order: version.order,
                    part: 0,
                    parts: 1,
                })
                .collect();
            match choice.version(&marks).map(|kept| versions[kept].inode) {
                Some(Some(inode)) => found.insert(file, inode),
                Some(None) => found.remove(&file),
                None => None,
            };
        }
        for (number, (file, inode)) in found.into_iter().enumerate() {
            let number = number as u64 + 1;
            after
                .inodes
                .insert(number, self.cut_file(file, inode, choice));
            after.names.insert(file, number);
        }
        after.names_durable.clone_from(&after.names);
        after.moment = after.inodes.len() as u64 + 1;
        after
    }

    /// What is found of one file.
    fn cut_file(&self, file: FileId, inode: u64, choice: &mut Persistence) -> Inode {
        let Some(state) = self.inodes.get(&inode) else {
            return Inode::default();
        };
        let writes: Vec<(u64, usize, &[u8])> = self
            .flying()
            .filter(|_| self.names.get(&file) == Some(&inode) && self.opened.contains(&file))
            .filter_map(|(order, flying)| match &flying.request.op {
                Op::Write {
                    file: written,
                    offset,
                    buf,
                    ..
                } if *written == file && aligned(*offset, buf).is_ok() => {
                    Some((order, *offset as usize, &**buf))
                }
                _ => None,
            })
            .collect();
        state.cut(&writes, choice)
    }

    /// What is in flight, each with the moment at which it would have completed.
    fn flying(&self) -> impl Iterator<Item = (u64, &InFlight)> {
        (self.moment..).zip(&self.queue)
    }

    /// The moments of everything that is not durable, ascending.
    fn orders(&self) -> Vec<u64> {
        let names = self
            .name_versions
            .values()
            .flatten()
            .map(|version| version.order);
        let writes = self.inodes.values().flat_map(Inode::orders);
        let flying = self.flying().map(|(order, _)| order);
        let orders: BTreeSet<u64> = names.chain(writes).chain(flying).collect();
        orders.into_iter().collect()
    }
}

/// Stands for the inode that a creation in flight would make; moments never reach it.
const NEW_INODE: u64 = u64::MAX;
