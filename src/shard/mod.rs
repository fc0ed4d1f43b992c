//! One shard: the event loop that joins the pure core to the kernel.
//!
//! Generic over one [`Driver`]: the ring in the daemon, the simulated world in tests; both run this
//! very code. A turn handles what the driver reports, then moves what became possible: staged mail
//! to the spool, committed mail to the scheduler, granted mail to connections, results back.
//!
//! Invariants: `250` leaves only from [`Shard::committed`]; a message is in exactly one of *waiting
//! for its commit*, *live*, or *done*; nothing here blocks, locks or reads a clock. Bounds: sessions
//! by `sessions_max`, connections by the scheduler's limits, content in memory by `memory_bytes`.

mod accounts;
mod aside;
mod bounce;
mod decided;
mod dispatch;
mod expansion;
mod handoff;
mod hold;
mod inbound;
mod inquiry;
mod intake;
mod large;
mod memory;
mod outbound;
mod queue;
mod queued;
mod recipients;
mod reload;
mod remarks;
mod reroute;
mod rest;
mod result;
mod routing;
pub mod scripted;
mod settings;
mod shared;
mod shutdown;
mod start;
mod submitted;
mod users;
mod verify;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use spool::{Log, MessageKey, SpoolId};

use crate::base::clock::Now;
use crate::base::fast_map::FastMap;
use crate::base::slab::{Key, Slab};
use crate::base::timers::Timers;
use crate::io::{Driver, Event, Socket};
use crate::observe::mail_log::MailLog;
use crate::policy::Policy;
use crate::router::Router;
use crate::scheduler::{Scheduler, ThreadKey};

use handoff::Neighbour;
use inbound::Inbound;
use intake::{Live, Stalled, Waiting};
use memory::Memory;
use outbound::{Outbound, Thread};

pub use expansion::round_of;
pub use handoff::{Neighbours, neighbours};
pub use reload::{MakeRouter, Reload};
pub use settings::Settings;
pub use shared::{Outside, Shared, Stop};
pub use start::Parts;

/// Who a socket belongs to.
#[derive(Clone, Copy, Debug)]
enum Role {
    Inbound(Key),
    Outbound(Key),
}

/// Marks timer owners that are outbound connections; inbound ones have the bit clear. Slab
/// generations stay far below it.
const OUTBOUND_TIMER: u64 = 1 << 63;

/// Longest sleep, so that a lost doorbell or a stop request is seen.
const SLEEP_NS_MAX: u64 = 250_000_000;

/// Counters are published once in this time while there is work.
const PUBLISH_NS: u64 = 5_000_000;

/// One shard. Built by [`Shard::new`], driven by [`Shard::run`] or, in simulations, by
/// [`Shard::turn`].
pub struct Shard<D: Driver> {
    driver: D,
    now: Now,
    settings: Settings,
    shared: Arc<Shared>,
    outside: Outside,
    log: Log,
    scheduler: Scheduler,
    router: Box<dyn Router>,
    /// Of the configuration that the router was made from.
    generation: u64,
    routes: routing::Routes,
    noted: remarks::Noted,
    verified: verify::Verified,
    policies: Vec<Policy>,
    mail_log: MailLog,
    mail_log_in_flight: bool,
    inbound: Slab<Inbound>,
    outbound: Slab<Outbound>,
    roles: FastMap<Socket, Role>,
    /// Accepted and committed messages with recipients that are not finished; others rest, see `rest`.
    live: BTreeMap<MessageKey, Live>,
    work: Slab<dispatch::Work>,
    queued: queued::Queued,
    rests: rest::Rests,
    /// An inquiry whose page waits for messages to be read.
    asking: Option<inquiry::Asking>,
    threads: Vec<Thread>,
    /// Threads that got something to do since the last dispatch.
    eager: Vec<ThreadKey>,
    /// Staged messages, oldest batch first.
    waiting: VecDeque<Waiting>,
    /// Sessions that got their answer and may have more to say.
    answered: VecDeque<Key>,
    /// Complete messages for which staging had no room.
    stalled: VecDeque<Stalled>,
    loads: FastMap<spool::ReadTicket, dispatch::Load>,
    pieces: FastMap<spool::ReadTicket, large::PieceFor>,
    /// Sessions whose content goes to a file.
    spills: FastMap<SpoolId, Key>,
    /// Content that is complete and on its way to the disk.
    storing: FastMap<SpoolId, large::Storing>,
    questions: FastMap<u64, Key>,
    question_next: u64,
    /// Failures whose report could not be staged yet.
    failures: VecDeque<bounce::Failed>,
    /// What waits for a file in `postman/` or `deferred/`.
    keeping: FastMap<u64, (MessageKey, bounce::Keeping)>,
    memory: Memory,
    memory_is_short: bool,
    users: users::Users,
    neighbours: Vec<Option<Neighbour>>,
    timers: Timers,
    receiving_count: u32,
    stopping: Option<shutdown::Stopping>,
    events: Vec<Event>,
    published_ns: u64,
    published_empty: bool,
    /// Requests to open the mail log again that have been followed.
    reopened: u32,
}

impl<D: Driver> Shard<D> {
    /// Runs until shutdown is complete.
    pub fn run(&mut self) {
        while !self.turn() {}
    }

    /// One turn of the event loop: waits for the driver, handles all it reports. Says whether the
    /// shard has finished its shutdown.
    pub fn turn(&mut self) -> bool {
        let deadline = self.deadline();
        let mut events = std::mem::take(&mut self.events);
        self.driver.poll(Some(deadline), &mut events);
        self.now = self.driver.now();
        let quiet = events.is_empty();
        for event in events.drain(..) {
            self.handle(event);
        }
        self.events = events;
        self.fire_timers();
        self.feed_starved();
        self.watch_memory();
        self.exchange();
        self.spool_turn();
        self.rest_turn();
        self.route_turn();
        self.dispatch();
        self.spool_turn();
        self.mail_log_turn();
        // Who has a 250 never finds an empty queue before its message is gone.
        let empty = self.messages_count() == 0;
        let fills = self.published_empty && !empty;
        if quiet || fills || self.now.mono_ns >= self.published_ns + PUBLISH_NS {
            self.published_ns = self.now.mono_ns;
            self.published_empty = empty;
            self.publish();
        }
        self.shutdown_turn()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Accepted {
                socket,
                listener,
                peer,
                local,
            } => {
                self.accepted(socket, listener, peer, local);
            }
            Event::Connected { socket, result } => self.connected(socket, result),
            Event::Received { socket, chunk } => match self.roles.get(&socket) {
                Some(Role::Inbound(key)) => self.pump(*key, Some(chunk)),
                Some(Role::Outbound(key)) => self.outbound_received(*key, chunk),
                None => self.driver.recycle(chunk),
            },
            Event::Ended { socket, result } => match self.roles.get(&socket) {
                Some(Role::Inbound(key)) => self.inbound_ended(*key, result.err()),
                Some(Role::Outbound(key)) => self.outbound_ended(*key, result.err()),
                None => {}
            },
            Event::Sent {
                socket,
                result,
                buf,
            } => match self.roles.get(&socket) {
                Some(Role::Inbound(key)) => self.inbound_sent(*key, result, buf),
                Some(Role::Outbound(key)) => self.outbound_sent(*key, result, buf),
                None => {}
            },
            Event::Closed { socket } => match self.roles.remove(&socket) {
                Some(Role::Inbound(key)) => self.inbound_closed(key),
                Some(Role::Outbound(key)) => self.outbound_closed(key),
                None => {}
            },
            Event::Disk(completion) => self.log.complete(self.now.mono_ns, completion),
            Event::Woken => {}
            Event::LogWritten { result, buf } => self.mail_log_written(result, buf),
        }
    }

    /// When the next turn has to run without an event, at the latest.
    fn deadline(&self) -> u64 {
        let sleep = self.now.after_ns(SLEEP_NS_MAX);
        self.due_ns().map_or(sleep, |due| due.min(sleep))
    }

    /// When there is something to do without an event or a word from outside; a simulation need not
    /// give turns before.
    #[must_use]
    pub fn due_ns(&self) -> Option<u64> {
        let mail_log = if self.mail_log_in_flight {
            None
        } else {
            self.mail_log.deadline()
        };
        let held = self.holds_back();
        let scheduler = self.scheduler.deadline().filter(|_| !held);
        [
            self.timers.deadline(),
            self.log.deadline(),
            scheduler,
            mail_log,
            self.routes_due_ns(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn fire_timers(&mut self) {
        while let Some(owner) = self.timers.fire(self.now.mono_ns) {
            if owner & OUTBOUND_TIMER == 0 {
                self.inbound_timer(Key(owner));
            } else {
                self.outbound_timer(Key(owner & !OUTBOUND_TIMER));
            }
        }
    }

    /// Moves requests to the disk and the engine's answers to whom they concern.
    fn spool_turn(&mut self) {
        loop {
            while let Some(request) = self.log.poll_op(self.now.mono_ns) {
                self.driver.disk(request);
            }
            if let Some(event) = self.log.poll_event() {
                self.spool_event(event);
            } else if !self.resume_answered() {
                break;
            }
        }
    }

    fn watch_memory(&mut self) {
        let short = self.memory.is_short(self.memory_is_short);
        if short != self.memory_is_short {
            self.memory_is_short = short;
            self.driver.receive_sparingly(short);
        }
    }

    fn mail_log_turn(&mut self) {
        if self.mail_log_in_flight {
            return;
        }
        let asked = self.shared.reopen_count();
        if self.reopened != asked {
            self.reopened = asked;
            self.driver.reopen_log();
        }
        if let Some(lines) = self.mail_log.take(self.now) {
            self.mail_log_in_flight = true;
            self.driver.log(lines);
        }
    }

    fn mail_log_written(&mut self, result: Result<(), i32>, buf: Vec<u8>) {
        self.mail_log_in_flight = false;
        self.mail_log.give_back(self.now, buf, result);
    }
}
