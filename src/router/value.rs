//! Values of the routing language: byte strings and lists.
//!
//! Strings are immutable and cheap to copy. A list is shared by all who hold it (`b=$a` makes `lappend a x` show in
//! `b`), as in the original. Both belong to one thread.

mod packed;

use std::cell::{Cell, Ref, RefCell};
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

pub use packed::Gathered;

/// An immutable byte string; a copy costs a counter.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Text(Rc<[u8]>);

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Text {
    /// A number in digits.
    #[must_use]
    pub fn of_number(number: usize) -> Self {
        let mut digits = [0; 20];
        let mut start = digits.len();
        let mut rest = number;
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return Self::from(&digits[start..]);
            }
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// A list of values, shared by its holders.
#[derive(Clone)]
pub struct List(Rc<Items>);

struct Items {
    store: RefCell<Store>,
    /// Belongs to the configuration: no message may change it.
    frozen: Cell<bool>,
}

/// The elements of a list.
#[derive(Debug)]
enum Store {
    Plain(Vec<Value>),
    Packed(Box<packed::Packed>),
}

impl Default for Store {
    fn default() -> Self {
        Self::Plain(Vec::new())
    }
}

impl Store {
    fn len(&self) -> usize {
        match self {
            Self::Plain(values) => values.len(),
            Self::Packed(packed) => packed.len(),
        }
    }

    fn packed_bytes(&self) -> Option<usize> {
        match self {
            Self::Plain(_) => None,
            Self::Packed(packed) => Some(packed.bytes()),
        }
    }

    /// The elements as values, which they are from now on.
    fn plain(&mut self) -> &mut Vec<Value> {
        if let Self::Packed(packed) = self {
            *self = Self::Plain(packed.unpack());
        }
        match self {
            Self::Plain(values) => values,
            Self::Packed(_) => unreachable!("it has just been unpacked"),
        }
    }
}

impl Drop for Items {
    /// Lists in lists are taken apart one after the other: however deep they are, the stack is not.
    fn drop(&mut self) {
        let mut todo = Todo::default();
        todo.take_lists(self.store.get_mut());
        while let Some(list) = todo.pop() {
            if let Some(mut items) = Rc::into_inner(list.0) {
                todo.take_lists(items.store.get_mut());
            }
        }
    }
}

/// Lists to be taken apart. Most lists hold one list at most, which needs no memory.
#[derive(Default)]
struct Todo {
    last: Option<List>,
    others: Vec<List>,
}

impl Todo {
    fn take_lists(&mut self, store: &mut Store) {
        let Store::Plain(values) = store else {
            return;
        };
        for value in values.drain(..) {
            // One that has other holders stays.
            if let Value::List(list) = value
                && Rc::strong_count(&list.0) == 1
            {
                self.others.extend(self.last.replace(list));
            }
        }
    }

    fn pop(&mut self) -> Option<List> {
        self.last.take().or_else(|| self.others.pop())
    }
}

impl List {
    /// A list of its own.
    #[must_use]
    pub fn new(values: Vec<Value>) -> Self {
        Self::of(Store::Plain(values))
    }

    fn of(store: Store) -> Self {
        Self(Rc::new(Items {
            store: RefCell::new(store),
            frozen: Cell::new(false),
        }))
    }

    /// The elements; must be given back before somebody changes the list. [`Self::item`] takes less memory of a
    /// long list.
    #[must_use]
    pub fn items(&self) -> Ref<'_, Vec<Value>> {
        if self.packed_bytes().is_some() {
            self.0.store.borrow_mut().plain();
        }
        Ref::map(self.0.store.borrow(), |store| match store {
            Store::Plain(values) => values,
            Store::Packed(_) => unreachable!("it has just been unpacked"),
        })
    }

    /// An element.
    #[must_use]
    pub fn item(&self, index: usize) -> Option<Value> {
        match &*self.0.store.borrow() {
            Store::Plain(values) => values.get(index).cloned(),
            Store::Packed(packed) => packed.get(index),
        }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.store.borrow().len()
    }

    /// Whether it is `nil`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of its elements if they are packed: then none of them is shared with others.
    #[must_use]
    pub fn packed_bytes(&self) -> Option<usize> {
        self.0.store.borrow().packed_bytes()
    }

    /// The caller asks for no element before this one again. Where nobody else can, they are given up.
    pub fn release_before(&self, index: usize) {
        if Rc::strong_count(&self.0) == 1
            && let Store::Packed(packed) = &mut *self.0.store.borrow_mut()
        {
            packed.release_before(index);
        }
    }

    /// The elements, one after the other; a list that nobody else holds becomes smaller meanwhile.
    pub fn into_values(mut self) -> impl Iterator<Item = Value> {
        let packed = self.packed_bytes().map_or(0, |_| self.len());
        let plain = match Rc::get_mut(&mut self.0) {
            _ if packed > 0 => Vec::new(),
            Some(items) => std::mem::take(items.store.get_mut().plain()),
            None => self.items().clone(),
        };
        let packed = (0..packed).filter_map(move |index| {
            self.release_before(index);
            self.item(index)
        });
        plain.into_iter().chain(packed)
    }

    /// Whether it belongs to the configuration and must be copied before it is changed.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.0.frozen.get()
    }

    /// Appends in place: all holders see it.
    pub fn extend(&self, values: impl IntoIterator<Item = Value>) {
        let values: Vec<Value> = values.into_iter().collect();
        self.0.store.borrow_mut().plain().extend(values);
    }

    /// A number that no other list has while this one lives.
    #[must_use]
    pub fn identity(&self) -> usize {
        Rc::as_ptr(&self.0).addr()
    }

    /// Whether both are the same list, not only equal ones.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Value::List(self.clone()))
    }
}

/// A string or a list.
#[derive(Clone)]
pub enum Value {
    /// A string.
    Text(Text),
    /// A list.
    List(List),
}

impl Value {
    /// The empty list.
    #[must_use]
    pub fn nil() -> Self {
        Self::List(List::new(Vec::new()))
    }

    /// A list of these.
    #[must_use]
    pub fn list(values: Vec<Self>) -> Self {
        Self::List(List::new(values))
    }

    /// The string; none for a list.
    #[must_use]
    pub fn text(&self) -> Option<&Text> {
        match self {
            Self::Text(text) => Some(text),
            Self::List(_) => None,
        }
    }

    /// Its bytes where a string is needed: a list is the empty string there.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text,
            Self::List(_) => b"",
        }
    }

    /// Makes its lists belong to the configuration.
    pub fn freeze(&self) {
        let mut todo = vec![self.clone()];
        while let Some(value) = todo.pop() {
            if let Self::List(list) = value
                && !list.0.frozen.replace(true)
            {
                todo.extend(list.items().iter().cloned());
            }
        }
    }

    /// Appends it in list notation, quoted only where it must be; `nil` is the empty list. What lies deeper than
    /// [`GRIND_DEPTH_MAX`] or behind [`GRIND_BYTES_MAX`] is written as `...`.
    pub fn grind(&self, output: &mut Vec<u8>) {
        let end = output.len().saturating_add(GRIND_BYTES_MAX);
        grind_at(self, output, GRIND_DEPTH_MAX, end);
    }
}

/// Lists in lists that are written; more would exhaust the stack.
const GRIND_DEPTH_MAX: usize = 200;

/// Bytes that are written: a list that holds the same list many times is small and its notation is not.
const GRIND_BYTES_MAX: usize = 16 << 20;

fn grind_at(value: &Value, output: &mut Vec<u8>, depth: usize, end: usize) {
    match value {
        _ if output.len() > end => output.extend_from_slice(b"..."),
        Value::Text(text) => grind_text(text, output),
        Value::List(list) if list.is_empty() => output.extend_from_slice(b"nil"),
        Value::List(_) if depth == 0 => output.extend_from_slice(b"..."),
        Value::List(list) => {
            output.push(b'(');
            for index in 0..list.len() {
                if index > 0 {
                    output.push(b' ');
                }
                let item = list.item(index).unwrap_or_else(Value::nil);
                grind_at(&item, output, depth - 1, end);
                if output.len() > end {
                    break;
                }
            }
            output.push(b')');
        }
    }
}

/// Quoted when a reader could take it for something else; an apostrophe stands outside the quotes.
fn grind_text(text: &[u8], output: &mut Vec<u8>) {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"'\\".contains(byte);
    if text.iter().all(plain) && !text.is_empty() {
        output.extend_from_slice(text);
        return;
    }
    if text.is_empty() {
        output.extend_from_slice(b"''");
    }
    let mut open = false;
    for byte in text {
        if (*byte == b'\'') == open {
            output.push(b'\'');
            open = !open;
        }
        match byte {
            b'\'' => output.extend_from_slice(b"\\'"),
            _ => output.push(*byte),
        }
    }
    if open {
        output.push(b'\'');
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::new();
        self.grind(&mut bytes);
        f.write_str(&String::from_utf8_lossy(&bytes))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Text> for Value {
    fn from(text: Text) -> Self {
        Self::Text(text)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Text(bytes.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_notation() {
        let inner = Value::list(vec!["b c".into(), "".into(), Value::nil()]);
        let value = Value::list(vec!["a".into(), inner]);
        assert_eq!(value.to_string(), "(a ('b c' '' nil))");
        assert_eq!(Value::nil().to_string(), "nil");
        assert_eq!(Value::from("a\"b").to_string(), "'a\"b'");
        assert_eq!(Value::from("it's").to_string(), "'it'\\''s'");
        assert_eq!(Value::from("'a'b").to_string(), "\\''a'\\''b'");
        assert_eq!(Value::from("j\u{f6}").to_string(), "'j\u{f6}'");
    }

    #[test]
    fn numbers_in_digits() {
        for number in [0, 7, 10, 1234567890, usize::MAX] {
            assert_eq!(&*Text::of_number(number), number.to_string().as_bytes());
        }
    }

    #[test]
    fn a_list_that_contains_itself_ends() {
        let list = List::new(Vec::new());
        list.extend([Value::List(list.clone())]);
        assert!(Value::List(list).to_string().contains("..."));
    }

    #[test]
    fn a_deep_list_and_a_wide_one_end() {
        let mut deep = Value::nil();
        for _ in 0..1_000_000 {
            deep = Value::list(vec![deep]);
        }
        assert!(deep.to_string().contains("..."));
        drop(deep);
        let mut wide = Value::list(vec!["x".into()]);
        for _ in 0..64 {
            wide = Value::list(vec![wide.clone(), wide]);
        }
        assert!(wide.to_string().len() < GRIND_BYTES_MAX + 2000);
    }

    #[test]
    fn holders_share_a_list() {
        let list = List::new(vec!["a".into()]);
        let other = list.clone();
        list.extend(["b".into()]);
        assert_eq!(other.len(), 2);
    }
}
