//! Commands on their way to a sensor. They are given to the console with a lent certificate of the
//! role `fleet`.

use super::case;
use super::context::Context;
use super::steps::quiet;
use crate::cases::{Case, Checked, Stop, ensure, equal};
use crate::play::link::Link;
use crate::play::sensor::{Sensor, call, greet};
use crate::wire::code;
use crate::wire::message::{Action, Command, CommandNumber, Hello, Lane, Memory, Message};
use crate::wire::method::{COMMAND, CommandPut};
use crate::wire::primitive::Wire as _;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "a_command_at_or_below_the_accepted_is_not_sent",
        &["CMD-003"],
        "What the sensor accepted is not sent again; what is above it is.",
        a_command_at_or_below_the_accepted_is_not_sent,
    ),
    case(
        "a_command_is_sent_once_in_a_session",
        &["CMD-003", "CMD-007", "HEL-003"],
        "A command is sent once; one that was turned away comes after the next Hello.",
        a_command_is_sent_once_in_a_session,
    ),
    case(
        "a_sensor_without_memory_gets_a_command_once",
        &["CMD-004"],
        "To a sensor that remembers no number nothing is sent a second time.",
        a_sensor_without_memory_gets_a_command_once,
    ),
    case(
        "an_expired_command_is_not_sent",
        &["CMD-005"],
        "A command whose time is over is not sent; what is left of the time goes with one that is.",
        an_expired_command_is_not_sent,
    ),
    case(
        "the_queue_is_bounded_and_in_order",
        &["CON-005"],
        "The last number again is answered as queued, a lower one is stale, the 65th is busy.",
        the_queue_is_bounded_and_in_order,
    ),
];

/// A console of the role `fleet`.
pub(super) fn fleet(cx: &Context<'_>) -> Result<Link, Stop> {
    cx.console("fleet")
}

/// Queues a command; the code of the answer.
pub(super) fn put(
    console: &mut Link,
    sensor: &Sensor,
    seq: u64,
    expires_ms: u64,
) -> Result<String, Stop> {
    let number = CommandNumber { issuer: 1, seq };
    let asked =
        CommandPut { sensor: sensor.id, number, expires_ms, action: Action::StartCollection };
    let (code, _) = call(console, u32::try_from(seq).unwrap_or(0), COMMAND, &asked.to_bytes())?;
    Ok(code::name(code))
}

fn command(link: &mut Link) -> Result<Command, String> {
    link.wait_for("a Command", |message| match message {
        Message::Command(command) => Some(command.clone()),
        _ => None,
    })
}

/// Later than any case.
pub(super) const LATER_MS: u64 = 4_000_000_000_000;

/// A session that remembers having accepted `seq`, with both lanes.
fn session(
    cx: &mut Context<'_>,
    sensor: &Sensor,
    last: Option<u64>,
    memory: Memory,
) -> Result<(Link, u64), Stop> {
    let bulk = sensor.log(Lane::Bulk, cx.id());
    let urgent = sensor.log(Lane::Urgent, cx.id());
    let mut link = cx.connect(sensor)?;
    let last_command = last.map(|seq| CommandNumber { issuer: 1, seq });
    let hello = Hello { last_command, memory, ..sensor.hello(&[&bulk, &urgent]) };
    let ack = greet(&mut link, hello)?;
    Ok((link, ack.server_ms))
}

fn no_command(link: &mut Link, what: &str) -> Checked {
    quiet(link, what, |message| !matches!(message, Message::Command(_)))
}

fn a_command_at_or_below_the_accepted_is_not_sent(cx: &mut Context<'_>) -> Checked {
    let mut console = fleet(cx)?;
    let sensor = cx.sensor()?;
    let (mut link, _) = session(cx, &sensor, None, Memory::Disk)?;
    for seq in 1..=3 {
        equal!(put(&mut console, &sensor, seq, LATER_MS)?, "ok", "CON-005: command {seq}");
        let sent = command(&mut link)?;
        equal!(sent.number.seq, seq, "CMD-003: what is sent");
        equal!(sent.action, Action::StartCollection, "CMD-003: its action");
    }
    link.cut();
    let (mut link, _) = session(cx, &sensor, Some(2), Memory::Disk)?;
    equal!(command(&mut link)?.number.seq, 3, "CMD-003: above 2");
    no_command(&mut link, "CMD-003: at or below 2, or twice")?;
    link.cut();
    let (mut link, _) = session(cx, &sensor, Some(3), Memory::Disk)?;
    no_command(&mut link, "CMD-003: at or below 3")
}

fn a_command_is_sent_once_in_a_session(cx: &mut Context<'_>) -> Checked {
    let mut console = fleet(cx)?;
    let sensor = cx.sensor()?;
    let (mut link, _) = session(cx, &sensor, None, Memory::Disk)?;
    equal!(put(&mut console, &sensor, 1, LATER_MS)?, "ok", "CON-005: command 1");
    equal!(command(&mut link)?.number.seq, 1, "CMD-003: what is sent");
    no_command(&mut link, "CMD-003: the same again")?;
    // It was turned away: the next Hello does not name it.
    let log = sensor.log(Lane::Bulk, cx.id());
    greet(&mut link, sensor.hello(&[&log]))?;
    equal!(command(&mut link)?.number.seq, 1, "CMD-007: what was turned away comes again");
    Ok(())
}

fn a_sensor_without_memory_gets_a_command_once(cx: &mut Context<'_>) -> Checked {
    let mut console = fleet(cx)?;
    let sensor = cx.sensor()?;
    let (link, _) = session(cx, &sensor, None, Memory::RamOnly)?;
    link.cut();
    equal!(put(&mut console, &sensor, 1, LATER_MS)?, "ok", "CON-005: command 1");
    let (mut link, _) = session(cx, &sensor, None, Memory::RamOnly)?;
    equal!(command(&mut link)?.number.seq, 1, "CMD-004: once");
    link.cut();
    let (mut link, _) = session(cx, &sensor, None, Memory::RamOnly)?;
    no_command(&mut link, "CMD-004: a second time")
}

fn an_expired_command_is_not_sent(cx: &mut Context<'_>) -> Checked {
    let mut console = fleet(cx)?;
    let sensor = cx.sensor()?;
    let (mut link, now_ms) = session(cx, &sensor, None, Memory::Disk)?;
    put(&mut console, &sensor, 1, now_ms - 60_000)?;
    no_command(&mut link, "CMD-005: a command that expired a minute ago")?;
    equal!(put(&mut console, &sensor, 2, now_ms + 60_000)?, "ok", "CON-005: command 2");
    let sent = command(&mut link)?;
    equal!(sent.number.seq, 2, "CMD-005: what is sent");
    ensure!(
        (1..=61_000).contains(&sent.expires_after_ms),
        "CMD-005: {} ms are left of 60,000",
        sent.expires_after_ms
    );
    Ok(())
}

fn the_queue_is_bounded_and_in_order(cx: &mut Context<'_>) -> Checked {
    let mut console = fleet(cx)?;
    let sensor = cx.sensor()?;
    let (link, _) = session(cx, &sensor, None, Memory::Disk)?;
    link.cut();
    for seq in 1..=64 {
        equal!(put(&mut console, &sensor, seq, LATER_MS)?, "ok", "CON-005: command {seq}");
    }
    equal!(put(&mut console, &sensor, 64, LATER_MS)?, "ok", "CON-005: the last one again");
    equal!(put(&mut console, &sensor, 63, LATER_MS)?, "stale_command", "CON-005: a lower one");
    equal!(put(&mut console, &sensor, 65, LATER_MS)?, "busy", "CON-005: the 65th");
    Ok(())
}
