//! Sensor management: what is known of all sensors over all Detection servers, and the actions that
//! an operator orders on them.
//!
//! [`Fleet`] takes what each Detection server says of its sensors (`handle_sensors`), orders
//! (`act`), and outcomes from the servers' feeds (`handle_outcomes`). Each returns the rows to
//! store.
//! `poll_put` gives the commands to queue at Detection servers, one at a time for each sensor, in
//! the order of their numbers.
//!
//! Not here: sockets, the store, the clock. Invariants: a command is put only after its owner said
//! that its rows are durable (`handle_durable`); numbers of one sensor are dense and never given
//! twice; one action has one outcome, however often it is told.

mod actions;
mod collection;
pub mod limits;
mod outcomes;
mod put;
pub mod record;
mod sighting;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use lapwing_protocol::fleet::{FleetSensor, SensorStatus};
use lapwing_protocol::id::{SensorId, ServerId};
use lapwing_protocol::items::Items;

pub use actions::{ActRefused, Acted, Order};
pub use outcomes::Judged;
pub use put::{Put, PutAnswer};

use limits::{SNAPSHOT_AGE_MS_MAX, STALE_AFTER_MS};
use record::{ActionRecord, BatchRecord, CursorRecord, SensorRecord};
use sighting::Sighting;

/// All sensors and actions.
#[derive(Debug, Default)]
pub struct Fleet {
    issuer: u64,
    sensors: BTreeMap<SensorId, Sensor>,
    servers: BTreeMap<ServerId, Server>,
    batches: BTreeMap<u64, BatchRecord>,
    actions: BTreeMap<(u64, SensorId), ActionRecord>,
    batch_by_number: BTreeMap<(SensorId, u64), u64>,
    /// Numbers of actions without an outcome.
    open: BTreeSet<(SensorId, u64)>,
    /// Batches whose rows are not durable yet.
    held: BTreeSet<u64>,
    /// What is being put, or waits to be put again.
    puts: BTreeMap<SensorId, put::Attempt>,
    /// The sensor whose turn was last.
    turn: Option<SensorId>,
}

/// One sensor.
#[derive(Debug)]
struct Sensor {
    record: SensorRecord,
    /// What each server last said of it.
    sightings: BTreeMap<ServerId, Sighting>,
}

/// A Detection server as it answers.
#[derive(Debug)]
struct Server {
    name: String,
    /// Its last answer, monotonic; `None` before the first.
    polled_ms: Option<u64>,
    cursor: CursorRecord,
}

/// What a store held, for [`Fleet::restore`].
#[derive(Debug, Default)]
pub struct Stored {
    /// Of each sensor.
    pub sensors: Vec<(SensorId, SensorRecord)>,
    /// Of each batch.
    pub batches: Vec<(u64, BatchRecord)>,
    /// Of each action, by batch and sensor.
    pub actions: Vec<((u64, SensorId), ActionRecord)>,
    /// How far each server's feed of outcomes was read.
    pub cursors: Vec<(ServerId, CursorRecord)>,
}

impl Fleet {
    /// As it was stored. `issuer` is which life of the issuer this is: the same as long as the
    /// store is, and higher after a restore.
    #[must_use]
    pub fn restore(issuer: u64, stored: Stored) -> Self {
        let mut fleet = Self { issuer, ..Self::default() };
        for (sensor, record) in stored.sensors {
            fleet.sensors.insert(sensor, Sensor { record, sightings: BTreeMap::new() });
        }
        for (batch, record) in stored.batches {
            fleet.batches.insert(batch, record);
        }
        for ((batch, sensor), record) in stored.actions {
            fleet.index(batch, sensor, &record);
            fleet.actions.insert((batch, sensor), record);
        }
        for (server, cursor) in stored.cursors {
            fleet.server_mut(server).cursor = cursor;
        }
        fleet
    }

    /// Which life of the issuer this is.
    #[must_use]
    pub fn issuer(&self) -> u64 {
        self.issuer
    }

    /// Where to go on in the outcomes of `server`.
    #[must_use]
    pub fn cursor(&self, server: ServerId) -> CursorRecord {
        self.servers.get(&server).map_or_else(CursorRecord::default, |server| server.cursor)
    }

    /// Sensors known.
    #[must_use]
    pub fn sensors(&self) -> usize {
        self.sensors.len()
    }

    /// Actions without an outcome.
    #[must_use]
    pub fn open_actions(&self) -> usize {
        self.open.len()
    }

    /// Every sensor, in order of its id. `now_ms` is monotonic, `unix_ms` by the wall clock, with
    /// which the servers' claims are compared.
    pub fn views(&self, now_ms: u64, unix_ms: u64) -> impl Iterator<Item = FleetSensor<'_>> {
        self.sensors.iter().map(move |(id, sensor)| self.view(now_ms, unix_ms, *id, sensor))
    }

    fn view<'a>(
        &'a self,
        now_ms: u64,
        unix_ms: u64,
        id: SensorId,
        sensor: &'a Sensor,
    ) -> FleetSensor<'a> {
        let record = &sensor.record;
        let best = self.best(now_ms, sensor);
        let last_seen_ms = best
            .map_or(record.last_seen_ms, |(_, seen)| seen.last_seen_ms.max(record.last_seen_ms));
        let server = best.map_or(record.server, |(server, _)| server);
        let is_connected =
            best.is_some_and(|(server, seen)| seen.connected && self.is_fresh(now_ms, server));
        let health = best.map_or(&[][..], |(_, seen)| seen.health.as_slice());
        FleetSensor {
            sensor: id,
            name: &record.name,
            os: &record.os,
            agent: &record.agent,
            status: status(unix_ms, is_connected, last_seen_ms, record.archived),
            collection: record.collection.state(),
            server,
            server_name: self.servers.get(&server).map_or("", |server| &server.name),
            last_seen_ms,
            first_seen_ms: record.first_seen_ms,
            pending: u32::try_from(self.open_of(id).count()).unwrap_or(u32::MAX),
            health: Items::from_bytes(health),
        }
    }

    /// The server where the sensor is, or was last: a session goes before the memory of one.
    fn best<'a>(&self, now_ms: u64, sensor: &'a Sensor) -> Option<(ServerId, &'a Sighting)> {
        let rank = |(server, seen): &(ServerId, &Sighting)| {
            let is_live = seen.connected && self.is_fresh(now_ms, *server);
            (is_live, seen.last_seen_ms)
        };
        sensor.sightings.iter().map(|(server, seen)| (*server, seen)).max_by_key(rank)
    }

    fn is_fresh(&self, now_ms: u64, server: ServerId) -> bool {
        let polled_ms = self.servers.get(&server).and_then(|server| server.polled_ms);
        polled_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < SNAPSHOT_AGE_MS_MAX)
    }

    fn open_of(&self, sensor: SensorId) -> impl Iterator<Item = u64> + '_ {
        self.open.range((sensor, 0)..=(sensor, u64::MAX)).map(|(_, seq)| *seq)
    }

    fn server_mut(&mut self, server: ServerId) -> &mut Server {
        self.servers.entry(server).or_insert_with(|| Server {
            name: String::new(),
            polled_ms: None,
            cursor: CursorRecord::default(),
        })
    }

    fn index(&mut self, batch: u64, sensor: SensorId, record: &ActionRecord) {
        if record.seq == 0 {
            return;
        }
        self.batch_by_number.insert((sensor, record.seq), batch);
        if record.is_open() {
            self.open.insert((sensor, record.seq));
        } else {
            self.open.remove(&(sensor, record.seq));
        }
    }
}

/// How a sensor is doing at `unix_ms`, by whether a session is open and when it was last seen.
#[must_use]
pub fn status(
    unix_ms: u64,
    is_connected: bool,
    last_seen_ms: u64,
    is_archived: bool,
) -> SensorStatus {
    if is_archived {
        SensorStatus::Archived
    } else if is_connected {
        SensorStatus::Online
    } else if unix_ms.saturating_sub(last_seen_ms) > STALE_AFTER_MS {
        SensorStatus::Stale
    } else {
        SensorStatus::Offline
    }
}
