//! A row of values of which there may be a few or hundred thousand: the first ones are as they are, further ones
//! packed.

use std::fmt;

use super::records::{Reader, Records};

/// Values that are not packed: most messages have no more.
const PLAIN_MAX: usize = 64;

/// A value that can be packed.
pub trait Pack: Clone {
    /// Appends what it is made again from.
    fn pack(&self, record: &mut Vec<u8>);
    /// Makes it again; what it has in common with the value before may be shared.
    fn unpack(record: &mut Reader<'_>, before: Option<&Self>) -> Self;
}

/// See the module. Bounded by who appends, like [`Records`].
#[derive(Clone, PartialEq, Eq)]
pub struct Sequence<T> {
    plain: Vec<T>,
    packed: Records,
}

impl<T> Default for Sequence<T> {
    fn default() -> Self {
        Self {
            plain: Vec::new(),
            packed: Records::default(),
        }
    }
}

impl<T: Pack> Sequence<T> {
    /// Appends a value.
    pub fn push(&mut self, value: T) {
        if self.plain.len() < PLAIN_MAX {
            self.plain.push(value);
            return;
        }
        let mut record = Vec::with_capacity(128);
        value.pack(&mut record);
        self.packed.push(&record);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.plain.len() + self.packed.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty()
    }

    /// A value.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<T> {
        match index.checked_sub(self.plain.len()) {
            None => self.plain.get(index).cloned(),
            Some(index) => {
                let record = self.packed.get(index)?;
                Some(T::unpack(&mut Reader::of(record), None))
            }
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        let mut before: Option<T> = None;
        let packed = self.packed.iter().map(move |record| {
            let value = T::unpack(&mut Reader::of(record), before.as_ref());
            before.insert(value).clone()
        });
        self.plain.iter().cloned().chain(packed)
    }
}

/// Takes the values out, one after the other, and gives up the memory of those that are taken.
#[derive(Debug)]
pub struct Drain<T> {
    plain: std::vec::IntoIter<T>,
    packed: Records,
    next: usize,
    before: Option<T>,
}

impl<T: Pack> Iterator for Drain<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if let Some(value) = self.plain.next() {
            return Some(value);
        }
        self.packed.release_before(self.next);
        let record = self.packed.get(self.next)?;
        self.next += 1;
        let value = T::unpack(&mut Reader::of(record), self.before.as_ref());
        self.before = Some(value.clone());
        Some(value)
    }
}

impl<T: Pack> IntoIterator for Sequence<T> {
    type Item = T;
    type IntoIter = Drain<T>;

    fn into_iter(self) -> Drain<T> {
        Drain {
            plain: self.plain.into_iter(),
            packed: self.packed,
            next: 0,
            before: None,
        }
    }
}

impl<T: Pack> FromIterator<T> for Sequence<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut sequence = Self::default();
        values.into_iter().for_each(|value| sequence.push(value));
        sequence
    }
}

impl<T: Pack + fmt::Debug> fmt::Debug for Sequence<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::Writer;
    use super::*;

    impl Pack for u64 {
        fn pack(&self, record: &mut Vec<u8>) {
            record.number(*self);
        }

        fn unpack(record: &mut Reader<'_>, before: Option<&Self>) -> Self {
            let value = record.number();
            assert!(before.is_none_or(|before| *before + 7 == value));
            value
        }
    }

    #[test]
    fn few_and_many_read_alike() {
        for count in [0, 1, PLAIN_MAX, PLAIN_MAX + 1, 5000] {
            let values: Vec<u64> = (0..count as u64).map(|number| number * 7).collect();
            let sequence: Sequence<u64> = values.iter().copied().collect();
            assert_eq!((sequence.len(), sequence.is_empty()), (count, count == 0));
            assert_eq!(sequence.iter().collect::<Vec<_>>(), values);
            assert_eq!(sequence.get(count), None);
            assert_eq!(sequence.get(count / 2), values.get(count / 2).copied());
            assert_eq!(sequence.clone(), sequence);
            assert_eq!(sequence.into_iter().collect::<Vec<_>>(), values);
        }
    }
}
