//! Which addresses are ours: those of the interfaces, those of the loopback network, and those that the
//! operator names because a balancer or a translation stands before us.

use std::net::IpAddr;

use crate::sys::interfaces;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses {
    /// Named by the operator.
    named: Vec<IpAddr>,
}

impl OwnAddresses {
    /// With addresses that the operator names, besides those of the interfaces as they are at each question.
    #[must_use]
    pub fn new(named: Vec<IpAddr>) -> Self {
        Self { named }
    }

    /// What `selfmatch` finds: `1` ours, `2` the loopback network, `3` an address nobody can have.
    #[must_use]
    pub fn find(&self, key: &[u8]) -> Option<&'static str> {
        self.judge(parse(key)?.to_canonical())
    }

    /// Whether one of these is ours.
    #[must_use]
    pub fn any(&self, addresses: &[IpAddr]) -> bool {
        let mut addresses = addresses.iter();
        addresses.any(|address| self.judge(address.to_canonical()).is_some())
    }

    fn judge(&self, address: IpAddr) -> Option<&'static str> {
        if let IpAddr::V4(v4) = address {
            match v4.octets()[0] {
                127 => return Some("2"),
                0 | 224.. => return Some("3"),
                _ => {}
            }
        } else if address.is_loopback() {
            return Some("2");
        }
        let ours = self.named.contains(&address) || interfaces::addresses().contains(&address);
        ours.then_some("1")
    }
}

/// An address as it stands in an address literal, with or without brackets.
fn parse(key: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(key).ok()?;
    let text = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    match text.get(..4) {
        // RFC 5321 4.1.3 has a colon; older addresses have others.
        Some(word) if word.eq_ignore_ascii_case("ipv6") => {
            let rest = text[4..].strip_prefix([':', ' ', '.'])?;
            rest.parse().ok().map(IpAddr::V6)
        }
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_and_others() {
        let own = OwnAddresses::default();
        let named = OwnAddresses::new(vec![
            "192.0.2.1".parse().unwrap(),
            "2001:db8::1".parse().unwrap(),
        ]);
        let rows = [
            ("127.0.0.1", Some("2"), Some("2")),
            ("[127.9.9.9]", Some("2"), Some("2")),
            ("::1", Some("2"), Some("2")),
            ("0.0.0.0", Some("3"), Some("3")),
            ("239.1.1.1", Some("3"), Some("3")),
            ("192.0.2.77", None, None),
            ("192.0.2.1", None, Some("1")),
            ("[IPv6:2001:db8::1]", None, Some("1")),
            ("IPv6 2001:db8::1", None, Some("1")),
            ("IPv6.::ffff:192.0.2.1", None, Some("1")),
            ("IPv6:192.0.2.1", None, None),
            ("junk", None, None),
            ("ipv", None, None),
            ("", None, None),
        ];
        for (key, alone, with) in rows {
            assert_eq!(own.find(key.as_bytes()), alone, "{key}");
            assert_eq!(named.find(key.as_bytes()), with, "{key}");
        }
    }
}
