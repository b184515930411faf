//! How a session begins: versions, capabilities, and where each log stands.
//!
//! The sensor speaks first. It names, for each lane, the one log it will send in this session; to
//! change the log it says Hello again on the same connection. The server answers with the next
//! sequence it takes and its own chain there, and both ends compare. What follows from a
//! difference is the table in `docs/protocol.md`, section "Hello".

use heapless::Vec;
use serde::{Deserialize, Serialize};

use crate::command::CommandNumber;
use crate::digest::Chain;
use crate::id::{BootId, Lane, LogId, SensorId, ServerId};
use crate::items::Items;
use crate::limits::{CAPABILITIES_MAX, LANES};

/// The version of this protocol.
pub const PROTOCOL_VERSION: u16 = 1;

/// A named extension; used when both ends list it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Capability(pub u16);

/// Whether a sensor keeps its spool over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Memory {
    /// Segments on a disk.
    Disk,
    /// Nothing survives: every boot is a new log of self-contained chunks.
    RamOnly,
}

/// Why a log was opened. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogCause {
    /// The sensor's first.
    First,
    /// The sensor was not stopped cleanly: the old log is never appended to.
    Unclean,
    /// The server holds more than the sensor: its disk was rolled back.
    RolledBack,
    /// The server holds other content under the same numbers.
    Forked,
    /// A RAM-only sensor started.
    Started,
    /// The spool could not be read.
    SpoolLost,
    /// A kind of element was defined anew.
    Redefined,
}

/// The log a new log continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogParent {
    /// The old log.
    pub log: LogId,
    /// The sequence it would have used next.
    pub next_seq: u64,
    /// The index it would have used next.
    pub next_index: u64,
    /// Its chain before that sequence.
    pub chain: Chain,
}

/// A run of a log that another server acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRange {
    /// Who.
    pub server: ServerId,
    /// First sequence.
    pub from_seq: u64,
    /// Last sequence.
    pub to_seq: u64,
}

/// Where the log of one lane stands at the sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHead<'a> {
    /// Which lane.
    pub lane: Lane,
    /// Which log.
    pub log: LogId,
    /// Why it was opened.
    pub cause: LogCause,
    /// The log before it.
    pub parent: Option<LogParent>,
    /// The oldest chunk the sensor can still send; `next_seq` when it holds none.
    pub first_seq: u64,
    /// The sequence the sensor will use next.
    pub next_seq: u64,
    /// The index the sensor will give next.
    pub next_index: u64,
    /// The highest sequence some server acknowledged; 0 when none.
    pub acked_seq: u64,
    /// The chain after `acked_seq`.
    pub acked_chain: Chain,
    /// What other servers acknowledged, oldest first.
    #[serde(borrow)]
    pub elsewhere: Items<'a, StoredRange>,
}

/// Sensor to server, first in a session and at each change of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello<'a> {
    /// Lowest protocol version the sensor speaks.
    pub version_min: u16,
    /// Highest protocol version the sensor speaks.
    pub version_max: u16,
    /// Extensions the sensor knows.
    pub capabilities: Vec<Capability, CAPABILITIES_MAX>,
    /// Name and version of the agent, such as `lapwing-sensor/0.1.0`.
    pub agent: &'a str,
    /// Name of the machine.
    pub name: &'a str,
    /// The machine's operating system and version.
    pub os: &'a str,
    /// Which boot of the machine.
    pub boot: BootId,
    /// Largest frame the sensor can receive, in bytes.
    pub receive_bytes_max: u32,
    /// Whether its spool survives.
    pub memory: Memory,
    /// Whether it collects at the moment.
    pub collecting: bool,
    /// The highest command it accepted; `None` when it has no memory of any.
    pub last_command: Option<CommandNumber>,
    /// One log for each lane it uses.
    #[serde(borrow)]
    pub logs: Vec<LogHead<'a>, LANES>,
}

/// What the server makes of a log. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogVerdict {
    /// Go on at `next_seq`.
    Resume,
    /// The server has not seen this log: it begins at 1, or with a Jump.
    New,
    /// The server lost what it had acknowledged; what the sensor still holds fills the hole.
    ServerBehind,
    /// The server holds more than the sensor made: open a new log with this one as parent.
    SensorBehind,
    /// The chains differ at the acknowledged position: open a new log with this one as parent.
    Forked,
}

/// What the server grants one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogGrant {
    /// Which lane.
    pub lane: Lane,
    /// Which log.
    pub log: LogId,
    /// What the server makes of it.
    pub verdict: LogVerdict,
    /// The sequence the server takes next.
    pub next_seq: u64,
    /// The index the server expects next.
    pub next_index: u64,
    /// The server's chain before `next_seq`.
    pub chain: Chain,
    /// Credit, see [`crate::delivery::Credit`].
    pub credit: crate::delivery::Credit,
}

/// Server to sensor, the answer to a Hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAck<'a> {
    /// The version both speak.
    pub version: u16,
    /// Extensions the server knows.
    pub capabilities: Vec<Capability, CAPABILITIES_MAX>,
    /// Which server this is.
    pub server: ServerId,
    /// Its name.
    pub name: &'a str,
    /// This session's number: frames of a lower one are refused.
    pub session_epoch: u64,
    /// The server's wall clock, milliseconds since 1970.
    pub server_ms: u64,
    /// Largest frame the server takes, in bytes.
    pub receive_bytes_max: u32,
    /// Rows the server keeps for this sensor.
    pub rows_max: u32,
    /// One grant for each log of the Hello.
    pub logs: Vec<LogGrant, LANES>,
}

/// One-way mode only: the sensor proves who it is, before Hello.
///
/// `proof` = HMAC-SHA256 keyed by the sensor's secret over the connection's TLS exporter value
/// (label `lapwing-auth-1`, 32 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auth {
    /// Who it claims to be.
    pub sensor: SensorId,
    /// The proof.
    pub proof: [u8; 32],
}
