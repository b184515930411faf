//! The account of one log.

use std::collections::BTreeMap;

use lapwing_protocol::delivery::{Jump, JumpCause, LossReason};
use lapwing_protocol::ledger::{LedgerRun, RunKind};
use lapwing_protocol::op::DropReason;
use serde::{Deserialize, Serialize};

use super::limits::RUNS_MAX;
use crate::decode::Decoded;

/// What became of the facts of one log, as far as they were stored here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    runs: Vec<LedgerRun>,
    /// Holes whose size is not known.
    pub lost_unknown: u64,
    /// Chunks that did not decode.
    pub undecoded: u64,
    /// The sequence behind the last entry.
    pub next_seq: u64,
    runs_max: usize,
}

impl Default for Account {
    fn default() -> Self {
        Self::bounded(RUNS_MAX)
    }
}

impl Account {
    /// An account that keeps `runs_max` runs apart.
    #[must_use]
    pub fn bounded(runs_max: usize) -> Self {
        Self { runs: Vec::new(), lost_unknown: 0, undecoded: 0, next_seq: 1, runs_max }
    }

    /// The last index that was accounted for.
    #[must_use]
    pub fn produced(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.to_index)
    }

    /// What became of each run, from index 1 on.
    #[must_use]
    pub fn runs(&self) -> &[LedgerRun] {
        &self.runs
    }

    /// How much became what.
    #[must_use]
    pub fn sums(&self) -> Sums {
        Sums::of(&self.runs)
    }

    /// Takes a chunk; what it says of its facts is in `pieces`, in order. Facts that were accounted
    /// for before are passed over: the same chunk, stored again.
    pub fn take_chunk(
        &mut self,
        seq: u64,
        first_index: u64,
        pieces: impl IntoIterator<Item = (RunKind, u64)>,
    ) {
        self.fill(first_index, RunKind::Missing);
        let mut repeated = (self.produced() + 1).saturating_sub(first_index);
        let mut is_undecoded = false;
        for (kind, count) in pieces {
            is_undecoded |= kind == RunKind::Undecoded;
            let passed = repeated.min(count);
            repeated -= passed;
            self.add(kind, count - passed);
        }
        if seq >= self.next_seq {
            self.undecoded += u64::from(is_undecoded);
        }
        self.reach(seq);
    }

    /// Takes a Jump that begins at `first_index`.
    pub fn take_jump(&mut self, first_index: u64, jump: &Jump) {
        self.reach(jump.to_seq);
        let Some(to_index) = jump.to_index else {
            let one = u64::from(!cfg!(mutant = "unknown_loss_uncounted"));
            self.lost_unknown = self.lost_unknown.saturating_add(one);
            return;
        };
        self.fill(first_index, RunKind::Missing);
        let kind = match jump.cause {
            JumpCause::Lost(_) if cfg!(mutant = "loss_counted_as_dropped") => {
                RunKind::Dropped(DropReason::SpoolFull)
            }
            JumpCause::Dropped(reason) => RunKind::Dropped(reason),
            JumpCause::StoredElsewhere(server) => RunKind::Elsewhere(server),
            JumpCause::Lost(reason) => RunKind::Lost(reason),
        };
        self.fill(to_index.saturating_add(1), kind);
    }

    /// Everything before `first_index` that is not accounted for became `kind`.
    pub fn fill(&mut self, first_index: u64, kind: RunKind) {
        let produced = self.produced();
        self.add(kind, first_index.saturating_sub(1).saturating_sub(produced));
    }

    /// Adds what another account has, position by position no more: the sum of logs that are too
    /// old to be told apart.
    pub fn absorb(&mut self, other: &Self) {
        let mut before = 0;
        for run in &other.runs {
            self.add(run.kind, run.to_index.saturating_sub(before));
            before = run.to_index;
        }
        self.lost_unknown = self.lost_unknown.saturating_add(other.lost_unknown);
        self.undecoded = self.undecoded.saturating_add(other.undecoded);
    }

    /// The entries up to `seq` were taken.
    pub fn reach(&mut self, seq: u64) {
        self.next_seq = self.next_seq.max(seq.saturating_add(1));
    }

    fn add(&mut self, kind: RunKind, count: u64) {
        if count == 0 {
            return;
        }
        let to_index = self.produced().saturating_add(count);
        match self.runs.last_mut().filter(|run| run.kind == kind) {
            Some(run) => run.to_index = to_index,
            None => self.runs.push(LedgerRun { kind, to_index }),
        }
        if self.runs.len() > self.runs_max {
            self.blur();
        }
    }

    /// Sums the older half of the runs up by kind.
    fn blur(&mut self) {
        let older: Vec<LedgerRun> = self.runs.drain(..self.runs_max / 2).collect();
        let mut kinds: Vec<(RunKind, u64)> = Vec::new();
        let mut before = 0;
        for run in &older {
            let count = run.to_index - before;
            before = run.to_index;
            let is_alike = |known: &RunKind| match (known, &run.kind) {
                // However many servers a sensor names, they are one kind here.
                (RunKind::Elsewhere(_), RunKind::Elsewhere(_)) => true,
                (known, kind) => known == kind,
            };
            match kinds.iter_mut().find(|(known, _)| is_alike(known)) {
                Some((_, sum)) => *sum += count,
                None => kinds.push((run.kind, count)),
            }
        }
        let mut to_index = 0;
        let summed = kinds.into_iter().map(|(kind, count)| {
            to_index += count;
            LedgerRun { kind, to_index }
        });
        let summed: Vec<LedgerRun> = summed.collect();
        self.runs.splice(0..0, summed);
    }
}

/// How much became what, in facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// In stored chunks, those included that do not decode.
    pub stored: u64,
    /// Of these, in chunks that do not decode.
    pub undecoded: u64,
    /// Dropped, lost and expired, by the reason's name.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Stored elsewhere, by the sensor's word.
    pub elsewhere: u64,
    /// Not accounted for.
    pub missing: u64,
}

impl Sums {
    /// The sums of `runs`.
    #[must_use]
    pub fn of(runs: &[LedgerRun]) -> Self {
        let mut sums = Self::default();
        let mut before = 0;
        for run in runs {
            let count = run.to_index.saturating_sub(before);
            before = run.to_index;
            sums.add(run.kind, count);
        }
        sums
    }

    pub(super) fn add(&mut self, kind: RunKind, count: u64) {
        let sum = match kind {
            RunKind::Stored => &mut self.stored,
            RunKind::Undecoded => {
                self.undecoded = self.undecoded.saturating_add(count);
                &mut self.stored
            }
            RunKind::Elsewhere(_) => &mut self.elsewhere,
            RunKind::Missing => &mut self.missing,
            RunKind::Dropped(_) | RunKind::Lost(_) | RunKind::Expired => {
                self.dropped.entry(kind_name(kind)).or_default()
            }
        };
        *sum = sum.saturating_add(count);
    }

    /// Everything that was dropped, for whatever reason.
    #[must_use]
    pub fn dropped_in_all(&self) -> u64 {
        self.dropped.values().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// The name of what became of a fact, as the ledger shows it.
#[must_use]
pub const fn kind_name(kind: RunKind) -> &'static str {
    match kind {
        RunKind::Stored => "stored",
        RunKind::Undecoded => "undecoded",
        RunKind::Expired => "retention",
        RunKind::Elsewhere(_) => "elsewhere",
        RunKind::Missing => "missing",
        RunKind::Dropped(DropReason::TableFull) => "table_full",
        RunKind::Dropped(DropReason::TooLarge) => "too_large",
        RunKind::Dropped(DropReason::SpoolFull) => "spool_full",
        RunKind::Dropped(DropReason::MemoryFull) => "memory_full",
        RunKind::Dropped(DropReason::SpoolFailed) => "spool_failed",
        RunKind::Dropped(DropReason::Malformed) => "malformed",
        RunKind::Lost(LossReason::ServerRolledBack) => "server_rolled_back",
        RunKind::Lost(LossReason::MemoryLost) => "memory_lost",
        RunKind::Lost(LossReason::SpoolDamaged) => "spool_damaged",
    }
}

/// What a decoded chunk says of its facts, in order: an index that no change has belongs to a
/// Dropped op.
#[must_use]
pub fn pieces(first_index: u64, decoded: &Decoded) -> Vec<(RunKind, u64)> {
    let mut pieces: Vec<(RunKind, u64)> = Vec::new();
    let mut dropped = decoded.dropped.iter();
    let mut next = first_index;
    let add = |pieces: &mut Vec<(RunKind, u64)>, kind, count| match pieces.last_mut() {
        Some((last, sum)) if *last == kind => *sum += count,
        _ => pieces.push((kind, count)),
    };
    for index in decoded.changes.iter().filter_map(|change| change.index) {
        while next < index {
            let Some((reason, count)) = dropped.next() else { break };
            add(&mut pieces, RunKind::Dropped(*reason), *count);
            next = next.saturating_add(*count);
        }
        add(&mut pieces, RunKind::Stored, 1);
        next = index.saturating_add(1);
    }
    for (reason, count) in dropped {
        add(&mut pieces, RunKind::Dropped(*reason), *count);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapwing_protocol::digest::Chain;
    use lapwing_protocol::id::{Lane, ServerId};

    fn jump(seqs: (u64, u64), to_index: Option<u64>, cause: JumpCause) -> Jump {
        let (from_seq, to_seq) = seqs;
        let chain_at_to = Chain([0; 32]);
        Jump { lane: Lane::Bulk, from_seq, to_seq, to_index, chain_at_to, cause }
    }

    const STORED: RunKind = RunKind::Stored;
    const FULL: RunKind = RunKind::Dropped(DropReason::TableFull);

    #[test]
    fn every_fact_is_in_one_run() {
        let mut account = Account::default();
        account.take_chunk(1, 1, [(STORED, 4), (FULL, 2), (STORED, 1)]);
        account.take_jump(8, &jump((2, 5), Some(20), JumpCause::Dropped(DropReason::SpoolFull)));
        account.take_chunk(6, 21, [(RunKind::Undecoded, 5)]);
        account.take_jump(26, &jump((7, 7), None, JumpCause::Lost(LossReason::MemoryLost)));
        let sums = account.sums();
        assert_eq!((sums.stored, sums.undecoded, sums.missing), (10, 5, 0));
        assert_eq!(sums.dropped, BTreeMap::from([("table_full", 2), ("spool_full", 13)]));
        assert_eq!((account.produced(), account.next_seq), (25, 8));
        assert_eq!((account.lost_unknown, account.undecoded), (1, 1));
    }

    #[test]
    fn what_is_stored_twice_counts_once_and_a_hole_is_missing() {
        let mut account = Account::default();
        account.take_chunk(1, 1, [(STORED, 10)]);
        account.take_chunk(1, 1, [(STORED, 10)]);
        account.take_chunk(2, 6, [(STORED, 10)]);
        account.take_chunk(4, 20, [(STORED, 1)]);
        assert_eq!((account.sums().stored, account.sums().missing), (16, 4));
    }

    #[test]
    fn beyond_the_bound_counts_stay_and_positions_blur() {
        let mut account = Account::bounded(8);
        for seq in 1..=1_000 {
            account.take_chunk(seq, seq * 3 - 2, [(STORED, 2), (FULL, 1)]);
        }
        assert!(account.runs().len() <= 8, "{} runs", account.runs().len());
        assert_eq!(account.sums().stored, 2_000);
        assert_eq!(account.sums().dropped["table_full"], 1_000);
        for number in 0..200 {
            let cause = JumpCause::StoredElsewhere(ServerId([number; 16]));
            let seq = 1_001 + u64::from(number);
            account.take_jump(account.produced() + 1, &jump((seq, seq), Some(3_001 + seq), cause));
        }
        assert!(account.runs().len() <= 8);
        assert_eq!(account.produced(), 3_001 + 1_200);
    }

    #[test]
    fn the_largest_numbers_that_a_sensor_can_say_are_counted_without_an_overflow() {
        let mut account = Account::default();
        let most = jump((1, u64::MAX), Some(u64::MAX), JumpCause::Dropped(DropReason::SpoolFull));
        account.take_jump(1, &most);
        account.take_jump(2, &most);
        account.take_chunk(u64::MAX, u64::MAX, [(STORED, u64::MAX)]);
        account.absorb(&account.clone());
        assert_eq!(account.produced(), u64::MAX);
    }
}
