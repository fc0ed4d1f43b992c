//! Slot arena with generation-checked keys: a key of a removed entry finds nothing, never the
//! entry that took its slot.

/// Names an entry: slot number in the low half, generation of the slot in the high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub u64);

impl Key {
    fn new(slot: usize, generation: u32) -> Self {
        Self((u64::from(generation) << 32) | slot as u64)
    }

    fn slot(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// An arena of at most `capacity` entries. All operations take constant time.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    capacity: usize,
}

impl<T> Slab<T> {
    /// An empty arena; memory grows as entries come.
    ///
    /// # Panics
    /// When `capacity` does not fit 32 bits.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        assert!(u32::try_from(capacity).is_ok(), "a slot number has 32 bits");
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            capacity,
        }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// Gives the value back when the arena is full.
    pub fn insert(&mut self, value: T) -> Result<Key, T> {
        if let Some(slot) = self.free.pop() {
            let entry = &mut self.slots[slot as usize];
            entry.value = Some(value);
            return Ok(Key::new(slot as usize, entry.generation));
        }
        if self.slots.len() == self.capacity {
            return Err(value);
        }
        self.slots.push(Slot {
            generation: 1,
            value: Some(value),
        });
        Ok(Key::new(self.slots.len() - 1, 1))
    }

    /// The entry, while it exists.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.slot())?;
        if slot.generation == key.generation() {
            slot.value.as_ref()
        } else {
            None
        }
    }

    /// The entry, while it exists.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.slot())?;
        if slot.generation == key.generation() {
            slot.value.as_mut()
        } else {
            None
        }
    }

    /// Takes the entry out; its key finds nothing from now on.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.slot())?;
        if slot.generation != key.generation() {
            return None;
        }
        let value = slot.value.take()?;
        // Generation 0 is never given out, so that no key equals 0.
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        self.free.push(key.slot() as u32);
        Some(value)
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys of all entries, in slot order.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.value.is_some())
            .map(|(index, slot)| Key::new(index, slot.generation))
    }

    /// All entries with their keys, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            slot.value
                .as_ref()
                .map(|value| (Key::new(index, slot.generation), value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_removed_entry_finds_nothing() {
        let mut slab = Slab::new(2);
        let first = slab.insert("first").unwrap();
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second").unwrap();
        assert_eq!(first.slot(), second.slot(), "the slot is used again");
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn a_full_arena_gives_the_value_back() {
        let mut slab = Slab::new(1);
        let key = slab.insert(1).unwrap();
        assert_eq!(slab.insert(2), Err(2));
        slab.remove(key);
        assert!(slab.insert(2).is_ok());
    }
}
