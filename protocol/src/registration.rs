//! Registration: which Detection server is a sensor's own, and which servers there are.

use serde::{Deserialize, Serialize};

use crate::id::{Incarnation, SensorId, ServerId};

/// Why a sensor asks. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AssignReason {
    /// It has no assignment yet.
    First,
    /// Its Detection server cannot be reached.
    Unreachable,
    /// Its Detection server refused it.
    Refused,
    /// Its Detection server is draining.
    Draining,
    /// Its Detection server acknowledges nothing.
    NoProgress,
}

/// Sensor to Registration: which Detection server is mine?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignRequest {
    /// Why it asks.
    pub reason: AssignReason,
    /// The server it had trouble with.
    pub trouble_with: Option<ServerId>,
}

/// Registration to sensor: this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment<'a> {
    /// Which server.
    pub server: ServerId,
    /// Its name.
    pub name: &'a str,
    /// Where sensors reach it, `address:port`.
    pub address: &'a str,
}

/// What a server is. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ServerRole {
    /// Assigns sensors.
    Registration,
    /// Ends sensors' connections.
    Detection,
    /// Hosts updates.
    Update,
    /// The organisation's own intel.
    IntelPrivate,
    /// Shared intel.
    IntelGlobal,
    /// Page and API.
    WebApp,
    /// Decides on MalOps.
    MalOps,
    /// Tags assets.
    Tagging,
    /// Manages sensors.
    Fleet,
}

impl ServerRole {
    /// The role's name in certificates, configuration and API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::Detection => "detection",
            Self::Update => "update",
            Self::IntelPrivate => "intel-private",
            Self::IntelGlobal => "intel-global",
            Self::WebApp => "webapp",
            Self::MalOps => "malops",
            Self::Tagging => "tagging",
            Self::Fleet => "fleet",
        }
    }
}

/// Detection to Registration, every two seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat<'a> {
    /// Which server.
    pub server: ServerId,
    /// Its name.
    pub name: &'a str,
    /// Where sensors reach it.
    pub sensor_address: &'a str,
    /// Where its console answers.
    pub console_address: &'a str,
    /// Where its malware alerts are read.
    pub malware_address: &'a str,
    /// Sensors it can take.
    pub capacity: u32,
    /// Sensors it has.
    pub sensors: u32,
    /// How busy it is, in thousandths.
    pub load_permille: u16,
    /// Whether it wants no more sensors.
    pub draining: bool,
    /// Its version.
    pub version: &'a str,
    /// The life of its feeds.
    pub incarnation: Incarnation,
}

/// Registration's answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// The capacity an operator set; replaces the server's own.
    pub capacity: Option<u32>,
    /// Whether an operator wants it drained.
    pub drain: bool,
}

/// How a server is doing. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerState {
    /// Takes sensors.
    Up,
    /// Keeps its sensors, takes no more.
    Draining,
    /// No heartbeat for too long.
    Dead,
}

/// A Detection server as Registration knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerView<'a> {
    /// Which server.
    pub server: ServerId,
    /// Its name.
    pub name: &'a str,
    /// How it is doing.
    pub state: ServerState,
    /// Where sensors reach it.
    pub sensor_address: &'a str,
    /// Where its console answers.
    pub console_address: &'a str,
    /// Where its malware alerts are read.
    pub malware_address: &'a str,
    /// Sensors it can take.
    pub capacity: u32,
    /// Sensors it has.
    pub sensors: u32,
    /// Sensors assigned to it.
    pub assigned: u32,
    /// How busy it is, in thousandths.
    pub load_permille: u16,
    /// Its version.
    pub version: &'a str,
    /// Last heartbeat, milliseconds since 1970.
    pub heartbeat_ms: u64,
}

/// An operator's change of a Detection server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerChange<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is to change.
    pub change: ServerSetting,
}

/// What an operator may change. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerSetting {
    /// No more sensors.
    Drain,
    /// Sensors again.
    Undrain,
    /// Sensors it can take.
    Capacity(u32),
}

/// One sensor's assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentView<'a> {
    /// Which sensor.
    pub sensor: SensorId,
    /// The sensor's machine name.
    pub name: &'a str,
    /// Its server; `None` while none had room.
    pub server: Option<ServerId>,
    /// When it was given, milliseconds since 1970.
    pub assigned_ms: u64,
    /// When the sensor enrolled, milliseconds since 1970.
    pub enrolled_ms: u64,
}

/// What any server says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus<'a> {
    /// Which server.
    pub server: ServerId,
    /// Its name.
    pub name: &'a str,
    /// What it is.
    pub role: ServerRole,
    /// Its version.
    pub version: &'a str,
    /// Its process number.
    pub pid: u32,
    /// When it started, milliseconds since 1970.
    pub started_ms: u64,
    /// What is not as it should be, for a person; empty when all is well.
    pub trouble: &'a str,
}
