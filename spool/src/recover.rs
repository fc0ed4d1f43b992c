//! Start: what the segments hold becomes the log's state.
//!
//! Sans-I/O like the log. Steps: list, open, headers, contents of each segment, then flush what was
//! read before anything is acted on. Each step only reads or syncs, and files with nothing in them
//! are removed, so a cut at any step changes nothing for the next start.

mod build;
mod checkpoint;
mod state;

use core::fmt;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::blocking::Machine;
use crate::buffer::{ALIGN_BYTES, AlignedBuf};
use crate::faults::Fault;
use crate::id::SpoolId;
use crate::layout::{
    COMMIT_HEADER_BYTES, CommitHeader, DATA_START, HeaderBlock, SegmentHeader, aligned,
};
use crate::op::{Completion, FileId, Op, Request, Token};
use crate::record::{self, DecodeError, HEADER_BYTES};
use crate::types::{Envelope, MessageKey, Outcome, Settings, ThreadState};

pub use checkpoint::CheckpointUse;
use checkpoint::{Known, Search};
use state::{FoundCommit, FoundRecord, found_record};

const READ_BYTES: u64 = 1 << 20;

/// What recovery found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Live messages, oldest first.
    pub messages: Vec<RecoveredMessage>,
    /// States of next hops.
    pub threads: Vec<ThreadState>,
    /// Counts for the operator.
    pub report: RecoveryReport,
}

/// A live message.
#[derive(Debug)]
pub struct RecoveredMessage {
    /// Its key in the log.
    pub key: MessageKey,
    /// Its id.
    pub id: SpoolId,
    /// Its envelope.
    pub envelope: Envelope,
    /// Bytes of its content.
    pub content_len: u64,
    /// The content is in a file of its own.
    pub has_file: bool,
    /// The latest outcome of each recipient.
    pub outcomes: Vec<Option<Outcome>>,
}

/// Counts of a recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Commits taken.
    pub commits: u64,
    /// Unfinished commits at the end, dropped.
    pub torn: u64,
    /// Damaged commits with valid ones behind them: segment and offset. Their segments will be set aside.
    pub damaged: Vec<(u32, u64)>,
    /// Segments that have been set aside, or whose header is lost and that hold something.
    pub aside: Vec<u32>,
    /// Files with content that no message names, kept because a damaged record may have named them.
    pub unclaimed: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Messages whose file with content is not there.
    pub missing: Vec<SpoolId>,
    /// What spared reading all of it.
    pub checkpoint: CheckpointUse,
}

/// Why a log cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoverError {
    /// Written by a newer version.
    NewerFormat {
        /// Segment number.
        segment: u32,
        /// Offset in it.
        offset: u64,
        /// What is unknown.
        what: String,
    },
    /// The disk refused.
    Disk {
        /// What was asked.
        what: String,
        /// Its answer.
        errno: i32,
    },
    /// The segment belongs to another shard.
    Foreign {
        /// Segment number.
        segment: u32,
        /// The shard it names.
        shard: u16,
    },
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewerFormat {
                segment,
                offset,
                what,
            } => write!(
                f,
                "segment {segment} offset {offset}: {what}; a newer version of zmailer wrote it and is needed"
            ),
            Self::Disk { what, errno } => write!(f, "{what}: errno {errno}"),
            Self::Foreign { segment, shard } => {
                write!(f, "segment {segment} belongs to shard {shard}")
            }
        }
    }
}

impl std::error::Error for RecoverError {}

/// Whose commits count in a segment.
#[derive(Clone, Copy, Debug, Default)]
struct Owner {
    generation: u64,
    secret: u64,
}

impl Owner {
    fn of(generation: u64, secret: u64) -> Self {
        Self { generation, secret }
    }

    fn tag(self, segment: u32) -> u32 {
        crate::checkpoint::tag(segment, self.generation, self.secret)
    }
}

/// A commit with a good header and damaged records.
#[derive(Clone, Copy, Debug)]
struct Bad {
    segment: u32,
    offset: u64,
    sequence: u64,
}

#[derive(Debug)]
enum Step {
    List,
    /// For a checkpoint.
    Search,
    Open,
    Header,
    Data,
    Sync,
    Finished,
}

/// The start of a log.
#[derive(Debug)]
pub struct Recovery {
    settings: Settings,
    step: Step,
    queue: VecDeque<Op>,
    flying: Option<(Token, FileId)>,
    token: u64,
    files: VecDeque<u32>,
    lengths: BTreeMap<u32, u64>,
    headers: BTreeMap<u32, Owner>,
    /// Segments with nothing in them, their header included.
    empty: Vec<u32>,
    current: Vec<u8>,
    /// Of the segment that is being read: its number, offset, bytes.
    reads: VecDeque<(u32, u64, usize)>,
    /// A buffer that a read has given back.
    spare: Option<AlignedBuf>,
    commits: Vec<FoundCommit>,
    bad: Vec<Bad>,
    /// Segments in which something is damaged.
    tainted: BTreeSet<u32>,
    report: RecoveryReport,
    error: Option<RecoverError>,
    segment_next: u32,
    /// Files with content.
    contents: BTreeSet<u128>,
    wants_checkpoint: bool,
    /// Message records found.
    envelopes: u64,
    /// Bytes of commits that no checkpoint covers.
    tail_bytes: u64,
    search: Search,
    known: Option<Known>,
}

impl Recovery {
    /// Begins; the whole log will be read.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            step: Step::List,
            queue: VecDeque::from([Op::List]),
            flying: None,
            token: 0,
            files: VecDeque::new(),
            lengths: BTreeMap::new(),
            headers: BTreeMap::new(),
            empty: Vec::new(),
            current: Vec::new(),
            reads: VecDeque::new(),
            spare: None,
            commits: Vec::new(),
            bad: Vec::new(),
            tainted: BTreeSet::new(),
            report: RecoveryReport::default(),
            error: None,
            segment_next: 0,
            contents: BTreeSet::new(),
            wants_checkpoint: false,
            envelopes: 0,
            tail_bytes: 0,
            search: Search::default(),
            known: None,
        }
    }

    /// Begins from the latest checkpoint, if there is one: only what follows it is read here, the
    /// messages in it come in behind the start ([`Event::Loaded`](crate::Event::Loaded)).
    #[must_use]
    pub fn from_checkpoint(settings: Settings) -> Self {
        Self {
            wants_checkpoint: true,
            ..Self::new(settings)
        }
    }

    /// The next disk request; none while one is under way and at the end.
    pub fn poll_op(&mut self) -> Option<Request> {
        if self.flying.is_some() || self.error.is_some() {
            return None;
        }
        while self.queue.is_empty() && self.reads.is_empty() {
            self.next_step()?;
        }
        let op = match self.queue.pop_front() {
            Some(op) => op,
            None => self.next_read()?,
        };
        self.token += 1;
        let token = Token(self.token);
        let file = match &op {
            Op::Create { file }
            | Op::Open { file }
            | Op::Write { file, .. }
            | Op::Read { file, .. }
            | Op::SyncFile { file }
            | Op::Close { file }
            | Op::Remove { file } => *file,
            Op::SyncDir | Op::List => FileId::Segment(u32::MAX),
        };
        self.flying = Some((token, file));
        Some(Request { token, op })
    }

    /// An answer.
    pub fn complete(&mut self, completion: Completion) {
        let Some((_, file)) = self.flying.take() else {
            return;
        };
        if matches!(self.step, Step::Search) {
            // A checkpoint that cannot be read only costs time.
            self.search_answer(&completion);
            return;
        }
        let number = match file {
            FileId::Segment(number) => number,
            FileId::Checkpoint(_) | FileId::Content(_) | FileId::Foreign { .. } => 0,
        };
        let value = match completion.result {
            Ok(value) => value,
            Err(errno) => {
                let what = format!("{:?} of segment {number}", self.step).to_lowercase();
                self.error = Some(RecoverError::Disk { what, errno });
                return;
            }
        };
        match self.step {
            Step::List => self.listed(&completion.files),
            Step::Open => {
                self.lengths.insert(number, value);
            }
            Step::Header => self.header(
                number,
                &completion.buf.unwrap_or_else(|| AlignedBuf::zeroed(0)),
                value,
            ),
            Step::Data => {
                if let Some(buf) = completion.buf {
                    self.report.bytes += value;
                    self.current
                        .extend_from_slice(buf.get(..value as usize).unwrap_or_default());
                    self.spare = Some(buf);
                    if self.reads.is_empty() {
                        let data = std::mem::take(&mut self.current);
                        self.scan(number, &data);
                        self.current = data;
                    }
                }
            }
            Step::Search | Step::Sync | Step::Finished => {}
        }
    }

    /// Whether everything has been read, or an error ends it.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.error.is_some() || matches!(self.step, Step::Finished)
    }

    fn listed(&mut self, files: &[FileId]) {
        let mut numbers: Vec<u32> = files
            .iter()
            .filter_map(|file| match file {
                FileId::Segment(number) => Some(*number),
                FileId::Checkpoint(_) | FileId::Content(_) | FileId::Foreign { .. } => None,
            })
            .collect();
        self.contents = files
            .iter()
            .filter_map(|file| match file {
                FileId::Content(id) => Some(*id),
                _ => None,
            })
            .collect();
        self.look_for_checkpoints(files);
        numbers.sort_unstable();
        self.segment_next = numbers.last().map_or(0, |last| last + 1);
        self.files = numbers.into();
    }

    fn next_step(&mut self) -> Option<()> {
        match self.step {
            Step::List => self.step = Step::Search,
            Step::Search => {
                if self.search_step().is_some() {
                    return Some(());
                }
                self.step = Step::Open;
                let files = self.files.iter();
                self.queue = files
                    .map(|file| Op::Open {
                        file: FileId::Segment(*file),
                    })
                    .collect();
            }
            Step::Open => {
                self.step = Step::Header;
                let files = self.files.iter();
                self.queue = files
                    .map(|file| Op::Read {
                        file: FileId::Segment(*file),
                        offset: 0,
                        buf: AlignedBuf::zeroed(3 * ALIGN_BYTES),
                    })
                    .collect();
            }
            Step::Header => {
                self.step = Step::Data;
                self.check_known();
                let aside = &self.report.aside;
                let files = self.lengths.keys().copied();
                let files = files.filter(|file| !aside.contains(file));
                self.files = files.filter(|file| !self.is_spared(*file)).collect();
                self.next_data();
            }
            Step::Data => {
                if self.files.is_empty() {
                    self.step = Step::Sync;
                    // What the checkpoint spares was on disk before it was written.
                    let read = self.headers.keys();
                    self.queue = read
                        .filter(|file| !self.is_spared(**file))
                        .map(|file| Op::SyncFile {
                            file: FileId::Segment(*file),
                        })
                        .collect();
                    if self.settings.faulty(Fault::RecoverUnsynced) {
                        self.queue.clear();
                    }
                    let empty = self.empty.iter().map(|file| Op::Remove {
                        file: FileId::Segment(*file),
                    });
                    self.queue.extend(empty);
                    self.queue.push_back(Op::SyncDir);
                } else {
                    self.next_data();
                }
            }
            Step::Sync => {
                self.step = Step::Finished;
                return None;
            }
            Step::Finished => return None,
        }
        Some(())
    }

    fn next_data(&mut self) {
        let Some(file) = self.files.pop_front() else {
            return;
        };
        let length = self.lengths.get(&file).copied().unwrap_or(0);
        self.current.clear();
        let mut offset = DATA_START;
        while offset < length {
            let len = READ_BYTES.min(length - offset);
            self.reads.push_back((file, offset, len as usize));
            offset += len;
        }
    }

    /// The next read of a segment. One buffer does for all: memory that is new has to be zeroed.
    fn next_read(&mut self) -> Option<Op> {
        let (file, offset, len) = self.reads.pop_front()?;
        let len = aligned(len);
        let spare = self.spare.take().filter(|buf| buf.len() == len);
        Some(Op::Read {
            file: FileId::Segment(file),
            offset,
            buf: spare.unwrap_or_else(|| AlignedBuf::zeroed(len)),
        })
    }

    /// Whose commits count is what the header of the highest generation says. The first commit is a third
    /// witness: its place is never a client's.
    fn header(&mut self, number: u32, start: &[u8], len: u64) {
        let start = start.get(..len as usize).unwrap_or_default();
        let mut newest: Option<(Owner, bool)> = None;
        for (at, block) in start.chunks(ALIGN_BYTES).enumerate() {
            let found = if at < 2 {
                self.header_copy(number, (at * ALIGN_BYTES) as u64, block)
            } else {
                let first = CommitHeader::decode(block);
                let first = first.filter(|first| first.segment == number);
                first.map(|first| (Owner::of(first.generation, first.secret), false))
            };
            let generation = newest.map_or(0, |(owner, _)| owner.generation);
            newest = found
                .filter(|(owner, _)| owner.generation > generation)
                .or(newest);
        }
        match newest {
            Some((_, true)) => self.report.aside.push(number),
            Some((owner, false)) => {
                self.headers.insert(number, owner);
            }
            None if len <= DATA_START => self.empty.push(number),
            // What is behind it decides.
            None => {}
        }
    }

    /// What one of the copies of the header says, and whether the segment is set aside.
    fn header_copy(&mut self, number: u32, offset: u64, block: &[u8]) -> Option<(Owner, bool)> {
        let (header, aside) = match SegmentHeader::decode(block) {
            HeaderBlock::Valid(header) => (header, false),
            HeaderBlock::Aside(header) => (header, true),
            HeaderBlock::Version(version) => {
                self.error = Some(RecoverError::NewerFormat {
                    segment: number,
                    offset,
                    what: format!("format version {version}"),
                });
                return None;
            }
            HeaderBlock::Invalid => return None,
        };
        if header.segment != number {
            return None;
        }
        self.not_foreign(&header);
        Some((Owner::of(header.generation, header.secret), aside))
    }

    fn not_foreign(&mut self, header: &SegmentHeader) {
        if header.shard != self.settings.shard {
            self.error = Some(RecoverError::Foreign {
                segment: header.segment,
                shard: header.shard,
            });
        }
    }

    /// Takes the commits of a segment.
    fn scan(&mut self, number: u32, data: &[u8]) {
        let Some(owner) = self.headers.get(&number).copied() else {
            self.unknown(number, data);
            return;
        };
        let mut at = 0;
        while let Some(rest) = data
            .get(at..)
            .filter(|rest| rest.len() >= COMMIT_HEADER_BYTES)
        {
            let offset = DATA_START + at as u64;
            let header = CommitHeader::decode(rest)
                .filter(|header| header.segment == number && self.counts(owner, header));
            let Some(header) = header else {
                at += ALIGN_BYTES;
                continue;
            };
            match self.commit(number, offset, header, rest) {
                Ok(commit) => {
                    at += header.length as usize;
                    self.commits.push(commit);
                }
                Err(DecodeError::UnknownKind(kind)) => {
                    let what = format!("record kind {kind}");
                    self.error = Some(RecoverError::NewerFormat {
                        segment: number,
                        offset,
                        what,
                    });
                    return;
                }
                Err(_) => {
                    self.bad.push(Bad {
                        segment: number,
                        offset,
                        sequence: header.sequence,
                    });
                    at += ALIGN_BYTES;
                }
            }
        }
    }

    /// A segment without a header is the rest of a creation when there is nothing in it. When there is,
    /// nobody can tell whether it counts: it stays as it is.
    fn unknown(&mut self, number: u32, data: &[u8]) {
        if data.iter().all(|byte| *byte == 0) {
            self.empty.push(number);
        } else {
            self.report.aside.push(number);
        }
    }

    fn counts(&self, owner: Owner, header: &CommitHeader) -> bool {
        let generation =
            header.generation == owner.generation || self.settings.faulty(Fault::NoGenerationCheck);
        let secret = header.secret == owner.secret
            || self.settings.faulty(Fault::NoGenerationCheck)
            || self.settings.faulty(Fault::AcceptRemains);
        generation && secret
    }

    /// Whether the caller knows what to do with messages that rest.
    fn may_rest(&self) -> bool {
        self.wants_checkpoint && self.settings.segment_bytes <= u64::from(u32::MAX)
    }

    /// Drops the envelope when there are too many.
    fn slim(&mut self, record: &mut FoundRecord) {
        if let FoundRecord::Message(message) = record {
            self.envelopes += 1;
            if self.envelopes > self.settings.envelopes_max && self.may_rest() {
                message.envelope = None;
            }
        }
    }

    fn commit(
        &mut self,
        number: u32,
        offset: u64,
        header: CommitHeader,
        rest: &[u8],
    ) -> Result<FoundCommit, DecodeError> {
        debug_assert_eq!(number, header.segment);
        let end = COMMIT_HEADER_BYTES + header.records as usize;
        let mut records = rest
            .get(COMMIT_HEADER_BYTES..end)
            .ok_or(DecodeError::Truncated)?;
        let whole = crc32c::crc32c(records) == header.sum;
        if !(whole || self.settings.faulty(Fault::AcceptTorn))
            || !(header.length as usize).is_multiple_of(ALIGN_BYTES)
            || (header.length as usize) < end
            // A write that was broken off may have ended the file: what is read later is whole blocks.
            || rest.len() < header.length as usize
        {
            return Err(DecodeError::Checksum);
        }
        let mut found = Vec::new();
        let total = records.len();
        while !records.is_empty() {
            let at = total - records.len();
            let frame = match record::take_frame(&mut records) {
                Err(_) if self.settings.faulty(Fault::AcceptTorn) => break,
                frame => frame?,
            };
            let payload = offset + (COMMIT_HEADER_BYTES + at + HEADER_BYTES) as u64;
            let mut record = found_record(&frame, number, payload)?;
            self.slim(&mut record);
            found.push(record);
        }
        Ok(FoundCommit {
            header,
            offset,
            records: found,
        })
    }
}

impl Machine for Recovery {
    fn poll_op(&mut self) -> Option<Request> {
        Self::poll_op(self)
    }

    fn complete(&mut self, completion: Completion) {
        Self::complete(self, completion);
    }
}
