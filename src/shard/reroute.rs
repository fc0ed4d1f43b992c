//! `queue reroute`: the router is asked again about recipients that wait, and what it decides otherwise is changed.
//!
//! While it is asked, everybody stays where he waits. When it has answered, those that it would send where they wait
//! anyway, as they are, keep their place, their attempts and their time, and nothing is recorded. The others are taken
//! out and become what the router says; of a list, members that have been delivered, or will be, are left out. Where
//! the router cannot decide now, or is stopped at a limit, nothing is changed. A dry run does all but the change.
//!
//! Messages are asked about one page of an inquiry at a time, [`ROUTINGS_MAX`] at once, so that new mail finds room.

use std::collections::{BTreeMap, HashMap, VecDeque};

use spool::{Envelope, MessageKey};

use super::Shard;
use super::decided::{self, Decided};
use super::dispatch::Work;
use super::queue::Found;
use super::recipients::{self, addressed};
use super::routing::{Asked, How, Waits};
use crate::base::slab::Key;
use crate::control::queue::{Entry, Page};
use crate::io::Driver;
use crate::router::{Fate, Group, Recipient, Routed, Turn};
use crate::scheduler::ThreadKey;

/// Routings for operators that are under way at a time.
const ROUTINGS_MAX: usize = 4;

/// New next hops that are named for one recipient; of more there is only the count.
const NAMED_MAX: usize = 3;

/// What the router has said about the messages of a page.
#[derive(Debug, Default)]
pub(super) struct Reroutes {
    dry: bool,
    to_ask: VecDeque<(MessageKey, Vec<Asked>)>,
    asking_count: usize,
    matched: BTreeMap<MessageKey, Matched>,
    changed_count: u64,
    undecided_count: u64,
}

/// A message with the recipients that were meant, as they were before anything was changed.
#[derive(Debug)]
pub(super) struct Matched {
    pub(super) entry: Entry,
    pub(super) found: Vec<Found>,
}

/// Where a recipient waits.
#[derive(Clone, Copy, Debug)]
enum Place {
    Thread(ThreadKey, Key),
    /// The router has not decided about it.
    OnHold,
}

/// What is different for recipients of one recipient of the envelope.
struct Difference {
    asked: Asked,
    results: Vec<Recipient>,
}

impl Reroutes {
    pub(super) fn new(dry: bool, matched: BTreeMap<MessageKey, Matched>) -> Self {
        Self {
            dry,
            matched,
            ..Self::default()
        }
    }

    /// Adds what has come out to a page.
    pub(super) fn tell(self, list: bool, page: &mut Page) {
        page.acted += self.changed_count;
        page.undecided += self.undecided_count;
        for matched in self.matched.into_values() {
            super::inquiry::count(page, &matched.found, matched.entry.size_bytes);
            if list {
                let recipients = matched.found.into_iter().map(|found| found.entry);
                page.entries.push(Entry {
                    recipients: recipients.collect(),
                    ..matched.entry
                });
            }
        }
    }

    pub(super) fn contains(&self, message: MessageKey) -> bool {
        self.matched.contains_key(&message)
    }

    fn is_over(&self) -> bool {
        self.to_ask.is_empty() && self.asking_count == 0
    }
}

impl<D: Driver> Shard<D> {
    /// Begins to ask the router about the messages of a page.
    pub(super) fn begin_reroutes(&mut self, mut reroutes: Reroutes) {
        for (message, matched) in &reroutes.matched {
            let numbers = matched.found.iter().map(|found| found.recipient);
            let asked = self.to_be_asked(*message, numbers);
            if !asked.is_empty() {
                reroutes.to_ask.push_back((*message, asked));
            }
        }
        if let Some(asking) = &mut self.asking {
            asking.reroutes = Some(reroutes);
        }
        self.reroute_on();
    }

    /// Recipients that wait, by the recipient of the envelope that they come from.
    fn to_be_asked(&self, message: MessageKey, numbers: impl Iterator<Item = u32>) -> Vec<Asked> {
        let Some(live) = self.live.get(&message) else {
            return Vec::new();
        };
        let places = self.places(message);
        let mut by_original: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for number in numbers.filter(|number| places.contains_key(number)) {
            if let Some(recipient) = addressed(&live.envelope, number) {
                by_original.entry(recipient.of).or_default().push(number);
            }
        }
        by_original
            .into_iter()
            .map(|(of, mut others)| {
                let number = others.remove(0);
                Asked {
                    number,
                    others,
                    of,
                    due_ms: 0,
                    how: if number == of { How::First } else { How::Again },
                }
            })
            .collect()
    }

    /// Where recipients of a message wait that nobody is delivering to; those that an operator holds are not among them.
    fn places(&self, message: MessageKey) -> HashMap<u32, Place> {
        let mut places = HashMap::new();
        let Some(live) = self.live.get(&message) else {
            return places;
        };
        for key in &live.work {
            let Some(Work::Home(home)) = self.work.get(*key) else {
                continue;
            };
            let standing = self.scheduler.standing(self.now, home.vertex);
            if standing.is_some_and(|standing| !standing.granted) {
                let place = Place::Thread(home.thread, *key);
                places.extend(home.recipients.iter().map(|number| (*number, place)));
            }
        }
        places.extend(
            live.on_hold
                .iter()
                .map(|(number, _)| (*number, Place::OnHold)),
        );
        places
    }

    /// Asks about further messages while there is room; answers when all have been asked about.
    pub(super) fn reroute_on(&mut self) {
        loop {
            let full = self.routes_waiting() >= self.settings.routings_max;
            let Some(reroutes) = self.reroutes() else {
                return;
            };
            if reroutes.is_over() {
                return self.answer_asked();
            }
            if full || reroutes.asking_count >= ROUTINGS_MAX {
                return;
            }
            let Some((message, asked)) = reroutes.to_ask.pop_front() else {
                return;
            };
            reroutes.asking_count += 1;
            match self.ask_router(message, &asked) {
                Some(turn) => self.routed(Waits::Reroute(message, asked), turn),
                None => self.reroute_ended(),
            }
        }
    }

    fn reroutes(&mut self) -> Option<&mut Reroutes> {
        self.asking.as_mut()?.reroutes.as_mut()
    }

    /// One message has been asked about.
    fn reroute_ended(&mut self) {
        if let Some(reroutes) = self.reroutes() {
            reroutes.asking_count -= 1;
        }
    }

    /// There is no room for a routing that waits: it begins anew.
    pub(super) fn reroute_later(&mut self, message: MessageKey, asked: Vec<Asked>) {
        self.reroute_ended();
        if let Some(reroutes) = self.reroutes() {
            reroutes.to_ask.push_back((message, asked));
        }
    }

    /// The router has said what becomes of recipients, or was stopped.
    pub(super) fn rerouted(&mut self, message: MessageKey, asked: &[Asked], turn: Turn) {
        match turn {
            Turn::Done(routed) => self.compare(message, asked, routed),
            Turn::Stopped(reason) => {
                let shard = self.settings.shard;
                let id = self.live.get(&message).map(|live| live.id.to_string());
                let id = id.unwrap_or_default();
                tracing::error!(
                    shard,
                    "message {id} stays as it was routed before: {reason}"
                );
                self.undecided(asked);
            }
            Turn::Need(..) => {}
        }
        self.reroute_ended();
    }

    fn undecided(&mut self, asked: &[Asked]) {
        let count: usize = asked.iter().map(|asked| asked.numbers().count()).sum();
        if let Some(reroutes) = self.reroutes() {
            reroutes.undecided_count += count as u64;
        }
    }

    fn compare(&mut self, message: MessageKey, asked: &[Asked], routed: Routed) {
        let len = self.log.content_len(message).unwrap_or(0);
        let fits = |group: &Group| crate::mail::edit::fit(&group.edits, len);
        if !routed.groups.iter().all(fits) {
            return self.undecided(asked);
        }
        let places = self.places(message);
        let mut differences = Vec::new();
        let groups = routed.groups;
        for (asked, results) in asked
            .iter()
            .zip(decided::by_addressee(routed.recipients, asked.len()))
        {
            let undecided = |result: &Recipient| matches!(result.fate, Fate::Hold { .. });
            if results.iter().any(undecided) {
                self.undecided(std::slice::from_ref(asked));
                continue;
            }
            differences.extend(self.difference(message, &places, asked, results, &groups));
        }
        let dry = self.reroutes().is_none_or(|reroutes| reroutes.dry);
        self.note_differences(message, &differences);
        if !dry {
            self.change(message, &places, differences, &groups);
        }
    }

    /// What has to be changed so that recipients are what the router says.
    fn difference(
        &self,
        message: MessageKey,
        places: &HashMap<u32, Place>,
        asked: &Asked,
        mut results: Vec<Recipient>,
        groups: &[Group],
    ) -> Option<Difference> {
        // Some may have been delivered while the router was asked.
        let mut numbers = asked.numbers().filter(|number| places.contains_key(number));
        let asked = Asked {
            number: numbers.next()?,
            others: numbers.collect(),
            ..asked.clone()
        };
        if asked.how == How::Again {
            self.leave_known(message, &asked, &mut results);
        }
        let envelope = &self.live.get(&message)?.envelope;
        let mut by_user: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (at, result) in results.iter().enumerate() {
            if let Fate::Deliver(quad) = &result.fate {
                by_user.entry(quad.user.clone()).or_default().push(at);
            }
        }
        let (mut stays, mut goes) = (Vec::new(), Vec::new());
        let mut kept = vec![false; results.len()];
        for number in asked.numbers() {
            let same = addressed(envelope, number)
                .and_then(|known| by_user.get_mut(known.address))
                .and_then(|candidates| {
                    let is_same = |at: &usize| {
                        let place = places.get(&number);
                        place.is_some_and(|place| {
                            self.is_as_before(envelope, number, *place, &results[*at], groups)
                        })
                    };
                    let found = candidates.iter().position(is_same)?;
                    Some(candidates.swap_remove(found))
                });
            match same {
                Some(at) => {
                    kept[at] = true;
                    stays.push((number, at));
                }
                None => goes.push(number),
            }
        }
        // A list has grown: what is new takes the place of somebody, who comes back with it.
        if goes.is_empty() && kept.contains(&false) {
            let (number, at) = stays.pop()?;
            goes.push(number);
            kept[at] = false;
        }
        let mut kept = kept.into_iter();
        results.retain(|_| !kept.next().unwrap_or(false));
        let mut goes = goes.into_iter();
        Some(Difference {
            asked: Asked {
                number: goes.next()?,
                others: goes.collect(),
                ..asked
            },
            results,
        })
    }

    /// Whether a recipient waits for just this result.
    fn is_as_before(
        &self,
        envelope: &Envelope,
        number: u32,
        place: Place,
        result: &Recipient,
        groups: &[Group],
    ) -> bool {
        let (Fate::Deliver(quad), Place::Thread(thread, _)) = (&result.fate, place) else {
            return false;
        };
        let (Some(known), Some(group)) = (
            addressed(envelope, number),
            groups.get(result.group as usize),
        ) else {
            return false;
        };
        (quad.channel.clone(), quad.host.clone()) == self.scheduler.names(thread)
            && quad.user == known.address
            && quad.privilege == known.privilege
            && quad.notify == known.notify
            && quad.orcpt.as_deref() == known.orcpt
            && recipients::is_group(envelope, known.group, group)
    }

    /// Writes down for the answer what becomes of whom.
    fn note_differences(&mut self, message: MessageKey, differences: &[Difference]) {
        let Some(reroutes) = self.reroutes() else {
            return;
        };
        let Some(matched) = reroutes.matched.get_mut(&message) else {
            return;
        };
        for difference in differences {
            for number in difference.asked.numbers() {
                let at = matched
                    .found
                    .binary_search_by_key(&number, |found| found.recipient);
                let Ok(at) = at else {
                    continue;
                };
                reroutes.changed_count += 1;
                let entry = &mut matched.found[at].entry;
                entry.becomes = Some(shown(&entry.address, &difference.results));
            }
        }
    }

    /// Takes recipients out of where they wait, and lets them become what the router says.
    fn change(
        &mut self,
        message: MessageKey,
        places: &HashMap<u32, Place>,
        differences: Vec<Difference>,
        groups: &[Group],
    ) {
        let Some(live) = self.live.get_mut(&message) else {
            return;
        };
        // What stays is right by the present configuration as well.
        live.generation = self.generation;
        if differences.is_empty() {
            return;
        }
        let mut decided = Decided::of(&live.envelope, groups, self.generation);
        let numbers = differences.iter().flat_map(|other| other.asked.numbers());
        let numbers: Vec<u32> = numbers.collect();
        let mut by_work: BTreeMap<Key, Vec<u32>> = BTreeMap::new();
        for number in &numbers {
            if let Some(Place::Thread(_, work)) = places.get(number) {
                by_work.entry(*work).or_default().push(*number);
            }
        }
        let sorted: std::collections::BTreeSet<u32> = numbers.iter().copied().collect();
        live.on_hold.retain(|(number, _)| !sorted.contains(number));
        let mut withdrawn = Vec::new();
        for (work, recipients) in by_work {
            self.withdraw(message, work, recipients, &mut withdrawn);
        }
        let count = numbers.len() as u32;
        for Difference { asked, results } in differences {
            self.sort(message, &asked, results.into_iter(), &mut decided);
        }
        if decided.is_plain() {
            // Nothing else tells of it.
            let id = self.live[&message].id.to_string();
            let generation = self.generation;
            (self.mail_log).routed(self.now, &id, count, count, generation);
        }
        self.enact(message, decided);
    }
}

/// What a recipient becomes, for people.
fn shown(address: &[u8], results: &[Recipient]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let one = |result: &Recipient| match &result.fate {
        Fate::Deliver(quad) => {
            format!("{}/{} <{}>", quad.channel, quad.host, text(&quad.user))
        }
        Fate::Fail { status, text } => format!("error: {status} {text}"),
        Fate::Hold { reason } => format!("hold: {reason}"),
        Fate::Discard => "dropped".to_owned(),
    };
    let is_mine = |result: &&Recipient| match &result.fate {
        Fate::Deliver(quad) => quad.user == address,
        _ => false,
    };
    if let Some(mine) = results.iter().find(is_mine) {
        return one(mine);
    }
    if results.is_empty() {
        return "dropped".to_owned();
    }
    let mut all: Vec<String> = results.iter().take(NAMED_MAX).map(one).collect();
    if results.len() > NAMED_MAX {
        all.push(format!("{} more", results.len() - NAMED_MAX));
    }
    all.join(", ")
}
