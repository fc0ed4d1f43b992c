//! What was acknowledged, what arrived, and whether the two agree.

use std::sync::Mutex;

/// State of one message number.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    acknowledged: bool,
    delivered: u32,
    altered: bool,
}

/// The books of one run.
#[derive(Debug)]
pub(crate) struct Ledger {
    entries: Mutex<Books>,
    recipients: u32,
}

#[derive(Debug, Default)]
struct Books {
    entries: Vec<Entry>,
    latencies_us: Vec<u32>,
    acknowledged: u64,
    refused: u64,
    delivered: u64,
    strange: u64,
}

/// What the books say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Balance {
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) altered: u64,
}

impl Ledger {
    /// For messages numbered below `messages`, each with this many recipients.
    pub(crate) fn new(messages: u64, recipients: usize) -> Self {
        let entries = vec![Entry::default(); messages as usize];
        let books = Books {
            entries,
            ..Books::default()
        };
        Self {
            entries: Mutex::new(books),
            recipients: recipients as u32,
        }
    }

    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        // A panic elsewhere must not hide what the books say.
        self.entries
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn acknowledged(&self, number: u64, latency_us: u32) {
        let mut books = self.books();
        books.acknowledged += 1;
        books.latencies_us.push(latency_us);
        if let Some(entry) = books.entries.get_mut(number as usize) {
            entry.acknowledged = true;
        }
    }

    pub(crate) fn refused(&self) {
        self.books().refused += 1;
    }

    /// A message arrived for some recipients.
    pub(crate) fn delivered(&self, identity: Option<(u64, bool)>, recipients: u32) {
        let mut books = self.books();
        books.delivered += u64::from(recipients);
        let found = identity.and_then(|(number, good)| {
            books
                .entries
                .get_mut(number as usize)
                .map(|entry| (entry, good))
        });
        match found {
            Some((entry, good)) => {
                entry.delivered += recipients;
                entry.altered |= !good;
            }
            None => books.strange += 1,
        }
    }

    /// Acknowledged and delivered so far.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let books = self.books();
        (books.acknowledged, books.delivered)
    }

    /// Latencies to acknowledgement at these shares, in microseconds.
    pub(crate) fn latencies_us(&self, shares: [f64; 3]) -> [u32; 3] {
        let mut books = self.books();
        books.latencies_us.sort_unstable();
        shares.map(|share| {
            let at = (books.latencies_us.len() as f64 * share) as usize;
            let last = books.latencies_us.len().saturating_sub(1);
            books.latencies_us.get(at.min(last)).copied().unwrap_or(0)
        })
    }

    pub(crate) fn balance(&self) -> Balance {
        let books = self.books();
        let mut balance = Balance {
            acknowledged: books.acknowledged,
            refused: books.refused,
            delivered: books.delivered,
            altered: books.strange,
            ..Balance::default()
        };
        for entry in &books.entries {
            if entry.acknowledged {
                balance.lost += u64::from(self.recipients.saturating_sub(entry.delivered));
            }
            balance.duplicated += u64::from(entry.delivered.saturating_sub(self.recipients));
            balance.altered += u64::from(entry.altered);
        }
        balance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_duplicate_and_alteration_are_found() {
        let ledger = Ledger::new(4, 1);
        for number in 0..4 {
            ledger.acknowledged(number, 10);
        }
        ledger.delivered(Some((0, true)), 1);
        ledger.delivered(Some((1, true)), 1);
        ledger.delivered(Some((1, true)), 1);
        ledger.delivered(Some((2, false)), 1);
        let balance = ledger.balance();
        assert_eq!(
            (balance.lost, balance.duplicated, balance.altered),
            (1, 1, 1)
        );
    }

    #[test]
    fn each_recipient_counts() {
        let ledger = Ledger::new(1, 3);
        ledger.acknowledged(0, 1);
        ledger.delivered(Some((0, true)), 2);
        assert_eq!(ledger.balance().lost, 1);
        ledger.delivered(Some((0, true)), 1);
        assert_eq!(
            ledger.balance(),
            Balance {
                acknowledged: 1,
                delivered: 3,
                ..Balance::default()
            }
        );
    }
}
