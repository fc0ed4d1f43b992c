//! Watermarks: new mail is refused before the file system of the spool is full, and delivery goes on.
//!
//! Asked of the file system a few times a second, beside the control thread since the answer may take its
//! time; published by atomics ([`Level`]), so a shard never waits for it. Between two looks, and for who
//! turns the marks off, the reserve of the spool is what keeps outcomes going. Refusing ends with a quarter
//! of the mark more than the mark; the operator gets one line when it begins and one when it ends.
//!
//! Segments never shrink: what the spool has emptied counts as free, or a queue that filled the disk would
//! be refused for ever after it has been delivered.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::sys::filesystem::{self, Space};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// The automatic marks: so much, and on a small file system one part in so many of it.
const FREE_BYTES: u64 = 64 << 20;
const FREE_INODES: u64 = 1000;
const FREE_SHARE: u64 = 20;

/// Refusing ends when one part in this of the mark is free above it.
const ABOVE_SHARE: u64 = 4;

/// What has to stay free; 0: automatic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Bytes.
    pub free_bytes: u64,
    /// Inodes.
    pub free_inodes: u64,
}

impl Marks {
    /// The marks that hold on a file system; 0 where it does not count inodes.
    fn on(self, space: &Space) -> Self {
        let mark = |set: u64, usual: u64, total: u64| match set {
            0 => usual.min(total / FREE_SHARE),
            set => set,
        };
        let inodes = mark(self.free_inodes, FREE_INODES, space.total_inodes);
        Self {
            free_bytes: mark(self.free_bytes, FREE_BYTES, space.total_bytes),
            free_inodes: if space.total_inodes == 0 { 0 } else { inodes },
        }
    }
}

/// What is short, and how much there is: written by one, read by everybody.
#[derive(Debug, Default)]
pub struct Level {
    short: AtomicU8,
    free_bytes: AtomicU64,
    free_inodes: AtomicU64,
    mark_bytes: AtomicU64,
    mark_inodes: AtomicU64,
}

const BYTES: u8 = 1;
const INODES: u8 = 2;
const READ_ONLY: u8 = 4;

impl Level {
    /// The reply to who begins a message, when no mail is taken.
    #[must_use]
    pub fn refusal(&self) -> Option<&'static str> {
        match self.short.load(Ordering::Relaxed) {
            0 => None,
            // RFC 3463 4.3.1 is for a system that is full, 4.3.0 for one that is not to be written to.
            READ_ONLY => Some("451 4.3.0 mail is not taken at the moment"),
            _ => Some("452 4.3.1 insufficient system storage"),
        }
    }

    /// What is short, in words.
    #[must_use]
    pub fn short_of(&self) -> Vec<&'static str> {
        let short = self.short.load(Ordering::Relaxed);
        let words = [
            (BYTES, "space"),
            (INODES, "inodes"),
            (READ_ONLY, "read-only"),
        ];
        let of = words.iter().filter(|(bit, _)| short & bit != 0);
        of.map(|(_, word)| *word).collect()
    }

    /// Bytes and inodes that the spool can use, and the marks.
    #[must_use]
    pub fn numbers(&self) -> [(&'static str, u64); 4] {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        [
            ("free_bytes", read(&self.free_bytes)),
            ("free_inodes", read(&self.free_inodes)),
            ("min_free", read(&self.mark_bytes)),
            ("min_free_inodes", read(&self.mark_inodes)),
        ]
    }

    fn publish(&self, found: &Found) {
        let pairs = [
            (&self.free_bytes, found.free.free_bytes),
            (&self.free_inodes, found.free.free_inodes),
            (&self.mark_bytes, found.marks.free_bytes),
            (&self.mark_inodes, found.marks.free_inodes),
        ];
        for (cell, value) in pairs {
            cell.store(value, Ordering::Relaxed);
        }
        self.short.store(found.short, Ordering::Relaxed);
    }
}

/// The outcome of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    free: Marks,
    marks: Marks,
    short: u8,
}

impl Found {
    /// `before`: what was short at the last look; `reusable`: bytes of segments that hold nothing.
    fn judge(space: &Space, wanted: Marks, reusable: u64, before: u8) -> Self {
        let marks = wanted.on(space);
        let free = Marks {
            free_bytes: space.free_bytes.saturating_add(reusable),
            free_inodes: space.free_inodes,
        };
        let is_short = |bit: u8, free: u64, mark: u64| {
            let above = if before & bit == 0 {
                0
            } else {
                mark / ABOVE_SHARE
            };
            free < mark.saturating_add(above)
        };
        let mut short = 0;
        for (bit, is) in [
            (BYTES, is_short(BYTES, free.free_bytes, marks.free_bytes)),
            (
                INODES,
                is_short(INODES, free.free_inodes, marks.free_inodes),
            ),
            (READ_ONLY, space.is_read_only),
        ] {
            short |= if is { bit } else { 0 };
        }
        Self { free, marks, short }
    }

    /// Why mail is refused.
    fn reason(&self) -> String {
        let mut text = String::new();
        let (free, marks) = (self.free, self.marks);
        if self.short & BYTES != 0 {
            let _ = write!(
                text,
                "; {} bytes free, spool.min_free is {}",
                free.free_bytes, marks.free_bytes
            );
        }
        if self.short & INODES != 0 {
            let _ = write!(
                text,
                "; {} inodes free, spool.min_free_inodes is {}",
                free.free_inodes, marks.free_inodes
            );
        }
        if self.short & READ_ONLY != 0 {
            text.push_str("; its file system is read only");
        }
        text
    }
}

/// Who looks.
pub struct Watch {
    /// A directory on the file system of the spool.
    pub dir: PathBuf,
    /// What has to stay free.
    pub marks: Marks,
    /// Where it is published.
    pub level: Arc<Level>,
    /// Bytes of segments that hold nothing, beyond those that are always kept ready.
    pub reusable: Box<dyn Fn() -> u64 + Send>,
}

impl Watch {
    /// Looks once, publishes, and tells the operator about a change.
    pub(super) fn look(&self) {
        match filesystem::space(&self.dir) {
            Ok(space) => self.publish(&space),
            // What was published stays; the spool itself will say what is wrong.
            Err(error) => tracing::debug!("{}: {error}", self.dir.display()),
        }
    }

    fn publish(&self, space: &Space) {
        let before = self.level.short.load(Ordering::Relaxed);
        let found = Found::judge(space, self.marks, (self.reusable)(), before);
        self.level.publish(&found);
        match (before, found.short) {
            (0, 0) => {}
            (0, _) => tracing::warn!("the spool takes no new mail{}", found.reason()),
            (_, 0) => tracing::warn!(
                "the spool takes new mail again; {} bytes and {} inodes free",
                found.free.free_bytes,
                found.free.free_inodes
            ),
            (_, _) => {}
        }
    }

    /// Looks until the process ends. A look that hangs keeps only the next one waiting.
    pub(super) async fn run(self) {
        let mut watch = self;
        loop {
            tokio::time::sleep(LOOK).await;
            let looked = tokio::task::spawn_blocking(move || {
                watch.look();
                watch
            });
            match looked.await {
                Ok(back) => watch = back,
                Err(error) => {
                    tracing::error!("the space of the spool is not watched any more: {error}");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: Space = Space {
        free_bytes: 100 << 20,
        total_bytes: 10 << 30,
        free_inodes: 5000,
        total_inodes: 100_000,
        is_read_only: false,
    };

    fn short(space: Space, marks: (u64, u64), reusable: u64, before: u8) -> u8 {
        let marks = Marks {
            free_bytes: marks.0,
            free_inodes: marks.1,
        };
        Found::judge(&space, marks, reusable, before).short
    }

    #[test]
    fn marks_begin_and_end_at_different_levels() {
        let mib = |free: u64| Space {
            free_bytes: free << 20,
            ..SPACE
        };
        let inodes = |free_inodes| Space {
            free_inodes,
            ..SPACE
        };
        /// Reason, space, marks, bytes of empty segments, what was short, what is.
        type Case = (&'static str, Space, (u64, u64), u64, u8, u8);
        let cases: &[Case] = &[
            ("automatic, enough", SPACE, (0, 0), 0, 0, 0),
            ("automatic, below 64 MiB", mib(63), (0, 0), 0, 0, BYTES),
            ("given, below", SPACE, (101 << 20, 0), 0, 0, BYTES),
            ("given, at the mark", SPACE, (100 << 20, 0), 0, 0, 0),
            (
                "what the spool has emptied counts",
                mib(10),
                (0, 0),
                54 << 20,
                0,
                0,
            ),
            (
                "it began: the mark is not enough",
                mib(79),
                (0, 0),
                0,
                BYTES,
                BYTES,
            ),
            ("a quarter more is", mib(80), (0, 0), 0, BYTES, 0),
            ("inodes", inodes(999), (0, 0), 0, 0, INODES),
            (
                "inodes, not yet over",
                inodes(1249),
                (0, 0),
                0,
                INODES,
                INODES,
            ),
            ("inodes, over", inodes(1250), (0, 0), 0, INODES, 0),
            (
                "bytes do not keep inodes short",
                inodes(1000),
                (0, 0),
                0,
                BYTES,
                0,
            ),
        ];
        for (reason, space, marks, reusable, before, expected) in cases {
            let found = short(*space, *marks, *reusable, *before);
            assert_eq!(found, *expected, "{reason}: {space:?}");
        }
    }

    #[test]
    fn a_small_file_system_keeps_a_part_of_itself() {
        let small = Space {
            free_bytes: 4 << 20,
            total_bytes: 48 << 20,
            free_inodes: 0,
            total_inodes: 0,
            ..SPACE
        };
        assert_eq!(
            short(small, (0, 0), 0, 0),
            0,
            "without inodes there is no mark"
        );
        let fuller = Space {
            free_bytes: 2 << 20,
            ..small
        };
        assert_eq!(short(fuller, (0, 0), 0, 0), BYTES);
        assert_eq!(short(fuller, (1, 0), 0, 0), 0, "one byte turns it off");
    }

    #[test]
    fn replies_say_what_a_client_should_do() {
        let level = Level::default();
        assert_eq!(level.refusal(), None);
        for (bits, code, words) in [
            (BYTES, "452 4.3.1", vec!["space"]),
            (INODES, "452 4.3.1", vec!["inodes"]),
            (READ_ONLY, "451 4.3.0", vec!["read-only"]),
            (BYTES | READ_ONLY, "452 4.3.1", vec!["space", "read-only"]),
        ] {
            level.short.store(bits, Ordering::Relaxed);
            assert!(level.refusal().is_some_and(|reply| reply.starts_with(code)));
            assert_eq!(level.short_of(), words);
        }
    }
}
