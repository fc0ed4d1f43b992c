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

use spool::{Envelope, MessageKey, SpoolId};

use super::Shard;
use super::accounts::{self, Accounts};
use super::decided::Decided;
use super::dispatch::{Due, Load};
use super::expansion::Expansion;
use super::intake::{Content, Message};
use super::recipients::addressed;
use crate::base::clock::Now;
use crate::base::fast_map::FastMap;
use crate::base::slab::Key;
use crate::control::route::{RouteAnswer, RouteQuestion};
use crate::io::Driver;
use crate::mail::edit;
use crate::router::message::{Origin, Owner};
use crate::router::{Addressee, Answer, Mail, Need, Routed, Router, Routing, Turn};

/// How long an answer from outside is waited for.
const ANSWER_NS: u64 = 120_000_000_000;

/// From so many recipients in results of messages that are on their way to the disk, further ones are routed behind
/// their commit: results of long lists are large, and a commit must not wait for many of them.
const EARLY_RECIPIENTS_MAX: usize = 4096;

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
    pub(super) unrecorded: VecDeque<(MessageKey, Expansion)>,
    pub(super) record_at_ns: u64,
    /// Results of which not all is staged: the first number, and when so many of the new recipients are due.
    pub(super) staging: FastMap<MessageKey, (u32, Vec<(u32, u64)>)>,
    /// Messages with recipients that are on hold, by the wall time of their next turn.
    pub(super) holds: BTreeSet<(u64, MessageKey)>,
    /// Recipients in results of messages that are on their way to the disk.
    early_count: usize,
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
    /// One of the envelope that has not been routed.
    fn first(number: u32, due_ms: u64) -> Self {
        Self {
            number,
            others: Vec::new(),
            of: number,
            due_ms,
            how: How::First,
        }
    }

    fn all(envelope: &Envelope) -> Vec<Self> {
        let numbers = 0..envelope.recipients.len() as u32;
        numbers.map(|number| Self::first(number, 0)).collect()
    }

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

/// What the router is told of a message besides its recipients.
struct About<'a> {
    id: &'a SpoolId,
    envelope: &'a Envelope,
    content: Option<&'a [u8]>,
    size_bytes: u64,
    now: Now,
}

impl About<'_> {
    fn ask(&self, router: &mut dyn Router, asked: &[Asked]) -> Turn {
        let envelope = self.envelope;
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
        router.route(&Mail {
            id: self.id,
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
            size_bytes: self.size_bytes,
            content: self.content,
        })
    }
}

/// A result that was found while the message was on its way to the disk.
#[derive(Debug)]
pub(super) struct Early {
    /// The configuration that it comes from: that of another is not used.
    generation: u64,
    /// Or why the script was stopped.
    result: Result<Routed, String>,
}

impl Early {
    fn recipients_count(&self) -> usize {
        self.result
            .as_ref()
            .map_or(0, |routed| routed.recipients.len())
    }
}

impl<D: Driver> Shard<D> {
    /// Routes a message that is on its way to the disk: that time is there anyway, and behind its commit it has a
    /// result at hand. Nothing is waited for: what needs an answer from outside is routed when it is on disk.
    pub(super) fn route_early(&mut self, message: MessageKey, staged: &Message) -> Option<Early> {
        let Content::Memory(content) = &staged.content else {
            return None;
        };
        if self.routes.early_count >= EARLY_RECIPIENTS_MAX {
            return None;
        }
        let about = About {
            id: &staged.id,
            envelope: &staged.envelope,
            content: Some(content),
            size_bytes: self.log.content_len(message).unwrap_or(0),
            now: self.now,
        };
        let turn = about.ask(&mut *self.router, &Asked::all(&staged.envelope));
        let result = match self.answer_what_is_known(None, turn) {
            Turn::Done(routed) => Ok(routed),
            Turn::Stopped(why) => Err(why),
            Turn::Need(..) => return None,
        };
        let early = Early {
            generation: self.generation,
            result,
        };
        self.routes.early_count += early.recipients_count();
        Some(early)
    }

    /// A message has come to the disk, or will not: its result is not kept any longer.
    pub(super) fn not_early(&mut self, early: Option<&Early>) {
        self.routes.early_count -= early.map_or(0, Early::recipients_count);
    }

    /// Routes a message that has come to the disk.
    pub(super) fn route_new(&mut self, message: MessageKey, known: Option<Early>) {
        if let Some(live) = self.live.get(&message) {
            let asked = Asked::all(&live.envelope);
            self.evaluate(message, asked, known);
        }
    }

    /// Asks the router about recipients of a live message, unless its result is known.
    fn evaluate(&mut self, message: MessageKey, asked: Vec<Asked>, known: Option<Early>) {
        let Some(live) = self.live.get_mut(&message) else {
            return;
        };
        live.routing_count += asked
            .iter()
            .map(|asked| asked.numbers().count())
            .sum::<usize>();
        let known = known.filter(|early| early.generation == self.generation);
        let turn = match known {
            Some(early) => Some(early.result.map_or_else(Turn::Stopped, Turn::Done)),
            None => self.ask_router(message, &asked),
        };
        if let Some(turn) = turn {
            self.routed(Waits::Message(message, asked), turn);
        }
    }

    /// What the router says about recipients of a live message, or needs to know.
    pub(super) fn ask_router(&mut self, message: MessageKey, asked: &[Asked]) -> Option<Turn> {
        let live = self.live.get(&message)?;
        let about = About {
            id: &live.id,
            envelope: &live.envelope,
            content: live.content.as_ref().map(|content| content.as_slice()),
            size_bytes: self.log.content_len(message).unwrap_or(0),
            now: self.now,
        };
        Some(about.ask(&mut *self.router, asked))
    }

    /// A routing has come to its end, or needs something.
    pub(super) fn routed(&mut self, waits: Waits, turn: Turn) {
        let live = waits.message().and_then(|message| self.live.get(&message));
        let content = live.and_then(|live| live.content.as_ref());
        let turn = self.answer_what_is_known(content, turn);
        match (turn, waits) {
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

    /// Goes on with a routing as long as it needs what this shard has or remembers.
    fn answer_what_is_known(&self, content: Option<&Arc<Vec<u8>>>, mut turn: Turn) -> Turn {
        loop {
            let (routing, need) = match turn {
                Turn::Need(routing, need) => (routing, need),
                turn => return turn,
            };
            let known = match &need {
                Need::Outside(request) => {
                    let accounts = &self.routes.accounts;
                    accounts
                        .answer(request, self.now.mono_ns)
                        .map(|answer| Answer::Outside(Ok(answer)))
                }
                Need::Content => content.map(|content| Answer::Content(Some(Arc::clone(content)))),
            };
            let Some(answer) = known else {
                return Turn::Need(routing, need);
            };
            turn = routing.resume(answer);
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
                Some(message) => {
                    self.load(message, Load::Routing { token });
                }
                None => self.resume(token, Answer::Content(None)),
            },
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
                self.evaluate(message, asked, None);
                self.maybe_rest(message, false);
            }
        }
        self.reroute_on();
        self.hold_turn();
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
                asked.push(Asked::first(number, due.due_ms));
            }
        }
        self.enact_placed(message, decided);
        if !asked.is_empty() {
            self.evaluate(message, asked, None);
        }
    }
}
