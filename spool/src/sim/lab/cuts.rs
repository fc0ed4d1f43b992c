//! Cuts of the power and ends of the process, and what the starts behind them find.

use std::collections::HashSet;

use super::day::{Day, From, recover, settings};
use super::facts::{Facts, Spoilt};
use super::submissions::ROUTER;
use super::{Kind, Total};
use crate::checkpoint::{Directory, Extent, HEADER_BYTES, Header};
use crate::op::FileId;
use crate::recover::RecoverError;
use crate::sim::persistence::Persistence;
use crate::sim::rng::{Rng, mix};
use crate::sim::{Fate, SimDisk, Tree};

/// Seeded cuts after each operation, beside the one that keeps and the one that drops everything.
const SEEDED: usize = 6;

/// One operation in so many is also followed by the end of the process.
const KILL_ONE_IN: u64 = 16;

const EIO: i32 = 5;

/// What all starts of a day came to.
pub(super) struct Cuts {
    rng: Rng,
    /// Images, each with what had been said when it was made: what is right before an answer may be wrong
    /// after it.
    seen: HashSet<(u64, u64)>,
    pub(super) total: Total,
    tracing: bool,
    /// About the cut under way, if it is to be told.
    pub(super) lines: Vec<String>,
}

/// What is left of a machine.
struct Remains {
    disk: SimDisk,
    tree: Tree,
}

impl Remains {
    /// Of all that a start looks at.
    fn hash(&self) -> u64 {
        mix(self.disk.image_hash() ^ mix(self.tree.image_hash(ROUTER)))
    }
}

impl Cuts {
    pub(super) fn new(seed: u64, tracing: bool) -> Self {
        Self {
            rng: Rng::new(seed ^ 0xc075),
            seen: HashSet::new(),
            total: Total::default(),
            tracing,
            lines: Vec::new(),
        }
    }

    /// Cuts the power in several ways and judges each image that is new, or new for what has been said
    /// since.
    pub(super) fn after_operation(&mut self, day: &Day) -> Result<(), String> {
        let seeded = (0..SEEDED).map(|_| Persistence::seeded(self.rng.next_u64()));
        let mut choices = vec![Persistence::drop_all(), Persistence::keep_all()];
        choices.extend(seeded);
        let result = choices.into_iter().try_for_each(|mut choice| {
            self.begin_telling();
            let left = self.cut(&day.disk, &day.facts.tree, &mut choice);
            if self.seen.insert((left.hash(), day.facts.version)) {
                self.start_after(left, day)?;
            }
            Ok(())
        });
        result
            .and_then(|()| self.kill(day))
            .map_err(|error: String| format!("after operation {}: {error}", day.disk.operations()))
    }

    fn begin_telling(&mut self) {
        self.lines.clear();
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        if self.tracing {
            self.lines.push(line());
        }
    }

    fn cut(&mut self, disk: &SimDisk, tree: &Tree, choice: &mut Persistence) -> Remains {
        let mut fates: Vec<Fate> = Vec::new();
        let left = Remains {
            disk: disk.power_cut_seen(choice, &mut fates),
            tree: tree.power_cut(choice, &mut fates),
        };
        self.total.matrix.add(&fates);
        self.total.images.insert(left.disk.image_hash());
        self.tell(|| "-- the power is cut".to_owned());
        for fate in fates {
            self.tell(|| format!("   {fate}"));
        }
        left
    }

    /// A start that is cut at some of its operations, twice at most, then one that is not, and some work
    /// behind it that is cut as well.
    fn start_after(&mut self, mut left: Remains, day: &Day) -> Result<(), String> {
        let mut facts = day.facts.clone();
        if self.rng.below(4) == 0
            && let Some((file, blocks)) = damage_header(&mut left.disk, &mut self.rng)
        {
            facts.damaged = blocks.len() > 1;
            self.tell(|| format!("   the header of {file:?} is damaged at {blocks:?}"));
        }
        if self.rng.below(6) == 0
            && let Some((spoilt, what)) = damage_checkpoint(&mut left.disk, &mut self.rng)
        {
            facts.spoilt = Some(spoilt);
            self.happened(what);
            self.tell(|| format!("   {what}: {spoilt:?}"));
        }
        for time in 1..=self.rng.below(4).saturating_sub(1) {
            let limit = 1 + self.rng.below(40);
            let from = From::any(&mut self.rng);
            let settings = settings(day.kind, day.epoch + time);
            let first = recover(&mut left.disk, settings, limit, from);
            first.map_err(|error| error.to_string())?;
            self.tell(|| format!("   a start, cut after {limit} operations"));
            let mut choice = Persistence::seeded(self.rng.next_u64());
            left = self.cut(&left.disk, &left.tree, &mut choice);
        }
        self.fail_start(&mut left, day.kind)?;
        self.go_on(left, facts, day, 4)
    }

    /// A start that the disk fails, now and then: the next one finds the same.
    fn fail_start(&mut self, left: &mut Remains, kind: Kind) -> Result<(), String> {
        if self.rng.below(16) > 0 {
            return Ok(());
        }
        if self.rng.below(4) == 0 {
            left.disk.fail_read(EIO);
        }
        let error = crate::sim::Fault::Error { errno: EIO };
        left.disk.fail_nth(1 + self.rng.below(6), error);
        let from = From::any(&mut self.rng);
        match recover(&mut left.disk, settings(kind, 6), u64::MAX, from) {
            Ok(_) | Err(RecoverError::Disk { .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
        left.disk.kill();
        self.tell(|| "   a start that the disk failed".to_owned());
        Ok(())
    }

    fn go_on(
        &mut self,
        left: Remains,
        mut facts: Facts,
        day: &Day,
        work_one_in: u64,
    ) -> Result<(), String> {
        self.total.starts += 1;
        facts.tree = left.tree;
        let from = From::any(&mut self.rng);
        let mut next = Day::begin(left.disk, day.kind, facts, day.epoch + 3, from)?;
        if next.is_loading() && self.rng.below(3) == 0 {
            next = self.work_early(next)?;
        }
        next.load()?;
        next.judge()?;
        next.count_into(&mut self.total);
        if self.rng.below(work_one_in) > 0 {
            return Ok(());
        }
        next.tracing = self.tracing;
        let result = self.work(&mut next);
        self.lines.append(&mut next.lines);
        result?;
        let mut choice = Persistence::seeded(self.rng.next_u64());
        let left = self.cut(&next.disk, &next.facts.tree, &mut choice);
        self.total.starts += 1;
        next.facts.tree = left.tree;
        let from = From::any(&mut self.rng);
        Day::resume(left.disk, next.kind, next.facts, next.epoch + 1, from).map(|_| ())
    }

    /// Mail comes before all of a checkpoint is in, and now and then the power is cut before it is.
    fn work_early(&mut self, mut next: Day) -> Result<Day, String> {
        next.tracing = self.tracing;
        for number in 0..self.rng.below(5) {
            next.early(&mut self.rng, 2000 + number);
            for _ in 0..self.rng.below(8) {
                next.step()?;
            }
        }
        self.lines.append(&mut next.lines);
        if self.rng.below(2) == 0 {
            return Ok(next);
        }
        self.happened("cut while a checkpoint comes in");
        let mut choice = Persistence::seeded(self.rng.next_u64());
        let left = self.cut(&next.disk, &next.facts.tree, &mut choice);
        let (kind, mut facts, epoch) = (next.kind, next.facts, next.epoch + 1);
        facts.tree = left.tree;
        self.total.starts += 1;
        let from = From::any(&mut self.rng);
        Day::begin(left.disk, kind, facts, epoch, from)
    }

    fn happened(&mut self, what: &'static str) {
        *self.total.happened.entry(what).or_default() += 1;
    }

    fn work(&mut self, next: &mut Day) -> Result<(), String> {
        let before = next.facts.acknowledged();
        for number in 0..self.rng.below(12) {
            next.happenings(&mut self.rng, 1000 + number);
            for _ in 0..self.rng.below(12) {
                next.step()?;
            }
        }
        assert!(next.facts.acknowledged() >= before);
        Ok(())
    }

    /// The process ends; a start goes on with what is there, and then the power is cut.
    fn kill(&mut self, day: &Day) -> Result<(), String> {
        if self.rng.below(KILL_ONE_IN) > 0 {
            return Ok(());
        }
        self.begin_telling();
        let mut disk = day.disk.clone();
        disk.kill();
        self.tell(|| "-- the process is killed".to_owned());
        let tree = day.facts.tree.clone();
        self.go_on(Remains { disk, tree }, day.facts.clone(), day, 1)
    }

    /// The day itself goes on behind a cut.
    pub(super) fn restart(&mut self, day: &mut Day) -> Result<(), String> {
        let mut choice = Persistence::seeded(self.rng.next_u64());
        self.restart_with(day, &mut choice)
    }

    pub(super) fn restart_with(
        &mut self,
        day: &mut Day,
        choice: &mut Persistence,
    ) -> Result<(), String> {
        self.begin_telling();
        day.count_into(&mut self.total);
        let left = self.cut(&day.disk, &day.facts.tree, choice);
        let mut facts = day.facts.clone();
        facts.tree = left.tree;
        let from = From::any(&mut self.rng);
        let mut next = Day::resume(left.disk, day.kind, facts, day.epoch + 10, from)?;
        next.lines = std::mem::take(&mut day.lines);
        next.lines.append(&mut self.lines);
        next.tracing = self.tracing;
        next.seed = day.seed;
        *day = next;
        Ok(())
    }
}

/// Damages one copy of a segment's header, now and then both: nothing may be lost by that, and nothing
/// may come back. Says where.
fn damage_header(disk: &mut SimDisk, rng: &mut Rng) -> Option<(FileId, &'static [usize])> {
    let segments: Vec<FileId> = disk
        .files()
        .filter(|file| matches!(file, FileId::Segment(_)))
        .collect();
    if segments.is_empty() {
        return None;
    }
    let file = segments[rng.index(segments.len())];
    let blocks: &'static [usize] = [&[0][..], &[ALIGN], &[0, ALIGN]][rng.index(3)];
    for block in blocks {
        let byte = disk.image(file).and_then(|image| image.get(block + 20));
        if let Some(byte) = byte.copied() {
            disk.poke(file, (block + 20) as u64, &[!byte]);
        }
    }
    Some((file, blocks))
}

/// Damages the checkpoint that a start would use, somewhere where it matters. Says what that means.
fn damage_checkpoint(disk: &mut SimDisk, rng: &mut Rng) -> Option<(Spoilt, &'static str)> {
    let mut found = Vec::new();
    for number in [0, 1] {
        let file = FileId::Checkpoint(number);
        let header = disk.image(file).and_then(|image| Header::decode(image, 0));
        found.extend(header.map(|header| (file, header)));
    }
    found.sort_by_key(|(_, header)| header.number);
    let (file, header) = found.pop()?;
    let same = |(_, other): &(FileId, Header)| other.covered == header.covered;
    let covered = (!found.iter().any(same)).then_some(header.covered);
    let directory = header.directory;
    let flip = |disk: &mut SimDisk, at: u64| {
        let byte = disk.image(file)?.get(at as usize).copied()?;
        disk.poke(file, at, &[!byte]);
        Some(())
    };
    let (what, silently) = match rng.below(5) {
        0 => {
            disk.poke(file, 0, &[0; ALIGN]);
            ("a checkpoint loses its header", true)
        }
        1 => {
            disk.cut_short(file, rng.below(directory.offset + directory.len) as usize);
            ("a checkpoint is cut short", true)
        }
        2 => {
            flip(disk, rng.below(HEADER_BYTES as u64))?;
            ("a header of a checkpoint is damaged", false)
        }
        3 => {
            flip(disk, directory.offset + rng.below(directory.len))?;
            ("a directory of a checkpoint is damaged", false)
        }
        _ => {
            flip(disk, chunk_byte(disk, file, directory, rng)?)?;
            ("a chunk of a checkpoint is damaged", false)
        }
    };
    let spoilt = Spoilt {
        covered,
        is_told: !silently,
    };
    Some((spoilt, what))
}

/// The place of some byte in a chunk of entries.
fn chunk_byte(disk: &SimDisk, file: FileId, directory: Extent, rng: &mut Rng) -> Option<u64> {
    let (start, end) = (directory.offset, directory.offset + directory.len);
    let bytes = disk.image(file)?.get(start as usize..end as usize)?;
    let chunks = Directory::decode(bytes).ok()?.chunks;
    if chunks.is_empty() {
        return None;
    }
    let extent = chunks[rng.index(chunks.len())].extent;
    Some(extent.offset + rng.below(extent.len))
}

const ALIGN: usize = crate::buffer::ALIGN_BYTES;
