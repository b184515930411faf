//! Keyframes, and the digests around them.

use super::case;
use super::context::Context;
use super::encoding::{delta, take};
use super::steps::{brings_a_resync, decodes, does_not_decode};
use crate::cases::{Case, Checked, equal};
use crate::play::log::{Log, base, service};
use crate::wire::chunk::{Chunk, KEYFRAME, KEYFRAME_LAST, SELF_CONTAINED};
use crate::wire::message::ResyncReason;
use crate::wire::model::SERVICE;
use crate::wire::op::OpWriter;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "a_keyframe_of_many_parts",
        &["LOG-005", "CHN-004", "LOG-023"],
        "A keyframe in three parts replaces the table at its last; the digest agrees.",
        a_keyframe_of_many_parts,
    ),
    case(
        "a_broken_keyframe_does_not_decode",
        &["LOG-005", "ENC-010"],
        "A part that is missing, an end with another digest or count, ops behind the end.",
        a_broken_keyframe_does_not_decode,
    ),
    case(
        "digests_are_compared_but_in_keyframes",
        &["LOG-023", "DLV-012", "CHN-004"],
        "A digest that differs brings a Resync, in a delta and in a self-contained chunk, and none \
         within a keyframe.",
        digests_are_compared_but_in_keyframes,
    ),
];

/// The parts of a keyframe of `rows` services, one row a part, the last with the end.
fn parts(log: &mut Log, rows: u64, digest: impl Fn(u64) -> u64) -> Vec<Chunk> {
    let mut sum = 0u64;
    let mut chunks = Vec::new();
    for slot in 0..rows {
        let fields = service(&format!("service-{slot}"), "active");
        let of = fields.iter().cloned().collect();
        sum = sum.wrapping_add(crate::wire::decode::row_digest(&log.log, SERVICE, &of));
        let mut ops = if slot == 0 { log.opened() } else { OpWriter::new(base(log.next_seq())) };
        ops.put(SERVICE, slot, base(log.next_seq()), &fields);
        let is_last = slot + 1 == rows;
        if is_last {
            ops.keyframe_end(rows, digest(sum));
        }
        let flags = if is_last { KEYFRAME | KEYFRAME_LAST } else { KEYFRAME };
        let mut chunk = log.next(flags, 0, ops.body());
        chunk.part = u16::try_from(slot).unwrap_or(0);
        chunk.digest = (sum as u32).to_le_bytes();
        chunks.push(log.push(&chunk));
    }
    chunks
}

fn a_keyframe_of_many_parts(cx: &mut Context<'_>) -> Checked {
    decodes(cx, "LOG-005: three parts", |log| {
        let mut chunks = parts(log, 3, |sum| sum);
        // Every row goes away again, so that the log's own empty table is the sum.
        let mut ops = delta(log);
        for slot in 0..3 {
            ops.remove(SERVICE, slot, base(log.next_seq()), &Vec::new());
        }
        chunks.push(take(log, 3, ops));
        chunks.push(log.delta());
        chunks
    })?;
    decodes(cx, "LOG-005: a keyframe without the rows of the one before", |log| {
        let mut chunks = parts(log, 2, |sum| sum);
        chunks.extend([log.keyframe(), log.delta()]);
        chunks
    })
}

fn a_broken_keyframe_does_not_decode(cx: &mut Context<'_>) -> Checked {
    // Whether that does not decode or differs, the page leaves open (DLV-012).
    for bit in [0, 31, 32, 40, 63] {
        let what = format!("LOG-005: an end whose digest differs in bit {bit}");
        brings_a_resync(cx, &what, |log| parts(log, 2, |sum| sum ^ (1 << bit)))?;
    }
    brings_a_resync(cx, "LOG-005: an end that counts other rows", |log| {
        let mut ops = log.opened();
        ops.keyframe_end(1, 0);
        let chunk = log.next(KEYFRAME | KEYFRAME_LAST, 0, ops.body());
        vec![log.push(&chunk)]
    })?;
    does_not_decode(cx, "ENC-010: an op behind the keyframe's end", |log| {
        let mut ops = log.opened();
        ops.keyframe_end(0, 0);
        ops.put(SERVICE, 0, base(log.next_seq()), &service("ssh", "active"));
        let chunk = log.next(KEYFRAME | KEYFRAME_LAST, 0, ops.body());
        vec![log.push(&chunk)]
    })?;
    does_not_decode(cx, "LOG-005: a part is missing", |log| {
        let mut chunks = parts(log, 2, |sum| sum);
        chunks.truncate(1);
        log.chunks.truncate(1);
        log.chains.truncate(2);
        let mut ops = OpWriter::new(base(log.next_seq()));
        ops.keyframe_end(1, 0);
        let mut chunk = log.next(KEYFRAME | KEYFRAME_LAST, 0, ops.body());
        chunk.part = 2;
        chunks.push(log.push(&chunk));
        chunks
    })?;
    does_not_decode(cx, "LOG-005: a delta between the parts", |log| {
        let mut whole = log.clone();
        let first = parts(&mut whole, 2, |sum| sum).swap_remove(0);
        vec![log.push(&first), log.delta()]
    })
}

fn digests_are_compared_but_in_keyframes(cx: &mut Context<'_>) -> Checked {
    decodes(cx, "LOG-023: other digests in the parts of a keyframe", |log| {
        let mut chunks = Vec::new();
        for mut chunk in parts(&mut log.clone(), 2, |sum| sum) {
            chunk.digest = [0xd1; 4];
            chunks.push(log.push(&chunk));
        }
        chunks.extend([log.keyframe(), log.delta()]);
        chunks
    })?;
    for flags in [0, SELF_CONTAINED] {
        let what = format!("LOG-023: another digest in a chunk with flags {flags}");
        let reason = brings_a_resync(cx, &what, |log| {
            let first = log.keyframe();
            let row = log.put(1, "ssh", "active");
            let mut next = log.clone();
            let mut chunk = if flags == 0 { next.delta() } else { next.fact() };
            chunk.digest[0] ^= 1;
            vec![first, row, log.push(&chunk)]
        })?;
        equal!(reason, ResyncReason::DigestDiffers, "{what}: the reason of the Resync");
    }
    Ok(())
}
