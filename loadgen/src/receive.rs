//! What the sink makes of content while it arrives: dots are taken off, the identity is read from
//! the header, the body is hashed, a report gives its recipients. Nothing else is kept.

use xxhash_rust::xxh3::Xxh3;

use crate::message::{self, FIELD};

/// Header bytes in which the identity has to stand.
const HEADER_MAX: usize = 64 << 10;

/// Bytes of a line of a report that are looked at.
const LINE_MAX: usize = 1024;

/// Recipients that one report may name.
const REPORTED_MAX: usize = 10_000;

/// Takes content out of the dotted form (RFC 5321 4.5.2), in pieces.
#[derive(Debug)]
pub(crate) struct Undotter {
    at_line_start: bool,
}

/// How far a piece was taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Bytes of the input that are done with.
    pub(crate) bytes: usize,
    /// The final dot was among them.
    pub(crate) ended: bool,
}

impl Undotter {
    pub(crate) fn new() -> Self {
        Self {
            at_line_start: true,
        }
    }

    /// Hands content to `out`. What is not taken has to be given again, with more behind it.
    pub(crate) fn take(&mut self, input: &[u8], mut out: impl FnMut(&[u8])) -> Taken {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let more = |bytes| Taken {
                bytes,
                ended: false,
            };
            if self.at_line_start {
                if rest.starts_with(b".\r\n") {
                    return Taken {
                        bytes: at + 3,
                        ended: true,
                    };
                }
                if b".\r\n".starts_with(rest) {
                    return more(at);
                }
                at += usize::from(rest[0] == b'.');
                self.at_line_start = false;
                continue;
            }
            if let Some(end) = memchr::memmem::find(rest, b"\r\n.") {
                out(&rest[..end + 2]);
                at += end + 2;
                self.at_line_start = true;
                continue;
            }
            // A CR at the end may belong to a line end that is not here yet.
            let known = rest.len() - usize::from(rest.ends_with(b"\r"));
            out(&rest[..known]);
            self.at_line_start = rest.ends_with(b"\r\n");
            return more(at + known);
        }
    }
}

/// What content turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A message of the source; whether its body is unaltered.
    Message { number: u64, good: bool },
    /// A report about these recipients: number of the message, index of the recipient.
    Report(Vec<(u64, u32)>),
    /// Nothing that the source sent.
    Strange,
}

/// Content under way.
pub(crate) enum Digest {
    Header(Vec<u8>),
    Body {
        number: u64,
        sum: u64,
        hash: Box<Xxh3>,
    },
    Report(Report),
    Strange,
}

impl Digest {
    /// `report`: the reverse-path is empty (RFC 5321 4.5.5).
    pub(crate) fn new(report: bool) -> Self {
        if report {
            Self::Report(Report::default())
        } else {
            Self::Header(Vec::new())
        }
    }

    pub(crate) fn push(&mut self, piece: &[u8]) {
        match self {
            Self::Header(header) => {
                let searched = header.len().saturating_sub(3);
                header.extend_from_slice(piece);
                let end = memchr::memmem::find(&header[searched..], b"\r\n\r\n");
                if let Some(end) = end.map(|end| searched + end + 4) {
                    *self = Self::body(&header[..end], &header[end..]);
                } else if header.len() > HEADER_MAX {
                    *self = Self::Strange;
                }
            }
            Self::Body { hash, .. } => hash.update(piece),
            Self::Report(report) => report.push(piece),
            Self::Strange => {}
        }
    }

    fn body(header: &[u8], start: &[u8]) -> Self {
        let Some((number, sum)) = identity(header) else {
            return Self::Strange;
        };
        let mut hash = Box::new(Xxh3::new());
        hash.update(start);
        Self::Body { number, sum, hash }
    }

    /// The content is complete.
    pub(crate) fn finish(self) -> Identity {
        match self {
            Self::Body { number, sum, hash } => Identity::Message {
                number,
                good: hash.digest() == sum,
            },
            Self::Report(report) => Identity::Report(report.recipients),
            Self::Header(_) | Self::Strange => Identity::Strange,
        }
    }
}

fn identity(header: &[u8]) -> Option<(u64, u64)> {
    let at = memchr::memmem::find(header, FIELD)? + FIELD.len();
    let line = header[at..].split(|byte| *byte == b'\r').next()?;
    let (number, sum) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    Some((number.parse().ok()?, u64::from_str_radix(sum, 16).ok()?))
}

/// Looks for `Final-Recipient:` lines (RFC 3464 2.3.2).
#[derive(Debug, Default)]
pub(crate) struct Report {
    line: Vec<u8>,
    recipients: Vec<(u64, u32)>,
}

impl Report {
    fn push(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_MAX - self.line.len();
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.take_line();
            }
        }
    }

    fn take_line(&mut self) {
        let line = self.line.to_ascii_lowercase();
        self.line.clear();
        if self.recipients.len() == REPORTED_MAX || !line.starts_with(b"final-recipient:") {
            return;
        }
        let address = line.rsplit(|byte| *byte == b';').next().unwrap_or(&line);
        let found = message::parse_recipient(address.trim_ascii());
        self.recipients.extend(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::whole;

    fn identify(text: &[u8], piece: usize) -> Identity {
        let mut digest = Digest::new(false);
        for piece in text.chunks(piece) {
            digest.push(piece);
        }
        digest.finish()
    }

    #[test]
    fn an_altered_message_is_seen_however_it_is_cut() {
        let good = whole(7, 2000);
        let mut bad = good.clone();
        let last = bad.len() - 5;
        bad[last] ^= 1;
        let short = &good[..good.len() - 2];
        for piece in [1, 2, 3, 7, 64, 5000] {
            let message = |good| Identity::Message { number: 7, good };
            assert_eq!(identify(&good, piece), message(true), "{piece}");
            assert_eq!(identify(&bad, piece), message(false), "{piece}");
            assert_eq!(identify(short, piece), message(false), "{piece}");
        }
    }

    #[test]
    fn without_identity_content_is_strange() {
        assert_eq!(
            identify(b"Subject: x\r\n\r\ntext\r\n", 5),
            Identity::Strange
        );
        assert_eq!(identify(b"X-Loadgen: 7 zz\r\n\r\n", 100), Identity::Strange);
        assert_eq!(
            identify(&vec![b'x'; HEADER_MAX * 2], 1000),
            Identity::Strange
        );
    }

    /// Feeds `input` with `piece` bytes more each time, as a socket would.
    fn undot(input: &[u8], piece: usize) -> (Vec<u8>, usize) {
        let (mut undotter, mut out) = (Undotter::new(), Vec::new());
        let (mut from, mut to) = (0, 0);
        loop {
            let taken = undotter.take(&input[from..to], |text| out.extend_from_slice(text));
            from += taken.bytes;
            if taken.ended {
                return (out, from);
            }
            assert!(to < input.len(), "the final dot was not seen");
            to = (to + piece).min(input.len());
        }
    }

    #[test]
    fn dots_come_off_and_the_end_is_found_however_it_is_cut() {
        let cases: &[(&[u8], &[u8])] = &[
            (b".\r\nQUIT\r\n", b""),
            (
                b"..a\r\n...b\r\nc.d\r\n.\r\nQUIT\r\n",
                b".a\r\n..b\r\nc.d\r\n",
            ),
            (b"a\r\r\n..\r\n\r\n.\r\nx", b"a\r\r\n.\r\n\r\n"),
            (b"a\n.\nb\r\n.\r\n", b"a\n.\nb\r\n"),
        ];
        for (input, content) in cases {
            let end = memchr::memmem::find(input, b".\r\n").unwrap();
            for piece in 1..=input.len() {
                let (out, taken) = undot(input, piece);
                assert_eq!(out, *content, "{input:?} by {piece}");
                assert!(input[..taken].ends_with(b".\r\n") && taken > end);
            }
        }
    }

    #[test]
    fn what_was_stuffed_comes_back() {
        let text = whole(9, 200_000);
        let mut wire = Vec::new();
        message::Stuffer::new().push(&text, &mut wire);
        wire.extend_from_slice(b".\r\n");
        for piece in [1000, 4096, 65_537] {
            assert!(undot(&wire, piece).0 == text, "{piece}");
        }
    }

    #[test]
    fn a_report_names_its_recipients() {
        let text = b"Subject: failed\r\n\r\nFinal-Recipient: rfc822; r3.17@sink.example\r\n\
            Status: 5.1.1\r\n\r\nFinal-Recipient: rfc822;r0.18@sink.example\r\n\
            Final-Recipient: rfc822; ann@other.example\r\n";
        for piece in [1, 10, 1000] {
            let mut digest = Digest::new(true);
            for piece in text.chunks(piece) {
                digest.push(piece);
            }
            assert_eq!(digest.finish(), Identity::Report(vec![(17, 3), (18, 0)]));
        }
    }
}
