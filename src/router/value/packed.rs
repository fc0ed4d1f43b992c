//! Long lists of routes: each element as one row of bytes instead of lists of lists of texts.
//!
//! A list that a machine gathers element by element is packed from [`PACKED_FROM`] elements on, as long as all of
//! them are values that nobody else holds and no list of the configuration: then nobody can tell. Whoever
//! takes the list as it was gets it as it was ([`List::items`](super::List::items)); whoever asks for one element
//! after the other gets each made anew.

use std::rc::Rc;

use super::{List, Store, Text, Value};
use crate::base::records::{Reader, Records, Writer};

/// Elements of a list from which on it is packed: shorter ones are not worth the work.
const PACKED_FROM: usize = 64;

/// Longer texts stay what they are: many may hold the same.
const TEXT_BYTES_MAX: usize = 256;

/// Lists in lists of an element.
const DEPTH_MAX: usize = 4;

/// Elements in their packed form.
#[derive(Debug, Default)]
pub(super) struct Packed {
    records: Records,
    record: Vec<u8>,
}

impl Packed {
    /// Appends a value for which [`is_own`] holds.
    fn push(&mut self, value: &Value) {
        self.record.clear();
        put(value, &mut self.record);
        self.records.push(&self.record);
    }

    /// An element, made anew.
    pub(super) fn get(&self, index: usize) -> Option<Value> {
        let record = self.records.get(index)?;
        Some(take(&mut Reader::of(record)))
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.records.bytes()
    }

    /// All elements, in front those that were given up as empty lists.
    pub(super) fn unpack(&self) -> Vec<Value> {
        let kept = self
            .records
            .iter()
            .map(|record| take(&mut Reader::of(record)));
        let mut kept: Vec<Value> = kept.collect();
        let gone = self.len() - kept.len();
        kept.splice(0..0, std::iter::repeat_with(Value::nil).take(gone));
        kept
    }

    pub(super) fn release_before(&mut self, index: usize) {
        self.records.release_before(index);
    }
}

/// Twice the length for a text, one more than twice the count for a list; what belongs to it follows.
fn put(value: &Value, record: &mut Vec<u8>) {
    match value {
        Value::Text(text) => {
            record.number(text.len() as u64 * 2);
            record.extend_from_slice(text);
        }
        Value::List(list) => {
            let items = list.items();
            record.number(items.len() as u64 * 2 + 1);
            for item in items.iter() {
                put(item, record);
            }
        }
    }
}

fn take(reader: &mut Reader<'_>) -> Value {
    let head = reader.number();
    let count = usize::try_from(head / 2).unwrap_or(usize::MAX);
    if head.is_multiple_of(2) {
        return Value::Text(Text::from(reader.bytes(count)));
    }
    Value::list((0..count).map(|_| take(reader)).collect())
}

/// Whether nobody but the caller holds any list in it.
fn is_own(value: &Value, depth: usize) -> bool {
    match value {
        Value::Text(text) => text.len() <= TEXT_BYTES_MAX,
        Value::List(list) => {
            depth > 0
                && Rc::strong_count(&list.0) == 1
                && !list.is_frozen()
                && list.packed_bytes().is_none()
                && list.items().iter().all(|item| is_own(item, depth - 1))
        }
    }
}

/// A list that becomes longer and longer.
#[derive(Debug, Default)]
pub struct Gathered {
    store: Store,
    /// An element cannot be packed.
    plain: bool,
}

impl Gathered {
    /// Appends an element.
    pub fn push(&mut self, value: Value) {
        let packs = !self.plain && is_own(&value, DEPTH_MAX);
        match &mut self.store {
            Store::Packed(packed) if packs => return packed.push(&value),
            Store::Plain(values) if packs && values.len() < PACKED_FROM => {
                return values.push(value);
            }
            _ => {}
        }
        self.plain |= !packs;
        if packs && let Store::Plain(values) = &self.store {
            let mut packed = Packed::default();
            values.iter().for_each(|value| packed.push(value));
            packed.push(&value);
            self.store = Store::Packed(Box::new(packed));
        } else {
            self.store.plain().push(value);
        }
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of packed elements.
    #[must_use]
    pub fn packed_bytes(&self) -> usize {
        self.store.packed_bytes().unwrap_or(0)
    }

    /// Elements that are not packed.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        match &self.store {
            Store::Plain(values) => values,
            Store::Packed(_) => &[],
        }
    }

    /// The list.
    #[must_use]
    pub fn into_list(self) -> List {
        List::of(self.store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(number: usize) -> Value {
        let quad = ["smtp", "h", &format!("u{number}@x"), ""].map(Value::from);
        Value::list(vec![Value::list(quad.to_vec())])
    }

    fn gathered(count: usize) -> Gathered {
        let mut gathered = Gathered::default();
        (0..count).for_each(|number| gathered.push(route(number)));
        gathered
    }

    #[test]
    fn a_packed_list_reads_like_any_other() {
        for count in [0, 1, PACKED_FROM, PACKED_FROM + 1, 1000] {
            let gathered = gathered(count);
            assert_eq!(gathered.len(), count);
            assert_eq!(gathered.packed_bytes() > 0, count > PACKED_FROM);
            let list = gathered.into_list();
            let plain = Value::list((0..count).map(route).collect());
            assert_eq!(list.len(), count);
            for number in 0..count {
                let item = list.item(number).unwrap();
                assert_eq!(item.to_string(), route(number).to_string());
            }
            assert!(list.item(count).is_none());
            assert_eq!(Value::List(list.clone()).to_string(), plain.to_string());
            list.extend([route(count)]);
            assert_eq!(list.items().len(), count + 1);
            assert!(list.packed_bytes().is_none());
        }
    }

    #[test]
    fn what_others_hold_stays_shared() {
        let shared = List::new(vec!["a".into()]);
        for before in [0, PACKED_FROM + 10] {
            let mut gathered = gathered(before);
            gathered.push(Value::List(shared.clone()));
            gathered.push(route(1));
            assert_eq!(gathered.packed_bytes(), 0);
            let list = gathered.into_list();
            shared.extend(["b".into()]);
            let item = list.item(before).unwrap();
            assert_eq!(item.to_string(), Value::List(shared.clone()).to_string());
            assert_eq!(list.len(), before + 2);
            assert_eq!(
                list.item(before + 1).unwrap().to_string(),
                route(1).to_string()
            );
        }
    }

    #[test]
    fn elements_are_given_up_unless_somebody_else_may_ask() {
        let list = gathered(1000).into_list();
        let other = list.clone();
        list.release_before(900);
        assert!(list.item(0).is_some());
        drop(other);
        list.release_before(900);
        assert!(list.item(0).is_none());
        assert_eq!(list.item(900).unwrap().to_string(), route(900).to_string());
        assert_eq!(list.items().len(), 1000);
        assert_eq!(list.item(999).unwrap().to_string(), route(999).to_string());
    }
}
