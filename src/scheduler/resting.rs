//! When messages that rest are woken. The caller keeps nothing of a resting message but its number and
//! what can be told from its records; here is what it waits for, in a few bytes.
//!
//! A message that waits for a time is in one place of `due`, under the earliest time of any of its
//! recipients; one that waits for slots is in `resting` of each thread it waits for. An entry is taken
//! out when it has come true or by [`Scheduler::unrest`], so there is never one that means nothing.
//! Times are wall times, as in the records: a start and a run wake a message at the same moment.
//!
//! A thread wakes its lowest numbers, the oldest messages, as long as few of this shard's vertices wait in
//! it: enough to keep its connections busy, no more than one while it is not known to be reachable.

use std::collections::{BTreeMap, BTreeSet};

use super::thread::Thread;
use super::{Action, Place, Scheduler, ThreadKey, VertexKey};
use crate::base::clock::Now;
use crate::base::slab::Key;

/// Vertices of this shard that wait in a thread, and messages being woken for it, up to which others
/// are woken.
const WAKE_MAX: usize = 128;

/// While something rests there, new messages may go past it up to this: those that rest get the other
/// places.
const PASS_MAX: usize = WAKE_MAX / 2;

/// Vertices that may wait in a thread that can be reached before messages rest.
const STAY_MAX: usize = 4096;

/// Vertices of a shard from which on [`WAKE_MAX`] is the limit for each thread.
const HOT_MAX: usize = 32_768;

/// What a vertex waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repose {
    /// It is under way or will be soon.
    Busy,
    /// For this wall time.
    Until(u64),
    /// For a slot of its thread, which is not to be had soon.
    Slot,
}

impl Thread {
    /// Messages to be woken now.
    fn wake_count(&self) -> usize {
        let max = if self.attempt > 0 { 1 } else { WAKE_MAX };
        let own = self.waiting_count - self.guests_waiting + self.waking;
        max.saturating_sub(own).min(self.resting.len())
    }

    /// Whether something waits for this thread, here or resting.
    pub(super) fn has_work(&self) -> bool {
        self.waiting_count > 0 || self.waking > 0 || !self.resting.is_empty()
    }
}

impl Scheduler {
    /// What a vertex waits for. `is_new`: its message has not rested before, so those that rest go first.
    #[must_use]
    pub fn repose(&self, now: Now, vertex: VertexKey, is_new: bool) -> Repose {
        let Some(state) = self.vertices.get(Key(vertex.0)) else {
            return Repose::Busy;
        };
        let thread = &self.threads[state.thread.0 as usize];
        let waits = match state.place {
            _ if state.guest => false,
            Place::Granted | Place::Forwarded => false,
            Place::Agenda => return Repose::Until(state.due_ms),
            Place::Waiting if thread.is_suspended(now.mono_ns) => {
                let expiry_ms = state.arrival_ms.saturating_add(thread.rule.expiry_ms);
                thread.attempt == 0 || now.wall_ms < expiry_ms
            }
            Place::Waiting => self.is_crowded(thread, is_new),
        };
        if waits { Repose::Slot } else { Repose::Busy }
    }

    fn is_crowded(&self, thread: &Thread, is_new: bool) -> bool {
        let waiting = thread.waiting_count;
        let limit = if self.vertices.len() > HOT_MAX {
            WAKE_MAX
        } else {
            STAY_MAX
        };
        let passes = waiting + thread.waking <= PASS_MAX || thread.resting.is_empty();
        waiting > limit || (is_new && !passes)
    }

    /// A message rests; nothing else is known of it from now on. `due_ms`: it is to be looked at again at
    /// this wall time; `threads`: it waits for slots of these.
    pub fn rest(&mut self, message: u64, due_ms: Option<u64>, threads: &[ThreadKey]) {
        if let Some(due_ms) = due_ms {
            self.due.insert(due_ms, message);
        }
        for thread in threads {
            self.threads[thread.0 as usize].resting.insert(message);
            self.touch(*thread);
        }
    }

    /// A message does not rest any more, or is about to be entered anew.
    pub fn unrest(&mut self, message: u64, due_ms: Option<u64>, threads: &[ThreadKey]) {
        if let Some(due_ms) = due_ms {
            self.due.remove(due_ms, message);
        }
        for thread in threads {
            self.threads[thread.0 as usize].resting.remove(&message);
        }
    }

    /// A message whose time has come; it is not remembered any more.
    pub fn next_due(&mut self, now: Now) -> Option<u64> {
        let (due_ms, message) = self.due.first()?;
        if due_ms > now.wall_ms {
            return None;
        }
        self.due.remove(due_ms, message);
        Some(message)
    }

    /// When [`Self::next_due`] has something.
    pub(super) fn due_at(&self) -> Option<u64> {
        let (due_ms, _) = self.due.first()?;
        let delay_ms = due_ms.saturating_sub(self.seen.wall_ms);
        Some(self.seen.after_ns(delay_ms.saturating_mul(1_000_000)))
    }

    /// Wakes what can be used now.
    pub(super) fn wake_resting(&mut self, key: ThreadKey) {
        let thread = &mut self.threads[key.0 as usize];
        for _ in 0..thread.wake_count() {
            let Some(message) = thread.resting.pop_first() else {
                return;
            };
            thread.waking += 1;
            let thread = key;
            self.actions.push_back(Action::Wake { thread, message });
        }
    }

    /// A message that was to be woken for a thread has been, or could not be.
    pub fn wake_ended(&mut self, thread: ThreadKey) {
        let entry = &mut self.threads[thread.0 as usize];
        entry.waking = entry.waking.saturating_sub(1);
        self.touch(thread);
    }

    /// Messages that rest and wait for slots of a thread.
    #[must_use]
    pub fn resting_count(&self, thread: ThreadKey) -> usize {
        self.threads[thread.0 as usize].resting.len()
    }

    /// Takes the oldest message out that waits for a slot of a thread.
    pub fn take_resting(&mut self, thread: ThreadKey) -> Option<u64> {
        self.threads[thread.0 as usize].resting.pop_first()
    }

    /// The payloads of vertices that wait in a thread, guests among them.
    #[must_use]
    pub fn waiting_payloads(&self, thread: ThreadKey) -> Vec<u64> {
        let waiting = self.threads[thread.0 as usize].waiting.iter();
        let states = waiting.filter_map(|vertex| self.vertices.get(Key(vertex.0)));
        states
            .filter(|state| state.place == Place::Waiting)
            .map(|state| state.payload)
            .collect()
    }

    /// More of this shard may be waiting now: what rests may be needed.
    pub(super) fn touch_resting(&mut self, key: ThreadKey) {
        let thread = &self.threads[key.0 as usize];
        if !thread.resting.is_empty() && thread.wake_count() > 0 {
            self.touch(key);
        }
    }

    /// Drops entries of vertices that have been taken out, once they are more than the others.
    pub(super) fn shrink_waiting(&mut self, key: ThreadKey) {
        let thread = &mut self.threads[key.0 as usize];
        if thread.waiting.len() <= 2 * thread.waiting_count + DEAD_MIN {
            return;
        }
        let vertices = &self.vertices;
        thread.waiting.retain(|vertex| {
            let state = vertices.get(Key(vertex.0));
            state.is_some_and(|state| state.place == Place::Waiting)
        });
        thread.waiting.shrink_to(2 * thread.waiting_count);
    }
}

/// Entries that mean nothing and are not worth the work.
const DEAD_MIN: usize = 64;

/// A set of numbers that rest.
pub(super) type Numbers = BTreeSet<u64>;

/// Milliseconds of one part of [`Due`], in bits.
const PART_BITS: u32 = 14;

/// Bits of a message's number: more than are used up in a thousand years.
const NUMBER_BITS: u32 = 64 - PART_BITS;

/// Messages by the time they wait for. Those of the same 16 s share most of it, so that one takes about
/// 14 bytes.
#[derive(Debug, Default)]
pub(super) struct Due {
    parts: BTreeMap<u64, Numbers>,
}

impl Due {
    fn pack(due_ms: u64, message: u64) -> u64 {
        debug_assert!(message < 1 << NUMBER_BITS, "numbers are counted from 1");
        due_ms << NUMBER_BITS | message
    }

    fn insert(&mut self, due_ms: u64, message: u64) {
        let part = self.parts.entry(due_ms >> PART_BITS).or_default();
        part.insert(Self::pack(due_ms, message));
    }

    fn remove(&mut self, due_ms: u64, message: u64) {
        let number = due_ms >> PART_BITS;
        if let Some(part) = self.parts.get_mut(&number) {
            part.remove(&Self::pack(due_ms, message));
            if part.is_empty() {
                self.parts.remove(&number);
            }
        }
    }

    /// The earliest time and the oldest message that waits for it.
    fn first(&self) -> Option<(u64, u64)> {
        let (number, part) = self.parts.first_key_value()?;
        let packed = *part.first()?;
        let due_ms = number << PART_BITS | packed >> NUMBER_BITS;
        Some((due_ms, packed & ((1 << NUMBER_BITS) - 1)))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}
