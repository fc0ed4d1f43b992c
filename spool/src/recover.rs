//! Start: what the segments hold becomes the log's state.
//!
//! Sans-I/O like the log. Steps: list, open, headers, contents of each segment, then flush what was
//! read before anything is acted on. Each step only reads or syncs, and files without a valid header
//! are removed, so a cut at any step changes nothing for the next start.

use core::fmt;
use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::blocking::Machine;
use crate::buffer::{ALIGN_BYTES, AlignedBuf};
use crate::id::SpoolId;
use crate::layout::{COMMIT_HEADER_BYTES, CommitHeader, DATA_START, HeaderBlock, SegmentHeader};
use crate::log::{Live, Location, Log, Place, ThreadName};
use crate::op::{Completion, FileId, Op, Request, Token};
use crate::record::{self, DecodeError, Frame, HEADER_BYTES, Kind};
use crate::segments::Segment;
use crate::types::{Envelope, MessageKey, Outcome, Settings, ThreadState};

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

#[derive(Debug)]
struct FoundCommit {
    header: CommitHeader,
    offset: u64,
    records: Vec<FoundRecord>,
}

#[derive(Debug)]
enum FoundRecord {
    Message {
        id: SpoolId,
        envelope: Envelope,
        outcomes: Vec<Outcome>,
        content_len: u64,
        payload: u64,
        payload_len: u64,
    },
    Outcome {
        id: SpoolId,
        outcome: Outcome,
    },
    Thread(ThreadState),
    Done(SpoolId),
    Void(u64),
    Other,
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
    headers: BTreeMap<u32, u64>,
    current: Vec<u8>,
    commits: Vec<FoundCommit>,
    bad: Vec<(u32, u64)>,
    report: RecoveryReport,
    error: Option<RecoverError>,
    segment_next: u32,
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
            FileId::Checkpoint(_) | FileId::Content(_) => 0,
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
                FileId::Checkpoint(_) | FileId::Content(_) => None,
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
                    let best = self.headers.entry(number).or_insert(0);
                    *best = (*best).max(header.generation);
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
        let generation = self.headers.get(&number).copied().unwrap_or(0);
        let data = std::mem::take(&mut self.current);
        let mut at = 0;
        while let Some(rest) = data
            .get(at..)
            .filter(|rest| rest.len() >= COMMIT_HEADER_BYTES)
        {
            let offset = DATA_START + at as u64;
            let header = CommitHeader::decode(rest)
                .filter(|header| header.generation == generation && header.segment == number);
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
                    self.bad.push((number, offset));
                    at += ALIGN_BYTES;
                }
            }
        }
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
        if crc32c::crc32c(records) != header.sum
            || !(header.length as usize).is_multiple_of(ALIGN_BYTES)
            || (header.length as usize) < end
        {
            return Err(DecodeError::Checksum);
        }
        let mut found = Vec::new();
        let total = records.len();
        while !records.is_empty() {
            let at = total - records.len();
            let frame = record::take_frame(&mut records)?;
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
        let voided: Vec<u64> = commits
            .iter()
            .flat_map(|commit| &commit.records)
            .filter_map(|record| {
                if let FoundRecord::Void(sequence) = record {
                    Some(*sequence)
                } else {
                    None
                }
            })
            .collect();
        let last = commits.last().map_or(0, |commit| commit.header.sequence);
        let link = commits.last().map_or(0, |commit| commit.header.link());
        let mut state = State::default();
        let mut used: Vec<(u64, u32)> = Vec::new();
        for commit in &commits {
            let segment = commit.header.segment;
            if !used.iter().any(|(_, other)| *other == segment) {
                used.push((commit.header.sequence, segment));
            }
            if !voided.contains(&commit.header.sequence) {
                self.report.commits += 1;
                state.apply(commit);
            }
        }
        for (segment, offset) in std::mem::take(&mut self.bad) {
            let behind = commits
                .iter()
                .any(|commit| commit.header.segment == segment && commit.offset > offset);
            if behind {
                self.report.damaged.push((segment, offset));
            } else {
                self.report.torn += 1;
            }
        }
        Ok(self.build(state, used, last, link))
    }

    fn build(self, state: State, used: Vec<(u64, u32)>, last: u64, link: u32) -> (Log, Recovered) {
        let mut log = Log::empty(self.settings);
        log.sequence_next = last + 1;
        log.link = link;
        log.segment_next = self.segment_next;
        // A commit that did not get to disk may have left anything in a segment that looks unused:
        // nothing is written before every segment without a commit has a new generation. They go
        // first, since nothing in them is needed.
        let in_use = |number: &u32| used.iter().any(|(_, segment)| segment == number);
        log.order.extend(
            self.headers
                .keys()
                .copied()
                .filter(|number| !in_use(number)),
        );
        log.order.extend(used.iter().map(|(_, segment)| *segment));
        for (number, generation) in &self.headers {
            let end = log.settings.segment_bytes;
            let segment = Segment {
                generation: *generation,
                end,
                live_count: 0,
                live_bytes: 0,
            };
            log.segments.insert(*number, segment);
        }
        let mut messages = Vec::new();
        for (id, message) in state.messages {
            messages.push(enter(&mut log, id, message));
        }
        let threads = state
            .threads
            .values()
            .map(|(thread, _)| thread.clone())
            .collect();
        let placed = state.threads.into_iter();
        log.threads = placed
            .map(|(key, (thread, at))| (key, (thread, Some(at))))
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
        outcomes,
        content_len,
    } = message;
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
            outcomes,
            done: false,
        },
    );
    RecoveredMessage {
        key,
        id,
        envelope,
        content_len,
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

#[derive(Debug)]
struct StateMessage {
    location: Location,
    envelope: Envelope,
    outcomes: Vec<Outcome>,
    content_len: u64,
}

#[derive(Debug, Default)]
struct State {
    messages: BTreeMap<SpoolId, StateMessage>,
    threads: HashMap<ThreadName, (ThreadState, u32)>,
}

impl State {
    fn apply(&mut self, commit: &FoundCommit) {
        let segment = commit.header.segment;
        for record in &commit.records {
            match record {
                FoundRecord::Message {
                    id,
                    envelope,
                    outcomes,
                    content_len,
                    payload,
                    payload_len,
                } => {
                    let location = Location {
                        segment,
                        payload: *payload,
                        payload_len: *payload_len,
                    };
                    let (envelope, outcomes) = (envelope.clone(), outcomes.clone());
                    let content_len = *content_len;
                    self.messages.insert(
                        *id,
                        StateMessage {
                            location,
                            envelope,
                            outcomes,
                            content_len,
                        },
                    );
                }
                FoundRecord::Outcome { id, outcome } => {
                    if let Some(message) = self.messages.get_mut(id) {
                        message
                            .outcomes
                            .retain(|other| other.recipient != outcome.recipient);
                        message.outcomes.push(outcome.clone());
                    }
                }
                FoundRecord::Thread(thread) => {
                    let key = (thread.channel.clone(), thread.host.clone());
                    if thread.attempt == 0 {
                        self.threads.remove(&key);
                    } else {
                        self.threads.insert(key, (thread.clone(), segment));
                    }
                }
                FoundRecord::Done(id) => {
                    self.messages.remove(id);
                }
                FoundRecord::Void(_) | FoundRecord::Other => {}
            }
        }
    }
}

fn found_record(frame: &Frame<'_>, payload: u64) -> Result<FoundRecord, DecodeError> {
    let payload_len = frame.payload.len() as u64;
    Ok(match frame.kind {
        Kind::Message | Kind::CopyForward => {
            let parts = record::message(frame.payload)?;
            FoundRecord::Message {
                id: parts.head.id,
                envelope: record::envelope(parts.envelope)?,
                outcomes: parts.outcomes,
                content_len: parts.head.content_len,
                payload,
                payload_len,
            }
        }
        Kind::Outcome => {
            let (id, mut reader) = record::id_and_rest(frame.payload)?;
            FoundRecord::Outcome {
                id,
                outcome: record::outcome(&mut reader)?,
            }
        }
        Kind::Thread => FoundRecord::Thread(record::thread(frame.payload)?),
        Kind::Done => FoundRecord::Done(record::id_and_rest(frame.payload)?.0),
        Kind::Void => FoundRecord::Void(record::Reader(frame.payload).u64()?),
        Kind::Routing | Kind::Action | Kind::Checkpoint => FoundRecord::Other,
    })
}
