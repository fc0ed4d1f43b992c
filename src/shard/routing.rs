//! Routing a live message: the router is asked for recipients that have no next hop, and waited for.
//!
//! A routing that needs something from outside is kept here while the control thread finds it out. So many are
//! kept at most ([`Settings::routings_max`](super::Settings)); messages beyond it stay unrouted in the queue and take
//! their turn, and while as many wait for that, clients get 451 and files stay in `router/`. Nothing of a routing is on disk before
//! its result: after a stop or a crash a message without one is routed again.
//!
//! What the router makes of a recipient that stays what it is needs no record. Everything else is a round of the
//! spool: see `spool/FORMAT.md`. A recipient that the router cannot decide about (`hold`) keeps its number and is
//! asked for again at times that the rule for `hold/router` names, until it expires.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use spool::{Envelope, MessageKey, Outcome, Status};

use super::Shard;
use super::accounts::{self, Accounts};
use super::bounce::Failure;
use super::dispatch::{Due, Load, Placed};
use super::expansion::Expansion;
use super::recipients::{self, addressed};
use super::scripted;
use crate::base::fast_map::FastMap;
use crate::base::slab::Key;
use crate::control::route::{RouteAnswer, RouteQuestion};
use crate::io::Driver;
use crate::mail::edit;
use crate::router::message::{Origin, Owner};
use crate::router::{
    Addressee, Answer, Fate, Group, Mail, Need, Recipient, Recipients, Routed, Routing, Turn,
};

/// How long an answer from outside is waited for.
const ANSWER_NS: u64 = 120_000_000_000;

/// Results that the spool had no room for are offered again after this, and whenever a commit has ended.
const RECORD_AGAIN_NS: u64 = 1_000_000_000;

/// What routing is waiting for.
#[derive(Default)]
pub(super) struct Routes {
    /// Routings that wait, by the token of their question.
    suspended: FastMap<u64, Suspended>,
    accounts: Accounts,
    /// When an answer is not waited for any longer; the same time for all, so in order.
    deadlines: VecDeque<(u64, u64)>,
    /// Messages that wait for one of them to end.
    backlog: VecDeque<(MessageKey, Vec<Asked>)>,
    /// Results that the spool had no room for.
    unrecorded: VecDeque<(MessageKey, Expansion)>,
    record_at_ns: u64,
    /// Results of which not all is staged: the first number, and when so many of the new recipients are due.
    staging: FastMap<MessageKey, (u32, Vec<(u32, u64)>)>,
    /// Messages with recipients that are on hold, by the wall time of their next turn.
    pub(super) holds: BTreeSet<(u64, MessageKey)>,
}

/// Why a recipient is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// As the envelope has it.
    First,
    /// One that routing made, and could not decide about.
    Held,
    /// An operator wants it: what its recipient of the envelope becomes now.
    Again,
}

/// A recipient that is being routed.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) number: u32,
    /// Others that its result takes the place of.
    pub(super) others: Vec<u32>,
    /// The recipient of the envelope.
    pub(super) of: u32,
    pub(super) due_ms: u64,
    pub(super) how: How,
}

impl Asked {
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::once(self.number).chain(self.others.iter().copied())
    }
}

/// Who waits for a routing.
pub(super) enum Waits {
    Message(MessageKey, Vec<Asked>),
    /// An operator, about recipients that have a next hop.
    Reroute(MessageKey, Vec<Asked>),
    /// A session, with what is remembered of the answer.
    Session(Key, super::verify::Asked),
}

struct Suspended {
    waits: Waits,
    /// Whose account it asked for.
    account: Option<Vec<u8>>,
    routing: Box<dyn Routing>,
}

impl Waits {
    fn message(&self) -> Option<MessageKey> {
        match self {
            Self::Message(message, _) | Self::Reroute(message, _) => Some(*message),
            Self::Session(..) => None,
        }
    }
}

/// What a result comes to.
#[derive(Default)]
pub(super) struct Decided {
    placed: Vec<Placed>,
    held: Vec<(u32, String)>,
    dropped: Vec<u32>,
    failed: Vec<Failure>,
    expansion: Expansion,
}

/// Who brought a message, as the router sees it.
fn origin_of(envelope: &Envelope) -> Origin {
    match &envelope.origin {
        spool::Origin::Relay => Origin::Relay,
        spool::Origin::Submission => Origin::Submission,
        spool::Origin::User(user) => Origin::User(Owner {
            uid: user.uid,
            login: user.login.clone(),
            full_name: user.full_name.clone(),
            trusted: user.trusted,
        }),
    }
}

fn ret(ret: spool::Ret) -> &'static [u8] {
    match ret {
        spool::Ret::Full => b"FULL",
        spool::Ret::Headers => b"HDRS",
    }
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
    /// Asks the router about recipients of a live message.
    pub(super) fn evaluate(&mut self, message: MessageKey, asked: Vec<Asked>) {
        let Some(live) = self.live.get_mut(&message) else {
            return;
        };
        live.routing_count += asked
            .iter()
            .map(|asked| asked.numbers().count())
            .sum::<usize>();
        if let Some(turn) = self.ask_router(message, &asked) {
            self.routed(Waits::Message(message, asked), turn);
        }
    }

    /// What the router says about recipients of a live message, or needs to know.
    pub(super) fn ask_router(&mut self, message: MessageKey, asked: &[Asked]) -> Option<Turn> {
        let live = self.live.get(&message)?;
        let envelope = &live.envelope;
        let addressees: Vec<Addressee<'_>> = asked
            .iter()
            .filter_map(|asked| {
                let number = if asked.how == How::Held {
                    asked.number
                } else {
                    asked.of
                };
                let recipient = addressed(envelope, number)?;
                Some(Addressee {
                    address: recipient.address,
                    notify: recipient.notify,
                    orcpt: recipient.orcpt,
                })
            })
            .collect();
        let origin = origin_of(envelope);
        let mail = Mail {
            id: &live.id,
            sender: &envelope.sender,
            recipients: &addressees,
            ret: envelope.ret.map(ret),
            envid: envelope.envid.as_deref(),
            client: &envelope.client,
            helo: &envelope.helo,
            protocol: &envelope.protocol,
            origin: &origin,
            arrival_ms: envelope.arrival_ms,
            now: self.now,
            size_bytes: self.log.content_len(message).unwrap_or(0),
            content: live.content.as_ref().map(|content| content.as_slice()),
        };
        Some(self.router.route(&mail))
    }

    /// A routing has come to its end, or needs something.
    pub(super) fn routed(&mut self, waits: Waits, turn: Turn) {
        match (self.answer_what_is_known(turn), waits) {
            (Turn::Need(routing, need), waits) => self.suspend(waits, routing, need),
            (Turn::Done(mut routed), Waits::Message(message, asked)) => {
                self.not_routing(message, &asked);
                if !routed.remarks.is_empty() {
                    self.note(message, std::mem::take(&mut routed.remarks));
                }
                let len = self.log.content_len(message).unwrap_or(0);
                if routed
                    .groups
                    .iter()
                    .all(|group| edit::fit(&group.edits, len))
                {
                    self.decide(message, &asked, routed);
                } else {
                    let numbers = asked.iter().flat_map(Asked::numbers).collect();
                    self.set_aside(message, numbers, "changes that are not of this content");
                }
            }
            (Turn::Stopped(reason), Waits::Message(message, asked)) => {
                self.not_routing(message, &asked);
                let numbers = asked.iter().flat_map(Asked::numbers).collect();
                self.set_aside(message, numbers, &reason);
            }
            (turn, Waits::Reroute(message, asked)) => self.rerouted(message, &asked, turn),
            (turn, Waits::Session(key, asked)) => self.verified(key, asked, turn),
        }
    }

    /// Goes on with a routing as long as it needs what this shard remembers.
    fn answer_what_is_known(&self, mut turn: Turn) -> Turn {
        loop {
            match turn {
                Turn::Need(routing, Need::Outside(request)) => {
                    let accounts = &self.routes.accounts;
                    let Some(answer) = accounts.answer(&request, self.now.mono_ns) else {
                        return Turn::Need(routing, Need::Outside(request));
                    };
                    turn = routing.resume(Answer::Outside(Ok(answer)));
                }
                turn => return turn,
            }
        }
    }

    fn not_routing(&mut self, message: MessageKey, asked: &[Asked]) {
        if let Some(live) = self.live.get_mut(&message) {
            let count: usize = asked.iter().map(|asked| asked.numbers().count()).sum();
            live.routing_count = live.routing_count.saturating_sub(count);
        }
    }

    /// Keeps a routing while what it needs is found out.
    fn suspend(&mut self, waits: Waits, routing: Box<dyn Routing>, need: Need) {
        if self.routes.suspended.len() >= self.settings.routings_max {
            match waits {
                Waits::Message(message, asked) => {
                    // It begins anew when it has a place.
                    self.not_routing(message, &asked);
                    if let Some(live) = self.live.get_mut(&message) {
                        live.routing_count += 1;
                    }
                    self.routes.backlog.push_back((message, asked));
                }
                Waits::Reroute(message, asked) => self.reroute_later(message, asked),
                Waits::Session(key, _) => self.cannot_verify(key),
            }
            return;
        }
        self.question_next += 1;
        let token = self.question_next;
        let message = waits.message();
        let account = match &need {
            Need::Outside(request) => accounts::name(request).map(<[u8]>::to_vec),
            Need::Content => None,
        };
        let suspended = Suspended {
            waits,
            account,
            routing,
        };
        self.routes.suspended.insert(token, suspended);
        let deadline = self.now.after_ns(ANSWER_NS);
        self.routes.deadlines.push_back((deadline, token));
        match need {
            Need::Outside(request) => {
                let question = RouteQuestion {
                    shard: self.settings.shard,
                    token,
                    request,
                };
                if (self.outside.ask_route)(question).is_err() {
                    let text = "too many questions of routers wait".to_owned();
                    self.resume(token, Answer::Outside(Err(text)));
                }
            }
            Need::Content => match message {
                Some(message) => self.content_for(message, token),
                None => self.resume(token, Answer::Content(None)),
            },
        }
    }

    fn content_for(&mut self, message: MessageKey, token: u64) {
        let live = self.live.get(&message);
        match live.and_then(|live| live.content.clone()) {
            Some(content) => self.resume(token, Answer::Content(Some(content))),
            None => {
                self.load(message, Load::Routing { token });
            }
        }
    }

    /// Goes on with a routing.
    pub(super) fn resume(&mut self, token: u64, answer: Answer) {
        let Some(Suspended { waits, routing, .. }) = self.routes.suspended.remove(&token) else {
            return;
        };
        let message = waits.message();
        let turn = routing.resume(answer);
        self.routed(waits, turn);
        self.reroute_on();
        if let Some(message) = message {
            self.maybe_rest(message, false);
        }
    }

    /// An answer of the control thread.
    pub(super) fn route_answered(&mut self, answer: RouteAnswer) {
        let suspended = self.routes.suspended.get_mut(&answer.token);
        let account = suspended.and_then(|suspended| suspended.account.take());
        if let (Some(account), Ok(reply)) = (account, &answer.reply) {
            let routes = &mut self.routes;
            routes.accounts.learn(account, reply, self.now.mono_ns);
        }
        self.resume(answer.token, Answer::Outside(answer.reply));
    }

    /// Routings that wait for an answer.
    pub(super) fn routes_waiting(&self) -> usize {
        self.routes.suspended.len()
    }

    /// Whether so much waits to be routed that new mail has to wait outside.
    pub(super) fn routes_are_full(&self) -> bool {
        self.routes.backlog.len() >= self.settings.routings_max
    }

    /// When [`Self::route_turn`] has something to do.
    pub(super) fn routes_due_ns(&self) -> Option<u64> {
        let answers = self.routes.deadlines.front().map(|(deadline, _)| *deadline);
        let holds = self.routes.holds.first().map(|(due_ms, _)| {
            let wait_ms = due_ms.saturating_sub(self.now.wall_ms);
            self.now.after_ns(wait_ms.saturating_mul(1_000_000))
        });
        let records = (!self.routes.unrecorded.is_empty()).then_some(self.routes.record_at_ns);
        [answers, holds, records].into_iter().flatten().min()
    }

    /// Gives up on answers, routes what was on hold, lets those go on that waited for a place.
    pub(super) fn route_turn(&mut self) {
        while let Some((deadline, token)) = self.routes.deadlines.front().copied() {
            let waits = self.routes.suspended.contains_key(&token);
            if waits && deadline > self.now.mono_ns {
                break;
            }
            self.routes.deadlines.pop_front();
            if waits {
                let text = "no answer in two minutes".to_owned();
                self.resume(token, Answer::Outside(Err(text)));
            }
        }
        if self.stopping.is_some() {
            return;
        }
        if self.now.mono_ns >= self.routes.record_at_ns {
            self.record_again();
        }
        for _ in 0..self.routes.backlog.len() {
            if self.routes.suspended.len() >= self.settings.routings_max {
                break;
            }
            let Some((message, asked)) = self.routes.backlog.pop_front() else {
                break;
            };
            if let Some(live) = self.live.get_mut(&message) {
                live.routing_count = live.routing_count.saturating_sub(1);
                self.evaluate(message, asked);
                self.maybe_rest(message, false);
            }
        }
        self.reroute_on();
        self.hold_turn();
    }

    /// Sorts a result: what stays what it is has its place, the rest becomes a round.
    fn decide(&mut self, message: MessageKey, asked: &[Asked], routed: Routed) {
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

    fn enact_placed(&mut self, message: MessageKey, decided: Decided) {
        let generation = self.live.get(&message).map(|live| live.generation);
        self.enact(message, decided);
        // What is only placed keeps the configuration that it was routed by.
        if let (Some(live), Some(generation)) = (self.live.get_mut(&message), generation) {
            live.generation = generation;
        }
    }

    /// Where a recipient that routing made goes. A new one that is on hold waits; an older one is asked for, and
    /// given back.
    fn place_routed(
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

    /// Places recipients whose next hop is known, and asks the router about the others.
    pub(super) fn route(&mut self, message: MessageKey, due: Vec<Due>) {
        let Some(live) = self.live.get(&message) else {
            return;
        };
        let count = live.envelope.recipients.len() as u32;
        let mut decided = Decided::default();
        let mut asked = Vec::new();
        for due in due {
            let number = due.recipient;
            if number >= count {
                asked.extend(self.place_routed(message, due, false, &mut decided));
            } else if let Some(thread) = due.thread {
                let limit = self.settings.transaction_recipients_max;
                let placed = &mut decided.placed;
                super::dispatch::place(placed, (thread, None), due.due_ms, number, limit);
            } else {
                asked.push(Asked {
                    number,
                    others: Vec::new(),
                    of: number,
                    due_ms: due.due_ms,
                    how: How::First,
                });
            }
        }
        self.enact_placed(message, decided);
        if !asked.is_empty() {
            self.evaluate(message, asked);
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
