//! What was answered from outside, for a while.

use std::collections::HashMap;

use super::lookup::Answered;
use crate::base::clock::Now;

/// The answers of one relation. Full, it forgets those that were not used for longest, half of them at once.
#[derive(Debug, Default)]
pub struct Cache {
    entries_max: usize,
    /// Used lately.
    young: HashMap<Vec<u8>, Entry>,
    /// Used before that.
    old: HashMap<Vec<u8>, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// Monotonic.
    until_ns: u64,
    answered: Answered,
}

impl Cache {
    /// With room for so many; none: it remembers nothing.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        Self {
            entries_max,
            ..Self::default()
        }
    }

    /// Entries in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything.
    pub fn flush(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    pub(super) fn find(&mut self, key: &[u8], now: Now) -> Option<Answered> {
        let valid = |entry: &Entry| now.mono_ns < entry.until_ns;
        if let Some(entry) = self.young.get(key) {
            if valid(entry) {
                return Some(entry.answered.clone());
            }
            self.young.remove(key);
            return None;
        }
        let (key, entry) = self.old.remove_entry(key)?;
        if !valid(&entry) {
            return None;
        }
        let answered = entry.answered.clone();
        self.put(key, entry);
        Some(answered)
    }

    pub(super) fn insert(&mut self, key: &[u8], answered: Answered, ttl_s: u64, now: Now) {
        if self.entries_max == 0 {
            return;
        }
        let until_ns = now.after_ns(ttl_s.saturating_mul(1_000_000_000));
        self.old.remove(key);
        self.put(key.to_vec(), Entry { until_ns, answered });
    }

    fn put(&mut self, key: Vec<u8>, entry: Entry) {
        let half = (self.entries_max / 2).max(1);
        if self.young.len() >= half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
            // With room for one there is no second generation.
            if self.entries_max == 1 {
                self.old.clear();
            }
        }
        self.young.insert(key, entry);
    }
}
