//! Every cause of a Jump, as the sensor says it, by the numbers of its requirements.
//!
//! The server of these tests panics where the chunk behind a Jump does not open (JMP-004).
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test stops where it fails")]

mod world;

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::command::{Action, Command, CommandNumber, Outcome};
use lapwing_protocol::delivery::{Jump, JumpCause, LossReason};
use lapwing_protocol::element::{Change, Fact, Field, Value, dns, finding};
use lapwing_protocol::hello::{LogCause, Memory};
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::message::Message;
use lapwing_protocol::op::DropReason;
use lapwing_sensor_core::limits::COMMANDS_MAX;
use lapwing_sensor_core::*;
use world::peer::Peer;
use world::rig::Rig;
use world::shell::Spooled;
use world::{BULK_LOG, DEPLOYMENT, Owned, SENSOR, SMALL, at, config, log};

const BULK: (Lane, LogId) = (Lane::Bulk, BULK_LOG);

fn jumps(peer: &Peer) -> &[Jump] {
    &peer.heads[&BULK].jumps
}

fn facts(peer: &Peer, log: LogId) -> u64 {
    let chunks = peer.heads[&(Lane::Bulk, log)].chunks.values();
    let header = |bytes: &Vec<u8>| Chunk::decode(bytes).unwrap().header;
    chunks.map(|bytes| header(bytes).count).sum()
}

/// All that a shell may declare a hole for.
const DECLARED: [JumpCause; 5] = [
    JumpCause::Dropped(DropReason::SpoolFull),
    JumpCause::Dropped(DropReason::SpoolFailed),
    JumpCause::Dropped(DropReason::MemoryFull),
    JumpCause::Lost(LossReason::SpoolDamaged),
    JumpCause::Lost(LossReason::MemoryLost),
];

#[test]
fn jmp_001_a_hole_is_told_where_it_lies_with_its_cause_and_last_index() {
    for cause in DECLARED {
        for is_known in [true, false] {
            let mut owned = Owned::new(&SMALL);
            let mut rig = Rig::new(Memory::Disk, owned.storage());
            let mut peer = Peer::new(0xa);
            rig.lookups(4);
            rig.settle(&mut peer);
            rig.reconnect(&mut peer);
            rig.cut();
            rig.lookups(6);
            let made = rig.sensor.positions(Lane::Bulk).made;
            // What builds upon the hole goes with it; the next chunk opens.
            let known = rig.sensor.positions(Lane::Bulk).acked;
            let hole = Hole {
                log: BULK_LOG,
                from_seq: known.seq + 1,
                to_seq: made.seq,
                next_index: is_known.then_some(made.next_index),
                chain: made.chain,
                cause,
            };
            let now = at(rig.ms);
            rig.sensor.handle_hole(now, Lane::Bulk, hole);
            rig.lookups(2);
            rig.reconnect(&mut peer);
            rig.all_stored(&peer, Lane::Bulk);
            let [jump] = jumps(&peer) else { panic!("one jump: {:?}", jumps(&peer)) };
            assert_eq!((jump.from_seq, jump.to_seq, jump.cause), (known.seq + 1, made.seq, cause));
            // It reaches the end, so the sensor knows where it ends, whatever its shell does.
            assert_eq!(jump.to_index, Some(made.next_index - 1));
            assert_eq!(facts(&peer, BULK_LOG), 6);
        }
    }
}

#[test]
fn jmp_002_a_jump_whose_acknowledgement_was_lost_is_not_said_again() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.lookups(5);
    let made = rig.sensor.positions(Lane::Bulk).made.seq;
    let now = at(rig.ms);
    rig.shell.drop_run(&mut rig.sensor, now, BULK, 1..=made);
    peer.is_silent = true;
    rig.lookups(2);
    rig.settle(&mut peer);
    peer.is_silent = false;
    rig.reconnect(&mut peer);
    rig.lookups(1);
    rig.settle(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    assert_eq!((jumps(&peer).len(), peer.repeats), (1, 0));
}

/// What is left of a keyframe does not decode without its beginning.
#[test]
fn jmp_004_a_hole_that_takes_the_beginning_of_a_keyframe_takes_what_is_still_to_be_made() {
    // Room for three chunks, so that a keyframe of more parts waits half-made.
    let sizes = Sizes { bulk: LaneSizes { window: 2_048, ..SMALL.bulk }, ..SMALL };
    let mut owned = Owned::new(&sizes);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    for number in 0..20 {
        rig.service(&format!("{number:0>100}"), "running");
    }
    rig.settle(&mut peer);
    rig.reconnect(&mut peer);
    let now = at(rig.ms);
    let fields = [Field::new(dns::question, Value::text("host.example"))];
    let time_ns = now.monotonic_ns;
    let fact = Fact { kind: dns::KIND, change: Change::Event, time_ns, fields: &fields };
    let refused = rig.sensor.handle_fact(now, Lane::Bulk, &fact);
    assert_eq!(refused, Err(IntakeError::Undrained), "the keyframe waits half-made");
    let first = rig.sensor.poll_chunk(now).expect("its first part");
    assert!(first.opens_segment);
    let from_seq = first.seq;
    let made = rig.sensor.positions(Lane::Bulk).made;
    let cause = JumpCause::Dropped(DropReason::SpoolFailed);
    let (to_seq, next_index) = (made.seq, Some(made.next_index));
    let hole = Hole { log: BULK_LOG, from_seq, to_seq, next_index, chain: made.chain, cause };
    rig.sensor.handle_hole(now, Lane::Bulk, hole);
    let behind = rig.sensor.positions(Lane::Bulk).made;
    let gone = |seq| (seq, Spooled { bytes: Vec::new(), opens: false, behind });
    rig.shell.spool.get_mut(&BULK).unwrap().extend((from_seq..=behind.seq).map(gone));
    rig.shell.made.insert(BULK, behind);
    // The parts that were made already are offered all the same.
    for seq in from_seq + 1..=behind.seq {
        assert_eq!(rig.sensor.poll_chunk(now).map(|part| part.seq), Some(seq));
    }
    rig.sensor.handle_spooled(now, Lane::Bulk, behind.seq);
    rig.lookups(2);
    rig.settle(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    assert_eq!(jumps(&peer).len(), 1, "{:?}", jumps(&peer));
}

#[test]
fn jmp_005_stored_elsewhere_is_said_of_nothing_that_no_server_acknowledged() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let (mut a, mut b) = (Peer::new(0xa), Peer::new(0xb));
    rig.lookups(10);
    rig.settle(&mut a);
    rig.reconnect(&mut a);
    a.is_silent = true;
    rig.lookups(10);
    rig.settle(&mut a);
    let acked = rig.sensor.positions(Lane::Bulk).acked;
    rig.reconnect(&mut b);
    rig.all_stored(&b, Lane::Bulk);
    let [jump] = jumps(&b) else { panic!("one jump: {:?}", jumps(&b)) };
    assert_eq!(jump.cause, JumpCause::StoredElsewhere(a.id));
    assert!(jump.to_seq <= acked.seq);
    assert_eq!(facts(&b, BULK_LOG), 20 - jump.to_index.unwrap());
}

#[test]
fn jmp_006_a_hole_that_reaches_the_open_segment_takes_the_open_chunk_with_it() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.service("ssh", "active");
    rig.lookups(3);
    // Two more facts within a moment: the second waits in the open chunk.
    let made = rig.sensor.positions(Lane::Bulk).made;
    rig.quick_lookups(2);
    let produced = rig.sensor.stats().lanes[0].facts_produced;
    assert!(produced > made.next_index, "{produced}");
    let hole = Hole {
        log: BULK_LOG,
        from_seq: 1,
        to_seq: rig.sensor.positions(Lane::Bulk).made.seq,
        next_index: None,
        chain: made.chain,
        cause: JumpCause::Dropped(DropReason::SpoolFailed),
    };
    let now = at(rig.ms);
    rig.sensor.handle_hole(now, Lane::Bulk, hole);
    rig.ms += 1_000;
    rig.lookups(1);
    rig.settle(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    let [jump] = jumps(&peer) else { panic!("one jump") };
    assert_eq!(jump.to_index, Some(produced), "to the event");
    assert_eq!(facts(&peer, BULK_LOG), 1);
    assert_eq!(peer.read(Lane::Bulk, BULK_LOG).rows.len(), 1, "the segment states all rows");
}

#[test]
fn jmp_007_what_a_power_cut_took_of_an_old_log_is_unknown_wherever_the_server_stands() {
    for more in [0, 3] {
        let mut peer = Peer::new(0xa);
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::new(Memory::Disk, owned.storage());
        rig.lookups(5);
        rig.settle(&mut peer);
        let ([on_disk, _], shell) = rig.image();
        // The server has these, the disk lost them.
        rig.lookups(more);
        rig.settle(&mut peer);
        let stored = peer.heads[&BULK].next_seq - 1;
        drop(rig);

        let end = Position { seq: on_disk.made.seq + 8_192, ..on_disk.made };
        let old = LogPositions { made: end, ..on_disk };
        let (new_log, parent) = (LogId([7; 16]), Some(old.as_parent()));
        let new = LogPositions::open(
            (DEPLOYMENT, SENSOR),
            Lane::Bulk,
            new_log,
            LogCause::Unclean,
            parent,
        );
        let mut owned = Owned::new(&SMALL);
        let logs = [new, log(Lane::Urgent, LogId([8; 16]))];
        let mut sensor = Sensor::new(config(Memory::Disk), owned.storage(), logs).unwrap();
        sensor.handle_tail(Lane::Bulk, Some(old));
        let unknown = Hole {
            log: BULK_LOG,
            from_seq: on_disk.made.seq + 1,
            to_seq: end.seq,
            next_index: None,
            chain: end.chain,
            cause: JumpCause::Lost(LossReason::MemoryLost),
        };
        sensor.handle_hole(at(100_000), Lane::Bulk, unknown);
        sensor.start(at(100_000));
        let mut rig = Rig { sensor, shell, ms: 100_000, names: 100 };
        rig.lookups(2);
        rig.settle(&mut peer);
        rig.all_stored(&peer, Lane::Bulk);
        let [jump] = jumps(&peer) else { panic!("one jump: {:?}", jumps(&peer)) };
        assert_eq!((jump.from_seq, jump.to_seq, jump.to_index), (stored + 1, end.seq, None));
        assert_eq!(jump.cause, JumpCause::Lost(LossReason::MemoryLost));
        assert_eq!((facts(&peer, BULK_LOG), facts(&peer, new_log)), (5 + more, 2));
        assert_eq!(rig.shell.logs_opened, 0, "no fork");
    }
}

#[test]
fn jmp_009_more_holes_than_there_is_room_for_swallow_what_lies_between() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    // Six segments; the first, third and fifth are lost, and there is room for two holes.
    for _ in 0..6 {
        rig.lookups(3);
        rig.cut();
        rig.reconnect_to_nobody();
    }
    let openers: Vec<u64> = rig.shell.spool[&BULK]
        .iter()
        .filter_map(|(seq, chunk)| chunk.opens.then_some(*seq))
        .collect();
    assert!(openers.len() >= 6, "{openers:?}");
    for at_opener in [0, 2, 4] {
        let now = at(rig.ms);
        let run = openers[at_opener]..=openers[at_opener + 1] - 1;
        rig.shell.drop_run(&mut rig.sensor, now, BULK, run);
    }
    rig.reconnect(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    assert!(jumps(&peer).len() <= 2, "{:?}", jumps(&peer));
    let jumped: u64 = {
        let mut next_index = 1;
        let mut jumped = 0;
        let head = &peer.heads[&BULK];
        for seq in 1..head.next_seq {
            if let Some(jump) = head.jumps.iter().find(|jump| jump.to_seq == seq) {
                jumped += jump.to_index.unwrap() + 1 - next_index;
                next_index = jump.to_index.unwrap() + 1;
            } else if let Some(bytes) = head.chunks.get(&seq) {
                next_index = Chunk::decode(bytes).unwrap().next_index();
            }
        }
        jumped
    };
    assert_eq!(facts(&peer, BULK_LOG) + jumped, 18, "each fact is stored or told of");
}

#[test]
fn hel_024_a_branch_of_more_facts_in_fewer_chunks_is_not_jumped_back_into() {
    let (mut a, mut b) = (Peer::new(0xa), Peer::new(0xb));
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    rig.lookups(5);
    rig.settle(&mut a);
    let (logs, shell) = rig.image();
    // One branch at A: many facts in few chunks.
    for _ in 0..4 {
        rig.quick_lookups(6);
        rig.lookups(1);
    }
    rig.settle(&mut a);
    rig.cut();
    let stored = (a.heads[&BULK].next_seq, a.heads[&BULK].next_index);

    // The other one at B: few facts in many chunks.
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::over(Memory::Disk, owned.storage(), logs, shell, 50_000);
    rig.settle(&mut b);
    while b.heads[&BULK].next_seq <= stored.0 {
        rig.lookups(1);
        rig.settle(&mut b);
    }
    // A segment begins there, so that nothing before it is held to compare with.
    rig.reconnect(&mut b);
    rig.lookups(1);
    rig.settle(&mut b);
    assert!(b.heads[&BULK].next_index < stored.1, "{:?}", b.heads[&BULK]);
    rig.reconnect(&mut a);
    rig.settle(&mut a);
    let made = rig.sensor.positions(Lane::Bulk);
    assert_eq!((made.cause, made.parent.unwrap().log), (LogCause::Forked, BULK_LOG));
    assert!(jumps(&a).is_empty());
    assert_eq!((a.heads[&BULK].next_seq, a.heads[&BULK].next_index), stored);
}

/// What is fetched for one lane holds up the other until it is sent; after a Hello nobody sends it.
#[test]
fn dlv_013_what_was_fetched_before_another_hello_holds_up_no_lane() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let (mut first, mut second) = (Peer::new(0xa), Peer::new(0xb));
    let fields = [Field::new(finding::code, Value::U64(26))];
    let (kind, time_ns) = (finding::KIND, 7);
    let fact = Fact { kind, change: Change::Event, time_ns, fields: &fields };
    rig.shell.fact(&mut rig.sensor, at(rig.ms), Lane::Urgent, &fact);
    rig.lookups(2);
    rig.settle(&mut first);
    rig.cut();
    rig.lookups(100);
    rig.ms += 10_000;
    rig.sensor.handle_timeout(at(rig.ms));

    // Greeted by a server that lacks the urgent chunk, it wants that back; before it is sent come
    // more commands than it takes, and it says Hello again when those it took are told.
    let is_urgent = |event: &String| event.starts_with("Fetch { lane: Urgent");
    while !rig.shell.seen.iter().any(is_urgent) {
        assert!(rig.shell.step(&mut rig.sensor, at(rig.ms), &mut second));
    }
    for seq in 1..=COMMANDS_MAX as u64 + 1 {
        let (number, action) = (CommandNumber { issuer: 1, seq }, Action::StopCollection);
        let command = Command { number, expires_after_ms: 60_000, action };
        second.send(&Message::Command(command));
    }
    let commands = std::mem::take(&mut second.output);
    rig.shell.input(&mut rig.sensor, at(rig.ms), &commands);
    for seq in 1..=COMMANDS_MAX as u64 {
        let number = CommandNumber { issuer: 1, seq };
        rig.sensor.handle_outcome(at(rig.ms), number, Outcome::Done, "").unwrap();
        rig.shell.spool(&mut rig.sensor, at(rig.ms));
    }
    rig.settle(&mut second);
    assert_eq!(second.hellos, 2);
    rig.all_stored(&second, Lane::Bulk);
}
