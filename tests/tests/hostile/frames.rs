//! What hostile sensors say: frames by hand, each wrong in its own way.

use lapwing_protocol::chunk::{Chunk, ChunkFlags, ChunkHeader};
use lapwing_protocol::delivery::{Ack, ChainMark, Credit, Ping};
use lapwing_protocol::digest::Chain;
use lapwing_protocol::hello::{Hello, LogCause, LogHead, Memory};
use lapwing_protocol::id::{BootId, DeploymentId, Lane, LogId, SensorId};
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::FRAME_BYTES_MAX;
use lapwing_protocol::message::Message;
use lapwing_protocol::op::ENCODING_PLAIN_ROWS;

/// Bytes of an op that stand for the most that is made of them.
const BOMBS: [u8; 6] = [0x00, 0x07, 0x1f, 0x38, 0x80, 0xff];

/// One frame.
pub(super) fn frame(message: &Message<'_>) -> Vec<u8> {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let length = message.encode(&mut buffer).expect("a frame holds it");
    buffer.truncate(length);
    buffer
}

/// A log of which nothing is stored, under a new name each time.
pub(super) fn hello((deployment, sensor): (DeploymentId, SensorId), log: LogId) -> Vec<u8> {
    let head = LogHead {
        lane: Lane::Bulk,
        log,
        cause: LogCause::First,
        parent: None,
        first_seq: 1,
        next_seq: 1,
        next_index: 1,
        acked_seq: 0,
        acked_chain: Chain::start(deployment, sensor, Lane::Bulk, log),
        elsewhere: Items::EMPTY,
    };
    frame(&Message::Hello(Hello {
        version_min: 1,
        version_max: 1,
        capabilities: [].into_iter().collect(),
        agent: "hostile/1",
        name: "machine",
        os: "Linux",
        boot: BootId([9; 16]),
        receive_bytes_max: 4_096,
        memory: Memory::Disk,
        collecting: true,
        last_command: None,
        logs: [head].into_iter().collect(),
    }))
}

/// The head of a frame that says `length`, of a kind that may be skipped.
pub(super) fn announced(length: u16) -> Vec<u8> {
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(0x8fff_u16.to_le_bytes());
    bytes
}

/// As many pings as one write takes.
pub(super) fn pings() -> Vec<u8> {
    frame(&Message::Ping(Ping { nonce: u64::MAX })).repeat(1_024)
}

/// Marks of chunks that were never sent: they mean nothing, and are ignored.
pub(super) fn marks() -> Vec<u8> {
    let mark = ChainMark { lane: Lane::Bulk, seq: 1 << 40, chain: Chain([7; 32]) };
    frame(&Message::ChainMark(mark)).repeat(256)
}

/// What only a server may say.
pub(super) fn bogus_ack() -> Vec<u8> {
    let credit = Credit { limit_seq: u64::MAX, limit_bytes: u64::MAX };
    frame(&Message::Ack(Ack { lane: Lane::Bulk, stored_seq: 9, safe_seq: 9, credit }))
}

/// A chunk whose body is a bomb of ops: it is stored, and does not decode.
pub(super) fn bomb(seq: u64) -> Vec<u8> {
    let header = ChunkHeader {
        flags: ChunkFlags(ChunkFlags::SELF_CONTAINED),
        encoding: ENCODING_PLAIN_ROWS,
        seq,
        first_index: seq,
        count: 1,
        part: 0,
        time_base_ns: 0,
        digest: [0; 4],
    };
    let body = [BOMBS[seq as usize % BOMBS.len()]; 8_000];
    frame(&Message::Chunk(Chunk { header, body: &body }))
}
