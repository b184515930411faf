//! A Detection server as far as sensor management sees one: sensors, commands, outcomes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lapwing_net::host::{Clients, Host, Myself};
use lapwing_net::identity::Role;
use lapwing_net::metrics::Health;
use lapwing_net::peer::{Caller, Failure, Service, from_body, to_body};
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::{self, ShutdownTrigger};
use lapwing_net::tls::Plane;
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::command::Outcome;
use lapwing_protocol::console::{CommandPut, OutcomeView, SensorView};
use lapwing_protocol::feed::{FeedPage, FeedRequest};
use lapwing_protocol::hello::Memory;
use lapwing_protocol::id::{Incarnation, SensorId};
use lapwing_protocol::items::Items;
use serde::Deserialize;

use crate::deployment::Deployment;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    server: lapwing_net::config::Server,
}

impl lapwing_net::config::Config for Config {
    const ROLES: &'static [Role] = &[Role::Detection];
    const EXAMPLE: &'static str = "";
    fn server(&self) -> &lapwing_net::config::Server {
        &self.server
    }
    fn paths(&mut self) -> Vec<&mut std::path::PathBuf> {
        self.server.paths()
    }
}

/// What the service knows and was told.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) sensors: Vec<SensorId>,
    pub(crate) commands: Vec<CommandPut>,
    pub(crate) outcomes: Vec<(CommandPut, Outcome)>,
    /// What the next commands are refused with.
    pub(crate) refuse: Option<Code>,
}

pub(crate) struct Detection {
    pub(crate) address: SocketAddr,
    pub(crate) known: Arc<Mutex<Known>>,
    carried_out: smol::channel::Sender<()>,
    _trigger: ShutdownTrigger,
    _serving: smol::Task<()>,
}

struct Console {
    known: Arc<Mutex<Known>>,
    myself: Arc<Myself>,
    carried_out: smol::channel::Receiver<()>,
}

impl Detection {
    pub(crate) fn start(deployment: &Deployment, executor: &Executor, id: u8) -> Self {
        let name = format!("d{id}");
        let section = deployment.server_section(Role::Detection, &name, id);
        let config: Config = deployment.config(&section);
        let (trigger, shutdown) = shutdown::pair();
        let host = Host::open(&config.server, "0.1.0", executor, &shutdown).unwrap();
        let address = host.addresses()[0];
        let known = Arc::new(Mutex::new(Known::default()));
        let (carried_out, told) = smol::channel::unbounded();
        let console =
            Console { known: Arc::clone(&known), myself: host.myself(), carried_out: told };
        let serving = executor.spawn(async move {
            let clients = Clients::OfDeployment;
            host.serve(&[Plane::Peer], clients, Arc::new(console), || Health::Up).await.unwrap();
        });
        Self { address, known, carried_out, _trigger: trigger, _serving: serving }
    }

    /// Gives every command that has none an outcome.
    pub(crate) fn carry_out(&self, outcome: Outcome) {
        let mut known = self.known.lock().unwrap();
        let done = known.outcomes.len();
        let outcomes: Vec<_> =
            known.commands.iter().skip(done).map(|command| (*command, outcome)).collect();
        known.outcomes.extend(outcomes);
        self.carried_out.try_send(()).unwrap();
    }
}

impl Service for Console {
    async fn call(&self, _: Caller, method: Method, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        match method {
            Method::STATUS => self.myself.status(""),
            Method::SENSORS => self.sensors(),
            Method::COMMAND => self.command(&body),
            Method::OUTCOMES => {
                let request: FeedRequest = from_body(&body)?;
                let deadline = Instant::now() + Duration::from_millis(request.wait_ms.into());
                let arrived = async {
                    while self.known.lock().unwrap().outcomes.len() as u64 <= request.cursor {
                        if self.carried_out.recv().await.is_err() {
                            return std::future::pending().await; // The test is over.
                        }
                    }
                };
                let late = async {
                    smol::Timer::at(deadline).await;
                };
                smol::future::or(arrived, late).await;
                self.outcomes(request)
            }
            _ => Err(Failure::new(Code::UNSUPPORTED, "not here")),
        }
    }
}

impl Console {
    fn sensors(&self) -> Result<Vec<u8>, Failure> {
        let known = self.known.lock().unwrap();
        let mut list = Vec::new();
        for sensor in &known.sensors {
            list.extend(to_body(&SensorView {
                sensor: *sensor,
                name: "machine",
                os: "Linux",
                agent: "lapwing-sensor 0.1.0",
                connected: true,
                session_epoch: 1,
                peer_address: "127.0.0.1:5",
                last_seen_ms: lapwing_net::clock::unix_ms(),
                first_seen_ms: 1,
                collecting: true,
                memory: Memory::Disk,
                rows: 0,
                divergent: false,
                health: Items::EMPTY,
                heads: Items::EMPTY,
                last_command: None,
            })?);
        }
        Ok(list)
    }

    fn command(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let put: CommandPut = from_body(body)?;
        let mut known = self.known.lock().unwrap();
        if let Some(code) = known.refuse {
            return Err(Failure::new(code, "as the test wants"));
        }
        known.commands.push(put);
        Ok(Vec::new())
    }

    fn outcomes(&self, request: FeedRequest) -> Result<Vec<u8>, Failure> {
        let known = self.known.lock().unwrap();
        let mut items = Vec::new();
        for (command, outcome) in known.outcomes.iter().skip(request.cursor as usize) {
            items.extend(to_body(&OutcomeView {
                sensor: command.sensor,
                number: command.number,
                outcome: *outcome,
                detail: "as the test wants",
                received_ms: 5,
            })?);
        }
        to_body(&FeedPage::<OutcomeView<'_>> {
            incarnation: Incarnation([4; 16]),
            next_cursor: known.outcomes.len() as u64,
            at_end: true,
            items: Items::from_bytes(&items),
        })
    }
}
