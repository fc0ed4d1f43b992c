//! What is on a disk, whatever state it is in: the base of `zmailer spool check` and `salvage`.
//!
//! Recovery takes what counts and goes on; this looks at everything, names each fault with its place, and
//! finds the records that are whole although what stands around them is not. It does no I/O: give it the
//! start of every segment first ([`Survey::start`]), then every segment ([`Survey::segment`]), then ask
//! ([`Survey::finish`]). It never fails and changes nothing.
//!
//! *Who vouches for a record.* A client can send content that looks like records, so a good checksum says
//! little. A record is vouched for when it stands in a commit with the secret of its segment's header, whole
//! or where the chain of records in it can be followed, or when the next commit's link proves all records of
//! a commit whose header is gone. All others are *loose*: whole, found where something is missing, and to be
//! looked at by a person before they are used.
//!
//! *What it cannot know.* A message whose done record is lost looks unfinished. In a commit behind which
//! nothing was written, mail that was never acknowledged looks like mail that was damaged: it is loose.

mod frames;
mod judge;
mod owner;
mod scan;

use std::collections::{BTreeMap, BTreeSet};

use crate::content::ContentFile;
use crate::id::SpoolId;
use crate::record::{self, Kind};
use crate::routing::Piece;
use crate::types::{Envelope, Outcome};

use owner::Owner;

/// A place in a shard's directory: segment file, and offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Number in the file's name.
    pub segment: u32,
    /// Offset in bytes.
    pub offset: u64,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where; none: not in a segment.
    pub place: Option<Place>,
    /// What.
    pub what: String,
}

/// Whether a record can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A commit says so.
    Vouched,
    /// It is whole, but nothing tells it from what a client may have sent.
    Loose,
    /// A loose record says that the message is finished.
    PerhapsFinished,
}

/// A message that is not known to be finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub id: SpoolId,
    /// Where its payload begins.
    pub place: Place,
    /// Bytes of the payload.
    pub payload_len: u64,
    /// Kind of the record.
    pub kind: Kind,
    /// Checksum of the payload.
    pub sum: u32,
    /// Recipients that need nothing any more, those that routing has replaced among them.
    pub finished: BTreeSet<u32>,
    /// Results of routing that its record does not have.
    pub rounds: Vec<u8>,
    /// Whether it can be believed.
    pub standing: Standing,
    /// A start finds it.
    pub counts: bool,
}

/// A message's record, read again.
#[derive(Debug)]
pub struct Opened {
    /// Envelope.
    pub envelope: Envelope,
    /// The content when it is in the record.
    pub content: Option<Vec<u8>>,
    /// Its file when it is not.
    pub file: Option<ContentFile>,
}

impl Found {
    /// Takes its payload apart; none when it is not what was found, which happens under a running daemon.
    #[must_use]
    pub fn open(&self, payload: &[u8], shard: u16) -> Option<Opened> {
        if crc32c::crc32c(payload) != self.sum {
            return None;
        }
        let envelope_of = |bytes: &[u8]| record::envelope(&[bytes, &self.rounds].concat()).ok();
        if self.kind.has_file() {
            let parts = record::large(payload).ok()?;
            let envelope = envelope_of(parts.envelope)?;
            let file = ContentFile {
                id: parts.head.id,
                shard,
                len: parts.head.content_len,
                eight_bit: parts.eight_bit,
                sums: parts.sums,
            };
            return Some(Opened {
                envelope,
                content: None,
                file: Some(file),
            });
        }
        let parts = record::message(payload).ok()?;
        let whole = crc32c::crc32c(parts.content) == parts.head.content_sum;
        Some(Opened {
            envelope: envelope_of(parts.envelope)?,
            content: Some(whole.then(|| parts.content.to_vec())?),
            file: None,
        })
    }
}

/// The result.
#[derive(Debug, Default)]
pub struct Surveyed {
    /// Damage.
    pub findings: Vec<Finding>,
    /// What a crash leaves, and is no damage.
    pub notes: Vec<Finding>,
    /// Messages that are not finished, by id.
    pub messages: Vec<Found>,
    /// Content files that none of them names.
    pub unclaimed: Vec<u128>,
    /// Commits that count.
    pub commits: u64,
    /// Outcomes and done records of messages that were freed before.
    pub freed: u64,
    /// Bytes looked at.
    pub bytes: u64,
    /// Something in it needs a newer version.
    pub newer: bool,
}

/// Where a record was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// In a commit that counts.
    Commit(u64),
    /// In a good commit of a segment that was set aside: what was live in it has been copied.
    Aside(u64),
    /// In a commit whose header is gone: number of the run.
    Run(usize),
    /// Whole, where something is missing.
    Loose,
    /// Whole, behind the last commit of a segment: old mail, unless something is missing there.
    Tail,
}

#[derive(Clone, Debug)]
struct Fact {
    place: Place,
    from: From,
    says: Says,
}

#[derive(Clone, Debug)]
enum Says {
    Message {
        id: SpoolId,
        kind: Kind,
        payload_len: u64,
        sum: u32,
        recipients: u32,
        outcomes: Vec<(u32, bool)>,
    },
    Outcome {
        id: SpoolId,
        recipient: u32,
        finished: bool,
    },
    Round {
        id: SpoolId,
        piece: Piece,
    },
    Done(SpoolId),
    Void(u64),
    Nothing,
}

/// A commit header of the segment's generation.
#[derive(Clone, Copy, Debug)]
struct Commit {
    place: Place,
    /// The segment it was written to.
    segment: u32,
    sequence: u64,
    previous: u32,
    link: u32,
    end: u64,
    good: bool,
    /// Not part of the log any more.
    apart: bool,
}

/// Records without a commit header, one behind the other to the end of a block.
#[derive(Clone, Copy, Debug)]
struct Run {
    sum: u32,
    /// What its records are when no link proves them.
    otherwise: From,
}

/// The survey under way.
#[derive(Debug, Default)]
pub struct Survey {
    shard: Option<u16>,
    owners: BTreeMap<u32, Owner>,
    secrets: BTreeSet<u64>,
    commits: Vec<Commit>,
    facts: Vec<Fact>,
    runs: Vec<Run>,
    /// Damaged records, by the sequence of their commits.
    lost: Vec<(u64, Finding)>,
    /// Segments that hold no commit although something is behind their header.
    bare: BTreeSet<u32>,
    found: Surveyed,
}

impl Survey {
    /// Begins; the segments should be this shard's, if that is known.
    #[must_use]
    pub fn new(shard: Option<u16>) -> Self {
        Self {
            shard,
            ..Self::default()
        }
    }

    fn finding(&mut self, place: Place, what: impl Into<String>) {
        let (place, what) = (Some(place), what.into());
        self.found.findings.push(Finding { place, what });
    }

    fn note(&mut self, place: Place, what: impl Into<String>) {
        let (place, what) = (Some(place), what.into());
        self.found.notes.push(Finding { place, what });
    }
}

fn is_final(outcome: &Outcome) -> (u32, bool) {
    use crate::types::Status;
    let open = matches!(outcome.status, Status::Deferred | Status::Held);
    (outcome.recipient, !open)
}
