//! Jumps, Dropped ops, chain marks: holes that are said, and branches that are found.

use super::case;
use super::context::Context;
use super::steps::{closes, decodes, nack, quiet, refused, store};
use crate::cases::{Case, Checked, ensure, equal};
use crate::play::link::Link;
use crate::play::log::{Log, base};
use crate::play::sensor::{acked, grant};
use crate::wire::chunk::{Chunk, SELF_CONTAINED};
use crate::wire::code;
use crate::wire::message::{
    ChainMark, DropReason, Jump, JumpCause, Lane, LogVerdict, LossReason, Message, NackReason,
};
use crate::wire::op::OpWriter;
use crate::wire::primitive::Wire as _;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "a_jump_is_taken_with_every_cause",
        &["JMP-001", "JMP-005", "DLV-007"],
        "A Jump moves sequence, index and chain, and is acknowledged like a chunk.",
        a_jump_is_taken_with_every_cause,
    ),
    case(
        "a_jump_may_begin_below_next",
        &["JMP-001", "HEL-038"],
        "A server that stopped within a hole resumes there, and takes the Jump from next on.",
        a_jump_may_begin_below_next,
    ),
    case(
        "a_jump_that_is_over_is_a_repeat",
        &["JMP-002"],
        "A Jump that ends just before next is acknowledged again; an older one is ignored.",
        a_jump_that_is_over_is_a_repeat,
    ),
    case(
        "a_jump_beyond_next_is_out_of_order",
        &["JMP-002", "DLV-004"],
        "A Jump that begins above next is one Nack, and nothing of it is taken.",
        a_jump_beyond_next_is_out_of_order,
    ),
    case(
        "an_impossible_jump_is_malformed",
        &["JMP-003", "LIM-029"],
        "A Jump from 0, backwards or beyond the last sequence is malformed.",
        an_impossible_jump_is_malformed,
    ),
    case(
        "a_jump_may_end_at_the_last_sequence",
        &["JMP-003", "LIM-029", "LOG-022"],
        "A Jump to the last sequence is taken; a chunk behind it cannot be.",
        a_jump_may_end_at_the_last_sequence,
    ),
    case(
        "a_jump_cannot_take_back_facts",
        &["JMP-003"],
        "A to_index below the last index taken is out of place.",
        a_jump_cannot_take_back_facts,
    ),
    case(
        "the_chunk_behind_a_jump_must_open",
        &["JMP-004", "DLV-011"],
        "Behind a Jump a delta is refused; a keyframe or a self-contained chunk is taken.",
        the_chunk_behind_a_jump_must_open,
    ),
    case(
        "a_hole_of_unknown_size",
        &["JMP-007", "JMP-001"],
        "A Jump without a last index leaves the next index where it was.",
        a_hole_of_unknown_size,
    ),
    case(
        "a_dropped_op_consumes_indices",
        &["JMP-008", "ENC-003"],
        "Facts that were dropped after intake are counted by the chunk that says so.",
        a_dropped_op_consumes_indices,
    ),
    case(
        "a_mark_is_compared",
        &["CHN-002", "CHN-003", "CHN-001"],
        "The right mark is silent, a wrong one at the right place is chain_broken, one elsewhere \
         is ignored.",
        a_mark_is_compared,
    ),
    case(
        "the_chain_is_over_the_chunk_as_spooled",
        &["CHN-001", "LOG-020"],
        "The chain is over every byte of a chunk, on both lanes, its header included.",
        the_chain_is_over_the_chunk_as_spooled,
    ),
];

fn is_ack(message: &Message) -> bool {
    matches!(message, Message::Ack(_))
}

fn a_jump_is_taken_with_every_cause(cx: &mut Context<'_>) -> Checked {
    let server = cx.id();
    let reasons = [
        DropReason::TableFull,
        DropReason::TooLarge,
        DropReason::SpoolFull,
        DropReason::MemoryFull,
        DropReason::SpoolFailed,
        DropReason::Malformed,
    ];
    let losses = [LossReason::ServerRolledBack, LossReason::MemoryLost, LossReason::SpoolDamaged];
    let dropped = reasons.into_iter().map(JumpCause::Dropped);
    let lost = losses.into_iter().map(JumpCause::Lost);
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    store(&mut link, &[log.fact()])?;
    for cause in dropped.chain(lost).chain([JumpCause::StoredElsewhere(server)]) {
        let jump = log.jump(1_000, 7, cause);
        let to_seq = jump.to_seq;
        link.send(jump);
        let ack = acked(&mut link, Lane::Bulk, to_seq)?;
        equal!(ack.stored_seq, to_seq, "JMP-001: what is acknowledged of a Jump: {cause:?}");
        ensure!(ack.credit.limit_seq > to_seq, "DLV-007: no credit behind the Jump");
        store(&mut link, &[log.fact()])?;
    }
    drop(link);
    let (_link, ack) = cx.session(&sensor, &[&log])?;
    let granted = grant(&ack, Lane::Bulk)?;
    let found = (granted.next_seq, granted.next_index);
    equal!(found, (log.next_seq(), log.next_index), "JMP-001: next_seq and next_index");
    let chain = log.chain_at(log.next_seq() - 1);
    equal!(granted.chain, chain, "JMP-001: the chain goes on from the sensor's word");
    Ok(())
}

fn a_jump_may_begin_below_next(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    store(&mut link, &[log.fact(), log.fact(), log.fact()])?;
    // The sensor heard of one, and dropped 2 to 7 since.
    log.acked = 1;
    let jump = log.jump(4, 4, JumpCause::Dropped(DropReason::SpoolFull));
    let (mut link, ack) = cx.session(&sensor, &[&log])?;
    let granted = grant(&ack, Lane::Bulk)?;
    let found = (granted.verdict, granted.next_seq);
    equal!(found, (LogVerdict::Resume, 4), "HEL-038: the verdict within a hole");
    link.send(Jump { from_seq: 2, ..jump });
    acked(&mut link, Lane::Bulk, 7)?;
    let ack = store(&mut link, &[log.fact()])?;
    equal!(ack.stored_seq, 8, "JMP-001: the chunk behind it");
    Ok(())
}

fn a_jump_that_is_over_is_a_repeat(cx: &mut Context<'_>) -> Checked {
    let (_sensor, mut log, mut link, _) = cx.bulk()?;
    store(&mut link, &[log.fact()])?;
    let jump = log.jump(3, 3, JumpCause::Dropped(DropReason::SpoolFull));
    link.send(jump.clone());
    acked(&mut link, Lane::Bulk, 4)?;
    link.settle()?;
    link.send(jump.clone());
    let ack = acked(&mut link, Lane::Bulk, 4)?;
    equal!(ack.stored_seq, 4, "JMP-002: a Jump said again");
    store(&mut link, &[log.fact(), log.fact()])?;
    link.settle()?;
    link.send(jump);
    quiet(&mut link, "JMP-002: a Jump that ends before", is_ack)?;
    store(&mut link, &[log.fact()])?;
    Ok(())
}

fn a_jump_beyond_next_is_out_of_order(cx: &mut Context<'_>) -> Checked {
    let (_sensor, mut log, mut link, _) = cx.bulk()?;
    store(&mut link, &[log.fact()])?;
    let missing = log.fact();
    let jump = log.jump(3, 3, JumpCause::Dropped(DropReason::SpoolFull));
    link.send(jump.clone());
    link.send(jump.clone());
    let refusal = nack(&mut link)?;
    let found = (refusal.next_seq, refusal.reason, refusal.episode);
    equal!(found, (2, NackReason::OutOfOrder, 1), "JMP-002: a Jump above next");
    quiet(&mut link, "DLV-004: the same Jump again", |_| false)?;
    store(&mut link, &[missing])?;
    link.send(jump);
    acked(&mut link, Lane::Bulk, 5)?;
    store(&mut link, &[log.fact()])?;
    Ok(())
}

/// A log of which two chunks are stored.
fn two(cx: &mut Context<'_>) -> Result<(Log, Link), crate::cases::Stop> {
    let (_sensor, mut log, mut link, _) = cx.bulk()?;
    store(&mut link, &[log.fact(), log.fact()])?;
    Ok((log, link))
}

fn an_impossible_jump_is_malformed(cx: &mut Context<'_>) -> Checked {
    for (from_seq, to_seq) in [(0, 4), (5, 4), (3, 1 << 63), (3, u64::MAX), (0, 0)] {
        let (mut log, mut link) = two(cx)?;
        let jump = log.jump(1, 1, JumpCause::Lost(LossReason::MemoryLost));
        link.send(Jump { from_seq, to_seq, ..jump });
        let what = format!("JMP-003: a Jump from {from_seq} to {to_seq}");
        refused(cx, &mut link, code::MALFORMED, &what)?;
    }
    Ok(())
}

fn a_jump_may_end_at_the_last_sequence(cx: &mut Context<'_>) -> Checked {
    let (mut log, mut link) = two(cx)?;
    let sound = log.fact_of(0);
    let jump = log.jump(1, 1, JumpCause::Lost(LossReason::MemoryLost));
    let to_seq = (1 << 63) - 1;
    link.send(Jump { to_seq, ..jump });
    let ack = acked(&mut link, Lane::Bulk, to_seq)?;
    equal!(ack.stored_seq, to_seq, "LIM-029: a Jump to the last sequence");
    link.send(Chunk { seq: to_seq + 1, first_index: 4, ..sound });
    closes(&mut link, "LIM-029: a chunk behind the last sequence")
}

fn a_jump_cannot_take_back_facts(cx: &mut Context<'_>) -> Checked {
    for to_index in [0, 1] {
        let (mut log, mut link) = two(cx)?;
        let jump = log.jump(3, 3, JumpCause::Lost(LossReason::MemoryLost));
        link.send(Jump { to_index: Some(to_index), ..jump });
        let what = format!("JMP-003: a to_index of {to_index} where 2 is taken");
        refused(cx, &mut link, code::OUT_OF_PLACE, &what)?;
    }
    let (mut log, mut link) = two(cx)?;
    let jump = log.jump(3, 0, JumpCause::Lost(LossReason::MemoryLost));
    link.send(jump);
    acked(&mut link, Lane::Bulk, 5)?;
    store(&mut link, &[log.fact()])?;
    Ok(())
}

fn the_chunk_behind_a_jump_must_open(cx: &mut Context<'_>) -> Checked {
    let jumped = |cx: &mut Context<'_>| -> Result<(Log, Link), crate::cases::Stop> {
        let (mut log, mut link) = two(cx)?;
        let jump = log.jump(3, 3, JumpCause::Dropped(DropReason::SpoolFull));
        link.send(jump);
        acked(&mut link, Lane::Bulk, 5)?;
        Ok((log, link))
    };
    let (mut log, mut link) = jumped(cx)?;
    link.send(log.delta());
    refused(cx, &mut link, code::OUT_OF_PLACE, "JMP-004: a delta behind a Jump")?;
    let (mut log, mut link) = jumped(cx)?;
    store(&mut link, &[log.keyframe(), log.delta()])?;
    let (mut log, mut link) = jumped(cx)?;
    store(&mut link, &[log.fact(), log.fact()])?;
    Ok(())
}

fn a_hole_of_unknown_size(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut log, mut link, _) = cx.bulk()?;
    store(&mut link, &[log.fact(), log.fact()])?;
    let jump = log.jump(4, 0, JumpCause::Lost(LossReason::SpoolDamaged));
    link.send(Jump { to_index: None, ..jump });
    acked(&mut link, Lane::Bulk, 6)?;
    store(&mut link, &[log.fact()])?;
    drop(link);
    let (_link, ack) = cx.session(&sensor, &[&log])?;
    let granted = grant(&ack, Lane::Bulk)?;
    equal!((granted.next_seq, granted.next_index), (8, 4), "JMP-007: next_seq and next_index");
    Ok(())
}

fn a_dropped_op_consumes_indices(cx: &mut Context<'_>) -> Checked {
    decodes(cx, "JMP-008: a Dropped op", |log| {
        let first = log.keyframe();
        let mut ops = OpWriter::new(base(log.next_seq()));
        ops.dropped(1_000_000, DropReason::TableFull);
        ops.dropped(2, DropReason::Malformed);
        let chunk = log.next(0, 1_000_002, ops.body());
        vec![first, log.push(&chunk), log.delta()]
    })
}

fn a_mark_is_compared(cx: &mut Context<'_>) -> Checked {
    let (_sensor, mut log, mut link, _) = cx.bulk()?;
    for _ in 0..64 {
        link.send(log.fact());
    }
    link.send(log.mark());
    acked(&mut link, Lane::Bulk, 64)?;
    quiet(&mut link, "CHN-002: the right mark", is_ack)?;
    for seq in [0, 1, 63, 65, 128, u64::MAX] {
        link.send(ChainMark { lane: Lane::Bulk, seq, chain: [0xee; 32] });
    }
    quiet(&mut link, "CHN-002: marks of other places", is_ack)?;
    let mut chain = log.chain_at(64);
    chain[31] ^= 1;
    link.send(ChainMark { lane: Lane::Bulk, seq: 64, chain });
    refused(cx, &mut link, code::CHAIN_BROKEN, "CHN-003: a wrong mark at its place")?;
    let (sensor, mut urgent) = cx.sensor_with(Lane::Urgent)?;
    let (mut link, _) = cx.session(&sensor, &[&urgent])?;
    store(&mut link, &[urgent.fact()])?;
    link.send(ChainMark { lane: Lane::Urgent, seq: 1, chain: urgent.chain_at(0) });
    refused(cx, &mut link, code::CHAIN_BROKEN, "CHN-003: a wrong mark of the urgent lane")
}

fn the_chain_is_over_the_chunk_as_spooled(cx: &mut Context<'_>) -> Checked {
    let (sensor, mut bulk) = cx.sensor_with(Lane::Bulk)?;
    let mut urgent = sensor.log(Lane::Urgent, cx.id());
    let (mut link, _) = cx.session(&sensor, &[&bulk, &urgent])?;
    for log in [&mut bulk, &mut urgent] {
        // Chunks that differ in one field of the header alone, and a body of no ops.
        for change in 0..4 {
            let mut chunk = log.fact_of(0);
            match change {
                0 => chunk.base += 1,
                1 => chunk.part = 3,
                2 => chunk.body.extend([0xff; 3]),
                _ => chunk.flags |= SELF_CONTAINED,
            }
            let chunk = log.push(&chunk);
            ensure!(!chunk.to_bytes().is_empty(), "the case itself");
            store(&mut link, &[chunk])?;
        }
        link.send(log.mark());
    }
    quiet(&mut link, "CHN-001: the marks of both lanes", |message| {
        matches!(message, Message::Ack(_) | Message::Resync(_))
    })?;
    drop(link);
    let (_link, ack) = cx.session(&sensor, &[&bulk, &urgent])?;
    for log in [&bulk, &urgent] {
        let granted = grant(&ack, log.lane)?;
        equal!(granted.chain, log.chain_at(4), "CHN-001: the chain of lane {:?}", log.lane);
    }
    Ok(())
}
