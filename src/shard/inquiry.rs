//! What operators ask about this shard's queue: a page at a time.
//!
//! A page looks at [`LOOK_MAX`] messages and tells of [`SCAN_MAX`] at most, one page a turn, so that a
//! long listing never holds up delivery. Of messages that rest most questions are answered from the
//! index; where an address is needed the envelope is read back, and where something is done the message is
//! woken. The page is answered when all of that has ended; one inquiry at a time waits for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use spool::{Envelope, MessageKey, Outcome, ReadError, RestingRecipient};

use super::Shard;
use super::queue::{Found, entry};
use super::recipients::addressed;
use super::reroute::{Matched, Reroutes};
use super::rest::Why;
use crate::control::queue::{Act, Entry, EntryRecipient, Inquiry, Page};
use crate::io::Driver;
use crate::scheduler::Standing;
use crate::scheduler::filter::Subject;

/// Messages looked at for one page.
const LOOK_MAX: usize = 1024;

/// Of those, messages that may match.
const SCAN_MAX: usize = 256;

/// Envelopes read at a time for a page.
const READS_MAX: usize = 32;

/// An address that cannot be read.
const UNREADABLE: &[u8] = b"(unreadable)";

/// An inquiry whose page waits for messages to be read or woken.
#[derive(Debug)]
pub(super) struct Asking {
    inquiry: Inquiry,
    /// Lowest first.
    keys: Vec<MessageKey>,
    next: Option<u64>,
    envelopes: BTreeMap<MessageKey, Envelope>,
    /// Those that cannot be read.
    failed: BTreeSet<MessageKey>,
    to_read: VecDeque<MessageKey>,
    reading_count: usize,
    /// Those that are being read or woken.
    pending: BTreeSet<MessageKey>,
    /// What the router is asked about them.
    pub(super) reroutes: Option<Reroutes>,
}

/// What is missing to answer for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    Envelope,
    Waking,
}

/// A resting message as an inquiry sees it.
struct Rested {
    id: String,
    arrival_ms: u64,
    size_bytes: u64,
    generation: Option<u64>,
    found: Vec<Found>,
}

impl<D: Driver> Shard<D> {
    /// Takes the next inquiry, unless one is being answered.
    pub(super) fn take_inquiry(&mut self) {
        // An answer would leave out what the checkpoint has not given yet, and an action would miss it.
        if self.log.loading_count() > 0 {
            return;
        }
        if self.asking.is_some() {
            return;
        }
        if let Some(inquiry) = self.outside.inquiries.pop() {
            let (keys, next) = self.page_keys(&inquiry);
            self.asking = Some(Asking {
                inquiry,
                keys,
                next,
                envelopes: BTreeMap::new(),
                failed: BTreeSet::new(),
                to_read: VecDeque::new(),
                reading_count: 0,
                pending: BTreeSet::new(),
                reroutes: None,
            });
            self.ask_on();
        }
    }

    /// Messages that may match, and where the next page begins.
    fn page_keys(&self, inquiry: &Inquiry) -> (Vec<MessageKey>, Option<u64>) {
        let Inquiry { after, upto, .. } = *inquiry;
        if after >= upto {
            return (Vec::new(), None);
        }
        let (from, to) = (Bound::Excluded(after), Bound::Included(upto));
        let range = (from.map(MessageKey), to.map(MessageKey));
        let live = self.live.range(range).map(|(key, _)| *key);
        let resting = self.log.resting_keys((from, to));
        let mut all: Vec<MessageKey> = live.take(SCAN_MAX).collect();
        all.extend(resting.take(LOOK_MAX));
        all.sort_unstable();
        let mut keys = Vec::new();
        for (at, key) in all.iter().enumerate() {
            let matches = self.live.contains_key(key) || self.may_match(*key, inquiry);
            if matches {
                keys.push(*key);
            }
            if keys.len() == SCAN_MAX || at + 1 == LOOK_MAX {
                return (keys, Some(key.0));
            }
        }
        (keys, None)
    }

    fn may_match(&self, message: MessageKey, inquiry: &Inquiry) -> bool {
        let rested = self.rested(message, None);
        rested.is_some_and(|rested| {
            let mut found = rested.found.iter();
            found.any(|one| self.judge_rested(&rested, one, None, inquiry) != Some(false))
        })
    }

    /// Whether a message must not rest, because something will be done to it.
    pub(super) fn is_asked_for(&self, message: MessageKey) -> bool {
        self.asking.as_ref().is_some_and(|asking| {
            asking.inquiry.act.is_some() && asking.keys.binary_search(&message).is_ok()
        })
    }

    /// An envelope has been read, or cannot be.
    pub(super) fn inspected(&mut self, message: MessageKey, result: Result<Envelope, ReadError>) {
        let Some(asking) = &mut self.asking else {
            return;
        };
        asking.reading_count -= 1;
        match result {
            Ok(envelope) => {
                asking.envelopes.insert(message, envelope);
            }
            Err(_) => {
                asking.failed.insert(message);
            }
        }
        asking.pending.remove(&message);
        self.read_asked();
    }

    /// A message is awake, or cannot be woken.
    pub(super) fn asked_awake(&mut self, message: MessageKey, woken: bool) {
        let Some(asking) = &mut self.asking else {
            return;
        };
        if asking.pending.remove(&message) {
            if !woken {
                asking.failed.insert(message);
            }
            self.read_asked();
        }
    }

    /// Starts further reads; goes on when all have ended.
    fn read_asked(&mut self) {
        let Some(asking) = &mut self.asking else {
            return;
        };
        while asking.reading_count < READS_MAX {
            let Some(message) = asking.to_read.pop_front() else {
                break;
            };
            if self.log.inspect(message).is_some() {
                asking.reading_count += 1;
            } else {
                // It does not rest any more.
                asking.pending.remove(&message);
            }
        }
        if asking.pending.is_empty() {
            self.ask_on();
        }
    }

    /// Asks for what is missing; answers when nothing is.
    fn ask_on(&mut self) {
        let Some(asking) = &self.asking else {
            return;
        };
        let needs: Vec<(MessageKey, Need)> = asking
            .keys
            .iter()
            .map(|key| (*key, self.need(*key, asking)))
            .filter(|(_, need)| *need != Need::Nothing)
            .collect();
        if needs.is_empty() {
            if asking.inquiry.act != Some(Act::Reroute) {
                return self.answer_asked();
            }
            if asking.reroutes.is_none() {
                let reroutes = self.to_reroute(asking);
                self.begin_reroutes(reroutes);
            }
            return;
        }
        if let Some(asking) = &mut self.asking {
            asking.pending.extend(needs.iter().map(|(key, _)| *key));
            let envelopes = needs.iter().filter(|(_, need)| *need == Need::Envelope);
            asking.to_read.extend(envelopes.map(|(key, _)| *key));
        }
        for (key, need) in needs {
            if need == Need::Waking {
                self.wake(key, Why::Other);
            }
        }
        self.read_asked();
    }

    fn need(&self, message: MessageKey, asking: &Asking) -> Need {
        let envelope = asking.envelopes.get(&message);
        let Some(rested) = self.rested(message, envelope) else {
            return Need::Nothing;
        };
        if asking.failed.contains(&message) {
            return Need::Nothing;
        }
        let judged = |one| self.judge_rested(&rested, one, envelope, &asking.inquiry);
        let verdicts: Vec<Option<bool>> = rested.found.iter().map(judged).collect();
        if verdicts.contains(&Some(true)) && asking.inquiry.act.is_some() {
            Need::Waking
        } else if envelope.is_none()
            && (verdicts.contains(&None) || (verdicts.contains(&Some(true)) && asking.inquiry.list))
        {
            Need::Envelope
        } else {
            Need::Nothing
        }
    }

    /// The messages of a page that may be routed anew.
    fn to_reroute(&self, asking: &Asking) -> Reroutes {
        let mut matched = BTreeMap::new();
        for key in &asking.keys {
            let found = self.matching(*key, &asking.inquiry);
            if let Some(entry) = self.entry_of(*key).filter(|_| !found.is_empty()) {
                matched.insert(*key, Matched { entry, found });
            }
        }
        Reroutes::new(asking.inquiry.dry, matched)
    }

    pub(super) fn answer_asked(&mut self) {
        let Some(mut asking) = self.asking.take() else {
            return;
        };
        let reroutes = asking.reroutes.take().unwrap_or_default();
        let newest = self.live.last_key_value().map(|(key, _)| key.0);
        let resting = self.log.resting_newest().map(|key| key.0);
        let mut page = Page {
            token: asking.inquiry.token,
            newest: newest.max(resting).unwrap_or(0),
            next: asking.next,
            ..Page::default()
        };
        for key in &asking.keys {
            if reroutes.contains(*key) {
                // It is told of as it was.
            } else if self.live.contains_key(key) {
                self.look(*key, &asking.inquiry, &mut page);
            } else {
                let envelope = asking.envelopes.get(key);
                self.look_resting(*key, envelope, &asking.inquiry, &mut page);
            }
        }
        reroutes.tell(asking.inquiry.list, &mut page);
        if asking.inquiry.act.is_some() {
            for key in asking.keys {
                self.maybe_rest(key, false);
            }
        }
        // A full queue drops the page; the tool says that it got no answer.
        (self.outside.page)(page);
    }

    fn look(&mut self, message: MessageKey, inquiry: &Inquiry, page: &mut Page) {
        let found = self.matching(message, inquiry);
        let Some(entry) = self.entry_of(message).filter(|_| !found.is_empty()) else {
            return;
        };
        count(page, &found, entry.size_bytes);
        if inquiry.list {
            page.entries.push(Entry {
                recipients: found.iter().map(|found| found.entry.clone()).collect(),
                ..entry
            });
        }
        if let Some(act) = inquiry.act {
            page.acted += self.act(message, act, &found);
        }
    }

    /// A live message, without its recipients.
    fn entry_of(&self, message: MessageKey) -> Option<Entry> {
        let live = self.live.get(&message)?;
        Some(Entry {
            id: live.id.to_string(),
            sender: live.envelope.sender.clone(),
            generation: Some(live.generation).filter(|generation| *generation > 0),
            arrival_ms: live.envelope.arrival_ms,
            size_bytes: self.log.content_len(message).unwrap_or(0),
            recipients: Vec::new(),
        })
    }

    /// The recipients of a live message that are meant, by number.
    fn matching(&self, message: MessageKey, inquiry: &Inquiry) -> Vec<Found> {
        let Some(live) = self.live.get(&message) else {
            return Vec::new();
        };
        let id = live.id.to_string();
        let age_ms = self.now.wall_ms.saturating_sub(live.envelope.arrival_ms);
        let size_bytes = self.log.content_len(message).unwrap_or(0);
        let mut found = self.queued(message);
        found.retain(|found| {
            inquiry.filter.matches(&Subject {
                id: &id,
                sender: &live.envelope.sender,
                recipient: &found.entry.address,
                channel: &found.entry.channel,
                host: &found.entry.host,
                state: found.entry.state,
                age_ms,
                size_bytes,
                attempts: found.entry.attempts.into(),
            })
        });
        found
    }

    fn look_resting(
        &self,
        message: MessageKey,
        envelope: Option<&Envelope>,
        inquiry: &Inquiry,
        page: &mut Page,
    ) {
        let Some(mut rested) = self.rested(message, envelope) else {
            return;
        };
        let mut found = std::mem::take(&mut rested.found);
        found.retain(|one| self.judge_rested(&rested, one, envelope, inquiry) == Some(true));
        if found.is_empty() {
            return;
        }
        count(page, &found, rested.size_bytes);
        if inquiry.list {
            page.entries.push(Entry {
                id: rested.id,
                sender: envelope.map_or_else(Vec::new, |envelope| envelope.sender.clone()),
                generation: rested.generation,
                arrival_ms: rested.arrival_ms,
                size_bytes: rested.size_bytes,
                recipients: found.into_iter().map(|found| found.entry).collect(),
            });
        }
    }

    /// Whether a recipient of a resting message is meant; none: that is decided by an address.
    fn judge_rested(
        &self,
        rested: &Rested,
        found: &Found,
        envelope: Option<&Envelope>,
        inquiry: &Inquiry,
    ) -> Option<bool> {
        let subject = Subject {
            id: &rested.id,
            sender: envelope.map_or(&[], |envelope| &envelope.sender),
            recipient: &found.entry.address,
            channel: &found.entry.channel,
            host: &found.entry.host,
            state: found.entry.state,
            age_ms: self.now.wall_ms.saturating_sub(rested.arrival_ms),
            size_bytes: rested.size_bytes,
            attempts: found.entry.attempts.into(),
        };
        inquiry.filter.judge(&subject, envelope.is_some())
    }

    fn rested(&self, message: MessageKey, envelope: Option<&Envelope>) -> Option<Rested> {
        let view = self.log.resting(message)?;
        let recipients = view.recipients().filter(RestingRecipient::is_open);
        let again_ms = self.read_again_ms(message);
        Some(Rested {
            id: view.id()?.to_string(),
            arrival_ms: envelope.map_or(view.arrival_ms(), |envelope| envelope.arrival_ms),
            size_bytes: view.content_len(),
            generation: view.generation().or_else(|| {
                let routing = envelope.and_then(|envelope| envelope.routing.as_ref());
                routing.map(|routing| routing.generation)
            }),
            found: recipients
                .map(|mut recipient| {
                    // It is not tried before it can be read.
                    recipient.next_ms = recipient.next_ms.max(again_ms);
                    Found {
                        recipient: recipient.number,
                        work: None,
                        entry: self.resting_entry(&recipient, envelope),
                    }
                })
                .collect(),
        })
    }

    fn resting_entry(
        &self,
        recipient: &RestingRecipient<'_>,
        envelope: Option<&Envelope>,
    ) -> EntryRecipient {
        let known = envelope.and_then(|envelope| addressed(envelope, recipient.number));
        let address = known.map_or(UNREADABLE, |known| known.address).to_vec();
        if recipient.is_held() {
            return EntryRecipient {
                address,
                state: "held",
                attempts: recipient.attempt,
                reply: recipient.reply.to_vec(),
                ..EntryRecipient::default()
            };
        }
        let Some(thread) = self.thread_of_hop(recipient.hop) else {
            let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
            let (channel, host) = self.log.hop_name(recipient.hop).unwrap_or_default();
            return EntryRecipient {
                address,
                channel: name(channel),
                host: name(host),
                state: if recipient.status.is_some() {
                    "deferred"
                } else {
                    "waiting"
                },
                attempts: recipient.attempt,
                next_ms: recipient.next_ms,
                reply: recipient.reply.to_vec(),
                becomes: None,
            };
        };
        let standing = Standing {
            attempts: recipient.attempt,
            ..self
                .scheduler
                .thread_standing(self.now, thread, recipient.next_ms)
        };
        let outcome = recipient.status.map(|status| Outcome {
            recipient: recipient.number,
            attempt: recipient.attempt,
            status,
            next_ms: recipient.next_ms,
            reply: recipient.reply.to_vec(),
        });
        entry(address, &standing, outcome.as_ref())
    }
}

pub(super) fn count(page: &mut Page, found: &[Found], size_bytes: u64) {
    page.messages += 1;
    page.recipients += found.len() as u64;
    page.bytes += size_bytes;
}
