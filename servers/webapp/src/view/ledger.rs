//! The ledger: what became of every fact, merged over servers.
//!
//! Each Detection server tells what it holds of a log; a log that moved has a line on several.
//! Invariant: a hole whose size is not known makes the balance unknown, never true.

use std::collections::BTreeMap;

use lapwing_protocol::console::LedgerRow;
use lapwing_protocol::error::DecodeError;
use serde::{Serialize, Serializer};

use super::event::lane_name;
use super::owned;

/// Whether everything produced is accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Balance {
    Yes,
    No,
    Unknown,
}

impl Serialize for Balance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Yes => serializer.serialize_bool(true),
            Self::No => serializer.serialize_bool(false),
            Self::Unknown => serializer.serialize_str("unknown"),
        }
    }
}

/// One sensor's lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LedgerLine {
    pub(crate) sensor: String,
    pub(crate) lane: &'static str,
    pub(crate) produced: u64,
    pub(crate) stored: u64,
    /// Produced by the sensor's word and not yet stored; null where the sensor cannot be asked.
    pub(crate) in_flight: Option<u64>,
    pub(crate) dropped: BTreeMap<String, u64>,
    pub(crate) lost_unknown: u64,
    /// The collectors' own count; null where none was told.
    pub(crate) collector_seen: Option<u64>,
    pub(crate) undecoded: u64,
    pub(crate) balanced: Balance,
    pub(crate) logs: u32,
}

/// What one log comes to over all servers.
#[derive(Default)]
struct LogSum {
    produced: u64,
    stored: u64,
    dropped: BTreeMap<String, u64>,
    lost_unknown: u64,
    undecoded: u64,
}

/// A log's place: sensor, lane, log.
type LogKey = (String, &'static str, String);

/// Merges the servers' rows into one line for each sensor and lane.
pub(crate) fn merge(answers: &[Vec<LedgerRow<'_>>]) -> Result<Vec<LedgerLine>, DecodeError> {
    let mut logs: BTreeMap<LogKey, LogSum> = BTreeMap::new();
    for row in answers.iter().flatten() {
        let key = (row.sensor.to_string(), lane_name(row.lane), row.log.to_string());
        let sum = logs.entry(key).or_default();
        sum.produced = sum.produced.max(row.produced);
        sum.stored += row.stored;
        sum.lost_unknown += row.lost_unknown;
        sum.undecoded += row.undecoded;
        for (reason, count) in
            owned(&row.dropped, |drop| Ok((reason_name(&drop.reason), drop.count)))?
        {
            *sum.dropped.entry(reason).or_default() += count;
        }
    }
    let mut lines: BTreeMap<(String, &'static str), LedgerLine> = BTreeMap::new();
    for ((sensor, lane, _), sum) in logs {
        let line = lines.entry((sensor.clone(), lane)).or_insert_with(|| empty(sensor, lane));
        add(line, sum);
    }
    Ok(lines.into_values().collect())
}

fn empty(sensor: String, lane: &'static str) -> LedgerLine {
    LedgerLine {
        sensor,
        lane,
        produced: 0,
        stored: 0,
        in_flight: None,
        dropped: BTreeMap::new(),
        lost_unknown: 0,
        collector_seen: None,
        undecoded: 0,
        balanced: Balance::Yes,
        logs: 0,
    }
}

fn add(line: &mut LedgerLine, sum: LogSum) {
    let accounted = sum.stored + sum.dropped.values().sum::<u64>();
    let balanced = if sum.lost_unknown > 0 || sum.undecoded > 0 {
        Balance::Unknown
    } else if accounted == sum.produced {
        Balance::Yes
    } else {
        Balance::No
    };
    line.balanced = match (line.balanced, balanced) {
        (Balance::No, _) | (_, Balance::No) => Balance::No,
        (Balance::Unknown, _) | (_, Balance::Unknown) => Balance::Unknown,
        (Balance::Yes, Balance::Yes) => Balance::Yes,
    };
    line.produced += sum.produced;
    line.stored += sum.stored;
    line.lost_unknown += sum.lost_unknown;
    line.undecoded += sum.undecoded;
    line.logs += 1;
    for (reason, count) in sum.dropped {
        *line.dropped.entry(reason).or_default() += count;
    }
}

/// `DropReason::SpoolFull` is `spool_full`.
fn reason_name(reason: &lapwing_protocol::op::DropReason) -> String {
    let mut name = String::new();
    for letter in format!("{reason:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::{Balance, merge};
    use lapwing_protocol::console::LedgerRow;
    use lapwing_protocol::id::{Lane, LogId, SensorId};
    use lapwing_protocol::items::Items;

    fn row(produced: u64, stored: u64, lost_unknown: u64) -> LedgerRow<'static> {
        LedgerRow {
            sensor: SensorId([1; 16]),
            lane: Lane::Bulk,
            log: LogId([2; 16]),
            produced,
            stored,
            dropped: Items::EMPTY,
            elsewhere: 0,
            lost_unknown,
            undecoded: 0,
        }
    }

    #[test]
    fn a_log_on_two_servers_is_one_line() {
        let lines = merge(&[vec![row(4, 4, 0)], vec![row(10, 6, 0)]]).unwrap();
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0].produced, lines[0].stored), (10, 10));
        assert_eq!(lines[0].balanced, Balance::Yes);
    }

    #[test]
    fn a_hole_is_no_balance_and_an_unknown_one_is_unknown() {
        assert_eq!(merge(&[vec![row(10, 9, 0)]]).unwrap()[0].balanced, Balance::No);
        assert_eq!(merge(&[vec![row(10, 9, 1)]]).unwrap()[0].balanced, Balance::Unknown);
    }
}
