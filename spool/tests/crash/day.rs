//! A day of a log on a simulated disk: accepts of all sizes, outcomes, reports, reads, states of next
//! hops, write errors, and content that looks like a commit.

use std::collections::BTreeMap;
use std::rc::Rc;

use spool::faults::Fault as Deliberate;
use spool::layout::{COMMIT_HEADER_BYTES, CommitHeader, DATA_START, HeaderBlock, SegmentHeader};
use spool::op::{FileId, Op, Request};
use spool::record::{HEADER_BYTES, MESSAGE_HEAD_BYTES, put_envelope};
use spool::sim::{Fault, Rng, SimDisk};
use spool::*;

use crate::facts::{Facts, Mail, Note};

const BLOCK: usize = 4096;

/// What kind of day it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kind {
    /// Writes fail now and then.
    pub(crate) errors: bool,
    /// The rule that the engine breaks.
    pub(crate) broken: Option<Deliberate>,
    /// The caller writes the outcome before the report about it.
    pub(crate) outcome_first: bool,
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
    /// Segment written to last, and generations.
    segment: u32,
    generations: BTreeMap<u32, u64>,
}

pub(crate) fn settings(kind: Kind, epoch: u64) -> Settings {
    Settings {
        segment_bytes: 64 << 10,
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
        let disk = SimDisk::new(seed);
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
                rest -= usize::from(matches!(event, Event::Content { .. }));
                self.event(event)?;
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
            Event::Content { key, content, .. } => {
                let id = self.known[&key];
                let content = content.map_err(|error| format!("content of {id}: {error}"))?;
                if content != self.facts.offered[&id].content {
                    return Err(format!("the content of {id} differs"));
                }
            }
            Event::Accepting(_) | Event::Trouble(_) => {}
        }
        self.pay_reports();
        Ok(())
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

    /// What happens around one message of the day.
    pub(crate) fn happenings(&mut self, rng: &mut Rng, number: u64) {
        self.accept(rng, number);
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
