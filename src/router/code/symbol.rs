//! Names as numbers.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;

use crate::router::value::Text;

/// A name of a variable, function or relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol(pub u32);

/// All names in use. Scripts can make names from data (`read`, `lappend`), so the table is hashed with a key of its
/// own and bounded by [`SYMBOLS_MAX`].
#[derive(Clone, Debug)]
pub struct Symbols {
    names: Vec<Text>,
    names_max: usize,
    /// Further ones were made since the configuration was loaded.
    settled: usize,
    /// Open addressing; 0 is free, other entries are the number plus one.
    slots: Vec<u32>,
    hasher: RandomState,
}

/// Names that a configuration may use.
pub(super) const SYMBOLS_MAX: usize = 2_000_000;

impl Default for Symbols {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            names_max: SYMBOLS_MAX,
            settled: usize::MAX,
            slots: vec![0; 1024],
            hasher: RandomState::default(),
        }
    }
}

impl Symbols {
    /// No more names than this.
    #[must_use]
    pub fn with_room_for(mut self, names_max: usize) -> Self {
        self.names_max = names_max;
        self
    }

    /// The number of a name, new or known; none when the table is full.
    pub fn intern(&mut self, name: &[u8]) -> Option<Symbol> {
        let slot = match self.find(name) {
            Ok(symbol) => return Some(symbol),
            Err(slot) => slot,
        };
        if self.is_full() {
            return None;
        }
        let number = self.names.len() as u32;
        self.names.push(name.into());
        self.slots[slot] = number + 1;
        if self.names.len() * 2 > self.slots.len() {
            self.grow();
        }
        Some(Symbol(number))
    }

    /// The number of a name that is known.
    #[must_use]
    pub fn lookup(&self, name: &[u8]) -> Option<Symbol> {
        self.find(name).ok()
    }

    /// The configuration is loaded: names of now last.
    pub fn settle(&mut self) {
        self.settled = self.names.len();
    }

    /// Whether it is a name of the configuration; all are while that is loaded.
    #[must_use]
    pub fn is_settled(&self, symbol: Symbol) -> bool {
        (symbol.0 as usize) < self.settled
    }

    /// Forgets the newest names, down to `count`.
    pub fn truncate(&mut self, count: usize) {
        while self.names.len() > count {
            // The newest name was put into the first free slot of its row: nothing was put behind it because of it.
            if let Some(name) = self.names.pop() {
                let slot = self.slot_of(&name, self.names.len() as u32 + 1);
                self.slots[slot] = 0;
            }
        }
    }

    /// Where the number of a name stands.
    fn slot_of(&self, name: &[u8], number: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = self.hasher.hash_one(name) as usize & mask;
        while self.slots[slot] != number {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Its name.
    #[must_use]
    pub fn name(&self, symbol: Symbol) -> &Text {
        &self.names[symbol.0 as usize]
    }

    /// Number of names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether there is no room for another name.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.names.len() >= self.names_max
    }

    fn find(&self, name: &[u8]) -> Result<Symbol, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = self.hasher.hash_one(name) as usize & mask;
        loop {
            match self.slots[slot] {
                0 => return Err(slot),
                number if *self.names[number as usize - 1] == *name => {
                    return Ok(Symbol(number - 1));
                }
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    fn grow(&mut self) {
        self.slots = vec![0; self.slots.len() * 2];
        for number in 0..self.names.len() {
            if let Err(slot) = self.find(&self.names[number].clone()) {
                self.slots[slot] = number as u32 + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_numbers_and_the_table_ends() {
        let mut symbols = Symbols::default().with_room_for(5000);
        for number in 0..5000 {
            let name = format!("name{number}");
            assert_eq!(symbols.intern(name.as_bytes()), Some(Symbol(number as u32)));
        }
        assert_eq!(symbols.lookup(b"name777"), Some(Symbol(777)));
        assert_eq!(symbols.intern(b"name778"), Some(Symbol(778)));
        assert_eq!(symbols.intern(b"one more"), None);
        assert_eq!(symbols.lookup(b"one more"), None);
        symbols.truncate(777);
        assert_eq!(symbols.lookup(b"name776"), Some(Symbol(776)));
        assert_eq!(symbols.lookup(b"name777"), None);
        assert_eq!(symbols.intern(b"one more"), Some(Symbol(777)));
        assert_eq!(symbols.lookup(b"name42"), Some(Symbol(42)));
    }
}
