//! Power cuts, failing disks and missing directories.

use std::sync::Arc;

use lapwing_store::journal::{Journal, Partitions};
use lapwing_store::{Batch, Blame, Refusal};

use crate::rig::*;

#[test]
fn a_power_cut_keeps_every_acknowledged_entry_with_its_head() {
    for unsynced_kept in [0, 1, 100] {
        let partitions = in_memory();
        let journal = open(&partitions);
        for day in 0..4 {
            (0..5).for_each(|sensor| assert!(commit(&journal, append(sensor, day, day)) > 0));
        }
        let acknowledged = journal.durable();
        partitions.cut_power(unsynced_kept);
        drop(journal);
        let journal = open(&partitions);
        assert_eq!(journal.durable(), acknowledged);
        assert_eq!(commit_ids(&journal, 1), (1..=20).collect::<Vec<_>>());
        let head = journal.head(&lane(4)).unwrap().unwrap();
        assert_eq!((head.last_commit, head.segment_start), (20, 20));
        assert_eq!(commit(&journal, append(0, 9, 3)), 21);
    }
}

#[test]
fn a_failed_sync_acknowledges_nothing_and_shows_nothing() {
    let partitions = in_memory();
    let journal = open(&partitions);
    commit(&journal, append(1, 1, 0));
    partitions.newest_disk().unwrap().fail_next_sync();
    let error = journal.append(append(1, 1, 0)).unwrap().wait().unwrap_err();
    assert_eq!(error.blame, Blame::Simulated);
    assert_eq!(journal.durable(), 1);
    journal.close();
    let refused = journal.append(append(1, 1, 0)).unwrap_err();
    assert_eq!(refused.why, Refusal::Stopped(error));
    partitions.cut_power(0);
    drop(journal);
    let journal = open(&partitions);
    assert_eq!((journal.durable(), journal.boots()), (1, 2));
    assert_eq!(commit(&journal, append(1, 1, 0)), 2);
}

#[test]
fn a_partition_whose_creation_was_interrupted_is_made_anew() {
    let partitions = in_memory();
    let journal = open(&partitions);
    commit(&journal, append(1, 1, 0));
    drop(journal);
    let half_made = partitions.create(2).unwrap();
    let mut batch = Batch::new();
    batch.put(b"h half of the heads", b"x").unwrap();
    half_made.apply(batch).unwrap();
    drop(half_made);
    let journal = open(&partitions);
    assert_eq!(firsts(&journal), [1]);
    assert_eq!(commit(&journal, append(1, 1, 1)), 2);
    assert_eq!(firsts(&journal), [1, 2]);
}

#[test]
fn a_creation_that_fails_stops_the_journal_and_loses_nothing() {
    let partitions = in_memory();
    let journal = open(&partitions);
    commit(&journal, append(1, 1, 0));
    partitions.newest_disk().unwrap().fail_next_apply();
    // The new partition is made, but the old one cannot note its successor.
    assert!(journal.append(append(1, 1, 1)).unwrap().wait().is_err());
    drop(journal);
    let journal = open(&partitions);
    assert_eq!((firsts(&journal), journal.durable()), (vec![1, 2], 1));
    assert_eq!(commit(&journal, append(1, 1, 1)), 2);
}

#[test]
fn a_lost_partition_is_damage_and_never_a_fresh_start() {
    for lost in [1, 2, 3] {
        let partitions = in_memory();
        let journal = open(&partitions);
        (0..3).for_each(|day| assert!(commit(&journal, append(1, day, day)) > 0));
        drop(journal);
        partitions.remove(lost).unwrap();
        let error = Journal::open(Arc::clone(&partitions) as _, &options(0)).unwrap_err();
        assert!(error.is_damage(), "{error}");
        assert!(error.to_string().contains(&format!("{lost:016x}")), "{error}");
    }
}

#[test]
fn a_lost_newest_entry_is_noticed_by_its_head() {
    let partitions = in_memory();
    let journal = open(&partitions);
    (0..3).for_each(|_| assert!(commit(&journal, append(1, 1, 0)) > 0));
    drop(journal);
    let store = partitions.open(1).unwrap();
    let mut batch = Batch::new();
    batch.delete(b"c\0\0\0\0\0\0\0\x03\0\0").unwrap();
    store.apply(batch).unwrap();
    drop(store);
    let error = Journal::open(Arc::clone(&partitions) as _, &options(0)).unwrap_err();
    assert!(error.is_damage(), "{error}");
}

#[test]
fn a_missing_entry_in_the_middle_is_damage_when_it_is_read() {
    let partitions = in_memory();
    let journal = open(&partitions);
    (0..3).for_each(|_| assert!(commit(&journal, append(1, 1, 0)) > 0));
    drop(journal);
    let store = partitions.open(1).unwrap();
    let mut batch = Batch::new();
    batch.delete(b"c\0\0\0\0\0\0\0\x02\0\0").unwrap();
    store.apply(batch).unwrap();
    drop(store);
    let journal = open(&partitions);
    assert!(journal.entry(3).is_ok());
    assert!(journal.entry(2).unwrap_err().is_damage());
    assert!(journal.read_from(1, Default::default()).unwrap_err().is_damage());
    assert!(journal.log_range(&log(1, 1), 0..=9).unwrap_err().is_damage());
}
