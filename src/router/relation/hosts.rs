//! Files like `/etc/hosts`: every name of a host gives its first one.

use std::borrow::Cow;
use std::collections::HashMap;

use super::Map;
use super::text::with_folded;

/// A table of such a file. Of lines with the same name the first counts; an address gives itself.
#[derive(Debug, Default)]
pub struct HostsFile {
    /// By name in lower case, and by address.
    names: HashMap<Vec<u8>, Vec<u8>>,
    printed: Vec<u8>,
    lines: u64,
}

impl HostsFile {
    /// Of a file's bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let mut table = Self::default();
        for line in bytes.split(|byte| *byte == b'\n') {
            let line = memchr::memchr(b'#', line).map_or(line, |end| &line[..end]);
            let blank = |byte: &u8| byte.is_ascii_whitespace();
            let words = line.split(blank).filter(|word| !word.is_empty());
            let words: Vec<&[u8]> = words.collect();
            let [address, first, others @ ..] = words.as_slice() else {
                continue;
            };
            table.lines += 1;
            table.insert(address, address);
            table.insert(first, first);
            table.printed.extend_from_slice(address);
            table.printed.push(b'\t');
            table.printed.extend_from_slice(first);
            for name in others {
                table.insert(name, first);
                table.printed.push(b' ');
                table.printed.extend_from_slice(name);
            }
            table.printed.push(b'\n');
        }
        table
    }

    fn insert(&mut self, name: &[u8], value: &[u8]) {
        let entry = self.names.entry(name.to_ascii_lowercase());
        entry.or_insert_with(|| value.to_vec());
    }
}

impl Map for HostsFile {
    fn get<'a>(&'a self, key: &[u8]) -> Option<Cow<'a, [u8]>> {
        let found = with_folded(key, |key| self.names.get(key));
        found.map(|value| Cow::Borrowed(value.as_slice()))
    }

    fn count(&self) -> u64 {
        self.lines
    }

    fn print(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.printed);
    }

    fn bytes(&self) -> usize {
        self.printed.len() * 3
    }
}
