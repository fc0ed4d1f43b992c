//! Start: what the segments hold becomes the log's state.
//!
//! Sans-I/O like the log. Steps: list, open, headers, contents of each segment, then flush what was
//! read before anything is acted on. Each step only reads or syncs, and files without a valid header
//! are removed, so a cut at any step changes nothing for the next start.

mod state;

use core::fmt;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::blocking::Machine;
use crate::buffer::{ALIGN_BYTES, AlignedBuf};
use crate::faults::Fault;
use crate::id::SpoolId;
use crate::layout::{COMMIT_HEADER_BYTES, CommitHeader, DATA_START, HeaderBlock, SegmentHeader};
use crate::log::{Live, Log, Place, ThreadPlace};
use crate::op::{Completion, FileId, Op, Request, Token};
use crate::record::{self, DecodeError, HEADER_BYTES};
use crate::segments::Segment;
use crate::types::{Envelope, MessageKey, Outcome, Settings, ThreadState};

use state::{FoundCommit, FoundRecord, State, StateMessage, found_record};

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
    /// Damaged commits with valid ones behind them, set aside: segment and offset.
    pub damaged: Vec<(u32, u64)>,
    /// Bytes read.
    pub bytes: u64,
    /// Messages whose file with content is not there.
    pub missing: Vec<SpoolId>,
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
    current: Vec<u8>,
    commits: Vec<FoundCommit>,
    bad: Vec<Bad>,
    report: RecoveryReport,
    error: Option<RecoverError>,
    segment_next: u32,
    /// Files with content.
    contents: BTreeSet<u128>,
}

impl Recovery {
    /// Begins.
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
            current: Vec::new(),
            commits: Vec::new(),
            bad: Vec::new(),
            report: RecoveryReport::default(),
            error: None,
            segment_next: 0,
            contents: BTreeSet::new(),
        }
    }

    /// The next disk request; none while one is under way and at the end.
    pub fn poll_op(&mut self) -> Option<Request> {
        if self.flying.is_some() || self.error.is_some() {
            return None;
        }
        while self.queue.is_empty() {
            self.next_step()?;
        }
        let op = self.queue.pop_front()?;
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
                    if self.queue.is_empty() {
                        self.scan(number);
                    }
                }
            }
            Step::Sync | Step::Finished => {}
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
        numbers.sort_unstable();
        self.segment_next = numbers.last().map_or(0, |last| last + 1);
        self.files = numbers.into();
    }

    fn next_step(&mut self) -> Option<()> {
        match self.step {
            Step::List => {
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
                        buf: AlignedBuf::zeroed(2 * ALIGN_BYTES),
                    })
                    .collect();
            }
            Step::Header => {
                self.step = Step::Data;
                self.files = self.headers.keys().copied().collect();
                self.next_data();
            }
            Step::Data => {
                if self.files.is_empty() {
                    self.step = Step::Sync;
                    self.queue = self
                        .headers
                        .keys()
                        .map(|file| Op::SyncFile {
                            file: FileId::Segment(*file),
                        })
                        .collect();
                    for unusable in self
                        .lengths
                        .keys()
                        .filter(|file| !self.headers.contains_key(file))
                    {
                        self.queue.push_back(Op::Remove {
                            file: FileId::Segment(*unusable),
                        });
                    }
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
            let len = len / ALIGN_BYTES as u64 * ALIGN_BYTES as u64;
            if len == 0 {
                break;
            }
            let buf = AlignedBuf::zeroed(len as usize);
            self.queue.push_back(Op::Read {
                file: FileId::Segment(file),
                offset,
                buf,
            });
            offset += len;
        }
    }

    fn header(&mut self, number: u32, block: &[u8], len: u64) {
        let block = block.get(..len as usize).unwrap_or_default();
        let copies = [block.get(..ALIGN_BYTES), block.get(ALIGN_BYTES..)];
        for (at, copy) in copies.into_iter().enumerate() {
            match copy.map_or(HeaderBlock::Invalid, SegmentHeader::decode) {
                HeaderBlock::Valid(header) if header.segment == number => {
                    if header.shard != self.settings.shard {
                        self.error = Some(RecoverError::Foreign {
                            segment: number,
                            shard: header.shard,
                        });
                    }
                    let owner = self.headers.entry(number).or_default();
                    if header.generation >= owner.generation {
                        let (generation, secret) = (header.generation, header.secret);
                        *owner = Owner { generation, secret };
                    }
                }
                HeaderBlock::Version(version) => {
                    self.error = Some(RecoverError::NewerFormat {
                        segment: number,
                        offset: (at * ALIGN_BYTES) as u64,
                        what: format!("format version {version}"),
                    });
                }
                HeaderBlock::Valid(_) | HeaderBlock::Invalid => {}
            }
        }
    }

    /// Takes the commits of the segment in `self.current`.
    fn scan(&mut self, number: u32) {
        let owner = self.headers.get(&number).copied().unwrap_or_default();
        let data = std::mem::take(&mut self.current);
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

    fn counts(&self, owner: Owner, header: &CommitHeader) -> bool {
        let generation =
            header.generation == owner.generation || self.settings.faulty(Fault::NoGenerationCheck);
        let secret = header.secret == owner.secret
            || self.settings.faulty(Fault::NoGenerationCheck)
            || self.settings.faulty(Fault::AcceptRemains);
        generation && secret
    }

    fn commit(
        &self,
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
            found.push(found_record(&frame, payload)?);
        }
        Ok(FoundCommit {
            header,
            offset,
            records: found,
        })
    }

    /// The log and what it holds.
    ///
    /// # Errors
    /// See [`RecoverError`].
    pub fn finish(mut self) -> Result<(Log, Recovered), RecoverError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut commits = std::mem::take(&mut self.commits);
        commits.sort_by_key(|commit| (commit.header.sequence, commit.header.segment));
        // A commit written twice (a failed first write that reached the disk) counts once.
        commits.dedup_by_key(|commit| commit.header.sequence);
        let voided: BTreeSet<u64> = commits
            .iter()
            .flat_map(|commit| &commit.records)
            .filter_map(|record| match record {
                FoundRecord::Void(sequence) => Some(*sequence),
                _ => None,
            })
            .collect();
        self.judge_bad(&commits, &voided);
        self.judge_chain(&commits, &voided);
        let mut state = State::default();
        let mut used: Vec<u32> = Vec::new();
        let mut seen: BTreeSet<u32> = BTreeSet::new();
        for commit in &commits {
            if seen.insert(commit.header.segment) {
                used.push(commit.header.segment);
            }
            if !voided.contains(&commit.header.sequence) {
                self.report.commits += 1;
                state.apply(commit);
            }
        }
        Ok(self.build(state, &used, commits.last()))
    }

    /// Damaged, when something valid was written after it; else the unfinished end of a run. One
    /// that was written again or voided has nothing to say.
    fn judge_bad(&mut self, commits: &[FoundCommit], voided: &BTreeSet<u64>) {
        let last = commits.last().map_or(0, |commit| commit.header.sequence);
        for bad in &self.bad {
            let again = commits
                .binary_search_by_key(&bad.sequence, |commit| commit.header.sequence)
                .is_ok();
            if again || voided.contains(&bad.sequence) {
                continue;
            }
            if bad.sequence < last {
                self.report.damaged.push((bad.segment, bad.offset));
            } else {
                self.report.torn += 1;
            }
        }
    }

    /// Commits whose header is damaged leave a gap in the sequence or a link that does not fit; what
    /// is named is the place behind the last good one.
    fn judge_chain(&mut self, commits: &[FoundCommit], voided: &BTreeSet<u64>) {
        let named: BTreeSet<u64> = self.bad.iter().map(|bad| bad.sequence).collect();
        let mut counted: Option<&FoundCommit> = None;
        for commit in commits {
            if voided.contains(&commit.header.sequence) {
                continue;
            }
            if let Some(before) = counted {
                let header = &before.header;
                let mut between = header.sequence + 1..commit.header.sequence;
                let missing = between.any(|sequence| !voided.contains(&sequence));
                let all_named = (header.sequence + 1..commit.header.sequence)
                    .all(|sequence| voided.contains(&sequence) || named.contains(&sequence));
                let unlinked = !missing && commit.header.previous != header.link();
                if (missing && !all_named) || unlinked {
                    let place = (header.segment, before.offset + u64::from(header.length));
                    self.report.damaged.push(place);
                }
            }
            counted = Some(commit);
        }
    }

    fn build(mut self, state: State, used: &[u32], last: Option<&FoundCommit>) -> (Log, Recovered) {
        let mut log = Log::empty(self.settings.clone());
        if let Some(last) = last {
            log.sequence_next = last.header.sequence + 1;
            log.link = last.header.link();
        }
        log.segment_next = self.segment_next;
        // A commit that did not get to disk may have left anything in a segment that looks unused:
        // nothing is written before every segment without a commit has a new generation. They go
        // first, since nothing in them is needed.
        let in_use: BTreeSet<u32> = used.iter().copied().collect();
        log.order.extend(
            self.headers
                .keys()
                .copied()
                .filter(|number| !in_use.contains(number)),
        );
        log.order.extend(used);
        for (number, owner) in &self.headers {
            let end = log.settings.segment_bytes;
            let segment = Segment {
                generation: owner.generation,
                end,
                commits: u64::from(in_use.contains(number)),
                live_count: 0,
                live_bytes: 0,
            };
            log.segments.insert(*number, segment);
        }
        if log.settings.faulty(Fault::AcceptRemains)
            && let Some(last) = last
            && let Some(segment) = log.segments.get_mut(&last.header.segment)
        {
            segment.end = last.offset + u64::from(last.header.length);
            log.active = Some(last.header.segment);
        }
        let mut messages = Vec::new();
        for (id, message) in state.messages {
            if message.has_file && !self.contents.remove(&id.bits()) {
                self.report.missing.push(id);
            }
            messages.push(enter(&mut log, id, message));
        }
        // Every record that could speak of them has been read, and what was read is on disk.
        for id in self.contents {
            log.content_remove(SpoolId::from_bits(id));
        }
        let threads = state
            .threads
            .values()
            .map(|(thread, _)| thread.clone())
            .collect();
        let placed = state.threads.into_iter();
        log.threads = placed
            .map(|(key, (state, at))| (key, ThreadPlace::on_disk(state, at)))
            .collect();
        (
            log,
            Recovered {
                messages,
                threads,
                report: self.report,
            },
        )
    }
}

/// Enters a live message that has been found.
fn enter(log: &mut Log, id: SpoolId, message: StateMessage) -> RecoveredMessage {
    let StateMessage {
        location,
        envelope,
        mut outcomes,
        content_len,
        has_file,
    } = message;
    // Records come in any order of recipients; the log keeps them by number.
    outcomes.sort_by_key(|outcome| outcome.recipient);
    let key = MessageKey(log.key_next);
    log.key_next += 1;
    log.count_live(location.segment, location.payload_len, true);
    let mut latest = vec![None; envelope.recipients.len()];
    for outcome in &outcomes {
        if let Some(slot) = latest.get_mut(outcome.recipient as usize) {
            *slot = Some(outcome.clone());
        }
    }
    let place = Place::Disk(location);
    log.live.insert(
        key,
        Live {
            id,
            place,
            content_len,
            has_file,
            outcomes,
            done: false,
            copied: false,
        },
    );
    RecoveredMessage {
        key,
        id,
        envelope,
        content_len,
        has_file,
        outcomes: latest,
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
