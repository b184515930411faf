//! What a sensor says of its logs and of what its collectors counted.
//!
//! It comes with each Hello and with each report, and is kept for the ledger, which shows it with
//! its age. Not here: what is stored (ledger.rs). Invariant: bounded, whatever a sensor says.

use std::collections::BTreeMap;

use lapwing_protocol::console::SensorReport;
use lapwing_protocol::digest::Chain;
use lapwing_protocol::element::collector_count;
use lapwing_protocol::hello::LogVerdict;
use lapwing_protocol::id::{Lane, LogId, SensorId};
use lapwing_protocol::items::Items;
use lapwing_protocol::ledger::{CollectorCount, LedgerSensor, LedgerTold};
use lapwing_server_core::change::{Change, OwnedValue};
use lapwing_server_core::delivery::GreetedLog;
use lapwing_server_core::ledger::SensorWord;
use lapwing_server_core::rows::Row;
use lapwing_server_core::view::push_item;
use serde::{Deserialize, Serialize};

use crate::roster::shortened;

/// The first byte of the key under which it is kept.
const TOLD: u8 = b't';
/// Logs of one sensor that are kept; a sensor speaks of one in each lane and of those before it.
const LOGS_MAX: usize = 16;
/// Collectors of one sensor that are kept; a real one has seven.
const COLLECTORS_MAX: usize = 32;
/// Bytes of a collector's name.
const NAME_BYTES_MAX: usize = 64;

/// Where the logs of a sensor stand by its own word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    logs: Vec<ToldLog>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ToldLog {
    lane: Lane,
    log: LogId,
    told: LedgerTold,
    /// A sequence and the chain after it.
    word: Option<(u64, Chain)>,
}

impl Told {
    /// What the sensor said of `log`.
    pub(crate) fn get(&self, lane: Lane, log: LogId) -> Option<LedgerTold> {
        self.logs.iter().find(|it| it.lane == lane && it.log == log).map(|it| it.told)
    }

    /// The chains that the sensor named.
    pub(crate) fn words(&self) -> impl Iterator<Item = (Lane, LogId, SensorWord)> + '_ {
        self.logs.iter().filter_map(|it| {
            let (seq, chain) = it.word?;
            Some((it.lane, it.log, SensorWord { seq, chain }))
        })
    }

    /// Takes a Hello with its answers.
    pub(crate) fn handle_greeting(&mut self, now_ms: u64, logs: &[GreetedLog]) {
        for greeted in logs {
            let grant = &greeted.grant;
            if let Some(parent) = greeted.parent {
                // What was left of it went before this log.
                let produced = parent.next_index.saturating_sub(1);
                let told = LedgerTold { produced, held: 0, at_ms: now_ms };
                self.put(ToldLog { lane: grant.lane, log: parent.log, told, word: None });
            }
            let goes_on = matches!(grant.verdict, LogVerdict::Resume);
            let held = greeted.made_index.saturating_sub(grant.next_index);
            let told =
                LedgerTold { produced: greeted.made_index.saturating_sub(1), held, at_ms: now_ms };
            // A log that cannot go on is another branch: its chain says nothing of what is here.
            let word = goes_on.then_some((greeted.acked_seq, greeted.acked_chain));
            self.put(ToldLog { lane: grant.lane, log: grant.log, told, word });
        }
    }

    fn handle_report(&mut self, now_ms: u64, report: &SensorReport<'_>) {
        for stated in report.logs.iter().map_while(Result::ok).take(LOGS_MAX) {
            let told = LedgerTold {
                produced: stated.next_index.saturating_sub(1),
                held: stated.held,
                at_ms: now_ms,
            };
            self.put(ToldLog { lane: stated.lane, log: stated.log, told, word: None });
        }
    }

    fn put(&mut self, mut told: ToldLog) {
        let known = self.logs.iter().position(|it| it.lane == told.lane && it.log == told.log);
        if let Some(at) = known {
            told.word = told.word.or(self.logs.remove(at).word);
        }
        self.logs.push(told);
        if self.logs.len() > LOGS_MAX {
            self.logs.remove(0);
        }
    }

    /// The row that keeps it.
    pub(crate) fn row(&self, sensor: SensorId) -> Row {
        let mut key = vec![TOLD];
        key.extend_from_slice(&sensor.0);
        Row::put(key, self)
    }

    /// The range of such rows' keys.
    pub(crate) const KEYS: ([u8; 1], [u8; 1]) = ([TOLD], [TOLD + 1]);
}

/// What the collectors of a sensor counted, by its last word.
#[derive(Clone, Debug, Default)]
pub(crate) struct Collected {
    told_ms: u64,
    unchanged: u64,
    counts: BTreeMap<String, [u64; 3]>,
}

impl Collected {
    /// Takes over what `change` says, if it is a count.
    pub(crate) fn handle_change(&mut self, received_ms: u64, change: &Change) {
        if change.model.kind != collector_count::KIND {
            return;
        }
        let number = |feature| change.value(feature).and_then(OwnedValue::number).unwrap_or(0);
        let component = change.value(collector_count::component).and_then(OwnedValue::text);
        let Some(component) = component else { return };
        let counts = [
            number(collector_count::seen),
            number(collector_count::refused),
            number(collector_count::overflowed),
        ];
        self.put(&component, counts);
        self.told_ms = self.told_ms.max(received_ms);
    }

    fn handle_report(&mut self, now_ms: u64, report: &SensorReport<'_>) {
        let counts = report.collected.iter().map_while(Result::ok).take(COLLECTORS_MAX);
        let before = std::mem::take(&mut self.counts);
        for count in counts {
            self.put(count.component, [count.seen, count.refused, count.overflowed]);
        }
        if self.counts.is_empty() {
            // A sensor that has no collectors of its own may still send counts as facts.
            self.counts = before;
            return;
        }
        self.unchanged = report.unchanged;
        self.told_ms = now_ms;
    }

    fn put(&mut self, component: &str, counts: [u64; 3]) {
        let name = shortened(component, NAME_BYTES_MAX);
        if self.counts.len() < COLLECTORS_MAX || self.counts.contains_key(&name) {
            self.counts.insert(name, counts);
        }
    }

    /// Adds a `LedgerSensor` to `items`.
    pub(crate) fn push_to(&self, items: &mut Vec<u8>, sensor: SensorId, connected: bool) {
        let mut collected = Vec::new();
        for (component, [seen, refused, overflowed]) in &self.counts {
            let (seen, refused, overflowed) = (*seen, *refused, *overflowed);
            push_item(&mut collected, &CollectorCount { component, seen, refused, overflowed });
        }
        let collected = Items::from_bytes(&collected);
        let (told_ms, unchanged) = (self.told_ms, self.unchanged);
        push_item(items, &LedgerSensor { sensor, connected, told_ms, unchanged, collected });
    }
}

/// Takes a sensor's report.
pub(crate) fn handle_report(
    now_ms: u64,
    (told, collected): (&mut Told, &mut Collected),
    report: &SensorReport<'_>,
) {
    told.handle_report(now_ms, report);
    collected.handle_report(now_ms, report);
}
