//! Text files with a key and a value on each line.
//!
//! A key ends at the first blank that is neither quoted nor behind a backslash; a line without such a blank
//! has no key. Keys are compared without regard to case. The value is the first word behind. Of lines with
//! the same key the first counts. There are no comments: a line that begins with `#` has that as its key.

use std::borrow::Cow;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::Map;

/// Keys up to this length are folded without an allocation.
const FOLD_BYTES: usize = 256;

/// A table of a text file. Files over 4 GiB are refused.
pub struct Text {
    bytes: Vec<u8>,
    /// Open addressing; a power of two, at most half full.
    slots: Vec<Slot>,
    hasher: FixedState,
    lines: u64,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    /// High half of the hash; compared before the key.
    tag: u32,
    start: u32,
    /// Bytes of the key and one; 0: the slot is free.
    length: u32,
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Text of {} lines", self.lines)
    }
}

impl Text {
    /// Of a file's bytes.
    ///
    /// # Errors
    /// When it is too large.
    pub fn new(bytes: Vec<u8>) -> Result<Self, String> {
        if u32::try_from(bytes.len()).is_err() {
            let text = format!(
                "{} bytes are too many for a text table (4 GiB)",
                bytes.len()
            );
            return Err(text);
        }
        let lines = memchr::memchr_iter(b'\n', &bytes).count();
        // The last line may lack its end.
        let size = (2 * (lines + 1)).next_power_of_two();
        let mut table = Self {
            slots: vec![Slot::default(); size],
            hasher: FixedState::default(),
            lines: lines as u64,
            bytes,
        };
        let mut start = 0;
        while start < table.bytes.len() {
            let rest = &table.bytes[start..];
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at);
            if let Some(key) = key_end(&rest[..end]) {
                table.insert(start, key);
            }
            start += end + 1;
        }
        Ok(table)
    }

    fn insert(&mut self, start: usize, key_bytes: usize) {
        let key = &self.bytes[start..start + key_bytes];
        let hash = with_folded(key, |key| self.hasher.hash_one(key));
        let mut at = self.home(hash);
        while let Some(slot) = self.slots.get(at).filter(|slot| slot.length != 0) {
            if self.matches(slot, tag(hash), key) {
                return;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        // The constructor has checked that the file has fewer bytes than that.
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.slots[at] = Slot {
            tag: tag(hash),
            start: narrow(start),
            length: narrow(key_bytes + 1),
        };
    }

    fn home(&self, hash: u64) -> usize {
        (hash as usize) & (self.slots.len() - 1)
    }

    fn matches(&self, slot: &Slot, tag: u32, key: &[u8]) -> bool {
        let start = slot.start as usize;
        slot.tag == tag
            && slot.length as usize == key.len() + 1
            && self.bytes[start..start + key.len()].eq_ignore_ascii_case(key)
    }

    /// Where the value of a key may begin.
    fn find(&self, key: &[u8]) -> Option<usize> {
        let hash = with_folded(key, |key| self.hasher.hash_one(key));
        let mut at = self.home(hash);
        loop {
            let slot = &self.slots[at];
            if slot.length == 0 {
                return None;
            }
            if self.matches(slot, tag(hash), key) {
                return Some(slot.start as usize + key.len());
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    fn value(&self, key: &[u8]) -> Option<&[u8]> {
        let rest = &self.bytes[self.find(key)?..];
        let line = memchr::memchr(b'\n', rest).map_or(rest, |end| &rest[..end]);
        let line = line.trim_ascii_start();
        let word = line.iter().position(u8::is_ascii_whitespace);
        Some(word.map_or(line, |end| &line[..end]))
    }
}

impl Map for Text {
    fn get<'a>(&'a self, key: &[u8]) -> Option<Cow<'a, [u8]>> {
        self.value(key).map(Cow::Borrowed)
    }

    fn count(&self) -> u64 {
        self.lines
    }

    fn print(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }

    fn bytes(&self) -> usize {
        self.bytes.len() + self.slots.len() * size_of::<Slot>()
    }
}

/// Calls with a key in lower case.
pub(super) fn with_folded<T>(key: &[u8], call: impl FnOnce(&[u8]) -> T) -> T {
    let mut space = [0; FOLD_BYTES];
    match space.get_mut(..key.len()) {
        Some(space) => {
            space.copy_from_slice(key);
            space.make_ascii_lowercase();
            call(space)
        }
        None => call(&key.to_ascii_lowercase()),
    }
}

fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Length of the key of a line; none: it has none.
pub(super) fn key_end(line: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => quoted = !quoted,
            b' ' | b'\t' if !quoted => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// A text table whose values are places in a second file: the text from there to the end of the lines that
/// continue it, each of which begins with a blank.
#[derive(Debug)]
pub struct Indirect {
    index: Text,
    data: Vec<u8>,
}

impl Indirect {
    /// Of an index and the second file.
    #[must_use]
    pub fn new(index: Text, data: Vec<u8>) -> Self {
        Self { index, data }
    }

    fn chunk(&self, place: usize) -> Option<Vec<u8>> {
        let mut rest = self.data.get(place..)?;
        let mut chunk = Vec::new();
        loop {
            let end = memchr::memchr(b'\n', rest);
            let line = end.map_or(rest, |end| &rest[..end]);
            let first = chunk.len();
            chunk.extend_from_slice(line);
            if let Some(tab @ b'\t') = chunk.get_mut(first) {
                *tab = b' ';
            }
            rest = end.map_or(&b""[..], |end| &rest[end + 1..]);
            if !matches!(rest.first(), Some(b' ' | b'\t')) {
                break;
            }
        }
        (!chunk.is_empty()).then_some(chunk)
    }
}

impl Map for Indirect {
    fn get<'a>(&'a self, key: &[u8]) -> Option<Cow<'a, [u8]>> {
        let place = self.index.value(key)?;
        let digits = place.iter().take_while(|byte| byte.is_ascii_digit());
        let digits = &place[..digits.count()];
        let place = std::str::from_utf8(digits).ok()?.parse().ok()?;
        self.chunk(place).map(Cow::Owned)
    }

    fn count(&self) -> u64 {
        self.index.count()
    }

    fn print(&self, out: &mut Vec<u8>) {
        self.index.print(out);
    }

    fn bytes(&self) -> usize {
        self.index.bytes() + self.data.len()
    }
}
