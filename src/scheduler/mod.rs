//! Who is delivered when, and over how many connections. Pure: no I/O, no clock.
//!
//! A *vertex* is some recipients of one message that share a next hop; the caller knows it by its
//! `payload`. A *thread* holds the vertices of one (channel, host): those that may go now in
//! `waiting`, oldest first, and those that wait for a time in the *agenda*. A vertex is in exactly
//! one place: waiting (or in the agenda), granted, or finished.
//!
//! A *slot* is the right to one connection of a thread. The shard that `hash(channel, host)` names
//! owns all slots of a thread, `max_connections` of the rule that matches. Another shard with
//! vertices for it is *cold* (it forwards them to the owner, as far as credits go) or a *borrower*
//! (the owner has lent it slots, under which it delivers itself). The sum of an owner's own
//! connections and what it has lent never exceeds the limit: see `lease`.
//!
//! A thread whose connections cannot be made is *suspended* by the retry schedule; one state for all
//! shards. When its time has come one connection probes, the others follow when that one is ready.

#![expect(missing_docs, reason = "fields are named for what they hold")]

pub mod filter;
mod lease;
mod queue;
mod resting;
mod rule;
mod thread;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use crate::base::clock::Now;
use crate::base::slab::{Key, Slab};

pub use lease::{LeaseKind, LeaseMessage};
pub use queue::Standing;
pub use resting::Repose;
pub use rule::Rule;
use thread::Thread;

/// Names a (channel, host) of one shard; dense from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThreadKey(pub u32);

/// Names a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexKey(pub u64);

/// Settings of one shard's scheduler.
#[derive(Clone, Debug)]
pub struct Settings {
    /// First match wins; a last one that matches all is added.
    pub rules: Vec<Rule>,
    /// This shard.
    pub shard: u16,
    /// All shards.
    pub shards: u16,
    /// Of the jitter.
    pub seed: u64,
}

/// A vertex on its way in.
#[derive(Clone, Copy, Debug)]
pub struct Vertex {
    /// The caller's name for it.
    pub payload: u64,
    /// Wall time from which expiry counts.
    pub arrival_ms: u64,
    /// Attempts so far.
    pub attempt: u32,
    /// Wall time before which it is not tried; 0: now.
    pub due_ms: u64,
}

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open one connection; it is counted from now on.
    Open { thread: ThreadKey },
    /// The vertex has waited past its expiry and is gone.
    Expire { vertex: VertexKey, payload: u64 },
    /// Record the thread's state.
    StateChanged { thread: ThreadKey },
    /// Pass the vertex on to the shard that owns the thread; it is granted until it is reported.
    Forward {
        thread: ThreadKey,
        vertex: VertexKey,
        payload: u64,
        owner: u16,
    },
    /// A message that rests can be used. It is being woken until [`Scheduler::wake_ended`].
    Wake { thread: ThreadKey, message: u64 },
    /// Nothing of the thread goes for a while: what waits in it may rest.
    Settle { thread: ThreadKey },
    /// A guest goes home untried; it is gone here.
    GiveBack { vertex: VertexKey, payload: u64 },
    /// Send to another shard, in order.
    Send { to: u16, message: LeaseMessage },
}

/// The result of a granted vertex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing of it is left to be tried.
    Finished,
    /// To be tried again.
    Deferred { reply: Vec<u8> },
    /// It was not tried: it goes back to the front, no attempt is counted.
    NotAttempted,
}

/// What a report means for the vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// It is gone.
    Finished,
    /// It is tried again at this wall time.
    Retry { due_ms: u64, attempt: u32 },
    /// It has been tried long enough and is gone.
    Expired,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// After it had been ready, or by our own wish.
    Clean,
    /// It never got ready.
    Failed { reply: Vec<u8> },
}

/// Counts of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Vertices, guests included.
    pub vertices: usize,
    /// Threads.
    pub threads: usize,
    /// Connections.
    pub connections: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    Agenda,
    Granted,
    /// Granted, and with the shard that owns the thread.
    Forwarded,
}

#[derive(Debug)]
struct State {
    thread: ThreadKey,
    payload: u64,
    arrival_ms: u64,
    attempt: u32,
    place: Place,
    /// In the agenda: the time (monotonic) it waits for. Other entries of it there mean nothing.
    due_ns: u64,
    /// The same as a wall time.
    due_ms: u64,
    guest: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Scheduler {
    settings: Settings,
    threads: Vec<Thread>,
    names: HashMap<Arc<str>, HashMap<Arc<str>, ThreadKey>>,
    vertices: Slab<State>,
    /// Vertices that wait for a time (monotonic).
    agenda: BinaryHeap<Reverse<(u64, u64)>>,
    /// Entries at which those that mean nothing are dropped.
    agenda_limit: usize,
    /// Messages that rest and wait for a time (wall).
    due: resting::Due,
    /// The latest instant heard of.
    seen: Now,
    /// Wall times at which vertices expire; entries of vertices that are gone mean nothing.
    expiries: BinaryHeap<Reverse<(u64, u64)>>,
    /// Entries at which finished ones are dropped.
    expiries_limit: usize,
    /// Threads to be looked at again at a time (monotonic).
    alarms: BTreeMap<(u64, ThreadKey), ()>,
    /// Threads to be looked at now.
    dirty: VecDeque<ThreadKey>,
    actions: VecDeque<Action>,
    credits: Vec<u32>,
    jitter: u64,
}

/// A vertex past its expiry that still gets an attempt is looked at again after this.
const EXPIRY_LOOK_MS: u64 = 60_000;

/// Entries of a list kept before those that mean nothing are looked for.
const ENTRIES_MIN: usize = 1024;

/// More vertices than any spool holds.
const VERTICES_MAX: usize = 1 << 30;

impl Scheduler {
    /// Without threads.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let jitter = settings.seed | 1;
        let credits = vec![0; settings.shards.into()];
        Self {
            settings,
            threads: Vec::new(),
            names: HashMap::new(),
            vertices: Slab::new(VERTICES_MAX),
            agenda: BinaryHeap::new(),
            agenda_limit: ENTRIES_MIN,
            due: resting::Due::default(),
            seen: Now::default(),
            expiries: BinaryHeap::new(),
            expiries_limit: ENTRIES_MIN,
            alarms: BTreeMap::new(),
            dirty: VecDeque::new(),
            actions: VecDeque::new(),
            credits,
            jitter,
        }
    }

    /// The thread of a (channel, host), made when it is new.
    pub fn thread(&mut self, channel: &str, host: &str) -> ThreadKey {
        if let Some(key) = self.names.get(channel).and_then(|hosts| hosts.get(host)) {
            return *key;
        }
        let (channel, host): (Arc<str>, Arc<str>) = (Arc::from(channel), Arc::from(host));
        let key = ThreadKey(self.threads.len() as u32);
        let rule = rule::select(&self.settings.rules, &channel, &host);
        let owner = (rule::hash(&channel, &host) % u64::from(self.settings.shards.max(1))) as u16;
        self.threads.push(Thread::new(
            Arc::clone(&channel),
            Arc::clone(&host),
            rule,
            owner,
        ));
        self.names.entry(channel).or_default().insert(host, key);
        key
    }

    /// From now on these rules count, for all threads. Connections above a lower limit go on while they
    /// have work; no new ones are made.
    pub fn set_rules(&mut self, rules: Vec<Rule>) {
        self.settings.rules = rules;
        for at in 0..self.threads.len() {
            let thread = &mut self.threads[at];
            thread.rule = rule::select(&self.settings.rules, &thread.channel, &thread.host);
            self.touch(ThreadKey(at as u32));
        }
    }

    /// Channel and host of a thread.
    #[must_use]
    pub fn names(&self, thread: ThreadKey) -> (Arc<str>, Arc<str>) {
        let thread = &self.threads[thread.0 as usize];
        (Arc::clone(&thread.channel), Arc::clone(&thread.host))
    }

    /// The shard that owns a thread's slots.
    #[must_use]
    pub fn owner(&self, thread: ThreadKey) -> u16 {
        self.threads[thread.0 as usize].owner
    }

    /// The rule of a thread.
    #[must_use]
    pub fn rule(&self, thread: ThreadKey) -> &Rule {
        &self.threads[thread.0 as usize].rule
    }

    /// Enters a vertex of this shard's own.
    pub fn insert(&mut self, now: Now, thread: ThreadKey, vertex: Vertex) -> VertexKey {
        let key = self.enter(thread, vertex, false);
        let expiry_ms = vertex
            .arrival_ms
            .saturating_add(self.rule(thread).expiry_ms);
        self.expire_at(expiry_ms, key);
        if vertex.due_ms > now.wall_ms {
            self.wait_until(now, key, vertex.due_ms);
        } else {
            self.make_waiting(key, false);
        }
        key
    }

    /// Most vertices are finished long before they expire: their entries are dropped each time the
    /// list has doubled.
    fn expire_at(&mut self, expiry_ms: u64, vertex: VertexKey) {
        if self.expiries.len() >= self.expiries_limit {
            let vertices = &self.vertices;
            self.expiries
                .retain(|Reverse((_, key))| vertices.get(Key(*key)).is_some());
            self.expiries_limit = ENTRIES_MIN.max(2 * self.expiries.len());
        }
        self.expiries.push(Reverse((expiry_ms, vertex.0)));
    }

    /// Enters a vertex that another shard has passed on. It never waits here for a time: it is
    /// granted soon or given back.
    pub fn insert_guest(
        &mut self,
        now: Now,
        thread: ThreadKey,
        payload: u64,
        from: u16,
    ) -> VertexKey {
        let vertex = Vertex {
            payload,
            arrival_ms: now.wall_ms,
            attempt: 0,
            due_ms: 0,
        };
        let key = self.enter(thread, vertex, true);
        self.make_waiting(key, false);
        self.welcome(now, thread, from);
        key
    }

    fn enter(&mut self, thread: ThreadKey, vertex: Vertex, guest: bool) -> VertexKey {
        let Vertex {
            payload,
            arrival_ms,
            attempt,
            ..
        } = vertex;
        let state = State {
            thread,
            payload,
            arrival_ms,
            attempt,
            place: Place::Granted,
            due_ns: 0,
            due_ms: 0,
            guest,
        };
        match self.vertices.insert(state) {
            Ok(key) => VertexKey(key.0),
            Err(_) => unreachable!("a spool holds fewer messages than {VERTICES_MAX}"),
        }
    }

    fn make_waiting(&mut self, vertex: VertexKey, front: bool) {
        let Some(state) = self.vertices.get_mut(Key(vertex.0)) else {
            return;
        };
        state.place = Place::Waiting;
        let (key, guest) = (state.thread, state.guest);
        let thread = &mut self.threads[key.0 as usize];
        if front {
            thread.waiting.push_front(vertex);
        } else {
            thread.waiting.push_back(vertex);
        }
        thread.waiting_count += 1;
        thread.guests_waiting += usize::from(guest);
        self.touch(key);
    }

    /// Takes a vertex out of the count of waiting ones; its queue entry dies by itself.
    fn leave_waiting(&mut self, vertex: VertexKey) {
        let Some(state) = self.vertices.get(Key(vertex.0)) else {
            return;
        };
        if state.place == Place::Waiting {
            let thread = &mut self.threads[state.thread.0 as usize];
            thread.waiting_count -= 1;
            thread.guests_waiting -= usize::from(state.guest);
            let key = state.thread;
            self.touch_resting(key);
        }
    }

    fn wait_until(&mut self, now: Now, vertex: VertexKey, due_ms: u64) {
        let Some(state) = self.vertices.get_mut(Key(vertex.0)) else {
            return;
        };
        state.place = Place::Agenda;
        let due_ns = now.after_ns(due_ms.saturating_sub(now.wall_ms).saturating_mul(1_000_000));
        state.due_ns = due_ns;
        state.due_ms = due_ms;
        if self.agenda.len() >= self.agenda_limit {
            let vertices = &self.vertices;
            self.agenda.retain(|Reverse((due_ns, vertex))| {
                let state = vertices.get(Key(*vertex));
                state.is_some_and(|state| state.place == Place::Agenda && state.due_ns == *due_ns)
            });
            self.agenda_limit = ENTRIES_MIN.max(2 * self.agenda.len());
        }
        self.agenda.push(Reverse((due_ns, vertex.0)));
    }

    fn touch(&mut self, thread: ThreadKey) {
        let entry = &mut self.threads[thread.0 as usize];
        if !entry.dirty {
            entry.dirty = true;
            self.dirty.push_back(thread);
        }
    }

    /// What to do next; call until it is `None`.
    pub fn poll(&mut self, now: Now) -> Option<Action> {
        self.seen = now;
        self.wake_due(now);
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            let thread = self.dirty.pop_front()?;
            self.threads[thread.0 as usize].dirty = false;
            self.look_at(now, thread);
        }
    }

    fn wake_due(&mut self, now: Now) {
        while let Some(Reverse((due_ns, vertex))) = self.agenda.peek().copied() {
            if due_ns > now.mono_ns {
                break;
            }
            self.agenda.pop();
            let waits = self
                .vertices
                .get(Key(vertex))
                .is_some_and(|state| state.place == Place::Agenda && state.due_ns == due_ns);
            if waits {
                self.make_waiting(VertexKey(vertex), false);
            }
        }
        while let Some(((at, thread), ())) = self.alarms.first_key_value() {
            if *at > now.mono_ns {
                break;
            }
            let thread = *thread;
            self.alarms.pop_first();
            self.touch(thread);
        }
        self.expire_due(now);
    }

    /// Gives up what waits past its expiry in a thread that cannot be reached. Everything else gets
    /// one more attempt, whose report decides: it is looked at again later.
    fn expire_due(&mut self, now: Now) {
        while let Some(Reverse((expiry_ms, vertex))) = self.expiries.peek().copied() {
            if expiry_ms > now.wall_ms {
                break;
            }
            self.expiries.pop();
            let key = VertexKey(vertex);
            let Some(state) = self.vertices.get(Key(vertex)) else {
                continue;
            };
            let failing = self.threads[state.thread.0 as usize].attempt > 0;
            if state.place != Place::Waiting || !failing {
                self.expiries
                    .push(Reverse((now.wall_ms + EXPIRY_LOOK_MS, vertex)));
                continue;
            }
            self.leave_waiting(key);
            if let Some(state) = self.vertices.remove(Key(vertex)) {
                self.actions.push_back(Action::Expire {
                    vertex: key,
                    payload: state.payload,
                });
            }
        }
    }

    /// An open connection asks for its next vertex.
    pub fn take(&mut self, now: Now, thread: ThreadKey) -> Option<(VertexKey, u64)> {
        if self.threads[thread.0 as usize].is_suspended(now.mono_ns) {
            return None;
        }
        loop {
            let vertex = self.threads[thread.0 as usize].waiting.pop_front()?;
            let waits = self
                .vertices
                .get(Key(vertex.0))
                .is_some_and(|state| state.place == Place::Waiting);
            if !waits {
                continue;
            }
            self.leave_waiting(vertex);
            let state = self.vertices.get_mut(Key(vertex.0))?;
            state.place = Place::Granted;
            return Some((vertex, state.payload));
        }
    }

    /// The result of a granted vertex.
    pub fn report(&mut self, now: Now, vertex: VertexKey, verdict: Verdict) -> Reported {
        let Some(state) = self.vertices.get_mut(Key(vertex.0)) else {
            return Reported::Finished;
        };
        debug_assert!(
            matches!(state.place, Place::Granted | Place::Forwarded),
            "only a granted vertex is reported"
        );
        if state.place == Place::Forwarded {
            state.place = Place::Granted;
            let key = state.thread;
            self.threads[key.0 as usize].forwarded_open -= 1;
            self.touch(key);
        }
        let Some(state) = self.vertices.get(Key(vertex.0)) else {
            return Reported::Finished;
        };
        match verdict {
            Verdict::NotAttempted if state.guest => {
                let payload = state.payload;
                self.vertices.remove(Key(vertex.0));
                self.actions.push_back(Action::GiveBack { vertex, payload });
                Reported::Finished
            }
            Verdict::NotAttempted => {
                self.make_waiting(vertex, true);
                Reported::Retry {
                    due_ms: now.wall_ms,
                    attempt: 0,
                }
            }
            Verdict::Finished => {
                self.vertices.remove(Key(vertex.0));
                Reported::Finished
            }
            Verdict::Deferred { .. } => self.defer(now, vertex),
        }
    }

    fn defer(&mut self, now: Now, vertex: VertexKey) -> Reported {
        let Some(state) = self.vertices.get_mut(Key(vertex.0)) else {
            return Reported::Finished;
        };
        state.attempt += 1;
        let (attempt, arrival_ms, thread) = (state.attempt, state.arrival_ms, state.thread);
        let expiry_ms = arrival_ms.saturating_add(self.rule(thread).expiry_ms);
        let delay_ms = self.rule(thread).delay_ms(attempt);
        let due_ms = now.wall_ms + self.jittered(delay_ms);
        if now.wall_ms >= expiry_ms {
            self.vertices.remove(Key(vertex.0));
            return Reported::Expired;
        }
        // The last attempt is made at the expiry, not given up before it.
        let due_ms = due_ms.min(expiry_ms);
        self.wait_until(now, vertex, due_ms);
        self.expire_at(expiry_ms.saturating_add(delay_ms), vertex);
        Reported::Retry { due_ms, attempt }
    }

    /// Ten percent more or less, so that what failed together does not return together.
    fn jittered(&mut self, delay_ms: u64) -> u64 {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let tenth = delay_ms / 10;
        if tenth == 0 {
            delay_ms
        } else {
            delay_ms - tenth + self.jitter % (2 * tenth)
        }
    }

    /// The state of a thread as it is recorded: attempt, wall time of the next one, last reply.
    #[must_use]
    pub fn thread_state(&self, thread: ThreadKey) -> (u32, u64, &[u8]) {
        let thread = &self.threads[thread.0 as usize];
        (thread.attempt, thread.next_ms, &thread.reply)
    }

    /// Puts a recorded state back.
    pub fn restore_thread(
        &mut self,
        now: Now,
        thread: ThreadKey,
        attempt: u32,
        next_ms: u64,
        reply: Vec<u8>,
    ) {
        let delay_ns = next_ms
            .saturating_sub(now.wall_ms)
            .saturating_mul(1_000_000);
        let until = now.after_ns(delay_ns);
        self.threads[thread.0 as usize].suspend(attempt, next_ms, until, reply);
        self.alarms.insert((until, thread), ());
    }

    /// When [`Self::poll`] has something to do without another reason; now if it has already.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        if !self.dirty.is_empty() || !self.actions.is_empty() {
            return Some(0);
        }
        let agenda = self.agenda.peek().map(|Reverse((at, _))| *at);
        let alarm = self.alarms.first_key_value().map(|((at, _), ())| *at);
        [agenda, alarm, self.due_at()].into_iter().flatten().min()
    }

    /// Counts.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            vertices: self.vertices.len(),
            threads: self.threads.len(),
            connections: self
                .threads
                .iter()
                .map(|thread| thread.connections as usize)
                .sum(),
        }
    }
}
