//! Every kind of frame: header and body as they are on the connection.

use heapless::Vec as SmallVec;
use lapwing_protocol::call::{Call, Method, Reply};
use lapwing_protocol::chunk::{Chunk, ChunkFlags, ChunkHeader};
use lapwing_protocol::code::Code;
use lapwing_protocol::command::{Action, Command, CommandNumber};
use lapwing_protocol::delivery::{
    Ack, ChainMark, Credit, Draining, Jump, JumpCause, LossReason, Nack, NackReason, Ping, Pong,
    Refused, Resync, ResyncReason,
};
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::frame::{Deframer, FLAG_SKIPPABLE, Frame};
use lapwing_protocol::hello::{
    Auth, Capability, Hello, HelloAck, LogCause, LogGrant, LogHead, LogParent, LogVerdict, Memory,
    StoredRange,
};
use lapwing_protocol::id::Lane;
use lapwing_protocol::limits::{FRAME_BYTES_MAX, SEQ_MAX};
use lapwing_protocol::message::{CHUNK, Message};
use lapwing_protocol::op::DropReason;

use crate::book::{Book, items};
use crate::names::*;

/// Enters a message's frame and holds the laws of frames.
fn hold_frame(book: &mut Book, name: &str, message: &Message<'_>) {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let length = message.encode(&mut buffer).unwrap();
    let bytes = buffer[..length].to_vec();
    let mut space = vec![0; FRAME_BYTES_MAX];
    let mut deframer = Deframer::new(&mut space);
    assert_eq!(deframer.feed(&bytes), bytes.len());
    let frame = deframer.next_frame().unwrap().unwrap();
    assert_eq!(frame.kind, message.kind());
    assert_eq!(Message::decode(&frame).unwrap().as_ref(), Some(message), "{name}");
    hold_body(name, &frame);
    assert_eq!(deframer.next_frame(), Ok(None));
    book.enter(name, &bytes);
}

/// No part of a body is a message, and nothing may follow one.
fn hold_body(name: &str, frame: &Frame<'_>) {
    for length in 0..frame.body.len() {
        let part = Message::decode(&Frame { body: &frame.body[..length], ..*frame });
        assert!(part.is_err(), "{name}: {length} bytes of its body are a message too");
    }
    let longer = [frame.body, &[0]].concat();
    let refused = Message::decode(&Frame { body: &longer, ..*frame });
    assert_eq!(refused, Err(DecodeError::Trailing), "{name}");
}

fn new_log(lane: Lane) -> LogHead<'static> {
    let log = if lane == Lane::Bulk { BULK_LOG } else { URGENT_LOG };
    LogHead {
        lane,
        log,
        cause: LogCause::First,
        parent: None,
        first_seq: 1,
        next_seq: 1,
        next_index: 1,
        acked_seq: 0,
        acked_chain: CHAIN,
        elsewhere: items![StoredRange;],
    }
}

fn old_log() -> LogHead<'static> {
    let parent = LogParent { log: OLD_LOG, next_seq: 301, next_index: 4_000, chain: CHAIN };
    let elsewhere = items![StoredRange;
        StoredRange { server: SERVER, from_seq: 1, to_seq: 90 },
        StoredRange { server: OTHER_SERVER, from_seq: 91, to_seq: 200 },
    ];
    LogHead {
        cause: LogCause::Unclean,
        parent: Some(parent),
        first_seq: 64,
        next_seq: 211,
        next_index: 9_000,
        acked_seq: 200,
        elsewhere,
        ..new_log(Lane::Bulk)
    }
}

fn hello(logs: SmallVec<LogHead<'static>, 2>) -> Hello<'static> {
    Hello {
        version_min: 1,
        version_max: 1,
        capabilities: SmallVec::new(),
        agent: "lapwing-sensor/0.1.0",
        name: "web-7",
        os: "Debian 12",
        boot: BOOT,
        receive_bytes_max: 65_536,
        memory: Memory::Disk,
        collecting: true,
        last_command: None,
        logs,
    }
}

fn grant(lane: Lane, verdict: LogVerdict) -> LogGrant {
    let log = if lane == Lane::Bulk { BULK_LOG } else { URGENT_LOG };
    let credit = Credit { limit_seq: 256, limit_bytes: 1 << 20 };
    LogGrant { lane, log, verdict, next_seq: 1, next_index: 1, chain: CHAIN, credit }
}

fn hello_ack(logs: SmallVec<LogGrant, 2>) -> HelloAck<'static> {
    HelloAck {
        version: 1,
        capabilities: SmallVec::new(),
        server: SERVER,
        name: "d1",
        session_epoch: 7 << 32 | 1,
        server_ms: WALL_MS,
        receive_bytes_max: 16_640,
        rows_max: 65_536,
        logs,
    }
}

#[test]
fn greetings() {
    let mut book = Book::new("greetings");
    let both = SmallVec::from_iter([new_log(Lane::Urgent), new_log(Lane::Bulk)]);
    hold_frame(&mut book, "hello_first", &Message::Hello(hello(both)));
    let mut returning = hello(SmallVec::from_iter([old_log()]));
    returning.memory = Memory::RamOnly;
    returning.collecting = false;
    returning.capabilities = SmallVec::from_iter([Capability(1), Capability(300)]);
    returning.last_command = Some(CommandNumber { issuer: 2, seq: 41 });
    hold_frame(&mut book, "hello_returning", &Message::Hello(returning));
    let both = [grant(Lane::Urgent, LogVerdict::New), grant(Lane::Bulk, LogVerdict::New)];
    let ack = hello_ack(SmallVec::from_iter(both));
    hold_frame(&mut book, "hello_ack_first", &Message::HelloAck(ack));
    let resumed = LogGrant {
        next_seq: 201,
        next_index: 8_100,
        credit: Credit { limit_seq: 456, limit_bytes: 1 << 20 },
        ..grant(Lane::Bulk, LogVerdict::Resume)
    };
    let mut ack = hello_ack(SmallVec::from_iter([resumed]));
    ack.capabilities = SmallVec::from_iter([Capability(1)]);
    hold_frame(&mut book, "hello_ack_returning", &Message::HelloAck(ack));
    let auth = Auth { sensor: SENSOR, proof: [0xbb; 32] };
    hold_frame(&mut book, "auth", &Message::Auth(auth));
    book.close();
}

#[test]
fn delivery() {
    let mut book = Book::new("delivery");
    let header = ChunkHeader {
        flags: ChunkFlags(ChunkFlags::URGENT | ChunkFlags::SELF_CONTAINED),
        encoding: 1,
        seq: 300,
        first_index: 70_000,
        count: 1,
        part: 0,
        time_base_ns: 5_000_000_000,
        digest: [1, 2, 3, 4],
    };
    let chunk = Chunk { header, body: &[0xc0, 0xff, 0xee] };
    hold_frame(&mut book, "chunk", &Message::Chunk(chunk));
    let credit = Credit { limit_seq: 556, limit_bytes: 2 << 20 };
    let ack = Ack { lane: Lane::Urgent, stored_seq: 300, safe_seq: 127, credit };
    hold_frame(&mut book, "ack", &Message::Ack(ack));
    for reason in [
        NackReason::OutOfOrder,
        NackReason::Throttled,
        NackReason::BeyondCredit,
        NackReason::StoreFailed,
    ] {
        let nack =
            Nack { lane: Lane::Bulk, next_seq: 301, episode: 3, reason, retry_after_ms: 2_000 };
        hold_frame(&mut book, &format!("nack_{reason:?}"), &Message::Nack(nack));
    }
    for reason in [ResyncReason::DigestDiffers, ResyncReason::Undecodable, ResyncReason::Retention]
    {
        let resync = Resync { lane: Lane::Bulk, at_seq: 301, reason };
        hold_frame(&mut book, &format!("resync_{reason:?}"), &Message::Resync(resync));
    }
    let mark = ChainMark { lane: Lane::Bulk, seq: 320, chain: CHAIN };
    hold_frame(&mut book, "chain_mark", &Message::ChainMark(mark));
    book.close();
}

#[test]
fn jumps() {
    let mut book = Book::new("jumps");
    let dropped = [
        DropReason::TableFull,
        DropReason::TooLarge,
        DropReason::SpoolFull,
        DropReason::MemoryFull,
        DropReason::SpoolFailed,
        DropReason::Malformed,
    ];
    let lost = [LossReason::ServerRolledBack, LossReason::MemoryLost, LossReason::SpoolDamaged];
    let causes = dropped
        .map(JumpCause::Dropped)
        .into_iter()
        .chain([JumpCause::StoredElsewhere(OTHER_SERVER)])
        .chain(lost.map(JumpCause::Lost));
    for cause in causes {
        let name = match cause {
            JumpCause::Dropped(reason) => format!("dropped_{reason:?}"),
            JumpCause::StoredElsewhere(_) => "stored_elsewhere".into(),
            JumpCause::Lost(reason) => format!("lost_{reason:?}"),
        };
        let is_known = !matches!(cause, JumpCause::Lost(LossReason::MemoryLost));
        let to_index = is_known.then_some(4_711);
        let jump = Jump {
            lane: Lane::Bulk,
            from_seq: 10,
            to_seq: 130,
            to_index,
            chain_at_to: CHAIN,
            cause,
        };
        hold_frame(&mut book, &name, &Message::Jump(jump));
    }
    book.close();
}

#[test]
fn the_rest() {
    let mut book = Book::new("rest");
    hold_frame(&mut book, "ping", &Message::Ping(Ping { nonce: 300 }));
    hold_frame(&mut book, "pong", &Message::Pong(Pong { nonce: 300 }));
    let draining = Draining { retry_after_ms: 2_000 };
    hold_frame(&mut book, "draining", &Message::Draining(draining));
    let refused =
        Refused { code: Code::FENCED, retry_after_ms: 0, detail: "a newer session took over" };
    hold_frame(&mut book, "refused", &Message::Refused(refused));
    for action in [
        Action::StartCollection,
        Action::StopCollection,
        Action::Restart,
        Action::Isolate,
        Action::Unisolate,
        Action::Upgrade,
    ] {
        let number = CommandNumber { issuer: 2, seq: 42 };
        let command = Command { number, expires_after_ms: 60_000, action };
        hold_frame(&mut book, &format!("command_{}", action.name()), &Message::Command(command));
    }
    let call = Call { call: 9, method: Method::STATUS, body: &[] };
    hold_frame(&mut book, "call", &Message::Call(call));
    let part = Reply { call: 9, more: true, code: Code::OK, body: b"first part" };
    hold_frame(&mut book, "reply_part", &Message::Reply(part));
    let failed = Reply { call: 9, more: false, code: Code::UNSUPPORTED, body: b"not here" };
    hold_frame(&mut book, "reply_failed", &Message::Reply(failed));
    book.close();
}

#[test]
fn an_unknown_kind_is_skipped_only_where_its_sender_allows_it() {
    for (flags, expected) in [(FLAG_SKIPPABLE, Ok(None)), (0, Err(DecodeError::UnknownKind))] {
        let number = (0x0ffe_u16 | flags).to_le_bytes();
        let bytes = [1, 0, number[0], number[1], 0x2a];
        let mut space = [0; 16];
        let mut deframer = Deframer::new(&mut space);
        deframer.feed(&bytes);
        let frame = deframer.next_frame().unwrap().unwrap();
        assert_eq!(Message::decode(&frame), expected);
    }
}

#[test]
fn a_chunk_of_bad_numbers_is_refused() {
    let good = ChunkHeader {
        flags: ChunkFlags::default(),
        encoding: 1,
        seq: 1,
        first_index: 1,
        count: 0,
        part: 0,
        time_base_ns: 0,
        digest: [0; 4],
    };
    let decode = |header: ChunkHeader| {
        let mut buffer = [0; 64];
        let chunk = Chunk { header, body: &[] };
        let bytes = chunk.encode(&mut buffer).unwrap();
        Message::decode(&Frame { kind: CHUNK, skippable: false, body: bytes }).map(|_| ())
    };
    assert_eq!(decode(good), Ok(()));
    for (seq, expected) in
        [(0, Err(DecodeError::Limit)), (SEQ_MAX, Ok(())), (SEQ_MAX + 1, Err(DecodeError::Limit))]
    {
        assert_eq!(decode(ChunkHeader { seq, ..good }), expected);
    }
    let beyond = ChunkHeader { first_index: 2, count: u64::MAX - 1, ..good };
    assert_eq!(decode(beyond), Err(DecodeError::Limit));
}

#[test]
fn the_largest_greetings_fit_where_they_must() {
    let longest = |lane| LogHead {
        parent: Some(LogParent {
            log: OLD_LOG,
            next_seq: u64::MAX,
            next_index: u64::MAX,
            chain: CHAIN,
        }),
        first_seq: u64::MAX,
        next_seq: u64::MAX,
        next_index: u64::MAX,
        acked_seq: u64::MAX,
        elsewhere: lapwing_protocol::items::Items::encode(
            [StoredRange { server: SERVER, from_seq: u64::MAX, to_seq: u64::MAX }; 8],
            Box::leak(Box::new([0; 512])),
        )
        .unwrap(),
        ..new_log(lane)
    };
    let name: &'static str = "n".repeat(255).leak();
    let mut hello = hello(SmallVec::from_iter([longest(Lane::Urgent), longest(Lane::Bulk)]));
    hello.capabilities = SmallVec::from_iter([Capability(u16::MAX); 16]);
    (hello.agent, hello.name, hello.os) = (name, name, name);
    hello.last_command = Some(CommandNumber { issuer: u64::MAX, seq: u64::MAX });
    let mut buffer = [0; lapwing_protocol::limits::FRAME_BYTES_UNAUTHENTICATED_MAX];
    let length = Message::Hello(hello).encode(&mut buffer).unwrap();
    // What a sensor has to keep free beside the three texts: 128, and 512 a log.
    assert!(length - 3 * 255 <= 128 + 2 * 512, "{length}");
    let largest = |lane| LogGrant {
        next_seq: u64::MAX,
        next_index: u64::MAX,
        credit: Credit { limit_seq: u64::MAX, limit_bytes: u64::MAX },
        ..grant(lane, LogVerdict::Forked)
    };
    let mut ack = hello_ack(SmallVec::from_iter([largest(Lane::Urgent), largest(Lane::Bulk)]));
    ack.name = name;
    (ack.session_epoch, ack.server_ms) = (u64::MAX, u64::MAX);
    (ack.receive_bytes_max, ack.rows_max) = (u32::MAX, u32::MAX);
    let length = Message::HelloAck(ack).encode(&mut buffer).unwrap();
    assert!(length <= lapwing_protocol::limits::RECEIVE_BYTES_MIN, "{length}");
}
