//! Reverse and forward paths (RFC 5321 4.1.2).

/// Limits of RFC 5321 4.5.3.1.
const LOCAL_BYTES_MAX: usize = 64;
const DOMAIN_BYTES_MAX: usize = 255;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It does not follow the grammar.
    Syntax,
    /// A part is longer than the limit.
    TooLong,
    /// It holds 8-bit bytes and SMTPUTF8 was not given.
    EightBit,
}

/// A path in angle brackets and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    /// The address without brackets and source route; empty: the null path.
    pub address: &'a [u8],
    /// What follows the bracket.
    pub rest: &'a [u8],
}

/// Takes a path off the start of `text`. A source route is accepted and dropped (RFC 5321 4.1.1.3).
///
/// # Errors
/// See [`PathError`]; 8-bit addresses are judged by [`check`].
pub fn take(text: &[u8]) -> Result<Path<'_>, PathError> {
    let inner = text.strip_prefix(b"<").ok_or(PathError::Syntax)?;
    let end = bracket(inner).ok_or(PathError::Syntax)?;
    let (address, rest) = inner.split_at_checked(end).ok_or(PathError::Syntax)?;
    let rest = rest.get(1..).unwrap_or_default();
    if !rest.is_empty() && !rest.starts_with(b" ") {
        return Err(PathError::Syntax);
    }
    Ok(Path {
        address: without_route(address)?,
        rest,
    })
}

/// The position of the closing bracket, quoted ones left aside.
fn bracket(text: &[u8]) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn without_route(address: &[u8]) -> Result<&[u8], PathError> {
    if !address.starts_with(b"@") {
        return Ok(address);
    }
    let colon = address
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(PathError::Syntax)?;
    let (route, rest) = address.split_at_checked(colon).ok_or(PathError::Syntax)?;
    let good = route.split(|byte| *byte == b',').all(|hop| {
        hop.strip_prefix(b"@")
            .is_some_and(|domain| check_domain(domain, true).is_ok())
    });
    if good {
        rest.get(1..).ok_or(PathError::Syntax)
    } else {
        Err(PathError::Syntax)
    }
}

/// Checks an address that is not null. `<Postmaster>` without a domain is one (RFC 5321 4.1.1.3).
///
/// # Errors
/// See [`PathError`].
pub fn check(address: &[u8], utf8: bool) -> Result<(), PathError> {
    if address.eq_ignore_ascii_case(b"postmaster") {
        return Ok(());
    }
    let at = split(address).ok_or(PathError::Syntax)?;
    let (local, domain) = address.split_at_checked(at).ok_or(PathError::Syntax)?;
    let domain = domain.get(1..).unwrap_or_default();
    if local.len() > LOCAL_BYTES_MAX || domain.len() > DOMAIN_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    if !address.is_ascii() && (!utf8 || core::str::from_utf8(address).is_err()) {
        return Err(PathError::EightBit);
    }
    check_local(local, utf8)?;
    check_domain(domain, utf8)
}

/// The position of the `@` between local part and domain.
fn split(address: &[u8]) -> Option<usize> {
    if !address.starts_with(b"\"") {
        return address.iter().position(|byte| *byte == b'@');
    }
    let mut escaped = false;
    for (at, byte) in address.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return (address.get(at + 1) == Some(&b'@')).then_some(at + 1),
            _ => {}
        }
    }
    None
}

/// The domain of an address; empty when it has none.
#[must_use]
pub fn domain(address: &[u8]) -> &[u8] {
    split(address)
        .and_then(|at| address.get(at + 1..))
        .unwrap_or_default()
}

fn check_local(local: &[u8], utf8: bool) -> Result<(), PathError> {
    if let Some(inner) = local
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
    {
        let good = inner
            .iter()
            .all(|byte| (0x20..0x7f).contains(byte) || (utf8 && *byte >= 0x80));
        return if good { Ok(()) } else { Err(PathError::Syntax) };
    }
    let good = local.split(|byte| *byte == b'.').all(|atom| {
        !atom.is_empty()
            && atom
                .iter()
                .all(|byte| is_atom(*byte) || (utf8 && *byte >= 0x80))
    });
    if good { Ok(()) } else { Err(PathError::Syntax) }
}

fn is_atom(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn check_domain(domain: &[u8], utf8: bool) -> Result<(), PathError> {
    if let Some(literal) = domain
        .strip_prefix(b"[")
        .and_then(|rest| rest.strip_suffix(b"]"))
    {
        return if is_literal(literal) {
            Ok(())
        } else {
            Err(PathError::Syntax)
        };
    }
    let good = domain.split(|byte| *byte == b'.').all(|label| {
        !label.is_empty()
            && !label.starts_with(b"-")
            && !label.ends_with(b"-")
            && label.iter().all(|byte| {
                // The underscore is not in the grammar, and in use.
                byte.is_ascii_alphanumeric() || b"-_".contains(byte) || (utf8 && *byte >= 0x80)
            })
    });
    if good { Ok(()) } else { Err(PathError::Syntax) }
}

fn is_literal(text: &[u8]) -> bool {
    let Ok(text) = core::str::from_utf8(text) else {
        return false;
    };
    match text.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => text
            .get(5..)
            .is_some_and(|rest| rest.parse::<core::net::Ipv6Addr>().is_ok()),
        _ => text.parse::<core::net::Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_by_the_grammar() {
        const GOOD: &[(&str, &str)] = &[
            ("<>", ""),
            ("<a@b.example>", "a@b.example"),
            ("<@x.example,@y.example:a@b.example>", "a@b.example"),
            ("<\"a>b\"@c.example>", "\"a>b\"@c.example"),
            ("<a@b.example> SIZE=1", "a@b.example"),
        ];
        for (text, address) in GOOD {
            assert_eq!(
                take(text.as_bytes()).map(|path| path.address),
                Ok(address.as_bytes()),
                "{text}"
            );
        }
        for text in [
            "a@b.example",
            "<a@b.example",
            "<a@b.example>x",
            "<@x.example a@b>",
            "",
        ] {
            assert_eq!(take(text.as_bytes()), Err(PathError::Syntax), "{text}");
        }
    }

    #[test]
    fn addresses_are_checked() {
        let long = format!("{}@b.example", "l".repeat(65));
        let cases: &[(&str, bool, Result<(), PathError>)] = &[
            ("a@b.example", false, Ok(())),
            ("Postmaster", false, Ok(())),
            ("\"a b\"@c.example", false, Ok(())),
            ("a@[127.0.0.1]", false, Ok(())),
            ("a@[IPv6:::1]", false, Ok(())),
            ("a@[1.2.3]", false, Err(PathError::Syntax)),
            ("a", false, Err(PathError::Syntax)),
            ("a@", false, Err(PathError::Syntax)),
            ("@b.example", false, Err(PathError::Syntax)),
            ("a..b@c.example", false, Err(PathError::Syntax)),
            ("a@b..example", false, Err(PathError::Syntax)),
            ("a@b@c.example", false, Err(PathError::Syntax)),
            ("a b@c.example", false, Err(PathError::Syntax)),
            (&long, false, Err(PathError::TooLong)),
            ("\u{e4}@b.example", false, Err(PathError::EightBit)),
            ("\u{e4}@b.example", true, Ok(())),
        ];
        for (address, utf8, expected) in cases {
            assert_eq!(check(address.as_bytes(), *utf8), *expected, "{address}");
        }
    }

    #[test]
    fn the_domain_is_behind_the_right_at() {
        assert_eq!(domain(b"\"a@b\"@c.example"), b"c.example");
        assert_eq!(domain(b"postmaster"), b"");
    }
}
