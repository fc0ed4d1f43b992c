//! What was answered from outside, for a while.
//!
//! [`Answers`] is what all messages of a shard share: a second message does not ask again what the first one
//! asked. It is bounded in entries for each relation and in bytes altogether.

use std::collections::HashMap;
use std::mem;

use super::lookup::{Answered, Value};
use crate::base::clock::Now;

/// The answers of all relations of a configuration, by their numbers.
///
/// When what was used lately takes half of the bytes, every relation forgets what was used before that; an answer
/// that does not fit makes all forget everything.
#[derive(Debug)]
pub struct Answers {
    caches: Vec<Cache>,
    /// Of all of them.
    bytes: usize,
    /// Of what was used lately.
    young_bytes: usize,
    bytes_max: usize,
}

impl Answers {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            caches: Vec::new(),
            bytes: 0,
            young_bytes: 0,
            bytes_max,
        }
    }

    /// A further relation, with room for so many answers.
    pub fn add(&mut self, entries_max: usize) {
        self.caches.push(Cache::new(entries_max));
    }

    /// Lets somebody use the answers of a relation that was added.
    pub fn with<T>(&mut self, number: usize, act: impl FnOnce(&mut Cache) -> T) -> T {
        let cache = &mut self.caches[number];
        let (before, young_before) = (cache.bytes(), cache.young.bytes);
        let result = act(cache);
        self.bytes = self.bytes - before + cache.bytes();
        self.young_bytes = self.young_bytes - young_before + cache.young.bytes;
        if self.young_bytes > self.bytes_max / 2 {
            self.shrink(Cache::age);
        }
        if self.bytes > self.bytes_max {
            self.shrink(Cache::flush);
        }
        result
    }

    /// Answers that are remembered of a relation.
    #[must_use]
    pub fn len(&self, number: usize) -> usize {
        self.caches.get(number).map_or(0, Cache::len)
    }

    /// Bytes of all answers, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets all answers.
    pub fn flush(&mut self) {
        self.shrink(Cache::flush);
    }

    /// Forgets the relations too.
    pub fn clear(&mut self) {
        self.caches.clear();
        (self.bytes, self.young_bytes) = (0, 0);
    }

    fn shrink(&mut self, act: impl Fn(&mut Cache)) {
        self.caches.iter_mut().for_each(act);
        self.bytes = self.caches.iter().map(Cache::bytes).sum();
        self.young_bytes = self.caches.iter().map(|cache| cache.young.bytes).sum();
    }
}

/// The answers of one relation. Full, it forgets those that were not used for longest, half of them at once.
#[derive(Debug, Default)]
pub struct Cache {
    entries_max: usize,
    /// Used lately.
    young: Generation,
    /// Used before that.
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    entries: HashMap<Vec<u8>, Entry>,
    bytes: usize,
}

impl Generation {
    fn insert(&mut self, key: Vec<u8>, entry: Entry) {
        self.remove(&key);
        self.bytes += entry.bytes(&key);
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &[u8]) -> Option<(Vec<u8>, Entry)> {
        let (key, entry) = self.entries.remove_entry(key)?;
        self.bytes -= entry.bytes(&key);
        Some((key, entry))
    }
}

#[derive(Clone, Debug)]
struct Entry {
    /// Monotonic.
    until_ns: u64,
    answered: Answered,
}

impl Entry {
    fn bytes(&self, key: &[u8]) -> usize {
        let value = match &self.answered.value {
            None => 0,
            Some(Value::Text(text)) => text.len(),
            Some(Value::List(list)) => list.iter().map(|text| text.len() + TEXT_BYTES).sum(),
        };
        ENTRY_BYTES + key.len() + value + self.answered.rest.len()
    }
}

/// What an entry takes besides its texts: itself, its place in the table, what the allocator adds.
const ENTRY_BYTES: usize = 160;

/// What a text of a list takes besides its bytes.
const TEXT_BYTES: usize = 40;

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
        self.young.entries.len() + self.old.entries.len()
    }

    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it takes, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }

    /// Forgets everything.
    pub fn flush(&mut self) {
        self.young = Generation::default();
        self.old = Generation::default();
    }

    /// Forgets what was not used since the last time.
    fn age(&mut self) {
        self.old = mem::take(&mut self.young);
    }

    pub(super) fn find(&mut self, key: &[u8], now: Now) -> Option<Answered> {
        let valid = |entry: &Entry| now.mono_ns < entry.until_ns;
        if let Some(entry) = self.young.entries.get(key) {
            if valid(entry) {
                return Some(entry.answered.clone());
            }
            self.young.remove(key);
            return None;
        }
        let (key, entry) = self.old.remove(key)?;
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
        if self.young.entries.len() >= half && !self.young.entries.contains_key(&key) {
            self.age();
            // With room for one there is no second generation.
            if self.entries_max == 1 {
                self.old = Generation::default();
            }
        }
        self.young.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn put(answers: &mut Answers, number: usize, key: &str, len: usize) {
        let answered = Answered {
            value: Some(Value::Text(Cow::Owned(vec![b'v'; len]))),
            rest: Vec::new(),
        };
        let insert = |cache: &mut Cache| cache.insert(key.as_bytes(), answered, 60, Now::default());
        answers.with(number, insert);
    }

    fn has(answers: &mut Answers, number: usize, key: &str) -> bool {
        answers.with(number, |cache| {
            cache.find(key.as_bytes(), Now::default()).is_some()
        })
    }

    #[test]
    fn bytes_are_bounded_over_all_relations() {
        let mut answers = Answers::new(10_000);
        for _ in 0..3 {
            answers.add(1000);
        }
        put(&mut answers, 0, "kept", 100);
        for at in 0..1000 {
            put(&mut answers, 1 + at % 2, &format!("k{at}"), at % 300);
            assert!(answers.bytes() <= 10_000, "{at}: {}", answers.bytes());
            assert!(has(&mut answers, 0, "kept"), "{at}: what is used stays");
        }
        let sum: usize = answers.caches.iter().map(Cache::bytes).sum();
        assert_eq!(answers.bytes(), sum);
        assert!(
            answers.len(1) > 5 && answers.len(1) < 100,
            "{}",
            answers.len(1)
        );
        put(&mut answers, 2, "huge", 20_000);
        assert_eq!(answers.bytes(), 0, "what does not fit is not kept");
        put(&mut answers, 2, "one", 1);
        answers.flush();
        assert_eq!((answers.bytes(), answers.len(2)), (0, 0));
    }
}
