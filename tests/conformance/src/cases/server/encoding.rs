//! Chunk encoding 1: what decodes, and what is stored without being decoded.
//!
//! Not here: keyframes (`keyframes.rs`). Whether a chunk decoded is seen by the Resync that it
//! brings or does not bring (`steps::decodes`).

use super::case;
use super::context::Context;
use super::steps::{decodes, does_not_decode};
use crate::cases::{Case, Checked};
use crate::play::log::{BOOT, Log, WALL_MS, base, service};
use crate::wire::chunk::{Chunk, KEYFRAME, KEYFRAME_LAST, SELF_CONTAINED};
use crate::wire::model::{DNS, PROCESS, SERVICE};
use crate::wire::op::{Fields, OpWriter, Reference, Text, Value};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "every_form_of_op_decodes",
        &["ENC-001", "ENC-003", "ENC-005", "ENC-006", "ENC-007", "CHN-004", "LOG-023"],
        "Put, Patch, Remove, Forget, Event, strings in slots and references decode, and the digest \
         agrees.",
        every_form_of_op_decodes,
    ),
    case(
        "varints_must_be_shortest_in_chunks",
        &["ENC-002", "FRM-011"],
        "A varint of a longer form than need be does not decode.",
        varints_must_be_shortest_in_chunks,
    ),
    case(
        "the_count_must_be_the_sum",
        &["ENC-003"],
        "A chunk whose count is not what its ops stand for does not decode.",
        the_count_must_be_the_sum,
    ),
    case(
        "the_preamble_comes_first",
        &["ENC-004"],
        "A chunk that opens without one, or one that has it elsewhere, does not decode.",
        the_preamble_comes_first,
    ),
    case(
        "string_slots_are_bounded",
        &["ENC-005", "LIM-024", "LIM-025"],
        "A slot that was not filled, is beyond the preamble's, or holds 256 bytes, does not decode.",
        string_slots_are_bounded,
    ),
    case(
        "string_slots_begin_empty_in_a_segment",
        &["ENC-005", "LOG-005"],
        "What a slot held before a keyframe is gone behind it.",
        string_slots_begin_empty_in_a_segment,
    ),
    case(
        "references_by_slot",
        &["ENC-006"],
        "A reference to an empty slot or to the slot of its own Put does not decode.",
        references_by_slot,
    ),
    case(
        "patch_and_remove_need_their_row",
        &["ENC-007", "ENC-008"],
        "A Patch of an empty slot or another kind does not decode; a Remove with its key does.",
        patch_and_remove_need_their_row,
    ),
    case(
        "ops_that_speak_of_no_kind",
        &["ENC-009"],
        "A kind there, an operation 7 of kind 2, an unknown reason or feature do not decode.",
        ops_that_speak_of_no_kind,
    ),
    case(
        "a_chunk_is_all_or_nothing",
        &["ENC-010", "DLV-012"],
        "After an error nothing decodes until a chunk opens; that one decodes.",
        a_chunk_is_all_or_nothing,
    ),
    case(
        "rows_and_values_are_bounded",
        &["LIM-020", "LIM-022", "LIM-026", "LOG-009"],
        "A value of 4,096 bytes decodes and one more does not; so a slot at rows_max.",
        rows_and_values_are_bounded,
    ),
    case(
        "self_contained_chunks_stand_alone",
        &["LOG-007", "LOG-008", "ENC-008"],
        "Rows and events of a self-contained chunk decode without a keyframe.",
        self_contained_chunks_stand_alone,
    ),
];

/// Ops of a delta that would be the next chunk.
pub(super) fn delta(log: &Log) -> OpWriter {
    OpWriter::new(base(log.next_seq()))
}

/// Takes a delta of `count` facts into the log; its digest is the log's.
pub(super) fn take(log: &mut Log, count: u64, ops: OpWriter) -> Chunk {
    let chunk = log.next(0, count, ops.body());
    log.push(&chunk)
}

fn text(text: &str) -> Value {
    Value::text(text)
}

fn every_form_of_op_decodes(cx: &mut Context<'_>) -> Checked {
    decodes(cx, "ENC-005: strings in slots", |log| {
        let first = log.keyframe();
        let mut ops = delta(log);
        let kept = |slot, text: &str| Value::Text(Text::Kept(slot, text.into()));
        let time = base(log.next_seq());
        ops.event(DNS, time, &vec![(0, Value::U64(9)), (3, kept(15, "a.example"))]);
        ops.event(DNS, time - 7, &vec![(0, Value::U64(3)), (3, Value::Text(Text::Slot(15)))]);
        ops.event(DNS, u64::MAX, &vec![(3, kept(15, "b.example")), (8, ip(&[127, 0, 0, 1]))]);
        ops.event(DNS, 0, &vec![(8, ip(&[0; 16])), (10, Value::Text(Text::Slot(15)))]);
        vec![first, take(log, 4, ops), log.delta()]
    })?;
    // Rows come and go; what is left at the end is what the log itself counts: one service.
    decodes(cx, "ENC-007: rows in slots", |log| {
        let mut chunks = vec![log.keyframe()];
        let mut ops = delta(log);
        let time = base(log.next_seq());
        ops.put(PROCESS, 7, time, &process(1, None));
        ops.put(PROCESS, 8, time, &process(2, Some(Reference::Slot(7))));
        ops.patch(PROCESS, 8, time, &vec![(14, Value::I64(-9)), (21, Value::Bool(true))]);
        ops.put(PROCESS, 9, time, &process(3, Some(Reference::Full(PROCESS, vec![1, 101]))));
        ops.event(DNS, time, &vec![(3, text("c.example")), (7, Value::Ref(Reference::Slot(8)))]);
        ops.remove(PROCESS, 8, time, &vec![(15, Value::Time(time))]);
        ops.remove(PROCESS, 7, time, &Vec::new());
        ops.forget(9);
        chunks.push(take(log, 8, ops));
        chunks.extend([log.put(1, "ssh", "active"), log.put(1, "ssh", "failed"), log.delta()]);
        chunks
    })
}

fn ip(bytes: &[u8]) -> Value {
    Value::Text(Text::Full(bytes.to_vec()))
}

/// A process with every type of feature that it can have.
fn process(pid: u64, parent: Option<Reference>) -> Fields {
    let mut fields = vec![(3, Value::U64(pid)), (4, Value::U64(pid + 100))];
    fields.extend(parent.map(|parent| (5, Value::Ref(parent))));
    fields.extend([
        (6, text("/bin/true")),
        (10, Value::Text(Text::Full(vec![7; 32]))),
        (13, Value::Time(5)),
    ]);
    fields
}

/// A keyframe and a delta whose body is `body`.
fn with_body(log: &mut Log, count: u64, body: Vec<u8>) -> Vec<Chunk> {
    let first = log.keyframe();
    let chunk = log.next(0, count, body);
    vec![first, log.push(&chunk)]
}

fn varints_must_be_shortest_in_chunks(cx: &mut Context<'_>) -> Checked {
    // dropped, 1 fact, reason 0; the count once as it should be and twice too long.
    decodes(cx, "a Dropped op of one fact", |log| with_body(log, 1, vec![6, 1, 0]))?;
    for body in [vec![6, 0x81, 0, 0], vec![6, 1, 0x80, 0]] {
        does_not_decode(cx, "ENC-002: a varint with a byte too many", |log| {
            with_body(log, 1, body)
        })?;
    }
    does_not_decode(cx, "ENC-002: a kind below 31 behind 31", |log| {
        let mut ops = delta(log);
        ops.raw(&[4 | 31 << 3, 6, 0, 8]);
        ops.raw(&[0, 1, b'x']);
        with_body(log, 1, ops.body())
    })
}

fn the_count_must_be_the_sum(cx: &mut Context<'_>) -> Checked {
    for count in [0, 2, 1_000] {
        does_not_decode(cx, &format!("ENC-003: one event, and a count of {count}"), |log| {
            let first = log.keyframe();
            let mut chunk = log.clone().delta();
            chunk.count = count;
            vec![first, log.push(&chunk)]
        })?;
    }
    does_not_decode(cx, "ENC-003: a keyframe that counts its Puts", |log| {
        let mut chunk = log.clone().keyframe();
        chunk.count = 1;
        vec![log.push(&chunk)]
    })
}

fn the_preamble_comes_first(cx: &mut Context<'_>) -> Checked {
    let event = |ops: &mut OpWriter, log: &Log| {
        ops.event(DNS, base(log.next_seq()), &vec![(3, text("d.example"))]);
    };
    does_not_decode(cx, "ENC-004: a chunk that opens without a preamble", |log| {
        let mut ops = delta(log);
        event(&mut ops, log);
        let chunk = log.next(SELF_CONTAINED, 1, ops.body());
        vec![log.push(&chunk)]
    })?;
    does_not_decode(cx, "ENC-004: a preamble behind an event", |log| {
        let mut ops = delta(log);
        event(&mut ops, log);
        ops.preamble(BOOT, WALL_MS, 0);
        let chunk = log.next(SELF_CONTAINED, 1, ops.body());
        vec![log.push(&chunk)]
    })?;
    does_not_decode(cx, "ENC-004: a second preamble", |log| {
        let mut ops = log.opened();
        event(&mut ops, log);
        ops.preamble(BOOT, WALL_MS, 16);
        let chunk = log.next(SELF_CONTAINED, 1, ops.body());
        vec![log.push(&chunk)]
    })?;
    does_not_decode(cx, "ENC-004: a preamble in a chunk that does not open", |log| {
        let first = log.keyframe();
        let mut ops = delta(log);
        ops.preamble(BOOT, WALL_MS, 0);
        event(&mut ops, log);
        let chunk = log.next(0, 1, ops.body());
        vec![first, log.push(&chunk)]
    })
}

/// A self-contained chunk of one event whose question is `value`; `slots` string slots.
fn question(log: &mut Log, slots: u64, values: Vec<Value>) -> Vec<Chunk> {
    let mut ops = OpWriter::new(base(log.next_seq()));
    ops.preamble(BOOT, WALL_MS, slots);
    let count = values.len() as u64;
    for value in values {
        ops.event(DNS, base(log.next_seq()), &vec![(3, value)]);
    }
    let chunk = log.next(SELF_CONTAINED, count, ops.body());
    vec![log.push(&chunk)]
}

fn string_slots_are_bounded(cx: &mut Context<'_>) -> Checked {
    let kept = |slot, length| Value::Text(Text::Kept(slot, vec![b'x'; length]));
    // In a keyframe's segment, where slots may be used.
    let segment = |log: &mut Log, slots, values: Vec<Value>| {
        let mut ops = OpWriter::new(base(log.next_seq()));
        ops.preamble(BOOT, WALL_MS, slots);
        ops.keyframe_end(0, 0);
        let first = log.next(KEYFRAME | KEYFRAME_LAST, 0, ops.body());
        let mut chunks = vec![log.push(&first)];
        let mut ops = delta(log);
        let count = values.len() as u64;
        for value in values {
            ops.event(DNS, base(log.next_seq()), &vec![(3, value)]);
        }
        chunks.push(take(log, count, ops));
        chunks
    };
    let slot = |slot| Value::Text(Text::Slot(slot));
    decodes(cx, "LIM-025: 255 bytes in the last slot of 4,096", |log| {
        segment(log, 4_096, vec![kept(4_095, 255), slot(4_095), kept(4_095, 0), slot(4_095)])
    })?;
    does_not_decode(cx, "ENC-005: a slot that was not filled", |log| {
        segment(log, 16, vec![kept(1, 3), slot(2)])
    })?;
    does_not_decode(cx, "ENC-005: a slot beyond the preamble's", |log| {
        segment(log, 16, vec![kept(16, 3)])
    })?;
    does_not_decode(cx, "LIM-025: 256 bytes in a slot", |log| {
        segment(log, 16, vec![kept(1, 256)])
    })?;
    does_not_decode(cx, "LIM-024: a preamble that wants 4,097 slots", |log| {
        question(log, 4_097, vec![text("e.example")])
    })
}

fn string_slots_begin_empty_in_a_segment(cx: &mut Context<'_>) -> Checked {
    does_not_decode(cx, "ENC-005: a slot of the segment before", |log| {
        let mut chunks = vec![log.keyframe()];
        let mut ops = delta(log);
        let kept = Value::Text(Text::Kept(3, b"f.example".to_vec()));
        ops.event(DNS, base(log.next_seq()), &vec![(3, kept)]);
        chunks.push(take(log, 1, ops));
        chunks.push(log.keyframe());
        let mut ops = delta(log);
        ops.event(DNS, base(log.next_seq()), &vec![(3, Value::Text(Text::Slot(3)))]);
        chunks.push(take(log, 1, ops));
        chunks
    })
}

fn references_by_slot(cx: &mut Context<'_>) -> Checked {
    decodes(cx, "ENC-006: in a keyframe before or after", |log| {
        let rows = [process(5, Some(Reference::Slot(1))), process(6, None)];
        let mut ops = log.opened();
        let mut sum = 0u64;
        for (slot, fields) in rows.iter().enumerate() {
            ops.put(PROCESS, slot as u64, base(log.next_seq()), fields);
            let mut of: std::collections::BTreeMap<u16, Value> = fields.iter().cloned().collect();
            if let Some(parent) = of.get_mut(&5) {
                *parent = Value::Ref(Reference::Full(PROCESS, vec![6, 106]));
            }
            sum = sum.wrapping_add(crate::wire::decode::row_digest(&log.log, PROCESS, &of));
        }
        ops.keyframe_end(2, sum);
        let chunk = log.next(KEYFRAME | KEYFRAME_LAST, 0, ops.body());
        let chunks = vec![log.push(&chunk)];
        let mut ops = delta(log);
        ops.forget(0);
        ops.forget(1);
        [chunks, vec![take(log, 2, ops), log.delta()]].concat()
    })?;
    for (what, slot) in [("an empty slot", 3), ("its own slot", 0)] {
        does_not_decode(cx, &format!("ENC-006: a reference to {what}"), |log| {
            let first = log.keyframe();
            let mut ops = delta(log);
            let fields = process(5, Some(Reference::Slot(slot)));
            ops.put(PROCESS, 0, base(log.next_seq()), &fields);
            vec![first, take(log, 1, ops)]
        })?;
    }
    Ok(())
}

fn patch_and_remove_need_their_row(cx: &mut Context<'_>) -> Checked {
    let broken = |log: &mut Log, act: &dyn Fn(&mut OpWriter, u64)| {
        let chunks = [log.keyframe(), log.put(1, "ssh", "active")];
        let mut ops = delta(log);
        act(&mut ops, base(log.next_seq()));
        [chunks.to_vec(), vec![take(log, 1, ops)]].concat()
    };
    let state = vec![(4, text("failed"))];
    does_not_decode(cx, "ENC-007: a Patch of an empty slot", |log| {
        broken(log, &|ops, time| ops.patch(SERVICE, 2, time, &state))
    })?;
    does_not_decode(cx, "ENC-007: a Patch of another kind", |log| {
        broken(log, &|ops, time| ops.patch(PROCESS, 1, time, &vec![(8, Value::U64(0))]))
    })?;
    does_not_decode(cx, "ENC-008: a Remove of an empty slot without a key", |log| {
        broken(log, &|ops, time| ops.remove(SERVICE, 2, time, &Vec::new()))
    })?;
    does_not_decode(cx, "ENC-007: a Forget of an empty slot", |log| {
        broken(log, &|ops, _| ops.forget(2))
    })
}

fn ops_that_speak_of_no_kind(cx: &mut Context<'_>) -> Checked {
    let cases: [(&str, u64, Vec<u8>); 7] = [
        ("a Forget of a kind", 1, vec![3 | 1 << 3, 0]),
        ("a Dropped of a kind", 1, vec![6 | 1 << 3, 1, 0]),
        ("a Define of a kind", 0, vec![5 | 1 << 3, 0]),
        ("an operation 7 of kind 2", 0, vec![7 | 2 << 3]),
        ("an unknown reason", 1, vec![6, 1, 6]),
        ("an unknown feature", 1, vec![4 | 6 << 3, 0, 0x80, 0x10, 0]),
        ("an unknown kind", 1, vec![4 | 12 << 3, 0, 8, 0]),
    ];
    for (what, count, body) in cases {
        does_not_decode(cx, &format!("ENC-009: {what}"), |log| with_body(log, count, body))?;
    }
    Ok(())
}

fn a_chunk_is_all_or_nothing(cx: &mut Context<'_>) -> Checked {
    use super::steps::{quiet, resync, store, undecodable};
    use crate::cases::equal;
    use crate::wire::message::Message;
    let (_sensor, mut log, mut link, _) = cx.bulk()?;
    let chunks = [log.keyframe(), log.put(1, "ssh", "active")];
    store(&mut link, &chunks)?;
    // A sound change and then nonsense: the change must not count. It is not in the log's table.
    let mut ops = delta(&log);
    ops.patch(SERVICE, 1, base(log.next_seq()), &vec![(4, text("failed"))]);
    ops.raw(&[0xff, 0xff]);
    let broken = take(&mut log, 1, ops);
    store(&mut link, std::slice::from_ref(&broken))?;
    equal!(resync(&mut link)?.at_seq, broken.seq, "ENC-010: the chunk that the Resync names");
    store(&mut link, &[log.delta(), log.keyframe(), log.put(2, "cron", "active")])?;
    store(&mut link, &[undecodable(&mut log)])?;
    quiet(&mut link, "LOG-010: more Resyncs within the minute", |message| {
        matches!(message, Message::Ack(_))
    })
}

fn rows_and_values_are_bounded(cx: &mut Context<'_>) -> Checked {
    let long = |length: usize| vec![text(&"x".repeat(length))];
    decodes(cx, "LIM-020: a value of 4,096 bytes", |log| question(log, 0, long(4_096)))?;
    does_not_decode(cx, "LIM-020: a value of 4,097 bytes", |log| question(log, 0, long(4_097)))?;
    let keyed = |log: &mut Log, length: usize| {
        let first = log.keyframe();
        let mut ops = delta(log);
        // The key of a service is its name: two bytes of length and the name.
        let fields = service(&"n".repeat(length), "active");
        ops.put(SERVICE, 1, base(log.next_seq()), &fields);
        ops.forget(1);
        vec![first, take(log, 2, ops), log.delta()]
    };
    decodes(cx, "LIM-022: a key of 320 bytes", |log| keyed(log, 318))?;
    does_not_decode(cx, "LIM-022: a key of 321 bytes", |log| {
        let mut chunks = keyed(log, 319);
        chunks.pop();
        log.chunks.pop();
        log.chains.pop();
        log.next_index -= 1;
        chunks
    })?;
    let rows_max = u64::from(cx.bulk()?.3.rows_max);
    let at = |log: &mut Log, slot: u64| {
        let first = log.keyframe();
        let mut ops = delta(log);
        ops.put(SERVICE, slot, base(log.next_seq()), &service("ssh", "active"));
        ops.forget(slot);
        vec![first, take(log, 2, ops)]
    };
    decodes(cx, "LOG-009: the last slot", |log| at(log, rows_max - 1))?;
    does_not_decode(cx, "LIM-026: a slot at rows_max", |log| at(log, rows_max))
}

fn self_contained_chunks_stand_alone(cx: &mut Context<'_>) -> Checked {
    decodes(cx, "LOG-007: rows in self-contained chunks", |log| {
        let mut ops = log.opened();
        let time = base(log.next_seq());
        ops.put(SERVICE, 0, time, &service("ssh", "active"));
        ops.event(DNS, time, &vec![(3, text("g.example"))]);
        ops.remove(SERVICE, 0, time, &service("ssh", "failed"));
        let chunk = log.next(SELF_CONTAINED, 3, ops.body());
        let mut chunks = vec![log.push(&chunk)];
        let mut ops = log.opened();
        // A Remove that carries its key, of a row that was never put.
        ops.remove(SERVICE, 5, base(log.next_seq()), &service("cron", "failed"));
        let chunk = log.next(SELF_CONTAINED, 1, ops.body());
        chunks.push(log.push(&chunk));
        chunks.push(log.fact());
        chunks
    })?;
    does_not_decode(cx, "ENC-008: a Remove without its key", |log| {
        let mut ops = log.opened();
        ops.remove(SERVICE, 5, base(log.next_seq()), &vec![(4, text("failed"))]);
        let chunk = log.next(SELF_CONTAINED, 1, ops.body());
        vec![log.push(&chunk)]
    })
}
