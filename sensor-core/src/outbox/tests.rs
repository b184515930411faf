//! What a lane keeps, drops and remembers.

use super::*;
use lapwing_protocol::chunk::{ChunkFlags, ChunkHeader};
use lapwing_protocol::hello::LogCause;
use lapwing_protocol::id::{DeploymentId, SensorId};
use std::vec::Vec;

const A: ServerId = ServerId([0xa; 16]);
const B: ServerId = ServerId([0xb; 16]);

fn chunk(seq: u64) -> Vec<u8> {
    chunk_of(seq, ChunkFlags::SELF_CONTAINED, 0)
}

fn chunk_of(seq: u64, flags: u8, part: u16) -> Vec<u8> {
    let header = ChunkHeader {
        flags: ChunkFlags(flags),
        encoding: 1,
        seq,
        first_index: seq * 10,
        count: 10,
        part,
        time_base_ns: 0,
        digest: [0; 4],
    };
    let mut buffer = [0; 64];
    Chunk { header, body: &[0; 20] }.encode(&mut buffer).unwrap().to_vec()
}

fn with_outbox(memory: Memory, body: impl FnOnce(&mut Outbox<'_>)) {
    let ids = (DeploymentId([1; 16]), SensorId([2; 16]));
    let log = LogPositions::open(ids, Lane::Bulk, LogId([3; 16]), LogCause::First, None);
    let (mut window, mut holes, mut stored) = ([0; 260], [Hole::NONE; 2], [Stored::NONE; 2]);
    body(&mut Outbox::new((Lane::Bulk, memory, 60), log, &mut window, (&mut holes, &mut stored)));
}

fn push(outbox: &mut Outbox<'_>, seqs: core::ops::RangeInclusive<u64>) {
    for seq in seqs {
        outbox.push(&chunk(seq), (seq + 1) * 10);
    }
}

#[test]
fn full_memory_drops_the_oldest_unsent_and_keeps_what_is_in_flight() {
    with_outbox(Memory::RamOnly, |outbox| {
        push(outbox, 1..=3);
        outbox.unsent_seq = 2;
        push(outbox, 4..=5);
        let hole = outbox.hole_at(2).unwrap();
        assert_eq!((hole.from_seq, hole.to_seq, hole.next_index), (2, 3, Some(40)));
        assert!(outbox.find(1).is_some() && outbox.find(2).is_none());
        assert_eq!(outbox.facts_dropped, 20);
    });
}

#[test]
fn the_later_parts_of_a_dropped_keyframe_go_with_it() {
    let flags = ChunkFlags::SELF_CONTAINED | ChunkFlags::KEYFRAME;
    with_outbox(Memory::RamOnly, |outbox| {
        outbox.push(&chunk(1), 20);
        for part in 0..5 {
            let seq = u64::from(part) + 2;
            outbox.push(&chunk_of(seq, flags, part), (seq + 1) * 10);
        }
        outbox.push(&chunk(7), 80);
        let hole = outbox.hole_at(2).unwrap();
        assert_eq!((hole.from_seq, hole.to_seq), (1, 6), "part 0 is gone, so are the others");
        assert!(outbox.find(7).is_some());
    });
}

#[test]
fn what_is_left_of_a_keyframe_goes_where_another_server_has_its_beginning() {
    let flags = ChunkFlags::SELF_CONTAINED | ChunkFlags::KEYFRAME;
    with_outbox(Memory::RamOnly, |outbox| {
        for part in 1..3 {
            let seq = u64::from(part);
            outbox.push(&chunk_of(seq, flags, part), 20);
        }
        outbox.push(&chunk(3), 40);
        outbox.drop_rest_of_keyframe(3);
        assert_eq!(outbox.hole_at(3), None, "this one opens by itself");
        outbox.drop_rest_of_keyframe(1);
        let hole = outbox.hole_at(1).unwrap();
        assert_eq!((hole.from_seq, hole.to_seq), (1, 2));
        assert!(outbox.find(3).is_some());
    });
}

#[test]
fn with_a_spool_only_what_is_spooled_leaves_the_memory_and_is_sent() {
    with_outbox(Memory::Disk, |outbox| {
        push(outbox, 1..=2);
        assert_eq!(outbox.sendable_seq(), 0);
        assert_eq!(outbox.offer().map(|spool| spool.seq), Some(1));
        assert_eq!(outbox.offer().map(|spool| spool.seq), Some(2));
        assert_eq!(outbox.offer(), None);
        outbox.handle_spooled(2);
        push(outbox, 3..=4);
        assert!(outbox.find(1).is_none() && outbox.find(4).is_some());
        assert_eq!((outbox.sendable_seq(), outbox.facts_dropped), (2, 0));
        assert!(!outbox.has_room(60));
    });
}

#[test]
fn holes_that_meet_become_one_and_a_third_swallows_what_lies_between() {
    with_outbox(Memory::RamOnly, |outbox| {
        push(outbox, 1..=3);
        let hole = |from_seq, to_seq| Hole {
            log: outbox.current().log,
            from_seq,
            to_seq,
            next_index: Some(to_seq * 10),
            ..Hole::NONE
        };
        let holes = [hole(20, 22), hole(10, 12), hole(8, 9), hole(1, 1), hole(4, 4)];
        for hole in holes {
            outbox.add_hole(hole);
        }
        let ranges = |seq| outbox.hole_at(seq).map(|hole| (hole.from_seq, hole.to_seq));
        assert_eq!(ranges(21), Some((20, 22)));
        assert_eq!(ranges(2), Some((1, 12)));
        assert_eq!(outbox.facts_dropped, 30);
    });
}

#[test]
fn a_run_stored_elsewhere_is_told_from_one_that_the_server_lost() {
    with_outbox(Memory::Disk, |outbox| {
        let position = |seq| Position { seq, ..outbox.current().made };
        let (first, second) = (position(200), position(500));
        outbox.handle_stored(A, first);
        outbox.handle_stored(B, second);
        assert_eq!(outbox.hole_cause(A, 201, 500), JumpCause::StoredElsewhere(B));
        let lost = JumpCause::Lost(LossReason::ServerRolledBack);
        assert_eq!(outbox.hole_cause(A, 150, 500), lost);
    });
}
