//! The patterns of `case` and `glob`: `* ? [..] [!..]`, with quoted bytes as themselves.

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
        glob_matches(
            pattern.as_bytes(),
            &vec![false; pattern.len()],
            text.as_bytes(),
        )
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
}
