//! What an evaluation did, for `zmailer route --explain`.

use crate::router::value::Value;

/// Something worth telling.
#[derive(Clone, Debug)]
pub enum Event {
    /// A function was entered.
    Enter {
        /// Its name.
        name: String,
        /// With what.
        arguments: Vec<Value>,
    },
    /// It was left with this value.
    Leave(Option<Value>),
    /// A label fitted.
    Match {
        /// `file:line`.
        place: String,
        /// The label.
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
