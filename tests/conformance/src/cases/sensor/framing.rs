//! Frames that a sensor must take, skip or close for.

use std::time::Duration;

use super::case;
use super::context::Context;
use crate::cases::{Case, Checked, ensure, equal};
use crate::play::link::{Got, QUIET};
use crate::wire::frame::{Frame, RESERVED, SKIPPABLE, head};
use crate::wire::message::{Ack, Call, Lane, Message, Ping};
use crate::wire::method::REPORT;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "nothing_comes_before_hello_ack",
        &["HEL-001", "HEL-002", "HEL-006", "FRM-006", "FRM-010", "VER-004", "VER-005", "HEL-004"],
        "The first frame is a Hello of a log for each lane; before HelloAck a Ping is answered and \
         nothing else comes.",
        nothing_comes_before_hello_ack,
    ),
    case(
        "an_unknown_kind_that_may_be_skipped_is_skipped",
        &["FRM-002", "FRM-007", "VER-003"],
        "A frame of an unknown kind with the flag changes nothing, however the bytes are cut.",
        a_skippable_kind_is_skipped,
    ),
    case(
        "an_unknown_kind_ends_the_session",
        &["FRM-002", "FRM-009"],
        "Without the flag the sensor closes, without a word.",
        an_unknown_kind_ends_the_session,
    ),
    case(
        "a_malformed_frame_ends_the_session",
        &["FRM-003", "FRM-004", "VER-003"],
        "Flags that mean nothing, bytes behind a message, too few of them, a variant that does not \
         exist: the sensor closes.",
        a_malformed_frame_ends_the_session,
    ),
    case(
        "an_oversize_frame_ends_the_session",
        &["FRM-005"],
        "A frame that is announced longer than the sensor takes ends the session before its body.",
        an_oversize_frame_ends_the_session,
    ),
    case(
        "a_server_that_takes_little_gets_no_more",
        &["FRM-006", "HEL-007"],
        "To a server that takes 600 bytes a sensor sends no longer frame; it closes where its \
         chunks are larger.",
        a_server_that_takes_little_gets_no_more,
    ),
    case(
        "a_message_out_of_place_ends_the_session",
        &["FRM-008"],
        "Hello, Chunk and Auth never come from a server, a second HelloAck answers nothing: the \
         sensor closes.",
        a_message_out_of_place_ends_the_session,
    ),
    case(
        "a_report_is_answered_and_other_calls_are_not_served",
        &["CAL-001", "CAL-002", "CAL-006"],
        "A sensor answers `report`, and `unsupported` to any other method.",
        a_report_is_answered,
    ),
];

fn nothing_comes_before_hello_ack(cx: &mut Context) -> Checked {
    cx.subject.start()?;
    cx.a.meet()?;
    cx.subject.event(5);
    cx.a.settle()?;
    ensure!(cx.a.came.is_empty(), "HEL-001: {:?} came before HelloAck", cx.a.came);
    cx.a.greet(&[])?;
    cx.chunks(1)
}

fn a_skippable_kind_is_skipped(cx: &mut Context) -> Checked {
    cx.subject.start()?;
    cx.a.meet()?;
    let unknown = Frame { kind: 0xabc, flags: SKIPPABLE, body: vec![0xff; 400] };
    let ack = cx.a.hello_ack(&[])?;
    let mut bytes = unknown.to_bytes();
    bytes.extend(Message::from(ack).frame().to_bytes());
    bytes.extend(unknown.to_bytes());
    for piece in bytes.chunks(7) {
        cx.a.link()?.send_bytes(piece);
    }
    cx.chunks(2)?;
    // On a known kind the flag means nothing.
    let frame = Frame { flags: SKIPPABLE, ..Message::from(Ping { nonce: 77 }).frame() };
    cx.a.link()?.send_frame(&frame);
    cx.a.settle()?;
    Ok(())
}

fn an_unknown_kind_ends_the_session(cx: &mut Context) -> Checked {
    cx.online()?;
    cx.a.link()?.send_frame(&Frame::new(0xabc, vec![1, 2, 3]));
    cx.a.expect_close("FRM-002: an unknown kind")?;
    cx.a.welcome()?;
    Ok(())
}

fn a_malformed_frame_ends_the_session(cx: &mut Context) -> Checked {
    let ping = || Message::from(Ping { nonce: 7 }).frame();
    let mut trailing = ping();
    trailing.body.push(0);
    // Resync of the lane 0 at 1, for reason 9.
    let mut wrong = vec![
        ("bytes behind a Ping", trailing),
        ("a Ping without a nonce", Frame::new(9, Vec::new())),
        ("a Resync for a reason that does not exist", Frame::new(7, vec![0, 1, 9])),
    ];
    for flag in RESERVED {
        wrong.push(("a flag that means nothing", Frame { flags: flag, ..ping() }));
    }
    cx.subject.start()?;
    for (what, frame) in wrong {
        cx.a.welcome()?;
        cx.a.settle()?;
        cx.a.link()?.send_frame(&frame);
        cx.a.expect_close(&format!("FRM-003, FRM-004: {what}"))?;
        // So that the next one need not wait for it.
        cx.restart()?;
    }
    Ok(())
}

fn an_oversize_frame_ends_the_session(cx: &mut Context) -> Checked {
    cx.online()?;
    cx.a.settle()?;
    let takes = cx.a.hello.as_ref().map_or(0, |hello| hello.receive_bytes_max);
    let Ok(length) = u16::try_from(takes - 3) else {
        return Err(crate::cases::Stop::Skip(format!(
            "the sensor takes {takes} bytes: no frame can be announced that is longer"
        )));
    };
    cx.a.link()?.send_bytes(&head(length, 9 | SKIPPABLE));
    cx.a.expect_close("FRM-005: a frame longer than receive_bytes_max")?;
    Ok(())
}

fn a_server_that_takes_little_gets_no_more(cx: &mut Context) -> Checked {
    cx.a.answers.receive_bytes_max = 600;
    cx.subject.start()?;
    cx.a.meet()?;
    cx.a.greet(&[])?;
    for _ in 0..10 {
        cx.subject.event(50);
    }
    match cx.a.pump_for(Duration::from_secs(3), |_| false) {
        Err(error) if !error.starts_with("the sensor closed") => Err(error.into()),
        _ => Ok(()),
    }
}

fn a_message_out_of_place_ends_the_session(cx: &mut Context) -> Checked {
    cx.subject.start()?;
    for what in ["Hello", "Chunk", "Auth", "HelloAck", "Ack before HelloAck"] {
        cx.a.meet()?;
        let hello = cx.a.hello.clone().ok_or("no Hello")?;
        let ack = cx.a.hello_ack(&[])?;
        let early = what == "Ack before HelloAck";
        if !early {
            cx.a.link()?.send(ack.clone());
            cx.a.settle()?;
        }
        let frame = match what {
            "Hello" => Message::from(hello).frame(),
            "Chunk" => Frame::new(3, vec![0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            "Auth" => Frame::new(16, vec![0; 48]),
            "HelloAck" => Message::from(ack).frame(),
            _ => {
                let credit = crate::play::station::AMPLE;
                let ack = Ack { lane: Lane::Bulk, stored_seq: 0, safe_seq: 0, credit };
                Message::from(ack).frame()
            }
        };
        cx.a.link()?.send_frame(&frame);
        cx.a.expect_close(&format!("FRM-008: {what}"))?;
        cx.restart()?;
    }
    Ok(())
}

fn a_report_is_answered(cx: &mut Context) -> Checked {
    cx.online()?;
    cx.chunks(2)?;
    for (call, method) in [(1, REPORT), (2, 4_711)] {
        cx.a.link()?.send(Call { call, method, body: Vec::new() });
        cx.a.pump(&format!("CAL-001: an answer to call {call}"), |station| {
            station.replies.iter().any(|reply| reply.call == call && !reply.more)
        })?;
    }
    let code = |cx: &Context, call| {
        cx.a.replies.iter().find(|reply| reply.call == call).map(|reply| reply.code)
    };
    equal!(code(cx, 1), Some(0), "CAL-006: the code of the report");
    equal!(
        code(cx, 2),
        Some(crate::wire::code::UNSUPPORTED),
        "CAL-006: the code of a method that a sensor does not serve"
    );
    // And the session goes on.
    cx.chunks(1)?;
    match cx.a.link()?.next(QUIET) {
        Got::Closed(how) => Err(format!("CAL-006: the sensor closed: {how}").into()),
        Got::Frame(_) | Got::Silence => Ok(()),
    }
}
