//! How much memory an evaluation holds.

use std::collections::HashSet;

use super::output::{Input, Sink};
use super::{Evaluation, limits};
use crate::router::value::Value;

impl Evaluation {
    /// Bytes of texts and lists that can still be reached. What two hold counts once.
    pub(super) fn living_bytes(&self) -> usize {
        let mut counted = Counted::default();
        let frames = self.frames.iter().flat_map(|frame| &frame.positionals);
        let walks = self
            .stacks
            .fors
            .iter()
            .flat_map(|walk| walk.values.as_slice());
        let found = self
            .expansions
            .iter()
            .flat_map(|expansion| expansion.values());
        for value in self
            .arguments
            .iter()
            .chain(&self.values)
            .chain(frames)
            .chain(walks)
            .chain(found)
            .chain(self.returned.values())
            .chain(self.state.roots())
        {
            counted.add(value);
        }
        counted.bytes + self.raw_bytes()
    }

    /// Bytes that are not values yet, or not any more.
    fn raw_bytes(&self) -> usize {
        let sinks = self.sinks.iter().map(|sink| match sink {
            Sink::Standard { bytes, .. } | Sink::Buffer(bytes) | Sink::File { bytes, .. } => {
                bytes.len()
            }
            Sink::Closed => 0,
        });
        let inputs = self.inputs.iter().map(|input| match input {
            Input::Bytes { bytes, .. } => bytes.len(),
            Input::Standard | Input::Closed => 0,
        });
        let unwritten = self.unwritten.iter().map(|(_, bytes)| bytes.len());
        let cases = self.cases.iter().map(|text| text.len());
        let sifts = self.sifts.iter().map(sift_bytes);
        let parts: usize = sinks
            .chain(inputs)
            .chain(unwritten)
            .chain(cases)
            .chain(sifts)
            .sum();
        let addresses: usize = self
            .expansions
            .iter()
            .map(|expansion| expansion.raw_bytes())
            .sum();
        let names = self.state.new_names() * limits::NAME_BYTES;
        let members = self.state.members.bytes();
        self.buffer.len() + self.changed_table_bytes() + addresses + members + names + parts
    }
}

/// The text, and the tokens that it was cut into.
fn sift_bytes(sift: &super::sift::Sift) -> usize {
    2 * sift.text_bytes()
}

/// Values that have been counted.
#[derive(Default)]
struct Counted {
    bytes: usize,
    lists: HashSet<usize>,
    /// Larger texts, which are worth remembering.
    texts: HashSet<usize>,
}

/// Texts from here on count once, however many hold them.
const LARGE_TEXT_BYTES: usize = 256;

impl Counted {
    fn add(&mut self, value: &Value) {
        let mut todo: Vec<Value> = vec![value.clone()];
        while let Some(value) = todo.pop() {
            self.one(&value);
            let Value::List(list) = &value else {
                continue;
            };
            if !self.lists.insert(list.identity()) {
                continue;
            }
            self.bytes += limits::LIST_BYTES;
            match list.packed_bytes() {
                Some(bytes) => self.bytes += bytes,
                None => todo.extend(list.items().iter().cloned()),
            }
        }
    }

    fn one(&mut self, value: &Value) {
        self.bytes += limits::VALUE_BYTES;
        if let Value::Text(text) = value
            && (text.len() < LARGE_TEXT_BYTES || self.texts.insert(text.as_ptr().addr()))
        {
            self.bytes += text.len();
        }
    }
}
