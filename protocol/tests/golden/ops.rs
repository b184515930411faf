//! Chunk encoding 1: every op, every type of value, every form of string and reference.

use core::net::IpAddr;

use lapwing_protocol::element::{
    Definition, Feature, FeatureSpec, Field, Kind, KindSpec, Nature, Reference, Role, Scope, Type,
    Value, connection, health, process, service, user,
};
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::op::{
    Compressor, DropReason, Literal, Op, OpReader, OpWriter, Preamble, RowChange, StringChoice,
};

use crate::book::{Book, items};
use crate::names::*;

const BASE_NS: u64 = 5_000_000_000;

/// Answers every question the same way.
struct Fixed(StringChoice, Option<u32>);

impl Compressor for Fixed {
    fn string(&mut self, _: &[u8]) -> StringChoice {
        self.0
    }
    fn row(&mut self, _: Reference<'_>) -> Option<u32> {
        self.1
    }
}

/// The bytes that `write` writes; each part of them is no whole body.
fn body_of(write: impl FnOnce(&mut OpWriter<'_>), spec: &KindSpec<'_>) -> Vec<u8> {
    let mut buffer = [0; 8192];
    let mut writer = OpWriter::new(&mut buffer, BASE_NS);
    write(&mut writer);
    let body = writer.written().to_vec();
    assert_eq!(read_all(&body, spec), Ok(()));
    for length in 1..body.len() {
        assert!(read_all(&body[..length], spec).is_err(), "{length} bytes are a body too");
    }
    body
}

fn read_all(body: &[u8], spec: &KindSpec<'_>) -> Result<(), DecodeError> {
    let mut reader = OpReader::new(body, BASE_NS);
    while reader.op()?.is_some() {
        while reader.field(spec)?.is_some() {}
    }
    Ok(())
}

#[test]
fn ops() {
    let mut book = Book::new("ops");
    let name = Field::new(service::name, Value::text("ssh"));
    let head = (service::KIND, BASE_NS + 300);
    for (label, change) in
        [("put", RowChange::Put), ("patch", RowChange::Patch), ("remove", RowChange::Remove)]
    {
        let write = |writer: &mut OpWriter<'_>| {
            writer.row(change, 300, head, &[name], &mut Literal).unwrap();
        };
        book.enter(label, &body_of(write, &service::SPEC));
    }
    let event = |writer: &mut OpWriter<'_>| {
        writer.event((service::KIND, BASE_NS - 1), &[name], &mut Literal).unwrap();
    };
    book.enter("event_one_nanosecond_before", &body_of(event, &service::SPEC));
    book.enter("forget", &body_of(|writer| writer.forget(300).unwrap(), &service::SPEC));
    for (label, reason) in [
        ("dropped_table_full", DropReason::TableFull),
        ("dropped_too_large", DropReason::TooLarge),
        ("dropped_spool_full", DropReason::SpoolFull),
        ("dropped_memory_full", DropReason::MemoryFull),
        ("dropped_spool_failed", DropReason::SpoolFailed),
        ("dropped_malformed", DropReason::Malformed),
    ] {
        let write = |writer: &mut OpWriter<'_>| writer.dropped(300, reason).unwrap();
        book.enter(label, &body_of(write, &service::SPEC));
    }
    let preamble = Preamble { boot: BOOT, wall_ms: WALL_MS, string_slots: 4_096 };
    let write = |writer: &mut OpWriter<'_>| writer.preamble(&preamble).unwrap();
    book.enter("preamble", &body_of(write, &service::SPEC));
    let write =
        |writer: &mut OpWriter<'_>| writer.keyframe_end(300, 0x0807_0605_0403_0201).unwrap();
    book.enter("keyframe_end", &body_of(write, &service::SPEC));
    book.close();
}

#[test]
fn kinds_and_definitions() {
    let mut book = Book::new("kinds");
    let features = items![FeatureSpec<'static>;
        FeatureSpec {
            feature: Feature(3),
            name: "number",
            value_type: Type::U64,
            role: Role::Key,
        },
        FeatureSpec {
            feature: Feature(63),
            name: "opened_by",
            value_type: Type::Ref,
            role: Role::Property,
        },
    ];
    let definition = Definition {
        kind: Kind(0x8001),
        name: "door",
        nature: Nature::State,
        scope: Scope::Boot,
        features,
    };
    let write = |writer: &mut OpWriter<'_>| writer.define(&definition).unwrap();
    book.enter("define", &body_of(write, &service::SPEC));
    let spec_features: Vec<_> = features.iter().collect::<Result<_, _>>().unwrap();
    for number in [0, 30, 31, 0x8001] {
        let spec = KindSpec {
            kind: Kind(number),
            name: "door",
            nature: Nature::State,
            scope: Scope::Boot,
            features: &spec_features,
        };
        let fields = [Field::new(Feature(3), Value::U64(1))];
        let write = |writer: &mut OpWriter<'_>| {
            let head = (Kind(number), BASE_NS);
            writer.row(RowChange::Put, 0, head, &fields, &mut Literal).unwrap();
        };
        book.enter(format!("put_of_kind_{number}"), &body_of(write, &spec));
    }
    book.close();
}

#[test]
fn values() {
    let mut book = Book::new("values");
    let mut enter = |name: &str, spec: &KindSpec<'_>, field: Field<'_>| {
        let write = |writer: &mut OpWriter<'_>| {
            writer.event((spec.kind, BASE_NS), &[field], &mut Literal).unwrap();
        };
        book.enter(name, &body_of(write, spec));
    };
    enter("u64_0", &process::SPEC, Field::new(process::pid, Value::U64(0)));
    enter("u64_max", &process::SPEC, Field::new(process::pid, Value::U64(u64::MAX)));
    enter("i64_minus_1", &process::SPEC, Field::new(process::exit_code, Value::I64(-1)));
    enter("i64_min", &process::SPEC, Field::new(process::exit_code, Value::I64(i64::MIN)));
    enter("bool_true", &user::SPEC, Field::new(user::logged_in, Value::Bool(true)));
    enter("text", &service::SPEC, Field::new(service::name, Value::text("ssh")));
    enter("text_empty", &service::SPEC, Field::new(service::name, Value::text("")));
    enter("hash", &process::SPEC, Field::new(process::image_md5, Value::Hash(&[0xcd; 16])));
    let address = Value::Ip(IpAddr::from([127, 66, 6, 6]));
    enter("ip_4", &connection::SPEC, Field::new(connection::remote_address, address));
    let address = Value::Ip(IpAddr::from([0x20; 16]));
    enter("ip_6", &connection::SPEC, Field::new(connection::remote_address, address));
    let before = Value::Time(BASE_NS - 64);
    enter("time_before_its_op", &process::SPEC, Field::new(process::started, before));
    let reference = Value::Ref(Reference { kind: process::KIND, key: &[1, 0] });
    enter("ref_literal", &process::SPEC, Field::new(process::parent, reference));
    let source = Field::new(Feature::SOURCE_SEQ, Value::U64(70));
    enter("source_seq", &process::SPEC, source);
    let mut buffer = [0; 64];
    let mut writer = OpWriter::new(&mut buffer, BASE_NS);
    for source_seq in [70, 71, 69] {
        let field = Field::new(Feature::SOURCE_SEQ, Value::U64(source_seq));
        writer.event((service::KIND, BASE_NS), &[field], &mut Literal).unwrap();
    }
    assert_eq!(read_all(writer.written(), &service::SPEC), Ok(()));
    book.enter("source_seq_70_71_69", writer.written());
    book.close();
}

#[test]
fn strings_and_references() {
    let mut book = Book::new("strings");
    let mut enter = |name: &str, string: StringChoice, row: Option<u32>, field: Field<'_>| {
        let write = |writer: &mut OpWriter<'_>| {
            let mut compressor = Fixed(string, row);
            writer.event((process::KIND, BASE_NS), &[field], &mut compressor).unwrap();
        };
        book.enter(name, &body_of(write, &process::SPEC));
    };
    let image = Field::new(process::image_path, Value::text("/bin/sh"));
    enter("literal", StringChoice::Literal, None, image);
    enter("define_0", StringChoice::Define(0), None, image);
    enter("define_4095", StringChoice::Define(4_095), None, image);
    enter("slot_0", StringChoice::Slot(0), None, image);
    enter("slot_4095", StringChoice::Slot(4_095), None, image);
    let parent = Value::Ref(Reference { kind: process::KIND, key: &[1, 0] });
    let parent = Field::new(process::parent, parent);
    enter("row_literal", StringChoice::Literal, None, parent);
    enter("row_0", StringChoice::Literal, Some(0), parent);
    enter("row_300", StringChoice::Literal, Some(300), parent);
    book.close();
}

#[test]
fn what_no_writer_writes_is_refused() {
    let read = |body: &[u8]| read_all(body, &health::SPEC);
    // A kind below 31 by its long form; a kind where none is spoken of.
    assert_eq!(read(&[0xf8, 5, 0, 0, 0]), Err(DecodeError::Varint));
    for head in [3 | 1 << 3, 5 | 1 << 3, 6 | 1 << 3] {
        assert_eq!(read(&[head, 0, 0]), Err(DecodeError::UnknownTag), "{head:#x}");
    }
    // A control that means nothing yet, and a reason that does not.
    assert_eq!(read(&[7 | 2 << 3]), Err(DecodeError::UnknownTag));
    assert_eq!(read(&[6, 1, 6]), Err(DecodeError::UnknownTag));
    // An integer that is padded.
    assert_eq!(read(&[3, 0x80, 0]), Err(DecodeError::Varint));
    // A string slot and a preamble beyond the table's bound.
    let event_of = |string: &[u8]| [&[4 | 8 << 3, 0, 8], string].concat();
    assert_eq!(read(&event_of(&[0x82, 0x20])), Err(DecodeError::Limit));
    assert_eq!(read(&event_of(&[1, 0x80, 0x20, 1, b'a'])), Err(DecodeError::Limit));
    let preamble = [&[7][..], &BOOT.0, &[0, 0x81, 0x20]].concat();
    assert_eq!(read(&preamble), Err(DecodeError::Limit));
    // A literal of 4,097 bytes.
    assert_eq!(read(&event_of(&[0, 0x81, 0x20])), Err(DecodeError::Limit));
    // A feature that the kind does not have; fields that nobody read.
    assert_eq!(read(&[4 | 8 << 3, 0, 0x80, 2, 0]), Err(DecodeError::UnknownFeature));
    let mut reader = OpReader::new(&[4 | 8 << 3, 0, 8, 0, 0, 3, 0], 0);
    assert!(matches!(reader.op(), Ok(Some(Op::Event { .. }))));
    assert_eq!(reader.op(), Err(DecodeError::Shape));
}
