//! Address lists of header fields (RFC 5322 3.4 and 4.4): display names, comments, groups, source
//! routes, folding; each address with its place, so that it alone can be replaced and all around it
//! stays as it is.
//!
//! A list is read as it is asked for, in one pass and without memory. Nothing fails: what cannot be
//! understood is named by its place.

use std::borrow::Cow;
use std::ops::Range;

use super::quote;
use super::token::{Kind, Token, Tokens, tokens};

/// One member of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// An address.
    Address(Address),
    /// Nobody can say whom it means, such as two words without a comma.
    Bad(Range<usize>),
}

/// Where an address stands in its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// With display name and brackets.
    pub whole: Range<usize>,
    /// The address itself with its source route, if it has one: what is replaced. Comments and blanks
    /// may stand inside.
    pub spec: Range<usize>,
    /// Whether it stands in brackets.
    pub bracketed: bool,
    /// Whether the closing bracket is there.
    pub closed: bool,
}

impl Address {
    /// The address without comments and blanks.
    #[must_use]
    pub fn text<'a>(&self, list: &'a [u8]) -> Cow<'a, [u8]> {
        plain(list.get(self.spec.clone()).unwrap_or_default())
    }

    /// The comments inside the address, with their parentheses.
    pub fn comments<'a>(&self, list: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let spec = list.get(self.spec.clone()).unwrap_or_default();
        let comments = tokens(spec).filter(|token| token.kind == Kind::Comment);
        comments.map(|token| token.bytes(spec))
    }
}

/// An address without the comments and blanks that stand in it.
#[must_use]
pub fn plain(spec: &[u8]) -> Cow<'_, [u8]> {
    if !tokens(spec).any(|token| token.is_blank()) {
        return Cow::Borrowed(spec);
    }
    let said = tokens(spec).filter(|token| !token.is_blank());
    Cow::Owned(said.flat_map(|token| token.bytes(spec)).copied().collect())
}

/// The members of a list, in order; a group gives its members.
#[must_use]
pub fn members(list: &[u8]) -> Members<'_> {
    Members {
        list,
        tokens: tokens(list),
        in_group: false,
        pushed_back: None,
    }
}

/// See [`members`].
#[derive(Clone, Debug)]
pub struct Members<'a> {
    list: &'a [u8],
    tokens: Tokens<'a>,
    in_group: bool,
    pushed_back: Option<Token>,
}

/// What is known of a member under way.
#[derive(Default)]
struct Seen {
    /// From its first to its last token that is no blank; brackets not included.
    words: Option<Range<usize>>,
    /// What stands between the brackets, and whether they are closed.
    brackets: Option<(Range<usize>, bool)>,
    /// It begins with a route that stands in no brackets, whose colon has not come yet.
    in_route: bool,
}

impl Seen {
    fn is_empty(&self) -> bool {
        self.words.is_none() && self.brackets.is_none()
    }

    fn add(&mut self, token: Token) {
        match &mut self.words {
            Some(words) => words.end = token.end,
            None => self.words = Some(token.start..token.end),
        }
    }
}

impl Iterator for Members<'_> {
    type Item = Member;

    fn next(&mut self) -> Option<Member> {
        let mut seen = Seen::default();
        while let Some(token) = self.pushed_back.take().or_else(|| self.tokens.next()) {
            let is = |special| token.is(special, self.list);
            if token.is_blank() {
                continue;
            }
            if (is(b',') && !seen.in_route) || is(b';') {
                self.in_group &= is(b',');
                if let Some(member) = self.member(&seen) {
                    return Some(member);
                }
                seen = Seen::default();
            } else if is(b'<') {
                if seen.brackets.is_some() {
                    // A comma was forgotten; what is in brackets is clear all the same.
                    self.pushed_back = Some(token);
                    if let Some(member) = self.member(&seen) {
                        return Some(member);
                    }
                    seen = Seen::default();
                    continue;
                }
                seen.brackets = Some(self.bracket(token));
            } else if is(b':') && seen.in_route {
                seen.in_route = false;
                seen.add(token);
            } else if is(b':') && !self.in_group && seen.brackets.is_none() {
                // What came so far was a group's name.
                self.in_group = true;
                seen = Seen::default();
            } else {
                seen.in_route |= seen.is_empty() && is(b'@');
                if seen.brackets.is_none() {
                    seen.add(token);
                }
            }
        }
        self.member(&seen)
    }
}

impl Members<'_> {
    /// Reads up to the closing bracket. Where a second one opens, the first has been forgotten.
    fn bracket(&mut self, open: Token) -> (Range<usize>, bool) {
        let mut end = open.end;
        for token in self.tokens.by_ref() {
            if token.is(b'>', self.list) {
                return (open.end..token.start, true);
            }
            if token.is(b'<', self.list) {
                self.pushed_back = Some(token);
                break;
            }
            end = token.end;
        }
        (open.end..end, false)
    }

    fn member(&self, seen: &Seen) -> Option<Member> {
        let (spec, bracketed, closed) = match (&seen.brackets, &seen.words) {
            (Some((inside, closed)), _) => (self.trimmed(inside.clone()), true, *closed),
            (None, Some(words)) => (words.clone(), false, true),
            (None, None) => return None,
        };
        if bracketed && closed && spec.is_empty() {
            // `<>` is nobody.
            return None;
        }
        let start = seen.words.as_ref().map_or(usize::MAX, |words| words.start);
        let whole = if bracketed {
            start.min(spec.start.saturating_sub(1))..spec.end
        } else {
            spec.clone()
        };
        let text = self.list.get(spec.clone()).unwrap_or_default();
        if !quote::is_address(text) {
            return Some(Member::Bad(whole));
        }
        Some(Member::Address(Address {
            whole,
            spec,
            bracketed,
            closed,
        }))
    }

    /// Without the blanks at both ends.
    fn trimmed(&self, range: Range<usize>) -> Range<usize> {
        let text = self.list.get(range.clone()).unwrap_or_default();
        let start = range.start + (text.len() - text.trim_ascii_start().len());
        start..start.max(range.end - (text.len() - text.trim_ascii_end().len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Addresses as they stand there; what is bad behind a `!`.
    fn found(list: &str) -> Vec<String> {
        let text = |range: &Range<usize>| list.get(range.clone()).unwrap().to_owned();
        let shown = |member| match member {
            Member::Address(address) => text(&address.spec),
            Member::Bad(range) => format!("!{}", text(&range)),
        };
        members(list.as_bytes()).map(shown).collect()
    }

    #[test]
    fn lists_of_rfc_5322_and_of_users() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            (",,;", &[]),
            (
                "Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>",
                &["mary@x.test", "jdoe@example.org", "one@y.test"],
            ),
            (
                "<boss@nil.test>, \"Giant; \\\"Big\\\" Box\" <sysservices@example.net>",
                &["boss@nil.test", "sysservices@example.net"],
            ),
            (
                "A Group:Ed Jones <joe@where.test>,John <jdoe@one.test>;, dan@x",
                &["joe@where.test", "jdoe@one.test", "dan@x"],
            ),
            ("Undisclosed recipients:;", &[]),
            ("G: a;, H: b@x;", &["a", "b@x"]),
            (
                "Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>",
                &["pete(his account)@silly.test(his host)"],
            ),
            (
                "carol @ far . example . com (x)",
                &["carol @ far . example . com"],
            ),
            ("joe , mary", &["joe", "mary"]),
            ("J. Q. User <joe@x>", &["joe@x"]),
            (
                "\r\n one@x.test,\r\n\t<\r\n\ttwo@x.test >\r\n",
                &["one@x.test", "two@x.test"],
            ),
            ("<@r.test,@b.test:c@d.test>", &["@r.test,@b.test:c@d.test"]),
            (
                "@r.test,@b.test:c@d.test, e",
                &["@r.test,@b.test:c@d.test", "e"],
            ),
            ("x%y@h, a!b@c, n::u@d", &["x%y@h", "a!b@c", "n::u@d"]),
            ("two words, a", &["!two words", "a"]),
            ("Joe <a b@x.test>, c", &["!Joe <a b@x.test", "c"]),
            ("G: joe doe, a@x;", &["!joe doe", "a@x"]),
            ("<one@x> <two@x>", &["one@x", "two@x"]),
            ("<one@x <two@x>", &["one@x", "two@x"]),
            ("<never.closed@x", &["never.closed@x"]),
            ("<>, a", &["a"]),
            ("<", &["!<"]),
            ("a@x@y, b", &["!a@x@y", "b"]),
            ("a:b:c, d", &["!b:c", "d"]),
            ("(never closed", &[]),
            ("\"never closed\\", &["!\"never closed\\"]),
            ("yesterday at noon", &["!yesterday at noon"]),
            ("@a", &["!@a"]),
            ("j\u{f6}rg@x", &["j\u{f6}rg@x"]),
        ];
        for (list, expected) in cases {
            assert_eq!(found(list), *expected, "{list:?}");
        }
    }

    #[test]
    fn an_address_with_all_around_it() {
        let list = b"Pete <pete(his)@silly(host)>, joe @ x";
        let all: Vec<Member> = members(list).collect();
        let [Member::Address(pete), Member::Address(joe)] = all.as_slice() else {
            panic!("{all:?}");
        };
        assert_eq!(*pete.text(list), *b"pete@silly");
        let comments: Vec<&[u8]> = pete.comments(list).collect();
        assert_eq!(comments, [&b"(his)"[..], b"(host)"]);
        assert_eq!(
            list.get(pete.whole.clone()).unwrap(),
            b"Pete <pete(his)@silly(host)"
        );
        assert!(pete.bracketed && pete.closed && !joe.bracketed);
        assert_eq!(*joe.text(list), *b"joe@x");
    }

    /// Each of these took a frame of the stack.
    #[test]
    fn many_brackets_are_no_recursion() {
        assert_eq!(members(&b"<>".repeat(300_000)).count(), 0);
        assert_eq!(members(&b"(".repeat(300_000)).count(), 0);
        assert_eq!(members(&b"a<".repeat(300_000)).count(), 300_000);
    }

    proptest! {
        /// Members stand in order inside the list, and each address is one by its text too.
        #[test]
        fn any_bytes_have_members(list in proptest::collection::vec(any::<u8>(), 0..200)) {
            check(&list)?;
        }

        #[test]
        fn hostile_lists_have_members(list in "[\"\\\\()<>\\[\\]@:;,.ab \r\n]{0,80}") {
            check(list.as_bytes())?;
        }
    }

    fn check(list: &[u8]) -> Result<(), TestCaseError> {
        let mut at = 0;
        for member in members(list) {
            let whole = match &member {
                Member::Address(address) => {
                    prop_assert!(quote::is_address(&address.text(list)), "{:?}", member);
                    prop_assert!(address.whole.start <= address.spec.start);
                    address.whole.clone()
                }
                Member::Bad(range) => range.clone(),
            };
            prop_assert!(whole.start >= at && whole.end >= whole.start && whole.end <= list.len());
            at = whole.end;
        }
        Ok(())
    }
}
