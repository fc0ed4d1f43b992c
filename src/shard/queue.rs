//! The queued recipients of a message, and what an operator does to them: hold, release, retry, delete,
//! bounce.
//!
//! An action is recorded as an outcome of the recipient, so it survives a restart.

use std::collections::{BTreeMap, BTreeSet};

use spool::{MessageKey, Outcome, Status};

use super::Shard;
use super::bounce::Failure;
use super::dispatch::{Due, Work};
use super::intake::Live;
use super::recipients;
use crate::base::slab::Key;
use crate::control::queue::{Act, EntryRecipient};
use crate::io::Driver;
use crate::scheduler::Standing;

/// What an operator reads when a recipient was never tried.
const HELD: &[u8] = b"held by the operator";

/// A queued recipient that was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) recipient: u32,
    /// The vertex it belongs to; none: it is held by an operator or the router.
    pub(super) work: Option<Key>,
    pub(super) entry: EntryRecipient,
}

impl<D: Driver> Shard<D> {
    /// The recipients of a message that are not finished, by number.
    pub(super) fn queued(&self, message: MessageKey) -> Vec<Found> {
        let Some(live) = self.live.get(&message) else {
            return Vec::new();
        };
        let outcomes: BTreeMap<u32, &Outcome> = self
            .log
            .outcomes(message)
            .iter()
            .map(|outcome| (outcome.recipient, outcome))
            .collect();
        let mut found = Vec::new();
        for work in &live.work {
            let Some(Work::Home(home)) = self.work.get(*work) else {
                continue;
            };
            let Some(standing) = self.scheduler.standing(self.now, home.vertex) else {
                continue;
            };
            for recipient in &home.recipients {
                let address = recipients::address(&live.envelope, *recipient).to_vec();
                let entry = entry(address, &standing, outcomes.get(recipient).copied());
                found.push(Found {
                    recipient: *recipient,
                    work: Some(*work),
                    entry,
                });
            }
        }
        for recipient in &live.held {
            let outcome = outcomes.get(recipient);
            found.push(Found {
                recipient: *recipient,
                work: None,
                entry: EntryRecipient {
                    address: recipients::address(&live.envelope, *recipient).to_vec(),
                    state: "held",
                    attempts: outcome.map_or(0, |outcome| outcome.attempt),
                    reply: outcome.map_or_else(Vec::new, |outcome| outcome.reply.clone()),
                    ..EntryRecipient::default()
                },
            });
        }
        for (recipient, due_ms) in &live.on_hold {
            let outcome = outcomes.get(recipient);
            found.push(Found {
                recipient: *recipient,
                work: None,
                entry: EntryRecipient {
                    address: recipients::address(&live.envelope, *recipient).to_vec(),
                    channel: "hold".to_owned(),
                    host: "router".to_owned(),
                    state: "deferred",
                    attempts: outcome.map_or(0, |outcome| outcome.attempt),
                    next_ms: *due_ms,
                    reply: outcome.map_or_else(Vec::new, |outcome| outcome.reply.clone()),
                    becomes: None,
                },
            });
        }
        found.sort_unstable_by_key(|found| found.recipient);
        if live.routing_count > 0 {
            add_routing(live, &outcomes, &mut found);
        }
        found
    }

    /// Does something to recipients of a message; says to how many. Those that are being delivered
    /// at this moment are left alone.
    pub(super) fn act(&mut self, message: MessageKey, act: Act, found: &[Found]) -> u64 {
        let mut by_work: BTreeMap<Option<Key>, Vec<u32>> = BTreeMap::new();
        for one in found {
            by_work.entry(one.work).or_default().push(one.recipient);
        }
        let mut acted = Vec::new();
        for (work, recipients) in by_work {
            match (act, work) {
                (Act::Retry, Some(work)) => self.hurry(work, recipients, &mut acted),
                (Act::Release, Some(_)) => {}
                // Once the router has answered: see `reroute`.
                (Act::Reroute, _) => {}
                (Act::Hold | Act::Delete | Act::Bounce, Some(work)) => {
                    self.withdraw(message, work, recipients, &mut acted);
                }
                (_, None) => self.take_held(message, act, &recipients, &mut acted),
            }
        }
        let count = acted.len() as u64;
        if count > 0 {
            self.apply(message, act, acted);
        }
        count
    }

    /// Takes recipients that are held by an operator or the router out of where they wait, when the act is for them.
    fn take_held(
        &mut self,
        message: MessageKey,
        act: Act,
        recipients: &[u32],
        acted: &mut Vec<u32>,
    ) {
        let Some(live) = self.live.get_mut(&message) else {
            return;
        };
        // Who is held stays so, wherever he would go now.
        if matches!(act, Act::Release | Act::Delete | Act::Bounce) {
            acted.extend(live.held.extract_if(.., |held| recipients.contains(held)));
        }
        if act != Act::Release {
            let ours = |(number, _): &mut (u32, u64)| recipients.contains(number);
            let taken = live.on_hold.extract_if(.., ours);
            acted.extend(taken.map(|(number, _)| number));
        }
    }

    fn hurry(&mut self, work: Key, recipients: Vec<u32>, acted: &mut Vec<u32>) {
        if let Some(Work::Home(home)) = self.work.get(work) {
            self.scheduler.resume(self.now, home.thread);
            self.scheduler.hurry(home.vertex);
            let thread = home.thread;
            self.make_eager(thread);
            acted.extend(recipients);
        }
    }

    /// Takes recipients out of their vertex; the others of it go on as a vertex of their own.
    pub(super) fn withdraw(
        &mut self,
        message: MessageKey,
        work: Key,
        recipients: Vec<u32>,
        acted: &mut Vec<u32>,
    ) {
        let Some(Work::Home(home)) = self.work.get(work) else {
            return;
        };
        let (thread, vertex) = (home.thread, home.vertex);
        let due_ms = self.scheduler.due_ms(vertex);
        if !self.scheduler.withdraw(vertex) {
            return;
        }
        let Some(home) = self.end_work(work) else {
            return;
        };
        let rest: Vec<u32> = home
            .recipients
            .into_iter()
            .filter(|recipient| !recipients.contains(recipient))
            .collect();
        if !rest.is_empty() {
            self.insert_vertex(message, thread, due_ms, rest);
        }
        acted.extend(recipients);
    }

    fn apply(&mut self, message: MessageKey, act: Act, recipients: Vec<u32>) {
        match act {
            // Of those that are on hold; others have been hurried where they wait.
            Act::Retry => {
                let on_hold = recipients
                    .into_iter()
                    .filter(|number| !self.is_placed(message, *number));
                let due: Vec<Due> = on_hold.map(Due::now).collect();
                self.route(message, due);
            }
            Act::Reroute => {}
            Act::Hold => {
                for recipient in &recipients {
                    self.record_act(message, *recipient, Status::Held, HELD, "held");
                }
                if let Some(live) = self.live.get_mut(&message) {
                    live.held.extend(recipients);
                }
            }
            Act::Release => {
                for recipient in &recipients {
                    let reply = b"released by the operator";
                    self.record_act(message, *recipient, Status::Deferred, reply, "released");
                }
                let due = recipients.into_iter().map(Due::now);
                self.route(message, due.collect());
            }
            Act::Delete => {
                for recipient in recipients {
                    let reply = b"deleted by the operator";
                    self.record_act(message, recipient, Status::Failed, reply, "deleted");
                    if let Some(live) = self.live.get_mut(&message) {
                        live.open_count -= 1;
                        self.queued.close();
                    }
                }
                self.end_if_finished(message);
            }
            Act::Bounce => {
                let failures = recipients
                    .into_iter()
                    .map(|recipient| {
                        Failure::routing(recipient, "5.0.0", "returned by the postmaster")
                    })
                    .collect();
                self.fail(message, failures);
            }
        }
    }

    /// Whether a recipient is in a vertex.
    fn is_placed(&self, message: MessageKey, number: u32) -> bool {
        let Some(live) = self.live.get(&message) else {
            return false;
        };
        live.work.iter().any(|work| {
            matches!(self.work.get(*work), Some(Work::Home(home)) if home.recipients.contains(&number))
        })
    }

    fn record_act(
        &mut self,
        message: MessageKey,
        recipient: u32,
        status: Status,
        reply: &[u8],
        word: &'static str,
    ) {
        let before = self.log.outcomes(message).iter();
        let attempt = before
            .filter(|outcome| outcome.recipient == recipient)
            .map(|outcome| outcome.attempt)
            .max()
            .unwrap_or(0);
        let thread = self.scheduler.thread("hold", "operator");
        self.log_result(message, thread, recipient, None, word, reply);
        let outcome = Outcome {
            recipient,
            attempt,
            status,
            next_ms: self.now.wall_ms,
            reply: reply.to_vec(),
        };
        self.log.outcome(self.now.mono_ns, message, outcome);
    }

    /// Ends a vertex of a message of ours.
    pub(super) fn end_work(&mut self, work: Key) -> Option<super::dispatch::Home> {
        let Some(Work::Home(home)) = self.work.remove(work) else {
            return None;
        };
        if let Some(live) = self.live.get_mut(&home.message)
            && let Some(at) = live.work.iter().position(|other| *other == work)
        {
            live.work.swap_remove(at);
        }
        self.count_left(home.thread, home.recipients.len());
        Some(home)
    }
}

pub(super) fn entry(
    address: Vec<u8>,
    standing: &Standing,
    outcome: Option<&Outcome>,
) -> EntryRecipient {
    let attempts = outcome.map_or(standing.attempts, |outcome| outcome.attempt);
    let thread_failing = standing.thread_attempts > 0;
    let reply = match outcome {
        Some(outcome) if !thread_failing => outcome.reply.clone(),
        _ => standing.thread_reply.clone(),
    };
    let state = if standing.granted {
        "delivering"
    } else if standing.next_ms > 0 || attempts > 0 || thread_failing {
        "deferred"
    } else {
        "waiting"
    };
    EntryRecipient {
        address,
        channel: standing.channel.to_string(),
        host: standing.host.to_string(),
        state,
        attempts: attempts.max(standing.thread_attempts),
        next_ms: standing.next_ms,
        reply,
        becomes: None,
    }
}

/// Recipients that the router is asked about, or whose results wait for the spool, are queued as well.
fn add_routing(live: &Live, outcomes: &BTreeMap<u32, &Outcome>, found: &mut Vec<Found>) {
    let known: BTreeSet<u32> = found.iter().map(|found| found.recipient).collect();
    let is_open = |number: &u32| {
        let outcome = outcomes.get(number);
        !known.contains(number)
            && outcome
                .is_none_or(|outcome| matches!(outcome.status, Status::Deferred | Status::Held))
    };
    let all = 0..live.envelope.recipients_count() as u32;
    found.extend(all.filter(is_open).map(|recipient| Found {
        recipient,
        work: None,
        entry: EntryRecipient {
            address: recipients::address(&live.envelope, recipient).to_vec(),
            channel: "hold".to_owned(),
            host: "router".to_owned(),
            state: "routing",
            ..EntryRecipient::default()
        },
    }));
    found.sort_unstable_by_key(|found| found.recipient);
}
