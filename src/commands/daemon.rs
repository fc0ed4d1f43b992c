//! What all shards of a daemon share, and what the control thread may ask of it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use crossbeam_queue::ArrayQueue;
use serde_json::{Value, json};
use spool::{MessageKey, Source};

use super::routing::{RoutePlan, Watched};
use super::worker;
use crate::config::{self, Config};
use crate::control::maps::{self, Published};
use crate::control::pickup;
use crate::control::postman::Kept;
use crate::control::queue::Inquiry;
use crate::control::resolver::Answer;
use crate::control::route::RouteAnswer;
use crate::control::space;
use crate::control::users::UserAnswer;
use crate::control::{self, Answers, Request, Requests};
use crate::io::doorbell::Doorbells;
use crate::observe::metrics::Reading;
use crate::shard::{Outside, Reload, Shared};
use crate::sys::limits;

/// Answers that wait for a shard.
const ANSWERS_MAX: usize = 4096;

/// A daemon about to start.
pub(super) struct Plan {
    pub(super) config: Arc<Config>,
    pub(super) shards: usize,
    pub(super) sessions_max: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) doorbells: Arc<Doorbells>,
    pub(super) requests: Arc<Requests>,
    pub(super) routing: RoutePlan,
    pub(super) watched: Arc<Watched>,
    mailboxes: Arc<Vec<Mailbox>>,
    /// Where the shards answer the pick-up.
    pub(super) imported: Arc<pickup::Answers>,
    /// That rings are small has been said.
    reduced: AtomicBool,
}

/// Answers for one shard.
struct Mailbox {
    answers: Arc<ArrayQueue<Answer>>,
    kept: Arc<ArrayQueue<Kept>>,
    pickup: pickup::Ends,
    inquiries: Arc<ArrayQueue<Inquiry>>,
    reloads: Arc<ArrayQueue<Box<Reload>>>,
    users: Arc<ArrayQueue<UserAnswer>>,
    routes: Arc<ArrayQueue<RouteAnswer>>,
    maps: Arc<ArrayQueue<Published>>,
}

/// New settings that wait for a shard.
const RELOADS_MAX: usize = 4;

/// Questions about the queue that wait for a shard.
const INQUIRIES_MAX: usize = 64;

impl Plan {
    pub(super) fn new(
        config: &Config,
        routing: RoutePlan,
        shards: usize,
        sessions_max: usize,
    ) -> io::Result<Self> {
        let mailboxes = (0..shards).map(|_| Mailbox {
            answers: Arc::new(ArrayQueue::new(ANSWERS_MAX)),
            kept: Arc::new(ArrayQueue::new(ANSWERS_MAX)),
            pickup: pickup::Ends::new(),
            inquiries: Arc::new(ArrayQueue::new(INQUIRIES_MAX)),
            reloads: Arc::new(ArrayQueue::new(RELOADS_MAX)),
            users: Arc::new(ArrayQueue::new(ANSWERS_MAX)),
            routes: Arc::new(ArrayQueue::new(ANSWERS_MAX)),
            maps: Arc::new(ArrayQueue::new(ANSWERS_MAX)),
        });
        let shared = Arc::new(Shared::new(shards));
        shared.next_generation(now_s());
        let mailboxes: Arc<Vec<Mailbox>> = Arc::new(mailboxes.collect());
        let doorbells = Arc::new(Doorbells::new(shards)?);
        let watched = watch_maps(&mailboxes, &doorbells)?;
        watched.watch(routing.sources());
        Ok(Self {
            routing,
            watched,
            config: Arc::new(config.clone()),
            shards,
            sessions_max,
            shared,
            doorbells,
            requests: control::requests(),
            mailboxes,
            imported: Arc::new(pickup::Answers::new()),
            reduced: AtomicBool::new(false),
        })
    }

    /// Says, once for all shards, that RLIMIT_MEMLOCK costs speed.
    pub(super) fn report_reduced(&self) {
        if !self.reduced.swap(true, Ordering::Relaxed) {
            let bytes = limits::locked_memory().unwrap_or(u64::MAX);
            tracing::warn!(
                "RLIMIT_MEMLOCK = {bytes} bytes: smaller rings, no registered buffers; it works, slower \
                 (systemd: LimitMEMLOCK=64M)"
            );
        }
    }

    /// The pick-up of this daemon; `known`: files that recovery knows.
    pub(super) fn pickup(&self, known: HashMap<Source, (u16, MessageKey)>) -> pickup::Setup {
        let session = &self.config.smtpserver.services[0].session;
        let doorbells = Arc::clone(&self.doorbells);
        pickup::Setup {
            postoffice: self.config.paths.postoffice.clone(),
            hostname: worker::hostname(&self.config),
            trusted_users: self.config.router.trusted_users.clone(),
            limits: pickup::Limits {
                message_bytes_max: session.message_bytes_max,
                header_bytes_max: session.header_bytes_max,
                received_max: session.received_max,
            },
            ends: self
                .mailboxes
                .iter()
                .map(|mailbox| mailbox.pickup.clone())
                .collect(),
            answers: Arc::clone(&self.imported),
            known,
            wake: Arc::new(move |shard| doorbells.ring_from_outside(shard)),
        }
    }

    /// The watch over the space of the spool.
    pub(super) fn watch_space(&self) -> space::Watch {
        let spool = &self.config.spool;
        let shared = Arc::clone(&self.shared);
        let (segment_bytes, ready) = (spool.segment_bytes, u64::from(spool.reserve_segments) + 1);
        space::Watch {
            dir: self.config.paths.postoffice.join("spool"),
            marks: space::Marks {
                free_bytes: spool.min_free_bytes,
                free_inodes: spool.min_free_inodes,
            },
            level: Arc::clone(self.shared.space()),
            reusable: Box::new(move || {
                let readings = shared.all_metrics().iter().map(|metrics| metrics.read());
                let more = readings.map(|reading| reading.free_segments.saturating_sub(ready));
                more.sum::<u64>() * segment_bytes
            }),
        }
    }

    /// The queues of one shard.
    pub(super) fn outside(&self, shard: usize) -> Outside {
        let (asks, keeps) = (Arc::clone(&self.requests), Arc::clone(&self.requests));
        let (pages, users) = (Arc::clone(&self.requests), Arc::clone(&self.requests));
        let routes = Arc::clone(&self.requests);
        Outside {
            ask: Box::new(move |question| {
                asks.push(Request::Resolve(question))
                    .map_err(|request| match request {
                        Request::Resolve(question) => question,
                        _ => unreachable!("a full queue gives back what was offered"),
                    })
            }),
            keep: Box::new(move |message| {
                keeps
                    .push(Request::Keep(message))
                    .map_err(|request| match request {
                        Request::Keep(message) => message,
                        _ => unreachable!("a full queue gives back what was offered"),
                    })
            }),
            answers: Arc::clone(&self.mailboxes[shard].answers),
            kept: Arc::clone(&self.mailboxes[shard].kept),
            pickup: self.mailboxes[shard].pickup.clone(),
            ask_user: Box::new(move |question| {
                users
                    .push(Request::User(question))
                    .map_err(|request| match request {
                        Request::User(question) => question,
                        _ => unreachable!("a full queue gives back what was offered"),
                    })
            }),
            users: Arc::clone(&self.mailboxes[shard].users),
            ask_route: Box::new(move |question| {
                routes
                    .push(Request::Route(question))
                    .map_err(|request| match request {
                        Request::Route(question) => question,
                        _ => unreachable!("a full queue gives back what was offered"),
                    })
            }),
            routes: Arc::clone(&self.mailboxes[shard].routes),
            maps: Arc::clone(&self.mailboxes[shard].maps),
            reloads: Arc::clone(&self.mailboxes[shard].reloads),
            inquiries: Arc::clone(&self.mailboxes[shard].inquiries),
            page: Box::new(move |page| {
                if pages.push(Request::Page(page)).is_err() {
                    tracing::warn!(
                        shard,
                        "an answer about the queue was dropped: the control thread is behind"
                    );
                }
            }),
            imported: Arc::clone(&self.imported),
        }
    }
}

/// Starts the thread that reads and watches maps; new versions go to all shards.
fn watch_maps(
    mailboxes: &Arc<Vec<Mailbox>>,
    doorbells: &Arc<Doorbells>,
) -> io::Result<Arc<Watched>> {
    let (mailboxes, doorbells) = (Arc::clone(mailboxes), Arc::clone(doorbells));
    let publish: Arc<dyn Fn(&Published) + Send + Sync> = Arc::new(move |published| {
        for (shard, mailbox) in mailboxes.iter().enumerate() {
            // Of very many the oldest are given up: a later version of the same map is as good.
            if mailbox.maps.force_push(published.clone()).is_some() {
                tracing::warn!(shard, "a version of a map was dropped: the shard is behind");
            }
            doorbells.ring_from_outside(shard);
        }
    });
    let to_shards = Arc::clone(&publish);
    let orders = maps::start(move |published| to_shards(published))?;
    Ok(Arc::new(Watched::new(orders, publish)))
}

/// A running daemon, as the control thread sees it.
pub(super) struct Daemon {
    shared: Arc<Shared>,
    doorbells: Arc<Doorbells>,
    mailboxes: Arc<Vec<Mailbox>>,
    started_at: Instant,
    config: Arc<Config>,
    config_path: Option<PathBuf>,
    watched: Arc<Watched>,
}

impl Daemon {
    pub(super) fn new(plan: &Plan, config_path: Option<&Path>) -> Self {
        Self {
            config: Arc::clone(&plan.config),
            config_path: config_path.map(Path::to_owned),
            watched: Arc::clone(&plan.watched),
            shared: Arc::clone(&plan.shared),
            doorbells: Arc::clone(&plan.doorbells),
            mailboxes: Arc::clone(&plan.mailboxes),
            started_at: Instant::now(),
        }
    }
}

impl Answers for Daemon {
    fn resolved(&self, shard: u16, answer: Answer) {
        // A full queue drops the answer: the shard's own time limit ends the wait.
        if self.mailboxes[usize::from(shard)]
            .answers
            .push(answer)
            .is_err()
        {
            tracing::warn!(
                shard,
                "an answer of the resolver was dropped: the shard is behind"
            );
        }
        self.doorbells.ring_from_outside(shard.into());
    }

    fn kept(&self, shard: u16, kept: Kept) {
        if self.mailboxes[usize::from(shard)].kept.push(kept).is_err() {
            tracing::warn!(
                shard,
                "an answer about postman/ was dropped: the shard is behind"
            );
        }
        self.doorbells.ring_from_outside(shard.into());
    }

    fn known(&self, shard: u16, answer: UserAnswer) {
        self.user_known(shard, answer);
    }

    fn found_out(&self, shard: u16, answer: RouteAnswer) {
        // A full queue drops the answer: the shard's own time limit ends the wait.
        let queue = &self.mailboxes[usize::from(shard)].routes;
        if queue.push(answer).is_err() {
            tracing::warn!(
                shard,
                "an answer for a router was dropped: the shard is behind"
            );
        }
        self.doorbells.ring_from_outside(shard.into());
    }
}

/// Seconds since 1970.
fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl Daemon {
    /// Reads the settings again and hands them to the shards; all or nothing.
    fn reload_settings(&self) -> Result<(), String> {
        let path = self.config_path.as_deref();
        let config = config::load(path).map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            format!("{}; the old settings stay", lines.join("; "))
        })?;
        let fixed = config.fixed_differences(&self.config);
        if !fixed.is_empty() {
            let names = fixed.join(", ");
            return Err(format!(
                "{names} can only change with a restart; the old settings stay"
            ));
        }
        // Before any shard takes them, so that all do.
        let routing = RoutePlan::load_aside(&config, &self.watched)
            .map_err(|error| format!("{error}\nthe old settings stay"))?;
        self.watched.watch(routing.sources());
        let generation = self.shared.next_generation(now_s());
        for mailbox in self.mailboxes.iter() {
            let reload = Box::new(worker::reload(&config, &routing, generation));
            // Settings that no turn has taken yet give way to newer ones.
            mailbox.reloads.force_push(reload);
        }
        Ok(())
    }

    /// Tells a shard whether there is a user.
    fn user_known(&self, shard: u16, answer: UserAnswer) {
        let queue = &self.mailboxes[usize::from(shard)].users;
        if queue.push(answer).is_err() {
            tracing::warn!(
                shard,
                "an answer about a user was dropped: the shard is behind"
            );
        }
        self.doorbells.ring_from_outside(shard.into());
    }

    /// What the file system of the spool has left.
    fn space(&self) -> Value {
        let level = self.shared.space();
        let mut map: serde_json::Map<String, Value> = level
            .numbers()
            .into_iter()
            .map(|(name, number)| (name.to_owned(), number.into()))
            .collect();
        map.insert("short_of".to_owned(), level.short_of().into());
        map.into()
    }

    fn wake_all(&self) {
        for shard in 0..self.mailboxes.len() {
            self.doorbells.ring_from_outside(shard);
        }
    }
}

impl control::Daemon for Daemon {
    fn reload(&self) -> Result<(), String> {
        self.shared.request_reopen();
        let reloaded = self.reload_settings();
        self.wake_all();
        match &reloaded {
            Ok(()) => tracing::info!("settings read again, mail logs opened again"),
            Err(text) => tracing::error!("reload: {text}"),
        }
        reloaded
    }

    fn shards(&self) -> usize {
        self.mailboxes.len()
    }

    fn inquire(&self, shard: usize, inquiry: Inquiry) -> bool {
        let taken = self.mailboxes[shard].inquiries.push(inquiry).is_ok();
        self.doorbells.ring_from_outside(shard);
        taken
    }

    fn stop(&self) {
        tracing::info!("stopping");
        self.shared.request_stop();
        self.wake_all();
    }

    fn status(&self) -> Value {
        let readings: Vec<Reading> = self
            .shared
            .all_metrics()
            .iter()
            .map(|metrics| metrics.read())
            .collect();
        let mut all = Reading::default();
        for reading in &readings {
            all.add(reading);
        }
        let commit_ns = readings
            .iter()
            .map(|reading| reading.commit_ns)
            .max()
            .unwrap_or(0);
        let shards: Vec<Value> = readings.iter().map(Reading::to_json).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime_s": self.started_at.elapsed().as_secs(),
            "generation": self.shared.generation(),
            "subsystems": { "smtpserver": "running", "router": "running", "scheduler": "running" },
            "queue": {
                "messages": all.queue_messages,
                "resting": all.queue_resting,
                "recipients": all.queue_recipients,
                "bytes": all.queue_bytes,
                "by_channel": {
                    "smtp": all.queue_smtp,
                    "lmtp": all.queue_lmtp,
                    "local": all.queue_local,
                    "hold": all.queue_hold,
                },
            },
            "spool": {
                "segments": all.segments,
                "bytes": all.segment_bytes,
                "live_bytes": all.live_bytes,
                "free_segments": all.free_segments,
                "damaged_segments": all.damaged_segments,
                "checkpoints": all.checkpoints,
                "loading_messages": all.loading_messages,
                "commits": all.commits,
                "commit_us": commit_ns / 1000,
                "flushes": all.flushes,
                "bytes_written": all.bytes_written,
                "space": self.space(),
            },
            "mail": {
                "accepted": all.accepted,
                "delivered": all.delivered,
                "deferred": all.deferred,
                "failed": all.failed,
            },
            "sessions": all.sessions,
            "connections": all.connections,
            "shards": shards,
        })
    }
}
