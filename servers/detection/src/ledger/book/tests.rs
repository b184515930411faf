//! Tests of counting anew, where the journal is another one than before.

use lapwing_protocol::delivery::{Jump, JumpCause, LossReason};
use lapwing_protocol::digest::Chain;
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::ledger::LedgerRun;
use lapwing_store::MemoryDisk;

use super::*;

const COUNTED: RunKind = RunKind::Undecoded;
const LOST: LossReason = LossReason::ServerRolledBack;

fn open(disk: &MemoryDisk) -> (Book, RowStore) {
    let state = RowStore::over(std::sync::Arc::new(disk.open().unwrap())).unwrap();
    (Book::open(state.clone()).unwrap(), state)
}

fn close((book, state): (Book, RowStore)) {
    smol::block_on(book.save()).unwrap();
    state.close();
}

fn entry(commit_id: u64, log: u8, seq: u64, first_index: u64, content: Content) -> Followed {
    Followed {
        commit_id,
        sensor: SensorId([1; 16]),
        lane: Lane::Bulk,
        log: LogId([log; 16]),
        seq,
        segment: 1,
        first_index,
        received_ms: 0,
        content,
    }
}

/// Chunk `seq` of ten facts.
fn chunk(commit_id: u64, log: u8, seq: u64) -> Followed {
    entry(commit_id, log, seq, seq * 10 - 9, Content::Undecoded(DecodeError::Shape, 10))
}

/// A Jump over chunk `seq`.
fn jump(commit_id: u64, seq: u64, to_index: Option<u64>) -> Followed {
    let (lane, chain_at_to, cause) = (Lane::Bulk, Chain([0; 32]), JumpCause::Lost(LOST));
    let jump = Jump { lane, from_seq: seq, to_seq: seq, to_index, chain_at_to, cause };
    entry(commit_id, 1, seq, seq * 10 - 9, Content::Jump(jump))
}

fn count(book: &Book, entries: &[Followed]) {
    for followed in entries {
        book.take(followed);
        book.reach(followed.commit_id);
    }
}

/// A log's first byte, its runs, and holes whose size is not known.
type Shown = (u8, Vec<(RunKind, u64)>, u64);

fn shown(book: &Book) -> Vec<Shown> {
    let mut rows = Vec::new();
    let at_end = book.each(None, None, |place, account| {
        let runs = account.runs().iter().map(|LedgerRun { kind, to_index }| (*kind, *to_index));
        rows.push((place.log.0[0], runs.collect(), account.lost_unknown));
        true
    });
    assert!(at_end);
    rows
}

#[test]
fn a_hole_of_unknown_size_counts_once_when_it_is_counted_anew() {
    let disk = MemoryDisk::new("state");
    let opened = open(&disk);
    let entries = [chunk(1, 1, 1), jump(2, 2, None), chunk(3, 1, 3)];
    count(&opened.0, &entries);
    let before = shown(&opened.0);
    assert_eq!(before[0].2, 1);
    opened.0.begin_anew(1).unwrap();
    count(&opened.0, &entries);
    assert_eq!(shown(&opened.0), before);
    close(opened);
    let opened = open(&disk);
    assert_eq!(shown(&opened.0), before);
    close(opened);
}

#[test]
fn what_a_rollback_took_is_missing_until_it_comes_again_or_is_said_to_be_lost() {
    let missing = [(COUNTED, 20), (RunKind::Missing, 30)];
    let ends = [
        (chunk(3, 1, 3), vec![(COUNTED, 30)]),
        (jump(3, 3, Some(30)), vec![(COUNTED, 20), (RunKind::Lost(LOST), 30)]),
    ];
    for (end, balanced) in ends {
        let disk = MemoryDisk::new("state");
        let opened = open(&disk);
        count(&opened.0, &[chunk(1, 1, 1), chunk(2, 1, 2), chunk(3, 1, 3), chunk(4, 2, 1)]);
        close(opened);
        let opened = open(&disk);
        opened.0.begin_anew(1).unwrap();
        let gone = vec![(RunKind::Missing, 10)];
        let all = vec![(RunKind::Missing, 30)];
        assert_eq!(shown(&opened.0), [(1, all, 0), (2, gone.clone(), 0)], "nothing is there yet");
        count(&opened.0, &[chunk(1, 1, 1), chunk(2, 1, 2)]);
        close(opened);

        let opened = open(&disk);
        assert_eq!(opened.0.counted_to(), 2);
        assert_eq!(shown(&opened.0), [(1, missing.to_vec(), 0), (2, gone.clone(), 0)]);
        // A scan is held against what was counted before.
        let (words, _) = opened.0.snapshot();
        let stored: Vec<u64> = words.values().map(|kept| kept.account.sums().stored).collect();
        assert_eq!(stored, [30, 10]);
        count(&opened.0, &[end]);
        assert_eq!(shown(&opened.0), [(1, balanced.clone(), 0), (2, gone.clone(), 0)]);
        close(opened);
        let opened = open(&disk);
        assert_eq!(shown(&opened.0), [(1, balanced, 0), (2, gone, 0)]);
        close(opened);
    }
}

#[test]
fn what_retention_had_dropped_stays_as_it_was_counted() {
    let disk = MemoryDisk::new("state");
    let opened = open(&disk);
    count(&opened.0, &[chunk(1, 1, 1), chunk(2, 2, 1), chunk(3, 2, 2)]);
    // The first partition is gone, and log 1 with it.
    opened.0.begin_anew(3).unwrap();
    count(&opened.0, &[chunk(3, 2, 2)]);
    let expired = vec![(RunKind::Expired, 10), (COUNTED, 20)];
    assert_eq!(shown(&opened.0), [(1, vec![(COUNTED, 10)], 0), (2, expired, 0)]);
    close(opened);
}
