//! Rows 24 and 25: two branches of one sensor, an image of whose disk went on.

use super::*;

/// The image of a sensor all of whose five lookups were sent and acknowledged; the sensor itself
/// told `peer` of `more` since.
fn image_behind(peer: &mut Peer, more: u64) -> ([LogPositions; 2], Shell) {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    rig.lookups(5);
    rig.settle(peer);
    let sent_seq = rig.sensor.sent_seq(Lane::Bulk);
    assert_eq!(sent_seq, rig.sensor.positions(Lane::Bulk).made.seq);
    let image = rig.image();
    rig.lookups(more);
    rig.settle(peer);
    rig.cut();
    image
}

#[test]
fn hel_024_a_server_in_a_hole_with_facts_that_the_hole_has_not_is_of_another_branch() {
    let mut peer = Peer::new(0xa);
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    rig.lookups(5);
    rig.settle(&mut peer);
    let (logs, shell) = rig.image();
    rig.quick_lookups(20);
    rig.lookups(2);
    rig.settle(&mut peer);
    let stored = peer.heads[&BULK].next_seq - 1;
    rig.cut();

    // The image ran on: in as many chunks fewer facts, and those were dropped.
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::over(Memory::Disk, owned.storage(), logs, shell, 50_000);
    rig.lookups(5);
    let acked = rig.sensor.positions(Lane::Bulk).acked.seq;
    let made = rig.sensor.positions(Lane::Bulk).made;
    assert!(stored < made.seq && made.next_index < peer.heads[&BULK].next_index);
    let (logs, shell) = rig.image();
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::over(Memory::Disk, owned.storage(), logs, shell, 90_000);
    let now = at(rig.ms);
    rig.shell.drop_run(&mut rig.sensor, now, BULK, acked + 1..=made.seq);
    rig.lookups(1);
    rig.settle(&mut peer);
    let new = rig.sensor.positions(Lane::Bulk);
    assert_eq!((new.cause, new.parent.unwrap().log), (LogCause::Forked, BULK_LOG));
    assert!(jumps(&peer).is_empty());
    assert_eq!(told_lost(&peer), [lost(6)]);
}

#[test]
fn hel_024_a_server_in_a_hole_of_what_was_never_sent_is_of_another_branch() {
    let mut peer = Peer::new(0xa);
    let (logs, shell) = image_behind(&mut peer, 3);

    // The image ran on without a server, and its spool reached its bound.
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::over(Memory::Disk, owned.storage(), logs, shell, 50_000);
    rig.lookups(100);
    let acked = rig.sensor.positions(Lane::Bulk).acked.seq;
    let made = rig.sensor.positions(Lane::Bulk).made;
    let now = at(rig.ms);
    rig.shell.drop_run(&mut rig.sensor, now, BULK, acked + 1..=made.seq);
    rig.lookups(1);
    rig.settle(&mut peer);
    let new = rig.sensor.positions(Lane::Bulk);
    assert_eq!((new.cause, new.parent.unwrap().log), (LogCause::Forked, BULK_LOG));
    assert!(jumps(&peer).is_empty());
    assert_eq!(told_lost(&peer), [lost(101)]);
}

/// Seed 81020 of the simulator: what the image made before the hole was taken for stored.
#[test]
fn hel_024_what_was_never_sent_is_known_over_a_stop_in_good_order() {
    for is_known in [true, false] {
        let mut peer = Peer::new(0xa);
        let (logs, shell) = image_behind(&mut peer, 6);
        let (sent_seq, continued) = (logs[0].made.seq, logs[0].made.next_index);

        // The image ran on without a server; its disk took three chunks and refused the next.
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::over(Memory::Disk, owned.storage(), logs, shell, 50_000);
        rig.sensor.note_sent(Lane::Bulk, BULK_LOG, sent_seq);
        rig.lookups(10);
        let made = rig.sensor.positions(Lane::Bulk).made;
        assert!(sent_seq + 4 < peer.heads[&BULK].next_seq && peer.heads[&BULK].next_seq < made.seq);
        let now = at(rig.ms);
        let hole = sent_seq + 4..=made.seq;
        let hole = rig.shell.drop_run(&mut rig.sensor, now, BULK, hole);
        assert_eq!(rig.sensor.sent_seq(Lane::Bulk), sent_seq);

        // It stopped in good order, and started again.
        let (logs, shell) = rig.image();
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::over(Memory::Disk, owned.storage(), logs, shell, 90_000);
        if is_known {
            rig.sensor.note_sent(Lane::Bulk, BULK_LOG, sent_seq);
        }
        rig.sensor.note_continued(Lane::Bulk, BULK_LOG, continued);
        rig.sensor.handle_hole(at(rig.ms), Lane::Bulk, hole);
        rig.lookups(1);
        rig.settle(&mut peer);
        let new = rig.sensor.positions(Lane::Bulk);
        let told = told_lost(&peer);
        if is_known {
            assert_eq!((new.cause, &told[..]), (LogCause::Forked, &[lost(11)][..]));
        } else {
            // The server's word is taken, and six facts may be in no branch of it.
            assert_eq!((new.cause, &told[..]), (LogCause::First, &[lost(6)][..]));
        }
    }
}

/// Seeds 8643 and 35930 of the simulator: what an image made up to a hole, without a server, was
/// taken for stored, since of a log that is not gone on with nobody knows how much of it was sent.
#[test]
fn hel_038_facts_in_whose_places_the_server_may_have_another_branch_are_told_as_lost() {
    for is_continued in [true, false] {
        let mut peer = Peer::new(0xa);
        let (logs, shell) = image_behind(&mut peer, 6);
        let (sent_seq, continued) = (logs[0].made.seq, logs[0].made.next_index);
        let stored = peer.heads[&BULK].next_seq - 1;

        // The image ran on without a server; its disk took three chunks and refused the next.
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::over(Memory::Disk, owned.storage(), logs, shell, 50_000);
        rig.lookups(10);
        let made = rig.sensor.positions(Lane::Bulk).made;
        assert!(sent_seq + 4 < stored && stored < made.seq);
        let now = at(rig.ms);
        let hole = rig.shell.drop_run(&mut rig.sensor, now, BULK, sent_seq + 4..=made.seq);
        rig.lookups(2);

        // It was killed: a new log, and the old one goes first.
        let (logs, shell) = rig.image();
        let (ids, parent) = ((DEPLOYMENT, SENSOR), Some(logs[0].as_parent()));
        let new = LogPositions::open(ids, Lane::Bulk, LogId([7; 16]), LogCause::Unclean, parent);
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::over(Memory::Disk, owned.storage(), [new, logs[1]], shell, 90_000);
        rig.sensor.handle_tail(Lane::Bulk, Some(logs[0]));
        if is_continued {
            rig.sensor.note_continued(Lane::Bulk, BULK_LOG, continued);
        }
        rig.sensor.handle_hole(at(rig.ms), Lane::Bulk, hole);
        rig.settle(&mut peer);
        let told: Vec<_> = jumps(&peer).iter().map(|jump| (jump.from_seq, jump.to_seq)).collect();
        assert_eq!(told, [(stored + 1, hole.to_seq)]);
        assert_eq!(peer.heads[&BULK].next_seq, logs[0].made.seq + 1, "the rest of it went");
        // The other branch's six facts took the places of as many: two before the hole, four in it.
        let expected = if is_continued { vec![lost(6)] } else { Vec::new() };
        assert_eq!(told_lost(&peer), expected);
    }
}

/// Seed 173390 of the simulator: what went to one server was taken for what another one has.
#[test]
fn hel_024_what_went_to_another_server_is_not_what_this_one_has() {
    let (mut peer, mut other) = (Peer::new(0xa), Peer::new(0xb));
    let (logs, shell) = image_behind(&mut peer, 6);
    let sent_seq = logs[0].made.seq;

    // The image ran on: its disk refused some, and the rest went to a server that said nothing.
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::over(Memory::Disk, owned.storage(), logs, shell, 50_000);
    other.heads = peer.heads.clone();
    let head = other.heads.get_mut(&BULK).unwrap();
    (head.next_seq, head.next_index, head.chain) =
        (logs[0].made.seq + 1, logs[0].made.next_index, logs[0].made.chain);
    other.is_silent = true;
    rig.lookups(10);
    let made = rig.sensor.positions(Lane::Bulk).made;
    assert!(sent_seq + 4 < peer.heads[&BULK].next_seq && peer.heads[&BULK].next_seq < made.seq);
    let now = at(rig.ms);
    let hole = rig.shell.drop_run(&mut rig.sensor, now, BULK, sent_seq + 4..=made.seq);
    // Memory may not hold what was dropped.
    let (logs, shell) = rig.image();
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::over(Memory::Disk, owned.storage(), logs, shell, 90_000);
    rig.sensor.note_sent(Lane::Bulk, BULK_LOG, sent_seq);
    rig.sensor.handle_hole(at(rig.ms), Lane::Bulk, hole);
    rig.settle(&mut other);
    assert_eq!(rig.sensor.sent_seq(Lane::Bulk), made.seq, "three chunks and a Jump");
    rig.reconnect(&mut peer);
    rig.lookups(1);
    rig.settle(&mut peer);
    let new = rig.sensor.positions(Lane::Bulk);
    assert_eq!((new.cause, told_lost(&peer)), (LogCause::Forked, vec![lost(10)]));
}

#[test]
fn hel_024_a_branch_that_ran_on_goes_on_in_a_new_log_and_what_nobody_has_is_told() {
    // The image is of the last acknowledged place, or of an earlier one.
    for is_forked in [true, false] {
        let mut peer = Peer::new(0xa);
        let (logs, shell) = image_behind(&mut peer, 3);

        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::over(Memory::Disk, owned.storage(), logs, shell, 50_000);
        rig.lookups(9);
        if is_forked {
            // Some other server acknowledged as many chunks of this branch.
            let mut other = Peer::new(0xb);
            other.chunks_ahead = 4;
            other.heads = peer.heads.clone();
            let head = other.heads.get_mut(&BULK).unwrap();
            (head.next_seq, head.next_index, head.chain) =
                (logs[0].made.seq + 1, logs[0].made.next_index, logs[0].made.chain);
            while rig.sensor.positions(Lane::Bulk).acked.seq < peer.heads[&BULK].next_seq - 1 {
                assert!(rig.shell.drain(&mut rig.sensor, at(rig.ms), &mut other));
            }
            rig.cut();
            rig.ms += 5_000;
        }
        let acked = rig.sensor.positions(Lane::Bulk).acked;
        let branch = rig.sensor.positions(Lane::Bulk).made.next_index - acked.next_index;
        rig.settle(&mut peer);
        rig.settle(&mut peer);
        let made = rig.sensor.positions(Lane::Bulk);
        assert_eq!((made.cause, made.parent.unwrap().log), (LogCause::Forked, BULK_LOG));
        let forked = peer.said.iter().any(|said| said.verdict == LogVerdict::Forked);
        assert_eq!(forked, is_forked && acked.seq == peer.heads[&BULK].next_seq - 1);
        rig.lookups(1);
        rig.settle(&mut peer);
        rig.all_stored(&peer, Lane::Bulk);
        assert_eq!(told_lost(&peer), [lost(branch)]);
    }
}

#[test]
fn hel_025_both_clones_go_on_and_what_neither_server_nor_finding_has_is_nothing() {
    let mut peer = Peer::new(0xa);
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    rig.lookups(5);
    rig.settle(&mut peer);
    let (logs, shell) = rig.image();
    drop(rig);
    let (mut owned_a, mut owned_b) = (Owned::new(&SMALL), Owned::new(&SMALL));
    let (logs_b, shell_b) = (logs, Shell { spool: shell.spool.clone(), ..Shell::default() });
    let mut a = Rig::over(Memory::Disk, owned_a.storage(), logs, shell, 50_000);
    let mut b = Rig::over(Memory::Disk, owned_b.storage(), logs_b, shell_b, 70_000);
    for turn in 0..4 {
        let clone = if turn % 2 == 0 { &mut a } else { &mut b };
        clone.shell.logs_opened = 40 * (turn % 2);
        clone.lookups(3);
        clone.settle(&mut peer);
        clone.settle(&mut peer);
        clone.cut();
        clone.ms += 400_000;
    }
    let bulk = peer.heads.keys().filter(|(lane, _)| *lane == Lane::Bulk);
    assert!(bulk.count() >= 2, "two branches, two logs");
    let told = told_lost(&peer);
    assert_eq!((facts(&[&peer]), &told[..]), (5 + 12 - 3, &[lost(3)][..]));
}
