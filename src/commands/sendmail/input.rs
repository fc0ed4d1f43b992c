//! The message on standard input, line by line: where its header ends, and where it ends itself.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};

use super::{Refusal, refusal};
use crate::commands::exit;
use crate::mail::{header, message_file};
use crate::protocol::judge;

/// Longest piece of a line.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// Limits of the daemon that will read the message, so that it is refused now and not later.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) header_bytes: usize,
    pub(super) received: usize,
    pub(super) message_bytes: u64,
}

/// Standard input by lines or pieces of lines.
pub(super) struct Input<R> {
    reader: BufReader<R>,
    /// A lone dot ends the message.
    dot_ends: bool,
    ended: bool,
    /// The next piece goes on with a line.
    inside: bool,
    /// Bytes so far, as the message will travel.
    wire_bytes: u64,
}

impl<R: Read> Input<R> {
    pub(super) fn new(reader: R, dot_ends: bool) -> Self {
        Self {
            reader: BufReader::with_capacity(PIECE_BYTES, reader),
            dot_ends,
            ended: false,
            inside: false,
            wire_bytes: 0,
        }
    }

    /// The next line, or a piece of a long one; false at the end.
    pub(super) fn piece(&mut self, line: &mut Vec<u8>) -> Result<bool, Refusal> {
        line.clear();
        if self.ended {
            return Ok(false);
        }
        let mut limited = (&mut self.reader).take(PIECE_BYTES as u64);
        limited.read_until(b'\n', line).map_err(unreadable)?;
        let dot =
            self.dot_ends && !self.inside && (line == b".\n" || line == b".\r\n" || line == b".");
        if line.is_empty() || dot {
            self.ended = true;
            line.clear();
            return Ok(false);
        }
        self.inside = !line.ends_with(b"\n");
        let lone_end = line.ends_with(b"\n") && !line.ends_with(b"\r\n");
        self.wire_bytes += line.len() as u64 + u64::from(lone_end);
        Ok(true)
    }

    /// Bytes taken so far, as the message will travel.
    pub(super) fn wire_bytes(&self) -> u64 {
        self.wire_bytes
    }

    /// The header and the empty line behind it. A message without a header gets that line. What is
    /// no header line is the start of the body, and stands behind the empty line.
    pub(super) fn head(&mut self, keep_from: bool, limits: Limits) -> Result<Vec<u8>, Refusal> {
        let mut head = Vec::with_capacity(4096);
        let mut line = Vec::new();
        let mut first = !keep_from;
        let mut body = None;
        loop {
            let at_start = !self.inside;
            if !self.piece(&mut line)? {
                break;
            }
            // The line that mailbox files put before a message.
            if std::mem::take(&mut first) && line.starts_with(b"From ") {
                self.skip_line(&mut line)?;
                continue;
            }
            if at_start && !is_header(&line, head.is_empty()) {
                body = Some(std::mem::take(&mut line));
                break;
            }
            head.extend_from_slice(&line);
            if head.len() > limits.header_bytes {
                return Err(too_large(limits));
            }
        }
        judge(&head, limits)?;
        if !head.is_empty() && !head.ends_with(b"\n") {
            head.push(b'\n');
        }
        let body = body.unwrap_or_default();
        if body != b"\n" && body != b"\r\n" {
            head.push(b'\n');
        }
        head.extend_from_slice(&body);
        Ok(head)
    }

    fn skip_line(&mut self, line: &mut Vec<u8>) -> Result<(), Refusal> {
        while self.inside && self.piece(line)? {}
        Ok(())
    }
}

/// Whether a line, or the start of a long one, is part of a header.
fn is_header(line: &[u8], first: bool) -> bool {
    let continues = !first && matches!(line.first(), Some(b' ' | b'\t'));
    continues || header::fields(line).next().is_some()
}

/// The daemon's own rules, on what it will read.
fn judge(head: &[u8], limits: Limits) -> Result<(), Refusal> {
    if head.is_empty() {
        return Ok(());
    }
    let wire = message_file::to_wire(head);
    match judge::header_fault(&wire, limits.header_bytes, limits.received) {
        None => Ok(()),
        Some(crate::protocol::content::Fault::Loop) => {
            let text = format!(
                "the header has more than {} Received fields, which is a mail loop; the message \
                 was not submitted",
                limits.received
            );
            Err(refusal(exit::DATA, text))
        }
        Some(_) => Err(too_large(limits)),
    }
}

fn too_large(limits: Limits) -> Refusal {
    let text = format!(
        "the header is larger than {} bytes; the message was not submitted",
        limits.header_bytes
    );
    refusal(exit::DATA, text)
}

fn unreadable(error: io::Error) -> Refusal {
    let text = format!("standard input: {error}; the message was not submitted");
    refusal(exit::IO, text)
}

/// Waits for input where the program before us has made the pipe one that does not.
pub(super) struct Waiting<R>(pub(super) R);

impl<R: Read + AsFd> Read for Waiting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
                    match rustix::event::poll(&mut fds, None) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        header_bytes: 100_000,
        received: 3,
        message_bytes: 1 << 20,
    };

    fn head_of(text: &str, limits: Limits) -> Result<String, String> {
        let head = Input::new(text.as_bytes(), true).head(false, limits);
        head.map(|head| String::from_utf8(head).unwrap())
            .map_err(|refusal| refusal.text)
    }

    #[test]
    fn where_a_header_ends() {
        for (text, head) in [
            ("To: a\n b\n\nbody\n", "To: a\n b\n\n"),
            ("From me Mon\nTo: a\n\n", "To: a\n\n"),
            ("no header\nTo: a\n", "\nno header\n"),
            ("To: a\nno header\n", "To: a\n\nno header\n"),
            ("To: a", "To: a\n\n"),
            ("", "\n"),
            ("To: a\r\n\r\nbody", "To: a\r\n\r\n"),
            (".\n", "\n"),
            (" no header\n", "\n no header\n"),
        ] {
            assert_eq!(head_of(text, LIMITS).as_deref(), Ok(head), "{text:?}");
        }
    }

    /// The second piece of a long line was taken for the start of the body, and addresses in it for
    /// nothing at all.
    #[test]
    fn a_line_longer_than_a_piece_is_one_line() {
        let long = format!("To: {}a@x\nCc: b@x\n\nbody\n", "a@x,".repeat(20_000));
        let head = long.strip_suffix("body\n").unwrap();
        assert_eq!(head_of(&long, LIMITS).as_deref(), Ok(head));
        let long = format!("From {}\nTo: a@x\n\n", "me ".repeat(40_000));
        assert_eq!(head_of(&long, LIMITS).as_deref(), Ok("To: a@x\n\n"));
    }

    #[test]
    fn limits_are_those_of_the_daemon() {
        let small = |header_bytes| Limits {
            header_bytes,
            ..LIMITS
        };
        // 18 bytes as it travels, where lines end with two.
        let text = "To: abcd\nCc: ef\n\nbody\n";
        assert!(head_of(text, small(18)).is_ok());
        let error = head_of(text, small(17)).unwrap_err();
        assert!(error.contains("17 bytes"), "{error}");
        let error = head_of(&"Received: x\n".repeat(4), LIMITS).unwrap_err();
        assert!(error.contains("loop"), "{error}");
    }
}
