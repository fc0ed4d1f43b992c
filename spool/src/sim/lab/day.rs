//! A day of a log: the engine, its disk, its caller, and what the caller knows.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::facts::{Facts, Mail, Note};
use super::submissions::Submissions;
use super::watch::Watch;
use super::{Careless, Kind, Total};
use crate::content::{ContentFile, PIECE_BYTES};
use crate::id::SpoolId;
use crate::log::Log;
use crate::op::{FileId, Op, Request};
use crate::recover::{RecoverError, Recovered, Recovery};
use crate::sim::SimDisk;
use crate::sim::rng::Rng;
use crate::types::{
    Accepted, Content, Envelope, Event, MessageKey, Outcome, ReadError, Recipient, Settings,
};

/// Small segments: all of a log's life fits in a day.
pub(super) const SEGMENT_BYTES: u64 = 64 << 10;

/// The random number of the first run; later ones count from it.
const EPOCH: u64 = 7;

/// A report that a careless caller has not written yet, and the batch of the outcome.
pub(super) struct Owed {
    pub(super) about: SpoolId,
    pub(super) report: SpoolId,
    pub(super) batch: u64,
}

/// The day.
pub(super) struct Day {
    pub(super) kind: Kind,
    pub(super) seed: u64,
    pub(super) epoch: u64,
    pub(super) disk: SimDisk,
    pub(super) log: Log,
    pub(super) now: u64,
    pub(super) facts: Facts,
    pub(super) submissions: Submissions,
    pub(super) watch: Watch,
    pub(super) keys: BTreeMap<SpoolId, MessageKey>,
    known: BTreeMap<MessageKey, SpoolId>,
    pub(super) owed: Vec<Owed>,
    committed: u64,
    /// Large content on its way in.
    pub(super) arriving: BTreeMap<SpoolId, Mail>,
    /// Large content being read: its file, and what has been read.
    reading: BTreeMap<SpoolId, (Arc<ContentFile>, Vec<u8>)>,
    pieces: BTreeMap<u64, SpoolId>,
    rng: Rng,
    counts: BTreeMap<&'static str, u64>,
    pub(super) tracing: bool,
    /// What was done, for people.
    pub(super) lines: Vec<String>,
}

#[cfg_attr(
    not(feature = "faults"),
    expect(unused_variables, reason = "the kind has the fault")
)]
pub(super) fn settings(kind: Kind, epoch: u64) -> Settings {
    Settings {
        segment_bytes: SEGMENT_BYTES,
        segments_max: 12,
        reserve_segments: 1,
        batch_bytes: 16 << 10,
        epoch,
        secret: epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        #[cfg(feature = "faults")]
        fault: kind.fault(),
        ..Settings::default()
    }
}

/// Runs a recovery; after `limit` operations it is cut off, which gives nothing.
pub(super) fn recover(
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
                // What it would do next is in flight when the power goes.
                if let Some(request) = recovery.poll_op() {
                    disk.submit(request);
                }
                return Ok(None);
            }
        }
    }
    recovery.finish().map(Some)
}

impl Day {
    pub(super) fn start(seed: u64, kind: Kind, tracing: bool) -> Self {
        let mut disk = SimDisk::new(seed);
        if kind.tight {
            disk.capacity_bytes(Some(6 * SEGMENT_BYTES));
        }
        let mut day = Self::resume(disk, kind, Facts::default(), EPOCH)
            .expect("an empty directory is a start");
        day.seed = seed;
        day.rng = Rng::new(seed ^ 0xda);
        day.tracing = tracing;
        day
    }

    /// A start on `disk`, checked against `facts`; the day goes on from what was found.
    pub(super) fn resume(
        mut disk: SimDisk,
        kind: Kind,
        mut facts: Facts,
        epoch: u64,
    ) -> Result<Self, String> {
        let found = recover(&mut disk, settings(kind, epoch), u64::MAX);
        let (log, recovered) = found
            .map_err(|error| error.to_string())?
            .expect("there is no limit");
        facts
            .check(&recovered)
            .map_err(|error| format!("{error}; {:?}", recovered.report))?;
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
            seed: 0,
            epoch,
            disk,
            log,
            now: 1,
            facts,
            submissions: Submissions::default(),
            watch: Watch::default(),
            keys,
            known,
            owed: Vec::new(),
            committed: 0,
            arriving: BTreeMap::new(),
            reading: BTreeMap::new(),
            pieces: BTreeMap::new(),
            rng: Rng::new(epoch),
            counts: BTreeMap::new(),
            tracing: false,
            lines: Vec::new(),
        };
        day.submissions = Submissions::start(&day, &recovered);
        day.read_all()?;
        Ok(day)
    }

    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        if self.tracing {
            self.lines.push(line());
        }
    }

    pub(super) fn happened(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Adds what happened since the start of this run.
    pub(super) fn count_into(&mut self, total: &mut Total) {
        for (what, count) in std::mem::take(&mut self.counts) {
            *total.happened.entry(what).or_default() += count;
        }
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
                self.watch.request(&request)?;
                self.disk.submit(request);
            }
            let done = self.disk.complete_one().ok_or("a read is lost")?;
            self.watch.completion(&done);
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

    /// One operation of the disk, or one on the directories beside the log; says whether there was one.
    pub(super) fn step(&mut self) -> Result<bool, String> {
        self.now += 1_000;
        while let Some(request) = self.log.poll_op(self.now) {
            self.submit_request(request)?;
        }
        // What was given up is heard of before anything else happens.
        self.events()?;
        let mut rng = self.rng.clone();
        let first = self.disk.in_flight() == 0 || rng.below(5) == 0;
        let stepped = first && self.submission_step(&mut rng)?;
        self.rng = rng;
        if stepped {
            return Ok(true);
        }
        let done = self.disk.complete_one();
        let some = done.is_some();
        if let Some(done) = done {
            self.say(|| format!("done {}: {:?}", done.token.0, done.result));
            self.watch.completion(&done);
            self.log.complete(self.now, done);
        }
        self.events()?;
        Ok(some)
    }

    fn events(&mut self) -> Result<(), String> {
        while let Some(event) = self.log.poll_event() {
            self.event(event)?;
        }
        Ok(())
    }

    fn submit_request(&mut self, request: Request) -> Result<(), String> {
        self.say(|| format!("asked {}: {}", request.token.0, shown(&request.op)));
        self.watch.request(&request)?;
        self.disk.submit(request);
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Committed { batch } => {
                self.say(|| format!("batch {batch} is committed"));
                self.happened("committed");
                self.facts.committed(batch);
                self.committed = batch;
            }
            Event::Failed { batch } => {
                self.say(|| format!("batch {batch} has failed"));
                self.happened("failed");
                let staged = self.log.staged_batch();
                self.facts.failed(batch, staged);
                for owed in self.owed.iter_mut().filter(|owed| owed.batch <= batch) {
                    owed.batch = staged;
                }
            }
            Event::Content { key, content, .. } => {
                let id = self.known[&key];
                match content {
                    Ok(Content::Whole(content)) => self.compare(id, &content)?,
                    Ok(Content::File(file)) => self.read_file(id, file),
                    Err(ReadError::Disk(_)) if self.kind.errors => self.happened("unread"),
                    Err(error) => return Err(format!("content of {id}: {error}")),
                }
            }
            Event::Piece { ticket, content } => self.piece(ticket.0, content)?,
            Event::ContentWritten { .. }
            | Event::Awake { .. }
            | Event::Inspected { .. }
            | Event::Loaded { .. } => {}
            Event::ContentStored { id, result } => self.content_stored(id, result.is_ok()),
            Event::Accepting(accepting) => {
                self.say(|| format!("accepting: {accepting}"));
                self.watch.refusing = !accepting;
            }
            Event::Trouble(trouble) => self.say(|| trouble),
        }
        self.pay_reports();
        Ok(())
    }

    fn piece(&mut self, ticket: u64, content: Result<Vec<u8>, ReadError>) -> Result<(), String> {
        let id = self.pieces.remove(&ticket).ok_or("nobody reads this")?;
        let Some((file, mut read)) = self.reading.remove(&id) else {
            return Ok(());
        };
        self.log.content_close(&file);
        match content {
            Ok(piece) => read.extend(piece),
            // A message may be done while somebody still reads it.
            Err(_) if self.facts.is_ending(id) => return Ok(()),
            Err(ReadError::Disk(_)) if self.kind.errors => {
                self.happened("unread");
                return Ok(());
            }
            Err(error) => return Err(format!("content of {id}: {error}")),
        }
        if read.len() as u64 == file.len {
            self.happened("large content read");
            self.compare(id, &read)?;
        } else {
            self.read_piece(id, file, read);
        }
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

    fn content_stored(&mut self, id: SpoolId, stored: bool) {
        let Some(mail) = self.arriving.remove(&id).filter(|_| stored) else {
            return;
        };
        match self.log.accept_content(self.now, id, &mail.envelope, false) {
            Ok(accepted) => {
                self.happened("large content staged");
                self.offer(id, accepted, mail);
                self.facts.staged(accepted.batch, Note::Message(id));
            }
            Err(_) => self.log.content_drop(id),
        }
    }

    /// Files with content that nothing speaks of.
    pub(super) fn garbage(&self) -> Vec<FileId> {
        let content = |file: &FileId| match file {
            FileId::Content(id) => !self.facts.alive.contains_key(&SpoolId::from_bits(*id)),
            _ => false,
        };
        self.disk.files().filter(content).collect()
    }

    pub(super) fn envelope(number: u64) -> Envelope {
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

    pub(super) fn offer(&mut self, id: SpoolId, accepted: Accepted, mail: Mail) {
        self.facts.offered.insert(id, Rc::new(mail));
        self.keys.insert(id, accepted.key);
        self.known.insert(accepted.key, id);
    }

    /// The careless caller writes its reports once the outcome is on disk.
    fn pay_reports(&mut self) {
        let committed = self.committed;
        let due = |owed: &mut Owed| owed.batch <= committed;
        for owed in self.owed.extract_if(.., due).collect::<Vec<_>>() {
            self.report(owed.about, owed.report);
        }
    }

    pub(super) fn is_careless(&self, how: Careless) -> bool {
        self.kind.careless(how)
    }
}

/// An operation, for people.
fn shown(op: &Op) -> String {
    match op {
        Op::Write {
            file,
            offset,
            buf,
            durable,
        } => {
            let how = if *durable { "durably " } else { "" };
            let kind = crate::sim::OpKind::of(op).map_or("write", |kind| kind.name());
            format!("{kind} {how}to {file:?} at {offset}, {} bytes", buf.len())
        }
        Op::Read { file, offset, buf } => {
            format!("read {file:?} at {offset}, {} bytes", buf.len())
        }
        other => format!("{other:?}"),
    }
}
