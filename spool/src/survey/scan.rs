//! One segment: its commits, and the records in what is missing between them.

use crate::buffer::ALIGN_BYTES;
use crate::layout::{COMMIT_HEADER_BYTES, CommitHeader, DATA_START};

use super::frames::{self, End, Piece};
use super::owner::{Owner, Whose};
use super::{Commit, Fact, Finding, From, Place, Run, Survey};

/// A part of a segment: from, to.
type Range = (usize, usize);

/// What the blocks of a segment are.
#[derive(Debug, Default)]
struct Blocks {
    /// Commits of the generation with something damaged in them.
    damaged: Vec<Range>,
    /// What these and the good ones cover.
    known: Vec<Range>,
    /// Commits of earlier generations.
    earlier: Vec<Range>,
}

impl Survey {
    /// Takes a whole segment.
    pub fn segment(&mut self, segment: u32, bytes: &[u8]) {
        self.found.bytes += bytes.len() as u64;
        let owned = self.owners.contains_key(&segment);
        let unborn = bytes.len() <= DATA_START as usize || bytes.iter().all(|byte| *byte == 0);
        if unborn && !owned {
            let place = Place { segment, offset: 0 };
            self.note(
                place,
                "the rest of a creation that was cut off; the next start removes it",
            );
            return;
        }
        if !bytes.len().is_multiple_of(ALIGN_BYTES) || bytes.len() <= DATA_START as usize {
            let offset = bytes.len() as u64;
            self.finding(Place { segment, offset }, "the file ends too early");
        }
        if !self.owners.contains_key(&segment)
            && let Some(owner) = self.guess(segment, bytes)
        {
            self.owners.insert(segment, owner);
        }
        self.judge_headers(segment, bytes);
        let blocks = self.commits(segment, bytes);
        for range in &blocks.damaged {
            self.damaged(segment, bytes, *range);
        }
        self.between(segment, bytes, &blocks);
        self.behind(segment, bytes, &blocks);
    }

    fn commits(&mut self, segment: u32, bytes: &[u8]) -> Blocks {
        let mut blocks = Blocks::default();
        let mut at = DATA_START as usize;
        while let Some(rest) = bytes
            .get(at..)
            .filter(|rest| rest.len() >= COMMIT_HEADER_BYTES)
        {
            let Some(header) = CommitHeader::decode(rest) else {
                at += ALIGN_BYTES;
                continue;
            };
            let range = (at, bytes.len().min(at + header.length as usize));
            match self.whose(&header) {
                Whose::Current if self.take(segment, at, &header, rest) => {
                    blocks.known.push(range);
                    at = range.1.max(at + ALIGN_BYTES);
                    continue;
                }
                // Blocks may have been swapped: another commit may be found inside it.
                Whose::Current => {
                    blocks.damaged.push(range);
                    // One of another segment lies over what was here before.
                    let own = header.segment == segment;
                    let to = if own { range.1 } else { at + ALIGN_BYTES };
                    blocks.known.push((at, to));
                }
                Whose::Earlier if header.segment == segment && is_whole(&header, rest) => {
                    blocks.earlier.push(range);
                }
                // A header that was moved here says nothing of what is behind it.
                Whose::Earlier | Whose::Nobody => {}
            }
            at += ALIGN_BYTES;
        }
        blocks
    }

    /// Takes a commit of the generation; says whether it is good.
    fn take(&mut self, segment: u32, at: usize, header: &CommitHeader, rest: &[u8]) -> bool {
        let place = Place {
            segment,
            offset: at as u64,
        };
        let length = header.length as usize;
        let end = COMMIT_HEADER_BYTES + header.records as usize;
        let records = rest.get(COMMIT_HEADER_BYTES..end).unwrap_or_default();
        let whole = is_whole(header, rest) && length.is_multiple_of(ALIGN_BYTES) && length >= end;
        let owner = self.owners.get(&header.segment).copied();
        let aside = owner.is_some_and(|owner| owner.aside);
        let vouched = owner.is_some_and(|owner| owner.vouched);
        let mut facts = Vec::new();
        let from = match (vouched, aside) {
            (true, false) => From::Commit(header.sequence),
            (true, true) => From::Aside(header.sequence),
            (false, _) => From::Loose,
        };
        let walked = frames::walk(records, |piece| {
            facts.push(fact(segment, at + COMMIT_HEADER_BYTES, from, piece));
        });
        if let (true, End::Unknown(kind)) = (whole, walked) {
            self.found.newer = true;
            let what =
                format!("record kind {kind}; a newer version of zmailer wrote it and is needed");
            self.finding(place, what);
        }
        let good = whole && !matches!(walked, End::Broken(_));
        if good && header.segment == segment {
            self.judge_padding(place, rest.get(CommitHeader::USED..COMMIT_HEADER_BYTES));
            self.judge_padding(place, rest.get(end..length.min(rest.len())));
        } else if good {
            self.finding(place, format!("a commit of segment {}", header.segment));
        }
        if vouched {
            self.commits.push(Commit {
                place,
                segment: header.segment,
                sequence: header.sequence,
                previous: header.previous,
                link: header.link(),
                end: place.offset + u64::from(header.length),
                good,
                apart: owner.is_some_and(Owner::is_apart),
            });
        }
        if good {
            self.facts.append(&mut facts);
        }
        good
    }

    pub(super) fn judge_padding(&mut self, place: Place, padding: Option<&[u8]>) {
        if padding.is_some_and(|padding| padding.iter().any(|byte| *byte != 0)) {
            self.finding(place, "something that is not zero where no checksum looks");
        }
    }

    /// The records of a damaged commit. Its checksum vouches for all of them when it can be made without the
    /// damaged ones; else its header vouches for those in front of the first damaged one.
    fn damaged(&mut self, segment: u32, bytes: &[u8], (at, to): Range) {
        let header = bytes.get(at..).and_then(CommitHeader::decode);
        let Some(header) = header else { return };
        let owner = self.owners.get(&header.segment).copied();
        // What is in it never counted, or was finished before: also where the segment is set aside.
        let from = match owner.is_some_and(|owner| owner.vouched) {
            true => From::Commit(header.sequence),
            false => From::Loose,
        };
        let start = at + COMMIT_HEADER_BYTES;
        let end = to.min(start + header.records as usize);
        let records = bytes.get(start..end).unwrap_or_default();
        let mut facts = Vec::new();
        let mut lost = Vec::new();
        let sum = frames::sum_as_written(records, |record| match record {
            Ok(piece) => facts.push(fact(segment, start, from, piece)),
            Err(at) => lost.push(at),
        });
        if sum == Some(header.sum) && records.len() == header.records as usize {
            self.facts.append(&mut facts);
            for at in lost {
                let offset = (start + at) as u64;
                let place = Some(Place { segment, offset });
                let what = frames::name(records.get(at..).unwrap_or_default());
                self.lost.push((header.sequence, Finding { place, what }));
            }
            return;
        }
        facts.clear();
        let walked = frames::walk(records, |piece| {
            facts.push(fact(segment, start, from, piece));
        });
        self.facts.append(&mut facts);
        if let End::Broken(broken) = walked {
            self.mine(segment, bytes, (start + broken, end), From::Loose);
        }
    }

    /// Commits of a generation stand one behind the other: what is between two of them is missing.
    fn between(&mut self, segment: u32, bytes: &[u8], blocks: &Blocks) {
        let mut at = DATA_START as usize;
        let mut holes = Vec::new();
        let mut known = blocks.known.clone();
        known.sort_unstable();
        for (from, to) in known {
            if from > at {
                holes.push((at, from));
            }
            at = at.max(to);
        }
        // The first commit of a generation stands in front of all others: nothing else tells of it when it
        // was the oldest of the log.
        if holes
            .first()
            .is_some_and(|(at, _)| *at == DATA_START as usize)
        {
            let offset = DATA_START;
            self.finding(Place { segment, offset }, "the first commit is not there");
        }
        for hole in holes {
            self.mine(segment, bytes, hole, From::Loose);
        }
    }

    /// Behind the last commit there is what earlier generations have left, or the unfinished end.
    fn behind(&mut self, segment: u32, bytes: &[u8], blocks: &Blocks) {
        let from = blocks.known.iter().map(|(_, to)| *to).max();
        if from.is_none() {
            self.bare.insert(segment);
        }
        let from = from.unwrap_or(DATA_START as usize);
        let earlier = blocks.earlier.iter().map(|(at, _)| *at);
        let to = earlier
            .filter(|at| *at >= from)
            .min()
            .unwrap_or(bytes.len());
        // The first block of a free segment is cleared; anything else in its place is the rest of a commit.
        let first = bytes
            .get(from..to.min(from + ALIGN_BYTES))
            .unwrap_or_default();
        let is_bare = self.bare.contains(&segment) && first.iter().any(|byte| *byte != 0);
        let from_kind = if is_bare { From::Loose } else { From::Tail };
        self.mine(segment, bytes, (from, to), from_kind);
    }

    /// Searches a part of a segment for records.
    fn mine(&mut self, segment: u32, bytes: &[u8], (from, to): Range, kind: From) {
        let part = bytes.get(from..to).unwrap_or_default();
        let mut at = 0;
        // Where a commit header is damaged its records follow it, and the next commit may prove them.
        for block in (0..part.len()).step_by(ALIGN_BYTES) {
            if block < at || !from.is_multiple_of(ALIGN_BYTES) {
                continue;
            }
            if let Some(end) = self.run(segment, part, (from, block), kind) {
                self.search(segment, (from, part), (at, block), kind);
                at = end;
            }
        }
        self.search(segment, (from, part), (at, part.len()), kind);
    }

    /// Records behind a place where a commit header may have been, followed by zeroes to the end of a block.
    fn run(
        &mut self,
        segment: u32,
        part: &[u8],
        (from, block): Range,
        otherwise: From,
    ) -> Option<usize> {
        let start = block + COMMIT_HEADER_BYTES;
        let mut pieces = Vec::new();
        let rest = part.get(start..).filter(|rest| !rest.starts_with(&[0]))?;
        let mut end = 0;
        while let Some(piece) = frames::first(rest, end) {
            end = piece.end;
            pieces.push(piece);
        }
        let padded = (start + end).next_multiple_of(ALIGN_BYTES);
        let padding = part.get(start + end..padded.min(part.len()))?;
        if pieces.is_empty() || padding.iter().any(|byte| *byte != 0) {
            return None;
        }
        let sum = crc32c::crc32c(rest.get(..end)?);
        let number = self.runs.len();
        self.runs.push(Run { sum, otherwise });
        let facts = pieces.into_iter();
        self.facts
            .extend(facts.map(|piece| fact(segment, from + start, From::Run(number), piece)));
        Some(padded)
    }

    fn search(
        &mut self,
        segment: u32,
        (base, part): (usize, &[u8]),
        (from, to): Range,
        kind: From,
    ) {
        let bytes = part.get(from..to).unwrap_or_default();
        let facts = &mut self.facts;
        let all = frames::search(bytes, |piece| {
            facts.push(fact(segment, base + from, kind, piece));
        });
        if !all {
            let offset = (base + from) as u64;
            let place = Place { segment, offset };
            self.finding(
                place,
                "too much that looks like records: not all of it was searched",
            );
        }
    }
}

/// Whether the records of a commit are there, with their checksum.
fn is_whole(header: &CommitHeader, rest: &[u8]) -> bool {
    let end = COMMIT_HEADER_BYTES + header.records as usize;
    let records = rest.get(COMMIT_HEADER_BYTES..end);
    records.is_some_and(|records| crc32c::crc32c(records) == header.sum)
}

fn fact(segment: u32, base: usize, from: From, piece: Piece) -> Fact {
    let offset = (base + piece.payload) as u64;
    Fact {
        place: Place { segment, offset },
        from,
        says: piece.says,
    }
}
