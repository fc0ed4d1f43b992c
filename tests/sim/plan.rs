//! What a long run is made of: its length, its next hops, the settings of its relay, and deliberate tricks.

use std::net::SocketAddr;

use zmailer::scheduler::Rule;

use super::ledger::{HOUR_NS, SECOND_NS, expiry_ns};
use super::process::Make;
use super::site::{Deeds, Site};

/// Names, connections and hours until expiry of the next hops.
const SITES: &[(&str, usize, u64)] = &[
    ("one", 1, 120),
    ("two", 2, 24),
    ("four", 4, 12),
    ("five", 5, 6),
    ("nine", 9, 24),
    ("twenty", 20, 48),
];

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub shards: usize,
    pub hours: u64,
    /// Clients that come in the run, about.
    pub clients: u64,
    /// Faults in the run, about.
    pub faults: u64,
    pub trick: Trick,
}

/// A deliberate misbehaviour of this world or its relay; the oracle has to see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trick {
    #[default]
    None,
    /// A next hop throws messages away that it said it had taken.
    PeerLoses,
    PeerRepeats,
    PeerAlters,
    /// After power cuts the disks are as they were a while before.
    DisksForget,
    /// The relay believes in one connection more than it may have.
    LimitPlusOne,
    /// The relay believes in one connection where it may have more, to next hops that are slow.
    LimitOne,
    /// The relay gives up earlier than it was told.
    ExpiresEarly,
    /// One next hop stays as it is when the faults stop.
    NoPeace,
}

/// Clients served at a time by one shard.
pub fn sessions_max(seed: u64) -> usize {
    [6, 30][seed as usize % 2]
}

/// The next hops.
pub fn sites(trick: Trick) -> Vec<Site> {
    let all = SITES.iter().enumerate();
    all.map(|(number, (name, limit, hours))| {
        let first = 10 + 2 * number as u8;
        let lmtp = *name == "four";
        // One is known by a name with two addresses.
        let count = if *name == "nine" { 2 } else { 1 };
        let addresses = (0..count).map(|at| SocketAddr::new([198, 51, 100, first + at].into(), 25));
        let domain = format!("{name}-{hours}h.example");
        let mut site = Site::new(addresses.collect(), domain, lmtp, *limit);
        site.deeds = match trick {
            Trick::PeerLoses => Deeds {
                lose: 50,
                ..Deeds::default()
            },
            Trick::PeerRepeats => Deeds {
                repeat: 50,
                ..Deeds::default()
            },
            Trick::PeerAlters => Deeds {
                alter: 50,
                ..Deeds::default()
            },
            Trick::LimitOne => Deeds {
                slow_ns: 5 * SECOND_NS,
                ..Deeds::default()
            },
            _ => Deeds::default(),
        };
        site
    })
    .collect()
}

/// The relay.
pub fn make(plan: Plan) -> Make {
    let seed = plan.seed as usize;
    let mut rules = Vec::new();
    let mut routes = Vec::new();
    for site in sites(plan.trick) {
        let host = match &site.addresses[..] {
            [address] => address.to_string(),
            _ => format!("{}:25", site.domain),
        };
        let channel = if site.lmtp { "lmtp" } else { "smtp" };
        let connections = match plan.trick {
            Trick::LimitPlusOne => site.limit + 1,
            Trick::LimitOne => 1,
            _ => site.limit,
        };
        let early = u64::from(plan.trick == Trick::ExpiresEarly) * HOUR_NS;
        rules.push(Rule {
            pattern: format!("{channel}/{host}"),
            max_connections: connections as u32,
            expiry_ms: (expiry_ns(&site.domain) - early) / 1_000_000,
            messages_per_connection: [2, 100, 10_000][seed % 3],
            ..Rule::default()
        });
        routes.push((site.domain, format!("{channel}!{host}")));
    }
    Make {
        seed: plan.seed,
        shards: plan.shards,
        memory_bytes: [64 << 10, 1 << 20][seed / 2 % 2],
        sessions_max: sessions_max(plan.seed),
        segments_max: [8, 24][seed / 3 % 2],
        rules,
        routes,
    }
}
