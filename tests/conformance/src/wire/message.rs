//! The messages of a session, field by field (docs/protocol-messages.md).
//!
//! Not here: the messages of methods (`method.rs`) and what is inside a chunk (`chunk.rs`).

use super::chunk::Chunk;
use super::frame::Frame;
use super::primitive::{Items, Malformed, Reader, Wire, Writer, choice, message};

/// Sixteen bytes that name something.
pub type Id = [u8; 16];
/// A chain: thirty-two bytes.
pub type Chain = [u8; 32];

choice! {
    /// One of the two logs a sensor writes.
    Lane { Bulk = 0, Urgent = 1 }
}

choice! {
    /// Whether a sensor keeps its spool over a restart.
    Memory { Disk = 0, RamOnly = 1 }
}

choice! {
    /// Why a log was opened.
    LogCause {
        First = 0, Unclean = 1, RolledBack = 2, Forked = 3, Started = 4, SpoolLost = 5,
        Redefined = 6,
    }
}

choice! {
    /// What the server makes of a log.
    LogVerdict { Resume = 0, New = 1, ServerBehind = 2, SensorBehind = 3, Forked = 4 }
}

choice! {
    /// Why a chunk was not taken.
    NackReason { OutOfOrder = 0, Throttled = 1, BeyondCredit = 2, StoreFailed = 3 }
}

choice! {
    /// Why a server asks for a keyframe.
    ResyncReason { DigestDiffers = 0, Undecodable = 1, Retention = 2 }
}

choice! {
    /// Why facts were dropped after intake.
    DropReason {
        TableFull = 0, TooLarge = 1, SpoolFull = 2, MemoryFull = 3, SpoolFailed = 4, Malformed = 5,
    }
}

choice! {
    /// Why data was lost outside the sensor's own rules.
    LossReason { ServerRolledBack = 0, MemoryLost = 1, SpoolDamaged = 2 }
}

choice! {
    /// What a command asks for.
    Action {
        StartCollection = 0, StopCollection = 1, Restart = 2, Isolate = 3, Unisolate = 4,
        Upgrade = 5,
    }
}

choice! {
    /// What became of a command.
    CommandOutcome {
        Done = 0, Failed = 1, Expired = 2, Refused = 3, Interrupted = 4, NotSupported = 5,
    }
}

message! {
    /// The log a new log continues.
    LogParent { log: Id, next_seq: u64, next_index: u64, chain: Chain }
}

message! {
    /// A run of a log that a server acknowledged.
    StoredRange { server: Id, from_seq: u64, to_seq: u64 }
}

message! {
    /// Where the log of one lane stands at the sensor.
    LogHead {
        lane: Lane, log: Id, cause: LogCause, parent: Option<LogParent>, first_seq: u64,
        next_seq: u64, next_index: u64, acked_seq: u64, acked_chain: Chain,
        elsewhere: Items<StoredRange>,
    }
}

message! {
    /// The number of a command.
    CommandNumber { issuer: u64, seq: u64 }
}

message! {
    /// Sensor to server, first in a session.
    Hello {
        version_min: u16, version_max: u16, capabilities: Vec<u16>, agent: String, name: String,
        os: String, boot: Id, receive_bytes_max: u32, memory: Memory, collecting: bool,
        last_command: Option<CommandNumber>, logs: Vec<LogHead>,
    }
}

message! {
    /// How far a sensor may send.
    Credit { limit_seq: u64, limit_bytes: u64 }
}

message! {
    /// What the server grants one lane.
    LogGrant {
        lane: Lane, log: Id, verdict: LogVerdict, next_seq: u64, next_index: u64, chain: Chain,
        credit: Credit,
    }
}

message! {
    /// Server to sensor, the answer to a Hello.
    HelloAck {
        version: u16, capabilities: Vec<u16>, server: Id, name: String, session_epoch: u64,
        server_ms: u64, receive_bytes_max: u32, rows_max: u32, logs: Vec<LogGrant>,
    }
}

message! {
    /// One-way mode: the sensor proves who it is.
    Auth { sensor: Id, proof: [u8; 32] }
}

message! {
    /// Everything up to `stored_seq` is durable.
    Ack { lane: Lane, stored_seq: u64, safe_seq: u64, credit: Credit }
}

message! {
    /// Go back and send again.
    Nack { lane: Lane, next_seq: u64, episode: u32, reason: NackReason, retry_after_ms: u32 }
}

/// Why a range of a log is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JumpCause {
    /// The sensor dropped it by rule.
    Dropped(DropReason),
    /// This server acknowledged it.
    StoredElsewhere(Id),
    /// It is lost.
    Lost(LossReason),
}

impl Wire for JumpCause {
    fn write(&self, to: &mut Writer) {
        match self {
            Self::Dropped(reason) => {
                to.varint(0);
                reason.write(to);
            }
            Self::StoredElsewhere(server) => {
                to.varint(1);
                server.write(to);
            }
            Self::Lost(reason) => {
                to.varint(2);
                reason.write(to);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match from.varint(32)? {
            0 => Wire::read(from).map(Self::Dropped),
            1 => Wire::read(from).map(Self::StoredElsewhere),
            2 => Wire::read(from).map(Self::Lost),
            other => Err(Malformed::Variant("JumpCause", other)),
        }
    }
}

message! {
    /// A range of the log will not come.
    Jump {
        lane: Lane, from_seq: u64, to_seq: u64, to_index: Option<u64>, chain_at_to: Chain,
        cause: JumpCause,
    }
}

message! {
    /// Begin a new segment.
    Resync { lane: Lane, at_seq: u64, reason: ResyncReason }
}

message! {
    /// The sensor's chain, to compare.
    ChainMark { lane: Lane, seq: u64, chain: Chain }
}

message! {
    /// Are you there?
    Ping { nonce: u64 }
}

message! {
    /// Here.
    Pong { nonce: u64 }
}

message! {
    /// The server is going away.
    Draining { retry_after_ms: u32 }
}

message! {
    /// Why the connection closes.
    Refused { code: u16, retry_after_ms: u32, detail: String }
}

message! {
    /// Do this.
    Command { number: CommandNumber, expires_after_ms: u64, action: Action }
}

message! {
    /// A question.
    Call { call: u32, method: u16, body: Vec<u8> }
}

message! {
    /// An answer, or a part of one.
    Reply { call: u32, more: bool, code: u16, body: Vec<u8> }
}

macro_rules! frames {
    ($($kind:literal $name:ident),* $(,)?) => {
        /// What a frame holds.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Message {
            $(#[doc = concat!("Kind ", stringify!($kind), ".")] $name($name),)*
        }

        impl Message {
            /// The number of its kind.
            #[must_use]
            pub fn kind(&self) -> u16 {
                match self { $(Self::$name(_) => $kind,)* }
            }

            /// Its frame.
            #[must_use]
            pub fn frame(&self) -> Frame {
                match self { $(Self::$name(inner) => Frame::new($kind, inner.to_bytes()),)* }
            }

            /// Reads the message of a frame; `None` for a kind that the page does not know.
            ///
            /// # Errors
            /// The body is not the kind's message.
            pub fn decode(frame: &Frame) -> Result<Option<Self>, Malformed> {
                match frame.kind {
                    $($kind => $name::from_bytes(&frame.body).map(|inner| Some(inner.into())),)*
                    _ => Ok(None),
                }
            }
        }

        $(impl From<$name> for Message {
            fn from(inner: $name) -> Self {
                Self::$name(inner)
            }
        })*
    };
}

frames! {
    1 Hello, 2 HelloAck, 3 Chunk, 4 Ack, 5 Nack, 6 Jump, 7 Resync, 8 ChainMark, 9 Ping, 10 Pong,
    11 Draining, 12 Refused, 13 Command, 14 Call, 15 Reply, 16 Auth,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../../docs/protocol.md");

    /// Frames of the page's session: each reads as a message and comes out as it went in.
    #[test]
    fn the_frames_of_the_page_read_back() {
        let mut kinds = Vec::new();
        for example in PAGE.split("<!-- bytes: ").skip(1) {
            let (name, rest) = example.split_once(" -->").unwrap();
            let block = rest.split("```").nth(1).unwrap().strip_prefix("text\n").unwrap();
            let lines = block.lines().map(|line| line.split(';').next().unwrap());
            let digits: String = lines.flat_map(str::split_whitespace).collect();
            let bytes: Vec<u8> = (0..digits.len() / 2)
                .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            // A chunk stands there without its frame's head.
            let frame = match Chunk::from_bytes(&bytes) {
                Ok(chunk) => Message::from(chunk).frame(),
                Err(_) => {
                    let mut cutter = crate::wire::frame::Cutter::default();
                    cutter.feed(&bytes);
                    cutter.next_frame().unwrap()
                }
            };
            let message = Message::decode(&frame).unwrap_or_else(|error| panic!("{name}: {error}"));
            let message = message.unwrap();
            assert_eq!(message.frame(), frame, "{name}");
            kinds.push(message.kind());
        }
        assert_eq!(kinds, [1, 2, 3, 3, 4, 5, 6, 8, 11]);
    }
}
