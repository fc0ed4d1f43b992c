//! What was acknowledged, what arrived, and whether the two agree, recipient by recipient.
//!
//! The source enters what the relay has acknowledged, and with that taken over. The sink enters what
//! arrived and what it refused for good; a refused recipient is owed a report, not a delivery. Who
//! is owed a delivery and got none is lost; who got one more is duplicated.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::latency::Latencies;
use crate::options::Load;
use crate::timeline::Timeline;

/// What is known of one recipient of one message.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    state: u8,
    /// Deliveries; a count that saturates is a duplicate anyway.
    delivered: u8,
}

/// The relay has taken the message for this recipient.
const OWED: u8 = 1;
/// The sink has refused the recipient for good.
const REFUSED: u8 = 2;
/// A report about the recipient has arrived.
const REPORTED: u8 = 4;
/// What arrived is not what was sent.
const ALTERED: u8 = 8;

impl Entry {
    fn is(self, state: u8) -> bool {
        self.state & state != 0
    }

    fn is_open(self) -> bool {
        self.is(OWED) && !self.is(REFUSED) && self.delivered == 0
    }

    fn awaits_report(self) -> bool {
        self.is(OWED) && self.is(REFUSED) && !self.is(REPORTED)
    }
}

/// Recipients of all messages together; two bytes each are kept.
const RECIPIENTS_MAX: u64 = 1 << 30;

/// The books of one run.
#[derive(Debug)]
pub(crate) struct Ledger {
    books: Mutex<Books>,
}

#[derive(Debug)]
struct Books {
    /// Where the recipients of a message begin; one entry more than messages.
    starts: Vec<u32>,
    entries: Vec<Entry>,
    latencies: Latencies,
    service: Latencies,
    timeline: Timeline,
    begun: Instant,
    last_acknowledged: Instant,
    counts: Balance,
    progress: Progress,
    first_refusal: Option<String>,
}

/// What the books say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Balance {
    /// Messages the relay has taken.
    pub(crate) acknowledged: u64,
    /// Content bytes of these.
    pub(crate) bytes: u64,
    /// Messages the relay has not taken.
    pub(crate) refused: u64,
    /// Recipients the relay has not taken, of messages that it has.
    pub(crate) refused_recipients: u64,
    /// Recipients delivered to, duplicates included.
    pub(crate) delivered: u64,
    /// Owed recipients that nothing arrived for and that the sink did not refuse.
    pub(crate) lost: u64,
    /// Deliveries beyond the first of a recipient.
    pub(crate) duplicated: u64,
    /// Messages that are not what was sent, or that nobody sent.
    pub(crate) altered: u64,
    /// Recipients that the sink has refused for good.
    pub(crate) refused_by_sink: u64,
    /// Recipients about which a report has arrived.
    pub(crate) bounced: u64,
    /// Owed recipients that the sink has refused and no report has arrived about.
    pub(crate) unreported: u64,
}

/// How far a run is; any change is a sign of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) acknowledged: u64,
    pub(crate) delivered: u64,
    /// Owed recipients without delivery or refusal.
    pub(crate) open: u64,
    /// Reports that are still to come.
    pub(crate) reports_awaited: u64,
    events: u64,
}

/// How long a message took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// From when it was due (open loop) or begun (closed loop).
    pub(crate) latency: Duration,
    /// From when its transaction was begun.
    pub(crate) service: Duration,
}

/// All that a report needs.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) balance: Balance,
    pub(crate) latencies: Latencies,
    pub(crate) service: Latencies,
    pub(crate) timeline: Timeline,
    /// From the start to the last acknowledgement.
    pub(crate) sending: Duration,
    pub(crate) first_refusal: Option<String>,
}

impl Ledger {
    /// For a sink alone: everything is counted, nothing is known.
    pub(crate) fn without_messages() -> Self {
        Self::with(vec![0])
    }

    /// For the messages of a load.
    ///
    /// # Errors
    /// When there are too many recipients to keep books of.
    pub(crate) fn new(load: &Load) -> Result<Self, String> {
        let mut starts = vec![0];
        let mut total = 0;
        for number in 0..load.messages {
            total += u64::from(load.recipients_of(number));
            match u32::try_from(total) {
                Ok(start) if total <= RECIPIENTS_MAX => starts.push(start),
                _ => return Err(format!("more than {RECIPIENTS_MAX} recipients altogether")),
            }
        }
        Ok(Self::with(starts))
    }

    fn with(starts: Vec<u32>) -> Self {
        let total = starts.last().copied().unwrap_or(0);
        let now = Instant::now();
        let books = Books {
            starts,
            entries: vec![Entry::default(); total as usize],
            latencies: Latencies::new(),
            service: Latencies::new(),
            timeline: Timeline::new(now),
            begun: now,
            last_acknowledged: now,
            counts: Balance::default(),
            progress: Progress::default(),
            first_refusal: None,
        };
        Self {
            books: Mutex::new(books),
        }
    }

    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        // A panic elsewhere must not hide what the books say.
        self.books
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The load begins now.
    pub(crate) fn begin(&self) {
        let (mut books, now) = (self.books(), Instant::now());
        books.timeline = Timeline::new(now);
        (books.begun, books.last_acknowledged) = (now, now);
    }

    /// The relay has taken a message, but for these recipients, in ascending order.
    pub(crate) fn acknowledged(&self, number: u64, but: &[u32], bytes: u64, times: Times) {
        let (mut books, now) = (self.books(), Instant::now());
        books.counts.acknowledged += 1;
        books.last_acknowledged = now;
        books.counts.bytes += bytes;
        books.counts.refused_recipients += but.len() as u64;
        books.latencies.record(times.latency);
        books.service.record(times.service);
        books.timeline.at(now).acknowledged += 1;
        for index in 0..books.recipients_of(number) {
            if but.binary_search(&index).is_err() {
                books.change(number, index, |entry| entry.state |= OWED);
            }
        }
    }

    /// The relay has not taken a message; `reply` says why.
    pub(crate) fn refused(&self, reply: &str) {
        let mut books = self.books();
        books.counts.refused += 1;
        books.progress.events += 1;
        books.first_refusal.get_or_insert_with(|| reply.to_owned());
    }

    /// A message of the source arrived for some recipients.
    pub(crate) fn delivered(&self, number: u64, good: bool, recipients: &[Option<(u64, u32)>]) {
        let mut books = self.books();
        books.count_delivered(recipients.len());
        for recipient in recipients {
            let known = recipient.filter(|(of, _)| *of == number);
            let changed = known.is_some_and(|(_, index)| {
                books.change(number, index, |entry| {
                    entry.delivered = entry.delivered.saturating_add(1);
                    entry.state |= if good { 0 } else { ALTERED };
                })
            });
            books.counts.altered += u64::from(!changed);
        }
    }

    /// Something arrived that the source has not sent.
    pub(crate) fn strange(&self, recipients: usize) {
        let mut books = self.books();
        books.count_delivered(recipients);
        books.counts.altered += 1;
    }

    /// The sink refuses a recipient for good; saying it again changes nothing.
    pub(crate) fn refused_by_sink(&self, number: u64, index: u32) {
        self.books()
            .change(number, index, |entry| entry.state |= REFUSED);
    }

    /// A report about some recipients arrived.
    pub(crate) fn reported(&self, recipients: &[(u64, u32)]) {
        let mut books = self.books();
        for (number, index) in recipients {
            books.change(*number, *index, |entry| entry.state |= REPORTED);
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        self.books().progress
    }

    pub(crate) fn summary(&self) -> Summary {
        let books = self.books();
        Summary {
            balance: books.balance(),
            latencies: books.latencies.clone(),
            service: books.service.clone(),
            timeline: books.timeline.clone(),
            sending: books
                .last_acknowledged
                .saturating_duration_since(books.begun),
            first_refusal: books.first_refusal.clone(),
        }
    }
}

impl Books {
    fn range(&self, number: u64) -> std::ops::Range<usize> {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        match self.starts.get(at..at.saturating_add(2)) {
            Some([start, end]) => *start as usize..*end as usize,
            _ => 0..0,
        }
    }

    fn recipients_of(&self, number: u64) -> u32 {
        self.range(number).len() as u32
    }

    /// Changes an entry and keeps the progress right; whether there is such an entry.
    fn change(&mut self, number: u64, index: u32, change: impl FnOnce(&mut Entry)) -> bool {
        let range = self.range(number);
        let Some(entry) = self.entries[range].get_mut(index as usize) else {
            return false;
        };
        let before = *entry;
        change(entry);
        let after = *entry;
        let progress = &mut self.progress;
        progress.events += 1;
        progress.open += u64::from(after.is_open());
        progress.open -= u64::from(before.is_open());
        progress.reports_awaited += u64::from(after.awaits_report());
        progress.reports_awaited -= u64::from(before.awaits_report());
        progress.acknowledged = self.counts.acknowledged;
        true
    }

    fn count_delivered(&mut self, recipients: usize) {
        let recipients = recipients as u64;
        self.counts.delivered += recipients;
        self.progress.delivered += recipients;
        self.progress.events += 1;
        self.timeline.at(Instant::now()).delivered += recipients;
    }

    fn balance(&self) -> Balance {
        let mut balance = self.counts.clone();
        for ends in self.starts.windows(2) {
            let entries = &self.entries[ends[0] as usize..ends[1] as usize];
            balance.altered += u64::from(entries.iter().any(|entry| entry.is(ALTERED)));
            for entry in entries {
                balance.lost += u64::from(entry.is_open());
                balance.duplicated += u64::from(entry.delivered.saturating_sub(1));
                balance.refused_by_sink += u64::from(entry.is(REFUSED));
                balance.bounced += u64::from(entry.is(REPORTED));
                balance.unreported += u64::from(entry.awaits_report());
            }
        }
        balance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        latency: Duration::from_micros(10),
        service: Duration::from_micros(10),
    };

    fn ledger(recipients: &[u32]) -> Ledger {
        let ends = recipients.iter().scan(0, |end, count| {
            *end += count;
            Some(*end)
        });
        let ledger = Ledger::with(std::iter::once(0).chain(ends).collect());
        for number in 0..recipients.len() as u64 {
            ledger.acknowledged(number, &[], 100, TIMES);
        }
        ledger
    }

    #[test]
    fn loss_duplicate_and_alteration_are_found() {
        let ledger = ledger(&[1, 1, 1, 1]);
        ledger.delivered(0, true, &[Some((0, 0))]);
        ledger.delivered(1, true, &[Some((1, 0))]);
        ledger.delivered(1, true, &[Some((1, 0))]);
        ledger.delivered(2, false, &[Some((2, 0))]);
        let balance = ledger.summary().balance;
        assert_eq!(
            (balance.lost, balance.duplicated, balance.altered),
            (1, 1, 1)
        );
        assert_eq!(ledger.progress().open, 1);
    }

    #[test]
    fn one_recipient_twice_does_not_make_up_for_another() {
        let ledger = ledger(&[2]);
        ledger.delivered(0, true, &[Some((0, 1))]);
        ledger.delivered(0, true, &[Some((0, 1))]);
        let balance = ledger.summary().balance;
        assert_eq!((balance.lost, balance.duplicated), (1, 1));
    }

    #[test]
    fn a_recipient_of_another_message_or_of_none_is_strange() {
        let ledger = ledger(&[1, 1]);
        ledger.delivered(0, true, &[Some((1, 0)), Some((0, 5)), None]);
        ledger.strange(1);
        let balance = ledger.summary().balance;
        assert_eq!(
            (balance.lost, balance.altered, balance.delivered),
            (2, 4, 4)
        );
    }

    #[test]
    fn a_refused_recipient_is_owed_a_report_and_nothing_else() {
        let ledger = ledger(&[3]);
        ledger.refused_by_sink(0, 1);
        ledger.refused_by_sink(0, 1);
        ledger.refused_by_sink(0, 2);
        ledger.delivered(0, true, &[Some((0, 0))]);
        ledger.reported(&[(0, 1)]);
        let balance = ledger.summary().balance;
        assert_eq!(
            (balance.lost, balance.refused_by_sink, balance.bounced),
            (0, 2, 1)
        );
        assert_eq!(balance.unreported, 1);
        let progress = ledger.progress();
        assert_eq!((progress.open, progress.reports_awaited), (0, 1));
    }

    #[test]
    fn only_what_the_relay_has_taken_is_owed() {
        let ledger = Ledger::with(vec![0, 3, 4]);
        ledger.acknowledged(0, &[1], 100, TIMES);
        ledger.refused("550 no");
        // It may arrive before the reply to the final dot is seen, and also when that got lost.
        ledger.delivered(1, true, &[Some((1, 0))]);
        let balance = ledger.summary().balance;
        assert_eq!((balance.lost, balance.duplicated), (2, 0));
        assert_eq!((balance.refused, balance.refused_recipients), (1, 1));
        assert_eq!(ledger.summary().first_refusal.as_deref(), Some("550 no"));
    }
}
