//! Detection and Registration as far as the MalOp service sees them.

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
use lapwing_protocol::console::{ActivityType, Severity};
use lapwing_protocol::element::process;
use lapwing_protocol::feed::{FeedPage, FeedRequest};
use lapwing_protocol::id::{ElementGuid, Incarnation, SensorId, ServerId};
use lapwing_protocol::items::Items;
use lapwing_protocol::registration::{ServerState, ServerView};
use lapwing_server_core::evidence::{Evidence, evidence_id};
use lapwing_server_core::view::OwnedCell;
use serde::Deserialize;

use crate::deployment::Deployment;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    server: lapwing_net::config::Server,
}

impl lapwing_net::config::Config for Config {
    const ROLES: &'static [Role] = &[Role::Detection, Role::Registration];
    const EXAMPLE: &'static str = "";
    fn server(&self) -> &lapwing_net::config::Server {
        &self.server
    }
    fn paths(&mut self) -> Vec<&mut std::path::PathBuf> {
        self.server.paths()
    }
}

/// What a peer answers from.
#[derive(Default)]
pub(crate) struct Known {
    /// Of a Detection service: its feed, each item as sent.
    pub(crate) feed: Vec<Vec<u8>>,
    pub(crate) incarnation: u8,
    /// The cursors it was asked for, in order.
    pub(crate) asked: Vec<u64>,
    /// Of a Registration service.
    pub(crate) servers: Vec<(ServerId, String)>,
}

/// A peer that runs.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) known: Arc<Mutex<Known>>,
    told: smol::channel::Sender<()>,
    trigger: ShutdownTrigger,
    serving: smol::Task<()>,
}

struct Answers {
    known: Arc<Mutex<Known>>,
    myself: Arc<Myself>,
    told: smol::channel::Receiver<()>,
}

impl Peer {
    pub(crate) fn start(
        deployment: &Deployment,
        executor: &Executor,
        (role, id): (Role, u8),
    ) -> Self {
        Self::start_at(deployment, executor, (role, id), "127.0.0.1:0")
    }

    /// A peer at an address that another one had.
    pub(crate) fn start_at(
        deployment: &Deployment,
        executor: &Executor,
        (role, id): (Role, u8),
        address: &str,
    ) -> Self {
        let section = deployment.server_section(role, &format!("{role}{id}"), id);
        let config: Config = deployment.config(&section.replace("127.0.0.1:0", address));
        let (trigger, shutdown) = shutdown::pair();
        let host = Host::open(&config.server, "0.1.0", executor, &shutdown).unwrap();
        let address = host.addresses()[0];
        let known = Arc::new(Mutex::new(Known { incarnation: id, ..Known::default() }));
        let (told, wakes) = smol::channel::unbounded();
        let answers =
            Arc::new(Answers { known: Arc::clone(&known), myself: host.myself(), told: wakes });
        let serving = executor.spawn(async move {
            let planes = [Plane::Peer];
            host.serve(&planes, Clients::OfDeployment, answers, || Health::Up).await.unwrap();
        });
        Self { address, known, told, trigger, serving }
    }

    /// Puts evidence into the feed.
    pub(crate) fn tell(&self, evidences: impl IntoIterator<Item = Evidence>) {
        let items = evidences.into_iter().map(|evidence| evidence.to_bytes());
        self.tell_bytes(items.collect());
    }

    pub(crate) fn tell_bytes(&self, items: Vec<Vec<u8>>) {
        self.known.lock().unwrap().feed.extend(items);
        self.told.try_send(()).unwrap();
    }

    pub(crate) async fn stop(self) {
        self.trigger.begin();
        self.serving.await;
    }
}

impl Service for Answers {
    async fn call(&self, _: Caller, method: Method, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        match method {
            Method::STATUS => self.myself.status(""),
            Method::SERVERS => self.servers(),
            Method::EVIDENCE => {
                let request: FeedRequest = from_body(&body)?;
                let deadline = Instant::now() + Duration::from_millis(request.wait_ms.into());
                let cursor = self.cursor(request);
                self.known.lock().unwrap().asked.push(cursor);
                let arrived = async {
                    while self.known.lock().unwrap().feed.len() as u64 <= cursor {
                        // Closed when the service ends.
                        let _ = self.told.recv().await;
                    }
                };
                let late = async {
                    smol::Timer::at(deadline).await;
                };
                smol::future::or(arrived, late).await;
                self.evidence(request)
            }
            _ => Err(Failure::new(Code::UNSUPPORTED, "not here")),
        }
    }
}

impl Answers {
    fn cursor(&self, request: FeedRequest) -> u64 {
        let incarnation = Incarnation([self.known.lock().unwrap().incarnation; 16]);
        if request.incarnation == Some(incarnation) { request.cursor } else { 0 }
    }

    fn evidence(&self, request: FeedRequest) -> Result<Vec<u8>, Failure> {
        let cursor = self.cursor(request);
        let known = self.known.lock().unwrap();
        let from = known.feed.len().min(cursor as usize);
        let items: Vec<&[u8]> =
            known.feed[from..].iter().take(request.limit as usize).map(Vec::as_slice).collect();
        let next = from + items.len();
        to_body(&FeedPage::<()> {
            incarnation: Incarnation([known.incarnation; 16]),
            next_cursor: next as u64,
            at_end: next == known.feed.len(),
            items: Items::from_bytes(&items.concat()),
        })
    }

    fn servers(&self) -> Result<Vec<u8>, Failure> {
        let mut list = Vec::new();
        for (server, console_address) in &self.known.lock().unwrap().servers {
            list.extend(to_body(&ServerView {
                server: *server,
                name: "listed",
                state: ServerState::Up,
                sensor_address: "127.0.0.1:443",
                console_address,
                malware_address: "127.0.0.1:7075",
                capacity: 10,
                sensors: 0,
                assigned: 0,
                load_permille: 0,
                version: "0.1.0",
                heartbeat_ms: 1,
            })?);
        }
        Ok(list)
    }
}

/// A process number `process` on `machine` that runs a blocked file.
pub(crate) fn blocked(machine: u8, process: u32, cause: &str) -> Evidence {
    let mut element = [machine; 16];
    element[..4].copy_from_slice(&process.to_be_bytes());
    let element = ElementGuid(element);
    Evidence {
        evidence: evidence_id("blocklisted_hash", element, cause),
        rule: "blocklisted_hash".to_owned(),
        title: format!("sleep ({process}) runs a blocklisted file"),
        sensor: SensorId([machine; 16]),
        machine: format!("m{machine}"),
        user: "root".to_owned(),
        element,
        kind: process::KIND,
        label: format!("sleep ({process})"),
        root_cause: cause.to_owned(),
        happened_ms: 1_000_000 + u64::from(process),
        raised_ms: lapwing_net::clock::unix_ms(),
        severity: Severity::High,
        activity: ActivityType::MaliciousInfection,
        suspicious: true,
        techniques: vec!["T1204.002".to_owned()],
        reputation: vec![("verdict".to_owned(), OwnedCell::Text("block".to_owned()))],
        fields: vec![("pid".to_owned(), OwnedCell::U64(process.into()))],
        processes: Vec::new(),
    }
}

/// A behaviour that is no MalOp by itself.
pub(crate) fn suspicion(machine: u8, process: u32) -> Evidence {
    let evidence = blocked(machine, process, "hash:5e");
    Evidence {
        evidence: evidence_id("server_shell", evidence.element, ""),
        rule: "server_shell".to_owned(),
        severity: Severity::Medium,
        reputation: Vec::new(),
        ..evidence
    }
}
