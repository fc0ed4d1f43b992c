//! `bind`: what name servers say, in the form in which scripts expect it.
//!
//! A name that does not exist is missing. A server that fails, refuses or does not answer says nothing:
//! that is a temporary failure, `NS:name/type`.

use std::net::IpAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use super::own::OwnAddresses;
use crate::control::resolver::{Resolver, says_nothing};
use crate::router::relation::{Record, Reply};

/// Exchangers that are looked at.
const EXCHANGERS_MAX: usize = 20;

/// Answers one question.
pub(super) async fn answer(
    resolver: &Resolver,
    own: &OwnAddresses,
    record: Record,
    name: &[u8],
) -> Reply {
    let text = String::from_utf8_lossy(name);
    let later = || Reply::Later(format!("NS:{text}/{}", record.name()).into_bytes());
    // Such a name is in no zone that mail could use.
    let odd = |byte: u8| byte.is_ascii() && !byte.is_ascii_graphic() || b"\"\\".contains(&byte);
    let bare = match record {
        Record::Ptr => text.trim_start_matches('[').trim_end_matches(']'),
        _ => &*text,
    };
    let Some(bare) = Some(bare)
        .filter(|_| !name.iter().any(|byte| odd(*byte)))
        .and_then(ascii)
    else {
        return Reply::Missing(None);
    };
    let Ok(inner) = resolver.inner() else {
        return later();
    };
    let asked = Asked {
        inner,
        name: &bare,
        hostname: resolver.hostname(),
        own,
    };
    let result = match record {
        Record::A => asked.addresses(RecordType::A).await,
        Record::Aaaa => asked.addresses(RecordType::AAAA).await,
        Record::Any => asked.any().await,
        Record::Cname => asked.cname().await,
        Record::Mx | Record::MxWks => asked.exchangers().await,
        Record::MxLocal => asked.is_exchanger().await,
        Record::Ptr => asked.pointer().await,
        Record::Txt | Record::Uinfo => asked.text().await,
        // Nobody publishes these any more, and their absence never meant that mail is not taken.
        Record::Wks => Ok(Reply::Text(name.to_vec(), None)),
    };
    result.unwrap_or_else(|Silence| later())
}

/// The form of a name that name servers know: that of RFC 5891 for one with other letters. None: it is no name.
fn ascii(name: &str) -> Option<String> {
    if name.is_ascii() {
        return Name::from_ascii(name).ok().map(|_| name.to_owned());
    }
    Name::from_utf8(name).ok().map(|name| name.to_ascii())
}

/// Nobody said anything about the name.
struct Silence;

struct Asked<'a> {
    inner: &'a TokioResolver,
    name: &'a str,
    hostname: &'a str,
    own: &'a OwnAddresses,
}

impl Asked<'_> {
    /// Records of a type; none: there is no such name, or it has none.
    async fn records(&self, name: &str, kind: RecordType) -> Result<Found, Silence> {
        match self.inner.lookup(name, kind).await {
            Ok(lookup) => Ok(Found::Records(lookup)),
            Err(error) if !says_nothing(&error) => Err(Silence),
            Err(error) if error.is_nx_domain() => Ok(Found::NoName(absence_s(&error))),
            Err(error) => Ok(Found::NoRecords(absence_s(&error))),
        }
    }

    async fn addresses(&self, kind: RecordType) -> Result<Reply, Silence> {
        let lookup = match self.records(self.name, kind).await? {
            Found::Records(lookup) => lookup,
            Found::NoName(ttl) | Found::NoRecords(ttl) => return Ok(Reply::Missing(ttl)),
        };
        let addresses = addresses_in(&lookup);
        let texts = addresses
            .iter()
            .map(|address| address.to_string().into_bytes());
        Ok(list(texts.collect(), &lookup))
    }

    /// The name when there is something of that name, its canonical name when it is an alias.
    async fn any(&self) -> Result<Reply, Silence> {
        let mut least = None;
        for kind in [RecordType::A, RecordType::AAAA, RecordType::MX] {
            match self.records(self.name, kind).await? {
                Found::Records(lookup) => {
                    let canonical = canonical_in(&lookup).or_else(|| self.completed(&lookup));
                    let name = canonical.unwrap_or_else(|| self.name.to_owned());
                    return Ok(Reply::Text(name.into_bytes(), Some(ttl_of(&lookup))));
                }
                Found::NoName(ttl) => return Ok(Reply::Missing(ttl)),
                Found::NoRecords(ttl) => least = least.into_iter().chain(ttl).min(),
            }
        }
        Ok(Reply::Missing(least))
    }

    /// The whole name when the search list has completed it.
    fn completed(&self, lookup: &Lookup) -> Option<String> {
        let whole = plain(&lookup.query().name);
        let same = whole.eq_ignore_ascii_case(self.name.trim_end_matches('.'));
        (!same).then_some(whole)
    }

    async fn cname(&self) -> Result<Reply, Silence> {
        let lookup = match self.records(self.name, RecordType::CNAME).await? {
            Found::NoName(ttl) => return Ok(Reply::Missing(ttl)),
            Found::NoRecords(ttl) => {
                return Ok(Reply::Text(self.name.as_bytes().to_vec(), ttl));
            }
            Found::Records(lookup) => lookup,
        };
        let name = canonical_in(&lookup).unwrap_or_else(|| self.name.to_owned());
        Ok(Reply::Text(name.into_bytes(), Some(ttl_of(&lookup))))
    }

    /// Exchangers, best first; without ourselves and those that are not better (RFC 5321 5.1).
    async fn exchangers(&self) -> Result<Reply, Silence> {
        let lookup = match self.records(self.name, RecordType::MX).await? {
            Found::Records(lookup) => lookup,
            Found::NoName(ttl) | Found::NoRecords(ttl) => return Ok(Reply::Missing(ttl)),
        };
        let all = exchangers_in(&lookup);
        let limit = all
            .iter()
            .find(|(_, name)| self.is_us(name))
            .map(|(preference, _)| *preference);
        let better = all
            .into_iter()
            .filter(|(preference, _)| limit.is_none_or(|limit| *preference < limit));
        let names: Vec<Vec<u8>> = better.map(|(_, name)| name.into_bytes()).collect();
        Ok(list(names, &lookup))
    }

    /// The name when no exchanger is better than this host.
    async fn is_exchanger(&self) -> Result<Reply, Silence> {
        let lookup = match self.records(self.name, RecordType::MX).await? {
            Found::Records(lookup) => lookup,
            Found::NoName(ttl) | Found::NoRecords(ttl) => return Ok(Reply::Missing(ttl)),
        };
        let all = exchangers_in(&lookup);
        let best = all.first().map(|(preference, _)| *preference);
        let mut silent = false;
        for (_, name) in all
            .iter()
            .filter(|(preference, _)| Some(*preference) == best)
        {
            if self.is_us(name) {
                let name = self.name.as_bytes().to_vec();
                return Ok(Reply::Text(name, Some(ttl_of(&lookup))));
            }
            let absolute = format!("{name}.");
            for kind in [RecordType::A, RecordType::AAAA] {
                match self.records(&absolute, kind).await {
                    Ok(Found::Records(found)) if self.own.any(&addresses_in(&found)) => {
                        let name = self.name.as_bytes().to_vec();
                        return Ok(Reply::Text(name, Some(ttl_of(&lookup))));
                    }
                    Ok(_) => {}
                    Err(Silence) => silent = true,
                }
            }
        }
        if silent {
            return Err(Silence);
        }
        Ok(Reply::Missing(Some(ttl_of(&lookup))))
    }

    fn is_us(&self, name: &str) -> bool {
        name.eq_ignore_ascii_case(self.hostname)
    }

    /// The name of an address, which is written as it is or as its name below `arpa`.
    async fn pointer(&self) -> Result<Reply, Silence> {
        let name = match self.name.parse::<IpAddr>() {
            Ok(address) => Name::from(address).to_ascii(),
            Err(_) => self.name.to_owned(),
        };
        let lookup = match self.records(&name, RecordType::PTR).await? {
            Found::Records(lookup) => lookup,
            Found::NoName(ttl) | Found::NoRecords(ttl) => return Ok(Reply::Missing(ttl)),
        };
        let mut names = lookup
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::PTR(name) => Some(plain(&name.0)),
                _ => None,
            });
        let ttl = Some(ttl_of(&lookup));
        Ok(names.next().map_or(Reply::Missing(ttl), |name| {
            Reply::Text(name.into_bytes(), ttl)
        }))
    }

    async fn text(&self) -> Result<Reply, Silence> {
        let lookup = match self.records(self.name, RecordType::TXT).await? {
            Found::Records(lookup) => lookup,
            Found::NoName(ttl) | Found::NoRecords(ttl) => return Ok(Reply::Missing(ttl)),
        };
        let mut texts = lookup
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::TXT(text) => text.txt_data.first().map(|text| text.to_vec()),
                _ => None,
            });
        let ttl = Some(ttl_of(&lookup));
        Ok(texts
            .next()
            .map_or(Reply::Missing(ttl), |text| Reply::Text(text, ttl)))
    }
}

/// The absence counts for so many seconds, where the zone says (RFC 2308 5).
enum Found {
    Records(Lookup),
    NoRecords(Option<u64>),
    NoName(Option<u64>),
}

fn absence_s(error: &NetError) -> Option<u64> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => none.negative_ttl.map(u64::from),
        _ => None,
    }
}

fn list(texts: Vec<Vec<u8>>, lookup: &Lookup) -> Reply {
    let ttl = Some(ttl_of(lookup));
    if texts.is_empty() {
        Reply::Missing(ttl)
    } else {
        Reply::List(texts, ttl)
    }
}

/// Seconds for which all of the answer counts.
fn ttl_of(lookup: &Lookup) -> u64 {
    let ttls = lookup.answers().iter().map(|record| u64::from(record.ttl));
    ttls.min().unwrap_or(0)
}

/// Where a chain of aliases ends, in whatever order its links stand.
fn canonical_in(lookup: &Lookup) -> Option<String> {
    let mut name = &lookup.query().name;
    let mut found = None;
    // A chain has at most as many links as there are records; a ring ends here too.
    for _ in lookup.answers() {
        let mut links = lookup.answers().iter();
        let link = links.find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *name => Some(&target.0),
            _ => None,
        });
        let Some(target) = link else { break };
        name = target;
        found = Some(plain(target));
    }
    found
}

fn addresses_in(lookup: &Lookup) -> Vec<IpAddr> {
    let records = lookup.answers().iter();
    let addresses = records.filter_map(|record| match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    });
    addresses.collect()
}

/// By preference; the root as exchanger means that no mail is taken (RFC 7505).
fn exchangers_in(lookup: &Lookup) -> Vec<(u16, String)> {
    let records = lookup.answers().iter();
    let exchangers = records.filter_map(|record| match &record.data {
        RData::MX(mx) if !mx.exchange.is_root() => Some((mx.preference, plain(&mx.exchange))),
        _ => None,
    });
    let mut exchangers: Vec<_> = exchangers.collect();
    exchangers.sort();
    exchangers.truncate(EXCHANGERS_MAX);
    exchangers
}

/// A name without the dot at its end.
fn plain(name: &Name) -> String {
    let text = name.to_ascii();
    text.trim_end_matches('.').to_owned()
}
