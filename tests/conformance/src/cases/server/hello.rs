//! Versions and Hello.
//!
//! Not here: the rows of the decision table (`rows.rs`).

use super::case;
use super::context::Context;
use super::steps::{quiet, refused, store};
use crate::cases::{Case, Checked, ensure, equal};
use crate::play::sensor::{acked, grant, greet};
use crate::wire::code;
use crate::wire::message::{
    Hello, HelloAck, JumpCause, Lane, LogCause, LogHead, LossReason, Message,
};
use crate::wire::primitive::{Wire as _, Writer};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "the_version_is_within_the_range",
        &["VER-004"],
        "The answer is version 1 where the range holds it; else the refusal is `version`.",
        the_version_is_within_the_range,
    ),
    case(
        "unknown_capabilities_are_ignored",
        &["VER-005", "LIM-041"],
        "Sixteen unknown capabilities change nothing; a seventeenth is malformed.",
        unknown_capabilities_are_ignored,
    ),
    case(
        "hello_comes_first",
        &["HEL-001", "FRM-008"],
        "Whatever but Ping and Pong comes before Hello is out of place.",
        hello_comes_first,
    ),
    case(
        "each_hello_is_answered_once",
        &["HEL-001", "HEL-003", "DLV-008"],
        "Each Hello of a session has one HelloAck, and credit and episodes begin anew.",
        each_hello_is_answered_once,
    ),
    case(
        "one_log_for_each_lane",
        &["HEL-002", "LIM-040"],
        "A Hello with two logs of a lane, or three logs, is malformed.",
        one_log_for_each_lane,
    ),
    case(
        "a_log_that_is_no_more_named_is_not_acknowledged",
        &["HEL-003", "DLV-005", "DLV-011"],
        "After a second Hello chunks are of the log it names, and so are Acks.",
        a_log_that_is_no_more_named_is_not_acknowledged,
    ),
    case(
        "a_lane_that_is_not_named_takes_nothing",
        &["HEL-002", "LOG-001", "FRM-008", "HEL-010"],
        "What comes on a lane that the Hello did not name is out of place, known as its log may be.",
        a_lane_that_is_not_named_takes_nothing,
    ),
    case(
        "an_impossible_head_is_malformed",
        &["HEL-004"],
        "A head whose numbers cannot be is malformed.",
        an_impossible_head_is_malformed,
    ),
    case(
        "hello_texts_are_bounded",
        &["HEL-006", "LIM-005", "LIM-043"],
        "Texts of 255 bytes are taken; longer ones, control characters and 511 bytes are not.",
        hello_texts_are_bounded,
    ),
    case(
        "a_list_that_does_not_decode_is_malformed",
        &["FRM-012"],
        "A run that does not decode, in `elsewhere`, makes the Hello malformed.",
        a_list_that_does_not_decode_is_malformed,
    ),
    case(
        "what_cannot_be_read_is_malformed",
        &["VER-003", "FRM-004", "FRM-011"],
        "A variant that is not known, a flag of 2, text that is none, a number that does not fit.",
        what_cannot_be_read_is_malformed,
    ),
    case(
        "the_grant_is_whole",
        &["HEL-007", "LOG-009", "DLV-008", "CHN-001", "HEL-040"],
        "A grant names lane and log, the start of the chain, and credit for a largest chunk.",
        the_grant_is_whole,
    ),
    case(
        "what_hello_ack_says_stays_said",
        &["HEL-008", "DLV-003"],
        "What was in flight when a connection was cut is stored or asked for again, never less \
         than was said.",
        what_hello_ack_says_stays_said,
    ),
    case(
        "the_newest_session_fences_the_others",
        &["HEL-009", "HEL-037"],
        "A newer session has a higher number, the older is told `fenced`, and nothing of it is \
         taken any more.",
        the_newest_session_fences_the_others,
    ),
];

/// Bytes of a HelloAck, for whoever may not send one.
pub(super) fn hello_ack_bytes() -> Vec<u8> {
    HelloAck {
        version: 1,
        capabilities: Vec::new(),
        server: [0; 16],
        name: "s".into(),
        session_epoch: 1,
        server_ms: 1,
        receive_bytes_max: 16_640,
        rows_max: 1,
        logs: Vec::new(),
    }
    .to_bytes()
}

fn the_version_is_within_the_range(cx: &mut Context<'_>) -> Checked {
    let (sensor, log) = cx.sensor_with(Lane::Bulk)?;
    for (version_min, version_max) in [(1, 1), (0, 1), (1, 900), (0, u16::MAX)] {
        let mut link = cx.connect(&sensor)?;
        let hello = Hello { version_min, version_max, ..sensor.hello(&[&log]) };
        let ack = greet(&mut link, hello)?;
        equal!(ack.version, 1, "VER-004: the version for {version_min} to {version_max}");
    }
    for (version_min, version_max) in [(2, 9), (0, 0), (u16::MAX, u16::MAX), (2, 1)] {
        let mut link = cx.connect(&sensor)?;
        link.send(Hello { version_min, version_max, ..sensor.hello(&[&log]) });
        let what = format!("VER-004: versions {version_min} to {version_max}");
        refused(cx, &mut link, code::VERSION, &what)?;
    }
    Ok(())
}

fn unknown_capabilities_are_ignored(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log) = cx.sensor_with(Lane::Bulk)?;
    let mut link = cx.connect(&sensor)?;
    let hello = |count: u16| Hello {
        capabilities: (0..count).map(|number| 60_000 + number).collect(),
        ..sensor.hello(&[&sensor.log(Lane::Bulk, log.log)])
    };
    let ack = greet(&mut link, hello(16))?;
    let told = ack.capabilities;
    let is_ours = told.iter().any(|number| *number >= 60_000);
    ensure!(told.len() <= 16 && !is_ours, "VER-005: these are listed: {told:?}");
    let mut link = cx.connect(&sensor)?;
    link.send(hello(17));
    refused(cx, &mut link, code::MALFORMED, "LIM-041: seventeen capabilities")?;
    let (mut link, _) = cx.session(&sensor, &[&log])?;
    store(&mut link, &[log.fact()])?;
    Ok(())
}

fn hello_comes_first(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log) = cx.sensor_with(Lane::Bulk)?;
    let jump = log.clone().jump(1, 1, JumpCause::Lost(LossReason::MemoryLost));
    let early: [Message; 5] = [
        log.fact().into(),
        jump.into(),
        log.mark().into(),
        crate::wire::message::Call { call: 1, method: 3, body: Vec::new() }.into(),
        crate::wire::message::Reply { call: 1, more: false, code: 0, body: Vec::new() }.into(),
    ];
    for message in early {
        let mut link = cx.connect(&sensor)?;
        link.send(message.clone());
        let what = format!("HEL-001: kind {} before Hello", message.kind());
        refused(cx, &mut link, code::OUT_OF_PLACE, &what)?;
    }
    Ok(())
}

fn each_hello_is_answered_once(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log, mut link, first) = cx.bulk()?;
    store(&mut link, &[log.fact(), log.fact()])?;
    let mut gap = log.clone();
    gap.fact();
    link.send(gap.fact());
    equal!(super::steps::nack(&mut link)?.episode, 1, "DLV-009: the first episode");
    for _ in 0..3 {
        let ack = greet(&mut link, sensor.hello(&[&log]))?;
        let granted = grant(&ack, Lane::Bulk)?;
        equal!(granted.next_seq, 3, "HEL-020: next_seq");
        ensure!(
            granted.credit.limit_bytes >= 16_384 && granted.credit.limit_seq >= 3,
            "DLV-008: the credit of a HelloAck is {:?}",
            granted.credit
        );
        equal!(ack.session_epoch, first.session_epoch, "HEL-009: it is one connection, one epoch");
    }
    quiet(&mut link, "HEL-001: after the answer", |message| matches!(message, Message::Ack(_)))?;
    link.send(gap.fact());
    equal!(super::steps::nack(&mut link)?.episode, 1, "HEL-003: episodes begin anew");
    Ok(())
}

fn one_log_for_each_lane(cx: &mut Context<'_>) -> Checked {
    let (sensor, log) = cx.sensor_with(Lane::Bulk)?;
    let urgent = sensor.log(Lane::Urgent, cx.id());
    let other = sensor.log(Lane::Bulk, cx.id());
    for (logs, what) in [
        (vec![&log, &other], "HEL-002: two logs of a lane"),
        (vec![&log, &log], "HEL-002: a log twice"),
        (vec![&log, &urgent, &other], "LIM-040: three logs"),
    ] {
        let mut link = cx.connect(&sensor)?;
        link.send(sensor.hello(&logs));
        refused(cx, &mut link, code::MALFORMED, what)?;
    }
    Ok(())
}

fn a_log_that_is_no_more_named_is_not_acknowledged(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut old, mut link, _) = cx.bulk()?;
    store(&mut link, &[old.fact(), old.fact(), old.fact()])?;
    let mut new = sensor.log(Lane::Bulk, cx.id());
    new.cause = LogCause::Redefined;
    new.parent = Some(super::rows::parent(&old));
    let ack = greet(&mut link, sensor.hello(&[&new]))?;
    equal!(grant(&ack, Lane::Bulk)?.next_seq, 1, "HEL-003: a new log begins at 1");
    equal!(grant(&ack, Lane::Bulk)?.log, new.log, "HEL-007: the log of the grant");
    link.send(new.clone().delta());
    refused(cx, &mut link, code::OUT_OF_PLACE, "DLV-011: a new log's first chunk is a delta")?;
    let (mut link, _) = cx.session(&sensor, &[&old])?;
    greet(&mut link, sensor.hello(&[&new]))?;
    let stored = store(&mut link, &[new.fact()])?;
    equal!(stored.stored_seq, 1, "DLV-005: the Ack is of the log of the last HelloAck");
    let ack = greet(&mut link, sensor.hello(&[&old]))?;
    equal!(grant(&ack, Lane::Bulk)?.next_seq, 4, "HEL-003: the old log stands where it stood");
    store(&mut link, &[old.fact()])?;
    Ok(())
}

fn a_lane_that_is_not_named_takes_nothing(cx: &mut Context<'_>) -> Checked {
    let (sensor, bulk) = cx.sensor_with(Lane::Bulk)?;
    let mut urgent = sensor.log(Lane::Urgent, cx.id());
    for is_known in [false, true] {
        if is_known {
            let (mut link, _) = cx.session(&sensor, &[&bulk, &urgent])?;
            store(&mut link, &[urgent.fact()])?;
        }
        let mut ahead = urgent.clone();
        let jump = ahead.clone().jump(1, 1, JumpCause::Lost(LossReason::MemoryLost));
        let messages: [Message; 3] = [urgent.mark().into(), ahead.fact().into(), jump.into()];
        for message in messages {
            let (mut link, _) = cx.session(&sensor, &[&bulk])?;
            link.send(message.clone());
            let kind = message.kind();
            let what = format!("HEL-002: kind {kind} of a lane not named, known: {is_known}");
            refused(cx, &mut link, code::OUT_OF_PLACE, &what)?;
        }
    }
    let (mut link, _) = cx.session(&sensor, &[&bulk, &urgent])?;
    store(&mut link, &[urgent.fact()])?;
    Ok(())
}

fn an_impossible_head_is_malformed(cx: &mut Context<'_>) -> Checked {
    let (sensor, log) = cx.sensor_with(Lane::Bulk)?;
    let head = log.head();
    let impossible: [(&str, LogHead); 5] = [
        ("first_seq 0", LogHead { first_seq: 0, ..head.clone() }),
        ("next_seq 0", LogHead { next_seq: 0, first_seq: 0, ..head.clone() }),
        ("first_seq beyond next_seq", LogHead { first_seq: 3, next_seq: 2, ..head.clone() }),
        ("acked_seq at next_seq", LogHead { next_seq: 4, acked_seq: 4, ..head.clone() }),
        ("acked_seq beyond", LogHead { next_seq: 4, acked_seq: u64::MAX, ..head }),
    ];
    for (what, head) in impossible {
        let mut link = cx.connect(&sensor)?;
        link.send(Hello { logs: vec![head], ..sensor.hello(&[]) });
        refused(cx, &mut link, code::MALFORMED, &format!("HEL-004: {what}"))?;
    }
    Ok(())
}

fn hello_texts_are_bounded(cx: &mut Context<'_>) -> Checked {
    let (sensor, log) = cx.sensor_with(Lane::Bulk)?;
    let hello = sensor.hello(&[&log]);
    let long = |length| "n".repeat(length);
    let bounded = Hello { name: long(255), os: long(255), agent: long(255), ..hello.clone() };
    greet(&mut cx.connect(&sensor)?, Hello { receive_bytes_max: 4_096, ..bounded })?;
    let wrong: [(&str, Hello); 8] = [
        ("a name of 256 bytes", Hello { name: long(256), ..hello.clone() }),
        ("an os of 256 bytes", Hello { os: long(256), ..hello.clone() }),
        ("an agent of 256 bytes", Hello { agent: long(256), ..hello.clone() }),
        ("a line break in the name", Hello { name: "a\nb".into(), ..hello.clone() }),
        ("a bell in the os", Hello { os: "a\u{7}".into(), ..hello.clone() }),
        ("a tabulator in the name", Hello { name: "\t".into(), ..hello.clone() }),
        ("an escape in the agent", Hello { agent: "a\u{1b}[2J".into(), ..hello.clone() }),
        ("511 bytes to receive", Hello { receive_bytes_max: 511, ..hello }),
    ];
    for (what, hello) in wrong {
        let mut link = cx.connect(&sensor)?;
        link.send(hello);
        refused(cx, &mut link, code::MALFORMED, &format!("HEL-006: {what}"))?;
    }
    Ok(())
}

fn a_list_that_does_not_decode_is_malformed(cx: &mut Context<'_>) -> Checked {
    let (sensor, log) = cx.sensor_with(Lane::Bulk)?;
    let sound = sensor.hello(&[&log]).to_bytes();
    // The last byte is the length of `elsewhere`, 0: three bytes of a run of at least 18 follow.
    let mut broken = Writer(sound);
    broken.0.pop();
    broken.bytes(&[1, 2, 3]);
    let mut link = cx.connect(&sensor)?;
    link.send_frame(&crate::wire::frame::Frame::new(1, broken.0));
    refused(cx, &mut link, code::MALFORMED, "FRM-012: a run of three bytes")
}

fn what_cannot_be_read_is_malformed(cx: &mut Context<'_>) -> Checked {
    let (sensor, log) = cx.sensor_with(Lane::Bulk)?;
    let sound = sensor.hello(&[&log]).to_bytes();
    let head = log.head().to_bytes();
    let logs = sound.len() - head.len();
    let memory = logs - 4; // memory, collecting, last_command, number of logs
    let wrong: [(&str, usize, &[u8]); 6] = [
        ("memory 2", memory, &[2]),
        ("collecting 2", memory + 1, &[2]),
        ("an Option of 2", memory + 2, &[2]),
        ("lane 2", logs, &[2]),
        ("cause 7", logs + 17, &[7]),
        ("an agent that is no text", 4, &[0xff]),
    ];
    for (what, at, bytes) in wrong {
        let mut body = sound.clone();
        body[at..at + bytes.len()].copy_from_slice(bytes);
        let mut link = cx.connect(&sensor)?;
        link.send_frame(&crate::wire::frame::Frame::new(1, body));
        refused(cx, &mut link, code::MALFORMED, &format!("VER-003: a Hello with {what}"))?;
    }
    // version_min as a varint of three bytes that is 2^16.
    let mut body = vec![0x80, 0x80, 4];
    body.extend_from_slice(&sound[1..]);
    let mut link = cx.connect(&sensor)?;
    link.send_frame(&crate::wire::frame::Frame::new(1, body));
    refused(cx, &mut link, code::MALFORMED, "FRM-011: a version that does not fit 16 bits")?;
    let (mut link, _) = cx.session(&sensor, &[&log])?;
    let mut jump = log.clone().jump(1, 1, JumpCause::Lost(LossReason::MemoryLost)).to_bytes();
    let last = jump.len() - 2;
    jump[last] = 3;
    link.send_frame(&crate::wire::frame::Frame::new(6, jump));
    refused(cx, &mut link, code::MALFORMED, "VER-003: a Jump with cause 3")
}

fn the_grant_is_whole(cx: &mut Context<'_>) -> Checked {
    let (sensor, bulk) = cx.sensor_with(Lane::Bulk)?;
    let urgent = sensor.log(Lane::Urgent, cx.id());
    let (_link, ack) = cx.session(&sensor, &[&bulk, &urgent])?;
    ensure!(ack.receive_bytes_max >= 16_388, "HEL-007: it takes {}", ack.receive_bytes_max);
    ensure!(ack.rows_max >= 1, "LOG-009: rows_max is 0");
    equal!(ack.logs.len(), 2, "HEL-007: grants");
    for log in [&bulk, &urgent] {
        let granted = grant(&ack, log.lane)?;
        equal!(granted.log, log.log, "HEL-007: the log of lane {:?}", log.lane);
        equal!(granted.chain, log.chain_at(0), "CHN-001: h(0) of lane {:?}", log.lane);
        equal!((granted.next_seq, granted.next_index), (1, 1), "HEL-021: where it begins");
        let credit = &granted.credit;
        ensure!(
            credit.limit_seq >= 1 && credit.limit_bytes >= 16_384,
            "DLV-008: {credit:?} is not enough for one largest chunk of lane {:?}",
            log.lane
        );
    }
    Ok(())
}

fn what_hello_ack_says_stays_said(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    store(&mut link, &[log.fact()])?;
    for round in 0..5 {
        for _ in 0..10 {
            link.send(log.fact());
        }
        link.cut();
        let (again, ack) = cx.session(&sensor, &[&log])?;
        link = again;
        let granted = grant(&ack, Lane::Bulk)?;
        let at = granted.next_seq - 1;
        ensure!(
            granted.next_seq <= log.next_seq() && at >= log.acked.max(1),
            "HEL-008: round {round}: next_seq is {}, made are {}, acknowledged were {}",
            granted.next_seq,
            log.next_seq() - 1,
            log.acked
        );
        equal!(granted.chain, log.chain_at(at), "HEL-007: the chain before next_seq");
        log.acked = at;
        for chunk in log.chunks.clone().iter().skip(usize::try_from(at).unwrap_or(0)) {
            link.send_frame(&crate::wire::frame::Frame::new(3, chunk.clone()));
        }
        // What Hello acknowledged is not acknowledged again.
        if at < log.next_seq() - 1 {
            acked(&mut link, Lane::Bulk, log.next_seq() - 1)?;
        }
        log.acked = log.next_seq() - 1;
    }
    Ok(())
}

fn the_newest_session_fences_the_others(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log, mut older, first) = cx.bulk()?;
    store(&mut older, &[log.fact()])?;
    let (mut newer, second) = cx.session(&sensor, &[&log])?;
    ensure!(
        second.session_epoch > first.session_epoch,
        "HEL-009: the epoch went from {} to {}",
        first.session_epoch,
        second.session_epoch
    );
    let mut other = log.clone();
    older.send(other.fact_of(40));
    refused(cx, &mut older, code::FENCED, "HEL-037: the older session")?;
    // What the older sent did not become chunk 2: this one does.
    let chunk = log.fact();
    store(&mut newer, &[chunk])?;
    drop(newer);
    let (_link, ack) = cx.session(&sensor, &[&log])?;
    let granted = grant(&ack, Lane::Bulk)?;
    equal!(granted.chain, log.chain_at(2), "HEL-009: the chain has the newer session's chunk");
    other.acked = 0;
    Ok(())
}
