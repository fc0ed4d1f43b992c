//! The bytes of one simulated file and what of them would survive a power cut.
//!
//! Sectors are atomic: after a cut each holds its durable content or that of one of the writes
//! since, whole. Copies share memory until one of them is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::persistence::{Mark, Persistence};
use super::rng::mix;
use super::tally::Tally;

/// What a disk writes as one.
pub const SECTOR_BYTES: usize = 512;

/// The steps in which the unsynced size of a file may grow: a page of memory.
const SIZE_STEP_BYTES: usize = 4096;

/// Bytes with a running hash; bytes never written are zero.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    bytes: Arc<Vec<u8>>,
    /// Sum over the sectors, so that a write costs only the sectors it touches.
    sum: u64,
}

impl Image {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn hash(&self) -> u64 {
        mix(self.sum ^ mix(self.bytes.len() as u64))
    }

    /// Makes the file exactly `len` bytes, with zeroes where it grows.
    fn resize(&mut self, len: usize) {
        if len < self.bytes.len() {
            let sector = len / SECTOR_BYTES * SECTOR_BYTES;
            for at in (sector..self.bytes.len()).step_by(SECTOR_BYTES) {
                self.sum = self.sum.wrapping_sub(self.sector_hash(at));
            }
            Arc::make_mut(&mut self.bytes).truncate(len);
            self.sum = self.sum.wrapping_add(self.sector_hash(sector));
        } else if len > self.bytes.len() {
            Arc::make_mut(&mut self.bytes).resize(len, 0);
        }
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len();
        self.resize(self.bytes.len().max(end));
        let first = offset / SECTOR_BYTES * SECTOR_BYTES;
        for at in (first..end).step_by(SECTOR_BYTES) {
            self.sum = self.sum.wrapping_sub(self.sector_hash(at));
        }
        Arc::make_mut(&mut self.bytes)[offset..end].copy_from_slice(data);
        for at in (first..end).step_by(SECTOR_BYTES) {
            self.sum = self.sum.wrapping_add(self.sector_hash(at));
        }
    }

    /// The hash of the sector at `at`; 0 for zeroes, so that growing a file needs no hashing.
    fn sector_hash(&self, at: usize) -> u64 {
        let end = self.bytes.len().min(at + SECTOR_BYTES);
        let (words, rest) = self.bytes[at.min(end)..end].as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let mut some = 0;
        let mut hash = 0u64;
        for word in words.iter().chain([&last]) {
            let word = u64::from_le_bytes(*word);
            some |= word;
            hash = (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        if some == 0 {
            0
        } else {
            mix(hash ^ mix(at as u64))
        }
    }
}

/// One write's content of one sector, not known to be durable.
#[derive(Clone, Debug)]
struct Version {
    order: u64,
    /// A sync that should have made it durable failed: no later sync helps.
    limbo: bool,
    data: Arc<[u8]>,
    /// Where in `data` the sector begins.
    at: usize,
    /// The end of the write in the file.
    end: usize,
}

impl Version {
    fn bytes(&self) -> &[u8] {
        &self.data[self.at..(self.at + SECTOR_BYTES).min(self.data.len())]
    }

    fn mark(&self) -> Mark {
        Mark {
            order: self.order,
            part: self.at / SECTOR_BYTES,
            parts: self.data.len().div_ceil(SECTOR_BYTES),
        }
    }
}

type Versions = BTreeMap<usize, Vec<Version>>;

/// One file: what reads see, what is durable, and the writes between the two.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    visible: Image,
    durable: Image,
    /// By sector position; oldest first.
    versions: Versions,
}

impl Inode {
    pub(super) fn visible(&self) -> &Image {
        &self.visible
    }

    /// A completed write that only a later sync makes durable.
    pub(super) fn write(&mut self, order: u64, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        self.visible.write(offset, data);
        self.remember(order, offset, end, false);
    }

    /// A completed durable write: older writes of these sectors can no longer appear.
    pub(super) fn write_durable(&mut self, order: u64, offset: usize, data: &[u8]) {
        self.write(order, offset, data);
        let sectors: Vec<usize> = sectors(offset, offset + data.len())
            .filter(|at| self.versions.contains_key(at))
            .collect();
        for at in sectors {
            self.settle(at, |version| version.order == order);
        }
    }

    /// A write that was broken off: `landed` says which sectors reads see from now on. After a failure
    /// they are in limbo.
    pub(super) fn write_part(
        &mut self,
        order: u64,
        offset: usize,
        data: &[u8],
        limbo: bool,
        mut landed: impl FnMut() -> bool,
    ) {
        for (index, piece) in data.chunks(SECTOR_BYTES).enumerate() {
            let at = offset + index * SECTOR_BYTES;
            if landed() {
                self.visible.write(at, piece);
                self.remember(order, at, at + piece.len(), limbo);
            }
        }
    }

    /// Adds versions for the sectors of a write that reads already see.
    fn remember(&mut self, order: u64, offset: usize, end: usize, limbo: bool) {
        if offset == end {
            return;
        }
        let first = offset / SECTOR_BYTES * SECTOR_BYTES;
        let last = end
            .next_multiple_of(SECTOR_BYTES)
            .min(self.visible.bytes.len());
        let data: Arc<[u8]> = Arc::from(&self.visible.bytes[first..last]);
        add_versions(&mut self.versions, &data, first, end, order, limbo);
    }

    /// A successful sync that was issued at `issued`.
    pub(super) fn sync(&mut self, issued: u64) {
        let sectors: Vec<usize> = self.versions.keys().copied().collect();
        for at in sectors {
            self.settle(at, |version| version.order < issued && !version.limbo);
        }
    }

    /// Makes the newest version of a sector that `covered` accepts its durable content.
    fn settle(&mut self, at: usize, covered: impl Fn(&Version) -> bool) {
        let Some(versions) = self.versions.get_mut(&at) else {
            return;
        };
        let Some(newest) = versions.iter().rposition(covered) else {
            return;
        };
        self.durable.write(at, versions[newest].bytes());
        let len = self.durable.bytes.len().max(versions[newest].end);
        self.durable.resize(len);
        versions.drain(..=newest);
        if versions.is_empty() {
            self.versions.remove(&at);
        }
    }

    /// A failed sync that was issued at `issued`.
    pub(super) fn sync_failed(&mut self, issued: u64) {
        for version in self.versions.values_mut().flatten() {
            version.limbo |= version.order < issued;
        }
    }

    /// The machine needed memory: of what a sync could not write, `written` says for each page whether
    /// the disk has it all the same. Reads see the disk from now on.
    pub(super) fn forget_failed(&mut self, mut written: impl FnMut() -> bool) {
        let in_limbo = |versions: &Vec<Version>| versions.iter().all(|version| version.limbo);
        let sectors: Vec<usize> = self
            .versions
            .iter()
            .filter(|(_, versions)| in_limbo(versions))
            .map(|(at, _)| *at)
            .collect();
        let mut page = (usize::MAX, false);
        for at in sectors {
            if page.0 != at / SIZE_STEP_BYTES {
                page = (at / SIZE_STEP_BYTES, written());
            }
            if page.1 {
                self.settle(at, |_| true);
                continue;
            }
            self.versions.remove(&at);
            let end = self.visible.bytes.len().min(at + SECTOR_BYTES);
            let mut disk = vec![0; end.saturating_sub(at)];
            let known = self.durable.bytes.get(at..).unwrap_or_default();
            let len = known.len().min(disk.len());
            disk[..len].copy_from_slice(&known[..len]);
            self.visible.write(at, &disk);
        }
    }

    /// Changes what is there on purpose; pending writes of these sectors count as durable first.
    pub(super) fn poke(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        assert!(
            end <= self.visible.bytes.len(),
            "only existing bytes can be damaged"
        );
        for at in sectors(offset, end) {
            self.settle(at, |_| true);
        }
        self.visible.write(offset, bytes);
        self.durable.write(offset, bytes);
    }

    /// Takes the end of the file away on purpose; pending writes count as durable first.
    pub(super) fn cut_short(&mut self, len: usize) {
        let pending: Vec<usize> = self.versions.keys().copied().collect();
        for at in pending {
            self.settle(at, |_| true);
        }
        self.visible.resize(len);
        self.durable.resize(len);
    }

    /// The moments of all writes that are not durable.
    pub(super) fn orders(&self) -> impl Iterator<Item = u64> + '_ {
        self.versions
            .values()
            .flatten()
            .map(|version| version.order)
    }

    /// The file as found after a power cut, where `flying` are the writes in flight: order, offset
    /// and bytes.
    pub(super) fn cut(
        &self,
        flying: &[(u64, usize, &[u8])],
        choice: &mut Persistence,
        tally: &mut Tally,
    ) -> Self {
        if flying.is_empty() && self.versions.is_empty() {
            return Self::settled(self.durable.clone());
        }
        let mut versions = self.versions.clone();
        for &(order, offset, data) in flying {
            let data: Arc<[u8]> = Arc::from(data);
            add_versions(
                &mut versions,
                &data,
                offset,
                offset + data.len(),
                order,
                false,
            );
        }
        let durable_len = self.durable.bytes.len();
        let end = versions
            .values()
            .flatten()
            .map(|version| version.end)
            .max()
            .unwrap_or(0);
        let steps = end.saturating_sub(durable_len).div_ceil(SIZE_STEP_BYTES);
        let len = match choice.size(steps) {
            steps_kept if steps_kept == steps => end.max(durable_len),
            steps_kept => durable_len + steps_kept * SIZE_STEP_BYTES,
        };
        let mut image = self.durable.clone();
        image.resize(len);
        for (_, versions) in versions.range(len..) {
            tally.place(versions.iter().map(|version| version.order), None);
        }
        for (&at, versions) in versions.range(..len) {
            let marks: Vec<Mark> = versions.iter().map(Version::mark).collect();
            let kept = choice.version(&marks);
            tally.place(marks.iter().map(|mark| mark.order), kept);
            if let Some(kept) = kept {
                let bytes = versions[kept].bytes();
                image.write(at, &bytes[..bytes.len().min(len - at)]);
            }
        }
        Self::settled(image)
    }

    /// A file all of which is durable.
    fn settled(image: Image) -> Self {
        Self {
            visible: image.clone(),
            durable: image,
            versions: BTreeMap::new(),
        }
    }
}

fn sectors(offset: usize, end: usize) -> impl Iterator<Item = usize> {
    (offset / SECTOR_BYTES * SECTOR_BYTES..end).step_by(SECTOR_BYTES)
}

/// Adds a version for each sector of `data`, which stands at `first`, a sector's begin.
fn add_versions(
    versions: &mut Versions,
    data: &Arc<[u8]>,
    first: usize,
    end: usize,
    order: u64,
    limbo: bool,
) {
    for at in (0..data.len()).step_by(SECTOR_BYTES) {
        let version = Version {
            order,
            limbo,
            data: Arc::clone(data),
            at,
            end,
        };
        versions.entry(first + at).or_default().push(version);
    }
}
