//! The figures of a run.

use std::time::Duration;

use serde_json::{Value, json};

use super::machine::Tally;

/// What was measured outside the sensors.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub(super) sensors: u64,
    pub(super) connections: u64,
    pub(super) sensor_cpu_s: f64,
    pub(super) server_cpu_s: f64,
    pub(super) server_rss_bytes: u64,
    pub(super) server_rss_before_bytes: u64,
    pub(super) server_rss_max_bytes: u64,
    pub(super) malops: Vec<Duration>,
    pub(super) idle_seconds: u64,
    /// Bytes that all connections took while they were idle: up, down.
    pub(super) unfinished: u64,
}

/// The figures of a run.
#[derive(Clone, Debug)]
pub struct Report {
    value: Value,
    missing: u64,
    unfinished: u64,
}

impl Report {
    pub(super) fn new(mut tallies: Vec<Tally>, measured: &Measured) -> Self {
        let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
        let events = sum(|tally| tally.events);
        let (produced, acked) = (sum(|tally| tally.produced), sum(|tally| tally.acked));
        let missing = produced.saturating_sub(acked);
        let first = tallies.iter().filter_map(|tally| tally.first_sent).min();
        let last = tallies.iter().filter_map(|tally| tally.last_acked).max();
        let seconds = match (first, last) {
            (Some(first), Some(last)) => last.saturating_duration_since(first).as_secs_f64(),
            _ => 0.0,
        };
        let (up, down) = (sum(|tally| tally.traffic.0), sum(|tally| tally.traffic.1));
        let value = json!({
            "events": events,
            "seconds": rounded(seconds),
            "events_per_s": if seconds > 0.0 { rounded(events as f64 / seconds) } else { 0.0 },
            "wire_bytes_up": up,
            "wire_bytes_down": down,
            "chunks": sum(|tally| tally.chunks),
            "sensor_cpu_s": rounded(measured.sensor_cpu_s),
            "server_cpu_s": rounded(measured.server_cpu_s),
            "server_rss_bytes": measured.server_rss_bytes,
            "server_rss_before_bytes": measured.server_rss_before_bytes,
            "server_rss_max_bytes": measured.server_rss_max_bytes,
            "connections": measured.connections,
            "sessions": sum(|tally| tally.sessions),
            "throttled": sum(|tally| tally.throttled),
            "resent": sum(|tally| tally.resent),
            "missing": missing,
            "produced": produced,
            "acked": acked,
            "dropped": sum(|tally| tally.dropped),
            "unchanged": sum(|tally| tally.unchanged),
            "sensors": measured.sensors,
            "idle_seconds": measured.idle_seconds,
            "unfinished_sensors": measured.unfinished,
        });
        let latencies: Vec<u64> =
            tallies.iter_mut().flat_map(|it| it.ack_us.drain(..)).map(u64::from).collect();
        let malops = measured.malops.iter().map(|it| it.as_micros() as u64).collect();
        let mut report = Self { value, missing, unfinished: measured.unfinished };
        report.add("ack_ms", percentiles(latencies));
        report.add("malop_ms", percentiles(malops));
        report
    }

    fn add(&mut self, key: &str, value: Value) {
        if let Some(fields) = self.value.as_object_mut() {
            fields.insert(key.to_owned(), value);
        }
    }

    /// Facts that are neither stored nor announced.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Sensors that had not everything acknowledged at the end.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        self.unfinished
    }

    /// All figures, as one JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        format!("{:#}\n", self.value)
    }

    /// One figure.
    #[must_use]
    pub fn value(&self, key: &str) -> &Value {
        self.value.get(key).unwrap_or(&Value::Null)
    }
}

/// To thousandths.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

/// Median and 99th percentile of microseconds, in milliseconds; null of nothing.
fn percentiles(mut micros: Vec<u64>) -> Value {
    micros.sort_unstable();
    let at = |hundredths: usize| {
        let place = (micros.len() * hundredths).div_ceil(100).max(1) - 1;
        micros.get(place).map(|micros| rounded(*micros as f64 / 1_000.0))
    };
    match (at(50), at(99)) {
        (Some(p50), Some(p99)) => json!({ "p50": p50, "p99": p99 }),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        assert_eq!(percentiles(Vec::new()), Value::Null);
        let hundred = (1..=100).map(|at| at * 1_000).collect();
        assert_eq!(percentiles(hundred), json!({ "p50": 50.0, "p99": 99.0 }));
        assert_eq!(percentiles(vec![7]), json!({ "p50": 0.007, "p99": 0.007 }));
    }

    #[test]
    fn missing_is_what_was_produced_and_not_acknowledged() {
        let tally = Tally { produced: 10, acked: 7, events: 9, ..Tally::default() };
        let report = Report::new(vec![tally.clone(), tally], &Measured::default());
        assert_eq!(report.missing(), 6);
        assert_eq!(report.value("events"), 18);
    }
}
