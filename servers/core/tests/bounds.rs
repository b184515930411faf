//! What a session refuses, and what a lane's credit does while a server is short of room.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use lapwing_protocol::chunk::{Chunk, ChunkFlags, ChunkHeader};
use lapwing_protocol::delivery::{Ack, NackReason, Ping};
use lapwing_protocol::digest::Chain;
use lapwing_protocol::frame::Frame;
use lapwing_protocol::hello::{Hello, LogCause, LogGrant, LogHead, Memory};
use lapwing_protocol::id::{BootId, DeploymentId, Lane, LogId, SensorId, ServerId};
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::CHUNK_BYTES_MAX;
use lapwing_protocol::message::Message;
use lapwing_server_core::delivery::limits::{CHUNK_COST_MIN, WINDOW_BYTES_FIRST};
use lapwing_server_core::delivery::{
    Entry, Offer, Offerings, Patience, PeerFault, Receiver, Rest, Session,
};
use lapwing_server_core::pressure::Pressure;

const DEPLOYMENT: DeploymentId = DeploymentId([1; 16]);
const SENSOR: SensorId = SensorId([2; 16]);
const LOG: LogId = LogId([5; 16]);

fn chunk(lane: Lane, seq: u64, flags: u8, body: &[u8]) -> Vec<u8> {
    let urgent = if lane == Lane::Urgent { ChunkFlags::URGENT } else { 0 };
    let header = ChunkHeader {
        flags: ChunkFlags(flags | urgent),
        encoding: 1,
        seq,
        first_index: seq,
        count: 1,
        part: 0,
        time_base_ns: 0,
        digest: [0; 4],
    };
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    Chunk { header, body }.encode(&mut buffer).unwrap().to_vec()
}

fn small(lane: Lane, seq: u64) -> Vec<u8> {
    chunk(lane, seq, ChunkFlags::SELF_CONTAINED, b"facts")
}

fn hello(lane: Lane) -> Hello<'static> {
    let head = LogHead {
        lane,
        log: LOG,
        cause: LogCause::First,
        parent: None,
        first_seq: 1,
        next_seq: 1,
        next_index: 1,
        acked_seq: 0,
        acked_chain: Chain::start(DEPLOYMENT, SENSOR, lane, LOG),
        elsewhere: Items::EMPTY,
    };
    Hello {
        version_min: 1,
        version_max: 1,
        capabilities: heapless::Vec::new(),
        agent: "test/1",
        name: "machine",
        os: "Linux",
        boot: BootId([9; 16]),
        receive_bytes_max: 4096,
        memory: Memory::Disk,
        collecting: true,
        last_command: None,
        logs: [head].into_iter().collect(),
    }
}

fn greeted(lane: Lane, prepare: impl FnOnce(&mut Receiver)) -> (Receiver, LogGrant) {
    let mut receiver = Receiver::new((DEPLOYMENT, ServerId([3; 16])), SENSOR, [None, None]);
    receiver.begin_session(1);
    prepare(&mut receiver);
    let grant = receiver.handle_hello(1, &hello(lane)).unwrap()[0];
    (receiver, grant)
}

fn take(receiver: &mut Receiver, bytes: &[u8]) -> Result<Option<Entry>, PeerFault> {
    receiver.handle_chunk(1, &Chunk::decode(bytes).unwrap(), bytes)
}

fn ack(receiver: &mut Receiver) -> Ack {
    match receiver.poll_message(1) {
        Some(Offer::Ack(ack)) => ack,
        other => panic!("{other:?} is no Ack"),
    }
}

#[test]
fn a_chunk_with_flags_that_mean_nothing_is_refused() {
    // LOG-021.
    for flag in [16, 32, 64, 128] {
        let (mut receiver, _) = greeted(Lane::Bulk, |_| ());
        let bytes = chunk(Lane::Bulk, 1, ChunkFlags::SELF_CONTAINED | flag, b"facts");
        assert_eq!(take(&mut receiver, &bytes), Err(PeerFault::Malformed), "flag {flag}");
    }
}

#[test]
fn credit_that_is_raised_by_the_server_alone_rises_by_its_word() {
    // DLV-007, DLV-008: absolute, lifted only by an Ack, and never lower than before.
    let (mut receiver, grant) = greeted(Lane::Bulk, |receiver| {
        receiver.hold_credit();
        receiver.set_first_window(WINDOW_BYTES_FIRST);
    });
    assert_eq!(grant.credit.limit_bytes, WINDOW_BYTES_FIRST);
    assert_eq!(grant.credit.limit_seq, WINDOW_BYTES_FIRST / CHUNK_COST_MIN);
    assert_eq!(receiver.credit_left(), Some(WINDOW_BYTES_FIRST));
    let bytes = small(Lane::Bulk, 1);
    let entry = take(&mut receiver, &bytes).unwrap().unwrap();
    receiver.handle_stored(entry.lane, entry.log, entry.seq);
    assert_eq!(ack(&mut receiver).credit, grant.credit, "what is stored raises nothing");
    receiver.raise_credit(1, 1_000);
    assert_eq!(receiver.poll_message(1), None, "less than it has is no news");
    receiver.raise_credit(7, 1 << 20);
    assert_eq!(receiver.poll_message(1), None, "another session's");
    receiver.raise_credit(1, 1 << 20);
    let raised = ack(&mut receiver);
    assert_eq!(raised.stored_seq, 1);
    assert_eq!(raised.credit.limit_bytes, bytes.len() as u64 + (1 << 20));
    assert_eq!(raised.credit.limit_seq, 1 + (1 << 20) / CHUNK_COST_MIN);
}

#[test]
fn what_is_not_admitted_is_stored_nowhere_and_taken_when_it_comes_again() {
    // DLV-009: Throttled.
    let (mut receiver, _) = greeted(Lane::Bulk, |_| ());
    let bytes = small(Lane::Bulk, 1);
    let decoded = Chunk::decode(&bytes).unwrap();
    let mut asked = Vec::new();
    let mut refuse = |bytes| {
        asked.push(bytes);
        Err(250)
    };
    assert_eq!(receiver.handle_chunk_if(1, &decoded, &bytes, &mut refuse), Ok(None));
    assert_eq!(asked, [bytes.len()]);
    let Some(Offer::Nack(nack)) = receiver.poll_message(1) else { panic!("no nack") };
    assert_eq!((nack.next_seq, nack.reason), (1, NackReason::Throttled));
    assert_eq!((nack.episode, nack.retry_after_ms), (1, 250));
    assert!(receiver.handle_chunk_if(1, &decoded, &bytes, &mut |_| Ok(())).unwrap().is_some());
    // What would not be taken anyway is not asked for.
    let mut never = |_| panic!("asked for a repeat");
    assert_eq!(receiver.handle_chunk_if(1, &decoded, &bytes, &mut never), Ok(None));
}

#[test]
fn the_urgent_lane_is_never_throttled_and_keeps_credit_for_one_chunk() {
    let (mut receiver, grant) =
        greeted(Lane::Urgent, |receiver| receiver.fit_urgent(Pressure::Full));
    assert_eq!(grant.credit.limit_seq, 1);
    assert_eq!(grant.credit.limit_bytes, CHUNK_BYTES_MAX as u64);
    receiver.hold_credit();
    receiver.overload(Some(500));
    for seq in 1..=5 {
        let bytes = small(Lane::Urgent, seq);
        let mut never = |_| panic!("the urgent lane asks nobody");
        let entry = receiver
            .handle_chunk_if(1, &Chunk::decode(&bytes).unwrap(), &bytes, &mut never)
            .unwrap()
            .unwrap();
        receiver.handle_stored(entry.lane, entry.log, entry.seq);
        assert_eq!(ack(&mut receiver).credit.limit_seq, seq + 1);
    }
}

fn session() -> (Session, Receiver) {
    let offerings = Offerings {
        server: ServerId([3; 16]),
        name: "d1".into(),
        receive_bytes_max: 16_640,
        rows_max: 1_000,
    };
    let patience =
        Patience { ping_ms: 100, idle_ms: 300, hello_ms: 500, frame_ms: 90, progress_ms: 30 };
    let session = Session::new(0, 1, offerings).with_patience(patience);
    let mut receiver = Receiver::new((DEPLOYMENT, ServerId([3; 16])), SENSOR, [None, None]);
    receiver.begin_session(1);
    (session, receiver)
}

fn hear(session: &mut Session, receiver: &mut Receiver, now_ms: u64, message: &Message<'_>) {
    let mut buffer = [0; 512];
    let length = message.encode(&mut buffer).unwrap();
    let frame = Frame { kind: message.kind(), skippable: false, body: &buffer[4..length] };
    session.handle_frame((now_ms, now_ms), &frame, receiver).unwrap();
}

#[test]
fn a_frame_must_grow_and_end_in_time() {
    let (mut session, mut receiver) = session();
    session.handle_bytes(0, Rest::PartOfFrame);
    assert_eq!(session.poll_timeout(), 30);
    assert_eq!(session.handle_timeout(29), Ok(()));
    // It drips: a byte each 20 ms keeps it growing, but not for ever.
    for at_ms in [20, 40, 60, 80] {
        session.handle_bytes(at_ms, Rest::PartOfFrame);
        assert_eq!(session.handle_timeout(at_ms), Ok(()));
    }
    assert_eq!(session.poll_timeout(), 90);
    assert_eq!(session.handle_timeout(90), Err(PeerFault::Dripping));
    // A frame that ended takes its time with it.
    hear(&mut session, &mut receiver, 85, &Message::Ping(Ping { nonce: 1 }));
    session.handle_bytes(85, Rest::None);
    assert_eq!(session.handle_timeout(90), Ok(()));
    // One that nobody read is no drip.
    session.handle_bytes(100, Rest::PartOfFrame);
    session.excuse(1_000);
    assert!(session.handle_timeout(1_029) != Err(PeerFault::Dripping));
    assert_eq!(session.handle_timeout(1_030), Err(PeerFault::Dripping));
}

#[test]
fn whoever_pings_and_never_says_hello_is_given_up() {
    let (mut session, mut receiver) = session();
    for at_ms in [100, 200, 300, 400] {
        assert_eq!(session.handle_timeout(at_ms), Ok(()));
        hear(&mut session, &mut receiver, at_ms, &Message::Ping(Ping { nonce: at_ms }));
    }
    assert_eq!(session.handle_timeout(500), Err(PeerFault::Idle));
    hear(&mut session, &mut receiver, 499, &Message::Hello(hello(Lane::Bulk)));
    assert_eq!(session.handle_timeout(500), Ok(()));
}
