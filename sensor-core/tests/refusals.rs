//! What is given up, and what is turned away: a log that a server will not go on with, a command
//! that finds no room. Nothing of it is silent, and nothing is told that is not so.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test stops where it fails")]

mod world;

use std::collections::BTreeMap;

use lapwing_protocol::command::{Action, Command, CommandNumber, Outcome};
use lapwing_protocol::element::{Value, command_outcome, finding};
use lapwing_protocol::hello::{LogCause, Memory};
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::message::Message;
use lapwing_sensor_core::limits::COMMANDS_MAX;
use lapwing_sensor_core::*;
use world::peer::Peer;
use world::reader::canonical;
use world::rig::Rig;
use world::shell::{Shell, Spooled};
use world::{BULK_LOG, DEPLOYMENT, Owned, SENSOR, SMALL, URGENT_LOG, at, config, log};

/// What the findings in `log` of the urgent lane say was lost.
fn losses(peer: &Peer, log: LogId) -> Vec<Vec<u8>> {
    let events = peer.read(Lane::Urgent, log).events;
    let findings = events.iter().filter(|(kind, _)| *kind == finding::KIND);
    findings.map(|(_, row)| row[&finding::lost.0].clone()).collect()
}

type SpooledLogs = BTreeMap<(Lane, LogId), BTreeMap<u64, Spooled>>;

/// A server, a bulk log of which it has three facts of seven, and the spool that holds all.
fn with_seven_of_which_three_are_stored() -> (Peer, LogPositions, SpooledLogs) {
    let mut peer = Peer::new(0xa);
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    rig.lookups(3);
    rig.settle(&mut peer);
    rig.sensor.handle_disconnected(at(rig.ms));
    rig.lookups(4);
    let old = rig.sensor.positions(Lane::Bulk);
    (peer, old, std::mem::take(&mut rig.shell.spool))
}

#[test]
fn of_a_rolled_back_log_only_what_was_made_since_is_lost() {
    let (mut peer, old, spool) = with_seven_of_which_three_are_stored();
    peer.heads.get_mut(&(Lane::Bulk, BULK_LOG)).unwrap().next_seq = 20;
    // The image was taken after a clean stop: the sensor goes on with the same log.
    let mut owned = Owned::new(&SMALL);
    let urgent_log = LogId([8; 16]);
    let logs = [old, log(Lane::Urgent, urgent_log)];
    let mut sensor = Sensor::new(config(Memory::Disk), owned.storage(), logs).unwrap();
    sensor.start(at(100_000));
    let shell = Shell { spool, ..Shell::default() };
    let mut rig = Rig { sensor, shell, ms: 100_000, names: 100 };
    rig.lookups(2);
    rig.settle(&mut peer);
    rig.settle(&mut peer);
    assert_eq!(rig.sensor.positions(Lane::Bulk).cause, LogCause::RolledBack);
    assert_eq!(losses(&peer, urgent_log), [canonical(Value::U64(2))]);
}

#[test]
fn an_old_log_that_the_server_has_more_of_is_no_loss() {
    let (mut peer, old, spool) = with_seven_of_which_three_are_stored();
    // The power was cut: what came after chunk 7 reached the server and not the disk.
    peer.heads.get_mut(&(Lane::Bulk, BULK_LOG)).unwrap().next_seq = 20;
    let (new_log, urgent_log) = (LogId([7; 16]), LogId([8; 16]));
    let ids = (DEPLOYMENT, SENSOR);
    let parent = Some(old.as_parent());
    let new = LogPositions::open(ids, Lane::Bulk, new_log, LogCause::Unclean, parent);
    let mut owned = Owned::new(&SMALL);
    let logs = [new, log(Lane::Urgent, urgent_log)];
    let mut sensor = Sensor::new(config(Memory::Disk), owned.storage(), logs).unwrap();
    sensor.handle_tail(Lane::Bulk, Some(old));
    sensor.start(at(100_000));
    let shell = Shell { spool, ..Shell::default() };
    let mut rig = Rig { sensor, shell, ms: 100_000, names: 100 };
    rig.lookups(2);
    rig.settle(&mut peer);
    rig.settle(&mut peer);
    rig.all_stored(&peer, Lane::Bulk);
    assert_eq!(peer.read(Lane::Bulk, new_log).events.len(), 2);
    assert_eq!(losses(&peer, urgent_log), Vec::<Vec<u8>>::new());
}

fn command(seq: u64) -> Command {
    let number = CommandNumber { issuer: 1, seq };
    Command { number, expires_after_ms: 60_000, action: Action::StartCollection }
}

#[test]
fn a_command_that_finds_no_room_is_asked_for_again_and_none_behind_it_is_taken_first() {
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    rig.settle(&mut peer);
    let hellos = peer.hellos;
    let last = COMMANDS_MAX as u64 + 2;
    (1..=last).for_each(|seq| peer.send(&Message::Command(command(seq))));
    rig.settle(&mut peer);
    assert_eq!(rig.sensor.stats().commands_turned_away, 2);
    assert_eq!(peer.hellos, hellos, "the inbox is still full");

    let carry_out = |rig: &mut Rig<'_>, seq: u64| {
        let now = at(rig.ms);
        rig.sensor.handle_outcome(now, command(seq).number, Outcome::Done, "").unwrap();
        rig.shell.spool(&mut rig.sensor, now);
    };
    (1..=COMMANDS_MAX as u64).for_each(|seq| carry_out(&mut rig, seq));
    rig.settle(&mut peer);
    assert_eq!(peer.hellos, hellos + 1, "it asks as soon as its inbox is empty");
    // The server sends again what is above the number in that Hello.
    (COMMANDS_MAX as u64 + 1..=last).for_each(|seq| peer.send(&Message::Command(command(seq))));
    rig.settle(&mut peer);
    (COMMANDS_MAX as u64 + 1..=last).for_each(|seq| carry_out(&mut rig, seq));
    rig.settle(&mut peer);
    let events = peer.read(Lane::Urgent, URGENT_LOG).events;
    let done: Vec<_> =
        events.iter().map(|(_, row)| row[&command_outcome::command_seq.0].clone()).collect();
    let expected: Vec<_> = (1..=last).map(|seq| canonical(Value::U64(seq))).collect();
    assert_eq!(done, expected, "each once, in order");
}

#[test]
fn no_moment_is_named_at_which_nothing_would_be_done() {
    use lapwing_protocol::delivery::{Nack, NackReason};
    let mut owned = Owned::new(&SMALL);
    let mut rig = Rig::new(Memory::Disk, owned.storage());
    let mut peer = Peer::new(0xa);
    peer.is_silent = true;
    rig.lookups(2);
    rig.settle(&mut peer);
    let (lane, reason) = (Lane::Bulk, NackReason::Throttled);
    let nack = Nack { lane, next_seq: 2, episode: 1, reason, retry_after_ms: 500 };
    peer.send(&Message::Nack(nack));
    (1..=COMMANDS_MAX as u64 + 1).for_each(|seq| peer.send(&Message::Command(command(seq))));
    rig.settle(&mut peer);
    for seq in 1..=COMMANDS_MAX as u64 {
        let number = command(seq).number;
        rig.sensor.handle_outcome(at(rig.ms), number, Outcome::Done, "").unwrap();
        rig.shell.spool(&mut rig.sensor, at(rig.ms));
    }
    rig.settle(&mut peer);
    // A Hello waits for chunk 1, which the server is silent about, and chunk 2 for the Hello.
    rig.ms += 1_000;
    rig.sensor.handle_timeout(at(rig.ms));
    rig.settle(&mut peer);
    let due_ns = rig.sensor.poll_timeout().unwrap();
    assert!(due_ns > at(rig.ms).monotonic_ns, "{due_ns}");
}
