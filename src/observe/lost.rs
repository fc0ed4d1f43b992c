//! Lines that the mail log has lost, and what the operator is told of it: one warning when writing
//! begins to fail, one when it works again, never more than one pair in [`QUIET_NS`].

use std::fmt::{self, Write as _};
use std::io;

/// A disk that is full now and then is not told of more often.
const QUIET_NS: u64 = 60_000_000_000;

/// Counts of one mail log.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// The file, for the operator.
    name: String,
    /// Lines so far.
    count: u64,
    /// Those that a line of the log speaks of.
    logged: u64,
    /// Those that the operator has heard of.
    told: u64,
    /// The operator knows that writing fails.
    failing: bool,
    quiet_until_ns: u64,
}

impl Lost {
    pub(super) fn of(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn add(&mut self, lines: u64) {
        self.count += lines;
    }

    /// Lines that the log does not speak of yet.
    pub(super) fn unlogged(&self) -> u64 {
        self.count - self.logged
    }

    /// A line that speaks of so many more is written.
    pub(super) fn logged(&mut self, lines: u64) {
        self.logged += lines;
    }

    /// Writing failed. Gives back what the operator should read.
    pub(super) fn failed(&mut self, mono_ns: u64, errno: i32) -> Option<String> {
        if self.failing || mono_ns < self.quiet_until_ns {
            return None;
        }
        self.failing = true;
        self.quiet_until_ns = mono_ns + QUIET_NS;
        let error = io::Error::from_raw_os_error(errno);
        Some(self.text(format_args!(
            "{error}; mail goes on, lines are lost until it can be written"
        )))
    }

    /// Writing worked. Gives back what the operator should read.
    pub(super) fn worked(&mut self) -> Option<String> {
        if !std::mem::take(&mut self.failing) {
            return None;
        }
        let lines = self.untold();
        Some(self.text(format_args!("written again; {lines} lines lost")))
    }

    /// The log ends. Gives back what the operator should read.
    pub(super) fn ended(&mut self) -> Option<String> {
        let lines = self.untold();
        (lines > 0).then(|| self.text(format_args!("{lines} lines lost")))
    }

    fn untold(&mut self) -> u64 {
        let lines = self.count - self.told;
        self.told = self.count;
        lines
    }

    fn text(&self, what: fmt::Arguments<'_>) -> String {
        let mut text = format!("mail log {}: ", self.name);
        // Writing to memory cannot fail.
        let _ = text.write_fmt(what);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_is_told_once_and_of_every_line() {
        let mut lost = Lost::of("m.log".to_owned());
        let mut said = Vec::new();
        for second in 0..50 {
            lost.add(2);
            said.extend(lost.failed(second * 1_000_000_000, 28));
            if second % 10 == 9 {
                said.extend(lost.worked());
            }
        }
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("mail log m.log: No space"), "{said:?}");
        assert_eq!(said[1], "mail log m.log: written again; 20 lines lost");
        let end = lost.ended();
        assert_eq!(end.as_deref(), Some("mail log m.log: 80 lines lost"));
    }
}
