//! Shutdown in order: no new clients, `421` at the next command boundary, replies to final dots
//! waited for, outcomes committed, mail log written.

use std::collections::HashSet;

use super::dispatch::Work;
use super::inbound::Phase;
use super::shared::Stop;
use super::{Shard, outbound};
use crate::base::slab::Key;
use crate::io::Driver;

/// How long sessions and deliveries under way are waited for.
const DRAIN_NS: u64 = 2_000_000_000;

/// How long the last commit and the mail log are waited for after that.
const COMMIT_NS: u64 = 5_000_000_000;

/// A shutdown under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopping {
    drain_deadline: u64,
    /// Connections have been cut.
    cut: bool,
}

impl<D: Driver> Shard<D> {
    /// Moves a requested shutdown on. Says whether it is complete.
    pub(super) fn shutdown_turn(&mut self) -> bool {
        let stop = self.shared.stop();
        match (self.stopping, stop) {
            (_, Stop::No) => return false,
            (_, Stop::Now) => return true,
            (None, Stop::Drain) => self.begin_shutdown(),
            (Some(_), Stop::Drain) => {}
        }
        let Some(stopping) = self.stopping else {
            return false;
        };
        let now = self.now.mono_ns;
        // A result that is still at another shard would be a delivery that is repeated; and who has gone
        // could not give back what is on its way here.
        let drained = self.inbound.is_empty()
            && self.outbound.is_empty()
            && !self.awaits_results()
            && self.shared.all_are_stopping();
        if !drained && now >= stopping.drain_deadline && !stopping.cut {
            self.cut();
        }
        let settled = self.waiting.is_empty()
            && self.storing.is_empty()
            && self.log.idle()
            && !self.mail_log_in_flight
            && self.mail_log.is_empty();
        let out_of_time = now >= stopping.drain_deadline + COMMIT_NS;
        (drained && settled) || out_of_time
    }

    fn begin_shutdown(&mut self) {
        self.stopping = Some(Stopping {
            drain_deadline: self.now.after_ns(DRAIN_NS),
            cut: false,
        });
        self.driver.stop_accepting();
        self.shared.begin_stopping();
        self.return_guests();
        let sessions: Vec<Key> = self.inbound.keys().collect();
        for key in sessions {
            if let Some(inbound) = self.inbound.get_mut(key)
                && matches!(inbound.phase, Phase::Open | Phase::Storing)
            {
                inbound.session.shutdown(&mut inbound.output);
            }
            self.pump(key, None);
        }
        let connections: Vec<Key> = self.outbound.keys().collect();
        for key in connections {
            self.wind_down(key);
        }
    }

    /// Handles of other shards that no connection has go home untried.
    fn return_guests(&mut self) {
        let connections = self.outbound.iter();
        let busy: HashSet<u64> = connections
            .flat_map(|(_, connection)| connection.payloads())
            .collect();
        let is_waiting = |(key, work): &(Key, &Work)| {
            matches!(work, Work::Guest { .. }) && !busy.contains(&key.0)
        };
        let waiting: Vec<Key> = self
            .work
            .iter()
            .filter(is_waiting)
            .map(|(key, _)| key)
            .collect();
        for key in waiting {
            self.give_back_guest(key.0);
        }
    }

    /// Cuts what did not end in time; what is unanswered is repeated after the next start.
    fn cut(&mut self) {
        if let Some(stopping) = &mut self.stopping {
            stopping.cut = true;
        }
        let sessions: Vec<Key> = self.inbound.keys().collect();
        for key in sessions {
            self.close_inbound(key);
        }
        let connections: Vec<(Key, usize)> = self
            .outbound
            .iter()
            .map(|(key, connection)| (key, outbound::Outbound::jobs_count(connection)))
            .collect();
        for (key, jobs) in connections {
            if jobs > 0 {
                let shard = self.settings.shard;
                tracing::warn!(shard, jobs, "stopped before the reply: possibly delivered");
            }
            self.cut_outbound(key);
        }
    }
}
