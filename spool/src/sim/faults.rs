//! Faults ordered by the test: which write, sync or read fails, and how.

use std::collections::VecDeque;

/// What goes wrong with one write or sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fails with this errno; a write may have reached the disk in part.
    Error {
        /// The errno reported.
        errno: i32,
    },
    /// Only the first `bytes` bytes are written, which is what is reported. Waits for a write.
    Short {
        /// The number of bytes written.
        bytes: usize,
    },
    /// `ENOSPC`: nothing is written.
    Full,
}

/// The faults still to come.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// Everything fails with this errno.
    pub(super) broken: Option<i32>,
    /// How many writes and syncs from now, and what.
    planned: Vec<(u64, Fault)>,
    /// One a read.
    reads: VecDeque<i32>,
}

impl Faults {
    pub(super) fn add(&mut self, nth: u64, fault: Fault) {
        self.planned.push((nth.max(1), fault));
    }

    pub(super) fn add_next(&mut self, fault: Fault) {
        let next = (1..).find(|nth| self.planned.iter().all(|(taken, _)| taken != nth));
        self.add(next.unwrap_or(1), fault);
    }

    pub(super) fn add_read(&mut self, errno: i32) {
        self.reads.push_back(errno);
    }

    /// Counts one write or sync and says whether it fails.
    pub(super) fn strike(&mut self, is_write: bool) -> Option<Fault> {
        if let Some(errno) = self.broken {
            return Some(Fault::Error { errno });
        }
        let fits = |fault: &Fault| is_write || !matches!(fault, Fault::Short { .. });
        let due = self
            .planned
            .iter()
            .position(|(nth, fault)| *nth == 1 && fits(fault));
        let hit = due.map(|index| self.planned.remove(index).1);
        for (nth, _) in &mut self.planned {
            *nth = (*nth - 1).max(1);
        }
        hit
    }

    /// Whether this read fails.
    pub(super) fn strike_read(&mut self) -> Option<i32> {
        self.reads.pop_front()
    }
}

impl Fault {
    pub(super) fn errno(self) -> i32 {
        match self {
            Self::Error { errno } => errno,
            Self::Full => ENOSPC,
            Self::Short { .. } => EIO,
        }
    }
}

pub(super) const ENOSPC: i32 = 28;
const EIO: i32 = 5;
