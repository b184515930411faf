//! The row of commit ids as a feed: dense, durable, paged, across partitions.

use std::sync::Arc;

use futures_lite::future::{block_on, or, poll_once};
use lapwing_store::journal::{Append, Incarnation, Journal, JournalOptions, PageLimit};
use lapwing_store::limits::BOOTS_SKIPPED;
use lapwing_store::{Misuse, Refusal};

use lapwing_store::Engine;

use crate::rig::*;

#[test]
fn entries_come_back_as_received_with_dense_ids() {
    let journal = open(&in_memory());
    for (n, body) in [0, 1, 3000, 4091, 20_000, 256 << 10].into_iter().enumerate() {
        let body: Vec<u8> = (0..body).map(|n: u32| n.to_le_bytes()[0]).collect();
        let id = commit(&journal, Append { body: body.clone(), ..append(3, 7, 0) });
        assert_eq!(id, n as u64 + 1);
        let entry = journal.entry(id).unwrap().unwrap();
        assert_eq!((entry.commit_id, entry.log, entry.segment), (id, log(3, 1), 7));
        assert_eq!((entry.header, entry.received_wall_ms), (vec![3; 10], 5));
        assert!(entry.body == body, "a body of {} bytes", body.len());
    }
    assert_eq!(commit_ids(&journal, 0), [1, 2, 3, 4, 5, 6]);
    assert_eq!(journal.entry(7).unwrap(), None);
    assert_eq!(journal.entry(0).unwrap(), None);
}

#[test]
fn pages_keep_their_limits_and_say_where_to_continue() {
    let journal = open(&in_memory());
    (0..10).for_each(|_| assert!(commit(&journal, append(1, 1, 0)) > 0));
    let three = PageLimit { entries: 3, ..PageLimit::default() };
    let page = journal.read_from(1, three).unwrap();
    assert_eq!((page.entries.len(), page.next), (3, 4));
    let bytes = PageLimit { bytes: 111, ..PageLimit::default() };
    let page = journal.read_from(4, bytes).unwrap();
    assert_eq!((page.entries.len(), page.next), (2, 6), "110 bytes an entry");
    let page = journal.read_from(11, three).unwrap();
    assert!(page.entries.is_empty() && page.next == 11 && page.dropped.is_empty());
}

#[test]
fn the_feed_runs_across_days_and_partitions_with_two_open_at_most() {
    let partitions = Counted::new();
    let journal = Journal::open(Arc::clone(&partitions) as _, &options(0)).unwrap();
    for day in 0..6 {
        (0..4).for_each(|sensor| assert!(commit(&journal, append(sensor, day, day)) > 0));
    }
    assert_eq!(firsts(&journal), [1, 5, 9, 13, 17, 21]);
    assert_eq!(commit_ids(&journal, 1), (1..=24).collect::<Vec<_>>());
    assert_eq!(commit_ids(&journal, 7), (7..=24).collect::<Vec<_>>());
    for id in [24, 1, 23, 2, 12, 13, 1] {
        assert_eq!(journal.entry(id).unwrap().unwrap().commit_id, id);
    }
    drop(journal);
    let journal = Journal::open(Arc::clone(&partitions) as _, &options(5)).unwrap();
    assert_eq!(commit_ids(&journal, 1), (1..=24).collect::<Vec<_>>());
    assert_eq!(partitions.most(), 2);
}

#[test]
fn a_partition_ends_at_its_bytes_too_and_never_for_a_clock_that_goes_back() {
    let options = JournalOptions { partition_bytes_max: 1000, ..options(5) };
    let journal = Journal::open(in_memory(), &options).unwrap();
    for day in [5, 4, 3, 5] {
        commit(&journal, append(1, 1, day));
    }
    assert_eq!(firsts(&journal), [1]);
    (0..8).for_each(|_| assert!(commit(&journal, append(1, 1, 5)) > 0));
    let firsts = firsts(&journal);
    assert!(
        firsts.len() == 3 && firsts.windows(2).all(|pair| pair[1] - pair[0] < 10),
        "{firsts:?}"
    );
}

#[test]
fn reopening_continues_counts_boots_and_keeps_the_incarnation() {
    Engine::ALL.into_iter().for_each(reopening_on);
}

fn reopening_on(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    for boot in 1..=3 {
        let journal = Journal::open(on_disk(&directory, engine), &options(boot)).unwrap();
        assert_eq!((journal.boots(), journal.incarnation()), (boot, INCARNATION));
        assert_eq!(journal.durable(), (boot - 1) * 2);
        assert_eq!(commit(&journal, append(1, boot, boot)), boot * 2 - 1);
        assert_eq!(commit(&journal, append(2, boot, boot)), boot * 2);
        assert_eq!(commit_ids(&journal, 1), (1..=boot * 2).collect::<Vec<_>>());
    }
    let renewed = JournalOptions::new(Incarnation::Renew([1; 16]), 0);
    let journal = Journal::open(on_disk(&directory, engine), &renewed).unwrap();
    // Another life: beyond all that the former one may have had.
    assert_eq!((journal.boots(), journal.incarnation()), (3 + BOOTS_SKIPPED, [1; 16]));
}

#[test]
fn what_is_too_long_is_given_back() {
    let journal = open(&in_memory());
    for (item, misuse) in [
        (Append { header: vec![0; 1025], ..append(1, 1, 0) }, Misuse::HeaderTooLong(1025)),
        (Append { body: vec![0; 262_145], ..append(1, 1, 0) }, Misuse::BodyTooLong(262_145)),
        (Append { head: vec![0; 1025], ..append(1, 1, 0) }, Misuse::HeadTooLong(1025)),
        (append(1, u64::MAX, 0), Misuse::SegmentReserved),
    ] {
        let refused = *journal.append(item.clone()).unwrap_err();
        assert!(refused.item == item && refused.why == Refusal::Misuse(misuse));
    }
    assert_eq!(commit(&journal, append(1, 1, 0)), 1);
}

#[test]
fn a_reader_is_told_when_there_is_something_new() {
    let journal = Arc::new(open(&in_memory()));
    block_on(async {
        assert!(poll_once(journal.changed_past(0)).await.is_none());
        let appended = journal.append(append(1, 1, 0)).unwrap();
        journal.changed_past(0).await;
        appended.await.unwrap();
        let second = async {
            journal.changed_past(1).await;
            2
        };
        let first = async {
            journal.append(append(1, 1, 0)).unwrap().await.unwrap();
            futures_lite::future::pending().await
        };
        assert_eq!(or(first, second).await, 2);
    });
}

#[test]
fn many_sensors_share_flushes_while_a_reader_follows_through_new_partitions() {
    let partitions = in_memory();
    let options = JournalOptions { partition_bytes_max: 20_000, ..options(0) };
    let journal = Arc::new(Journal::open(Arc::clone(&partitions) as _, &options).unwrap());
    let total = 8 * 100;
    let seen = smol::block_on(async {
        let writers: Vec<_> = (0..8_u8)
            .map(|sensor| {
                let journal = Arc::clone(&journal);
                smol::spawn(async move {
                    for n in 0..100 {
                        journal.append(append(sensor, n / 10, 0)).unwrap().await.unwrap();
                    }
                })
            })
            .collect();
        let mut seen = Vec::new();
        while seen.len() < total {
            let next = seen.len() as u64 + 1;
            journal.changed_past(next - 1).await;
            let reading = Arc::clone(&journal);
            let page = smol::unblock(move || reading.read_from(next, PageLimit::default())).await;
            seen.extend(page.unwrap().entries);
        }
        for writer in writers {
            writer.await;
        }
        seen
    });
    assert!(seen.iter().map(|entry| entry.commit_id).eq(1..=total as u64));
    assert!(firsts(&journal).len() > 3);
    for sensor in 0..8 {
        let own = seen.iter().filter(|entry| entry.log == log(sensor, 1));
        assert!(own.map(|entry| entry.segment).eq((0..100).map(|n| n / 10)));
    }
}
