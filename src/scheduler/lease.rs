//! Slots between shards, and vertices on their way to the owner.
//!
//! The ledger of a thread is its owner's: `lent` says what each other shard may use. A borrower uses
//! slots only after [`LeaseKind::Lend`] and gives them back only when no connection is open under
//! them, so own connections plus lent slots never exceed the limit. Messages between two shards
//! arrive in order and are not lost; at most one `Want`, one `Lend`, one `GiveBack`, one `Failed`, two
//! `Suspend` and one `Healthy` a thread are under way in each direction at a time.

#![expect(missing_docs, reason = "fields are named for what they hold")]

use std::sync::Arc;

use super::{Action, Place, Scheduler, ThreadKey};
use crate::base::clock::Now;
use crate::base::slab::Key;

/// Vertices forwarded within a second, or waiting, that make a thread hot.
const HOT_COUNT: usize = 8;

/// By so much other shards are later than the owner after a suspension.
const LATER_NS: u64 = 250_000_000;

/// The second of [`HOT_COUNT`].
const HOT_NS: u64 = 1_000_000_000;

/// A word about one (channel, host).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseMessage {
    /// Channel.
    pub channel: Arc<str>,
    /// Next hop.
    pub host: Arc<str>,
    /// What is said.
    pub kind: LeaseKind,
}

/// What shards say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseKind {
    /// To the owner: this shard has much for it.
    Want,
    /// To a borrower: use these slots.
    Lend { slots: u32 },
    /// To the owner: these are free again.
    GiveBack { slots: u32 },
    /// To the owner: no connection could be made.
    Failed { reply: Vec<u8> },
    /// To the owner: a connection is ready after failures.
    Healthy,
    /// To others: nobody tries before this wall time. With attempt 0: it is healthy again.
    Suspend {
        attempt: u32,
        next_ms: u64,
        reply: Vec<u8>,
    },
}

impl Scheduler {
    /// Slots this shard may use for a thread.
    pub(super) fn slots(&self, key: ThreadKey) -> u32 {
        let thread = &self.threads[key.0 as usize];
        if thread.owner != self.settings.shard {
            return thread.borrowed;
        }
        let lent: u32 = thread.lent.values().sum();
        let promised = thread.wanting.len() as u32 * self.share(key);
        thread.rule.max_connections.saturating_sub(lent + promised)
    }

    /// Slots that one borrower gets; 0: too few to lend any.
    fn share(&self, key: ThreadKey) -> u32 {
        self.threads[key.0 as usize].rule.max_connections / u32::from(self.settings.shards.max(1))
    }

    /// Credits for handles to another shard.
    pub fn credits(&mut self, to: u16, available: u32) {
        let Some(credits) = self.credits.get_mut(usize::from(to)) else {
            return;
        };
        let had = std::mem::replace(credits, available);
        if had == 0 && available > 0 {
            let waiting: Vec<ThreadKey> = (0..self.threads.len() as u32)
                .map(ThreadKey)
                .filter(|key| {
                    let thread = &self.threads[key.0 as usize];
                    thread.owner == to && thread.has_work()
                })
                .collect();
            for key in waiting {
                self.touch(key);
            }
        }
    }

    /// Cold: passes waiting vertices on, as far as credits go; asks for slots when there are many.
    pub(super) fn forward_waiting(&mut self, now: Now, key: ThreadKey) {
        let owner = self.threads[key.0 as usize].owner;
        let thread = &mut self.threads[key.0 as usize];
        if now.mono_ns.saturating_sub(thread.forwarded_since) > HOT_NS {
            thread.forwarded_since = now.mono_ns;
            thread.forwarded_count = 0;
        }
        let here = thread.waiting_count + thread.waking + thread.resting.len();
        let hot = here + thread.forwarded_count as usize >= HOT_COUNT;
        let asks = !thread.asked && !thread.is_paused(now.mono_ns);
        if hot && asks && self.share(key) > 0 {
            self.threads[key.0 as usize].asked = true;
            self.say(key, owner, LeaseKind::Want);
        }
        while self.has_credits(key) {
            let Some((vertex, payload)) = self.take(now, key) else {
                break;
            };
            if let Some(credits) = self.credits.get_mut(usize::from(owner)) {
                *credits -= 1;
            }
            let thread = &mut self.threads[key.0 as usize];
            thread.forwarded_count += 1;
            thread.forwarded_open += 1;
            if let Some(state) = self.vertices.get_mut(Key(vertex.0)) {
                state.place = Place::Forwarded;
            }
            self.actions.push_back(Action::Forward {
                thread: key,
                vertex,
                payload,
                owner,
            });
        }
    }

    /// Whether a vertex can be passed on to the owner: a thread never has more handles there than are
    /// left for the others. A slow next hop so leaves half of all credits, a second one half of that, and
    /// mail for a healthy one does not wait behind theirs.
    pub(super) fn has_credits(&self, key: ThreadKey) -> bool {
        let thread = &self.threads[key.0 as usize];
        let credits = self.credits.get(usize::from(thread.owner));
        credits.is_some_and(|credits| *credits > thread.forwarded_open)
    }

    /// A suspended thread keeps no guests: handles that wait, wait at home.
    pub(super) fn give_back_guests(&mut self, key: ThreadKey) {
        if self.threads[key.0 as usize].guests_waiting == 0 {
            return;
        }
        let waiting = std::mem::take(&mut self.threads[key.0 as usize].waiting);
        for vertex in waiting {
            let Some(state) = self.vertices.get(Key(vertex.0)) else {
                continue;
            };
            if !state.guest {
                self.threads[key.0 as usize].waiting.push_back(vertex);
                continue;
            }
            let payload = state.payload;
            self.leave_waiting(vertex);
            self.vertices.remove(Key(vertex.0));
            self.actions.push_back(Action::GiveBack { vertex, payload });
        }
    }

    /// Owner: lends to those that want, as connections allow.
    pub(super) fn serve_wanting(&mut self, key: ThreadKey) {
        let share = self.share(key);
        while let Some(to) = self.threads[key.0 as usize].wanting.front().copied() {
            let thread = &mut self.threads[key.0 as usize];
            let lent: u32 = thread.lent.values().sum();
            let free = thread
                .rule
                .max_connections
                .saturating_sub(lent + thread.connections);
            // All or nothing: a borrower stops passing vertices on, and with one slot it would be
            // slower than without any. Until then connections leave, see `release_surplus`.
            if share == 0 || free < share {
                return;
            }
            let slots = share;
            thread.wanting.pop_front();
            *thread.lent.entry(to).or_insert(0) += slots;
            self.say(key, to, LeaseKind::Lend { slots });
        }
    }

    /// Whether a connection of this thread has to end because its slot is promised to another shard.
    /// The caller ends it when what is under way on it is finished.
    pub fn release_surplus(&mut self, key: ThreadKey) -> bool {
        let slots = self.slots(key);
        let thread = &mut self.threads[key.0 as usize];
        let staying = thread.connections.saturating_sub(thread.leaving);
        let surplus = staying > slots;
        thread.leaving += u32::from(surplus);
        surplus
    }

    /// Borrower: without work and connections the slots go back.
    pub(super) fn return_idle_slots(&mut self, key: ThreadKey) {
        let thread = &self.threads[key.0 as usize];
        if thread.connections == 0 && !thread.has_work() {
            self.return_slots(key);
        }
    }

    /// Borrower: no connection is open; its slots go back.
    pub(super) fn return_slots(&mut self, key: ThreadKey) {
        let thread = &mut self.threads[key.0 as usize];
        if thread.borrowed > 0 {
            let slots = std::mem::take(&mut thread.borrowed);
            let owner = thread.owner;
            thread.asked = false;
            self.say(key, owner, LeaseKind::GiveBack { slots });
        }
    }

    /// A word of another shard.
    pub fn lease(&mut self, now: Now, from: u16, message: LeaseMessage) {
        let key = self.thread(&message.channel, &message.host);
        match message.kind {
            LeaseKind::Want => self.wanted(now, key, from),
            LeaseKind::Lend { slots } => self.threads[key.0 as usize].borrowed += slots,
            LeaseKind::GiveBack { slots } => {
                let thread = &mut self.threads[key.0 as usize];
                if let Some(lent) = thread.lent.get_mut(&from) {
                    *lent = lent.saturating_sub(slots);
                }
            }
            // With a connection of its own the owner knows better, or will.
            LeaseKind::Failed { reply } => {
                if self.threads[key.0 as usize].connections == 0 {
                    self.failed(now, key, reply);
                }
            }
            LeaseKind::Healthy => {
                let thread = &mut self.threads[key.0 as usize];
                if thread.attempt > 0 {
                    thread.suspend(0, 0, 0, Vec::new());
                    // It has just failed here: others have the connections there are.
                    thread.pause(now);
                    self.actions.push_back(Action::StateChanged { thread: key });
                    self.tell_peers_state(key);
                }
            }
            LeaseKind::Suspend { .. } if self.threads[key.0 as usize].ready() > 0 => {
                self.tell_owner_healthy(key);
            }
            LeaseKind::Suspend { attempt: 0, .. } => {
                self.threads[key.0 as usize].suspend(0, 0, 0, Vec::new());
            }
            LeaseKind::Suspend {
                attempt,
                next_ms,
                reply,
            } => {
                let delay_ns = next_ms
                    .saturating_sub(now.wall_ms)
                    .saturating_mul(1_000_000);
                // Later than the owner, which probes first and may have to read a message back for it.
                let until = now.after_ns(delay_ns.saturating_add(LATER_NS));
                self.threads[key.0 as usize].suspend(attempt, next_ms, until, reply);
                self.alarms.insert((until, key), ());
                self.actions.push_back(Action::Settle { thread: key });
            }
        }
        self.touch(key);
    }

    fn wanted(&mut self, now: Now, key: ThreadKey, from: u16) {
        let thread = &mut self.threads[key.0 as usize];
        if !thread.wanting.contains(&from) {
            thread.wanting.push_back(from);
        }
        self.welcome(now, key, from);
    }

    /// Owner: remembers a shard that has mail for the thread, and tells it of a suspension: without
    /// that word it would pass the same vertices on again and again.
    pub(super) fn welcome(&mut self, now: Now, key: ThreadKey, from: u16) {
        let thread = &mut self.threads[key.0 as usize];
        if !thread.peers.contains(&from) {
            thread.peers.push(from);
        }
        if thread.attempt > 0 && thread.is_suspended(now.mono_ns) {
            let (attempt, next_ms) = (thread.attempt, thread.next_ms);
            let reply = thread.reply.clone();
            self.say(
                key,
                from,
                LeaseKind::Suspend {
                    attempt,
                    next_ms,
                    reply,
                },
            );
        }
    }

    pub(super) fn tell_owner_failed(&mut self, key: ThreadKey, reply: Vec<u8>) {
        let owner = self.threads[key.0 as usize].owner;
        self.say(key, owner, LeaseKind::Failed { reply });
    }

    pub(super) fn tell_owner_healthy(&mut self, key: ThreadKey) {
        let owner = self.threads[key.0 as usize].owner;
        if owner != self.settings.shard {
            self.say(key, owner, LeaseKind::Healthy);
        }
    }

    /// Owner: what others have heard of a suspension does not hold any more, or it begins. An operator
    /// may end one early: without this word they would wait for the time they were told.
    pub(super) fn tell_peers_state(&mut self, key: ThreadKey) {
        let thread = &self.threads[key.0 as usize];
        let (attempt, next_ms) = (thread.attempt, thread.next_ms);
        let reply = thread.reply.clone();
        for to in thread.peers.clone() {
            self.say(
                key,
                to,
                LeaseKind::Suspend {
                    attempt,
                    next_ms,
                    reply: reply.clone(),
                },
            );
        }
    }

    fn say(&mut self, key: ThreadKey, to: u16, kind: LeaseKind) {
        let thread = &self.threads[key.0 as usize];
        let (channel, host) = (Arc::clone(&thread.channel), Arc::clone(&thread.host));
        self.actions.push_back(Action::Send {
            to,
            message: LeaseMessage {
                channel,
                host,
                kind,
            },
        });
    }
}
