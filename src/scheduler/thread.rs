//! A thread: the vertices of one (channel, host), its connections, its back-off, its slots.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::resting::Numbers;
use super::rule::Rule;
use super::{Action, ConnectionEnd, Scheduler, ThreadKey, VertexKey};
use crate::base::clock::Now;

/// Connections of a thread under way at a time before any is ready.
const OPENING_MAX: u32 = 8;

/// With other connections ready, a failed one only delays the next; twice as long each time in a row.
const PAUSE_NS: u64 = 1_000_000_000;

/// Doublings of [`PAUSE_NS`], at most.
const PAUSE_DOUBLINGS_MAX: u32 = 6;

#[derive(Debug)]
pub(super) struct Thread {
    pub(super) channel: Arc<str>,
    pub(super) host: Arc<str>,
    pub(super) rule: Rule,
    pub(super) owner: u16,
    pub(super) waiting: VecDeque<VertexKey>,
    pub(super) waiting_count: usize,
    pub(super) guests_waiting: usize,
    /// Messages that rest and wait for a slot.
    pub(super) resting: Numbers,
    /// Messages being woken.
    pub(super) waking: usize,
    pub(super) connections: u32,
    pub(super) opening: u32,
    /// Failed attempts in a row; 0: healthy.
    pub(super) attempt: u32,
    pub(super) next_ms: u64,
    pub(super) until: u64,
    /// Until when no further connection is tried; those that are ready go on.
    pub(super) pause_until: u64,
    /// Pauses in a row.
    pauses: u32,
    pub(super) reply: Vec<u8>,
    pub(super) dirty: bool,
    /// Owner: slots lent, by shard.
    pub(super) lent: BTreeMap<u16, u32>,
    /// Owner: shards that wait for slots.
    pub(super) wanting: VecDeque<u16>,
    /// Owner: shards that have to know of a suspension.
    pub(super) peers: Vec<u16>,
    /// Others: slots borrowed.
    pub(super) borrowed: u32,
    /// Connections that end because their slots are promised.
    pub(super) leaving: u32,
    /// Others: slots have been asked for.
    pub(super) asked: bool,
    /// Others: vertices that are with the owner.
    pub(super) forwarded_open: u32,
    pub(super) forwarded_count: u32,
    pub(super) forwarded_since: u64,
}

impl Thread {
    pub(super) fn new(channel: Arc<str>, host: Arc<str>, rule: Rule, owner: u16) -> Self {
        Self {
            channel,
            host,
            rule,
            owner,
            waiting: VecDeque::new(),
            waiting_count: 0,
            guests_waiting: 0,
            resting: Numbers::new(),
            waking: 0,
            connections: 0,
            opening: 0,
            attempt: 0,
            next_ms: 0,
            until: 0,
            pause_until: 0,
            pauses: 0,
            reply: Vec::new(),
            dirty: false,
            lent: BTreeMap::new(),
            wanting: VecDeque::new(),
            peers: Vec::new(),
            borrowed: 0,
            leaving: 0,
            asked: false,
            forwarded_open: 0,
            forwarded_count: 0,
            forwarded_since: 0,
        }
    }

    pub(super) fn is_suspended(&self, mono_ns: u64) -> bool {
        self.until > mono_ns
    }

    pub(super) fn suspend(&mut self, attempt: u32, next_ms: u64, until: u64, reply: Vec<u8>) {
        self.attempt = attempt;
        self.next_ms = next_ms;
        self.until = until;
        self.reply = reply;
        if attempt > 0 {
            // One connection probes from now on.
            self.pauses = 0;
            self.pause_until = 0;
        }
    }

    pub(super) fn ready(&self) -> u32 {
        self.connections - self.opening
    }

    /// A connection could not be had: while there are others, the next one is tried later.
    pub(super) fn pause(&mut self, now: Now) {
        if self.is_paused(now.mono_ns) {
            // Of those that were opened together each would make it twice as long.
            return;
        }
        self.pause_until = now.after_ns(PAUSE_NS << self.pauses.min(PAUSE_DOUBLINGS_MAX));
        self.pauses = self.pauses.saturating_add(1);
    }

    pub(super) fn is_paused(&self, mono_ns: u64) -> bool {
        self.pause_until > mono_ns
    }

    /// Whether one more connection should be opened under `slots` slots.
    fn wants_connection(&self, slots: u32, mono_ns: u64) -> bool {
        let probing = self.attempt > 0;
        let opening_max = if probing || self.pauses > 0 {
            1
        } else {
            OPENING_MAX.max(self.ready())
        };
        let pausing = self.is_paused(mono_ns) && self.connections > 0;
        !pausing
            && self.connections < slots
            && self.opening < opening_max
            && (!probing || self.connections == 0)
            && self.waiting_count > self.opening as usize
    }
}

impl Scheduler {
    /// Does what can be done for a thread now.
    pub(super) fn look_at(&mut self, now: Now, key: ThreadKey) {
        let thread = &self.threads[key.0 as usize];
        if thread.is_suspended(now.mono_ns) {
            let failing = thread.attempt > 0;
            self.alarms.insert((thread.until, key), ());
            if failing {
                self.give_back_guests(key);
            }
            return;
        }
        let owned = thread.owner == self.settings.shard;
        if thread.is_paused(now.mono_ns) && thread.has_work() {
            self.alarms.insert((thread.pause_until, key), ());
        }
        if owned {
            self.serve_wanting(key);
        }
        let cold = !owned && self.threads[key.0 as usize].borrowed == 0;
        if !cold || self.has_credits(key) {
            self.wake_resting(key);
        }
        if cold {
            self.forward_waiting(now, key);
            return;
        }
        while self.threads[key.0 as usize].wants_connection(self.slots(key), now.mono_ns) {
            let thread = &mut self.threads[key.0 as usize];
            thread.connections += 1;
            thread.opening += 1;
            self.actions.push_back(Action::Open { thread: key });
        }
        if !owned {
            self.return_idle_slots(key);
        }
    }

    /// A connection has been greeted: the thread is healthy.
    pub fn connection_ready(&mut self, _now: Now, key: ThreadKey) {
        let thread = &mut self.threads[key.0 as usize];
        thread.opening = thread.opening.saturating_sub(1);
        thread.pauses = 0;
        thread.pause_until = 0;
        if thread.attempt > 0 {
            thread.suspend(0, 0, 0, Vec::new());
            self.actions.push_back(Action::StateChanged { thread: key });
            self.tell_owner_healthy(key);
            self.tell_peers_state(key);
        }
        self.touch(key);
    }

    /// A connection has ended; its slot is free. `ready`: it had been reported ready.
    pub fn connection_closed(&mut self, now: Now, key: ThreadKey, ready: bool, end: ConnectionEnd) {
        let thread = &mut self.threads[key.0 as usize];
        thread.connections = thread.connections.saturating_sub(1);
        thread.leaving = thread.leaving.saturating_sub(1);
        if !ready {
            thread.opening = thread.opening.saturating_sub(1);
        }
        if let ConnectionEnd::Failed { reply } = end {
            // Others may be the ones that the next hop takes: only the last to fail decides.
            if thread.connections > 0 {
                thread.pause(now);
            } else if thread.owner == self.settings.shard {
                self.failed(now, key, reply);
            } else {
                self.borrower_failed(now, key, reply);
            }
        }
        self.touch(key);
    }

    /// A shard without a connection leaves it to the owner, which may have some: the slots go
    /// back, and what waits here is passed on unless the owner suspends the thread.
    fn borrower_failed(&mut self, now: Now, key: ThreadKey, reply: Vec<u8>) {
        self.threads[key.0 as usize].pause(now);
        self.return_slots(key);
        self.tell_owner_failed(key, reply);
    }

    /// Nobody could connect: back-off, one state for all shards.
    pub(super) fn failed(&mut self, now: Now, key: ThreadKey, reply: Vec<u8>) {
        if self.threads[key.0 as usize].is_suspended(now.mono_ns) {
            return;
        }
        let attempt = self.threads[key.0 as usize].attempt + 1;
        let delay_ms = self.threads[key.0 as usize].rule.delay_ms(attempt);
        let delay_ms = self.jittered(delay_ms);
        let until = now.after_ns(delay_ms.saturating_mul(1_000_000));
        let next_ms = now.wall_ms + delay_ms;
        self.threads[key.0 as usize].suspend(attempt, next_ms, until, reply);
        self.actions.push_back(Action::StateChanged { thread: key });
        self.actions.push_back(Action::Settle { thread: key });
        self.tell_peers_state(key);
        self.touch(key);
    }
}
