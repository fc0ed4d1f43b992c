//! The power cut: from what completed, what was synced and what is in flight to a disk as found.

use std::collections::{BTreeMap, BTreeSet};

use crate::op::{FileId, Op};

use super::image::Inode;
use super::names::{NameVersion, Names};
use super::persistence::Persistence;
use super::tally::{Fate, OpKind, Tally};
use super::{InFlight, SimDisk, aligned};

impl SimDisk {
    /// The disk as found after the power was cut now: nothing in flight, no file open, no faults.
    #[must_use]
    pub fn power_cut(&self, choice: &mut Persistence) -> Self {
        self.cut(choice, &mut Tally::default())
    }

    /// The same; says what became of each operation that was not durable.
    #[must_use]
    pub fn power_cut_seen(&self, choice: &mut Persistence, fates: &mut Vec<Fate>) -> Self {
        let mut tally = Tally::default();
        let after = self.cut(choice, &mut tally);
        let flying: BTreeMap<u64, OpKind> = self
            .flying()
            .filter_map(|(order, flying)| Some((order, OpKind::of(&flying.request.op)?)))
            .collect();
        let kind = |order| flying.get(&order).or(self.kinds.get(&order)).copied();
        fates.extend(tally.fates(kind));
        for flying in &self.queue {
            let issued = flying.issued;
            match flying.request.op {
                Op::SyncFile { file } => {
                    let inode = self.names.find(&file);
                    let inode = inode.and_then(|inode| self.inodes.get(&inode));
                    let covered = inode.into_iter().flat_map(Inode::orders);
                    let kind = OpKind::of(&flying.request.op).unwrap_or(OpKind::FileSync);
                    fates.push(tally.sync(kind, issued, covered));
                }
                Op::SyncDir => {
                    let covered = self.names.orders();
                    fates.push(tally.sync(OpKind::DirectorySync, issued, covered));
                }
                _ => {}
            }
        }
        after
    }

    fn cut(&self, choice: &mut Persistence, tally: &mut Tally) -> Self {
        choice.begin(&self.orders());
        let mut after = Self::new(self.rng.clone().next_u64());
        after.capacity_bytes = self.capacity_bytes;
        let flying = self
            .flying()
            .filter_map(|(order, flying)| match flying.request.op {
                Op::Create { file } if self.names.find(&file).is_none() => {
                    Some((file, NameVersion::single(order, Some(NEW_INODE))))
                }
                Op::Remove { file } => Some((file, NameVersion::single(order, None))),
                _ => None,
            });
        let found = self.names.cut(flying, choice, tally);
        let mut names = BTreeMap::new();
        for (number, (file, inode)) in (1..).zip(found) {
            let inode = self.cut_file(file, inode, choice, tally);
            after.inodes.insert(number, inode);
            names.insert(file, number);
        }
        after.names = Names::settled(names);
        after.moment = after.inodes.len() as u64 + 1;
        after
    }

    /// The process ends and the machine goes on: what is in flight happens in part, and what is not
    /// durable stays so. What a sync could not write is on the disk or lost, and the next process sees
    /// which: no start could tell otherwise.
    pub fn kill(&mut self) {
        for InFlight { request, .. } in std::mem::take(&mut self.queue) {
            let temper = self.rng.below(3);
            if temper == 0 {
                continue;
            }
            match request.op {
                Op::Write {
                    file,
                    offset,
                    ref buf,
                    ..
                } if aligned(offset, buf).is_ok() => {
                    self.kinds
                        .extend(OpKind::of(&request.op).map(|kind| (self.moment, kind)));
                    let order = self.tick();
                    let mut rng = self.rng.clone();
                    if let Ok(inode) = self.file(file) {
                        let landed = || temper == 1 || rng.below(2) == 0;
                        inode.write_part(order, offset as usize, buf, false, landed);
                    }
                    self.rng = rng;
                }
                Op::Create { .. } | Op::Remove { .. } => {
                    self.perform(self.moment, request);
                }
                _ => {}
            }
        }
        self.faults = super::Faults::default();
        self.opened.clear();
        self.forget_failed();
        let mut rng = self.rng.clone();
        self.names.forget_failed(|| rng.below(2) == 0);
        self.rng = rng;
    }

    /// The machine needs memory: what a sync could not write is on the disk or lost, and reads see the
    /// disk from now on.
    pub fn forget_failed(&mut self) {
        let mut rng = self.rng.clone();
        for inode in self.inodes.values_mut() {
            inode.forget_failed(|| rng.below(2) == 0);
        }
        self.rng = rng;
    }

    /// What is found of one file.
    fn cut_file(
        &self,
        file: FileId,
        inode: u64,
        choice: &mut Persistence,
        tally: &mut Tally,
    ) -> Inode {
        let Some(state) = self.inodes.get(&inode) else {
            return Inode::default();
        };
        let writes: Vec<(u64, usize, &[u8])> = self
            .flying()
            .filter(|_| self.names.find(&file) == Some(inode) && self.opened.contains(&file))
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
        state.cut(&writes, choice, tally)
    }

    /// What is in flight, each with the moment at which it would have completed.
    fn flying(&self) -> impl Iterator<Item = (u64, &InFlight)> {
        (self.moment..).zip(&self.queue)
    }

    /// The moments of everything that is not durable, ascending.
    fn orders(&self) -> Vec<u64> {
        let names = self.names.orders();
        let writes = self.inodes.values().flat_map(Inode::orders);
        let flying = self.flying().map(|(order, _)| order);
        let orders: BTreeSet<u64> = names.chain(writes).chain(flying).collect();
        orders.into_iter().collect()
    }
}

/// Stands for the inode that a creation in flight would make; moments never reach it.
const NEW_INODE: u64 = u64::MAX;
