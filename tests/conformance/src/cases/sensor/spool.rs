//! A spool at its bound: what goes, and what is said of it.

use super::case;
use super::commands::outcome;
use super::context::{Context, FACTS};
use super::crash::has_a_spool;
use crate::cases::{Case, Checked, Stop, ensure, equal};
use crate::play::link::PATIENCE;
use crate::play::shelf::Shelf;
use crate::wire::message::{Action, DropReason, Id, Jump, JumpCause, Lane};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[case(
    "a_full_spool_drops_its_oldest_and_says_so",
    &["JMP-006", "JMP-004", "JMP-005", "LOG-002"],
    "Away while more happens than its spool holds, a sensor drops the oldest of the bulk lane: one \
     hole from what was acknowledged on, which counts every fact in it, is said again at the next \
     start, and behind which a segment opens. The urgent lane loses nothing.",
    a_full_spool_drops_its_oldest,
)];

/// The bound that the sensor is given: the least of the product's.
const SPOOL_BYTES: u64 = 4 << 20;
/// Facts that are asked for at once at the most.
const FACTS_MAX: u64 = 20_000;
/// Chunks before the sensor is left alone.
const BEFORE: u64 = 4;

/// Has twice as much made as the spool holds while nobody answers; how many facts that is.
fn fill(cx: &mut Context, bytes_per_fact: u64) -> u64 {
    let count = (2 * SPOOL_BYTES / bytes_per_fact.max(1)).min(FACTS_MAX);
    cx.a.cut();
    cx.subject.event(count);
    cx.subject.rest();
    // What it dialled meanwhile was not answered.
    while cx.a.is_wanted_within(std::time::Duration::ZERO) {}
    count
}

fn a_full_spool_drops_its_oldest(cx: &mut Context) -> Checked {
    cx.subject.set("LAPWING_SPOOL", Some(&SPOOL_BYTES.to_string()));
    cx.online()?;
    has_a_spool(cx)?;
    cx.chunks(BEFORE)?;
    cx.a.settle()?;
    cx.a.answers.acks = [false; 2];
    let has_urgent = cx.a.head(Lane::Urgent).is_ok();
    if has_urgent {
        cx.a.command((1, 1), Action::StartCollection, 600_000)?;
        outcome(cx, (1, 1))?;
    }
    cx.a.settle()?;
    let (log, urgent) = (cx.a.log(Lane::Bulk)?, cx.a.seen(Lane::Urgent));
    let (acked, facts, bytes) = {
        let shelf = cx.a.shelf(Lane::Bulk)?;
        (shelf.stored, shelf.facts(), shelf.chunks.values().map(Vec::len).sum::<usize>())
    };
    ensure!(facts >= BEFORE * FACTS, "LOG-002: {facts} facts of {}", BEFORE * FACTS);
    cx.a.answers.may_drop = true;
    let total = facts + fill(cx, bytes as u64 / facts);
    cx.a.welcome()?;
    let all = |shelf: &Shelf| shelf.facts() >= total;
    let is_all = cx.a.pump_for(PATIENCE, |station| station.shelf(Lane::Bulk).is_ok_and(all))?;
    cx.a.settle()?;
    if cx.a.shelf(Lane::Bulk)?.jumps.is_empty() {
        let text = "LAPWING_SPOOL is a number of bytes, and this sensor drops nothing beyond it";
        return Err(Stop::Skip(text.into()));
    }
    ensure!(is_all, "JMP-001: {total} facts did not come, in chunks or in Jumps");
    let jumps = is_said(cx, (acked, total))?;
    if has_urgent {
        let shelf = cx.a.shelf(Lane::Urgent)?;
        ensure!(shelf.jumps.is_empty(), "JMP-006: the urgent lane loses {:?}", shelf.jumps);
        let came = cx.a.came.contains(&(Lane::Urgent, urgent));
        ensure!(came, "JMP-006: urgent chunk {urgent} does not come again");
    }
    is_said_again(cx, log, &jumps)
}

/// The Jumps of the bulk lane, which with its chunks are all that was made.
fn is_said(cx: &mut Context, (acked, total): (u64, u64)) -> Result<Vec<Jump>, Stop> {
    let shelf = cx.a.shelf(Lane::Bulk)?;
    equal!(shelf.facts(), total, "JMP-006: facts that chunks and Jumps account for");
    let first = shelf.jumps.first().ok_or("no Jump")?;
    equal!(first.from_seq, acked + 1, "JMP-006: where the hole begins, the oldest not stored");
    for jump in &shelf.jumps {
        equal!(jump.cause, JumpCause::Dropped(DropReason::SpoolFull), "JMP-005: the cause");
        ensure!(jump.to_index.is_some(), "JMP-007: a sensor that dropped knows how much: {jump:?}");
    }
    let behind = shelf.chunks.range(acked + 1..).map(|(_, bytes)| bytes.len() as u64);
    let held: u64 = behind.sum();
    ensure!(held <= SPOOL_BYTES, "JMP-006: {held} bytes came of a spool of {SPOOL_BYTES}");
    let jumps = shelf.jumps.clone();
    if held < SPOOL_BYTES / 4 {
        cx.weak(format!("JMP-006: {held} bytes came of a spool of {SPOOL_BYTES}"));
    }
    Ok(jumps)
}

/// Nobody acknowledged the holes: they are said again after kill -9, and what follows comes again.
fn is_said_again(cx: &mut Context, log: Id, jumps: &[Jump]) -> Checked {
    let made = cx.a.seen(Lane::Bulk);
    cx.a.answers.acks = [true; 2];
    cx.restart()?;
    cx.a.welcome()?;
    equal!(cx.a.log(Lane::Bulk)?, log, "HEL-032: the log of the unacknowledged tail");
    cx.a.pump("JMP-006: holes and tail of the log, again", |station| {
        station.shelves.get(&log).is_some_and(|shelf| shelf.stored >= made)
    })?;
    let said = cx.a.shelves.get(&log).map(|shelf| shelf.jumps.clone()).unwrap_or_default();
    let again = said.get(jumps.len()..).unwrap_or_default();
    equal!(again, jumps, "JMP-006: the Jumps that are said again at the next start");
    Ok(())
}
