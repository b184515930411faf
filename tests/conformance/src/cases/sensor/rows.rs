//! The decision table of Hello, as far as it is the sensor's.

use super::case;
use super::context::{Context, FACTS};
use crate::cases::{Case, Checked, Phase, Stop, ensure, equal};
use crate::play::station::{Place, Station};
use crate::wire::message::{Draining, Id, Jump, JumpCause, Lane, LogCause, LogVerdict, LossReason};
use crate::wire::method::AssignReason;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "what_was_not_stored_comes_again",
        &["HEL-020", "HEL-003", "LOG-003", "LOG-006", "HEL-035"],
        "After a lost connection the chunks that were not acknowledged come again, byte by byte, \
         and the next fact begins a segment.",
        what_was_not_stored_comes_again,
    ),
    case(
        "the_ack_was_lost",
        &["HEL-022", "HEL-007"],
        "The server says at Hello that it has more than it acknowledged: nothing comes twice.",
        the_ack_was_lost,
    ),
    case(
        "a_log_that_begins_otherwise_ends_the_session",
        &["HEL-040", "CHN-001"],
        "A chain at 0 that is not the log's start: the two do not agree on who it is, and the sensor \
         closes.",
        a_log_that_begins_otherwise,
    ),
    case(
        "the_sensor_was_rolled_back",
        &["HEL-023", "HEL-010", "HEL-002"],
        "SensorBehind: nothing more of that log, then another Hello with a new log, cause RolledBack, \
         the old one its parent; what was made since and nobody acknowledged is told as lost.",
        the_sensor_was_rolled_back,
    ),
    case(
        "the_log_forked",
        &["HEL-024", "HEL-010"],
        "Forked: a new log, cause Forked, the old one its parent; what nobody acknowledged of the old \
         one is told as lost.",
        the_log_forked,
    ),
    case(
        "another_chain_is_a_fork_whatever_the_verdict",
        &["HEL-024", "HEL-025", "CHN-003"],
        "Resume at a place that the sensor made, with another chain: a new log, cause Forked.",
        another_chain_is_a_fork,
    ),
    case(
        "the_server_was_restored",
        &["HEL-027"],
        "ServerBehind at a place that is still held: what is held comes again from there.",
        the_server_was_restored,
    ),
    case(
        "the_servers_data_is_lost",
        &["HEL-028", "HEL-029", "JMP-003", "JMP-004"],
        "ServerBehind at 1: all comes again where all is held; otherwise first a Jump to before what \
         is held, cause Lost(ServerRolledBack).",
        the_servers_data_is_lost,
    ),
    case(
        "a_sensor_moves_and_comes_back",
        &["HEL-005", "HEL-030", "HEL-031", "JMP-004", "JMP-005", "REG-011", "DLV-017"],
        "At another server a Jump says what the first one stored, and a segment opens; back at the \
         first one it goes on behind what that has, and nothing is missing over both.",
        a_sensor_moves_and_comes_back,
    ),
    case(
        "nobody_is_said_to_have_what_nobody_acknowledged",
        &["JMP-005", "HEL-005", "HEL-030"],
        "A sensor that moves with chunks in flight says StoredElsewhere of what was acknowledged \
         alone, and sends the others.",
        nobody_is_said_to_have,
    ),
    Case {
        phase: Phase::Slow,
        ..case(
            "the_ninth_run_is_merged",
            &["LIM-042", "HEL-005", "HEL-031"],
            "Moved nine times it tells of eight runs, which leave nothing out.",
            the_ninth_run_is_merged,
        )
    },
];

fn place(verdict: LogVerdict, next_seq: u64) -> Place {
    Place { verdict, next_seq, chain: None }
}

fn what_was_not_stored_comes_again(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.online()?;
    cx.chunks(5)?;
    cx.a.ack(Lane::Bulk, 2, 2)?;
    cx.a.settle()?;
    let seen = cx.a.seen(Lane::Bulk);
    cx.a.cut();
    cx.a.welcome()?;
    equal!(cx.a.head(Lane::Bulk)?.acked_seq, 2, "HEL-020: acked_seq");
    let next = cx.a.head(Lane::Bulk)?.next_seq;
    ensure!(next > seen, "DLV-015: next_seq is {next}, and chunk {seen} was sent");
    cx.a.pump("HEL-020: chunks from 3 on", |station| station.came.contains(&(Lane::Bulk, seen)))?;
    cx.a.settle()?;
    let made = cx.a.seen(Lane::Bulk);
    cx.chunks(2)?;
    cx.a.settle()?;
    let openings = cx.a.shelf(Lane::Bulk)?.openings.clone();
    let last = openings.last().copied().unwrap_or_default();
    ensure!(
        last > seen,
        "LOG-006: segments begin at {openings:?}, the session was lost behind {seen} ({made} made)"
    );
    Ok(())
}

fn the_ack_was_lost(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.online()?;
    cx.chunks(5)?;
    cx.a.settle()?;
    let seen = cx.a.seen(Lane::Bulk);
    cx.a.cut();
    cx.a.meet()?;
    equal!(cx.a.head(Lane::Bulk)?.acked_seq, 0, "HEL-022: acked_seq");
    cx.a.greet(&[(Lane::Bulk, place(LogVerdict::Resume, seen + 1))])?;
    cx.a.answers.acks[0] = true;
    cx.chunks(2)?;
    let low: Vec<u64> = cx.a.came.iter().map(|(_, seq)| *seq).filter(|seq| *seq <= seen).collect();
    ensure!(low.is_empty(), "HEL-022: {low:?} came twice");
    cx.a.cut();
    cx.a.meet()?;
    let acked = cx.a.head(Lane::Bulk)?.acked_seq;
    ensure!(acked >= seen, "HEL-008: acked_seq {acked}, HelloAck acknowledged {seen}");
    Ok(())
}

/// After a verdict that ends the log: another Hello of the same connection, with a new one.
fn opens_a_new_log(cx: &mut Context, old: Id, cause: LogCause) -> Checked {
    let known = cx.a.hellos;
    cx.a.pump("HEL-010: another Hello", |station| station.hellos > known)?;
    let head = cx.a.head(Lane::Bulk)?.clone();
    ensure!(head.log != old, "HEL-010: the old log is sent again");
    equal!(head.cause, cause, "the cause of the new log");
    let parent = head.parent.ok_or("the new log has no parent")?;
    equal!(parent.log, old, "the parent of the new log");
    cx.a.pump_for(std::time::Duration::from_millis(300), |_| false)?;
    cx.chunks(2)?;
    equal!(cx.a.log(Lane::Bulk)?, head.log, "the log that facts go into");
    Ok(())
}

fn a_log_that_begins_otherwise(cx: &mut Context) -> Checked {
    cx.subject.start()?;
    cx.a.meet()?;
    let other = Place { verdict: LogVerdict::New, next_seq: 1, chain: Some([7; 32]) };
    cx.a.greet(&[(Lane::Bulk, other)])?;
    cx.subject.event(FACTS);
    let hellos = cx.a.hellos;
    cx.a.expect_close("HEL-040: another chain at 0")?;
    equal!(cx.a.hellos, hellos, "HEL-040: no new log mends it: Hellos of the session");
    cx.a.welcome()?;
    cx.chunks(1)
}

fn the_sensor_was_rolled_back(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.online()?;
    cx.chunks(4)?;
    cx.a.ack(Lane::Bulk, 2, 2)?;
    cx.a.settle()?;
    cx.a.cut();
    cx.a.meet()?;
    let head = cx.a.head(Lane::Bulk)?.clone();
    let ahead = place(LogVerdict::SensorBehind, head.next_seq + 7);
    cx.a.greet(&[(Lane::Bulk, ahead)])?;
    cx.a.answers.acks[0] = true;
    opens_a_new_log(cx, head.log, LogCause::RolledBack)?;
    tells_of_lost_facts(cx, "HEL-023")
}

/// Where the sensor has an urgent lane: a finding that facts are lost comes in it.
fn tells_of_lost_facts(cx: &mut Context, row: &str) -> Checked {
    if cx.a.head(Lane::Urgent).is_err() {
        return Ok(());
    }
    let lost = u64::from(crate::wire::code::FACTS_LOST);
    let what = format!("{row}: a finding of facts that are lost");
    Ok(cx.a.pump(&what, |station| {
        let mut findings = station.shelves.values().flat_map(|shelf| shelf.findings());
        findings.any(|code| code == lost)
    })?)
}

fn the_log_forked(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.online()?;
    cx.chunks(4)?;
    cx.a.ack(Lane::Bulk, 2, 2)?;
    cx.a.settle()?;
    cx.a.cut();
    cx.a.meet()?;
    let head = cx.a.head(Lane::Bulk)?.clone();
    // With the right chain: the verdict alone binds.
    cx.a.greet(&[(Lane::Bulk, place(LogVerdict::Forked, 3))])?;
    cx.a.answers.acks[0] = true;
    opens_a_new_log(cx, head.log, LogCause::Forked)?;
    tells_of_lost_facts(cx, "HEL-024")
}

fn another_chain_is_a_fork(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.online()?;
    cx.chunks(4)?;
    cx.a.ack(Lane::Bulk, 1, 1)?;
    cx.a.settle()?;
    cx.a.cut();
    cx.a.meet()?;
    let old = cx.a.log(Lane::Bulk)?;
    let other = Place { verdict: LogVerdict::Resume, next_seq: 4, chain: Some([7; 32]) };
    cx.a.greet(&[(Lane::Bulk, other)])?;
    cx.a.answers.acks[0] = true;
    // What comes before its Hello would be judged against our own chain, and is not to come.
    opens_a_new_log(cx, old, LogCause::Forked)
}

fn the_server_was_restored(cx: &mut Context) -> Checked {
    cx.online()?;
    cx.chunks(4)?;
    cx.a.settle()?;
    let seen = cx.a.seen(Lane::Bulk);
    cx.a.cut();
    cx.a.meet()?;
    let first = cx.a.head(Lane::Bulk)?.first_seq;
    ensure!(
        first <= seen,
        "DLV-006: the segment of the acknowledged place {seen} is not held, but from {first} on"
    );
    let from = first.max(2);
    cx.a.greet(&[(Lane::Bulk, place(LogVerdict::ServerBehind, from))])?;
    cx.a.pump("HEL-027: what is held, again", |station| {
        station.came.contains(&(Lane::Bulk, seen))
    })?;
    equal!(cx.a.came[0], (Lane::Bulk, from), "HEL-027: the first chunk that came");
    equal!(cx.a.shelf(Lane::Bulk)?.jumps.len(), 0, "HEL-027: Jumps over what is held");
    Ok(())
}

fn the_servers_data_is_lost(cx: &mut Context) -> Checked {
    cx.online()?;
    // Three segments, all stored and safe: what lies before the last may be gone.
    for _ in 0..2 {
        cx.chunks(3)?;
        cx.a.settle()?;
        cx.a.cut();
        cx.subject.event(FACTS);
        cx.a.welcome()?;
    }
    cx.chunks(2)?;
    cx.a.settle()?;
    let seen = cx.a.seen(Lane::Bulk);
    cx.a.cut();
    cx.a.meet()?;
    let first = cx.a.head(Lane::Bulk)?.first_seq;
    cx.a.greet(&[(Lane::Bulk, place(LogVerdict::ServerBehind, 1))])?;
    cx.a.pump("HEL-029: what is held, again", |station| {
        station.came.contains(&(Lane::Bulk, seen))
    })?;
    let jumps = cx.a.shelf(Lane::Bulk)?.jumps.clone();
    match jumps.as_slice() {
        [] => equal!(cx.a.came[0], (Lane::Bulk, 1), "HEL-029: the first chunk that came"),
        [jump] => {
            let lost = JumpCause::Lost(LossReason::ServerRolledBack);
            equal!(jump.cause, lost, "HEL-028: the cause of the Jump");
            equal!(
                (jump.from_seq, jump.to_seq + 1),
                (1, first),
                "HEL-028: the hole up to the held"
            );
        }
        jumps => return Err(format!("HEL-028: {} Jumps", jumps.len()).into()),
    }
    Ok(())
}

/// Sends the sensor from one server to the other.
fn drain(from: &mut Station) -> Checked {
    from.settle()?;
    from.link()?.send(Draining { retry_after_ms: 100 });
    from.expect_close("DLV-017: Draining")?;
    Ok(())
}

/// The one Jump of a lane that another server's share makes.
fn jump_of(station: &Station, lane: Lane) -> Option<Jump> {
    station.shelf(lane).ok()?.jumps.last().cloned()
}

fn a_sensor_moves_and_comes_back(cx: &mut Context) -> Checked {
    cx.online()?;
    cx.chunks(3)?;
    // Another session begins another segment, so that there is something behind a Jump.
    cx.a.settle()?;
    cx.a.cut();
    cx.subject.event(FACTS);
    cx.a.welcome()?;
    cx.chunks(2)?;
    cx.assign_to_b();
    drain(&mut cx.a)?;
    let (a, stored) = (cx.a.id, cx.a.seen(Lane::Bulk));
    cx.b.meet()?;
    let head = cx.b.head(Lane::Bulk)?.clone();
    equal!(head.log, cx.a.log(Lane::Bulk)?, "HEL-030: the log");
    let runs: Vec<(Id, u64, u64)> =
        head.elsewhere.0.iter().map(|run| (run.server, run.from_seq, run.to_seq)).collect();
    equal!(runs, vec![(a, 1, stored)], "HEL-005: who acknowledged what");
    cx.b.greet(&[(Lane::Bulk, place(LogVerdict::New, 1))])?;
    cx.subject.event(FACTS);
    cx.b.pump("HEL-030: a chunk at the other server", |station| {
        station.came.iter().any(|(lane, _)| *lane == Lane::Bulk)
    })?;
    let jump = jump_of(&cx.b, Lane::Bulk).ok_or("HEL-030: no Jump over what the first one has")?;
    equal!(jump.cause, JumpCause::StoredElsewhere(a), "HEL-030: the cause of the Jump");
    equal!(jump.from_seq, 1, "HEL-030: where the Jump begins");
    ensure!(jump.to_seq <= stored, "JMP-005: a Jump to {}, {stored} is stored", jump.to_seq);
    let known = cx.a.shelf(Lane::Bulk)?.chains.get(&jump.to_seq).copied();
    equal!(Some(jump.chain_at_to), known, "JMP-001: the chain in the Jump");
    cx.subject.event(FACTS);
    let seen = cx.b.seen(Lane::Bulk);
    cx.b.pump("more chunks at the other server", |station| station.seen(Lane::Bulk) > seen)?;
    // And back.
    cx.assign_to_a();
    drain(&mut cx.b)?;
    cx.a.meet()?;
    let runs = cx.a.head(Lane::Bulk)?.elsewhere.0.len();
    equal!(runs, 2, "HEL-005: runs after a move");
    cx.a.greet(&[])?;
    cx.chunks(2)?;
    if let Some(jump) = jump_of(&cx.a, Lane::Bulk) {
        equal!(jump.cause, JumpCause::StoredElsewhere(cx.b.id), "HEL-031: the cause of the Jump");
        let known = cx.b.shelf(Lane::Bulk)?.chains.get(&jump.to_seq).copied();
        equal!(Some(jump.chain_at_to), known, "HEL-031: the chain in the Jump");
    }
    let reasons: Vec<AssignReason> =
        cx.registration.known().asked.iter().map(|(_, asked)| asked.reason).collect();
    let expected = vec![AssignReason::First, AssignReason::Draining, AssignReason::Draining];
    equal!(reasons, expected, "REG-011: why Registration was asked");
    all_is_stored(cx)
}

/// Over both servers every chunk is there, and none has two contents.
fn all_is_stored(cx: &Context) -> Checked {
    let (a, b) = (cx.a.shelf(Lane::Bulk)?, &cx.b.shelves);
    let b = b.get(&cx.a.log(Lane::Bulk)?).ok_or("the other server has nothing of the log")?;
    for seq in 1..=a.seen() {
        match (a.chunks.get(&seq), b.chunks.get(&seq)) {
            (None, None) => return Err(Stop::Fail(format!("HEL-031: chunk {seq} is nowhere"))),
            (Some(here), Some(there)) if here != there => {
                return Err(Stop::Fail(format!("LOG-003: chunk {seq} differs at two servers")));
            }
            _ => {}
        }
    }
    Ok(())
}

fn nobody_is_said_to_have(cx: &mut Context) -> Checked {
    cx.online()?;
    cx.chunks(2)?;
    // Another session begins another segment, so that there is something to jump over.
    cx.a.settle()?;
    cx.a.cut();
    cx.subject.event(FACTS);
    cx.a.welcome()?;
    cx.chunks(2)?;
    cx.a.settle()?;
    let stored = cx.a.seen(Lane::Bulk);
    cx.a.answers.acks[0] = false;
    cx.chunks(3)?;
    cx.assign_to_b();
    drain(&mut cx.a)?;
    let (a, seen) = (cx.a.id, cx.a.seen(Lane::Bulk));
    cx.b.welcome()?;
    equal!(cx.b.head(Lane::Bulk)?.acked_seq, stored, "HEL-004: acked_seq");
    cx.b.pump("HEL-030: what nobody acknowledged, at the other server", |station| {
        station.came.contains(&(Lane::Bulk, seen))
    })?;
    if let Some(jump) = jump_of(&cx.b, Lane::Bulk) {
        equal!(jump.cause, JumpCause::StoredElsewhere(a), "HEL-030: the cause of the Jump");
        ensure!(jump.to_seq <= stored, "JMP-005: a Jump to {}, {stored} is stored", jump.to_seq);
    }
    all_is_stored(cx)
}

/// Moves: each makes a run, and the ninth has no room of its own.
const MOVES: usize = 9;

fn the_ninth_run_is_merged(cx: &mut Context) -> Checked {
    cx.online()?;
    cx.chunks(1)?;
    for moves in 1..=MOVES {
        cx.assign_to_b();
        drain(&mut cx.a)?;
        // From here on `a` is the one it moved to.
        std::mem::swap(&mut cx.a, &mut cx.b);
        cx.a.meet()?;
        tells_of_runs(cx, moves.min(8))?;
        cx.a.greet(&[])?;
        cx.chunks(1)?;
    }
    // What is remembered over a stop is the same; since the last Hello one more run was made.
    cx.a.settle()?;
    cx.subject.stop()?;
    cx.restart()?;
    cx.a.meet()?;
    tells_of_runs(cx, 8)
}

/// The Hello tells of so many runs, and of all that was acknowledged.
fn tells_of_runs(cx: &Context, count: usize) -> Checked {
    let head = cx.a.head(Lane::Bulk)?;
    let runs = &head.elsewhere.0;
    equal!(runs.len(), count, "HEL-005: the number of runs");
    let ends = (runs[0].from_seq, runs[runs.len() - 1].to_seq);
    equal!(ends, (1, head.acked_seq), "HEL-005: where the runs begin and end");
    let is_dense = runs.windows(2).all(|pair| pair[1].from_seq == pair[0].to_seq + 1);
    ensure!(is_dense, "HEL-005: the runs leave something out: {runs:?}");
    Ok(())
}
