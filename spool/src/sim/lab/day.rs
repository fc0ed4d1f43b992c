//! A day of a log: the engine, its disk, its caller, and what the caller knows.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::facts::{Facts, Mail, Note, Spoilt};
use super::rounds::{PIECE_BYTES as PIECE_BYTES_OF_ROUNDS, Round};
use super::submissions::Submissions;
use super::watch::Watch;
use super::{Careless, Kind, Total};
use crate::content::{ContentFile, PIECE_BYTES};
use crate::id::SpoolId;
use crate::log::Log;
use crate::op::{FileId, Op, Request};
use crate::recover::{CheckpointUse, RecoverError, Recovered, RecoveredMessage, Recovery};
use crate::sim::SimDisk;
use crate::sim::rng::Rng;
use crate::types::{
    Accepted, Awake, Content, Envelope, Event, MessageKey, Origin, Outcome, ReadError, Recipient,
    Settings,
};

/// Small segments: all of a log's life fits in a day.
pub(super) const SEGMENT_BYTES: u64 = 64 << 10;

/// The random number of the first run; later ones count from it.
const EPOCH: u64 = 7;

/// How a start begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// From the latest checkpoint, if there is one.
    Checkpoint,
    /// With the whole log.
    Whole,
}

impl From {
    /// Mostly from a checkpoint.
    pub(super) fn any(rng: &mut Rng) -> Self {
        if rng.below(3) == 0 {
            Self::Whole
        } else {
            Self::Checkpoint
        }
    }
}

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
    /// What the start found, until it is judged: what it did not read comes in behind it.
    found: Option<Recovered>,
    /// Messages that came in resting.
    loaded: BTreeSet<MessageKey>,
    /// Of them, those that have been looked at, for the judge.
    met: BTreeMap<MessageKey, RecoveredMessage>,
    /// Contents that were read.
    contents: usize,
    pieces: BTreeMap<u64, SpoolId>,
    /// Results of routing that are being staged, piece by piece.
    pub(super) routing: BTreeMap<MessageKey, Round>,
    /// Over all runs.
    pub(super) rounds_made: u64,
    rng: Rng,
    counts: BTreeMap<&'static str, u64>,
    pub(super) tracing: bool,
    /// What was done, for people.
    pub(super) lines: Vec<String>,
}

pub(super) fn settings(kind: Kind, epoch: u64) -> Settings {
    Settings {
        segment_bytes: SEGMENT_BYTES,
        segments_max: 12,
        reserve_segments: 1,
        batch_bytes: 16 << 10,
        checkpoint_bytes: kind.checkpoint_bytes,
        chunk_entries: 3,
        envelopes_max: 20,
        round_piece_bytes: PIECE_BYTES_OF_ROUNDS,
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
    from: From,
) -> Result<Option<(Log, Recovered)>, RecoverError> {
    let mut recovery = match from {
        From::Checkpoint => Recovery::from_checkpoint(settings),
        From::Whole => Recovery::new(settings),
    };
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
            disk.capacity_bytes(Some(6 * SEGMENT_BYTES + SEGMENT_BYTES / 2));
        }
        let mut day = Self::resume(disk, kind, Facts::default(), EPOCH, From::Checkpoint)
            .expect("an empty directory is a start");
        day.seed = seed;
        day.rng = Rng::new(seed ^ 0xda);
        day.tracing = tracing;
        day
    }

    /// A start on `disk`, checked against `facts`; the day goes on from what was found.
    pub(super) fn resume(
        disk: SimDisk,
        kind: Kind,
        facts: Facts,
        epoch: u64,
        from: From,
    ) -> Result<Self, String> {
        let mut day = Self::begin(disk, kind, facts, epoch, from)?;
        day.load()?;
        day.judge()?;
        Ok(day)
    }

    /// A start on `disk`; what it found is not judged yet.
    pub(super) fn begin(
        mut disk: SimDisk,
        kind: Kind,
        mut facts: Facts,
        epoch: u64,
        from: From,
    ) -> Result<Self, String> {
        let found = recover(&mut disk, settings(kind, epoch), u64::MAX, from);
        let (log, recovered) = found
            .map_err(|error| error.to_string())?
            .expect("there is no limit");
        let used = &recovered.report.checkpoint;
        if from == From::Checkpoint {
            is_told_of(used, facts.spoilt, facts.damaged)?;
        }
        // From here on it may be replaced.
        if let Some(spoilt) = &mut facts.spoilt {
            *spoilt = Spoilt::default();
        }
        for message in &recovered.messages {
            let found: Vec<&Outcome> = message.outcomes.iter().flatten().collect();
            let kept: Vec<&Outcome> = log.outcomes(message.key).iter().collect();
            if found != kept {
                return Err(format!("outcomes of {}: {kept:?}", message.id));
            }
        }
        facts.unsettle();
        let messages = recovered.messages.iter();
        let keys: BTreeMap<SpoolId, MessageKey> =
            messages.map(|message| (message.id, message.key)).collect();
        let known = keys.iter().map(|(id, key)| (*key, *id)).collect();
        let used = match used {
            CheckpointUse::None => "start without a checkpoint",
            CheckpointUse::From { .. } => "start from a checkpoint",
            CheckpointUse::Unusable(_) => "start beside a checkpoint",
        };
        Ok(Self {
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
            found: Some(recovered),
            loaded: BTreeSet::new(),
            met: BTreeMap::new(),
            contents: 0,
            pieces: BTreeMap::new(),
            routing: BTreeMap::new(),
            rounds_made: epoch << 32,
            rng: Rng::new(epoch),
            counts: BTreeMap::from([(used, 1)]),
            tracing: false,
            lines: Vec::new(),
        })
    }

    /// Whether something of the checkpoint is to come.
    pub(super) fn is_loading(&self) -> bool {
        self.log.loading.is_some()
    }

    /// Time stands still until all of the checkpoint is in: only reads and preparations run.
    pub(super) fn load(&mut self) -> Result<(), String> {
        while self.is_loading() {
            self.next_operation()?;
        }
        self.events()
    }

    fn next_operation(&mut self) -> Result<(), String> {
        while let Some(request) = self.log.poll_op(self.now) {
            self.submit_request(request)?;
        }
        let done = self.disk.complete_one().ok_or("a read is lost")?;
        self.watch.completion(&done);
        self.log.complete(self.now, done);
        self.events()
    }

    /// Everything that is there is looked at and compared with what was said.
    pub(super) fn judge(&mut self) -> Result<(), String> {
        let resting: BTreeSet<MessageKey> = self.log.resting_keys(..).collect();
        if resting != self.loaded {
            return Err(format!("{resting:?} rest, {:?} were told", self.loaded));
        }
        let awake: Vec<MessageKey> = self.keys.values().copied().collect();
        let awake = awake.into_iter().filter(|key| !resting.contains(key));
        let read = awake.filter(|key| self.log.read(*key).is_some()).count();
        for key in &resting {
            let asked = match self.rng.below(2) {
                0 => self.log.wake(*key),
                _ => self.log.inspect(*key),
            };
            asked.ok_or("a resting message without a place")?;
        }
        self.contents = 0;
        while self.contents < read || self.met.len() < resting.len() || !self.reading.is_empty() {
            self.next_operation()?;
        }
        let mut found = self.found.take().ok_or("judged already")?;
        found
            .messages
            .extend(std::mem::take(&mut self.met).into_values());
        self.add_early(&mut found);
        self.facts
            .check(&found)
            .map_err(|error| format!("{error}; {:?}", found.report))?;
        self.facts.settle(&found);
        self.submissions = Submissions::start(self, &found)?;
        Ok(())
    }

    /// What was taken and confirmed before everything was in is there as well.
    fn add_early(&self, found: &mut Recovered) {
        let mine = |(id, _): &(&SpoolId, &MessageKey)| id.epoch == self.epoch;
        for (id, key) in self.keys.iter().filter(mine) {
            if let Some(outcomes) = self.facts.alive.get(id) {
                let mail = &self.facts.offered[id];
                found.messages.push(RecoveredMessage {
                    key: *key,
                    id: *id,
                    envelope: mail.envelope.clone(),
                    content_len: mail.content.len() as u64,
                    has_file: false,
                    outcomes: outcomes.clone(),
                });
            }
        }
    }

    fn came_in(&mut self, keys: &[MessageKey]) {
        for key in keys {
            self.happened("came in resting");
            self.loaded.insert(*key);
            if let Some(id) = self.log.id(*key) {
                self.keys.insert(id, *key);
                self.known.insert(*key, id);
            }
        }
    }

    fn awake(&mut self, key: MessageKey, result: Result<Awake, ReadError>) -> Result<(), String> {
        let id = self
            .known
            .get(&key)
            .copied()
            .ok_or("nobody knows who woke")?;
        let awake = match result {
            Ok(awake) => awake,
            Err(ReadError::Disk(_)) if self.kind.errors => {
                self.happened("not woken");
                return Ok(());
            }
            Err(error) => return Err(format!("waking {id}: {error}")),
        };
        self.happened("woken");
        match awake.content {
            Content::Whole(content) => self.compare(id, &content)?,
            Content::File(file) => {
                self.happened("woken, large");
                self.read_file(id, file);
            }
        }
        self.meet(key, id, awake.envelope, awake.outcomes)
    }

    fn inspected(
        &mut self,
        key: MessageKey,
        result: Result<Envelope, ReadError>,
    ) -> Result<(), String> {
        let id = self
            .known
            .get(&key)
            .copied()
            .ok_or("nobody knows who rests")?;
        let envelope = match result {
            Ok(envelope) => envelope,
            Err(ReadError::Disk(_)) if self.kind.errors => return Ok(()),
            Err(error) => return Err(format!("looking at {id}: {error}")),
        };
        let Some(view) = self.log.resting(key) else {
            return Ok(());
        };
        let mut outcomes = vec![None; envelope.recipients_count()];
        for recipient in view.recipients() {
            let outcome = recipient.status.map(|status| Outcome {
                recipient: recipient.number,
                attempt: recipient.attempt,
                status,
                next_ms: recipient.next_ms,
                reply: recipient.reply.to_vec(),
            });
            let slot = outcomes.get_mut(recipient.number as usize);
            *slot.ok_or("a recipient too many")? = outcome;
        }
        self.meet(key, id, envelope, outcomes)
    }

    /// A message as the log has it: before the start is judged a part of it, later judged at once.
    fn meet(
        &mut self,
        key: MessageKey,
        id: SpoolId,
        envelope: Envelope,
        outcomes: Vec<Option<Outcome>>,
    ) -> Result<(), String> {
        let message = RecoveredMessage {
            key,
            id,
            envelope,
            content_len: self.log.content_len(key).unwrap_or(0),
            has_file: false,
            outcomes,
        };
        if self.found.is_none() {
            return self.facts.check_found(id, &message);
        }
        self.met.insert(key, message);
        Ok(())
    }

    /// The message behind a key.
    pub(super) fn id_of(&self, key: MessageKey) -> Option<SpoolId> {
        self.known.get(&key).copied()
    }

    pub(super) fn is_resting(&self, id: SpoolId) -> bool {
        let key = self.keys.get(&id);
        key.is_some_and(|key| self.log.resting(*key).is_some())
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

    /// One operation of the disk, or one on the directories beside the log; says whether there was one.
    pub(super) fn step(&mut self) -> Result<bool, String> {
        self.now += 1_000;
        // What was given up is heard of before anything else happens.
        while let Some(request) = self.log.poll_op(self.now) {
            self.submit_request(request)?;
            self.events()?;
        }
        self.events()?;
        let mut rng = self.rng.clone();
        let first = self.disk.in_flight() == 0 || rng.below(5) == 0;
        let judged = self.found.is_none();
        let stepped = first && judged && self.submission_step(&mut rng)?;
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
                self.contents += 1;
                match content {
                    Ok(Content::Whole(content)) => self.compare(id, &content)?,
                    Ok(Content::File(file)) => self.read_file(id, file),
                    Err(ReadError::Disk(_)) if self.kind.errors => self.happened("unread"),
                    Err(error) => return Err(format!("content of {id}: {error}")),
                }
            }
            Event::Piece { ticket, content } => self.piece(ticket.0, content)?,
            Event::ContentWritten { .. } => {}
            Event::Awake { key, result, .. } => self.awake(key, result)?,
            Event::Inspected { key, result, .. } => self.inspected(key, result)?,
            Event::Routed { key, batch } => self.routed(key, batch),
            Event::Loaded { keys } => self.came_in(&keys),
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
        match self.facts.offered.get(&id) {
            Some(mail) if content == mail.content => Ok(()),
            Some(_) => Err(format!("the content of {id} differs")),
            None => Err(format!("{id} was never sent")),
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
            origin: if number % 5 == 4 {
                Origin::Submission
            } else {
                Origin::Relay
            },
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

/// A checkpoint that is damaged is not used, and that is said; any other one is used.
fn is_told_of(used: &CheckpointUse, spoilt: Option<Spoilt>, damaged: bool) -> Result<(), String> {
    match (used, spoilt) {
        (
            CheckpointUse::Unusable(why)
            | CheckpointUse::From {
                unusable: Some(why),
                ..
            },
            None,
        ) if !damaged => Err(why.clone()),
        (CheckpointUse::From { covered, .. }, Some(spoilt)) if spoilt.covered == Some(*covered) => {
            Err("a damaged checkpoint is used".to_owned())
        }
        (CheckpointUse::None | CheckpointUse::From { unusable: None, .. }, Some(spoilt))
            if spoilt.is_told =>
        {
            Err("nobody hears of the damaged checkpoint".to_owned())
        }
        _ => Ok(()),
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
