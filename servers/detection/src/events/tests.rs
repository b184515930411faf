//! Tests of the export: pages stay below the bound of a reply, and every fact comes once.

use lapwing_protocol::chunk::{Chunk, ChunkFlags, ChunkHeader};
use lapwing_protocol::element::{
    Definition, Feature, FeatureSpec, Field, Kind, Nature, Reference, Role, Scope, Type, Value,
};
use lapwing_protocol::id::{BootId, Lane, LogId, SensorId, ServerId};
use lapwing_protocol::limits::{FEATURES_MAX, REPLY_BYTES_MAX};
use lapwing_protocol::op::{Compressor, ENCODING_PLAIN_ROWS, OpWriter, Preamble, StringChoice};
use lapwing_server_core::view::message_bytes;
use lapwing_store::journal::{Append, Incarnation, JournalOptions, LogKey, MemoryPartitions};
use lapwing_store::{MemoryDisk, RowStore};

use super::*;
use crate::ingest::{EntryForm, EntryHeader};
use crate::roster::lane_key;

const DEPLOYMENT: DeploymentId = DeploymentId([3; 16]);
const SENSOR: SensorId = SensorId([1; 16]);
const LOG: LogId = LogId([2; 16]);
const KIND: Kind = Kind(0x8001);

/// A sensor whose chunks say much with few bytes: each text is the one in slot 0.
struct Hostile;

impl Compressor for Hostile {
    fn string(&mut self, _: &[u8]) -> StringChoice {
        StringChoice::Slot(0)
    }

    fn row(&mut self, _: Reference<'_>) -> Option<u32> {
        None
    }
}

/// Puts the text into slot 0.
struct First;

impl Compressor for First {
    fn string(&mut self, _: &[u8]) -> StringChoice {
        StringChoice::Define(0)
    }

    fn row(&mut self, _: Reference<'_>) -> Option<u32> {
        None
    }
}

#[test]
fn whatever_a_sensor_sends_a_page_fits_a_reply_and_reading_goes_on() {
    let journal = journal();
    append(&journal, 1, 1, &opening());
    let (facts, chunk) = hostile(2);
    append(&journal, 2, 2, &chunk);
    let after = 2 + facts;
    append(&journal, 3, after, &small(3, after));
    append(&journal, 4, after + 1, &small(4, after + 1));

    let (mut cursor, mut rows) = (0, Vec::new());
    let exporter = exporter(&journal);
    loop {
        let page = exporter.page(cursor, 2).unwrap();
        assert!(page.items.len() < REPLY_BYTES_MAX, "{} bytes", page.items.len());
        let items = Items::<EventView<'_>>::from_bytes(&page.items);
        rows.extend(items.iter().map(|row| {
            let row = row.unwrap();
            (row.seq, row.op.to_owned())
        }));
        cursor = page.next_cursor;
        if page.at_end {
            break;
        }
    }
    let expected = [(1, "event"), (2, "oversized"), (3, "event"), (4, "event")];
    assert_eq!(rows, expected.map(|(seq, op)| (seq, op.to_owned())));
}

/// A log that is left in the midst of a segment and comes back decodes where it goes on.
#[test]
fn a_log_that_comes_back_within_a_segment_is_not_undecoded() {
    let journal = journal();
    append(&journal, 1, 1, &opening());
    append(&journal, 2, 2, &small(2, 2));
    append_to(&journal, LogId([5; 16]), (1, 1), &opening());
    append(&journal, 3, 3, &small(3, 3));
    append(&journal, 4, 4, &small(4, 4));
    let page = exporter(&journal).page(0, 100).unwrap();
    let rows = Items::<EventView<'_>>::from_bytes(&page.items);
    let rows: Vec<_> = rows.iter().map(|row| row.unwrap()).map(|row| (row.seq, row.op)).collect();
    assert_eq!(rows, [1, 2, 1, 3, 4].map(|seq| (seq, "event")));
}

fn journal() -> Arc<Journal> {
    let options = JournalOptions::new(Incarnation::Keep([9; 16]), 1);
    let partitions = MemoryPartitions::new("export");
    Arc::new(Journal::open(Arc::new(partitions), &options).unwrap())
}

fn exporter(journal: &Arc<Journal>) -> Exporter {
    let state = RowStore::over(Arc::new(MemoryDisk::new("state").open().unwrap())).unwrap();
    let fresh = MemoryPartitions::new("nobody");
    let empty = Journal::open(Arc::new(fresh), &JournalOptions::new(Incarnation::Keep([8; 16]), 1));
    let owner = (DEPLOYMENT, ServerId([4; 16]));
    let roster = Roster::load(owner, &empty.unwrap(), &state).unwrap();
    Exporter::new(Arc::clone(journal), Arc::new(roster), DEPLOYMENT, 100)
}

fn append(journal: &Journal, seq: u64, first_index: u64, chunk: &[u8]) {
    append_to(journal, LOG, (seq, first_index), chunk);
}

fn append_to(journal: &Journal, log: LogId, (seq, first_index): (u64, u64), chunk: &[u8]) {
    let header = EntryHeader { form: EntryForm::Chunk, seq, first_index, chain: None };
    let ticket = journal.append(Append {
        log: LogKey { lane: lane_key(SENSOR, Lane::Bulk), log: log.0 },
        segment: 1,
        received_wall_ms: 1,
        header: message_bytes(&header),
        body: chunk.to_vec(),
        head: vec![1],
    });
    ticket.unwrap().wait().unwrap();
}

/// Defines a kind with as many features as there may be, and puts bytes that are no text into slot
/// 0: each is shown with three.
fn opening() -> Vec<u8> {
    let names: Vec<String> = numbers().map(|number| format!("feature_{number}")).collect();
    let mut buffer = [0; 4_096];
    let features = numbers().zip(&names).map(|(number, name)| FeatureSpec {
        feature: Feature(number),
        name,
        value_type: Type::Text,
        role: Role::Property,
    });
    let features = Items::encode(features, &mut buffer).unwrap();
    let (nature, scope) = (Nature::Event, Scope::Machine);
    let definition = Definition { kind: KIND, name: "large", nature, scope, features };
    chunk((1, ChunkFlags::SELF_CONTAINED), 1, |ops| {
        let preamble = Preamble { boot: BootId([4; 16]), wall_ms: 1_000, string_slots: 1 };
        ops.preamble(&preamble).unwrap();
        ops.define(&definition).unwrap();
        let text = [Field::new(Feature(FIRST), Value::Text(&[0xff; 255]))];
        ops.event((KIND, 1), &text, &mut First).unwrap();
        1
    })
}

/// As many of the largest events as a chunk takes.
fn hostile(seq: u64) -> (u64, Vec<u8>) {
    let fields: Vec<_> =
        numbers().map(|number| Field::new(Feature(number), Value::text("x"))).collect();
    let mut facts = 0;
    let bytes = chunk((seq, 0), 2, |ops| {
        while ops.written().len() < 16_000 {
            ops.event((KIND, facts), &fields, &mut Hostile).unwrap();
            facts += 1;
        }
        facts
    });
    (facts, bytes)
}

fn small(seq: u64, first_index: u64) -> Vec<u8> {
    let text = [Field::new(Feature(FIRST), Value::text("x"))];
    chunk((seq, 0), first_index, |ops| {
        ops.event((KIND, seq), &text, &mut Hostile).unwrap();
        1
    })
}

const FIRST: u16 = Feature::FIRST_OF_KIND.0;

fn numbers() -> impl Iterator<Item = u16> {
    FIRST..FEATURES_MAX
}

fn chunk(
    (seq, flags): (u64, u8),
    first_index: u64,
    write: impl FnOnce(&mut OpWriter<'_>) -> u64,
) -> Vec<u8> {
    let mut body = vec![0; 16_300];
    let mut ops = OpWriter::new(&mut body, 0);
    let count = write(&mut ops);
    let header = ChunkHeader {
        flags: ChunkFlags(flags),
        encoding: ENCODING_PLAIN_ROWS,
        seq,
        first_index,
        count,
        part: 0,
        time_base_ns: 0,
        digest: [0; 4],
    };
    let mut bytes = vec![0; 16_384];
    Chunk { header, body: ops.written() }.encode(&mut bytes).unwrap().to_vec()
}
