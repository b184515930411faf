//! The decision table of Hello, the sensor's side, row by row: each test names its row.
//!
//! The server of these tests panics where a chunk does not open as it must, credit is exceeded or
//! a mark differs. Rows 26 (another key) is the server's alone.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test stops where it fails")]

mod branches;
#[path = "../world/mod.rs"]
mod world;

use std::collections::BTreeMap;

use lapwing_protocol::chunk::{Chunk, ChunkFlags};
use lapwing_protocol::code::Code;
use lapwing_protocol::delivery::{Jump, JumpCause, LossReason, Refused};
use lapwing_protocol::element::{Value, finding};
use lapwing_protocol::hello::{LogCause, LogVerdict, Memory};
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::message::Message;
use lapwing_protocol::op::DropReason;
use lapwing_sensor_core::*;
use world::peer::Peer;
use world::reader::canonical;
use world::rig::Rig;
use world::shell::Shell;
use world::{BULK_LOG, DEPLOYMENT, Owned, SENSOR, SMALL, at, config, log};

const BULK: (Lane, LogId) = (Lane::Bulk, BULK_LOG);

fn jumps(peer: &Peer) -> &[Jump] {
    &peer.heads[&BULK].jumps
}

/// What the findings of the urgent lane say was lost.
fn told_lost(peer: &Peer) -> Vec<Vec<u8>> {
    let logs = peer.heads.keys().filter(|(lane, _)| *lane == Lane::Urgent);
    let events = logs.flat_map(|(lane, log)| peer.read(*lane, *log).events);
    let findings = events.filter(|(kind, _)| *kind == finding::KIND);
    findings.map(|(_, row)| row[&finding::lost.0].clone()).collect()
}

fn lost(facts: u64) -> Vec<u8> {
    canonical(Value::U64(facts))
}

/// Facts stored of all bulk logs, each chunk once however many servers have it.
fn facts(peers: &[&Peer]) -> u64 {
    let mut chunks = BTreeMap::new();
    for peer in peers {
        for ((_, log), head) in peer.heads.iter().filter(|((lane, _), _)| *lane == Lane::Bulk) {
            for (seq, bytes) in &head.chunks {
                let known = chunks.insert((*log, *seq), bytes.clone());
                assert!(known.is_none_or(|known| known == *bytes), "one key, one content");
            }
        }
    }
    chunks.values().map(|bytes| Chunk::decode(bytes).unwrap().header.count).sum()
}

#[test]
fn hel_020_at_the_acknowledged_place_it_goes_on_and_sends_nothing_twice() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.lookups(5);
    rig.settle(&mut peer);
    rig.reconnect(&mut peer);
    rig.lookups(3);
    rig.settle(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    let said = peer.said.last().unwrap();
    assert_eq!((said.verdict, said.lane), (LogVerdict::Resume, Lane::Bulk));
    assert_eq!((peer.repeats, jumps(&peer).len()), (0, 0));
}

#[test]
fn hel_021_a_new_log_is_sent_from_its_first_chunk() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.lookups(4);
    rig.settle(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    let said = peer.said.iter().find(|said| said.lane == Lane::Bulk).unwrap();
    assert_eq!((said.verdict, said.cause, said.parent), (LogVerdict::New, LogCause::First, None));
    assert_eq!(peer.heads[&BULK].chunks.keys().next(), Some(&1));
}

#[test]
fn hel_022_what_the_server_has_and_nobody_heard_of_is_acknowledged_by_its_hello() {
    for is_restart in [false, true] {
        let mut peer = Peer::new(0xa);
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::new(Memory::Disk, owned.storage());
        rig.settle(&mut peer);
        peer.is_silent = true;
        rig.lookups(30);
        rig.settle(&mut peer);
        peer.is_silent = false;
        assert_eq!(rig.sensor.positions(Lane::Bulk).acked.seq, 0);
        rig.cut();
        let (logs, shell) = rig.image();
        let mut owned = Owned::new(&SMALL);
        if is_restart {
            rig = Rig::over(Memory::Disk, owned.storage(), logs, shell, 50_000);
        }
        rig.reconnect(&mut peer);
        rig.all_stored(&peer, Lane::Bulk);
        assert_eq!(rig.sensor.positions(Lane::Bulk).acked, rig.sensor.positions(Lane::Bulk).made);
        assert_eq!(peer.repeats, 0);
    }
}

#[test]
fn hel_023_a_rolled_back_disk_goes_on_in_a_new_log_and_only_what_was_made_since_is_lost() {
    let mut peer = Peer::new(0xa);
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    rig.lookups(5);
    rig.settle(&mut peer);
    let (logs, shell) = rig.image();
    rig.lookups(20);
    rig.settle(&mut peer);
    rig.cut();

    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::over(Memory::Disk, owned.storage(), logs, shell, 50_000);
    rig.lookups(2);
    rig.settle(&mut peer);
    let made = rig.sensor.positions(Lane::Bulk);
    assert_eq!((made.cause, made.parent.unwrap().log), (LogCause::RolledBack, BULK_LOG));
    let verdict = |said: &world::peer::Said| said.verdict == LogVerdict::SensorBehind;
    assert!(peer.said.iter().any(verdict));
    rig.lookups(3);
    rig.settle(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    assert_eq!(told_lost(&peer), [lost(2)]);
    assert_eq!(peer.heads[&BULK].chunks.len(), 25 + 1, "the old branch stays, with its keyframe");
}

#[test]
fn hel_023_a_new_log_tells_the_rows_at_once_however_quiet_the_machine_is() {
    let mut peer = Peer::new(0xa);
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    rig.lookups(5);
    rig.settle(&mut peer);
    let (logs, shell) = rig.image();
    rig.lookups(20);
    rig.settle(&mut peer);
    rig.cut();

    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::over(Memory::Disk, owned.storage(), logs, shell, 50_000);
    rig.service("ssh", "active");
    rig.settle(&mut peer);
    let made = rig.sensor.positions(Lane::Bulk);
    assert_eq!(made.cause, LogCause::RolledBack);
    rig.all_stored(&peer, Lane::Bulk);
    assert_eq!(peer.read(Lane::Bulk, made.log).rows.len(), 1);
}

#[test]
fn hel_027_a_restored_server_gets_again_what_is_held_and_nothing_is_lost() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.lookups(10);
    rig.settle(&mut peer);
    let backup = peer.heads.clone();
    rig.lookups(40);
    rig.settle(&mut peer);
    peer.heads = backup;
    rig.reconnect(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    assert_eq!((facts(&[&peer]), jumps(&peer).len()), (50, 0));
    assert!(peer.said.iter().any(|said| said.verdict == LogVerdict::ServerBehind));
}

/// A sensor whose log has segments from 1, 12 and 23 on, all stored; a backup after six chunks.
fn with_three_segments(
    rig: &mut Rig<'_>,
    peer: &mut Peer,
) -> BTreeMap<(Lane, LogId), world::peer::Head> {
    rig.lookups(5);
    rig.settle(peer);
    let backup = peer.heads.clone();
    rig.lookups(5);
    for _ in 0..2 {
        rig.reconnect(peer);
        rig.lookups(10);
        rig.settle(peer);
    }
    let openers: Vec<u64> = rig.shell.spool[&BULK]
        .iter()
        .filter_map(|(seq, chunk)| chunk.opens.then_some(*seq))
        .collect();
    assert_eq!(openers, [1, 12, 23]);
    backup
}

#[test]
fn hel_028_what_is_trimmed_is_a_counted_loss_and_what_is_held_goes_again() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    let backup = with_three_segments(&mut rig, &mut peer);
    rig.shell.trim(&mut rig.sensor, BULK, 12);
    peer.heads = backup;
    rig.reconnect(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    let [jump] = jumps(&peer) else { panic!("one jump: {:?}", jumps(&peer)) };
    assert_eq!((jump.from_seq, jump.to_seq, jump.to_index), (7, 11, Some(10)));
    assert_eq!(jump.cause, JumpCause::Lost(LossReason::ServerRolledBack));
    assert_eq!(facts(&[&peer]), 5 + 20, "all but the five that nobody has");
}

#[test]
fn hel_029_a_server_that_lost_its_data_gets_all_that_is_held_and_a_loss_for_the_rest() {
    for is_trimmed in [false, true] {
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::new(Memory::Disk, owned.storage());
        let mut peer = Peer::new(0xa);
        with_three_segments(&mut rig, &mut peer);
        if is_trimmed {
            rig.shell.trim(&mut rig.sensor, BULK, 23);
        }
        peer.heads.clear();
        rig.reconnect(&mut peer);
        rig.all_stored(&peer, Lane::Bulk);
        let told: Vec<_> = jumps(&peer).iter().map(|jump| (jump.to_seq, jump.cause)).collect();
        let lost = (22, JumpCause::Lost(LossReason::ServerRolledBack));
        assert_eq!(told, if is_trimmed { vec![lost] } else { vec![] });
        assert_eq!(facts(&[&peer]), if is_trimmed { 10 } else { 30 });
    }
}

#[test]
fn hel_030_a_new_server_begins_with_the_segment_of_the_acknowledged_place() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let (mut first, mut second) = (Peer::new(0xa), Peer::new(0xb));
    with_three_segments(&mut rig, &mut first);
    first.is_silent = true;
    rig.lookups(4);
    rig.settle(&mut first);
    rig.reconnect(&mut second);
    rig.all_stored(&second, Lane::Bulk);
    let [jump] = jumps(&second) else { panic!("one jump") };
    assert_eq!((jump.from_seq, jump.to_seq), (1, 22));
    assert_eq!(jump.cause, JumpCause::StoredElsewhere(first.id));
    assert_eq!(second.said[1].elsewhere.len(), 1);
    assert_eq!(facts(&[&first, &second]), 34);
}

#[test]
fn hel_031_coming_back_to_a_server_that_stored_more_than_it_said_doubles_nothing() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let (mut a, mut b) = (Peer::new(0xa), Peer::new(0xb));
    rig.lookups(10);
    rig.settle(&mut a);
    // A stores much that it never acknowledges, and dies.
    a.is_silent = true;
    rig.lookups(200);
    rig.settle(&mut a);
    let stored = a.heads[&BULK].next_seq;
    assert!(stored > rig.sensor.positions(Lane::Bulk).acked.seq + 5, "{stored}");
    rig.reconnect(&mut b);
    rig.lookups(10);
    rig.settle(&mut b);
    rig.all_stored(&b, Lane::Bulk);
    // It starts again.
    a.is_silent = false;
    rig.reconnect(&mut a);
    rig.lookups(10);
    rig.settle(&mut a);
    rig.all_stored(&a, Lane::Bulk);
    let alarms = jumps(&a).iter().chain(jumps(&b));
    let alarms = alarms.filter(|jump| !matches!(jump.cause, JumpCause::StoredElsewhere(_)));
    assert_eq!(alarms.count(), 0);
    assert_eq!(facts(&[&a, &b]), 230);
    assert_eq!((told_lost(&a), rig.shell.logs_opened), (vec![], 0));
    assert!(!a.said.iter().any(|said| said.verdict == LogVerdict::ServerBehind));
}

#[test]
fn hel_032_after_an_unclean_stop_the_old_log_is_sent_as_it_is_and_never_written() {
    let mut peer = Peer::new(0xa);
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    rig.lookups(3);
    rig.settle(&mut peer);
    rig.cut();
    rig.lookups(4);
    let ([old, _], shell) = rig.image();
    let held = shell.spool[&BULK].clone();

    let new_log = LogId([7; 16]);
    let parent = Some(old.as_parent());
    let new =
        LogPositions::open((DEPLOYMENT, SENSOR), Lane::Bulk, new_log, LogCause::Unclean, parent);
    let mut owned = Owned::new(&SMALL);
    let logs = [new, log(Lane::Urgent, LogId([8; 16]))];
    let mut sensor = Sensor::new(config(Memory::Disk), owned.storage(), logs).unwrap();
    sensor.handle_tail(Lane::Bulk, Some(old));
    sensor.start(at(100_000));
    let mut rig = Rig { sensor, shell, ms: 100_000, names: 100 };
    rig.lookups(2);
    rig.settle(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    let stored = &peer.heads[&BULK].chunks;
    assert!(
        held.iter().all(|(seq, chunk)| stored[seq] == chunk.bytes) && stored.len() == held.len()
    );
    let said = peer.said.iter().find(|said| said.log == new_log).unwrap();
    assert_eq!((said.cause, said.parent), (LogCause::Unclean, parent));
    assert_eq!(facts(&[&peer]), 9);
}

#[test]
fn hel_033_without_a_spool_each_start_is_a_log_of_chunks_that_stand_alone() {
    let mut peer = Peer::new(0xa);
    for start in 1..=3u8 {
        let mut owned = Owned::new(&SMALL);
        let logs = [Lane::Bulk, Lane::Urgent].map(|lane| {
            let id = LogId([0x60 + 2 * start + lane as u8; 16]);
            LogPositions::open((DEPLOYMENT, SENSOR), lane, id, LogCause::Started, None)
        });
        let ms = u64::from(start) * 100_000;
        let mut rig = Rig::over(Memory::RamOnly, owned.storage(), logs, Shell::default(), ms);
        rig.service("ssh", "active");
        rig.lookups(3);
        rig.settle(&mut peer);
        rig.all_stored(&peer, Lane::Bulk);
        let said = peer.said.last().unwrap();
        assert_eq!((said.cause, said.verdict), (LogCause::Started, LogVerdict::New));
        assert_eq!(peer.memory, Some(Memory::RamOnly));
        let chunks = &peer.heads[&(Lane::Bulk, logs[0].log)].chunks;
        for bytes in chunks.values() {
            let flags = Chunk::decode(bytes).unwrap().header.flags;
            assert!(flags.has(ChunkFlags::SELF_CONTAINED));
        }
        // The reader refuses a slot in a chunk that stands alone.
        assert_eq!(peer.read(Lane::Bulk, logs[0].log).events.len(), 3);
        assert!(rig.shell.spool.is_empty(), "nothing is asked of a disk");
    }
}

#[test]
fn hel_034_a_log_that_the_server_no_longer_remembers_is_treated_as_lost_or_moved() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let (mut a, mut b) = (Peer::new(0xa), Peer::new(0xb));
    with_three_segments(&mut rig, &mut a);
    rig.reconnect(&mut b);
    rig.lookups(3);
    rig.settle(&mut b);
    // A forgot the log while the sensor was elsewhere; what it stored of it, it still has.
    let mut forgetful = Peer::new(0xa);
    rig.reconnect(&mut forgetful);
    rig.all_stored(&forgetful, Lane::Bulk);
    let first = jumps(&forgetful).first().copied();
    assert!(first.is_none_or(|jump| jump.from_seq == 1), "{first:?}");
    assert_eq!(facts(&[&a, &b, &forgetful]), 33);
}

#[test]
fn hel_035_a_wall_clock_that_jumps_changes_nothing() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    for wall_ms in [1_700_000_000_000, 4_000_000_000_000, 5, u64::MAX] {
        rig.lookups(3);
        let now = Now { wall_ms, ..at(rig.ms) };
        rig.sensor.handle_timeout(now);
        rig.shell.settle(&mut rig.sensor, now, &mut peer);
        rig.reconnect(&mut peer);
    }
    rig.all_stored(&peer, Lane::Bulk);
    assert_eq!((facts(&[&peer]), peer.repeats, rig.shell.logs_opened), (12, 0, 0));
    assert_eq!(rig.last_close(), None);
}

#[test]
fn hel_036_a_busy_server_is_left_alone_as_long_as_it_asked() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.settle(&mut peer);
    let refused = Refused { code: Code::BUSY, retry_after_ms: 60_000, detail: "full" };
    peer.send(&Message::Refused(refused));
    rig.settle(&mut peer);
    let hellos = peer.hellos;
    rig.ms += 59_000;
    rig.settle(&mut peer);
    assert_eq!(peer.hellos, hellos);
    rig.ms += 4_000;
    rig.settle(&mut peer);
    assert_eq!(peer.hellos, hellos + 1);
}

#[test]
fn hel_037_a_fenced_sensor_does_not_come_back_at_once_and_waits_longer_each_time() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    let mut waited = Vec::new();
    for _ in 0..12 {
        rig.lookups(1);
        rig.settle(&mut peer);
        rig.all_stored(&peer, Lane::Bulk);
        let refused = Refused { code: Code::FENCED, retry_after_ms: 0, detail: "another" };
        peer.send(&Message::Refused(refused));
        let (hellos, since) = (peer.hellos, rig.ms);
        while peer.hellos == hellos {
            rig.settle(&mut peer);
            rig.ms += 500;
        }
        waited.push(rig.ms - since);
    }
    let (early, late) = waited.split_at(6);
    let longest = |waits: &[u64]| waits.iter().copied().max().unwrap();
    assert!(longest(late) > 4 * longest(early) && longest(late) > 30_000, "{waited:?}");
    assert!(peer.repeats == 0 && rig.shell.logs_opened == 0);
}

#[test]
fn hel_038_a_server_within_a_hole_keeps_what_it_has_and_is_told_of_the_rest() {
    for has_more in [0, 2, 4] {
        let mut peer = Peer::new(0xa);
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::new(Memory::Disk, owned.storage());
        rig.lookups(6);
        rig.settle(&mut peer);
        // Chunks 8 to 11 go out, and no acknowledgement comes back.
        rig.reconnect(&mut peer);
        rig.lookups(1);
        rig.settle(&mut peer);
        peer.is_silent = true;
        peer.chunks_ahead = has_more;
        rig.reconnect(&mut peer);
        rig.lookups(3);
        rig.settle(&mut peer);
        rig.cut();
        let acked = rig.sensor.positions(Lane::Bulk).acked.seq;
        let stored = peer.heads[&BULK].next_seq - 1;
        rig.lookups(5);
        rig.cut();
        let made = rig.sensor.positions(Lane::Bulk).made.seq;
        let (logs, shell) = rig.image();
        (peer.is_silent, peer.chunks_ahead) = (false, 100);

        // The spool reaches its bound: all of that is dropped. Then the sensor starts anew.
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::over(Memory::Disk, owned.storage(), logs, shell, 50_000);
        let now = at(rig.ms);
        let hole = rig.shell.drop_run(&mut rig.sensor, now, BULK, acked + 1..=made);
        rig.lookups(2);
        rig.settle(&mut peer);
        rig.all_stored(&peer, Lane::Bulk);
        assert_eq!(rig.sensor.positions(Lane::Bulk).log, BULK_LOG, "no fork");
        let told: Vec<_> = jumps(&peer).iter().map(|jump| (jump.from_seq, jump.to_seq)).collect();
        assert_eq!(told, [(stored + 1, hole.to_seq)]);
        assert_eq!(jumps(&peer)[0].cause, JumpCause::Dropped(DropReason::SpoolFull));
        let stats = rig.sensor.stats();
        assert_eq!((stats.holes_declared, stats.chunks_in_holes), (1, made - acked));
        assert!(stats.facts_in_holes > 0);
    }
}

#[test]
fn hel_040_two_ends_that_do_not_agree_on_an_empty_log_part_and_open_no_logs() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    peer.start_flip = 1;
    rig.settle(&mut peer);
    assert_eq!(rig.last_close(), Some(&CloseReason::Peer(PeerFault::NoAgreement)));
    assert_eq!(rig.shell.logs_opened, 0);
    peer.start_flip = 0;
    peer.heads.clear();
    rig.ms += 10_000;
    rig.lookups(1);
    rig.settle(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
}

#[test]
fn hel_010_a_server_that_goes_on_with_no_log_has_one_opened_a_session() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.lookups(2);
    rig.settle(&mut peer);
    peer.is_forking = true;
    for session in 1..=3 {
        rig.cut();
        rig.ms += 400_000;
        rig.settle(&mut peer);
        assert_eq!(rig.last_close(), Some(&CloseReason::Peer(PeerFault::NoAgreement)));
        assert!(rig.shell.logs_opened <= 2 * session, "{}", rig.shell.logs_opened);
    }
}
