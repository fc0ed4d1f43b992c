//! The router of the relay core: a table of domains from the settings.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::next_hop::NextHop;
use super::{Addressee, Fate, Group, Mail, Quad, Recipient, Routed, Router, Turn};

/// A route that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRoute {
    /// Whose route it is; none: the default one.
    pub domain: Option<String>,
    /// What is wrong and what is allowed.
    pub text: String,
}

impl fmt::Display for BadRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Clone, Debug)]
enum Target {
    Deliver {
        channel: Arc<str>,
        host: Arc<str>,
    },
    /// The mailboxes of this host.
    Local,
    Error(String),
}

/// The channel of the mailboxes of this host.
const LOCAL: &str = "local";

impl Target {
    /// Parses `channel!next-hop`.
    fn parse(text: &str) -> Result<Self, String> {
        let allowed = "allowed: smtp!NEXT-HOP, lmtp!NEXT-HOP, local!, error!TEXT";
        let (channel, host) = text
            .split_once('!')
            .ok_or_else(|| format!("{text:?} is not a route; {allowed}"))?;
        match channel {
            LOCAL if host.is_empty() || host == "-" => Ok(Self::Local),
            "smtp" | "lmtp" => {
                NextHop::parse(host).map_err(|error| format!("{text:?}: {error}"))?;
                Ok(Self::Deliver {
                    channel: channel.into(),
                    host: host.into(),
                })
            }
            "error" => Ok(Self::Error(host.to_owned())),
            _ => Err(format!(
                "channel {channel:?} in {text:?} is not known; {allowed}"
            )),
        }
    }
}

/// Routes by the recipient's domain: exact, then parent domains written with a leading dot, then
/// the default.
#[derive(Clone, Debug)]
pub struct Table {
    default: Target,
    routes: HashMap<Vec<u8>, Target>,
}

impl Table {
    /// From the settings.
    ///
    /// # Errors
    /// Every route that cannot be used.
    pub fn new(default_route: &str, routes: &[(String, String)]) -> Result<Self, Vec<BadRoute>> {
        let mut bad = Vec::new();
        let mut table = Self {
            default: Target::Local,
            routes: HashMap::new(),
        };
        match Target::parse(default_route) {
            Ok(target) => table.default = target,
            Err(text) => bad.push(BadRoute { domain: None, text }),
        }
        for (domain, route) in routes {
            match Target::parse(route) {
                Ok(target) => {
                    let domain = domain.to_ascii_lowercase().into_bytes();
                    table.routes.insert(domain, target);
                }
                Err(text) => bad.push(BadRoute {
                    domain: Some(domain.clone()),
                    text,
                }),
            }
        }
        if bad.is_empty() { Ok(table) } else { Err(bad) }
    }

    /// Recipients of these domains have mailboxes on this host, unless a route says otherwise.
    #[must_use]
    pub fn with_mailboxes(mut self, domains: &[String]) -> Self {
        for domain in domains {
            let domain = domain.to_ascii_lowercase().into_bytes();
            self.routes.entry(domain).or_insert(Target::Local);
        }
        self
    }

    fn target(&self, domain: &[u8]) -> &Target {
        let domain = domain
            .strip_suffix(b".")
            .unwrap_or(domain)
            .to_ascii_lowercase();
        if let Some(target) = self.routes.get(&domain) {
            return target;
        }
        let mut rest = &domain[..];
        while let Some(dot) = rest.iter().position(|byte| *byte == b'.') {
            if let Some(target) = self.routes.get(&rest[dot..]) {
                return target;
            }
            rest = &rest[dot + 1..];
        }
        &self.default
    }
}

impl Table {
    fn fate(&self, addressee: &Addressee<'_>) -> Fate {
        let address = addressee.address;
        let at = address.iter().rposition(|byte| *byte == b'@');
        // RFC 5321 4.5.1: postmaster may come without a domain, and is then this host's own.
        let domain = at.map_or(&b"localhost"[..], |at| &address[at + 1..]);
        let (channel, host) = match self.target(domain) {
            Target::Deliver { channel, host } => (Arc::clone(channel), Arc::clone(host)),
            Target::Local => (LOCAL.into(), "-".into()),
            Target::Error(text) => {
                return Fate::Fail {
                    status: Cow::Borrowed("5.1.2"),
                    text: text.clone(),
                };
            }
        };
        Fate::Deliver(Quad {
            channel,
            host,
            user: address.to_vec(),
            privilege: None,
            notify: addressee.notify,
            orcpt: addressee.orcpt.map(<[u8]>::to_vec),
        })
    }
}

impl Router for Table {
    fn route(&mut self, mail: &Mail<'_>) -> Turn {
        let recipients = mail.recipients.iter().enumerate();
        let recipients = recipients.map(|(of, addressee)| Recipient {
            of: of as u32,
            group: 0,
            fate: self.fate(addressee),
        });
        Turn::Done(Routed {
            recipients: recipients.collect(),
            groups: vec![Group::default()],
            ..Routed::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(table: &Table, address: &str) -> String {
        let addressee = Addressee {
            address: address.as_bytes(),
            notify: 0,
            orcpt: None,
        };
        match table.fate(&addressee) {
            Fate::Deliver(quad) => quad.host.to_string(),
            Fate::Fail { text, .. } => format!("error: {text}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_closest_route_wins() {
        let routes = [
            ("a.example", "smtp!one:25"),
            (".a.example", "smtp!two:25"),
            (".example", "smtp!three:25"),
            ("closed.example", "error!closed"),
        ];
        let routes = routes.map(|(domain, route)| (domain.to_owned(), route.to_owned()));
        let table = Table::new("smtp!rest:25", &routes).unwrap();
        assert_eq!(host(&table, "u@a.example"), "one:25");
        assert_eq!(host(&table, "u@A.Example."), "one:25");
        assert_eq!(host(&table, "u@x.y.a.example"), "two:25");
        assert_eq!(host(&table, "u@b.example"), "three:25");
        assert_eq!(host(&table, "u@closed.example"), "error: closed");
        assert_eq!(host(&table, "u@test"), "rest:25");
        assert_eq!(host(&table, "postmaster"), "rest:25");
    }

    #[test]
    fn bad_routes_are_refused() {
        for route in [
            "nowhere",
            "uucp!host",
            "smtp!",
            "smtp!host:port",
            "smtp![::1",
        ] {
            assert!(Table::new(route, &[]).is_err(), "{route}");
        }
    }
}
