//! Writes content after DATA (dot-stuffed) or BDAT (as it is), in pieces.
//!
//! Text content contains CR and LF only in pairs: checked with [`has_bare_line_end`] when it is in memory,
//! promised by the caller when it comes in pieces. So the end of content can never appear inside it,
//! whatever the peer takes for a line end.

use std::collections::VecDeque;

use memchr::memmem;

use super::Content;
use crate::mail::edit::{self, Editor};

/// Bytes of content written at a time, before dot-stuffing.
pub const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Pieces held at a time: one being written, one read ahead.
const PIECES_MAX: usize = 2;

/// How the peer is told where content ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// DATA: a line with a dot.
    Dot,
    /// BDAT: a length in front.
    Length,
}

/// Where in a line the content written so far ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    LineStart,
    Cr,
    Inside,
}

/// Content under way.
#[derive(Debug)]
pub(super) struct Writer {
    framing: Framing,
    at: At,
    /// Bytes written.
    offset: u64,
    /// Adds the final CRLF that the content lacks.
    complete: bool,
    /// Of content that is not in memory: what has come and is not written.
    pieces: VecDeque<Vec<u8>>,
    /// Bytes written of the first piece.
    piece_offset: usize,
    /// Bytes that have come, as stored.
    come: u64,
    editor: Editor,
    /// The end of the last piece was in the middle of a line end, or not.
    after_cr: bool,
}

impl Writer {
    /// Before the first byte. Only `binary` content is left without a final CRLF.
    pub(super) fn new(framing: Framing, content: &Content, binary: bool) -> Self {
        Self {
            framing,
            at: At::LineStart,
            offset: 0,
            complete: content.lacks_line_end(binary),
            pieces: VecDeque::new(),
            piece_offset: 0,
            come: 0,
            editor: Editor::default(),
            after_cr: false,
        }
    }

    /// Where the next piece begins, when it should be read now.
    pub(super) fn wants(&self, content: &Content) -> Option<u64> {
        let Content::Pieces { len, .. } = content else {
            return None;
        };
        let more = self.come < *len;
        (more && self.pieces.len() < PIECES_MAX).then_some(self.come)
    }

    /// Takes the next piece; false, and it must not go out: with its changes a CR or LF would stand alone.
    #[must_use]
    pub(super) fn piece(&mut self, content: &Content, bytes: Vec<u8>, binary: bool) -> bool {
        self.come += bytes.len() as u64;
        let (len, edits) = match content {
            Content::Pieces { len, edits, .. } if !edits.is_empty() => (*len, edits),
            _ => {
                self.pieces.push_back(bytes);
                return true;
            }
        };
        let mut edited = Vec::with_capacity(bytes.len());
        self.editor.feed(edits, &bytes, &mut edited);
        if self.come >= len {
            self.editor.end(edits, &mut edited);
        }
        let whole = binary || self.keeps_line_ends(&edited, self.come >= len);
        if !edited.is_empty() {
            self.pieces.push_back(edited);
        }
        whole
    }

    /// Whether CR and LF come in pairs, over pieces that follow each other.
    fn keeps_line_ends(&mut self, bytes: &[u8], is_last: bool) -> bool {
        if bytes.is_empty() {
            return !(self.after_cr && is_last);
        }
        let rest = if self.after_cr {
            match bytes.strip_prefix(b"\n") {
                Some(rest) => rest,
                None => return false,
            }
        } else {
            bytes
        };
        self.after_cr = !is_last && rest.ends_with(b"\r");
        let rest = if self.after_cr {
            rest.strip_suffix(b"\r").unwrap_or(rest)
        } else {
            rest
        };
        !has_bare_line_end(rest)
    }

    /// Appends what can be written at once; true when it was the last of the content.
    pub(super) fn write(&mut self, content: &Content, output: &mut Vec<u8>) -> bool {
        let written = match content {
            Content::Memory(bytes) => {
                let rest = bytes.get(self.offset as usize..).unwrap_or_default();
                self.put(head(rest), output)
            }
            Content::Pieces { .. } => self.write_piece(output),
        };
        self.offset += written as u64;
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

    fn write_piece(&mut self, output: &mut Vec<u8>) -> usize {
        let Some(piece) = self.pieces.pop_front() else {
            return 0;
        };
        let rest = piece.get(self.piece_offset..).unwrap_or_default();
        let written = self.put(head(rest), output);
        self.piece_offset += written;
        if self.piece_offset < piece.len() {
            self.pieces.push_front(piece);
        } else {
            self.piece_offset = 0;
        }
        written
    }

    fn put(&mut self, bytes: &[u8], output: &mut Vec<u8>) -> usize {
        match self.framing {
            Framing::Length => output.extend_from_slice(bytes),
            Framing::Dot => self.at = stuff(self.at, bytes, output),
        }
        bytes.len()
    }
}

fn head(bytes: &[u8]) -> &[u8] {
    bytes.get(..PIECE_BYTES_MAX).unwrap_or(bytes)
}

/// Bytes the peer will receive as content.
pub(super) fn size(content: &Content, binary: bool) -> u64 {
    content.len() + if content.lacks_line_end(binary) { 2 } else { 0 }
}

impl Content {
    /// Bytes of it as they go out.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Pieces { len, edits, .. } => edit::edited_len(*len, edits),
        }
    }

    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lacks_line_end(&self, binary: bool) -> bool {
        match self {
            Self::Memory(bytes) => !binary && !bytes.is_empty() && !bytes.ends_with(b"\r\n"),
            Self::Pieces { .. } => false,
        }
    }

    pub(super) fn is_eight_bit(&self) -> bool {
        match self {
            Self::Memory(bytes) => !bytes.is_ascii(),
            Self::Pieces {
                eight_bit, edits, ..
            } => *eight_bit || edits.iter().any(|edit| !edit.insert.is_ascii()),
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        match self {
            Self::Memory(bytes) => has_bare_line_end(bytes),
            Self::Pieces { len, edits, .. } => !edit::fit(edits, *len),
        }
    }
}

/// Doubles dots at line starts (RFC 5321 4.5.2), however the content is cut.
fn stuff(at: At, bytes: &[u8], output: &mut Vec<u8>) -> At {
    output.reserve(bytes.len() + 16);
    let mut copied = 0;
    match (at, bytes) {
        (At::LineStart, [b'.', ..]) => output.push(b'.'),
        (At::Cr, [b'\n', b'.', ..]) => {
            output.extend_from_slice(b"\n.");
            copied = 1;
        }
        _ => {}
    }
    for at in memmem::find_iter(bytes, b"\r\n.") {
        output.extend_from_slice(bytes.get(copied..at + 3).unwrap_or_default());
        output.push(b'.');
        copied = at + 3;
    }
    output.extend_from_slice(bytes.get(copied..).unwrap_or_default());
    match (at, bytes) {
        (at, []) => at,
        (At::Cr, [b'\n']) | (_, [.., b'\r', b'\n']) => At::LineStart,
        (_, [.., b'\r']) => At::Cr,
        _ => At::Inside,
    }
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
