//! Which Detection server is a sensor's own: the policy of the Registration server.
//!
//! [`Assignments`] holds the servers that sent heartbeats and the sensors they were given. It hands
//! new sensors out by smooth weighted round robin over what each server still has free, and gives a
//! sensor the same server again unless there is a reason not to. What must be durable comes back
//! from each call; the owner stores it before it replies.
//!
//! Not here: enrolment, sockets, the store. Invariants: a server's `assigned` is the number of
//! sensors whose record names it; a dead, draining or full server is given to nobody anew.

pub mod limits;
pub mod record;
mod rotation;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use lapwing_protocol::id::{SensorId, ServerId};
use lapwing_protocol::registration::{
    AssignReason, AssignRequest, HeartbeatReply, ServerSetting, ServerState,
};

use limits::{DEAD_AFTER_MS, RETRY_FULL_MS, SERVERS_MAX};
use record::{HeartbeatRecord, PlaceRecord, ServerRecord};
use rotation::Candidate;

/// A Detection server as Registration knows it.
#[derive(Clone, Debug)]
pub struct Server {
    /// What is stored of it.
    pub record: ServerRecord,
    /// What its last heartbeat said that is not stored; zero before the first.
    pub heartbeat: HeartbeatRecord,
    /// Sensors whose record names it.
    pub assigned: u32,
    /// When it was last heard of, monotonic; after a restart, when that was.
    heard_ms: u64,
    /// Its position in the rotation.
    turn: i64,
}

impl Server {
    /// How it is doing at `now_ms` (monotonic).
    #[must_use]
    pub fn state(&self, now_ms: u64) -> ServerState {
        if now_ms.saturating_sub(self.heard_ms) >= DEAD_AFTER_MS {
            ServerState::Dead
        } else if self.record.drain || self.heartbeat.draining {
            ServerState::Draining
        } else {
            ServerState::Up
        }
    }

    /// Sensors it can take at all: what an operator set, or what it says.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.record.capacity_set.unwrap_or(self.record.capacity_reported)
    }

    /// Sensors it can still take. One that was assigned and has not connected yet counts, and so
    /// does one that connected without having been assigned.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.capacity().saturating_sub(self.assigned.max(self.heartbeat.sensors))
    }
}

/// The answer to a sensor that asks for its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The server it has.
    Kept(ServerId),
    /// Another, or its first. Store `record` before the reply.
    Given {
        /// Which server.
        server: ServerId,
        /// What to store under the sensor.
        record: PlaceRecord,
    },
    /// No server has room; the sensor may ask again after so many milliseconds.
    AllFull {
        /// When to ask again.
        retry_after_ms: u64,
        /// What an operator needs to know.
        why: NoRoom,
    },
}

/// Why no server has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// No Detection server ever sent a heartbeat.
    NoServers,
    /// Every server is dead or draining.
    NoneUp,
    /// Those that are up are full.
    Full,
}

/// What a heartbeat leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The answer.
    pub reply: HeartbeatReply,
    /// The server's record, where it changed and must be stored.
    pub changed: Option<ServerRecord>,
    /// Whether the server was dead or unknown before.
    pub is_back: bool,
}

/// A change that cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeRefused {
    /// No server has that name.
    UnknownServer,
    /// There are as many servers as there may be.
    TooManyServers,
}

impl std::fmt::Display for ChangeRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownServer => f.write_str("no Detection server of that name sent a heartbeat"),
            Self::TooManyServers => {
                write!(f, "there are {SERVERS_MAX} Detection servers already")
            }
        }
    }
}

impl std::error::Error for ChangeRefused {}

/// Servers, sensors, and who belongs to whom.
#[derive(Debug, Default)]
pub struct Assignments {
    servers: BTreeMap<ServerId, Server>,
    place_by_sensor: BTreeMap<SensorId, PlaceRecord>,
}

impl Assignments {
    /// As it was stored. Servers count as heard of at `now_ms` (monotonic), so that a restart of
    /// Registration moves nobody before they had time for a heartbeat.
    #[must_use]
    pub fn restore(
        now_ms: u64,
        servers: impl IntoIterator<Item = (ServerId, ServerRecord)>,
        places: impl IntoIterator<Item = (SensorId, PlaceRecord)>,
    ) -> Self {
        let mut this = Self::default();
        for (id, record) in servers {
            this.servers.insert(id, fresh(record, now_ms));
        }
        for (sensor, place) in places {
            if let Some(server) = this.servers.get_mut(&place.server) {
                server.assigned += 1;
            }
            this.place_by_sensor.insert(sensor, place);
        }
        this
    }

    /// The servers in order of their ids.
    pub fn servers(&self) -> impl ExactSizeIterator<Item = (ServerId, &Server)> {
        self.servers.iter().map(|(id, server)| (*id, server))
    }

    /// One server.
    #[must_use]
    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.servers.get(&id)
    }

    /// The sensors that have a server, in order of their ids.
    pub fn places(&self) -> impl ExactSizeIterator<Item = (SensorId, &PlaceRecord)> {
        self.place_by_sensor.iter().map(|(id, place)| (*id, place))
    }

    /// Where `sensor` belongs.
    #[must_use]
    pub fn place(&self, sensor: SensorId) -> Option<&PlaceRecord> {
        self.place_by_sensor.get(&sensor)
    }

    /// A heartbeat came. `now_ms` is monotonic.
    ///
    /// # Errors
    /// There are too many servers to take another.
    pub fn handle_heartbeat(
        &mut self,
        now_ms: u64,
        id: ServerId,
        said: ServerRecord,
        heartbeat: HeartbeatRecord,
    ) -> Result<Heard, ChangeRefused> {
        if !self.servers.contains_key(&id) && self.servers.len() >= SERVERS_MAX {
            return Err(ChangeRefused::TooManyServers);
        }
        let mut is_back = false;
        let mut is_new = false;
        let server = self.servers.entry(id).or_insert_with(|| {
            (is_back, is_new) = (true, true);
            fresh(said.clone(), now_ms)
        });
        is_back |= server.state(now_ms) == ServerState::Dead;
        let record = ServerRecord {
            capacity_set: server.record.capacity_set,
            drain: server.record.drain,
            ..said
        };
        let changed = (is_new || record != server.record).then(|| record.clone());
        server.record = record;
        server.heartbeat = heartbeat;
        server.heard_ms = now_ms;
        let reply =
            HeartbeatReply { capacity: server.record.capacity_set, drain: server.record.drain };
        Ok(Heard { reply, changed, is_back })
    }

    /// An operator changes the server called `name`. Returns what to store before the reply.
    ///
    /// # Errors
    /// Nobody has that name.
    pub fn change(
        &mut self,
        name: &str,
        setting: ServerSetting,
    ) -> Result<(ServerId, ServerRecord), ChangeRefused> {
        let found = self.servers.iter_mut().find(|(_, server)| server.record.name == name);
        let (id, server) = found.ok_or(ChangeRefused::UnknownServer)?;
        match setting {
            ServerSetting::Drain => server.record.drain = true,
            ServerSetting::Undrain => server.record.drain = false,
            ServerSetting::Capacity(capacity) => server.record.capacity_set = Some(capacity),
        }
        Ok((*id, server.record.clone()))
    }

    /// A sensor asks for its server. `now_ms` is monotonic, `unix_ms` is shown to people.
    ///
    /// It keeps the one it has, unless that one is dead or draining, or is over its capacity or
    /// troubles the sensor while another has room.
    pub fn assign(
        &mut self,
        now_ms: u64,
        unix_ms: u64,
        sensor: SensorId,
        request: AssignRequest,
    ) -> Decision {
        let current = self.place_by_sensor.get(&sensor).map(|place| place.server);
        let standing = current.map(|server| self.standing(now_ms, server, request));
        if let (Some(server), Some(Standing::Good)) = (current, standing) {
            return Decision::Kept(server);
        }
        let avoided = [current, request.trouble_with];
        if let Some(server) = self.next_in_turn(now_ms, &avoided) {
            return self.give(unix_ms, sensor, server);
        }
        if let (Some(server), Some(Standing::Troubled)) = (current, standing) {
            return Decision::Kept(server);
        }
        // The server it had trouble with, when it is nobody's yet and the only one with room.
        if current.is_none()
            && let Some(server) = self.next_in_turn(now_ms, &[])
        {
            return self.give(unix_ms, sensor, server);
        }
        Decision::AllFull { retry_after_ms: RETRY_FULL_MS, why: self.no_room(now_ms) }
    }

    fn standing(&self, now_ms: u64, id: ServerId, request: AssignRequest) -> Standing {
        let Some(server) = self.servers.get(&id) else { return Standing::Gone };
        let has_trouble = match request.trouble_with {
            Some(troubled) => troubled == id,
            None => request.reason != AssignReason::First,
        };
        match server.state(now_ms) {
            ServerState::Dead | ServerState::Draining => Standing::Gone,
            ServerState::Up if has_trouble || server.assigned > server.capacity() => {
                Standing::Troubled
            }
            ServerState::Up => Standing::Good,
        }
    }

    fn next_in_turn(&mut self, now_ms: u64, avoided: &[Option<ServerId>]) -> Option<ServerId> {
        let candidates = self.servers.iter_mut().filter_map(|(id, server)| {
            let may = server.state(now_ms) == ServerState::Up && server.free() > 0;
            if !may {
                // A place in the rotation that was earned while it had room is not kept for later.
                server.turn = 0;
            }
            let weight = i64::from(server.free());
            let is_candidate = may && !avoided.contains(&Some(*id));
            is_candidate.then_some(Candidate { id: *id, weight, turn: &mut server.turn })
        });
        rotation::next(candidates)
    }

    fn give(&mut self, unix_ms: u64, sensor: SensorId, server: ServerId) -> Decision {
        let record = PlaceRecord { server, assigned_ms: unix_ms };
        let before = self.place_by_sensor.insert(sensor, record.clone());
        if let Some(before) = before.and_then(|place| self.servers.get_mut(&place.server)) {
            before.assigned = before.assigned.saturating_sub(1);
        }
        if let Some(after) = self.servers.get_mut(&server) {
            after.assigned += 1;
        }
        Decision::Given { server, record }
    }

    fn no_room(&self, now_ms: u64) -> NoRoom {
        if self.servers.is_empty() {
            NoRoom::NoServers
        } else if self.servers.values().any(|server| server.state(now_ms) == ServerState::Up) {
            NoRoom::Full
        } else {
            NoRoom::NoneUp
        }
    }
}

/// How a sensor stands with the server it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing speaks against it.
    Good,
    /// It is up, but another would be better.
    Troubled,
    /// It must not be given again.
    Gone,
}

fn fresh(record: ServerRecord, heard_ms: u64) -> Server {
    Server { record, heartbeat: HeartbeatRecord::default(), assigned: 0, heard_ms, turn: 0 }
}
