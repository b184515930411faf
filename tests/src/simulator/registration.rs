//! The Registration server's machine: the real assignments, their records on a disk, heartbeats.

use std::collections::BTreeMap;

use lapwing_protocol::id::{SensorId, ServerId};
use lapwing_protocol::registration::{AssignRequest, ServerSetting};
use lapwing_server_core::assignment::record::{HeartbeatRecord, PlaceRecord, ServerRecord};
use lapwing_server_core::assignment::{Assignments, Decision};

/// The machine.
#[derive(Debug, Default)]
pub(crate) struct RegistrationMachine {
    servers: BTreeMap<ServerId, ServerRecord>,
    places: BTreeMap<SensorId, PlaceRecord>,
    assignments: Assignments,
    /// It answers.
    pub(crate) is_up: bool,
}

impl RegistrationMachine {
    pub(crate) fn new() -> Self {
        Self { is_up: true, ..Self::default() }
    }

    /// Ends the process; what it stored is what the next one knows.
    pub(crate) fn kill(&mut self) {
        self.is_up = false;
        self.assignments = Assignments::default();
    }

    pub(crate) fn start(&mut self, now_ms: u64) {
        self.is_up = true;
        let (servers, places) = (self.servers.clone(), self.places.clone());
        self.assignments = Assignments::restore(now_ms, servers, places);
    }

    /// A server's heartbeat; answers whether an operator drains it.
    pub(crate) fn handle_heartbeat(
        &mut self,
        now_ms: u64,
        (server, name): (ServerId, &str),
        (sensors, is_draining): (u32, bool),
    ) -> bool {
        let said = ServerRecord {
            name: name.into(),
            sensor_address: String::new(),
            console_address: String::new(),
            malware_address: String::new(),
            capacity_reported: 8,
            version: "1".into(),
            capacity_set: None,
            drain: false,
        };
        let draining = is_draining;
        let heartbeat = HeartbeatRecord { sensors, draining, ..HeartbeatRecord::default() };
        match self.assignments.handle_heartbeat(now_ms, server, said, heartbeat) {
            Ok(heard) => {
                if let Some(changed) = heard.changed {
                    self.servers.insert(server, changed);
                }
                heard.reply.drain
            }
            Err(_) => false,
        }
    }

    /// An operator drains a server, or takes that back.
    pub(crate) fn set(&mut self, name: &str, setting: ServerSetting) {
        if let Ok((server, record)) = self.assignments.change(name, setting) {
            self.servers.insert(server, record);
        }
    }

    /// A sensor asks for its server; `Err` with when it may ask again.
    pub(crate) fn assign(
        &mut self,
        now_ms: u64,
        sensor: SensorId,
        request: AssignRequest,
    ) -> Result<ServerId, u32> {
        match self.assignments.assign(now_ms, now_ms, sensor, request) {
            Decision::Kept(server) => Ok(server),
            Decision::Given { server, record } => {
                self.places.insert(sensor, record);
                Ok(server)
            }
            Decision::AllFull { retry_after_ms, .. } => Err(retry_after_ms as u32),
        }
    }
}
