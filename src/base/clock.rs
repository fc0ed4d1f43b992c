//! Time as a value. Pure code receives a [`Now`]; only the drivers in `io` read a clock.

/// One instant, on both clocks. Waiting uses `mono_ns`; expiry and dates use `wall_ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Monotonic nanoseconds since an arbitrary origin of this process.
    pub mono_ns: u64,
    /// Milliseconds since 1970-01-01 UTC.
    pub wall_ms: u64,
}

impl Now {
    /// The monotonic instant `ns` nanoseconds from here.
    #[must_use]
    pub fn after_ns(self, ns: u64) -> u64 {
        self.mono_ns.saturating_add(ns)
    }
}
