//! CR LF line ends to LF and back, in pieces of any size.

/// Turns content as it travels into content as it stands in files. A CR without a LF stays.
#[derive(Debug, Default)]
pub struct FromWire {
    /// The content so far ends with a CR, which may begin a line end.
    after_cr: bool,
}

impl FromWire {
    /// Appends what the next piece means.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        if std::mem::take(&mut self.after_cr) && piece.first() != Some(&b'\n') {
            out.push(b'\r');
        }
        out.reserve(piece.len());
        let mut done = 0;
        for at in memchr::memmem::find_iter(piece, b"\r\n") {
            out.extend_from_slice(piece.get(done..at).unwrap_or_default());
            out.push(b'\n');
            done = at + 2;
        }
        let mut rest = piece.get(done..).unwrap_or_default();
        if let Some(head) = rest.strip_suffix(b"\r") {
            self.after_cr = true;
            rest = head;
        }
        out.extend_from_slice(rest);
    }

    /// Appends what is left at the end.
    pub fn end(self, out: &mut Vec<u8>) {
        if self.after_cr {
            out.push(b'\r');
        }
    }
}

/// Turns a message as it stands in a file into content as it travels: CR LF line ends, one at the
/// end, no NUL. A CR inside a line becomes a space: it would be refused everywhere (see
/// ARCHITECTURE.md, *What is refused*).
#[derive(Debug, Default)]
pub struct ToWire {
    /// The message so far ends with a CR, which may belong to a line end.
    after_cr: bool,
    /// The content so far ends inside a line.
    inside: bool,
}

impl ToWire {
    /// Appends what the next piece means.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let Some(first) = piece.first() else {
            return;
        };
        let from = out.len();
        if std::mem::take(&mut self.after_cr) && *first != b'\n' {
            out.push(b' ');
        }
        let mut rest = piece;
        while let Some(at) = memchr::memchr3(b'\n', b'\r', 0, rest) {
            let (before, behind) = rest.split_at_checked(at).unwrap_or((rest, b""));
            out.extend_from_slice(before);
            match (behind.first(), behind.get(1)) {
                (Some(b'\n'), _) => out.extend_from_slice(b"\r\n"),
                (Some(b'\r'), Some(b'\n')) | (Some(0), _) => {}
                (Some(b'\r'), None) => self.after_cr = true,
                _ => out.push(b' '),
            }
            rest = behind.get(1..).unwrap_or_default();
        }
        out.extend_from_slice(rest);
        if out.len() > from {
            self.inside = out.last() != Some(&b'\n');
        }
    }

    /// Appends what is left at the end of a message; an empty one gets a line end too.
    pub fn end(self, empty: bool, out: &mut Vec<u8>) {
        if self.after_cr {
            out.push(b' ');
        }
        if self.after_cr || self.inside || empty {
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_travel_the_same_however_they_are_cut() {
        let message = b"a\r\n\nb\rc\0d\r\r\ne\0\n\0f\r";
        for size in 1..=message.len() {
            let (mut ends, mut out) = (ToWire::default(), Vec::new());
            for piece in message.chunks(size) {
                ends.feed(piece, &mut out);
            }
            ends.end(false, &mut out);
            assert_eq!(out, b"a\r\n\r\nb cd \r\ne\r\nf \r\n", "{size}");
        }
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let content = b"a\r\n\r\n.b\r\rc\r\r\nd\n\r";
        for size in 1..=content.len() {
            let (mut ends, mut out) = (FromWire::default(), Vec::new());
            for piece in content.chunks(size) {
                ends.feed(piece, &mut out);
            }
            ends.end(&mut out);
            assert_eq!(out, b"a\n\n.b\r\rc\r\nd\n\r", "{size}");
        }
    }
}
