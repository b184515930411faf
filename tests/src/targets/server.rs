//! A server's end of delivery against a sensor that says anything at any moment, and the decoder
//! behind it.
//!
//! Laws: nothing panics; what is given out to be stored is dense in its log and continues its
//! chain; nothing is acknowledged that was not stored; credit never shrinks within a session.
#![allow(clippy::expect_used, reason = "a law that does not hold is a panic")]

use std::collections::BTreeMap;

use lapwing_protocol::chunk::{Chunk, ChunkFlags, ChunkHeader};
use lapwing_protocol::delivery::{
    Ack, ChainMark, Credit, Jump, JumpCause, LossReason, Ping, ResyncReason,
};
use lapwing_protocol::digest::Chain;
use lapwing_protocol::frame::Deframer;
use lapwing_protocol::hello::{Hello, HelloAck, LogCause, LogHead, Memory, StoredRange};
use lapwing_protocol::id::{BootId, DeploymentId, Lane, LogId, SensorId, ServerId};
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use lapwing_protocol::message::Message;
use lapwing_protocol::op::{DropReason, ENCODING_PLAIN_ROWS};
use lapwing_server_core::decode::{BuiltIn, Decoder, LogContext};
use lapwing_server_core::delivery::{Entry, EntryKind, Offerings, Receiver, Session, SessionEvent};

use super::input::Input;

const IDS: (DeploymentId, SensorId) = (DeploymentId([1; 16]), SensorId([2; 16]));
const SERVER: ServerId = ServerId([6; 16]);
const STEPS_MAX: usize = 96;
const ROWS_MAX: u32 = 64;

/// Any sequence of what a sensor can send, against a server's session and receiver.
pub fn server(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    for _ in 0..STEPS_MAX {
        if input.is_over() {
            break;
        }
        world.step(&mut input);
        world.drain();
    }
}

/// Where the sensor believes a log to stand.
#[derive(Clone, Copy, Debug)]
struct Log {
    id: LogId,
    next_seq: u64,
    next_index: u64,
    chain: Chain,
}

impl Log {
    fn begin(lane: Lane, id: LogId) -> Self {
        let chain = Chain::start(IDS.0, IDS.1, lane, id);
        Self { id, next_seq: 1, next_index: 1, chain }
    }
}

/// A server with one sensor, and what was seen of it.
struct World {
    now_ms: u64,
    receiver: Receiver,
    session: Session,
    epoch: u64,
    logs: [Log; 2],
    /// What was given out and is not durable yet.
    pending: Vec<Entry>,
    /// The last sequence and chain of each log that was given out.
    given: BTreeMap<(Lane, LogId), (u64, Chain)>,
    /// The last durable sequence of each log.
    durable: BTreeMap<(Lane, LogId), u64>,
    granted: [Option<(LogId, Credit)>; 2],
}

impl World {
    fn new() -> Self {
        let receiver = Receiver::new((IDS.0, SERVER), IDS.1, [None, None]);
        let mut world = Self {
            now_ms: 1_000,
            receiver,
            session: Session::new(0, 0, offerings()),
            epoch: 0,
            logs: [
                Log::begin(Lane::Bulk, LogId([3; 16])),
                Log::begin(Lane::Urgent, LogId([4; 16])),
            ],
            pending: Vec::new(),
            given: BTreeMap::new(),
            durable: BTreeMap::new(),
            granted: [None; 2],
        };
        world.connect();
        world
    }

    fn connect(&mut self) {
        self.epoch += 1;
        self.receiver.begin_session(self.epoch);
        self.session = Session::new(self.now_ms, self.epoch, offerings());
        self.granted = [None; 2];
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let lane = if input.flag() { Lane::Urgent } else { Lane::Bulk };
        match input.below(16) {
            0..=4 => self.chunk(lane, input),
            5 | 6 => self.jump(lane, input),
            7 | 8 => self.hello(input),
            9 => {
                let log = self.logs[lane.index()];
                let seq = input.near(log.next_seq - 1);
                let chain = if input.flag() { log.chain } else { Chain([8; 32]) };
                self.say(&Message::ChainMark(ChainMark { lane, seq, chain }));
            }
            10 => self.connect(),
            11 => {
                self.logs[lane.index()] = Log::begin(lane, LogId([input.byte() & 7; 16]));
            }
            12 => {
                self.now_ms += u64::from(input.byte()) * 500;
                if self.session.handle_timeout(self.now_ms).is_err() {
                    self.connect();
                }
            }
            13 => self.store(input),
            14 => self.act(lane, input),
            _ => {
                let nonce = input.byte().into();
                self.say(&Message::Ping(Ping { nonce }));
            }
        }
    }

    /// What the server's own side does.
    fn act(&mut self, lane: Lane, input: &mut Input<'_>) {
        match input.below(6) {
            0 => self.receiver.hold_credit(),
            1 => self.receiver.lift_credit(),
            2 => self.receiver.overload(Some(100)),
            3 => self.receiver.overload(None),
            4 => {
                let reason = ResyncReason::DigestDiffers;
                self.receiver.handle_divergent(self.now_ms, lane, input.near(1), reason);
            }
            _ => self.store(input),
        }
    }

    fn chunk(&mut self, lane: Lane, input: &mut Input<'_>) {
        let log = self.logs[lane.index()];
        let lane_flag = if lane == Lane::Urgent { ChunkFlags::URGENT } else { 0 };
        let rest = match input.below(4) {
            0 => ChunkFlags::SELF_CONTAINED,
            1 => ChunkFlags::KEYFRAME | ChunkFlags::KEYFRAME_LAST,
            2 => 0,
            _ => input.byte() & !ChunkFlags::URGENT,
        };
        let header = ChunkHeader {
            flags: ChunkFlags(lane_flag | rest),
            encoding: ENCODING_PLAIN_ROWS,
            seq: input.near(log.next_seq),
            first_index: input.near(log.next_index),
            count: input.byte().into(),
            part: if input.below(8) == 0 { 1 } else { 0 },
            time_base_ns: 1,
            digest: [0; 4],
        };
        let body = input.bytes(40);
        let chunk = Chunk { header, body };
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        let Ok(bytes) = chunk.encode(&mut buffer).map(|bytes| bytes.to_vec()) else { return };
        if header.seq == log.next_seq && header.first_index == log.next_index {
            self.logs[lane.index()] = Log {
                id: log.id,
                next_seq: log.next_seq + 1,
                next_index: log.next_index.saturating_add(header.count),
                chain: log.chain.next(&bytes),
            };
        }
        self.say(&Message::Chunk(chunk));
    }

    fn jump(&mut self, lane: Lane, input: &mut Input<'_>) {
        let log = self.logs[lane.index()];
        let to_seq = log.next_seq.saturating_add(input.byte().into());
        let causes = [
            JumpCause::Dropped(DropReason::SpoolFull),
            JumpCause::StoredElsewhere(ServerId([input.byte() & 7; 16])),
            JumpCause::Lost(LossReason::SpoolDamaged),
            JumpCause::Lost(LossReason::ServerRolledBack),
        ];
        let to_index = log.next_index.saturating_add(input.byte().into());
        let chain_at_to = Chain(input.array());
        let jump = Jump {
            lane,
            from_seq: input.near(log.next_seq),
            to_seq: input.near(to_seq),
            to_index: input.flag().then(|| input.near(to_index)),
            chain_at_to,
            cause: causes[usize::from(input.below(4))],
        };
        if jump.from_seq == log.next_seq && jump.to_seq == to_seq {
            let next_index = jump.to_index.map_or(log.next_index, |index| index.saturating_add(1));
            let next_seq = to_seq.saturating_add(1);
            self.logs[lane.index()] = Log { id: log.id, next_seq, next_index, chain: chain_at_to };
        }
        self.say(&Message::Jump(jump));
    }

    fn hello(&mut self, input: &mut Input<'_>) {
        let elsewhere = input.bytes(24);
        let elsewhere = if input.flag() { elsewhere } else { &[] };
        let mut logs = heapless::Vec::new();
        for lane in [Lane::Bulk, Lane::Urgent] {
            let log = self.logs[lane.index()];
            let next_seq = input.near(log.next_seq);
            let acked_seq = input.near(next_seq.saturating_sub(1));
            let head = LogHead {
                lane: if input.below(16) == 0 { Lane::Bulk } else { lane },
                log: log.id,
                cause: LogCause::First,
                parent: None,
                first_seq: input.near(1),
                next_seq,
                next_index: input.near(log.next_index),
                acked_seq,
                acked_chain: if input.flag() { log.chain } else { Chain([9; 32]) },
                elsewhere: Items::<StoredRange>::from_bytes(elsewhere),
            };
            if input.below(8) != 0 {
                let _ = logs.push(head);
            }
        }
        let hello = Hello {
            version_min: 1,
            version_max: input.near(1) as u16,
            capabilities: heapless::Vec::new(),
            agent: "fuzzed/1",
            name: if input.below(16) == 0 { "\u{1b}[31m" } else { "machine" },
            os: "none",
            boot: BootId([5; 16]),
            receive_bytes_max: input.near(FRAME_BYTES_MAX as u64) as u32,
            memory: Memory::Disk,
            collecting: true,
            last_command: None,
            logs,
        };
        self.say(&Message::Hello(hello));
    }

    /// Sends a frame; a fault ends the session, and the sensor connects again.
    fn say(&mut self, message: &Message<'_>) {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        let Ok(length) = message.encode(&mut buffer) else { return };
        let mut memory = vec![0; FRAME_BYTES_MAX];
        let mut deframer = Deframer::new(&mut memory);
        deframer.feed(&buffer[..length]);
        let frame = deframer.next_frame().expect("it is sound").expect("it is whole");
        let times = (self.now_ms, self.now_ms);
        match self.session.handle_frame(times, &frame, &mut self.receiver) {
            Ok(Some(SessionEvent::Entry(entry))) => self.given_out(entry),
            Ok(_) => {}
            Err(fault) => {
                let refusal = Session::refusal(fault, 0);
                assert!(refusal.len() > FRAME_HEADER_BYTES, "a refusal fits a frame");
                self.connect();
            }
        }
    }

    fn given_out(&mut self, entry: Entry) {
        let key = (entry.lane, entry.log);
        let start = Chain::start(IDS.0, IDS.1, entry.lane, entry.log);
        let (last, chain) = self.given.get(&key).copied().unwrap_or((0, start));
        match entry.kind {
            EntryKind::Chunk { .. } => {
                assert_eq!(entry.seq, last + 1, "chunks are dense");
                assert_eq!(entry.head.current.chain, chain.next(&entry.bytes), "the chain goes on");
            }
            EntryKind::Jump { from_seq, .. } => {
                assert!(from_seq <= last + 1, "a hole begins at the latest behind the last chunk");
                assert!(entry.seq > last, "a hole ends behind the last chunk");
            }
        }
        assert_eq!(entry.head.current.next_seq, entry.seq + 1);
        self.given.insert(key, (entry.seq, entry.head.current.chain));
        self.pending.push(entry);
    }

    /// Makes some of what waits durable, in order.
    fn store(&mut self, input: &mut Input<'_>) {
        let count = usize::from(input.byte()).min(self.pending.len());
        for entry in self.pending.drain(..count) {
            self.durable.insert((entry.lane, entry.log), entry.seq);
            self.receiver.handle_stored(entry.lane, entry.log, entry.seq);
        }
    }

    fn drain(&mut self) {
        while let Some(bytes) = self.session.poll_transmit(&mut self.receiver) {
            let mut memory = vec![0; FRAME_BYTES_MAX];
            let mut deframer = Deframer::new(&mut memory);
            assert_eq!(deframer.feed(&bytes), bytes.len(), "whole frames leave");
            let frame = deframer.next_frame().expect("a server's frames are sound");
            let frame = frame.expect("a whole frame");
            let message = Message::decode(&frame).expect("a server's messages are sound");
            match message.expect("of a known kind") {
                Message::HelloAck(ack) => self.check_grants(&ack),
                Message::Ack(ack) => self.check_ack(&ack),
                _ => {}
            }
        }
    }

    fn check_grants(&mut self, ack: &HelloAck<'_>) {
        // A lane that a second Hello does not name goes on as it was.
        for grant in &ack.logs {
            let durable = self.durable.get(&(grant.lane, grant.log)).copied().unwrap_or(0);
            assert_eq!(grant.next_seq, durable + 1, "only what is durable counts");
            self.granted[grant.lane.index()] = Some((grant.log, grant.credit));
        }
    }

    fn check_ack(&mut self, ack: &Ack) {
        let Some((log, credit)) = &mut self.granted[ack.lane.index()] else {
            panic!("an Ack before the HelloAck")
        };
        let durable = self.durable.get(&(ack.lane, *log)).copied().unwrap_or(0);
        assert!(ack.stored_seq <= durable, "{} acked, {durable} durable", ack.stored_seq);
        assert!(ack.safe_seq <= ack.stored_seq, "safe is a part of stored");
        assert!(ack.credit.limit_seq >= credit.limit_seq, "credit never shrinks");
        assert!(ack.credit.limit_bytes >= credit.limit_bytes, "credit never shrinks");
        *credit = ack.credit;
    }
}

fn offerings() -> Offerings {
    Offerings {
        server: SERVER,
        name: "server".into(),
        receive_bytes_max: FRAME_BYTES_MAX as u32,
        rows_max: ROWS_MAX,
    }
}

/// Any chunks, one behind the other, for a decoder: all of a chunk is taken or nothing, and the
/// table stays within its bound.
///
/// Each chunk: a byte of flags, a byte that says how long the body is, the body.
pub fn decoder(data: &[u8]) {
    let mut input = Input::new(data);
    let lane = if input.flag() { Lane::Urgent } else { Lane::Bulk };
    let context = LogContext { deployment: IDS.0, sensor: IDS.1, lane, log: LogId([3; 16]) };
    let mut decoder = Decoder::new(context, ROWS_MAX, BuiltIn::default());
    let (mut seq, mut index) = (1, 1);
    while !input.is_over() {
        let flags = ChunkFlags(input.byte());
        let (count, part) = (u64::from(input.byte() & 7), u16::from(input.byte() & 3));
        let body = if input.flag() { input.bytes(usize::MAX) } else { input.rest() };
        let header = ChunkHeader {
            flags,
            encoding: ENCODING_PLAIN_ROWS,
            seq,
            first_index: index,
            count,
            part,
            time_base_ns: seq * 1_000,
            digest: decoder.digest().to_le_bytes()[..4].try_into().unwrap_or_default(),
        };
        let before = (decoder.rows(), decoder.digest());
        let decoded = decoder.handle_chunk(&Chunk { header, body });
        match decoded {
            Ok(decoded) => assert!(decoded.changes.len() <= 2 * body.len() + 2 * ROWS_MAX as usize),
            Err(_) => assert_eq!(before, (decoder.rows(), decoder.digest()), "nothing is taken"),
        }
        assert!(decoder.rows() <= ROWS_MAX as usize, "the table keeps its bound");
        (seq, index) = (seq + 1, index + count);
    }
}
