//! A scan of the journal, entry by entry: chains recomputed from the stored bytes, positions
//! counted anew, and both compared with what else is known.
//!
//! What is compared: each entry with the entry before it in its log, its bytes with the chain that
//! was kept beside it, the last one with the lane's head, and the sensor's own chain at the place
//! it named at its last Hello. Of each log the first fault alone is named.
//!
//! Memory: a record for each log, whatever the number of entries.

use std::collections::BTreeMap;
use std::ops::Range;

use lapwing_protocol::digest::Chain;
use lapwing_protocol::id::{DeploymentId, Lane, LogId, SensorId};
use lapwing_protocol::ledger::{LedgerAnchor, RunKind};

use self::single::wrong;
use super::account::Account;
use super::limits::{ANCHORS_MAX, FAULTS_MAX, SCAN_RUNS_MAX};
use crate::delivery::RetiredLog;

/// A log's place: sensor, lane and log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPlace {
    /// Which sensor.
    pub sensor: SensorId,
    /// Which lane, by its number.
    lane: u8,
    /// Which log.
    pub log: LogId,
}

impl LogPlace {
    /// The place of `log`.
    #[must_use]
    pub const fn new(sensor: SensorId, lane: Lane, log: LogId) -> Self {
        Self { sensor, lane: lane as u8, log }
    }

    /// Which lane.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        if self.lane == Lane::Urgent as u8 { Lane::Urgent } else { Lane::Bulk }
    }
}

/// An entry of the journal that could be read.
#[derive(Debug)]
pub struct StoredEntry<'a> {
    /// Its place in the journal.
    pub commit: u64,
    /// The entry before it in its log; 0 where there is none.
    pub previous: u64,
    /// Its log.
    pub place: LogPlace,
    /// Its first sequence; a Jump covers several.
    pub from_seq: u64,
    /// Its last sequence.
    pub seq: u64,
    /// Index of its first fact.
    pub first_index: u64,
    /// Whether a segment begins with it.
    pub opens: bool,
    /// The chain that was kept beside it when it was stored; none in journals of older versions.
    pub kept: Option<Chain>,
    /// What it is.
    pub what: StoredWhat<'a>,
}

/// What an entry is.
#[derive(Debug)]
pub enum StoredWhat<'a> {
    /// A chunk: its bytes, the sequence in them, and what became of its facts.
    Chunk(&'a [u8], u64, Vec<(RunKind, u64)>),
    /// A Jump.
    Jump(&'a lapwing_protocol::delivery::Jump),
    /// Bytes that are neither.
    Unreadable,
}

/// An entry that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Its place in the journal.
    pub commit: u64,
    /// What the store says.
    pub what: String,
}

/// Where a lane's head says that a log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadWord {
    /// Where the log stands.
    pub log: RetiredLog,
    /// The log's last entry, where the head names it.
    pub last_commit: Option<u64>,
}

/// The sensor's own chain at a place of a log, from its last Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SensorWord {
    /// After which sequence.
    pub seq: u64,
    /// The chain there.
    pub chain: Chain,
}

/// An account that was kept all along, and the entry that it ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAccount {
    /// The account.
    pub account: Account,
    /// The last entry of its log; 0 where that is not known.
    pub last_commit: u64,
}

/// Something that is not as it was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whose; `None` where the damage hides it.
    pub place: Option<LogPlace>,
    /// Which chunk; 0 where the damage hides it.
    pub seq: u64,
    /// Where it lies, or should lie, in the journal.
    pub commit: u64,
    /// What differs.
    pub what: String,
}

/// What one log came to.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Its account.
    pub account: Account,
    /// The index behind its last entry.
    pub next_index: u64,
    /// The chain behind its last entry.
    pub chain: Chain,
    /// Chains at the starts of its newest segments, at its Jumps and at its end.
    pub anchors: Vec<LedgerAnchor>,
    last_commit: u64,
    /// Whether `chain` is known: it is not behind what retention dropped.
    is_anchored: bool,
    is_bad: bool,
}

/// A scan of one journal.
#[derive(Debug)]
pub struct Verifier {
    deployment: DeploymentId,
    heads: BTreeMap<LogPlace, HeadWord>,
    words: BTreeMap<LogPlace, SensorWord>,
    logs: BTreeMap<LogPlace, Verified>,
    damages: Vec<Damage>,
    faults: Vec<Fault>,
    /// Faults beyond those that are named.
    beyond: u64,
    /// Runs of the journal that retention dropped.
    expired: Vec<Range<u64>>,
    /// The last entry when the heads were taken.
    heads_at: u64,
}

impl Verifier {
    /// A scan that compares with these heads, as they were behind entry `heads_at`, and with these
    /// words of sensors.
    #[must_use]
    pub fn new(
        deployment: DeploymentId,
        (heads, heads_at): (BTreeMap<LogPlace, HeadWord>, u64),
        words: BTreeMap<LogPlace, SensorWord>,
    ) -> Self {
        Self {
            deployment,
            heads,
            words,
            logs: BTreeMap::new(),
            damages: Vec::new(),
            faults: Vec::new(),
            beyond: 0,
            expired: Vec::new(),
            heads_at,
        }
    }

    /// Retention dropped these entries.
    pub fn handle_expired(&mut self, commits: Range<u64>) {
        match self.expired.last_mut().filter(|last| last.end == commits.start) {
            Some(last) => last.end = commits.end,
            None => self.expired.push(commits),
        }
    }

    /// Whether the entry before `entry` in its log may have been dropped because of its age.
    fn is_expired(&self, entry: &StoredEntry<'_>) -> bool {
        let is_in = |commits: &Range<u64>| commits.contains(&entry.previous);
        self.expired.iter().any(is_in) || (entry.previous == 0 && !self.expired.is_empty())
    }

    /// An entry cannot be read. Whose it was is known by the entry that names it as the one before
    /// it, or by the head.
    pub fn handle_damage(&mut self, damage: Damage) {
        if self.damages.len() < FAULTS_MAX {
            self.damages.push(damage);
        } else {
            self.beyond += 1;
        }
    }

    /// Takes the next entry, in the order of the journal.
    pub fn handle_entry(&mut self, entry: &StoredEntry<'_>) {
        let is_expired = self.is_expired(entry);
        let start = || {
            let LogPlace { sensor, log, .. } = entry.place;
            Verified::begin(Chain::start(self.deployment, sensor, entry.place.lane(), log))
        };
        let log = self.logs.entry(entry.place).or_insert_with(start);
        let expected = log.account.next_seq;
        if entry.seq < expected {
            // A log that came back after it was forgotten: the same chunk, stored again.
            return;
        }
        let mut found = Vec::new();
        let hole = (entry.from_seq > expected).then_some(expected);
        let linked = self.damages.iter().position(|it| it.commit == entry.previous);
        if let Some(damage) = linked.map(|at| self.damages.remove(at)) {
            found.push((expected, damage.commit, damage.what));
            log.is_anchored = false;
        } else if let Some(hole) = hole {
            log.is_anchored = false;
            if is_expired {
                log.account.fill(entry.first_index, RunKind::Expired);
                log.next_index = entry.first_index;
            } else {
                let what = match entry.from_seq - 1 {
                    last if last == hole => format!("chunk {hole} is not in the journal"),
                    last => format!("chunks {hole} to {last} are not in the journal"),
                };
                found.push((hole, entry.commit, what));
            }
        }
        let before = log.is_anchored.then_some(log.chain);
        let chain = match &entry.what {
            StoredWhat::Chunk(bytes, _, _) => {
                before.map(|before| before.next(bytes)).or(entry.kept)
            }
            StoredWhat::Jump(jump) => Some(jump.chain_at_to),
            StoredWhat::Unreadable => None,
        };
        if let Some(what) = wrong(entry, chain, log.next_index, found.is_empty()) {
            found.push((entry.seq, entry.commit, what));
        }
        log.take(entry, chain.unwrap_or(log.chain));
        if let Some(word) = self.words.get(&entry.place).filter(|word| word.seq == entry.seq)
            && word.chain != log.chain
        {
            let what = "its chain is not the one that the sensor named at its last Hello";
            found.push((entry.seq, entry.commit, what.to_owned()));
        }
        for (seq, commit, what) in found {
            self.fault(Some(entry.place), seq, commit, what);
        }
        self.compare_head(entry);
    }

    fn compare_head(&mut self, entry: &StoredEntry<'_>) {
        let Some(head) = self.heads.get(&entry.place) else { return };
        if head.last_commit != Some(entry.commit) {
            return;
        }
        let Some(log) = self.logs.get(&entry.place) else { return };
        let what = log.differs(&head.log);
        // What comes behind it the head did not know.
        self.heads.remove(&entry.place);
        if let Some(what) = what {
            self.fault(Some(entry.place), entry.seq, entry.commit, what);
        }
    }

    /// Whether everything of a log that ends with `last_commit` may be gone because of its age.
    fn is_all_expired(&self, last_commit: u64) -> bool {
        match last_commit {
            0 => !self.expired.is_empty(),
            last => self.expired.iter().any(|commits| commits.contains(&last)),
        }
    }

    /// A log that the journal should have, begun where it has nothing of it: it has a row then.
    fn row(&mut self, place: LogPlace) -> &mut Verified {
        let LogPlace { sensor, log, .. } = place;
        let start = Chain::start(self.deployment, sensor, place.lane(), log);
        self.logs.entry(place).or_insert_with(|| Verified::begin(start))
    }

    fn fault(&mut self, place: Option<LogPlace>, seq: u64, commit: u64, what: String) {
        if let Some(place) = place {
            let log = self.row(place);
            if log.is_bad {
                return;
            }
            log.is_bad = true;
        }
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault { place, seq, commit, what });
        } else {
            self.beyond += 1;
        }
    }

    /// Ends the scan. `kept` are the accounts that were kept all along, taken at the same entry;
    /// none where they stand at another one.
    #[must_use]
    pub fn finish(mut self, kept: Option<&BTreeMap<LogPlace, KeptAccount>>) -> Outcome {
        for damage in std::mem::take(&mut self.damages) {
            let owner = self.heads.iter().find(|(_, it)| it.last_commit == Some(damage.commit));
            let place = owner.map(|(place, _)| *place);
            let log = place.and_then(|place| self.logs.get(&place));
            let seq = log.map_or(u64::from(place.is_some()), |log| log.account.next_seq);
            self.fault(place, seq, damage.commit, damage.what);
        }
        self.compare_retired();
        if let Some(kept) = kept {
            self.compare_accounts(kept);
        }
        for log in self.logs.values_mut() {
            let seq = log.account.next_seq - 1;
            log.anchor(seq);
        }
        Outcome { logs: self.logs, faults: self.faults, beyond: self.beyond }
    }

    /// Logs that a head remembers and that are not its current one, and those whose last entry was
    /// not found.
    fn compare_retired(&mut self) {
        let heads: Vec<(LogPlace, HeadWord)> =
            std::mem::take(&mut self.heads).into_iter().collect();
        for (place, head) in heads {
            let log = self.logs.get(&place);
            let what = match log {
                Some(log) if log.last_commit > self.heads_at => None,
                Some(log) => log.differs(&head.log),
                None if head.log.next_seq == 1 => None,
                None if self.is_all_expired(head.last_commit.unwrap_or(0)) => None,
                None => Some(format!(
                    "the head says that chunks up to {} are stored; none is in the journal",
                    head.log.next_seq - 1
                )),
            };
            let seq = log.map_or(1, |log| log.account.next_seq);
            if let Some(what) = what {
                self.fault(Some(place), seq, head.last_commit.unwrap_or(0), what);
                self.row(place).miss(head.log.next_index);
            }
        }
    }

    /// A log that the counters know and of which the journal has nothing at all.
    fn miss(&mut self, place: LogPlace, kept: &KeptAccount) {
        let stored = kept.account.sums().stored;
        // The sum of old logs is of several, of which the journal may have none any more.
        let is_sum = place.log == LogId([0; 16]);
        if stored == 0 || is_sum || self.is_all_expired(kept.last_commit) {
            return;
        }
        let what = format!(
            "the counters say {stored} stored, to index {}; the journal has nothing of it",
            kept.account.produced()
        );
        self.fault(Some(place), 1, kept.last_commit, what);
        self.row(place).miss(kept.account.produced().saturating_add(1));
    }

    fn compare_accounts(&mut self, kept: &BTreeMap<LogPlace, KeptAccount>) {
        for (place, known) in kept {
            let kept = &known.account;
            let Some(log) = self.logs.get(place).filter(|log| log.last_commit > 0) else {
                self.miss(*place, known);
                continue;
            };
            let (found, told) = (log.account.sums(), kept.sums());
            let expired = found.dropped.get("retention").copied().unwrap_or(0);
            if expired > 0 || kept.sums().dropped.contains_key("retention") {
                // What is gone cannot be compared; the end can.
                if log.account.produced() == kept.produced() {
                    continue;
                }
            } else if found == told && log.account.next_seq == kept.next_seq {
                continue;
            }
            let what = format!(
                "the counters say {} stored, {} dropped, to index {}; the journal has {}, {}, {}",
                told.stored,
                told.dropped_in_all(),
                kept.produced(),
                found.stored,
                found.dropped_in_all(),
                log.account.produced()
            );
            let (seq, commit) = (log.account.next_seq.min(kept.next_seq), log.last_commit);
            self.fault(Some(*place), seq, commit, what);
        }
    }
}

impl Verified {
    fn begin(chain: Chain) -> Self {
        Self {
            account: Account::bounded(SCAN_RUNS_MAX),
            next_index: 1,
            chain,
            anchors: Vec::new(),
            last_commit: 0,
            is_anchored: true,
            is_bad: false,
        }
    }

    /// Everything before `next_index` that the journal does not have is missing.
    fn miss(&mut self, next_index: u64) {
        self.account.fill(next_index, RunKind::Missing);
    }

    fn take(&mut self, entry: &StoredEntry<'_>, chain: Chain) {
        if entry.opens && self.is_anchored {
            self.anchor(entry.from_seq - 1);
        }
        match &entry.what {
            StoredWhat::Chunk(_, _, pieces) => {
                self.account.take_chunk(entry.seq, entry.first_index, pieces.iter().copied());
                self.next_index = self.account.produced() + 1;
            }
            StoredWhat::Jump(jump) => {
                if !cfg!(mutant = "scan_counts_no_jumps") {
                    self.account.take_jump(entry.first_index, jump);
                }
                let next_index = jump.to_index.map(|index| index.saturating_add(1));
                self.next_index = next_index.unwrap_or(entry.first_index);
            }
            StoredWhat::Unreadable => self.account.reach(entry.seq),
        }
        // After a fault the chain goes on from the word that was kept: one fault is one fault.
        self.chain = entry.kept.unwrap_or(chain);
        self.is_anchored = true;
        self.last_commit = entry.commit;
        if matches!(entry.what, StoredWhat::Jump(_)) {
            self.anchor(entry.seq);
        }
    }

    /// Notes the chain as it is now as that after `seq`.
    fn anchor(&mut self, seq: u64) {
        if seq == 0 || self.anchors.last().is_some_and(|last| last.seq == seq) {
            return;
        }
        if self.anchors.len() >= ANCHORS_MAX {
            self.anchors.remove(0);
        }
        self.anchors.push(LedgerAnchor { seq, chain: self.chain });
    }

    fn differs(&self, head: &RetiredLog) -> Option<String> {
        if (head.next_seq, head.next_index) != (self.account.next_seq, self.next_index) {
            return Some(format!(
                "the head says that chunk {} at index {} comes next; the journal ends before \
                 chunk {} at index {}",
                head.next_seq, head.next_index, self.account.next_seq, self.next_index
            ));
        }
        let differs = head.chain != self.chain;
        differs.then(|| "the head has another chain than the journal".to_owned())
    }
}

/// What a scan came to.
#[derive(Debug)]
pub struct Outcome {
    /// Every log.
    pub logs: BTreeMap<LogPlace, Verified>,
    /// The first fault of each bad log.
    pub faults: Vec<Fault>,
    /// Faults that are not named because there are too many.
    pub beyond: u64,
}

mod single;
#[cfg(test)]
mod tests;
