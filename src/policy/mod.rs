//! Who may send to whom. Trusted networks may relay; everybody else reaches local domains only.

pub mod network;

use std::net::IpAddr;

use network::Network;

/// A judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Accept,
    /// Refuse with this reply line.
    Reject(&'static str),
    /// Go on if there is such a user here.
    IfKnown,
}

const NO_RELAY: Decision = Decision::Reject("550 5.7.1 relaying denied");

/// The policy of one listener.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    trusted: Vec<Network>,
    /// Lower case; with a leading dot: all below it.
    local_domains: Vec<Vec<u8>>,
    /// Those of them whose recipients have mailboxes on this host.
    mailbox_domains: Vec<Vec<u8>>,
    /// Trusted clients submit.
    submission: bool,
}

impl Policy {
    /// From the settings.
    #[must_use]
    pub fn new(trusted: Vec<Network>, local_domains: &[String]) -> Self {
        let local_domains = local_domains
            .iter()
            .map(|domain| domain.to_ascii_lowercase().into_bytes())
            .collect();
        Self {
            trusted,
            local_domains,
            mailbox_domains: Vec::new(),
            submission: false,
        }
    }

    /// Trusted clients submit their mail (RFC 6409), or pass on that of others.
    #[must_use]
    pub fn with_submission(mut self, submission: bool) -> Self {
        self.submission = submission;
        self
    }

    /// Does `client` submit what it sends?
    #[must_use]
    pub fn is_submission(&self, client: IpAddr) -> bool {
        self.submission && self.is_trusted(client)
    }

    fn is_trusted(&self, client: IpAddr) -> bool {
        // A mapped address would match no IPv4 network: one form for every test.
        let client = client.to_canonical();
        self.trusted.iter().any(|network| network.contains(client))
    }

    /// Recipients of these local domains must be users of this host.
    #[must_use]
    pub fn with_mailboxes(mut self, domains: &[String]) -> Self {
        let domains = domains
            .iter()
            .map(|domain| domain.to_ascii_lowercase().into_bytes());
        self.mailbox_domains = domains.collect();
        self
    }

    /// May `client` send to `address`?
    #[must_use]
    pub fn recipient(&self, client: IpAddr, address: &[u8]) -> Decision {
        if !self.is_trusted(client) && !is_within(address, &self.local_domains) {
            NO_RELAY
        } else if !self.mailbox_domains.is_empty() && is_within(address, &self.mailbox_domains) {
            Decision::IfKnown
        } else {
            Decision::Accept
        }
    }
}

/// RFC 5321 4.5.1: postmaster without a domain is always local. An address whose local part
/// routes further (`user%other@local`, `other!user@local`) is not: the next hop may obey it.
fn is_within(address: &[u8], domains: &[Vec<u8>]) -> bool {
    if address.eq_ignore_ascii_case(b"postmaster") {
        return true;
    }
    let Some(at) = address.iter().rposition(|byte| *byte == b'@') else {
        return false;
    };
    let (local_part, domain) = (&address[..at], &address[at + 1..]);
    if local_part.iter().any(|byte| b"%!@".contains(byte)) {
        return false;
    }
    let domain = domain
        .strip_suffix(b".")
        .unwrap_or(domain)
        .to_ascii_lowercase();
    domains.iter().any(|local| {
        if local.starts_with(b".") {
            domain.ends_with(local)
        } else {
            domain == *local
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        let networks = ["127.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().unwrap());
        Policy::new(
            networks.to_vec(),
            &["local.example".to_owned(), ".sub.example".to_owned()],
        )
    }

    #[test]
    fn trusted_clients_relay_in_every_spelling_of_their_address() {
        for client in ["127.9.9.9", "::ffff:127.0.0.1", "2001:db8::5"] {
            let decision = policy().recipient(client.parse().unwrap(), b"x@elsewhere.example");
            assert_eq!(decision, Decision::Accept, "{client}");
        }
    }

    #[test]
    fn only_trusted_clients_submit_and_only_where_they_may() {
        let submits = |policy: &Policy, client: &str| policy.is_submission(client.parse().unwrap());
        let policy = policy().with_submission(true);
        assert!(submits(&policy, "127.0.0.1") && submits(&policy, "::ffff:127.0.0.1"));
        assert!(!submits(&policy, "192.0.2.1"));
        assert!(!submits(&policy.with_submission(false), "127.0.0.1"));
    }

    #[test]
    fn strangers_reach_local_domains_only() {
        let cases: &[(&str, Decision)] = &[
            ("x@local.example", Decision::Accept),
            ("x@LOCAL.example.", Decision::Accept),
            ("x@a.sub.example", Decision::Accept),
            ("Postmaster", Decision::Accept),
            ("x@sub.example", NO_RELAY),
            ("x@elsewhere.example", NO_RELAY),
            ("x@notlocal.example", NO_RELAY),
            ("x%elsewhere.example@local.example", NO_RELAY),
            ("elsewhere.example!x@local.example", NO_RELAY),
            ("\"x@elsewhere.example\"@local.example", NO_RELAY),
            ("x@[127.0.0.1]", NO_RELAY),
            ("x", NO_RELAY),
        ];
        for client in ["192.0.2.1", "::1", "::ffff:192.0.2.1"] {
            for (address, expected) in cases {
                let decision = policy().recipient(client.parse().unwrap(), address.as_bytes());
                assert_eq!(decision, *expected, "{client} {address}");
            }
        }
    }
}
