//! What an operator is told of a sensor's delivery: findings, in the feed of evidence.
//!
//! These need `--console` and `--identities`.

use std::time::{Duration, Instant};

use super::context::Context;
use super::rows::parent;
use super::steps::{refused, resync, store, undecodable};
use super::{case, in_phase};
use crate::cases::{Case, Checked, Phase, Stop, ensure, equal};
use crate::play::link::{Link, PATIENCE};
use crate::play::log::BOOT;
use crate::play::sensor::{acked, call, greet};
use crate::play::wait;
use crate::wire::code;
use crate::wire::message::{Hello, Id, JumpCause, Lane, LogCause, LossReason};
use crate::wire::method::{EVIDENCE, EvidencePage, EvidenceView, FeedRequest, SensorReport};
use crate::wire::primitive::Wire as _;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "branches_and_losses_are_findings",
        &["HEL-039", "HEL-023", "HEL-024", "HEL-027", "HEL-029"],
        "Each row of the decision table that tells of harm is a finding.",
        branches_and_losses_are_findings,
    ),
    case(
        "a_loss_that_is_said_is_a_finding",
        &["HEL-039", "JMP-005"],
        "A Jump for a loss is a finding, with its number of facts.",
        a_loss_that_is_said_is_a_finding,
    ),
    case(
        "what_does_not_decode_is_a_finding",
        &["DLV-010", "HEL-039"],
        "A chunk that does not decode is told to the operator, not to the sensor alone.",
        what_does_not_decode_is_a_finding,
    ),
    case(
        "a_boot_that_comes_back_is_a_finding",
        &["HEL-025", "HEL-039"],
        "A boot that was over comes back: two machines have one identity, and that is told.",
        a_boot_that_comes_back,
    ),
    // Alone: two certificates are lent for one sensor, and another case shows both too.
    in_phase(
        case(
            "another_key_is_a_finding",
            &["HEL-026", "HEL-039"],
            "Somebody with another key for an id is not only refused: it is told.",
            another_key_is_a_finding,
        ),
        Phase::Alone,
    ),
    case(
        "a_clock_that_is_off_is_a_finding",
        &["HEL-035", "HEL-039", "CAL-006"],
        "After a Hello a report is asked for; a clock in it that is an hour off is told, one that is \
         right is not.",
        a_clock_that_is_off,
    ),
    case(
        "the_third_segment_that_differs_is_a_finding",
        &["DLV-012"],
        "A digest that differs in one segment and in the next is mended; in the third it is told.",
        the_third_segment_that_differs,
    ),
    case(
        "an_honest_sensor_is_no_finding",
        &["HEL-039", "HEL-020", "HEL-022", "HEL-031", "HEL-032"],
        "Stops, lost Acks, repeats, a move there and back and a new log are no findings.",
        an_honest_sensor_is_no_finding,
    ),
];

/// The evidence about one sensor, oldest first, until it is enough or `limit` has passed.
fn evidence(
    console: &mut Link,
    sensor: &Id,
    limit: Duration,
    is_enough: impl Fn(&[EvidenceView]) -> bool,
) -> Result<Vec<EvidenceView>, Stop> {
    let deadline = Instant::now() + limit;
    let mut request = FeedRequest { incarnation: None, cursor: 0, limit: 1_024, wait_ms: 0 };
    let mut found = Vec::new();
    loop {
        let (code, body) = call(console, 1, EVIDENCE, &request.to_bytes())?;
        equal!(code::name(code), "ok", "`evidence`: {}", String::from_utf8_lossy(&body));
        let page = EvidencePage::from_bytes(&body);
        let page = page.map_err(|error| format!("EvidencePage: {error}"))?;
        found.extend(page.items.0.into_iter().filter(|item| item.sensor == *sensor));
        let left = deadline.saturating_duration_since(Instant::now());
        if is_enough(&found) || page.at_end && left.is_zero() {
            return Ok(found);
        }
        let goes_on = page.at_end || page.next_cursor > request.cursor;
        ensure!(goes_on, "CAL-010: a page that does not go on");
        (request.incarnation, request.cursor) = (Some(page.incarnation), page.next_cursor);
        request.wait_ms = u32::try_from(left.as_millis().min(1_000)).unwrap_or(0);
    }
}

/// The rules of the evidence about one sensor that is told already.
fn rules(console: &mut Link, sensor: &Id) -> Result<Vec<String>, Stop> {
    let found = evidence(console, sensor, Duration::ZERO, |_| false)?;
    Ok(found.into_iter().map(|item| item.rule).collect())
}

/// The first evidence about a sensor, which may come later than what caused it.
fn told(console: &mut Link, sensor: &Id, what: &str) -> Result<EvidenceView, Stop> {
    let found = evidence(console, sensor, PATIENCE, |found| !found.is_empty())?;
    let first = found.into_iter().next();
    first.ok_or_else(|| Stop::Fail(format!("{what}: no finding is told")))
}

fn branches_and_losses_are_findings(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    for row in ["sensor_rolled_back", "sensor_forked", "server_restored", "server_data_lost"] {
        let (sensor, mut log, mut link, _) = cx.bulk()?;
        let mut shorter = log.clone();
        store(&mut link, &[log.fact(), log.fact()])?;
        link.cut();
        let said = match row {
            "sensor_rolled_back" => {
                shorter.fact();
                shorter
            }
            "sensor_forked" => {
                for extra in [3, 4] {
                    let chunk = shorter.fact_of(extra);
                    shorter.push(&chunk);
                }
                shorter.acked = 2;
                shorter
            }
            "server_restored" => {
                let _ = [log.fact(), log.fact()];
                log.acked = 4;
                log
            }
            _ => {
                let mut lost = sensor.log(Lane::Bulk, cx.id());
                let _ = [lost.fact(), lost.fact()];
                lost.acked = 2;
                lost
            }
        };
        equal!(rules(&mut console, &sensor.id)?.len(), 0, "HEL-039: before {row}");
        greet(&mut cx.connect(&sensor)?, sensor.hello(&[&said]))?;
        let is_row = |found: &[EvidenceView]| found.iter().any(|item| item.rule == row);
        let found = evidence(&mut console, &sensor.id, PATIENCE, is_row)?;
        ensure!(is_row(&found), "HEL-039: {row}: told is {found:?}");
    }
    Ok(())
}

fn a_loss_that_is_said_is_a_finding(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    store(&mut link, &[log.fact()])?;
    let jump = log.jump(3, 77, JumpCause::Lost(LossReason::SpoolDamaged));
    link.send(jump);
    acked(&mut link, Lane::Bulk, 4)?;
    let found = told(&mut console, &sensor.id, "HEL-039: a Jump for a loss")?;
    equal!(found.rule.as_str(), "facts_lost", "HEL-039: the finding of a Jump for a loss");
    let says_it = found.title.contains("77");
    ensure!(says_it, "HEL-039: 77 facts are lost, and what is told is {:?}", found.title);
    Ok(())
}

fn what_does_not_decode_is_a_finding(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    for lane in [Lane::Bulk, Lane::Urgent] {
        let (sensor, mut log) = cx.sensor_with(lane)?;
        let (mut link, _) = cx.session(&sensor, &[&log])?;
        store(&mut link, &[log.fact()])?;
        equal!(rules(&mut console, &sensor.id)?.len(), 0, "DLV-010: before");
        store(&mut link, &[undecodable(&mut log)])?;
        if lane == Lane::Bulk {
            resync(&mut link)?;
        }
        told(&mut console, &sensor.id, &format!("DLV-010: an undecodable chunk of {lane:?}"))?;
    }
    Ok(())
}

/// A finding of that rule about a sensor is told.
fn is_told(console: &mut Link, sensor: &Id, rule: &str) -> Checked {
    let is_it = |found: &[EvidenceView]| found.iter().any(|item| item.rule == rule);
    let found = evidence(console, sensor, PATIENCE, is_it)?;
    ensure!(is_it(&found), "HEL-039: {rule}: told is {found:?}");
    Ok(())
}

fn a_boot_that_comes_back(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    let (sensor, log) = cx.sensor_with(Lane::Bulk)?;
    let other = cx.id();
    for boot in [BOOT, other, other, BOOT] {
        equal!(rules(&mut console, &sensor.id)?.len(), 0, "HEL-039: before a boot comes back");
        let mut link = cx.connect(&sensor)?;
        greet(&mut link, Hello { boot, ..sensor.hello(&[&log]) })?;
        link.cut();
    }
    is_told(&mut console, &sensor.id, "sensor_cloned")
}

fn another_key_is_a_finding(cx: &mut Context<'_>) -> Checked {
    let (own, other) = (cx.lent("sensor")?, cx.lent("sensor-twin")?);
    let mut console = cx.console("ctl")?;
    let sensor = cx.sensor_of(own)?;
    let log = sensor.log(Lane::Bulk, cx.id());
    greet(&mut cx.connect_as(own)?, sensor.hello(&[&log]))?;
    let mut twin = cx.connect_as(other)?;
    twin.send(sensor.hello(&[&log]));
    refused(cx, &mut twin, code::REVOKED, "HEL-026: another key")?;
    is_told(&mut console, &sensor.id, "sensor_other_key")
}

fn a_clock_that_is_off(cx: &mut Context<'_>) -> Checked {
    const HOUR_MS: u64 = 3_600_000;
    let mut console = cx.console("ctl")?;
    let (sensor, log) = cx.sensor_with(Lane::Bulk)?;
    for off_ms in [0, HOUR_MS] {
        equal!(rules(&mut console, &sensor.id)?.len(), 0, "HEL-035: while the clock is right");
        let mut link = cx.connect(&sensor)?;
        // The report goes with the next Hello: the first one says what time it is there.
        let now_ms = greet(&mut link, sensor.hello(&[&log]))?.server_ms;
        link.settle()?;
        let told = SensorReport {
            collecting: true,
            produced_bulk: 0,
            produced_urgent: 0,
            spool_bytes: 0,
            health: Vec::new(),
            wall_ms: now_ms + off_ms,
            logs: Vec::new(),
            unchanged: 0,
            collected: Vec::new(),
        };
        link.cut();
        let mut link = cx.connect(&sensor)?;
        link.report = Some(told.to_bytes());
        greet(&mut link, sensor.hello(&[&log]))?;
        let asked = wait::attempt(PATIENCE, || {
            let came = link.settle();
            (came.is_err() || link.reported > 0).then_some(came)
        });
        asked.ok_or("CAL-006: after a Hello no report is asked for")??;
    }
    is_told(&mut console, &sensor.id, "clock_skew")
}

fn the_third_segment_that_differs(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    for segment in 1..=3 {
        let first = log.keyframe();
        let mut chunk = log.clone().delta();
        chunk.digest[0] ^= 1;
        store(&mut link, &[first, log.push(&chunk)])?;
        if segment < 3 {
            let is_read = wait::attempt(PATIENCE, || {
                let events = super::console::events(&mut console, &sensor.id);
                let last = log.next_seq() - 1;
                events.is_ok_and(|events| events.iter().any(|it| it.seq == last)).then_some(())
            });
            ensure!(is_read.is_some(), "CON-003: what is stored is not told");
            let found = rules(&mut console, &sensor.id)?;
            ensure!(found.is_empty(), "DLV-012: after {segment} segments there are {found:?}");
        }
    }
    told(&mut console, &sensor.id, "DLV-012: the third segment that differs").map(drop)
}

fn an_honest_sensor_is_no_finding(cx: &mut Context<'_>) -> Checked {
    let mut console = cx.console("ctl")?;
    let (sensor, mut log, mut link, ack) = cx.bulk()?;
    let chunks = [log.fact(), log.fact(), log.fact()];
    store(&mut link, &chunks)?;
    link.send(chunks[1].clone());
    acked(&mut link, Lane::Bulk, 3)?;
    link.cut();
    for known in [0, 2, 3] {
        log.acked = known;
        let (link, _) = cx.session(&sensor, &[&log])?;
        link.cut();
    }
    let other = cx.id();
    let jump = log.jump(3, 3, JumpCause::StoredElsewhere(other));
    log.acked = 6;
    let run =
        |server, from_seq, to_seq| crate::wire::message::StoredRange { server, from_seq, to_seq };
    log.elsewhere = vec![run(ack.server, 1, 3), run(other, 4, 6)];
    let (mut link, _) = cx.session(&sensor, &[&log])?;
    link.send(jump);
    acked(&mut link, Lane::Bulk, 6)?;
    store(&mut link, &[log.keyframe(), log.put(1, "ssh", "active")])?;
    let mut new = sensor.log(Lane::Bulk, cx.id());
    (new.cause, new.parent) = (LogCause::Unclean, Some(parent(&log)));
    greet(&mut link, sensor.hello(&[&new]))?;
    store(&mut link, &[new.keyframe(), new.delta()])?;
    // What came last is told in the feed of events; by then findings would be as well.
    let is_read = wait::attempt(PATIENCE, || {
        let events = super::console::events(&mut console, &sensor.id);
        events.is_ok_and(|events| events.iter().any(|it| it.log == new.log)).then_some(())
    });
    ensure!(is_read.is_some(), "CON-003: what is stored is not told");
    let found = rules(&mut console, &sensor.id)?;
    ensure!(found.is_empty(), "HEL-039: of an honest sensor these are told: {found:?}");
    Ok(())
}
