//! Heads, the index of segments, and the walk along one log.

use lapwing_store::journal::{Append, Head, Journal};

use lapwing_store::Engine;

use crate::rig::*;

fn range(
    journal: &Journal,
    sensor: u8,
    log_id: u8,
    segments: std::ops::RangeInclusive<u64>,
) -> Vec<u64> {
    let range = journal.log_range(&log(sensor, log_id), segments).unwrap();
    assert!(range.complete);
    range.commits
}

#[test]
fn a_head_moves_with_its_lane() {
    let journal = open(&in_memory());
    assert_eq!(journal.head(&lane(1)).unwrap(), None);
    for (segment, start) in [(1, 1), (1, 1), (2, 5)] {
        let last_commit = commit(&journal, append(1, segment, 0));
        commit(&journal, append(2, 9, 0));
        let expected = Head {
            log: [1; 16],
            segment,
            segment_start: start,
            last_commit,
            record: vec![1, 0xee],
        };
        assert_eq!(journal.head(&lane(1)).unwrap(), Some(expected));
    }
    let heads = journal.heads(None, 10).unwrap();
    assert_eq!(heads.iter().map(|(lane, _)| lane.sensor[0]).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(journal.heads(Some(&lane(1)), 10).unwrap(), heads[1..]);
}

#[test]
fn heads_are_in_the_newest_partition_whichever_sensors_are_quiet() {
    Engine::ALL.into_iter().for_each(heads_on);
}

fn heads_on(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(on_disk(&directory, engine), &options(0)).unwrap();
    for sensor in 0..50 {
        commit(&journal, append(sensor, 1, 0));
    }
    let before = journal.heads(None, 100).unwrap();
    assert_eq!(before.len(), 50);
    for day in 1..4 {
        commit(&journal, append(50, day, day));
    }
    drop(journal);
    let journal = Journal::open(on_disk(&directory, engine), &options(3)).unwrap();
    assert_eq!(firsts(&journal), [1, 51, 52, 53]);
    let after = journal.heads(None, 100).unwrap();
    assert_eq!(after[..50], before);
    // A quiet sensor goes on where it was, in the same segment.
    assert_eq!(commit(&journal, append(7, 1, 3)), 54);
    assert_eq!(journal.head(&lane(7)).unwrap().unwrap().segment_start, 8);
    assert_eq!(range(&journal, 7, 1, 0..=9), [8, 54]);
}

#[test]
fn the_entries_of_a_log_are_found_by_segments_across_partitions() {
    let journal = open(&in_memory());
    // Commit ids: sensor 1 has the odd ones, sensor 2 the even ones; a segment is a day.
    for day in 1..5 {
        for _ in 0..2 {
            commit(&journal, append(1, day, day));
            commit(&journal, append(2, 1, day));
        }
    }
    assert_eq!(range(&journal, 1, 1, 4..=4), [13, 15]);
    assert_eq!(range(&journal, 1, 1, 2..=3), [5, 7, 9, 11]);
    assert_eq!(range(&journal, 1, 1, 0..=u64::MAX), [1, 3, 5, 7, 9, 11, 13, 15]);
    assert_eq!(range(&journal, 2, 1, 1..=1), [2, 4, 6, 8, 10, 12, 14, 16]);
    assert_eq!(range(&journal, 1, 1, 5..=9), []);
    assert_eq!(range(&journal, 3, 1, 0..=9), []);
    assert_eq!(journal.segments(&log(1, 1), 2, 2).unwrap(), [(2, 5), (3, 9)]);
}

#[test]
fn a_log_that_was_left_can_still_be_walked() {
    let journal = open(&in_memory());
    let in_log =
        |log_id: u8, segment, day| Append { log: log(1, log_id), ..append(1, segment, day) };
    for (log_id, segment, day) in [(1, 1, 0), (1, 2, 0), (1, 2, 1), (5, 1, 1), (5, 1, 2), (1, 3, 2)]
    {
        commit(&journal, in_log(log_id, segment, day));
    }
    assert_eq!(range(&journal, 1, 5, 0..=9), [4, 5]);
    assert_eq!(range(&journal, 1, 1, 2..=2), [2, 3]);
    assert_eq!(range(&journal, 1, 1, 3..=3), [6]);
    let head = journal.head(&lane(1)).unwrap().unwrap();
    assert_eq!((head.log, head.segment, head.segment_start), ([1; 16], 3, 6));
}

#[test]
fn a_forgotten_head_is_gone_in_later_partitions_too() {
    let partitions = in_memory();
    let journal = open(&partitions);
    commit(&journal, append(1, 1, 0));
    commit(&journal, append(2, 1, 0));
    assert_eq!(journal.forget_head(lane(1)).unwrap().wait().unwrap(), 2);
    commit(&journal, append(2, 1, 1));
    drop(journal);
    let journal = open(&partitions);
    assert_eq!(journal.head(&lane(1)).unwrap(), None);
    assert_eq!(journal.heads(None, 9).unwrap().len(), 1);
    assert_eq!(range(&journal, 1, 1, 0..=9), [1], "its entries can still be read");
    assert_eq!(commit(&journal, append(1, 2, 1)), 4);
    assert_eq!(range(&journal, 1, 1, 0..=9), [1, 4], "and are joined when it comes back");
}
