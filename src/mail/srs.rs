//! The Sender Rewriting Scheme: a forwarder's sender address that leads failures back to the original sender and that
//! nobody else can make.
//!
//! `SRS0=hash=day=domain=user@here` stands for `user@domain`; `SRS1=hash=domain==rest@here` for an address that
//! `domain` has rewritten itself. The form is that of the proposal by M. Wong and of libsrs2, so that addresses made by
//! either are understood by the other with the same secret.

use hmac::{Hmac, Mac};
use sha1::Sha1;

/// How addresses are made and judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// Secrets: the first one signs, all are good for what comes back.
    pub secrets: Vec<Vec<u8>>,
    /// Characters of the hash in new addresses.
    pub hash_length: usize,
    /// Fewest characters that a hash that comes back may have.
    pub hash_min: usize,
    /// Days for which an address is good.
    pub age_days_max: u64,
    /// What stands behind `SRS0` and `SRS1`: `=`, `+` or `-`.
    pub separator: u8,
    /// Addresses of our own domain are rewritten too.
    pub always: bool,
}

impl Default for Scheme {
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            hash_length: 4,
            hash_min: 4,
            age_days_max: 21,
            separator: b'=',
            always: false,
        }
    }
}

/// Why an address is not rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrsError {
    /// It has no local part or no domain.
    NoAddress,
    /// There is no secret.
    NoSecret,
    /// It is of our own domain and needs no rewriting.
    NotNeeded,
    /// It was not made by this scheme.
    NotSrs,
    /// Its hash is wrong: somebody else has made it.
    Hash,
    /// It is too old.
    Age,
}

impl std::fmt::Display for SrsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoAddress => "not an address with a domain",
            Self::NoSecret => "no secret is set",
            Self::NotNeeded => "an address of our own needs no rewriting",
            Self::NotSrs => "not an SRS address",
            Self::Hash => "the hash is wrong",
            Self::Age => "the address is too old",
        })
    }
}

/// Characters of a day.
const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Days after which the count begins again.
const DAYS: u64 = 1024;

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// Between the parts of an address.
const BETWEEN: u8 = b'=';

impl Scheme {
    /// The address that stands for `sender` in mail that `domain` forwards at `now_s`, in seconds since 1970.
    ///
    /// # Errors
    /// When there is none.
    pub fn forward(&self, sender: &[u8], domain: &[u8], now_s: u64) -> Result<Vec<u8>, SrsError> {
        let secret = self.secrets.first().ok_or(SrsError::NoSecret)?;
        let (user, host) = split(sender).ok_or(SrsError::NoAddress)?;
        if !self.always && host.eq_ignore_ascii_case(domain) {
            return Err(SrsError::NotNeeded);
        }
        let local = match tag(user) {
            Some((b'0', rest)) => {
                // The separator of the other host is part of what it must get back.
                let rest = &user[user.len() - rest.len() - 1..];
                self.shortcut(secret, host, rest)
            }
            Some((_, rest)) => {
                let mut parts = rest.splitn(3, |byte| *byte == BETWEEN);
                match (parts.next(), parts.next(), parts.next()) {
                    (Some(_), Some(first), Some(rest)) if !first.is_empty() => {
                        self.shortcut(secret, first, rest)
                    }
                    _ => self.guarded(secret, user, host, now_s),
                }
            }
            None => self.guarded(secret, user, host, now_s),
        };
        Ok([&local[..], b"@", domain].concat())
    }

    fn guarded(&self, secret: &[u8], user: &[u8], host: &[u8], now_s: u64) -> Vec<u8> {
        let day = day(now_s);
        let hash = hash(secret, &[&day, host, user], self.hash_length);
        [
            b"SRS0",
            &[self.separator][..],
            &hash,
            b"=",
            &day,
            b"=",
            host,
            b"=",
            user,
        ]
        .concat()
    }

    fn shortcut(&self, secret: &[u8], host: &[u8], rest: &[u8]) -> Vec<u8> {
        let hash = hash(secret, &[host, rest], self.hash_length);
        [
            b"SRS1",
            &[self.separator][..],
            &hash,
            b"=",
            host,
            b"=",
            rest,
        ]
        .concat()
    }

    /// The address for which `address`, that came back at `now_s`, stands.
    ///
    /// # Errors
    /// When it stands for none.
    pub fn reverse(&self, address: &[u8], now_s: u64) -> Result<Vec<u8>, SrsError> {
        if self.secrets.is_empty() {
            return Err(SrsError::NoSecret);
        }
        let (user, _) = split(address).ok_or(SrsError::NoAddress)?;
        match tag(user) {
            Some((b'0', rest)) => self.reverse_guarded(rest, now_s),
            Some((_, rest)) => self.reverse_shortcut(rest),
            None => Err(SrsError::NotSrs),
        }
    }

    fn reverse_guarded(&self, rest: &[u8], now_s: u64) -> Result<Vec<u8>, SrsError> {
        let mut parts = rest.splitn(4, |byte| *byte == BETWEEN);
        let (Some(given), Some(day), Some(host), Some(user)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SrsError::NotSrs);
        };
        self.check(given, &[day, host, user])?;
        let made = day.iter().try_fold(0, |sum, digit| {
            let value = DIGITS
                .iter()
                .position(|known| known.eq_ignore_ascii_case(digit))?;
            Some(sum * 32 + value as u64)
        });
        let age = (now_s / DAY_S + DAYS - made.ok_or(SrsError::NotSrs)? % DAYS) % DAYS;
        if age > self.age_days_max {
            return Err(SrsError::Age);
        }
        Ok([user, b"@", host].concat())
    }

    fn reverse_shortcut(&self, rest: &[u8]) -> Result<Vec<u8>, SrsError> {
        let mut parts = rest.splitn(3, |byte| *byte == BETWEEN);
        let (Some(given), Some(host), Some(rest)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(SrsError::NotSrs);
        };
        self.check(given, &[host, rest])?;
        Ok([b"SRS0", rest, b"@", host].concat())
    }

    /// Other hosts may have changed the case of the hash.
    fn check(&self, given: &[u8], parts: &[&[u8]]) -> Result<(), SrsError> {
        if given.len() < self.hash_min {
            return Err(SrsError::Hash);
        }
        let good = self
            .secrets
            .iter()
            .any(|secret| hash(secret, parts, given.len()).eq_ignore_ascii_case(given));
        if good { Ok(()) } else { Err(SrsError::Hash) }
    }
}

/// Whether an address has the form of one that was rewritten.
#[must_use]
pub fn is_srs(address: &[u8]) -> bool {
    tag(address).is_some()
}

fn split(address: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memrchr(b'@', address)?;
    let (user, host) = (&address[..at], &address[at + 1..]);
    (!user.is_empty() && !host.is_empty()).then_some((user, host))
}

/// `0` or `1` and what stands behind the separator.
fn tag(user: &[u8]) -> Option<(u8, &[u8])> {
    match user {
        [s, r, t, kind @ (b'0' | b'1'), b'=' | b'+' | b'-', rest @ ..]
            if [*s, *r, *t].eq_ignore_ascii_case(b"SRS") =>
        {
            Some((*kind, rest))
        }
        _ => None,
    }
}

fn day(now_s: u64) -> [u8; 2] {
    let day = (now_s / DAY_S) % DAYS;
    [DIGITS[(day / 32) as usize], DIGITS[(day % 32) as usize]]
}

/// The start of the base 64 form of a keyed hash over the parts in lower case.
fn hash(secret: &[u8], parts: &[&[u8]], length: usize) -> Vec<u8> {
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret) else {
        unreachable!("a key of this hash can have any length")
    };
    for part in parts {
        mac.update(&part.to_ascii_lowercase());
    }
    let mut text = base64(&mac.finalize().into_bytes());
    text.truncate(length);
    text
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(bytes.len() * 4 / 3 + 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digits = [18, 12, 6, 0].map(|shift| DIGITS[(bits >> shift & 63) as usize]);
        text.extend_from_slice(&digits[..=group.len()]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheme() -> Scheme {
        Scheme {
            secrets: vec![b"tops3cr3t".to_vec(), b"older".to_vec()],
            ..Scheme::default()
        }
    }

    const NOW: u64 = 1_700_000_000;

    #[test]
    fn the_keyed_hash_is_the_standard_one() {
        // RFC 2202 test case 2.
        let hash = hash(b"Jefe", &[b"what do ya want ", b"for nothing?"], 28);
        assert_eq!(hash, b"7/zfauXrL6LSdBbV8YTfnCWafHk");
    }

    #[test]
    fn what_is_rewritten_comes_back() {
        let scheme = scheme();
        let forward = scheme
            .forward(b"joe@far.example", b"mx.example", NOW)
            .unwrap();
        let text = String::from_utf8(forward.clone()).unwrap();
        assert!(
            text.starts_with("SRS0=") && text.ends_with("=far.example=joe@mx.example"),
            "{text}"
        );
        assert_eq!(
            scheme.reverse(&forward, NOW + 20 * DAY_S).unwrap(),
            b"joe@far.example"
        );
        assert_eq!(
            scheme.reverse(&forward, NOW + 22 * DAY_S),
            Err(SrsError::Age)
        );
        assert_eq!(
            scheme.reverse(&forward.to_ascii_lowercase(), NOW).unwrap(),
            b"joe@far.example"
        );
    }

    #[test]
    fn a_second_forwarder_shortens_the_way_back() {
        let first = scheme();
        let other = Scheme {
            secrets: vec![b"of the other".to_vec()],
            ..Scheme::default()
        };
        let one = first
            .forward(b"joe@far.example", b"one.example", NOW)
            .unwrap();
        let two = other.forward(&one, b"two.example", NOW).unwrap();
        let three = scheme().forward(&two, b"three.example", NOW).unwrap();
        for (scheme, address) in [(&other, &two), (&first, &three)] {
            assert!(address.starts_with(b"SRS1="));
            assert_eq!(scheme.reverse(address, NOW).unwrap(), one);
        }
        assert_eq!(first.reverse(&one, NOW).unwrap(), b"joe@far.example");
    }

    #[test]
    fn forgeries_are_refused() {
        let scheme = scheme();
        let mut forward = scheme
            .forward(b"joe@far.example", b"mx.example", NOW)
            .unwrap();
        let at = forward.iter().position(|byte| *byte == b'j').unwrap();
        forward[at] = b'x';
        assert_eq!(scheme.reverse(&forward, NOW), Err(SrsError::Hash));
        assert_eq!(
            scheme.reverse(b"SRS0=AA=BB=far.example=joe@mx.example", NOW),
            Err(SrsError::Hash)
        );
        assert_eq!(
            scheme.reverse(b"SRS0=AAAA@mx.example", NOW),
            Err(SrsError::NotSrs)
        );
        assert_eq!(
            scheme.reverse(b"joe@mx.example", NOW),
            Err(SrsError::NotSrs)
        );
        assert_eq!(
            scheme.forward(b"joe@MX.example", b"mx.example", NOW),
            Err(SrsError::NotNeeded)
        );
        assert_eq!(
            scheme.forward(b"joe", b"mx.example", NOW),
            Err(SrsError::NoAddress)
        );
    }

    #[test]
    fn older_secrets_are_good_for_what_comes_back() {
        let old = Scheme {
            secrets: vec![b"older".to_vec()],
            ..Scheme::default()
        };
        let forward = old.forward(b"joe@far.example", b"mx.example", NOW).unwrap();
        assert_eq!(scheme().reverse(&forward, NOW).unwrap(), b"joe@far.example");
    }
}
