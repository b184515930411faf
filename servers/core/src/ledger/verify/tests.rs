//! A small journal, and each way in which it can be wrong.

use lapwing_protocol::delivery::{Jump, JumpCause, LossReason};
use lapwing_protocol::op::DropReason;

use super::*;

const DEPLOYMENT: DeploymentId = DeploymentId([1; 16]);

fn place(log: u8) -> LogPlace {
    LogPlace::new(SensorId([2; 16]), Lane::Bulk, LogId([log; 16]))
}

/// An entry as a journal keeps it.
#[derive(Clone)]
struct Kept {
    commit: u64,
    previous: u64,
    place: LogPlace,
    seq: u64,
    first_index: u64,
    chain: Chain,
    bytes: Vec<u8>,
    jump: Option<Jump>,
}

/// What a journal of chunks of ten facts looks like; logs take turns.
struct Rig {
    entries: Vec<Kept>,
}

impl Rig {
    fn new(logs: u8, chunks: u64) -> Self {
        let mut rig = Self { entries: Vec::new() };
        for _ in 0..chunks {
            (1..=logs).for_each(|log| rig.chunk(log));
        }
        rig
    }

    fn last(&self, log: u8) -> Option<&Kept> {
        self.entries.iter().rev().find(|kept| kept.place == place(log))
    }

    fn chunk(&mut self, log: u8) {
        let of = place(log);
        let start = Chain::start(DEPLOYMENT, of.sensor, Lane::Bulk, of.log);
        let (previous, seq, chain, first_index) = match self.last(log) {
            Some(last) => {
                let count = if last.jump.is_some() { 0 } else { 10 };
                let first = last.jump.and_then(|jump| jump.to_index).map(|it| it + 1);
                let first = first.unwrap_or(last.first_index + count);
                (last.commit, last.seq + 1, last.chain, first)
            }
            None => (0, 1, start, 1),
        };
        let bytes = format!("chunk {seq} of log {log}").into_bytes();
        let chain = chain.next(&bytes);
        let commit = self.entries.len() as u64 + 1;
        let kept = Kept { commit, previous, place: of, seq, first_index, chain, bytes, jump: None };
        self.entries.push(kept);
    }

    fn jump(&mut self, log: u8, to_seq: u64, to_index: Option<u64>, cause: JumpCause) {
        self.chunk(log);
        let kept = self.entries.last_mut().unwrap();
        let chain_at_to = Chain([0x77; 32]);
        let (from_seq, lane) = (kept.seq, Lane::Bulk);
        kept.jump = Some(Jump { lane, from_seq, to_seq, to_index, chain_at_to, cause });
        kept.seq = to_seq;
        kept.chain = chain_at_to;
    }

    fn head(&self, log: u8) -> HeadWord {
        let last = self.last(log).unwrap();
        let log = RetiredLog {
            log: last.place.log,
            next_seq: last.seq + 1,
            next_index: last.first_index + 10,
            chain: last.chain,
            must_open: false,
            segment_seq: 1,
        };
        HeadWord { log, last_commit: Some(last.commit) }
    }

    fn heads(&self, logs: u8) -> BTreeMap<LogPlace, HeadWord> {
        (1..=logs).map(|log| (place(log), self.head(log))).collect()
    }

    /// Scans what `change` makes of the journal.
    fn scan(
        &self,
        heads: BTreeMap<LogPlace, HeadWord>,
        change: impl Fn(&mut Kept) -> Change,
    ) -> Outcome {
        let end = self.entries.len() as u64;
        let mut verifier = Verifier::new(DEPLOYMENT, (heads, end), BTreeMap::new());
        for entry in &self.entries {
            let mut entry = entry.clone();
            match change(&mut entry) {
                Change::Keep => verifier.handle_entry(&entry.view()),
                Change::Gone => {
                    let what = format!("entry {} is gone", entry.commit);
                    verifier.handle_damage(Damage { commit: entry.commit, what });
                }
                Change::Hidden => {}
                Change::Expired => verifier.handle_expired(entry.commit..entry.commit + 1),
            }
        }
        verifier.finish(None)
    }
}

impl Kept {
    fn view(&self) -> StoredEntry<'_> {
        let what = match &self.jump {
            Some(jump) => StoredWhat::Jump(jump),
            None => StoredWhat::Chunk(&self.bytes, self.seq, vec![(RunKind::Stored, 10)]),
        };
        StoredEntry {
            commit: self.commit,
            previous: self.previous,
            place: self.place,
            from_seq: self.jump.map_or(self.seq, |jump| jump.from_seq),
            seq: self.seq,
            first_index: self.first_index,
            opens: self.seq % 10 == 1,
            kept: Some(self.chain),
            what,
        }
    }
}

enum Change {
    Keep,
    Gone,
    Hidden,
    Expired,
}

fn named(outcome: &Outcome) -> Vec<(LogPlace, u64, u64)> {
    let name = |fault: &Fault| (fault.place.unwrap(), fault.seq, fault.commit);
    outcome.faults.iter().map(name).collect()
}

#[test]
fn a_journal_as_it_was_written_has_no_fault() {
    let mut rig = Rig::new(3, 40);
    rig.jump(2, 60, Some(900), JumpCause::Dropped(DropReason::SpoolFull));
    rig.chunk(2);
    rig.jump(3, 50, None, JumpCause::Lost(LossReason::MemoryLost));
    rig.chunk(3);
    let outcome = rig.scan(rig.heads(3), |_| Change::Keep);
    assert_eq!(outcome.faults, []);
    let sums = |log| outcome.logs[&place(log)].account.sums();
    assert_eq!((sums(1).stored, sums(2).stored, sums(3).stored), (400, 410, 410));
    assert_eq!(sums(2).dropped["spool_full"], 500);
    assert_eq!(outcome.logs[&place(3)].account.lost_unknown, 1);
}

#[test]
fn a_flipped_byte_is_named_by_its_chunk_alone() {
    let rig = Rig::new(3, 40);
    let outcome = rig.scan(rig.heads(3), |kept| {
        if kept.place == place(2) && kept.seq >= 17 {
            kept.bytes[0] ^= u8::from(kept.seq == 17);
        }
        Change::Keep
    });
    assert_eq!(named(&outcome), [(place(2), 17, 50)]);
    assert!(outcome.faults[0].what.contains("chain"), "{}", outcome.faults[0].what);
}

/// Someone who changes bytes and the chain beside them cannot change the head as well.
#[test]
fn bytes_with_a_forged_chain_are_found_by_what_follows() {
    let rig = Rig::new(1, 40);
    let outcome = rig.scan(rig.heads(1), |kept| {
        if kept.seq == 17 {
            kept.bytes[0] ^= 1;
            kept.chain = rig.entries[15].chain.next(&kept.bytes);
        }
        Change::Keep
    });
    assert_eq!(named(&outcome), [(place(1), 18, 18)]);
}

#[test]
fn an_entry_that_cannot_be_read_is_named_by_the_one_that_follows_it() {
    let rig = Rig::new(3, 40);
    let gone = |kept: &mut Kept| match (kept.place == place(3), kept.seq) {
        (true, 5) => Change::Gone,
        _ => Change::Keep,
    };
    let outcome = rig.scan(rig.heads(3), gone);
    assert_eq!(named(&outcome), [(place(3), 5, 15)]);
    assert!(outcome.faults[0].what.contains("entry 15 is gone"));
    let sums = outcome.logs[&place(3)].account.sums();
    assert_eq!((sums.stored, sums.missing), (390, 10));
}

#[test]
fn the_last_entry_of_a_log_is_named_by_the_head() {
    let rig = Rig::new(2, 10);
    let gone = |kept: &mut Kept| match kept.commit {
        20 => Change::Gone,
        _ => Change::Keep,
    };
    assert_eq!(named(&rig.scan(rig.heads(2), gone)), [(place(2), 10, 20)]);
    let cut = |kept: &mut Kept| match kept.commit {
        20 => Change::Hidden,
        _ => Change::Keep,
    };
    assert_eq!(named(&rig.scan(rig.heads(2), cut)), [(place(2), 10, 20)]);
}

#[test]
fn a_hole_that_no_damage_explains_is_named_too() {
    let rig = Rig::new(1, 10);
    let hidden = |kept: &mut Kept| match kept.seq {
        4..=6 => Change::Hidden,
        _ => Change::Keep,
    };
    let outcome = rig.scan(rig.heads(1), hidden);
    assert_eq!(named(&outcome), [(place(1), 4, 7)]);
    assert!(outcome.faults[0].what.contains("4 to 6"));
}

#[test]
fn what_retention_dropped_is_no_fault_and_the_rest_is_verified() {
    let rig = Rig::new(2, 40);
    let old = |kept: &mut Kept| match kept.commit {
        1..=50 => Change::Expired,
        _ => Change::Keep,
    };
    let outcome = rig.scan(rig.heads(2), old);
    assert_eq!(outcome.faults, []);
    let sums = outcome.logs[&place(1)].account.sums();
    assert_eq!((sums.stored, sums.dropped["retention"], sums.missing), (150, 250, 0));
    let outcome = rig.scan(rig.heads(2), |kept| {
        kept.bytes[0] ^= u8::from(kept.commit == 61);
        if kept.commit <= 50 { Change::Expired } else { Change::Keep }
    });
    assert_eq!(named(&outcome), [(place(1), 31, 61)]);
}

#[test]
fn counters_heads_and_the_sensors_word_that_differ_are_named() {
    let rig = Rig::new(1, 10);
    let mut head = rig.head(1);
    head.log.next_seq = 12;
    let heads = BTreeMap::from([(place(1), head)]);
    let outcome = rig.scan(heads, |_| Change::Keep);
    assert!(outcome.faults[0].what.contains("chunk 12"), "{:?}", outcome.faults);

    let word = SensorWord { seq: 6, chain: Chain([9; 32]) };
    let words = BTreeMap::from([(place(1), word)]);
    let mut verifier = Verifier::new(DEPLOYMENT, (rig.heads(1), 10), words);
    rig.entries.iter().for_each(|kept| verifier.handle_entry(&kept.view()));
    let mut account = Account::default();
    account.take_chunk(1, 1, [(RunKind::Stored, 100)]);
    let outcome = verifier.finish(Some(&BTreeMap::from([(place(1), known(account))])));
    assert_eq!(named(&outcome), [(place(1), 6, 6)], "of each log the first alone");

    let mut verifier = Verifier::new(DEPLOYMENT, (rig.heads(1), 10), BTreeMap::new());
    rig.entries.iter().for_each(|kept| verifier.handle_entry(&kept.view()));
    let mut account = Account::default();
    account.take_chunk(10, 1, [(RunKind::Stored, 101)]);
    let outcome = verifier.finish(Some(&BTreeMap::from([(place(1), known(account))])));
    assert!(outcome.faults[0].what.contains("101 stored"), "{:?}", outcome.faults);
}

#[test]
fn a_log_that_was_stored_twice_counts_once() {
    let mut rig = Rig::new(1, 10);
    let again: Vec<Kept> = rig.entries[3..8].to_vec();
    for (at, mut kept) in again.into_iter().enumerate() {
        kept.commit = 11 + at as u64;
        rig.entries.push(kept);
    }
    let outcome = rig.scan(BTreeMap::new(), |_| Change::Keep);
    assert_eq!(outcome.faults, []);
    assert_eq!(outcome.logs[&place(1)].account.sums().stored, 100);
}

fn known(account: Account) -> KeptAccount {
    KeptAccount { account, last_commit: 10 }
}

#[test]
fn a_log_of_which_the_journal_has_nothing_is_named_and_does_not_balance() {
    let rig = Rig::new(2, 10);
    let account = |last_commit| {
        let mut account = Account::default();
        account.take_chunk(10, 1, [(RunKind::Stored, 100)]);
        KeptAccount { account, last_commit }
    };
    let kept = BTreeMap::from([(place(1), account(19)), (place(2), account(20))]);
    let scan = |expired: Option<Range<u64>>| {
        // The head is gone with the entries.
        let heads = BTreeMap::from([(place(1), rig.head(1))]);
        let mut verifier = Verifier::new(DEPLOYMENT, (heads, 20), BTreeMap::new());
        let left = rig.entries.iter().filter(|entry| entry.place == place(1));
        left.for_each(|entry| verifier.handle_entry(&entry.view()));
        expired.into_iter().for_each(|range| verifier.handle_expired(range));
        verifier.finish(Some(&kept))
    };
    let outcome = scan(None);
    assert_eq!(named(&outcome), [(place(2), 1, 20)]);
    assert!(outcome.faults[0].what.contains("the journal has nothing of it"));
    let sums = outcome.logs[&place(2)].account.sums();
    assert_eq!((sums.stored, sums.missing), (0, 100));

    // Retention of other entries hides nothing; that of its own last one explains it.
    assert_eq!(named(&scan(Some(1..3))), [(place(2), 1, 20)]);
    assert_eq!(named(&scan(Some(1..21))), []);
}

#[test]
fn a_head_alone_names_a_log_of_which_nothing_is_left() {
    let rig = Rig::new(2, 10);
    let scan = |expired: Option<Range<u64>>| {
        let mut verifier = Verifier::new(DEPLOYMENT, (rig.heads(2), 20), BTreeMap::new());
        let left = rig.entries.iter().filter(|entry| entry.place == place(1));
        left.for_each(|entry| verifier.handle_entry(&entry.view()));
        expired.into_iter().for_each(|range| verifier.handle_expired(range));
        // Nothing was counted.
        verifier.finish(None)
    };
    let outcome = scan(None);
    assert_eq!(named(&outcome), [(place(2), 1, 20)]);
    assert!(outcome.faults[0].what.contains("the head says"), "{:?}", outcome.faults);
    let sums = outcome.logs[&place(2)].account.sums();
    assert_eq!((sums.stored, sums.missing), (0, 100));
    assert_eq!(named(&scan(Some(1..3))), [(place(2), 1, 20)]);
    assert_eq!(named(&scan(Some(1..21))), []);

    // The counters say the same of it: that is no second fault.
    let mut account = Account::default();
    account.take_chunk(10, 1, [(RunKind::Stored, 100)]);
    let kept = BTreeMap::from([(place(2), KeptAccount { account, last_commit: 20 })]);
    let mut verifier = Verifier::new(DEPLOYMENT, (rig.heads(2), 20), BTreeMap::new());
    let left = rig.entries.iter().filter(|entry| entry.place == place(1));
    left.for_each(|entry| verifier.handle_entry(&entry.view()));
    assert_eq!(named(&verifier.finish(Some(&kept))), [(place(2), 1, 20)]);
}

#[test]
fn what_only_the_head_remembers_of_the_end_of_a_log_is_missing() {
    let rig = Rig::new(1, 10);
    let hidden = |entry: &mut Kept| match entry.commit {
        1..8 => Change::Keep,
        _ => Change::Hidden,
    };
    let outcome = rig.scan(rig.heads(1), hidden);
    assert_eq!(named(&outcome), [(place(1), 8, 10)]);
    let sums = outcome.logs[&place(1)].account.sums();
    assert_eq!((sums.stored, sums.missing), (70, 30));
}

#[test]
fn the_sum_of_old_logs_is_held_against_nothing() {
    let rig = Rig::new(1, 10);
    let mut account = Account::default();
    account.take_chunk(10, 1, [(RunKind::Stored, 100)]);
    let kept = BTreeMap::from([(place(0), known(account))]);
    let mut verifier = Verifier::new(DEPLOYMENT, (rig.heads(1), 10), BTreeMap::new());
    rig.entries.iter().for_each(|entry| verifier.handle_entry(&entry.view()));
    let outcome = verifier.finish(Some(&kept));
    assert_eq!(named(&outcome), []);
    assert!(!outcome.logs.contains_key(&place(0)));
}
