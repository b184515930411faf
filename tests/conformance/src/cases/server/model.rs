//! Kinds that the sensor defines, and what the model asks of rows.

use super::case;
use super::context::Context;
use super::steps::{decodes, does_not_decode};
use crate::cases::{Case, Checked};
use crate::play::log::{Log, base};
use crate::wire::chunk::{Chunk, SELF_CONTAINED};
use crate::wire::model::{
    DNS, Definition, FeatureSpec, Nature, PROCESS, Role, SERVICE, Scope, Type,
};
use crate::wire::op::{Fields, OpWriter, Reference, Text, Value};
use crate::wire::primitive::Items;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    case(
        "kinds_of_an_agents_own",
        &["MOD-006", "MOD-007", "MOD-008", "MOD-002"],
        "A kind from 0x8000 on decodes behind its Define, as rows, events and references.",
        kinds_of_an_agents_own,
    ),
    case(
        "an_undefined_kind_does_not_decode",
        &["MOD-007", "MOD-006"],
        "Without a Define before it, or in another self-contained chunk, a kind does not decode.",
        an_undefined_kind_does_not_decode,
    ),
    case(
        "an_impossible_definition_does_not_decode",
        &["MOD-007", "MOD-003", "LIM-023"],
        "Features that do not ascend, are beyond 63, names that cannot be, a key of type Ref.",
        an_impossible_definition_does_not_decode,
    ),
    case(
        "a_definition_may_be_said_again",
        &["MOD-007"],
        "The same definition again, as each self-contained chunk must have it, changes nothing.",
        a_definition_may_be_said_again,
    ),
    case(
        "definitions_are_bounded",
        &["LIM-027", "MOD-007"],
        "Sixty-four definitions decode, one more does not.",
        definitions_are_bounded,
    ),
    case(
        "a_row_has_its_key",
        &["MOD-003"],
        "A Put without a key feature does not decode.",
        a_row_has_its_key,
    ),
    case(
        "values_are_bytes",
        &["MOD-004", "ENC-005", "CHN-005"],
        "Text that is no UTF-8 and a hash of any length decode.",
        values_are_bytes,
    ),
];

const OWN: u16 = 0x8000;

fn spec(feature: u16, name: &str, value_type: Type, role: Role) -> FeatureSpec {
    FeatureSpec { feature, name: name.into(), value_type, role }
}

/// A state kind of an agent's own, with a key and one feature of every other type.
fn own(kind: u16) -> Definition {
    let features = vec![
        spec(3, "name", Type::Text, Role::Key),
        spec(4, "level", Type::I64, Role::Property),
        spec(5, "of", Type::Ref, Role::Property),
        spec(63, "raw", Type::Bytes, Role::Property),
    ];
    Definition {
        kind,
        name: "own_kind".into(),
        nature: Nature::State,
        scope: Scope::Machine,
        features: Items(features),
    }
}

fn named(name: &str) -> Fields {
    vec![(3, Value::text(name))]
}

/// A self-contained chunk of these ops.
fn alone(log: &mut Log, count: u64, write: impl FnOnce(&mut OpWriter, u64)) -> Chunk {
    let mut ops = log.opened();
    write(&mut ops, base(log.next_seq()));
    let chunk = log.next(SELF_CONTAINED, count, ops.body());
    log.push(&chunk)
}

fn kinds_of_an_agents_own(cx: &mut Context<'_>) -> Checked {
    decodes(cx, "MOD-007: a kind behind its Define", |log| {
        let first = log.keyframe();
        let mut ops = OpWriter::new(base(log.next_seq()));
        let time = base(log.next_seq());
        ops.define(&own(OWN));
        let mut happened = own(OWN + 1);
        happened.nature = Nature::Event;
        happened.name = "own_event".into();
        happened.features.0[0].role = Role::Property;
        ops.define(&happened);
        ops.put(OWN, 1, time, &vec![(3, Value::text("a")), (4, Value::I64(-5))]);
        let key = vec![1, b'a'];
        let whole = vec![
            (3, Value::text("b")),
            (5, Value::Ref(Reference::Full(OWN, key))),
            (63, Value::Text(Text::Full(vec![0, 255]))),
        ];
        ops.put(OWN, 2, time, &whole);
        ops.event(OWN + 1, time, &vec![(5, Value::Ref(Reference::Slot(2)))]);
        ops.remove(OWN, 1, time, &Vec::new());
        ops.forget(2);
        let chunk = log.next(0, 5, ops.body());
        let chunk = log.push(&chunk);
        let mut chunks = vec![first, chunk];
        // In force for the rest of the segment.
        let mut ops = OpWriter::new(base(log.next_seq()));
        ops.put(OWN, 1, base(log.next_seq()), &named("c"));
        ops.forget(1);
        let chunk = log.next(0, 2, ops.body());
        chunks.push(log.push(&chunk));
        chunks
    })
}

fn an_undefined_kind_does_not_decode(cx: &mut Context<'_>) -> Checked {
    does_not_decode(cx, "MOD-007: a kind without a Define", |log| {
        vec![alone(log, 1, |ops, time| ops.put(OWN, 1, time, &named("a")))]
    })?;
    does_not_decode(cx, "MOD-007: a Define behind the op that needs it", |log| {
        vec![alone(log, 1, |ops, time| {
            ops.put(OWN, 1, time, &named("a"));
            ops.define(&own(OWN));
        })]
    })
}

fn an_impossible_definition_does_not_decode(cx: &mut Context<'_>) -> Checked {
    type Change = fn(&mut Definition);
    let wrong: [(&str, Change); 7] = [
        ("features that do not ascend", |of| of.features.0.swap(0, 1)),
        ("a feature twice", |of| of.features.0[1].feature = 3),
        ("a feature of 64", |of| of.features.0[3].feature = 64),
        ("a feature below 3", |of| of.features.0[0].feature = 2),
        ("an empty name", |of| of.name.clear()),
        ("a name in capitals", |of| of.name = "Own".into()),
        ("a feature's name with a blank", |of| of.features.0[1].name = "a b".into()),
    ];
    for (what, change) in wrong {
        let mut definition = own(OWN);
        change(&mut definition);
        does_not_decode(cx, &format!("MOD-007: {what}"), |log| {
            vec![alone(log, 1, |ops, time| {
                ops.define(&definition);
                ops.put(OWN, 1, time, &named("a"));
            })]
        })?;
    }
    let mut definition = own(OWN);
    definition.features.0[2].role = Role::Key;
    does_not_decode(cx, "MOD-003: a key of type Ref", |log| {
        vec![alone(log, 1, |ops, time| {
            ops.define(&definition);
            let of = Value::Ref(Reference::Full(SERVICE, vec![1, b's']));
            ops.put(OWN, 1, time, &vec![(3, Value::text("a")), (5, of)]);
        })]
    })
}

fn a_definition_may_be_said_again(cx: &mut Context<'_>) -> Checked {
    decodes(cx, "MOD-007: a definition said again", |log| {
        let mut define = |name: &str| {
            alone(log, 2, |ops, time| {
                ops.define(&own(OWN));
                ops.put(OWN, 1, time, &named(name));
                ops.forget(1);
            })
        };
        vec![define("a"), define("b")]
    })
}

fn definitions_are_bounded(cx: &mut Context<'_>) -> Checked {
    let define = |ops: &mut OpWriter, count: u16| {
        (0..count).for_each(|number| ops.define(&own(OWN + number)));
    };
    let chunk = |log: &mut Log, count: u16| {
        alone(log, 1, |ops, time| {
            define(ops, count);
            ops.event(DNS, time, &vec![(3, Value::text("h.example"))]);
        })
    };
    decodes(cx, "LIM-027: sixty-four definitions", |log| vec![chunk(log, 64)])?;
    does_not_decode(cx, "LIM-027: sixty-five definitions", |log| vec![chunk(log, 65)])
}

fn a_row_has_its_key(cx: &mut Context<'_>) -> Checked {
    does_not_decode(cx, "MOD-003: a process without its start", |log| {
        vec![alone(log, 1, |ops, time| ops.put(PROCESS, 1, time, &vec![(3, Value::U64(7))]))]
    })
}

fn values_are_bytes(cx: &mut Context<'_>) -> Checked {
    decodes(cx, "MOD-004: bytes that are no text, hashes", |log| {
        let bytes = |bytes: Vec<u8>| Value::Text(Text::Full(bytes));
        vec![alone(log, 5, |ops, time| {
            ops.event(DNS, time, &vec![(3, bytes(vec![0xff, 0, 0xc3]))]);
            for (pid, length) in [(1, 16), (2, 20)] {
                let fields =
                    vec![(3, Value::U64(pid)), (4, Value::U64(1)), (10, bytes(vec![7; length]))];
                ops.put(PROCESS, pid, time, &fields);
                ops.remove(PROCESS, pid, time, &fields[..2].to_vec());
            }
        })]
    })
}
