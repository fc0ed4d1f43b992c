//! What operators ask about the queue, and the pages that shards answer with.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::scheduler::filter::Filter;

/// What is done to the recipients that match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Tried now instead of at their time.
    Retry,
    /// Not tried until they are released.
    Hold,
    /// Tried again.
    Release,
    /// Dropped, without a report.
    Delete,
    /// Given up, with a report to the sender.
    Bounce,
}

impl Act {
    /// The act of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "retry" => Some(Self::Retry),
            "hold" => Some(Self::Hold),
            "release" => Some(Self::Release),
            "delete" => Some(Self::Delete),
            "bounce" => Some(Self::Bounce),
            _ => None,
        }
    }
}

/// A question to one shard about some of its messages.
#[derive(Clone, Debug)]
pub struct Inquiry {
    /// Comes back in [`Page`].
    pub token: u64,
    /// Who is meant.
    pub filter: Arc<Filter>,
    /// What is done to them; none: nothing.
    pub act: Option<Act>,
    /// Entries are wanted, not only counts.
    pub list: bool,
    /// Messages behind this one.
    pub after: u64,
    /// Messages up to this one.
    pub upto: u64,
}

/// Part of an answer.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Of the inquiry.
    pub token: u64,
    /// Messages with recipients that match.
    pub entries: Vec<Entry>,
    /// Of this page.
    pub messages: u64,
    /// Of this page.
    pub recipients: u64,
    /// Content of those messages.
    pub bytes: u64,
    /// Recipients to which something was done; the others are being delivered.
    pub acted: u64,
    /// Where the next page begins; none: this was the last.
    pub next: Option<u64>,
    /// The latest message there is.
    pub newest: u64,
}

/// A message with recipients that match.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its id.
    pub id: String,
    /// Reverse path.
    pub sender: Vec<u8>,
    /// Arrival, in milliseconds since 1970.
    pub arrival_ms: u64,
    /// Bytes of content.
    pub size_bytes: u64,
    /// Those that match.
    pub recipients: Vec<EntryRecipient>,
}

/// A queued recipient.
#[derive(Clone, Debug, Default)]
pub struct EntryRecipient {
    /// Address.
    pub address: Vec<u8>,
    /// Channel; empty while held.
    pub channel: String,
    /// Next hop; empty while held.
    pub host: String,
    /// `waiting`, `deferred`, `delivering` or `held`.
    pub state: &'static str,
    /// Attempts so far.
    pub attempts: u32,
    /// Wall time of the next attempt in milliseconds; 0: as soon as there is a slot.
    pub next_ms: u64,
    /// The last reply.
    pub reply: Vec<u8>,
}

impl Entry {
    /// As tools read it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let recipients: Vec<Value> = self
            .recipients
            .iter()
            .map(|recipient| {
                json!({
                    "recipient": String::from_utf8_lossy(&recipient.address),
                    "channel": recipient.channel,
                    "host": recipient.host,
                    "state": recipient.state,
                    "attempts": recipient.attempts,
                    "next_ms": recipient.next_ms,
                    "reply": String::from_utf8_lossy(&recipient.reply),
                })
            })
            .collect();
        json!({
            "id": self.id,
            "sender": String::from_utf8_lossy(&self.sender),
            "arrival_ms": self.arrival_ms,
            "size": self.size_bytes,
            "recipients": recipients,
        })
    }
}
