//! The ledger: what became of every fact, by position. What a Detection server answers about it.
//!
//! An account of one log is a row of runs over its indices, without a gap, from index 1 on. So
//! whoever reads several servers merges by position and never by adding sums.

use serde::{Deserialize, Serialize};

use crate::delivery::LossReason;
use crate::digest::Chain;
use crate::id::{Lane, LogId, SensorId, ServerId};
use crate::items::Items;
use crate::op::DropReason;

/// What became of a run of facts. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunKind {
    /// In a stored chunk that decodes.
    Stored,
    /// In a stored chunk that does not decode.
    Undecoded,
    /// Stored once, and dropped since because it was older than the server keeps it.
    Expired,
    /// Dropped by the sensor by rule.
    Dropped(DropReason),
    /// Lost, by a Jump that says so.
    Lost(LossReason),
    /// Acknowledged by another server, by a Jump that says so.
    Elsewhere(ServerId),
    /// Neither stored nor accounted for by a Jump.
    Missing,
}

/// A run of facts: from behind the run before it up to `to_index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRun {
    /// What became of it.
    pub kind: RunKind,
    /// Its last index.
    pub to_index: u64,
}

/// The chain of a log at a place where another server may know it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerAnchor {
    /// After which sequence.
    pub seq: u64,
    /// The chain there.
    pub chain: Chain,
}

/// Where a log stands by its sensor's own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerTold {
    /// The last index that the sensor gave.
    pub produced: u64,
    /// Facts that it still holds and nobody acknowledged.
    pub held: u64,
    /// When it said so, server's clock, milliseconds since 1970.
    pub at_ms: u64,
}

/// What a Detection server knows of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow<'a> {
    /// Which sensor.
    pub sensor: SensorId,
    /// Which lane.
    pub lane: Lane,
    /// Which log; all zeros for the sum of logs that are too old to be told apart.
    pub log: LogId,
    /// What became of its facts, by position.
    #[serde(borrow)]
    pub runs: Items<'a, LedgerRun>,
    /// Holes whose size is not known.
    pub lost_unknown: u64,
    /// Chunks stored that did not decode.
    pub undecoded: u64,
    /// The sequence that is taken next.
    pub next_seq: u64,
    /// Chains that other servers may know too; only where they were verified.
    #[serde(borrow)]
    pub anchors: Items<'a, LedgerAnchor>,
    /// What the sensor said of it; `None` where it said nothing.
    pub told: Option<LedgerTold>,
}

/// What one collector counted since its sensor started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectorCount<'a> {
    /// Which collector.
    pub component: &'a str,
    /// Facts it made.
    pub seen: u64,
    /// Of these, facts that found no room in front of the sensor's core.
    pub refused: u64,
    /// Times that the operating system lost events before they could be read.
    pub overflowed: u64,
}

/// The collectors' own counts of one sensor, made outside the code that numbers and sends facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerSensor<'a> {
    /// Which sensor.
    pub sensor: SensorId,
    /// Whether a session is open.
    pub connected: bool,
    /// When it last told its counts, server's clock, milliseconds since 1970; 0 = never.
    pub told_ms: u64,
    /// Observations that said nothing new, and so are no facts, since the sensor started.
    pub unchanged: u64,
    /// The counts.
    #[serde(borrow)]
    pub collected: Items<'a, CollectorCount<'a>>,
}

/// Read the ledger as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRequest {
    /// Only of this sensor.
    pub sensor: Option<SensorId>,
    /// Rows behind this place; `None` at first.
    pub after: Option<(SensorId, Lane, LogId)>,
}

/// A part of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerPage<'a> {
    /// Which server.
    pub server: ServerId,
    /// Entries of the journal that are stored and not counted yet.
    pub behind: u64,
    /// Whether no row follows.
    pub at_end: bool,
    /// The rows, by sensor, lane and log.
    #[serde(borrow)]
    pub rows: Items<'a, LedgerRow<'a>>,
    /// The collectors' counts of the sensors in these rows.
    #[serde(borrow)]
    pub sensors: Items<'a, LedgerSensor<'a>>,
}

/// Have the journal scanned, and read what it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerVerify {
    /// Which scan; 0 begins one, or joins the one that is under way.
    pub scan: u64,
    /// Rows behind this place; `None` at first.
    pub after: Option<(SensorId, Lane, LogId)>,
    /// How long to wait for the scan to end, in milliseconds.
    pub wait_ms: u32,
}

/// Something that is not as it was acknowledged: the first of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerFault<'a> {
    /// Whose; all zeros where the damage hides it.
    pub sensor: SensorId,
    /// Which lane.
    pub lane: Lane,
    /// Which log; all zeros where the damage hides it.
    pub log: LogId,
    /// Which chunk; 0 where the damage hides it.
    pub seq: u64,
    /// Where it lies, or should lie, in the journal.
    pub commit: u64,
    /// What differs, for a person.
    pub what: &'a str,
}

/// How far a scan is, and once it ended a part of what it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerVerified<'a> {
    /// Which server.
    pub server: ServerId,
    /// Which scan.
    pub scan: u64,
    /// Entries of the journal that were read.
    pub scanned: u64,
    /// Entries that are to be read.
    pub of: u64,
    /// Whether the scan ended; rows and faults come only then.
    pub ended: bool,
    /// Why this is not the whole answer; empty when it is.
    pub partial: &'a str,
    /// Whether no row follows.
    pub at_end: bool,
    /// The rows, by sensor, lane and log.
    #[serde(borrow)]
    pub rows: Items<'a, LedgerRow<'a>>,
    /// The collectors' counts of the sensors in these rows.
    #[serde(borrow)]
    pub sensors: Items<'a, LedgerSensor<'a>>,
    /// What is not as it was acknowledged, with the first rows alone; at most 256.
    #[serde(borrow)]
    pub faults: Items<'a, LedgerFault<'a>>,
}

/// Where a log stands, in a sensor's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatement {
    /// Which lane.
    pub lane: Lane,
    /// Which log.
    pub log: LogId,
    /// The index that the sensor will give next.
    pub next_index: u64,
    /// Facts of it that the sensor holds and nobody acknowledged.
    pub held: u64,
}
