//! SMTP, sans-I/O: bytes in, bytes and requests out; no socket, no clock, no log.
//!
//! The rule against smuggling (RFC 5321 2.3.8): a line ends with CR LF and with nothing else. A lone
//! CR or a lone LF never ends a command or a content line. A command line that holds one, or a NUL,
//! is refused with 500 5.5.2. Content that holds one is taken up to its true end, CR LF . CR LF, and
//! then refused with 550 5.6.11; only content declared BINARYMIME and sent by BDAT may hold them. The
//! client side refuses to send them.

#![warn(clippy::indexing_slicing)]

pub mod client;
pub mod command;
pub mod content;
pub mod judge;
pub mod path;
pub mod server;

/// A cursor over bytes that their owner keeps.
#[derive(Debug)]
pub struct Input<'a> {
    bytes: &'a [u8],
    used: usize,
}

impl<'a> Input<'a> {
    /// At the first of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, used: 0 }
    }

    /// What has not been taken.
    #[must_use]
    pub fn remaining(&self) -> &'a [u8] {
        self.bytes.get(self.used..).unwrap_or_default()
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.used
    }

    /// Takes `count` bytes, or all that remain.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let rest = self.remaining();
        let count = count.min(rest.len());
        self.used += count;
        rest.get(..count).unwrap_or_default()
    }
}
