//! A day of a log on a simulated disk: accepts of all sizes, outcomes, reports, reads, states of next
//! hops, write errors, and content that looks like a commit.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use spool::faults::Fault as Deliberate;
use spool::layout::{COMMIT_HEADER_BYTES, CommitHeader, DATA_START, HeaderBlock, SegmentHeader};
use spool::op::{FileId, Op, Request};
use spool::record::{HEADER_BYTES, MESSAGE_HEAD_BYTES, put_envelope};
use spool::sim::{Fault, Rng, SimDisk};
use spool::*;

use crate::facts::{Facts, Mail, Note};

const BLOCK: usize = 4096;
const SEGMENT_BYTES: u64 = 64 << 10;

/// What kind of day it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// Writes fail now and then.
    pub(crate) errors: bool,
    /// The rule that the engine breaks.
    pub(crate) broken: Option<Deliberate>,
    /// The caller writes the outcome before the report about it.
    pub(crate) outcome_first: bool,
    /// One message in so many is large.
    pub(crate) large_one_in: u64,
    /// The disk has room for a few segments only.
    pub(crate) tight: bool,
}

impl Default for Kind {
    fn default() -> Self {
        Self {
            errors: false,
            broken: None,
            outcome_first: false,
            large_one_in: 6,
            tight: false,
        }
    }
}

/// A report that a faulty caller has not written yet, and the batch of the outcome.
struct Owed {
    about: SpoolId,
    report: SpoolId,
    batch: u64,
}

/// The day.
pub(crate) struct Day {
    pub(crate) kind: Kind,
    pub(crate) disk: SimDisk,
    pub(crate) log: Log,
    pub(crate) now: u64,
    pub(crate) facts: Facts,
    keys: BTreeMap<SpoolId, MessageKey>,
    known: BTreeMap<MessageKey, SpoolId>,
    owed: Vec<Owed>,
    committed: u64,
    /// Large content on its way in.
    arriving: BTreeMap<SpoolId, Mail>,
    /// Large content being read: its file, and what has been read.
    reading: BTreeMap<SpoolId, (Arc<ContentFile>, Vec<u8>)>,
    pieces: BTreeMap<u64, SpoolId>,
    /// Segment written to last, and generations.
    segment: u32,
    generations: BTreeMap<u32, u64>,
}

pub(crate) fn settings(kind: Kind, epoch: u64) -> Settings {
    Settings {
        segment_bytes: SEGMENT_BYTES,
        segments_max: 12,
        reserve_segments: 1,
        batch_bytes: 16 << 10,
        epoch,
        secret: epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        fault: kind.broken,
        ..Settings::default()
    }
}

/// Runs a recovery; after `limit` operations it is cut off, which gives nothing.
pub(crate) fn recover(
    disk: &mut SimDisk,
    settings: Settings,
    limit: u64,
) -> Result<Option<(Log, Recovered)>, RecoverError> {
    let mut recovery = Recovery::new(settings);
    let mut operations = 0;
    while let Some(request) = recovery.poll_op() {
        disk.submit(request);
        while let Some(done) = disk.complete_one() {
            recovery.complete(done);
            operations += 1;
            if operations == limit {
                return Ok(None);
            }
        }
    }
    recovery.finish().map(Some)
}

impl Day {
    pub(crate) fn start(seed: u64, kind: Kind) -> Self {
        let mut disk = SimDisk::new(seed);
        if kind.tight {
            disk.capacity_bytes(Some(6 * SEGMENT_BYTES));
        }
        Self::resume(disk, kind, Facts::default(), 7).expect("an empty directory is a start")
    }

    /// A start on `disk`, checked against `facts`; the day goes on from what was found.
    pub(crate) fn resume(
        mut disk: SimDisk,
        kind: Kind,
        mut facts: Facts,
        epoch: u64,
    ) -> Result<Self, String> {
        let found = recover(&mut disk, settings(kind, epoch), u64::MAX);
        let (log, recovered) = found
            .map_err(|error| error.to_string())?
            .expect("there is no limit");
        facts.check(&recovered)?;
        for message in &recovered.messages {
            let found: Vec<&Outcome> = message.outcomes.iter().flatten().collect();
            let kept: Vec<&Outcome> = log.outcomes(message.key).iter().collect();
            if found != kept {
                return Err(format!("outcomes of {}: {kept:?}", message.id));
            }
        }
        facts.settle(&recovered);
        let messages = recovered.messages.iter();
        let keys: BTreeMap<SpoolId, MessageKey> =
            messages.map(|message| (message.id, message.key)).collect();
        let known = keys.iter().map(|(id, key)| (*key, *id)).collect();
        let mut day = Self {
            kind,
            disk,
            log,
            now: 1,
            facts,
            keys,
            known,
            owed: Vec::new(),
            committed: 0,
            arriving: BTreeMap::new(),
            reading: BTreeMap::new(),
            pieces: BTreeMap::new(),
            segment: 0,
            generations: BTreeMap::new(),
        };
        day.read_all()?;
        Ok(day)
    }

    /// Reads every message that is there.
    fn read_all(&mut self) -> Result<(), String> {
        for key in self.keys.values() {
            self.log.read(*key).ok_or("a message without a place")?;
        }
        let mut rest = self.keys.len();
        while rest > 0 {
            // Time stands still: only reads and preparations run.
            while let Some(request) = self.log.poll_op(self.now) {
                self.disk.submit(request);
            }
            let done = self.disk.complete_one().ok_or("a read is lost")?;
            self.log.complete(self.now, done);
            while let Some(event) = self.log.poll_event() {
                let read = matches!(&event, Event::Content { content, .. }
                    if !matches!(content, Ok(Content::File(_))));
                let reading = self.reading.len();
                let large = matches!(event, Event::Piece { .. });
                self.event(event)?;
                let read = read || (large && self.reading.len() < reading);
                rest -= usize::from(read);
            }
        }
        Ok(())
    }

    /// One operation of the disk; says whether there was one.
    pub(crate) fn step(&mut self) -> Result<bool, String> {
        self.now += 1_000;
        while let Some(request) = self.log.poll_op(self.now) {
            self.watch(&request);
            self.disk.submit(request);
        }
        let done = self.disk.complete_one();
        let some = done.is_some();
        if let Some(done) = done {
            self.log.complete(self.now, done);
        }
        while let Some(event) = self.log.poll_event() {
            self.event(event)?;
        }
        Ok(some)
    }

    /// An attacker knows where the next commit goes.
    fn watch(&mut self, request: &Request) {
        let Op::Write {
            file: FileId::Segment(number),
            offset,
            buf,
            ..
        } = &request.op
        else {
            return;
        };
        if *offset >= DATA_START {
            self.segment = *number;
        } else if let HeaderBlock::Valid(header) = SegmentHeader::decode(buf) {
            self.generations.insert(*number, header.generation);
        }
    }

    fn event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Committed { batch } => {
                self.facts.committed(batch);
                self.committed = batch;
            }
            Event::Failed { batch } => {
                let staged = self.log.staged_batch();
                self.facts.failed(batch, staged);
                for owed in self.owed.iter_mut().filter(|owed| owed.batch <= batch) {
                    owed.batch = staged;
                }
            }
            Event::Awake { .. } | Event::Inspected { .. } | Event::Loaded { .. } => {}
            Event::Content { key, content, .. } => {
                let id = self.known[&key];
                match content.map_err(|error| format!("content of {id}: {error}"))? {
                    Content::Whole(content) => self.compare(id, &content)?,
                    Content::File(file) => self.read_file(id, file),
                }
            }
            Event::Piece { ticket, content } => {
                let id = self.pieces.remove(&ticket.0).ok_or("nobody reads this")?;
                // A message may be done while somebody still reads it.
                if let Some((file, mut read)) = self.reading.remove(&id) {
                    self.log.content_close(&file);
                    match content {
                        Ok(piece) => read.extend(piece),
                        Err(_) if self.facts.is_ending(id) => return Ok(()),
                        Err(error) => return Err(format!("content of {id}: {error}")),
                    }
                    if read.len() as u64 == file.len {
                        self.compare(id, &read)?;
                    } else {
                        self.read_piece(id, file, read);
                    }
                }
            }
            Event::ContentWritten { .. } => {}
            Event::ContentStored { id, result } => self.content_stored(id, result.is_ok()),
            Event::Accepting(_) | Event::Trouble(_) => {}
        }
        self.pay_reports();
        Ok(())
    }

    fn compare(&self, id: SpoolId, content: &[u8]) -> Result<(), String> {
        if content == self.facts.offered[&id].content {
            Ok(())
        } else {
            Err(format!("the content of {id} differs"))
        }
    }

    fn read_file(&mut self, id: SpoolId, file: Arc<ContentFile>) {
        if !self.reading.contains_key(&id) {
            self.read_piece(id, file, Vec::new());
        }
    }

    fn read_piece(&mut self, id: SpoolId, file: Arc<ContentFile>, read: Vec<u8>) {
        let piece = (read.len() / PIECE_BYTES) as u32;
        self.log.content_open(&file);
        let ticket = self.log.content_read(&file, piece);
        self.pieces.insert(ticket.0, id);
        self.reading.insert(id, (file, read));
    }

    /// Large content arrives; some clients go away in the middle.
    fn accept_large(&mut self, rng: &mut Rng, number: u64) {
        let id = self.log.reserve_id();
        let envelope = Self::envelope(number);
        let len = [1, 4096, 30_000, PIECE_BYTES, PIECE_BYTES + 5000][rng.index(5)];
        let seed = rng.next_u64();
        let content: Vec<u8> = (0..len as u64)
            .map(|at| (seed >> (at % 57)) as u8)
            .collect();
        self.log.content_begin(id);
        let first = (content.len() / 2) / BLOCK * BLOCK;
        self.log.content_write(id, &content[..first]);
        match rng.below(6) {
            0 => self.log.content_drop(id),
            more => {
                self.log.content_end(id, &content[first..]);
                if more == 1 {
                    self.log.content_drop(id);
                } else {
                    self.arriving.insert(id, Mail { content, envelope });
                }
            }
        }
    }

    fn content_stored(&mut self, id: SpoolId, stored: bool) {
        let Some(mail) = self.arriving.remove(&id).filter(|_| stored) else {
            return;
        };
        match self.log.accept_content(self.now, id, &mail.envelope, false) {
            Ok(accepted) => {
                self.offer(id, accepted, mail);
                self.facts.staged(accepted.batch, Note::Message(id));
            }
            Err(_) => self.log.content_drop(id),
        }
    }

    /// Files with content that nothing speaks of.
    pub(crate) fn garbage(&self) -> Vec<FileId> {
        let content = |file: &FileId| match file {
            FileId::Content(id) => !self.facts.alive.contains_key(&SpoolId::from_bits(*id)),
            _ => false,
        };
        self.disk.files().filter(content).collect()
    }

    fn envelope(number: u64) -> Envelope {
        let recipient = Recipient {
            address: format!("r{number}@b.example").into_bytes(),
            ..Recipient::default()
        };
        Envelope {
            sender: format!("s{number}@a.example").into_bytes(),
            recipients: vec![recipient; 1 + number as usize % 3],
            arrival_ms: number,
            ..Envelope::default()
        }
    }

    pub(crate) fn accept(&mut self, rng: &mut Rng, number: u64) {
        let id = self.log.reserve_id();
        let envelope = Self::envelope(number);
        let content = if self.log.idle() && rng.below(3) == 0 {
            self.forged(&envelope)
        } else {
            let len = [0, 10, 700, 4096, 9000, 20_000][rng.index(6)];
            (0..len).map(|_| rng.next_u64() as u8).collect()
        };
        if let Ok(accepted) = self.log.accept(self.now, id, &envelope, &content) {
            self.offer(id, accepted, Mail { content, envelope });
            self.facts.staged(accepted.batch, Note::Message(id));
        }
    }

    fn offer(&mut self, id: SpoolId, accepted: Accepted, mail: Mail) {
        self.facts.offered.insert(id, Rc::new(mail));
        self.keys.insert(id, accepted.key);
        self.known.insert(accepted.key, id);
    }

    /// Content with a commit at each block of the segment, complete but for the secret.
    fn forged(&self, envelope: &Envelope) -> Vec<u8> {
        let mut head = Vec::new();
        put_envelope(&mut head, envelope);
        let before = COMMIT_HEADER_BYTES + HEADER_BYTES + MESSAGE_HEAD_BYTES + head.len();
        let mut content = vec![b'x'; BLOCK - before % BLOCK];
        let id = SpoolId {
            shard: 0,
            epoch: 666,
            sequence: 1,
        };
        let payload = record::whole_payload(id, envelope, &[], b"forged");
        let mut records = vec![record::Kind::Message as u8, 0, 0, 0];
        records.extend((payload.len() as u32).to_le_bytes());
        records.extend(crc32c::crc32c(&payload).to_le_bytes());
        records.extend(payload);
        for block in 1..5u64 {
            let header = CommitHeader {
                secret: 4711,
                sequence: 1_000_000 + block,
                generation: self.generations.get(&self.segment).copied().unwrap_or(1),
                segment: self.segment,
                length: BLOCK as u32,
                records: records.len() as u32,
                previous: 0,
                sum: crc32c::crc32c(&records),
            };
            content.extend(header.encode());
            content.extend(&records);
            let end = content.len() + BLOCK - (before + content.len()) % BLOCK;
            content.resize(end, b'x');
        }
        content
    }

    /// An attempt for a recipient of the `nth` open message; mostly its last.
    pub(crate) fn attempt(&mut self, rng: &mut Rng) {
        let open = self.facts.open();
        if open.is_empty() {
            return;
        }
        let id = open[rng.index(open.len())];
        let recipients = self.facts.offered[&id].envelope.recipients.len();
        let recipient = rng.index(recipients) as u32;
        let last = rng.below(3) > 0;
        let status = match rng.below(5) {
            _ if !last => Status::Deferred,
            0 if !self.facts.reports.contains_key(&id) => Status::Failed,
            _ => Status::Delivered,
        };
        let outcome = Outcome {
            recipient,
            attempt: 1 + rng.below(9) as u32,
            status,
            next_ms: rng.below(1000),
            reply: b"250 ok".to_vec(),
        };
        let batch = self.log.staged_batch();
        if status == Status::Failed {
            let report = self.log.reserve_id();
            if self.kind.outcome_first {
                self.facts.reports.insert(id, report);
                let about = id;
                self.owed.push(Owed {
                    about,
                    report,
                    batch,
                });
            } else if !self.report(id, report) {
                return;
            }
        }
        let key = self.keys[&id];
        self.log.outcome(self.now, key, outcome.clone());
        self.facts.staged(batch, Note::Outcome(id, outcome));
        if last {
            self.log.done(self.now, key);
            self.facts.staged(batch, Note::Done(id));
        }
    }

    /// A report about `about`; says whether the log took it.
    fn report(&mut self, about: SpoolId, id: SpoolId) -> bool {
        let envelope = Self::envelope(id.sequence);
        let content = format!("{about} could not be delivered").into_bytes();
        let Ok(accepted) = self.log.accept_report(self.now, id, &envelope, &content) else {
            return false;
        };
        self.offer(id, accepted, Mail { content, envelope });
        self.facts.staged(accepted.batch, Note::Report(id));
        self.facts.reports.insert(about, id);
        true
    }

    /// The faulty caller writes its reports once the outcome is on disk.
    fn pay_reports(&mut self) {
        let committed = self.committed;
        let due = |owed: &Owed| owed.batch <= committed;
        for owed in self
            .owed
            .extract_if(.., |owed| due(owed))
            .collect::<Vec<_>>()
        {
            self.report(owed.about, owed.report);
        }
    }

    pub(crate) fn thread(&mut self, rng: &mut Rng) {
        let state = ThreadState {
            channel: b"smtp".to_vec(),
            host: format!("h{}", rng.below(3)).into_bytes(),
            attempt: rng.below(3) as u32,
            next_ms: rng.below(1000),
            reply: b"refused".to_vec(),
        };
        let batch = self.log.staged_batch();
        self.log.thread_state(self.now, state.clone());
        self.facts.staged(batch, Note::Thread(state));
    }

    /// A few messages are delivered.
    pub(crate) fn finish_some(&mut self) {
        for id in self.facts.open().into_iter().take(5) {
            let batch = self.log.staged_batch();
            self.log.done(self.now, self.keys[&id]);
            self.facts.staged(batch, Note::Done(id));
        }
    }

    /// What happens around one message of the day.
    pub(crate) fn happenings(&mut self, rng: &mut Rng, number: u64) {
        if rng.below(self.kind.large_one_in) == 0 {
            self.accept_large(rng, number);
        } else {
            self.accept(rng, number);
        }
        if rng.below(3) == 0 {
            self.log.set_receiving(rng.below(2) as u32);
        }
        for _ in 0..rng.below(4) {
            self.attempt(rng);
        }
        if rng.below(8) == 0 {
            self.thread(rng);
        }
        if rng.below(4) == 0 {
            let open = self.facts.open();
            if !open.is_empty() {
                let key = self.keys[&open[rng.index(open.len())]];
                self.log.read(key);
            }
        }
        if self.kind.errors && rng.below(25) == 0 {
            self.disk.fail_next(Fault::Error { errno: 5 });
            if rng.below(2) == 0 {
                self.disk.fail_next(Fault::Error { errno: 5 });
            }
        }
        if rng.below(4) == 0 {
            let errors = self.kind.errors;
            self.now += if errors { 2_000_000_000 } else { 200_000_000 };
        }
    }
}
