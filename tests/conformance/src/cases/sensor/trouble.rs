//! Servers that refuse, go away or fall silent: how long a sensor waits, and whom it asks.
//!
//! What is told in time is a least time: a sensor that comes sooner than it was told fails, one
//! that comes later does not.

use std::time::{Duration, Instant};

use super::case;
use super::context::{Context, FACTS};
use crate::cases::{Case, Checked, Phase, Stop, ensure, equal};
use crate::play::link::Got;
use crate::play::station::RETURN;
use crate::play::wait;
use crate::wire::code;
use crate::wire::message::{Draining, Refused};
use crate::wire::method::AssignReason;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "a_draining_server_is_left",
        &["DLV-017", "REG-011", "FRM-009"],
        "Draining: nothing new comes, the sensor closes, asks Registration, and is not back before \
         the time that was named.",
        a_draining_server_is_left,
    ),
    case(
        "a_refusal_binds",
        &["FRM-009", "HEL-036", "REG-011"],
        "Refused with a time, before and after HelloAck: the sensor asks Registration and is not back \
         sooner, although it is sent to the same server.",
        a_refusal_binds,
    ),
    case(
        "a_fenced_sensor_asks_nobody",
        &["HEL-037"],
        "Fenced again and again it comes back to the same server, not at once, and does not ask \
         Registration.",
        a_fenced_sensor_asks_nobody,
    ),
    case(
        "a_server_that_cannot_be_reached_is_given_up",
        &["REG-011", "HEL-036"],
        "After two failed attempts and five seconds Registration is asked, not before; its answer is \
         followed, and what was not stored goes to the other server.",
        a_server_that_cannot_be_reached_is_given_up,
    ),
    case(
        "a_package_that_names_a_server_leads_there",
        &["REG-014"],
        "Registration does not answer, and then there is none: the sensor goes to the server that its \
         package names.",
        a_package_that_names_a_server,
    ),
    Case {
        phase: Phase::Slow,
        ..case(
            "a_server_that_stores_nothing_is_left",
            &["DLV-016", "REG-011"],
            "With a chunk in flight and no Ack for half a minute the sensor closes and asks \
             Registration, because nothing moves on; what was in flight goes to the other server.",
            a_server_that_stores_nothing,
        )
    },
    Case {
        phase: Phase::Slow,
        ..case(
            "a_server_that_does_not_greet_is_left",
            &["HEL-011"],
            "Without a HelloAck for ten seconds the sensor closes.",
            a_server_that_does_not_greet_is_left,
        )
    },
    Case {
        phase: Phase::Slow,
        ..case(
            "a_silent_server_is_asked_and_left",
            &["FRM-010", "LIM-060", "LIM-061"],
            "Of a server that says nothing the sensor asks by a Ping after thirty seconds; one that \
             does not answer it leaves after ninety.",
            a_silent_server_is_asked_and_left,
        )
    },
    Case {
        phase: Phase::Slow,
        ..case(
            "without_room_it_keeps_asking",
            &["REG-013"],
            "Registration has no room: the sensor asks again, and goes where it is sent then.",
            without_room_it_keeps_asking,
        )
    },
];

/// A time that is told, in milliseconds.
const TOLD_MS: u32 = 3_500;

/// The sensor's next connection comes no sooner than `TOLD_MS` after `said`.
fn comes_back_in_time(cx: &mut Context, said: Instant, what: &str) -> Checked {
    cx.a.welcome().map_err(|error| format!("{what}: {error}"))?;
    let waited = said.elapsed();
    ensure!(
        waited >= Duration::from_millis(u64::from(TOLD_MS)),
        "{what}: it is back after {waited:?} of {TOLD_MS} ms"
    );
    Ok(())
}

/// Three waits drawn evenly from windows of two seconds and more are shorter in all once in ten
/// thousand runs.
const AWAY_LEAST: Duration = Duration::from_millis(300);

fn reasons(cx: &Context) -> Vec<AssignReason> {
    cx.registration.known().asked.iter().map(|(_, asked)| asked.reason).collect()
}

fn a_draining_server_is_left(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.online()?;
    cx.chunks(2)?;
    cx.a.settle()?;
    cx.a.came.clear();
    let said = Instant::now();
    cx.a.link()?.send(Draining { retry_after_ms: TOLD_MS });
    // What the sensor sent before it read that is over once it answers a Ping.
    let drained = cx.a.settle();
    let came = cx.a.came.len();
    if drained.is_ok() {
        cx.subject.event(FACTS);
        cx.a.pump_for(Duration::from_millis(800), |_| false).ok();
        equal!(cx.a.came.len(), came, "DLV-017: chunks that came after Draining");
        cx.a.expect_close("DLV-017: Draining")?;
    }
    comes_back_in_time(cx, said, "DLV-017: Draining")?;
    let asked = reasons(cx);
    ensure!(
        asked.get(1) == Some(&AssignReason::Draining),
        "DLV-017, REG-011: Registration was asked for {asked:?}"
    );
    let trouble_with = cx.registration.known().asked[1].1.trouble_with;
    equal!(trouble_with, Some(cx.a.id), "REG-010: the server that there is trouble with");
    Ok(())
}

fn a_refusal_binds(cx: &mut Context) -> Checked {
    let refused = || Refused { code: code::BUSY, retry_after_ms: TOLD_MS, detail: "full".into() };
    cx.subject.start()?;
    cx.a.meet()?;
    let said = Instant::now();
    cx.a.link()?.send(refused());
    cx.a.expect_close("FRM-009: Refused before HelloAck")?;
    comes_back_in_time(cx, said, "FRM-009: Refused before HelloAck")?;
    cx.chunks(1)?;
    let said = Instant::now();
    cx.a.link()?.send(refused());
    cx.a.expect_close("FRM-009: Refused")?;
    comes_back_in_time(cx, said, "FRM-009: Refused")?;
    let asked = reasons(cx);
    let expected = vec![AssignReason::First, AssignReason::Refused, AssignReason::Refused];
    equal!(asked, expected, "REG-011: why Registration was asked");
    cx.chunks(1)
}

fn a_fenced_sensor_asks_nobody(cx: &mut Context) -> Checked {
    cx.online()?;
    let mut away = Duration::ZERO;
    for _ in 0..3 {
        let fenced = Refused { code: code::FENCED, retry_after_ms: 0, detail: "newer".into() };
        cx.a.link()?.send(fenced);
        let said = Instant::now();
        cx.a.expect_close("HEL-037: fenced")?;
        cx.a.welcome()?;
        away += said.elapsed();
    }
    // Each wait is drawn from a window that doubles: one may be short, three together are not.
    ensure!(away >= AWAY_LEAST, "HEL-037: fenced three times it was away for {away:?} in all");
    cx.chunks(1)?;
    equal!(reasons(cx), vec![AssignReason::First], "HEL-037: why Registration was asked");
    Ok(())
}

fn a_server_that_cannot_be_reached_is_given_up(cx: &mut Context) -> Checked {
    cx.online()?;
    // A server that stores is waited for from the first window on, whatever it was before.
    cx.chunks(1)?;
    cx.a.settle()?;
    cx.a.answers.acks[0] = false;
    cx.chunks(2)?;
    cx.a.settle()?;
    cx.assign_to_b();
    let lost = Instant::now();
    cx.a.cut();
    let mut attempts = 0;
    let asked = |cx: &Context| cx.registration.known().asked.get(1).cloned();
    let found = wait::attempt(RETURN, || {
        attempts += u64::from(cx.a.is_wanted_within(Duration::ZERO));
        asked(cx)
    });
    let (at, asked) = found.ok_or("REG-011: Registration is not asked")?;
    equal!(asked.reason, AssignReason::Unreachable, "REG-011: the reason");
    ensure!(attempts >= 2, "REG-011: Registration is asked after {attempts} failed attempts");
    let waited = at.saturating_duration_since(lost);
    ensure!(
        waited >= Duration::from_millis(4_900),
        "REG-011: Registration is asked {waited:?} after the session was lost"
    );
    cx.b.welcome()?;
    cx.b.pump("what nobody stored, at the other server", |station| station.came.len() >= 2)?;
    Ok(())
}

fn a_package_that_names_a_server(cx: &mut Context) -> Checked {
    let address = cx.a.address.to_string();
    cx.subject.set("LAPWING_DETECTION", Some(&address));
    cx.registration.known().is_mute = true;
    cx.online()?;
    cx.chunks(1)?;
    cx.a.settle()?;
    cx.subject.stop()?;
    cx.subject.set("LAPWING_REGISTRATION", None);
    cx.restart()?;
    cx.a.welcome()?;
    cx.chunks(1)
}

fn a_server_that_stores_nothing(cx: &mut Context) -> Checked {
    cx.a.answers.acks[0] = false;
    cx.online()?;
    cx.chunks(1)?;
    cx.assign_to_b();
    if !cx.a.is_left_within(Duration::from_secs(120))? {
        cx.weak("DLV-016: with a chunk in flight and no Ack it stays for more than 120 s");
        return Ok(());
    }
    let found = wait::attempt(RETURN, || cx.registration.known().asked.get(1).cloned());
    let (_, asked) = found.ok_or("DLV-016: Registration is not asked")?;
    equal!(asked.reason, AssignReason::NoProgress, "DLV-016, REG-011: the reason");
    cx.b.welcome()?;
    cx.b.pump("what nobody stored, at the other server", |station| !station.came.is_empty())?;
    Ok(())
}

fn a_server_that_does_not_greet_is_left(cx: &mut Context) -> Checked {
    cx.subject.start()?;
    cx.a.meet()?;
    let link = cx.a.link()?;
    if !link.is_closed_within(Duration::from_secs(25)) {
        cx.weak("HEL-011: without a HelloAck the connection is kept for more than 25 s");
    }
    Ok(())
}

fn a_silent_server_is_asked_and_left(cx: &mut Context) -> Checked {
    cx.online()?;
    cx.a.settle()?;
    let silent = Instant::now();
    let (mut asked, deadline) = (false, silent + Duration::from_secs(150));
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match cx.a.link()?.next_raw(left) {
            Got::Frame(frame) => asked |= frame.kind == 9,
            Got::Closed(_) => break,
            Got::Silence => return Err("FRM-010: silence for 150 s, and it does not close".into()),
        }
    }
    let kept = silent.elapsed();
    ensure!(kept >= Duration::from_secs(60), "LIM-061: it closes after {kept:?} of silence");
    if !asked {
        cx.weak("FRM-010: no Ping came in a silence of ninety seconds");
    }
    Ok(())
}

fn without_room_it_keeps_asking(cx: &mut Context) -> Checked {
    cx.registration.known().assignment = None;
    cx.subject.start()?;
    let first = wait::attempt(RETURN, || cx.registration.known().asked.first().cloned());
    let (_, first) = first.ok_or("REG-010: Registration is not asked")?;
    equal!(first.reason, AssignReason::First, "REG-010: the reason");
    cx.assign_to_a();
    let again = wait::attempt(2 * RETURN, || cx.registration.known().asked.get(1).cloned());
    if again.is_none() {
        return Err(Stop::Fail("REG-013: after all_full it is not asked again in 120 s".into()));
    }
    cx.a.welcome()?;
    cx.chunks(1)
}
