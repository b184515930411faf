//! The server is killed, or asked to stop, and comes back. One case at a time.

use super::commands::{LATER_MS, fleet, put};
use super::context::Context;
use super::steps::{refused, store};
use super::{case, in_phase};
use crate::cases::{Case, Checked, Phase, ensure, equal};
use crate::crypto::identity::Request;
use crate::play::link::{Got, PATIENCE};
use crate::play::sensor::{Sensor, acked, enrol, grant, greet};
use crate::wire::code;
use crate::wire::frame::Frame;
use crate::wire::message::{DropReason, JumpCause, Lane, LogVerdict, Message};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    alone(case(
        "what_is_acknowledged_survives_a_kill",
        &["DLV-001", "DLV-002", "HEL-009"],
        "Killed at the moment of an Ack, the server still has all that it acknowledged.",
        what_is_acknowledged_survives_a_kill,
    )),
    alone(case(
        "what_hello_ack_acknowledges_survives_a_kill",
        &["HEL-008"],
        "Killed at the moment of a HelloAck, the server still has all below its next_seq.",
        what_hello_ack_acknowledges_survives_a_kill,
    )),
    alone(case(
        "where_a_lane_stands_is_stored_with_it",
        &["DLV-002", "JMP-001", "CHN-001"],
        "After a kill at rest each lane stands exactly where it stood, Jumps included.",
        where_a_lane_stands_is_stored_with_it,
    )),
    alone(case(
        "an_enrolment_survives_a_kill",
        &["REG-002", "REG-003"],
        "Killed at the moment of the answer, the server knows the sensor all the same.",
        an_enrolment_survives_a_kill,
    )),
    alone(case(
        "whose_key_an_id_is_survives_a_kill",
        &["HEL-026"],
        "After a kill another key is still refused for an id, and the key that had it is not.",
        whose_key_survives_a_kill,
    )),
    alone(case(
        "a_command_survives_a_kill",
        &["CON-005"],
        "Killed at the moment of the answer, the server has the command all the same.",
        a_command_survives_a_kill,
    )),
    alone(case(
        "a_server_that_stops_says_draining",
        &["DLV-017"],
        "Asked to stop, the server tells each sensor, and when to come back, before it closes.",
        a_server_that_stops_says_draining,
    )),
];

const fn alone(case: Case) -> Case {
    in_phase(case, Phase::Alone)
}

fn what_is_acknowledged_survives_a_kill(cx: &mut Context<'_>) -> Checked {
    let process = cx.process()?;
    let (sensor, mut log, mut link, mut last) = cx.bulk()?;
    for round in 0..5 {
        let begun = log.next_seq();
        let mut burst = Vec::new();
        for _ in 0..60 {
            let chunk = log.fact_of(8_000);
            burst.extend(Message::from(log.push(&chunk)).frame().to_bytes());
        }
        link.send_bytes(&burst);
        let ack = acked(&mut link, Lane::Bulk, begun)?;
        process.kill()?;
        process.start()?;
        log.acked = ack.stored_seq;
        let (again, hello) = cx.session(&sensor, &[&log])?;
        let granted = grant(&hello, Lane::Bulk)?.clone();
        ensure!(
            granted.verdict == LogVerdict::Resume && granted.next_seq > ack.stored_seq,
            "DLV-001: round {round}: {} was acknowledged, and after a kill {} is next ({:?})",
            ack.stored_seq,
            granted.next_seq,
            granted.verdict
        );
        let at = granted.next_seq - 1;
        equal!(granted.chain, log.chain_at(at), "DLV-002: the chain after a kill");
        ensure!(hello.session_epoch > last.session_epoch, "HEL-009: the epoch fell by a restart");
        link = again;
        last = hello;
        log.acked = at;
        for seq in granted.next_seq..log.next_seq() {
            let index = usize::try_from(seq - 1).unwrap_or(0);
            link.send_frame(&Frame::new(3, log.chunks[index].clone()));
        }
        if granted.next_seq < log.next_seq() {
            acked(&mut link, Lane::Bulk, log.next_seq() - 1)?;
        }
        log.acked = log.next_seq() - 1;
    }
    Ok(())
}

fn what_hello_ack_acknowledges_survives_a_kill(cx: &mut Context<'_>) -> Checked {
    let process = cx.process()?;
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    for round in 0..8 {
        // Before the burst: a handshake behind it would give it the time to reach the disk.
        let mut early = cx.connect(&sensor)?;
        let mut burst = Vec::new();
        for _ in 0..60 {
            let chunk = log.fact_of(8_000);
            burst.extend(Message::from(log.push(&chunk)).frame().to_bytes());
        }
        link.send_bytes(&burst);
        let hello = greet(&mut early, sensor.hello(&[&log]))?;
        let said = grant(&hello, Lane::Bulk)?.next_seq;
        process.kill()?;
        process.start()?;
        let (again, hello) = cx.session(&sensor, &[&log])?;
        let granted = grant(&hello, Lane::Bulk)?;
        ensure!(
            granted.next_seq >= said,
            "HEL-008: round {round}: HelloAck said {said}, and after a kill {} is next",
            granted.next_seq
        );
        link = again;
        for seq in granted.next_seq..log.next_seq() {
            let index = usize::try_from(seq - 1).unwrap_or(0);
            link.send_frame(&Frame::new(3, log.chunks[index].clone()));
        }
        if granted.next_seq < log.next_seq() {
            acked(&mut link, Lane::Bulk, log.next_seq() - 1)?;
        }
        log.acked = log.next_seq() - 1;
    }
    Ok(())
}

fn where_a_lane_stands_is_stored_with_it(cx: &mut Context<'_>) -> Checked {
    let process = cx.process()?;
    let (sensor, mut bulk) = cx.sensor_with(Lane::Bulk)?;
    let mut urgent = sensor.log(Lane::Urgent, cx.id());
    let (mut link, _) = cx.session(&sensor, &[&bulk, &urgent])?;
    store(&mut link, &[bulk.fact(), bulk.fact()])?;
    store(&mut link, &[urgent.fact()])?;
    let jump = bulk.jump(5, 5, JumpCause::Dropped(DropReason::SpoolFull));
    link.send(jump);
    acked(&mut link, Lane::Bulk, 7)?;
    process.kill()?;
    process.start()?;
    (bulk.acked, urgent.acked) = (7, 1);
    let (mut link, hello) = cx.session(&sensor, &[&bulk, &urgent])?;
    for log in [&bulk, &urgent] {
        let granted = grant(&hello, log.lane)?;
        let found = (granted.verdict, granted.next_seq, granted.next_index);
        let expected = (LogVerdict::Resume, log.next_seq(), log.next_index);
        equal!(found, expected, "DLV-002: where lane {:?} stands after a kill", log.lane);
        equal!(granted.chain, log.chain_at(log.acked), "DLV-002: its chain");
    }
    // That the chunk behind the Jump must open was not forgotten.
    link.send(bulk.clone().delta());
    refused(cx, &mut link, code::OUT_OF_PLACE, "JMP-004: a delta after the kill")?;
    let (mut link, _) = cx.session(&sensor, &[&bulk, &urgent])?;
    store(&mut link, &[bulk.fact()])?;
    store(&mut link, &[urgent.fact()])?;
    Ok(())
}

fn whose_key_survives_a_kill(cx: &mut Context<'_>) -> Checked {
    let process = cx.process()?;
    let (own, other) = (cx.lent("sensor")?, cx.lent("sensor-twin")?);
    let (sensor, log) = (cx.sensor_of(own)?, cx.id());
    let log = sensor.log(Lane::Bulk, log);
    greet(&mut cx.connect_as(own)?, sensor.hello(&[&log]))?;
    process.kill()?;
    process.start()?;
    let mut twin = cx.connect_as(other)?;
    twin.send(sensor.hello(&[&log]));
    refused(cx, &mut twin, code::REVOKED, "HEL-026: another key, after a kill")?;
    greet(&mut cx.connect_as(own)?, sensor.hello(&[&log]))?;
    Ok(())
}

fn an_enrolment_survives_a_kill(cx: &mut Context<'_>) -> Checked {
    let process = cx.process()?;
    let request = Request::create().map_err(|error| error.to_string())?;
    let once = || enrol(cx.target.enrolment, &cx.target.roots, &cx.target.token, &request.der);
    let first = once()?.map_err(|(code, text)| format!("{}: {text}", code::name(code)))?;
    process.kill()?;
    process.start()?;
    let second = once()?.map_err(|(code, text)| format!("{}: {text}", code::name(code)))?;
    equal!(second.sensor, first.sensor, "REG-002: the id of the same key after a kill");
    let sensor = Sensor::with(&first, &request.key, &cx.target.roots)?;
    let mut log = sensor.log(Lane::Bulk, cx.id());
    let (mut link, _) = cx.session(&sensor, &[&log])?;
    store(&mut link, &[log.fact()])?;
    Ok(())
}

fn a_command_survives_a_kill(cx: &mut Context<'_>) -> Checked {
    let process = cx.process()?;
    let mut console = fleet(cx)?;
    let sensor = cx.sensor()?;
    let log = sensor.log(Lane::Bulk, cx.id());
    let (link, _) = cx.session(&sensor, &[&log])?;
    link.cut();
    equal!(put(&mut console, &sensor, 1, LATER_MS)?, "ok", "CON-005: the command");
    process.kill()?;
    process.start()?;
    let (mut link, _) = cx.session(&sensor, &[&log])?;
    let sent = link.wait_for("the Command, after a kill", |message| match message {
        Message::Command(command) => Some(command.number.seq),
        _ => None,
    })?;
    equal!(sent, 1, "CON-005: what is sent after a kill");
    Ok(())
}

fn a_server_that_stops_says_draining(cx: &mut Context<'_>) -> Checked {
    let process = cx.process()?;
    let (_sensor, mut log, mut link, _) = cx.bulk()?;
    store(&mut link, &[log.fact()])?;
    process.stop().map_err(crate::cases::Stop::Skip)?;
    let mut told = None;
    loop {
        match link.next(PATIENCE) {
            Got::Frame(frame) => match Message::decode(&frame).map_err(|e| e.to_string())? {
                Some(Message::Draining(draining)) => told = Some(draining.retry_after_ms),
                Some(Message::Ack(_)) => {}
                other => ensure!(false, "DLV-017: {other:?} came from a server that stops"),
            },
            Got::Closed(_) => break,
            Got::Silence => ensure!(false, "DLV-017: a server that stops does not close"),
        }
    }
    process.start()?;
    let told = told.ok_or("DLV-017: the server stopped without Draining")?;
    if told == 0 {
        cx.weak("DLV-017: Draining does not say when to come back");
    }
    Ok(())
}
