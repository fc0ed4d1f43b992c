//! Whose commits count in a segment: what its headers say, and where they are gone, what is behind them.

use crate::buffer::ALIGN_BYTES;
use crate::layout::{CommitHeader, DATA_START, HeaderBlock, SegmentHeader};

use super::{Place, Survey};

/// The run and the generation whose commits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) generation: u64,
    pub(super) secret: u64,
    /// Set aside by a header that says so: these commits counted before.
    pub(super) aside: bool,
    /// A header, the first commit, which no client writes, or a secret of another segment says so.
    pub(super) vouched: bool,
    /// Headers and first commit are gone: it may be an earlier generation than the last, of old mail.
    pub(super) guessed: bool,
}

impl Owner {
    /// What was finished here may have nothing left that says so: the log has gone on without the segment.
    pub(super) fn is_apart(self) -> bool {
        self.aside || self.guessed
    }
}

/// What one commit header says of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Current,
    /// The rest of an earlier generation.
    Earlier,
    Nobody,
}

impl Survey {
    /// Takes the start of a segment: three blocks, or what there is of them.
    pub fn start(&mut self, segment: u32, start: &[u8]) {
        let mut newest: Option<Owner> = None;
        for block in start.chunks(ALIGN_BYTES).take(2) {
            let (header, aside) = match SegmentHeader::decode(block) {
                HeaderBlock::Valid(header) => (header, false),
                HeaderBlock::Aside(header) => (header, true),
                HeaderBlock::Version(_) | HeaderBlock::Invalid => continue,
            };
            // Also of a header that stands in another file: no client knows what is in it.
            self.secrets.insert(header.secret);
            if header.segment != segment {
                continue;
            }
            let owner = Owner {
                generation: header.generation,
                secret: header.secret,
                aside,
                vouched: true,
                guessed: false,
            };
            newest = newest
                .filter(|newest| newest.generation >= owner.generation)
                .or(Some(owner));
        }
        let first = start
            .get(DATA_START as usize..)
            .and_then(CommitHeader::decode);
        let first = first.filter(|first| first.segment == segment);
        if let Some(first) = first {
            self.secrets.insert(first.secret);
        }
        let owner = match (newest, first) {
            // Set aside with the next generation: the commits are of the one before.
            (Some(newest), first) if newest.aside => Some(Owner {
                generation: newest.generation.saturating_sub(1),
                secret: first.map_or(newest.secret, |first| first.secret),
                ..newest
            }),
            (Some(newest), Some(first)) if first.generation <= newest.generation => Some(newest),
            (_, Some(first)) => Some(Owner {
                generation: first.generation,
                secret: first.secret,
                aside: false,
                vouched: true,
                guessed: false,
            }),
            (newest, None) => newest,
        };
        if let Some(owner) = owner {
            self.owners.insert(segment, owner);
        }
    }

    /// The owner of a segment whose headers and first commit are gone: the latest generation of a run that
    /// is known from elsewhere, else the latest.
    pub(super) fn guess(&self, segment: u32, bytes: &[u8]) -> Option<Owner> {
        let blocks = bytes.chunks(ALIGN_BYTES).skip(2);
        let headers = blocks.filter_map(CommitHeader::decode);
        let owners = headers.filter(|header| header.segment == segment);
        let owners = owners.map(|header| Owner {
            generation: header.generation,
            secret: header.secret,
            aside: false,
            vouched: self.secrets.contains(&header.secret),
            guessed: true,
        });
        owners.max_by_key(|owner| (owner.vouched, owner.generation))
    }

    pub(super) fn whose(&self, header: &CommitHeader) -> Whose {
        let Some(owner) = self.owners.get(&header.segment) else {
            return Whose::Nobody;
        };
        if (header.generation, header.secret) == (owner.generation, owner.secret) {
            Whose::Current
        } else if header.generation <= owner.generation {
            Whose::Earlier
        } else {
            Whose::Nobody
        }
    }

    /// Judges the two copies of a header.
    pub(super) fn judge_headers(&mut self, segment: u32, bytes: &[u8]) {
        let mut generations = Vec::new();
        for (at, block) in bytes.chunks(ALIGN_BYTES).take(2).enumerate() {
            let offset = (at * ALIGN_BYTES) as u64;
            let place = Place { segment, offset };
            match SegmentHeader::decode(block) {
                HeaderBlock::Valid(header) | HeaderBlock::Aside(header)
                    if header.segment != segment =>
                {
                    let what = format!("the header of segment {}", header.segment);
                    self.finding(place, what);
                }
                HeaderBlock::Valid(header) | HeaderBlock::Aside(header) => {
                    generations.push(header.generation);
                    self.judge_padding(place, block.get(SegmentHeader::USED..));
                    if self.shard.is_some_and(|shard| shard != header.shard) {
                        self.finding(place, format!("the header of shard {}", header.shard));
                    }
                }
                HeaderBlock::Version(version) => {
                    self.found.newer = true;
                    let what = format!(
                        "format version {version}; a version of zmailer that reads it is needed"
                    );
                    self.finding(place, what);
                }
                HeaderBlock::Invalid => self.finding(place, "the copy of the header is damaged"),
            }
        }
        let place = Place { segment, offset: 0 };
        let owner = self.owners.get(&segment);
        if owner.is_some_and(|owner| owner.aside) {
            self.finding(place, "the segment is damaged and set aside");
        } else if generations.is_empty() && owner.is_none_or(|owner| owner.guessed) {
            self.finding(
                place,
                "nothing tells whose commits count: the segment is left as it is",
            );
        } else if generations.windows(2).any(|pair| pair[0] != pair[1]) {
            self.note(place, "its recycling was cut off; the next start goes on");
        }
    }
}
