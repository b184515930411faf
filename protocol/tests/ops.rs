//! Laws of chunk encoding 1 for any facts: what is written is read, whatever the writer chooses to
//! write in full or by slot, and no bytes make the reader panic.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::net::IpAddr;

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::element::{
    Feature, FeatureSpec, Field, Kind, KindSpec, MODEL, Nature, Reference, Role, Scope, Type, Value,
};
use lapwing_protocol::error::{DecodeError, from_bytes};
use lapwing_protocol::frame::{Frame, FrameKind};
use lapwing_protocol::message::Message;
use lapwing_protocol::op::{
    Compressor, DropReason, Op, OpReader, OpWriter, Preamble, RawString, RawValue, RowChange,
    StringChoice, op_bytes_max, string_value,
};
use lapwing_protocol::row;
use proptest::collection::vec;
use proptest::prelude::*;

/// One feature of every type, and the common ones.
const FEATURES: [FeatureSpec<'static>; 9] = [
    feature(3, Type::U64),
    feature(4, Type::I64),
    feature(5, Type::Bool),
    feature(6, Type::Bytes),
    feature(7, Type::Text),
    feature(8, Type::Ip),
    feature(9, Type::Hash),
    feature(10, Type::Time),
    feature(63, Type::Ref),
];

const fn feature(number: u16, value_type: Type) -> FeatureSpec<'static> {
    FeatureSpec { feature: Feature(number), name: "feature", value_type, role: Role::Property }
}

fn spec(kind: Kind) -> KindSpec<'static> {
    KindSpec {
        kind,
        name: "any",
        nature: Nature::Event,
        scope: Scope::Machine,
        features: &FEATURES,
    }
}

/// A value that owns its bytes.
#[derive(Clone, Debug)]
enum Owned {
    Number(u64),
    Signed(i64),
    Bool(bool),
    Bytes(Vec<u8>),
    Ip(IpAddr),
    Ref(u16, Vec<u8>),
}

/// The fields of one op, by feature.
type Fields = Vec<(u16, Owned)>;

#[derive(Clone, Debug)]
enum Written {
    Row(u8, u32, u16, u64, Fields),
    Event(u16, u64, Fields),
    Forget(u32),
    Dropped(u64),
    Preamble(u64, u32),
    KeyframeEnd(u64, u64),
}

/// Chooses as the script says; what it names by slot it has defined before.
struct Scripted<'s> {
    choices: &'s [u8],
    next: usize,
    strings: Vec<Option<Vec<u8>>>,
    rows: &'s [(u16, Vec<u8>)],
}

impl Scripted<'_> {
    fn choice(&mut self) -> u8 {
        self.next += 1;
        self.choices[self.next % self.choices.len()]
    }
}

impl Compressor for Scripted<'_> {
    fn string(&mut self, bytes: &[u8]) -> StringChoice {
        let choice = usize::from(self.choice());
        if choice % 3 == 0 || bytes.len() > 255 {
            return StringChoice::Literal;
        }
        let known = self.strings.iter().position(|held| held.as_deref() == Some(bytes));
        if let (Some(slot), 1) = (known, choice % 3) {
            return StringChoice::Slot(slot as u32);
        }
        let slot = choice * 16;
        self.strings.resize(self.strings.len().max(slot + 1), None);
        self.strings[slot] = Some(bytes.to_vec());
        StringChoice::Define(slot as u32)
    }

    fn row(&mut self, reference: Reference<'_>) -> Option<u32> {
        let known =
            |(kind, key): &(u16, Vec<u8>)| *kind == reference.kind.0 && key == reference.key;
        let slot = self.rows.iter().position(known)?;
        self.choice().is_multiple_of(2).then_some(slot as u32)
    }
}

fn value_of(feature: u16, owned: &Owned) -> Value<'_> {
    match owned {
        Owned::Number(number) if feature == 10 => Value::Time(*number),
        Owned::Number(number) => Value::U64(*number),
        Owned::Signed(number) => Value::I64(*number),
        Owned::Bool(value) => Value::Bool(*value),
        Owned::Bytes(bytes) if feature == 6 => Value::Bytes(bytes),
        Owned::Bytes(bytes) if feature == 7 => Value::Text(bytes),
        Owned::Bytes(bytes) => Value::Hash(bytes),
        Owned::Ip(address) => Value::Ip(*address),
        Owned::Ref(kind, key) => Value::Ref(Reference { kind: Kind(*kind), key }),
    }
}

fn fields_of(fields: &Fields) -> Vec<Field<'_>> {
    let owned = fields.iter();
    owned.map(|(number, value)| Field::new(Feature(*number), value_of(*number, value))).collect()
}

fn any_fields() -> impl Strategy<Value = Fields> {
    let bytes = || prop_oneof![vec(any::<u8>(), 0..6), vec(any::<u8>(), 250..300)];
    let key = vec(any::<u8>(), 0..4);
    (
        proptest::option::of(any::<u64>()),
        proptest::option::of(any::<u64>()),
        proptest::option::of(any::<i64>()),
        proptest::option::of(any::<bool>()),
        proptest::option::of(bytes()),
        proptest::option::of(bytes()),
        proptest::option::of(any::<IpAddr>()),
        proptest::option::of(bytes()),
        proptest::option::of(any::<u64>()),
        proptest::option::of((0..4u16, key)),
    )
        .prop_map(|it| {
            let all = [
                (0, it.0.map(Owned::Number)),
                (3, it.1.map(Owned::Number)),
                (4, it.2.map(Owned::Signed)),
                (5, it.3.map(Owned::Bool)),
                (6, it.4.map(Owned::Bytes)),
                (7, it.5.map(Owned::Bytes)),
                (8, it.6.map(Owned::Ip)),
                (9, it.7.map(Owned::Bytes)),
                (10, it.8.map(Owned::Number)),
                (63, it.9.map(|(kind, key)| Owned::Ref(kind, key))),
            ];
            let named = all.into_iter().filter_map(|(feature, value)| Some((feature, value?)));
            named.collect()
        })
}

fn any_op() -> impl Strategy<Value = Written> {
    let kind = prop_oneof![0..40u16, any::<u16>()];
    prop_oneof![
        4 => (0..3u8, any::<u32>(), kind.clone(), any::<u64>(), any_fields())
            .prop_map(|(change, slot, kind, time, fields)| {
                Written::Row(change, slot, kind, time, fields)
            }),
        3 => (kind, any::<u64>(), any_fields())
            .prop_map(|(kind, time, fields)| Written::Event(kind, time, fields)),
        1 => any::<u32>().prop_map(Written::Forget),
        1 => any::<u64>().prop_map(Written::Dropped),
        1 => (any::<u64>(), 0..4_097u32).prop_map(|(wall, slots)| Written::Preamble(wall, slots)),
        1 => (any::<u64>(), any::<u64>())
            .prop_map(|(rows, digest)| Written::KeyframeEnd(rows, digest)),
    ]
}

const CHANGES: [RowChange; 3] = [RowChange::Put, RowChange::Patch, RowChange::Remove];

fn write(ops: &[Written], base_ns: u64, compressor: &mut Scripted<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 16];
    let mut length = 0;
    let mut state = OpWriter::new(&mut buffer, base_ns).state();
    for op in ops {
        // Each op by a writer of its own, which goes on where the last one ended.
        let mut writer = OpWriter::resume(&mut buffer, length, state);
        match op {
            Written::Row(change, slot, kind, time, fields) => {
                let (head, fields) = ((Kind(*kind), *time), fields_of(fields));
                let change = CHANGES[usize::from(*change)];
                writer.row(change, *slot, head, &fields, compressor).unwrap();
                let written = writer.written().len() - length;
                assert!(written <= op_bytes_max(&fields), "{written} bytes");
            }
            Written::Event(kind, time, fields) => {
                let fields = fields_of(fields);
                writer.event((Kind(*kind), *time), &fields, compressor).unwrap();
                let written = writer.written().len() - length;
                assert!(written <= op_bytes_max(&fields), "{written} bytes");
            }
            Written::Forget(slot) => writer.forget(*slot).unwrap(),
            Written::Dropped(count) => writer.dropped(*count, DropReason::TooLarge).unwrap(),
            Written::Preamble(wall_ms, string_slots) => {
                let boot = lapwing_protocol::id::BootId([9; 16]);
                let preamble = Preamble { boot, wall_ms: *wall_ms, string_slots: *string_slots };
                writer.preamble(&preamble).unwrap();
            }
            Written::KeyframeEnd(rows, digest) => writer.keyframe_end(*rows, *digest).unwrap(),
        }
        (length, state) = (writer.written().len(), writer.state());
    }
    buffer.truncate(length);
    buffer
}

/// Reads the fields of the current op and holds them against those that were written.
fn hold_fields(
    reader: &mut OpReader<'_>,
    (kind, expected): (Kind, &Fields),
    strings: &mut Vec<Option<Vec<u8>>>,
    rows: &[(u16, Vec<u8>)],
) {
    for field in fields_of(expected) {
        let (feature, raw) = reader.field(&spec(kind)).unwrap().unwrap();
        assert_eq!(feature, field.feature);
        match raw {
            RawValue::Plain(value) => assert_eq!(value, field.value),
            RawValue::Row(slot) => {
                let (kind, key) = &rows[slot as usize];
                assert_eq!(Value::Ref(Reference { kind: Kind(*kind), key }), field.value);
            }
            RawValue::String(value_type, string) => {
                let bytes = match string {
                    RawString::Literal(bytes) => bytes.to_vec(),
                    RawString::Slot(slot) => strings[slot as usize].clone().unwrap(),
                    RawString::Define(slot, bytes) => {
                        let slot = slot as usize;
                        strings.resize(strings.len().max(slot + 1), None);
                        strings[slot] = Some(bytes.to_vec());
                        bytes.to_vec()
                    }
                };
                assert_eq!(string_value(value_type, &bytes), Ok(field.value));
            }
        }
    }
    assert_eq!(reader.field(&spec(kind)), Ok(None));
}

fn hold_op(
    reader: &mut OpReader<'_>,
    expected: &Written,
    strings: &mut Vec<Option<Vec<u8>>>,
    rows: &[(u16, Vec<u8>)],
) {
    let op = reader.op().unwrap().unwrap();
    match (op, expected) {
        (Op::Row { change, slot, kind, time_ns }, Written::Row(of, at, number, time, fields)) => {
            assert_eq!((change, slot), (CHANGES[usize::from(*of)], *at));
            assert_eq!((kind.0, time_ns), (*number, *time));
            hold_fields(reader, (kind, fields), strings, rows);
        }
        (Op::Event { kind, time_ns }, Written::Event(number, time, fields)) => {
            assert_eq!((kind.0, time_ns), (*number, *time));
            hold_fields(reader, (kind, fields), strings, rows);
        }
        (Op::Forget(slot), Written::Forget(at)) => assert_eq!(slot, *at),
        (Op::Dropped { count, reason }, Written::Dropped(of)) => {
            assert_eq!((count, reason), (*of, DropReason::TooLarge));
        }
        (Op::Preamble(preamble), Written::Preamble(wall_ms, slots)) => {
            assert_eq!((preamble.wall_ms, preamble.string_slots), (*wall_ms, *slots));
        }
        (Op::KeyframeEnd { rows, digest }, Written::KeyframeEnd(of, sum)) => {
            assert_eq!((rows, digest), (*of, *sum));
        }
        (op, expected) => panic!("{expected:?} came back as {op:?}"),
    }
}

/// Reads all of a body as if every kind had the features of [`FEATURES`].
fn read_all(body: &[u8], base_ns: u64) -> Result<(), DecodeError> {
    let mut reader = OpReader::new(body, base_ns);
    while let Some(op) = reader.op()? {
        if let Op::Row { kind, .. } | Op::Event { kind, .. } = op {
            while reader.field(&spec(kind))?.is_some() {}
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        ops in vec(any_op(), 0..12),
        base_ns in any::<u64>(),
        choices in vec(any::<u8>(), 1..9),
        rows in vec((0..4u16, vec(any::<u8>(), 0..4)), 0..5),
    ) {
        let mut compressor =
            Scripted { choices: &choices, next: 0, strings: Vec::new(), rows: &rows };
        let body = write(&ops, base_ns, &mut compressor);
        let mut reader = OpReader::new(&body, base_ns);
        let mut strings = Vec::new();
        for op in &ops {
            hold_op(&mut reader, op, &mut strings, &rows);
        }
        prop_assert_eq!(reader.op(), Ok(None));
        prop_assert_eq!(read_all(&body, base_ns), Ok(()));
    }

    #[test]
    fn a_row_is_read_as_it_was_written(fields in any_fields()) {
        let fields = fields_of(&fields);
        let mut buffer = vec![0; 1 << 14];
        let bytes = row::write(&fields, &mut buffer).unwrap();
        let of = spec(Kind(1));
        let back: Result<Vec<_>, _> = row::Fields::new(bytes, &of).unwrap().collect();
        let kept = fields.iter().filter(|field| field.feature != Feature::SOURCE_SEQ);
        prop_assert_eq!(back, Ok(kept.copied().collect()));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(body in vec(any::<u8>(), 0..300), base_ns in any::<u64>()) {
        let _ = read_all(&body, base_ns);
        let _ = Chunk::decode(&body);
        for kind in 0..20 {
            let frame = Frame { kind: FrameKind(kind), skippable: false, body: &body };
            let _ = Message::decode(&frame);
        }
        for spec in MODEL {
            if let Ok(fields) = row::Fields::new(&body, spec) {
                fields.for_each(drop);
            }
        }
    }

    #[test]
    fn a_changed_byte_of_a_body_is_no_panic(
        ops in vec(any_op(), 1..8),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut compressor =
            Scripted { choices: &[1, 2, 0], next: 0, strings: Vec::new(), rows: &[] };
        let mut body = write(&ops, 7, &mut compressor);
        let place = place.index(body.len());
        body[place] = byte;
        let _ = read_all(&body, 7);
        let _ = from_bytes::<Chunk<'_>>(&body);
    }
}
