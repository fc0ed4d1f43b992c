//! What an evaluation may use.

use std::fmt;

/// Bounds of one evaluation, and what it has used of them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Operations.
    pub steps_max: u64,
    /// Functions in functions.
    pub depth_max: usize,
    /// Bytes of texts and lists that are alive. They are counted when twice as much could be, so memory use can reach
    /// twice this for a moment.
    pub bytes_max: usize,
    pub(super) steps_used: u64,
    /// Bytes made since the living ones were last counted.
    allocated: usize,
    /// Bytes that were alive then.
    living: usize,
}

/// A bound that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Operations.
    Steps(u64),
    /// Functions in functions.
    Depth(usize),
    /// Bytes.
    Bytes(usize),
    /// Names of variables and functions.
    Names,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps_max: 50_000_000,
            depth_max: 200,
            bytes_max: 128 << 20,
            steps_used: 0,
            allocated: 0,
            living: 0,
        }
    }
}

/// What a text or an element costs besides its bytes.
pub(super) const VALUE_BYTES: usize = 32;

impl Limits {
    /// The same with another bound of operations.
    #[must_use]
    pub fn with_steps(mut self, steps_max: u64) -> Self {
        self.steps_max = steps_max;
        self
    }

    /// Counts a new text or list.
    pub(super) fn allocate(&mut self, bytes: usize) {
        self.allocated += bytes + VALUE_BYTES;
    }

    /// Whether it is time to count what is alive.
    pub(super) fn audit_due(&self) -> bool {
        self.living + self.allocated > 2 * self.bytes_max
    }

    /// So much is alive.
    pub(super) fn audited(&mut self, living: usize) {
        self.living = living;
        self.allocated = 0;
    }

    /// The bound that was reached.
    pub(super) fn check(&self) -> Option<Limit> {
        (self.steps_used > self.steps_max).then_some(Limit::Steps(self.steps_max))
    }

    /// A new evaluation begins.
    pub(super) fn begin(&mut self) {
        self.steps_used = 0;
        self.allocated = 0;
        self.living = 0;
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(max) => write!(f, "more than {max} steps"),
            Self::Depth(max) => write!(f, "functions called more than {max} levels deep"),
            Self::Bytes(max) => write!(f, "more than {max} bytes of texts and lists"),
            Self::Names => write!(f, "too many names of variables and functions"),
        }
    }
}
