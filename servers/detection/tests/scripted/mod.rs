//! A sensor as a script: one TLS connection of the sensor plane, frames out and in, logs written by
//! hand. Not a sensor: it keeps no rule by itself, so that tests can break each.
#![allow(clippy::unwrap_used, reason = "a test ends where a value is missing")]
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod running;

use std::net::SocketAddr;

use lapwing_net::identity::Role;
use lapwing_net::tls::{self, ClientTls, Credentials, ExpectedPeer, Plane};
use lapwing_protocol::chunk::{Chunk, ChunkFlags, ChunkHeader};
use lapwing_protocol::command::{Command, CommandNumber, Outcome};
use lapwing_protocol::delivery::Ack;
use lapwing_protocol::digest::Chain;
use lapwing_protocol::element::{Feature, Field, Value, command_outcome, dns};
use lapwing_protocol::frame::{Frame, FrameKind};
use lapwing_protocol::hello::{Hello, LogCause, LogGrant, LogHead, Memory};
use lapwing_protocol::id::{BootId, Lane, LogId, SensorId};
use lapwing_protocol::items::Items;
use lapwing_protocol::message::Message;
use lapwing_protocol::op::{ENCODING_PLAIN_ROWS, Literal, OpWriter, Preamble};
use smol::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::deployment::{Deployment, PATIENCE};

/// What a connection runs over.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// One connection.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    held: Vec<u8>,
    /// What it says of its memory.
    pub(crate) memory: Memory,
}

impl Connection {
    /// Connects as the sensor `id` of the deployment.
    pub(crate) async fn of_sensor(deployment: &Deployment, id: u8, address: SocketAddr) -> Self {
        let credentials = deployment.credentials(Role::Sensor, id);
        Self::with(deployment, &credentials, address).await
    }

    pub(crate) async fn with(
        deployment: &Deployment,
        credentials: &Credentials,
        address: SocketAddr,
    ) -> Self {
        let expected = ExpectedPeer::of_role(deployment.id, Role::Detection);
        let tls = ClientTls::new(credentials, Plane::Sensor, expected).unwrap();
        Self::over(&tls, address).await
    }

    pub(crate) async fn over(tls: &ClientTls, address: SocketAddr) -> Self {
        Self::of_stream(tls::connect(address, tls, PATIENCE).await.unwrap())
    }

    /// A connection over a stream that stands.
    pub(crate) fn of_stream(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self { stream: Box::new(stream), held: Vec::new(), memory: Memory::Disk }
    }

    /// Says Hello with `log`; whether it was greeted.
    pub(crate) async fn says_hello(&mut self, log: &Log) -> bool {
        self.send_hello(&[log], None).await;
        self.frame().await.is_some_and(|(kind, _)| kind == 2)
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        // A server that closed already is found at the next read.
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    pub(crate) async fn send(&mut self, message: &Message<'_>) {
        let mut buffer = vec![0; 32_768];
        let length = message.encode(&mut buffer).unwrap();
        self.send_bytes(&buffer[..length]).await;
    }

    pub(crate) async fn send_chunk(&mut self, bytes: &[u8]) {
        self.send(&Message::Chunk(Chunk::decode(bytes).unwrap())).await;
    }

    /// The next frame's kind and body; `None` when the server closed.
    pub(crate) async fn frame(&mut self) -> Option<(u16, Vec<u8>)> {
        loop {
            if let Some((head, rest)) = self.held.split_first_chunk::<4>() {
                let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
                if rest.len() >= length {
                    let frame = (u16::from_le_bytes([head[2], head[3]]), rest[..length].to_vec());
                    self.held.drain(..4 + length);
                    return Some(frame);
                }
            }
            let mut buffer = [0; 4_096];
            let length = self.stream.read(&mut buffer).await.unwrap_or(0);
            if length == 0 {
                return None;
            }
            self.held.extend_from_slice(&buffer[..length]);
        }
    }

    /// Shows each message to `look` until it finds something; fails when the server closes first.
    pub(crate) async fn until<T>(&mut self, look: impl Fn(&Message<'_>) -> Option<T>) -> T {
        loop {
            let (kind, body) = self.frame().await.unwrap();
            let frame = Frame { kind: FrameKind(kind), skippable: false, body: &body };
            if let Some(found) = look(&Message::decode(&frame).unwrap().unwrap()) {
                return found;
            }
        }
    }

    pub(crate) async fn ack_of(&mut self, lane: Lane, seq: u64) -> Ack {
        self.until(|message| match message {
            Message::Ack(ack) if ack.lane == lane && ack.stored_seq >= seq => Some(*ack),
            _ => None,
        })
        .await
    }

    pub(crate) async fn command(&mut self) -> Command {
        self.until(|message| match message {
            Message::Command(command) => Some(*command),
            _ => None,
        })
        .await
    }

    /// Reads until the server closed.
    pub(crate) async fn ended(&mut self) {
        while self.frame().await.is_some() {}
    }

    /// The code of the refusal, with which the server closes.
    pub(crate) async fn refusal(&mut self) -> u16 {
        let code = self
            .until(|message| match message {
                Message::Refused(refused) => Some(refused.code.0),
                _ => None,
            })
            .await;
        assert_eq!(self.frame().await, None, "a refusal is the last frame");
        code
    }

    /// Says Hello with `logs` and gives the grants.
    pub(crate) async fn greet(
        &mut self,
        logs: &[&Log],
        last_command: Option<CommandNumber>,
    ) -> Vec<LogGrant> {
        self.send_hello(logs, last_command).await;
        self.until(|message| match message {
            Message::HelloAck(ack) => Some(ack.logs.to_vec()),
            _ => None,
        })
        .await
    }

    /// Says Hello with `logs` and gives the length of the largest frame that may be sent.
    pub(crate) async fn greet_largest(&mut self, logs: &[&Log]) -> usize {
        self.send_hello(logs, None).await;
        self.until(|message| match message {
            Message::HelloAck(ack) => Some(ack.receive_bytes_max as usize),
            _ => None,
        })
        .await
    }

    /// Says Hello with `log`; the code of the refusal where that is the answer.
    pub(crate) async fn greet_or_refusal(&mut self, log: &Log) -> Option<u16> {
        self.send_hello(&[log], None).await;
        self.until(|message| match message {
            Message::HelloAck(_) => Some(None),
            Message::Refused(refused) => {
                assert!(refused.retry_after_ms > 0);
                Some(Some(refused.code.0))
            }
            _ => None,
        })
        .await
    }

    async fn send_hello(&mut self, logs: &[&Log], last_command: Option<CommandNumber>) {
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            capabilities: [].into_iter().collect(),
            agent: "scripted/1",
            name: "machine",
            os: "Linux",
            boot: BootId([9; 16]),
            receive_bytes_max: 4_096,
            memory: self.memory,
            collecting: true,
            last_command,
            logs: logs.iter().map(|log| log.head()).collect(),
        };
        self.send(&Message::Hello(hello)).await;
    }
}

/// A log, as its sensor has it.
pub(crate) struct Log {
    lane: Lane,
    log: LogId,
    pub(crate) chunks: Vec<Vec<u8>>,
    chains: Vec<Chain>,
    pub(crate) acked_seq: u64,
}

impl Log {
    /// What a disk image of this log from when it had `chunks` holds.
    pub(crate) fn rolled_back(&self, chunks: usize) -> Self {
        Self {
            lane: self.lane,
            log: self.log,
            chunks: self.chunks[..chunks].to_vec(),
            chains: self.chains[..=chunks].to_vec(),
            acked_seq: self.acked_seq.min(chunks as u64),
        }
    }

    pub(crate) fn new(deployment: &Deployment, sensor: u8, lane: Lane, log: u8) -> Self {
        let (sensor, log) = (SensorId([sensor; 16]), LogId([log; 16]));
        let start = Chain::start(deployment.id, sensor, lane, log);
        Self { lane, log, chunks: Vec::new(), chains: vec![start], acked_seq: 0 }
    }

    pub(crate) fn id(&self) -> LogId {
        self.log
    }

    fn head(&self) -> LogHead<'static> {
        let next = self.chunks.len() as u64 + 1;
        LogHead {
            lane: self.lane,
            log: self.log,
            cause: LogCause::First,
            parent: None,
            first_seq: 1,
            next_seq: next,
            next_index: next,
            acked_seq: self.acked_seq,
            acked_chain: self.chains[self.acked_seq as usize],
            elsewhere: Items::EMPTY,
        }
    }

    /// A self-contained chunk of one fact: a name was looked up. Its source_seq is its seq.
    pub(crate) fn lookup(&mut self) -> Vec<u8> {
        let seq = self.chunks.len() as u64 + 1;
        let question = format!("host-{seq}.example");
        let fields = [
            Field::new(Feature::SOURCE_SEQ, Value::U64(seq)),
            Field::new(dns::question, Value::text(&question)),
        ];
        self.chunk(|ops| ops.event((dns::KIND, seq), &fields, &mut Literal).unwrap())
    }

    /// As [`Self::lookup`], of a name that makes the chunk `bytes` and some long.
    pub(crate) fn long_lookup(&mut self, bytes: usize) -> Vec<u8> {
        let seq = self.chunks.len() as u64 + 1;
        let question = "x".repeat(bytes);
        let fields = [
            Field::new(Feature::SOURCE_SEQ, Value::U64(seq)),
            Field::new(dns::question, Value::text(&question)),
        ];
        self.chunk(|ops| ops.event((dns::KIND, seq), &fields, &mut Literal).unwrap())
    }

    /// A self-contained chunk of one fact, with a body that nobody can read.
    pub(crate) fn garbage(&mut self, body: &[u8]) -> Vec<u8> {
        self.chunk_of(body)
    }

    /// A self-contained chunk of one fact, that forgets a row which is not there.
    pub(crate) fn forgets_nothing(&mut self) -> Vec<u8> {
        self.chunk(|ops| ops.forget(7).unwrap())
    }

    /// A chunk whose flags are not those that it should have.
    pub(crate) fn with_flags(&mut self, flags: u8) -> Vec<u8> {
        let mut bytes = self.lookup();
        bytes[0] = flags;
        bytes
    }

    /// A self-contained chunk of one fact: the outcome of a command.
    pub(crate) fn outcome(&mut self, number: CommandNumber, outcome: Outcome) -> Vec<u8> {
        let fields = [
            Field::new(command_outcome::issuer, Value::U64(number.issuer)),
            Field::new(command_outcome::command_seq, Value::U64(number.seq)),
            Field::new(command_outcome::outcome, Value::U64(outcome as u64)),
            Field::new(command_outcome::detail, Value::text("as asked")),
            Field::new(command_outcome::action, Value::text("stop_collection")),
        ];
        let kind = (command_outcome::KIND, number.seq);
        self.chunk(|ops| ops.event(kind, &fields, &mut Literal).unwrap())
    }

    fn chunk(&mut self, write: impl FnOnce(&mut OpWriter<'_>)) -> Vec<u8> {
        let mut body = [0; 8_192];
        let mut ops = OpWriter::new(&mut body, 0);
        let boot = BootId([9; 16]);
        ops.preamble(&Preamble { boot, wall_ms: 1_000, string_slots: 0 }).unwrap();
        write(&mut ops);
        self.chunk_of(ops.written())
    }

    fn chunk_of(&mut self, body: &[u8]) -> Vec<u8> {
        let seq = self.chunks.len() as u64 + 1;
        let urgent = if self.lane == Lane::Urgent { ChunkFlags::URGENT } else { 0 };
        let header = ChunkHeader {
            flags: ChunkFlags(ChunkFlags::SELF_CONTAINED | urgent),
            encoding: ENCODING_PLAIN_ROWS,
            seq,
            first_index: seq,
            count: 1,
            part: 0,
            time_base_ns: 0,
            digest: [0; 4],
        };
        let mut bytes = [0; 8_448];
        let bytes = Chunk { header, body }.encode(&mut bytes).unwrap().to_vec();
        self.chains.push(self.chains.last().unwrap().next(&bytes));
        self.chunks.push(bytes.clone());
        bytes
    }
}
