//! What operators ask about the queue, and the pages that shards answer with.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::Value;

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
    /// Routed again.
    Reroute,
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
            "reroute" => Some(Self::Reroute),
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
    /// It is only found out what would be done; [`Act::Reroute`] knows this.
    pub dry: bool,
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
    /// Recipients to which something was done, or would be; the others are being delivered.
    pub acted: u64,
    /// Recipients that the router could not decide about: they stay where they are.
    pub undecided: u64,
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
    /// Of the configuration that routed it last; none: not known before it is routed again.
    pub generation: Option<u64>,
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
    /// What it becomes when it is routed anew; none: it stays what it is, or nobody asked.
    pub becomes: Option<String>,
}

impl Entry {
    /// Appends it as tools read it. A listing has hundreds of thousands of these, so no tree of values
    /// is built.
    pub fn write_json(&self, out: &mut String) {
        out.push_str("{\"id\":");
        text(out, &self.id);
        out.push_str(",\"sender\":");
        text(out, &String::from_utf8_lossy(&self.sender));
        if let Some(generation) = self.generation {
            number(out, "generation", generation);
        }
        number(out, "arrival_ms", self.arrival_ms);
        number(out, "size", self.size_bytes);
        out.push_str(",\"recipients\":[");
        for (at, recipient) in self.recipients.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            recipient.write_json(out);
        }
        out.push_str("]}");
    }
}

impl EntryRecipient {
    fn write_json(&self, out: &mut String) {
        out.push_str("{\"recipient\":");
        text(out, &String::from_utf8_lossy(&self.address));
        out.push_str(",\"channel\":");
        text(out, &self.channel);
        out.push_str(",\"host\":");
        text(out, &self.host);
        out.push_str(",\"state\":");
        text(out, self.state);
        number(out, "attempts", self.attempts.into());
        number(out, "next_ms", self.next_ms);
        out.push_str(",\"reply\":");
        text(out, &String::from_utf8_lossy(&self.reply));
        if let Some(becomes) = &self.becomes {
            out.push_str(",\"becomes\":");
            text(out, becomes);
        }
        out.push('}');
    }
}

fn number(out: &mut String, key: &str, value: u64) {
    // Writing to a string cannot fail.
    let _ = write!(out, ",\"{key}\":{value}");
}

fn text(out: &mut String, value: &str) {
    let plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
    if value.bytes().all(plain) {
        out.push('"');
        out.push_str(value);
        out.push('"');
    } else {
        out.push_str(&Value::from(value).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_json() {
        let recipient = EntryRecipient {
            address: b"\"a\\\"b\"@x\xff".to_vec(),
            state: "held",
            attempts: 3,
            reply: "450 \u{fc}\t\u{1}".as_bytes().to_vec(),
            ..EntryRecipient::default()
        };
        let entry = Entry {
            id: "abc".to_owned(),
            sender: Vec::new(),
            generation: Some(5),
            arrival_ms: 7,
            size_bytes: 8,
            recipients: vec![recipient.clone(), recipient],
        };
        let mut out = String::new();
        entry.write_json(&mut out);
        let object: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(object["id"], "abc");
        assert_eq!(object["generation"], 5);
        assert_eq!(
            (&object["sender"], &object["size"]),
            (&"".into(), &8.into())
        );
        let recipient = &object["recipients"][1];
        assert_eq!(recipient["recipient"], "\"a\\\"b\"@x\u{fffd}");
        assert_eq!(recipient["reply"], "450 \u{fc}\t\u{1}");
        assert_eq!(
            (&recipient["state"], &recipient["attempts"]),
            (&"held".into(), &3.into())
        );
    }
}
