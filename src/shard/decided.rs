//! What comes of a routing: recipients that have their place, rounds that are recorded, holds, failures.

use std::collections::BTreeSet;
use std::sync::Arc;

use spool::{Envelope, MessageKey, Outcome, Status};

use super::Shard;
use super::bounce::Failure;
use super::dispatch::{Due, Placed};
use super::expansion::Expansion;
use super::recipients::{self, addressed};
use super::routing::{Asked, How};
use super::scripted;
use crate::io::Driver;
use crate::router::{Fate, Group, Recipient, Recipients, Routed};

/// Results that the spool had no room for are offered again after this, and whenever a commit has ended.
const RECORD_AGAIN_NS: u64 = 1_000_000_000;

/// What a result comes to.
#[derive(Default)]
pub(super) struct Decided {
    pub(super) placed: Vec<Placed>,
    held: Vec<(u32, String)>,
    dropped: Vec<u32>,
    failed: Vec<Failure>,
    expansion: Expansion,
}

impl Decided {
    pub(super) fn of(envelope: &Envelope, groups: &[Group], generation: u64) -> Self {
        Self {
            expansion: Expansion::of(envelope, groups, generation),
            ..Self::default()
        }
    }

    /// Recipients stay what they are and go elsewhere; nothing else is to be done.
    pub(super) fn is_plain(&self) -> bool {
        let other = self.held.len() + self.dropped.len() + self.failed.len();
        other == 0 && self.expansion.is_empty()
    }
}

/// The results of each addressee, those that are discarded left out.
pub(super) fn by_addressee(results: Recipients, count: usize) -> Vec<Vec<Recipient>> {
    let mut all: Vec<Vec<Recipient>> = Vec::new();
    all.resize_with(count, Vec::new);
    for result in results {
        if result.fate != Fate::Discard
            && let Some(mine) = all.get_mut(result.of as usize)
        {
            mine.push(result);
        }
    }
    all
}

impl<D: Driver> Shard<D> {
    /// Sorts a result: what stays what it is has its place, the rest becomes a round.
    pub(super) fn decide(&mut self, message: MessageKey, asked: &[Asked], routed: Routed) {
        let Some(live) = self.live.get(&message) else {
            return;
        };
        let mut decided = Decided::of(&live.envelope, &routed.groups, self.generation);
        let mut results = routed.recipients.into_iter().peekable();
        for (at, asked) in (0u32..).zip(asked) {
            let mine = std::iter::from_fn(|| results.next_if(|result| result.of <= at));
            let mine = mine.filter(|result| result.fate != Fate::Discard);
            self.sort(message, asked, mine, &mut decided);
        }
        self.enact(message, decided);
    }

    /// Of what a recipient of the envelope becomes, leaves out what others of the same have become before: they have
    /// been delivered, or will be.
    pub(super) fn leave_known(
        &self,
        message: MessageKey,
        asked: &Asked,
        results: &mut Vec<Recipient>,
    ) {
        let Some(live) = self.live.get(&message) else {
            return;
        };
        let Some(routing) = &live.envelope.routing else {
            return;
        };
        let first = live.envelope.recipients.len() as u32;
        let again: BTreeSet<u32> = asked.numbers().collect();
        let known: BTreeSet<Vec<u8>> = (first..)
            .zip(routing.recipients.iter())
            .filter(|(number, routed)| routed.of == asked.of && !again.contains(number))
            .map(|(_, routed)| routed.user.to_vec())
            .collect();
        results.retain(|result| match &result.fate {
            Fate::Deliver(quad) => !known.contains(&quad.user),
            _ => true,
        });
    }

    /// What becomes of a recipient: what stays what it is has its place, anything else becomes a round.
    pub(super) fn sort(
        &mut self,
        message: MessageKey,
        asked: &Asked,
        mut results: impl Iterator<Item = Recipient>,
        decided: &mut Decided,
    ) {
        match (results.next(), results.next()) {
            (None, _) => decided.dropped.extend(asked.numbers()),
            (Some(result), None) => self.sort_one(message, asked, result, decided),
            (Some(first), Some(second)) => {
                let envelope = &self.live[&message].envelope;
                let results = [first, second].into_iter().chain(results);
                decided.expansion.add(envelope, asked, results);
            }
        }
    }

    fn sort_one(
        &mut self,
        message: MessageKey,
        asked: &Asked,
        result: Recipient,
        decided: &mut Decided,
    ) {
        let envelope = &self.live[&message].envelope;
        match &result.fate {
            Fate::Fail { status, text } => decided.failed.extend(
                asked
                    .numbers()
                    .map(|number| Failure::routing(number, status, text)),
            ),
            Fate::Hold { reason } => {
                let numbers = asked.numbers();
                decided
                    .held
                    .extend(numbers.map(|number| (number, reason.clone())));
            }
            Fate::Deliver(quad)
                if asked.how != How::Held
                    && asked.number == asked.of
                    && decided.expansion.is_plain(envelope, asked.of, &result) =>
            {
                let (channel, host) = (Arc::clone(&quad.channel), Arc::clone(&quad.host));
                let thread = self.scheduler.thread(&channel, &host);
                let limit = self.settings.transaction_recipients_max;
                super::dispatch::place(
                    &mut decided.placed,
                    (thread, None),
                    asked.due_ms,
                    asked.number,
                    limit,
                );
            }
            _ => decided.expansion.add(envelope, asked, [result]),
        }
    }

    pub(super) fn enact(&mut self, message: MessageKey, decided: Decided) {
        let Decided {
            placed,
            held,
            dropped,
            failed,
            mut expansion,
        } = decided;
        if let Some(live) = self.live.get_mut(&message) {
            live.generation = self.generation;
        }
        for placed in placed {
            self.insert_vertex(message, placed.thread, placed.due_ms, placed.recipients);
        }
        for (number, reason) in held {
            self.hold(message, number, &reason);
        }
        if !expansion.is_empty() {
            expansion.finish();
            self.record(message, expansion);
        }
        if !dropped.is_empty() {
            self.drop_recipients(message, dropped);
        }
        if !failed.is_empty() {
            self.fail(message, failed);
        }
    }

    /// Records what recipients have become, and sends it on its way.
    fn record(&mut self, message: MessageKey, expansion: Expansion) {
        let now = self.now.mono_ns;
        let staged = self
            .log
            .route(now, message, expansion.replaced(), expansion.routing());
        match staged {
            Ok((first, whole)) => self.recorded(message, expansion, first, whole),
            Err(spool::Refusal::TooLarge { limit }) => {
                let reason = format!("what routing made of it is larger than {limit} bytes");
                let numbers = expansion.replaced().to_vec();
                self.set_aside(message, numbers, &reason);
            }
            Err(_) => {
                if let Some(live) = self.live.get_mut(&message) {
                    live.routing_count += 1;
                }
                self.routes.record_at_ns = self.now.after_ns(RECORD_AGAIN_NS);
                self.routes.unrecorded.push_back((message, expansion));
            }
        }
    }

    /// The spool may have room for what it refused.
    pub(super) fn record_again(&mut self) {
        for _ in 0..self.routes.unrecorded.len() {
            let Some((message, expansion)) = self.routes.unrecorded.pop_front() else {
                return;
            };
            if let Some(live) = self.live.get_mut(&message) {
                live.routing_count = live.routing_count.saturating_sub(1);
                let before = self.routes.unrecorded.len();
                self.record(message, expansion);
                self.maybe_rest(message, false);
                if self.routes.unrecorded.len() > before {
                    // The others have waited for less time.
                    return;
                }
            }
        }
    }

    fn recorded(&mut self, message: MessageKey, expansion: Expansion, first: u32, whole: bool) {
        let gone = expansion.replaced().len() as u32;
        let (routing, due_ms) = expansion.into_parts();
        let Some(live) = self.live.get_mut(&message) else {
            return;
        };
        let count = routing.recipients.len() as u32;
        let (id, generation) = (live.id.to_string(), routing.generation);
        match &mut live.envelope.routing {
            Some(known) => known.extend(routing),
            None => live.envelope.routing = Some(Box::new(routing)),
        }
        live.open_count = live.open_count + count - gone;
        self.queued.open(count);
        (0..gone).for_each(|_| self.queued.close());
        self.mail_log.routed(self.now, &id, gone, count, generation);
        if whole {
            self.enter_routed(message, first, &due_ms);
        } else {
            if let Some(live) = self.live.get_mut(&message) {
                live.routing_count += 1;
            }
            self.routes.staging.insert(message, (first, due_ms));
        }
    }

    /// All of a large result is staged.
    pub(super) fn rounds_staged(&mut self, message: MessageKey) {
        let Some((first, due_ms)) = self.routes.staging.remove(&message) else {
            return;
        };
        if let Some(live) = self.live.get_mut(&message) {
            live.routing_count = live.routing_count.saturating_sub(1);
        }
        self.enter_routed(message, first, &due_ms);
        self.maybe_rest(message, false);
    }

    fn enter_routed(&mut self, message: MessageKey, first: u32, due_ms: &[(u32, u64)]) {
        let times = due_ms
            .iter()
            .flat_map(|(count, due_ms)| (0..*count).map(|_| *due_ms));
        let due = (first..).zip(times).map(|(recipient, due_ms)| Due {
            due_ms,
            ..Due::now(recipient)
        });
        let mut decided = Decided::default();
        for due in due {
            self.place_routed(message, due, true, &mut decided);
        }
        self.enact_placed(message, decided);
    }

    pub(super) fn enact_placed(&mut self, message: MessageKey, decided: Decided) {
        let generation = self.live.get(&message).map(|live| live.generation);
        self.enact(message, decided);
        // What is only placed keeps the configuration that it was routed by.
        if let (Some(live), Some(generation)) = (self.live.get_mut(&message), generation) {
            live.generation = generation;
        }
    }

    /// Where a recipient that routing made goes. A new one that is on hold waits; an older one is asked for, and
    /// given back.
    pub(super) fn place_routed(
        &mut self,
        message: MessageKey,
        due: Due,
        is_new: bool,
        decided: &mut Decided,
    ) -> Option<Asked> {
        let number = due.recipient;
        let envelope = &self.live.get(&message)?.envelope;
        let recipient = addressed(envelope, number)?;
        let (channel, host) = recipients::hop(envelope, number)?;
        match &**channel {
            "hold" if is_new => {
                let reason = host.to_string();
                decided.held.push((number, reason));
                None
            }
            "hold" => Some(Asked {
                number,
                others: Vec::new(),
                of: recipient.of,
                due_ms: due.due_ms,
                how: How::Held,
            }),
            "error" => {
                let (status, text) = host.split_once(' ').unwrap_or(("5.0.0", host));
                decided.failed.push(Failure::routing(number, status, text));
                None
            }
            _ => {
                let (channel, host) = (Arc::clone(channel), Arc::clone(host));
                let group = recipient.group;
                let thread = self.scheduler.thread(&channel, &host);
                // A program may take all the time it has: others do not wait for the reply with it.
                let alone = &*channel == scripted::LOCAL && &*host != scripted::MAILBOXES;
                let limit = match alone {
                    true => 1,
                    false => self.settings.transaction_recipients_max,
                };
                let placed = &mut decided.placed;
                super::dispatch::place(placed, (thread, group), due.due_ms, number, limit);
                None
            }
        }
    }

    /// The router wants nothing to be done for these: they are finished.
    fn drop_recipients(&mut self, message: MessageKey, numbers: Vec<u32>) {
        let thread = self.scheduler.thread("bitbucket", "router");
        for number in numbers {
            let reply = b"250 2.0.0 dropped by the router";
            self.log_result(message, thread, number, None, "dropped", reply);
            self.finish_recipient(message, number, Status::Delivered, reply);
        }
        self.end_if_finished(message);
    }

    /// Records the last outcome of a recipient that no next hop had a part in.
    pub(super) fn finish_recipient(
        &mut self,
        message: MessageKey,
        recipient: u32,
        status: Status,
        reply: &[u8],
    ) {
        let Some(live) = self.live.get_mut(&message) else {
            return;
        };
        live.open_count -= 1;
        self.queued.close();
        let outcome = Outcome {
            recipient,
            attempt: 1,
            status,
            next_ms: 0,
            reply: reply.to_vec(),
        };
        self.log.outcome(self.now.mono_ns, message, outcome);
    }
}
