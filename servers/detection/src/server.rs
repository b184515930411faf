//! Puts the server together: stores, ports, tasks; and takes it down in order.
//!
//! Not here: what any part does.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use event_listener::Event;
use lapwing_net::clock;
use lapwing_net::enrolment::Desk;
use lapwing_net::host::{Clients, Host, HostError, PlaneHandler, Port};
use lapwing_net::identity::Role;
use lapwing_net::listener::Listener;
use lapwing_net::metrics::Health;
use lapwing_net::peer::{self, Caller, Failure, Service};
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::Shutdown;
use lapwing_net::tls::Plane;
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::id::{Incarnation, ServerId};
use lapwing_server_core::delivery::Offerings;
use lapwing_store::RowStore;
use lapwing_store::journal::{self, JournalOptions};

use smol::Task;

use crate::analyst::{Analyst, Ask, CURSOR_KEY, Knowledge, Watcher};
use crate::backup;
use crate::commands::Commands;
use crate::config::Config;
use crate::console::Console;
use crate::damage::Damages;
use crate::events::Exporter;
use crate::follow::Decoders;
use crate::heartbeat::Beat;
use crate::ledger::{self, Book, Scanner};
use crate::limits::{RECEIVE_BYTES, SessionLimits};
use crate::malware::Malware;
use crate::mark::{self, Mark};
use crate::metrics::{SessionMetrics, ShareMetrics};
use crate::places::Places;
use crate::retention;
use crate::roster::Roster;
use crate::sessions::Sessions;
use crate::sharing::Sharing;
use crate::sources::Inside;
use crate::watch::Findings;

/// A Detection server whose addresses are bound and whose stores are open.
pub struct Server {
    host: Host,
    parts: Arc<Parts>,
    ports: Vec<Port>,
    addresses: Addresses,
    analyst: Analyst,
}

/// The addresses that are listened on, with their real ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Where sensors connect.
    pub sensors: Vec<SocketAddr>,
    /// Where other servers ask.
    pub console: SocketAddr,
    /// Where malware alerts are read.
    pub malware: SocketAddr,
}

impl Server {
    /// Loads everything that `config` names. Blocks on the disk.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub fn open(
        config: Config,
        executor: &Executor,
        shutdown: &Shutdown,
    ) -> Result<Self, HostError> {
        let in_flight_bytes_max = config.detection.in_flight_max.0;
        let limits = SessionLimits { in_flight_bytes_max, ..SessionLimits::default() };
        Self::open_within(config, limits, executor, shutdown)
    }

    /// As [`Self::open`], with other bounds of the sensors' sessions than the usual ones.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub fn open_within(
        config: Config,
        limits: SessionLimits,
        executor: &Executor,
        shutdown: &Shutdown,
    ) -> Result<Self, HostError> {
        let mut host = Host::open(&config.server, env!("CARGO_PKG_VERSION"), executor, shutdown)?;
        let parts = Arc::new(Parts::open(config, limits, &host)?);
        let analyst = parts.analyst(&host)?;
        let (ports, addresses) = parts.ports(&mut host, &analyst.knowledge())?;
        Ok(Self { host, parts, ports, addresses, analyst })
    }

    /// The addresses that are listened on.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Serves until the shutdown has begun and connections have drained.
    ///
    /// # Errors
    /// The TLS library refuses.
    pub async fn serve(self) -> Result<(), HostError> {
        let Self { host, parts, ports, addresses, analyst } = self;
        let keeping = parts.start(&host, &addresses, analyst)?;
        let health = {
            let parts = Arc::clone(&parts);
            move || parts.health()
        };
        let served = host.serve_ports(ports, Clients::OfDeployment, health).await;
        keeping.cancel().await;
        if let Err(error) = parts.inside.book.save().await {
            log::info!("the ledger's accounts are not saved ({error}); they are counted again");
        }
        smol::unblock(move || parts.close()).await;
        served
    }
}

/// Opens the server and serves until the shutdown has begun.
///
/// # Errors
/// What is wrong, and what to do about it.
pub async fn run(config: Config, executor: Executor, shutdown: Shutdown) -> Result<(), HostError> {
    let opened = {
        let (executor, shutdown) = (Arc::clone(&executor), shutdown.clone());
        smol::unblock(move || Server::open(config, &executor, &shutdown)).await?
    };
    opened.serve().await
}

/// What a Detection server consists of.
struct Parts {
    config: Config,
    journal: Arc<journal::Journal>,
    state: RowStore,
    sessions: Arc<Sessions>,
    inside: Arc<Inside>,
    desk: Option<Arc<EnrolmentDesk>>,
    draining: Arc<AtomicBool>,
    mark: Arc<Mark>,
    /// Why the analyst ended, if it did.
    stopped: Arc<Mutex<Option<String>>>,
}

/// Enrols sensors where there is no Registration server.
struct EnrolmentDesk(Desk<RowStore>);

impl Service for EnrolmentDesk {
    async fn call(&self, _: Caller, method: Method, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        match method {
            Method::ENROL => self.0.enrol(&body).await,
            _ => Err(Failure::new(Code::UNSUPPORTED, "on this plane sensors enrol, and no more")),
        }
    }
}

impl Parts {
    fn open(config: Config, limits: SessionLimits, host: &Host) -> Result<Self, HostError> {
        let server = own_id(&config, host)?;
        let state = host.storage().rows("state").map_err(role)?;
        let (journal, mark) = open_journal(&config, host, &state)?;
        let owner = (config.server.deployment, server);
        let roster = Arc::new(Roster::load(owner, &journal, &state).map_err(role)?);
        if host.storage().is_backed_up() {
            backup::protect(host.storage(), &journal, &roster);
        }
        let commands = Arc::new(Commands::load(state.clone()).map_err(role)?);
        let (deployment, rows_max) = (config.server.deployment, config.detection.rows_max);
        let exporter =
            Exporter::new(Arc::clone(&journal), Arc::clone(&roster), deployment, rows_max);
        let sharing = shared_budget(limits, host, &roster);
        let sessions = Sessions {
            roster,
            journal: Arc::clone(&journal),
            state: state.clone(),
            commands,
            offerings: Offerings {
                server,
                name: config.server.name.clone(),
                receive_bytes_max: RECEIVE_BYTES as u32,
                rows_max,
            },
            capacity: Arc::new(AtomicU32::new(config.detection.capacity)),
            // Higher than any before: each opening of the journal raises its boot counter.
            epochs: AtomicU64::new(journal.boots() << 32),
            metrics: SessionMetrics::registered(host.metrics()),
            ack_hold: crate::fault::AckHold::new(&config.server.name),
            sharing,
            places: Places::default(),
            limits,
            changed: Event::new(),
            reported: Event::new(),
            findings: findings(&config, &state),
        };
        let sessions = Arc::new(sessions);
        let desk = open_desk(&config, host)?;
        let book = Arc::new(Book::open(state.clone()).map_err(role)?);
        let scanner = Scanner {
            deployment,
            rows_max,
            journal: Arc::clone(&journal),
            book: Arc::clone(&book),
            roster: Arc::clone(&sessions.roster),
            last: Mutex::default(),
        };
        let inside = Inside {
            myself: host.myself(),
            journal: Arc::clone(&journal),
            sessions: Arc::clone(&sessions),
            exporter: Arc::new(exporter),
            book,
            scanner: Arc::new(scanner),
            damages: Damages::open(&state, &host.myself().notice, host.metrics()).map_err(role)?,
        };
        Ok(Self {
            config,
            journal,
            state,
            sessions,
            inside: Arc::new(inside),
            desk,
            draining: Arc::default(),
            mark,
            stopped: Arc::default(),
        })
    }

    fn analyst(&self, host: &Host) -> Result<Analyst, HostError> {
        let intel = match self.config.peers.intel.as_slice() {
            [] => None,
            addresses => {
                let client = host.client("intel", Role::IntelPrivate, addresses.to_vec())?;
                Some(Arc::new(client) as Arc<dyn Ask>)
            }
        };
        let watcher = Arc::clone(&self.inside) as Arc<dyn Watcher>;
        let mut chance = [0; 8];
        getrandom::fill(&mut chance).map_err(role)?;
        let executor = Arc::clone(host.executor());
        let hash_key = u64::from_le_bytes(chance);
        let mut analyst =
            Analyst::open(executor, self.state.clone(), intel, watcher, hash_key).map_err(role)?;
        // Before any sensor is served: what they add hides where the journal ended.
        // What it says of entries that are gone was said, and written down, when it was opened.
        let _ = analyst.compare(&self.journal).map_err(role)?;
        // Parts are made once, and so is their analyst.
        let _ = self.sessions.findings.teller.set(analyst.teller());
        Ok(analyst.registered(host.metrics()))
    }

    /// Starts the tasks; the one that is given back ends when it is dropped.
    fn start(
        &self,
        host: &Host,
        addresses: &Addresses,
        analyst: Analyst,
    ) -> Result<Task<()>, HostError> {
        let peers = &self.config.peers;
        if !peers.registration.is_empty() {
            let at = peers.registration.clone();
            let registration = host.client("registration", Role::Registration, at)?;
            let beat = self.beat(addresses);
            host.executor().spawn(async move { beat.run(registration).await }).detach();
        }
        let (journal, roster) = (Arc::clone(&self.journal), Arc::clone(&self.sessions.roster));
        let book = Arc::clone(&self.inside.book);
        let keeping = retention::run(journal, roster, book, self.config.journal.keep.0);
        let book = Arc::clone(&self.inside.book);
        let protecting = backup::run(
            Arc::clone(host.storage()),
            Arc::clone(&self.journal),
            Arc::clone(&self.sessions.roster),
        );
        let (mark, marked) = (Arc::clone(&self.mark), Arc::clone(&self.journal));
        let keeping = async move {
            let protecting = smol::future::or(keeping, protecting);
            let counting = smol::future::or(ledger::keep(&book), mark::keep(mark, marked));
            smol::future::or(protecting, counting).await;
        };
        let keeping = host.executor().spawn(keeping);
        let decoders = Decoders::new(self.config.server.deployment, self.config.detection.rows_max);
        let analysing = analyst.run(Arc::clone(&self.journal), decoders, host.shutdown().clone());
        let (inside, journal) = (Arc::clone(&self.inside), Arc::clone(&self.journal));
        host.executor().spawn(smol::unblock(move || inside.damages.look_again(&journal))).detach();
        let (sharing, shutdown) = (Arc::clone(&self.sessions.sharing), host.shutdown().clone());
        host.executor().spawn(async move { sharing.run(shutdown).await }).detach();
        let (stopped, notice) = (Arc::clone(&self.stopped), host.myself().notice.clone());
        let task = async move {
            if let Err(error) = analysing.await {
                let trouble = format!("{error}; facts are still taken and stored, but not judged");
                log::error!("{trouble}");
                notice.set("analyst", Some(trouble));
                *stopped.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            }
        };
        host.executor().spawn(task).detach();
        Ok(keeping)
    }

    fn health(&self) -> Health {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let failure = self.journal.failure().map(|error| error.to_string());
        failure.or(stopped).map_or(Health::Up, Health::Down)
    }

    fn beat(&self, addresses: &Addresses) -> Beat {
        let first = addresses.sensors.first().copied();
        Beat {
            server: self.config.detection.id,
            name: self.config.server.name.clone(),
            sensor_address: self.config.detection.advertise.or(first).unwrap_or(addresses.console),
            console_address: addresses.console,
            malware_address: addresses.malware,
            capacity: Arc::clone(&self.sessions.capacity),
            draining: Arc::clone(&self.draining),
            incarnation: Incarnation(self.journal.incarnation()),
            roster: Arc::clone(&self.sessions.roster),
        }
    }

    /// What is served on which port.
    fn ports(
        &self,
        host: &mut Host,
        knowledge: &Arc<Knowledge>,
    ) -> Result<(Vec<Port>, Addresses), HostError> {
        let sensors_at = host.addresses();
        let desk = self.desk.clone();
        let executor = Arc::clone(host.executor());
        let sessions = Arc::clone(&self.sessions);
        let sensors: PlaneHandler = Arc::new(move |connection| match (connection.plane, &desk) {
            (Plane::Enrol, Some(desk)) => {
                let (executor, desk) = (Arc::clone(&executor), Arc::clone(desk));
                Box::pin(peer::serve(executor, connection, desk))
            }
            _ => {
                let sessions = Arc::clone(&sessions);
                Box::pin(async move { sessions.serve(connection).await })
            }
        });
        let planes = match self.desk {
            Some(_) => vec![Plane::Sensor, Plane::Enrol],
            None => vec![Plane::Sensor],
        };
        let port =
            |listener| Port { listener, planes: planes.clone(), handler: Arc::clone(&sensors) };
        let mut ports: Vec<Port> = host.take_listeners().into_iter().map(port).collect();
        let console = Console::new(Arc::clone(knowledge), Arc::clone(&self.inside) as _);
        let malware = Malware(Arc::clone(knowledge));
        let detection = &self.config.detection;
        let console = peer_port(host, detection.console_listen, console)?;
        let malware = peer_port(host, detection.malware_listen, malware)?;
        let addresses = Addresses {
            sensors: sensors_at,
            console: console.listener.address(),
            malware: malware.listener.address(),
        };
        ports.extend([console, malware]);
        Ok((ports, addresses))
    }

    fn close(&self) {
        self.journal.close();
        self.mark.write(&self.journal);
        self.state.close();
    }
}

/// The id that the certificate says, which is the one that the configuration says.
fn own_id(config: &Config, host: &Host) -> Result<ServerId, HostError> {
    let server = host.myself().server();
    if server == config.detection.id {
        return Ok(server);
    }
    Err(HostError::Role(format!(
        "detection.id: the certificate is of server {server}; write that id, or name the \
         certificate that was made for this one"
    )))
}

fn shared_budget(limits: SessionLimits, host: &Host, roster: &Arc<Roster>) -> Arc<Sharing> {
    let metrics = ShareMetrics::registered(host.metrics());
    let gauge = host.storage().gauge();
    Arc::new(Sharing::new(limits.in_flight_bytes_max, gauge, Arc::clone(roster), metrics))
}

fn findings(config: &Config, state: &RowStore) -> Arc<Findings> {
    Arc::new(Findings {
        deployment: config.server.deployment,
        server_name: config.server.name.clone(),
        state: state.clone(),
        teller: OnceLock::new(),
    })
}

fn open_desk(config: &Config, host: &Host) -> Result<Option<Arc<EnrolmentDesk>>, HostError> {
    let Some(enrolment) = &config.enrolment else { return Ok(None) };
    let keeper = host.storage().rows("enrolment").map_err(role)?;
    let desk = Desk::open(config.server.deployment, enrolment, keeper, host.metrics());
    desk.map(|desk| Some(Arc::new(EnrolmentDesk(desk)))).map_err(role)
}

fn peer_port<S: Service>(host: &Host, address: SocketAddr, service: S) -> Result<Port, HostError> {
    let (executor, service) = (Arc::clone(host.executor()), host.stored(Arc::new(service)));
    let handler: PlaneHandler = Arc::new(move |connection| {
        Box::pin(peer::serve(Arc::clone(&executor), connection, Arc::clone(&service)))
    });
    let listener = Listener::bind(address).map_err(HostError::Bind)?;
    Ok(Port { listener, planes: vec![Plane::Peer], handler })
}

fn role(error: impl std::fmt::Display) -> HostError {
    HostError::Role(error.to_string())
}

/// Opens the journal. One that ends before what is known to be stored gets a new life, once that is
/// written down.
fn open_journal(
    config: &Config,
    host: &Host,
    state: &RowStore,
) -> Result<(Arc<journal::Journal>, Arc<Mark>), HostError> {
    let mut fresh = [0; 16];
    getrandom::fill(&mut fresh).map_err(role)?;
    let mut options = JournalOptions::new(journal::Incarnation::Keep(fresh), clock::unix_ms());
    options.partition_bytes_max = config.journal.partition.0;
    let mark = Mark::open(host.storage().folder(), &host.myself().notice);
    let number = |key: &[u8]| -> Result<u64, HostError> {
        let value = state.get(key).map_err(role)?;
        Ok(value.and_then(|bytes| from_bytes(&bytes).ok()).unwrap_or(0))
    };
    let judged = number(CURSOR_KEY)?.saturating_sub(1);
    let known = mark.known().max(judged).max(number(ledger::COUNTED_KEY)?);
    let mut written = Ok(());
    let journal = host.storage().journal(backup::JOURNAL, &options, |journal| {
        let is_whole = journal.durable() >= known;
        if !is_whole {
            written = mark.write_loss(journal.durable(), known);
        }
        is_whole || written.is_err()
    });
    let journal = journal.map_err(role)?;
    // Not served on without that: the next start would not know of it.
    written.map_err(role)?;
    mark.write(&journal);
    mark.say();
    Ok((journal, Arc::new(mark)))
}
