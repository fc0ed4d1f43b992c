//! The tokens of RFC 822 and 5322 3.2, as routing scripts see an address: atoms, specials, quoted
//! strings, domain literals, comments, white space.
//!
//! A token is a kind and a range; the tokens of a text cover it without gaps, so the text of
//! neighbours is a slice of the text they came from, quotes and brackets included. Every text has
//! tokens: nothing here fails, and one pass over the bytes is all it takes.

use std::ops::Range;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A word without quotes, such as `joe+list`. Bytes above 127 belong to words.
    Atom,
    /// One of `( ) < > @ , ; : \ " . [ ] ! %`; also `::`, and a backslash with the special it quotes.
    Special,
    /// A quoted string with its quotes.
    Quoted,
    /// A domain literal with its brackets.
    Literal,
    /// A comment with its parentheses; comments nest.
    Comment,
    /// Blanks and tabs.
    Space,
    /// Line ends.
    Fold,
    /// Other control characters.
    Control,
}

/// One token of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Where it begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Whether the delimiter at its end is there; false only for what begins with a quote, a bracket or
    /// a parenthesis and reaches to the end of the text.
    pub closed: bool,
}

impl Token {
    /// Its bytes, delimiters included. `text` is the one it was found in.
    #[must_use]
    pub fn bytes<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }

    /// Its bytes without quotes, brackets or parentheses; quoted pairs stay as they are.
    #[must_use]
    pub fn inner<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        let delimited = matches!(self.kind, Kind::Quoted | Kind::Literal | Kind::Comment);
        let start = self.start + usize::from(delimited);
        let end = self.end - usize::from(delimited && self.closed);
        text.get(start..end).unwrap_or_default()
    }

    /// Whether it is this special and nothing more.
    #[must_use]
    pub fn is(&self, special: u8, text: &[u8]) -> bool {
        self.kind == Kind::Special && self.bytes(text) == [special]
    }

    /// Whether it says nothing about an address: comments and white space.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        matches!(self.kind, Kind::Comment | Kind::Space | Kind::Fold)
    }
}

/// The range that neighbouring tokens take; of none, the empty one at 0.
#[must_use]
pub fn span(tokens: &[Token]) -> Range<usize> {
    match (tokens.first(), tokens.last()) {
        (Some(first), Some(last)) => first.start..last.end,
        _ => 0..0,
    }
}

/// The tokens of `text`, found as they are asked for.
#[must_use]
pub fn tokens(text: &[u8]) -> Tokens<'_> {
    Tokens { text, at: 0 }
}

/// See [`tokens`].
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let rest = self.text.get(self.at..)?;
        let first = *rest.first()?;
        let (kind, len, closed) = match class(first) {
            Class::Word => (Kind::Atom, run(rest, Class::Word), true),
            Class::Blank => (Kind::Space, run(rest, Class::Blank), true),
            Class::LineEnd => (Kind::Fold, run(rest, Class::LineEnd), true),
            Class::Control => (Kind::Control, run(rest, Class::Control), true),
            Class::Special => match first {
                b'"' => delimited(Kind::Quoted, rest, b'"'),
                b'[' => delimited(Kind::Literal, rest, b']'),
                b'(' => comment(rest),
                _ => (Kind::Special, special(rest), true),
            },
        };
        let start = self.at;
        self.at += len;
        Some(Token {
            kind,
            start,
            end: self.at,
            closed,
        })
    }
}

fn run(text: &[u8], wanted: Class) -> usize {
    let end = text.iter().position(|byte| class(*byte) != wanted);
    end.unwrap_or(text.len())
}

/// A quoted string or a literal: up to the next `end` that has no backslash before it.
fn delimited(kind: Kind, text: &[u8], end: u8) -> (Kind, usize, bool) {
    let mut at = 1;
    while let Some(found) = text
        .get(at..)
        .and_then(|rest| memchr::memchr2(b'\\', end, rest))
    {
        at += found;
        if text.get(at) == Some(&end) {
            return (kind, at + 1, true);
        }
        at += 2;
    }
    (kind, text.len(), false)
}

fn comment(text: &[u8]) -> (Kind, usize, bool) {
    let mut at = 0;
    let mut depth = 0_usize;
    while let Some(found) = text
        .get(at..)
        .and_then(|rest| memchr::memchr3(b'\\', b'(', b')', rest))
    {
        at += found;
        match text.get(at) {
            Some(b'(') => depth += 1,
            Some(b')') if depth == 1 => return (Kind::Comment, at + 1, true),
            Some(b')') => depth -= 1,
            _ => at += 1,
        }
        at += 1;
    }
    (Kind::Comment, text.len(), false)
}

/// How long the special at the start is.
fn special(text: &[u8]) -> usize {
    match text {
        // The colons of DECNET, `node::user`, are one token.
        [b':', b':', ..] => 2,
        [b'\\', next, ..] if class(*next) == Class::Special => 2,
        _ => 1,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Word,
    Special,
    Blank,
    LineEnd,
    Control,
}

fn class(byte: u8) -> Class {
    const CLASSES: [Class; 256] = {
        let mut classes = [Class::Word; 256];
        let mut byte = 0;
        while byte < 32 {
            classes[byte] = Class::Control;
            byte += 1;
        }
        classes[127] = Class::Control;
        classes[b'\t' as usize] = Class::Blank;
        classes[b' ' as usize] = Class::Blank;
        classes[b'\r' as usize] = Class::LineEnd;
        classes[b'\n' as usize] = Class::LineEnd;
        let mut at = 0;
        while at < SPECIALS.len() {
            classes[SPECIALS[at] as usize] = Class::Special;
            at += 1;
        }
        classes
    };
    CLASSES[usize::from(byte)]
}

/// RFC 822 3.3, and the marks of routes: `user%host`, `host!user`.
const SPECIALS: &[u8] = b"()<>@,;:\\\".[]!%";

/// Whether a byte is one of the specials; such a byte ends an atom.
#[must_use]
pub fn is_special(byte: u8) -> bool {
    class(byte) == Class::Special
}

/// Whether a byte may stand in an atom.
#[must_use]
pub fn is_word(byte: u8) -> bool {
    class(byte) == Class::Word
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &[u8]) -> Vec<String> {
        let all = tokens(text).map(|token| {
            let letter = match token.kind {
                Kind::Atom => 'a',
                Kind::Special => 's',
                Kind::Quoted => 'q',
                Kind::Literal => 'l',
                Kind::Comment => 'c',
                Kind::Space => '_',
                Kind::Fold => 'f',
                Kind::Control => 'x',
            };
            let open = if token.closed { "" } else { "+" };
            let bytes = String::from_utf8_lossy(token.bytes(text));
            format!("{letter}{open}{bytes}")
        });
        all.collect()
    }

    #[test]
    fn texts_and_their_tokens() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("joe+list.a@x", &["ajoe+list", "s.", "aa", "s@", "ax"]),
            ("a!b%c", &["aa", "s!", "ab", "s%", "ac"]),
            ("\"a b\"@x", &["q\"a b\"", "s@", "ax"]),
            (r#""a\"b"c"#, &[r#"q"a\"b""#, "ac"]),
            (r#""open\""#, &[r#"q+"open\""#]),
            (r#""open\"#, &[r#"q+"open\"#]),
            ("joe@[10.0.0.1]", &["ajoe", "s@", "l[10.0.0.1]"]),
            (r"[a\]b]c", &[r"l[a\]b]", "ac"]),
            ("[a", &["l+[a"]),
            (
                "joe (a (b) \\) c) @x",
                &["ajoe", "_ ", "c(a (b) \\) c)", "_ ", "s@", "ax"],
            ),
            ("(a (b)", &["c+(a (b)"]),
            (")]", &["s)", "s]"]),
            ("a::b:c", &["aa", "s::", "ab", "s:", "ac"]),
            (r"\user", &["s\\", "auser"]),
            (r"a\@b\", &["aa", "s\\@", "ab", "s\\"]),
            (
                "<@a,@b:c@d>;",
                &[
                    "s<", "s@", "aa", "s,", "s@", "ab", "s:", "ac", "s@", "ad", "s>", "s;",
                ],
            ),
            (
                "a \t b\r\n\tc",
                &["aa", "_ \t ", "ab", "f\r\n", "_\t", "ac"],
            ),
            ("a\u{1}\u{7f}b", &["aa", "x\u{1}\u{7f}", "ab"]),
            ("j\u{f6}rg@x", &["aj\u{f6}rg", "s@", "ax"]),
            ("$(id)|`x`", &["a$", "c(id)", "a|`x`"]),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text.as_bytes()), *expected, "{text:?}");
        }
    }

    #[test]
    fn the_inside_of_a_token() {
        let text = br#""a \"b"[1.2](c"#;
        let inner: Vec<&[u8]> = tokens(text).map(|token| token.inner(text)).collect();
        assert_eq!(inner, [&br#"a \"b"#[..], b"1.2", b"c"]);
        let open = br#"""#;
        assert_eq!(tokens(open).next().unwrap().inner(open), b"");
        let all: Vec<Token> = tokens(text).collect();
        assert_eq!(span(&all), 0..text.len());
        assert_eq!(span(&[]), 0..0);
    }

    proptest! {
        /// The tokens cover any bytes, in order, each of them not empty.
        #[test]
        fn tokens_cover_the_text(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut at = 0;
            for token in tokens(&text) {
                prop_assert_eq!(token.start, at);
                prop_assert!(token.end > at);
                prop_assert!(token.inner(&text).len() <= token.bytes(&text).len());
                at = token.end;
            }
            prop_assert_eq!(at, text.len());
        }

        /// Out of few characters, so that delimiters meet often.
        #[test]
        fn tokens_cover_hostile_text(text in "[\"\\\\()\\[\\]a.@ \n]{0,60}") {
            let bytes = text.as_bytes();
            let joined: Vec<u8> = tokens(bytes)
                .flat_map(|token| token.bytes(bytes).to_vec())
                .collect();
            prop_assert_eq!(joined, bytes);
        }
    }
}
