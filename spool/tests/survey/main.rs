//! Looking at a spool in any state: what is named, what comes back, and that nothing else does.

#[path = "../engine/harness.rs"]
#[allow(dead_code, reason = "the engine's tests use more of it")]
mod harness;
mod world;

use std::collections::BTreeSet;
use std::ops::Range;

use spool::layout::{CommitHeader, HeaderBlock, SegmentHeader};
use spool::op::FileId;
use spool::record::{Kind, take_frame};
use spool::sim::Rng;
use spool::survey::{Found, Standing, Surveyed};
use spool::*;

use world::{Files, Sent, World, forged_id, make, recovered, survey};

/// Spools, and damages of each.
const SPOOLS: u64 = 24;
const DAMAGES: u64 = 100;

fn ids(surveyed: &Surveyed, standing: Standing) -> BTreeSet<SpoolId> {
    let messages = surveyed.messages.iter();
    let found = messages.filter(|found| found.standing == standing);
    found.map(|found| found.id).collect()
}

#[test]
fn an_undamaged_spool_is_what_a_start_finds() {
    let (mut commits, mut freed) = (0, 0);
    for seed in 0..SPOOLS {
        let world = make(seed);
        let surveyed = survey(&world.files);
        assert_eq!(surveyed.findings, [], "seed {seed}");
        assert_eq!(
            ids(&surveyed, Standing::Vouched),
            world.recovered,
            "seed {seed}"
        );
        let counts = surveyed.messages.iter().filter(|found| found.counts);
        assert_eq!(counts.count(), world.recovered.len(), "seed {seed}");
        let live = world.sent.iter().filter(|(_, sent)| !is_finished(sent));
        let live: BTreeSet<SpoolId> = live.map(|(id, _)| *id).collect();
        assert_eq!(live, world.recovered, "seed {seed}");
        for found in vouched(&surveyed) {
            assert_whole(&world, &world.files, found);
        }
        commits += surveyed.commits;
        freed += surveyed.freed;
    }
    assert!(commits > 500 && freed > 100, "{commits} {freed}");
}

fn is_finished(sent: &Sent) -> bool {
    sent.finished.len() == sent.envelope.recipients.len()
}

fn vouched(surveyed: &Surveyed) -> impl Iterator<Item = &Found> {
    let messages = surveyed.messages.iter();
    messages.filter(|found| found.standing == Standing::Vouched)
}

/// What is found is what was sent, to the byte, or says that it is not.
fn assert_whole(world: &World, files: &Files, found: &Found) -> bool {
    let sent = world.sent.get(&found.id).or(world.refused.get(&found.id));
    let Some(sent) = sent else {
        assert_eq!(found.id, forged_id());
        assert_ne!(found.standing, Standing::Vouched, "forged");
        return false;
    };
    let opened = found
        .open(payload(files, found), 0)
        .expect("as it was found");
    assert_eq!(opened.envelope, sent.envelope);
    match (&opened.content, &opened.file) {
        (Some(content), None) => assert_eq!(content, &sent.content),
        (None, Some(file)) => {
            let bytes = files.get(&FileId::Content(found.id.bits()));
            let mut whole = Vec::new();
            let pieces = (0..file.pieces()).try_for_each(|piece| {
                let from = piece as usize * PIECE_BYTES;
                let to = (file.len as usize).min(from + PIECE_BYTES);
                let part = bytes?.get(from..to)?;
                whole.extend_from_slice(part);
                file.is_piece(piece, part).then_some(())
            });
            if pieces.is_none() {
                return false;
            }
            assert_eq!(whole, sent.content);
        }
        _ => panic!("content is in one place"),
    }
    true
}

fn payload<'a>(files: &'a Files, found: &Found) -> &'a [u8] {
    let bytes = &files[&FileId::Segment(found.place.segment)];
    let from = found.place.offset as usize;
    &bytes[from..from + found.payload_len as usize]
}

/// What was changed in a file.
type Touched = Vec<(FileId, Range<usize>)>;

struct Damage<'a> {
    rng: &'a mut Rng,
    files: Files,
    touched: Touched,
}

impl Damage<'_> {
    fn segment(&mut self) -> (FileId, usize) {
        let files = self.files.iter();
        let segments = files.filter(|(file, _)| matches!(file, FileId::Segment(_)));
        let segments: Vec<(FileId, usize)> =
            segments.map(|(file, bytes)| (*file, bytes.len())).collect();
        let all = segments.get(self.rng.index(segments.len().max(1)));
        all.copied().unwrap_or((FileId::Segment(u32::MAX), 0))
    }

    fn change(&mut self, file: FileId, range: Range<usize>, mut with: impl FnMut(u8) -> u8) {
        let bytes = self.files.get_mut(&file).expect("it is there");
        let range = range.start..range.end.min(bytes.len());
        for byte in &mut bytes[range.clone()] {
            *byte = with(*byte);
        }
        self.touched.push((file, range));
    }

    fn any(&mut self) {
        let kind = self.rng.below(9);
        let (file, len) = self.segment();
        if len == 0 {
            return;
        }
        let at = self.rng.index(len);
        let block = at / 4096 * 4096;
        match kind {
            0..=2 => {
                let bit = 1 << self.rng.below(8);
                self.change(file, at..at + 1, |byte| byte ^ bit);
            }
            3 => {
                let until = at + self.rng.index(20_000);
                self.change(file, at..until, |_| 0);
            }
            4 => {
                let mut rng = self.rng.clone();
                let until = at + self.rng.index(9000);
                self.change(file, at..until, |_| rng.next_u64() as u8);
            }
            5 => self.change(file, block..block + 64, |_| 0xff),
            6 => {
                self.files.get_mut(&file).expect("it is there").truncate(at);
                self.touched.push((file, at..len));
            }
            7 if self.rng.below(3) == 0 => {
                self.files.remove(&file);
                self.touched.push((file, 0..len));
            }
            7 => self.content(),
            _ => self.swap(file, block),
        }
    }

    fn content(&mut self) {
        let file = self
            .files
            .keys()
            .find(|file| matches!(file, FileId::Content(_)));
        let Some(file) = file.copied() else { return };
        let at = self.rng.index(self.files[&file].len().max(1));
        self.change(file, at..at + 1, |byte| !byte);
    }

    fn swap(&mut self, one: FileId, at: usize) {
        let (other, len) = self.segment();
        let to = self.rng.index(len.max(1)) / 4096 * 4096;
        let block = |files: &Files, file, at: usize| {
            let bytes: Option<&[u8]> = files[&file].get(at..at + 4096);
            bytes.map(<[u8]>::to_vec)
        };
        let both = (block(&self.files, one, at), block(&self.files, other, to));
        let (Some(first), Some(second)) = both else {
            return;
        };
        for (file, at, bytes) in [(one, at, second), (other, to, first)] {
            let mut bytes = bytes.into_iter();
            self.change(file, at..at + 4096, |_| bytes.next().expect("a block"));
        }
    }
}

fn is_touched(touched: &Touched, file: FileId, range: &Range<usize>) -> bool {
    touched
        .iter()
        .any(|(of, other)| *of == file && other.start < range.end && range.start < other.end)
}

fn damaged(world: &World, rng: &mut Rng) -> (Files, Touched) {
    let files = world.files.clone();
    let touched = Touched::new();
    let mut damage = Damage {
        rng,
        files,
        touched,
    };
    for _ in 0..=damage.rng.below(4) {
        damage.any();
    }
    (damage.files, damage.touched)
}

/// Whose commits count in a segment: both copies of its header say it.
fn owner(bytes: &[u8]) -> (u64, u64) {
    match SegmentHeader::decode(bytes) {
        HeaderBlock::Valid(header) => (header.generation, header.secret),
        other => panic!("an undamaged spool: {other:?}"),
    }
}

/// Every bit that counts: of headers, commits, records, and of the zeroes around them.
/// The commits of a segment that are of its generation, with their places.
fn commits(bytes: &[u8]) -> impl Iterator<Item = (Range<usize>, CommitHeader)> {
    let blocks = bytes.chunks(4096).enumerate().skip(2);
    blocks.filter_map(|(at, block)| {
        let header = CommitHeader::decode(block)?;
        let counts = (header.generation, header.secret) == owner(bytes);
        counts.then(|| (at * 4096..at * 4096 + header.length as usize, header))
    })
}

/// Sequences of commits whose damage nobody can tell: their write failed and left them on the disk all the
/// same, and they were written again, or are void; and the last one, which may be an unfinished end.
fn said_elsewhere(files: &Files) -> BTreeSet<u64> {
    let (mut once, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
    let segments = files
        .iter()
        .filter(|(file, _)| matches!(file, FileId::Segment(_)));
    for (_, bytes) in segments {
        for (range, header) in commits(bytes) {
            if !once.insert(header.sequence) {
                elsewhere.insert(header.sequence);
            }
            let start = range.start + 64;
            let mut records = &bytes[start..start + header.records as usize];
            while let Ok(frame) = take_frame(&mut records) {
                if frame.kind == Kind::Void {
                    let sequence = frame.payload.try_into().expect("eight bytes");
                    elsewhere.insert(u64::from_le_bytes(sequence));
                }
            }
        }
    }
    elsewhere.extend(once.last());
    elsewhere
}

#[test]
fn no_flipped_bit_goes_unnamed() {
    for seed in 0..SPOOLS {
        let world = make(seed);
        let mut rng = Rng::new(seed);
        let usual = survey(&world.files).notes.len();
        let mut places = Vec::new();
        let unheard = said_elsewhere(&world.files);
        for (file, bytes) in &world.files {
            let FileId::Segment(_) = file else { continue };
            places.push((*file, 0..8192));
            let commits = commits(bytes).filter(|(_, header)| !unheard.contains(&header.sequence));
            places.extend(commits.map(|(range, _)| (*file, range)));
        }
        for (file, range) in places {
            for _ in 0..4 {
                let at = range.start + rng.index(range.len());
                let mut files = world.files.clone();
                files.get_mut(&file).expect("it is there")[at] ^= 1 << rng.below(8);
                let surveyed = survey(&files);
                let named = surveyed.findings.len() + surveyed.notes.len();
                assert!(named > usual, "seed {seed}: {file:?} {at}");
            }
        }
    }
}

/// The commit, from its header on, that a place is in.
fn commit_of(files: &Files, file: FileId, at: usize) -> Range<usize> {
    let bytes = &files[&file];
    let mut from = at / 4096 * 4096;
    loop {
        let header = CommitHeader::decode(&bytes[from..]);
        if let Some(header) = header.filter(|header| from + header.length as usize > at) {
            return from..from + header.length as usize;
        }
        from = from.checked_sub(4096).expect("every record is in a commit");
    }
}

/// The promise of `zmailer spool salvage`: every message whose bytes were not touched comes back, to the byte;
/// none comes back altered; none that was finished, unless what says so was damaged; nothing forged is
/// believed.
#[test]
fn what_was_not_touched_comes_back_from_any_damage() {
    let (mut whole, mut lost, mut loose) = (0, 0, 0);
    for seed in 0..SPOOLS {
        let world = make(seed);
        let before = survey(&world.files);
        for number in 0..DAMAGES {
            let case = seed * 1000 + number;
            let (files, touched) = damaged(&world, &mut Rng::new(case));
            let after = survey(&files);
            let whole_blocks = files.values().all(|bytes| bytes.len().is_multiple_of(4096));
            if number % 5 == 0 && whole_blocks {
                let counts = after.messages.iter().filter(|found| found.counts);
                let counts: BTreeSet<SpoolId> = counts.map(|found| found.id).collect();
                let recovered = recovered(&files);
                assert!(counts.is_subset(&recovered), "case {case}: {touched:?}");
                // A start knows less of what was finished: it leaves damaged commits out as a whole.
                for id in recovered.difference(&counts) {
                    let finished = is_finished(&world.sent[id]);
                    assert!(finished, "case {case}: {id} {touched:?}");
                }
            }
            for found in &after.messages {
                if assert_whole(&world, &files, found) {
                    whole += 1;
                }
                loose += usize::from(found.standing != Standing::Vouched);
                finished_stay(&world, &touched, found, case);
            }
            let back: BTreeSet<SpoolId> = after.messages.iter().map(|found| found.id).collect();
            for found in vouched(&before) {
                let file = FileId::Segment(found.place.segment);
                let from = found.place.offset as usize - 12;
                let record = from..from + 12 + found.payload_len as usize;
                if !back.contains(&found.id) {
                    let touched_ = is_touched(&touched, file, &record);
                    let commit = commit_of(&world.files, file, from);
                    assert!(
                        touched_,
                        "case {case}: {found:?} in {commit:?}, {touched:?} {:?}",
                        after.findings
                    );
                    lost += 1;
                }
            }
        }
    }
    assert!(
        whole > 5000 && lost > 200 && loose > 200,
        "{whole} {lost} {loose}"
    );
}

/// A finished message comes back, believed, only where the damage took what says that it is finished.
fn finished_stay(world: &World, touched: &Touched, found: &Found, case: u64) {
    let finished = world.sent.get(&found.id).is_some_and(is_finished);
    if !finished || found.standing != Standing::Vouched {
        return;
    }
    let mut done = vec![6, 0, 0, 0, 16, 0, 0, 0];
    let id = found.id.bits().to_le_bytes();
    done.extend(crc32c::crc32c(&id).to_le_bytes());
    done.extend(id);
    let places = world.files.iter().flat_map(|(file, bytes)| {
        let at = bytes.windows(done.len()).position(|window| window == done);
        at.map(|at| (*file, at))
    });
    let mut places = places.peekable();
    assert!(
        places.peek().is_some(),
        "case {case}: {found:?} has no end: {touched:?}"
    );
    let taken = places.all(|(file, at)| {
        let commit = commit_of(&world.files, file, at);
        let first_block = commit.start..commit.start + 4096;
        is_touched(touched, file, &(at..at + done.len())) || is_touched(touched, file, &first_block)
    });
    assert!(taken, "case {case}: {found:?} is finished, {touched:?}");
}
