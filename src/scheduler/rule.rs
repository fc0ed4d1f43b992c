//! Scheduler rules: which parameters hold for a (channel, host) (zmailer.md 4.2).

/// Parameters of the threads that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `channel/host` with `*` for any text.
    pub pattern: String,
    /// Slots of a thread.
    pub max_connections: u32,
    /// Delays between attempts; the last one repeats.
    pub retry_ms: Vec<u64>,
    /// Age at which mail is given up.
    pub expiry_ms: u64,
    /// How long a connection without work is kept; lent slots come back after it.
    pub idle_ns: u64,
    /// Transactions on one connection.
    pub messages_per_connection: u32,
}

impl Default for Rule {
    fn default() -> Self {
        const MINUTE_MS: u64 = 60_000;
        Self {
            pattern: "*".to_owned(),
            max_connections: 50,
            retry_ms: vec![MINUTE_MS, 5 * MINUTE_MS, 15 * MINUTE_MS, 60 * MINUTE_MS],
            expiry_ms: 5 * 24 * 60 * MINUTE_MS,
            idle_ns: 500_000_000,
            messages_per_connection: 10_000,
        }
    }
}

impl Rule {
    /// The delay after attempt number `attempt`, from 1.
    #[must_use]
    pub fn delay_ms(&self, attempt: u32) -> u64 {
        let at = (attempt.max(1) as usize - 1).min(self.retry_ms.len().saturating_sub(1));
        self.retry_ms.get(at).copied().unwrap_or(60_000)
    }
}

/// The first rule that matches, or the built-in one.
pub(super) fn select(rules: &[Rule], channel: &str, host: &str) -> Rule {
    let name = format!("{channel}/{host}");
    let found = rules
        .iter()
        .find(|rule| matches(rule.pattern.as_bytes(), name.as_bytes()));
    found.cloned().unwrap_or_default()
}

/// Whether `text` matches `pattern`, where `*` stands for any bytes; letter case does not matter.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let mut parts = pattern.split(|byte| *byte == b'*');
    let Some(first) = parts.next() else {
        return text.is_empty();
    };
    let Some(mut rest) = strip_start(text, first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.len() >= part.len()
                && rest[rest.len() - part.len()..].eq_ignore_ascii_case(part);
        }
        let found = (0..=rest.len()).find_map(|at| strip_start(&rest[at..], part));
        let Some(behind) = found else { return false };
        rest = behind;
    }
    true
}

fn strip_start<'a>(text: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = text.split_at_checked(start.len())?;
    head.eq_ignore_ascii_case(start).then_some(rest)
}

/// FNV-1a over channel, a zero byte, host: the same on every machine and in every run.
pub(super) fn hash(channel: &str, host: &str) -> u64 {
    let bytes = channel.bytes().chain([0]).chain(host.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_like_globs() {
        const CASES: &[(&str, &str, bool)] = &[
            ("*", "smtp/a", true),
            ("smtp/*", "smtp/a.example", true),
            ("smtp/*", "lmtp/a.example", false),
            ("smtp/*.example", "SMTP/a.EXAMPLE", true),
            ("smtp/*.example", "smtp/a.test", false),
            ("smtp/a", "smtp/ab", false),
            ("s*p/*b*c", "smtp/abxc", true),
            ("s*p/*b*c", "smtp/axc", false),
            ("", "", true),
        ];
        for (pattern, text, expected) in CASES {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                *expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn the_last_delay_repeats() {
        let rule = Rule {
            retry_ms: vec![1, 5],
            ..Rule::default()
        };
        assert_eq!(
            [1, 2, 3, 9].map(|attempt| rule.delay_ms(attempt)),
            [1, 5, 5, 5]
        );
    }
}
