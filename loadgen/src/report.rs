//! The result of a run, for people and for machines.

use std::time::Duration;

use serde_json::{Value, json};

use crate::ledger::{Balance, Ledger};

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) messages: u64,
    pub(crate) balance: Balance,
    pub(crate) elapsed: Duration,
    latency_us: [u32; 3],
}

impl Report {
    pub(crate) fn new(messages: u64, ledger: &Ledger, elapsed: Duration) -> Self {
        let latency_us = ledger.latencies_us([0.5, 0.99, 0.999]);
        Self {
            messages,
            balance: ledger.balance(),
            elapsed,
            latency_us,
        }
    }

    fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 {
            self.balance.acknowledged as f64 / seconds
        } else {
            0.0
        }
    }

    pub(crate) fn json(&self) -> Value {
        let [p50, p99, p999] = self.latency_us;
        json!({
            "messages": self.messages,
            "acknowledged": self.balance.acknowledged,
            "refused": self.balance.refused,
            "delivered": self.balance.delivered,
            "lost": self.balance.lost,
            "duplicated": self.balance.duplicated,
            "altered": self.balance.altered,
            "rate_per_second": self.rate(),
            "latency_us": { "p50": p50, "p99": p99, "p999": p999 },
        })
    }

    pub(crate) fn text(&self) -> String {
        let balance = &self.balance;
        let [p50, p99, p999] = self.latency_us;
        format!(
            "messages {}  acknowledged {}  refused {}  delivered {}\n\
             lost {}  duplicated {}  altered {}\n\
             rate {:.0}/s  latency us: p50 {p50}  p99 {p99}  p99.9 {p999}",
            self.messages,
            balance.acknowledged,
            balance.refused,
            balance.delivered,
            balance.lost,
            balance.duplicated,
            balance.altered,
            self.rate(),
        )
    }
}
