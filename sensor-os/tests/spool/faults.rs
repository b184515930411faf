//! What a disk does to a spool: it refuses, it lies after a failed sync, it loses its power between
//! any two operations, it rots. Whatever it does, what is missing is told, and what is there is
//! what was written.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lapwing_protocol::delivery::{JumpCause, LossReason};
use lapwing_protocol::hello::LogCause;
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::op::DropReason;
use lapwing_sensor_os::config::Sync;
use lapwing_sensor_os::spool::{LogState, Place, Spool, SpoolError, SpoolOptions};
use proptest::prelude::*;

use crate::disk::{BadDisk, Chance, Fault, Operation};
use crate::{LARGE, LOG, OWNER, SERVER, Sort, append, chunk, place};

const FOLDER: &str = "/spool";
const BULK: (Lane, LogId) = (Lane::Bulk, LOG);

fn open(disk: &BadDisk, options: SpoolOptions) -> Spool {
    Spool::open_on(Arc::new(disk.clone()), Path::new(FOLDER), OWNER, options).unwrap()
}

fn open_first(disk: &BadDisk, options: SpoolOptions) -> Spool {
    let mut spool = open(disk, options);
    spool.open_log(Lane::Bulk, LOG, LogCause::First, None).unwrap();
    spool
}

/// How each chunk of a log is accounted for: its bytes, or why it is not there.
fn account(
    spool: &mut Spool,
    log: LogId,
    to_seq: u64,
) -> BTreeMap<u64, Result<Vec<u8>, JumpCause>> {
    let mut account = BTreeMap::new();
    let mut bytes = Vec::new();
    let end = |state: Option<LogState>| state.filter(|state| state.log == log);
    let state = end(spool.current(Lane::Bulk)).or(end(spool.newest_old(Lane::Bulk)));
    let state = state.unwrap();
    let (mut seq, to_seq) = (state.acked.seq + 1, to_seq.min(state.made.seq));
    while seq <= to_seq {
        match spool.fetch((Lane::Bulk, log), seq, &mut bytes).unwrap() {
            Some(_)
                if spool
                    .holes(Lane::Bulk, log)
                    .iter()
                    .all(|hole| !(hole.from_seq..=hole.to_seq).contains(&seq)) =>
            {
                account.insert(seq, Ok(bytes.clone()));
                seq += 1;
            }
            _ => {
                let hole = spool.handle_damage((Lane::Bulk, log), seq).unwrap();
                for lost in seq..=hole.to_seq.min(to_seq) {
                    account.insert(lost, Err(hole.cause));
                }
                seq = hole.to_seq + 1;
            }
        }
    }
    account
}

#[test]
fn spl_012_after_a_failed_sync_the_next_success_is_not_believed() {
    for operation in [Operation::Sync, Operation::SyncFolder] {
        for appended_before in [0, 3] {
            let disk = BadDisk::default();
            let mut spool = open_first(&disk, LARGE);
            let sort = |at| if at == 0 { Sort::Keyframe } else { Sort::Delta };
            (0..appended_before).for_each(|at| assert!(append(&mut spool, sort(at), 200).is_ok()));
            spool.sync(0).unwrap();
            let more = appended_before..appended_before + 4;
            more.for_each(|at| assert!(append(&mut spool, sort(at), 200).is_ok()));
            let mut left = 1;
            disk.plan(move |asked, _| {
                let fails = asked == operation && left > 0;
                left -= i32::from(fails);
                fails.then_some(Fault::Broken)
            });
            let _ = spool.sync(1);
            while !spool.is_synced() {
                spool.sync(10_000_000_000).unwrap();
            }
            append(&mut spool, Sort::Delta, 200).unwrap();
            spool.sync(20_000_000_000).unwrap();
            let made = spool.current(Lane::Bulk).unwrap().made.seq;
            drop(spool);
            disk.cut_power(&mut Chance(7));
            let mut spool = open(&disk, LARGE);
            let account = account(&mut spool, LOG, made);
            assert!(account.values().all(Result::is_ok), "{operation:?}: {account:?}");
        }
    }
}

#[test]
fn spl_012_a_disk_that_syncs_nothing_takes_no_more_than_memory_holds() {
    let disk = BadDisk::default();
    let mut spool = open_first(&disk, LARGE);
    disk.plan(|asked, _| (asked == Operation::Sync).then_some(Fault::Broken));
    let mut appended = 0_u64;
    while append(&mut spool, Sort::Delta, 8_000).is_ok() {
        appended += 8_000;
        assert!(appended < 8 << 20, "it takes what it could never write again");
        let _ = spool.sync(appended);
    }
    let to = spool.current(Lane::Bulk).unwrap().made;
    let to = Place { seq: to.seq + 1, next_index: to.next_index + 10, ..to };
    let cause = JumpCause::Dropped(DropReason::SpoolFailed);
    assert!(spool.skip(Lane::Bulk, to, cause).is_err());
    disk.mend();
    // What waited goes to the disk before anything new does.
    append(&mut spool, Sort::Keyframe, 100).unwrap();
    spool.sync(0).unwrap();
    drop(spool);
    disk.cut_power(&mut Chance(3));
    let mut spool = open(&disk, LARGE);
    let account = account(&mut spool, LOG, to.seq + 1);
    let missing: Vec<_> = account.iter().filter(|(_, chunk)| chunk.is_err()).collect();
    assert_eq!(missing, [(&to.seq, &Err(cause))]);
}

#[test]
fn spl_003_a_drained_log_is_not_sent_again_after_a_power_cut() {
    let disk = BadDisk::default();
    let options = SpoolOptions { sync: Sync::Each, ..LARGE };
    let mut spool = open_first(&disk, options);
    let places = crate::fill(&mut spool, 7, 100);
    spool.sync(0).unwrap();
    drop(spool);
    let mut spool = open(&disk, options);
    let parent = spool.tail(Lane::Bulk).unwrap().as_parent();
    spool.open_log(Lane::Bulk, LogId([4; 16]), LogCause::Unclean, Some(parent)).unwrap();
    // The last of it may be stored without an Acked event of its own: by a hole, or given up.
    spool.handle_stored(BULK, SERVER, places[4], 0);
    spool.handle_drained(Lane::Bulk, LOG).unwrap();
    drop(spool);
    disk.cut_power(&mut Chance(5));
    let spool = open(&disk, options);
    assert_eq!(spool.tail(Lane::Bulk), None);
    assert_eq!(spool.stored(Lane::Bulk, LOG).len(), 1, "who stored it is known as well");
}

/// A sensor's use of a spool, until the disk is gone: what is on it for good, and what was made.
struct Used {
    /// Chunks that were synced, with `each` those that may have been sent.
    synced: BTreeMap<u64, Vec<u8>>,
    made: BTreeMap<u64, Vec<u8>>,
    acked: u64,
    /// Chunks that the spool or its user dropped by rule.
    dropped: Vec<(u64, u64)>,
}

/// Appends, syncs, acknowledges, trims and drops, as a runner does, until an operation fails.
fn use_spool(spool: &mut Spool, used: &mut Used, chance: &mut Chance) -> Result<(), SpoolError> {
    let mut places = vec![spool.current(Lane::Bulk).unwrap().made];
    for at in 0..40_u64 {
        let before = spool.current(Lane::Bulk).unwrap().made;
        let sort = if at.is_multiple_of(5) { Sort::Keyframe } else { Sort::Delta };
        let bytes = chunk(before.seq + 1, sort, &vec![at as u8; 300 + chance.below(900) as usize]);
        let after = place(&before, &bytes);
        used.made.insert(after.seq, bytes.clone());
        loop {
            match spool.append(at, &bytes, after) {
                Err(SpoolError::Full) => {
                    let Some(trimmed) = spool.make_room()? else { return Ok(()) };
                    used.dropped.extend(trimmed.hole.map(|hole| (hole.from_seq, hole.to_seq)));
                }
                appended => break appended?,
            }
        }
        places.push(after);
        if chance.below(3) == 0 {
            spool.sync(at)?;
            used.synced = used.made.clone();
        }
        if chance.below(4) == 0 {
            let acked = places[chance.below(places.len() as u64) as usize];
            if acked.seq > used.acked {
                used.acked = acked.seq;
                spool.handle_stored(BULK, SERVER, acked, acked.seq);
                spool.note_progress()?;
                spool.trim()?;
            }
        }
    }
    Ok(())
}

/// The power goes after so many operations; says whether it did before the end.
fn cut_after(operations: u64, seed: u64, sync: Sync) -> bool {
    let disk = BadDisk::default();
    let options = SpoolOptions { bytes_max: 16_000, sync, ..LARGE };
    let mut spool = open_first(&disk, options);
    disk.lose_power_after(operations);
    let (synced, made) = (BTreeMap::new(), BTreeMap::new());
    let mut used = Used { synced, made, acked: 0, dropped: Vec::new() };
    let mut chance = Chance(seed);
    let is_cut = use_spool(&mut spool, &mut used, &mut chance).is_err();
    drop(spool);
    disk.cut_power(&mut chance);

    let mut spool = open(&disk, options);
    assert!(!spool.was_clean() && spool.current(Lane::Bulk).is_none());
    let old = spool.newest_old(Lane::Bulk).unwrap();
    let what = format!(
        "seed {seed}, power cut after {operations} operations, {used_acked} acked",
        used_acked = used.acked
    );
    let last_synced = used.synced.keys().last().copied().unwrap_or(0);
    let account = account(&mut spool, LOG, last_synced);
    for (seq, bytes) in &used.synced {
        if *seq <= used.acked {
            continue;
        }
        let is_dropped = used.dropped.iter().any(|(from, to)| (from..=to).contains(&seq));
        match &account[seq] {
            Ok(found) => assert_eq!(found, bytes, "{what}: chunk {seq}"),
            Err(JumpCause::Dropped(DropReason::SpoolFull)) => {}
            Err(cause) => panic!("{what}: chunk {seq} was synced, and is {cause:?}; {is_dropped}"),
        }
    }
    // What was not synced may be gone: whatever is there is what was made, and the rest is told.
    let mut bytes = Vec::new();
    for seq in last_synced + 1..=old.made.seq {
        if let Some(place) = spool.fetch(BULK, seq, &mut bytes).unwrap() {
            assert_eq!((Some(&bytes), place.seq), (used.made.get(&seq), seq), "{what}");
        }
    }
    let holes = spool.holes(Lane::Bulk, LOG);
    let is_open = holes.iter().any(|hole| {
        hole.cause == JumpCause::Lost(LossReason::MemoryLost) && hole.next_index.is_none()
    });
    assert_eq!(is_open, sync == Sync::Interval, "{what}: {holes:?}");
    is_cut
}

#[test]
fn spl_013_the_power_may_go_between_any_two_operations() {
    for sync in [Sync::Interval, Sync::Each] {
        for seed in 0..12 {
            let mut operations = 0;
            while cut_after(operations, seed, sync) {
                operations += 1;
            }
            assert!(operations > 60, "{operations}");
        }
    }
}

/// What a refusing disk leaves: chunks, and holes for the others, to the last one.
fn refuse_at_random(seed: u64, percent: u64, with_power_cut: bool) {
    let disk = BadDisk::default();
    let mut spool = open_first(&disk, SpoolOptions { sync: Sync::Each, ..LARGE });
    let mut fate = Chance(seed ^ 0xabc);
    disk.plan(move |operation, _| {
        let faults = [Fault::Full, Fault::Broken];
        let fails = operation != Operation::Open && fate.below(100) < percent;
        fails.then(|| faults[fate.below(2) as usize])
    });
    let cause = JumpCause::Dropped(DropReason::SpoolFailed);
    let (mut chance, mut made) = (Chance(seed), BTreeMap::new());
    let (mut is_segment_due, mut synced_seq) = (true, 0);
    for at in 0..60_u64 {
        let before = spool.current(Lane::Bulk).unwrap().made;
        let sort = if is_segment_due || at % 7 == 0 { Sort::Keyframe } else { Sort::Delta };
        let bytes = chunk(before.seq + 1, sort, &vec![at as u8; chance.below(700) as usize]);
        let after = place(&before, &bytes);
        match spool.append(at, &bytes, after) {
            Ok(()) => {
                is_segment_due = false;
                made.insert(after.seq, Ok(bytes));
            }
            Err(_) => {
                // As the runner does: what is not appended is a hole, and a segment follows.
                let _ = spool.skip(Lane::Bulk, after, cause);
                is_segment_due = true;
                made.insert(after.seq, Err(cause));
            }
        }
        if spool.sync(at).is_ok() {
            synced_seq = after.seq;
        }
    }
    disk.mend();
    let last = spool.current(Lane::Bulk).unwrap().made.seq;
    if !with_power_cut {
        let expected = made.clone();
        assert_eq!(account(&mut spool, LOG, last), expected, "seed {seed}");
        spool.sync(0).unwrap();
        spool.close().unwrap();
        let mut spool = open(&disk, LARGE);
        assert_eq!(account(&mut spool, LOG, last), expected, "seed {seed}, after a start");
        return;
    }
    drop(spool);
    disk.cut_power(&mut chance);
    let mut spool = open(&disk, LARGE);
    for (seq, found) in account(&mut spool, LOG, synced_seq) {
        match (&found, &made[&seq]) {
            (Ok(found), Ok(made)) => assert_eq!(found, made, "seed {seed}: {seq}"),
            // A hole that no write could tell the disk of is taken for damage.
            (Err(_), Err(_)) => {}
            (found, made) => panic!("seed {seed}: chunk {seq} is {found:?}, was {made:?}"),
        }
    }
}

#[test]
fn spl_007_a_disk_that_refuses_at_random_leaves_chunks_and_holes_and_nothing_else() {
    for seed in 0..60 {
        for percent in [2, 15, 50] {
            refuse_at_random(seed, percent, false);
            refuse_at_random(seed, percent, true);
        }
    }
}

#[test]
fn spl_005_a_file_that_cannot_be_removed_is_tried_again_and_nothing_is_lost() {
    let disk = BadDisk::default();
    let mut spool = open_first(&disk, LARGE);
    let places = crate::fill(&mut spool, 23, 100);
    spool.handle_stored(BULK, SERVER, places[22], 23);
    for operation in [Operation::Remove, Operation::Replace, Operation::Sync] {
        disk.plan(move |asked, _| (asked == operation).then_some(Fault::Broken));
        let refused = spool.trim();
        assert_eq!(refused.is_err(), operation != Operation::Sync, "all was synced: {operation:?}");
        if operation == Operation::Sync {
            break;
        }
        assert_eq!(spool.current(Lane::Bulk).unwrap().first_seq, 1);
        spool.sync(0).unwrap();
    }
    disk.mend();
    spool.trim().unwrap();
    assert_eq!(spool.current(Lane::Bulk).unwrap().first_seq, 21);
    assert_eq!(disk.files(".segment").len(), 1);
}

/// Three files of five chunks; the newest is the last.
fn three_files(disk: &BadDisk) -> Vec<Place> {
    let mut spool = open_first(disk, LARGE);
    let places = crate::fill(&mut spool, 15, 60);
    spool.sync(0).unwrap();
    spool.save_progress().unwrap();
    places
}

#[test]
fn spl_004_damage_anywhere_is_told_with_its_size_and_what_follows_is_sent() {
    let whole = BadDisk::default();
    three_files(&whole);
    let files = whole.files(".segment");
    assert_eq!(files.len(), 3);
    for (number, (path, length)) in files.iter().enumerate() {
        for at in (0..*length).step_by(3) {
            let disk = BadDisk::default();
            let places = three_files(&disk);
            disk.flip(path, at, 1 << (at % 8));
            let mut spool = open(&disk, LARGE);
            let account = account(&mut spool, LOG, 15);
            let damaged = JumpCause::Lost(LossReason::SpoolDamaged);
            let lost: Vec<u64> = account
                .iter()
                .filter_map(|(seq, chunk)| (*chunk == Err(damaged)).then_some(*seq))
                .collect();
            let what = format!("file {number}, byte {at}: {lost:?}");
            let file = number as u64 * 5 + 1..=number as u64 * 5 + 5;
            // Damage to the very last record is a torn tail: nothing tells that it was ever whole.
            let is_torn = number == 2 && account.len() == 14;
            assert!(is_torn || !lost.is_empty(), "{what}");
            if is_torn {
                assert!(lost.is_empty(), "{what}");
                continue;
            }
            assert!(lost.iter().all(|seq| file.contains(seq)), "{what}");
            assert!(lost.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{what}");
            let last = *lost.last().unwrap();
            assert_eq!(last, *file.end(), "what builds upon it goes with it: {what}");
            let made = spool.newest_old(Lane::Bulk).unwrap().made;
            assert_eq!(made, places[14], "{what}");
        }
    }
}

#[test]
fn spl_004_a_file_whose_head_is_gone_is_a_loss_that_is_told() {
    let disk = BadDisk::default();
    let places = three_files(&disk);
    let files = disk.files(".segment");
    // The last file's head, and of its records all but one.
    disk.flip(&files[2].0, 3, 0xff);
    let mut spool = open(&disk, LARGE);
    let old = spool.newest_old(Lane::Bulk).unwrap();
    assert_eq!(old.made, places[14], "its records say how far it went");
    let holes = spool.holes(Lane::Bulk, LOG);
    assert_eq!((holes[0].from_seq, holes[0].to_seq), (11, 15));
    assert_eq!(holes[0].next_index, Some(places[14].next_index));
    assert_eq!(account(&mut spool, LOG, 10).values().filter(|chunk| chunk.is_ok()).count(), 10);

    for at in 0..files[2].1 {
        disk.flip(&files[2].0, at, 0x11);
    }
    let spool = open(&disk, LARGE);
    let holes = spool.holes(Lane::Bulk, LOG);
    let unknown = holes.iter().find(|hole| hole.next_index.is_none()).unwrap();
    assert_eq!(unknown.cause, JumpCause::Lost(LossReason::SpoolDamaged), "unknown, and told so");
    assert_eq!(unknown.from_seq, 11);
}

#[test]
fn spl_010_a_log_that_lost_its_word_is_sent_all_the_same() {
    let disk = BadDisk::default();
    three_files(&disk);
    for end in ["/log", "/progress"] {
        let (path, _) = disk.files(end).remove(0);
        disk.flip(&path, 2, 0x40);
        let mut spool = open(&disk, LARGE);
        assert_eq!(spool.damaged(), 0);
        let account = account(&mut spool, LOG, 15);
        assert!(account.values().all(Result::is_ok), "{end}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..Default::default()
    })]

    /// SPL-004: wherever the last file tears, all before is whole and nothing else is believed.
    #[test]
    fn spl_004_a_log_torn_at_any_byte_gives_what_is_whole(
        sizes in prop::collection::vec(0usize..400, 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let disk = BadDisk::default();
        let mut spool = open_first(&disk, LARGE);
        let mut made = Vec::new();
        for (at, size) in sizes.iter().enumerate() {
            let sort = if at == 0 { Sort::Keyframe } else { Sort::Delta };
            made.push(append(&mut spool, sort, *size).unwrap());
        }
        drop(spool);
        let (path, length) = disk.files(".segment").remove(0);
        let kept = cut.index(length);
        disk.truncate(&path, kept);
        let mut spool = open(&disk, LARGE);
        let whole = spool.newest_old(Lane::Bulk).unwrap().made.seq as usize;
        prop_assert!(whole < made.len());
        prop_assert!(whole == 0 || spool.newest_old(Lane::Bulk).unwrap().made == made[whole - 1]);
        let account = account(&mut spool, LOG, whole as u64);
        prop_assert!(account.values().all(Result::is_ok));
        prop_assert!(spool.holes(Lane::Bulk, LOG).is_empty(), "a torn tail is no damage");
    }
}
