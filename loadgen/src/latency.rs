//! Latencies in a histogram: any number of them in the same memory, three significant digits.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longer ones count as this.
const LATENCY_US_MAX: u64 = 24 * 3600 * 1_000_000;

/// Shares that reports name, and their keys.
pub(crate) const SHARES: [(&str, f64); 4] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

/// Latencies of one run.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        let made = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
        // These bounds are constants that the crate takes.
        Self(made.unwrap_or_else(|error| unreachable!("{error}")))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(us);
    }

    /// Microseconds that this share of all latencies does not exceed.
    pub(crate) fn at(&self, share: f64) -> u64 {
        self.0.value_at_quantile(share)
    }

    pub(crate) fn max(&self) -> u64 {
        self.0.max()
    }

    /// The same with what a sender in even steps of `interval` would have seen besides: for each
    /// latency above it, those of the sends that did not happen meanwhile.
    pub(crate) fn corrected(&self, interval: Duration) -> Self {
        let us = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.clone_correct(us.max(1)))
    }

    /// Points of the percentile curve: 1/(1-share) in even steps of its logarithm, and the value.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let count = self.0.len() as f64;
        let points = (0..=CURVE_POINTS).map(|step| {
            let odds = 10f64.powf(CURVE_DECADES * f64::from(step) / f64::from(CURVE_POINTS));
            (odds, self.at(1.0 - 1.0 / odds) as f64)
        });
        // Beyond the count of values there is nothing to tell apart.
        points
            .take_while(|(odds, _)| *odds <= count.max(1.0))
            .collect()
    }
}

const CURVE_DECADES: f64 = 5.0;
const CURVE_POINTS: u32 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_the_values() {
        let mut latencies = Latencies::new();
        for us in 1..=1000 {
            latencies.record(Duration::from_micros(us));
        }
        assert_eq!(
            [0.5, 0.9, 0.99].map(|share| latencies.at(share)),
            [500, 900, 990]
        );
        assert_eq!(latencies.max(), 1000);
    }

    #[test]
    fn correction_adds_the_sends_that_a_stall_left_out() {
        let mut latencies = Latencies::new();
        for _ in 0..99 {
            latencies.record(Duration::from_micros(100));
        }
        latencies.record(Duration::from_millis(100));
        // A sender in steps of 1 ms would have seen 100, 99, 98, ... 1 ms.
        let corrected = latencies.corrected(Duration::from_millis(1));
        assert_eq!(latencies.at(0.9), 100);
        assert!(corrected.at(0.9) > 70_000, "{}", corrected.at(0.9));
    }

    #[test]
    fn the_longest_latency_is_kept_as_the_bound() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::MAX);
        assert!(latencies.max() >= LATENCY_US_MAX);
        assert_eq!(latencies.curve().len(), 1);
    }
}
