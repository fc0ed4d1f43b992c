//! Tables of networks: a line is `address/bits value`; the longest network that holds an address counts, of
//! the same one the first line. `#` begins a comment. The value is the first word, as in other text tables.
//! An IPv4 address that is written as an IPv6 one is the IPv4 address.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;

use super::Map;
use super::driver::{bits, network, parse_address};

/// A table of networks.
#[derive(Debug)]
pub struct Networks {
    /// Prefix lengths that occur, longest first; of IPv4 and of IPv6.
    lengths: [Vec<u8>; 2],
    values: HashMap<(IpAddr, u8), Range<usize>>,
    text: Vec<u8>,
}

impl Networks {
    /// Of a file's bytes.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn new(text: Vec<u8>) -> Result<Self, String> {
        let mut values = HashMap::new();
        let mut start = 0;
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let at = start;
            start += line.len() + 1;
            let blank = |byte: &u8| byte.is_ascii_whitespace();
            let bare = line.trim_ascii();
            if bare.is_empty() || bare.starts_with(b"#") {
                continue;
            }
            let key_at = line.len() - line.trim_ascii_start().len();
            let key_end = bare.iter().position(blank).unwrap_or(bare.len());
            let place = |text: String| format!("{}:{}: {text}", number + 1, key_at + 1);
            let key = parse_network(&bare[..key_end]).map_err(place)?;
            let value = bare[key_end..].trim_ascii_start();
            let value_at = at + key_at + bare.len() - value.len();
            let length = value.iter().position(blank).unwrap_or(value.len());
            values.entry(key).or_insert(value_at..value_at + length);
        }
        let mut lengths = [Vec::new(), Vec::new()];
        for (address, bits) in values.keys() {
            lengths[usize::from(address.is_ipv6())].push(*bits);
        }
        for list in &mut lengths {
            list.sort_unstable_by(|one, other| other.cmp(one));
            list.dedup();
        }
        Ok(Self {
            lengths,
            values,
            text,
        })
    }
}

fn parse_network(word: &[u8]) -> Result<(IpAddr, u8), String> {
    let text = String::from_utf8_lossy(word);
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (&*text, None),
    };
    let bad = || format!("{text:?} is not an address or network");
    let address = parse_address(address.as_bytes()).ok_or_else(bad)?;
    let most = bits(address);
    let length = match length {
        None => most,
        Some(length) => length.parse().ok().filter(|n| *n <= most).ok_or_else(bad)?,
    };
    let base = network(address, length);
    if base != address {
        return Err(format!(
            "{text:?} has bits behind its prefix; the network is {base}/{length}"
        ));
    }
    // ::ffff:192.0.2.0/120 is 192.0.2.0/24.
    Ok(match address.to_canonical() {
        v4 @ IpAddr::V4(_) if address.is_ipv6() && length >= 96 => (v4, length - 96),
        _ => (address, length),
    })
}

impl Map for Networks {
    fn get<'a>(&'a self, key: &[u8]) -> Option<Cow<'a, [u8]>> {
        let address = parse_address(key)?.to_canonical();
        let lengths = &self.lengths[usize::from(address.is_ipv6())];
        let find = |bits: &u8| self.values.get(&(network(address, *bits), *bits));
        let value = lengths.iter().find_map(find)?;
        Some(Cow::Borrowed(self.text.get(value.clone())?))
    }

    fn count(&self) -> u64 {
        self.values.len() as u64
    }

    fn print(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text);
    }

    fn bytes(&self) -> usize {
        self.text.len() + self.values.len() * 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_network_counts() {
        let text = "# ours\n10.0.0.0/8 ten\n 10.1.0.0/16\tlan second\n10.1.0.0/16 dup\n10.1.2.3 host\n0.0.0.0/0 world\n\
                    2001:db8::/32 doc\r\n2001:db8::1 one\n::ffff:192.0.2.0/120 mapped\n192.168.0.0/16\n";
        let table = Networks::new(text.as_bytes().to_vec()).unwrap();
        let rows = [
            ("10.1.2.3", "host"),
            ("[10.1.2.4]", "lan"),
            ("10.200.0.1", "ten"),
            ("8.8.8.8", "world"),
            ("::ffff:10.1.2.3", "host"),
            ("192.0.2.7", "mapped"),
            ("[IPv6:2001:db8::1]", "one"),
            ("2001:db8::2", "doc"),
            ("2001:db9::", "-"),
            ("192.168.1.1", ""),
            ("10.1.2", "-"),
            ("name", "-"),
        ];
        for (key, value) in rows {
            let found = table.get(key.as_bytes());
            let found = found.map_or("-".into(), |value| {
                String::from_utf8_lossy(&value).into_owned()
            });
            assert_eq!(found, value, "{key}");
        }
        assert_eq!(table.count(), 8);
    }

    #[test]
    fn wrong_lines_are_named() {
        for (text, error) in [
            (
                "10.0.0.0/8 a\n  10.0.0.1/8 b\n",
                "2:3: \"10.0.0.1/8\" has bits behind its prefix; the network is 10.0.0.0/8",
            ),
            (
                "10.0.0.0/33 b\n",
                "1:1: \"10.0.0.0/33\" is not an address or network",
            ),
            (
                "example.org b\n",
                "1:1: \"example.org\" is not an address or network",
            ),
        ] {
            assert_eq!(Networks::new(text.into()).unwrap_err(), error);
        }
    }
}
