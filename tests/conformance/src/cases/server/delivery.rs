//! Delivery: order, repeats, index, bounds, both lanes.
//!
//! Not here: credit (`credit.rs`) and overload (`overload.rs`).

use super::case;
use super::context::Context;
use super::steps::{nack, quiet, refused, resync, store, undecodable};
use crate::cases::{Case, Checked, Stop, ensure, equal};
use crate::play::log::Log;
use crate::play::sensor::{acked, call, grant, greet};
use crate::wire::chunk::{CHUNK_BYTES_MAX, Chunk, SELF_CONTAINED};
use crate::wire::code;
use crate::wire::message::{Lane, Message, NackReason, ResyncReason};
use crate::wire::primitive::Wire as _;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "chunks_in_order_are_acknowledged",
        &["DLV-002", "DLV-005", "LOG-001", "LOG-002"],
        "Chunks in order are acknowledged, cumulatively, with `safe` never beyond `stored`.",
        chunks_in_order_are_acknowledged,
    ),
    case(
        "a_repeat_is_acknowledged_again",
        &["DLV-003", "DLV-005"],
        "A chunk that comes again is acknowledged again, and changes neither next nor chain.",
        a_repeat_is_acknowledged_again,
    ),
    case(
        "a_repeat_of_other_bytes_is_another_branch",
        &["DLV-003", "CHN-003"],
        "Of what was taken and not durable at the Hello, other bytes under the same sequence are \
         chain_broken: they are no repeat.",
        a_repeat_of_other_bytes,
    ),
    case(
        "a_gap_is_one_nack",
        &["DLV-004", "DLV-009"],
        "What is out of order is one Nack, then silence until what was asked for comes.",
        a_gap_is_one_nack,
    ),
    case(
        "episodes_count_from_one_for_each_lane",
        &["DLV-009", "LOG-001"],
        "Each lane counts its own episodes, from 1, one a time.",
        episodes_count_from_one_for_each_lane,
    ),
    case(
        "urgent_rows_do_not_enter_the_table",
        &["LOG-008", "LOG-023", "CHN-004"],
        "Rows of the urgent lane change no digest of the bulk lane.",
        urgent_rows_do_not_enter_the_table,
    ),
    case(
        "a_chunk_that_does_not_decode_is_stored",
        &["DLV-010", "LOG-010", "LOG-022"],
        "It is acknowledged, never nacked, and answered by one Resync; a second within the minute \
         brings no more.",
        a_chunk_that_does_not_decode_is_stored,
    ),
    case(
        "an_unknown_encoding_is_stored",
        &["VER-007", "DLV-010"],
        "A chunk of an encoding that is not known is acknowledged, and a Resync asks for another.",
        an_unknown_encoding_is_stored,
    ),
    case(
        "an_index_that_does_not_follow_is_refused",
        &["DLV-011", "LOG-002"],
        "A first_index above or below the next is out of place.",
        an_index_that_does_not_follow_is_refused,
    ),
    case(
        "the_first_chunk_must_open",
        &["DLV-011", "LOG-005"],
        "A log whose first chunk neither is self-contained nor opens a keyframe is refused.",
        the_first_chunk_must_open,
    ),
    case(
        "a_digest_that_differs_brings_one_resync",
        &["DLV-012", "LOG-023", "LOG-010"],
        "It is stored and acknowledged; one Resync names it, whatever differs behind it.",
        a_digest_that_differs_brings_one_resync,
    ),
    case(
        "chunk_bounds",
        &["LOG-022", "LIM-010", "LIM-029"],
        "A chunk of 16,384 bytes is taken; a larger one, seq 0, a seq or index that cannot be, close.",
        chunk_bounds,
    ),
    case(
        "flags_without_meaning_are_refused",
        &["LOG-021"],
        "A chunk that sets a flag above 8 is malformed.",
        flags_without_meaning_are_refused,
    ),
    case(
        "a_call_waits_for_no_lane",
        &["CAL-001", "CAL-002", "CAL-006", "CAL-005"],
        "Calls between chunks have one answer each, with their numbers, and lanes go on.",
        a_call_waits_for_no_lane,
    ),
];

fn chunks_in_order_are_acknowledged(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut bulk) = cx.sensor_with(Lane::Bulk)?;
    let mut urgent = sensor.log(Lane::Urgent, cx.id());
    let (mut link, _) = cx.session(&sensor, &[&bulk, &urgent])?;
    for _ in 0..20 {
        link.send(bulk.fact());
        link.send(urgent.fact());
    }
    let mut highest = [0u64; 2];
    while highest != [20, 20] {
        let ack = link.wait_for("an Ack", |message| match message {
            Message::Ack(ack) => Some(ack.clone()),
            _ => None,
        })?;
        let at = &mut highest[ack.lane as usize];
        ensure!(ack.stored_seq >= *at, "DLV-005: stored_seq went from {at} to {}", ack.stored_seq);
        ensure!(ack.stored_seq <= 20, "DLV-005: {} was never sent", ack.stored_seq);
        ensure!(ack.safe_seq <= ack.stored_seq, "DLV-005: safe {} is ahead", ack.safe_seq);
        *at = ack.stored_seq;
    }
    drop(link);
    let (_link, ack) = cx.session(&sensor, &[&bulk, &urgent])?;
    for log in [&bulk, &urgent] {
        let granted = grant(&ack, log.lane)?;
        let found = (granted.next_seq, granted.next_index);
        equal!(found, (21, 21), "DLV-002: where lane {:?} stands", log.lane);
        equal!(granted.chain, log.chain_at(20), "CHN-001: the chain of lane {:?}", log.lane);
    }
    Ok(())
}

fn a_repeat_is_acknowledged_again(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    let chunks = [log.fact(), log.fact(), log.fact()];
    store(&mut link, &chunks)?;
    link.settle()?;
    for chunk in [&chunks[0], &chunks[2], &chunks[1]] {
        link.send(chunk.clone());
        let ack = acked(&mut link, Lane::Bulk, 3)?;
        equal!(ack.stored_seq, 3, "DLV-003: the Ack of a repeat");
    }
    quiet(&mut link, "DLV-003: behind repeats", |message| matches!(message, Message::Ack(_)))?;
    store(&mut link, &[log.fact()])?;
    drop(link);
    let (_link, ack) = cx.session(&sensor, &[&log])?;
    let granted = grant(&ack, Lane::Bulk)?;
    equal!(granted.chain, log.chain_at(4), "DLV-003: the chain, with each chunk once");
    equal!(granted.next_index, 5, "DLV-003: the index, with each fact once");
    Ok(())
}

/// Chunks that are sent at once, so that some are on their way to the disk at the next Hello.
const BURST: usize = 60;
/// Tries before it is believed that nothing is on its way when a Hello is answered.
const HELLOS: usize = 40;

/// What becomes of a chunk that another branch has in the place of one that may have been taken.
enum Branch {
    Refused,
    /// It is taken for a repeat.
    Swallowed,
    /// It was the first in its place; or the connection ended, and took the last word with it.
    Unclear,
}

fn other_bytes(cx: &mut Context<'_>) -> Result<Branch, Stop> {
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    let mut branch = log.clone();
    // Before the burst: a handshake behind it would give it the time to reach the disk.
    let mut early = cx.connect(&sensor)?;
    let mut burst = Vec::new();
    for _ in 0..BURST {
        let chunk = log.fact_of(8_000);
        burst.extend(Message::from(log.push(&chunk)).frame().to_bytes());
    }
    link.send_bytes(&burst);
    let ack = greet(&mut early, sensor.hello(&[&log]))?;
    let next = grant(&ack, Lane::Bulk)?.next_seq;
    while branch.next_seq() < next {
        let chunk = branch.fact_of(8_000);
        branch.push(&chunk);
    }
    let chunk = branch.fact_of(8_001);
    early.send(branch.push(&chunk));
    let refused = |message: &Message| match message {
        Message::Refused(refused) => Some(refused.code),
        _ => None,
    };
    let answer = early.wait_for("an Ack, or Refused", |message| match message {
        Message::Ack(ack) if ack.stored_seq >= next => Some(None),
        other => refused(other).map(Some),
    })?;
    // The Ack may be of what was on its way, and the refusal behind it.
    let answer = match answer {
        None => early.settle()?.iter().find_map(refused),
        refused => refused,
    };
    if let Some(code) = answer {
        equal!(
            code::name(code),
            "chain_broken",
            "DLV-003: other bytes under the same seq; the code"
        );
        return Ok(Branch::Refused);
    }
    if early.is_closed_within(std::time::Duration::ZERO) {
        return Ok(Branch::Unclear);
    }
    let (_link, ack) = cx.session(&sensor, &[&log])?;
    let granted = grant(&ack, Lane::Bulk)?;
    let is_ours = granted.next_seq == next + 1 && granted.chain == branch.chain_at(next);
    Ok(if is_ours { Branch::Unclear } else { Branch::Swallowed })
}

fn a_repeat_of_other_bytes(cx: &mut Context<'_>) -> Checked {
    for _ in 0..HELLOS {
        match other_bytes(cx)? {
            Branch::Refused => return Ok(()),
            Branch::Swallowed => {
                cx.weak(
                    "DLV-003: a chunk of another branch is taken for a repeat, and is not stored",
                );
                return Ok(());
            }
            Branch::Unclear => {}
        }
    }
    Err(Stop::Skip("nothing was on its way to the disk when a Hello was answered".into()))
}

fn a_gap_is_one_nack(cx: &mut Context<'_>) -> Checked {
    let (_sensor, mut log, mut link, _) = cx.bulk()?;
    let chunks: Vec<Chunk> = (0..6).map(|_| log.fact()).collect();
    store(&mut link, &chunks[..1])?;
    link.settle()?;
    for chunk in &chunks[2..] {
        link.send(chunk.clone());
    }
    let first = nack(&mut link)?;
    let found = (first.lane, first.next_seq, first.reason, first.episode);
    equal!(found, (Lane::Bulk, 2, NackReason::OutOfOrder, 1), "DLV-004: the Nack");
    link.send(chunks[3].clone());
    quiet(&mut link, "DLV-004: more that is out of order", |_| false)?;
    let ack = store(&mut link, &chunks[1..3])?;
    equal!(ack.stored_seq, 3, "DLV-004: nothing of what was refused was stored");
    link.settle()?;
    link.send(chunks[5].clone());
    let second = nack(&mut link)?;
    equal!((second.next_seq, second.episode), (4, 2), "DLV-004: a refusal after that is new");
    let ack = store(&mut link, &chunks[3..])?;
    equal!(ack.stored_seq, 6, "DLV-009: what was sent again is taken");
    Ok(())
}

fn episodes_count_from_one_for_each_lane(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut bulk) = cx.sensor_with(Lane::Bulk)?;
    let mut urgent = sensor.log(Lane::Urgent, cx.id());
    let (mut link, _) = cx.session(&sensor, &[&bulk, &urgent])?;
    for log in [&mut bulk, &mut urgent] {
        for episode in 1..=3 {
            let (wanted, ahead) = (log.fact(), log.fact());
            link.send(ahead.clone());
            let found = nack(&mut link)?;
            let seen = (found.lane, found.episode, found.next_seq);
            equal!(seen, (log.lane, episode, wanted.seq), "DLV-009: lane, episode, next_seq");
            store(&mut link, &[wanted, ahead])?;
            link.settle()?;
        }
    }
    Ok(())
}

fn urgent_rows_do_not_enter_the_table(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut bulk) = cx.sensor_with(Lane::Bulk)?;
    let mut urgent = sensor.log(Lane::Urgent, cx.id());
    let (mut link, _) = cx.session(&sensor, &[&bulk, &urgent])?;
    store(&mut link, &[bulk.keyframe(), bulk.put(0, "ssh", "active")])?;
    let mut ops = urgent.opened();
    let row = crate::play::log::service("cron", "failed");
    ops.put(crate::wire::model::SERVICE, 0, crate::play::log::base(1), &row);
    let chunk = urgent.next(SELF_CONTAINED, 1, ops.body());
    store(&mut link, &[urgent.push(&chunk)])?;
    store(&mut link, &[bulk.delta(), bulk.put(1, "ntp", "active")])?;
    store(&mut link, &[undecodable(&mut bulk)])?;
    let asked = resync(&mut link)?;
    equal!((asked.lane, asked.at_seq), (Lane::Bulk, 5), "LOG-008: what the Resync names");
    Ok(())
}

fn a_chunk_that_does_not_decode_is_stored(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    let first = log.fact();
    let [second, third] = [undecodable(&mut log), undecodable(&mut log)];
    store(&mut link, &[first, second.clone()])?;
    let asked = resync(&mut link)?;
    let found = (asked.lane, asked.at_seq, asked.reason);
    equal!(found, (Lane::Bulk, second.seq, ResyncReason::Undecodable), "DLV-010: the Resync");
    store(&mut link, &[third])?;
    store(&mut link, &[log.fact()])?;
    quiet(&mut link, "LOG-010: a second one within the minute", |message| {
        matches!(message, Message::Ack(_))
    })?;
    drop(link);
    log.acked = 4;
    let (mut link, ack) = cx.session(&sensor, &[&log])?;
    equal!(grant(&ack, Lane::Bulk)?.chain, log.chain_at(4), "DLV-010: the chain has all bytes");
    store(&mut link, &[undecodable(&mut log)])?;
    quiet(&mut link, "LOG-010: within the minute, of the next session", |message| {
        matches!(message, Message::Ack(_))
    })
}

fn an_unknown_encoding_is_stored(cx: &mut Context<'_>) -> Checked {
    for encoding in [0, 2, 255] {
        super::steps::does_not_decode(cx, &format!("VER-007: encoding {encoding}"), |log| {
            let first = log.fact();
            let chunk = Chunk { encoding, ..log.fact_of(0) };
            vec![first, log.push(&chunk)]
        })?;
    }
    Ok(())
}

fn an_index_that_does_not_follow_is_refused(cx: &mut Context<'_>) -> Checked {
    for first_index in [0, 1, 2, 4, u64::MAX - 8] {
        let (sensor, mut log, mut link, _) = cx.bulk()?;
        store(&mut link, &[log.fact(), log.fact()])?;
        let chunk = Chunk { first_index, ..log.fact_of(0) };
        link.send(chunk);
        let what = format!("DLV-011: first_index {first_index} where 3 is next");
        refused(cx, &mut link, code::OUT_OF_PLACE, &what)?;
        let (_link, ack) = cx.session(&sensor, &[&log])?;
        equal!(grant(&ack, Lane::Bulk)?.next_seq, 3, "DLV-011: nothing of it was stored");
    }
    Ok(())
}

fn the_first_chunk_must_open(cx: &mut Context<'_>) -> Checked {
    use crate::wire::chunk::{KEYFRAME, KEYFRAME_LAST};
    for (flags, part) in [(0, 0), (KEYFRAME, 1), (KEYFRAME | KEYFRAME_LAST, 2), (KEYFRAME_LAST, 0)]
    {
        let (_sensor, log, mut link, _) = cx.bulk()?;
        let chunk = log.fact_of(0);
        link.send(Chunk { flags, part, ..chunk });
        let what = format!("DLV-011: a first chunk with flags {flags}, part {part}");
        refused(cx, &mut link, code::OUT_OF_PLACE, &what)?;
    }
    Ok(())
}

fn a_digest_that_differs_brings_one_resync(cx: &mut Context<'_>) -> Checked {
    let (_sensor, mut log, mut link, _) = cx.bulk()?;
    let wrong = |log: &mut Log| {
        let mut body = crate::wire::op::OpWriter::new(crate::play::log::base(log.next_seq()));
        body.dropped(1, crate::wire::message::DropReason::TooLarge);
        let mut chunk = log.next(0, 1, body.body());
        chunk.digest[3] ^= 0x40;
        log.push(&chunk)
    };
    let sound = [log.keyframe(), log.put(0, "ssh", "active"), log.delta()];
    store(&mut link, &sound)?;
    quiet(&mut link, "DLV-012: digests that are right", |message| {
        matches!(message, Message::Ack(_))
    })?;
    let first = wrong(&mut log);
    store(&mut link, std::slice::from_ref(&first))?;
    let asked = resync(&mut link)?;
    let found = (asked.lane, asked.at_seq, asked.reason);
    equal!(found, (Lane::Bulk, first.seq, ResyncReason::DigestDiffers), "DLV-012: the Resync");
    for _ in 0..5 {
        store(&mut link, &[wrong(&mut log)])?;
    }
    quiet(&mut link, "LOG-010: more within the minute", |message| {
        matches!(message, Message::Ack(_))
    })?;
    store(&mut link, &[log.keyframe(), log.put(1, "cron", "active")])?;
    Ok(())
}

fn chunk_bounds(cx: &mut Context<'_>) -> Checked {
    let (_sensor, mut log, mut link, ack) = cx.bulk()?;
    let bare = log.fact_of(0).to_bytes().len();
    // Two length fields grow from one byte to three.
    let mut whole = log.fact_of(CHUNK_BYTES_MAX - bare - 4);
    while whole.to_bytes().len() > CHUNK_BYTES_MAX {
        whole = log.fact_of(whole.body.len() - 60);
    }
    whole = Chunk { body: vec![0xff; 16_360], ..whole };
    let excess = whole.to_bytes().len() as i64 - CHUNK_BYTES_MAX as i64;
    let length = usize::try_from(whole.body.len() as i64 - excess).unwrap_or(0);
    whole.body.resize(length, 0xff);
    equal!(whole.to_bytes().len(), CHUNK_BYTES_MAX, "the case itself");
    store(&mut link, &[log.push(&whole)])?;
    let sound = log.fact_of(0);
    let mut long = Chunk { body: whole.body.clone(), ..sound.clone() };
    long.body.push(0xff);
    let fits = long.to_bytes().len() + 4 <= ack.receive_bytes_max as usize;
    let wrong: [(&str, Chunk, bool); 5] = [
        ("16,385 bytes", long, fits),
        ("seq 0", Chunk { seq: 0, ..sound.clone() }, true),
        ("a seq above SEQ_MAX", Chunk { seq: 1 << 63, ..sound.clone() }, true),
        ("seq 2^64 - 1", Chunk { seq: u64::MAX, ..sound.clone() }, true),
        ("an index beyond 64 bits", Chunk { first_index: u64::MAX, count: 2, ..sound }, true),
    ];
    for (what, chunk, _) in wrong.into_iter().filter(|(_, _, sent)| *sent) {
        let (_sensor, mut own, mut link, _) = cx.bulk()?;
        store(&mut link, &[own.fact()])?;
        link.send(chunk);
        let refusal = link.refusal().map_err(|error| format!("LOG-022: {what}: {error}"))?;
        let Some(refusal) = refusal else {
            cx.weak(format!("LOG-022: {what}: the server closed without a word"));
            continue;
        };
        let fits = refusal.code == code::MALFORMED || refusal.code == code::TOO_LARGE;
        ensure!(fits, "LOG-022: {what} is refused with {}", code::name(refusal.code));
    }
    Ok(())
}

fn flags_without_meaning_are_refused(cx: &mut Context<'_>) -> Checked {
    for flags in [0x10, 0x20, 0x40, 0x80, 0xf0] {
        let (_sensor, log, mut link, _) = cx.bulk()?;
        link.send(Chunk { flags: SELF_CONTAINED | flags, ..log.fact_of(0) });
        let what = format!("LOG-021: flags {flags:#x}");
        refused(cx, &mut link, code::MALFORMED, &what)?;
    }
    Ok(())
}

fn a_call_waits_for_no_lane(cx: &mut Context<'_>) -> Checked {
    let (_sensor, mut log, mut link, _) = cx.bulk()?;
    for number in [1, 7, u32::MAX] {
        link.send(log.fact());
        for method in [1, 2, 3, 35, 240, 60_000] {
            let (code, text) = call(&mut link, number, method, &[])?;
            equal!(code::name(code), "unsupported", "CAL-006: method {method} of a sensor");
            ensure!(std::str::from_utf8(&text).is_ok(), "CAL-002: the text is not UTF-8");
        }
        link.send(log.fact());
        let last = log.next_seq() - 1;
        acked(&mut link, Lane::Bulk, last)?;
    }
    quiet(&mut link, "CAL-001: more answers than calls", |message| {
        matches!(message, Message::Ack(_))
    })
}
