//! Counts over time in a bounded number of intervals: when they run out, neighbours are joined.

use std::time::{Duration, Instant};

/// Intervals at most; even, so that all have a neighbour.
const INTERVALS_MAX: usize = 400;

/// Length of an interval at first.
const INTERVAL_FIRST: Duration = Duration::from_millis(50);

/// What happened in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages acknowledged.
    pub(crate) acknowledged: u64,
    /// Recipients delivered to.
    pub(crate) delivered: u64,
}

/// Counts from the start on.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    start: Instant,
    interval: Duration,
    counts: Vec<Counts>,
}

impl Timeline {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            interval: INTERVAL_FIRST,
            counts: Vec::new(),
        }
    }

    /// The interval of `now`.
    pub(crate) fn at(&mut self, now: Instant) -> &mut Counts {
        let since = now.saturating_duration_since(self.start);
        while since.as_nanos() / self.interval.as_nanos() >= INTERVALS_MAX as u128 {
            self.join();
        }
        let at = (since.as_nanos() / self.interval.as_nanos()) as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, Counts::default());
        }
        &mut self.counts[at]
    }

    fn join(&mut self) {
        self.interval *= 2;
        self.counts = self
            .counts
            .chunks(2)
            .map(|pair| Counts {
                acknowledged: pair.iter().map(|counts| counts.acknowledged).sum(),
                delivered: pair.iter().map(|counts| counts.delivered).sum(),
            })
            .collect();
    }

    /// Second at which each interval begins, with its rates a second.
    pub(crate) fn rates(&self) -> Vec<(f64, f64, f64)> {
        let seconds = self.interval.as_secs_f64();
        let row = |(at, counts): (usize, &Counts)| {
            let (acknowledged, delivered) = (counts.acknowledged as f64, counts.delivered as f64);
            (
                at as f64 * seconds,
                acknowledged / seconds,
                delivered / seconds,
            )
        };
        self.counts.iter().enumerate().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_when_intervals_are_joined() {
        let start = Instant::now();
        let mut timeline = Timeline::new(start);
        for second in 0..1000 {
            timeline
                .at(start + Duration::from_secs(second))
                .acknowledged += 1;
        }
        assert!(timeline.counts.len() <= INTERVALS_MAX);
        let sum: u64 = timeline
            .counts
            .iter()
            .map(|counts| counts.acknowledged)
            .sum();
        assert_eq!(sum, 1000);
        let seconds = timeline.interval.as_secs_f64();
        let all: f64 = timeline
            .rates()
            .iter()
            .map(|(_, rate, _)| rate * seconds)
            .sum();
        assert!((all - 1000.0).abs() < 1e-6);
    }
}
