//! Framing: heads, flags, lengths, unknown kinds, how the stream is cut, Pings.

use std::time::Duration;

use super::context::Context;
use super::steps::{closes, quiet, refused, store};
use super::{case, in_phase};
use crate::cases::{Case, Checked, Phase, ensure, equal};
use crate::play::link::{Got, Link};
use crate::play::sensor::{Sensor, acked, call, greet};
use crate::wire::code;
use crate::wire::frame::{Frame, RESERVED, SKIPPABLE, head};
use crate::wire::message::{Call, Hello, Jump, JumpCause, Lane, LossReason, Message, Ping, Pong};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "ping_is_answered_before_hello",
        &["FRM-010", "HEL-001"],
        "A Ping may come before Hello, and its nonce comes back.",
        ping_is_answered_before_hello,
    ),
    case(
        "ping_is_answered_in_a_session",
        &["FRM-010", "FRM-002"],
        "A Ping in a session is answered; the flag to skip means nothing on a known kind.",
        ping_is_answered_in_a_session,
    ),
    case(
        "who_says_much_loses_nothing_by_it",
        &["FRM-016"],
        "Of hundreds of Pings in one piece each is answered, however slowly; then facts are taken.",
        who_says_much_loses_nothing,
    ),
    in_phase(
        case(
            "a_silent_sensor_is_pinged_and_given_up",
            &["FRM-010", "LIM-060", "LIM-061"],
            "After 30 s of silence a Ping should come; after 90 s the server closes.",
            a_silent_sensor_is_pinged_and_given_up,
        ),
        Phase::Slow,
    ),
    case(
        "a_skippable_unknown_kind_is_skipped",
        &["FRM-002", "VER-003"],
        "A frame of an unknown kind that may be skipped changes nothing.",
        a_skippable_unknown_kind_is_skipped,
    ),
    case(
        "an_unknown_kind_is_refused",
        &["FRM-002", "FRM-009"],
        "A frame of an unknown kind without the flag is refused, and Refused is the last frame.",
        an_unknown_kind_is_refused,
    ),
    case(
        "a_reserved_flag_is_refused",
        &["FRM-003"],
        "Each of the flags without meaning closes the connection.",
        a_reserved_flag_is_refused,
    ),
    case(
        "trailing_bytes_are_refused",
        &["FRM-004"],
        "A message with a byte behind it is malformed, whatever its kind.",
        trailing_bytes_are_refused,
    ),
    case(
        "a_message_cut_short_is_refused",
        &["FRM-004", "LIM-001"],
        "A message that ends too soon is malformed, whatever its kind.",
        a_message_cut_short_is_refused,
    ),
    case(
        "a_frame_beyond_the_bound_is_refused_by_its_head",
        &["FRM-005", "LIM-002", "LIM-003"],
        "A frame that is announced as too long closes, before any of its body came.",
        a_frame_beyond_the_bound_is_refused_by_its_head,
    ),
    case(
        "a_frame_at_the_bound_is_taken",
        &["FRM-001", "FRM-005"],
        "A frame exactly as long as the server said is taken.",
        a_frame_at_the_bound_is_taken,
    ),
    case(
        "the_enrol_plane_takes_4096_bytes",
        &["FRM-005", "LIM-004"],
        "On the enrol plane a longer frame closes, and one of that length is read.",
        the_enrol_plane_takes_4096_bytes,
    ),
    case(
        "a_small_receiver_gets_small_frames",
        &["FRM-006", "LIM-005", "HEL-006"],
        "To a sensor that takes 512 bytes no longer frame is sent.",
        a_small_receiver_gets_small_frames,
    ),
    case(
        "the_cut_of_the_stream_does_not_matter",
        &["FRM-007", "FRM-001"],
        "The same session, byte by byte and in one piece, comes to the same.",
        the_cut_of_the_stream_does_not_matter,
    ),
    case(
        "a_message_out_of_place_is_refused",
        &["FRM-008", "PLN-008", "HEL-001"],
        "What a server alone may send, and Auth, is refused from a sensor.",
        a_message_out_of_place_is_refused,
    ),
    case(
        "what_the_server_sends_is_sound_and_shortest",
        &["FRM-011", "FRM-003", "VER-003", "VER-005"],
        "Every frame of the server is of version 1, with varints in their shortest form.",
        what_the_server_sends_is_sound_and_shortest,
    ),
];

fn ping_is_answered_before_hello(cx: &mut Context<'_>) -> Checked {
    let sensor = cx.sensor()?;
    let mut link = cx.connect(&sensor)?;
    for nonce in [0, 7, u64::MAX] {
        link.send(Ping { nonce });
        equal!(pong(&mut link)?, nonce, "FRM-010: the nonce of the Pong");
    }
    let log = sensor.log(Lane::Bulk, cx.id());
    greet(&mut link, sensor.hello(&[&log]))?;
    Ok(())
}

fn pong(link: &mut Link) -> Result<u64, String> {
    link.wait_for("a Pong", |message| match message {
        Message::Pong(pong) => Some(pong.nonce),
        _ => None,
    })
}

fn who_says_much_loses_nothing(cx: &mut Context<'_>) -> Checked {
    let (_sensor, mut log, mut link, _) = cx.bulk()?;
    let pings: Vec<u8> =
        (1..=300).flat_map(|nonce| Message::from(Ping { nonce }).frame().to_bytes()).collect();
    link.send_bytes(&pings);
    for nonce in 1..=300 {
        equal!(pong(&mut link)?, nonce, "FRM-016: the Pong that is next");
    }
    store(&mut link, &[log.fact()])?;
    Ok(())
}

fn ping_is_answered_in_a_session(cx: &mut Context<'_>) -> Checked {
    let (_sensor, _log, mut link, _) = cx.bulk()?;
    let mut ping = Message::from(Ping { nonce: 99 }).frame();
    ping.flags = SKIPPABLE;
    link.send_frame(&ping);
    equal!(pong(&mut link)?, 99, "FRM-002: a known kind that may be skipped");
    Ok(())
}

fn a_silent_sensor_is_pinged_and_given_up(cx: &mut Context<'_>) -> Checked {
    let (_sensor, _log, mut link, _) = cx.bulk()?;
    let mut pinged = false;
    loop {
        match link.next_raw(Duration::from_secs(100)) {
            Got::Frame(frame) => match Message::decode(&frame) {
                Ok(Some(Message::Ping(_))) => pinged = true,
                Ok(Some(Message::Call(_))) => {} // silence is no answer either
                Ok(Some(Message::Refused(refused))) => {
                    equal!(code::name(refused.code), "idle", "FRM-010: the code of the close");
                }
                other => ensure!(false, "nothing but Ping was to come: {other:?}"),
            },
            Got::Closed(_) => break,
            Got::Silence => ensure!(false, "FRM-010: after 100 s of silence it is still open"),
        }
    }
    if !pinged {
        cx.weak("FRM-010: no Ping came to a silent sensor");
    }
    Ok(())
}

fn a_skippable_unknown_kind_is_skipped(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log) = cx.sensor_with(Lane::Bulk)?;
    let mut link = cx.connect(&sensor)?;
    let odd = |kind, length| Frame { kind, flags: SKIPPABLE, body: vec![0xa5; length] };
    link.send_frame(&odd(17, 0));
    greet(&mut link, sensor.hello(&[&log]))?;
    for frame in [odd(17, 300), odd(0xfff, 0), odd(0, 9), odd(2_000, 4_000)] {
        link.send_frame(&frame);
    }
    quiet(&mut link, "FRM-002: an unknown kind that may be skipped", |_| false)?;
    store(&mut link, &[log.fact()])?;
    Ok(())
}

fn an_unknown_kind_is_refused(cx: &mut Context<'_>) -> Checked {
    for kind in [0, 17, 0x800, 0xfff] {
        let (_sensor, _log, mut link, _) = cx.bulk()?;
        link.send_frame(&Frame::new(kind, vec![1, 2, 3]));
        refused(cx, &mut link, code::UNKNOWN_KIND, &format!("FRM-002: kind {kind}"))?;
    }
    Ok(())
}

fn a_reserved_flag_is_refused(cx: &mut Context<'_>) -> Checked {
    for flags in RESERVED.into_iter().chain([SKIPPABLE | RESERVED[1], 0x7000]) {
        let (_sensor, _log, mut link, _) = cx.bulk()?;
        let mut ping = Message::from(Ping { nonce: 1 }).frame();
        ping.flags = flags;
        link.send_frame(&ping);
        refused(cx, &mut link, code::MALFORMED, &format!("FRM-003: flags {flags:#06x}"))?;
    }
    Ok(())
}

/// One sound message of each kind that a sensor sends, for a log that stands at its start.
fn sound(cx: &mut Context<'_>, sensor: &Sensor) -> Vec<(&'static str, Message)> {
    let mut log = sensor.log(Lane::Bulk, cx.id());
    let hello: Hello = sensor.hello(&[&log]);
    let mut jumped = log.clone();
    let jump: Jump = jumped.jump(2, 2, JumpCause::Lost(LossReason::MemoryLost));
    let chunk = log.fact();
    vec![
        ("Hello", hello.into()),
        ("Chunk", chunk.into()),
        ("Jump", jump.into()),
        ("ChainMark", log.mark().into()),
        ("Ping", Ping { nonce: 5 }.into()),
        ("Pong", Pong { nonce: 5 }.into()),
        ("Call", Call { call: 1, method: 3, body: vec![1, 2] }.into()),
    ]
}

fn changed(cx: &mut Context<'_>, what: &str, change: impl Fn(&mut Vec<u8>)) -> Checked {
    let sensor = cx.sensor()?;
    for (name, message) in sound(cx, &sensor) {
        let log = sensor.log(Lane::Bulk, cx.id());
        let (mut link, _) = cx.session(&sensor, &[&log])?;
        let mut frame = message.frame();
        change(&mut frame.body);
        link.send_frame(&frame);
        refused(cx, &mut link, code::MALFORMED, &format!("FRM-004: {name} with {what}"))?;
    }
    Ok(())
}

fn trailing_bytes_are_refused(cx: &mut Context<'_>) -> Checked {
    changed(cx, "a byte behind it", |body| body.push(0))
}

fn a_message_cut_short_is_refused(cx: &mut Context<'_>) -> Checked {
    changed(cx, "its last byte cut", |body| {
        body.pop();
    })?;
    changed(cx, "no bytes at all", Vec::clear)
}

fn a_frame_beyond_the_bound_is_refused_by_its_head(cx: &mut Context<'_>) -> Checked {
    let (sensor, log, link, ack) = cx.bulk()?;
    link.cut();
    let bound = u16::try_from(ack.receive_bytes_max.min(65_535)).unwrap_or(u16::MAX);
    // The bound is of the whole frame; the length is of the body.
    let lengths = [bound - 3, u16::MAX].into_iter().filter(|length| *length > bound - 4);
    for length in lengths {
        for kind in [3, 17 | SKIPPABLE] {
            let (mut link, _) = cx.session(&sensor, &[&log])?;
            link.send_bytes(&head(length, kind));
            let what = format!("FRM-005: {length} bytes are announced where {bound} is the bound");
            refused(cx, &mut link, code::TOO_LARGE, &what)?;
        }
    }
    Ok(())
}

fn a_frame_at_the_bound_is_taken(cx: &mut Context<'_>) -> Checked {
    let (_sensor, mut log, mut link, ack) = cx.bulk()?;
    let length = usize::try_from(ack.receive_bytes_max).unwrap_or(0).min(65_535) - 4;
    link.send_frame(&Frame { kind: 17, flags: SKIPPABLE, body: vec![0; length] });
    quiet(&mut link, "FRM-005: a frame as long as the bound", |_| false)?;
    store(&mut link, &[log.fact()])?;
    Ok(())
}

fn the_enrol_plane_takes_4096_bytes(cx: &mut Context<'_>) -> Checked {
    let mut link = super::planes::enrol_link(cx)?;
    let fits = vec![0; 4_092];
    link.send_frame(&Frame { kind: 17, flags: SKIPPABLE, body: fits });
    link.send(Ping { nonce: 1 });
    equal!(pong(&mut link)?, 1, "LIM-004: a frame of 4,096 bytes on the enrol plane");
    link.send_bytes(&head(4_093, 17 | SKIPPABLE));
    refused(cx, &mut link, code::TOO_LARGE, "LIM-004: 4,097 bytes on the enrol plane")
}

fn a_small_receiver_gets_small_frames(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut bulk) = cx.sensor_with(Lane::Bulk)?;
    let mut urgent = sensor.log(Lane::Urgent, cx.id());
    let mut link = cx.connect(&sensor)?;
    let hello = Hello { receive_bytes_max: 512, ..sensor.hello(&[&bulk, &urgent]) };
    link.send(hello);
    for chunk in [bulk.fact(), urgent.fact()] {
        // Sent at once: what comes back is looked at by its length alone.
        link.send(chunk);
    }
    link.send(Call { call: 1, method: 3, body: Vec::new() });
    let mut acks = 0;
    while acks < 2 {
        match link.next_raw(crate::play::link::PATIENCE) {
            Got::Frame(frame) => {
                let length = frame.body.len() + 4;
                ensure!(length <= 512, "FRM-006: kind {} has {length} bytes", frame.kind);
                acks += usize::from(frame.kind == 4);
                ensure!(frame.kind != 12, "LIM-005: 512 bytes are enough for a Hello");
            }
            other => ensure!(false, "two Acks were to come, but: {other:?}"),
        }
    }
    Ok(())
}

fn the_cut_of_the_stream_does_not_matter(cx: &mut Context<'_>) -> Checked {
    let mut seen = Vec::new();
    for piece in [1, 7, usize::MAX] {
        let (sensor, mut log) = cx.sensor_with(Lane::Bulk)?;
        let mut link = cx.connect(&sensor)?;
        let mut bytes = Message::from(sensor.hello(&[&log])).frame().to_bytes();
        for chunk in [log.keyframe(), log.put(1, "ssh", "active"), log.delta()] {
            bytes.extend(Message::from(chunk).frame().to_bytes());
        }
        bytes.extend(Message::from(log.mark()).frame().to_bytes());
        for part in bytes.chunks(piece.min(bytes.len())) {
            link.send_bytes(part);
        }
        let ack = acked(&mut link, Lane::Bulk, 3)?;
        drop(link);
        let (_link, hello) = cx.session(&sensor, &[&log])?;
        seen.push((ack.stored_seq, hello.logs[0].next_seq, hello.logs[0].next_index));
    }
    ensure!(seen.iter().all(|one| *one == (3, 4, 3)), "FRM-007: pieces of 1, 7, all: {seen:?}");
    Ok(())
}

fn a_message_out_of_place_is_refused(cx: &mut Context<'_>) -> Checked {
    let sensor = cx.sensor()?;
    let ends: [(u16, Vec<u8>); 8] = [
        (4, vec![0, 0, 0, 0, 0]),
        (5, vec![0, 1, 1, 0, 0]),
        (7, vec![0, 1, 0]),
        (11, vec![0]),
        (12, vec![1, 0, 0]),
        (13, vec![1, 1, 10, 0]),
        (16, vec![0; 48]),
        (2, super::hello::hello_ack_bytes()),
    ];
    for greeted in [false, true] {
        for (kind, body) in &ends {
            let mut link = cx.connect(&sensor)?;
            if greeted {
                let log = sensor.log(Lane::Bulk, cx.id());
                greet(&mut link, sensor.hello(&[&log]))?;
            }
            link.send_frame(&Frame::new(*kind, body.clone()));
            let what = format!("FRM-008: kind {kind} of a sensor, after Hello: {greeted}");
            refused(cx, &mut link, code::OUT_OF_PLACE, &what)?;
        }
    }
    Ok(())
}

fn what_the_server_sends_is_sound_and_shortest(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log) = cx.sensor_with(Lane::Bulk)?;
    let mut link = cx.connect(&sensor)?;
    link.send(sensor.hello(&[&log]));
    link.send(log.fact());
    let mut ahead = log.clone();
    ahead.fact();
    link.send(ahead.fact()); // out of order: a Nack
    link.send(Call { call: 9, method: 4_000, body: Vec::new() });
    link.send(Ping { nonce: 3 });
    let mut kinds = std::collections::BTreeSet::new();
    // HelloAck, Ack, Nack, Pong, Reply.
    while ![2, 4, 5, 10, 15].iter().all(|kind| kinds.contains(kind)) {
        match link.next_raw(crate::play::link::PATIENCE) {
            Got::Frame(frame) => {
                equal!(frame.flags & 0x7000, 0, "FRM-003: flags of kind {}", frame.kind);
                let message = Message::decode(&frame)
                    .map_err(|error| format!("VER-003: kind {}: {error}", frame.kind))?;
                let Some(message) = message else {
                    ensure!(frame.flags == SKIPPABLE, "VER-003: kind {} is new", frame.kind);
                    continue;
                };
                equal!(message.frame().body, frame.body, "FRM-011: the bytes of {message:?}");
                kinds.insert(frame.kind);
            }
            other => ensure!(false, "HelloAck, Ack, Nack, Pong and Reply were to come: {other:?}"),
        }
    }
    let (code, _) = call(&mut link, 11, 4_000, &[])?;
    equal!(code, code::UNSUPPORTED, "a call that no server knows");
    drop(link);
    let mut closed = cx.connect(&sensor)?;
    closed.send_bytes(&[0; 4]);
    closes(&mut closed, "kind 0")
}
