//! The bound of age (SPL-015): what goes, when, and what is told of it.

use std::path::Path;

use lapwing_protocol::delivery::JumpCause;
use lapwing_protocol::hello::LogCause;
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::op::DropReason;
use lapwing_sensor_os::spool::{Spool, SpoolOptions, Trimmed};

use crate::{LARGE, LOG, OWNER, SERVER, Sort, append, fill};

const HOUR_MS: u64 = 3_600_000;
const HOUR_NS: u64 = HOUR_MS * 1_000_000;
/// Two days; it is looked every ninety minutes how far the logs are.
const OPTIONS: SpoolOptions = SpoolOptions { age_ms_max: 48 * HOUR_MS, ..LARGE };

fn open(folder: &Path) -> Spool {
    Spool::open(folder, OWNER, OPTIONS).unwrap()
}

/// Runs for so many hours, and gives what was dropped.
fn run(spool: &mut Spool, now_ns: &mut u64, hours: u64) -> Vec<Trimmed> {
    let (mut dropped, end_ns) = (Vec::new(), *now_ns + hours * HOUR_NS);
    spool.drop_aged(*now_ns, &mut dropped).unwrap();
    while spool.age_due_ns() <= end_ns {
        assert!(spool.age_due_ns() > *now_ns, "it is due for ever");
        *now_ns = spool.age_due_ns();
        spool.drop_aged(*now_ns, &mut dropped).unwrap();
    }
    *now_ns = end_ns;
    spool.drop_aged(end_ns, &mut dropped).unwrap();
    dropped
}

#[test]
fn spl_015_what_is_older_than_the_bound_goes_behind_a_hole_and_what_is_younger_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    spool.open_log(Lane::Bulk, LOG, LogCause::First, None).unwrap();
    let mut now_ns = 7;
    let places = fill(&mut spool, 12, 100); // files begin at 1, 6, 11
    spool.handle_stored((Lane::Bulk, LOG), SERVER, places[2], 3);
    assert_eq!(run(&mut spool, &mut now_ns, 20), []);
    for sort in [Sort::Delta, Sort::Keyframe] {
        append(&mut spool, sort, 100).unwrap(); // 13 in the third file, 14 in the fourth
    }
    assert_eq!(run(&mut spool, &mut now_ns, 27), [], "not before its time");
    let dropped = run(&mut spool, &mut now_ns, 4);
    let holes: Vec<_> = dropped.iter().map(|it| (it.first_seq, it.facts, it.hole)).collect();
    let [(6, 20, Some(first)), (11, 50, Some(second))] = holes[..] else { panic!("{holes:?}") };
    assert_eq!((first.from_seq, first.to_seq), (4, 5), "what was stored is no loss");
    assert_eq!((second.from_seq, second.to_seq), (6, 10));
    assert_eq!(second.cause, JumpCause::Dropped(DropReason::SpoolFull));
    assert_eq!(second.chain, places[9].chain);
    assert_eq!(spool.stats().dropped, 7);
    let state = spool.current(Lane::Bulk).unwrap();
    assert_eq!((state.first_seq, state.made.seq), (11, 14), "a file is as young as its last chunk");
    assert_eq!(run(&mut spool, &mut now_ns, 40).len(), 1);
    assert_eq!(run(&mut spool, &mut now_ns, 500), [], "the file that is open stays");
    assert_eq!(spool.current(Lane::Bulk).unwrap().first_seq, 14);
}

#[test]
fn spl_015_the_time_goes_on_over_stops_and_kills_and_old_logs_age_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    spool.open_log(Lane::Bulk, LOG, LogCause::First, None).unwrap();
    fill(&mut spool, 7, 100);
    for start in 0..24 {
        // The clock of each process begins anew; two hours of each count, at a kill but the last.
        let mut now_ns = start;
        assert_eq!(run(&mut spool, &mut now_ns, 2), []);
        if start % 2 == 0 {
            spool.close().unwrap();
        } else {
            drop(spool);
        }
        spool = open(folder.path());
        if spool.current(Lane::Bulk).is_none() {
            let parent = spool.newest_old(Lane::Bulk).map(|old| old.as_parent());
            let log = LogId([start as u8 + 10; 16]);
            spool.open_log(Lane::Bulk, log, LogCause::Unclean, parent).unwrap();
        }
    }
    let dropped = run(&mut spool, &mut 0, 20);
    assert!(dropped.iter().all(|it| it.log == LOG && it.facts > 0), "{dropped:?}");
    assert_eq!(spool.stats().dropped, 7);
    let tail = spool.tail(Lane::Bulk).unwrap();
    assert_eq!((tail.log, tail.first_seq), (LOG, 8), "its holes are still to be told of");
    let holes = spool.holes(Lane::Bulk, LOG);
    assert_eq!((holes[0].from_seq, holes[holes.len() - 1].to_seq), (1, 7));
}

#[test]
fn spl_015_what_is_stored_and_in_no_backup_goes_without_a_hole() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    spool.open_log(Lane::Bulk, LOG, LogCause::First, None).unwrap();
    let places = fill(&mut spool, 12, 100);
    spool.handle_stored((Lane::Bulk, LOG), SERVER, places[11], 2);
    let dropped = run(&mut spool, &mut 0, 60);
    assert!(dropped.iter().all(|it| it.hole.is_none() && it.facts == 0), "{dropped:?}");
    assert_eq!(spool.current(Lane::Bulk).unwrap().first_seq, 11);
    assert_eq!((spool.stats().unprotected, spool.stats().dropped), (8, 0));
}
