//! The memory budget of one shard: content that is being received and content kept for delivery.
//!
//! Above the budget the sessions that have held much for longest write what they hold to files; so clients
//! that stop in the middle do not keep others out. Where that is not enough a session that holds much pauses,
//! but never all of them: the session at the head
//! goes on until its message is complete, so the budget is exceeded by one message at most and the
//! shard always makes progress.

use std::collections::{BTreeMap, VecDeque};

use crate::base::slab::Key;

/// Share of the budget that committed content may use as a cache; the rest is for receiving.
const CACHE_SHARE: usize = 2;

/// Content that is worth a file of its own when memory is short.
pub(super) const BULKY_BYTES: usize = 16 << 10;

/// Counts bytes of content in memory.
#[derive(Debug)]
pub(super) struct Memory {
    bytes_max: usize,
    staged_bytes: usize,
    cached_bytes: usize,
    /// Goes on although the budget is used up.
    head: Option<Key>,
    starved: VecDeque<Key>,
    /// Sessions that hold enough to be worth a file, by age.
    bulky: BTreeMap<u64, Key>,
    bulky_next: u64,
    /// Bytes on their way to a file: they will not be here much longer.
    leaving_bytes: usize,
}

impl Memory {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            staged_bytes: 0,
            cached_bytes: 0,
            head: None,
            starved: VecDeque::new(),
            bulky: BTreeMap::new(),
            bulky_next: 0,
            leaving_bytes: 0,
        }
    }

    /// A session holds [`BULKY_BYTES`] or more in memory; `place` is its place among those that do.
    pub(super) fn bulky(&mut self, session: Key, place: &mut Option<u64>) {
        if place.is_none() {
            self.bulky.insert(self.bulky_next, session);
            *place = Some(self.bulky_next);
            self.bulky_next += 1;
        }
    }

    /// It holds less again.
    pub(super) fn not_bulky(&mut self, place: &mut Option<u64>) {
        if let Some(place) = place.take() {
            self.bulky.remove(&place);
        }
    }

    /// A session's bytes on their way to a file went from `*counted` to `bytes`.
    pub(super) fn leaving(&mut self, counted: &mut usize, bytes: usize) {
        self.leaving_bytes = self.leaving_bytes - *counted + bytes;
        *counted = bytes;
    }

    /// The session whose content should go to a file now, so that others find room; it has lost its place.
    pub(super) fn next_bulky(&mut self) -> Option<Key> {
        let staying = (self.staged_bytes + self.cached_bytes).saturating_sub(self.leaving_bytes);
        if staying > self.bytes_max {
            self.bulky.pop_first().map(|(_, session)| session)
        } else {
            None
        }
    }

    /// A session's content went from `*counted` to `bytes`.
    pub(super) fn staged(&mut self, counted: &mut usize, bytes: usize) {
        self.staged_bytes = self.staged_bytes - *counted + bytes;
        *counted = bytes;
    }

    /// Whether less should be received at a time: from three quarters of the budget on, until it is half.
    pub(super) fn is_short(&self, before: bool) -> bool {
        let used = self.staged_bytes + self.cached_bytes;
        if before {
            used > self.bytes_max / 2
        } else {
            used > self.bytes_max / 4 * 3
        }
    }

    /// Whether this session, in the middle of content of which it holds so much, has to wait. One that
    /// holds little never has to: otherwise those that stop with little would keep all others out.
    pub(super) fn is_starved(&mut self, session: Key, held_bytes: usize) -> bool {
        if held_bytes < BULKY_BYTES {
            return false;
        }
        if self.staged_bytes + self.cached_bytes <= self.bytes_max || self.head == Some(session) {
            return false;
        }
        if self.head.is_none() {
            self.head = Some(session);
            return false;
        }
        if !self.starved.contains(&session) {
            self.starved.push_back(session);
        }
        true
    }

    /// The session's content is complete or gone.
    pub(super) fn forget(&mut self, session: Key) {
        if self.head == Some(session) {
            self.head = None;
        }
        if !self.starved.is_empty() {
            self.starved.retain(|other| *other != session);
        }
    }

    /// The next session that may go on.
    pub(super) fn next_starved(&mut self) -> Option<Key> {
        let fits = self.staged_bytes + self.cached_bytes <= self.bytes_max;
        if !fits && self.head.is_some() {
            return None;
        }
        let session = self.starved.pop_front()?;
        if !fits {
            self.head = Some(session);
        }
        Some(session)
    }

    /// Whether content of `bytes` may be kept in memory; counts it if so.
    pub(super) fn cache(&mut self, bytes: usize) -> bool {
        let fits = self.cached_bytes + bytes <= self.bytes_max / CACHE_SHARE;
        if fits {
            self.cached_bytes += bytes;
        }
        fits
    }

    /// Counts content of `bytes` that is kept for a moment although there may be no room for it; says whether there
    /// was.
    pub(super) fn cache_or_exceed(&mut self, bytes: usize) -> bool {
        let fits = self.cache(bytes);
        if !fits {
            self.cached_bytes += bytes;
        }
        fits
    }

    /// Content of `bytes` that was cached has been dropped.
    pub(super) fn uncache(&mut self, bytes: usize) {
        self.cached_bytes -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_the_budget_exactly_one_session_goes_on() {
        let mut memory = Memory::new(100);
        let (mut first, mut second) = (0, 0);
        memory.staged(&mut first, 60);
        memory.staged(&mut second, 60);
        assert!(!memory.is_starved(Key(1), BULKY_BYTES), "the head goes on");
        assert!(memory.is_starved(Key(2), BULKY_BYTES));
        assert_eq!(memory.next_starved(), None);
        memory.staged(&mut first, 0);
        memory.forget(Key(1));
        assert_eq!(memory.next_starved(), Some(Key(2)));
        assert!(!memory.is_starved(Key(2), BULKY_BYTES));
    }

    #[test]
    fn when_the_head_leaves_the_next_one_leads_even_above_the_budget() {
        let mut memory = Memory::new(10);
        let (mut first, mut second) = (0, 0);
        memory.staged(&mut first, 50);
        memory.staged(&mut second, 50);
        assert!(!memory.is_starved(Key(1), BULKY_BYTES));
        assert!(memory.is_starved(Key(2), BULKY_BYTES));
        memory.forget(Key(1));
        assert_eq!(memory.next_starved(), Some(Key(2)));
        assert!(!memory.is_starved(Key(2), BULKY_BYTES));
    }

    #[test]
    fn the_cache_uses_half_of_the_budget() {
        let mut memory = Memory::new(100);
        assert!(memory.cache(50));
        assert!(!memory.cache(1));
        memory.uncache(50);
        assert!(memory.cache(1));
    }

    #[test]
    fn above_the_budget_the_oldest_large_content_goes_first() {
        let mut memory = Memory::new(100);
        let (mut first, mut second, mut leaving) = (0, 0, 0);
        memory.staged(&mut first, 80);
        let mut places = [None, None];
        memory.bulky(Key(1), &mut places[0]);
        memory.bulky(Key(2), &mut places[1]);
        assert_eq!(memory.next_bulky(), None, "there is room");
        memory.staged(&mut second, 80);
        assert_eq!(memory.next_bulky(), Some(Key(1)));
        memory.leaving(&mut leaving, 80);
        assert_eq!(memory.next_bulky(), None, "what leaves makes room");
        assert!(!memory.is_starved(Key(2), BULKY_BYTES), "the head goes on");
        assert!(memory.is_starved(Key(3), BULKY_BYTES), "until it has left");
        assert!(
            !memory.is_starved(Key(4), BULKY_BYTES - 1),
            "who holds little goes on"
        );
    }
}
