//! Compiled maps: the constant database format of D. J. Bernstein (cdb), read whole into memory.
//!
//! ```text
//! 2048 bytes   256 times: place and number of slots of a hash table, u32 little-endian
//! records      length of key, length of value, key, value
//! tables       slots of hash and place of the record; place 0: free; twice as many slots as records
//! ```
//!
//! A file has less than 4 GiB, since places are 32 bits. It is taken only when its tables stand one behind
//! the other up to its end: what is cut short, or is no such file, is refused as a whole. A damaged record
//! reads as absent.

use std::borrow::Cow;

use super::Map;

/// Bytes in front of the records.
const HEADER_BYTES: usize = 2048;

/// Bytes of a place and a number, or of a hash and a place.
const PAIR_BYTES: usize = 8;

/// Largest file.
const FILE_BYTES_MAX: u64 = u32::MAX as u64;

/// Writes a map.
pub struct Builder {
    bytes: Vec<u8>,
    /// Hash and place of each record.
    records: Vec<(u32, u32)>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            bytes: vec![0; HEADER_BYTES],
            records: Vec::new(),
        }
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Builder with {} records", self.records.len())
    }
}

/// The map would be larger than the format allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a compiled map has less than 4 GiB; split the source")
    }
}

impl std::error::Error for TooLarge {}

impl Builder {
    /// With room for so many records, whose keys and values have so many bytes.
    #[must_use]
    pub fn with_capacity(records: usize, bytes: usize) -> Self {
        // Each record has a head and two slots.
        let all = HEADER_BYTES + bytes + records * 3 * PAIR_BYTES;
        let mut builder = Self::default();
        builder
            .bytes
            .reserve_exact(all.min(FILE_BYTES_MAX as usize));
        builder.records.reserve_exact(records);
        builder
    }

    /// Adds a record. Of two with the same key the first one is found.
    ///
    /// # Errors
    /// When the map is full; it can still be finished.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), TooLarge> {
        let tables = (self.records.len() as u64 + 1) * 2 * PAIR_BYTES as u64;
        let record = (PAIR_BYTES + key.len() + value.len()) as u64;
        if self.bytes.len() as u64 + record + tables > FILE_BYTES_MAX {
            return Err(TooLarge);
        }
        let narrow = |n: usize| u32::try_from(n).map_err(|_| TooLarge);
        self.records.push((hash(key), narrow(self.bytes.len())?));
        for length in [narrow(key.len())?, narrow(value.len())?] {
            self.bytes.extend_from_slice(&length.to_le_bytes());
        }
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        Ok(())
    }

    /// The file.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        // Stable: records of a table stay in the order in which they came.
        self.records.sort_by_key(|(hash, _)| hash & 0xff);
        let mut rest = self.records.as_slice();
        for table in 0..256_u32 {
            let count = rest.partition_point(|(hash, _)| hash & 0xff <= table);
            let (records, behind) = rest.split_at(count);
            rest = behind;
            let head = table as usize * PAIR_BYTES;
            // `add` has left room for all tables below the limit.
            let place = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
            let slots = u32::try_from(count * 2).unwrap_or(u32::MAX);
            self.bytes[head..head + 4].copy_from_slice(&place.to_le_bytes());
            self.bytes[head + 4..head + 8].copy_from_slice(&slots.to_le_bytes());
            for (hash, place) in slots_of(records) {
                self.bytes.extend_from_slice(&hash.to_le_bytes());
                self.bytes.extend_from_slice(&place.to_le_bytes());
            }
        }
        self.bytes
    }
}

fn slots_of(records: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut slots = vec![(0, 0); records.len() * 2];
    for (hash, place) in records {
        let mut at = (*hash as usize >> 8) % slots.len();
        while slots[at].1 != 0 {
            at = (at + 1) % slots.len();
        }
        slots[at] = (*hash, *place);
    }
    slots
}

fn hash(key: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash << 5).wrapping_add(hash) ^ u32::from(*byte);
    key.iter().fold(5381, step)
}

/// A map. Keys are found as they are stored, or else in lower case.
pub struct Compiled {
    bytes: Vec<u8>,
    /// Where records end.
    records_end: usize,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compiled of {} bytes", self.bytes.len())
    }
}

impl Compiled {
    /// Of a file's bytes.
    ///
    /// # Errors
    /// When they are no such file.
    pub fn new(bytes: Vec<u8>) -> Result<Self, String> {
        let refuse = || {
            let text =
                "is not a compiled map, or is cut short; makedb or newaliases writes it anew";
            Err(text.to_owned())
        };
        if bytes.len() < HEADER_BYTES || bytes.len() as u64 > FILE_BYTES_MAX {
            return refuse();
        }
        let Some((first, _)) = pair(&bytes, 0) else {
            return refuse();
        };
        let mut end = first;
        for table in 0..256 {
            match pair(&bytes, table * PAIR_BYTES) {
                Some((place, slots)) if place == end => end += slots * PAIR_BYTES,
                _ => return refuse(),
            }
        }
        if first < HEADER_BYTES || end != bytes.len() {
            return refuse();
        }
        Ok(Self {
            bytes,
            records_end: first,
        })
    }

    fn find(&self, key: &[u8]) -> Option<&[u8]> {
        let hash = hash(key);
        let (place, slots) = pair(&self.bytes, (hash & 0xff) as usize * PAIR_BYTES)?;
        let start = (hash as usize >> 8).checked_rem(slots)?;
        for at in (start..slots).chain(0..start) {
            let (stored, record) = pair(&self.bytes, place + at * PAIR_BYTES)?;
            if record == 0 {
                return None;
            }
            if stored == hash as usize
                && let Some((found, value, _)) = self.record(record)
                && found == key
            {
                return Some(value);
            }
        }
        None
    }

    /// Key, value and the place behind them.
    fn record(&self, place: usize) -> Option<(&[u8], &[u8], usize)> {
        let records = self.bytes.get(..self.records_end)?;
        let (key_bytes, value_bytes) = pair(records, place)?;
        let key = place + PAIR_BYTES;
        let value = key.checked_add(key_bytes)?;
        let end = value.checked_add(value_bytes)?;
        Some((records.get(key..value)?, records.get(value..end)?, end))
    }

    /// Keys and values, in the order in which they were stored.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut place = HEADER_BYTES;
        std::iter::from_fn(move || {
            let (key, value, end) = self.record(place)?;
            place = end;
            Some((key, value))
        })
    }
}

/// Two numbers.
fn pair(bytes: &[u8], place: usize) -> Option<(usize, usize)> {
    let number = |at: usize| {
        let bytes = bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    Some((number(place)?, number(place.checked_add(4)?)?))
}

impl Map for Compiled {
    fn get<'a>(&'a self, key: &[u8]) -> Option<Cow<'a, [u8]>> {
        let value = self.find(key).or_else(|| {
            let upper = key.iter().any(u8::is_ascii_uppercase);
            upper.then(|| super::text::with_folded(key, |key| self.find(key)))?
        });
        value.map(Cow::Borrowed)
    }

    fn count(&self) -> u64 {
        ((self.bytes.len() - self.records_end) / (2 * PAIR_BYTES)) as u64
    }

    fn print(&self, out: &mut Vec<u8>) {
        for (key, value) in self.entries() {
            out.extend_from_slice(key);
            if !value.is_empty() {
                out.push(b'\t');
                out.extend_from_slice(value);
            }
            out.push(b'\n');
        }
    }

    fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(records: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = Builder::default();
        for (key, value) in records {
            builder.add(key.as_bytes(), value.as_bytes()).unwrap();
        }
        builder.finish()
    }

    fn value(map: &Compiled, key: &str) -> Option<String> {
        let value = map.get(key.as_bytes())?;
        Some(String::from_utf8(value.into_owned()).unwrap())
    }

    #[test]
    fn what_is_stored_is_found() {
        let records: Vec<(String, String)> = (0..5000)
            .map(|at| (format!("key{at}"), format!("value {at}")))
            .collect();
        let of: Vec<(&str, &str)> = records.iter().map(|(k, v)| (&**k, &**v)).collect();
        let map = Compiled::new(map(&of)).unwrap();
        assert_eq!(map.count(), 5000);
        for (key, wanted) in &records {
            assert_eq!(value(&map, key).as_ref(), Some(wanted));
            assert_eq!(value(&map, &key.to_uppercase()).as_ref(), Some(wanted));
            assert_eq!(value(&map, &format!("{key}x")), None);
        }
        assert_eq!(map.entries().count(), 5000);
    }

    #[test]
    fn the_first_of_a_key_counts_and_empty_ones_work() {
        let map = Compiled::new(map(&[
            ("a", "1"),
            ("a", "2"),
            ("", "none"),
            ("e", ""),
            ("B", "up"),
        ]));
        let map = map.unwrap();
        assert_eq!(value(&map, "a").unwrap(), "1");
        assert_eq!(value(&map, "").unwrap(), "none");
        assert_eq!(value(&map, "e").unwrap(), "");
        // Stored in upper case it is found only so.
        assert_eq!(
            (value(&map, "B").unwrap(), value(&map, "b")),
            ("up".to_owned(), None)
        );
        let mut out = Vec::new();
        map.print(&mut out);
        assert_eq!(out, b"a\t1\na\t2\n\tnone\ne\nB\tup\n");
    }

    #[test]
    fn the_bytes_are_those_of_the_public_format() {
        let bytes = map(&[("one", "Hello"), ("two", "Goodbye")]);
        // Header, two records, two tables of two slots.
        assert_eq!(bytes.len(), 2048 + (8 + 3 + 5) + (8 + 3 + 7) + 2 * 2 * 8);
        assert_eq!(bytes[2048..2064], *b"\x03\0\0\0\x05\0\0\0oneHello");
        // Worked out by hand from the description of the format.
        assert_eq!(hash(b"one"), 0x0b87_5b81);
        let empty = Compiled::new(map(&[])).unwrap();
        assert_eq!(
            (empty.count(), empty.bytes(), value(&empty, "x")),
            (0, 2048, None)
        );
    }

    #[test]
    fn what_is_cut_or_foreign_is_refused() {
        let bytes = map(&[("one", "Hello"), ("two", "Goodbye")]);
        for length in 0..bytes.len() {
            assert!(Compiled::new(bytes[..length].to_vec()).is_err(), "{length}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Compiled::new(longer).is_err());
        assert!(Compiled::new(vec![0; 4096]).is_err());
        assert!(Compiled::new(b"alias: value\n".repeat(400)).is_err());
    }

    #[test]
    fn damage_in_records_is_absence() {
        let good = map(&[("one", "Hello"), ("two", "Goodbye")]);
        for at in 2048..good.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                let Ok(map) = Compiled::new(bytes) else {
                    continue;
                };
                let _ = (value_bytes(&map, b"one"), value_bytes(&map, b"three"));
                let mut out = Vec::new();
                map.print(&mut out);
            }
        }
    }

    fn value_bytes(map: &Compiled, key: &[u8]) -> Option<usize> {
        map.get(key).map(|value| value.len())
    }
}
