//! Group commit: one batch in flight, the next one staged; when to write and what a failure means.

use crate::buffer::AlignedBuf;
use crate::faults::Fault;
use crate::layout::{COMMIT_HEADER_BYTES, CommitHeader, aligned};
use crate::log::{Location, Log, Place, ThreadName};
use crate::op::{Completion, FileId, Op, Request, Token};
use crate::record::{HEADER_BYTES, Kind, MESSAGE_HEAD_BYTES, MessageHead};
use crate::routing::Rounds;
use crate::segments::Room;
use crate::types::{Event, MessageKey};

/// Bounds of the first size of a staging buffer: two batches.
const STAGING_BYTES: (usize, usize) = (64 << 10, 512 << 10);

/// A buffer that has grown is kept up to so many times its first size.
const KEPT_FACTOR: usize = 8;

/// Latencies kept for the median.
const LATENCIES: usize = 31;

/// Bounds of the automatic commit delay.
const DELAY_NS: (u64, u64) = (100_000, 2_000_000);

/// Bytes of a void record.
const VOID_BYTES: usize = HEADER_BYTES + 8;

/// After both writes of a commit failed, the next is tried after this.
const RETRY_NS: u64 = 1_000_000_000;

/// A record in a batch.
#[derive(Debug)]
struct Entry {
    /// Offset of the frame in the batch.
    at: usize,
    len: usize,
    what: What,
}

/// What has to happen to a record when its commit has succeeded or failed.
#[derive(Debug)]
pub(crate) enum What {
    /// A client's message: given up when the batch fails.
    Message(MessageKey),
    /// A report or a copy: staged again when the batch fails.
    Kept(MessageKey),
    /// Likewise, without a place to remember.
    Small(Option<MessageKey>),
    /// Likewise; the version of this state of a next hop.
    Thread(ThreadName, u64),
    /// Likewise; a piece of what routing made of this message.
    Round(MessageKey),
    /// Voids a sequence; made again from the list of failed ones.
    Void,
}

/// The batch being filled.
#[derive(Debug)]
pub(crate) struct Staging {
    batch: u64,
    buf: AlignedBuf,
    spare: Option<AlignedBuf>,
    /// The first size of a buffer.
    first_bytes: usize,
    used: usize,
    entries: Vec<Entry>,
    messages_count: u32,
    /// Those of clients; the others are reports.
    mail_count: u32,
    /// Bytes of records copied from elsewhere.
    copied_bytes: u64,
    /// A piece of a larger result of routing is in it.
    has_piece: bool,
    first_message_at: u64,
    first_small_at: u64,
}

/// A batch being written.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) token: Token,
    batch: u64,
    entries: Vec<Entry>,
    header: CommitHeader,
    offset: u64,
    started_at: u64,
    again: bool,
    /// Given back by the disk after a first failure; waits for a fresh segment.
    waiting: Option<AlignedBuf>,
}

impl Entry {
    fn is_mail(&self) -> bool {
        matches!(self.what, What::Message(_))
    }
}

impl InFlight {
    fn has_mail(&self) -> bool {
        self.entries.iter().any(Entry::is_mail)
    }

    pub(crate) fn writes_to(&self, segment: u32) -> bool {
        self.header.segment == segment
    }
}

impl Staging {
    /// For batches of `batch_bytes`.
    pub(crate) fn new(batch_bytes: u64) -> Self {
        let first_bytes = 2 * batch_bytes.min(STAGING_BYTES.1 as u64) as usize;
        let first_bytes = aligned(first_bytes.clamp(STAGING_BYTES.0, STAGING_BYTES.1));
        Self {
            batch: 1,
            buf: AlignedBuf::zeroed(first_bytes),
            spare: None,
            first_bytes,
            used: COMMIT_HEADER_BYTES,
            entries: Vec::new(),
            messages_count: 0,
            mail_count: 0,
            copied_bytes: 0,
            has_piece: false,
            first_message_at: u64::MAX,
            first_small_at: u64::MAX,
        }
    }

    pub(crate) fn batch(&self) -> u64 {
        self.batch
    }

    /// Bytes of the commit as it stands.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is anything but copies.
    pub(crate) fn has_others(&self) -> bool {
        (self.used - COMMIT_HEADER_BYTES) as u64 > self.copied_bytes
    }

    /// Bytes of copies in the batch.
    pub(crate) fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    fn put(&mut self, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let needed = aligned(self.used + len);
        if needed > self.buf.capacity() {
            let mut larger = AlignedBuf::zeroed(needed.max(self.buf.capacity() * 2));
            larger.resize(self.used);
            self.buf.resize(self.used);
            larger.copy_from_slice(&self.buf);
            self.buf = larger;
        }
        self.buf.resize(self.used + len);
        let (_, mut rest) = self.buf.split_at_mut(self.used);
        for part in parts {
            let (head, tail) = rest.split_at_mut(part.len());
            head.copy_from_slice(part);
            rest = tail;
        }
        self.used += len;
    }

    fn frame(&mut self, kind: Kind, parts: &[&[u8]], what: What) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let sum = parts
            .iter()
            .fold(0, |sum, part| crc32c::crc32c_append(sum, part));
        let mut header = [0u8; HEADER_BYTES];
        let (kind_byte, rest) = header.split_at_mut(4);
        kind_byte.copy_from_slice(&[kind as u8, 0, 0, 0]);
        let (len_bytes, sum_bytes) = rest.split_at_mut(4);
        len_bytes.copy_from_slice(&(len as u32).to_le_bytes());
        sum_bytes.copy_from_slice(&sum.to_le_bytes());
        let at = self.used;
        self.put(&[&header]);
        self.put(parts);
        let len = HEADER_BYTES + len;
        self.push(Entry { at, len, what });
    }

    pub(crate) fn message(
        &mut self,
        now: u64,
        key: MessageKey,
        kept: bool,
        head: &MessageHead,
        envelope: &[u8],
        content: &[u8],
    ) -> u64 {
        let what = message_what(key, kept);
        self.frame(Kind::Message, &[&head.encode(), envelope, content], what);
        self.messages_count += 1;
        self.first_message_at = self.first_message_at.min(now);
        self.batch
    }

    /// A message whose content is in a file.
    pub(crate) fn large(&mut self, now: u64, key: MessageKey, kept: bool, payload: &[u8]) -> u64 {
        self.frame(Kind::Large, &[payload], message_what(key, kept));
        self.messages_count += 1;
        self.first_message_at = self.first_message_at.min(now);
        self.batch
    }

    pub(crate) fn copy(&mut self, now: u64, key: MessageKey, kind: Kind, payload: &[u8]) {
        self.frame(kind, &[payload], What::Kept(key));
        self.copied_bytes += (HEADER_BYTES + payload.len()) as u64;
        self.first_small_at = self.first_small_at.min(now);
    }

    pub(crate) fn round(&mut self, now: u64, key: MessageKey, payload: &[u8], is_piece: bool) {
        self.has_piece |= is_piece;
        self.small(now, Kind::Routing, payload, What::Round(key));
    }

    /// Whether a piece of a larger result of routing is in the batch.
    pub(crate) fn has_piece(&self) -> bool {
        self.has_piece
    }

    pub(crate) fn small(&mut self, now: u64, kind: Kind, payload: &[u8], what: What) {
        self.frame(kind, &[payload], what);
        self.first_small_at = self.first_small_at.min(now);
    }

    fn has_mail(&self) -> bool {
        self.mail_count > 0
    }

    fn has_void(&self) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| matches!(entry.what, What::Void))
    }

    /// Takes a record of a batch that came to nothing.
    fn restage(&mut self, now: u64, batch: &AlignedBuf, entry: Entry) {
        if matches!(entry.what, What::Void) {
            return;
        }
        let at = self.used;
        let bytes = batch.get(entry.at..entry.at + entry.len);
        self.put(&[bytes.unwrap_or_default()]);
        if entry.is_mail() {
            self.messages_count += 1;
            self.first_message_at = now;
        } else {
            self.first_small_at = self.first_small_at.min(now);
        }
        self.push(Entry { at, ..entry });
    }

    fn push(&mut self, entry: Entry) {
        self.mail_count += u32::from(entry.is_mail());
        self.entries.push(entry);
    }

    fn void(&mut self, sequence: u64) {
        self.frame(Kind::Void, &[&sequence.to_le_bytes()], What::Void);
    }

    /// Takes the batch out and starts the next one.
    fn take(&mut self) -> (AlignedBuf, Vec<Entry>, usize, u64) {
        let next = self
            .spare
            .take()
            .unwrap_or_else(|| AlignedBuf::zeroed(self.first_bytes));
        let mut buf = std::mem::replace(&mut self.buf, next);
        let used = self.used;
        buf.resize(aligned(used));
        let (_, padding) = buf.split_at_mut(used);
        padding.fill(0);
        let batch = self.batch;
        self.batch += 1;
        self.used = COMMIT_HEADER_BYTES;
        self.messages_count = 0;
        self.mail_count = 0;
        self.copied_bytes = 0;
        self.has_piece = false;
        self.first_message_at = u64::MAX;
        self.first_small_at = u64::MAX;
        let like_this = Vec::with_capacity(self.entries.len());
        let entries = std::mem::replace(&mut self.entries, like_this);
        (buf, entries, used, batch)
    }

    /// Takes back the buffer of a batch that has ended: fresh memory costs more than all that is done with it. One
    /// that has grown beyond all use is given up.
    fn reuse(&mut self, buf: AlignedBuf) {
        let kept = self.first_bytes..=KEPT_FACTOR * self.first_bytes;
        if kept.contains(&buf.capacity()) {
            self.spare = Some(buf);
        }
    }
}

fn message_what(key: MessageKey, kept: bool) -> What {
    if kept {
        What::Kept(key)
    } else {
        What::Message(key)
    }
}

impl Log {
    /// When the staged batch has to be written at the latest; 0: now.
    fn due_at(&self) -> Option<u64> {
        let staging = &self.staging;
        if staging.is_empty() {
            // A commit that failed is made void by itself: nothing is accepted before that.
            return self.retry_at.filter(|_| self.owes_void());
        }
        if let Some(retry_at) = self.retry_at {
            return Some(retry_at);
        }
        let outcomes_at = staging
            .first_small_at
            .saturating_add(self.settings.outcome_delay_ns);
        let outcomes_at = if self.settings.faulty(Fault::OutcomesWait) {
            u64::MAX
        } else {
            outcomes_at
        };
        // The rest of a result of routing waits for the next batch.
        if staging.has_piece {
            return Some(0);
        }
        if staging.messages_count == 0 {
            return Some(if self.copies_are_full() {
                0
            } else {
                outcomes_at
            });
        }
        let full = self.receiving == 0
            || staging.messages_count >= self.settings.batch_messages
            || staging.len() as u64 >= self.settings.batch_bytes;
        let messages_at = if full {
            0
        } else {
            staging.first_message_at.saturating_add(self.commit_delay())
        };
        Some(messages_at.min(outcomes_at))
    }

    fn commit_delay(&self) -> u64 {
        let automatic = (2 * self.stats.commit_ns_median).clamp(DELAY_NS.0, DELAY_NS.1);
        self.settings.commit_delay_ns.unwrap_or(automatic)
    }

    /// Keeps the latency of a commit and the median of the last ones.
    fn took(&mut self, latency_ns: u64) {
        self.latencies.push_back(latency_ns);
        if self.latencies.len() > LATENCIES {
            self.latencies.pop_front();
        }
        let mut sorted: Vec<u64> = self.latencies.iter().copied().collect();
        sorted.sort_unstable();
        self.stats.commit_ns_median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
    }

    fn owes_void(&self) -> bool {
        !self.void.is_empty() && !self.settings.faulty(Fault::NoVoid)
    }

    /// Bytes of the commit that would be written now.
    fn due_length(&self) -> u64 {
        let void = if self.owes_void() && !self.staging.has_void() {
            self.void.len() * VOID_BYTES
        } else {
            0
        };
        aligned(self.staging.len() + void) as u64
    }

    pub(crate) fn commit_deadline(&self) -> Option<u64> {
        if self.in_flight.is_some() {
            return None;
        }
        let mail = self.staging.has_mail();
        match self.room(self.due_length(), mail) {
            Room::Now => self.due_at(),
            // The end of the job that makes a segment is what counts.
            Room::Soon => None,
            Room::Nowhere => self.due_at().filter(|_| mail),
        }
    }

    pub(crate) fn poll_commit(&mut self, now: u64) -> Option<Request> {
        if let Some(commit) = &mut self.in_flight {
            let waiting = commit.waiting.take()?;
            return self.write_again(now, waiting);
        }
        self.stage_rounds(now);
        if self.due_at().is_none_or(|at| at > now) {
            return None;
        }
        let mail = self.staging.has_mail();
        let length = self.due_length();
        match self.room(length, mail) {
            Room::Now => {}
            Room::Nowhere if mail => {
                // The caller hears of it before the rest is written under another number.
                self.give_up_mail(now);
                return None;
            }
            Room::Soon | Room::Nowhere => return None,
        }
        if self.owes_void() {
            self.stage_void();
        }
        let (segment, offset) = self.space_for(length)?;
        if self.staging.has_others() {
            self.earn_copies(length.saturating_sub(self.staging.copied_bytes()));
        }
        let (buf, entries, used, batch) = self.staging.take();
        let sequence = self.sequence_next;
        self.sequence_next += 1;
        let records = buf.get(COMMIT_HEADER_BYTES..used).unwrap_or_default();
        let header = CommitHeader {
            secret: self.settings.secret,
            sequence,
            generation: self.generation(segment),
            segment,
            length: length as u32,
            records: records.len() as u32,
            previous: self.link,
            sum: crc32c::crc32c(records),
        };
        let token = self.token();
        if self.settings.faulty(Fault::CommittedEarly) {
            self.events.push_back(Event::Committed { batch });
        }
        self.in_flight = Some(InFlight {
            token,
            batch,
            entries,
            header,
            offset,
            started_at: now,
            again: false,
            waiting: None,
        });
        Some(self.write(token, buf, header, offset))
    }

    fn stage_void(&mut self) {
        if !self.staging.has_void() {
            for sequence in self.void.clone() {
                self.staging.void(sequence);
            }
        }
    }

    fn write(
        &mut self,
        token: Token,
        mut buf: AlignedBuf,
        header: CommitHeader,
        offset: u64,
    ) -> Request {
        let (head, _) = buf.split_at_mut(COMMIT_HEADER_BYTES);
        head.copy_from_slice(&header.encode());
        if self.settings.faulty(Fault::ReuseBuffer) {
            let (_, records) = buf.split_at_mut(COMMIT_HEADER_BYTES);
            for (byte, other) in records.iter_mut().take(512).zip(self.staging.buf.iter()) {
                *byte = *other;
            }
        }
        self.stats.flushes += 1;
        self.stats.bytes_written += buf.len() as u64;
        let file = FileId::Segment(header.segment);
        Request {
            token,
            op: Op::Write {
                file,
                offset,
                buf,
                durable: !self.settings.faulty(Fault::SkipSync),
            },
        }
    }

    /// The same bytes under the same sequence, once, in a fresh segment.
    fn write_again(&mut self, now: u64, buf: AlignedBuf) -> Option<Request> {
        let length = buf.len() as u64;
        let mail = self.in_flight.as_ref().is_some_and(InFlight::has_mail);
        match self.room(length, mail) {
            Room::Now => {}
            Room::Nowhere if mail => {
                let commit = self.in_flight.take()?;
                self.give_up(now, commit, &buf);
                self.staging.reuse(buf);
                return None;
            }
            Room::Soon | Room::Nowhere => {
                self.in_flight.as_mut()?.waiting = Some(buf);
                return None;
            }
        }
        let (segment, offset) = self.space_for(length)?;
        let generation = self.generation(segment);
        let token = self.token();
        let commit = self.in_flight.as_mut()?;
        commit.token = token;
        commit.offset = offset;
        commit.header.segment = segment;
        commit.header.generation = generation;
        let header = commit.header;
        Some(self.write(token, buf, header, offset))
    }

    pub(crate) fn committed(&mut self, now: u64, completion: Completion) {
        let Some(mut commit) = self.in_flight.take() else {
            return;
        };
        let Some(buf) = completion.buf else { return };
        let short = completion.result.is_ok() && self.settings.faulty(Fault::AcceptShortWrite);
        if completion.result == Ok(u64::from(commit.header.length)) || short {
            self.took(now.saturating_sub(commit.started_at));
            self.apply(&commit);
            self.staging.reuse(buf);
            return;
        }
        self.trouble(&commit, completion.result);
        if !self.settings.faulty(Fault::KeepFailedSegment) {
            self.close_segment(commit.header.segment);
        }
        if commit.again {
            self.give_up(now, commit, &buf);
            self.staging.reuse(buf);
        } else {
            commit.again = true;
            commit.waiting = Some(buf);
            self.in_flight = Some(commit);
        }
    }

    fn trouble(&mut self, commit: &InFlight, result: Result<u64, i32>) {
        let what = match result {
            Ok(bytes) => format!("short write of {bytes} of {} bytes", commit.header.length),
            Err(errno) => format!("write error, errno {errno}"),
        };
        let next = if commit.again {
            "nothing is accepted until a commit succeeds"
        } else {
            "written again to a fresh segment"
        };
        let (segment, offset) = (commit.header.segment, commit.offset);
        self.events.push_back(Event::Trouble(format!(
            "segment {segment} offset {offset}: {what}; the segment is closed, {next}"
        )));
    }

    /// The commit is on disk: its records count.
    fn apply(&mut self, commit: &InFlight) {
        let header = &commit.header;
        self.link = header.link();
        self.committed = header.sequence;
        self.committed_batch = commit.batch;
        self.checkpoints.grown = (self.checkpoints.grown).saturating_add(header.length.into());
        self.stats.commits += 1;
        if let Some(segment) = self.segments.get_mut(&header.segment) {
            segment.commits += 1;
        }
        self.retry_at = None;
        for entry in &commit.entries {
            let place = Location {
                segment: header.segment,
                payload: commit.offset + (entry.at + HEADER_BYTES) as u64,
                payload_len: (entry.len - HEADER_BYTES) as u64,
            };
            match &entry.what {
                What::Message(key) | What::Kept(key) => self.placed(*key, place),
                What::Round(key) => self.round_placed(*key, place),
                What::Small(Some(key)) => self.forget(*key),
                What::Small(None) => {}
                What::Thread(name, version) => {
                    if let Some(thread) = self.threads.get_mut(name)
                        && thread.version == *version
                    {
                        thread.segment = Some(header.segment);
                        if thread.state.attempt == 0 {
                            self.threads.remove(name);
                        }
                    }
                }
                What::Void => {
                    self.void.clear();
                    self.content_voided();
                }
            }
        }
        self.events.push_back(Event::Committed {
            batch: commit.batch,
        });
        if !self.accepting {
            self.accepting = true;
            self.events.push_back(Event::Accepting(true));
        }
    }

    fn placed(&mut self, key: MessageKey, location: Location) {
        let (before, stuck, copied) = if let Some(live) = self.live.get_mut(&key) {
            let before = std::mem::replace(&mut live.place, Place::Disk(location));
            let stuck = std::mem::take(&mut live.is_stuck);
            (before, stuck, live.rounds.arrive())
        } else if let Some((before, stuck)) = self.resting.placed(key, location) {
            let rounds = self.resting.rounds_mut(key);
            let copied = rounds.map(Rounds::arrive).unwrap_or_default();
            (Place::Disk(before), stuck, copied)
        } else {
            return;
        };
        for piece in copied {
            self.bytes_leave(piece);
        }
        self.record_arrives(key, location);
        if let Place::Disk(old) = before {
            self.record_leaves(old, stuck);
        }
    }

    pub(crate) fn forget(&mut self, key: MessageKey) {
        self.sources.remove(&key);
        let Some(live) = self.live.remove(&key) else {
            return;
        };
        if let Place::Disk(location) = live.place {
            self.record_leaves(location, live.is_stuck);
            self.earn_copies(location.payload_len);
        }
        for piece in &live.rounds.places {
            self.bytes_leave(*piece);
            self.earn_copies(piece.payload_len);
        }
        if live.has_file && !self.settings.faulty(Fault::UnlinkEarly) {
            self.content_remove(live.id);
        }
    }

    fn give_up_message(&mut self, key: MessageKey) {
        self.sources.remove(&key);
        if let Some(live) = self.live.remove(&key)
            && live.has_file
        {
            if self.settings.faulty(Fault::UnlinkUnvoided) {
                self.content_remove(live.id);
            } else {
                self.content_give_up(live.id);
            }
        }
    }

    /// The commit failed for good: clients' messages are given up, everything else is staged again, in
    /// order and before what came since.
    fn give_up(&mut self, now: u64, commit: InFlight, buf: &AlignedBuf) {
        self.void.push(commit.header.sequence);
        let (later, later_entries, _, batch) = self.staging.take();
        self.staging.batch = batch;
        for entry in commit.entries {
            match entry.what {
                What::Message(key) => self.give_up_message(key),
                What::Small(_) if self.settings.faulty(Fault::DropOnFailure) => {}
                _ => self.staging.restage(now, buf, entry),
            }
        }
        for entry in later_entries {
            self.staging.restage(now, &later, entry);
        }
        self.events.push_back(Event::Failed {
            batch: commit.batch,
        });
        self.accepting = false;
        self.events.push_back(Event::Accepting(false));
        self.retry_at = Some(now + RETRY_NS);
    }

    /// There is no place for mail: clients' messages that are staged are given up, the other records
    /// stay, and the reserve is theirs. Nothing of it has been written, so there is nothing to void.
    fn give_up_mail(&mut self, now: u64) {
        let (staged, entries, _, batch) = self.staging.take();
        for entry in entries {
            match entry.what {
                What::Message(key) => self.forget(key),
                _ => self.staging.restage(now, &staged, entry),
            }
        }
        self.staging.reuse(staged);
        self.events.push_back(Event::Failed { batch });
    }
}

const _: () = assert!(MESSAGE_HEAD_BYTES == 36);
