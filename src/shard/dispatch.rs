//! From a routed message to a connection: vertices, the scheduler's grants, jobs.

use std::sync::Arc;

use spool::{ContentFile, Envelope, MessageKey, ReadError, ReadTicket};

use super::bounce::Failure;
use super::intake::Live;
use super::large::Outgoing;
use super::outbound::Given;
use super::recipients::{self, addressed};
use super::rest::Why;
use super::{Shard, handoff};
use crate::base::slab::Key;
use crate::io::Driver;
use crate::protocol::client::{Job, JobRecipient, Privilege};
use crate::router::Answer;
use crate::scheduler::{Action, ThreadKey, Vertex, VertexKey};

/// A recipient that has to be tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) recipient: u32,
    /// Wall time before which it is not tried; 0 = now.
    pub(super) due_ms: u64,
    /// Where it waits, when it was routed by this run of the daemon; none: it is routed.
    pub(super) thread: Option<ThreadKey>,
}

impl Due {
    /// To be tried now.
    pub(super) fn now(recipient: u32) -> Self {
        Self {
            recipient,
            due_ms: 0,
            thread: None,
        }
    }
}

/// What a vertex stands for.
#[derive(Debug)]
pub(super) enum Work {
    /// Recipients of a message in this shard's spool.
    Home(Home),
    /// A handle that another shard passed on.
    Guest {
        from: u16,
        handle: Box<handoff::Handle>,
    },
}

/// Recipients of one message that share one next hop.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) message: MessageKey,
    pub(super) recipients: Vec<u32>,
    pub(super) thread: ThreadKey,
    pub(super) vertex: VertexKey,
}

/// Why content is read back from the spool.
#[derive(Debug)]
pub(super) enum Load {
    /// For this connection's next job.
    Delivery {
        outbound: Key,
        vertex: VertexKey,
        payload: u64,
    },
    /// To be passed on to another shard.
    Forward {
        owner: u16,
        vertex: VertexKey,
        payload: u64,
    },
    /// For the report on these failures.
    Report {
        message: MessageKey,
        failures: Vec<Failure>,
    },
    /// For the routing that waits under this token.
    Routing { token: u64 },
    /// For the file in `deferred/` with these recipients.
    Aside {
        message: MessageKey,
        numbers: Vec<u32>,
        reason: String,
    },
    /// For the copy in `postman/` that this event asks for.
    Copy(&'static str),
}

impl<D: Driver> Shard<D> {
    pub(super) fn insert_vertex(
        &mut self,
        message: MessageKey,
        thread: ThreadKey,
        due_ms: u64,
        recipients: Vec<u32>,
    ) {
        let Some(live) = self.live.get(&message) else {
            return;
        };
        let attempt = recipients
            .iter()
            .filter_map(|recipient| live.attempts.get(*recipient as usize))
            .max()
            .copied()
            .unwrap_or(0);
        let arrival_ms = live.envelope.arrival_ms;
        let count = recipients.len();
        let home = Home {
            message,
            recipients,
            thread,
            vertex: VertexKey(0),
        };
        let Ok(payload) = self.work.insert(Work::Home(home)) else {
            unreachable!("the work table has no smaller bound than the scheduler");
        };
        let vertex = Vertex {
            payload: payload.0,
            arrival_ms,
            attempt,
            due_ms,
        };
        let key = self.scheduler.insert(self.now, thread, vertex);
        if let Some(Work::Home(home)) = self.work.get_mut(payload) {
            home.vertex = key;
        }
        if let Some(live) = self.live.get_mut(&message) {
            live.work.push(payload);
        }
        self.make_eager(thread);
        self.count_placed(thread, count);
    }

    /// Remembers that idle connections of the thread may have something to do.
    pub(super) fn make_eager(&mut self, thread: ThreadKey) {
        self.ensure_thread(thread);
        let entry = &mut self.threads[thread.0 as usize];
        if !entry.eager {
            entry.eager = true;
            self.eager.push(thread);
        }
    }

    /// Whether nothing new is attempted until the disk has caught up: each attempt makes records that wait in
    /// memory. The end of a commit brings the next turn.
    pub(super) fn holds_back(&self) -> bool {
        self.log.is_behind() && self.stopping.is_none()
    }

    /// Gives idle connections work, then does what the scheduler asks.
    pub(super) fn dispatch(&mut self) {
        if self.holds_back() {
            return;
        }
        let mut eager = std::mem::take(&mut self.eager);
        for thread in eager.drain(..) {
            self.threads[thread.0 as usize].eager = false;
            self.feed_idle(thread);
        }
        self.eager = eager;
        let stopping = self.stopping.is_some();
        while let Some(action) = self.scheduler.poll(self.now) {
            match action {
                Action::GiveBack { payload, .. } => self.give_back_guest(payload),
                Action::StateChanged { thread } => self.record_thread(thread),
                // What is not begun now is begun after the next start.
                _ if stopping => {}
                Action::Open { thread } => self.open(thread),
                Action::Expire { vertex, payload } => self.expired(vertex, payload),
                Action::Forward {
                    vertex,
                    payload,
                    owner,
                    ..
                } => {
                    self.forward(owner, vertex, payload);
                }
                Action::Wake { thread, message } => {
                    self.wake(MessageKey(message), Why::Slot(thread));
                }
                Action::Settle { thread } => self.settle_thread(thread),
                Action::Send { to, message } => self.send_lease(to, message),
            }
        }
    }

    fn record_thread(&mut self, thread: ThreadKey) {
        let (attempt, next_ms, reply) = self.scheduler.thread_state(thread);
        let reply = reply.to_vec();
        self.ensure_thread(thread);
        let entry = &self.threads[thread.0 as usize];
        let state = spool::ThreadState {
            channel: entry.channel.as_bytes().to_vec(),
            host: entry.host.as_bytes().to_vec(),
            attempt,
            next_ms,
            reply,
        };
        self.log.thread_state(self.now.mono_ns, state);
    }

    /// Asks the scheduler for a connection's next job; reads its content back when it has to.
    pub(super) fn feed(&mut self, key: Key) {
        let held = self.holds_back();
        loop {
            let Some(outbound) = self.outbound.get_mut(key) else {
                return;
            };
            let thread = outbound.thread;
            let served_max = self.scheduler.rule(thread).messages_per_connection;
            let wants = !outbound.loading
                && outbound.served < served_max
                && self.stopping.is_none()
                && !held;
            if !wants || outbound.leaving || !outbound.session_can_take() {
                break;
            }
            if self.scheduler.release_surplus(thread) {
                if let Some(outbound) = self.outbound.get_mut(key) {
                    outbound.leaving = true;
                }
                break;
            }
            let Some((vertex, payload)) = self.scheduler.take(self.now, thread) else {
                break;
            };
            self.start(key, vertex, payload);
        }
        self.settle_outbound(key);
    }

    fn start(&mut self, outbound: Key, vertex: VertexKey, payload: u64) {
        match self.work.get(Key(payload)) {
            Some(Work::Home(home)) => {
                let message = home.message;
                if let Some(job) = self.job(payload, vertex) {
                    self.submit(outbound, vertex, payload, job, None);
                    return;
                }
                let load = Load::Delivery {
                    outbound,
                    vertex,
                    payload,
                };
                if self.load(message, load)
                    && let Some(outbound) = self.outbound.get_mut(outbound)
                {
                    outbound.begin_loading();
                }
            }
            Some(Work::Guest { handle, .. }) => {
                let mut job = handle.job.clone();
                job.token = vertex.0;
                let file = handle.file.clone();
                self.submit(outbound, vertex, payload, job, file);
            }
            None => unreachable!("the scheduler grants only what was inserted"),
        }
    }

    fn submit(
        &mut self,
        outbound: Key,
        vertex: VertexKey,
        payload: u64,
        job: Job,
        file: Option<Arc<ContentFile>>,
    ) {
        if let Some(outbound) = self.outbound.get_mut(outbound) {
            if let Some(file) = &file {
                self.log.content_open(file);
            }
            outbound.submit(
                Given {
                    vertex,
                    payload,
                    file,
                },
                job,
                self.now,
            );
        }
    }

    /// The job of a home vertex, when its content is in memory.
    pub(super) fn job(&self, payload: u64, vertex: VertexKey) -> Option<Job> {
        let Some(Work::Home(home)) = self.work.get(Key(payload)) else {
            return None;
        };
        let live = self.live.get(&home.message)?;
        let content = Outgoing::Memory(Arc::clone(live.content.as_ref()?));
        Some(job_of(
            self.identity(home, live),
            &live.envelope,
            &home.recipients,
            vertex,
            &content,
        ))
    }

    /// Told to the mailbox agent only: others have no use for it.
    pub(super) fn identity(&self, home: &Home, live: &Live) -> Option<(String, u64)> {
        let thread = self.threads.get(home.thread.0 as usize)?;
        (&*thread.channel == "local").then(|| (live.id.to_string(), live.envelope.arrival_ms))
    }

    /// Starts reading the content of a message; a content that cannot be read is damage: the
    /// recipients stay queued and the operator is told.
    pub(super) fn load(&mut self, message: MessageKey, load: Load) -> bool {
        if let Some(ticket) = self.log.read(message) {
            self.loads.insert(ticket, load);
            return true;
        }
        self.load_failed(load, "it is not on disk yet");
        false
    }

    pub(super) fn content_loaded(
        &mut self,
        ticket: ReadTicket,
        message: MessageKey,
        content: Result<spool::Content, ReadError>,
    ) {
        let Some(load) = self.loads.remove(&ticket) else {
            return;
        };
        let content = match content {
            Ok(spool::Content::Whole(content)) => Outgoing::Memory(Arc::new(content)),
            Ok(spool::Content::File(file)) => Outgoing::File(file),
            Err(error) => {
                self.load_failed(load, &error.to_string());
                return;
            }
        };
        match load {
            Load::Delivery {
                outbound,
                vertex,
                payload,
            } => {
                self.loaded_for_delivery(outbound, vertex, payload, &content);
            }
            Load::Forward {
                owner,
                vertex,
                payload,
            } => {
                self.forward_with(owner, vertex, payload, &content);
            }
            Load::Report { failures, .. } => self.fail_with(message, failures, Some(content)),
            Load::Routing { token } => self.content_for_routing(token, content),
            Load::Aside {
                numbers, reason, ..
            } => self.keep_aside(message, numbers, reason, content),
            Load::Copy(event) => self.keep_copy(message, event, content),
        }
    }

    fn loaded_for_delivery(
        &mut self,
        key: Key,
        vertex: VertexKey,
        payload: u64,
        content: &Outgoing,
    ) {
        let job = match self.work.get(Key(payload)) {
            Some(Work::Home(home)) => self.live.get(&home.message).map(|live| {
                job_of(
                    self.identity(home, live),
                    &live.envelope,
                    &home.recipients,
                    vertex,
                    content,
                )
            }),
            _ => None,
        };
        match (self.outbound.get_mut(key), job) {
            (Some(outbound), Some(job)) => {
                outbound.loading = false;
                if outbound.is_open() {
                    self.submit(key, vertex, payload, job, content.file());
                } else {
                    self.not_attempted(vertex);
                }
                self.feed(key);
            }
            _ => self.not_attempted(vertex),
        }
    }

    fn load_failed(&mut self, load: Load, why: &str) {
        let shard = self.settings.shard;
        match load {
            Load::Delivery {
                outbound,
                vertex,
                payload,
            } => {
                tracing::error!(
                    shard,
                    payload,
                    "content cannot be read: {why}; it stays queued"
                );
                if let Some(outbound) = self.outbound.get_mut(outbound) {
                    outbound.loading = false;
                }
                self.defer_vertex(vertex, payload, b"451 4.3.0 content cannot be read");
                self.feed(outbound);
            }
            Load::Forward {
                owner,
                vertex,
                payload,
            } => {
                self.forward_loaded(owner);
                tracing::error!(
                    shard,
                    payload,
                    "content cannot be read: {why}; it stays queued"
                );
                self.defer_vertex(vertex, payload, b"451 4.3.0 content cannot be read");
            }
            // A report without the original's header is better than none. A message that has no sender
            // to tell stays queued.
            Load::Report { message, failures } => {
                tracing::error!(
                    shard,
                    "content cannot be read: {why}; a report goes without it"
                );
                self.fail_with(message, failures, None);
            }
            Load::Routing { token } => self.resume(token, Answer::Content(None)),
            Load::Copy(event) => self.copy_kept(event, None, &Err(why.to_owned())),
            Load::Aside {
                message,
                numbers,
                reason,
            } => {
                self.hold_all(
                    message,
                    &numbers,
                    &format!("{reason}; content cannot be read: {why}"),
                );
            }
        }
    }
}

/// Recipients of one message that will be a vertex.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) thread: ThreadKey,
    pub(super) group: Option<u32>,
    pub(super) due_ms: u64,
    pub(super) recipients: Vec<u32>,
}

/// Puts a recipient where others of the same fate are, up to `limit` in one vertex.
pub(super) fn place(
    placed: &mut Vec<Placed>,
    (thread, group): (ThreadKey, Option<u32>),
    due_ms: u64,
    recipient: u32,
    limit: usize,
) {
    let same = |other: &&mut Placed| {
        (other.thread, other.group, other.due_ms) == (thread, group, due_ms)
            && other.recipients.len() < limit
    };
    // Of a list with many next hops only the last ones are looked at: what is left out goes in a vertex of its own.
    let fits = placed.iter_mut().rev().take(PLACES_LOOKED_AT).find(same);
    match fits {
        Some(placed) => placed.recipients.push(recipient),
        None => placed.push(Placed {
            thread,
            group,
            due_ms,
            recipients: vec![recipient],
        }),
    }
}

/// Vertices that one more recipient may join.
const PLACES_LOOKED_AT: usize = 64;

/// The job for some recipients of a message.
pub(super) fn job_of(
    identity: Option<(String, u64)>,
    envelope: &Envelope,
    recipients: &[u32],
    vertex: VertexKey,
    content: &Outgoing,
) -> Job {
    let first = recipients.first().copied().unwrap_or(0);
    let group = addressed(envelope, first).and_then(|recipient| recipient.group);
    let recipients = recipients
        .iter()
        .filter_map(|recipient| {
            let number = *recipient;
            let recipient = addressed(envelope, number)?;
            Some(JobRecipient {
                address: recipient.address.to_vec(),
                notify: recipient.notify,
                orcpt: recipient.orcpt.map(<[u8]>::to_vec),
                privilege: recipient.privilege.map(|user| Privilege {
                    user,
                    original: recipients::original(envelope, number).to_vec(),
                }),
            })
        })
        .collect();
    let own = (!recipients::is_detached(envelope, group)).then_some(envelope);
    Job {
        token: vertex.0,
        sender: recipients::sender(envelope, group).to_vec(),
        recipients,
        content: content.for_client(recipients::edits(envelope, group)),
        eight_bit: envelope.body == spool::BodyKind::EightBit,
        binary: envelope.body == spool::BodyKind::Binary,
        smtputf8: envelope.smtputf8,
        ret: own.and_then(|envelope| envelope.ret.map(super::result::client_ret)),
        envid: own.and_then(|envelope| envelope.envid.clone()),
        identity,
    }
}
