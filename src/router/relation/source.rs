//! The text that maps are compiled from.
//!
//! `keyed`: a key, blanks, a value to the end of the line; a key alone has an empty value. `aliases`: a key,
//! a colon, a value that goes on in lines that begin with a blank when the line before ends with a comma or
//! has nothing behind the colon. Lines that begin with `#` and empty ones are comments. A key in quotes may
//! hold anything; quotes that it does not need are taken away.
//!
//! Every problem is reported with line and column, not only the first; of two entries with the same key the
//! first one counts and the second one is a [`Problem`] that is no error.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use super::compiled::{Builder, Compiled, TooLarge};
use super::text::key_end;

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// `key value`.
    Keyed,
    /// `key: value, value`.
    Aliases,
}

/// What to do with a key that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Report it; the first one counts.
    Report,
    /// Append its value, behind a comma.
    Append,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Key.
    pub key: Cow<'a, [u8]>,
    /// Value.
    pub value: Cow<'a, [u8]>,
    /// Line of the key, from 1.
    pub line: usize,
    /// Which of several texts it stands in.
    pub origin: usize,
}

/// Something about a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// Which of several texts it stands in.
    pub origin: usize,
    /// What.
    pub text: String,
    /// The map cannot be made.
    pub is_error: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_error { "error" } else { "warning" };
        write!(f, "{}:{}: {kind}: {}", self.line, self.column, self.text)
    }
}

/// Problems that are told of one text; after that many errors it is given up.
pub const PROBLEMS_MAX: usize = 100;

/// What a text says.
#[derive(Debug, Default)]
pub struct Parsed<'a> {
    /// Entries in their order.
    pub entries: Vec<Entry<'a>>,
    /// Problems in their order.
    pub problems: Vec<Problem>,
}

impl<'a> Parsed<'a> {
    /// Reads a text.
    #[must_use]
    pub fn read(text: &'a [u8], syntax: Syntax) -> Self {
        let mut parsed = Self::default();
        let mut continues = false;
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let bare = line.trim_ascii();
            if line.starts_with(b"#") || bare.is_empty() {
                continues &= line.starts_with(b"#");
                continue;
            }
            let result = match syntax {
                Syntax::Keyed if bare.starts_with(b"#") => continue,
                Syntax::Keyed => parsed.keyed(number + 1, line),
                Syntax::Aliases if matches!(line, [b' ' | b'\t', ..]) => {
                    parsed.continuation(bare, continues)
                }
                Syntax::Aliases => parsed.alias(number + 1, line),
            };
            continues = syntax == Syntax::Aliases;
            if let Err((column, text)) = result {
                parsed.problem(number + 1, column, text, true);
                if parsed.problems.len() >= PROBLEMS_MAX {
                    parsed.problem(number + 1, 1, "too many problems".to_owned(), true);
                    return parsed;
                }
            }
        }
        if syntax == Syntax::Aliases {
            parsed.report_empty();
        }
        parsed
    }

    fn problem(&mut self, line: usize, column: usize, text: String, is_error: bool) {
        self.problems.push(Problem {
            line,
            column,
            origin: 0,
            text,
            is_error,
        });
    }

    fn keyed(&mut self, number: usize, line: &'a [u8]) -> Result<(), (usize, String)> {
        let blank = line.len() - line.trim_ascii_start().len();
        let line = line.trim_ascii();
        let end = key_end(line).unwrap_or(line.len());
        if quotes_open(&line[..end]) {
            return Err((blank + 1, "a quote in the key is not closed".to_owned()));
        }
        let (key, value) = line.split_at(end);
        self.entries.push(Entry {
            key: Cow::Borrowed(key),
            value: Cow::Borrowed(value.trim_ascii()),
            line: number,
            origin: 0,
        });
        Ok(())
    }

    fn alias(&mut self, number: usize, line: &'a [u8]) -> Result<(), (usize, String)> {
        let Some(colon) = colon(line) else {
            let text = if quotes_open(line) {
                "a quote is not closed"
            } else {
                "there is no colon behind the name"
            };
            let at = line.iter().position(u8::is_ascii_whitespace);
            return Err((at.unwrap_or(line.len()) + 1, text.to_owned()));
        };
        let key = line[..colon].trim_ascii();
        if key.is_empty() {
            return Err((1, "there is no name in front of the colon".to_owned()));
        }
        let bare = unquoted(key);
        if bare.len() == key.len() && key_end(key).is_some() {
            let at = key.iter().position(u8::is_ascii_whitespace).unwrap_or(0);
            return Err((at + 1, "a name with blanks needs quotes".to_owned()));
        }
        let value = line[colon + 1..].trim_ascii();
        if quotes_open(value) {
            return Err((colon + 2, "a quote in the value is not closed".to_owned()));
        }
        self.entries.push(Entry {
            key: if bare.iter().any(u8::is_ascii_uppercase) {
                Cow::Owned(bare.to_ascii_lowercase())
            } else {
                Cow::Borrowed(bare)
            },
            value: Cow::Borrowed(value),
            line: number,
            origin: 0,
        });
        Ok(())
    }

    fn continuation(&mut self, line: &[u8], continues: bool) -> Result<(), (usize, String)> {
        let Some(entry) = self.entries.last_mut().filter(|_| continues) else {
            return Err((1, "nothing stands before this continuation".to_owned()));
        };
        if !entry.value.is_empty() && !entry.value.ends_with(b",") {
            let text = "the line before does not end with a comma, so nothing can follow";
            return Err((1, text.to_owned()));
        }
        if quotes_open(line) {
            return Err((1, "a quote in the value is not closed".to_owned()));
        }
        let value = entry.value.to_mut();
        if !value.is_empty() {
            value.push(b' ');
        }
        value.extend_from_slice(line);
        Ok(())
    }

    /// Mail for a name without a value would vanish.
    fn report_empty(&mut self) {
        let empty = self.entries.iter().filter(|entry| entry.value.is_empty());
        let lines: Vec<(usize, String)> = empty
            .map(|entry| (entry.line, show(&entry.key)))
            .take(PROBLEMS_MAX)
            .collect();
        for (line, key) in lines {
            let text = format!("{key} has no value; mail for nobody goes to /dev/null");
            self.problem(line, 1, text, true);
        }
        self.problems
            .sort_by_key(|problem| (problem.line, problem.column));
    }

    /// Whether a map can be made of it.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.problems.iter().any(|problem| problem.is_error)
    }

    /// Deals with keys that come several times, after folding by the caller.
    pub fn unify(&mut self, again: Again) {
        let hasher = foldhash::fast::FixedState::default();
        let mut places = HashMap::with_capacity_and_hasher(self.entries.len(), hasher);
        let mut repeated = Vec::new();
        for (at, entry) in self.entries.iter().enumerate() {
            match places.entry(&*entry.key) {
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(at);
                }
                std::collections::hash_map::Entry::Occupied(place) => {
                    repeated.push((at, *place.get()));
                }
            }
        }
        for (at, first) in &repeated {
            match again {
                Again::Report if self.problems.len() < PROBLEMS_MAX => {
                    let (entry, before) = (&self.entries[*at], &self.entries[*first]);
                    let key = show(&entry.key);
                    let whose = if entry.origin == before.origin {
                        ""
                    } else {
                        " of the source before"
                    };
                    self.problems.push(Problem {
                        line: entry.line,
                        column: 1,
                        origin: entry.origin,
                        text: format!(
                            "{key} is in line {}{whose} already, which counts",
                            before.line
                        ),
                        is_error: false,
                    });
                }
                Again::Report => {}
                Again::Append => {
                    let more = std::mem::take(&mut self.entries[*at].value);
                    let value = self.entries[*first].value.to_mut();
                    if !value.is_empty() && !more.is_empty() {
                        value.extend_from_slice(b", ");
                    }
                    value.extend_from_slice(&more);
                }
            }
        }
        if repeated.is_empty() {
            return;
        }
        let mut repeated = repeated.into_iter().map(|(at, _)| at).peekable();
        let mut at = 0;
        self.entries.retain(|_| {
            at += 1;
            repeated.next_if_eq(&(at - 1)).is_none()
        });
    }

    /// The file of a compiled map.
    ///
    /// # Errors
    /// When it would be too large.
    pub fn compile(&self) -> Result<Vec<u8>, TooLarge> {
        let texts = self.entries.iter();
        let bytes = texts.map(|entry| entry.key.len() + entry.value.len()).sum();
        let mut builder = Builder::with_capacity(self.entries.len(), bytes);
        for entry in &self.entries {
            builder.add(&entry.key, &entry.value)?;
        }
        Ok(builder.finish())
    }
}

/// A map straight from its text, by keys in lower case: what is not compiled is looked up without regard to case.
///
/// # Errors
/// The first error, with its line.
pub(super) fn map(text: &[u8], syntax: Syntax) -> Result<Compiled, String> {
    let mut parsed = Parsed::read(text, syntax);
    for entry in &mut parsed.entries {
        if entry.key.iter().any(u8::is_ascii_uppercase) {
            entry.key.to_mut().make_ascii_lowercase();
        }
    }
    let mut errors = parsed.problems.iter().filter(|problem| problem.is_error);
    if let Some(first) = errors.next() {
        return Err(match errors.count() {
            0 => first.to_string(),
            more => format!("{first} (and {more} more)"),
        });
    }
    parsed.unify(Again::Report);
    let bytes = parsed.compile().map_err(|error| error.to_string())?;
    Compiled::new(bytes)
}

/// The colon behind a name.
fn colon(line: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => quoted = !quoted,
            b':' if !quoted => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

fn quotes_open(text: &[u8]) -> bool {
    let mut open = false;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => open = !open,
            _ => {}
        }
        at += 1;
    }
    open
}

/// A quoted name without quotes that it does not need (RFC 5321 4.1.2).
fn unquoted(key: &[u8]) -> &[u8] {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(byte);
    match key {
        [b'"', inner @ .., b'"'] if !inner.is_empty() && inner.iter().all(plain) => inner,
        _ => key,
    }
}

fn show(text: &[u8]) -> String {
    String::from_utf8_lossy(text).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, syntax: Syntax) -> (Vec<(String, String)>, Vec<String>) {
        let mut parsed = Parsed::read(text.as_bytes(), syntax);
        parsed.unify(Again::Report);
        let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let entries = parsed.entries.iter();
        let entries = entries.map(|entry| (text(&entry.key), text(&entry.value)));
        let problems = parsed.problems.iter().map(Problem::to_string);
        (entries.collect(), problems.collect())
    }

    fn pairs(rows: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        rows.iter().map(own).collect()
    }

    #[test]
    fn aliases_are_read() {
        let text = "# comment\nPostmaster: root\nroot:\tjoe@example.org, \r\n\tann@example.org,\n# in between\n  \
                    \"|/bin/x a, b\"\n\nlist :\n   :include:/lists/x\n\"joe.user\": joe\n\"a b\": c\nu@d: e\nx: y,z";
        let (entries, problems) = read(text, Syntax::Aliases);
        let expected = [
            ("postmaster", "root"),
            ("root", "joe@example.org, ann@example.org, \"|/bin/x a, b\""),
            ("list", ":include:/lists/x"),
            ("joe.user", "joe"),
            ("\"a b\"", "c"),
            ("u@d", "e"),
            ("x", "y,z"),
        ];
        assert_eq!(entries, pairs(&expected));
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn every_problem_has_its_place() {
        let text = " lost\nroot joe\na: b\n  c\n: x\ngood: a,\n\nempty:\n\n more\nq: \"x\na b: c\nb: 1\nB: 2\n\"z: 3\n";
        let (entries, problems) = read(text, Syntax::Aliases);
        let expected = [
            "1:1: error: nothing stands before this continuation",
            "2:5: error: there is no colon behind the name",
            "4:1: error: the line before does not end with a comma, so nothing can follow",
            "5:1: error: there is no name in front of the colon",
            "8:1: error: empty has no value; mail for nobody goes to /dev/null",
            "10:1: error: nothing stands before this continuation",
            "11:3: error: a quote in the value is not closed",
            "12:2: error: a name with blanks needs quotes",
            "15:4: error: a quote is not closed",
            "14:1: warning: b is in line 13 already, which counts",
        ];
        assert_eq!(problems, expected);
        assert_eq!(entries.last(), Some(&("b".to_owned(), "1".to_owned())));
        let endless = "x\n".repeat(10_000);
        assert_eq!(read(&endless, Syntax::Aliases).1.len(), PROBLEMS_MAX + 1);
    }

    #[test]
    fn keyed_lines_are_read() {
        let text = "# comment\n  # too\nexample.org  smtp!gw \n.org\terror!no such  host\r\nalone\n\"a b\" v w\n\n";
        let (entries, problems) = read(text, Syntax::Keyed);
        let expected = [
            ("example.org", "smtp!gw"),
            (".org", "error!no such  host"),
            ("alone", ""),
            ("\"a b\"", "v w"),
        ];
        assert_eq!(entries, pairs(&expected));
        assert!(problems.is_empty(), "{problems:?}");
        let (_, problems) = read("k 1\n \"open x\n", Syntax::Keyed);
        assert_eq!(problems, ["2:2: error: a quote in the key is not closed"]);
    }

    #[test]
    fn values_of_one_key_can_be_joined() {
        let mut parsed = Parsed::read(b"a: 1\nb: 2\na: 3\na: 4\n", Syntax::Aliases);
        parsed.unify(Again::Append);
        let map = Compiled::new(parsed.compile().unwrap()).unwrap();
        let entries: Vec<(&[u8], &[u8])> = map.entries().collect();
        assert_eq!(entries, [(&b"a"[..], &b"1, 3, 4"[..]), (b"b", b"2")]);
        assert!(parsed.problems.is_empty());
    }
}
