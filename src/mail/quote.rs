//! Quoting in addresses: what `rfc822syntax`, `dequote` and `condquote` of routing scripts do, and
//! whether a text is an address at all.

use super::token::{Kind, Token, Tokens, is_word, tokens};

/// Whether the text is one address without display name and brackets: words joined by `.`, `%`, `!`
/// or `::`, a domain if there is an `@`, a source route before it. Comments and blanks may stand
/// between tokens (RFC 5322 4.4). Bytes above 127 have to be UTF-8 (RFC 6532 3.2).
#[must_use]
pub fn is_address(text: &[u8]) -> bool {
    core::str::from_utf8(text).is_ok() && Syntax::new(text).address().is_some()
}

/// Reads the grammar; None where the text leaves it.
struct Syntax<'a> {
    text: &'a [u8],
    tokens: Tokens<'a>,
    next: Option<Token>,
}

impl<'a> Syntax<'a> {
    fn new(text: &'a [u8]) -> Self {
        let mut syntax = Self {
            text,
            tokens: tokens(text),
            next: None,
        };
        syntax.advance();
        syntax
    }

    fn advance(&mut self) {
        self.next = self.tokens.find(|token| !token.is_blank() || !token.closed);
    }

    fn take(&mut self, special: u8) -> bool {
        let found = self.next.is_some_and(|token| token.is(special, self.text));
        if found {
            self.advance();
        }
        found
    }

    fn address(mut self) -> Option<()> {
        let routed = self.take(b'@');
        if routed {
            self.route()?;
        }
        self.local_part()?;
        // RFC 5321 C: what stands behind a route is a whole mailbox.
        if self.take(b'@') {
            self.domain()?;
        } else if routed {
            return None;
        }
        self.next.is_none().then_some(())
    }

    /// Behind the first `@`, up to the colon.
    fn route(&mut self) -> Option<()> {
        self.domain()?;
        loop {
            if self.take(b':') {
                return Some(());
            }
            if self.take(b'@') {
                self.domain()?;
            } else if !self.take(b',') {
                return None;
            }
        }
    }

    fn local_part(&mut self) -> Option<()> {
        self.word(&[Kind::Atom, Kind::Quoted, Kind::Literal])?;
        while self.joint() {
            self.word(&[Kind::Atom, Kind::Quoted, Kind::Literal])?;
        }
        Some(())
    }

    /// What may stand between two words of a local part.
    fn joint(&mut self) -> bool {
        let Some(token) = self.next.filter(|token| token.kind == Kind::Special) else {
            return false;
        };
        let bytes = token.bytes(self.text);
        let found = match bytes {
            b"." | b"%" | b"!" => true,
            // Behind it a blank or a quote would be what it quotes.
            b"\\" => self.text.get(token.end).is_some_and(|byte| is_word(*byte)),
            _ => bytes.len() == 2,
        };
        if found {
            self.advance();
        }
        found
    }

    fn domain(&mut self) -> Option<()> {
        self.word(&[Kind::Atom, Kind::Literal])?;
        while self.take(b'.') {
            self.word(&[Kind::Atom, Kind::Literal])?;
        }
        Some(())
    }

    fn word(&mut self, kinds: &[Kind]) -> Option<()> {
        let token = self.next?;
        let good = kinds.contains(&token.kind) && token.closed;
        good.then(|| self.advance())
    }
}

/// Without quotes: each quoted pair is its second byte. A blank becomes `space`, if one is given.
#[must_use]
pub fn dequoted(text: &[u8], space: Option<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {}
            b'\\' => out.push(bytes.next().unwrap_or(b'\\')),
            b' ' => out.push(space.unwrap_or(b' ')),
            _ => out.push(byte),
        }
    }
    out
}

/// With quotes where they are needed and without where they are not. A blank becomes `space`, if one
/// is given. Text whose quotes are open at its end stays as it is.
#[must_use]
pub fn quoted_as_needed(text: &[u8], space: Option<u8>) -> Vec<u8> {
    let found = Quotes::of(text, space);
    if found.any && !found.needed && !found.open {
        return unquoted(text, space);
    }
    let spaced = text.iter().map(|byte| match byte {
        b' ' => space.unwrap_or(b' '),
        _ => *byte,
    });
    if found.any || !found.needed {
        return spaced.collect();
    }
    let mut out = Vec::with_capacity(text.len() + 3);
    out.push(b'"');
    out.extend(spaced);
    if found.half_a_pair {
        // A lone backslash at the end would take the closing quote's meaning away.
        out.push(b'\\');
    }
    out.push(b'"');
    out
}

/// Without quotes that are not needed. Pairs that stand outside them say what they said.
fn unquoted(text: &[u8], space: Option<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut is_inside = false;
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => is_inside = !is_inside,
            b'\\' => {
                if !is_inside {
                    out.push(byte);
                }
                out.extend(bytes.next());
            }
            b' ' => out.push(space.unwrap_or(b' ')),
            _ => out.push(byte),
        }
    }
    out
}

/// What is known of the quotes in a text.
#[derive(Default)]
struct Quotes {
    any: bool,
    open: bool,
    needed: bool,
    half_a_pair: bool,
}

impl Quotes {
    fn of(text: &[u8], space: Option<u8>) -> Self {
        let mut found = Self::default();
        let space_is_plain = space.is_some_and(|byte| is_plain(byte) || byte == b'.');
        let mut at = 0;
        while let Some(byte) = text.get(at).copied() {
            at += 1;
            match byte {
                b'"' => {
                    found.any = true;
                    found.open = !found.open;
                }
                b'\\' => {
                    let next = text.get(at).copied();
                    found.half_a_pair = next.is_none();
                    // Without quotes the pair would be gone, and its byte would mean something else.
                    found.needed |= found.open && next.is_some_and(|next| !is_plain(next));
                    at += 1;
                }
                b'@' if !found.open => {}
                // "HOST::USER"@gateway is one word for the gateway.
                b':' => found.needed |= found.open && text.get(at) == Some(&b':'),
                b'.' | b',' | b'[' | b']' => {}
                b' ' if space_is_plain => {}
                _ => found.needed |= !is_plain(byte),
            }
        }
        found
    }
}

/// Whether a byte means nothing but itself in a word without quotes. `!` and `%` join words, and
/// nobody may change what is joined by adding quotes; `|` begins a program.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!' | b'%') || (byte.is_ascii() && is_word(byte) && byte != b'|')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_an_address() {
        let good = [
            "joe",
            "joe@x",
            "joe@x.org",
            "joe@[1.2.3.4]",
            "@a,@b:joe@c",
            "@a@b:joe@c",
            "\"joe blow\"@x",
            "a!b",
            "a%b@c",
            "joe(his)@x (host)",
            "joe @ x . org",
            "a::b@c",
            "a\\@b",
            "j\u{f6}rg@x",
            "\"\"@x",
            "[1.2.3.4]",
            "@a,:joe@c",
        ];
        for text in good {
            assert!(is_address(text.as_bytes()), "{text}");
        }
        let bad = [
            "",
            "<joe@x>",
            "joe@@x",
            "joe@x..y",
            "joe blow",
            "joe@",
            "@x",
            "joe@x.",
            ".joe",
            "a..b",
            "@a:joe",
            "@a,joe@c",
            "@a",
            "@a joe@c",
            "G: a@x;",
            "a, b",
            "Joe <a@x>",
            "joe@\"x\"",
            "\"joe@x",
            "joe@[1.2",
            "joe (open",
            "a\u{1}b",
            "\\joe",
            "a)b",
            "a@x@y",
            "a,b@c",
            "joe@x!y",
            "!a",
            "a!",
        ];
        for text in bad {
            assert!(!is_address(text.as_bytes()), "{text}");
        }
        assert!(!is_address(b"j\xf6rg@x"));
    }

    #[test]
    fn quotes_go() {
        for (text, space, expected) in [
            ("\"joe user\"", None, "joe user"),
            ("plain", None, "plain"),
            ("\"joe user\"@x", Some(b'.'), "joe.user@x"),
            (r#""a\"b""#, None, "a\"b"),
            (r#""a\\b"#, None, r"a\b"),
            ("a\\", None, "a\\"),
        ] {
            assert_eq!(
                dequoted(text.as_bytes(), space),
                expected.as_bytes(),
                "{text}"
            );
        }
    }

    #[test]
    fn quotes_come_where_they_are_needed() {
        for (text, space, expected) in [
            ("joe user", None, "\"joe user\""),
            ("plain", None, "plain"),
            ("\"plain\"", None, "plain"),
            ("\"joe user\"", None, "\"joe user\""),
            ("a(b", None, "\"a(b\""),
            ("joe user", Some(b'_'), "joe_user"),
            ("joe user", Some(b'('), "\"joe(user\""),
            ("\"a::b\"@x", None, "\"a::b\"@x"),
            ("a|b", None, "\"a|b\""),
            ("joe.user@x", None, "joe.user@x"),
            ("a!b%c", None, "a!b%c"),
            (r#""a\"b""#, None, r#""a\"b""#),
            (r#""a\b""#, None, "ab"),
            (r#"\(""a"#, None, r"\(a"),
            ("\"open", None, "\"open"),
            ("a b\\", None, "\"a b\\\\\""),
        ] {
            let out = quoted_as_needed(text.as_bytes(), space);
            assert_eq!(out, expected.as_bytes(), "{text}");
        }
    }

    proptest! {
        /// Quoting twice is quoting once, whatever the bytes are; removing quotes never fails.
        #[test]
        fn quoting_is_final(text in "[\"\\\\()a.@: |]{0,30}") {
            let once = quoted_as_needed(text.as_bytes(), None);
            let twice = quoted_as_needed(&once, None);
            prop_assert_eq!(&once, &twice, "{}", text);
            let _ = dequoted(&once, Some(b'_'));
        }

        /// An address is no longer one when a byte that joins nothing is appended, and no bytes panic.
        #[test]
        fn any_bytes_are_judged(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut longer = text.clone();
            longer.extend_from_slice(b"@@");
            let _ = is_address(&text);
            prop_assert!(!is_address(&longer) || text.contains(&b'"') || text.contains(&b'(') || text.contains(&b'['));
        }
    }
}
