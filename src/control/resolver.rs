//! Names to addresses: MX by preference, then their addresses (RFC 5321 5.1).

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};

/// Exchangers of a domain that are looked at.
const EXCHANGERS_MAX: usize = 20;

/// SMTP's port.
const PORT: u16 = 25;

/// What is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A domain's MX hosts.
    Mx(String),
    /// One host's addresses.
    Host {
        /// Name.
        name: String,
        /// Port.
        port: u16,
    },
}

/// A shard's question.
#[derive(Clone, Debug)]
pub struct Question {
    /// The shard that waits.
    pub shard: u16,
    /// Comes back in the answer.
    pub token: u64,
    /// What is looked up.
    pub lookup: Lookup,
}

/// The answer: addresses, best first.
#[derive(Debug)]
pub struct Answer {
    /// Of the question.
    pub token: u64,
    /// Addresses or why there are none.
    pub result: Result<Vec<SocketAddr>, Failure>,
}

/// No addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// It will not change by waiting.
    pub permanent: bool,
    /// RFC 3463 code.
    pub status: &'static str,
    /// Why.
    pub text: String,
}

impl Failure {
    /// As a reply line.
    #[must_use]
    pub fn reply(&self) -> Vec<u8> {
        let code = if self.permanent { 550 } else { 451 };
        format!("{code} {} {}", self.status, self.text).into_bytes()
    }

    fn permanent(status: &'static str, text: String) -> Self {
        Self {
            permanent: true,
            status,
            text,
        }
    }

    fn temporary(text: String) -> Self {
        Self {
            permanent: false,
            status: "4.4.3",
            text,
        }
    }
}

/// See the module.
pub struct Resolver {
    inner: Result<TokioResolver, String>,
    hostname: String,
}

impl Resolver {
    /// With these name servers, or the system's when there are none; `hostname` is this host.
    #[must_use]
    pub fn new(servers: &[SocketAddr], hostname: &str) -> Self {
        let inner = if servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|error| error.to_string())
        } else {
            let servers = servers.iter().map(|server| {
                let mut udp = ConnectionConfig::udp();
                let mut tcp = ConnectionConfig::tcp();
                udp.port = server.port();
                tcp.port = server.port();
                NameServerConfig::new(server.ip(), true, vec![udp, tcp])
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            Ok(TokioResolver::builder_with_config(
                config,
                TokioRuntimeProvider::default(),
            ))
        };
        let inner = inner.and_then(|builder| builder.build().map_err(|error| error.to_string()));
        Self {
            inner,
            hostname: hostname.trim_end_matches('.').to_owned(),
        }
    }

    /// This host's name.
    pub(super) fn hostname(&self) -> &str {
        &self.hostname
    }

    /// The resolver, for other questions than where mail goes.
    pub(super) fn inner(&self) -> Result<&TokioResolver, &str> {
        self.inner.as_ref().map_err(String::as_str)
    }

    /// Looks up.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn resolve(&self, lookup: &Lookup) -> Result<Vec<SocketAddr>, Failure> {
        let resolver = self
            .inner
            .as_ref()
            .map_err(|text| Failure::temporary(text.clone()))?;
        match lookup {
            Lookup::Mx(domain) => mx(resolver, domain, &self.hostname).await,
            Lookup::Host { name, port } => host(resolver, name, *port).await,
        }
    }
}

async fn mx(
    resolver: &TokioResolver,
    domain: &str,
    hostname: &str,
) -> Result<Vec<SocketAddr>, Failure> {
    let absolute = format!("{}.", domain.trim_end_matches('.'));
    let hosts: Vec<(u16, String)> = match resolver.lookup(absolute.as_str(), RecordType::MX).await {
        Ok(found) => found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii())),
                _ => None,
            })
            .collect(),
        // RFC 5321 5.1: without MX the domain itself is the host.
        Err(error) if says_nothing(&error) && !error.is_nx_domain() => Vec::new(),
        Err(error) if error.is_nx_domain() => {
            return Err(Failure::permanent(
                "5.1.2",
                format!("the domain {domain} does not exist"),
            ));
        }
        Err(error) => return Err(Failure::temporary(format!("MX of {domain}: {error}"))),
    };
    if hosts.is_empty() {
        return host(resolver, domain, PORT).await;
    }
    // RFC 7505: a single "." means that the domain takes no mail.
    if hosts.iter().all(|(_, exchange)| exchange == ".") {
        return Err(Failure::permanent(
            "5.1.10",
            format!("{domain} takes no mail (null MX)"),
        ));
    }
    let hosts = better_than_us(hosts, hostname);
    if hosts.is_empty() {
        let text = format!("mail for {domain} loops back to this host");
        return Err(Failure::permanent("5.4.6", text));
    }
    let mut addresses = Vec::new();
    let mut last: Option<Failure> = None;
    for exchange in hosts.into_iter().take(EXCHANGERS_MAX) {
        match host(resolver, &exchange, PORT).await {
            Ok(found) => addresses.extend(found),
            // What may change by waiting is the better reason.
            Err(failure) if last.as_ref().is_none_or(|last| last.permanent) => last = Some(failure),
            Err(_) => {}
        }
    }
    match last {
        // RFC 5321 5.1: MX records without a usable host are an error.
        Some(failure) if addresses.is_empty() => Err(failure),
        _ => Ok(addresses),
    }
}

/// Exchangers by preference, in random order where it is the same; without this host and those
/// that are not better (RFC 5321 5.1).
fn better_than_us(hosts: Vec<(u16, String)>, hostname: &str) -> Vec<String> {
    let is_us = |exchange: &str| {
        exchange
            .trim_end_matches('.')
            .eq_ignore_ascii_case(hostname)
    };
    let ours = hosts.iter().filter(|(_, exchange)| is_us(exchange));
    let limit = ours.map(|(preference, _)| *preference).min();
    let draw = RandomState::new();
    let mut hosts: Vec<(u16, u64, String)> = hosts
        .into_iter()
        .filter(|(preference, exchange)| {
            exchange != "." && limit.is_none_or(|limit| *preference < limit)
        })
        .map(|(preference, exchange)| (preference, draw.hash_one(&exchange), exchange))
        .collect();
    hosts.sort();
    hosts.into_iter().map(|(_, _, exchange)| exchange).collect()
}

/// The server knows the name and says that it has no such record. A server that fails or refuses
/// says nothing about the name.
pub(super) fn says_nothing(error: &NetError) -> bool {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            matches!(
                none.response_code,
                ResponseCode::NoError | ResponseCode::NXDomain
            )
        }
        _ => false,
    }
}

async fn host(resolver: &TokioResolver, name: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let absolute = format!("{}.", name.trim_end_matches('.'));
    match resolver.lookup_ip(absolute.as_str()).await {
        Ok(found) => {
            let addresses: Vec<IpAddr> = found.iter().collect();
            Ok(addresses
                .into_iter()
                .map(|address| SocketAddr::new(address, port))
                .collect())
        }
        Err(error) if says_nothing(&error) => Err(Failure::permanent(
            "5.4.4",
            format!("the host {name} has no address"),
        )),
        Err(error) => Err(Failure::temporary(format!("address of {name}: {error}"))),
    }
}
