//! Messages none of whose recipients can be tried now: they rest in the spool's index and are woken
//! when something of them can be used, or has to be done.
//!
//! A resting message has no envelope, no vertex and no content here. What it waits for follows from its
//! records alone: recipients whose time has not come wait for it, the others for a slot of their next
//! hop, held ones for the operator. So the entries that the scheduler has can be told at any time, and
//! are taken out when it is woken. One that cannot be read rests on and is tried again every 10 s.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use spool::{Awake, Hop, MessageKey, ReadError, RestingRecipient};

use super::Shard;
use super::bounce::Failure;
use super::dispatch::{Due, Work};
use super::intake::Live;
use super::start::{held, still_open};
use crate::base::fast_map::FastMap;
use crate::io::Driver;
use crate::scheduler::{Repose, ThreadKey};

/// Messages read back at a time to be woken.
const READS_MAX: usize = 64;

/// Messages whose time has come that are looked at in one turn.
const DUE_MAX: usize = 1024;

/// A message that cannot be read is tried again after this.
const UNREADABLE_RETRY_MS: u64 = 10_000;

/// Messages that rest in threads that fail are looked through for expired ones this often...
const LOOK_NS: u64 = 60_000_000_000;

/// ... so many in a turn ...
const LOOK_MAX: usize = 2048;

/// ... and not while so many wait to be read.
const LOOK_QUEUE_MAX: usize = 256;

/// The channel of recipients that the router could not decide about: they wait for their time only.
const HOLD: &[u8] = b"hold";

/// What a shard knows of messages that rest or are being woken.
#[derive(Debug, Default)]
pub(super) struct Rests {
    /// The thread of each next hop, by the number it has in the log.
    threads: Vec<Option<ThreadKey>>,
    /// Messages being woken.
    wakes: FastMap<MessageKey, Wake>,
    /// Those of them that are not being read yet.
    queue: VecDeque<MessageKey>,
    reading_count: usize,
    /// Next hops that will never take mail, with the reason: what rests there is woken to fail.
    refused: BTreeMap<ThreadKey, Arc<Vec<u8>>>,
    /// Those that could not be read, with the wall time of the next attempt.
    unreadable: BTreeMap<MessageKey, u64>,
    look_at_ns: u64,
    /// The last message that was looked at, while they are looked through.
    looked_upto: Option<u64>,
}

/// Why a message is woken.
#[derive(Clone, Debug)]
pub(super) enum Why {
    /// The thread can use it, and counts it until it is awake.
    Slot(ThreadKey),
    /// The next hop will never take it.
    Refused(ThreadKey, Arc<Vec<u8>>),
    /// Something is done to it.
    Other,
}

/// A message being woken.
#[derive(Debug)]
struct Wake {
    why: Why,
    /// Recipients that count as queued for a thread.
    placed: Vec<(ThreadKey, usize)>,
    /// Where each of them waits.
    routes: Vec<(u32, ThreadKey)>,
    /// The configuration that routed it.
    generation: Option<u64>,
}

/// What a resting message waits for.
struct Triggers {
    /// The earliest wall time; those that have come and whose thread nobody knows are among them.
    due_ms: Option<u64>,
    threads: Vec<ThreadKey>,
}

impl<D: Driver> Shard<D> {
    /// Lets a message rest if nothing of it can be tried now. `is_new`: it never rested before.
    pub(super) fn maybe_rest(&mut self, message: MessageKey, is_new: bool) {
        if !self.is_idle(message, is_new) {
            return;
        }
        let Some(live) = self.live.get(&message) else {
            return;
        };
        if live.has_file {
            // It stays here until its file is gone, but nobody sends it soon.
            self.uncache(message);
            return;
        }
        let (arrival_ms, generation) = (live.envelope.arrival_ms, live.generation);
        let mut open: Vec<(u32, Hop)> = live.held.iter().map(|held| (*held, Hop::NONE)).collect();
        if !live.on_hold.is_empty() {
            // A name for those who look; it never has a thread.
            let hop = self.log.hop(HOLD, b"router");
            open.extend(live.on_hold.iter().map(|(number, _)| (*number, hop)));
        }
        for key in live.work.clone() {
            if let Some(Work::Home(home)) = self.work.get(key) {
                let (thread, recipients) = (home.thread, home.recipients.clone());
                let hop = self.hop(thread);
                open.extend(recipients.into_iter().map(|recipient| (recipient, hop)));
            }
        }
        if !self.log.rest(message, arrival_ms, generation, &open) {
            return;
        }
        let Some(live) = self.live.remove(&message) else {
            return;
        };
        for key in live.work {
            // Its recipients stay counted: they are queued for the same channel.
            if let Some(Work::Home(home)) = self.work.remove(key) {
                self.scheduler.withdraw(home.vertex);
            }
        }
        self.enter_rest(message);
        if let Some(content) = live.content {
            self.memory.uncache(content.len());
            self.feed_starved();
        }
    }

    /// Whether nothing of a message can be tried now.
    fn is_idle(&self, message: MessageKey, is_new: bool) -> bool {
        let Some(live) = self.live.get(&message) else {
            return false;
        };
        if live.routing_count > 0 || live.open_count == 0 || self.is_asked_for(message) {
            return false;
        }
        let mut count = live.held.len() + live.on_hold.len();
        for key in &live.work {
            let Some(Work::Home(home)) = self.work.get(*key) else {
                return false;
            };
            count += home.recipients.len();
            match self.scheduler.repose(self.now, home.vertex, is_new) {
                Repose::Busy => return false,
                Repose::Slot => {}
                Repose::Until(due_ms) => {
                    if !self.is_recorded(message, &home.recipients, due_ms) {
                        return false;
                    }
                }
            }
        }
        // The others have failed, and what is to be done about it is under way.
        count == live.open_count as usize
    }

    /// Whether the records say of all these recipients that they wait for this time.
    fn is_recorded(&self, message: MessageKey, recipients: &[u32], due_ms: u64) -> bool {
        let outcomes = self.log.outcomes(message);
        recipients.iter().all(|recipient| {
            let at = outcomes.binary_search_by_key(recipient, |outcome| outcome.recipient);
            at.is_ok_and(|at| outcomes[at].next_ms == due_ms)
        })
    }

    /// The number that the log has for the next hop of a thread.
    fn hop(&mut self, thread: ThreadKey) -> Hop {
        self.ensure_thread(thread);
        let entry = &mut self.threads[thread.0 as usize];
        if let Some(hop) = entry.hop {
            return hop;
        }
        let hop = self
            .log
            .hop(entry.channel.as_bytes(), entry.host.as_bytes());
        entry.hop = Some(hop);
        self.remember_hop(hop, thread);
        hop
    }

    fn remember_hop(&mut self, hop: Hop, thread: ThreadKey) {
        let at = hop.0 as usize;
        if self.rests.threads.len() <= at {
            self.rests.threads.resize(at + 1, None);
        }
        self.rests.threads[at] = Some(thread);
    }

    pub(super) fn thread_of_hop(&self, hop: Hop) -> Option<ThreadKey> {
        self.rests.threads.get(hop.0 as usize).copied().flatten()
    }

    /// Enters with the scheduler what a message that rests waits for.
    fn enter_rest(&mut self, message: MessageKey) {
        if let Some(Triggers { due_ms, threads }) = self.triggers(message) {
            self.scheduler.rest(message.0, due_ms, &threads);
        }
    }

    fn triggers(&self, message: MessageKey) -> Option<Triggers> {
        let view = self.log.resting(message)?;
        let (mut due_ms, mut threads) = (None, Vec::new());
        for recipient in view.recipients().filter(is_waiting) {
            match self.thread_of_hop(recipient.hop) {
                Some(thread) if recipient.next_ms <= self.now.wall_ms => {
                    if !threads.contains(&thread) {
                        threads.push(thread);
                    }
                }
                _ => due_ms = Some(recipient.next_ms.min(due_ms.unwrap_or(u64::MAX))),
            }
        }
        Some(Triggers { due_ms, threads })
    }

    /// Takes out all that the scheduler may have of a message.
    fn leave_rest(&mut self, message: MessageKey) {
        let Some(view) = self.log.resting(message) else {
            return;
        };
        for recipient in view.recipients().filter(is_waiting) {
            let thread = self.thread_of_hop(recipient.hop);
            let due_ms = Some(recipient.next_ms);
            self.scheduler.unrest(message.0, due_ms, thread.as_slice());
        }
        if let Some(due_ms) = self.rests.unreadable.get(&message) {
            self.scheduler.unrest(message.0, Some(*due_ms), &[]);
        }
    }

    /// What waits in a thread of which nothing goes for a while rests.
    pub(super) fn settle_thread(&mut self, thread: ThreadKey) {
        for payload in self.scheduler.waiting_payloads(thread) {
            if let Some(Work::Home(home)) = self.work.get(crate::base::slab::Key(payload)) {
                self.maybe_rest(home.message, false);
            }
        }
    }

    /// Looks at messages whose time has come, and for those that have expired.
    pub(super) fn rest_turn(&mut self) {
        for _ in 0..DUE_MAX {
            let Some(message) = self.scheduler.next_due(self.now) else {
                break;
            };
            if self.stopping.is_none() {
                self.due(MessageKey(message));
            }
        }
        if self.stopping.is_none() {
            self.wake_refused();
            self.look_for_expired();
        }
    }

    /// The time of a message has come: from now on it waits for slots, or it is routed.
    fn due(&mut self, message: MessageKey) {
        let Some(view) = self.log.resting(message) else {
            return;
        };
        let unknown = view.recipients().filter(is_waiting).any(|recipient| {
            recipient.next_ms <= self.now.wall_ms && self.thread_of_hop(recipient.hop).is_none()
        });
        if unknown {
            self.wake(message, Why::Other);
        } else {
            self.enter_rest(message);
        }
    }

    /// Starts waking a message that rests.
    pub(super) fn wake(&mut self, message: MessageKey, why: Why) {
        let known = self.log.resting(message).is_some();
        if !known || self.rests.wakes.contains_key(&message) {
            if let Why::Slot(thread) = why {
                self.scheduler.wake_ended(thread);
            }
            return;
        }
        self.leave_rest(message);
        let placed = self.placed(message);
        let routes = self.known_routes(message);
        let view = self.log.resting(message);
        let generation = view.and_then(|view| view.generation());
        self.rests.wakes.insert(
            message,
            Wake {
                why,
                placed,
                routes,
                generation,
            },
        );
        self.rests.queue.push_back(message);
        self.read_next();
    }

    /// The wall time of the next attempt to read a message that could not be read; 0: there is none.
    pub(super) fn read_again_ms(&self, message: MessageKey) -> u64 {
        self.rests.unreadable.get(&message).copied().unwrap_or(0)
    }

    /// How many recipients of a resting message count for which thread.
    fn placed(&self, message: MessageKey) -> Vec<(ThreadKey, usize)> {
        let mut placed: Vec<(ThreadKey, usize)> = Vec::with_capacity(1);
        let Some(view) = self.log.resting(message) else {
            return placed;
        };
        for recipient in view.recipients().filter(is_waiting) {
            let Some(thread) = self.thread_of_hop(recipient.hop) else {
                continue;
            };
            match placed.iter_mut().find(|(other, _)| *other == thread) {
                Some((_, count)) => *count += 1,
                None => placed.push((thread, 1)),
            }
        }
        placed
    }

    /// Recipients whose next hop this run knows: they are not routed again when they wake.
    fn known_routes(&self, message: MessageKey) -> Vec<(u32, ThreadKey)> {
        let Some(view) = self.log.resting(message) else {
            return Vec::new();
        };
        let waiting = view.recipients().filter(is_waiting);
        waiting
            .filter_map(|recipient| Some((recipient.number, self.thread_of_hop(recipient.hop)?)))
            .collect()
    }

    fn read_next(&mut self) {
        while self.rests.reading_count < READS_MAX {
            let Some(message) = self.rests.queue.pop_front() else {
                return;
            };
            if self.log.wake(message).is_some() {
                self.rests.reading_count += 1;
            } else {
                self.end_wake(message);
                self.asked_awake(message, false);
            }
        }
    }

    fn end_wake(&mut self, message: MessageKey) -> Option<Wake> {
        let wake = self.rests.wakes.remove(&message)?;
        if let Why::Slot(thread) = wake.why {
            self.scheduler.wake_ended(thread);
        }
        Some(wake)
    }

    /// A message that was to be woken has been read, or cannot be.
    pub(super) fn awake(&mut self, message: MessageKey, result: Result<Awake, ReadError>) {
        self.rests.reading_count -= 1;
        let Some(Wake {
            why,
            placed,
            routes,
            generation,
        }) = self.end_wake(message)
        else {
            return;
        };
        match result {
            Ok(awake) => {
                self.rests.unreadable.remove(&message);
                for (thread, count) in placed {
                    self.count_left(thread, count);
                }
                self.revive(message, awake, &routes, generation);
                if let Why::Refused(thread, reply) = why {
                    self.refuse_message(message, thread, &reply);
                }
                self.maybe_rest(message, false);
                self.asked_awake(message, true);
            }
            Err(error) => {
                self.rest_on(message, error);
                self.asked_awake(message, false);
            }
        }
        self.read_next();
    }

    /// Enters a message that was resting as a start does.
    fn revive(
        &mut self,
        message: MessageKey,
        awake: Awake,
        routes: &[(u32, ThreadKey)],
        generation: Option<u64>,
    ) {
        let Awake {
            envelope,
            content,
            outcomes,
            ..
        } = awake;
        let Some(id) = self.log.id(message) else {
            return;
        };
        let content = match content {
            spool::Content::Whole(content) if self.memory.cache(content.len()) => {
                Some(Arc::new(content))
            }
            spool::Content::Whole(_) | spool::Content::File(_) => None,
        };
        let known = Live::known(id, envelope, content, &outcomes, held(&outcomes));
        let live = Live {
            has_file: self.log.has_source(message),
            generation: generation.unwrap_or(known.generation),
            ..known
        };
        let open_count = live.open_count;
        self.live.insert(message, live);
        if open_count == 0 {
            // A crash came between the last outcome and the done record.
            self.end_if_finished(message);
            return;
        }
        let mut due = still_open(&outcomes);
        for due in &mut due {
            let at = routes.binary_search_by_key(&due.recipient, |(number, _)| *number);
            due.thread = at.ok().map(|at| routes[at].1);
        }
        // The router's time for those that it did not decide about may not have come.
        let now_ms = self.now.wall_ms;
        let waits = |due: &mut Due| due.thread.is_none() && due.due_ms > now_ms;
        let on_hold: Vec<Due> = due.extract_if(.., waits).collect();
        for due in on_hold {
            self.wait_on_hold(message, due.recipient, due.due_ms);
        }
        self.route(message, due);
    }

    /// What rests and waits for this thread fails, a few messages at a time.
    pub(super) fn refuse_resting(&mut self, thread: ThreadKey, reply: &[u8]) {
        if self.scheduler.resting_count(thread) > 0 {
            let reply = Arc::new(reply.to_vec());
            self.rests.refused.insert(thread, reply);
        }
    }

    fn wake_refused(&mut self) {
        while self.rests.queue.is_empty()
            && let Some((thread, reply)) = self.rests.refused.first_key_value()
        {
            let (thread, reply) = (*thread, Arc::clone(reply));
            match self.scheduler.take_resting(thread) {
                Some(message) => self.wake(MessageKey(message), Why::Refused(thread, reply)),
                None => {
                    self.rests.refused.remove(&thread);
                }
            }
        }
    }

    /// Recipients of a message that wait for this thread fail.
    fn refuse_message(&mut self, message: MessageKey, thread: ThreadKey, reply: &[u8]) {
        let Some(live) = self.live.get(&message) else {
            return;
        };
        let mut failures = Vec::new();
        for key in live.work.clone() {
            let vertex = match self.work.get(key) {
                Some(Work::Home(home)) if home.thread == thread => home.vertex,
                _ => continue,
            };
            if self.scheduler.withdraw(vertex)
                && let Some(home) = self.end_work(key)
            {
                let recipients = home.recipients.into_iter();
                failures.extend(
                    recipients
                        .map(|recipient| Failure::remote(recipient, thread, None, reply.to_vec())),
                );
            }
        }
        if !failures.is_empty() {
            self.fail(message, failures);
        }
    }

    fn rest_on(&mut self, message: MessageKey, error: ReadError) {
        let due_ms = self.now.wall_ms + UNREADABLE_RETRY_MS;
        if self.rests.unreadable.insert(message, due_ms).is_none() {
            let shard = self.settings.shard;
            let id = self.log.id(message).map(|id| id.to_string());
            let id = id.unwrap_or_default();
            tracing::error!(
                shard,
                "message {id} cannot be read: {error}; it stays queued and is tried again every 10 s"
            );
        }
        self.scheduler.rest(message.0, Some(due_ms), &[]);
    }

    /// Wakes messages that have waited past their expiry in threads that cannot be reached, so that
    /// they are given up.
    fn look_for_expired(&mut self) {
        let after = match self.rests.looked_upto {
            Some(after) => after,
            None if self.now.mono_ns >= self.rests.look_at_ns => 0,
            None => return,
        };
        if self.rests.queue.len() > LOOK_QUEUE_MAX {
            return;
        }
        let keys = self.log.resting_keys(after + 1..);
        let keys: Vec<MessageKey> = keys.take(LOOK_MAX).collect();
        let last = keys.last().map(|key| key.0);
        self.rests.looked_upto = last.filter(|_| keys.len() == LOOK_MAX);
        if self.rests.looked_upto.is_none() {
            self.rests.look_at_ns = self.now.after_ns(LOOK_NS);
        }
        for message in keys {
            if self.has_expired(message) {
                self.wake(message, Why::Other);
            }
        }
    }

    fn has_expired(&self, message: MessageKey) -> bool {
        let Some(view) = self.log.resting(message) else {
            return false;
        };
        let arrival_ms = view.arrival_ms();
        view.recipients().filter(is_waiting).any(|recipient| {
            let Some(thread) = self.thread_of_hop(recipient.hop) else {
                return false;
            };
            let expiry_ms = arrival_ms.saturating_add(self.scheduler.rule(thread).expiry_ms);
            let failing = self.scheduler.thread_state(thread).0 > 0;
            failing && recipient.next_ms <= self.now.wall_ms && self.now.wall_ms > expiry_ms + 1000
        })
    }

    /// Messages that were found behind the start; they rest.
    pub(super) fn loaded(&mut self, keys: &[MessageKey]) {
        for message in keys {
            let Some(view) = self.log.resting(*message) else {
                continue;
            };
            let open: Vec<(Hop, bool)> = view
                .recipients()
                .filter(RestingRecipient::is_open)
                .map(|recipient| (recipient.hop, recipient.is_held()))
                .collect();
            if open.is_empty() {
                self.wake(*message, Why::Other);
                continue;
            }
            self.queued.open(open.len() as u32);
            for (hop, held) in open {
                self.meet_hop(hop);
                let thread = self.thread_of_hop(hop).filter(|_| !held);
                if let Some(thread) = thread {
                    self.count_placed(thread, 1);
                }
            }
            self.enter_rest(*message);
        }
    }

    /// Gives the next hop of a message that this run has not routed its thread.
    fn meet_hop(&mut self, hop: Hop) {
        if self.thread_of_hop(hop).is_some() {
            return;
        }
        let named = self.log.hop_name(hop);
        let Some((channel, host)) = named.filter(|(channel, _)| *channel != HOLD) else {
            return;
        };
        let channel = String::from_utf8_lossy(channel).into_owned();
        let host = String::from_utf8_lossy(host).into_owned();
        let thread = self.scheduler.thread(&channel, &host);
        self.ensure_thread(thread);
        self.threads[thread.0 as usize].hop = Some(hop);
        self.remember_hop(hop, thread);
    }

    /// Messages that are queued, resting or not.
    pub(super) fn messages_count(&self) -> u64 {
        self.live.len() as u64 + self.log.resting_count()
    }
}

/// Open and not held.
fn is_waiting(recipient: &RestingRecipient<'_>) -> bool {
    recipient.is_open() && !recipient.is_held()
}
