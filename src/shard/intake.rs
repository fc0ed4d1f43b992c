//! From a complete message to a live one: staging, the commit, the `250`, routing.
//!
//! The one place where a `250` for content is caused is [`Shard::committed`], which runs for a
//! batch after the spool says that its commit is on disk.

use std::sync::Arc;

use spool::{Accepted, Envelope, Event, MessageKey, Outcome, Refusal, SpoolId, Status};

use super::Shard;
use super::inbound::Phase;
use super::routing::Early;
use crate::base::slab::Key;
use crate::io::Driver;
use crate::observe::mail_log;
use crate::protocol::server::{self, Stored, Transaction};

/// Who waits for a commit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// A client's session; it may be gone by then.
    Session(Key),
    /// A report written by this shard.
    Report,
    /// A file of `router/`; the number is the pick-up's.
    File(u64),
}

/// A message staged in a batch that is not on disk yet.
#[derive(Debug)]
pub(super) struct Waiting {
    batch: u64,
    origin: Origin,
    key: MessageKey,
    message: Message,
    /// What the router says of it, as far as that is known.
    routed: Option<Early>,
}

/// A complete message that the spool has not taken yet, because its staging memory was full.
#[derive(Debug)]
pub(super) struct Stalled {
    pub(super) origin: Origin,
    pub(super) message: Message,
}

/// A message on its way in.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: SpoolId,
    pub(super) envelope: Envelope,
    pub(super) content: Content,
    /// Bytes of it that count in the memory budget.
    pub(super) counted_bytes: usize,
}

impl Message {
    pub(super) fn new(id: SpoolId, envelope: Envelope, content: Content) -> Self {
        Self {
            id,
            envelope,
            content,
            counted_bytes: 0,
        }
    }
}

/// Where the content of a message on its way in is.
#[derive(Debug)]
pub(super) enum Content {
    Memory(Vec<u8>),
    /// On disk, with its name; the engine knows the rest.
    File,
}

/// A committed message with recipients that are not finished.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) id: SpoolId,
    pub(super) envelope: Envelope,
    /// Kept while the memory budget allows; read back from the spool otherwise.
    pub(super) content: Option<Arc<Vec<u8>>>,
    /// Recipients without a final outcome.
    pub(super) open_count: u32,
    /// The file it was taken from may still be there: until it is gone the message is not done,
    /// so that after a crash the file is known for what it is.
    pub(super) has_file: bool,
    /// Its vertices.
    pub(super) work: Vec<Key>,
    /// Recipients that an operator holds.
    pub(super) held: Vec<u32>,
    /// Attempts that an earlier run of the daemon made, by recipient; empty for new messages.
    pub(super) attempts: Vec<u32>,
    /// Recipients that are being routed, and results on their way to the spool: until then it does not rest.
    pub(super) routing_count: usize,
    /// Recipients that the router could not decide about, and when they are routed again.
    pub(super) on_hold: Vec<(u32, u64)>,
    /// Of the configuration it was routed by, last.
    pub(super) generation: u64,
}

impl Live {
    /// A message of which something is known already; the file it was taken from is gone.
    pub(super) fn known(
        id: SpoolId,
        envelope: Envelope,
        content: Option<Arc<Vec<u8>>>,
        outcomes: &[Option<Outcome>],
        held: Vec<u32>,
    ) -> Self {
        let is_open = |outcome: &&Option<Outcome>| match outcome {
            None => true,
            Some(outcome) => matches!(outcome.status, Status::Deferred | Status::Held),
        };
        let attempts = outcomes.iter();
        let generation = envelope.routing.as_ref();
        let generation = generation.map_or(0, |routing| routing.generation);
        Self {
            id,
            envelope,
            content,
            open_count: outcomes.iter().filter(is_open).count() as u32,
            has_file: false,
            work: Vec::new(),
            held,
            attempts: attempts
                .map(|outcome| outcome.as_ref().map_or(0, |outcome| outcome.attempt))
                .collect(),
            routing_count: 0,
            on_hold: Vec::new(),
            generation,
        }
    }
}

impl<D: Driver> Shard<D> {
    /// Takes a client's finished transaction to the spool.
    pub(super) fn store(&mut self, key: Key, transaction: Transaction) {
        let Some(inbound) = self.inbound.get_mut(key) else {
            return;
        };
        let id = inbound.id.take().unwrap_or_else(|| self.log.reserve_id());
        let policy = &self.policies[inbound.listener];
        let submits = policy.is_submission(inbound.peer.ip());
        let (mut envelope, content) =
            envelope_of(transaction, &inbound.peer_text, self.now.wall_ms);
        if submits {
            envelope.origin = spool::Origin::Submission;
        }
        let spilled = inbound.spill.take().is_some();
        // From here on the message counts for itself: its client may go.
        self.memory.staged(&mut inbound.staged_bytes, 0);
        self.memory.leaving(&mut inbound.leaving_bytes, 0);
        self.memory.forget(key);
        self.memory.not_bulky(&mut inbound.bulky);
        let origin = Origin::Session(key);
        if spilled {
            self.store_large(origin, id, envelope, &content);
            return;
        }
        self.stage(Stalled {
            origin,
            message: Message::new(id, envelope, Content::Memory(content)),
        });
    }

    /// Stages a message, now or as soon as there is room behind those that already wait for it.
    pub(super) fn stage(&mut self, mut stalled: Stalled) {
        self.count(&mut stalled.message);
        if self.stalled.is_empty() {
            if let Some(stalled) = self.try_stage(stalled) {
                self.stalled.push_back(stalled);
            }
        } else {
            self.stalled.push_back(stalled);
        }
    }

    pub(super) fn report_message(message: Message) -> Stalled {
        Stalled {
            origin: Origin::Report,
            message,
        }
    }

    /// Enters a message's content into the memory budget, once.
    fn count(&mut self, message: &mut Message) {
        if let Content::Memory(content) = &message.content {
            self.memory
                .staged(&mut message.counted_bytes, content.len());
        }
    }

    fn uncount(&mut self, message: &Message) {
        let mut counted_bytes = message.counted_bytes;
        self.memory.staged(&mut counted_bytes, 0);
    }

    /// Gives the message back when staging is full for the moment.
    pub(super) fn try_stage(&mut self, stalled: Stalled) -> Option<Stalled> {
        let Stalled {
            origin,
            mut message,
        } = stalled;
        self.count(&mut message);
        let now = self.now.mono_ns;
        let Message {
            id,
            envelope,
            content,
            ..
        } = &message;
        let accepted = match (origin, content) {
            (_, Content::File) => self.log.accept_content(now, *id, envelope, false),
            (Origin::Session(_) | Origin::File(_), Content::Memory(content)) => {
                self.log.accept(now, *id, envelope, content)
            }
            (Origin::Report, Content::Memory(content)) => {
                self.log.accept_report(now, *id, envelope, content)
            }
        };
        match accepted {
            Ok(Accepted { key, batch, .. }) => {
                let routed = self.route_early(key, &message);
                self.waiting.push_back(Waiting {
                    batch,
                    origin,
                    key,
                    message,
                    routed,
                });
                None
            }
            Err(Refusal::Busy) => Some(Stalled { origin, message }),
            Err(refusal) => {
                self.uncount(&message);
                if matches!(message.content, Content::File) {
                    self.log.content_drop(message.id);
                }
                self.answer(origin, refused(&refusal));
                None
            }
        }
    }

    pub(super) fn spool_event(&mut self, event: Event) {
        match event {
            Event::Committed { batch } => self.committed(batch),
            Event::Failed { batch } => self.failed_batch(batch),
            Event::Content {
                ticket,
                key,
                content,
            } => self.content_loaded(ticket, key, content),
            Event::Awake { key, result, .. } => self.awake(key, result),
            Event::Inspected { key, result, .. } => self.inspected(key, result),
            Event::Routed { key, .. } => self.rounds_staged(key),
            Event::Loaded { keys } => self.loaded(&keys),
            Event::Piece { ticket, content } => self.piece_loaded(ticket, content),
            Event::ContentWritten { id } => self.spill_written(id),
            Event::ContentStored { id, result } => self.content_stored(id, result),
            Event::Accepting(accepting) => {
                tracing::warn!(
                    shard = self.settings.shard,
                    accepting,
                    "spool accepts new mail"
                );
            }
            Event::Trouble(what) => tracing::error!(shard = self.settings.shard, "spool: {what}"),
        }
    }

    /// A batch is on disk: its clients get their `250`, its messages go to the router.
    fn committed(&mut self, batch: u64) {
        while self
            .waiting
            .front()
            .is_some_and(|waiting| waiting.batch <= batch)
        {
            let Some(Waiting {
                origin,
                key,
                message,
                routed,
                ..
            }) = self.waiting.pop_front()
            else {
                break;
            };
            self.not_early(routed.as_ref());
            let id = message.id.to_string();
            let size_bytes = self.log.content_len(key).unwrap_or(0);
            self.log_accepted(&id, &message.envelope, size_bytes);
            self.shared.metrics(self.settings.shard).accepted();
            self.uncount(&message);
            self.make_live(key, message, routed);
            match origin {
                Origin::File(token) => self.imported(token, Ok(key)),
                _ => self.answer(origin, Stored::Accepted { id: &id }),
            }
        }
        self.unstall();
    }

    fn failed_batch(&mut self, batch: u64) {
        // Nobody will send a report again: the log has staged it again, in front of what came since.
        let again = self.log.staged_batch();
        // The log has gone on: it was not the disk that failed, there was no place.
        let failed = if self.log.stats().accepting {
            Stored::Full
        } else {
            Stored::Failed
        };
        let mut kept = Vec::new();
        while self
            .waiting
            .front()
            .is_some_and(|waiting| waiting.batch <= batch)
        {
            let Some(waiting) = self.waiting.pop_front() else {
                break;
            };
            match waiting.origin {
                Origin::Session(_) | Origin::File(_) => {
                    self.uncount(&waiting.message);
                    self.not_early(waiting.routed.as_ref());
                    self.answer(waiting.origin, failed);
                }
                Origin::Report => kept.push(Waiting {
                    batch: again,
                    ..waiting
                }),
            }
        }
        for waiting in kept.into_iter().rev() {
            self.waiting.push_front(waiting);
        }
        self.unstall();
    }

    fn unstall(&mut self) {
        while let Some(stalled) = self.stalled.pop_front() {
            if let Some(stalled) = self.try_stage(stalled) {
                self.stalled.push_front(stalled);
                break;
            }
        }
        self.retry_failures();
        self.record_again();
    }

    /// Answers the client of a stored (or not stored) message; it may be gone.
    pub(super) fn answer(&mut self, origin: Origin, stored: Stored<'_>) {
        let key = match origin {
            Origin::Session(key) => key,
            Origin::File(token) => return self.imported(token, Err(stored.reason())),
            Origin::Report => return,
        };
        let Some(inbound) = self.inbound.get_mut(key) else {
            return;
        };
        self.memory.staged(&mut inbound.staged_bytes, 0);
        if inbound.phase == Phase::Storing {
            inbound.phase = Phase::Open;
            inbound
                .session
                .stored(stored, self.now, &mut inbound.output);
            // Not here: a refusal may come while this very session is fed, from input that it would see
            // again.
            self.answered.push_back(key);
        }
    }

    /// Lets the next session go on that was answered; says whether there was one.
    pub(super) fn resume_answered(&mut self) -> bool {
        let Some(key) = self.answered.pop_front() else {
            return false;
        };
        self.pump(key, None);
        true
    }

    fn log_accepted(&mut self, id: &str, envelope: &Envelope, size_bytes: u64) {
        self.mail_log.accepted(
            self.now,
            &mail_log::Accepted {
                id,
                client: &envelope.client,
                helo: &envelope.helo,
                protocol: &envelope.protocol,
                sender: &envelope.sender,
                size_bytes,
                recipients_count: envelope.recipients.len() as u32,
            },
        );
    }

    /// Enters a committed message and routes it.
    fn make_live(&mut self, key: MessageKey, message: Message, routed: Option<Early>) {
        let Message {
            id,
            envelope,
            content,
            ..
        } = message;
        let open_count = envelope.recipients.len() as u32;
        self.queued.open(open_count);
        let has_file = envelope.source.is_some();
        // The router may want to see it: what the budget has no room for is dropped behind that.
        let (content, fits) = match content {
            Content::Memory(content) => {
                let fits = self.memory.cache_or_exceed(content.len());
                (Some(Arc::new(content)), fits)
            }
            Content::File => (None, true),
        };
        self.live.insert(
            key,
            Live {
                id,
                envelope,
                content,
                open_count,
                has_file,
                work: Vec::new(),
                held: Vec::new(),
                attempts: Vec::new(),
                routing_count: 0,
                on_hold: Vec::new(),
                generation: 0,
            },
        );
        self.route_new(key, routed);
        if !fits {
            self.uncache(key);
        }
        self.maybe_rest(key, true);
    }
}

fn refused(refusal: &Refusal) -> Stored<'static> {
    match refusal {
        Refusal::Full => Stored::Full,
        Refusal::TooLarge { .. } => Stored::TooLarge,
        Refusal::Failed | Refusal::Busy => Stored::Failed,
    }
}

fn envelope_of(transaction: Transaction, client: &[u8], arrival_ms: u64) -> (Envelope, Vec<u8>) {
    let recipients = transaction
        .recipients
        .into_iter()
        .map(|recipient| spool::Recipient {
            address: recipient.address,
            notify: recipient.notify,
            orcpt: recipient.orcpt,
        })
        .collect();
    let envelope = Envelope {
        sender: transaction.sender,
        recipients,
        arrival_ms,
        body: body_kind(transaction.body),
        smtputf8: transaction.smtputf8,
        ret: transaction.ret.map(ret),
        envid: transaction.envid,
        client: client.to_vec(),
        helo: transaction.helo,
        protocol: transaction.protocol.as_bytes().to_vec(),
        source: None,
        origin: spool::Origin::Relay,
        routing: None,
    };
    (envelope, transaction.content)
}

fn body_kind(body: server::BodyKind) -> spool::BodyKind {
    match body {
        server::BodyKind::SevenBit => spool::BodyKind::SevenBit,
        server::BodyKind::EightBit => spool::BodyKind::EightBit,
        server::BodyKind::Binary => spool::BodyKind::Binary,
    }
}

fn ret(ret: server::Ret) -> spool::Ret {
    match ret {
        server::Ret::Full => spool::Ret::Full,
        server::Ret::Headers => spool::Ret::Headers,
    }
}
