//! A message as it stands in a file of many (mbox), and as programs read it.
//!
//! It begins with a line `From SENDER DATE`. In a file lines of the content that begin so get a `>` in front, and an
//! empty line ends it. The date is that of the arrival, so that the same message is the same bytes at each attempt.

use std::io::{self, Write};

use super::maildir::Letter;
use crate::mail::date;

/// A message with what stands in front of it.
pub(super) struct Entry<'a> {
    pub(super) letter: &'a Letter<'a>,
    /// It stands among others.
    pub(super) among_others: bool,
}

impl Entry<'_> {
    /// The lines in front of the content.
    pub(super) fn head(&self) -> Vec<u8> {
        let letter = self.letter;
        let blank = |byte: &u8| if *byte == b' ' { b'-' } else { *byte };
        let sender: Vec<u8> = match letter.sender {
            b"" => b"MAILER-DAEMON".to_vec(),
            sender => sender.iter().map(blank).collect(),
        };
        let date = date::format_from_line(letter.arrival_ms);
        [
            b"From ",
            sender.as_slice(),
            b" ",
            date.as_bytes(),
            b"\nReturn-Path: <",
            letter.sender,
            b">\nDelivered-To: ",
            letter.recipient,
            b"\n",
        ]
        .concat()
    }

    /// Writes all of it.
    pub(super) fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.head())?;
        if !self.among_others {
            return self.letter.content.write_to(out);
        }
        let mut quoting = Quoting {
            out,
            matched: Some(0),
        };
        self.letter.content.write_to(&mut quoting)?;
        quoting.end()
    }
}

const FROM: &[u8] = b"From ";

/// Puts a `>` in front of lines that could begin another entry.
struct Quoting<'a, W> {
    out: &'a mut W,
    /// Bytes of [`FROM`] that the line under way has brought, and nothing else; they are not written yet.
    matched: Option<usize>,
}

impl<W: Write> Quoting<'_, W> {
    /// The content is over: its last line ends, an empty one follows.
    fn end(self) -> io::Result<()> {
        match self.matched {
            Some(0) => self.out.write_all(b"\n"),
            matched => {
                let held = FROM.get(..matched.unwrap_or(0)).unwrap_or_default();
                self.out.write_all(held)?;
                self.out.write_all(b"\n\n")
            }
        }
    }
}

impl<W: Write> Write for Quoting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            if let Some(matched) = self.matched {
                if FROM.get(matched) == Some(first) {
                    rest = rest.get(1..).unwrap_or_default();
                    self.matched = Some(matched + 1);
                    if matched + 1 == FROM.len() {
                        self.out.write_all(b">")?;
                        self.out.write_all(FROM)?;
                        self.matched = None;
                    }
                    continue;
                }
                self.out
                    .write_all(FROM.get(..matched).unwrap_or_default())?;
                self.matched = None;
            }
            let line_end = memchr::memchr(b'\n', rest);
            let (line, behind) = rest.split_at(line_end.map_or(rest.len(), |at| at + 1));
            self.out.write_all(line)?;
            self.matched = line_end.map(|_| 0);
            rest = behind;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_could_begin_a_message_are_quoted_in_pieces_of_any_size() {
        let cases = [
            ("From a\nFrom\n From b\n", ">From a\nFrom\n From b\n\n"),
            ("x\nFrom here", "x\n>From here\n\n"),
            ("x\nFro", "x\nFro\n\n"),
            ("\n\nFrom \n", "\n\n>From \n\n"),
            (">From x\n", ">From x\n\n"),
            ("", "\n"),
        ];
        for (text, expected) in cases {
            for size in 1..=text.len().max(1) {
                let mut out = Vec::new();
                let mut quoting = Quoting {
                    out: &mut out,
                    matched: Some(0),
                };
                for piece in text.as_bytes().chunks(size) {
                    quoting.write_all(piece).unwrap();
                }
                quoting.end().unwrap();
                assert_eq!(
                    String::from_utf8(out).unwrap(),
                    expected,
                    "{text:?} by {size}"
                );
            }
        }
    }
}
