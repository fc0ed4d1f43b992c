//! Recipients that the router cannot decide about: they wait, and it is asked again at times that the rule for
//! `hold/router` names, until they expire.

use spool::{MessageKey, Outcome, Status};

use super::Shard;
use super::bounce::Failure;
use super::dispatch::Due;
use crate::io::Driver;
use crate::scheduler::ThreadKey;

/// Bytes of a reason that are kept.
const REASON_BYTES_MAX: usize = 400;

impl<D: Driver> Shard<D> {
    /// Routes what was on hold and whose time has come.
    pub(super) fn hold_turn(&mut self) {
        while let Some((due_ms, message)) = self.routes.holds.first().copied() {
            if due_ms > self.now.wall_ms {
                return;
            }
            self.routes.holds.pop_first();
            let Some(live) = self.live.get_mut(&message) else {
                continue;
            };
            let now_ms = self.now.wall_ms;
            let due = live.on_hold.extract_if(.., |(_, due_ms)| *due_ms <= now_ms);
            let due: Vec<Due> = due.map(|(number, _)| Due::now(number)).collect();
            if !due.is_empty() {
                self.route(message, due);
                self.maybe_rest(message, false);
            }
        }
    }

    /// The router cannot decide about a recipient now. It is asked again later, until it expires.
    pub(super) fn hold(&mut self, message: MessageKey, number: u32, reason: &str) {
        let Some(live) = self.live.get(&message) else {
            return;
        };
        let arrival_ms = live.envelope.arrival_ms;
        let reason: String = reason
            .chars()
            .map(|char| if char.is_control() { ' ' } else { char })
            .collect();
        let mut reply = format!("451 4.4.3 not routed yet: {reason}").into_bytes();
        reply.truncate(REASON_BYTES_MAX);
        let thread = self.hold_thread();
        let rule = self.scheduler.rule(thread);
        if self.now.wall_ms >= arrival_ms.saturating_add(rule.expiry_ms) {
            let failure = Failure::expired(number, thread, None, reply);
            self.fail(message, vec![failure]);
            return;
        }
        let outcomes = self.log.outcomes(message);
        let at = outcomes.binary_search_by_key(&number, |outcome| outcome.recipient);
        let attempt = at.map_or(0, |at| outcomes[at].attempt) + 1;
        let due_ms = self.now.wall_ms + rule.delay_ms(attempt);
        self.shared.metrics(self.settings.shard).deferred();
        self.log_result(message, thread, number, None, "deferred", &reply);
        let outcome = Outcome {
            recipient: number,
            attempt,
            status: Status::Deferred,
            next_ms: due_ms,
            reply,
        };
        self.log.outcome(self.now.mono_ns, message, outcome);
        self.wait_on_hold(message, number, due_ms);
    }

    /// A recipient is routed at this time.
    pub(super) fn wait_on_hold(&mut self, message: MessageKey, number: u32, due_ms: u64) {
        if let Some(live) = self.live.get_mut(&message) {
            live.on_hold.push((number, due_ms));
            self.routes.holds.insert((due_ms, message));
        }
    }

    /// What rules and the log call those that the router does not decide about.
    pub(super) fn hold_thread(&mut self) -> ThreadKey {
        let thread = self.scheduler.thread("hold", "router");
        self.ensure_thread(thread);
        thread
    }
}
