//! The patterns of `case` and `glob`: `* ? [..] [!..]`, with quoted bytes as themselves.
//!
//! [`Glob`] is one that is known when the script is loaded; [`glob_matches`] takes one that is made while it runs.

/// A pattern without expansions, taken apart once.
#[derive(Clone, Debug)]
pub struct Glob {
    elements: Vec<Element>,
    /// It has no element but bytes: this is all that it matches.
    plain: bool,
    text: Box<[u8]>,
}

#[derive(Clone, Debug)]
enum Element {
    Star,
    Any,
    Byte(u8),
    Set(Box<[bool; 256]>),
}

impl Glob {
    /// `quoted[i]` says that byte `i` stands for itself only.
    #[must_use]
    pub fn new(pattern: &[u8], quoted: &[bool]) -> Self {
        let mut elements = Vec::with_capacity(pattern.len());
        let mut at = 0;
        while let Some(byte) = pattern.get(at) {
            let (element, next) = match byte {
                _ if quoted[at] => (Element::Byte(*byte), at + 1),
                b'*' => (Element::Star, at + 1),
                b'?' => (Element::Any, at + 1),
                b'[' => match set_bytes(pattern, at) {
                    Some((end, holds)) => (Element::Set(holds), end),
                    None => (Element::Byte(b'['), at + 1),
                },
                own => (Element::Byte(*own), at + 1),
            };
            elements.push(element);
            at = next;
        }
        let plain = elements
            .iter()
            .all(|element| matches!(element, Element::Byte(_)));
        Self {
            elements,
            plain,
            text: pattern.into(),
        }
    }

    /// As it was written, without quotes.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether it matches the whole text. Linear in pattern size times text size.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        if self.plain {
            return *self.text == *text;
        }
        let (mut at, mut place) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        loop {
            let element = self.elements.get(at);
            if matches!(element, Some(Element::Star)) {
                at += 1;
                if at == self.elements.len() {
                    return true;
                }
                star = Some((at, place));
                continue;
            }
            let advances = match (element, text.get(place)) {
                (None, None) => return true,
                (_, None) => return false,
                (None, Some(_)) => false,
                (Some(Element::Byte(own)), Some(byte)) => own == byte,
                (Some(Element::Set(holds)), Some(byte)) => holds[usize::from(*byte)],
                (Some(Element::Any | Element::Star), Some(_)) => true,
            };
            match star {
                _ if advances => (at, place) = (at + 1, place + 1),
                Some((again, taken)) => {
                    star = Some((again, taken + 1));
                    (at, place) = (again, taken + 1);
                }
                None => return false,
            }
        }
    }
}

/// The place behind a set and what it holds; none when `]` is missing.
fn set_bytes(pattern: &[u8], at: usize) -> Option<(usize, Box<[bool; 256]>)> {
    let mut holds = Box::new([false; 256]);
    let mut end = 0;
    for byte in 0..=u8::MAX {
        (end, holds[usize::from(byte)]) = set(pattern, at, byte)?;
    }
    Some((end, holds))
}

/// Whether a pattern matches the whole text. `quoted[i]` says that byte `i` stands for itself only. Linear in pattern
/// size times text size.
#[must_use]
pub fn glob_matches(pattern: &[u8], quoted: &[bool], text: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let magic = at < pattern.len() && !quoted[at];
        if magic && pattern[at] == b'*' {
            star = Some((at + 1, place));
            at += 1;
            continue;
        }
        let advanced = match text.get(place) {
            Some(byte) if at < pattern.len() => one(pattern, quoted, at, *byte),
            Some(_) => None,
            None if at == pattern.len() => return true,
            None => None,
        };
        match (advanced, star) {
            (Some(next), _) => (at, place) = (next, place + 1),
            (None, Some((again, taken))) if taken < text.len() => {
                star = Some((again, taken + 1));
                (at, place) = (again, taken + 1);
            }
            (None, _) => return false,
        }
    }
}

/// The place behind the pattern element at `at` when it takes the byte.
fn one(pattern: &[u8], quoted: &[bool], at: usize, byte: u8) -> Option<usize> {
    if quoted[at] {
        return (pattern[at] == byte).then_some(at + 1);
    }
    match pattern[at] {
        b'?' => Some(at + 1),
        b'[' => match set(pattern, at, byte) {
            Some((end, true)) => Some(end),
            Some((_, false)) => None,
            None => (byte == b'[').then_some(at + 1),
        },
        own => (own == byte).then_some(at + 1),
    }
}

/// The place behind a set and whether it holds the byte; none when `]` is missing: `[` is then itself.
fn set(pattern: &[u8], at: usize, byte: u8) -> Option<(usize, bool)> {
    let mut here = at + 1;
    let negated = pattern.get(here) == Some(&b'!');
    here += usize::from(negated);
    let first = here;
    let mut holds = false;
    loop {
        let low = *pattern.get(here)?;
        if low == b']' && here > first {
            return Some((here + 1, holds != negated));
        }
        let range = pattern.get(here + 1) == Some(&b'-')
            && pattern.get(here + 2).is_some_and(|high| *high != b']');
        let high = if range { pattern[here + 2] } else { low };
        holds |= (low..=high).contains(&byte);
        here += if range { 3 } else { 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        let quoted = vec![false; pattern.len()];
        let glob = Glob::new(pattern.as_bytes(), &quoted);
        let matches = glob_matches(pattern.as_bytes(), &quoted, text.as_bytes());
        assert_eq!(glob.matches(text.as_bytes()), matches, "{pattern} {text}");
        matches
    }

    #[test]
    fn patterns_of_case() {
        for (pattern, text, expected) in [
            ("f*", "foo", true),
            ("*b", "ab", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbxx", false),
            ("?", "", false),
            ("[!ab]*", "a5", false),
            ("[!ab]*", "z5", true),
            ("[a-b]?", "b5", true),
            ("[]x]", "]", true),
            ("[ab", "[ab", true),
            ("", "", true),
            ("*", "", true),
            ("a", "A", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        assert!(!glob_matches(b"*", &[true], b"x"));
        assert!(glob_matches(b"*", &[true], b"*"));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        assert!(!matches(&"*a".repeat(200), &"a".repeat(150)));
        assert!(!matches(
            &format!("{}b", "*a".repeat(50)),
            &"a".repeat(5000)
        ));
    }

    proptest::proptest! {
        #[test]
        fn both_forms_of_a_pattern_match_the_same(
            pattern in "[]ab*?!\\[-]{0,8}",
            quoted in proptest::collection::vec(proptest::bool::weighted(0.2), 8),
            text in "[]ab*?!\\[-]{0,6}",
        ) {
            let quoted = &quoted[..pattern.len()];
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            let glob = Glob::new(pattern, quoted);
            proptest::prop_assert_eq!(glob.matches(text), glob_matches(pattern, quoted, text));
        }
    }
}
