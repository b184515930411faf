//! The calls that a Registration server answers, by plane: enrol, sensor, peer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lapwing_net::clock;
use lapwing_net::enrolment::Desk;
use lapwing_net::host::{Host, Myself};
use lapwing_net::identity::Role;
use lapwing_net::peer::{Caller, Failure, Service, from_body, to_body};
use lapwing_net::tls::Plane;
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::feed::{Page, PageRequest};
use lapwing_protocol::id::{SensorId, ServerId};
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::{FEED_PAGE_MAX, NAME_BYTES_MAX};
use lapwing_protocol::registration::{
    AssignRequest, Assignment, AssignmentView, Heartbeat, ServerChange, ServerState, ServerView,
};
use lapwing_server_core::assignment::record::{self, key};
use lapwing_server_core::assignment::{Assignments, ChangeRefused, Decision, NoRoom, Server};
use lapwing_server_core::rows::Row;
use lapwing_store::RowStore;

use crate::Config;
use crate::counts::Counts;
use crate::state::State;

/// How often the dead are counted.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Everything a Registration server knows.
pub(crate) struct Registration {
    desk: Desk<RowStore>,
    state: State,
    counts: Counts,
    myself: Arc<Myself>,
    rows: RowStore,
}

impl Registration {
    /// Blocks on the disk.
    pub(crate) fn open(config: &Config, host: &Host, rows: RowStore) -> Result<Self, String> {
        let desk =
            Desk::open(config.server.deployment, &config.enrolment, rows.clone(), host.metrics())
                .map_err(|error| error.to_string())?;
        let state = State::open(rows.clone())?;
        let counts = Counts::registered(host.metrics());
        Ok(Self { desk, state, counts, myself: host.myself(), rows })
    }

    /// Keeps the gauges true and logs servers that died. Never ends.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut dead_before: Vec<String> = Vec::new();
        loop {
            let now_ms = clock::monotonic_ms();
            let dead = self.state.look(|assignments| {
                let in_state = |state| {
                    let servers = assignments.servers();
                    servers.filter(|(_, server)| server.state(now_ms) == state).collect::<Vec<_>>()
                };
                self.counts.set_sensors(assignments.places().len());
                self.counts.set_servers("up", in_state(ServerState::Up).len());
                self.counts.set_servers("draining", in_state(ServerState::Draining).len());
                let dead = in_state(ServerState::Dead);
                self.counts.set_servers("dead", dead.len());
                dead.iter().map(|(_, server)| server.record.name.clone()).collect::<Vec<_>>()
            });
            for name in dead.iter().filter(|name| !dead_before.contains(name)) {
                log::warn!("{name}: no heartbeat for 10 s; its sensors go elsewhere as they ask");
            }
            dead_before = dead;
            smol::Timer::after(WATCH_EVERY).await;
        }
    }

    async fn assign(&self, sensor: SensorId, body: &[u8]) -> Result<Vec<u8>, Failure> {
        self.counts.requested();
        let request: AssignRequest = from_body(body)?;
        let (now_ms, unix_ms) = (clock::monotonic_ms(), clock::unix_ms());
        let decided = self.state.decide(|assignments| {
            let decision = assignments.assign(now_ms, unix_ms, sensor, request);
            let row = match &decision {
                Decision::Given { record, .. } => Some(Row::put(key::place(sensor), record)),
                Decision::Kept(_) | Decision::AllFull { .. } => None,
            };
            let reply = assignment_body(assignments, &decision);
            Ok(((decision, reply), row))
        });
        let result = decided.await;
        self.counts.answered(match &result {
            Ok((Decision::Kept(_), _)) => "kept",
            Ok((Decision::Given { .. }, _)) => "given",
            Ok((Decision::AllFull { .. }, _)) => "all_full",
            Err(_) => "failed",
        });
        let (decision, reply) = result?;
        if let Decision::Given { server, .. } = decision {
            log::info!("sensor {sensor} belongs to server {server} ({:?})", request.reason);
        }
        reply
    }

    async fn heartbeat(&self, from: ServerId, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let heartbeat: Heartbeat<'_> = from_body(body)?;
        check_heartbeat(from, &heartbeat)?;
        self.counts.heartbeat();
        let (said, passing) = record::split(clock::unix_ms(), &heartbeat);
        let decided = self.state.decide(|assignments| {
            let heard = assignments
                .handle_heartbeat(clock::monotonic_ms(), from, said, passing)
                .map_err(change_refused)?;
            let row = heard.changed.as_ref().map(|record| Row::put(key::server(from), record));
            Ok((heard, row))
        });
        let heard = decided.await?;
        if heard.is_back {
            log::info!("{} is up with room for {} sensors", heartbeat.name, heartbeat.capacity);
        }
        to_body(&heard.reply)
    }

    async fn change(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let change: ServerChange<'_> = from_body(body)?;
        let decided = self.state.decide(|assignments| {
            let (server, record) =
                assignments.change(change.name, change.change).map_err(change_refused)?;
            Ok(((), Some(Row::put(key::server(server), &record))))
        });
        decided.await?;
        log::info!("an operator changed {}: {:?}", change.name, change.change);
        Ok(Vec::new())
    }

    fn servers(&self) -> Result<Vec<u8>, Failure> {
        let now_ms = clock::monotonic_ms();
        self.state.look(|assignments| {
            let mut body = Vec::new();
            for (id, server) in assignments.servers() {
                body.extend(to_body(&server_view(now_ms, id, server))?);
            }
            Ok(body)
        })
    }

    /// Every sensor that enrolled here or has a server, in order of its id.
    fn assignments(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let request: PageRequest = from_body(body)?;
        let enrolled = self.desk.sensors();
        self.state.look(|assignments| {
            let elsewhere = assignments.places().map(|(sensor, _)| sensor);
            let mut sensors: Vec<SensorId> =
                enrolled.iter().map(|(sensor, _)| *sensor).chain(elsewhere).collect();
            sensors.sort_unstable();
            sensors.dedup();
            let mut items = Vec::new();
            let limit = request.limit.min(FEED_PAGE_MAX) as usize;
            for sensor in sensors.iter().skip(request.offset as usize).take(limit) {
                let found = enrolled.binary_search_by_key(sensor, |(id, _)| *id).ok();
                let enrolled = found.and_then(|at| enrolled.get(at)).map(|(_, record)| record);
                let place = assignments.place(*sensor);
                items.extend(to_body(&AssignmentView {
                    sensor: *sensor,
                    name: enrolled.map_or("", |record| &record.name),
                    server: place.map(|place| place.server),
                    assigned_ms: place.map_or(0, |place| place.assigned_ms),
                    enrolled_ms: enrolled.map_or(0, |record| record.enrolled_ms),
                })?);
            }
            let total = u32::try_from(sensors.len()).unwrap_or(u32::MAX);
            to_body(&Page::<AssignmentView<'_>> { total, items: Items::from_bytes(&items) })
        })
    }

    fn status(&self) -> Result<Vec<u8>, Failure> {
        let failure = self.rows.failure().map(|error| error.to_string());
        self.myself.status(failure.as_deref().unwrap_or_default())
    }
}

impl Service for Registration {
    async fn call(
        &self,
        caller: Caller,
        method: Method,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, Failure> {
        let role = caller.identity.map(|identity| identity.role);
        let sensor = caller.identity.and_then(|identity| identity.sensor());
        let server = caller.identity.and_then(|identity| identity.server());
        match (caller.plane, method) {
            (Plane::Enrol, Method::ENROL) => self.desk.enrol(&body).await,
            (Plane::Sensor, Method::ASSIGN) => match sensor {
                Some(sensor) => self.assign(sensor, &body).await,
                None => Err(forbidden("only a sensor asks for its server")),
            },
            (Plane::Peer, Method::HEARTBEAT) => match (role, server) {
                (Some(Role::Detection), Some(server)) => self.heartbeat(server, &body).await,
                _ => Err(forbidden("only a Detection server sends heartbeats")),
            },
            (Plane::Peer, Method::SERVER_CHANGE) => match role {
                Some(Role::Webapp | Role::Ctl) => self.change(&body).await,
                _ => Err(forbidden("only an operator changes servers, by the WebApp")),
            },
            (Plane::Peer, Method::SERVERS) => self.servers(),
            (Plane::Peer, Method::ASSIGNMENTS) => self.assignments(&body),
            (Plane::Peer, Method::STATUS) => self.status(),
            _ => Err(Failure::new(
                Code::UNSUPPORTED,
                format!("a Registration server has no method {} on this plane", method.0),
            )),
        }
    }
}

fn assignment_body(assignments: &Assignments, decision: &Decision) -> Result<Vec<u8>, Failure> {
    match decision {
        Decision::Kept(id) | Decision::Given { server: id, .. } => {
            let server = assignments.server(*id).ok_or_else(|| {
                Failure::new(Code::INTERNAL, "an assignment names a server that is not known")
            })?;
            to_body(&Assignment {
                server: *id,
                name: &server.record.name,
                address: &server.record.sensor_address,
            })
        }
        Decision::AllFull { retry_after_ms, why } => {
            let problem = match why {
                NoRoom::NoServers => "no Detection server has sent a heartbeat yet",
                NoRoom::NoneUp => "every Detection server is dead or draining",
                NoRoom::Full => "every Detection server is full; raise a capacity or add a server",
            };
            let text = format!("{problem}; ask again in {} s", retry_after_ms / 1_000);
            Err(Failure::new(Code::ALL_FULL, text))
        }
    }
}

fn server_view(now_ms: u64, id: ServerId, server: &Server) -> ServerView<'_> {
    ServerView {
        server: id,
        name: &server.record.name,
        state: server.state(now_ms),
        sensor_address: &server.record.sensor_address,
        console_address: &server.record.console_address,
        malware_address: &server.record.malware_address,
        capacity: server.capacity(),
        sensors: server.heartbeat.sensors,
        assigned: server.assigned,
        load_permille: server.heartbeat.load_permille,
        version: &server.record.version,
        heartbeat_ms: server.heartbeat.unix_ms,
    }
}

fn check_heartbeat(from: ServerId, heartbeat: &Heartbeat<'_>) -> Result<(), Failure> {
    if heartbeat.server != from {
        return Err(forbidden("a heartbeat is of the server that sends it"));
    }
    let is_text = |text: &str| {
        !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
    };
    if !is_text(heartbeat.name) || !is_text(heartbeat.version) {
        let text = "a heartbeat's name and version have 1 to 255 bytes without control characters";
        return Err(Failure::new(Code::BAD_ARGUMENT, text));
    }
    let addresses =
        [heartbeat.sensor_address, heartbeat.console_address, heartbeat.malware_address];
    match addresses.iter().find(|address| address.parse::<SocketAddr>().is_err()) {
        None => Ok(()),
        Some(_) => Err(Failure::new(
            Code::BAD_ARGUMENT,
            "a heartbeat's addresses are each `IP:PORT`; mend the server's configuration",
        )),
    }
}

fn change_refused(why: ChangeRefused) -> Failure {
    let code = match why {
        ChangeRefused::UnknownServer => Code::NOT_FOUND,
        ChangeRefused::TooManyServers => Code::BUSY,
    };
    Failure::new(code, why.to_string())
}

fn forbidden(text: &str) -> Failure {
    Failure::new(Code::FORBIDDEN, text)
}
