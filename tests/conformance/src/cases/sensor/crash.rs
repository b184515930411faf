//! A sensor that is killed, and one that is stopped.

use super::case;
use super::commands::outcome;
use super::context::{Context, FACTS};
use crate::cases::{Case, Checked, Stop, ensure, equal};
use crate::wire::chunk::{Chunk, SELF_CONTAINED};
use crate::wire::message::{Action, Id, Lane, LogCause, Memory};
use crate::wire::primitive::{Reader, Wire as _};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "kill_9_loses_nothing_that_was_sent",
        &["HEL-032", "DLV-015", "LOG-003"],
        "Killed with chunks of both lanes that nobody acknowledged, the next process sends them as \
         they were and then opens new logs, cause Unclean, the old ones their parents.",
        kill_9_loses_nothing_that_was_sent,
    ),
    case(
        "a_log_is_not_used_again_after_kill_9",
        &["HEL-032", "LOG-006"],
        "Killed with everything acknowledged, the next process writes no fact into the old log.",
        a_log_is_not_used_again_after_kill_9,
    ),
    case(
        "three_kills_in_a_row",
        &["HEL-032", "DLV-006"],
        "Killed again before the tails were sent: each log comes in its turn, none is skipped.",
        three_kills_in_a_row,
    ),
    case(
        "a_stop_loses_nothing",
        &["HEL-020", "DLV-015"],
        "After a clean stop what was not acknowledged comes again, and the lane goes on.",
        a_stop_loses_nothing,
    ),
    case(
        "without_a_spool_each_start_begins_a_log",
        &["HEL-033", "LOG-007"],
        "Told to keep nothing on the disk it says RamOnly; after a stop and after kill -9 it opens a \
         new log, cause Started, and every chunk of it stands alone.",
        without_a_spool_each_start_begins_a_log,
    ),
];

/// Skips where there is none.
pub(super) fn has_a_spool(cx: &Context) -> Checked {
    match cx.a.hello.as_ref().map(|hello| hello.memory) {
        Some(Memory::Disk) => Ok(()),
        _ => Err(Stop::Skip("this sensor says that it has no spool".into())),
    }
}

/// The old log's tail is sent as it was, then a new log is opened behind it.
fn tail_then_new_log(cx: &mut Context, lane: Lane, old: Id, seen: u64) -> Checked {
    let made = cx.a.shelves.get(&old).map(|shelf| shelf.seen()).unwrap_or_default();
    ensure!(made >= seen, "HEL-032: of {seen} chunks {made} came again");
    let shelf = cx.a.shelves.values().find(|shelf| {
        shelf.lane == lane && shelf.parent.as_ref().is_some_and(|parent| parent.log == old)
    });
    let shelf = shelf.ok_or("HEL-032: no log has the old one as its parent")?;
    equal!(shelf.cause, LogCause::Unclean, "HEL-032: the cause of the new log");
    let parent = shelf.parent.clone().ok_or("no parent")?;
    ensure!(
        parent.next_seq > made,
        "HEL-032: the new log says that the old one ends before {}, {made} came",
        parent.next_seq
    );
    let chain = cx.a.shelves.get(&old).and_then(|old| old.chains.get(&(parent.next_seq - 1)));
    if let Some(chain) = chain {
        equal!(parent.chain, *chain, "CHN-001: the parent's chain");
    }
    Ok(())
}

fn kill_9_loses_nothing_that_was_sent(cx: &mut Context) -> Checked {
    cx.a.answers.acks = [false; 2];
    cx.online()?;
    has_a_spool(cx)?;
    cx.chunks(4)?;
    let has_urgent = cx.a.head(Lane::Urgent).is_ok();
    if has_urgent {
        cx.a.command((1, 1), Action::StartCollection, 600_000)?;
        outcome(cx, (1, 1))?;
    }
    cx.a.settle()?;
    let old = [cx.a.log(Lane::Bulk)?, cx.a.log(Lane::Urgent).unwrap_or_default()];
    let seen = [cx.a.seen(Lane::Bulk), cx.a.seen(Lane::Urgent)];
    cx.a.answers.acks = [true; 2];
    cx.restart()?;
    cx.a.meet()?;
    let lanes = if has_urgent { &[Lane::Bulk, Lane::Urgent][..] } else { &[Lane::Bulk][..] };
    for lane in lanes {
        let head = cx.a.head(*lane)?;
        equal!(head.log, old[*lane as usize], "HEL-032: the log of the unacknowledged tail");
        ensure!(
            head.next_seq > seen[*lane as usize],
            "DLV-015: next_seq is {} after kill -9, chunk {} was sent",
            head.next_seq,
            seen[*lane as usize]
        );
    }
    cx.a.greet(&[])?;
    facts_go_elsewhere(cx, old[0])?;
    tail_then_new_log(cx, Lane::Bulk, old[0], seen[0])?;
    let again = cx.a.shelves.get(&old[0]).map(|shelf| shelf.stored).unwrap_or_default();
    ensure!(again >= seen[0], "HEL-032: the tail was acknowledged to {again} of {}", seen[0]);
    Ok(())
}

/// New facts come in another log than `old`, and none comes in it.
fn facts_go_elsewhere(cx: &mut Context, old: Id) -> Checked {
    cx.subject.event(FACTS);
    cx.a.pump("HEL-032: facts in a new log", |station| {
        let log = station.log(Lane::Bulk);
        log.is_ok_and(|log| log != old) && station.seen(Lane::Bulk) >= 1
    })?;
    cx.subject.event(FACTS);
    cx.a.settle()?;
    Ok(())
}

fn a_log_is_not_used_again_after_kill_9(cx: &mut Context) -> Checked {
    cx.online()?;
    has_a_spool(cx)?;
    cx.chunks(3)?;
    cx.a.settle()?;
    let (old, seen) = (cx.a.log(Lane::Bulk)?, cx.a.seen(Lane::Bulk));
    cx.restart()?;
    cx.a.meet()?;
    let made = {
        let head = cx.a.head(Lane::Bulk)?;
        if head.log == old { head.next_seq - 1 } else { seen }
    };
    cx.a.greet(&[])?;
    cx.subject.event(FACTS);
    cx.a.pump("facts after kill -9", |station| {
        station.shelves.get(&old).is_some_and(|shelf| shelf.seen() > made)
            || station.log(Lane::Bulk).is_ok_and(|log| log != old) && station.seen(Lane::Bulk) >= 1
    })?;
    let last = cx.a.shelves.get(&old).map(|shelf| shelf.seen()).unwrap_or_default();
    equal!(last, made.max(seen), "HEL-032: the last chunk of the log that was not stopped cleanly");
    tail_then_new_log(cx, Lane::Bulk, old, seen)
}

fn three_kills_in_a_row(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.online()?;
    has_a_spool(cx)?;
    cx.chunks(3)?;
    cx.a.settle()?;
    let (old, seen) = (cx.a.log(Lane::Bulk)?, cx.a.seen(Lane::Bulk));
    for _ in 0..3 {
        cx.restart()?;
        cx.a.welcome()?;
        equal!(cx.a.log(Lane::Bulk)?, old, "HEL-032: the log that is sent first");
        cx.subject.event(FACTS);
        cx.a.pump("HEL-032: the tail", |station| station.came.contains(&(Lane::Bulk, seen)))?;
        cx.a.settle()?;
    }
    cx.a.answers.acks[0] = true;
    let last = cx.a.seen(Lane::Bulk);
    cx.a.ack(Lane::Bulk, last, last)?;
    facts_go_elsewhere(cx, old)?;
    tail_then_new_log(cx, Lane::Bulk, old, seen)?;
    for _ in 0..2 {
        cx.a.settle()?;
    }
    // Each log that holds chunks has come whole: its successor names its end.
    for shelf in cx.a.shelves.values().filter(|shelf| shelf.lane == Lane::Bulk) {
        let Some(parent) = &shelf.parent else { continue };
        let came = cx.a.shelves.get(&parent.log).map(|shelf| shelf.seen()).unwrap_or_default();
        equal!(came, parent.next_seq - 1, "HEL-032: the last chunk of an old log that came");
    }
    Ok(())
}

fn a_stop_loses_nothing(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.online()?;
    has_a_spool(cx)?;
    cx.chunks(3)?;
    cx.a.settle()?;
    let (old, seen) = (cx.a.log(Lane::Bulk)?, cx.a.seen(Lane::Bulk));
    cx.subject.stop()?;
    cx.a.answers.acks[0] = true;
    cx.restart()?;
    cx.a.welcome()?;
    equal!(cx.a.log(Lane::Bulk)?, old, "HEL-020: the log");
    cx.a.pump("HEL-020: what was not acknowledged", |station| {
        station.came.contains(&(Lane::Bulk, seen))
    })?;
    cx.chunks(2)?;
    let cause = cx.a.shelf(Lane::Bulk)?.cause;
    ensure!(cause != LogCause::Unclean, "HEL-032: after a clean stop a log has cause Unclean");
    Ok(())
}

fn without_a_spool_each_start_begins_a_log(cx: &mut Context) -> Checked {
    cx.subject.set("LAPWING_SPOOL", Some("none"));
    cx.online()?;
    if cx.a.hello.as_ref().map(|hello| hello.memory) != Some(Memory::RamOnly) {
        return Err(Stop::Skip("LAPWING_SPOOL is `none`, and this sensor has a spool".into()));
    }
    let mut logs = Vec::new();
    for is_killed in [false, true, false] {
        let head = cx.a.head(Lane::Bulk)?;
        ensure!(!logs.contains(&head.log), "HEL-033: the log of an earlier start is gone on with");
        let is_first = logs.is_empty();
        ensure!(is_first || head.cause == LogCause::Started, "HEL-033: cause {:?}", head.cause);
        logs.push(head.log);
        cx.chunks(3)?;
        cx.a.settle()?;
        if !is_killed {
            cx.subject.stop()?;
        }
        cx.restart()?;
        cx.a.welcome()?;
    }
    for (seq, bytes) in cx.a.shelves.values().flat_map(|shelf| &shelf.chunks) {
        let chunk = Chunk::read(&mut Reader::of_chunk(bytes)).map_err(|error| error.to_string())?;
        let alone = chunk.flags & SELF_CONTAINED != 0;
        ensure!(alone, "HEL-033: chunk {seq} of a sensor without a spool does not stand alone");
    }
    Ok(())
}
