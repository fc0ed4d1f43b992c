//! The results for a message, packed when there are many.

use std::sync::Arc;

use super::message::orcpt;
use super::{Fate, Quad, Recipient};
use crate::base::records::{Reader, Writer};
use crate::base::sequence::{Drain, Pack, Sequence};

/// Results by [`Recipient::of`]: those of an addressee stand together, in the order of the addressees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipients {
    list: Sequence<Recipient>,
    last_of: u32,
}

impl Recipients {
    /// Appends a result: of the same addressee as the last one, or of a later one.
    pub fn push(&mut self, recipient: Recipient) {
        assert!(recipient.of >= self.last_of, "results are in order");
        self.last_of = recipient.of;
        self.list.push(recipient);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Recipient> {
        self.list.iter()
    }
}

impl FromIterator<Recipient> for Recipients {
    fn from_iter<I: IntoIterator<Item = Recipient>>(results: I) -> Self {
        let mut recipients = Self::default();
        results
            .into_iter()
            .for_each(|result| recipients.push(result));
        recipients
    }
}

impl IntoIterator for Recipients {
    type Item = Recipient;
    type IntoIter = Drain<Recipient>;

    fn into_iter(self) -> Drain<Recipient> {
        self.list.into_iter()
    }
}

const DELIVER: u8 = 0;
const FAIL: u8 = 1;
const HOLD: u8 = 2;
const DISCARD: u8 = 3;

impl Pack for Recipient {
    fn pack(&self, record: &mut Vec<u8>) {
        record.number(self.of.into());
        record.number(self.group.into());
        match &self.fate {
            Fate::Deliver(quad) => {
                record.push(DELIVER);
                put_quad(quad, record);
            }
            Fate::Fail { status, text } => {
                record.push(FAIL);
                record.text(status.as_bytes());
                record.text(text.as_bytes());
            }
            Fate::Hold { reason } => {
                record.push(HOLD);
                record.text(reason.as_bytes());
            }
            Fate::Discard => record.push(DISCARD),
        }
    }

    fn unpack(record: &mut Reader<'_>, before: Option<&Self>) -> Self {
        let text = |record: &mut Reader<'_>| String::from_utf8_lossy(record.text()).into_owned();
        let of = record.number() as u32;
        let group = record.number() as u32;
        let fate = match record.number() as u8 {
            DELIVER => {
                let before = before.and_then(|before| match &before.fate {
                    Fate::Deliver(quad) => Some(quad),
                    _ => None,
                });
                Fate::Deliver(take_quad(record, before))
            }
            FAIL => Fate::Fail {
                status: text(record).into(),
                text: text(record),
            },
            HOLD => Fate::Hold {
                reason: text(record),
            },
            _ => Fate::Discard,
        };
        Self { of, group, fate }
    }
}

fn put_quad(quad: &Quad, record: &mut Vec<u8>) {
    record.text(quad.channel.as_bytes());
    record.text(quad.host.as_bytes());
    record.text(&quad.user);
    // One more than the number; 0 is none.
    record.number(quad.privilege.map_or(0, |user| u64::from(user) + 1));
    record.push(quad.notify);
    orcpt::put(record, quad.orcpt.as_deref(), &quad.user);
}

fn take_quad(record: &mut Reader<'_>, before: Option<&Quad>) -> Quad {
    let channel = shared(record.text(), before.map(|before| &before.channel));
    let host = shared(record.text(), before.map(|before| &before.host));
    let user = record.text().to_vec();
    let privilege = record.number().checked_sub(1).map(|user| user as u32);
    let notify = record.number() as u8;
    let orcpt = orcpt::take(record, &user);
    Quad {
        channel,
        host,
        user,
        privilege,
        notify,
        orcpt,
    }
}

fn shared(text: &[u8], before: Option<&Arc<str>>) -> Arc<str> {
    match before {
        Some(before) if before.as_bytes() == text => Arc::clone(before),
        _ => String::from_utf8_lossy(text).into(),
    }
}
