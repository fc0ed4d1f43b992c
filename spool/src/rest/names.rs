//! Values that many resting messages share, each kept once and named by a number.

use std::collections::HashMap;
use std::hash::Hash;

/// Values with the count of who uses them.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    values: Vec<Option<(T, u32)>>,
    numbers: HashMap<T, u32>,
    unused: Vec<u32>,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            numbers: HashMap::new(),
            unused: Vec::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> Shared<T> {
    /// The number of a value, used once more; none when it is new and there are `max` others.
    pub(crate) fn take(&mut self, value: &T, max: usize) -> Option<u32> {
        if let Some(number) = self.numbers.get(value).copied() {
            if let Some(Some((_, users))) = self.values.get_mut(number as usize) {
                *users += 1;
            }
            return Some(number);
        }
        if self.numbers.len() >= max {
            return None;
        }
        let entry = Some((value.clone(), 1));
        let number = if let Some(number) = self.unused.pop() {
            if let Some(slot) = self.values.get_mut(number as usize) {
                *slot = entry;
            }
            number
        } else {
            self.values.push(entry);
            (self.values.len() - 1) as u32
        };
        self.numbers.insert(value.clone(), number);
        Some(number)
    }

    /// One user less.
    pub(crate) fn give_back(&mut self, number: u32) {
        let Some(slot) = self.values.get_mut(number as usize) else {
            return;
        };
        if let Some((value, users)) = slot {
            *users -= 1;
            if *users == 0 {
                self.numbers.remove(value);
                *slot = None;
                self.unused.push(number);
            }
        }
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        let slot = self.values.get(number as usize)?;
        slot.as_ref().map(|(value, _)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::Shared;

    #[test]
    fn a_value_keeps_its_number_until_nobody_uses_it() {
        let mut shared = Shared::default();
        assert_eq!(shared.take(&"a", 2), Some(0));
        assert_eq!(shared.take(&"b", 2), Some(1));
        assert_eq!(shared.take(&"a", 2), Some(0));
        assert_eq!(shared.take(&"c", 2), None, "two are the limit");
        shared.give_back(0);
        assert_eq!(shared.get(0), Some(&"a"), "somebody still uses it");
        shared.give_back(0);
        assert_eq!(shared.get(0), None);
        assert_eq!(shared.take(&"c", 2), Some(0));
        assert_eq!(shared.get(1), Some(&"b"));
    }
}
