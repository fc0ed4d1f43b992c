//! The attribute lists of the members of a list: what they share is kept once.
//!
//! `listexpand` gives each member a variable of its own with a property list of its own. Of hundred thousand
//! members that would be hundred thousand names and lists that differ in one text, which the member's address gives.
//! So a row of these variables has neither until a script does more with one than [`get`](super::super::builtin):
//! then it is made, and is a variable like any other. Before that nobody can tell.

use crate::base::records::Records;
use crate::router::code::Symbol;
use crate::router::value::{List, Text, Value};

use super::state::State;

/// The variables `g` and a number that `listexpand` has set and that have no name in the table of names.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Different lists, without `DSN`.
    bases: Vec<Base>,
    /// By member: its list.
    base_of: Vec<u32>,
    /// By member: its address.
    addresses: Records,
    /// Members whose numbers follow each other.
    runs: Vec<Run>,
}

/// What members share.
#[derive(Debug)]
struct Base {
    items: Vec<Value>,
    /// What stands in front of `ORCPT`.
    notary: Vec<u8>,
}

#[derive(Debug)]
struct Run {
    /// The number in the name of its first member.
    number: u64,
    first: usize,
}

/// Shared lists that a new one is compared with, the latest ones.
const COMPARED_MAX: usize = 8;

const DSN: &[u8] = b"DSN";

impl Members {
    /// Adds the variable of this number, which is higher than those before: `base` with the address as original
    /// recipient.
    pub(super) fn add(&mut self, number: u64, base: Option<&List>, notary: &[u8], address: &[u8]) {
        let member = self.addresses.len();
        let follows = self
            .runs
            .last()
            .is_some_and(|run| run.number.checked_add((member - run.first) as u64) == Some(number));
        if !follows {
            self.runs.push(Run {
                number,
                first: member,
            });
        }
        let base = self.base(others(base), notary);
        self.base_of.push(base);
        self.addresses.push(address);
    }

    fn base(&mut self, items: Vec<Value>, notary: &[u8]) -> u32 {
        let latest = (0..self.bases.len()).rev().take(COMPARED_MAX);
        let known = latest.into_iter().find(|at| {
            let base = &self.bases[*at];
            base.notary == notary && are_same(&base.items, &items)
        });
        let at = known.unwrap_or_else(|| {
            let notary = notary.to_vec();
            self.bases.push(Base { items, notary });
            self.bases.len() - 1
        });
        at as u32
    }

    /// Whose variable has this name.
    fn member(&self, name: &[u8]) -> Option<usize> {
        if self.runs.is_empty() {
            return None;
        }
        let digits = name.strip_prefix(b"g")?;
        let right = digits.iter().all(u8::is_ascii_digit)
            && (digits.len() == 1 || !digits.starts_with(b"0"));
        let number = std::str::from_utf8(digits).ok().filter(|_| right)?;
        let number: u64 = number.parse().ok()?;
        let after = self.runs.partition_point(|run| run.number <= number);
        let run = &self.runs[after.checked_sub(1)?];
        let end = self
            .runs
            .get(after)
            .map_or(self.base_of.len(), |run| run.first);
        let member = run.first + usize::try_from(number - run.number).ok()?;
        (member < end).then_some(member)
    }

    /// The list of the variable of this name.
    pub(super) fn list(&self, name: &[u8]) -> Option<Value> {
        let member = self.member(name)?;
        let base = &self.bases[self.base_of[member] as usize];
        let address = self.addresses.get(member)?;
        Some(list(&base.items, &base.notary, address))
    }

    /// What `get` says of the variable of this name: a key that is not there is added.
    fn get(&mut self, name: &[u8], key: &Text) -> Option<Value> {
        let member = self.member(name)?;
        let base = &self.bases[self.base_of[member] as usize];
        if **key == *DSN {
            let address = self.addresses.get(member)?;
            return Some(Value::Text(dsn(&base.notary, address)));
        }
        let mut pairs = base.items.chunks(2);
        if let Some(pair) = pairs.find(|pair| pair[0].text() == Some(key)) {
            return Some(pair.get(1).cloned().unwrap_or_else(Value::nil));
        }
        let mut items = base.items.clone();
        items.extend([Value::Text(key.clone()), Value::nil()]);
        let notary = base.notary.clone();
        self.base_of[member] = self.base(items, &notary);
        Some(Value::nil())
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        let bases = self.bases.iter().map(|base| {
            let texts = base.items.iter().map(|item| item.bytes().len());
            base.notary.len() + 32 * base.items.len() + texts.sum::<usize>()
        });
        bases.sum::<usize>()
            + 4 * self.base_of.len()
            + self.addresses.bytes()
            + 16 * self.runs.len()
    }
}

impl State {
    /// What `get` says of the attributes of a member of a list; none: the name is that of any other variable.
    pub(in crate::router) fn member_attribute(&mut self, name: &[u8], key: &Text) -> Option<Value> {
        if self.members.runs.is_empty() || self.symbols.lookup(name).is_some() {
            return None;
        }
        self.members.get(name, key)
    }

    /// The symbol of a name, if it is that of any variable.
    pub(super) fn symbol_in_use(&mut self, name: &[u8]) -> Option<Symbol> {
        if let Some(symbol) = self.symbols.lookup(name) {
            return Some(symbol);
        }
        self.members.member(name)?;
        let symbol = self.symbols.intern(name)?;
        self.grow();
        Some(symbol)
    }
}

/// The items of a property list without `DSN`.
fn others(base: Option<&List>) -> Vec<Value> {
    let items = base.map(|list| list.items().clone()).unwrap_or_default();
    if items.chunks(2).all(|pair| pair[0].bytes() != DSN) {
        return items;
    }
    let pairs = items.chunks(2).filter(|pair| pair[0].bytes() != DSN);
    pairs.flatten().cloned().collect()
}

/// A property list with the address as original recipient in front.
fn list(others: &[Value], notary: &[u8], address: &[u8]) -> Value {
    let mut items = Vec::with_capacity(others.len() + 2);
    items.push(Value::Text(Text::from(DSN)));
    items.push(Value::Text(dsn(notary, address)));
    items.extend_from_slice(others);
    Value::list(items)
}

/// The same, of the list that a member's is made of.
pub(super) fn list_of(base: Option<&List>, notary: &[u8], address: &[u8]) -> Value {
    list(&others(base), notary, address)
}

fn dsn(notary: &[u8], address: &[u8]) -> Text {
    let mut dsn = notary.to_vec();
    if !dsn.is_empty() {
        dsn.push(b' ');
    }
    dsn.extend_from_slice(b"ORCPT=rfc822;");
    for byte in address {
        match byte {
            b'!'..=b'~' if !b"+=".contains(byte) => dsn.push(*byte),
            _ => dsn.extend_from_slice(format!("+{byte:02X}").as_bytes()),
        }
    }
    Text::from(dsn)
}

/// Whether nobody can tell one row of values from the other: the same texts, and lists that are one.
fn are_same(one: &[Value], other: &[Value]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|pair| match pair {
            (Value::Text(one), Value::Text(other)) => one == other,
            (Value::List(one), Value::List(other)) => one.is_same(other),
            _ => false,
        })
}
