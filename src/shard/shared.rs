//! What shards share with the rest of the process: counters, the stop request, and the queues to
//! the control thread. Values and atomics only; nothing here is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

use super::reload::Reload;
use crate::control::pickup;
use crate::control::postman::{Kept, Undeliverable};
use crate::control::queue::{Inquiry, Page};
use crate::control::resolver::{Answer, Question};
use crate::control::route::{RouteAnswer, RouteQuestion};
use crate::control::space::Level;
use crate::control::users::{UserAnswer, UserQuestion};
use crate::observe::metrics::ShardMetrics;

/// How far shutdown has been asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Go on.
    No,
    /// Stop accepting, finish what is under way, commit, end.
    Drain,
    /// End now; what was unanswered is repeated after the next start.
    Now,
}

/// Seen by all shards and the control thread.
#[derive(Debug)]
pub struct Shared {
    metrics: Vec<ShardMetrics>,
    stop: AtomicU8,
    /// Shards that have begun their shutdown: they pass nothing on any more.
    stopping_count: AtomicU32,
    /// Whether there is space for new mail.
    space: Arc<Level>,
    /// Counts requests to open the mail logs again.
    reopen: AtomicU32,
    /// Of the latest configuration.
    generation: AtomicU64,
}

impl Shared {
    /// For `shards` shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        let metrics = (0..shards).map(|_| ShardMetrics::default()).collect();
        Self {
            metrics,
            stop: AtomicU8::new(0),
            stopping_count: AtomicU32::new(0),
            space: Arc::default(),
            reopen: AtomicU32::new(0),
            generation: AtomicU64::new(0),
        }
    }

    /// The counters of one shard.
    #[must_use]
    pub fn metrics(&self, shard: u16) -> &ShardMetrics {
        &self.metrics[shard as usize]
    }

    /// Whether there is space for new mail.
    #[must_use]
    pub fn space(&self) -> &Arc<Level> {
        &self.space
    }

    /// The counters of all shards.
    #[must_use]
    pub fn all_metrics(&self) -> &[ShardMetrics] {
        &self.metrics
    }

    /// Asks for shutdown; a second request makes it immediate.
    pub fn request_stop(&self) {
        // Counting past 2 would need 254 signals; saturate all the same.
        let _ = self
            .stop
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |stop| {
                Some(stop.saturating_add(1).min(2))
            });
    }

    /// Asks for shutdown, unless it has been asked for: this is never the second request.
    pub fn request_drain(&self) {
        // Asked for already is as good.
        let _ = self
            .stop
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The number of a configuration that is taken at this time, in seconds since 1970: higher than those before it, in
    /// earlier runs as well.
    pub fn next_generation(&self, now_s: u64) -> u64 {
        let next = |last: u64| now_s.max(last + 1);
        let last = self
            .generation
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(next(last)));
        next(last.unwrap_or_default())
    }

    /// The number of the latest configuration.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Asks all shards to open their mail logs again.
    pub fn request_reopen(&self) {
        self.reopen.fetch_add(1, Ordering::AcqRel);
    }

    /// How often that was asked.
    #[must_use]
    pub fn reopen_count(&self) -> u32 {
        self.reopen.load(Ordering::Acquire)
    }

    /// A shard has begun its shutdown.
    pub fn begin_stopping(&self) {
        self.stopping_count.fetch_add(1, Ordering::AcqRel);
    }

    /// All shards have begun their shutdown.
    #[must_use]
    pub fn all_are_stopping(&self) -> bool {
        self.stopping_count.load(Ordering::Acquire) as usize >= self.metrics.len()
    }

    /// Whether and how to stop.
    #[must_use]
    pub fn stop(&self) -> Stop {
        match self.stop.load(Ordering::Acquire) {
            0 => Stop::No,
            1 => Stop::Drain,
            _ => Stop::Now,
        }
    }
}

/// One shard's queues to and from the control thread. All bounded; a full one refuses.
pub struct Outside {
    /// Sends a question to the resolver.
    pub ask: Box<dyn FnMut(Question) -> Result<(), Question> + Send>,
    /// Sends a message to be kept for the postmaster.
    pub keep: Box<dyn FnMut(Undeliverable) -> Result<(), Undeliverable> + Send>,
    /// The resolver's answers.
    pub answers: Arc<ArrayQueue<Answer>>,
    /// The answers to `keep`.
    pub kept: Arc<ArrayQueue<Kept>>,
    /// Message files of `router/`, and those that are gone.
    pub pickup: pickup::Ends,
    /// Asks whether there is a user.
    pub ask_user: Box<dyn FnMut(UserQuestion) -> Result<(), UserQuestion> + Send>,
    /// The answers to `ask_user`.
    pub users: Arc<ArrayQueue<UserAnswer>>,
    /// Asks what a router needs to know.
    pub ask_route: Box<dyn FnMut(RouteQuestion) -> Result<(), RouteQuestion> + Send>,
    /// The answers to `ask_route`.
    pub routes: Arc<ArrayQueue<RouteAnswer>>,
    /// New settings.
    pub reloads: Arc<ArrayQueue<Box<Reload>>>,
    /// Questions about the queue.
    pub inquiries: Arc<ArrayQueue<Inquiry>>,
    /// Sends the answer to one.
    pub page: Box<dyn FnMut(Page) + Send>,
    /// Where the answers to them go.
    pub imported: Arc<pickup::Answers>,
}
