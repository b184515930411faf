//! The decoder against what a hole, a fault or a liar can put before it: a chunk gives all its
//! changes or none, and what the table holds is what was told.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use lapwing_protocol::chunk::{Chunk, ChunkFlags, ChunkHeader};
use lapwing_protocol::digest::{element_guid, row_digest};
use lapwing_protocol::element::{Field, Value, finding, health, service, write_key};
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::id::{BootId, DeploymentId, ElementGuid, Lane, LogId, SensorId};
use lapwing_protocol::op::{DropReason, Literal, OpWriter, Preamble, RowChange};
use lapwing_protocol::row;
use lapwing_server_core::change::What;
use lapwing_server_core::decode::{BuiltIn, Decoded, Decoder, LogContext};

const DEPLOYMENT: DeploymentId = DeploymentId([1; 16]);
const SENSOR: SensorId = SensorId([2; 16]);
const LOG: LogId = LogId([3; 16]);
const BOOT: BootId = BootId([4; 16]);
const KEYFRAME: u8 = ChunkFlags::KEYFRAME;
const LAST: u8 = ChunkFlags::KEYFRAME | ChunkFlags::KEYFRAME_LAST;
const ALONE: u8 = ChunkFlags::SELF_CONTAINED;

fn decoder(lane: Lane) -> Decoder {
    let context = LogContext { deployment: DEPLOYMENT, sensor: SENSOR, lane, log: LOG };
    Decoder::new(context, 1_000, BuiltIn::default())
}

/// A sensor that writes what the test says.
struct Writer {
    decoder: Decoder,
    next_index: u64,
}

impl Writer {
    fn new(lane: Lane) -> Self {
        Self { decoder: decoder(lane), next_index: 1 }
    }

    /// Has a chunk of `count` facts decoded, whose digest is that of the services `named`.
    fn chunk(
        &mut self,
        (flags, part, count): (u8, u16, u64),
        named: &[&str],
        write: impl FnOnce(&mut OpWriter<'_>),
    ) -> Result<Decoded, DecodeError> {
        let mut buffer = [0; 2048];
        let mut writer = OpWriter::new(&mut buffer, 0);
        write(&mut writer);
        let header = ChunkHeader {
            flags: ChunkFlags(flags),
            encoding: 1,
            seq: 1,
            first_index: self.next_index,
            count,
            part,
            time_base_ns: 0,
            digest: (digest_of(named) as u32).to_le_bytes(),
        };
        self.next_index += count;
        self.decoder.handle_chunk(&Chunk { header, body: writer.written() })
    }

    /// A keyframe of one part that states the services `named`, in slots from 0.
    fn keyframe(&mut self, named: &[&str]) -> Result<Decoded, DecodeError> {
        self.chunk((LAST, 0, 0), named, |writer| {
            open(writer);
            for (slot, name) in named.iter().enumerate() {
                put(writer, slot as u32, name);
            }
            writer.keyframe_end(named.len() as u64, digest_of(named)).unwrap();
        })
    }
}

fn open(writer: &mut OpWriter<'_>) {
    writer.preamble(&Preamble { boot: BOOT, wall_ms: 1, string_slots: 0 }).unwrap();
}

fn name(name: &str) -> [Field<'_>; 1] {
    [Field::new(service::name, Value::text(name))]
}

fn put(writer: &mut OpWriter<'_>, slot: u32, of: &str) {
    let head = (service::KIND, 0);
    writer.row(RowChange::Put, slot, head, &name(of), &mut Literal).unwrap();
}

fn digest_of(named: &[&str]) -> u64 {
    let digests = named.iter().map(|of| {
        let mut buffer = [0; 1024];
        row_digest(LOG, service::KIND, row::write(&name(of), &mut buffer).unwrap())
    });
    digests.fold(0, u64::wrapping_add)
}

fn guid(of: &str) -> ElementGuid {
    let mut buffer = [0; 64];
    let key = write_key(&[Value::text(of)], &mut buffer).unwrap();
    element_guid(DEPLOYMENT, SENSOR, (service::KIND, None), key)
}

fn told(decoded: &Decoded) -> Vec<(What, ElementGuid)> {
    decoded.changes.iter().map(|change| (change.what, change.guid)).collect()
}

#[test]
fn what_a_broken_chunk_said_is_said_again_by_the_next_keyframe() {
    let mut sensor = Writer::new(Lane::Bulk);
    sensor.keyframe(&["old"]).unwrap();
    let broken = sensor.chunk((0, 0, 3), &["new"], |writer| {
        put(writer, 1, "new");
        let head = (service::KIND, 0);
        writer.row(RowChange::Remove, 0, head, &[], &mut Literal).unwrap();
        writer.forget(77).unwrap();
    });
    assert_eq!(broken, Err(DecodeError::EmptySlot));
    assert_eq!(sensor.decoder.digest(), digest_of(&["old"]));
    let decoded = sensor.keyframe(&["new"]).unwrap();
    assert!(!decoded.divergent);
    assert_eq!(told(&decoded), [(What::Forgotten, guid("old")), (What::Restated, guid("new"))]);
}

#[test]
fn a_broken_keyframe_leaves_the_table_as_it_was() {
    let mut sensor = Writer::new(Lane::Bulk);
    sensor.keyframe(&["old"]).unwrap();
    let keyless = sensor.chunk((LAST, 0, 0), &[], |writer| {
        open(writer);
        let head = (service::KIND, 0);
        writer.row(RowChange::Put, 0, head, &[], &mut Literal).unwrap();
        writer.keyframe_end(1, 0).unwrap();
    });
    assert_eq!(keyless, Err(DecodeError::Shape));
    let with_more = sensor.chunk((LAST, 0, 0), &[], |writer| {
        open(writer);
        writer.keyframe_end(0, 0).unwrap();
        writer.forget(0).unwrap();
    });
    assert_eq!(with_more, Err(DecodeError::Shape));
    assert_eq!(sensor.decoder.digest(), digest_of(&["old"]));
    assert_eq!(told(&sensor.keyframe(&[]).unwrap()), [(What::Forgotten, guid("old"))]);
}

/// LOG-005: a fact there would have no index, and be in no account; dropped facts would take the
/// indices of later ones.
#[test]
fn nothing_but_the_table_stands_in_a_keyframe() {
    let patch = |writer: &mut OpWriter<'_>| {
        writer.row(RowChange::Patch, 0, (service::KIND, 0), &name("a"), &mut Literal).unwrap();
    };
    let remove = |writer: &mut OpWriter<'_>| {
        writer.row(RowChange::Remove, 0, (service::KIND, 0), &name("a"), &mut Literal).unwrap();
    };
    let event = |writer: &mut OpWriter<'_>| {
        let component = [Field::new(finding::component, Value::text("x"))];
        writer.event((finding::KIND, 0), &component, &mut Literal).unwrap();
    };
    let dropped = |writer: &mut OpWriter<'_>| writer.dropped(5, DropReason::TableFull).unwrap();
    let forget = |writer: &mut OpWriter<'_>| writer.forget(0).unwrap();
    let others: [&dyn Fn(&mut OpWriter<'_>); 5] = [&patch, &remove, &event, &dropped, &forget];
    for (number, other) in others.iter().enumerate() {
        let mut sensor = Writer::new(Lane::Bulk);
        sensor.keyframe(&["a"]).unwrap();
        let keyframe = sensor.chunk((LAST, 0, 0), &["a"], |writer| {
            open(writer);
            put(writer, 0, "a");
            other(writer);
            writer.keyframe_end(1, digest_of(&["a"])).unwrap();
        });
        assert_eq!(keyframe, Err(DecodeError::Shape), "op {number}");
        assert_eq!(sensor.decoder.digest(), digest_of(&["a"]));
    }
}

#[test]
fn parts_of_a_keyframe_may_each_stand_alone() {
    let mut sensor = Writer::new(Lane::Bulk);
    let first = sensor.chunk((KEYFRAME | ALONE, 0, 0), &[], |writer| {
        open(writer);
        put(writer, 0, "a");
    });
    assert_eq!(first.map(|decoded| decoded.changes.len()), Ok(0));
    let second = sensor.chunk((LAST | ALONE, 1, 0), &["a", "b"], |writer| {
        open(writer);
        put(writer, 1, "b");
        writer.keyframe_end(2, digest_of(&["a", "b"])).unwrap();
    });
    let second = second.unwrap();
    assert!(!second.divergent);
    assert_eq!(told(&second), [(What::Restated, guid("a")), (What::Restated, guid("b"))]);
}

#[test]
fn a_part_without_the_first_is_no_keyframe() {
    let mut sensor = Writer::new(Lane::Bulk);
    sensor.keyframe(&["a"]).unwrap();
    let second = sensor.chunk((LAST | ALONE, 1, 0), &["b"], |writer| {
        open(writer);
        put(writer, 1, "b");
        writer.keyframe_end(1, digest_of(&["b"])).unwrap();
    });
    assert_eq!(second, Err(DecodeError::Shape));
    assert_eq!(sensor.decoder.digest(), digest_of(&["a"]));
}

#[test]
fn an_element_whose_slot_is_taken_is_no_longer_reported() {
    let mut sensor = Writer::new(Lane::Bulk);
    sensor.keyframe(&["a"]).unwrap();
    let decoded = sensor.chunk((0, 0, 1), &["b"], |writer| put(writer, 0, "b")).unwrap();
    assert!(!decoded.divergent);
    assert_eq!(told(&decoded), [(What::Forgotten, guid("a")), (What::Put, guid("b"))]);
}

#[test]
fn state_of_the_urgent_lane_goes_by_its_key() {
    let mut sensor = Writer::new(Lane::Urgent);
    let flags = ALONE | ChunkFlags::URGENT;
    for of in ["a", "b"] {
        let decoded = sensor.chunk((flags, 0, 1), &[], |writer| {
            open(writer);
            put(writer, 0, of);
        });
        assert_eq!(told(&decoded.unwrap()), [(What::Put, guid(of))]);
    }
    let decoded = sensor.chunk((flags, 0, 1), &[], |writer| {
        open(writer);
        let head = (service::KIND, 0);
        writer.row(RowChange::Remove, 0, head, &name("a"), &mut Literal).unwrap();
    });
    assert_eq!(told(&decoded.unwrap()), [(What::Ended, guid("a"))]);
    assert_eq!((sensor.decoder.rows(), sensor.decoder.is_divergent()), (0, false));
}

#[test]
fn a_kind_that_is_stated_before_its_clock_does_not_decode() {
    let mut sensor = Writer::new(Lane::Urgent);
    let part = Field::new(health::component, Value::text("dns"));
    let timeless = sensor.chunk((ALONE | ChunkFlags::URGENT, 0, 1), &[], |writer| {
        writer.event((health::KIND, 0), &[part], &mut Literal).unwrap();
    });
    assert_eq!(timeless, Err(DecodeError::Shape));
}

#[test]
fn a_preamble_stands_first_in_a_chunk_that_opens_and_nowhere_else() {
    // ENC-004.
    let mut sensor = Writer::new(Lane::Bulk);
    sensor.keyframe(&["a"]).unwrap();
    let second = sensor.chunk((ALONE, 0, 0), &["a"], |writer| {
        open(writer);
        open(writer);
    });
    assert_eq!(second, Err(DecodeError::Shape));
    sensor.keyframe(&["a"]).unwrap();
    let late = sensor.chunk((ALONE, 0, 1), &["a"], |writer| {
        writer.dropped(1, DropReason::TableFull).unwrap();
        open(writer);
    });
    assert_eq!(late, Err(DecodeError::Shape));
    sensor.keyframe(&["a"]).unwrap();
    let between = sensor.chunk((0, 0, 0), &["a"], open);
    assert_eq!(between, Err(DecodeError::Shape));
    assert_eq!(sensor.decoder.digest(), digest_of(&["a"]));
}

#[test]
fn the_memory_of_a_table_is_bounded_and_what_goes_beyond_changes_nothing() {
    let long = "x".repeat(900);
    let mut sensor = Writer::new(Lane::Bulk);
    sensor.decoder = sensor.decoder.with_table_bytes_max(4_000);
    sensor.keyframe(&["small"]).unwrap();
    let named: Vec<String> = (0..4).map(|number| format!("{number}{long}")).collect();
    let mut taken = vec!["small"];
    let mut refused = 0;
    for (slot, name) in (1..).zip(&named) {
        taken.push(name);
        let put_one = |writer: &mut OpWriter<'_>| put(writer, slot, name);
        match sensor.chunk((0, 0, 1), &taken, put_one) {
            Ok(decoded) => assert!(!decoded.divergent),
            Err(error) => {
                assert_eq!(error, DecodeError::Limit);
                refused += 1;
                taken.pop();
                break;
            }
        }
    }
    assert_eq!((refused, sensor.decoder.rows()), (1, taken.len()));
    assert_eq!(sensor.decoder.digest(), digest_of(&taken));
    // A keyframe in parts is bounded as well, before it ends.
    let mut part = |part, name: &str| {
        sensor.chunk((KEYFRAME, part, 0), &[], |writer| {
            if part == 0 {
                open(writer);
            }
            put(writer, u32::from(part), name);
        })
    };
    let parts: Vec<_> = (0..).zip(&named).map(|(number, name)| part(number, name)).collect();
    assert!(parts.contains(&Err(DecodeError::Limit)), "{parts:?}");
    // And a small one is taken afterwards.
    assert!(!sensor.keyframe(&["small"]).unwrap().divergent);
}
