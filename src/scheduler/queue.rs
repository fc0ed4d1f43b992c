//! The operator's side: where a vertex stands, taking it out, letting it go at once.

use std::sync::Arc;

use super::{Place, Scheduler, ThreadKey, VertexKey};
use crate::base::clock::Now;
use crate::base::slab::Key;

/// Where a vertex stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// A connection, or another shard, has it.
    pub granted: bool,
    /// Wall time of the next attempt; 0: as soon as there is a slot.
    pub next_ms: u64,
    /// Attempts of its own.
    pub attempts: u32,
    /// Failed connections of its thread in a row.
    pub thread_attempts: u32,
    /// What the last of them got.
    pub thread_reply: Vec<u8>,
    /// Channel.
    pub channel: Arc<str>,
    /// Next hop.
    pub host: Arc<str>,
}

impl Scheduler {
    /// Where a vertex stands; none: it is gone.
    #[must_use]
    pub fn standing(&self, now: Now, vertex: VertexKey) -> Option<Standing> {
        let state = self.vertices.get(Key(vertex.0))?;
        let thread = &self.threads[state.thread.0 as usize];
        let own_ms = match state.place {
            Place::Agenda => now.wall_ms + state.due_ns.saturating_sub(now.mono_ns) / 1_000_000,
            Place::Waiting | Place::Granted | Place::Forwarded => 0,
        };
        let thread_ms = if thread.is_suspended(now.mono_ns) {
            thread.next_ms
        } else {
            0
        };
        Some(Standing {
            granted: matches!(state.place, Place::Granted | Place::Forwarded),
            next_ms: own_ms.max(thread_ms),
            attempts: state.attempt,
            thread_attempts: thread.attempt,
            thread_reply: thread.reply.clone(),
            channel: Arc::clone(&thread.channel),
            host: Arc::clone(&thread.host),
        })
    }

    /// Where a recipient of a resting message stands that may be tried from `own_ms` on.
    #[must_use]
    pub fn thread_standing(&self, now: Now, thread: ThreadKey, own_ms: u64) -> Standing {
        let thread = &self.threads[thread.0 as usize];
        let thread_ms = if thread.is_suspended(now.mono_ns) {
            thread.next_ms
        } else {
            0
        };
        let own_ms = if own_ms > now.wall_ms { own_ms } else { 0 };
        Standing {
            granted: false,
            next_ms: own_ms.max(thread_ms),
            attempts: 0,
            thread_attempts: thread.attempt,
            thread_reply: thread.reply.clone(),
            channel: Arc::clone(&thread.channel),
            host: Arc::clone(&thread.host),
        }
    }

    /// The wall time that a vertex waits for by itself; 0: none.
    #[must_use]
    pub fn due_ms(&self, vertex: VertexKey) -> u64 {
        let state = self.vertices.get(Key(vertex.0));
        state
            .filter(|state| state.place == Place::Agenda)
            .map_or(0, |state| state.due_ms)
    }

    /// Takes a vertex out. False, and nothing is changed, while it is granted.
    pub fn withdraw(&mut self, vertex: VertexKey) -> bool {
        let granted = self
            .vertices
            .get(Key(vertex.0))
            .is_none_or(|state| matches!(state.place, Place::Granted | Place::Forwarded));
        if granted {
            return false;
        }
        self.leave_waiting(vertex);
        if let Some(state) = self.vertices.remove(Key(vertex.0)) {
            self.shrink_waiting(state.thread);
        }
        true
    }

    /// Lets a vertex go now instead of at its time.
    pub fn hurry(&mut self, vertex: VertexKey) {
        let waits = self
            .vertices
            .get(Key(vertex.0))
            .is_some_and(|state| state.place == Place::Agenda);
        if waits {
            self.make_waiting(vertex, false);
        }
    }

    /// Ends the suspension of a thread on this shard; what failed so far is not forgotten, so one
    /// connection probes.
    pub fn resume(&mut self, now: Now, thread: ThreadKey) {
        let entry = &mut self.threads[thread.0 as usize];
        if entry.is_suspended(now.mono_ns) {
            entry.until = now.mono_ns;
            self.touch(thread);
        }
    }
}
