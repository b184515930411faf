//! Retention: whole partitions by age and size, never what a live head needs, never in silence.

use lapwing_store::journal::{Journal, Kept, PageLimit, Retention};

use lapwing_store::Engine;

use crate::rig::*;

fn older_than(day: u64) -> Retention {
    Retention { before_wall_ms: Some(day * DAY_MS + 5), ..Retention::default() }
}

/// Five days; sensor 1 opens a segment a day, sensor 2 speaks on days 0 and 1 in one segment.
fn five_days(journal: &Journal) {
    for day in 0..5 {
        commit(journal, append(1, day, day));
        if day < 2 {
            commit(journal, append(2, 1, day));
        }
    }
}

#[test]
fn old_partitions_go_except_those_a_live_segment_reaches_into() {
    let journal = open(&in_memory());
    five_days(&journal);
    assert_eq!(firsts(&journal), [1, 3, 5, 6, 7]);
    let report = journal.retain(older_than(4)).unwrap();
    assert_eq!(report.dropped.iter().map(|p| p.first).collect::<Vec<_>>(), [5, 6]);
    let live = Kept::LiveSegment { lane: lane(2), segment_start: 2 };
    let kept: Vec<_> = report.kept.iter().map(|(p, why)| (p.first, *why)).collect();
    assert_eq!(kept, [(1, live), (3, live)]);
    assert_eq!(firsts(&journal), [1, 3, 7]);

    let page = journal.read_from(1, PageLimit::default()).unwrap();
    assert_eq!(page.entries.iter().map(|e| e.commit_id).collect::<Vec<_>>(), [1, 2, 3, 4, 7]);
    assert_eq!((page.dropped, page.next), (vec![5..7], 8));
    assert_eq!(journal.entry(5).unwrap(), None);
    let walked = journal.log_range(&log(1, 1), 0..=4).unwrap();
    assert_eq!((walked.commits, walked.complete), (vec![7], false));
    let walked = journal.log_range(&log(2, 1), 0..=4).unwrap();
    assert_eq!((walked.commits, walked.complete), (vec![2, 4], true));

    // The sensor sends a keyframe: what its old segment held may go.
    commit(&journal, append(2, 2, 4));
    let report = journal.retain(older_than(4)).unwrap();
    assert_eq!(report.dropped.iter().map(|p| p.first).collect::<Vec<_>>(), [1, 3]);
    assert!(report.kept.is_empty());
    let page = journal.read_from(1, PageLimit::default()).unwrap();
    assert_eq!(page.dropped, vec![1..7]);
}

#[test]
fn the_newest_partition_stays_whatever_is_asked() {
    let journal = open(&in_memory());
    commit(&journal, append(1, 1, 0));
    let all = Retention { before_wall_ms: Some(u64::MAX), bytes_max: Some(0), unread_from: None };
    let report = journal.retain(all).unwrap();
    assert!(report.dropped.is_empty() && report.kept.is_empty());
}

#[test]
fn size_drops_the_oldest_first() {
    let journal = open(&in_memory());
    five_days(&journal);
    commit(&journal, append(2, 2, 4));
    let bytes: Vec<u64> = journal.partitions().unwrap().iter().map(|p| p.bytes).collect();
    let bytes_max = bytes[2..].iter().sum();
    let report = journal.retain(Retention { bytes_max: Some(bytes_max), ..Default::default() });
    let report = report.unwrap();
    assert_eq!(report.dropped.iter().map(|p| p.first).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(report.bytes, bytes_max);
}

#[test]
fn a_forgotten_sensor_holds_nothing_back() {
    let journal = open(&in_memory());
    five_days(&journal);
    journal.forget_head(lane(2)).unwrap().wait().unwrap();
    let report = journal.retain(older_than(4)).unwrap();
    assert_eq!((report.dropped.len(), report.kept.len()), (4, 0));
}

#[test]
fn dropping_survives_reopening_and_an_interrupted_removal_is_finished() {
    Engine::ALL.into_iter().for_each(dropping_on);
}

fn dropping_on(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(on_disk(&directory, engine), &options(0)).unwrap();
    five_days(&journal);
    commit(&journal, append(2, 2, 4));
    let dropped = journal.retain(older_than(4)).unwrap().dropped;
    assert_eq!(dropped.len(), 4);
    drop(journal);
    // As if the process had died before it removed the last of them.
    drop(on_disk(&directory, engine).create(6).unwrap());
    let journal = Journal::open(on_disk(&directory, engine), &options(4)).unwrap();
    assert_eq!(firsts(&journal), [7]);
    assert_eq!(on_disk(&directory, engine).list().unwrap(), [7]);
    let page = journal.read_from(1, PageLimit::default()).unwrap();
    assert_eq!((page.entries.len(), page.dropped), (2, vec![1..7]));
}
