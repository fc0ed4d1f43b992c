//! Content on its way in: dots and line ends.
//!
//! [`DotDecoder`] takes DATA content in pieces of any size and gives the same result however they
//! are cut. It never fails: what is wrong with the content is known at its end.

/// What the decoder wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes.
    More,
    /// Nothing: the final dot has been taken.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// The first byte of a line comes next.
    LineStart,
    /// A dot began the line.
    Dot,
    /// A dot and a CR began the line.
    DotCr,
    /// Inside a line.
    Inside,
    /// Behind a CR inside a line.
    Cr,
}

/// Decodes content that ends with CR LF . CR LF (RFC 5321 4.5.2).
#[derive(Debug)]
pub struct DotDecoder {
    at: At,
    line_bytes: usize,
    line_bytes_max: usize,
    /// Bytes of content that may still be kept.
    room_bytes: usize,
    bare: bool,
    nul: bool,
    line_too_long: bool,
    too_large: bool,
}

impl DotDecoder {
    /// At the start of content; content beyond `content_bytes_max` is taken but not kept.
    #[must_use]
    pub fn new(line_bytes_max: usize, content_bytes_max: usize) -> Self {
        Self {
            at: At::LineStart,
            line_bytes: 0,
            line_bytes_max,
            room_bytes: content_bytes_max,
            bare: false,
            nul: false,
            line_too_long: false,
            too_large: false,
        }
    }

    /// Takes bytes up to the end of the content, appends what they mean to `out`. Gives back how
    /// many were taken.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Progress) {
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            match self.at {
                At::Inside => used += self.inside(rest, out),
                at => {
                    let Some(byte) = rest.first().copied() else {
                        break;
                    };
                    let (next, taken) = self.edge(at, byte, out);
                    used += usize::from(taken);
                    match next {
                        Some(next) => self.at = next,
                        None => return (used, Progress::End),
                    }
                }
            }
        }
        (used, Progress::More)
    }

    /// The next place after one byte outside the body of a line, and whether the byte was taken;
    /// no place: the content has ended.
    fn edge(&mut self, at: At, byte: u8, out: &mut Vec<u8>) -> (Option<At>, bool) {
        match (at, byte) {
            (At::LineStart, b'.') => (Some(At::Dot), true),
            (At::LineStart | At::Dot | At::Inside, _) if at != At::Dot || byte != b'\r' => {
                (Some(At::Inside), false)
            }
            (At::DotCr, b'\n') => (None, true),
            (At::Cr, b'\n') => {
                self.keep(b"\r\n", out);
                self.line_bytes = 0;
                (Some(At::LineStart), true)
            }
            // Whatever else follows a CR: it was a lone one.
            (At::DotCr | At::Cr, _) => {
                self.bare = true;
                self.keep(b"\r", out);
                (Some(At::Inside), false)
            }
            _ => (Some(At::DotCr), true),
        }
    }

    /// Takes whole lines at once: the text between two dots at the start of a line is kept in one
    /// piece.
    fn inside(&mut self, rest: &[u8], out: &mut Vec<u8>) -> usize {
        let mut line_from = 0;
        let mut kept = rest.len();
        let mut used = rest.len();
        for stop in memchr::memchr3_iter(b'\r', b'\n', 0, rest) {
            if stop < line_from {
                continue;
            }
            let behind = (rest.get(stop), rest.get(stop + 1), rest.get(stop + 2));
            match behind {
                (Some(0), ..) => self.nul = true,
                (Some(b'\r'), Some(b'\n'), next) => {
                    self.end_line(stop - line_from);
                    line_from = stop + 2;
                    if next.is_none_or(|byte| *byte == b'.') {
                        (kept, used) = (line_from, line_from);
                        self.at = At::LineStart;
                        break;
                    }
                }
                (Some(b'\r'), None, _) => {
                    (kept, used) = (stop, stop + 1);
                    self.at = At::Cr;
                    break;
                }
                _ => self.bare = true,
            }
        }
        self.line_bytes += kept.saturating_sub(line_from);
        self.line_too_long |= self.line_bytes > self.line_bytes_max;
        self.keep(rest.get(..kept).unwrap_or(rest), out);
        used
    }

    fn end_line(&mut self, bytes: usize) {
        self.line_too_long |= self.line_bytes + bytes > self.line_bytes_max;
        self.line_bytes = 0;
    }

    fn keep(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match self.room_bytes.checked_sub(bytes.len()) {
            Some(room_bytes) => {
                self.room_bytes = room_bytes;
                out.extend_from_slice(bytes);
            }
            None => self.too_large = true,
        }
    }

    /// What is wrong with the content so far.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        if self.too_large {
            Some(Fault::TooLarge)
        } else if self.bare {
            Some(Fault::BareLineEnd)
        } else if self.nul {
            Some(Fault::Nul)
        } else if self.line_too_long {
            Some(Fault::LineTooLong)
        } else {
            None
        }
    }
}

/// Why content is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It holds a lone CR or LF.
    BareLineEnd,
    /// It holds a NUL, which some servers drop: then a dot may stand alone on its line.
    Nul,
    /// It holds a line above the limit.
    LineTooLong,
    /// It is larger than the limit.
    TooLarge,
    /// Its header is larger than the limit.
    HeaderTooLarge,
    /// It has passed too many hosts.
    Loop,
}

impl Fault {
    /// The reply to the end of the content.
    #[must_use]
    pub fn reply(self) -> &'static str {
        match self {
            Self::BareLineEnd => "550 5.6.11 a lone CR or LF is in the content",
            Self::Nul => "550 5.6.11 a NUL is in the content",
            Self::LineTooLong => "550 5.6.0 a line of the content is too long",
            Self::TooLarge => "552 5.3.4 the message is too large",
            Self::HeaderTooLarge => "552 5.3.4 the header is too large",
            Self::Loop => "554 5.4.6 too many Received lines: a mail loop",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (&'static str, &'static [u8], &'static [u8], Option<Fault>);

    const CASES: &[Row] = &[
        ("end at once is empty content", b".\r\n", b"", None),
        (
            "a stuffed dot loses one dot",
            b"..a\r\n.\r\n",
            b".a\r\n",
            None,
        ),
        (
            "a dot inside a line is kept",
            b"a.b\r\n.\r\n",
            b"a.b\r\n",
            None,
        ),
        (
            "a lone LF does not end a line",
            b"a\n.\n.\r\n\r\n.\r\n",
            b"a\n.\n.\r\n\r\n",
            Some(Fault::BareLineEnd),
        ),
        (
            "a lone CR does not end a line",
            b"a\r.\r\r\n.\r\n",
            b"a\r.\r\r\n",
            Some(Fault::BareLineEnd),
        ),
        (
            "LF . CR LF is not the end",
            b"a\n.\r\nb\r\n.\r\n",
            b"a\n.\r\nb\r\n",
            Some(Fault::BareLineEnd),
        ),
        (
            "CR . CR LF is not the end",
            b"a\r.\r\nb\r\n.\r\n",
            b"a\r.\r\nb\r\n",
            Some(Fault::BareLineEnd),
        ),
        (
            "CR LF . CR CR LF is not the end",
            b"a\r\n.\r\r\nb\r\n.\r\n",
            b"a\r\n\r\r\nb\r\n",
            Some(Fault::BareLineEnd),
        ),
        (
            "CR CR LF . is a lone CR",
            b"a\r\r\n.\r\n",
            b"a\r\r\n",
            Some(Fault::BareLineEnd),
        ),
        (
            "CR LF NUL . CR LF is not the end",
            b"a\r\n\0.\r\nb\r\n.\r\n",
            b"a\r\n\0.\r\nb\r\n",
            Some(Fault::Nul),
        ),
        (
            "CR LF . LF is not the end",
            b"a\r\n.\nb\r\n.\r\n",
            b"a\r\n\nb\r\n",
            Some(Fault::BareLineEnd),
        ),
    ];

    #[test]
    fn content_is_the_same_however_it_is_cut() {
        for (reason, input, expected, fault) in CASES {
            for step in 1..=input.len() {
                let mut decoder = DotDecoder::new(1000, 1000);
                let mut out = Vec::new();
                let mut progress = Progress::More;
                let mut used = 0;
                for piece in input.chunks(step) {
                    assert_eq!(
                        progress,
                        Progress::More,
                        "{reason}: ends early, step {step}"
                    );
                    let (taken, next) = decoder.feed(piece, &mut out);
                    used += taken;
                    progress = next;
                }
                assert_eq!(progress, Progress::End, "{reason}, step {step}");
                assert_eq!(used, input.len(), "{reason}, step {step}");
                assert_eq!(out, *expected, "{reason}, step {step}");
                assert_eq!(decoder.fault(), *fault, "{reason}, step {step}");
            }
        }
    }

    #[test]
    fn what_follows_the_end_is_not_taken() {
        let mut decoder = DotDecoder::new(1000, 1000);
        let mut out = Vec::new();
        let (used, progress) = decoder.feed(b"a\r\n.\r\nMAIL FROM", &mut out);
        assert_eq!((used, progress), (6, Progress::End));
    }

    #[test]
    fn limits_are_seen() {
        let mut decoder = DotDecoder::new(4, 8);
        let mut out = Vec::new();
        decoder.feed(b"12345\r\n", &mut out);
        assert_eq!(decoder.fault(), Some(Fault::LineTooLong));
        decoder.feed(b"12345\r\n.\r\n", &mut out);
        assert_eq!(decoder.fault(), Some(Fault::TooLarge));
        assert!(out.len() <= 8);
    }
}
