//! Next hops: what stands behind `smtp!`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// A domain: its MX hosts.
    Mx(String),
    /// This host's addresses, without MX.
    Host {
        /// Its name.
        name: String,
        /// Port.
        port: u16,
    },
    /// This address.
    Address(SocketAddr),
    /// A socket of this host.
    Local(PathBuf),
}

/// SMTP's port.
const PORT: u16 = 25;

/// Not a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadNextHop(String);

impl fmt::Display for BadNextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "next hop {:?} is not one; allowed: example.org (its MX), host:port, [host], [host]:port, \
             1.2.3.4, [1.2.3.4]:port, [IPv6], [IPv6]:port, unix:/path",
            self.0
        )
    }
}

impl NextHop {
    /// Parses the forms of the interface: a bare domain means MX; `host:port`, `[host]`,
    /// `[host]:port` and address literals mean that address only.
    ///
    /// # Errors
    /// When the text has none of the forms.
    pub fn parse(text: &str) -> Result<Self, BadNextHop> {
        Self::try_parse(text).ok_or_else(|| BadNextHop(text.to_owned()))
    }

    fn try_parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return path.starts_with('/').then(|| Self::Local(path.into()));
        }
        if let Some(inner) = text.strip_prefix('[') {
            let (host, port) = inner.split_once(']')?;
            let port = match port {
                "" => PORT,
                port => parse_port(port.strip_prefix(':')?)?,
            };
            return Self::at(host, port);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Address(SocketAddr::new(address, PORT)));
        }
        match text.rsplit_once(':') {
            Some((host, port)) => Self::at(host, parse_port(port)?),
            None => is_name(text).then(|| Self::Mx(text.to_ascii_lowercase())),
        }
    }

    fn at(host: &str, port: u16) -> Option<Self> {
        let plain = host
            .strip_prefix("IPv6:")
            .or(host.strip_prefix("ipv6:"))
            .unwrap_or(host);
        let address = plain
            .parse::<Ipv4Addr>()
            .map(IpAddr::V4)
            .or_else(|_| plain.parse::<Ipv6Addr>().map(IpAddr::V6));
        match address {
            Ok(address) => Some(Self::Address(SocketAddr::new(address, port))),
            Err(_) => is_name(host).then(|| Self::Host {
                name: host.to_ascii_lowercase(),
                port,
            }),
        }
    }
}

fn parse_port(text: &str) -> Option<u16> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
        .filter(|port| *port > 0)
}

fn is_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let numeric = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    !numeric
        && text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_understood() {
        let host = |name: &str, port| NextHop::Host {
            name: name.to_owned(),
            port,
        };
        let address = |text: &str| NextHop::Address(text.parse().unwrap());
        let cases = [
            ("Example.org", NextHop::Mx("example.org".to_owned())),
            ("mx.example.org:2525", host("mx.example.org", 2525)),
            ("[mx.example.org]", host("mx.example.org", 25)),
            ("[mx.example.org]:26", host("mx.example.org", 26)),
            ("127.0.0.1", address("127.0.0.1:25")),
            ("127.0.0.1:2600", address("127.0.0.1:2600")),
            ("[127.0.0.1]:2600", address("127.0.0.1:2600")),
            ("[2001:db8::1]", address("[2001:db8::1]:25")),
            ("[2001:db8::1]:26", address("[2001:db8::1]:26")),
            ("[IPv6:2001:db8::1]:26", address("[2001:db8::1]:26")),
            ("2001:db8::1", address("[2001:db8::1]:25")),
            ("unix:/run/lmtp", NextHop::Local("/run/lmtp".into())),
        ];
        for (text, expected) in cases {
            assert_eq!(NextHop::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "a b",
            "host:",
            "host:0",
            "host:99999",
            "[::1",
            "[::1]26",
            "1.2.3",
            "-:x",
            "a..b",
            "unix:run/lmtp",
        ] {
            assert!(NextHop::parse(text).is_err(), "{text}");
        }
    }
}
