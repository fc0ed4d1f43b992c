//! Many small records in order, packed: what a list of hundred thousand members is made of.
//!
//! A record is a row of bytes that its owner reads and writes ([`Writer`], [`Reader`]). Records stand in blocks of
//! blocks; those in front are given up as soon as they are not needed any more.

use std::collections::VecDeque;

/// Records of a block: a record is found by walking over those before it in its block.
const BLOCK_RECORDS: usize = 32;

/// Records at most: all who add some have a bound of their own, which is lower.
const RECORDS_MAX: usize = 1 << 30;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Full blocks, but for the last one.
    blocks: VecDeque<Vec<u8>>,
    /// Blocks that were given up.
    released: usize,
    len: usize,
    bytes: usize,
}

impl Records {
    /// Adds a record at the end.
    pub fn push(&mut self, record: &[u8]) {
        assert!(self.len < RECORDS_MAX, "{RECORDS_MAX} records are too many");
        if self.len.is_multiple_of(BLOCK_RECORDS) {
            if let Some(full) = self.blocks.back_mut() {
                full.shrink_to_fit();
            }
            self.blocks.push_back(Vec::new());
        }
        if let Some(block) = self.blocks.back_mut() {
            let before = block.len();
            block.text(record);
            self.bytes += block.len() - before;
        }
        self.len += 1;
    }

    /// How many there are, those that were given up included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A record; none: there is no such one any more, or not yet.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let block = (index / BLOCK_RECORDS).checked_sub(self.released)?;
        let mut reader = Reader::of(self.blocks.get(block)?);
        for _ in 0..index % BLOCK_RECORDS {
            reader.text();
        }
        (index < self.len).then(|| reader.text())
    }

    /// All that have not been given up.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.blocks.iter().flat_map(|block| {
            let mut reader = Reader::of(block);
            std::iter::from_fn(move || (!reader.is_at_end()).then(|| reader.text()))
        })
    }

    /// Nobody will ask for those before `index` again: blocks without others are given up.
    pub fn release_before(&mut self, index: usize) {
        while self.released < index.min(self.len) / BLOCK_RECORDS {
            self.released += 1;
            let block = self.blocks.pop_front();
            self.bytes -= block.map_or(0, |block| block.len());
        }
    }
}

/// Writes the parts of a record.
pub trait Writer {
    /// A number, in as few bytes as it needs: seven bits in each.
    fn number(&mut self, number: u64);
    /// A text of any length.
    fn text(&mut self, text: &[u8]);
}

impl Writer for Vec<u8> {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.push(number as u8);
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.extend_from_slice(text);
    }
}

/// Reads the parts of a record in the order in which they were written. Behind the end there are zeroes and empty
/// texts, which only an error of the owner leads to.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// From its start.
    #[must_use]
    pub fn of(record: &'a [u8]) -> Self {
        Self(record)
    }

    /// Whether all has been read.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let Some((byte, rest)) = self.0.split_first() else {
                break;
            };
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }

    /// The next text.
    pub fn text(&mut self) -> &'a [u8] {
        let len = usize::try_from(self.number()).unwrap_or(usize::MAX);
        self.bytes(len)
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_come_back() {
        let mut record = Vec::new();
        let numbers = [0, 1, 127, 128, 300, 1 << 32, u64::MAX];
        for number in numbers {
            record.number(number);
            record.text(format!("{number}").as_bytes());
        }
        let mut reader = Reader::of(&record);
        for number in numbers {
            assert_eq!(reader.number(), number);
            assert_eq!(reader.text(), format!("{number}").as_bytes());
        }
        assert!(reader.is_at_end());
        assert_eq!((reader.number(), reader.text()), (0, &b""[..]));
    }

    #[test]
    fn records_are_found_and_given_up_from_the_front() {
        let mut records = Records::default();
        let text = |number: usize| "x".repeat(number % 300);
        for number in 0..1000 {
            assert_eq!(records.len(), number);
            records.push(text(number).as_bytes());
        }
        let right = |records: &Records, from: usize| {
            for number in from..1000 {
                assert_eq!(records.get(number), Some(text(number).as_bytes()));
            }
        };
        right(&records, 0);
        assert_eq!(records.get(1000), None);
        assert_eq!(records.iter().count(), 1000);
        let all = records.bytes();
        records.release_before(500);
        right(&records, 500);
        assert_eq!(records.get(0), None);
        assert!(records.bytes() < all * 6 / 10);
        assert_eq!(records.len(), 1000);
        records.release_before(2000);
        assert_eq!(records.get(0), None);
        records.push(b"one more");
        assert_eq!(records.get(1000), Some(&b"one more"[..]));
    }
}
