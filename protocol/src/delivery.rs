//! The messages that make delivery exact: acknowledgement, credit, refusal, hole, resync.

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::digest::Chain;
use crate::id::{Lane, ServerId};
use crate::op::DropReason;

/// How far a sensor may send within (session, lane). Absolute; it never shrinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// The highest sequence that may be sent.
    pub limit_seq: u64,
    /// Bytes of chunks that may be sent, counted from HelloAck's `next_seq`.
    pub limit_bytes: u64,
}

/// Server to sensor: everything up to `stored_seq` is durable. Cumulative and idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Which lane; its log is the one of the last HelloAck.
    pub lane: Lane,
    /// The highest sequence that is on the server's disk.
    pub stored_seq: u64,
    /// The highest sequence that is also in its last finished backup.
    pub safe_seq: u64,
    /// The new credit.
    pub credit: Credit,
}

/// Why a chunk was not taken. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NackReason {
    /// Its sequence is beyond the next one.
    OutOfOrder,
    /// The server is overloaded: nothing was stored, send again later.
    Throttled,
    /// It was sent beyond the credit.
    BeyondCredit,
    /// The server's store takes nothing more.
    StoreFailed,
}

/// Server to sensor: go back to `next_seq` and send again, after `retry_after_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nack {
    /// Which lane.
    pub lane: Lane,
    /// The sequence the server takes next.
    pub next_seq: u64,
    /// One Nack is sent per episode; an older episode is ignored.
    pub episode: u32,
    /// Why.
    pub reason: NackReason,
    /// How long to wait first, in milliseconds.
    pub retry_after_ms: u32,
}

/// Why data was lost outside the sensor's own rules. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LossReason {
    /// The server lost what it had acknowledged and the sensor had trimmed.
    ServerRolledBack,
    /// The sensor's memory was lost.
    MemoryLost,
    /// The sensor's spool was damaged.
    SpoolDamaged,
}

/// Why a range of a log is not sent. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JumpCause {
    /// The sensor dropped it by rule.
    Dropped(DropReason),
    /// This server acknowledged it.
    StoredElsewhere(ServerId),
    /// It is lost.
    Lost(LossReason),
}

/// Sensor to server: `from_seq..=to_seq` of the log will not come. The one mechanism for a hole.
///
/// Taken when `from_seq <= next <= to_seq + 1`; then next is `to_seq + 1`. A chunk that opens
/// (keyframe part 0, or self-contained) must follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jump {
    /// Which lane.
    pub lane: Lane,
    /// First sequence of the hole.
    pub from_seq: u64,
    /// Last sequence of the hole.
    pub to_seq: u64,
    /// Last index of the hole; `None` when it is not known.
    pub to_index: Option<u64>,
    /// The sensor's chain after `to_seq`.
    pub chain_at_to: Chain,
    /// Why.
    pub cause: JumpCause,
}

/// Why a server asks for a keyframe. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResyncReason {
    /// The state digest differs.
    DigestDiffers,
    /// A chunk did not decode.
    Undecodable,
    /// The partition that holds the last keyframe is about to be dropped.
    Retention,
}

/// Server to sensor: begin a new segment behind what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resync {
    /// Which lane.
    pub lane: Lane,
    /// Where it was noticed; ignored by a sensor whose newest keyframe is later.
    pub at_seq: u64,
    /// Why.
    pub reason: ResyncReason,
}

/// Sensor to server, after each 64th chunk: the sensor's chain, to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainMark {
    /// Which lane.
    pub lane: Lane,
    /// After which sequence.
    pub seq: u64,
    /// The chain there.
    pub chain: Chain,
}

/// Either way: are you there?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Comes back in the Pong.
    pub nonce: u64,
}

/// Either way: here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// As in the Ping.
    pub nonce: u64,
}

/// Server to sensor: this server is going away; ask for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// How long to wait before coming back, in milliseconds.
    pub retry_after_ms: u32,
}

/// Server to peer, last on a connection: why it closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused<'a> {
    /// What is wrong.
    pub code: Code,
    /// How long to wait before trying again, in milliseconds; 0 = as the peer likes.
    pub retry_after_ms: u32,
    /// For a person.
    pub detail: &'a str,
}
