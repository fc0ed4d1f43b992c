//! Writes content after DATA (dot-stuffed) or BDAT (as it is), in pieces.
//!
//! The caller has checked with [`has_bare_line_end`] that text content contains CR and LF only in
//! pairs; so the end of content can never appear inside it, whatever the peer takes for a line end.

use memchr::memmem;

/// Bytes of content in one piece, before dot-stuffing.
pub const PIECE_BYTES_MAX: usize = 64 * 1024;

/// How the peer is told where content ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// DATA: a line with a dot.
    Dot,
    /// BDAT: a length in front.
    Length,
}

/// Content under way.
#[derive(Debug)]
pub(super) struct Writer {
    framing: Framing,
    offset: usize,
    /// Adds the final CRLF that the content lacks.
    complete: bool,
}

impl Writer {
    /// Before the first byte. Only `binary` content is left without a final CRLF.
    pub(super) fn new(framing: Framing, content: &[u8], binary: bool) -> Self {
        Self {
            framing,
            offset: 0,
            complete: lacks_line_end(content, binary),
        }
    }

    /// Appends the next piece; true when it was the last one.
    pub(super) fn write(&mut self, content: &[u8], output: &mut Vec<u8>) -> bool {
        let rest = content.get(self.offset..).unwrap_or_default();
        let mut len = rest.len().min(PIECE_BYTES_MAX);
        if len < rest.len() && rest.get(len - 1) == Some(&b'\r') {
            len -= 1; // CRLF stays in one piece, for the search of line starts.
        }
        let piece = rest.get(..len).unwrap_or_default();
        match self.framing {
            Framing::Length => output.extend_from_slice(piece),
            Framing::Dot => {
                let before = content.get(..self.offset).unwrap_or_default();
                stuff(
                    piece,
                    before.is_empty() || before.ends_with(b"\r\n"),
                    output,
                );
            }
        }
        self.offset += len;
        if self.offset < content.len() {
            return false;
        }
        if self.complete {
            output.extend_from_slice(b"\r\n");
        }
        if self.framing == Framing::Dot {
            output.extend_from_slice(b".\r\n");
        }
        true
    }
}

/// Bytes the peer will receive as content.
pub(super) fn size(content: &[u8], binary: bool) -> usize {
    content.len()
        + if lacks_line_end(content, binary) {
            2
        } else {
            0
        }
}

fn lacks_line_end(content: &[u8], binary: bool) -> bool {
    !binary && !content.is_empty() && !content.ends_with(b"\r\n")
}

/// Doubles dots at line starts (RFC 5321 4.5.2).
fn stuff(piece: &[u8], at_line_start: bool, output: &mut Vec<u8>) {
    output.reserve(piece.len() + 16);
    if at_line_start && piece.first() == Some(&b'.') {
        output.push(b'.');
    }
    let mut copied = 0;
    for at in memmem::find_iter(piece, b"\r\n.") {
        output.extend_from_slice(piece.get(copied..at + 3).unwrap_or_default());
        output.push(b'.');
        copied = at + 3;
    }
    output.extend_from_slice(piece.get(copied..).unwrap_or_default());
}

/// Whether a CR or LF is not part of a CRLF.
pub(super) fn has_bare_line_end(content: &[u8]) -> bool {
    let mut expected = None;
    for at in memchr::memchr2_iter(b'\r', b'\n', content) {
        let is_cr = content.get(at) == Some(&b'\r');
        match (expected.take(), is_cr) {
            (None, true) => expected = Some(at + 1),
            (Some(lf), false) if lf == at => {}
            _ => return true,
        }
    }
    expected.is_some()
}
