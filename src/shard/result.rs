//! Results of attempts: outcome records, retries, reports, the end of a message.
//!
//! Order of records: a report is staged before the outcome it reports, and a message is done only
//! after all its outcomes, so a crash repeats work and never forgets it.

use std::net::SocketAddr;

use spool::{MessageKey, Outcome, Status};

use super::Shard;
use super::bounce::Failure;
use super::dispatch::Work;
use super::handoff::Returned;
use super::recipients;
use crate::base::slab::Key;
use crate::io::Driver;
use crate::observe::mail_log;
use crate::protocol::client::{self, RecipientResult};
use crate::scheduler::{Reported, ThreadKey, Verdict, VertexKey};

/// The RET parameter in the client's terms.
pub(super) fn client_ret(ret: spool::Ret) -> client::Ret {
    match ret {
        spool::Ret::Full => client::Ret::Full,
        spool::Ret::Headers => client::Ret::Headers,
    }
}

impl<D: Driver> Shard<D> {
    /// A job of this shard's connections ended.
    pub(super) fn finished(
        &mut self,
        vertex: VertexKey,
        payload: u64,
        results: Vec<RecipientResult>,
        relay: Option<SocketAddr>,
    ) {
        if matches!(self.work.get(Key(payload)), Some(Work::Guest { .. })) {
            self.scheduler.report(self.now, vertex, Verdict::Finished);
            let Some(Work::Guest { from, handle }) = self.work.remove(Key(payload)) else {
                return;
            };
            self.give_back(
                from,
                Returned {
                    payload: handle.payload,
                    results,
                    relay,
                    loaded_bytes: handle.loaded_bytes,
                },
            );
            return;
        }
        self.finish_home(payload, results, relay);
    }

    /// Applies the results of one vertex of this shard's own messages.
    pub(super) fn finish_home(
        &mut self,
        payload: u64,
        results: Vec<RecipientResult>,
        relay: Option<SocketAddr>,
    ) {
        let Some(Work::Home(home)) = self.work.get(Key(payload)) else {
            return;
        };
        let (vertex, message, thread) = (home.vertex, home.message, home.thread);
        if results.iter().all(|result| result.not_attempted) {
            self.scheduler
                .report(self.now, vertex, Verdict::NotAttempted);
            self.make_eager(thread);
            self.maybe_rest(message, false);
            return;
        }
        let recipients = home.recipients.clone();
        let whole = self.ends_with(message, &results);
        let (mut failures, mut deferred) = (Vec::new(), Vec::new());
        for result in results {
            let Some(recipient) = recipients.get(result.recipient).copied() else {
                continue;
            };
            match result.status {
                client::Status::Delivered => {
                    let reply = &result.reply;
                    self.delivered(message, thread, recipient, relay, reply, !whole);
                }
                client::Status::Failed => {
                    failures.push(Failure::remote(recipient, thread, relay, result.reply));
                }
                client::Status::Deferred => deferred.push((recipient, result.reply)),
            }
        }
        if deferred.is_empty() {
            self.scheduler.report(self.now, vertex, Verdict::Finished);
            self.end_work(Key(payload));
        } else {
            self.deferred(payload, deferred, relay, &mut failures);
        }
        if failures.is_empty() {
            self.end_if_finished(message);
        } else {
            self.fail(message, failures);
        }
    }

    /// Whether these results deliver all that is left of a message: then its done record says it all.
    fn ends_with(&self, message: MessageKey, results: &[RecipientResult]) -> bool {
        let all_delivered = || {
            let mut results = results.iter();
            results.all(|result| result.status == client::Status::Delivered)
        };
        self.live.get(&message).is_some_and(|live| {
            live.open_count as usize == results.len() && !live.has_file && all_delivered()
        })
    }

    fn delivered(
        &mut self,
        message: MessageKey,
        thread: ThreadKey,
        recipient: u32,
        relay: Option<SocketAddr>,
        reply: &[u8],
        recorded: bool,
    ) {
        let Some(live) = self.live.get_mut(&message) else {
            return;
        };
        live.open_count -= 1;
        self.queued.close();
        self.shared.metrics(self.settings.shard).delivered();
        self.log_result(message, thread, recipient, relay, "delivered", reply);
        if recorded {
            let outcome = Outcome {
                recipient,
                attempt: 1,
                status: Status::Delivered,
                next_ms: 0,
                reply: reply.to_vec(),
            };
            self.log.outcome(self.now.mono_ns, message, outcome);
        }
    }

    /// Some recipients of a vertex have to be tried again, or have been tried long enough.
    fn deferred(
        &mut self,
        payload: u64,
        deferred: Vec<(u32, Vec<u8>)>,
        relay: Option<SocketAddr>,
        failures: &mut Vec<Failure>,
    ) {
        let Some(Work::Home(home)) = self.work.get_mut(Key(payload)) else {
            return;
        };
        let (message, thread, vertex) = (home.message, home.thread, home.vertex);
        let left = home.recipients.len() - deferred.len();
        home.recipients = deferred.iter().map(|(recipient, _)| *recipient).collect();
        self.count_left(thread, left);
        let reply = deferred
            .first()
            .map_or_else(Vec::new, |(_, reply)| reply.clone());
        match self
            .scheduler
            .report(self.now, vertex, Verdict::Deferred { reply })
        {
            Reported::Retry { due_ms, attempt } => {
                for (recipient, reply) in deferred {
                    self.shared.metrics(self.settings.shard).deferred();
                    self.log_result(message, thread, recipient, relay, "deferred", &reply);
                    let status = Status::Deferred;
                    let outcome = Outcome {
                        recipient,
                        attempt,
                        status,
                        next_ms: due_ms,
                        reply,
                    };
                    self.log.outcome(self.now.mono_ns, message, outcome);
                }
                self.uncache(message);
            }
            Reported::Expired | Reported::Finished => {
                self.end_work(Key(payload));
                failures.extend(
                    deferred.into_iter().map(|(recipient, reply)| {
                        Failure::expired(recipient, thread, relay, reply)
                    }),
                );
            }
        }
    }

    /// The scheduler gave up on a vertex that was waiting.
    pub(super) fn expired(&mut self, _vertex: VertexKey, payload: u64) {
        let Some(home) = self.end_work(Key(payload)) else {
            return;
        };
        let (_, _, reply) = self.scheduler.thread_state(home.thread);
        let reply = if reply.is_empty() {
            b"451 4.4.7 retry time exceeded"
        } else {
            reply
        }
        .to_vec();
        let failures = home
            .recipients
            .iter()
            .map(|recipient| Failure::expired(*recipient, home.thread, None, reply.clone()))
            .collect();
        self.fail(home.message, failures);
    }

    /// The next hop will never take mail: all that waits for it fails now.
    pub(super) fn refuse_thread(&mut self, thread: ThreadKey, reply: &[u8]) {
        while let Some((vertex, payload)) = self.scheduler.take(self.now, thread) {
            let count = match self.work.get(Key(payload)) {
                Some(Work::Home(home)) => home.recipients.len(),
                Some(Work::Guest { handle, .. }) => handle.job.recipients.len(),
                None => 0,
            };
            let results = (0..count)
                .map(|recipient| RecipientResult {
                    recipient,
                    status: client::Status::Failed,
                    reply: reply.to_vec(),
                    not_attempted: false,
                })
                .collect();
            self.finished(vertex, payload, results, None);
        }
        self.refuse_resting(thread, reply);
    }

    pub(super) fn not_attempted(&mut self, vertex: VertexKey) {
        self.scheduler
            .report(self.now, vertex, Verdict::NotAttempted);
    }

    /// Puts all recipients of a vertex off for a reason of our own.
    pub(super) fn defer_vertex(&mut self, _vertex: VertexKey, payload: u64, reply: &[u8]) {
        let Some(Work::Home(home)) = self.work.get(Key(payload)) else {
            return;
        };
        let results = (0..home.recipients.len())
            .map(|recipient| RecipientResult {
                recipient,
                status: client::Status::Deferred,
                reply: reply.to_vec(),
                not_attempted: false,
            })
            .collect();
        self.finish_home(payload, results, None);
    }

    /// Ends a message whose last recipient is finished and whose file, if it had one, is gone. Another
    /// rests if it can.
    pub(super) fn end_if_finished(&mut self, message: MessageKey) {
        let Some(live) = self.live.get(&message) else {
            return;
        };
        let (is_finished, has_file) = (live.open_count == 0, live.has_file);
        if !is_finished {
            self.maybe_rest(message, false);
            return;
        }
        self.uncache(message);
        if !has_file {
            self.live.remove(&message);
            self.log.done(self.now.mono_ns, message);
        }
    }

    /// Drops the cached content of a message that will not be sent soon.
    pub(super) fn uncache(&mut self, message: MessageKey) {
        let Some(live) = self.live.get_mut(&message) else {
            return;
        };
        if let Some(content) = live.content.take() {
            self.memory.uncache(content.len());
            self.feed_starved();
        }
    }

    pub(super) fn log_result(
        &mut self,
        message: MessageKey,
        thread: ThreadKey,
        recipient: u32,
        relay: Option<SocketAddr>,
        status: &'static str,
        reply: &[u8],
    ) {
        self.ensure_thread(thread);
        let Some(live) = self.live.get(&message) else {
            return;
        };
        let entry = &self.threads[thread.0 as usize];
        self.mail_log.result(
            self.now,
            &mail_log::Result {
                id: &live.id.to_string(),
                recipient: recipients::address(&live.envelope, recipient),
                original: recipients::original(&live.envelope, recipient),
                generation: live.generation,
                channel: &entry.channel,
                host: &entry.host,
                relay,
                status,
                delay_ms: self.now.wall_ms.saturating_sub(live.envelope.arrival_ms),
                reply,
            },
        );
    }

    pub(super) fn log_thread_failure(
        &mut self,
        thread: ThreadKey,
        relay: Option<SocketAddr>,
        reply: &[u8],
    ) {
        let entry = &self.threads[thread.0 as usize];
        self.mail_log
            .thread(self.now, &entry.channel, &entry.host, relay, reply);
    }
}
