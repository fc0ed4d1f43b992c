//! A shard's start: what recovery found is entered again, then the first turn runs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use spool::{Log, Outcome, Recovered, RecoveredMessage, Status};

use super::dispatch::Due;
use super::handoff::Neighbours;
use super::intake::Live;
use super::memory::Memory;
use super::{Outside, Settings, Shard, Shared};
use crate::base::fast_map::FastMap;
use crate::base::slab::Slab;
use crate::base::timers::Timers;
use crate::io::Driver;
use crate::observe::mail_log::MailLog;
use crate::policy::Policy;
use crate::router::Router;
use crate::scheduler::Scheduler;

/// Vertices in one shard: far more than messages that fit a spool.
const WORK_MAX: usize = 1 << 28;

/// Everything a shard is made of besides its driver.
pub struct Parts {
    /// Its settings.
    pub settings: Settings,
    /// Shared with the process.
    pub shared: Arc<Shared>,
    /// Queues to the control thread.
    pub outside: Outside,
    /// Its scheduler partition.
    pub scheduler: Scheduler,
    /// Its router.
    pub router: Box<dyn Router>,
    /// Of the configuration that the router was made from.
    pub generation: u64,
    /// The policy of each listener, by its number.
    pub policies: Vec<Policy>,
    /// Its mail log.
    pub mail_log: MailLog,
    /// Queues to the other shards.
    pub neighbours: Neighbours,
}

impl<D: Driver> Shard<D> {
    /// A shard on a recovered log. Recovered messages are entered at once: those that were deferred
    /// wait for the time they were given.
    pub fn new(driver: D, parts: Parts, log: Log, recovered: Recovered) -> Self {
        let Parts {
            settings,
            shared,
            outside,
            scheduler,
            router,
            generation,
            policies,
            mail_log,
            neighbours,
        } = parts;
        let now = driver.now();
        let mut shard = Self {
            driver,
            now,
            memory: Memory::new(settings.memory_bytes),
            memory_is_short: false,
            inbound: Slab::new(settings.sessions_max),
            outbound: Slab::new(settings.connections_max),
            settings,
            shared,
            outside,
            log,
            scheduler,
            router,
            generation,
            routes: super::routing::Routes::default(),
            noted: super::remarks::Noted::default(),
            verified: super::verify::Verified::default(),
            policies,
            mail_log,
            mail_log_in_flight: false,
            roles: FastMap::default(),
            live: BTreeMap::new(),
            work: Slab::new(WORK_MAX),
            queued: super::queued::Queued::default(),
            rests: super::rest::Rests::default(),
            asking: None,
            threads: Vec::new(),
            eager: Vec::new(),
            waiting: VecDeque::new(),
            answered: VecDeque::new(),
            stalled: VecDeque::new(),
            loads: FastMap::default(),
            pieces: FastMap::default(),
            spills: FastMap::default(),
            storing: FastMap::default(),
            questions: FastMap::default(),
            question_next: 0,
            failures: VecDeque::new(),
            keeping: FastMap::default(),
            users: super::users::Users::default(),
            neighbours,
            timers: Timers::default(),
            receiving_count: 0,
            stopping: None,
            events: Vec::new(),
            published_ns: 0,
            published_empty: true,
            reopened: 0,
        };
        shard.restore(recovered);
        shard.publish();
        shard
    }

    fn restore(&mut self, recovered: Recovered) {
        for state in recovered.threads {
            let channel = String::from_utf8_lossy(&state.channel).into_owned();
            let host = String::from_utf8_lossy(&state.host).into_owned();
            let thread = self.scheduler.thread(&channel, &host);
            let (attempt, next_ms) = (state.attempt, state.next_ms);
            self.scheduler
                .restore_thread(self.now, thread, attempt, next_ms, state.reply);
        }
        for message in recovered.messages {
            self.restore_message(message);
        }
    }

    fn restore_message(&mut self, message: RecoveredMessage) {
        let RecoveredMessage {
            key,
            id,
            envelope,
            outcomes,
            ..
        } = message;
        let due = still_open(&outcomes);
        let held = held(&outcomes);
        let open_count = (due.len() + held.len()) as u32;
        let has_file = self.log.has_source(key);
        self.queued.open(open_count);
        let live = Live {
            has_file,
            ..Live::known(id, envelope, None, &outcomes, held)
        };
        self.live.insert(key, live);
        if open_count == 0 {
            // The crash came between the last outcome and the done record.
            self.end_if_finished(key);
        } else {
            self.route(key, due);
            self.maybe_rest(key, false);
        }
    }

    /// The driver, for tests that look at its world.
    pub fn driver(&mut self) -> &mut D {
        &mut self.driver
    }

    /// Brings the published counters up to date.
    pub(super) fn publish(&mut self) {
        let stats = self.log.stats();
        let metrics = self.shared.metrics(self.settings.shard);
        metrics.publish_sessions(self.inbound.len() as u64, self.outbound.len() as u64);
        metrics.publish_queue(&self.queue_reading());
        metrics.publish_spool(&stats);
        metrics.publish_lost_lines(self.mail_log.lost_count());
    }
}

/// The recipients that an operator holds.
pub(super) fn held(outcomes: &[Option<Outcome>]) -> Vec<u32> {
    let all = outcomes.iter().flatten();
    all.filter(|outcome| outcome.status == Status::Held)
        .map(|outcome| outcome.recipient)
        .collect()
}

/// The recipients without a final outcome, with the time before which they are not tried.
pub(super) fn still_open(outcomes: &[Option<Outcome>]) -> Vec<Due> {
    outcomes
        .iter()
        .enumerate()
        .filter_map(|(recipient, outcome)| match outcome {
            None => Some(Due::now(recipient as u32)),
            Some(outcome) if outcome.status == Status::Deferred => Some(Due {
                due_ms: outcome.next_ms,
                ..Due::now(recipient as u32)
            }),
            Some(_) => None,
        })
        .collect()
}
