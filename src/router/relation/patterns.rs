//! Tables of patterns: a line is `/pattern/flags value`; the first pattern that matches counts, and `%0` to
//! `%9` in its value are what it and its groups matched. `#` begins a comment line.
//!
//! Patterns are those of the crate `regex`, over bytes: no look-around and no references back, so a match
//! takes time in proportion to the key. Flags: `i` without regard to case, `x` blanks in the pattern do not
//! count. In the pattern `\/` stands for a slash.

use std::borrow::Cow;

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use super::Map;

/// Most lines of one table: all patterns are tried at once, which takes memory for each.
const LINES_MAX: usize = 10_000;

/// Most memory for the compiled patterns of one table.
const COMPILED_BYTES_MAX: usize = 64 << 20;

/// A table of patterns.
#[derive(Debug)]
pub struct Patterns {
    set: RegexSet,
    lines: Vec<(Regex, Vec<u8>)>,
    text: Vec<u8>,
}

impl Patterns {
    /// Of a file's bytes.
    ///
    /// # Errors
    /// The first line that is wrong, with its column.
    pub fn new(text: Vec<u8>) -> Result<Self, String> {
        let mut lines = Vec::new();
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let place = |column: usize, text: &str| format!("{}:{column}: {text}", number + 1);
            if lines.len() == LINES_MAX {
                return Err(place(1, &format!("more than {LINES_MAX} patterns")));
            }
            let (pattern, rest) = split(line).ok_or_else(|| place(1, "is not /pattern/ value"))?;
            let blank = rest.iter().position(u8::is_ascii_whitespace);
            let (flags, value) = rest.split_at(blank.unwrap_or(rest.len()));
            let column = line.len() - rest.len() + 1;
            let prefix = prefix(flags).map_err(|text| place(column, &text))?;
            let pattern = format!("{prefix}{pattern}");
            let regex = RegexBuilder::new(&pattern).unicode(false).build();
            let regex = regex.map_err(|error| place(2, &last_line(&error.to_string())))?;
            lines.push((regex, value.trim_ascii().to_vec()));
        }
        let patterns = lines.iter().map(|(regex, _)| regex.as_str());
        let set = RegexSetBuilder::new(patterns)
            .unicode(false)
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .map_err(|error| last_line(&error.to_string()))?;
        Ok(Self { set, lines, text })
    }
}

/// The pattern and what follows its second slash.
fn split(line: &[u8]) -> Option<(String, &[u8])> {
    let mut rest = line.strip_prefix(b"/")?;
    let mut pattern = Vec::new();
    loop {
        rest = match rest {
            [b'\\', b'/', behind @ ..] => {
                pattern.push(b'/');
                behind
            }
            [b'\\', any, behind @ ..] => {
                pattern.extend_from_slice(&[b'\\', *any]);
                behind
            }
            [b'/', behind @ ..] => return Some((String::from_utf8(pattern).ok()?, behind)),
            [any, behind @ ..] => {
                pattern.push(*any);
                behind
            }
            [] => return None,
        }
    }
}

fn prefix(flags: &[u8]) -> Result<String, String> {
    if flags.is_empty() {
        return Ok(String::new());
    }
    match flags.iter().find(|flag| !b"ix".contains(flag)) {
        Some(flag) => Err(format!("flag {:?} is not one of i, x", char::from(*flag))),
        None => Ok(format!("(?{})", String::from_utf8_lossy(flags))),
    }
}

/// The messages of the crate have a picture above the reason.
fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

impl Map for Patterns {
    fn get<'a>(&'a self, key: &[u8]) -> Option<Cow<'a, [u8]>> {
        let first = self.set.matches(key).iter().next()?;
        let (regex, value) = self.lines.get(first)?;
        if !value.contains(&b'%') {
            return Some(Cow::Borrowed(value));
        }
        let groups = regex.captures(key)?;
        let mut out = Vec::with_capacity(value.len());
        let mut rest = value.as_slice();
        while let [byte, behind @ ..] = rest {
            rest = match (byte, behind) {
                (b'%', [digit @ b'0'..=b'9', behind @ ..]) => {
                    let group = groups.get(usize::from(digit - b'0'));
                    out.extend_from_slice(group.map_or(b"", |group| group.as_bytes()));
                    behind
                }
                _ => {
                    out.push(*byte);
                    behind
                }
            };
        }
        Some(Cow::Owned(out))
    }

    fn count(&self) -> u64 {
        self.lines.len() as u64
    }

    fn print(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text);
    }

    fn bytes(&self) -> usize {
        // The crate does not say; measured it is some hundred bytes a character.
        self.text.len() * 200
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(table: &Patterns, key: &[u8]) -> String {
        let value = table.get(key).map(Cow::into_owned);
        value.map_or("-".to_owned(), |value| {
            String::from_utf8_lossy(&value).into_owned()
        })
    }

    #[test]
    fn the_first_match_counts_and_groups_are_put_in() {
        let text = b"# list\n/^(.+)-(bounce|owner)@lists\\.example$/i  lists!%2!%1 50%\n/^a\\/b$/ slash\n\
                     /x y/x blankless\n/\xc3\xa9/ eight\n/^a/ first\n/^ab/ second\n/^(z)?y/ [%1%9]\n";
        let table = Patterns::new(text.to_vec()).unwrap();
        let rows: [(&[u8], &str); 9] = [
            (b"News-OWNER@lists.example", "lists!OWNER!News 50%"),
            (b"News-owner@listsXexample", "-"),
            (b"a/b", "slash"),
            (b"oxyz", "blankless"),
            (b"caf\xc3\xa9", "eight"),
            (b"abc", "first"),
            (b"y", "[]"),
            (b"zy%1", "[z]"),
            (b"\xff", "-"),
        ];
        for (key, value) in rows {
            assert_eq!(get(&table, key), value, "{}", String::from_utf8_lossy(key));
        }
        assert_eq!(table.count(), 7);
    }

    #[test]
    fn wrong_lines_are_named() {
        let rows: [(&str, &str); 5] = [
            ("ok\n", "1:1: is not /pattern/ value"),
            ("/a/ b\n/a b\n", "2:1: is not /pattern/ value"),
            ("/a/q b\n", "1:4: flag 'q' is not one of i, x"),
            ("/(a/ b\n", "1:2: unclosed group"),
            (
                "\n/(?=a)/ b\n",
                "2:2: look-around, including look-ahead and look-behind, is not supported",
            ),
        ];
        for (text, error) in rows {
            assert_eq!(Patterns::new(text.into()).unwrap_err(), error, "{text}");
        }
        let many = "/a/ b\n".repeat(LINES_MAX + 1);
        assert!(
            Patterns::new(many.into())
                .unwrap_err()
                .contains("more than")
        );
    }
}
