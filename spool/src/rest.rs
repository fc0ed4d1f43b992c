//! Resting messages: live ones that the caller has no use for now, in as few bytes as will do.
//!
//! A message that waits for hours is needed for milliseconds. While it rests, its envelope is on disk
//! only; here are its place, and per recipient what its outcome records say and the next hop it
//! waits for: 57 bytes a message with one recipient. Texts that many messages share (replies, next
//! hops) are kept once.

pub(crate) mod names;
mod transit;
mod view;

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::sync::Arc;

use crate::id::SpoolId;
use crate::log::{Location, ThreadName};
use crate::routing::Rounds;
use crate::types::{MessageKey, Outcome, Status};

use names::Shared;

pub use view::{RestView, RestingRecipient};

/// Different replies kept; of further ones only the codes are, see [`codes`].
const REPLIES_MAX: usize = 1 << 16;

/// More than there are codes.
const CODES_MAX: usize = 1 << 10;

/// Runs of the daemon whose messages rest at the same time; those of further ones stay awake.
const ORIGINS_MAX: usize = 1 << 16;

/// Configurations that resting messages were routed by; of further ones it is not known.
const GENERATIONS_MAX: usize = u16::MAX as usize;

/// [`Rest::generation`] of a message of which it is not known.
pub(crate) const NO_GENERATION: u16 = u16::MAX;

/// Keys of one page.
const PAGE_KEYS: u64 = 256;

/// Bits of a sequence in [`Rest::id`]; the others are the origin.
const SEQUENCE_BITS: u32 = 48;

/// A next hop that resting messages wait for, by number; numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop(pub u32);

impl Hop {
    /// Not known, or none.
    pub const NONE: Self = Self(u32::MAX);
}

/// What is kept of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Standing {
    Untried,
    Delivered,
    Deferred,
    Failed,
    Expired,
    Held,
    Replaced,
}

impl Standing {
    fn status(self) -> Option<Status> {
        Some(match self {
            Self::Untried => return None,
            Self::Delivered => Status::Delivered,
            Self::Deferred => Status::Deferred,
            Self::Failed => Status::Failed,
            Self::Expired => Status::Expired,
            Self::Held => Status::Held,
            Self::Replaced => Status::Replaced,
        })
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        let all = [
            Self::Untried,
            Self::Delivered,
            Self::Deferred,
            Self::Failed,
            Self::Expired,
            Self::Held,
            Self::Replaced,
        ];
        all.into_iter().find(|standing| *standing as u8 == byte)
    }

    pub(crate) fn of(status: Status) -> Self {
        match status {
            Status::Delivered => Self::Delivered,
            Status::Deferred => Self::Deferred,
            Status::Failed => Self::Failed,
            Status::Expired => Self::Expired,
            Status::Held => Self::Held,
            Status::Replaced => Self::Replaced,
        }
    }
}

/// A recipient of a resting message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RestRecipient {
    /// Wall time before which it is not tried.
    pub(crate) next_ms: u64,
    /// In the envelope.
    pub(crate) number: u32,
    pub(crate) hop: u32,
    /// Of the last attempt; see [`Resting::replies`].
    pub(crate) reply: u32,
    pub(crate) attempt: u16,
    pub(crate) standing: Standing,
}

/// One recipient is the usual case.
#[derive(Clone, Debug)]
pub(crate) enum RestRecipients {
    One(RestRecipient),
    Many(Box<[RestRecipient]>),
}

impl RestRecipients {
    pub(crate) fn of(recipients: Vec<RestRecipient>) -> Self {
        match recipients.as_slice() {
            [one] => Self::One(*one),
            _ => Self::Many(recipients.into_boxed_slice()),
        }
    }

    pub(crate) fn as_slice(&self) -> &[RestRecipient] {
        match self {
            Self::One(recipient) => core::slice::from_ref(recipient),
            Self::Many(recipients) => recipients,
        }
    }
}

/// A resting message.
#[derive(Clone, Debug)]
pub(crate) struct Rest {
    /// Origin and sequence of its id.
    pub(crate) id: u64,
    pub(crate) segment: u32,
    pub(crate) payload: u32,
    pub(crate) payload_len: u32,
    pub(crate) content_len: u32,
    /// Seconds since 1970.
    pub(crate) arrival_s: u32,
    pub(crate) has_file: bool,
    /// Number of the configuration that routed it.
    pub(crate) generation: u16,
    pub(crate) recipients: RestRecipients,
}

impl Rest {
    pub(crate) fn location(&self) -> Location {
        Location {
            segment: self.segment,
            payload: self.payload.into(),
            payload_len: self.payload_len.into(),
        }
    }
}

/// Wall time before which nothing of a message is tried: the earliest of its open recipients. One whose
/// recipients are all finished is due at once: only its done record is missing.
pub(crate) fn due_ms(recipients: &[RestRecipient]) -> u64 {
    let open = recipients
        .iter()
        .filter(|recipient| matches!(recipient.standing, Standing::Untried | Standing::Deferred));
    let held = |recipient: &RestRecipient| recipient.standing == Standing::Held;
    let first = open.map(|recipient| recipient.next_ms).min();
    first.unwrap_or(if recipients.iter().any(held) {
        u64::MAX
    } else {
        0
    })
}

/// Keys that follow each other, with their messages in the same order.
#[derive(Debug, Default)]
struct Page {
    /// The low bits of the keys.
    keys: Vec<u8>,
    rests: Vec<Rest>,
}

/// All resting messages of a log.
#[derive(Debug, Default)]
pub(crate) struct Resting {
    pages: BTreeMap<u64, Page>,
    count: u64,
    /// The page that the last one went to: others are kept without slack.
    filling: u64,
    /// Shard and epoch of ids.
    origins: Shared<(u16, u64)>,
    generations: Shared<u64>,
    replies: Shared<Arc<[u8]>>,
    hops: Vec<ThreadName>,
    hop_numbers: BTreeMap<ThreadName, u32>,
    /// Of the few messages that something is wrong with.
    marks: BTreeMap<MessageKey, Mark>,
    /// Of messages some of whose recipients routing has replaced.
    rounds: BTreeMap<MessageKey, Rounds>,
}

/// What is known of a record that was to be copied.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    /// It is damaged: it cannot be copied.
    pub(crate) is_stuck: bool,
    /// The operator knows that it cannot be read.
    pub(crate) is_reported: bool,
}

impl Resting {
    /// Messages.
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    pub(crate) fn get(&self, key: MessageKey) -> Option<&Rest> {
        let page = self.pages.get(&(key.0 / PAGE_KEYS))?;
        let at = page.keys.binary_search(&low(key)).ok()?;
        page.rests.get(at)
    }

    pub(crate) fn get_mut(&mut self, key: MessageKey) -> Option<&mut Rest> {
        let page = self.pages.get_mut(&(key.0 / PAGE_KEYS))?;
        let at = page.keys.binary_search(&low(key)).ok()?;
        page.rests.get_mut(at)
    }

    /// The highest key.
    pub(crate) fn newest(&self) -> Option<MessageKey> {
        let (number, page) = self.pages.last_key_value()?;
        let low = page.keys.last()?;
        Some(MessageKey(number * PAGE_KEYS + u64::from(*low)))
    }

    /// Where the results of routing a message are.
    pub(crate) fn rounds(&self, key: MessageKey) -> Option<&Rounds> {
        self.rounds.get(&key)
    }

    pub(crate) fn rounds_mut(&mut self, key: MessageKey) -> Option<&mut Rounds> {
        self.rounds.get_mut(&key)
    }

    pub(crate) fn insert_rounds(&mut self, key: MessageKey, mut rounds: Rounds) {
        if !rounds.is_empty() {
            rounds.places.shrink_to_fit();
            self.rounds.insert(key, rounds);
        }
    }

    pub(crate) fn take_rounds(&mut self, key: MessageKey) -> Rounds {
        self.rounds.remove(&key).unwrap_or_default()
    }

    pub(crate) fn mark(&mut self, key: MessageKey) -> &mut Mark {
        self.marks.entry(key).or_default()
    }

    pub(crate) fn take_mark(&mut self, key: MessageKey) -> Mark {
        self.marks.remove(&key).unwrap_or_default()
    }

    /// The record of a message is at `location` from now on: where it was, and whether it was stuck there.
    pub(crate) fn placed(
        &mut self,
        key: MessageKey,
        location: Location,
    ) -> Option<(Location, bool)> {
        let rest = self.get_mut(key)?;
        let before = rest.location();
        // A segment in which this does not fit lets no message rest.
        rest.segment = location.segment;
        rest.payload = location.payload as u32;
        rest.payload_len = location.payload_len as u32;
        let mark = self.marks.get_mut(&key);
        let stuck = mark.map(|mark| std::mem::take(&mut mark.is_stuck));
        Some((before, stuck.unwrap_or(false)))
    }

    /// Enters a message whose id, replies and hops have been given numbers.
    pub(crate) fn insert(&mut self, key: MessageKey, rest: Rest) {
        let number = key.0 / PAGE_KEYS;
        if number != self.filling {
            if let Some(page) = self.pages.get_mut(&self.filling) {
                page.keys.shrink_to_fit();
                page.rests.shrink_to_fit();
            }
            self.filling = number;
        }
        let page = self.pages.entry(number).or_default();
        match page.keys.binary_search(&low(key)) {
            Ok(at) => {
                if let Some(old) = page.rests.get_mut(at) {
                    *old = rest;
                }
            }
            Err(at) => {
                page.keys.insert(at, low(key));
                page.rests.insert(at, rest);
                self.count += 1;
            }
        }
    }

    /// Takes a message out; what it shares with others is given back by [`Self::release`].
    pub(crate) fn remove(&mut self, key: MessageKey) -> Option<Rest> {
        let number = key.0 / PAGE_KEYS;
        let page = self.pages.get_mut(&number)?;
        let at = page.keys.binary_search(&low(key)).ok()?;
        page.keys.remove(at);
        let rest = page.rests.remove(at);
        self.count -= 1;
        if page.keys.is_empty() {
            self.pages.remove(&number);
        } else if page.rests.capacity() > 8 && page.rests.len() < page.rests.capacity() / 2 {
            page.keys.shrink_to_fit();
            page.rests.shrink_to_fit();
        }
        Some(rest)
    }

    /// Keys in a range, lowest first.
    pub(crate) fn keys(
        &self,
        range: impl RangeBounds<u64> + Clone,
    ) -> impl Iterator<Item = MessageKey> {
        let first = match range.start_bound() {
            core::ops::Bound::Included(key) | core::ops::Bound::Excluded(key) => key / PAGE_KEYS,
            core::ops::Bound::Unbounded => 0,
        };
        let pages = self.pages.range(first..);
        let keys = pages.flat_map(|(number, page)| {
            let lows = page.keys.iter();
            lows.map(move |low| number * PAGE_KEYS + u64::from(*low))
        });
        let end = range.clone();
        keys.skip_while(move |key| !range.contains(key))
            .take_while(move |key| end.contains(key))
            .map(MessageKey)
    }

    /// The lowest key that is not below `key`.
    pub(crate) fn first_from(&self, key: u64) -> Option<MessageKey> {
        let (number, first) = (key / PAGE_KEYS, low(MessageKey(key)));
        self.pages
            .range(number..)
            .find_map(|(page, Page { keys, .. })| {
                let at = if *page == number {
                    keys.partition_point(|low| *low < first)
                } else {
                    0
                };
                let low = keys.get(at)?;
                Some(MessageKey(page * PAGE_KEYS + u64::from(*low)))
            })
    }

    /// The id of a message.
    pub(crate) fn id(&self, rest: &Rest) -> Option<SpoolId> {
        let (shard, epoch) = self.origins.get((rest.id >> SEQUENCE_BITS) as u32)?;
        Some(SpoolId {
            shard: *shard,
            epoch: *epoch,
            sequence: rest.id & ((1 << SEQUENCE_BITS) - 1),
        })
    }

    /// The short form of an id; none when there are too many origins.
    pub(crate) fn take_id(&mut self, id: SpoolId) -> Option<u64> {
        let origin = self.origins.take(&(id.shard, id.epoch), ORIGINS_MAX)?;
        Some(u64::from(origin) << SEQUENCE_BITS | id.sequence)
    }

    /// The number of a configuration, of which 0 says that it is not known.
    pub(crate) fn take_generation(&mut self, generation: u64) -> u16 {
        let known = Some(generation).filter(|generation| *generation > 0);
        let number = known.and_then(|known| self.generations.take(&known, GENERATIONS_MAX));
        number.map_or(NO_GENERATION, |number| number as u16)
    }

    /// The configuration that routed a message; 0: it is not known.
    pub(crate) fn generation(&self, rest: &Rest) -> u64 {
        let known = self.generations.get(rest.generation.into());
        known.copied().unwrap_or(0)
    }

    /// The number of a next hop.
    pub(crate) fn hop(&mut self, channel: &[u8], host: &[u8]) -> Hop {
        let name = (channel.to_vec(), host.to_vec());
        if let Some(number) = self.hop_numbers.get(&name) {
            return Hop(*number);
        }
        let number = self.hops.len() as u32;
        self.hops.push(name.clone());
        self.hop_numbers.insert(name, number);
        Hop(number)
    }

    pub(crate) fn hop_name(&self, hop: Hop) -> Option<&ThreadName> {
        self.hops.get(hop.0 as usize)
    }

    /// All next hops by number.
    pub(crate) fn hops(&self) -> &[ThreadName] {
        &self.hops
    }

    /// The short form of a recipient: its latest outcome, if it has one, and where it waits.
    pub(crate) fn take_recipient(
        &mut self,
        number: u32,
        hop: Hop,
        outcome: Option<&Outcome>,
    ) -> RestRecipient {
        let Some(outcome) = outcome else {
            return RestRecipient {
                next_ms: 0,
                number,
                hop: hop.0,
                reply: u32::MAX,
                attempt: 0,
                standing: Standing::Untried,
            };
        };
        // The reply of a recipient that is finished has been told.
        let open = matches!(outcome.status, Status::Deferred | Status::Held);
        let reply = if open {
            self.take_reply(&outcome.reply)
        } else {
            u32::MAX
        };
        RestRecipient {
            next_ms: outcome.next_ms,
            number,
            hop: hop.0,
            reply,
            attempt: u16::try_from(outcome.attempt).unwrap_or(u16::MAX),
            standing: Standing::of(outcome.status),
        }
    }

    fn take_reply(&mut self, reply: &[u8]) -> u32 {
        let whole = self.replies.take(&Arc::from(reply), REPLIES_MAX);
        let short = || {
            let reply = Arc::from(codes(reply));
            self.replies.take(&reply, REPLIES_MAX + CODES_MAX)
        };
        whole.or_else(short).unwrap_or(u32::MAX)
    }

    /// The outcomes of a message as they were, by number of the recipient.
    pub(crate) fn outcomes(&self, rest: &Rest) -> Vec<Outcome> {
        let recipients = rest.recipients.as_slice().iter();
        recipients
            .filter_map(|recipient| self.outcome(recipient))
            .collect()
    }

    pub(crate) fn outcome(&self, recipient: &RestRecipient) -> Option<Outcome> {
        outcome(recipient, self.reply(recipient.reply))
    }

    pub(crate) fn reply(&self, number: u32) -> &[u8] {
        self.replies.get(number).map_or(&[], |reply| reply)
    }

    /// Gives back what a message that has been taken out shared with others.
    pub(crate) fn release(&mut self, rest: &Rest) {
        self.origins.give_back((rest.id >> SEQUENCE_BITS) as u32);
        self.generations.give_back(rest.generation.into());
        for recipient in rest.recipients.as_slice() {
            self.replies.give_back(recipient.reply);
        }
    }
}

/// The outcome of a recipient; none: it was not tried.
pub(crate) fn outcome(recipient: &RestRecipient, reply: &[u8]) -> Option<Outcome> {
    Some(Outcome {
        recipient: recipient.number,
        attempt: recipient.attempt.into(),
        status: recipient.standing.status()?,
        next_ms: recipient.next_ms,
        reply: reply.to_vec(),
    })
}

fn low(key: MessageKey) -> u8 {
    (key.0 % PAGE_KEYS) as u8
}

/// The reply code and the enhanced status code of a reply (RFC 5321 4.2, RFC 3463): what is kept when
/// there are too many different texts. The mail log has the whole.
fn codes(reply: &[u8]) -> &[u8] {
    let is_code = |word: &&[u8]| {
        word.iter()
            .all(|byte| byte.is_ascii_digit() || *byte == b'.')
    };
    let words = reply
        .split(|byte| *byte == b' ')
        .take(2)
        .take_while(is_code);
    let len: usize = words.map(|word| word.len() + 1).sum();
    reply.get(..len.saturating_sub(1)).unwrap_or_default()
}

const _: () = assert!(size_of::<Rest>() <= 56, "a million of them are resident");
