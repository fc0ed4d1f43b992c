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
    /// Operations of one turn.
    pub turn_steps: u64,
    pub(super) steps_used: u64,
    /// Bytes made since the living ones were last counted.
    allocated: usize,
    /// Bytes that were alive then.
    living: usize,
    /// Something was not made because it would be larger than all may be together.
    refused: bool,
    /// It is time to count what is alive, or to stop.
    due: bool,
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
    /// Members of one list.
    Members(usize),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps_max: 50_000_000,
            depth_max: 200,
            bytes_max: 128 << 20,
            turn_steps: 20_000,
            steps_used: 0,
            allocated: 0,
            living: 0,
            refused: false,
            due: false,
        }
    }
}

/// Bytes that are made or looked at in the time of one operation.
const STEP_BYTES: usize = 64;

/// What a text or an element costs besides its bytes.
pub(super) const VALUE_BYTES: usize = 32;

/// What a list costs besides that and its elements.
pub(super) const LIST_BYTES: usize = 40;

/// What a name costs besides its bytes, and besides its value.
pub(super) const NAME_BYTES: usize = 96;

impl Limits {
    /// The same with another bound of operations.
    #[must_use]
    pub fn with_steps(mut self, steps_max: u64) -> Self {
        self.steps_max = steps_max;
        self
    }

    /// The same with other turns.
    #[must_use]
    pub fn with_turns_of(mut self, turn_steps: u64) -> Self {
        self.turn_steps = turn_steps;
        self
    }

    /// Counts a new text or list.
    pub(super) fn allocate(&mut self, bytes: usize) {
        self.allocated += bytes + VALUE_BYTES;
        self.work(bytes);
        self.due |= self.living + self.allocated > 2 * self.bytes_max;
    }

    /// Counts the time of an operation that looks at so many bytes.
    pub(super) fn work(&mut self, bytes: usize) {
        self.steps_used += (bytes / STEP_BYTES) as u64;
    }

    /// Whether something of so many bytes may be made; if not, the evaluation will be stopped.
    pub(super) fn allows(&mut self, bytes: usize) -> bool {
        let allowed = bytes <= self.bytes_max;
        self.refused |= !allowed;
        self.due |= !allowed;
        allowed
    }

    /// Whether it is time to count what is alive.
    pub(super) fn audit_due(&self) -> bool {
        self.due
    }

    /// So much is alive.
    ///
    /// # Errors
    /// It is too much.
    pub(super) fn audited(&mut self, living: usize) -> Result<(), Limit> {
        self.living = living;
        self.allocated = 0;
        self.due = false;
        if self.refused || living > self.bytes_max {
            return Err(Limit::Bytes(self.bytes_max));
        }
        Ok(())
    }

    /// Where a turn that begins now ends.
    pub(super) fn turn_end(&self) -> u64 {
        self.steps_used.saturating_add(self.turn_steps.max(1))
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
        self.refused = false;
        self.due = false;
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(max) => write!(f, "more than {max} steps"),
            Self::Depth(max) => write!(f, "functions called more than {max} levels deep"),
            Self::Bytes(max) => write!(f, "more than {max} bytes of texts and lists"),
            Self::Members(max) => write!(f, "a list of more than {max} members"),
            Self::Names => write!(f, "too many names of variables and functions"),
        }
    }
}
