//! A whole sensor against a server that says anything at any moment.
//!
//! Laws: nothing panics; draining ends; every chunk is made once, dense in its log, and is sent as
//! it was made; nothing is sent beyond the credit of the session.
#![allow(clippy::expect_used, reason = "a law that does not hold is a panic")]

use std::collections::BTreeMap;

use lapwing_protocol::call::{Call, Method, Reply};
use lapwing_protocol::code::Code;
use lapwing_protocol::command::{Action, Command, CommandNumber, Outcome};
use lapwing_protocol::delivery::{
    Ack, Credit, Draining, Nack, NackReason, Ping, Refused, Resync, ResyncReason,
};
use lapwing_protocol::digest::Chain;
use lapwing_protocol::element::{Change, Fact, Field, Value, dns, service};
use lapwing_protocol::frame::{Deframer, Frame, FrameKind};
use lapwing_protocol::hello::{HelloAck, LogCause, LogGrant, LogVerdict, Memory};
use lapwing_protocol::id::{BootId, DeploymentId, Lane, LogId, SensorId, ServerId};
use lapwing_protocol::limits::FRAME_BYTES_MAX;
use lapwing_protocol::message::Message;
use lapwing_sensor_core::{
    Config, Event, Find, Installation, IntakeError, LogPositions, Now, Position, Sensor,
};

use super::input::Input;
use super::lent::Owned;

const IDS: (DeploymentId, SensorId) = (DeploymentId([1; 16]), SensorId([2; 16]));
/// Steps of one input; more would only repeat.
const STEPS_MAX: usize = 96;
/// Rounds of draining that a sensor may need after one step.
const ROUNDS_MAX: usize = 10_000;

/// Any sequence of what a server, a network and a machine can do, against a sensor.
pub fn sensor(data: &[u8]) {
    let mut input = Input::new(data);
    let memory = if input.flag() { Memory::RamOnly } else { Memory::Disk };
    let mut owned = Owned::new();
    let config = Config {
        deployment: IDS.0,
        sensor: IDS.1,
        boot: BootId([5; 16]),
        memory,
        agent: "fuzzed/1",
        name: "machine",
        os: "none",
        installation: Installation { has_detection: true, ..Installation::default() },
        last_command: None,
        hash_key: [9; 16],
        seed: u64::from(input.byte()),
    };
    let logs = [(Lane::Bulk, 3), (Lane::Urgent, 4)]
        .map(|(lane, log)| LogPositions::open(IDS, lane, LogId([log; 16]), LogCause::First, None));
    let mut sensor = Sensor::new(config, owned.storage(), logs).expect("the sizes are right");
    let mut shell = Shell::new(memory);
    sensor.start(shell.now());
    shell.drain(&mut sensor, &mut input);
    for _ in 0..STEPS_MAX {
        if input.is_over() {
            break;
        }
        shell.step(&mut sensor, &mut input);
        shell.drain(&mut sensor, &mut input);
    }
}

/// What a session allowed on a lane, and the bytes of each chunk that was sent of it.
#[derive(Clone, Debug, Default)]
struct Allowed {
    credit: Credit,
    sent: BTreeMap<u64, u64>,
}

impl Allowed {
    /// The bytes of all chunks from HelloAck's `next_seq` up to and with `seq`. One that was sent
    /// again after a Nack counts once (DLV-007).
    fn bytes_up_to(&self, seq: u64) -> u64 {
        self.sent.range(..=seq).map(|(_, bytes)| bytes).sum()
    }
}

/// A chunk as it was made, whether it opens a segment, and the place behind it.
type Made = (Vec<u8>, bool, Position);

/// The sensor's surroundings.
struct Shell {
    ms: u64,
    memory: Memory,
    spool: BTreeMap<(Lane, LogId), BTreeMap<u64, Made>>,
    log: [LogId; 2],
    allowed: [Option<Allowed>; 2],
    /// The begin of a frame of the server's: raw bytes can make up frames that raise credit too.
    heard: Vec<u8>,
    names: u8,
    logs: u8,
}

impl Shell {
    fn new(memory: Memory) -> Self {
        let log = [LogId([3; 16]), LogId([4; 16])];
        Self {
            ms: 1_000,
            memory,
            spool: BTreeMap::new(),
            log,
            allowed: [None, None],
            heard: Vec::new(),
            names: 0,
            logs: 0,
        }
    }

    fn now(&self) -> Now {
        Now { monotonic_ns: self.ms * 1_000_000, wall_ms: 1_700_000_000_000 + self.ms }
    }

    fn step(&mut self, sensor: &mut Sensor<'_>, input: &mut Input<'_>) {
        let now = self.now();
        match input.below(16) {
            0..=2 => self.fact(sensor, input),
            3 => {
                self.ms += u64::from(input.byte()) * u64::from(input.byte());
                sensor.handle_timeout(self.now());
            }
            4 => {
                self.cut();
                sensor.handle_disconnected(now);
                self.ms += 20_000;
                sensor.handle_timeout(self.now());
            }
            5 => sensor.begin_scan(service::KIND),
            6 => {
                let _ = sensor.end_scan(now, service::KIND);
            }
            7 => {
                let bytes = input.bytes(64);
                self.hear(sensor, input, bytes);
            }
            choice => self.say(sensor, input, choice),
        }
    }

    fn fact(&mut self, sensor: &mut Sensor<'_>, input: &mut Input<'_>) {
        self.names = self.names.wrapping_add(1);
        let name = format!("name-{}", input.byte() % 12);
        let lane = if input.below(4) == 0 { Lane::Urgent } else { Lane::Bulk };
        let state = ["running", "failed"][usize::from(input.flag())];
        let question = [Field::new(dns::question, Value::text(&name))];
        let row = [
            Field::new(service::name, Value::text(&name)),
            Field::new(service::state, Value::text(state)),
        ];
        let (kind, change, fields): (_, _, &[Field<'_>]) = match input.below(3) {
            0 => (dns::KIND, Change::Event, &question),
            1 => (service::KIND, Change::Ended, &row),
            _ => (service::KIND, Change::Whole, &row),
        };
        let now = self.now();
        let fact = Fact { kind, change, time_ns: now.monotonic_ns, fields };
        for _ in 0..4 {
            match sensor.handle_fact(now, lane, &fact) {
                Err(IntakeError::Undrained) => self.append(sensor),
                Ok(_) => break,
            }
        }
    }

    /// A message of the server's, right or wrong by what the input says.
    fn say(&mut self, sensor: &mut Sensor<'_>, input: &mut Input<'_>, choice: u8) {
        let lane = if input.flag() { Lane::Urgent } else { Lane::Bulk };
        let at = sensor.positions(lane);
        let made = at.made.seq;
        let retry_after_ms = u32::from(input.byte()) * 8;
        let message = match choice {
            8 | 9 => return self.greet(sensor, input),
            10 | 11 => {
                let stored_seq = input.near(made);
                let limit_seq = stored_seq.saturating_add(u64::from(input.byte() & 15));
                let limit_bytes = u64::from(input.byte()) * 64 + self.bytes(lane);
                let credit = Credit { limit_seq, limit_bytes };
                Message::Ack(Ack { lane, stored_seq, safe_seq: input.near(stored_seq), credit })
            }
            12 => {
                let reasons = [
                    NackReason::OutOfOrder,
                    NackReason::Throttled,
                    NackReason::BeyondCredit,
                    NackReason::StoreFailed,
                ];
                let reason = reasons[usize::from(input.below(4))];
                let (next_seq, episode) = (input.near(at.acked.seq + 1), input.byte().into());
                Message::Nack(Nack { lane, next_seq, episode, reason, retry_after_ms })
            }
            13 => {
                let at_seq = input.near(made);
                Message::Resync(Resync { lane, at_seq, reason: ResyncReason::DigestDiffers })
            }
            14 => {
                let number =
                    CommandNumber { issuer: (input.byte() & 1).into(), seq: input.near(1) };
                let expires_after_ms = u64::from(input.byte()) * 1_000;
                let action =
                    [Action::StopCollection, Action::StartCollection][usize::from(input.flag())];
                Message::Command(Command { number, expires_after_ms, action })
            }
            _ => return self.say_rest(sensor, input, retry_after_ms),
        };
        self.send(sensor, input, &message);
    }

    fn say_rest(&mut self, sensor: &mut Sensor<'_>, input: &mut Input<'_>, retry_after_ms: u32) {
        let body = input.bytes(80);
        let call = input.byte().into();
        let message = match input.below(5) {
            0 => Message::Draining(Draining { retry_after_ms }),
            1 => {
                Message::Refused(Refused { code: Code(call as u16), retry_after_ms, detail: "no" })
            }
            2 => Message::Ping(Ping { nonce: retry_after_ms.into() }),
            3 => Message::Call(Call { call, method: Method(retry_after_ms as u16), body }),
            _ => Message::Reply(Reply { call, more: input.flag(), code: Code::OK, body }),
        };
        self.send(sensor, input, &message);
    }

    fn greet(&mut self, sensor: &mut Sensor<'_>, input: &mut Input<'_>) {
        let mut logs = heapless::Vec::new();
        for lane in [Lane::Bulk, Lane::Urgent] {
            let at = sensor.positions(lane);
            let acked = if input.flag() { at.acked } else { at.made };
            let verdicts = [
                LogVerdict::Resume,
                LogVerdict::New,
                LogVerdict::ServerBehind,
                LogVerdict::SensorBehind,
                LogVerdict::Forked,
            ];
            let next_seq = input.near(acked.seq.saturating_add(1));
            let credit = Credit {
                limit_seq: next_seq.saturating_sub(1).saturating_add(u64::from(input.byte() & 15)),
                limit_bytes: u64::from(input.byte()) * 64,
            };
            let is_chain_right = input.below(8) != 0;
            let grant = LogGrant {
                lane,
                log: at.log,
                verdict: verdicts[usize::from(input.byte() & 7) % 5],
                next_seq,
                next_index: input.near(acked.next_index),
                chain: if is_chain_right { acked.chain } else { Chain([7; 32]) },
                credit,
            };
            let _ = logs.push(grant);
        }
        let ack = HelloAck {
            version: if input.below(16) == 0 { 9 } else { 1 },
            capabilities: heapless::Vec::new(),
            server: ServerId([input.byte() & 3; 16]),
            name: "server",
            session_epoch: input.near(1),
            server_ms: self.ms,
            receive_bytes_max: input.near(FRAME_BYTES_MAX as u64) as u32,
            rows_max: input.near(100) as u32,
            logs,
        };
        self.send(sensor, input, &Message::HelloAck(ack));
    }

    fn bytes(&self, lane: Lane) -> u64 {
        let allowed = self.allowed[lane.index()].as_ref();
        allowed.map_or(0, |allowed| allowed.bytes_up_to(u64::MAX))
    }

    /// Credit never shrinks: a sensor may use the most that it was ever told in its session.
    fn allow(&mut self, lane: Lane, credit: Credit) {
        let Some(allowed) = &mut self.allowed[lane.index()] else { return };
        allowed.credit.limit_seq = allowed.credit.limit_seq.max(credit.limit_seq);
        allowed.credit.limit_bytes = allowed.credit.limit_bytes.max(credit.limit_bytes);
    }

    fn send(&mut self, sensor: &mut Sensor<'_>, input: &mut Input<'_>, message: &Message<'_>) {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        if let Ok(length) = message.encode(&mut buffer) {
            self.hear(sensor, input, &buffer[..length]);
        }
    }

    fn hear(&mut self, sensor: &mut Sensor<'_>, input: &mut Input<'_>, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = sensor.handle_input(self.now(), bytes);
            self.note(&bytes[..taken]);
            bytes = &bytes[taken..];
            if taken == 0 && !self.event(sensor, input) {
                return;
            }
            while self.event(sensor, input) {}
        }
    }

    /// Keeps what the sensor was allowed by the frames that it took.
    fn note(&mut self, bytes: &[u8]) {
        let mut heard = std::mem::take(&mut self.heard);
        heard.extend_from_slice(bytes);
        let mut rest = heard.as_slice();
        while let Some((&[low, high, kind, flags], behind)) = rest.split_first_chunk::<4>() {
            let length = usize::from(u16::from_le_bytes([low, high]));
            let Some((body, behind)) = behind.split_at_checked(length) else { break };
            rest = behind;
            let kind = FrameKind(u16::from_le_bytes([kind, flags & 0x0f]));
            match Message::decode(&Frame { kind, skippable: false, body }) {
                Ok(Some(Message::Ack(ack))) => self.allow(ack.lane, ack.credit),
                Ok(Some(Message::HelloAck(ack))) => {
                    self.allowed = [None, None];
                    for grant in &ack.logs {
                        let allowed = Allowed { credit: grant.credit, sent: BTreeMap::new() };
                        self.allowed[grant.lane.index()] = Some(allowed);
                    }
                }
                _ => {}
            }
        }
        self.heard = rest.to_vec();
    }

    /// The connection is over.
    fn cut(&mut self) {
        self.allowed = [None, None];
        self.heard.clear();
    }

    fn drain(&mut self, sensor: &mut Sensor<'_>, input: &mut Input<'_>) {
        for _ in 0..ROUNDS_MAX {
            self.append(sensor);
            let mut is_busy = false;
            while self.event(sensor, input) {
                is_busy = true;
                self.append(sensor);
            }
            if !self.transmit(sensor) && !is_busy {
                return;
            }
        }
        panic!("draining never ends");
    }

    fn append(&mut self, sensor: &mut Sensor<'_>) {
        let now = self.now();
        while let Some(chunk) = sensor.poll_chunk(now) {
            let (lane, log, seq) = (chunk.lane, chunk.log, chunk.seq);
            let behind = Position { seq, next_index: chunk.next_index, chain: chunk.chain_after };
            let made = (chunk.bytes.to_vec(), chunk.opens_segment, behind);
            let chunks = self.spool.entry((lane, log)).or_default();
            let last = chunks.last_key_value().map_or(0, |(last, _)| *last);
            assert!(seq > last, "chunk {seq} is made again behind {last}");
            chunks.insert(seq, made);
            sensor.handle_spooled(now, lane, seq);
        }
    }

    fn transmit(&mut self, sensor: &mut Sensor<'_>) -> bool {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        let Ok(length @ 1..) = sensor.poll_transmit(self.now(), &mut buffer) else { return false };
        let mut memory = vec![0; FRAME_BYTES_MAX];
        let mut deframer = Deframer::new(&mut memory);
        assert_eq!(deframer.feed(&buffer[..length]), length, "whole frames leave");
        while let Some(frame) = deframer.next_frame().expect("a sensor's frames are sound") {
            let message = Message::decode(&frame).expect("a sensor's messages are sound");
            match message.expect("of a known kind") {
                Message::Hello(hello) => {
                    for head in &hello.logs {
                        self.log[head.lane.index()] = head.log;
                    }
                    self.allowed = [None, None];
                }
                Message::Chunk(chunk) => {
                    let lane = chunk.header.flags.lane();
                    self.check(lane, chunk.header.seq, frame.body);
                }
                Message::Jump(jump) => {
                    // What it covers is no longer sent, and a Jump uses no credit.
                    if let Some(allowed) = &mut self.allowed[jump.lane.index()] {
                        allowed.sent.retain(|seq, _| !(jump.from_seq..=jump.to_seq).contains(seq));
                    }
                }
                _ => {}
            }
        }
        true
    }

    fn check(&mut self, lane: Lane, seq: u64, body: &[u8]) {
        let made = self.spool.entry((lane, self.log[lane.index()])).or_default();
        match made.get(&seq) {
            Some((bytes, ..)) => assert_eq!(bytes, body, "a chunk is sent as it was made"),
            // Without a spool what is made is seen when it is sent.
            None => {
                assert_eq!(self.memory, Memory::RamOnly, "a chunk is sent before it is spooled");
                let nowhere = LogPositions::open(IDS, lane, LogId([0; 16]), LogCause::First, None);
                made.insert(seq, (body.to_vec(), false, nowhere.made));
            }
        }
        let allowed = self.allowed[lane.index()].as_mut().expect("no chunk before the HelloAck");
        allowed.sent.insert(seq, body.len() as u64);
        let (bytes, Credit { limit_seq, limit_bytes }) = (allowed.bytes_up_to(seq), allowed.credit);
        assert!(seq <= limit_seq, "{seq} is beyond the credit, {limit_seq}");
        assert!(bytes <= limit_bytes, "{bytes} bytes of {limit_bytes}");
    }

    fn event(&mut self, sensor: &mut Sensor<'_>, input: &mut Input<'_>) -> bool {
        let now = self.now();
        let Some(event) = sensor.poll_event(now) else { return false };
        match event {
            Event::DialDetection(_) if input.below(8) == 7 => sensor.handle_dial_failed(now),
            Event::DialDetection(_) => {
                self.cut();
                sensor.handle_connected(now);
            }
            Event::Close(_) => {
                self.cut();
                sensor.handle_disconnected(now);
            }
            Event::Fetch { lane, log, seq } => {
                let bytes = self.spool[&(lane, log)][&seq].0.clone();
                sensor.handle_fetched(lane, seq, &bytes).expect("the chunk it asked for");
            }
            Event::Locate { lane, log, find } => {
                let found = self.locate(lane, log, find);
                sensor.handle_located(now, lane, found);
            }
            Event::OpenLog { lane, cause, parent } => {
                self.logs = self.logs.wrapping_add(1);
                let log =
                    LogId([0x40, self.logs, lane as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                sensor
                    .handle_open_log(lane, LogPositions::open(IDS, lane, log, cause, Some(parent)));
            }
            Event::LogDrained { lane, .. } => sensor.handle_tail(lane, None),
            Event::AcceptCommand(number) => sensor.handle_accepted(number),
            Event::ExecuteCommand(command) => {
                let _ = sensor.handle_outcome(now, command.number, Outcome::Done, "");
            }
            Event::AskRegistration { .. } => sensor.handle_ask_failed(now, 0),
            Event::Greeted { .. }
            | Event::Acked { .. }
            | Event::Call { .. }
            | Event::Reply { .. } => {}
        }
        true
    }

    fn locate(&self, lane: Lane, log: LogId, find: Find) -> Option<Position> {
        // A sensor without a disk has nothing to look in.
        let chunks = self.spool.get(&(lane, log)).filter(|_| self.memory == Memory::Disk)?;
        let behind = |seq: u64| match seq {
            0 => Some(LogPositions::open(IDS, lane, log, LogCause::First, None).acked),
            seq => chunks.get(&seq).map(|(.., behind)| *behind),
        };
        match find {
            Find::Behind(seq) => behind(seq),
            Find::SegmentOf(seq) => {
                let mut before = chunks.range(..=seq).rev();
                let holds = before.find(|(_, (_, opens, _))| *opens);
                let mut later = chunks.range(seq..);
                let segment = holds.or_else(|| later.find(|(_, (_, opens, _))| *opens));
                segment.and_then(|(start, _)| behind(start - 1))
            }
        }
    }
}
