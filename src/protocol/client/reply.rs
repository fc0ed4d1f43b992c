//! Reads replies of a peer: bytes in, whole replies out.
//!
//! A reply is one or more lines with the same three digits (RFC 5321 4.2.1). Lines and their number
//! are bounded; what breaks a bound or is no reply at all is [`Malformed`], after which the stream
//! cannot be trusted. Lines may end in LF alone: a lenient reader risks nothing here.

use std::fmt::Write as _;

use super::Settings;

/// Bytes kept of a reply's text.
pub const REPLY_TEXT_BYTES_MAX: usize = 512;

/// What the peer sent is not a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// A complete reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    /// Texts of the lines without the code, each followed by LF.
    lines: Vec<u8>,
}

impl Reply {
    /// The texts of the lines.
    pub(super) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.lines.strip_suffix(b"\n").unwrap_or(&self.lines);
        lines.split(|byte| *byte == b'\n')
    }

    /// The reply as one printable ASCII line of at most [`REPLY_TEXT_BYTES_MAX`] bytes.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut text = String::with_capacity(64);
        // Writing to a String cannot fail.
        let _ = write!(text, "{:03}", self.code);
        let mut text = text.into_bytes();
        for line in self.lines().filter(|line| !line.is_empty()) {
            text.push(b' ');
            text.extend(line.iter().map(|byte| printable(*byte)));
            if text.len() >= REPLY_TEXT_BYTES_MAX {
                break;
            }
        }
        text.truncate(REPLY_TEXT_BYTES_MAX);
        text
    }

    /// The enhanced status code of the first line (RFC 2034 4).
    pub(super) fn enhanced(&self) -> Option<(u16, u16, u16)> {
        let word = self.lines().next()?.split(|byte| *byte == b' ').next()?;
        let mut parts = word.split(|byte| *byte == b'.').map(number);
        let code = (parts.next()??, parts.next()??, parts.next()??);
        (parts.next().is_none() && code.0 == self.code / 100).then_some(code)
    }
}

fn number(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 3 {
        return None;
    }
    digits.iter().try_fold(0, |sum, digit| {
        digit
            .is_ascii_digit()
            .then(|| sum * 10 + u16::from(digit - b'0'))
    })
}

fn printable(byte: u8) -> u8 {
    if (b' '..=b'~').contains(&byte) {
        byte
    } else {
        b'?'
    }
}

/// Collects lines into replies across reads.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// A line whose end has not come yet.
    partial: Vec<u8>,
    /// Of the reply under way; 0 before its first line.
    code: u16,
    lines: Vec<u8>,
    lines_count: usize,
}

impl Reader {
    /// Takes from the front of `input` until a reply is complete; `None` when more is needed.
    pub(super) fn read(
        &mut self,
        input: &mut &[u8],
        settings: &Settings,
    ) -> Option<Result<Reply, Malformed>> {
        loop {
            let Some(at) = memchr::memchr(b'\n', input) else {
                if self.partial.len() + input.len() > settings.reply_line_bytes_max {
                    return Some(Err(Malformed("reply line too long")));
                }
                self.partial.extend_from_slice(input);
                *input = &[];
                return None;
            };
            // `at` is the position of a byte of `input`.
            let (line, rest) = input.split_at_checked(at + 1)?;
            *input = rest;
            if self.partial.len() + line.len() > settings.reply_line_bytes_max {
                return Some(Err(Malformed("reply line too long")));
            }
            let last = if self.partial.is_empty() {
                self.line(line, settings)
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.line(&whole, settings)
            };
            match last {
                Ok(false) => {}
                Ok(true) => {
                    self.lines_count = 0;
                    let code = std::mem::take(&mut self.code);
                    return Some(Ok(Reply {
                        code,
                        lines: std::mem::take(&mut self.lines),
                    }));
                }
                Err(malformed) => return Some(Err(malformed)),
            }
        }
    }

    /// Takes one line; true when it was the last one of its reply.
    fn line(&mut self, line: &[u8], settings: &Settings) -> Result<bool, Malformed> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (code, rest) = line
            .split_at_checked(3)
            .ok_or(Malformed("not an SMTP reply"))?;
        let code = number(code)
            .filter(|code| (200..600).contains(code))
            .ok_or(Malformed("not an SMTP reply"))?;
        let (last, text) = match rest.split_first() {
            None => (true, rest),
            Some((b' ', text)) => (true, text),
            Some((b'-', text)) => (false, text),
            Some(_) => return Err(Malformed("not an SMTP reply")),
        };
        if self.lines_count > 0 && self.code != code {
            return Err(Malformed("reply with different codes"));
        }
        self.lines_count += 1;
        if self.lines_count > settings.reply_lines_max {
            return Err(Malformed("reply with too many lines"));
        }
        self.code = code;
        self.lines.extend_from_slice(text);
        self.lines.push(b'\n');
        Ok(last)
    }
}
