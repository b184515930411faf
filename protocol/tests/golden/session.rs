//! A whole session, as `docs/protocol.md` shows it: Hello, HelloAck, a keyframe, a chunk, a mark of
//! the chain, the acknowledgement, and the end.

use heapless::Vec as SmallVec;
use lapwing_protocol::chunk::{Chunk, ChunkFlags, ChunkHeader};
use lapwing_protocol::delivery::{
    Ack, ChainMark, Credit, Draining, Jump, JumpCause, Nack, NackReason,
};
use lapwing_protocol::digest::{Chain, row_digest};
use lapwing_protocol::element::{
    Feature, Field, KindSpec, Reference, Value, dns, process, service,
};
use lapwing_protocol::hello::{
    Hello, HelloAck, LogCause, LogGrant, LogHead, LogVerdict, Memory, PROTOCOL_VERSION,
};
use lapwing_protocol::id::Lane;
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::FRAME_BYTES_MAX;
use lapwing_protocol::message::Message;
use lapwing_protocol::op::{
    Compressor, DropReason, ENCODING_PLAIN_ROWS, OpWriter, Preamble, RowChange, StringChoice,
};
use lapwing_protocol::row;

use crate::book::Book;
use crate::names::*;

const BASE_NS: u64 = 60_000_000_000;

/// Strings of three bytes and more take slots in order; rows are known by their key.
#[derive(Default)]
struct Segment {
    strings: Vec<Vec<u8>>,
    rows: Vec<(Vec<u8>, u32)>,
}

impl Compressor for Segment {
    fn string(&mut self, bytes: &[u8]) -> StringChoice {
        if bytes.len() < 3 {
            return StringChoice::Literal;
        }
        if let Some(slot) = self.strings.iter().position(|known| known == bytes) {
            return StringChoice::Slot(slot as u32);
        }
        self.strings.push(bytes.to_vec());
        StringChoice::Define(self.strings.len() as u32 - 1)
    }

    fn row(&mut self, reference: Reference<'_>) -> Option<u32> {
        let known = self.rows.iter().find(|(key, _)| key == reference.key);
        known.map(|(_, slot)| *slot)
    }
}

fn frame(message: &Message<'_>) -> Vec<u8> {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let length = message.encode(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

fn chunk(header: ChunkHeader, body: &[u8]) -> Vec<u8> {
    let mut buffer = [0; 1024];
    let bytes = Chunk { header, body }.encode(&mut buffer).unwrap().to_vec();
    assert_eq!(Chunk::decode(&bytes), Ok(Chunk { header, body }));
    bytes
}

fn row_sum(fields: &[Field<'_>], spec: &KindSpec<'_>) -> u64 {
    let mut buffer = [0; 512];
    row_digest(BULK_LOG, spec.kind, row::write(fields, &mut buffer).unwrap())
}

fn text(feature: Feature, text: &str) -> Field<'_> {
    Field::new(feature, Value::text(text))
}

#[test]
fn the_worked_example() {
    let mut book = Book::new("session");
    let start = Chain::start(DEPLOYMENT, SENSOR, Lane::Bulk, BULK_LOG);
    book.enter("chain_start", &start.0);
    book.enter("hello", &frame(&Message::Hello(hello(start))));
    book.enter("hello_ack", &frame(&Message::HelloAck(hello_ack(start))));

    let mut segment = Segment::default();
    let init = [
        Field::new(process::pid, Value::U64(1)),
        Field::new(process::start_ticks, Value::U64(2)),
        text(process::image_path, "/sbin/init"),
    ];
    let inactive = [text(service::name, "ssh"), text(service::state, "inactive")];
    let active = [text(service::name, "ssh"), text(service::state, "active")];
    let unchanged = row_sum(&init, &process::SPEC);
    let digest = unchanged.wrapping_add(row_sum(&inactive, &service::SPEC));
    let body = keyframe(&mut segment, (&init, &inactive), digest);
    let header = ChunkHeader {
        flags: ChunkFlags(ChunkFlags::KEYFRAME | ChunkFlags::KEYFRAME_LAST),
        encoding: ENCODING_PLAIN_ROWS,
        seq: 1,
        first_index: 1,
        count: 0,
        part: 0,
        time_base_ns: BASE_NS,
        digest: (digest as u32).to_le_bytes(),
    };
    let keyframe = chunk(header, &body);
    book.enter("keyframe", &keyframe);

    segment.rows.push((vec![1, 2], 0));
    let digest = unchanged.wrapping_add(row_sum(&active, &service::SPEC));
    let body = delta(&mut segment, &active[1..]);
    let header = ChunkHeader {
        flags: ChunkFlags(0),
        seq: 2,
        count: 5,
        time_base_ns: BASE_NS + 1_000,
        digest: (digest as u32).to_le_bytes(),
        ..header
    };
    let second = chunk(header, &body);
    book.enter("chunk", &second);
    let after = start.next(&keyframe).next(&second);
    book.enter("chain_after_chunk", &after.0);
    the_answers(&mut book, after, (keyframe.len() + second.len()) as u64);
    book.close();
}

fn hello(start: Chain) -> Hello<'static> {
    let head = LogHead {
        lane: Lane::Bulk,
        log: BULK_LOG,
        cause: LogCause::First,
        parent: None,
        first_seq: 1,
        next_seq: 3,
        next_index: 6,
        acked_seq: 0,
        acked_chain: start,
        elsewhere: Items::EMPTY,
    };
    Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        capabilities: SmallVec::new(),
        agent: "own/1",
        name: "web-7",
        os: "Debian 12",
        boot: BOOT,
        receive_bytes_max: 4_096,
        memory: Memory::Disk,
        collecting: true,
        last_command: None,
        logs: SmallVec::from_iter([head]),
    }
}

fn hello_ack(start: Chain) -> HelloAck<'static> {
    let credit = Credit { limit_seq: 256, limit_bytes: 1 << 20 };
    let grant = LogGrant {
        lane: Lane::Bulk,
        log: BULK_LOG,
        verdict: LogVerdict::New,
        next_seq: 1,
        next_index: 1,
        chain: start,
        credit,
    };
    HelloAck {
        version: PROTOCOL_VERSION,
        capabilities: SmallVec::new(),
        server: SERVER,
        name: "d1",
        session_epoch: 4_294_967_297,
        server_ms: WALL_MS,
        receive_bytes_max: 16_640,
        rows_max: 65_536,
        logs: SmallVec::from_iter([grant]),
    }
}

fn keyframe(
    segment: &mut Segment,
    (init, ssh): (&[Field<'_>], &[Field<'_>]),
    digest: u64,
) -> Vec<u8> {
    let mut buffer = [0; 512];
    let mut writer = OpWriter::new(&mut buffer, BASE_NS);
    let preamble = Preamble { boot: BOOT, wall_ms: WALL_MS, string_slots: 16 };
    writer.preamble(&preamble).unwrap();
    let head = (process::KIND, BASE_NS);
    writer.row(RowChange::Put, 0, head, init, segment).unwrap();
    let head = (service::KIND, BASE_NS);
    writer.row(RowChange::Put, 1, head, ssh, segment).unwrap();
    writer.keyframe_end(2, digest).unwrap();
    writer.written().to_vec()
}

/// A service became active, init looked a name up, and three facts found no room.
fn delta(segment: &mut Segment, state: &[Field<'_>]) -> Vec<u8> {
    let mut buffer = [0; 512];
    let mut writer = OpWriter::new(&mut buffer, BASE_NS + 1_000);
    let head = (service::KIND, BASE_NS + 500);
    writer.row(RowChange::Patch, 1, head, state, segment).unwrap();
    let who = Value::Ref(Reference { kind: process::KIND, key: &[1, 2] });
    let lookup = [
        text(dns::question, "example.org"),
        Field::new(dns::question_type, Value::U64(1)),
        Field::new(dns::process, who),
        text(dns::image_path, "/sbin/init"),
    ];
    writer.event((dns::KIND, BASE_NS + 900), &lookup, segment).unwrap();
    writer.dropped(3, DropReason::TableFull).unwrap();
    writer.written().to_vec()
}

fn the_answers(book: &mut Book, chain: Chain, bytes: u64) {
    let credit = Credit { limit_seq: 258, limit_bytes: bytes + (1 << 20) };
    let ack = Ack { lane: Lane::Bulk, stored_seq: 2, safe_seq: 2, credit };
    book.enter("ack", &frame(&Message::Ack(ack)));
    let mark = ChainMark { lane: Lane::Bulk, seq: 2, chain };
    book.enter("chain_mark", &frame(&Message::ChainMark(mark)));
    let nack = Nack {
        lane: Lane::Bulk,
        next_seq: 3,
        episode: 1,
        reason: NackReason::Throttled,
        retry_after_ms: 500,
    };
    book.enter("nack", &frame(&Message::Nack(nack)));
    let jump = Jump {
        lane: Lane::Bulk,
        from_seq: 3,
        to_seq: 9,
        to_index: Some(40),
        chain_at_to: CHAIN,
        cause: JumpCause::Dropped(DropReason::SpoolFull),
    };
    book.enter("jump", &frame(&Message::Jump(jump)));
    let draining = Draining { retry_after_ms: 2_000 };
    book.enter("draining", &frame(&Message::Draining(draining)));
}
