//! What an evaluation did, for `zmailer route --explain`.

use crate::router::value::Value;

/// Something worth telling.
#[derive(Clone, Debug)]
pub enum Event {
    /// A function was entered.
    Enter {
        /// `file:line` of the call; empty: it was called from outside.
        place: String,
        /// Its name.
        name: String,
        /// With what.
        arguments: Vec<Value>,
    },
    /// It was left.
    Leave {
        /// What it returned.
        value: Option<Value>,
        /// Its status.
        status: i32,
    },
    /// A label of a sift or a pattern of a case fitted.
    Match {
        /// `file:line`.
        place: String,
        /// The label or pattern.
        label: String,
        /// What it fitted.
        input: String,
    },
    /// A relation was asked.
    Lookup {
        /// Which.
        name: String,
        /// For what.
        key: String,
        /// Its answer; none: it has none.
        answer: Option<String>,
        /// It cannot be known now, for this reason.
        waits: Option<String>,
    },
    /// Something was asked of the outside: an account, a file.
    Outside {
        /// What.
        question: String,
        /// What came back.
        answer: String,
    },
}

/// Events in order; bounded by [`EVENTS_MAX`].
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Events are kept.
    pub on: bool,
    /// What happened.
    pub events: Vec<Event>,
    /// Further events that were not kept.
    pub dropped: u64,
}

/// Events of one evaluation that are kept.
pub(super) const EVENTS_MAX: usize = 100_000;

impl Trace {
    /// What was kept; the trace is empty afterwards.
    pub fn take(&mut self) -> Vec<Event> {
        self.dropped = 0;
        std::mem::take(&mut self.events)
    }

    /// Adds what the driver knows, when events are kept.
    pub fn tell(&mut self, event: impl FnOnce() -> Event) {
        self.add(event);
    }

    /// Keeps what `event` makes, when events are kept.
    pub(super) fn add(&mut self, event: impl FnOnce() -> Event) {
        if !self.on {
            return;
        }
        if self.events.len() < EVENTS_MAX {
            self.events.push(event());
        } else {
            self.dropped += 1;
        }
    }
}
