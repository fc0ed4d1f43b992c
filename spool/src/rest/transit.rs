//! Into rest and out of it: [`Log::rest`], [`Log::wake`], [`Log::inspect`].
//!
//! A message rests only when its record is on disk, so that all of it can be read back. Waking reads the
//! whole record and verifies it; until that has succeeded the message rests on. Wherever a message is, a
//! copy of its record that was staged before counts when it is committed.

use std::ops::RangeBounds;

use super::{Hop, Rest, RestRecipient, RestRecipients, RestView};
use crate::log::{Live, Log, Place};
use crate::read::Purpose;
use crate::types::{Awake, Content, Envelope, Event, MessageKey, Outcome, ReadError, ReadTicket};

impl Log {
    /// The number of a next hop, for [`Self::rest`].
    pub fn hop(&mut self, channel: &[u8], host: &[u8]) -> Hop {
        self.resting.hop(channel, host)
    }

    /// Channel and host of a next hop.
    #[must_use]
    pub fn hop_name(&self, hop: Hop) -> Option<(&[u8], &[u8])> {
        let (channel, host) = self.resting.hop_name(hop)?;
        Some((channel, host))
    }

    /// Lets a live message rest; `open` are its recipients that are not finished, with the next hop that
    /// each of them waits for, `generation` is the configuration that routed it, 0 when that is not known. False, and
    /// nothing is changed, when it cannot.
    pub fn rest(
        &mut self,
        key: MessageKey,
        arrival_ms: u64,
        generation: u64,
        open: &[(u32, Hop)],
    ) -> bool {
        let Some(rest) = self.rest_of(key, arrival_ms, generation, open) else {
            return false;
        };
        self.resting.insert(key, rest);
        self.checkpoints.rests(key);
        if let Some(live) = self.live.remove(&key) {
            if live.is_reported {
                self.resting.mark(key).is_reported = true;
            }
            self.resting.insert_rounds(key, live.rounds);
        }
        true
    }

    fn rest_of(
        &mut self,
        key: MessageKey,
        arrival_ms: u64,
        generation: u64,
        open: &[(u32, Hop)],
    ) -> Option<Rest> {
        let live = self.live.get(&key)?;
        let Place::Disk(place) = live.place else {
            return None;
        };
        let fits = self.settings.segment_bytes <= u64::from(u32::MAX);
        let unfinished = live.done || live.rounds.staged > 0;
        if unfinished || live.is_stuck || !fits || open.is_empty() {
            return None;
        }
        let content_len = u32::try_from(live.content_len).ok()?;
        let arrival_s = u32::try_from(arrival_ms / 1000).ok()?;
        let id = self.resting.take_id(live.id)?;
        let recipients = self.resting.take_recipients(&live.outcomes, open);
        Some(Rest {
            id,
            segment: place.segment,
            payload: place.payload as u32,
            payload_len: place.payload_len as u32,
            content_len,
            arrival_s,
            has_file: live.has_file,
            generation: self.resting.take_generation(generation),
            recipients,
        })
    }

    /// Starts reading a resting message back, once at a time; [`Event::Awake`] answers.
    pub fn wake(&mut self, key: MessageKey) -> Option<ReadTicket> {
        self.read_resting(key, Purpose::Wake)
    }

    /// Starts reading the envelope of a resting message, which rests on; [`Event::Inspected`] answers.
    pub fn inspect(&mut self, key: MessageKey) -> Option<ReadTicket> {
        self.read_resting(key, Purpose::Inspect)
    }

    fn read_resting(&mut self, key: MessageKey, purpose: Purpose) -> Option<ReadTicket> {
        let rest = self.resting.get(key)?;
        let (id, place, has_file) = (self.resting.id(rest)?, rest.location(), rest.has_file);
        Some(self.start_read(key, id, place, has_file, purpose))
    }

    /// A resting message, without reading it.
    #[must_use]
    pub fn resting(&self, key: MessageKey) -> Option<RestView<'_>> {
        let all = &self.resting;
        all.get(key).map(|rest| RestView { all, rest })
    }

    /// Keys of resting messages, lowest first.
    pub fn resting_keys(
        &self,
        range: impl RangeBounds<u64> + Clone,
    ) -> impl Iterator<Item = MessageKey> {
        self.resting.keys(range)
    }

    /// The highest key of a resting message.
    #[must_use]
    pub fn resting_newest(&self) -> Option<MessageKey> {
        self.resting.newest()
    }

    /// Resting messages.
    #[must_use]
    pub fn resting_count(&self) -> u64 {
        self.resting.len()
    }

    /// The record of a resting message has been read.
    pub(crate) fn woken(
        &mut self,
        ticket: ReadTicket,
        key: MessageKey,
        read: Result<(Envelope, Content), ReadError>,
    ) {
        let result = match read {
            Ok((envelope, content)) => match self.rouse(key, &envelope) {
                Some((content_len, outcomes)) => Ok(Awake {
                    outcomes: by_number(envelope.recipients_count(), outcomes),
                    envelope,
                    content,
                    content_len,
                }),
                // Somebody else woke it.
                None => return,
            },
            Err(error) => Err(error),
        };
        self.events.push_back(Event::Awake {
            ticket,
            key,
            result,
        });
    }

    /// Makes a resting message live again.
    fn rouse(&mut self, key: MessageKey, envelope: &Envelope) -> Option<(u64, Vec<Outcome>)> {
        let id = self.resting.id(self.resting.get(key)?)?;
        let rest = self.resting.remove(key)?;
        let outcomes = self.resting.outcomes(&rest);
        self.resting.release(&rest);
        let mark = self.resting.take_mark(key);
        let rounds = self.resting.take_rounds(key);
        let content_len = u64::from(rest.content_len);
        let live = Live {
            has_file: rest.has_file,
            outcomes: outcomes.clone(),
            is_stuck: mark.is_stuck,
            is_reported: mark.is_reported,
            rounds,
            ..Live::new(id, envelope, Place::Disk(rest.location()), content_len)
        };
        self.live.insert(key, live);
        Some((content_len, outcomes))
    }
}

impl super::Resting {
    /// Those that have an outcome and those that are open, by number.
    fn take_recipients(&mut self, outcomes: &[Outcome], open: &[(u32, Hop)]) -> RestRecipients {
        let mut open = open.to_vec();
        open.sort_unstable_by_key(|(number, _)| *number);
        let hop_of = |number: u32| {
            let at = open.binary_search_by_key(&number, |(number, _)| *number);
            at.ok().and_then(|at| open.get(at)).map(|(_, hop)| *hop)
        };
        let mut recipients: Vec<RestRecipient> = outcomes
            .iter()
            .map(|outcome| {
                let hop = hop_of(outcome.recipient).unwrap_or(Hop::NONE);
                self.take_recipient(outcome.recipient, hop, Some(outcome))
            })
            .collect();
        let untried = |number: &u32| {
            outcomes
                .binary_search_by_key(number, |outcome| outcome.recipient)
                .is_err()
        };
        for (number, hop) in open.iter().filter(|(number, _)| untried(number)) {
            recipients.push(self.take_recipient(*number, *hop, None));
        }
        recipients.sort_unstable_by_key(|recipient| recipient.number);
        RestRecipients::of(recipients)
    }
}

fn by_number(count: usize, outcomes: Vec<Outcome>) -> Vec<Option<Outcome>> {
    let mut latest = vec![None; count];
    for outcome in outcomes {
        if let Some(slot) = latest.get_mut(outcome.recipient as usize) {
            *slot = Some(outcome);
        }
    }
    latest
}
