//! The engine of one log: what is staged, what is live, what the caller may do.
//!
//! Calls change memory only; [`Log::poll_op`] says what the disk has to do next. Exactly one commit
//! is in flight, and its buffer has left the engine until the disk gives it back.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::checkpoint::load::Loading;
use crate::checkpoint::write::Checkpoints;
use crate::commit::{InFlight, Staging, What};
use crate::content::Contents;
use crate::faults::Fault;
use crate::id::SpoolId;
use crate::jobs::{Job, Pauses, Planned};
use crate::op::{Completion, Request, Token};
use crate::read::Read;
use crate::record::{self, Kind, MessageHead};
use crate::rest::Resting;
use crate::routing::{self, Rounds};
use crate::segments::Segment;
use crate::types::{
    Accepted, Content, Envelope, Event, MessageKey, Outcome, Refusal, Settings, Source, Stats,
    ThreadState,
};

/// Bytes of a reply that an outcome keeps.
const REPLY_BYTES_MAX: usize = 512;

/// Where a message's record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a batch that is not on disk.
    Staged,
    /// On disk.
    Disk(Location),
}

/// A record on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) segment: u32,
    /// Offset of the payload in the segment.
    pub(crate) payload: u64,
    /// Bytes of the payload.
    pub(crate) payload_len: u64,
}

/// A map whose keys are made by the engine: nobody can make them collide.
pub(crate) type FastMap<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// Channel and host.
pub(crate) type ThreadName = (Vec<u8>, Vec<u8>);

/// The state of a (channel, host) and where its record is.
#[derive(Debug)]
pub(crate) struct ThreadPlace {
    pub(crate) state: ThreadState,
    /// Tells this state from others of the same name on their way to the disk.
    pub(crate) version: u64,
    /// The segment with its record, once that is on disk.
    pub(crate) segment: Option<u32>,
}

impl ThreadPlace {
    pub(crate) fn on_disk(state: ThreadState, segment: u32) -> Self {
        Self {
            state,
            version: 0,
            segment: Some(segment),
        }
    }
}

/// A live message.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: SpoolId,
    pub(crate) place: Place,
    pub(crate) content_len: u64,
    /// Seconds since 1970.
    pub(crate) arrival_s: u32,
    /// Of the envelope.
    pub(crate) recipients_count: u32,
    /// The content is in a file of its own.
    pub(crate) has_file: bool,
    /// Outcomes so far, for a copy-forward; the latest of each recipient.
    pub(crate) outcomes: Vec<Outcome>,
    /// A done record is staged.
    pub(crate) done: bool,
    /// Its record is damaged: it cannot be copied.
    pub(crate) is_stuck: bool,
    /// The operator knows that its record cannot be read.
    pub(crate) is_reported: bool,
    /// What routing has made of its recipients.
    pub(crate) rounds: Rounds,
}

impl Live {
    pub(crate) fn new(id: SpoolId, envelope: &Envelope, place: Place, content_len: u64) -> Self {
        Self {
            id,
            place,
            content_len,
            arrival_s: u32::try_from(envelope.arrival_ms / 1000).unwrap_or(u32::MAX),
            recipients_count: envelope.recipients_count() as u32,
            has_file: false,
            outcomes: Vec::new(),
            done: false,
            is_stuck: false,
            is_reported: false,
            rounds: Rounds::of(envelope),
        }
    }

    /// Bytes of its record, about so many while it is not on disk.
    pub(crate) fn record_bytes(&self) -> u64 {
        match self.place {
            Place::Disk(place) => place.payload_len,
            Place::Staged => self.content_len,
        }
    }

    /// The latest outcome of each recipient, by number.
    pub(crate) fn keep(&mut self, outcome: Outcome) {
        routing::keep(&mut self.outcomes, outcome);
    }
}

/// The engine of one log.
#[derive(Debug)]
pub struct Log {
    pub(crate) settings: Settings,
    pub(crate) message_next: u64,
    pub(crate) key_next: u64,
    pub(crate) sequence_next: u64,
    pub(crate) link: u32,
    pub(crate) live: FastMap<MessageKey, Live>,
    /// Live messages that the caller has no use for now; the others are in `live`.
    pub(crate) resting: Resting,
    /// Files that messages were taken from and that may still be there.
    pub(crate) sources: BTreeMap<MessageKey, Source>,
    pub(crate) checkpoints: Checkpoints,
    /// The checkpoint that this run started from, until all of it is in.
    pub(crate) loading: Option<Loading>,
    /// The last commit that succeeded, and its batch.
    pub(crate) committed: u64,
    pub(crate) committed_batch: u64,
    pub(crate) threads: BTreeMap<ThreadName, ThreadPlace>,
    pub(crate) thread_version: u64,
    pub(crate) staging: Staging,
    /// Results of routing that wait for a place in a batch.
    pub(crate) rounds: VecDeque<routing::Staging>,
    pub(crate) in_flight: Option<InFlight>,
    /// Sequences that failed and that the next commit voids.
    pub(crate) void: Vec<u64>,
    pub(crate) accepting: bool,
    pub(crate) retry_at: Option<u64>,
    pub(crate) receiving: u32,
    pub(crate) segments: BTreeMap<u32, Segment>,
    /// Segments that hold commits, oldest first; the active one last.
    pub(crate) order: VecDeque<u32>,
    pub(crate) active: Option<u32>,
    pub(crate) free: VecDeque<u32>,
    pub(crate) job: Option<Job>,
    pub(crate) job_requests: VecDeque<Planned>,
    pub(crate) job_flying: Option<Token>,
    /// Bytes that the write that flies has to write.
    pub(crate) job_bytes: u64,
    /// The request that flies syncs the directory.
    pub(crate) job_names: bool,
    /// A sync of the directory failed meanwhile: the name of a new segment may be lost.
    pub(crate) job_spoilt: bool,
    pub(crate) pauses: Pauses,
    /// Bytes that may be copied before something else is written or dies.
    pub(crate) copy_credit: u64,
    /// So many messages are read one by one to be copied: reading them together failed.
    pub(crate) copy_alone: usize,
    /// The last segment could not be made. Only one that is made ends this: until then nothing is
    /// accepted in the hope of it.
    pub(crate) making_fails: bool,
    pub(crate) segment_next: u32,
    pub(crate) reads: VecDeque<Read>,
    pub(crate) reading: FastMap<Token, Read>,
    pub(crate) token_next: u64,
    pub(crate) ticket_next: u64,
    pub(crate) contents: Contents,
    pub(crate) events: VecDeque<Event>,
    pub(crate) latencies: VecDeque<u64>,
    pub(crate) stats: Stats,
}

impl Log {
    /// A log without segments and messages.
    pub(crate) fn empty(settings: Settings) -> Self {
        let staging = Staging::new(settings.batch_bytes);
        Self {
            settings,
            message_next: 1,
            key_next: 1,
            sequence_next: 1,
            link: 0,
            live: FastMap::default(),
            resting: Resting::default(),
            sources: BTreeMap::new(),
            checkpoints: Checkpoints::default(),
            loading: None,
            committed: 0,
            committed_batch: 0,
            threads: BTreeMap::new(),
            thread_version: 0,
            staging,
            rounds: VecDeque::new(),
            in_flight: None,
            void: Vec::new(),
            accepting: true,
            retry_at: None,
            receiving: 0,
            segments: BTreeMap::new(),
            order: VecDeque::new(),
            active: None,
            free: VecDeque::new(),
            job: None,
            job_requests: VecDeque::new(),
            job_flying: None,
            job_bytes: 0,
            job_names: false,
            job_spoilt: false,
            pauses: Pauses::default(),
            // Limited to the length of the log when something is written.
            copy_credit: u64::MAX,
            copy_alone: 0,
            making_fails: false,
            segment_next: 0,
            reads: VecDeque::new(),
            reading: FastMap::default(),
            token_next: 0,
            ticket_next: 0,
            contents: Contents::default(),
            events: VecDeque::new(),
            latencies: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// The id of the next message; it stands in the message before the message is complete.
    pub fn reserve_id(&mut self) -> SpoolId {
        let id = SpoolId {
            shard: self.settings.shard,
            epoch: self.settings.epoch,
            sequence: self.message_next,
        };
        self.message_next += 1;
        id
    }

    /// Stages a message.
    ///
    /// # Errors
    /// Why it was not; nothing is left over.
    pub fn accept(
        &mut self,
        now: u64,
        id: SpoolId,
        envelope: &Envelope,
        content: &[u8],
    ) -> Result<Accepted, Refusal> {
        if !self.accepting && !self.settings.faulty(Fault::AcceptWhileFailed) {
            return Err(Refusal::Failed);
        }
        self.stage_message(now, id, envelope, content, false)
    }

    /// Stages a report: it may use the reserve and is never given up; if its commit fails it is
    /// staged again in the same order with the outcomes around it.
    ///
    /// # Errors
    /// [`Refusal::Busy`] and [`Refusal::TooLarge`] only.
    pub fn accept_report(
        &mut self,
        now: u64,
        id: SpoolId,
        envelope: &Envelope,
        content: &[u8],
    ) -> Result<Accepted, Refusal> {
        self.stage_message(now, id, envelope, content, true)
    }

    /// Stages a message of another log with what is known of it; its id stays. Content in a file has to
    /// be in this log's directory, on disk with its name.
    ///
    /// # Errors
    /// [`Refusal::Busy`], [`Refusal::Full`] and [`Refusal::TooLarge`].
    pub fn adopt(
        &mut self,
        now: u64,
        id: SpoolId,
        envelope: &Envelope,
        outcomes: &[Outcome],
        content: &Content,
    ) -> Result<MessageKey, Refusal> {
        let (kind, payload, content_len) = match content {
            Content::Whole(content) => (
                routing::routed_kind(false, envelope.routing.is_some()),
                record::whole_payload(id, envelope, outcomes, content),
                content.len() as u64,
            ),
            Content::File(file) => (
                routing::routed_kind(true, envelope.routing.is_some()),
                record::large_payload(envelope, outcomes, file),
                file.len,
            ),
        };
        self.room_for(record::HEADER_BYTES + payload.len(), true)?;
        let key = self.next_key();
        self.staging.copy(now, key, kind, &payload);
        let live = Live {
            has_file: kind.has_file(),
            outcomes: outcomes.to_vec(),
            ..Live::new(id, envelope, Place::Staged, content_len)
        };
        self.enter(key, envelope, live);
        Ok(key)
    }

    /// Enters a message that is new here.
    pub(crate) fn enter(&mut self, key: MessageKey, envelope: &Envelope, live: Live) {
        self.live.insert(key, live);
        if let Some(source) = envelope.source {
            self.sources.insert(key, source);
        }
    }

    fn stage_message(
        &mut self,
        now: u64,
        id: SpoolId,
        envelope: &Envelope,
        content: &[u8],
        report: bool,
    ) -> Result<Accepted, Refusal> {
        let mut head = Vec::with_capacity(256);
        record::put_envelope(&mut head, envelope);
        let size = record::HEADER_BYTES + record::MESSAGE_HEAD_BYTES + head.len() + content.len();
        self.room_for(size, report)?;
        let fixed = MessageHead {
            id,
            envelope_len: head.len() as u32,
            outcomes_count: 0,
            content_len: content.len() as u64,
            content_sum: crc32c::crc32c(content),
        };
        let key = self.next_key();
        let batch = self
            .staging
            .message(now, key, report, &fixed, &head, content);
        let live = Live::new(id, envelope, Place::Staged, content.len() as u64);
        self.enter(key, envelope, live);
        Ok(Accepted { key, id, batch })
    }

    /// Whether a record of `size` bytes can be staged now.
    pub(crate) fn room_for(&self, size: usize, reserve: bool) -> Result<(), Refusal> {
        let limit = self.payload_max();
        if size as u64 > limit {
            return Err(Refusal::TooLarge { limit });
        }
        let staged = self.staging.len() as u64;
        // A commit larger than a segment makes it grow, which a full disk refuses.
        let staged_max = self.settings.staging_bytes_max.min(limit);
        if staged + size as u64 > staged_max && !self.staging.is_empty() {
            return Err(Refusal::Busy);
        }
        if !reserve && !self.has_space(staged + size as u64) {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    /// Records the result of an attempt.
    pub fn outcome(&mut self, now: u64, key: MessageKey, mut outcome: Outcome) {
        outcome.reply.truncate(REPLY_BYTES_MAX);
        let Some(live) = self.live.get_mut(&key) else {
            return;
        };
        let mut payload = Vec::with_capacity(64);
        payload.extend_from_slice(&live.id.bits().to_le_bytes());
        record::put_outcome(&mut payload, &outcome);
        live.keep(outcome);
        let what = What::Small(None);
        self.staging.small(now, Kind::Outcome, &payload, what);
    }

    /// Records that all recipients are finished. The key is gone.
    pub fn done(&mut self, now: u64, key: MessageKey) {
        let Some(live) = self.live.get_mut(&key) else {
            return;
        };
        if std::mem::replace(&mut live.done, true) {
            return;
        }
        let payload = live.id.bits().to_le_bytes();
        let what = What::Small(Some(key));
        self.staging.small(now, Kind::Done, &payload, what);
        if self.settings.faulty(Fault::UnlinkEarly) && live.has_file {
            let id = live.id;
            self.content_remove(id);
        }
        if self.settings.faulty(Fault::ForgetEarly) {
            self.forget(key);
        }
    }

    /// Records the state of a (channel, host).
    pub fn thread_state(&mut self, now: u64, mut state: ThreadState) {
        state.reply.truncate(REPLY_BYTES_MAX);
        let mut payload = Vec::with_capacity(64);
        record::put_thread(&mut payload, &state);
        let name = (state.channel.clone(), state.host.clone());
        self.thread_version += 1;
        let version = self.thread_version;
        let what = What::Thread(name.clone(), version);
        self.staging.small(now, Kind::Thread, &payload, what);
        // One that ends a state stays until it is on disk, for the segment with that state does so.
        let segment = None;
        let place = ThreadPlace {
            state,
            version,
            segment,
        };
        self.threads.insert(name, place);
    }

    /// Sessions between DATA and their final dot.
    pub fn set_receiving(&mut self, sessions: u32) {
        self.receiving = sessions;
    }

    /// What the disk has to do next. Call until it is `None`, after every other call.
    pub fn poll_op(&mut self, now: u64) -> Option<Request> {
        self.poll_commit(now)
            .or_else(|| self.poll_read())
            .or_else(|| self.poll_content())
            .or_else(|| self.poll_job(now))
            .or_else(|| self.poll_loading(now))
            .or_else(|| self.poll_checkpoint(now))
    }

    /// An answer of the disk.
    pub fn complete(&mut self, now: u64, completion: Completion) {
        if self
            .in_flight
            .as_ref()
            .is_some_and(|commit| commit.token == completion.token)
        {
            self.committed(now, completion);
        } else if let Some(read) = self.reading.remove(&completion.token) {
            self.read_done(read, completion);
        } else if let Some(completion) = self
            .content_done(completion)
            .and_then(|completion| self.loading_done(now, completion))
            .and_then(|completion| self.checkpoint_done(now, completion))
        {
            self.job_done(now, completion);
        }
    }

    /// The next thing the caller should know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::poll_op`] has to be called without another reason.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        [self.commit_deadline(), self.job_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The content's length of a live message.
    #[must_use]
    pub fn content_len(&self, key: MessageKey) -> Option<u64> {
        let live = self.live.get(&key).map(|live| live.content_len);
        live.or_else(|| self.resting.get(key).map(|rest| rest.content_len.into()))
    }

    /// The latest outcomes of a live message that does not rest, by number of the recipient.
    #[must_use]
    pub fn outcomes(&self, key: MessageKey) -> &[Outcome] {
        self.live.get(&key).map_or(&[], |live| &live.outcomes)
    }

    /// The id of a live message.
    #[must_use]
    pub fn id(&self, key: MessageKey) -> Option<SpoolId> {
        let rest = || self.resting.id(self.resting.get(key)?);
        self.live.get(&key).map(|live| live.id).or_else(rest)
    }

    /// Files that messages were taken from and that may still be there: they are not to be taken again.
    pub fn sources(&self) -> impl Iterator<Item = (MessageKey, Source)> {
        self.sources.iter().map(|(key, source)| (*key, *source))
    }

    /// Whether the file of a message may still be there.
    #[must_use]
    pub fn has_source(&self, key: MessageKey) -> bool {
        self.sources.contains_key(&key)
    }

    /// The file of a message is gone for good.
    pub fn source_gone(&mut self, key: MessageKey) {
        self.sources.remove(&key);
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        stats.segments = self.segments.len() as u64;
        stats.bytes = stats.segments * self.settings.segment_bytes;
        stats.loading = self.loading_count();
        stats.messages = self.live.len() as u64 + self.resting.len() + stats.loading;
        stats.free_segments = self.free.len() as u64;
        stats.accepting = self.accepting;
        stats.staged_bytes = self.staging.len() as u64;
        stats
    }

    /// The batch that what is staged now belongs to.
    #[must_use]
    pub fn staged_batch(&self) -> u64 {
        self.staging.batch()
    }

    /// More waits for the disk than should: what makes further records has to wait.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.staging.len() as u64 > 2 * self.settings.staging_bytes_max
    }

    /// Nothing is staged or being written.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.staging.is_empty() && self.in_flight.is_none() && self.rounds.is_empty()
    }

    pub(crate) fn token(&mut self) -> Token {
        self.token_next += 1;
        Token(self.token_next)
    }
}
