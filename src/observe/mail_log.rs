//! The mail log: a bounded buffer of key=value lines, written by the shard in pieces.
//!
//! Two lines a message by default: accepted, and the result of each delivery. When the buffer is
//! full, or writing is blocked or fails, lines are counted, and the count is a line of its own later:
//! mail never waits for its log. The operator hears of it on standard error.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::base::clock::Now;
use crate::mail::date;

use super::lost::Lost;

/// Lines are written when they have waited this long...
const FLUSH_NS: u64 = 100_000_000;

/// ... or when there are this many bytes.
const FLUSH_BYTES: usize = 64 << 10;

/// A message was accepted.
#[derive(Debug)]
pub struct Accepted<'a> {
    /// Its id.
    pub id: &'a str,
    /// The client's address.
    pub client: &'a [u8],
    /// What it called itself.
    pub helo: &'a [u8],
    /// How it came.
    pub protocol: &'a [u8],
    /// Sender; empty: null.
    pub sender: &'a [u8],
    /// Bytes of content.
    pub size_bytes: u64,
    /// Recipients.
    pub recipients_count: u32,
}

/// An attempt for one recipient ended.
#[derive(Debug)]
pub struct Result<'a> {
    /// The message's id.
    pub id: &'a str,
    /// Recipient.
    pub recipient: &'a [u8],
    /// The recipient of the envelope that it comes from.
    pub original: &'a [u8],
    /// Of the configuration that routed it.
    pub generation: u64,
    /// Channel.
    pub channel: &'a str,
    /// Next hop.
    pub host: &'a str,
    /// The address that answered.
    pub relay: Option<SocketAddr>,
    /// What happened.
    pub status: &'static str,
    /// Since arrival.
    pub delay_ms: u64,
    /// The reply.
    pub reply: &'a [u8],
}

/// See the module.
#[derive(Debug)]
pub struct MailLog {
    buffer: Vec<u8>,
    spare: Vec<u8>,
    bytes_max: usize,
    oldest_ns: Option<u64>,
    /// Lines in `buffer`; then those being written, and the lost ones they speak of.
    lines: u64,
    writing_lines: u64,
    writing_lost: u64,
    lost: Lost,
    line: Vec<u8>,
    /// The millisecond of the last line and its text: most lines share it with others.
    stamp_ms: u64,
    stamp: Vec<u8>,
}

impl MailLog {
    /// Holds at most `bytes_max` bytes of lines; `name` is the file, for the operator.
    #[must_use]
    pub fn new(name: String, bytes_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            spare: Vec::new(),
            bytes_max,
            oldest_ns: None,
            lines: 0,
            writing_lines: 0,
            writing_lost: 0,
            lost: Lost::of(name),
            line: Vec::new(),
            stamp_ms: 0,
            stamp: Vec::new(),
        }
    }

    /// Logs an accepted message.
    pub fn accepted(&mut self, now: Now, event: &Accepted<'_>) {
        self.begin(now, "accepted");
        self.word("id", event.id.as_bytes());
        self.word("client", event.client);
        self.word("helo", event.helo);
        self.word("proto", event.protocol);
        self.word("from", event.sender);
        self.number("size", event.size_bytes);
        self.number("nrcpt", event.recipients_count.into());
        self.end(now);
    }

    /// Logs a result.
    pub fn result(&mut self, now: Now, event: &Result<'_>) {
        self.begin(now, event.status);
        self.word("id", event.id.as_bytes());
        self.word("to", event.recipient);
        if event.original != event.recipient {
            self.word("orig", event.original);
        }
        self.word("channel", event.channel.as_bytes());
        self.word("host", event.host.as_bytes());
        if let Some(relay) = event.relay {
            self.display("relay", &relay);
        }
        self.number("delay_ms", event.delay_ms);
        // Not known of what has waited since before the start.
        if event.generation > 0 {
            self.number("conf", event.generation);
        }
        self.word("reply", event.reply);
        self.end(now);
    }

    /// Logs that routing has replaced some recipients of a message by others.
    pub fn routed(&mut self, now: Now, id: &str, replaced: u32, recipients: u32, generation: u64) {
        self.begin(now, "routed");
        self.word("id", id.as_bytes());
        self.number("nrcpt", replaced.into());
        self.number("nresults", recipients.into());
        self.number("conf", generation);
        self.end(now);
    }

    /// Logs a next hop that could not be reached.
    pub fn thread(
        &mut self,
        now: Now,
        channel: &str,
        host: &str,
        relay: Option<SocketAddr>,
        reply: &[u8],
    ) {
        self.begin(now, "unreachable");
        self.word("channel", channel.as_bytes());
        self.word("host", host.as_bytes());
        if let Some(relay) = relay {
            self.display("relay", &relay);
        }
        self.word("reply", reply);
        self.end(now);
    }

    fn begin(&mut self, now: Now, event: &str) {
        if self.stamp.is_empty() || self.stamp_ms != now.wall_ms {
            self.stamp_ms = now.wall_ms;
            let at = date::civil(now.wall_ms);
            self.stamp = format!(
                "time={:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z event=",
                at.year, at.month, at.day, at.hour, at.minute, at.second, at.milli
            )
            .into_bytes();
        }
        self.line.clear();
        self.line.extend_from_slice(&self.stamp);
        self.line.extend_from_slice(event.as_bytes());
    }

    fn formatted(&mut self, text: std::fmt::Arguments<'_>) {
        struct Bytes<'a>(&'a mut Vec<u8>);
        impl std::fmt::Write for Bytes<'_> {
            fn write_str(&mut self, text: &str) -> std::fmt::Result {
                self.0.extend_from_slice(text.as_bytes());
                Ok(())
            }
        }
        // Writing to memory cannot fail.
        let _ = Bytes(&mut self.line).write_fmt(text);
    }

    fn number(&mut self, key: &str, value: u64) {
        self.formatted(format_args!(" {key}={value}"));
    }

    fn display(&mut self, key: &str, value: &dyn std::fmt::Display) {
        self.formatted(format_args!(" {key}={value}"));
    }

    /// A value from outside: quoted unless it is plain, and without any byte that could forge
    /// another key or line.
    fn word(&mut self, key: &str, value: &[u8]) {
        self.line.push(b' ');
        self.line.extend_from_slice(key.as_bytes());
        self.line.push(b'=');
        let plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"\\=".contains(byte);
        if !value.is_empty() && value.iter().all(plain) {
            self.line.extend_from_slice(value);
            return;
        }
        self.line.push(b'"');
        for byte in value {
            match byte {
                b'"' | b'\\' => self.line.extend_from_slice(&[b'\\', *byte]),
                0x20..=0x7e => self.line.push(*byte),
                _ => self.formatted(format_args!("\\x{byte:02x}")),
            }
        }
        self.line.push(b'"');
    }

    fn end(&mut self, now: Now) {
        self.line.push(b'\n');
        if self.buffer.len() + self.line.len() > self.bytes_max {
            self.lost.add(1);
            return;
        }
        self.lines += 1;
        self.buffer.extend_from_slice(&self.line);
        self.oldest_ns.get_or_insert(now.mono_ns);
    }

    /// When lines have to be written.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.oldest_ns.map(|oldest| oldest + FLUSH_NS)
    }

    /// The lines to be written now, if it is time.
    pub fn take(&mut self, now: Now) -> Option<Vec<u8>> {
        let due = self.deadline().is_some_and(|at| at <= now.mono_ns);
        if !due && self.buffer.len() < FLUSH_BYTES {
            return None;
        }
        self.report_lost(now);
        self.oldest_ns = None;
        self.writing_lines = std::mem::take(&mut self.lines);
        let spare = std::mem::take(&mut self.spare);
        Some(std::mem::replace(&mut self.buffer, spare))
    }

    fn report_lost(&mut self, now: Now) {
        self.writing_lost = self.lost.unlogged();
        if self.writing_lost > 0 {
            self.begin(now, "lost");
            self.number("lines", self.writing_lost);
            self.line.push(b'\n');
            self.buffer.extend_from_slice(&self.line);
        }
    }

    /// Gives the taken buffer back, written or not; what was not counts as lost, whole: how far a write
    /// got before the disk was full is not known.
    pub fn give_back(&mut self, now: Now, buffer: Vec<u8>, written: std::result::Result<(), i32>) {
        let lines = std::mem::take(&mut self.writing_lines);
        let said = match written {
            Ok(()) => {
                self.lost.logged(self.writing_lost);
                self.lost.worked()
            }
            Err(errno) => {
                self.lost.add(lines);
                self.lost.failed(now.mono_ns, errno)
            }
        };
        if let Some(text) = said {
            tracing::warn!("{text}");
        }
        self.spare = buffer;
    }

    /// Nothing waits to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Lines lost so far.
    #[must_use]
    pub fn lost_count(&self) -> u64 {
        self.lost.count()
    }
}

impl Drop for MailLog {
    fn drop(&mut self) {
        self.lost.add(self.lines);
        if let Some(text) = self.lost.ended() {
            tracing::warn!("{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(log: &mut MailLog, helo: &[u8]) {
        let event = Accepted {
            id: "ID",
            client: b"192.0.2.1",
            helo,
            protocol: b"ESMTP",
            sender: b"",
            size_bytes: 5,
            recipients_count: 1,
        };
        log.accepted(
            Now {
                mono_ns: 1,
                wall_ms: 1_795_461_621_007,
            },
            &event,
        );
    }

    fn taken(log: &mut MailLog) -> String {
        let now = Now {
            mono_ns: 1 << 40,
            wall_ms: 0,
        };
        String::from_utf8(log.take(now).unwrap_or_default()).unwrap()
    }

    #[test]
    fn a_line_has_all_keys_and_forges_none() {
        let mut log = MailLog::new(String::new(), 1000);
        accept(&mut log, b"evil\nevent=accepted \"x\xff");
        let expected = "time=2026-11-23T19:20:21.007Z event=accepted id=ID client=192.0.2.1 \
                        helo=\"evil\\x0aevent=accepted \\\"x\\xff\" proto=ESMTP from=\"\" size=5 nrcpt=1\n";
        assert_eq!(taken(&mut log), expected);
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_and_reported() {
        let mut log = MailLog::new(String::new(), 150);
        for _ in 0..3 {
            accept(&mut log, b"h");
        }
        assert_eq!(log.lost_count(), 2);
        let text = taken(&mut log);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("event=lost lines=2"), "{text}");
    }

    #[test]
    fn lines_that_could_not_be_written_are_all_counted_and_reported_until_they_could() {
        let mut log = MailLog::new(String::new(), 1000);
        let now = Now::default();
        for result in [Err(28), Err(28), Ok(())] {
            accept(&mut log, b"h");
            accept(&mut log, b"h");
            let text = taken(&mut log);
            let said = text.lines().find(|line| line.contains("event=lost"));
            let lost = log.lost_count();
            assert_eq!(said.is_some(), lost > 0, "{text}");
            assert!(said.is_none_or(|line| line.ends_with(&format!("lines={lost}"))));
            log.give_back(now, Vec::new(), result);
        }
        assert_eq!(log.lost_count(), 4);
        accept(&mut log, b"h");
        assert!(!taken(&mut log).contains("event=lost"), "reported once");
    }
}
