//! The ledger: what became of every fact, as it is kept and as a scan of the journal finds it.
//!
//! These need `--console` and `--identities`.

use super::case;
use super::context::Context;
use super::steps::{store, undecodable};
use crate::cases::{Case, Checked, Stop, ensure, equal};
use crate::play::link::{Link, PATIENCE};
use crate::play::log::Log;
use crate::play::sensor::{acked, call};
use crate::play::wait;
use crate::wire::chunk::SELF_CONTAINED;
use crate::wire::code;
use crate::wire::message::{DropReason, Id, Jump, JumpCause, Lane, LossReason};
use crate::wire::method::{
    LEDGER, LEDGER_VERIFY, LedgerFault, LedgerPage, LedgerPlace, LedgerRequest, LedgerRow,
    LedgerRun, LedgerVerified, LedgerVerify, RunKind,
};
use crate::wire::primitive::Wire as _;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "a_hole_of_unknown_size_is_counted_as_such",
        &["JMP-007", "DLV-019"],
        "The ledger says how many holes have a size that nobody knows.",
        a_hole_of_unknown_size_is_counted,
    ),
    case(
        "the_ledger_says_what_became_of_every_fact",
        &["DLV-019", "JMP-005", "JMP-008"],
        "Each fact is accounted for by position and by what its chunk, Dropped op or Jump says of \
         it, with every cause.",
        the_ledger_says_what_became_of_every_fact,
    ),
    case(
        "a_scan_finds_what_was_sent",
        &["DLV-019", "CHN-001"],
        "A scan of the journal comes to the same account, names the log's chain, and finds nothing \
         amiss in it.",
        a_scan_finds_what_was_sent,
    ),
];

/// The ledger's row of a log, once it has counted as far as the log goes.
fn row(console: &mut Link, sensor: &Id, log: &Log) -> Result<LedgerRow, Stop> {
    let request = LedgerRequest { sensor: Some(*sensor), after: None }.to_bytes();
    // It may be counted later than it is stored.
    let row = wait::attempt(PATIENCE, || {
        let (_, body) = call(console, 1, LEDGER, &request).ok()?;
        let rows = LedgerPage::from_bytes(&body).ok()?.rows.0.into_iter();
        let mut of_log = rows.filter(|row| row.log == log.log);
        of_log.find(|row| row.next_seq == log.next_seq())
    });
    row.ok_or_else(|| Stop::Fail("DLV-019: the ledger has no row of what is stored".into()))
}

fn a_hole_of_unknown_size_is_counted(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    for unknown in 0..=2 {
        if unknown > 0 {
            let jump = log.jump(4, 0, JumpCause::Lost(LossReason::SpoolDamaged));
            let to_seq = jump.to_seq;
            link.send(Jump { to_index: None, ..jump });
            acked(&mut link, Lane::Bulk, to_seq)?;
        }
        store(&mut link, &[log.fact()])?;
        let row = row(&mut console, &sensor.id, &log)?;
        equal!(row.lost_unknown, unknown, "JMP-007: holes of unknown size in the ledger");
    }
    Ok(())
}

/// Facts that each Jump stands for.
const HOLE: u64 = 7;

/// Sends facts, Dropped ops, a chunk that does not decode and a Jump of every cause: what the
/// ledger must make of it.
fn send_all(cx: &mut Context<'_>, link: &mut Link, log: &mut Log) -> Result<Vec<LedgerRun>, Stop> {
    let dropped = [
        DropReason::TableFull,
        DropReason::TooLarge,
        DropReason::SpoolFull,
        DropReason::MemoryFull,
        DropReason::SpoolFailed,
        DropReason::Malformed,
    ];
    let lost = [LossReason::ServerRolledBack, LossReason::MemoryLost, LossReason::SpoolDamaged];
    let mut runs = Vec::new();
    store(link, &[log.fact(), log.fact()])?;
    runs.push((RunKind::Stored, log.next_index - 1));
    let mut ops = log.opened();
    ops.dropped(4, DropReason::TooLarge);
    let chunk = log.next(SELF_CONTAINED, 4, ops.body());
    store(link, &[log.push(&chunk)])?;
    runs.push((RunKind::Dropped(DropReason::TooLarge), log.next_index - 1));
    store(link, &[undecodable(log)])?;
    runs.push((RunKind::Undecoded, log.next_index - 1));
    let server = cx.id();
    let dropped = dropped.map(|it| (JumpCause::Dropped(it), RunKind::Dropped(it)));
    let lost = lost.map(|it| (JumpCause::Lost(it), RunKind::Lost(it)));
    let elsewhere = (JumpCause::StoredElsewhere(server), RunKind::Elsewhere(server));
    for (cause, kind) in dropped.into_iter().chain(lost).chain([elsewhere]) {
        let jump = log.jump(3, HOLE, cause);
        let to_seq = jump.to_seq;
        link.send(jump);
        acked(link, Lane::Bulk, to_seq)?;
        runs.push((kind, log.next_index - 1));
        store(link, &[log.fact()])?;
        runs.push((RunKind::Stored, log.next_index - 1));
    }
    Ok(runs.into_iter().map(|(kind, to_index)| LedgerRun { kind, to_index }).collect())
}

fn the_ledger_says_what_became_of_every_fact(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    let expected = send_all(cx, &mut link, &mut log)?;
    let row = row(&mut console, &sensor.id, &log)?;
    equal!(row.runs.0, expected, "DLV-019: what became of each run of facts");
    equal!((row.undecoded, row.lost_unknown), (1, 0), "DLV-019: undecoded chunks, unknown holes");
    Ok(())
}

/// How long a scan may take of all that the cases before have stored.
const SCANS: u32 = 100;

/// What a scan comes to of one log, and what it finds amiss of its sensor.
fn scan(
    console: &mut Link,
    place: &LedgerPlace,
) -> Result<(Option<LedgerRow>, Vec<LedgerFault>), Stop> {
    let mut asked = LedgerVerify { scan: 0, after: None, wait_ms: 1_000 };
    let (mut found, mut faults) = (None, Vec::new());
    for _ in 0..SCANS {
        let (code, body) = call(console, 1, LEDGER_VERIFY, &asked.to_bytes())?;
        equal!(code::name(code), "ok", "`ledger_verify`: {}", String::from_utf8_lossy(&body));
        let part = LedgerVerified::from_bytes(&body);
        let part = part.map_err(|error| format!("LedgerVerified: {error}"))?;
        asked.scan = part.scan;
        if !part.ended {
            let is_empty = part.rows.0.is_empty() && part.faults.0.is_empty();
            ensure!(is_empty, "DLV-019: a scan under way has rows or faults");
            continue;
        }
        faults.extend(part.faults.0.into_iter().filter(|fault| fault.sensor == place.sensor));
        let last = part.rows.0.last();
        asked.after =
            last.map(|row| LedgerPlace { sensor: row.sensor, lane: row.lane, log: row.log });
        found = found.or(part.rows.0.into_iter().find(|row| row.log == place.log));
        if part.at_end {
            return Ok((found, faults));
        }
        ensure!(asked.after.is_some(), "DLV-019: a part of a scan that does not go on");
    }
    Err(Stop::Fail("DLV-019: a scan does not end".into()))
}

fn a_scan_finds_what_was_sent(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    let expected = send_all(cx, &mut link, &mut log)?;
    let place = LedgerPlace { sensor: sensor.id, lane: Lane::Bulk, log: log.log };
    let mut found = None;
    // A scan that was under way for somebody else may have begun before all was stored.
    for _ in 0..3 {
        let (row, faults) = scan(&mut console, &place)?;
        ensure!(faults.is_empty(), "DLV-019: of a sound log a scan says {faults:?}");
        found = row.filter(|row| row.next_seq == log.next_seq());
        if found.is_some() {
            break;
        }
    }
    let row = found.ok_or("DLV-019: no scan comes to the end of what is stored")?;
    equal!(row.runs.0, expected, "DLV-019: what became of each run of facts, by a scan");
    equal!((row.undecoded, row.lost_unknown), (1, 0), "DLV-019: undecoded chunks, unknown holes");
    for anchor in &row.anchors.0 {
        let chain = log.chain_at(anchor.seq);
        equal!(anchor.chain, chain, "CHN-001: the chain that a scan recomputes at {}", anchor.seq);
    }
    Ok(())
}
