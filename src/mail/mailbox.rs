//! Names of mailboxes: which users can have one, and where it is.

use std::path::PathBuf;

/// Longest user name; RFC 5321 4.5.3.1.1.
const USER_BYTES_MAX: usize = 64;

/// The user and the domain of an address of this host, the user in lower case. None: nobody can have
/// a mailbox of that name, since it could name another file or another user's.
#[must_use]
pub fn user_and_domain(address: &[u8]) -> Option<(String, String)> {
    let at = memchr::memrchr(b'@', address).unwrap_or(address.len());
    let (user, domain) = address.split_at_checked(at)?;
    let domain = domain.get(1..).unwrap_or_default();
    let domain = domain.strip_suffix(b".").unwrap_or(domain);
    let user = std::str::from_utf8(user).ok()?.to_ascii_lowercase();
    let domain = std::str::from_utf8(domain).ok()?.to_ascii_lowercase();
    (is_safe(&user) && (domain.is_empty() || is_safe(&domain))).then_some((user, domain))
}

/// Whether a name stays one component of a path and is no option, hidden file or way upwards.
fn is_safe(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+=-".contains(&byte);
    let first_plain = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    name.len() <= USER_BYTES_MAX.max(255) && first_plain && name.bytes().all(plain)
}

/// The name before the first `+`, if there is one: mail for `joe+list` is for `joe` unless there is
/// a `joe+list`.
#[must_use]
pub fn without_detail(user: &str) -> Option<&str> {
    user.split_once('+')
        .map(|(base, _)| base)
        .filter(|base| !base.is_empty())
}

/// Where the mailbox is: `{user}`, `{domain}` and `{home}` of the template filled in.
#[must_use]
pub fn path(template: &str, user: &str, domain: &str, home: &str) -> PathBuf {
    template
        .replace("{user}", user)
        .replace("{domain}", domain)
        .replace("{home}", home)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_stay_where_they_belong() {
        let named = |user: &str, domain: &str| Some((user.to_owned(), domain.to_owned()));
        let cases: &[(&str, Option<(String, String)>)] = &[
            ("Joe@Example.ORG.", named("joe", "example.org")),
            ("joe+tag@x", named("joe+tag", "x")),
            ("postmaster", named("postmaster", "")),
            ("../etc@x", None),
            ("a/b@x", None),
            (".hidden@x", None),
            ("-rf@x", None),
            ("@x", None),
            ("\"a b\"@x", None),
            ("joe@../x", None),
            ("jo\u{e9}@x", None),
        ];
        for (address, expected) in cases {
            assert_eq!(user_and_domain(address.as_bytes()), *expected, "{address}");
        }
        assert_eq!(without_detail("joe+tag"), Some("joe"));
        assert_eq!(without_detail("joe"), None);
    }
}
