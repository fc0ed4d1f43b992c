//! The result of a run, for people and for machines.
//!
//! Which latency is shown: the open loop's counts from the moment a message was due, so nothing is
//! left out. The closed loop's counts from the moment a connection was free to send, and is shown as
//! measured under `latency_us`; beside it stands a corrected one, an estimate of what senders in
//! even steps would have seen, where the step is the one the run reached on average. The estimate
//! never takes the place of the measurement.

use std::time::Duration;

use serde_json::{Value, json};

use crate::latency::{Latencies, SHARES};
use crate::ledger::{Balance, Summary};
use crate::options::Load;

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) messages: u64,
    pub(crate) summary: Summary,
    /// From the start to the last thing that happened.
    pub(crate) elapsed: Duration,
    /// Idle connections, and those of them that the relay closed before its time.
    pub(crate) idle: usize,
    pub(crate) idle_dropped: u64,
    /// A sink took part, so what arrived is known.
    pub(crate) with_sink: bool,
    /// Messages a second that were asked for; nothing for a closed loop.
    pub(crate) rate_asked: Option<f64>,
    connections: usize,
}

impl Report {
    pub(crate) fn new(load: &Load, summary: Summary, elapsed: Duration, with_sink: bool) -> Self {
        Self {
            messages: load.messages,
            summary,
            elapsed,
            idle: load.idle,
            idle_dropped: 0,
            with_sink,
            rate_asked: load.rate,
            connections: load.connections,
        }
    }

    pub(crate) fn balance(&self) -> &Balance {
        &self.summary.balance
    }

    /// Nothing lost, duplicated or altered, and the idle crowd still there.
    pub(crate) fn is_good(&self) -> bool {
        let balance = self.balance();
        let books = balance.lost == 0 && balance.duplicated == 0 && balance.altered == 0;
        (books || !self.with_sink) && self.idle_dropped == 0
    }

    pub(crate) fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 {
            self.balance().acknowledged as f64 / seconds
        } else {
            0.0
        }
    }

    /// The average time between two messages of one connection; nothing for an open loop.
    fn interval(&self) -> Option<Duration> {
        let acknowledged = self.balance().acknowledged;
        if self.rate_asked.is_some() || acknowledged == 0 {
            return None;
        }
        let seconds = self.summary.sending.as_secs_f64() * self.connections as f64;
        Some(Duration::from_secs_f64(seconds / acknowledged as f64))
    }

    pub(crate) fn json(&self) -> Value {
        let balance = self.balance();
        // Without a sink nobody knows what arrived.
        let known = |value: u64| self.with_sink.then_some(value);
        let mut object = json!({
            "messages": self.messages,
            "acknowledged": balance.acknowledged,
            "refused": balance.refused,
            "refused_recipients": balance.refused_recipients,
            "first_refusal": self.summary.first_refusal,
            "delivered": known(balance.delivered),
            "lost": known(balance.lost),
            "duplicated": known(balance.duplicated),
            "altered": known(balance.altered),
            "refused_by_sink": known(balance.refused_by_sink),
            "bounced": known(balance.bounced),
            "unreported": known(balance.unreported),
            "idle": self.idle,
            "idle_dropped": self.idle_dropped,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "rate_per_second": self.rate(),
            "bytes_per_second": self.bytes_per_second(),
            "latency_us": percentiles(&self.summary.latencies),
        });
        if let Some(rate) = self.rate_asked {
            object["loop"] = json!("open");
            object["rate_asked_per_second"] = json!(rate);
            object["service_us"] = percentiles(&self.summary.service);
        } else {
            object["loop"] = json!("closed");
        }
        if let Some(interval) = self.interval() {
            let corrected = self.summary.latencies.corrected(interval);
            object["expected_interval_us"] = json!(interval.as_micros() as u64);
            object["latency_corrected_us"] = percentiles(&corrected);
        }
        object
    }

    fn bytes_per_second(&self) -> f64 {
        let acknowledged = self.balance().acknowledged.max(1) as f64;
        self.rate() * self.balance().bytes as f64 / acknowledged
    }

    pub(crate) fn text(&self) -> String {
        let mut lines = vec![self.counts()];
        lines.extend(self.with_sink.then(|| self.ledger()));
        if self.idle > 0 {
            lines.push(format!(
                "idle {}  dropped before their time {}",
                self.idle, self.idle_dropped
            ));
        }
        if let Some(reply) = &self.summary.first_refusal {
            lines.push(format!("the first refusal: {reply}"));
        }
        let asked = self
            .rate_asked
            .map_or_else(String::new, |rate| format!(" of {rate}/s asked for"));
        lines.push(format!(
            "rate {:.0}/s{asked}  {:.2} MB/s  in {:.2} s",
            self.rate(),
            self.bytes_per_second() / 1e6,
            self.elapsed.as_secs_f64()
        ));
        lines.extend(self.latency_lines());
        lines.join("\n")
    }

    fn counts(&self) -> String {
        let balance = self.balance();
        let mut line = format!(
            "messages {}  acknowledged {}  refused {}",
            self.messages, balance.acknowledged, balance.refused
        );
        if balance.refused_recipients > 0 {
            line += &format!("  refused recipients {}", balance.refused_recipients);
        }
        if self.with_sink {
            line += &format!("  delivered {}", balance.delivered);
        }
        line
    }

    fn ledger(&self) -> String {
        let balance = self.balance();
        let mut line = format!(
            "lost {}  duplicated {}  altered {}",
            balance.lost, balance.duplicated, balance.altered
        );
        if balance.refused_by_sink > 0 || balance.bounced > 0 {
            line += &format!(
                "  refused by the sink {}  bounced {}  unreported {}",
                balance.refused_by_sink, balance.bounced, balance.unreported
            );
        }
        line
    }

    fn latency_lines(&self) -> Vec<String> {
        let summary = &self.summary;
        let mut lines = Vec::new();
        if self.rate_asked.is_some() {
            let (due, service) = (shown(&summary.latencies), shown(&summary.service));
            lines.push(format!("latency us, open loop, since due:   {due}"));
            lines.push(format!("of it since MAIL was sent:          {service}"));
        } else {
            let measured = shown(&summary.latencies);
            lines.push(format!("latency us, closed loop, measured:  {measured}"));
        }
        if let Some(interval) = self.interval() {
            let corrected = shown(&summary.latencies.corrected(interval));
            lines.push(format!("estimate for senders in even steps: {corrected}"));
        }
        lines
    }
}

fn percentiles(latencies: &Latencies) -> Value {
    let mut object = json!({});
    for (key, share) in SHARES {
        object[key] = json!(latencies.at(share));
    }
    object["max"] = json!(latencies.max());
    object
}

fn shown(latencies: &Latencies) -> String {
    let [p50, p90, p99, p999] = SHARES.map(|(_, share)| latencies.at(share));
    let max = latencies.max();
    format!("p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  max {max}")
}
