//! The header of a stored message: where its fields are and what they are.

use std::ops::Range;

use super::script::Side;
use crate::mail::header::{self, Field};

/// What a field is to message processing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Addresses.
    Addresses(Side),
    /// One date and time.
    Date,
    /// One message identification.
    MessageId,
    /// A trace of a host.
    Received,
    /// Text.
    Other,
}

/// A field and its place in the content.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) name: Range<usize>,
    /// What stands behind the colon, without the line end.
    pub(super) value: Range<usize>,
    /// All of it, line ends included.
    pub(super) whole: Range<usize>,
}

impl Entry {
    /// Whether it has this name, in any case.
    pub(super) fn is(&self, content: &[u8], name: &str) -> bool {
        self.name_in(content).eq_ignore_ascii_case(name.as_bytes())
    }

    pub(super) fn name_in<'a>(&self, content: &'a [u8]) -> &'a [u8] {
        content.get(self.name.clone()).unwrap_or_default()
    }

    pub(super) fn value_in<'a>(&self, content: &'a [u8]) -> &'a [u8] {
        content.get(self.value.clone()).unwrap_or_default()
    }
}

/// A header.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    pub(super) fields: Vec<Entry>,
    /// Where the fields end.
    pub(super) end: usize,
    /// Whether an empty line follows, as it must.
    pub(super) has_end: bool,
    /// `From ` lines of a mailbox file in front of the fields; they are no part of a message.
    pub(super) mailbox_lines: Vec<Range<usize>>,
    /// Whether there is a Resent- field (RFC 5322 3.6.6).
    pub(super) is_resent: bool,
    /// Received fields.
    pub(super) received: usize,
}

impl Head {
    /// Reads the fields at the start of `content`. What comes behind the first line that is no field is
    /// body. Where only the start of the content is at hand and the header goes beyond it, the fields that
    /// are whole are read; what follows stays as it is. In front of a `submitted` header lines of a mailbox
    /// file may stand; elsewhere they end it.
    pub(super) fn read(content: &[u8], content_len: u64, submitted: bool) -> Self {
        let mut head = Self::default();
        loop {
            let mut fields = header::fields(content.get(head.end..).unwrap_or_default());
            for field in fields.by_ref() {
                head.add(&field);
            }
            let rest = fields.rest();
            let line = head.mailbox_line(rest).filter(|_| submitted);
            let Some(len) = line else {
                head.has_end = rest.starts_with(b"\r\n") || rest.starts_with(b"\n");
                if (content.len() as u64) < content_len && !rest.contains(&b'\n') {
                    head.cut(rest.is_empty());
                }
                return head;
            };
            head.mailbox_lines.push(head.end..head.end + len);
            head.end += len;
        }
    }

    /// The header goes on behind what was read. Its last field may do so too.
    fn cut(&mut self, inside: bool) {
        if let Some(last) = self.fields.pop_if(|_| inside) {
            self.end = last.whole.start;
        }
        self.has_end = true;
    }

    fn add(&mut self, field: &Field<'_>) {
        let start = self.end;
        let end = start + field.whole.len();
        let colon = end - field.value.len() - 1;
        // A line end only: blanks at the end of the text belong to it.
        let cut = field.value.len() - without_line_end(field.value).len();
        let kind = kind(field.name);
        self.is_resent |= is_resent(field.name);
        self.received += usize::from(kind == Kind::Received);
        self.fields.push(Entry {
            kind,
            name: start..start + field.name.len(),
            value: colon + 1..end - cut,
            whole: start..end,
        });
        self.end = end;
    }

    /// The length of a line that mailbox files have, where only traces came before it.
    fn mailbox_line(&self, rest: &[u8]) -> Option<usize> {
        const LINES_MAX: usize = 2;
        let is_first = self.fields.iter().all(|entry| entry.kind == Kind::Received);
        let is_line = rest.starts_with(b"From ") || rest.starts_with(b">From ");
        if !is_first || !is_line || self.mailbox_lines.len() >= LINES_MAX {
            return None;
        }
        Some(memchr::memchr(b'\n', rest)? + 1)
    }

    /// The first field of this name.
    pub(super) fn first(&self, content: &[u8], name: &str) -> Option<(usize, &Entry)> {
        let mut all = self.fields.iter().enumerate();
        all.find(|(_, entry)| entry.is(content, name))
    }
}

fn without_line_end(value: &[u8]) -> &[u8] {
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    value.strip_suffix(b"\r").unwrap_or(value)
}

const RESENT: &[u8] = b"Resent-";

fn is_resent(name: &[u8]) -> bool {
    let start = name.get(..RESENT.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(RESENT))
}

pub(super) fn kind(name: &[u8]) -> Kind {
    let plain = if is_resent(name) {
        name.get(RESENT.len()..).unwrap_or_default()
    } else {
        name
    };
    let known = KINDS
        .iter()
        .find(|(known, _)| plain.eq_ignore_ascii_case(known.as_bytes()));
    known.map_or(Kind::Other, |(_, kind)| *kind)
}

const KINDS: &[(&str, Kind)] = &[
    ("From", Kind::Addresses(Side::Sender)),
    ("Sender", Kind::Addresses(Side::Sender)),
    ("Reply-To", Kind::Addresses(Side::Sender)),
    ("Errors-To", Kind::Addresses(Side::Sender)),
    ("Return-Receipt-To", Kind::Addresses(Side::Sender)),
    ("Disposition-Notification-To", Kind::Addresses(Side::Sender)),
    ("Mail-Followup-To", Kind::Addresses(Side::Sender)),
    ("Mail-Reply-To", Kind::Addresses(Side::Sender)),
    ("To", Kind::Addresses(Side::Recipient)),
    ("Cc", Kind::Addresses(Side::Recipient)),
    ("Bcc", Kind::Addresses(Side::Recipient)),
    ("Apparently-To", Kind::Addresses(Side::Recipient)),
    ("Date", Kind::Date),
    ("Message-Id", Kind::MessageId),
    ("Received", Kind::Received),
];

/// The text of a value on one line, without the blanks around it.
pub(super) fn unfolded(value: &[u8]) -> Vec<u8> {
    let kept = value.iter().filter(|byte| !matches!(byte, b'\r' | b'\n'));
    kept.copied().collect::<Vec<u8>>().trim_ascii().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_their_places() {
        let content = b"Received: x\r\nSubject :  a \r\n\tb \r\nresent-to: c@x\r\n\r\nTo: body\r\n";
        let head = Head::read(content, 0, true);
        assert_eq!(head.fields.len(), 3);
        assert!(head.is_resent && head.has_end && head.received == 1);
        let [_, subject, to] = head.fields.as_slice() else {
            panic!();
        };
        assert_eq!(subject.name_in(content), b"Subject");
        assert_eq!(subject.value_in(content), b"  a \r\n\tb ");
        assert_eq!(unfolded(subject.value_in(content)), b"a \tb");
        assert_eq!(to.kind, Kind::Addresses(Side::Recipient));
        assert!(
            content
                .get(head.end..)
                .unwrap()
                .starts_with(b"\r\nTo: body")
        );
        assert!(head.first(content, "Subject").is_some() && head.first(content, "To").is_none());
    }

    #[test]
    fn lines_of_mailbox_files_are_none_of_it() {
        let content =
            b"Received: x\r\nFrom joe Wed Feb 14 10:11:12 2001\r\n>From x\r\nTo: a@x\r\n\r\n";
        let head = Head::read(content, 0, true);
        assert_eq!((head.fields.len(), head.mailbox_lines.len()), (2, 2));
        let late = Head::read(b"To: a@x\r\n>From x\r\nCc: b@x\r\n\r\n", 0, true);
        assert_eq!((late.fields.len(), late.has_end), (1, false));
        assert_eq!(Head::read(content, 0, false).fields.len(), 1);
    }

    /// The start of a large message was taken for all of it, and an empty line came into its header.
    #[test]
    fn a_header_may_be_longer_than_what_is_at_hand() {
        let content = b"To: a@x\r\nCc: b@x\r\nSubject: s\r\n\r\nbody\r\n";
        let whole = content.len() as u64;
        for (len, fields, end) in [(9, 0, 0), (13, 1, 9), (18, 1, 9), (20, 2, 18), (32, 3, 30)] {
            let head = Head::read(content.get(..len).unwrap(), whole, true);
            assert_eq!((head.fields.len(), head.end), (fields, end), "{len}");
            assert!(head.has_end);
        }
        assert!(!Head::read(b"To: a@x\r\n", 9, true).has_end);
    }

    #[test]
    fn a_header_may_end_anywhere() {
        for content in [&b""[..], b"To: a", b"no field\r\n", b"\r\nbody"] {
            let head = Head::read(content, 0, true);
            assert!(head.end <= content.len());
            assert_eq!(head.has_end, content.starts_with(b"\r\n"));
        }
    }
}
