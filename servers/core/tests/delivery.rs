//! The server's end of delivery against a hand-written sensor: each rule once, byte for byte.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails where it stands")]

use lapwing_protocol::chunk::{Chunk, ChunkFlags, ChunkHeader};
use lapwing_protocol::delivery::{Jump, JumpCause, LossReason, NackReason, Pong, ResyncReason};
use lapwing_protocol::digest::Chain;
use lapwing_protocol::frame::{Frame, FrameKind};
use lapwing_protocol::hello::{
    Hello, LogCause, LogGrant, LogHead, LogVerdict, Memory, StoredRange,
};
use lapwing_protocol::id::{BootId, DeploymentId, Lane, LogId, SensorId, ServerId};
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::SEQ_MAX;
use lapwing_protocol::message::Message;
use lapwing_server_core::delivery::limits::WINDOW_CHUNKS;
use lapwing_server_core::delivery::{
    Entry, Offer, Offerings, PeerFault, Receiver, Session, SessionEvent,
};

const DEPLOYMENT: DeploymentId = DeploymentId([1; 16]);
const SENSOR: SensorId = SensorId([2; 16]);
const SERVER: ServerId = ServerId([3; 16]);
const ELSEWHERE: ServerId = ServerId([4; 16]);
const LOG: LogId = LogId([5; 16]);

/// The sensor's side of one bulk log.
struct Sensor {
    log: LogId,
    chunks: Vec<Vec<u8>>,
    chains: Vec<Chain>,
}

impl Sensor {
    fn new(log: LogId) -> Self {
        let start = Chain::start(DEPLOYMENT, SENSOR, Lane::Bulk, log);
        Self { log, chunks: vec![], chains: vec![start] }
    }

    /// Makes chunk `seq` with one fact; the first opens.
    fn chunk(&mut self, salt: u8) -> Vec<u8> {
        let seq = self.chunks.len() as u64 + 1;
        let flags = if seq == 1 { ChunkFlags::SELF_CONTAINED } else { 0 };
        self.chunk_with(flags, salt)
    }

    fn chunk_with(&mut self, flags: u8, salt: u8) -> Vec<u8> {
        let seq = self.chunks.len() as u64 + 1;
        let header = ChunkHeader {
            flags: ChunkFlags(flags),
            encoding: 1,
            seq,
            first_index: seq,
            count: 1,
            part: 0,
            time_base_ns: 0,
            digest: [0; 4],
        };
        let mut buffer = [0; 128];
        let bytes = Chunk { header, body: &[salt] }.encode(&mut buffer).unwrap().to_vec();
        self.chains.push(self.chains.last().unwrap().next(&bytes));
        self.chunks.push(bytes.clone());
        bytes
    }

    fn head(&self, first_seq: u64, acked_seq: u64) -> LogHead<'static> {
        LogHead {
            lane: Lane::Bulk,
            log: self.log,
            cause: LogCause::First,
            parent: None,
            first_seq,
            next_seq: self.chunks.len() as u64 + 1,
            next_index: self.chunks.len() as u64 + 1,
            acked_seq,
            acked_chain: self.chains[acked_seq as usize],
            elsewhere: Items::EMPTY,
        }
    }
}

fn hello(head: LogHead<'_>) -> Hello<'_> {
    let mut logs = heapless::Vec::new();
    logs.push(head).unwrap();
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
        logs,
    }
}

fn receiver() -> Receiver {
    let mut receiver = Receiver::new((DEPLOYMENT, SERVER), SENSOR, [None, None]);
    receiver.begin_session(1);
    receiver
}

fn greet(receiver: &mut Receiver, epoch: u64, head: LogHead<'_>) -> LogGrant {
    receiver.handle_hello(epoch, &hello(head)).unwrap()[0]
}

fn take(receiver: &mut Receiver, epoch: u64, bytes: &[u8]) -> Option<Entry> {
    receiver.handle_chunk(epoch, &Chunk::decode(bytes).unwrap(), bytes).unwrap()
}

fn store(receiver: &mut Receiver, entry: &Entry) {
    receiver.handle_stored(entry.lane, entry.log, entry.seq);
}

fn acked(receiver: &mut Receiver, epoch: u64) -> Option<u64> {
    match receiver.poll_message(epoch) {
        Some(Offer::Ack(ack)) => Some(ack.stored_seq),
        Some(Offer::Nack(_) | Offer::Resync(_)) | None => None,
    }
}

#[test]
fn nothing_is_acknowledged_before_it_is_durable() {
    let (mut sensor, mut receiver) = (Sensor::new(LOG), receiver());
    greet(&mut receiver, 1, sensor.head(1, 0));
    let entry = take(&mut receiver, 1, &sensor.chunk(0)).unwrap();
    assert_eq!(receiver.poll_message(1), None);
    store(&mut receiver, &entry);
    assert_eq!(acked(&mut receiver, 1), Some(1));
    assert_eq!(receiver.poll_message(1), None);
}

#[test]
fn a_repeated_chunk_is_acknowledged_again_and_stored_once() {
    let (mut sensor, mut receiver) = (Sensor::new(LOG), receiver());
    greet(&mut receiver, 1, sensor.head(1, 0));
    let bytes = sensor.chunk(0);
    let entry = take(&mut receiver, 1, &bytes).unwrap();
    store(&mut receiver, &entry);
    assert_eq!(acked(&mut receiver, 1), Some(1));
    assert_eq!(take(&mut receiver, 1, &bytes), None);
    assert_eq!(acked(&mut receiver, 1), Some(1));
}

#[test]
fn a_gap_gets_one_nack_and_the_missing_chunk_ends_the_episode() {
    let (mut sensor, mut receiver) = (Sensor::new(LOG), receiver());
    greet(&mut receiver, 1, sensor.head(1, 0));
    let chunks: Vec<_> = (0..4).map(|salt| sensor.chunk(salt)).collect();
    take(&mut receiver, 1, &chunks[0]).unwrap();
    assert_eq!(take(&mut receiver, 1, &chunks[2]), None);
    let Some(Offer::Nack(nack)) = receiver.poll_message(1) else { panic!("no nack") };
    assert_eq!((nack.next_seq, nack.episode, nack.reason), (2, 1, NackReason::OutOfOrder));
    assert_eq!(take(&mut receiver, 1, &chunks[3]), None);
    assert_eq!(receiver.poll_message(1), None, "one nack per episode");
    for bytes in &chunks[1..] {
        assert!(take(&mut receiver, 1, bytes).is_some());
    }
}

#[test]
fn credit_is_enforced_and_lifted_by_storing() {
    let (mut sensor, mut receiver) = (Sensor::new(LOG), receiver());
    let grant = greet(&mut receiver, 1, sensor.head(1, 0));
    assert_eq!(grant.credit.limit_seq, WINDOW_CHUNKS);
    let entries: Vec<_> =
        (0..WINDOW_CHUNKS).map(|_| take(&mut receiver, 1, &sensor.chunk(0)).unwrap()).collect();
    let beyond = sensor.chunk(0);
    assert_eq!(take(&mut receiver, 1, &beyond), None);
    let Some(Offer::Nack(nack)) = receiver.poll_message(1) else { panic!("no nack") };
    assert_eq!(nack.reason, NackReason::BeyondCredit);
    store(&mut receiver, &entries[0]);
    let Some(Offer::Ack(ack)) = receiver.poll_message(1) else { panic!("no ack") };
    assert_eq!(ack.credit.limit_seq, WINDOW_CHUNKS + 1);
    assert!(take(&mut receiver, 1, &beyond).is_some());
}

#[test]
fn held_credit_does_not_rise_and_never_shrinks() {
    let (mut sensor, mut receiver) = (Sensor::new(LOG), receiver());
    let grant = greet(&mut receiver, 1, sensor.head(1, 0));
    receiver.hold_credit();
    let entry = take(&mut receiver, 1, &sensor.chunk(0)).unwrap();
    store(&mut receiver, &entry);
    let Some(Offer::Ack(ack)) = receiver.poll_message(1) else { panic!("no ack") };
    assert_eq!(ack.credit, grant.credit);
    receiver.lift_credit();
    let Some(Offer::Ack(ack)) = receiver.poll_message(1) else { panic!("no ack") };
    assert!(ack.credit.limit_seq > grant.credit.limit_seq);
}

#[test]
fn an_overloaded_server_stores_nothing_and_takes_the_same_chunk_later() {
    let (mut sensor, mut receiver) = (Sensor::new(LOG), receiver());
    greet(&mut receiver, 1, sensor.head(1, 0));
    receiver.overload(Some(500));
    let bytes = sensor.chunk(0);
    assert_eq!(take(&mut receiver, 1, &bytes), None);
    let Some(Offer::Nack(nack)) = receiver.poll_message(1) else { panic!("no nack") };
    assert_eq!((nack.reason, nack.retry_after_ms), (NackReason::Throttled, 500));
    assert_eq!(take(&mut receiver, 1, &bytes), None);
    assert!(matches!(receiver.poll_message(1), Some(Offer::Nack(_))), "a new episode");
    receiver.overload(None);
    assert!(take(&mut receiver, 1, &bytes).is_some());
}

#[test]
fn an_older_session_is_fenced() {
    let (mut sensor, mut receiver) = (Sensor::new(LOG), receiver());
    greet(&mut receiver, 1, sensor.head(1, 0));
    receiver.begin_session(2);
    let bytes = sensor.chunk(0);
    let chunk = Chunk::decode(&bytes).unwrap();
    assert_eq!(receiver.handle_chunk(1, &chunk, &bytes), Err(PeerFault::Fenced));
    assert_eq!(receiver.poll_message(1), None);
}

#[test]
fn a_jump_makes_a_hole_and_what_follows_must_open() {
    let (mut sensor, mut receiver) = (Sensor::new(LOG), receiver());
    greet(&mut receiver, 1, sensor.head(1, 0));
    let chunks: Vec<_> = (0..3).map(|salt| sensor.chunk(salt)).collect();
    take(&mut receiver, 1, &chunks[0]).unwrap();
    let jump = Jump {
        lane: Lane::Bulk,
        from_seq: 2,
        to_seq: 3,
        to_index: Some(3),
        chain_at_to: sensor.chains[3],
        cause: JumpCause::Lost(LossReason::MemoryLost),
    };
    let entry = receiver.handle_jump(1, &jump, b"jump").unwrap().unwrap();
    assert_eq!(
        (entry.seq, entry.head.current.next_seq, entry.head.current.must_open),
        (3, 4, true)
    );
    assert_eq!(receiver.handle_jump(1, &jump, b"jump"), Ok(None), "a repeat is no second hole");
    let closed = sensor.chunk(3);
    let refused = receiver.handle_chunk(1, &Chunk::decode(&closed).unwrap(), &closed);
    assert_eq!(refused, Err(PeerFault::MustOpen));
    sensor.chunks.pop();
    sensor.chains.pop();
    assert!(take(&mut receiver, 1, &sensor.chunk_with(ChunkFlags::SELF_CONTAINED, 3)).is_some());
}

#[test]
fn a_jump_to_the_end_of_all_numbers_is_refused_and_one_to_the_bound_is_not() {
    for (to_seq, is_taken) in [(SEQ_MAX, true), (SEQ_MAX + 1, false), (u64::MAX, false)] {
        let (sensor, mut receiver) = (Sensor::new(LOG), receiver());
        greet(&mut receiver, 1, sensor.head(1, 0));
        let jump = Jump {
            lane: Lane::Bulk,
            from_seq: 1,
            to_seq,
            to_index: Some(u64::MAX),
            chain_at_to: sensor.chains[0],
            cause: JumpCause::Lost(LossReason::MemoryLost),
        };
        match receiver.handle_jump(1, &jump, b"jump") {
            Ok(Some(entry)) => receiver.handle_stored(Lane::Bulk, LOG, entry.seq),
            refused => assert_eq!(refused, Err(PeerFault::Malformed)),
        }
        assert_eq!(receiver.poll_message(1).is_some(), is_taken, "{to_seq}");
    }
}

#[test]
fn a_jump_beyond_the_next_sequence_is_out_of_order() {
    let (sensor, mut receiver) = (Sensor::new(LOG), receiver());
    greet(&mut receiver, 1, sensor.head(1, 0));
    let jump = Jump {
        lane: Lane::Bulk,
        from_seq: 5,
        to_seq: 9,
        to_index: None,
        chain_at_to: sensor.chains[0],
        cause: JumpCause::StoredElsewhere(ELSEWHERE),
    };
    assert_eq!(receiver.handle_jump(1, &jump, b""), Ok(None));
    assert!(matches!(receiver.poll_message(1), Some(Offer::Nack(_))));
}

/// A receiver that stored `count` chunks of the sensor's log, and is greeted again.
fn after_storing(sensor: &mut Sensor, count: u8) -> Receiver {
    let mut receiver = receiver();
    greet(&mut receiver, 1, sensor.head(1, 0));
    for salt in 0..count {
        let entry = take(&mut receiver, 1, &sensor.chunk(salt)).unwrap();
        store(&mut receiver, &entry);
    }
    receiver.begin_session(2);
    receiver
}

#[test]
fn an_answer_to_hello_counts_only_what_is_durable() {
    let (mut sensor, mut receiver) = (Sensor::new(LOG), receiver());
    greet(&mut receiver, 1, sensor.head(1, 0));
    let chunks: Vec<_> = (0..3).map(|salt| sensor.chunk(salt)).collect();
    let entries: Vec<_> =
        chunks.iter().map(|bytes| take(&mut receiver, 1, bytes).unwrap()).collect();
    store(&mut receiver, &entries[0]);
    receiver.begin_session(2);
    let grant = greet(&mut receiver, 2, sensor.head(1, 0));
    assert_eq!((grant.next_seq, grant.next_index, grant.chain), (2, 2, sensor.chains[1]));
    // The sensor sends the rest again; it is on its way already and not stored twice.
    assert_eq!(take(&mut receiver, 2, &chunks[1]), None);
    assert_eq!(take(&mut receiver, 2, &chunks[2]), None);
    assert_eq!(acked(&mut receiver, 2), Some(1));
    store(&mut receiver, &entries[1]);
    store(&mut receiver, &entries[2]);
    assert_eq!(acked(&mut receiver, 2), Some(3));
    assert!(take(&mut receiver, 2, &sensor.chunk(3)).is_some());
}

#[test]
fn dlv_003_what_comes_again_with_other_bytes_is_another_branch_and_no_repeat() {
    for is_durable in [false, true] {
        let (mut sensor, mut receiver) = (Sensor::new(LOG), receiver());
        greet(&mut receiver, 1, sensor.head(1, 0));
        let first = take(&mut receiver, 1, &sensor.chunk(0)).unwrap();
        store(&mut receiver, &first);
        // A second machine from an image of here.
        let mut twin =
            Sensor { log: LOG, chunks: sensor.chunks.clone(), chains: sensor.chains.clone() };
        let entries = [1, 2].map(|salt| take(&mut receiver, 1, &sensor.chunk(salt)).unwrap());
        receiver.begin_session(2);
        assert_eq!(greet(&mut receiver, 2, twin.head(1, 1)).next_seq, 2);
        if is_durable {
            entries.iter().for_each(|entry| store(&mut receiver, entry));
        }
        let bytes = twin.chunk(7);
        let chunk = Chunk::decode(&bytes).unwrap();
        assert_eq!(receiver.handle_chunk(2, &chunk, &bytes), Err(PeerFault::ChainBroken));
        // The first machine's own come again, and are repeats.
        receiver.begin_session(3);
        greet(&mut receiver, 3, sensor.head(1, 1));
        for bytes in sensor.chunks.iter().skip(1) {
            assert_eq!(take(&mut receiver, 3, bytes), None);
        }
    }
}

#[test]
fn the_hello_decision_table() {
    // Normal, and an ack that was lost before a crash: the sensor compares chains and trims.
    let mut sensor = Sensor::new(LOG);
    let mut receiver = after_storing(&mut sensor, 3);
    let grant = greet(&mut receiver, 2, sensor.head(1, 1));
    assert_eq!((grant.verdict, grant.next_seq), (LogVerdict::Resume, 4));
    assert_eq!(grant.chain, sensor.chains[3]);

    // The sensor's disk was rolled back.
    let mut rolled_back = Sensor::new(LOG);
    rolled_back.chunk(0);
    let grant = greet(&mut receiver, 2, rolled_back.head(1, 1));
    assert_eq!(grant.verdict, LogVerdict::SensorBehind);

    // It was rolled back, then ran on: other content under the same numbers.
    let mut forked = Sensor::new(LOG);
    (0..3).for_each(|salt| drop(forked.chunk(salt + 100)));
    let grant = greet(&mut receiver, 2, forked.head(1, 3));
    assert_eq!(grant.verdict, LogVerdict::Forked);
}

#[test]
fn a_server_that_lost_what_it_acknowledged_says_so() {
    let mut sensor = Sensor::new(LOG);
    let mut receiver = after_storing(&mut sensor, 2);
    (2..5).for_each(|salt| drop(sensor.chunk(salt)));
    let grant = greet(&mut receiver, 2, sensor.head(1, 5));
    assert_eq!((grant.verdict, grant.next_seq), (LogVerdict::ServerBehind, 3));

    // Nothing at all is left, and no other server accounts for it.
    let mut empty = self::receiver();
    assert_eq!(greet(&mut empty, 1, sensor.head(4, 5)).verdict, LogVerdict::ServerBehind);
}

#[test]
fn coming_back_from_another_server_is_no_alarm() {
    let mut sensor = Sensor::new(LOG);
    let mut receiver = after_storing(&mut sensor, 2);
    (2..5).for_each(|salt| drop(sensor.chunk(salt)));
    let mut buffer = [0; 64];
    let range = StoredRange { server: ELSEWHERE, from_seq: 3, to_seq: 5 };
    let mut head = sensor.head(4, 5);
    head.elsewhere = Items::encode([range], &mut buffer).unwrap();
    let grant = greet(&mut receiver, 2, head);
    assert_eq!((grant.verdict, grant.next_seq), (LogVerdict::Resume, 3));
}

#[test]
fn frm_012_runs_that_do_not_decode_make_the_hello_malformed() {
    let mut sensor = Sensor::new(LOG);
    let mut receiver = receiver();
    sensor.chunk(1);
    let mut head = sensor.head(1, 0);
    head.elsewhere = Items::from_bytes(&[1, 2, 3]);
    assert_eq!(receiver.handle_hello(1, &hello(head)), Err(PeerFault::Malformed));
}

#[test]
fn an_old_log_is_remembered_when_a_new_one_opens() {
    let mut sensor = Sensor::new(LOG);
    let mut receiver = after_storing(&mut sensor, 3);
    let other = Sensor::new(LogId([6; 16]));
    assert_eq!(greet(&mut receiver, 2, other.head(1, 0)).verdict, LogVerdict::New);
    let grant = greet(&mut receiver, 2, sensor.head(4, 3));
    assert_eq!((grant.verdict, grant.next_seq), (LogVerdict::Resume, 4));
}

#[test]
fn a_log_that_comes_back_goes_on_in_its_segment() {
    let mut sensor = Sensor::new(LOG);
    let mut receiver = after_storing(&mut sensor, 2);
    greet(&mut receiver, 2, Sensor::new(LogId([6; 16])).head(1, 0));
    assert_eq!(greet(&mut receiver, 2, sensor.head(1, 2)).next_seq, 3);
    // Chunk 3 does not open; its segment began with chunk 1.
    let entry = take(&mut receiver, 2, &sensor.chunk(2)).unwrap();
    assert_eq!((entry.seq, entry.head.current.segment_seq), (3, 1));
}

#[test]
fn a_log_that_comes_back_counts_only_what_is_durable() {
    let (mut sensor, mut receiver) = (Sensor::new(LOG), receiver());
    greet(&mut receiver, 1, sensor.head(1, 0));
    let bytes = sensor.chunk(0);
    let entry = take(&mut receiver, 1, &bytes).unwrap();
    greet(&mut receiver, 1, Sensor::new(LogId([6; 16])).head(1, 0));
    assert_eq!(greet(&mut receiver, 1, sensor.head(1, 0)).next_seq, 1);
    assert_eq!(take(&mut receiver, 1, &bytes), None, "it is on its way");
    assert_eq!(acked(&mut receiver, 1), Some(0));
    store(&mut receiver, &entry);
    assert_eq!(acked(&mut receiver, 1), Some(1));
}

#[test]
fn late_word_of_an_older_log_takes_nothing_of_the_newer_one_along() {
    let (mut sensor, mut receiver) = (Sensor::new(LOG), receiver());
    greet(&mut receiver, 1, sensor.head(1, 0));
    let old = take(&mut receiver, 1, &sensor.chunk(0)).unwrap();
    let mut other = Sensor::new(LogId([6; 16]));
    receiver.begin_session(2);
    greet(&mut receiver, 2, other.head(1, 0));
    let new: Vec<_> =
        (0..2).map(|salt| take(&mut receiver, 2, &other.chunk(salt)).unwrap()).collect();
    store(&mut receiver, &new[0]);
    store(&mut receiver, &old);
    assert_eq!(acked(&mut receiver, 2), Some(1));
    store(&mut receiver, &new[1]);
    assert_eq!(acked(&mut receiver, 2), Some(2));
}

#[test]
fn behind_what_the_store_refused_nothing_is_acknowledged() {
    let (mut sensor, mut receiver) = (Sensor::new(LOG), receiver());
    greet(&mut receiver, 1, sensor.head(1, 0));
    take(&mut receiver, 1, &sensor.chunk(0)).unwrap();
    let second = take(&mut receiver, 1, &sensor.chunk(1)).unwrap();
    receiver.handle_store_failed();
    store(&mut receiver, &second);
    assert_eq!(acked(&mut receiver, 1), None);
    receiver.begin_session(2);
    assert_eq!(greet(&mut receiver, 2, sensor.head(1, 0)).next_seq, 1);
}

#[test]
fn of_a_log_that_cannot_go_on_nothing_is_taken() {
    let mut sensor = Sensor::new(LOG);
    let mut receiver = after_storing(&mut sensor, 3);
    let mut rolled_back = Sensor::new(LOG);
    rolled_back.chunk(0);
    assert_eq!(greet(&mut receiver, 2, rolled_back.head(1, 1)).verdict, LogVerdict::SensorBehind);
    let bytes = sensor.chunk(3);
    let chunk = Chunk::decode(&bytes).unwrap();
    assert_eq!(receiver.handle_chunk(2, &chunk, &bytes), Err(PeerFault::OutOfPlace));
    // A mark is no exception, the right one neither.
    let mark = (Lane::Bulk, 3, sensor.chains[3]);
    assert_eq!(receiver.handle_chain_mark(2, mark), Err(PeerFault::OutOfPlace));
}

#[test]
fn hel_002_a_mark_of_a_lane_that_the_hello_did_not_name_is_out_of_place() {
    let mut sensor = Sensor::new(LOG);
    let mut receiver = after_storing(&mut sensor, 2);
    let mark = (Lane::Bulk, 2, sensor.chains[2]);
    let urgent = LogHead { lane: Lane::Urgent, ..Sensor::new(LogId([6; 16])).head(1, 0) };
    receiver.handle_hello(2, &hello(urgent)).unwrap();
    assert_eq!(receiver.handle_chain_mark(2, mark), Err(PeerFault::OutOfPlace));
    receiver.handle_hello(2, &hello(sensor.head(1, 2))).unwrap();
    assert_eq!(receiver.handle_chain_mark(2, mark), Ok(()));
}

#[test]
fn a_jump_uses_no_credit() {
    let (mut sensor, mut receiver) = (Sensor::new(LOG), receiver());
    let grant = greet(&mut receiver, 1, sensor.head(1, 0));
    let entry = take(&mut receiver, 1, &sensor.chunk(0)).unwrap();
    let size = entry.bytes.len() as u64;
    let jump = Jump {
        lane: Lane::Bulk,
        from_seq: 2,
        to_seq: 9,
        to_index: None,
        chain_at_to: sensor.chains[0],
        cause: JumpCause::StoredElsewhere(ELSEWHERE),
    };
    receiver.handle_jump(1, &jump, &[0; 1000]).unwrap().unwrap();
    store(&mut receiver, &entry);
    let Some(Offer::Ack(ack)) = receiver.poll_message(1) else { panic!("no ack") };
    assert_eq!(ack.stored_seq, 1);
    assert_eq!(ack.credit.limit_seq, 1 + WINDOW_CHUNKS, "the Jump is not durable yet");
    assert_eq!(ack.credit.limit_bytes, grant.credit.limit_bytes + size);
}

#[test]
fn what_comes_again_under_a_new_session_uses_its_credit() {
    let (mut sensor, mut receiver) = (Sensor::new(LOG), receiver());
    greet(&mut receiver, 1, sensor.head(1, 0));
    let chunks: Vec<_> = (0..2).map(|salt| sensor.chunk(salt)).collect();
    let entries: Vec<_> =
        chunks.iter().map(|bytes| take(&mut receiver, 1, bytes).unwrap()).collect();
    receiver.begin_session(2);
    let grant = greet(&mut receiver, 2, sensor.head(1, 0));
    assert_eq!(grant.next_seq, 1);
    chunks.iter().for_each(|bytes| assert_eq!(take(&mut receiver, 2, bytes), None));
    entries.iter().for_each(|entry| store(&mut receiver, entry));
    let Some(Offer::Ack(ack)) = receiver.poll_message(2) else { panic!("no ack") };
    let sent: usize = chunks.iter().map(Vec::len).sum();
    assert_eq!(ack.credit.limit_bytes, grant.credit.limit_bytes + sent as u64);
}

fn session() -> Session {
    let offerings =
        Offerings { server: SERVER, name: "d1".into(), receive_bytes_max: 16_640, rows_max: 1000 };
    Session::new(0, 1, offerings)
}

fn frame<'a>(message: &Message<'_>, buffer: &'a mut [u8]) -> Frame<'a> {
    let length = message.encode(buffer).unwrap();
    Frame { kind: message.kind(), skippable: false, body: &buffer[4..length] }
}

#[test]
fn a_name_that_would_spoil_a_table_or_a_record_is_refused() {
    let long = "n".repeat(256);
    for (name, is_taken) in [("", true), (&long[..255], true), (&long, false), ("a\nb", false)] {
        let (sensor, mut receiver, mut session) = (Sensor::new(LOG), receiver(), session());
        let mut buffer = [0; 1024];
        let greeting = Hello { name, ..hello(sensor.head(1, 0)) };
        let greeting = frame(&Message::Hello(greeting), &mut buffer);
        let event = session.handle_frame((0, 7), &greeting, &mut receiver);
        assert_eq!(event.is_ok(), is_taken, "{name:?}");
    }
}

#[test]
fn a_session_greets_first_and_pings_the_silent() {
    let (sensor, mut receiver, mut session) = (Sensor::new(LOG), receiver(), session());
    let mut buffer = [0; 512];
    let chunk = Frame { kind: FrameKind(3), skippable: false, body: &Sensor::new(LOG).chunk(0) };
    let early = session.handle_frame((0, 0), &chunk, &mut receiver);
    assert_eq!(early, Err(PeerFault::OutOfPlace));
    let pong = Message::Pong(Pong { nonce: 1 });
    let event = session.handle_frame((0, 0), &frame(&pong, &mut buffer), &mut receiver);
    assert_eq!(event, Ok(None), "a Ping may be answered at any time");
    let greeting = Message::Hello(hello(sensor.head(1, 0)));
    let event = session.handle_frame((0, 7), &frame(&greeting, &mut buffer), &mut receiver);
    assert!(
        matches!(event, Ok(Some(SessionEvent::Greeted(greeting))) if greeting.name == "machine")
    );
    assert_eq!(session.poll_transmit(&mut receiver).unwrap()[2], 2, "a HelloAck");
    assert_eq!(session.handle_timeout(29_999), Ok(()));
    assert_eq!(session.poll_transmit(&mut receiver), None);
    assert_eq!(session.handle_timeout(session.poll_timeout()), Ok(()));
    assert_eq!(session.poll_transmit(&mut receiver).unwrap()[2], 9, "a Ping");
    assert_eq!(session.handle_timeout(session.poll_timeout()), Err(PeerFault::Idle));
}

#[test]
fn dlv_012_a_resync_that_comes_too_soon_is_said_when_it_is_time() {
    let (mut sensor, mut receiver, mut session) = (Sensor::new(LOG), receiver(), session());
    let mut buffer = [0; 512];
    let hello = Message::Hello(hello(sensor.head(1, 0)));
    session.handle_frame((0, 0), &frame(&hello, &mut buffer), &mut receiver).unwrap();
    let resynced = |receiver: &mut Receiver| match receiver.poll_message(1) {
        Some(Offer::Resync(resync)) => Some(resync.at_seq),
        Some(Offer::Ack(_) | Offer::Nack(_)) | None => None,
    };
    take(&mut receiver, 1, &sensor.chunk(0)).unwrap();
    for (now_ms, seq, expected) in [(1_000, 1, Some(1)), (2_000, 2, None)] {
        receiver.handle_divergent(now_ms, Lane::Bulk, seq, ResyncReason::Undecodable);
        assert_eq!(resynced(&mut receiver), expected);
    }
    // Nothing more comes of the sensor but that it lives.
    for (now_ms, expected) in [(60_000, None), (61_000, Some(2)), (200_000, None)] {
        let pong = Message::Pong(Pong { nonce: 1 });
        session.handle_frame((now_ms, 0), &frame(&pong, &mut buffer), &mut receiver).unwrap();
        assert_eq!(resynced(&mut receiver), expected);
    }
}

#[test]
fn unknown_kinds_are_skipped_only_when_they_may_be() {
    let (sensor, mut receiver, mut session) = (Sensor::new(LOG), receiver(), session());
    let mut buffer = [0; 512];
    let greeting = Message::Hello(hello(sensor.head(1, 0)));
    session.handle_frame((0, 0), &frame(&greeting, &mut buffer), &mut receiver).unwrap();
    let mut unknown = Frame { kind: FrameKind(999), skippable: true, body: &[] };
    assert_eq!(session.handle_frame((0, 0), &unknown, &mut receiver), Ok(None));
    unknown.skippable = false;
    let refused = session.handle_frame((0, 0), &unknown, &mut receiver);
    assert_eq!(refused, Err(PeerFault::UnknownKind));
}
