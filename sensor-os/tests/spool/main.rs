//! The spool on a real disk: what is appended comes back, whatever ends the process or the file.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where a value is missing")]

mod age;
mod disk;
mod faults;
mod power;

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lapwing_protocol::chunk::{Chunk, ChunkFlags, ChunkHeader};
use lapwing_protocol::delivery::JumpCause;
use lapwing_protocol::digest::Chain;
use lapwing_protocol::hello::LogCause;
use lapwing_protocol::id::{DeploymentId, Lane, LogId, SensorId, ServerId};
use lapwing_protocol::op::{DropReason, ENCODING_PLAIN_ROWS};
use lapwing_sensor_os::config::Sync;
use lapwing_sensor_os::spool::{LogState, Place, Spool, SpoolError, SpoolOptions};

const OWNER: (DeploymentId, SensorId) = (DeploymentId([1; 16]), SensorId([2; 16]));
const LOG: LogId = LogId([3; 16]);
const LARGE: SpoolOptions =
    SpoolOptions { bytes_max: 64 << 20, age_ms_max: u64::MAX, sync: Sync::Interval };
const SERVER: ServerId = ServerId([7; 16]);
/// Tells the test process to be the writer of another one.
const WRITER: &str = "LAPWING_TEST_SPOOL_WRITER";

/// What a chunk is in the order of a log.
#[derive(Clone, Copy, PartialEq)]
enum Sort {
    Keyframe,
    Delta,
}

/// A chunk whose body says nothing but fills the file.
fn chunk(seq: u64, sort: Sort, body: &[u8]) -> Vec<u8> {
    let keyframe = ChunkFlags::KEYFRAME | ChunkFlags::KEYFRAME_LAST;
    let flags = ChunkFlags(if sort == Sort::Keyframe { keyframe } else { 0 });
    let header = ChunkHeader {
        flags,
        encoding: ENCODING_PLAIN_ROWS,
        seq,
        first_index: seq * 10,
        count: 10,
        part: 0,
        time_base_ns: 0,
        digest: [0; 4],
    };
    let mut buffer = vec![0; 16 << 10];
    Chunk { header, body }.encode(&mut buffer).unwrap().to_vec()
}

fn place(before: &Place, chunk: &[u8]) -> Place {
    let next_index = Chunk::decode(chunk).unwrap().next_index();
    Place { seq: before.seq + 1, next_index, chain: before.chain.next(chunk) }
}

/// Appends a chunk of `bytes` bytes behind the last one.
fn append(spool: &mut Spool, sort: Sort, bytes: usize) -> Result<Place, SpoolError> {
    let before = spool.current(Lane::Bulk).unwrap().made;
    let chunk = chunk(before.seq + 1, sort, &vec![before.seq as u8; bytes]);
    let after = place(&before, &chunk);
    spool.append(0, &chunk, after).map(|()| after)
}

/// `count` chunks, every fifth of them a keyframe.
fn fill(spool: &mut Spool, count: u64, bytes: usize) -> Vec<Place> {
    let sort = |at: u64| if at.is_multiple_of(5) { Sort::Keyframe } else { Sort::Delta };
    (0..count).map(|at| append(spool, sort(at), bytes).unwrap()).collect()
}

fn open(folder: &Path) -> Spool {
    Spool::open(folder, OWNER, LARGE).unwrap()
}

fn open_first(folder: &Path) -> Spool {
    let mut spool = open(folder);
    spool.open_log(Lane::Bulk, LOG, LogCause::First, None).unwrap();
    spool
}

/// Every chunk that a log still holds is there, whole and in its place.
fn check_all(spool: &mut Spool, state: &LogState) {
    let mut bytes = Vec::new();
    for seq in state.first_seq..=state.made.seq {
        let found = spool.fetch((state.lane, state.log), seq, &mut bytes).unwrap().unwrap();
        assert_eq!(Chunk::decode(&bytes).unwrap().header.seq, seq);
        if seq == state.made.seq {
            assert_eq!(found, state.made);
        }
    }
    assert!(
        spool.fetch((state.lane, state.log), state.made.seq + 1, &mut bytes).unwrap().is_none()
    );
}

fn segment_files(folder: &Path) -> Vec<PathBuf> {
    let logs = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = logs.filter(|path| path.is_dir()).flat_map(|log| fs::read_dir(log).unwrap());
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "segment"));
    files.sort();
    files
}

#[test]
fn spl_001_what_is_appended_is_fetched_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_first(folder.path());
    let places = fill(&mut spool, 23, 100);
    let state = spool.current(Lane::Bulk).unwrap();
    assert_eq!((state.first_seq, state.made), (1, *places.last().unwrap()));
    check_all(&mut spool, &state);
    let mut bytes = Vec::new();
    for seq in [20, 3, 4, 1, 23, 2] {
        let found = spool.fetch((Lane::Bulk, LOG), seq, &mut bytes).unwrap().unwrap();
        assert_eq!(found, places[seq as usize - 1]);
    }
    assert_eq!(segment_files(folder.path()).len(), 5, "a file for each keyframe");
}

#[test]
fn spl_002_a_clean_stop_goes_on_with_the_same_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_first(folder.path());
    fill(&mut spool, 7, 100);
    let before = spool.current(Lane::Bulk).unwrap();
    spool.close().unwrap();

    let mut spool = open(folder.path());
    assert!(spool.was_clean());
    assert_eq!(spool.current(Lane::Bulk), Some(before));
    append(&mut spool, Sort::Keyframe, 100).unwrap();
    let state = spool.current(Lane::Bulk).unwrap();
    check_all(&mut spool, &state);
}

#[test]
fn hel_023_a_log_says_where_a_start_went_on_with_it_since_it_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_first(folder.path());
    let continued = |spool: &Spool| spool.continued_index(Lane::Bulk, LOG);
    assert_eq!(continued(&spool), None);
    let places = fill(&mut spool, 3, 100);
    let first = places[2].next_index + 10;
    for is_acked in [false, false, true] {
        if is_acked {
            let made = spool.current(Lane::Bulk).unwrap().made;
            spool.handle_stored((Lane::Bulk, LOG), SERVER, made, 0);
        }
        append(&mut spool, Sort::Delta, 100).unwrap();
        spool.close().unwrap();
        spool = open(folder.path());
        let made = spool.current(Lane::Bulk).unwrap().made;
        let expected = if is_acked { made.next_index } else { first };
        assert_eq!(continued(&spool), Some(expected));
    }
    let before = continued(&spool);
    append(&mut spool, Sort::Delta, 100).unwrap();
    drop(spool);
    assert_eq!(continued(&open(folder.path())), before);
}

/// Seed 27050 of the simulator: what a branch made in its first life was no branch's in the second,
/// where the image was acknowledged to its end.
#[test]
fn hel_038_where_a_start_went_on_is_kept_until_something_behind_it_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_first(folder.path());
    fill(&mut spool, 3, 100);
    let made = spool.current(Lane::Bulk).unwrap().made;
    spool.handle_stored((Lane::Bulk, LOG), SERVER, made, 0);
    for _ in 0..3 {
        spool.close().unwrap();
        spool = open(folder.path());
        assert_eq!(spool.continued_index(Lane::Bulk, LOG), Some(made.next_index));
        append(&mut spool, Sort::Delta, 100).unwrap();
    }
}

#[test]
fn hel_038_a_stop_in_good_order_says_how_far_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_first(folder.path());
    let sent = |spool: &Spool| spool.sent_seq(Lane::Bulk, LOG);
    fill(&mut spool, 5, 100);
    let made_seq = spool.current(Lane::Bulk).unwrap().made.seq;
    assert_eq!(sent(&spool), None);
    spool.close().unwrap();
    let mut spool = open(folder.path());
    assert_eq!(sent(&spool), Some(made_seq), "nobody said, so all may have been");
    spool.note_sent(Lane::Bulk, 3);
    spool.close().unwrap();
    let mut spool = open(folder.path());
    assert_eq!(sent(&spool), Some(3));
    append(&mut spool, Sort::Delta, 100).unwrap();
    drop(spool);
    assert_eq!(sent(&open(folder.path())), None, "it was not stopped");
}

#[test]
fn spl_003_after_an_unclean_start_the_old_log_is_sent_and_never_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_first(folder.path());
    let places = fill(&mut spool, 7, 100);
    spool.handle_stored((Lane::Bulk, LOG), SERVER, places[2], 3);
    spool.save_progress().unwrap();
    drop(spool);

    let mut spool = open(folder.path());
    assert!(!spool.was_clean());
    assert_eq!(spool.current(Lane::Bulk), None);
    let tail = spool.tail(Lane::Bulk).unwrap();
    assert_eq!((tail.log, tail.acked, tail.made), (LOG, places[2], places[6]));
    check_all(&mut spool, &tail);

    let parent = tail.as_parent();
    let new = LogId([4; 16]);
    spool.open_log(Lane::Bulk, new, LogCause::Unclean, Some(parent)).unwrap();
    append(&mut spool, Sort::Keyframe, 10).unwrap();
    spool.handle_drained(Lane::Bulk, LOG).unwrap();
    assert_eq!(spool.tail(Lane::Bulk), None);
    spool.retire(Lane::Bulk, None).unwrap();
    assert_eq!(spool.newest_old(Lane::Bulk).unwrap().log, LOG, "stored, but in no backup yet");
    let made = spool.current(Lane::Bulk).unwrap().made;
    spool.handle_stored((Lane::Bulk, new), SERVER, made, 1);
    spool.retire(Lane::Bulk, None).unwrap();
    spool.close().unwrap();

    let spool = open(folder.path());
    let state = spool.current(Lane::Bulk).unwrap();
    assert_eq!((state.log, state.cause, state.parent), (new, LogCause::Unclean, Some(parent)));
    assert_eq!(spool.newest_old(Lane::Bulk), None, "a log that is safe is gone");
}

#[test]
fn spl_004_a_torn_tail_is_tolerated_wherever_it_tears() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_first(folder.path());
    let places = fill(&mut spool, 3, 60);
    drop(spool);
    let [file] = segment_files(folder.path()).try_into().unwrap();
    let whole = fs::read(&file).unwrap();
    let one = 60 + 40 + 8; // body, place and record head; the chunk's own head comes on top
    for length in (0..whole.len()).rev() {
        fs::write(&file, &whole[..length]).unwrap();
        let mut spool = open(folder.path());
        assert!(!spool.was_clean());
        let made = spool.newest_old(Lane::Bulk).map_or(0, |state| state.made.seq);
        assert!(made < 3 && made + 1 >= (length.saturating_sub(110) / (one + 24)) as u64);
        if let Some(state) = spool.newest_old(Lane::Bulk) {
            check_all(&mut spool, &state);
            assert!(made == 0 || state.made == places[made as usize - 1]);
        }
    }
}

#[test]
fn spl_004_a_flipped_bit_ends_the_file_and_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_first(folder.path());
    fill(&mut spool, 3, 60);
    spool.close().unwrap();
    let [file] = segment_files(folder.path()).try_into().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.len() - 5;
    bytes[at] ^= 0x10;
    fs::write(&file, &bytes).unwrap();
    let mut spool = open(folder.path());
    assert!(!spool.was_clean(), "the mark speaks of a chunk that is not there");
    let state = spool.tail(Lane::Bulk).unwrap();
    assert_eq!(state.made.seq, 2);
    check_all(&mut spool, &state);
}

#[test]
fn spl_005_files_go_when_all_in_them_is_safe_and_the_acked_place_lies_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_first(folder.path());
    let places = fill(&mut spool, 23, 100); // files begin at 1, 6, 11, 16, 21
    let mut first_after = |acked: usize, safe| {
        spool.handle_stored((Lane::Bulk, LOG), SERVER, places[acked - 1], safe);
        spool.trim().unwrap();
        spool.current(Lane::Bulk).unwrap().first_seq
    };
    assert_eq!(first_after(6, 4), 1, "the first file is not safe");
    assert_eq!(first_after(10, 10), 6, "the second file holds the acknowledged place");
    assert_eq!(first_after(13, 9), 11, "what is safe stays safe");
    assert_eq!(first_after(13, 13), 11);
    assert_eq!(first_after(23, 23), 21, "the last file stays");
    let state = spool.current(Lane::Bulk).unwrap();
    check_all(&mut spool, &state);
    drop(spool);
    let spool = open(folder.path());
    assert_eq!(spool.newest_old(Lane::Bulk).unwrap().acked, places[22], "told before the trim");
}

#[test]
fn spl_006_at_the_bound_the_stored_goes_first_then_the_oldest_with_a_hole() {
    let folder = tempfile::tempdir().unwrap();
    let bounded = SpoolOptions { bytes_max: 43_000, ..LARGE };
    let mut spool = Spool::open(folder.path(), OWNER, bounded).unwrap();
    spool.open_log(Lane::Bulk, LOG, LogCause::First, None).unwrap();
    let places = fill(&mut spool, 35, 1_000);
    assert!(spool.bytes() <= 43_000);
    spool.handle_stored((Lane::Bulk, LOG), SERVER, places[6], 2);
    while append(&mut spool, Sort::Delta, 1_000).is_ok() {}
    let stored = spool.make_room().unwrap().unwrap();
    assert_eq!((stored.first_seq, stored.hole), (6, None));
    assert_eq!(spool.stats().unprotected, 3, "of five, two are in a backup");
    let unstored = spool.make_room().unwrap().unwrap();
    let hole = unstored.hole.unwrap();
    assert_eq!((hole.from_seq, hole.to_seq, hole.next_index), (8, 10, Some(110)));
    assert_eq!((hole.chain, unstored.first_seq), (places[9].chain, 11));
    assert_eq!(spool.stats().dropped, 3);
    append(&mut spool, Sort::Delta, 1_000).unwrap();
    drop(spool);
    let spool = Spool::open(folder.path(), OWNER, bounded).unwrap();
    assert_eq!(spool.holes(Lane::Bulk, LOG), [hole], "a hole outlives the process");
}

#[test]
fn spl_007_the_file_that_is_open_is_never_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let bounded = SpoolOptions { bytes_max: 20_000, ..LARGE };
    let mut spool = Spool::open(folder.path(), OWNER, bounded).unwrap();
    spool.open_log(Lane::Bulk, LOG, LogCause::First, None).unwrap();
    append(&mut spool, Sort::Keyframe, 1_000).unwrap();
    while append(&mut spool, Sort::Delta, 1_000).is_ok() {}
    assert_eq!(spool.make_room().unwrap(), None);
    assert!(matches!(append(&mut spool, Sort::Delta, 1_000), Err(SpoolError::Full)));
}

#[test]
fn spl_006_one_file_that_fills_the_spool_goes_when_a_server_has_it_and_a_hole_follows() {
    for is_restarted in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let bounded = SpoolOptions { bytes_max: 20_000, ..LARGE };
        let mut spool = Spool::open(folder.path(), OWNER, bounded).unwrap();
        spool.open_log(Lane::Bulk, LOG, LogCause::First, None).unwrap();
        append(&mut spool, Sort::Keyframe, 1_000).unwrap();
        while append(&mut spool, Sort::Delta, 1_000).is_ok() {}
        let made = spool.current(Lane::Bulk).unwrap().made;
        let to = Place { seq: made.seq + 1, next_index: made.next_index + 10, ..made };
        spool.skip(Lane::Bulk, to, JumpCause::Dropped(DropReason::SpoolFull)).unwrap();
        assert_eq!(spool.make_room().unwrap(), None, "nobody has what is in it");
        spool.handle_stored((Lane::Bulk, LOG), SERVER, made, 0);
        if is_restarted {
            spool.close().unwrap();
            spool = Spool::open(folder.path(), OWNER, bounded).unwrap();
        }
        let trimmed = spool.make_room().unwrap().unwrap();
        assert_eq!((trimmed.first_seq, trimmed.hole), (to.seq + 1, None));
        append(&mut spool, Sort::Keyframe, 1_000).unwrap();
        assert_eq!(spool.current(Lane::Bulk).unwrap().made.seq, to.seq + 1);
    }
}

/// The file that is open fills the bound: what came next is a hole.
fn fill_one_file(folder: &Path, options: SpoolOptions) -> (Spool, Place) {
    let mut spool = Spool::open(folder, OWNER, options).unwrap();
    spool.open_log(Lane::Bulk, LOG, LogCause::First, None).unwrap();
    append(&mut spool, Sort::Keyframe, 1_000).unwrap();
    while append(&mut spool, Sort::Delta, 1_000).is_ok() {}
    let last = spool.current(Lane::Bulk).unwrap().made;
    let to = Place { seq: last.seq + 2, next_index: last.next_index + 20, chain: Chain([5; 32]) };
    spool.skip(Lane::Bulk, to, JumpCause::Dropped(DropReason::SpoolFull)).unwrap();
    (spool, last)
}

#[test]
fn spl_007_a_bound_smaller_than_a_segment_takes_chunks_again_when_all_is_stored() {
    for (is_hole_stored, is_restarted) in [(false, false), (false, true), (true, false)] {
        let folder = tempfile::tempdir().unwrap();
        let bounded = SpoolOptions { bytes_max: 20_000, ..LARGE };
        let (mut spool, last) = fill_one_file(folder.path(), bounded);
        assert_eq!(spool.make_room().unwrap(), None, "no server has it");
        let end = spool.current(Lane::Bulk).unwrap().made;
        let acked = if is_hole_stored { end } else { last };
        spool.handle_stored((Lane::Bulk, LOG), SERVER, acked, acked.seq);
        if is_restarted {
            spool.close().unwrap();
            spool = Spool::open(folder.path(), OWNER, bounded).unwrap();
        }
        assert!(matches!(append(&mut spool, Sort::Keyframe, 1_000), Err(SpoolError::Full)));
        let room = spool.make_room().unwrap().unwrap();
        assert_eq!((room.first_seq, room.hole, room.facts), (end.seq + 1, None, 0));
        assert_eq!(spool.stats().unprotected, 0, "all of it is in a backup");
        let next = append(&mut spool, Sort::Keyframe, 1_000).unwrap();
        assert_eq!(spool.holes(Lane::Bulk, LOG).len(), usize::from(!is_hole_stored));
        drop(spool);
        let spool = Spool::open(folder.path(), OWNER, bounded).unwrap();
        let old = spool.newest_old(Lane::Bulk).unwrap();
        assert_eq!((old.first_seq, old.acked, old.made), (end.seq + 1, acked, next));
        assert_eq!(spool.holes(Lane::Bulk, LOG).len(), usize::from(!is_hole_stored));
    }
}

#[test]
fn spl_007_what_was_not_appended_is_a_hole_that_a_clean_start_knows() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_first(folder.path());
    let places = fill(&mut spool, 3, 100);
    let cause = JumpCause::Dropped(DropReason::SpoolFailed);
    for seq in [4, 5] {
        let to = Place { seq, next_index: 10 * seq + 10, chain: Chain([seq as u8; 32]) };
        spool.skip(Lane::Bulk, to, cause).unwrap();
    }
    append(&mut spool, Sort::Keyframe, 100).unwrap();
    let before = spool.current(Lane::Bulk).unwrap();
    assert_eq!(before.made.seq, 6);
    spool.close().unwrap();
    let mut spool = open(folder.path());
    assert_eq!(spool.current(Lane::Bulk), Some(before));
    let [hole] = spool.holes(Lane::Bulk, LOG).try_into().unwrap();
    assert_eq!((hole.from_seq, hole.to_seq, hole.cause), (4, 5, cause));
    let mut behind = |seq| spool.behind((Lane::Bulk, LOG), seq).unwrap();
    assert_eq!(behind(2), Some(places[1]));
    assert_eq!(behind(5).map(|place| place.chain), Some(Chain([5; 32])));
    assert_eq!(behind(4), None);
    let before = spool.before_segment_of((Lane::Bulk, LOG), 3).unwrap();
    assert_eq!(before.map(|place| place.seq), Some(0));
}

#[test]
fn what_lay_in_an_acknowledged_hole_is_answered_with_the_segment_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_first(folder.path());
    let cause = JumpCause::Dropped(DropReason::SpoolFailed);
    let to = Place { seq: 3, next_index: 40, chain: Chain([3; 32]) };
    spool.skip(Lane::Bulk, to, cause).unwrap();
    append(&mut spool, Sort::Keyframe, 100).unwrap();
    spool.handle_stored((Lane::Bulk, LOG), SERVER, to, 0);
    assert_eq!(spool.holes(Lane::Bulk, LOG), []);
    let mut before = |seq| spool.before_segment_of((Lane::Bulk, LOG), seq).unwrap();
    assert_eq!(before(1), Some(to));
    assert_eq!(before(3), Some(to));
    assert_eq!(before(5), None, "not made yet");
}

#[test]
fn a_hole_of_a_log_that_holds_nothing_else_is_announced_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_first(folder.path());
    let to = Place { seq: 3, next_index: 40, chain: Chain([3; 32]) };
    let cause = JumpCause::Dropped(DropReason::SpoolFailed);
    spool.skip(Lane::Bulk, to, cause).unwrap();
    for log in [LogId([4; 16]), LogId([5; 16])] {
        drop(spool);
        spool = open(folder.path());
        spool.open_log(Lane::Bulk, log, LogCause::Unclean, None).unwrap();
        append(&mut spool, Sort::Keyframe, 100).unwrap();
        let tail = spool.tail(Lane::Bulk).unwrap();
        assert_eq!((tail.log, tail.made, tail.acked.seq), (LOG, to, 0));
        assert_eq!(spool.holes(Lane::Bulk, LOG).len(), 1);
    }
}

#[test]
fn a_disk_that_refuses_again_and_again_leaves_no_more_holes_than_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_first(folder.path());
    let cause = JumpCause::Dropped(DropReason::SpoolFailed);
    for _ in 0..600 {
        let before = append(&mut spool, Sort::Keyframe, 10).unwrap();
        let (seq, next_index) = (before.seq + 1, before.next_index + 10);
        spool.skip(Lane::Bulk, Place { seq, next_index, chain: before.chain }, cause).unwrap();
    }
    let made = spool.current(Lane::Bulk).unwrap().made;
    let holes = spool.holes(Lane::Bulk, LOG);
    assert!(holes.len() <= 64, "{}", holes.len());
    assert_eq!((holes[0].to_seq, holes[holes.len() - 1].to_seq), (2, made.seq));
    drop(spool);
    let spool = open(folder.path());
    assert_eq!(spool.holes(Lane::Bulk, LOG), holes);
    assert_eq!(spool.newest_old(Lane::Bulk).unwrap().made, made, "the hole at its end is its end");
}

#[test]
fn spl_008_the_policy_says_when_a_sync_is_due() {
    for (sync, is_due) in [(Sync::Each, true), (Sync::Interval, false)] {
        let folder = tempfile::tempdir().unwrap();
        let options = SpoolOptions { sync, ..LARGE };
        let mut spool = Spool::open(folder.path(), OWNER, options).unwrap();
        spool.open_log(Lane::Bulk, LOG, LogCause::First, None).unwrap();
        append(&mut spool, Sort::Keyframe, 100).unwrap();
        assert_eq!(spool.is_sync_due(0), is_due);
        assert!(spool.is_sync_due(5_000_000_000), "after five seconds at the latest");
        spool.sync(0).unwrap();
        assert!(!spool.is_sync_due(u64::MAX));
        fill(&mut spool, 30, 10_000);
        assert!(spool.is_sync_due(0), "after 256 KiB");
    }
}

#[test]
fn a_spool_of_another_sensor_is_not_mixed_in() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_first(folder.path());
    fill(&mut spool, 3, 60);
    spool.close().unwrap();
    let other = (OWNER.0, SensorId([9; 16]));
    let spool = Spool::open(folder.path(), other, LARGE).unwrap();
    assert!(!spool.was_clean());
    assert_eq!(spool.tail(Lane::Bulk), None);
}

#[test]
fn a_folder_without_its_word_is_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open_first(folder.path());
    fill(&mut spool, 3, 60);
    drop(spool);
    let [file] = segment_files(folder.path()).try_into().unwrap();
    let word = file.parent().unwrap().join("log");
    for path in [word, file] {
        OpenOptions::new().write(true).open(path).unwrap().write_all(b"x").unwrap();
    }
    assert_eq!(open(folder.path()).damaged(), 1);
}

/// Not a test of its own: the process that the next test kills.
#[test]
fn writer() {
    let Ok(folder) = std::env::var(WRITER) else { return };
    let mut spool = open_first(Path::new(&folder));
    loop {
        for place in fill(&mut spool, 5, 500) {
            println!("appended {} {}", place.seq, place.next_index);
        }
    }
}

#[test]
fn spl_001_kill_9_loses_nothing_appended() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["writer", "--exact", "--nocapture"])
        .env(WRITER, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = 0;
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    for line in lines.by_ref() {
        if let Some(rest) = line.unwrap().strip_prefix("appended ") {
            told = rest.split(' ').next().unwrap().parse().unwrap();
        }
        if told >= 300 {
            writer.kill().unwrap();
            break;
        }
    }
    for line in lines.map_while(Result::ok) {
        let seq = line.strip_prefix("appended ").and_then(|rest| rest.split_once(' '));
        told = seq.and_then(|(seq, _)| seq.parse().ok()).unwrap_or(told);
    }
    writer.wait().unwrap();
    let mut spool = open(folder.path());
    assert!(!spool.was_clean());
    let state = spool.tail(Lane::Bulk).unwrap();
    assert!(state.made.seq >= told, "{} of {told}", state.made.seq);
    check_all(&mut spool, &state);
    let mut chain = Chain::start(OWNER.0, OWNER.1, Lane::Bulk, LOG);
    let mut bytes = Vec::new();
    for seq in 1..=state.made.seq {
        let place = spool.fetch((Lane::Bulk, LOG), seq, &mut bytes).unwrap().unwrap();
        chain = chain.next(&bytes);
        assert_eq!(place.chain, chain);
    }
}
