//! The ledger: what became of every fact, merged over servers.
//!
//! Each Detection server tells what it holds of a log, by position; a log that moved has a row on
//! several. How they are merged, and what balances, is in `lapwing_server_core::ledger`; here the
//! logs of a lane become a line. Invariant: a hole whose size is not known makes the balance
//! unknown, never true.

use std::collections::BTreeMap;

use lapwing_protocol::error::DecodeError;
use lapwing_protocol::id::{Lane, SensorId, ServerId};
use lapwing_protocol::items::Items;
use lapwing_protocol::ledger::{LedgerFault, LedgerRow, LedgerSensor};
use lapwing_server_core::ledger::{Balance, Line, OwnedRow, merge};
use serde::{Serialize, Serializer};

use super::event::lane_name;
use super::{Time, owned};

/// Whether everything produced is accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Balanced(Balance);

impl Balanced {
    /// Its name on the page.
    pub(crate) const fn name(self) -> &'static str {
        match self.0 {
            Balance::Yes => "balanced",
            Balance::No => "does not balance",
            Balance::Unknown => "unknown",
        }
    }

    /// The colour of its badge.
    pub(crate) const fn tone(self) -> &'static str {
        match self.0 {
            Balance::Yes => "good",
            Balance::No => "bad",
            Balance::Unknown => "warn",
        }
    }
}

impl Serialize for Balanced {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Balance::Yes => serializer.serialize_bool(true),
            Balance::No => serializer.serialize_bool(false),
            Balance::Unknown => serializer.serialize_str("unknown"),
        }
    }
}

/// The first chunk that is not as it was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FirstBad {
    pub(crate) server: String,
    pub(crate) log: String,
    pub(crate) seq: u64,
    /// Its place in the server's journal.
    pub(crate) commit: u64,
    /// What differs.
    pub(crate) what: String,
}

/// One sensor's lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LedgerLine {
    pub(crate) sensor: String,
    pub(crate) lane: &'static str,
    pub(crate) produced: u64,
    pub(crate) stored: u64,
    /// Held by the sensor and not stored yet, by its last word; null where it said nothing.
    pub(crate) in_flight: Option<u64>,
    pub(crate) dropped: BTreeMap<&'static str, u64>,
    pub(crate) lost_unknown: u64,
    /// The collectors' own count since the sensor started; null where none was told, and on the
    /// urgent lane, where no collector writes.
    pub(crate) collector_seen: Option<u64>,
    /// Of these, what found no room in front of the sensor's core.
    pub(crate) collector_refused: Option<u64>,
    /// Of these, what said nothing new and so is no fact.
    pub(crate) unchanged: Option<u64>,
    pub(crate) undecoded: u64,
    /// Acknowledged by a server that did not answer, by the sensor's word.
    pub(crate) elsewhere: u64,
    /// Neither stored nor accounted for.
    pub(crate) missing: u64,
    pub(crate) balanced: Balanced,
    pub(crate) logs: u32,
    /// When the sensor last said where it stands.
    pub(crate) told: Option<Time>,
    pub(crate) connected: bool,
    /// Whether the journals were read for it, and nothing differs.
    pub(crate) verified: Option<bool>,
    pub(crate) first_bad: Option<FirstBad>,
}

impl LedgerLine {
    /// A reason in words.
    pub(crate) fn reason(&self, reason: &str) -> String {
        reason.replace('_', " ")
    }
}

/// What one server answered.
pub(crate) struct LedgerAnswer {
    pub(crate) server: ServerId,
    pub(crate) name: String,
    pub(crate) rows: Vec<OwnedRow>,
    pub(crate) sensors: Vec<Collector>,
    pub(crate) faults: Vec<(SensorId, Lane, FirstBad)>,
}

/// What the collectors of a sensor counted, by one server's knowledge.
pub(crate) struct Collector {
    sensor: SensorId,
    connected: bool,
    told_ms: u64,
    unchanged: u64,
    seen: u64,
    refused: u64,
}

impl LedgerAnswer {
    /// The empty answer of a server.
    pub(crate) fn new(name: &str) -> Self {
        let (server, name) = (ServerId([0; 16]), name.to_owned());
        Self { server, name, rows: Vec::new(), sensors: Vec::new(), faults: Vec::new() }
    }

    /// Adds a page. Gives the place of its last row.
    pub(crate) fn add(
        &mut self,
        server: ServerId,
        rows: &Items<'_, LedgerRow<'_>>,
        sensors: &Items<'_, LedgerSensor<'_>>,
    ) -> Result<(), DecodeError> {
        self.server = server;
        self.rows.extend(owned(rows, |row| OwnedRow::from_view(server, &row))?);
        self.sensors.extend(owned(sensors, |sensor| {
            let counts = owned(&sensor.collected, |count| Ok((count.seen, count.refused)))?;
            Ok(Collector {
                sensor: sensor.sensor,
                connected: sensor.connected,
                told_ms: sensor.told_ms,
                unchanged: sensor.unchanged,
                seen: counts.iter().fold(0, |sum, count| sum.saturating_add(count.0)),
                refused: counts.iter().fold(0, |sum, count| sum.saturating_add(count.1)),
            })
        })?);
        Ok(())
    }

    /// Adds what a scan found.
    pub(crate) fn add_faults(
        &mut self,
        faults: &Items<'_, LedgerFault<'_>>,
    ) -> Result<(), DecodeError> {
        let name = self.name.clone();
        self.faults.extend(owned(faults, |fault| {
            let bad = FirstBad {
                server: name.clone(),
                log: fault.log.to_string(),
                seq: fault.seq,
                commit: fault.commit,
                what: fault.what.to_owned(),
            };
            Ok((fault.sensor, fault.lane, bad))
        })?);
        Ok(())
    }
}

/// Merges the servers' answers into one line for each sensor and lane. `is_whole` says that every
/// server answered, `verified` that the journals were read.
pub(crate) fn lines(answers: Vec<LedgerAnswer>, is_whole: bool, verified: bool) -> Vec<LedgerLine> {
    let names: BTreeMap<ServerId, String> =
        answers.iter().map(|answer| (answer.server, answer.name.clone())).collect();
    let (mut rows, mut collectors, mut faults) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for answer in answers {
        rows.extend(answer.rows);
        for told in answer.sensors {
            let is_newer = |known: &Collector| {
                (told.connected, told.told_ms) > (known.connected, known.told_ms)
            };
            if collectors.get(&told.sensor).is_none_or(is_newer) {
                collectors.insert(told.sensor, told);
            }
        }
        for (sensor, lane, bad) in answer.faults {
            faults.entry((sensor, lane as u8)).or_insert(bad);
        }
    }
    let mut lines: Vec<LedgerLine> = merge(rows, is_whole)
        .iter()
        .map(|merged| {
            let mut line = line(merged, collectors.get(&merged.sensor));
            let fork = merged.logs.iter().find_map(|log| log.fork.map(|fork| (log.log, fork)));
            if verified {
                let bad = faults.remove(&(merged.sensor, merged.lane as u8));
                line.first_bad = bad.or_else(|| {
                    let (log, (seq, one, other)) = fork?;
                    let name = |server| names.get(&server).cloned().unwrap_or_default();
                    let what = format!("{} has another chain there: a fork", name(other));
                    let log = log.to_string();
                    Some(FirstBad { server: name(one), log, seq, commit: 0, what })
                });
                line.verified = Some(line.first_bad.is_none());
                if line.first_bad.is_some() {
                    line.balanced = Balanced(Balance::No);
                }
            }
            line
        })
        .collect();
    // Damage that hides whose it was, and logs of which nothing is left.
    for ((sensor, lane), bad) in faults {
        let lane = if lane == Lane::Urgent as u8 { Lane::Urgent } else { Lane::Bulk };
        let none = Line { sensor, lane, logs: Vec::new() };
        let mut line = line(&none, collectors.get(&sensor));
        line.first_bad = Some(bad);
        line.verified = Some(false);
        line.balanced = Balanced(Balance::No);
        lines.push(line);
    }
    lines
}

fn line(merged: &Line, collector: Option<&Collector>) -> LedgerLine {
    let told = collector.filter(|told| merged.lane == Lane::Bulk && told.told_ms > 0);
    let mut line = LedgerLine {
        sensor: merged.sensor.to_string(),
        lane: lane_name(merged.lane),
        produced: 0,
        stored: 0,
        in_flight: None,
        dropped: BTreeMap::new(),
        lost_unknown: 0,
        collector_seen: told.map(|told| told.seen),
        collector_refused: told.map(|told| told.refused),
        unchanged: told.map(|told| told.unchanged),
        undecoded: 0,
        elsewhere: 0,
        missing: 0,
        balanced: Balanced(Balance::Yes),
        logs: 0,
        told: None,
        connected: collector.is_some_and(|collector| collector.connected),
        verified: None,
        first_bad: None,
    };
    for log in &merged.logs {
        let add = |sum: &mut u64, count: u64| *sum = sum.saturating_add(count);
        add(&mut line.produced, log.produced);
        add(&mut line.stored, log.sums.stored);
        add(&mut line.lost_unknown, log.lost_unknown);
        add(&mut line.undecoded, log.undecoded);
        add(&mut line.elsewhere, log.sums.elsewhere);
        add(&mut line.missing, log.sums.missing);
        line.logs += 1;
        for (reason, count) in &log.sums.dropped {
            add(line.dropped.entry(*reason).or_default(), *count);
        }
        line.in_flight = match (line.in_flight, log.in_flight) {
            (Some(sum), Some(count)) => Some(sum.saturating_add(count)),
            (known, None) | (None, known) => known,
        };
        line.told = line.told.max(log.told_ms.and_then(Time::known));
        line.balanced = Balanced(line.balanced.0.and(log.balance));
    }
    line
}

#[cfg(test)]
mod tests {
    use lapwing_protocol::id::LogId;
    use lapwing_protocol::ledger::{LedgerRun, LedgerTold, RunKind};

    use super::*;

    fn answer(server: u8, log: u8, stored: u64, told: Option<(u64, u64)>) -> LedgerAnswer {
        let mut answer = LedgerAnswer::new(&format!("d{server}"));
        answer.server = ServerId([server; 16]);
        answer.rows.push(OwnedRow {
            server: answer.server,
            sensor: SensorId([1; 16]),
            lane: Lane::Bulk,
            log: LogId([log; 16]),
            runs: vec![LedgerRun { kind: RunKind::Stored, to_index: stored }],
            lost_unknown: 0,
            undecoded: 0,
            next_seq: 9,
            anchors: Vec::new(),
            told: told.map(|(produced, held)| LedgerTold { produced, held, at_ms: 7 }),
        });
        answer
    }

    #[test]
    fn a_line_is_the_sum_of_its_logs_and_a_log_on_two_servers_is_one() {
        let answers =
            vec![answer(1, 5, 40, None), answer(2, 5, 60, None), answer(2, 6, 10, Some((14, 4)))];
        let lines = lines(answers, true, false);
        assert_eq!(lines.len(), 1);
        let line = &lines[0];
        assert_eq!((line.produced, line.stored, line.in_flight), (74, 70, Some(4)));
        assert_eq!((line.logs, line.balanced, line.verified), (2, Balanced(Balance::Yes), None));
        assert_eq!(serde_json::to_value(line).unwrap()["balanced"], true);
    }

    #[test]
    fn what_a_scan_found_is_told_with_its_lane_and_never_balances() {
        let mut bad = answer(1, 5, 40, None);
        let fault = |seq| FirstBad {
            server: String::from("d1"),
            log: String::new(),
            seq,
            commit: 9,
            what: String::from("gone"),
        };
        bad.faults.push((SensorId([1; 16]), Lane::Bulk, fault(17)));
        bad.faults.push((SensorId([0; 16]), Lane::Bulk, fault(0)));
        let lines = lines(vec![bad], true, true);
        let shown: Vec<_> = lines
            .iter()
            .map(|it| (it.verified, it.first_bad.as_ref().map(|bad| bad.seq)))
            .collect();
        assert_eq!(shown, [(Some(false), Some(17)), (Some(false), Some(0))]);
        assert!(lines.iter().all(|line| line.balanced == Balanced(Balance::No)));
    }
}
