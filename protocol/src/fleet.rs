//! Sensor management: the fleet's sensors over all Detection servers, and batches of actions.

use serde::{Deserialize, Serialize};

use crate::command::{Action, Outcome};
use crate::console::HealthView;
use crate::id::{SensorId, ServerId};
use crate::items::Items;

/// How a sensor is doing. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SensorStatus {
    /// A session is open.
    Online,
    /// None is, and not for long.
    Offline,
    /// None is, for long.
    Stale,
    /// An operator put it aside.
    Archived,
}

impl SensorStatus {
    /// The status' name in API and command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Online => "Online",
            Self::Offline => "Offline",
            Self::Stale => "Stale",
            Self::Archived => "Archived",
        }
    }
}

/// What a sensor's collection is. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollectionState {
    /// Not known yet.
    Unknown,
    /// Facts come.
    Enabled,
    /// Stopped on command.
    Disabled,
    /// The sensor stopped it for a time by itself.
    Suspended,
}

impl CollectionState {
    /// The state's name in API and command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Suspended => "suspended",
        }
    }
}

/// A sensor as sensor management knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetSensor<'a> {
    /// Which sensor.
    pub sensor: SensorId,
    /// Its machine's name.
    pub name: &'a str,
    /// Its machine's operating system.
    pub os: &'a str,
    /// Its agent's name and version.
    pub agent: &'a str,
    /// How it is doing.
    pub status: SensorStatus,
    /// What its collection is.
    pub collection: CollectionState,
    /// The Detection server it is at, or was last.
    pub server: ServerId,
    /// That server's name.
    pub server_name: &'a str,
    /// Last frame, milliseconds since 1970.
    pub last_seen_ms: u64,
    /// First Hello, milliseconds since 1970.
    pub first_seen_ms: u64,
    /// Actions that have no outcome yet.
    pub pending: u32,
    /// Its collectors and other parts.
    #[serde(borrow)]
    pub health: Items<'a, HealthView<'a>>,
}

/// Do this on these sensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetAction<'a> {
    /// Which sensors.
    #[serde(borrow)]
    pub sensors: Items<'a, SensorId>,
    /// What is to be done.
    pub action: Action,
    /// How long it may wait for a sensor, in milliseconds.
    pub expires_after_ms: u64,
    /// Who.
    pub author: &'a str,
}

/// The batch an action became.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetBatch {
    /// Its number.
    pub batch: u64,
    /// Sensors in it.
    pub sensors: u32,
}

/// Which batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchQuery {
    /// Its number.
    pub batch: u64,
}

/// How far an action is on one sensor. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionState {
    /// Not yet at a Detection server.
    Pending,
    /// Queued at a Detection server.
    Queued,
    /// Its time was over.
    Expired,
    /// It has an outcome.
    Finished(Outcome),
    /// Nobody knows the sensor.
    UnknownSensor,
}

/// The state of an action on one sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchResult<'a> {
    /// Which sensor.
    pub sensor: SensorId,
    /// What was to be done.
    pub action: Action,
    /// How far it is.
    pub state: ActionState,
    /// What happened, for a person.
    pub detail: &'a str,
    /// Last change, milliseconds since 1970.
    pub updated_ms: u64,
}
