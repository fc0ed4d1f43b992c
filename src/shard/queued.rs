//! How many recipients are queued, and for which channel: kept with every change, so that telling it
//! costs nothing however long the queue is.

use super::Shard;
use crate::io::Driver;
use crate::observe::metrics::QueueReading;
use crate::scheduler::ThreadKey;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queued {
    /// Without a final outcome.
    recipients: u64,
    /// In vertices of these channels.
    smtp: u64,
    lmtp: u64,
    local: u64,
}

impl Queued {
    /// Recipients of a message that has become live.
    pub(super) fn open(&mut self, count: u32) {
        self.recipients += u64::from(count);
    }

    /// One recipient has its final outcome.
    pub(super) fn close(&mut self) {
        debug_assert!(self.recipients > 0, "closed more often than opened");
        self.recipients = self.recipients.saturating_sub(1);
    }

    fn of(&mut self, channel: &str) -> Option<&mut u64> {
        match channel {
            "smtp" => Some(&mut self.smtp),
            "lmtp" => Some(&mut self.lmtp),
            "local" => Some(&mut self.local),
            _ => None,
        }
    }
}

impl<D: Driver> Shard<D> {
    /// Recipients have entered the vertices of a thread.
    pub(super) fn count_placed(&mut self, thread: ThreadKey, recipients: usize) {
        let channel = &self.threads[thread.0 as usize].channel;
        if let Some(count) = self.queued.of(channel) {
            *count += recipients as u64;
        }
    }

    /// Recipients have left the vertices of a thread.
    pub(super) fn count_left(&mut self, thread: ThreadKey, recipients: usize) {
        let channel = &self.threads[thread.0 as usize].channel;
        if let Some(count) = self.queued.of(channel) {
            debug_assert!(*count >= recipients as u64, "left more often than placed");
            *count = count.saturating_sub(recipients as u64);
        }
    }

    /// The queue as it is published.
    pub(super) fn queue_reading(&self) -> QueueReading {
        let queued = &self.queued;
        let placed = queued.smtp + queued.lmtp + queued.local;
        QueueReading {
            messages: self.messages_count(),
            resting: self.log.resting_count(),
            recipients: queued.recipients,
            smtp: queued.smtp,
            lmtp: queued.lmtp,
            local: queued.local,
            // Whoever no channel has is held by the operator, or fails and waits for the report on it.
            hold: queued.recipients.saturating_sub(placed),
        }
    }
}
