//! What is safe: as far as the last finished backup holds it, or all that is stored where there are
//! no backups.
//!
//! For the former the server is started anew with a folder for backups, and is told when to make
//! one by whoever has its own certificate. Alone, since it is killed.

use std::time::Duration;

use super::context::Context;
use super::steps::store;
use super::{case, in_phase};
use crate::cases::{Case, Checked, Phase, Stop, ensure, equal};
use crate::play::link::{Link, PATIENCE};
use crate::play::sensor::acked;
use crate::play::wait;
use crate::wire::code;
use crate::wire::message::{Call, DropReason, JumpCause, Lane, Message};
use crate::wire::method::BACKUP;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "without_backups_what_is_stored_is_safe",
        &["DLV-005"],
        "Without backups each Ack calls safe all that it calls stored, on both lanes and behind a \
         Jump: a sensor need not keep it for ever.",
        without_backups_what_is_stored_is_safe,
    ),
    in_phase(
        case(
            "what_no_backup_holds_is_not_safe",
            &["DLV-005", "CON-008"],
            "With backups an Ack calls safe what the last finished one holds, and nothing behind \
             it; only the server's own certificate orders one.",
            what_no_backup_holds_is_not_safe,
        ),
        Phase::Alone,
    ),
];

/// How long a backup may take of all that the cases before have stored.
const BACKUP_TIME: Duration = Duration::from_secs(120);

fn without_backups_what_is_stored_is_safe(cx: &mut Context<'_>) -> Checked {
    let is_without = cx.target.process.as_ref().is_some_and(|process| process.can_be_backed());
    let (sensor, mut bulk) = cx.sensor_with(Lane::Bulk)?;
    let mut urgent = sensor.log(Lane::Urgent, cx.id());
    let (mut link, _) = cx.session(&sensor, &[&bulk, &urgent])?;
    for log in [&mut bulk, &mut urgent] {
        let first = store(&mut link, &[log.fact(), log.fact()])?;
        let jump = log.jump(3, 3, JumpCause::Dropped(DropReason::SpoolFull));
        let to_seq = jump.to_seq;
        link.send(jump);
        let behind = acked(&mut link, log.lane, to_seq)?;
        for ack in [first, behind, store(&mut link, &[log.fact()])?] {
            let (safe, stored) = (ack.safe_seq, ack.stored_seq);
            ensure!(safe <= stored, "DLV-005: {safe} is safe, and {stored} is stored");
            let text = "nothing says whether the server has backups: with --backed-cmd it has none \
                        when it is started otherwise";
            if safe < stored && !is_without {
                return Err(Stop::Skip(text.into()));
            }
            equal!(safe, stored, "DLV-005: what is safe without backups");
        }
    }
    Ok(())
}

fn what_no_backup_holds_is_not_safe(cx: &mut Context<'_>) -> Checked {
    let process = cx.process()?;
    cx.lent("server")?;
    process.kill()?;
    let Some(started) = process.start_backed() else {
        process.start()?;
        return Err(Stop::Skip("--backed-cmd is not given: there are no backups".into()));
    };
    let held = started.map_err(Stop::Fail).and_then(|()| follows_the_backups(cx));
    process.kill()?;
    process.start()?;
    held
}

fn follows_the_backups(cx: &mut Context<'_>) -> Checked {
    let (mut own, mut other) = (cx.console("server")?, cx.console("ctl")?);
    let answer = back_up(&mut other, 1)?;
    equal!(code::name(answer), "forbidden", "CON-008: `backup` by another than the server itself");
    let (_sensor, mut log, mut link, _) = cx.bulk()?;
    for number in 1..=2 {
        store(&mut link, &[log.fact(), log.fact(), log.fact()])?;
        let held = log.next_seq() - 1;
        equal!(code::name(back_up(&mut own, number)?), "ok", "CON-008: `backup` by the server");
        // Another one begins a quarter of an hour later at the soonest: nothing behind `held` is in
        // one. That this one is finished may be known where Acks are made a little later.
        let reached = wait::attempt(PATIENCE, || {
            let ack = match store(&mut link, &[log.fact()]) {
                Ok(ack) => ack,
                Err(stop) => return Some(Err(stop)),
            };
            if ack.safe_seq > held {
                let text = format!("DLV-005: {} is safe, and a backup holds {held}", ack.safe_seq);
                return Some(Err(Stop::Fail(text)));
            }
            (ack.safe_seq == held).then_some(Ok(()))
        });
        ensure!(reached.is_some(), "DLV-005: a finished backup holds {held}, and it is not safe");
        reached.unwrap_or(Ok(()))?;
    }
    Ok(())
}

/// Orders a backup; the code of the answer, which comes when it is finished.
fn back_up(console: &mut Link, call: u32) -> Result<u16, Stop> {
    console.send(Call { call, method: BACKUP, body: Vec::new() });
    let answer = wait::attempt(BACKUP_TIME, || {
        let reply = console.wait_for("a Reply to `backup`", |message| match message {
            Message::Reply(reply) if reply.call == call && !reply.more => Some(reply.code),
            _ => None,
        });
        reply.ok()
    });
    answer.ok_or_else(|| Stop::Fail("CON-008: `backup` is not answered".into()))
}
