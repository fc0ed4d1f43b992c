//! The keys that a driver makes of one key, in their order, without a copy of any.

use std::net::IpAddr;
use std::ops::Range;

use super::kind::Driver;

/// A key to try and what `%0` means should it be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) key: Key,
    /// Part of the text; none: the key that was tried.
    pub(super) rest: Option<Range<usize>>,
}

/// Where a key to try stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A part of the text.
    Part(Range<usize>),
    /// The default of the driver.
    Dot,
    /// For an address without domain.
    Local,
    /// One of the default keys of the call.
    Default(usize),
    /// An address with its prefix shortened to so many bits.
    Network(IpAddr, u8),
}

/// The key that is looked up, laid out so that every key to try is a part of it: `.KEY`, and for an address
/// behind it once more `.DOMAIN`.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    text: Vec<u8>,
    /// The key, without the dot before it.
    whole: Range<usize>,
    /// The name that is walked, without the dot before it.
    name: Range<usize>,
    next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The key itself.
    Whole,
    /// The name of an address.
    Name,
    /// An address without a domain.
    Local,
    /// Behind this place.
    Dots(usize),
    /// The default with this number.
    Default(usize),
    Network(IpAddr, u8),
    End,
}

impl Keys {
    /// For a key, which is folded here. `text` lends its memory.
    pub(super) fn new(
        driver: Option<Driver>,
        key: &[u8],
        mut text: Vec<u8>,
        fold: impl FnOnce(&mut [u8]),
    ) -> Self {
        text.clear();
        text.reserve(2 * key.len() + 2);
        text.push(b'.');
        text.extend_from_slice(key);
        if let Some(key) = text.get_mut(1..) {
            fold(key);
        }
        let whole = 1..text.len();
        let mut name = whole.clone();
        let mut next = Next::Whole;
        match driver {
            Some(Driver::PathaliasAt) => {
                // A local part may be quoted and hold the sign too.
                if let Some(at) = key.iter().rposition(|byte| *byte == b'@') {
                    text.push(b'.');
                    let domain = text.len();
                    text.extend_from_within(at + 2..whole.end);
                    name = domain..text.len();
                }
            }
            Some(Driver::PathaliasNodot) => next = Next::Dots(name.start),
            Some(Driver::LongestMatch) => {
                if let Some(address) = parse_address(&text[whole.clone()]) {
                    next = Next::Network(address, bits(address));
                }
            }
            Some(Driver::Pathalias) | None => {}
        }
        Self {
            text,
            whole,
            name,
            next,
        }
    }

    pub(super) fn into_memory(self) -> Vec<u8> {
        self.text
    }

    /// The key.
    pub(super) fn whole(&self) -> &[u8] {
        &self.text[self.whole.clone()]
    }

    /// A part of the text.
    pub(super) fn part(&self, range: &Range<usize>) -> &[u8] {
        &self.text[range.clone()]
    }

    /// The next key to try; `defaults` is how many default keys the call has.
    pub(super) fn next(&mut self, driver: Option<Driver>, defaults: usize) -> Option<Candidate> {
        loop {
            let (next, candidate) = match self.next {
                Next::Whole => self.whole_key(driver),
                Next::Name => {
                    let key = Key::Part(self.name.clone());
                    (self.first_dots(), Some(Candidate { key, rest: None }))
                }
                Next::Local => {
                    let rest = Some(self.whole.clone());
                    let key = Key::Local;
                    (Next::End, Some(Candidate { key, rest }))
                }
                Next::Dots(from) => self.dots(driver, from),
                Next::Default(number) => self.default_key(number, defaults),
                Next::Network(address, bits) => {
                    let key = Key::Network(address, bits);
                    let next = bits.checked_sub(1);
                    let next = next.map_or(Next::End, |bits| Next::Network(address, bits));
                    (next, Some(Candidate { key, rest: None }))
                }
                Next::End => return None,
            };
            self.next = next;
            if candidate.is_some() {
                return candidate;
            }
        }
    }

    fn whole_key(&self, driver: Option<Driver>) -> (Next, Option<Candidate>) {
        let next = match driver {
            None => Next::End,
            Some(Driver::LongestMatch) => Next::Dots(self.whole.start),
            Some(Driver::PathaliasAt) if self.name != self.whole => {
                if self.name.is_empty() {
                    Next::Local
                } else {
                    Next::Name
                }
            }
            Some(_) => self.first_dots(),
        };
        let key = Key::Part(self.whole.clone());
        (next, Some(Candidate { key, rest: None }))
    }

    /// The name with a dot before it is tried too, unless it has one.
    fn first_dots(&self) -> Next {
        let has = self.text.get(self.name.start) == Some(&b'.');
        Next::Dots(self.name.start - usize::from(!has))
    }

    fn dots(&self, driver: Option<Driver>, from: usize) -> (Next, Option<Candidate>) {
        let bare = driver == Some(Driver::PathaliasNodot);
        let text = &self.text[..self.name.end];
        let dot = memchr::memchr(b'.', &text[from..]).map(|at| from + at);
        let Some(dot) = dot else {
            let next = if bare { Next::End } else { Next::Default(0) };
            return (next, None);
        };
        // Of dots in a row the last one counts.
        let run = text[dot..].iter().take_while(|byte| **byte == b'.').count();
        let behind = dot + run;
        let start = if bare { behind } else { behind - 1 };
        let next = Next::Dots(behind);
        if start == text.len() {
            return (next, None);
        }
        // Patterns of pathalias stand for a part with its dot in front.
        let dotted = matches!(driver, Some(Driver::Pathalias | Driver::PathaliasAt));
        let rest = self.name.start - usize::from(dotted);
        let rest = if rest > start {
            start..start
        } else {
            rest..start
        };
        let candidate = Candidate {
            key: Key::Part(start..text.len()),
            rest: Some(rest),
        };
        (next, Some(candidate))
    }

    fn default_key(&self, number: usize, defaults: usize) -> (Next, Option<Candidate>) {
        let key = match (number, defaults) {
            (0, 0) => Key::Dot,
            _ if number < defaults => Key::Default(number),
            _ => return (Next::End, None),
        };
        let rest = Some(self.name.clone());
        (Next::Default(number + 1), Some(Candidate { key, rest }))
    }
}

/// An address, with or without brackets, with or without the word that RFC 5321 4.1.3 puts before IPv6 ones.
pub(super) fn parse_address(key: &[u8]) -> Option<IpAddr> {
    let key = match key {
        [b'[', inner @ .., b']'] => inner,
        _ => key,
    };
    let prefix = key.get(..5).unwrap_or_default();
    let key = if prefix.eq_ignore_ascii_case(b"ipv6:") {
        &key[5..]
    } else {
        key
    };
    std::str::from_utf8(key).ok()?.parse().ok()
}

/// Bits of an address.
pub(super) fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The network of an address with so many bits.
pub(super) fn network(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}
