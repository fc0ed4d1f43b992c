//! Counters of one shard: written by it, read by anyone, relaxed. Each on cache lines of its shard.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use serde_json::{Map, Value};

macro_rules! metrics {
    ($($name:ident: $help:literal,)*) => {
        #[derive(Debug, Default)]
        struct Cells {
            $($name: AtomicU64,)*
        }

        /// A reading of all counters; shards add up.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Reading {
            $(#[doc = $help] pub $name: u64,)*
        }

        impl Reading {
            /// Adds another shard's.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// By name.
            #[must_use]
            pub fn to_json(&self) -> Value {
                let mut map = Map::new();
                $(map.insert(stringify!($name).to_owned(), self.$name.into());)*
                Value::Object(map)
            }
        }

        impl ShardMetrics {
            /// All counters as they are.
            #[must_use]
            pub fn read(&self) -> Reading {
                Reading { $($name: self.0.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

metrics! {
    accepted: "messages accepted",
    delivered: "recipients delivered",
    deferred: "attempts deferred",
    failed: "recipients failed",
    sessions: "clients now",
    connections: "connections to next hops now",
    queue_messages: "messages queued now",
    queue_resting: "those of them that rest: in the index, not in memory",
    queue_recipients: "recipients queued now",
    queue_smtp: "those of channel smtp",
    queue_lmtp: "those of channel lmtp",
    queue_local: "those of the mailboxes of this host",
    queue_hold: "those held by the operator",
    queue_bytes: "bytes of queued messages now",
    segments: "segment files",
    segment_bytes: "their size",
    live_bytes: "bytes of live messages in them",
    free_segments: "segments that hold nothing",
    damaged_segments: "segments with damage, kept for the operator",
    checkpoints: "checkpoints written since the start",
    loading_messages: "messages of the checkpoint that are still being read in",
    commits: "commits",
    flushes: "writes that waited for the disk",
    bytes_written: "bytes written to the spool",
    commit_ns: "median commit latency",
    staged_bytes: "bytes waiting for a commit",
    lost_lines: "mail log lines lost",
}

/// The queue of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueReading {
    /// Messages.
    pub messages: u64,
    /// Those of them that rest.
    pub resting: u64,
    /// Recipients without a final outcome.
    pub recipients: u64,
    /// Those that go out by SMTP.
    pub smtp: u64,
    /// Those that go out by LMTP.
    pub lmtp: u64,
    /// Those of the mailboxes of this host.
    pub local: u64,
    /// Those that no channel has: held by the operator.
    pub hold: u64,
}

/// Counters of one shard.
#[derive(Debug, Default)]
pub struct ShardMetrics(CachePadded<Cells>);

impl ShardMetrics {
    fn bump(cell: &AtomicU64) {
        // One writer: a plain load and store is enough and needs no locked instruction.
        cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// A message was accepted.
    pub fn accepted(&self) {
        Self::bump(&self.0.accepted);
    }

    /// A recipient was delivered.
    pub fn delivered(&self) {
        Self::bump(&self.0.delivered);
    }

    /// An attempt was deferred.
    pub fn deferred(&self) {
        Self::bump(&self.0.deferred);
    }

    /// A recipient failed.
    pub fn failed(&self) {
        Self::bump(&self.0.failed);
    }

    /// Connections now.
    pub fn publish_sessions(&self, sessions: u64, connections: u64) {
        self.0.sessions.store(sessions, Ordering::Relaxed);
        self.0.connections.store(connections, Ordering::Relaxed);
    }

    /// Queue now.
    pub fn publish_queue(&self, queue: &QueueReading) {
        let cells = &self.0;
        let pairs = [
            (&cells.queue_messages, queue.messages),
            (&cells.queue_resting, queue.resting),
            (&cells.queue_recipients, queue.recipients),
            (&cells.queue_smtp, queue.smtp),
            (&cells.queue_lmtp, queue.lmtp),
            (&cells.queue_local, queue.local),
            (&cells.queue_hold, queue.hold),
        ];
        for (cell, value) in pairs {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Spool now.
    pub fn publish_spool(&self, stats: &spool::Stats) {
        let cells = &self.0;
        let pairs = [
            (&cells.queue_bytes, stats.live_bytes),
            (&cells.segments, stats.segments),
            (&cells.segment_bytes, stats.bytes),
            (&cells.live_bytes, stats.live_bytes),
            (&cells.free_segments, stats.free_segments),
            (&cells.damaged_segments, stats.damaged),
            (&cells.checkpoints, stats.checkpoints),
            (&cells.loading_messages, stats.loading),
            (&cells.commits, stats.commits),
            (&cells.flushes, stats.flushes),
            (&cells.bytes_written, stats.bytes_written),
            (&cells.commit_ns, stats.commit_ns_median),
            (&cells.staged_bytes, stats.staged_bytes),
        ];
        for (cell, value) in pairs {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Lines lost so far.
    pub fn publish_lost_lines(&self, lines: u64) {
        self.0.lost_lines.store(lines, Ordering::Relaxed);
    }
}
