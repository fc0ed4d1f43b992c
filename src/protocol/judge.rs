//! Rules for content that need no decoding, in pieces of any size: its line ends, when it came by BDAT,
//! and its header.

use super::content::Fault;

/// Judges the lines of content that came by BDAT and is not binary.
#[derive(Debug)]
pub struct LineJudge {
    line_bytes_max: usize,
    line_bytes: usize,
    after_cr: bool,
    bare: bool,
    nul: bool,
    too_long: bool,
}

impl LineJudge {
    /// At the start of content.
    #[must_use]
    pub fn new(line_bytes_max: usize) -> Self {
        Self {
            line_bytes_max,
            line_bytes: 0,
            after_cr: false,
            bare: false,
            nul: false,
            too_long: false,
        }
    }

    /// Looks at the next piece.
    pub fn feed(&mut self, content: &[u8]) {
        let mut line_from = 0;
        if self.after_cr && !content.is_empty() {
            self.after_cr = false;
            if content.first() == Some(&b'\n') {
                self.end_line(0);
                line_from = 1;
            } else {
                self.bare = true;
            }
        }
        for stop in memchr::memchr3_iter(b'\r', b'\n', 0, content) {
            if stop < line_from {
                continue;
            }
            match (content.get(stop), content.get(stop + 1)) {
                (Some(0), _) => self.nul = true,
                (Some(b'\r'), Some(b'\n')) => {
                    self.end_line(stop - line_from);
                    line_from = stop + 2;
                }
                (Some(b'\r'), None) => self.after_cr = true,
                _ => self.bare = true,
            }
        }
        self.line_bytes += content.len() - line_from - usize::from(self.after_cr);
    }

    fn end_line(&mut self, bytes: usize) {
        self.too_long |= self.line_bytes + bytes > self.line_bytes_max;
        self.line_bytes = 0;
    }

    /// What is wrong with the content, when this was all of it.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        if self.bare || self.after_cr {
            Some(Fault::BareLineEnd)
        } else if self.nul {
            Some(Fault::Nul)
        } else {
            let too_long = self.too_long || self.line_bytes > self.line_bytes_max;
            too_long.then_some(Fault::LineTooLong)
        }
    }
}

const RECEIVED: &[u8; 9] = b"received:";

/// Judges the header at the start of content: its size and the number of Received fields
/// (RFC 5321 6.3).
#[derive(Debug)]
pub struct HeaderJudge {
    bytes_max: usize,
    received_max: usize,
    bytes: usize,
    received: usize,
    /// The first bytes of the line under way.
    name: [u8; RECEIVED.len()],
    line_bytes: usize,
    /// The empty line has come.
    over: bool,
}

impl HeaderJudge {
    /// At the start of content.
    #[must_use]
    pub fn new(bytes_max: usize, received_max: usize) -> Self {
        Self {
            bytes_max,
            received_max,
            bytes: 0,
            received: 0,
            name: [0; RECEIVED.len()],
            line_bytes: 0,
            over: false,
        }
    }

    /// Looks at the next piece.
    pub fn feed(&mut self, content: &[u8]) {
        let mut rest = content;
        while !self.over && !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
            let (line, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            let name = self.name.iter_mut().skip(self.line_bytes);
            name.zip(line)
                .for_each(|(kept, byte)| *kept = byte.to_ascii_lowercase());
            self.line_bytes += line.len();
            self.bytes += line.len();
            if line.ends_with(b"\n") {
                self.end_line();
            }
            // Its end may still be the empty line, which does not count.
            self.over |= self.bytes > self.bytes_max.saturating_add(2);
            rest = behind;
        }
    }

    fn end_line(&mut self) {
        if self.line_bytes == 2 && self.name.starts_with(b"\r\n") {
            self.over = true;
            self.bytes -= 2;
        } else {
            self.received += usize::from(self.is_received());
        }
        self.line_bytes = 0;
    }

    fn is_received(&self) -> bool {
        self.line_bytes >= RECEIVED.len() && self.name == *RECEIVED
    }

    /// What is wrong with the header so far.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        let received = self.received + usize::from(self.is_received());
        if self.bytes > self.bytes_max {
            Some(Fault::HeaderTooLarge)
        } else {
            (received > self.received_max).then_some(Fault::Loop)
        }
    }
}

/// Judges the lines of content that is all there.
#[must_use]
pub fn line_fault(content: &[u8], line_bytes_max: usize) -> Option<Fault> {
    let mut judge = LineJudge::new(line_bytes_max);
    judge.feed(content);
    judge.fault()
}

/// Judges the header of content that is all there.
#[must_use]
pub fn header_fault(content: &[u8], header_bytes_max: usize, received_max: usize) -> Option<Fault> {
    let mut judge = HeaderJudge::new(header_bytes_max, received_max);
    judge.feed(content);
    judge.fault()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    /// The verdict is the same however content is cut.
    fn lines(content: &[u8], line_bytes_max: usize) -> Option<Fault> {
        let verdicts: Vec<_> = (1..=content.len())
            .map(|step| {
                let mut judge = LineJudge::new(line_bytes_max);
                content.chunks(step).for_each(|piece| judge.feed(piece));
                judge.fault()
            })
            .collect();
        assert!(
            verdicts.iter().all(|one| *one == verdicts[0]),
            "{content:?}: {verdicts:?}"
        );
        verdicts[0]
    }

    #[test]
    fn chunked_content_obeys_the_line_rule() {
        assert_eq!(lines(b".\r\n..\r\nlast line", 100), None);
        assert_eq!(lines(b"a\nb\r\n", 100), Some(Fault::BareLineEnd));
        assert_eq!(lines(b"a\rb\r\n", 100), Some(Fault::BareLineEnd));
        assert_eq!(lines(b".\rb\r\n", 100), Some(Fault::BareLineEnd));
        assert_eq!(lines(b"a\r\r\n", 100), Some(Fault::BareLineEnd));
        assert_eq!(lines(b"a\r", 100), Some(Fault::BareLineEnd));
        assert_eq!(lines(b"a\0b\r\n", 100), Some(Fault::Nul));
    }

    #[test]
    fn lines_are_measured_without_their_end() {
        assert_eq!(lines(b"1234\r\n1234\r\n", 4), None);
        assert_eq!(lines(b"12345\r\n", 4), Some(Fault::LineTooLong));
        assert_eq!(lines(b"1\r\n12345", 4), Some(Fault::LineTooLong));
        assert_eq!(lines(b"1\r\n1234", 4), None);
    }

    fn header(content: &[u8], bytes_max: usize, received_max: usize) -> Option<Fault> {
        let verdicts: Vec<_> = (1..=content.len())
            .map(|step| {
                let mut judge = HeaderJudge::new(bytes_max, received_max);
                content.chunks(step).for_each(|piece| judge.feed(piece));
                judge.fault()
            })
            .collect();
        assert!(
            verdicts.iter().all(|one| *one == verdicts[0]),
            "{verdicts:?}"
        );
        verdicts[0]
    }

    #[test]
    fn received_lines_are_counted_in_the_header_only() {
        let content = b"Received: a\r\nreceived: b\r\n\tfolded\r\nTo: x\r\n\r\nReceived: c\r\n";
        assert_eq!(header(content, 1000, 2), None);
        assert_eq!(header(content, 1000, 1), Some(Fault::Loop));
        assert_eq!(header(content, 20, 9), Some(Fault::HeaderTooLarge));
    }

    #[test]
    fn a_header_without_an_end_counts() {
        assert_eq!(header(b"A: b\r\nReceived: x", 100, 0), Some(Fault::Loop));
        assert_eq!(header(b"A: b\r\nC: d", 9, 0), Some(Fault::HeaderTooLarge));
        assert_eq!(header(b"A: b\r\nC: d", 10, 0), None);
    }

    #[test]
    fn the_body_does_not_count() {
        assert_eq!(
            header(b"A: b\r\n\r\nbody that is longer than the limit", 6, 0),
            None
        );
        assert_eq!(header(b"\r\nReceived: x\r\n", 6, 0), None);
    }
}
