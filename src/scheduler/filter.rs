//! Which queued recipients are meant: the expressions of `zmailer queue --where`.
//!
//! ```text
//! any     = all { "or" all }
//! all     = one { "and" one }
//! one     = "not" one | "(" any ")" | key operator value
//! key     = id sender recipient domain channel host destination state | age size attempts
//! ```
//!
//! Texts take `=` and `!=` (whole, any case) and `~` and `!~` (with `*` and `?`); numbers take `<`
//! `<=` `>` `>=` `=` `!=`; an age has a unit (s m h d), a size may have one (KiB MiB GiB).

use std::collections::HashSet;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;

/// Nesting of parentheses and `not`.
const DEPTH_MAX: usize = 50;

/// A recipient as an expression sees it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Message id.
    pub id: &'a str,
    /// Reverse path; empty: null.
    pub sender: &'a [u8],
    /// Address of the recipient.
    pub recipient: &'a [u8],
    /// Channel.
    pub channel: &'a str,
    /// Next hop.
    pub host: &'a str,
    /// `waiting`, `deferred`, `delivering` or `held`.
    pub state: &'a str,
    /// Since arrival, in milliseconds.
    pub age_ms: u64,
    /// Bytes of content.
    pub size_bytes: u64,
    /// Attempts so far.
    pub attempts: u64,
}

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Everything.
    All,
    /// One of two.
    Or(Box<Filter>, Box<Filter>),
    /// Both.
    And(Box<Filter>, Box<Filter>),
    /// The opposite.
    Not(Box<Filter>),
    /// A comparison of text.
    Text(TextKey, TextTest, String),
    /// A comparison of numbers.
    Number(NumberKey, NumberTest, u64),
    /// One of those that were noted before.
    Among(Arc<Noted>),
}

/// Queued recipients noted one by one, in eight bytes each: two that share them by chance are one in
/// ten million even among a million.
#[derive(Clone, Debug, Default)]
pub struct Noted {
    state: RandomState,
    sums: HashSet<u64>,
}

impl Noted {
    /// Notes a recipient of a message.
    pub fn insert(&mut self, id: &str, recipient: &[u8]) {
        self.sums.insert(self.state.hash_one((id, recipient)));
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sums.len()
    }

    fn contains(&self, subject: &Subject<'_>) -> bool {
        let sum = self.state.hash_one((subject.id, subject.recipient));
        self.sums.contains(&sum)
    }
}

impl PartialEq for Noted {
    fn eq(&self, other: &Self) -> bool {
        // Sums of different states say different things.
        std::ptr::eq(self, other)
    }
}

impl Eq for Noted {}

#[expect(missing_docs, reason = "named as in an expression")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextKey {
    Id,
    Sender,
    Recipient,
    Domain,
    Channel,
    Host,
    Destination,
    State,
}

#[expect(missing_docs, reason = "named as in an expression")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberKey {
    Age,
    Size,
    Attempts,
}

/// How texts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextTest {
    /// `=`
    Is,
    /// `~`
    Like,
}

/// How numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberTest {
    /// `<`
    Below,
    /// `>`
    Above,
    /// `=`
    Is,
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// Byte in the expression, from 0.
    pub at: usize,
    /// What is wrong and what is allowed.
    pub text: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.at + 1, self.text)
    }
}

impl Filter {
    /// Reads an expression; an empty one means everything.
    ///
    /// # Errors
    /// See [`FilterError`].
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let mut parser = Parser {
            text,
            at: 0,
            depth: 0,
        };
        if parser.peek().is_none() {
            return Ok(Self::All);
        }
        let filter = parser.any()?;
        match parser.peek() {
            None => Ok(filter),
            Some(word) => Err(parser.error(format!("{word:?} is not expected; allowed: and, or"))),
        }
    }

    /// Whether the recipient is meant.
    #[must_use]
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        self.judge(subject, true) == Some(true)
    }

    /// The same when sender and recipient may not be known: none, when they decide.
    #[must_use]
    pub fn judge(&self, subject: &Subject<'_>, addresses_known: bool) -> Option<bool> {
        let judge = |one: &Self| one.judge(subject, addresses_known);
        Some(match self {
            Self::All => true,
            Self::Or(one, other) => match judge(one) {
                Some(true) => true,
                Some(false) => return judge(other),
                None if judge(other) == Some(true) => true,
                None => return None,
            },
            Self::And(one, other) => match judge(one) {
                Some(true) => return judge(other),
                Some(false) => false,
                None if judge(other) == Some(false) => false,
                None => return None,
            },
            Self::Not(one) => !judge(one)?,
            Self::Among(_) if !addresses_known => return None,
            Self::Among(noted) => noted.contains(subject),
            Self::Text(TextKey::Sender | TextKey::Recipient | TextKey::Domain, ..)
                if !addresses_known =>
            {
                return None;
            }
            Self::Text(key, test, value) => key.matches(subject, *test, value.as_bytes()),
            Self::Number(key, test, value) => {
                let number = match key {
                    NumberKey::Age => subject.age_ms,
                    NumberKey::Size => subject.size_bytes,
                    NumberKey::Attempts => subject.attempts,
                };
                match test {
                    NumberTest::Below => number < *value,
                    NumberTest::Above => number > *value,
                    NumberTest::Is => number == *value,
                }
            }
        })
    }
}

impl TextKey {
    fn matches(self, subject: &Subject<'_>, test: TextTest, value: &[u8]) -> bool {
        let joined;
        let text = match self {
            Self::Id => subject.id.as_bytes(),
            Self::Sender => subject.sender,
            Self::Recipient => subject.recipient,
            Self::Domain => {
                let at = memchr::memrchr(b'@', subject.recipient).map_or(0, |at| at + 1);
                &subject.recipient[at..]
            }
            Self::Channel => subject.channel.as_bytes(),
            Self::Host => subject.host.as_bytes(),
            Self::Destination => {
                joined = format!("{}/{}", subject.channel, subject.host);
                joined.as_bytes()
            }
            Self::State => subject.state.as_bytes(),
        };
        match test {
            // Ids differ in case only.
            TextTest::Is if self == Self::Id => text == value,
            TextTest::Is => text.eq_ignore_ascii_case(value),
            TextTest::Like => like(text, value),
        }
    }
}

/// Whether a text fits a pattern with `*` and `?`, in any case. Takes at most length times length
/// steps, whatever the pattern.
fn like(text: &[u8], pattern: &[u8]) -> bool {
    let (mut at, mut want) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(want) {
            Some(b'*') => {
                star = Some((at, want));
                want += 1;
            }
            Some(byte) if *byte == b'?' || byte.eq_ignore_ascii_case(&text[at]) => {
                at += 1;
                want += 1;
            }
            _ => match star {
                Some((from, pattern_at)) => {
                    star = Some((from + 1, pattern_at));
                    at = from + 1;
                    want = pattern_at + 1;
                }
                None => return false,
            },
        }
    }
    pattern
        .get(want..)
        .unwrap_or_default()
        .iter()
        .all(|byte| *byte == b'*')
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, text: String) -> FilterError {
        FilterError { at: self.at, text }
    }

    /// The next word, not taken.
    fn peek(&mut self) -> Option<&'a str> {
        let rest = self.text.get(self.at..)?;
        self.at += rest.len() - rest.trim_start().len();
        let rest = rest.trim_start();
        let first = rest.chars().next()?;
        let len = match first {
            '(' | ')' => 1,
            '"' => rest.get(1..)?.find('"').map_or(rest.len(), |end| end + 2),
            _ if OPERATOR.contains(first) => run(rest, |c| OPERATOR.contains(c)),
            _ => run(rest, |c| {
                !c.is_whitespace() && !"()\"".contains(c) && !OPERATOR.contains(c)
            }),
        };
        rest.get(..len)
    }

    fn take(&mut self) -> Option<&'a str> {
        let word = self.peek()?;
        self.at += word.len();
        Some(word)
    }

    fn any(&mut self) -> Result<Filter, FilterError> {
        let mut filter = self.all()?;
        while self.peek() == Some("or") {
            self.take();
            filter = Filter::Or(Box::new(filter), Box::new(self.all()?));
        }
        Ok(filter)
    }

    fn all(&mut self) -> Result<Filter, FilterError> {
        let mut filter = self.one()?;
        while self.peek() == Some("and") {
            self.take();
            filter = Filter::And(Box::new(filter), Box::new(self.one()?));
        }
        Ok(filter)
    }

    fn one(&mut self) -> Result<Filter, FilterError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(format!("nested deeper than {DEPTH_MAX}")));
        }
        let filter = match self.peek() {
            Some("not") => {
                self.take();
                Filter::Not(Box::new(self.one()?))
            }
            Some("(") => {
                self.take();
                let inner = self.any()?;
                if self.take() != Some(")") {
                    return Err(self.error("a `)` is missing".to_owned()));
                }
                inner
            }
            _ => self.comparison()?,
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn comparison(&mut self) -> Result<Filter, FilterError> {
        let at = self.peek().map_or(self.text.len(), |_| self.at);
        let key = self.take().unwrap_or_default();
        let text_key = TEXT_KEYS.iter().find(|(name, _)| *name == key);
        let number_key = NUMBER_KEYS.iter().find(|(name, _)| *name == key);
        if text_key.is_none() && number_key.is_none() {
            let names = TEXT_KEYS.iter().map(|(name, _)| *name);
            let names: Vec<&str> = names
                .chain(NUMBER_KEYS.iter().map(|(name, _)| *name))
                .collect();
            let text = format!("no such key: {key:?}; allowed: {}", names.join(", "));
            return Err(FilterError { at, text });
        }
        self.peek();
        let at = self.at;
        let operator = self.take().unwrap_or_default();
        self.peek();
        let value_at = self.at;
        let value = self.take().map(|value| value.trim_matches('"'));
        let Some(value) = value else {
            return Err(self.error(format!("a value is missing after {key} {operator}")));
        };
        match (text_key, number_key) {
            (Some((_, key)), _) => {
                text_test(*key, operator, value).ok_or_else(|| wrong(at, operator, "= != ~ !~"))
            }
            (None, Some((_, key))) => number_test(*key, operator, value, at, value_at),
            (None, None) => Err(self.error("no key".to_owned())),
        }
    }
}

const OPERATOR: &str = "=!~<>";

const TEXT_KEYS: &[(&str, TextKey)] = &[
    ("id", TextKey::Id),
    ("sender", TextKey::Sender),
    ("recipient", TextKey::Recipient),
    ("domain", TextKey::Domain),
    ("channel", TextKey::Channel),
    ("host", TextKey::Host),
    ("destination", TextKey::Destination),
    ("state", TextKey::State),
];

const NUMBER_KEYS: &[(&str, NumberKey)] = &[
    ("age", NumberKey::Age),
    ("size", NumberKey::Size),
    ("attempts", NumberKey::Attempts),
];

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

fn wrong(at: usize, operator: &str, allowed: &str) -> FilterError {
    let text = format!("{operator:?} does not fit here; allowed: {allowed}");
    FilterError { at, text }
}

fn negated(filter: Filter, not: bool) -> Filter {
    if not {
        Filter::Not(Box::new(filter))
    } else {
        filter
    }
}

fn text_test(key: TextKey, operator: &str, value: &str) -> Option<Filter> {
    let (test, not) = match operator {
        "=" | "==" => (TextTest::Is, false),
        "!=" => (TextTest::Is, true),
        "~" => (TextTest::Like, false),
        "!~" => (TextTest::Like, true),
        _ => return None,
    };
    // The null sender is written as everywhere in mail.
    let value = if value == "<>" { "" } else { value };
    Some(negated(Filter::Text(key, test, value.to_owned()), not))
}

fn number_test(
    key: NumberKey,
    operator: &str,
    value: &str,
    at: usize,
    value_at: usize,
) -> Result<Filter, FilterError> {
    let units: &[(&str, u64)] = match key {
        NumberKey::Age => &[
            ("ms", 1),
            ("s", 1000),
            ("m", 60_000),
            ("h", 3_600_000),
            ("d", 86_400_000),
        ],
        NumberKey::Size => &[
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("B", 1),
            ("", 1),
        ],
        NumberKey::Attempts => &[("", 1)],
    };
    let number = number(value, units).ok_or_else(|| {
        let names: Vec<&str> = units
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| !name.is_empty())
            .collect();
        let text = format!(
            "{value:?} is no number with a unit; units here: {}",
            names.join(" ")
        );
        FilterError { at: value_at, text }
    })?;
    let (test, not) = match operator {
        "<" => (NumberTest::Below, false),
        ">=" => (NumberTest::Below, true),
        ">" => (NumberTest::Above, false),
        "<=" => (NumberTest::Above, true),
        "=" | "==" => (NumberTest::Is, false),
        "!=" => (NumberTest::Is, true),
        _ => return Err(wrong(at, operator, "< <= > >= = !=")),
    };
    Ok(negated(Filter::Number(key, test, number), not))
}

fn number(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = run(text, |c| c.is_ascii_digit());
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject<'static> = Subject {
        id: "0AbCd",
        sender: b"ann@example.org",
        recipient: b"Bob@Example.NET",
        channel: "smtp",
        host: "mx.example.net",
        state: "deferred",
        age_ms: 7_200_000,
        size_bytes: 4096,
        attempts: 3,
    };

    #[test]
    fn expressions() {
        for (text, expected) in [
            ("", true),
            ("id = 0AbCd", true),
            ("id=0abcd", false),
            ("sender = ANN@example.org", true),
            ("sender = <>", false),
            ("domain = example.net and age > 1h", true),
            ("domain=example.net and age>2h", false),
            ("age >= 2h", true),
            ("age < 2h or size >= 4KiB", true),
            ("not (recipient ~ *@example.net)", false),
            ("recipient ~ b?b@*.n*t", true),
            ("recipient !~ *.net", false),
            ("destination = smtp/mx.example.net", true),
            ("host ~ \"mx.*\" and attempts = 3", true),
            ("state = held or state = deferred and size < 1MiB", true),
            ("not not channel != smtp", false),
        ] {
            let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(filter.matches(&SUBJECT), expected, "{text}");
        }
    }

    #[test]
    fn wrong_expressions_name_place_and_remedy() {
        for (text, at, word) in [
            ("sendr = x", 0, "sender"),
            ("sender < x", 7, "!~"),
            ("age > 3", 6, "units"),
            ("age ~ 3h", 4, ">="),
            ("sender =", 8, "missing"),
            ("(sender = x", 11, "`)`"),
            ("sender = x recipient = y", 11, "and, or"),
            ("", 0, ""),
            ("and", 0, "no such key"),
            ("size = 99999999999999GiB", 7, "GiB"),
        ] {
            match Filter::parse(text) {
                Ok(filter) => assert_eq!(filter, Filter::All, "{text}"),
                Err(error) => {
                    assert!(
                        error.at == at && error.text.contains(word),
                        "{text}: {error}"
                    );
                }
            }
        }
        let deep = "not ".repeat(100) + "id = x";
        assert!(Filter::parse(&deep).unwrap_err().text.contains("deeper"));
    }

    #[test]
    fn patterns_take_no_exponential_time() {
        let text = vec![b'a'; 5_000];
        let pattern = b"*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b";
        assert!(!like(&text, pattern));
        assert!(like(b"", b"**"));
        assert!(!like(b"", b"?"));
    }
}
