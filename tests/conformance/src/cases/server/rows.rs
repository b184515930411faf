//! The rows of the decision table at Hello.

use super::context::Context;
use super::steps::{quiet, refused, store};
use super::{case, in_phase};
use crate::cases::{Case, Checked, Phase, Stop, ensure, equal};
use crate::play::link::PATIENCE;
use crate::play::log::Log;
use crate::play::sensor::{Sensor, acked, grant, greet};
use crate::play::wait;
use crate::wire::code;
use crate::wire::message::{
    Hello, Id, JumpCause, Lane, LogCause, LogHead, LogParent, LogVerdict, LossReason, Memory,
    Message, StoredRange,
};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "row_normal_and_new",
        &["HEL-020", "HEL-021"],
        "An unknown log begins at 1; a known one resumes with the chain of what was sent.",
        row_normal_and_new,
    ),
    case(
        "row_ack_lost",
        &["HEL-022"],
        "A sensor that missed Acks is told what is stored, and resumes.",
        row_ack_lost,
    ),
    case(
        "row_sensor_behind",
        &["HEL-023", "HEL-010", "HEL-025"],
        "A sensor whose disk was rolled back opens a new log; on the old one nothing is taken.",
        row_sensor_behind,
    ),
    case(
        "row_forked",
        &["HEL-024", "HEL-010", "HEL-025"],
        "Another chain at the acknowledged position is a fork; elsewhere the chain tells it.",
        row_forked,
    ),
    case(
        "row_server_behind",
        &["HEL-027", "HEL-028"],
        "A server that holds less than was acknowledged says so, and takes the rest again.",
        row_server_behind,
    ),
    case(
        "row_server_lost_everything",
        &["HEL-029"],
        "An unknown log of which this server acknowledged something is ServerBehind at 1.",
        row_server_lost_everything,
    ),
    case(
        "row_moved_here",
        &["HEL-030", "JMP-005"],
        "A sensor that moved is New, and begins with a Jump over what is stored elsewhere.",
        row_moved_here,
    ),
    case(
        "row_came_back",
        &["HEL-031"],
        "A sensor that came back resumes, without an alarm.",
        row_came_back,
    ),
    case(
        "row_unclean_and_ram_only",
        &["HEL-032", "HEL-033"],
        "A new log with its cause and parent is taken, with a spool and without.",
        row_unclean_and_ram_only,
    ),
    case(
        "row_old_log",
        &["HEL-034"],
        "A log is remembered while a few others come, where it stands and with its chain.",
        row_old_log,
    ),
    case(
        "row_forgotten_log",
        &["HEL-034"],
        "A log is remembered while 264 others of the lane come; after more it may be unknown, and \
         begins at 1 then.",
        row_forgotten_log,
    ),
    case(
        "row_clock_jumped",
        &["HEL-035"],
        "No wall clock that a sensor claims keeps its chunks from being stored.",
        row_clock_jumped,
    ),
    in_phase(
        case(
            "row_too_many_at_once",
            &["HEL-036", "DLV-018"],
            "A full server refuses with `busy` and says when to come back.",
            row_too_many_at_once,
        ),
        Phase::Alone,
    ),
];

/// Where a log stands, as the next one's parent.
pub(super) fn parent(log: &Log) -> LogParent {
    LogParent {
        log: log.log,
        next_seq: log.next_seq(),
        next_index: log.next_index,
        chain: log.chain_at(log.next_seq() - 1),
    }
}

fn verdict(
    cx: &Context<'_>,
    sensor: &Sensor,
    log: &Log,
    change: impl FnOnce(&mut LogHead),
) -> Result<(LogVerdict, u64), Stop> {
    let mut hello = sensor.hello(&[log]);
    if let Some(head) = hello.logs.first_mut() {
        change(head);
    }
    let ack = greet(&mut cx.connect(sensor)?, hello)?;
    let granted = grant(&ack, log.lane)?;
    Ok((granted.verdict, granted.next_seq))
}

fn row_normal_and_new(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log, mut link, ack) = cx.bulk()?;
    equal!(grant(&ack, Lane::Bulk)?.verdict, LogVerdict::New, "HEL-021: the verdict");
    store(&mut link, &[log.fact(), log.fact(), log.fact()])?;
    log.acked = 3;
    let (_link, ack) = cx.session(&sensor, &[&log])?;
    let granted = grant(&ack, Lane::Bulk)?;
    equal!(
        (granted.verdict, granted.next_seq, granted.next_index),
        (LogVerdict::Resume, 4, 4),
        "HEL-020: verdict, next_seq and next_index"
    );
    equal!(granted.chain, log.chain_at(3), "CHN-001: the chain of three chunks");
    Ok(())
}

fn row_ack_lost(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    store(&mut link, &[log.fact(), log.fact(), log.fact()])?;
    for acked in [0, 2] {
        log.acked = acked;
        let found = verdict(cx, &sensor, &log, |_| {})?;
        equal!(found, (LogVerdict::Resume, 4), "HEL-022: of {acked} acknowledged");
    }
    Ok(())
}

fn row_sensor_behind(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    let mut rolled = log.clone();
    rolled.fact();
    store(&mut link, &[log.fact(), log.fact(), log.fact()])?;
    rolled.acked = 1;
    let (mut link, ack) = cx.session(&sensor, &[&rolled])?;
    let granted = grant(&ack, Lane::Bulk)?;
    equal!(
        (granted.verdict, granted.next_seq),
        (LogVerdict::SensorBehind, 4),
        "HEL-023: the verdict and W"
    );
    link.send(log.mark());
    refused(cx, &mut link, code::OUT_OF_PLACE, "HEL-010: a mark of a log that is behind")?;
    let (mut link, _) = cx.session(&sensor, &[&rolled])?;
    link.send(log.fact());
    refused(cx, &mut link, code::OUT_OF_PLACE, "HEL-010: a chunk of a log that is behind")?;
    let mut new = sensor.log(Lane::Bulk, cx.id());
    new.cause = LogCause::RolledBack;
    new.parent = Some(parent(&rolled));
    let (mut link, ack) = cx.session(&sensor, &[&new])?;
    equal!(grant(&ack, Lane::Bulk)?.verdict, LogVerdict::New, "HEL-023: the new log");
    store(&mut link, &[new.fact()])?;
    // HEL-025: the branch that was not rolled back goes on as well.
    let mut whole = log.clone();
    whole.chunks.truncate(3);
    whole.chains.truncate(4);
    whole.next_index = 4;
    let (mut link, ack) = cx.session(&sensor, &[&whole])?;
    equal!(grant(&ack, Lane::Bulk)?.next_seq, 4, "HEL-025: the other branch's next_seq");
    store(&mut link, &[whole.fact()])?;
    Ok(())
}

fn row_forked(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    let mut branch = log.clone();
    store(&mut link, &[log.fact(), log.fact()])?;
    for extra in [3, 4] {
        let chunk = branch.fact_of(extra);
        branch.push(&chunk);
    }
    branch.acked = 2;
    let (mut link, ack) = cx.session(&sensor, &[&branch])?;
    let granted = grant(&ack, Lane::Bulk)?;
    equal!((granted.verdict, granted.next_seq), (LogVerdict::Forked, 3), "HEL-024: acked = W - 1");
    equal!(granted.chain, log.chain_at(2), "HEL-024: the chain is the server's");
    link.send(branch.fact());
    refused(cx, &mut link, code::OUT_OF_PLACE, "HEL-010: a chunk of a forked log")?;
    branch.acked = 1;
    let (_link, ack) = cx.session(&sensor, &[&branch])?;
    let granted = grant(&ack, Lane::Bulk)?;
    equal!(granted.verdict, LogVerdict::Resume, "HEL-024: elsewhere the sensor compares");
    equal!(granted.chain, log.chain_at(2), "HEL-024: by the chain before next_seq");
    Ok(())
}

fn row_server_behind(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    store(&mut link, &[log.fact(), log.fact()])?;
    let rest = [log.fact(), log.fact(), log.fact()];
    log.acked = 5;
    let (mut link, ack) = cx.session(&sensor, &[&log])?;
    let granted = grant(&ack, Lane::Bulk)?;
    let found = (granted.verdict, granted.next_seq);
    equal!(found, (LogVerdict::ServerBehind, 3), "HEL-027: acked 5, stored 2");
    store(&mut link, &rest)?;
    // The server's chain is the sensor's again.
    link.send(log.mark());
    quiet(&mut link, "HEL-027: the mark of what was sent again", |message| {
        matches!(message, Message::Ack(_))
    })?;
    // HEL-028: what the server asks for is gone.
    let jump = log.jump(3, 3, JumpCause::Lost(LossReason::ServerRolledBack));
    log.acked = 8;
    log.first_seq = 9;
    let (mut link, ack) = cx.session(&sensor, &[&log])?;
    let granted = grant(&ack, Lane::Bulk)?;
    let found = (granted.verdict, granted.next_seq);
    equal!(found, (LogVerdict::ServerBehind, 6), "HEL-028: W below first_seq");
    link.send(jump);
    acked(&mut link, Lane::Bulk, 8)?;
    store(&mut link, &[log.fact()])?;
    Ok(())
}

fn row_server_lost_everything(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log) = cx.sensor_with(Lane::Bulk)?;
    let chunks = [log.fact(), log.fact(), log.fact()];
    log.acked = 2;
    let (mut link, ack) = cx.session(&sensor, &[&log])?;
    let granted = grant(&ack, Lane::Bulk)?;
    let found = (granted.verdict, granted.next_seq);
    equal!(found, (LogVerdict::ServerBehind, 1), "HEL-029: an unknown log, two acknowledged");
    store(&mut link, &chunks)?;
    // A run of this very server accounts for nothing that it lost.
    let mut log = sensor.log(Lane::Bulk, cx.id());
    let _ = [log.fact(), log.fact()];
    log.acked = 2;
    log.elsewhere = vec![StoredRange { server: ack.server, from_seq: 1, to_seq: 2 }];
    let found = verdict(cx, &sensor, &log, |_| {})?;
    equal!(found, (LogVerdict::ServerBehind, 1), "HEL-029: its own run is lost as well");
    Ok(())
}

fn row_moved_here(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log) = cx.sensor_with(Lane::Bulk)?;
    let [first, second] = [cx.id(), cx.id()];
    let jump = log.jump(4, 9, JumpCause::StoredElsewhere(second));
    let mut moved = log.clone();
    moved.fact();
    moved.acked = 4;
    moved.elsewhere = vec![run(first, 1, 2), run(second, 3, 4)];
    let (mut link, ack) = cx.session(&sensor, &[&moved])?;
    let granted = grant(&ack, Lane::Bulk)?;
    let found = (granted.verdict, granted.next_seq);
    equal!(found, (LogVerdict::New, 1), "HEL-030: others account for 1..=4");
    link.send(jump);
    acked(&mut link, Lane::Bulk, 4)?;
    store(&mut link, &[log.fact()])?;
    // A hole between the runs is accounted for by nobody else.
    let mut log = sensor.log(Lane::Bulk, cx.id());
    let _ = log.jump(4, 4, JumpCause::StoredElsewhere(second));
    log.acked = 4;
    log.elsewhere = vec![run(first, 1, 1), run(second, 3, 4)];
    let found = verdict(cx, &sensor, &log, |_| {})?;
    equal!(found, (LogVerdict::ServerBehind, 1), "HEL-029: nobody else accounts for 2");
    Ok(())
}

fn run(server: Id, from_seq: u64, to_seq: u64) -> StoredRange {
    StoredRange { server, from_seq, to_seq }
}

fn row_came_back(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log, mut link, ack) = cx.bulk()?;
    store(&mut link, &[log.fact(), log.fact()])?;
    let other = cx.id();
    let jump = log.jump(3, 3, JumpCause::StoredElsewhere(other));
    log.acked = 5;
    log.elsewhere = vec![run(ack.server, 1, 2), run(other, 3, 5)];
    let (mut link, ack) = cx.session(&sensor, &[&log])?;
    let granted = grant(&ack, Lane::Bulk)?;
    let found = (granted.verdict, granted.next_seq);
    equal!(found, (LogVerdict::Resume, 3), "HEL-031: another server accounts for 3..=5");
    link.send(jump);
    acked(&mut link, Lane::Bulk, 5)?;
    store(&mut link, &[log.fact()])?;
    Ok(())
}

fn row_unclean_and_ram_only(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    store(&mut link, &[log.fact(), log.fact()])?;
    for (memory, cause) in [
        (Memory::Disk, LogCause::Unclean),
        (Memory::Disk, LogCause::SpoolLost),
        (Memory::RamOnly, LogCause::Started),
    ] {
        let mut new = sensor.log(Lane::Bulk, cx.id());
        new.cause = cause;
        new.parent = (memory == Memory::Disk).then(|| parent(&log));
        let mut link = cx.connect(&sensor)?;
        let ack = greet(&mut link, Hello { memory, ..sensor.hello(&[&new]) })?;
        let granted = grant(&ack, Lane::Bulk)?;
        let found = (granted.verdict, granted.next_seq);
        equal!(found, (LogVerdict::New, 1), "HEL-032, HEL-033: {memory:?}, {cause:?}");
        store(&mut link, &[new.fact(), new.fact()])?;
    }
    log.acked = 2;
    let found = verdict(cx, &sensor, &log, |_| {})?;
    equal!(found, (LogVerdict::Resume, 3), "HEL-032: the old log as its row says");
    Ok(())
}

/// Other logs of the lane after which a log may be forgotten (HEL-034).
const OTHER_LOGS: usize = 264;

/// A sensor with a log of two chunks, and after it `count` others of the lane with one chunk each.
/// Each in a session of its own: a server may read more slowly from one that is greeted often.
fn log_before(cx: &mut Context<'_>, count: usize) -> Result<(Sensor, Log), Stop> {
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    store(&mut link, &[log.fact(), log.fact()])?;
    log.acked = 2;
    for _ in 0..count {
        one_more(cx, &sensor)?;
    }
    Ok((sensor, log))
}

fn one_more(cx: &mut Context<'_>, sensor: &Sensor) -> Checked {
    let mut other = sensor.log(Lane::Bulk, cx.id());
    let (mut link, _) = cx.session(sensor, &[&other])?;
    store(&mut link, &[other.fact()])?;
    Ok(())
}

fn is_remembered(cx: &Context<'_>, (sensor, log): (&Sensor, &Log), after: usize) -> Checked {
    let (_link, ack) = cx.session(sensor, &[log])?;
    let granted = grant(&ack, Lane::Bulk)?;
    let found = (granted.verdict, granted.next_seq, granted.next_index, granted.chain);
    let expected = (LogVerdict::Resume, 3, 3, log.chain_at(2));
    equal!(found, expected, "HEL-034: where a log stands after {after} others");
    Ok(())
}

fn row_old_log(cx: &mut Context<'_>) -> Checked {
    for others in [8, 12] {
        let (sensor, log) = log_before(cx, others)?;
        is_remembered(cx, (&sensor, &log), others)?;
    }
    Ok(())
}

fn row_forgotten_log(cx: &mut Context<'_>) -> Checked {
    let (sensor, log) = log_before(cx, OTHER_LOGS)?;
    is_remembered(cx, (&sensor, &log), OTHER_LOGS)?;
    // It was just there: it is the youngest again.
    for _ in 0..=OTHER_LOGS {
        one_more(cx, &sensor)?;
    }
    let (found, next_seq) = verdict(cx, &sensor, &log, |_| {})?;
    // A server may remember longer than the page asks.
    match found {
        LogVerdict::Resume => equal!(next_seq, 3, "HEL-034: of a log it remembers"),
        LogVerdict::New | LogVerdict::ServerBehind => {
            equal!(next_seq, 1, "HEL-034: of a log it has forgotten");
        }
        LogVerdict::SensorBehind | LogVerdict::Forked => {
            ensure!(false, "HEL-034: the verdict is {found:?}");
        }
    }
    Ok(())
}

fn row_clock_jumped(cx: &mut Context<'_>) -> Checked {
    for wall_ms in [0, 1, u64::MAX] {
        let what = format!("HEL-035: a wall clock of {wall_ms}");
        super::steps::decodes(cx, &what, |log| {
            let mut ops = crate::wire::op::OpWriter::new(u64::MAX - 1);
            ops.preamble(crate::play::log::BOOT, wall_ms, 0);
            let name = crate::wire::op::Value::text("example.org");
            ops.event(crate::wire::model::DNS, 3, &vec![(3, name)]);
            let mut chunk = log.next(crate::wire::chunk::SELF_CONTAINED, 1, ops.body());
            chunk.base = u64::MAX - 1;
            vec![log.push(&chunk)]
        })?;
    }
    Ok(())
}

fn row_too_many_at_once(cx: &mut Context<'_>) -> Checked {
    let capacity = cx
        .target
        .capacity
        .ok_or_else(|| Stop::Skip("--capacity is not given: the server cannot be filled".into()))?;
    let mut held = Vec::new();
    for _ in 0..capacity {
        let (sensor, log) = cx.sensor_with(Lane::Bulk)?;
        held.push(cx.session(&sensor, &[&log])?);
    }
    let (sensor, log) = cx.sensor_with(Lane::Bulk)?;
    let mut link = cx.connect(&sensor)?;
    link.send(sensor.hello(&[&log]));
    let refused = link.refusal()?.ok_or("DLV-018: the server closed without a word")?;
    equal!(code::name(refused.code), "busy", "DLV-018: the code of the refusal");
    ensure!(refused.retry_after_ms > 0, "HEL-036: the refusal does not say when to come back");
    // Who leaves makes room.
    drop(held.pop());
    let joined = wait::attempt(PATIENCE, || cx.session(&sensor, &[&log]).ok());
    ensure!(joined.is_some(), "DLV-018: one left, and there is no room");
    Ok(())
}
