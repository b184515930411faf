//! The rows of several servers, merged by position, and whether they balance.

use std::collections::BTreeMap;

use lapwing_protocol::error::DecodeError;
use lapwing_protocol::id::{Lane, LogId, SensorId, ServerId};
use lapwing_protocol::ledger::{LedgerAnchor, LedgerRow, LedgerRun, LedgerTold, RunKind};

use super::account::Sums;

/// The owned twin of a [`LedgerRow`], with the server that told it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of LedgerRow, where they are described")]
pub struct OwnedRow {
    pub server: ServerId,
    pub sensor: SensorId,
    pub lane: Lane,
    pub log: LogId,
    pub runs: Vec<LedgerRun>,
    pub lost_unknown: u64,
    pub undecoded: u64,
    pub next_seq: u64,
    pub anchors: Vec<LedgerAnchor>,
    pub told: Option<LedgerTold>,
}

impl OwnedRow {
    /// The owned twin of `row`, told by `server`.
    ///
    /// # Errors
    /// When one of its lists does not decode.
    pub fn from_view(server: ServerId, row: &LedgerRow<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            server,
            sensor: row.sensor,
            lane: row.lane,
            log: row.log,
            runs: row.runs.iter().collect::<Result<_, _>>()?,
            lost_unknown: row.lost_unknown,
            undecoded: row.undecoded,
            next_seq: row.next_seq,
            anchors: row.anchors.iter().collect::<Result<_, _>>()?,
            told: row.told,
        })
    }
}

/// Whether everything that was produced is accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// That cannot be known.
    Unknown,
}

impl Balance {
    /// The balance of two things together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }
}

/// One log over all servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedLog {
    /// Which log; all zeros for a sum of old ones.
    pub log: LogId,
    /// The last index that anyone spoke of.
    pub produced: u64,
    /// How much became what.
    pub sums: Sums,
    /// Produced, not stored, and held by the sensor; `None` where it said nothing.
    pub in_flight: Option<u64>,
    /// Holes whose size is not known.
    pub lost_unknown: u64,
    /// Chunks that did not decode.
    pub undecoded: u64,
    /// Whether it balances.
    pub balance: Balance,
    /// When the sensor last said where it stands, milliseconds since 1970.
    pub told_ms: Option<u64>,
    /// A sequence for which two servers have other chains.
    pub fork: Option<(u64, ServerId, ServerId)>,
}

/// One lane of one sensor over all servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Which sensor.
    pub sensor: SensorId,
    /// Which lane.
    pub lane: Lane,
    /// Its logs.
    pub logs: Vec<MergedLog>,
}

/// Merges rows by sensor, lane, log and index. `is_whole` says that every server answered: what is
/// stored elsewhere by the sensor's word must then be in another row.
#[must_use]
pub fn merge(rows: Vec<OwnedRow>, is_whole: bool) -> Vec<Line> {
    let mut logs: BTreeMap<(SensorId, u8, LogId), Vec<OwnedRow>> = BTreeMap::new();
    for row in rows {
        logs.entry((row.sensor, row.lane as u8, row.log)).or_default().push(row);
    }
    let mut lines: Vec<Line> = Vec::new();
    for ((sensor, _, log), rows) in logs {
        let Some(lane) = rows.first().map(|row| row.lane) else { continue };
        let merged = merge_log(log, &rows, is_whole);
        match lines.last_mut().filter(|line| line.sensor == sensor && line.lane == lane) {
            Some(line) => line.logs.push(merged),
            None => lines.push(Line { sensor, lane, logs: vec![merged] }),
        }
    }
    lines
}

fn merge_log(log: LogId, rows: &[OwnedRow], is_whole: bool) -> MergedLog {
    // Old logs of one server are not those of another: nothing of them can be laid side by side.
    let is_sum = log == LogId([0; 16]);
    let mut sums = Sums::default();
    let stored_to = if is_sum {
        rows.iter().fold(0_u64, |end, row| {
            let mut before = 0;
            for run in &row.runs {
                sums.add(run.kind, run.to_index.saturating_sub(before));
                before = run.to_index;
            }
            end.saturating_add(before)
        })
    } else {
        side_by_side(rows, &mut sums)
    };
    let told = rows.iter().filter_map(|row| row.told).max_by_key(|told| told.at_ms);
    let produced = told.map_or(stored_to, |told| told.produced.max(stored_to));
    let beyond = produced - stored_to;
    let in_flight = told.map(|told| told.held.min(beyond));
    let lost_unknown = rows.iter().fold(0_u64, |sum, row| sum.saturating_add(row.lost_unknown));
    let undecoded = rows.iter().fold(0_u64, |sum, row| sum.saturating_add(row.undecoded));
    let fork = fork(rows);
    let is_short = sums.missing > 0 || beyond > in_flight.unwrap_or(0);
    let balance = if is_short || fork.is_some() || (is_whole && sums.elsewhere > 0) {
        Balance::No
    } else if lost_unknown > 0 || undecoded > 0 || sums.elsewhere > 0 {
        Balance::Unknown
    } else {
        Balance::Yes
    };
    let told_ms = told.map(|told| told.at_ms);
    MergedLog { log, produced, sums, in_flight, lost_unknown, undecoded, balance, told_ms, fork }
}

/// Lays the servers' runs side by side and counts each position as the best of them; gives the
/// last index.
fn side_by_side(rows: &[OwnedRow], sums: &mut Sums) -> u64 {
    let mut ends: Vec<u64> = rows.iter().flat_map(|row| &row.runs).map(|it| it.to_index).collect();
    ends.sort_unstable();
    ends.dedup();
    let mut at = vec![0; rows.len()];
    let mut before = 0;
    for end in ends {
        let mut best: Option<RunKind> = None;
        for (row, at) in rows.iter().zip(&mut at) {
            while row.runs.get(*at).is_some_and(|run| run.to_index < end) {
                *at += 1;
            }
            let Some(run) = row.runs.get(*at) else { continue };
            if best.is_none_or(|best| rank(run.kind) < rank(best)) {
                best = Some(run.kind);
            }
        }
        sums.add(best.unwrap_or(RunKind::Missing), end.saturating_sub(before));
        before = end;
    }
    before
}

/// What counts, where two servers know a position differently: the lower.
const fn rank(kind: RunKind) -> u8 {
    match kind {
        RunKind::Stored => 0,
        RunKind::Undecoded => 1,
        RunKind::Expired => 2,
        RunKind::Dropped(_) => 3,
        RunKind::Lost(_) => 4,
        RunKind::Elsewhere(_) => 5,
        RunKind::Missing => 6,
    }
}

/// The first sequence for which two servers have another chain.
fn fork(rows: &[OwnedRow]) -> Option<(u64, ServerId, ServerId)> {
    let mut known: BTreeMap<u64, (LedgerAnchor, ServerId)> = BTreeMap::new();
    let mut first: Option<(u64, ServerId, ServerId)> = None;
    for row in rows {
        for anchor in &row.anchors {
            let (other, server) = *known.entry(anchor.seq).or_insert((*anchor, row.server));
            if other.chain != anchor.chain && first.is_none_or(|(seq, _, _)| anchor.seq < seq) {
                first = Some((anchor.seq, server, row.server));
            }
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapwing_protocol::digest::Chain;
    use lapwing_protocol::op::DropReason;

    const A: ServerId = ServerId([0xa; 16]);
    const B: ServerId = ServerId([0xb; 16]);

    fn row(server: ServerId, runs: &[(RunKind, u64)]) -> OwnedRow {
        let runs =
            runs.iter().map(|(kind, to_index)| LedgerRun { kind: *kind, to_index: *to_index });
        OwnedRow {
            server,
            sensor: SensorId([1; 16]),
            lane: Lane::Bulk,
            log: LogId([2; 16]),
            runs: runs.collect(),
            lost_unknown: 0,
            undecoded: 0,
            next_seq: 9,
            anchors: Vec::new(),
            told: None,
        }
    }

    fn merged(rows: Vec<OwnedRow>, is_whole: bool) -> MergedLog {
        merge(rows, is_whole).remove(0).logs.remove(0)
    }

    /// Stored at A and not acknowledged, sent to B, back to A: each position once.
    #[test]
    fn a_log_that_moved_there_and_back_counts_each_fact_once() {
        let a =
            row(A, &[(RunKind::Stored, 100), (RunKind::Elsewhere(B), 140), (RunKind::Stored, 200)]);
        let b = row(B, &[(RunKind::Elsewhere(A), 60), (RunKind::Stored, 150)]);
        let log = merged(vec![a.clone(), b.clone()], true);
        assert_eq!((log.produced, log.sums.stored, log.sums.elsewhere), (200, 200, 0));
        assert_eq!(log.balance, Balance::Yes);
        let alone = merged(vec![b.clone()], false);
        assert_eq!((alone.sums.stored, alone.balance), (90, Balance::Unknown));
        let lost = merged(vec![row(A, &[]), b], true);
        assert_eq!(lost.balance, Balance::No, "nobody has what is elsewhere by the sensor's word");
    }

    #[test]
    fn what_the_sensor_still_holds_is_in_flight_and_what_it_does_not_is_no_balance() {
        let told = |held| Some(LedgerTold { produced: 120, held, at_ms: 5 });
        let with = |held| OwnedRow { told: told(held), ..row(A, &[(RunKind::Stored, 100)]) };
        let log = merged(vec![with(20)], true);
        assert_eq!((log.in_flight, log.balance, log.produced), (Some(20), Balance::Yes, 120));
        assert_eq!(merged(vec![with(35)], true).in_flight, Some(20), "it was stored meanwhile");
        assert_eq!(merged(vec![with(19)], true).balance, Balance::No);
        let silent = merged(vec![row(A, &[(RunKind::Stored, 100)])], true);
        assert_eq!((silent.in_flight, silent.balance), (None, Balance::Yes));
    }

    #[test]
    fn dropped_is_accounted_for_and_unknown_is_never_a_balance() {
        let full = RunKind::Dropped(DropReason::SpoolFull);
        let log = merged(vec![row(A, &[(full, 40), (RunKind::Stored, 100)])], true);
        assert_eq!((log.sums.stored, log.balance), (60, Balance::Yes));
        let unknown = OwnedRow { lost_unknown: 1, ..row(A, &[(RunKind::Stored, 9)]) };
        assert_eq!(merged(vec![unknown], true).balance, Balance::Unknown);
        let missing = row(A, &[(RunKind::Missing, 1), (RunKind::Stored, 9)]);
        assert_eq!(merged(vec![missing], true).balance, Balance::No);
    }

    #[test]
    fn another_chain_for_the_same_sequence_is_a_fork() {
        let anchored = |server, chain| OwnedRow {
            anchors: vec![LedgerAnchor { seq: 7, chain: Chain([chain; 32]) }],
            ..row(server, &[(RunKind::Stored, 9)])
        };
        assert_eq!(merged(vec![anchored(A, 1), anchored(B, 1)], true).fork, None);
        let log = merged(vec![anchored(A, 1), anchored(B, 2)], true);
        assert_eq!((log.fork, log.balance), (Some((7, A, B)), Balance::No));
    }
}
