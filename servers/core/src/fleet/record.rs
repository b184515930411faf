//! What sensor management stores, and under which keys.

use lapwing_protocol::command::{Action, Outcome};
use lapwing_protocol::fleet::ActionState;
use lapwing_protocol::id::{Incarnation, SensorId, ServerId};
use serde::{Deserialize, Serialize};

pub use super::collection::Collection;

/// A sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorRecord {
    /// Its machine's name.
    pub name: String,
    /// Its machine's operating system.
    pub os: String,
    /// Its agent's name and version.
    pub agent: String,
    /// The server it is at, or was last.
    pub server: ServerId,
    /// First Hello at any server, milliseconds since 1970.
    pub first_seen_ms: u64,
    /// Last frame, milliseconds since 1970; at most a minute behind while it is connected.
    pub last_seen_ms: u64,
    /// Whether it collects.
    pub collection: Collection,
    /// Whether an operator put it aside.
    pub archived: bool,
    /// The last number given to a command for it.
    pub last_seq: u64,
}

/// One order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchRecord {
    /// What was to be done.
    pub action: Action,
    /// Who ordered it.
    pub author: String,
    /// When, milliseconds since 1970.
    pub created_ms: u64,
    /// Until when it may be started, milliseconds since 1970.
    pub expires_ms: u64,
    /// On how many sensors.
    pub sensors: u32,
}

/// One order on one sensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// The command's number under this issuer; 0 where the sensor is unknown.
    pub seq: u64,
    /// How far it is.
    pub state: ActionState,
    /// The server at which it was last queued.
    pub queued_at: Option<ServerId>,
    /// What happened, for a person.
    pub detail: String,
    /// Last change, milliseconds since 1970.
    pub updated_ms: u64,
}

impl ActionRecord {
    /// Whether an outcome is still to come.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, ActionState::Pending | ActionState::Queued)
    }

    /// Whether an outcome that comes now is the first that counts. That a number was refused says
    /// that it had been accepted before, perhaps by way of another server whose feed is slower;
    /// that it expired is our own guess. A later word from the sensor goes before both.
    #[must_use]
    pub fn takes(&self, outcome: Outcome) -> bool {
        match self.state {
            ActionState::Pending | ActionState::Queued | ActionState::Expired => true,
            ActionState::Finished(Outcome::Refused) => outcome != Outcome::Refused,
            ActionState::Finished(_) | ActionState::UnknownSensor => false,
        }
    }
}

/// How far a server's feed of outcomes was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorRecord {
    /// The feed's incarnation; `None` before the first page.
    pub incarnation: Option<Incarnation>,
    /// Where to go on.
    pub cursor: u64,
}

/// The keys.
pub mod key {
    use super::{SensorId, ServerId};

    /// Of the issuer's incarnation (a postcard `u64`).
    pub const ISSUER: &[u8] = b"fleet/issuer";
    /// Before every sensor's key, and behind it.
    pub const SENSORS: [&[u8]; 2] = [b"fleet/sensor/", b"fleet/sensor0"];
    /// Before every batch's key, and behind it.
    pub const BATCHES: [&[u8]; 2] = [b"fleet/batch/", b"fleet/batch0"];
    /// Before every action's key, and behind it.
    pub const ACTIONS: [&[u8]; 2] = [b"fleet/action/", b"fleet/action0"];
    /// Before every cursor's key, and behind it.
    pub const CURSORS: [&[u8]; 2] = [b"fleet/cursor/", b"fleet/cursor0"];

    /// Of a [`super::SensorRecord`].
    #[must_use]
    pub fn sensor(sensor: SensorId) -> Vec<u8> {
        [SENSORS[0], &sensor.0].concat()
    }

    /// Of a [`super::BatchRecord`].
    #[must_use]
    pub fn batch(batch: u64) -> Vec<u8> {
        [BATCHES[0], &batch.to_be_bytes()].concat()
    }

    /// Of an [`super::ActionRecord`].
    #[must_use]
    pub fn action(batch: u64, sensor: SensorId) -> Vec<u8> {
        [ACTIONS[0], &batch.to_be_bytes(), &sensor.0].concat()
    }

    /// Of a [`super::CursorRecord`].
    #[must_use]
    pub fn cursor(server: ServerId) -> Vec<u8> {
        [CURSORS[0], &server.0].concat()
    }

    /// The id in a sensor's or a cursor's key.
    #[must_use]
    pub fn id_of(prefix: &[u8], key: &[u8]) -> Option<[u8; 16]> {
        key.strip_prefix(prefix)?.try_into().ok()
    }

    /// The batch in its key.
    #[must_use]
    pub fn batch_of(key: &[u8]) -> Option<u64> {
        key.strip_prefix(BATCHES[0])?.try_into().ok().map(u64::from_be_bytes)
    }

    /// Batch and sensor in an action's key.
    #[must_use]
    pub fn action_of(key: &[u8]) -> Option<(u64, SensorId)> {
        let (batch, sensor) = key.strip_prefix(ACTIONS[0])?.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*batch), SensorId(sensor.try_into().ok()?)))
    }
}
