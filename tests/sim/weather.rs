//! What happens to a relay in the long runs, and when: seeded faults of power, disk, network and peers.

use spool::sim::Rng;

use super::ledger::{HOUR_NS, SECOND_NS};

/// A disturbance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The power is cut, or the process killed; it is down for a while.
    PowerCut,
    Killed,
    /// A stop in order.
    Stopped,
    /// Some writes or syncs fail.
    DiskErrors,
    /// All of them fail for a while.
    DiskBroken,
    DiskFull,
    DiskSlow,
    ReadErrors,
    /// The mail log cannot be written.
    LogFails,
    /// Latency of the network changes.
    Network,
    /// A next hop changes its mind; most likely it had been good.
    Peer,
}

/// By weight.
const ALL: &[(Fault, u64)] = &[
    (Fault::PowerCut, 6),
    (Fault::Killed, 3),
    (Fault::Stopped, 6),
    (Fault::DiskErrors, 8),
    (Fault::DiskBroken, 3),
    (Fault::DiskFull, 3),
    (Fault::DiskSlow, 4),
    (Fault::ReadErrors, 4),
    (Fault::LogFails, 2),
    (Fault::Network, 6),
    (Fault::Peer, 60),
];

/// See the module.
#[derive(Debug)]
pub struct Weather {
    pub rng: Rng,
    mean_ns: u64,
    pub next_ns: u64,
    pub letters_ns: u64,
    pub audit_ns: u64,
    letters_mean_ns: u64,
}

impl Weather {
    pub fn new(rng: Rng, mean_ns: u64, letters_mean_ns: u64) -> Self {
        Self {
            rng,
            mean_ns,
            letters_mean_ns,
            next_ns: 2 * SECOND_NS,
            letters_ns: 2 * SECOND_NS,
            audit_ns: HOUR_NS / 4,
        }
    }

    /// The fault whose time has come.
    pub fn fault(&mut self, now_ns: u64) -> Option<Fault> {
        if now_ns < self.next_ns {
            return None;
        }
        // Some come in flocks.
        let mean_ns = match self.rng.below(4) {
            0 => self.mean_ns / 50,
            _ => self.mean_ns * 4 / 3,
        };
        self.next_ns = now_ns + self.rng.below(2 * mean_ns.max(1));
        let total: u64 = ALL.iter().map(|(_, weight)| weight).sum();
        let mut at = self.rng.below(total);
        let found = ALL.iter().find(|(_, weight)| {
            let hit = at < *weight;
            at = at.saturating_sub(*weight);
            hit
        });
        found.map(|(fault, _)| *fault)
    }

    /// Clients come now.
    pub fn letters(&mut self, now_ns: u64) -> bool {
        let due = now_ns >= self.letters_ns;
        if due {
            let mean_ns = match self.rng.below(3) {
                0 => self.letters_mean_ns / 100,
                _ => self.letters_mean_ns * 3 / 2,
            };
            self.letters_ns = now_ns + self.rng.below(2 * mean_ns.max(1));
        }
        due
    }

    /// New mail has come: worth a look.
    pub fn look_soon(&mut self, now_ns: u64) {
        let at_ns = now_ns + self.rng.below(20 * SECOND_NS);
        self.audit_ns = self.audit_ns.min(at_ns);
    }

    pub fn audit(&mut self, now_ns: u64) -> bool {
        let due = now_ns >= self.audit_ns;
        if due {
            self.audit_ns = now_ns + self.rng.below(HOUR_NS);
        }
        due
    }

    /// A time between seconds and hours, short ones as likely as long ones.
    pub fn while_ns(&mut self, most_ns: u64) -> u64 {
        let shift = self.rng.below(8);
        (self.rng.below(most_ns) >> shift).max(SECOND_NS)
    }
}
