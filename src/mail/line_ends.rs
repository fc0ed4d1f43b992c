//! CR LF line ends to LF, in pieces of any size.

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
        let mut rest = piece;
        while let Some(at) = memchr::memmem::find(rest, b"\r\n") {
            out.extend_from_slice(rest.get(..at).unwrap_or_default());
            out.push(b'\n');
            rest = rest.get(at + 2..).unwrap_or_default();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
