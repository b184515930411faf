//! A sensor against a server that checks every frame: greeting, credit, refusal, moves, commands.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test stops where it fails")]

mod world;

use lapwing_protocol::command::{Action, Command, CommandNumber, Outcome};
use lapwing_protocol::delivery::{
    Draining, JumpCause, LossReason, Nack, NackReason, Ping, Refused, Resync, ResyncReason,
};
use lapwing_protocol::element::{Change, Fact, Field, Value, command_outcome, finding};
use lapwing_protocol::hello::{LogCause, Memory};
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::limits::CHUNK_BYTES_MAX;
use lapwing_protocol::message::Message;
use lapwing_protocol::op::DropReason;
use lapwing_sensor_core::*;
use world::peer::Peer;
use world::reader::canonical;
use world::rig::Rig;
use world::shell::Shell;
use world::{BULK_LOG, DEPLOYMENT, Owned, SENSOR, SMALL, URGENT_LOG, at, config, log, logs};

#[test]
fn facts_arrive_and_are_acknowledged() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.lookups(3);
    rig.settle(&mut peer);
    rig.lookups(70);
    rig.settle(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    assert_eq!(peer.read(Lane::Bulk, BULK_LOG).events.len(), 73);
    let made = rig.sensor.positions(Lane::Bulk);
    assert_eq!(made.acked, made.made);
}

#[test]
fn ten_reconnects_cost_one_chunk_each_and_lose_nothing() {
    for memory in [Memory::Disk, Memory::RamOnly] {
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::new(memory, owned.storage());
        let mut peer = Peer::new(0xa);
        rig.settle(&mut peer);
        for _ in 0..10 {
            rig.lookups(2);
            rig.service("ssh", if rig.names.is_multiple_of(4) { "active" } else { "failed" });
            rig.settle(&mut peer);
            rig.reconnect(&mut peer);
        }
        rig.all_stored(&peer, Lane::Bulk);
        let reader = peer.read(Lane::Bulk, BULK_LOG);
        assert_eq!((reader.events.len(), reader.rows.len()), (20, 1));
    }
}

#[test]
fn acks_lost_before_a_cut_cost_no_second_sending() {
    for memory in [Memory::Disk, Memory::RamOnly] {
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::new(memory, owned.storage());
        let mut peer = Peer::new(0xa);
        rig.settle(&mut peer);
        peer.is_silent = true;
        rig.lookups(5);
        rig.settle(&mut peer);
        assert_eq!(rig.sensor.positions(Lane::Bulk).acked.seq, 0);
        peer.is_silent = false;
        rig.reconnect(&mut peer);
        rig.all_stored(&peer, Lane::Bulk);
        assert_eq!(rig.sensor.positions(Lane::Bulk).acked, rig.sensor.positions(Lane::Bulk).made);
    }
}

#[test]
fn a_long_outage_is_sent_from_the_spool() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.lookups(200);
    rig.settle(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    assert!(rig.shell.fetched > 100, "{}", rig.shell.fetched);
    assert_eq!(peer.read(Lane::Bulk, BULK_LOG).events.len(), 200);
}

#[test]
fn full_memory_is_announced_before_anything_later() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::RamOnly, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.lookups(200);
    rig.settle(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    let head = &peer.heads[&(Lane::Bulk, BULK_LOG)];
    let [jump] = head.jumps[..] else { panic!("{:?}", head.jumps) };
    assert_eq!(jump.cause, JumpCause::Dropped(DropReason::MemoryFull));
    let dropped = rig.sensor.stats().dropped_memory_full;
    assert_eq!(jump.to_index, Some(dropped));
    assert_eq!(peer.read(Lane::Bulk, BULK_LOG).events.len() as u64, 200 - dropped);
}

#[test]
fn a_move_jumps_to_the_segment_and_coming_back_is_no_alarm() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let (mut first, mut second) = (Peer::new(0xa), Peer::new(0xb));
    rig.service("ssh", "active");
    rig.settle(&mut first);
    rig.lookups(20);
    rig.settle(&mut first);
    rig.reconnect(&mut first);
    rig.lookups(20);
    rig.settle(&mut first);

    rig.reconnect(&mut second);
    rig.lookups(5);
    rig.settle(&mut second);
    rig.all_stored(&second, Lane::Bulk);
    let [jump] = second.heads[&(Lane::Bulk, BULK_LOG)].jumps[..] else { panic!("one jump") };
    assert_eq!(jump.cause, JumpCause::StoredElsewhere(first.id));
    let reader = second.read(Lane::Bulk, BULK_LOG);
    assert_eq!(reader.rows.len(), 1, "the keyframe tells the new server of all rows");

    rig.reconnect(&mut first);
    rig.lookups(5);
    rig.settle(&mut first);
    rig.all_stored(&first, Lane::Bulk);
    let jumps = &first.heads[&(Lane::Bulk, BULK_LOG)].jumps;
    let alarms = jumps.iter().filter(|jump| matches!(jump.cause, JumpCause::Lost(_)));
    assert_eq!(alarms.count(), 0);
}

#[test]
fn a_sensor_without_a_spool_tells_a_new_server_all_rows() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::RamOnly, owned.storage());
    let (mut first, mut second) = (Peer::new(0xa), Peer::new(0xb));
    rig.service("ssh", "active");
    rig.service("cron", "active");
    rig.settle(&mut first);
    rig.reconnect(&mut second);
    rig.all_stored(&second, Lane::Bulk);
    let reader = second.read(Lane::Bulk, BULK_LOG);
    assert_eq!((reader.rows.len(), reader.keyframes), (2, 1));
}

#[test]
fn a_server_restored_from_a_backup_gets_again_what_is_held() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.lookups(10);
    rig.settle(&mut peer);
    let backup = peer.heads.clone();
    rig.lookups(10);
    rig.settle(&mut peer);
    peer.heads = backup;
    rig.reconnect(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    assert_eq!(peer.read(Lane::Bulk, BULK_LOG).events.len(), 20);
}

#[test]
fn a_restored_server_gets_older_segments_too_while_they_are_held() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.lookups(10);
    rig.settle(&mut peer);
    let backup = peer.heads.clone();
    for _ in 0..3 {
        rig.reconnect(&mut peer);
        rig.lookups(10);
        rig.settle(&mut peer);
    }
    for heads in [backup, std::collections::BTreeMap::new()] {
        peer.heads = heads;
        rig.reconnect(&mut peer);
        rig.all_stored(&peer, Lane::Bulk);
        let head = &peer.heads[&(Lane::Bulk, BULK_LOG)];
        assert_eq!((head.jumps.len(), head.next_index), (0, 41));
    }
}

#[test]
fn what_a_restored_server_lost_and_the_sensor_trimmed_is_a_loss() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::RamOnly, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.lookups(5);
    rig.settle(&mut peer);
    let backup = peer.heads.clone();
    rig.lookups(5);
    rig.settle(&mut peer);
    peer.heads = backup;
    rig.reconnect(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    let [jump] = peer.heads[&(Lane::Bulk, BULK_LOG)].jumps[..] else { panic!("one jump") };
    assert_eq!(jump.cause, JumpCause::Lost(LossReason::ServerRolledBack));
    assert_eq!(jump.to_index, Some(10));
}

#[test]
fn another_chain_or_a_longer_log_at_the_server_opens_a_new_log() {
    for (is_longer, cause) in [(true, LogCause::RolledBack), (false, LogCause::Forked)] {
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::new(Memory::Disk, owned.storage());
        let mut peer = Peer::new(0xa);
        rig.service("ssh", "active");
        rig.settle(&mut peer);
        let head = peer.heads.get_mut(&(Lane::Bulk, BULK_LOG)).unwrap();
        head.chain.0[0] ^= 1;
        head.next_seq += if is_longer { 100 } else { 0 };
        rig.reconnect(&mut peer);
        rig.lookups(1);
        rig.settle(&mut peer);
        let made = rig.sensor.positions(Lane::Bulk);
        assert_ne!(made.log, BULK_LOG);
        assert_eq!((made.cause, made.parent.unwrap().log), (cause, BULK_LOG));
        rig.all_stored(&peer, Lane::Bulk);
        let reader = peer.read(Lane::Bulk, made.log);
        assert_eq!((reader.rows.len(), reader.events.len()), (1, 1));
    }
}

#[test]
fn facts_of_a_log_that_is_given_up_become_a_finding() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.lookups(2);
    rig.settle(&mut peer);
    rig.sensor.handle_disconnected(at(rig.ms));
    rig.lookups(3);
    peer.heads.get_mut(&(Lane::Bulk, BULK_LOG)).unwrap().chain.0[0] ^= 1;
    rig.ms += 10_000;
    rig.sensor.handle_timeout(at(rig.ms));
    rig.settle(&mut peer);
    rig.settle(&mut peer);
    let findings = peer.read(Lane::Urgent, URGENT_LOG).events;
    let (kind, row) = &findings[0];
    assert_eq!(*kind, finding::KIND);
    assert_eq!(row[&finding::lost.0], canonical(Value::U64(3)));
}

#[test]
fn an_old_log_goes_first_and_as_it_is() {
    let mut spool = std::collections::BTreeMap::new();
    let mut peer = Peer::new(0xa);
    let old = {
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::new(Memory::Disk, owned.storage());
        rig.lookups(3);
        rig.settle(&mut peer);
        rig.sensor.handle_disconnected(at(rig.ms));
        rig.lookups(4);
        std::mem::swap(&mut spool, &mut rig.shell.spool);
        rig.sensor.positions(Lane::Bulk)
    };
    let ids = (DEPLOYMENT, SENSOR);
    let new_log = LogId([7; 16]);
    let parent = Some(old.as_parent());
    let new = LogPositions::open(ids, Lane::Bulk, new_log, LogCause::Unclean, parent);
    let mut owned = Owned::new(&SMALL);
    let logs = [new, log(Lane::Urgent, LogId([8; 16]))];
    let mut sensor = Sensor::new(config(Memory::Disk), owned.storage(), logs).unwrap();
    sensor.handle_tail(Lane::Bulk, Some(old));
    sensor.start(at(100_000));
    let shell = Shell { spool, ..Shell::default() };
    let mut rig = Rig { sensor, shell, ms: 100_000, names: 100 };
    rig.lookups(2);
    rig.settle(&mut peer);
    assert_eq!(peer.read(Lane::Bulk, BULK_LOG).events.len(), 7);
    assert_eq!(peer.read(Lane::Bulk, new_log).events.len(), 2);
    rig.all_stored(&peer, Lane::Bulk);
}

/// HEL-023: an image of a disk was started, and ran on, before its log became an old one. A server
/// that has more of that log has it of the other branch.
#[test]
fn facts_of_an_old_log_that_a_server_outran_become_a_finding_where_they_are_another_branch() {
    for (continued_index, lost) in [(None, None), (Some(6), Some(2)), (Some(2), Some(4))] {
        let mut peer = Peer::new(0xa);
        let (old, spool) = {
            let mut owned = Owned::new(&SMALL);
            let mut rig = Rig::new(Memory::Disk, owned.storage());
            rig.lookups(3);
            rig.settle(&mut peer);
            rig.sensor.handle_disconnected(at(rig.ms));
            rig.lookups(4);
            (rig.sensor.positions(Lane::Bulk), std::mem::take(&mut rig.shell.spool))
        };
        assert_eq!((old.acked.next_index, old.made.next_index), (4, 8));
        peer.heads.get_mut(&(Lane::Bulk, BULK_LOG)).unwrap().next_seq += 100;
        let (ids, parent) = ((DEPLOYMENT, SENSOR), Some(old.as_parent()));
        let new = LogPositions::open(ids, Lane::Bulk, LogId([7; 16]), LogCause::Unclean, parent);
        let mut owned = Owned::new(&SMALL);
        let urgent = log(Lane::Urgent, LogId([8; 16]));
        let mut sensor = Sensor::new(config(Memory::Disk), owned.storage(), [new, urgent]).unwrap();
        sensor.handle_tail(Lane::Bulk, Some(old));
        if let Some(index) = continued_index {
            sensor.note_continued(Lane::Bulk, BULK_LOG, index);
        }
        sensor.start(at(100_000));
        let shell = Shell { spool, ..Shell::default() };
        let mut rig = Rig { sensor, shell, ms: 100_000, names: 100 };
        rig.settle(&mut peer);
        rig.settle(&mut peer);
        let findings = peer.read(Lane::Urgent, LogId([8; 16])).events;
        let told = findings.first().map(|(_, row)| row[&finding::lost.0].clone());
        assert_eq!(told, lost.map(|lost| canonical(Value::U64(lost))), "{continued_index:?}");
    }
}

#[test]
fn urgent_overtakes_bulk() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    peer.chunks_ahead = 1;
    rig.lookups(30);
    let fields = [Field::new(finding::code, Value::U64(26))];
    let (kind, time_ns) = (finding::KIND, 7);
    let fact = Fact { kind, change: Change::Event, time_ns, fields: &fields };
    rig.shell.fact(&mut rig.sensor, at(rig.ms), Lane::Urgent, &fact);
    while peer.heads.get(&(Lane::Urgent, URGENT_LOG)).is_none_or(|head| head.next_seq == 1) {
        assert!(rig.shell.drain(&mut rig.sensor, at(rig.ms), &mut peer));
    }
    assert!(peer.heads[&(Lane::Bulk, BULK_LOG)].next_seq < 5);
    assert_eq!(peer.read(Lane::Urgent, URGENT_LOG).events.len(), 1);
}

#[test]
fn a_server_that_says_resync_gets_a_keyframe_once_a_minute() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    for name in ["a", "b", "c"] {
        rig.service(name, "active");
    }
    rig.settle(&mut peer);
    let keyframes = |peer: &Peer| peer.read(Lane::Bulk, BULK_LOG).keyframes;
    let before = keyframes(&peer);
    for (wait_ms, expected) in [(0, 1), (1_000, 1), (60_000, 2)] {
        rig.ms += wait_ms;
        rig.lookups(1);
        rig.settle(&mut peer);
        let at_seq = peer.heads[&(Lane::Bulk, BULK_LOG)].next_seq - 1;
        let reason = ResyncReason::DigestDiffers;
        peer.send(&Message::Resync(Resync { lane: Lane::Bulk, at_seq, reason }));
        rig.settle(&mut peer);
        if expected == 2 {
            rig.sensor.handle_timeout(at(rig.ms));
        }
        rig.settle(&mut peer);
        assert_eq!(keyframes(&peer) - before, expected);
    }
    let stale = Resync { lane: Lane::Bulk, at_seq: 1, reason: ResyncReason::Undecodable };
    peer.send(&Message::Resync(stale));
    rig.settle(&mut peer);
    assert_eq!(rig.sensor.stats().resyncs_ignored, 1);
}

#[test]
fn rows_beyond_the_servers_bound_are_forgotten() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    for name in ["a", "b", "c", "d", "e"] {
        rig.service(name, "active");
    }
    peer.rows_max = 3;
    rig.settle(&mut peer);
    rig.ms += 1_000;
    rig.sensor.handle_timeout(at(rig.ms));
    rig.settle(&mut peer);
    let reader = peer.read(Lane::Bulk, BULK_LOG);
    assert_eq!(reader.rows.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(rig.sensor.stats().rows, 3);
}

#[test]
fn a_hole_in_the_spool_is_announced_and_followed_by_a_keyframe() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.service("ssh", "active");
    rig.lookups(3);
    let made = rig.sensor.positions(Lane::Bulk).made;
    let hole = Hole {
        log: BULK_LOG,
        from_seq: 1,
        to_seq: made.seq,
        next_index: Some(made.next_index),
        chain: made.chain,
        cause: JumpCause::Dropped(DropReason::SpoolFull),
    };
    rig.sensor.handle_hole(at(rig.ms), Lane::Bulk, hole);
    rig.lookups(2);
    rig.settle(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    let reader = peer.read(Lane::Bulk, BULK_LOG);
    assert_eq!((reader.events.len(), reader.rows.len()), (2, 1));
    assert_eq!(reader.next_index, rig.sensor.stats().lanes[0].facts_produced + 1);
}

fn number(seq: u64) -> CommandNumber {
    CommandNumber { issuer: 1, seq }
}

#[test]
fn a_command_runs_once_and_its_outcome_is_an_urgent_fact() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.settle(&mut peer);
    let action = Action::StopCollection;
    let command = Command { number: number(1), expires_after_ms: 1_000, action };
    peer.send(&Message::Command(command));
    rig.settle(&mut peer);
    let (now, outcome) = (at(rig.ms), Outcome::Done);
    rig.sensor.handle_outcome(now, number(1), outcome, "stopped").unwrap();
    peer.send(&Message::Command(command));
    rig.settle(&mut peer);
    let outcomes: Vec<_> = peer
        .read(Lane::Urgent, URGENT_LOG)
        .events
        .iter()
        .map(|(_, row)| row[&command_outcome::outcome.0].clone())
        .collect();
    let expected = [Outcome::Done, Outcome::Refused];
    assert_eq!(outcomes, expected.map(|outcome| canonical(Value::U64(outcome as u64))));
    let runs = rig.shell.seen.iter().filter(|event| event.starts_with("ExecuteCommand"));
    assert_eq!(runs.count(), 1);
}

#[test]
fn what_does_not_belong_ends_the_session_and_nothing_more() {
    let frames: [(&[u8], PeerFault); 3] = [
        (&[0xff; 64], PeerFault::Malformed(lapwing_protocol::error::DecodeError::Limit)),
        (&[1, 0, 3, 0, 0], PeerFault::Malformed(lapwing_protocol::error::DecodeError::Truncated)),
        (
            &[0, 0, 0x99, 0x01],
            PeerFault::Malformed(lapwing_protocol::error::DecodeError::UnknownKind),
        ),
    ];
    for (bytes, fault) in frames {
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::new(Memory::Disk, owned.storage());
        let mut peer = Peer::new(0xa);
        rig.settle(&mut peer);
        peer.output.extend(bytes);
        rig.settle(&mut peer);
        assert_eq!(rig.last_close(), Some(&CloseReason::Peer(fault)));
        rig.ms += 10_000;
        rig.lookups(1);
        rig.settle(&mut peer);
        rig.all_stored(&peer, Lane::Bulk);
    }
}

#[test]
fn an_unknown_kind_that_may_be_skipped_is_skipped() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.settle(&mut peer);
    peer.output.extend([2, 0, 0x99, 0x81, 7, 7]);
    peer.send(&Message::Ping(Ping { nonce: 3 }));
    rig.settle(&mut peer);
    assert_eq!(rig.last_close(), None);
    assert!(rig.sensor.server().is_some());
}

#[test]
fn a_nack_for_what_is_stored_and_an_ack_for_what_was_never_sent_are_faults() {
    for is_nack in [true, false] {
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::new(Memory::Disk, owned.storage());
        let mut peer = Peer::new(0xa);
        rig.lookups(3);
        rig.settle(&mut peer);
        let (lane, reason) = (Lane::Bulk, NackReason::OutOfOrder);
        peer.send(&if is_nack {
            Message::Nack(Nack { lane, next_seq: 1, episode: 1, reason, retry_after_ms: 0 })
        } else {
            let credit = lapwing_protocol::delivery::Credit { limit_seq: 9, limit_bytes: 9 };
            let (stored_seq, safe_seq) = (99, 0);
            Message::Ack(lapwing_protocol::delivery::Ack { lane, stored_seq, safe_seq, credit })
        });
        rig.settle(&mut peer);
        assert!(matches!(rig.last_close(), Some(CloseReason::Peer(_))), "{is_nack}");
    }
}

#[test]
fn draining_refusal_silence_and_standstill_end_a_session() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.settle(&mut peer);
    peer.send(&Message::Draining(Draining { retry_after_ms: 7_000 }));
    rig.settle(&mut peer);
    assert_eq!(rig.last_close(), Some(&CloseReason::Draining { retry_after_ms: 7_000 }));
    rig.ms += 6_000;
    rig.settle(&mut peer);
    assert_eq!(rig.sensor.server(), None, "it stays away as long as it was told");

    rig.ms += 5_000;
    rig.settle(&mut peer);
    let code = lapwing_protocol::code::Code::BUSY;
    peer.send(&Message::Refused(Refused { code, retry_after_ms: 1_000, detail: "full" }));
    rig.settle(&mut peer);
    assert_eq!(rig.last_close(), Some(&CloseReason::Refused { code, retry_after_ms: 1_000 }));

    rig.ms += 5_000;
    rig.settle(&mut peer);
    peer.is_silent = true;
    rig.lookups(1);
    rig.settle(&mut peer);
    rig.ms += 31_000;
    rig.sensor.handle_timeout(at(rig.ms));
    rig.settle(&mut peer);
    assert_eq!(rig.last_close(), Some(&CloseReason::NoProgress));

    rig.ms += 5_000;
    peer.is_silent = false;
    rig.settle(&mut peer);
    rig.ms += 91_000;
    rig.sensor.handle_timeout(at(rig.ms));
    rig.settle(&mut peer);
    assert_eq!(rig.last_close(), Some(&CloseReason::Idle));
}

#[test]
fn a_microcontroller_lends_at_most_four_kibibytes() {
    assert!(Sizes::MICROCONTROLLER.bytes() <= 4_096, "{}", Sizes::MICROCONTROLLER.bytes());
    assert!(size_of::<Sensor<'_>>() <= 3_488, "{}", size_of::<Sensor<'_>>());
    let mut owned = Owned::new(&Sizes::MICROCONTROLLER);
    let mut rig = Rig::new(Memory::RamOnly, owned.storage());
    let mut peer = Peer::new(0xa);
    peer.bytes_ahead = 300;
    rig.service("a", "on");
    rig.settle(&mut peer);
    rig.lookups(20);
    rig.settle(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
}

#[test]
fn the_desktop_profile_makes_whole_chunks() {
    let mut owned = Owned::new(&Sizes::DESKTOP);
    let sensor = Sensor::new(config(Memory::Disk), owned.storage(), logs()).unwrap();
    assert_eq!(sensor.transmit_bytes_min(), CHUNK_BYTES_MAX + 4);
    assert!(Sizes::DESKTOP.bytes() < 5 << 20);
}
