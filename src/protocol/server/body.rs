//! The content of a transaction while it arrives. What is held here can be taken away in whole blocks, so
//! that large content never is in memory whole; what is judged at the end has seen all of it.

use super::Settings;
use crate::protocol::content::Fault;
use crate::protocol::judge::{HeaderJudge, LineJudge};

/// Held back when content is taken, so that its last line end stays in sight.
const KEPT_BYTES: usize = 2;

/// Room that is left behind for what comes next: little, for it may never come.
const ROOM_BYTES: usize = 8 << 10;

/// Content so far.
#[derive(Debug)]
pub(super) struct Body {
    /// Bytes not taken.
    pub(super) buffer: Vec<u8>,
    /// Bytes of our own Received field, at the start of the content.
    trace_bytes: usize,
    taken_bytes: u64,
    header: HeaderJudge,
    /// For content that no decoder has looked at.
    lines: Option<LineJudge>,
}

impl Body {
    /// Content that begins with our own Received field, in `buffer`.
    pub(super) fn new(buffer: Vec<u8>, settings: &Settings, judge_lines: bool) -> Self {
        Self {
            trace_bytes: buffer.len(),
            buffer,
            taken_bytes: 0,
            header: HeaderJudge::new(settings.header_bytes_max, settings.received_max),
            lines: judge_lines.then(|| LineJudge::new(settings.line_bytes_max)),
        }
    }

    /// Bytes that came from the client.
    pub(super) fn len(&self) -> u64 {
        self.taken_bytes + self.buffer.len() as u64 - self.trace_bytes as u64
    }

    /// Takes all whole blocks there are.
    pub(super) fn take(&mut self, block: usize) -> Vec<u8> {
        let count = self.buffer.len().saturating_sub(KEPT_BYTES) / block * block;
        let rest = self.buffer.get(count..).unwrap_or_default();
        let mut kept = Vec::with_capacity(rest.len() + ROOM_BYTES);
        kept.extend_from_slice(rest);
        let mut taken = std::mem::replace(&mut self.buffer, kept);
        taken.truncate(count);
        self.judge(&taken);
        self.taken_bytes += count as u64;
        taken
    }

    fn judge(&mut self, content: &[u8]) {
        let trace_bytes = (self.trace_bytes as u64).saturating_sub(self.taken_bytes) as usize;
        let content = content.get(trace_bytes..).unwrap_or_default();
        self.header.feed(content);
        if let Some(lines) = &mut self.lines {
            lines.feed(content);
        }
    }

    /// The last content has come: what is wrong with it, and what was not taken of it.
    pub(super) fn end(mut self) -> (Option<Fault>, Vec<u8>) {
        let rest = std::mem::take(&mut self.buffer);
        self.judge(&rest);
        let lines = self.lines.as_ref().and_then(LineJudge::fault);
        (lines.or_else(|| self.header.fault()), rest)
    }
}
