//! What a setting is, and how its text becomes a value.

use crate::policy::network::Network;

/// The kind of a setting with what is allowed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A number without unit.
    Count { min: u64, max: u64 },
    /// Bytes with a unit.
    Size { min: u64, max: u64 },
    /// A duration with a unit; kept in nanoseconds.
    Duration {
        min: &'static str,
        max: &'static str,
    },
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text.
    Text,
    /// A list of texts of this kind.
    List(Item),
    /// Texts by name.
    Pairs,
}

/// What a list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// `127.0.0.1:25`, `[::1]:25`.
    Address,
    /// CIDR.
    Network,
    /// Domain names.
    Domain,
    /// Durations with units.
    Duration,
    /// Login names.
    Login,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Knob {
    pub(super) table: &'static str,
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    /// As it would stand in the file; lists separated by spaces, without quotes.
    pub(super) default: &'static str,
    pub(super) doc: &'static str,
}

/// A parsed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    Flag(bool),
    Text(String),
    List(Vec<String>),
    Numbers(Vec<u64>),
    Pairs(Vec<(String, String)>),
}

const DURATIONS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit.trim())?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A duration in nanoseconds.
pub(super) fn duration(text: &str) -> Option<u64> {
    with_unit(text, DURATIONS)
}

fn size(text: &str) -> Option<u64> {
    with_unit(text, SIZES)
}

impl Kind {
    /// What is allowed, in words.
    pub(super) fn allowed(self) -> String {
        match self {
            Self::Count { min, max } => format!("allowed: a number from {min} to {max}"),
            Self::Size { min, max } => {
                format!("allowed: a string with a unit, B KiB MiB GiB, from {min}B to {max}B")
            }
            Self::Duration { min, max } => {
                format!("allowed: a string with a unit, ns us ms s m h d, from {min} to {max}")
            }
            Self::Flag => "allowed: true, false".to_owned(),
            Self::Word(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                format!("allowed: {}", words.join(", "))
            }
            Self::Text => "allowed: a string".to_owned(),
            Self::List(item) => format!("allowed: a list of strings like {}", item.example()),
            Self::Pairs => "allowed: a table of strings".to_owned(),
        }
    }

    /// The value of a string of the file, or of a default.
    pub(super) fn parse(self, text: &str) -> Option<Value> {
        let in_range = |value: u64, min: u64, max: u64| {
            (min..=max).contains(&value).then_some(Value::Number(value))
        };
        match self {
            Self::Count { min, max } => in_range(text.parse().ok()?, min, max),
            Self::Size { min, max } => in_range(size(text)?, min, max),
            Self::Duration { min, max } => {
                in_range(duration(text)?, duration(min)?, duration(max)?)
            }
            Self::Flag => text.parse().ok().map(Value::Flag),
            Self::Word(words) => words.contains(&text).then(|| Value::Text(text.to_owned())),
            Self::Text => Some(Value::Text(text.to_owned())),
            Self::List(item) => {
                let words: Vec<&str> = text.split_ascii_whitespace().collect();
                item.list(&words).ok()
            }
            Self::Pairs => Some(Value::Pairs(Vec::new())),
        }
    }
}

impl Item {
    fn example(self) -> &'static str {
        match self {
            Self::Address => "\"127.0.0.1:25\" or \"[::1]:25\"",
            Self::Network => "\"10.0.0.0/8\" or \"::1/128\", without host bits",
            Self::Domain => "\"example.org\" or \".example.org\"",
            Self::Duration => "\"1m\" or \"2h\"",
            Self::Login => "\"uucp\"",
        }
    }

    /// The value of a list, or its first bad entry.
    pub(super) fn list<'a>(self, texts: &[&'a str]) -> Result<Value, &'a str> {
        if self == Self::Duration {
            let numbers = texts.iter().map(|text| duration(text).ok_or(*text));
            return numbers.collect::<Result<_, _>>().map(Value::Numbers);
        }
        for text in texts {
            let good = match self {
                Self::Address => text.parse::<std::net::SocketAddr>().is_ok(),
                Self::Network => text.parse::<Network>().is_ok(),
                Self::Domain | Self::Duration | Self::Login => {
                    !text.is_empty() && !text.contains(' ')
                }
            };
            if !good {
                return Err(text);
            }
        }
        Ok(Value::List(
            texts.iter().map(|text| (*text).to_owned()).collect(),
        ))
    }
}
