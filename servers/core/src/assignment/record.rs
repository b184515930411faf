//! What Registration stores of servers and assignments. Fields only grow at the end, by a new
//! record version of the store.

use lapwing_protocol::id::{Incarnation, ServerId};
use lapwing_protocol::registration::Heartbeat;
use serde::{Deserialize, Serialize};

/// A Detection server, as stored: what it says of itself that seldom changes, and what an operator
/// set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// Its name.
    pub name: String,
    /// Where sensors reach it.
    pub sensor_address: String,
    /// Where its console answers.
    pub console_address: String,
    /// Where its malware alerts are read.
    pub malware_address: String,
    /// Sensors it says it can take.
    pub capacity_reported: u32,
    /// Its version.
    pub version: String,
    /// Sensors an operator lets it take.
    pub capacity_set: Option<u32>,
    /// Whether an operator drains it.
    pub drain: bool,
}

/// What a heartbeat says that changes all the time and is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatRecord {
    /// Sensors it has.
    pub sensors: u32,
    /// How busy it is, in thousandths.
    pub load_permille: u16,
    /// Whether it drains of itself.
    pub draining: bool,
    /// The life of its feeds.
    pub incarnation: Incarnation,
    /// When it came, milliseconds since 1970; 0 before the first.
    pub unix_ms: u64,
}

impl Default for HeartbeatRecord {
    fn default() -> Self {
        let incarnation = Incarnation([0; 16]);
        Self { sensors: 0, load_permille: 0, draining: false, incarnation, unix_ms: 0 }
    }
}

/// A sensor's server, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceRecord {
    /// Which server.
    pub server: ServerId,
    /// When it was given, milliseconds since 1970.
    pub assigned_ms: u64,
}

/// The two halves of a heartbeat that came at `unix_ms`: what is stored, and what is not.
#[must_use]
pub fn split(unix_ms: u64, heartbeat: &Heartbeat<'_>) -> (ServerRecord, HeartbeatRecord) {
    let stored = ServerRecord {
        name: heartbeat.name.into(),
        sensor_address: heartbeat.sensor_address.into(),
        console_address: heartbeat.console_address.into(),
        malware_address: heartbeat.malware_address.into(),
        capacity_reported: heartbeat.capacity,
        version: heartbeat.version.into(),
        capacity_set: None,
        drain: false,
    };
    let passing = HeartbeatRecord {
        sensors: heartbeat.sensors,
        load_permille: heartbeat.load_permille,
        draining: heartbeat.draining,
        incarnation: heartbeat.incarnation,
        unix_ms,
    };
    (stored, passing)
}

/// The keys.
pub mod key {
    use lapwing_protocol::id::{SensorId, ServerId};

    /// Before every server's key, and behind it.
    pub const SERVERS: [&[u8]; 2] = [b"assign/server/", b"assign/server0"];
    /// Before the key of every sensor's place, and behind it.
    pub const PLACES: [&[u8]; 2] = [b"assign/sensor/", b"assign/sensor0"];

    /// Of a [`super::ServerRecord`].
    #[must_use]
    pub fn server(server: ServerId) -> Vec<u8> {
        [SERVERS[0], &server.0].concat()
    }

    /// Of a [`super::PlaceRecord`].
    #[must_use]
    pub fn place(sensor: SensorId) -> Vec<u8> {
        [PLACES[0], &sensor.0].concat()
    }

    /// The id in such a key.
    #[must_use]
    pub fn id_of(prefix: &[u8], key: &[u8]) -> Option<[u8; 16]> {
        key.strip_prefix(prefix)?.try_into().ok()
    }
}
