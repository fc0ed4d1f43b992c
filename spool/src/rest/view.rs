//! What can be told of a resting message without reading it.

use crate::id::SpoolId;
use crate::rest::{Rest, RestRecipient, Resting};
use crate::types::Status;

/// A resting message.
#[derive(Clone, Copy, Debug)]
pub struct RestView<'a> {
    pub(super) all: &'a Resting,
    pub(super) rest: &'a Rest,
}

/// A recipient of a resting message, finished or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestingRecipient<'a> {
    /// In the envelope.
    pub number: u32,
    /// The next hop it waits for.
    pub hop: crate::Hop,
    /// Of the last attempt, if there was one.
    pub status: Option<Status>,
    /// Attempts so far.
    pub attempt: u32,
    /// Wall time before which it is not tried.
    pub next_ms: u64,
    /// Of the last attempt.
    pub reply: &'a [u8],
}

impl RestingRecipient<'_> {
    /// It has no final outcome.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.status, None | Some(Status::Deferred | Status::Held))
    }

    /// An operator holds it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.status == Some(Status::Held)
    }
}

impl<'a> RestView<'a> {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> Option<SpoolId> {
        self.all.id(self.rest)
    }

    /// Bytes of its content.
    #[must_use]
    pub fn content_len(&self) -> u64 {
        self.rest.content_len.into()
    }

    /// Wall time of its arrival, cut to the second.
    #[must_use]
    pub fn arrival_ms(&self) -> u64 {
        u64::from(self.rest.arrival_s) * 1000
    }

    /// The configuration that routed it last; none: it is not known.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        let generation = self.all.generation(self.rest);
        Some(generation).filter(|generation| *generation > 0)
    }

    /// Its recipients, by number; those without an outcome among them only if they are open.
    pub fn recipients(&self) -> impl Iterator<Item = RestingRecipient<'a>> + use<'a> {
        let all = self.all;
        let recipients = self.rest.recipients.as_slice().iter();
        recipients.map(move |recipient| told(all, recipient))
    }
}

fn told<'a>(all: &'a Resting, recipient: &RestRecipient) -> RestingRecipient<'a> {
    RestingRecipient {
        number: recipient.number,
        hop: crate::Hop(recipient.hop),
        status: recipient.standing.status(),
        attempt: recipient.attempt.into(),
        next_ms: recipient.next_ms,
        reply: all.reply(recipient.reply),
    }
}
