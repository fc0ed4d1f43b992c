//! Deadlines of many owners. An owner whose deadline moves later needs no call per move: the entry
//! fires early once, the owner sees that it is not due and arms again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What an owner remembers about its entry; starts as [`Armed::default`].
#[derive(Clone, Copy, Debug)]
pub struct Armed(u64);

impl Default for Armed {
    fn default() -> Self {
        Self(u64::MAX)
    }
}

/// A heap of (deadline, owner). Holds at most one useful entry an owner; entries that an earlier
/// deadline overtook stay until their time and then fire for nothing.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
}

impl Timers {
    /// Makes sure that `owner` fires at `deadline` or earlier.
    pub fn arm(&mut self, owner: u64, armed: &mut Armed, deadline: u64) {
        if deadline < armed.0 {
            armed.0 = deadline;
            self.heap.push(Reverse((deadline, owner)));
        }
    }

    /// The next owner whose entry is due. The owner resets its [`Armed`] to the default, checks its
    /// own deadline and arms again.
    pub fn fire(&mut self, now: u64) -> Option<u64> {
        let Reverse((deadline, _)) = self.heap.peek()?;
        if *deadline > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, owner))| owner)
    }

    /// The earliest deadline.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((deadline, _))| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_fires_at_its_earliest_deadline() {
        let mut timers = Timers::default();
        let mut armed = Armed::default();
        timers.arm(7, &mut armed, 50);
        timers.arm(7, &mut armed, 90); // later: no second entry
        timers.arm(7, &mut armed, 20); // earlier: must not wait for 50
        assert_eq!(timers.deadline(), Some(20));
        assert_eq!(timers.fire(19), None);
        assert_eq!(timers.fire(20), Some(7));
        assert_eq!(
            timers.fire(60),
            Some(7),
            "the overtaken entry fires for nothing"
        );
        assert_eq!(timers.fire(100), None);
    }
}
