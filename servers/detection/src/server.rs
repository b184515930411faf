//! Puts the server together: stores, ports, tasks; and takes it down in order.
//!
//! Not here: what any part does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use event_listener::Event;
use lapwing_net::clock;
use lapwing_net::host::{Clients, Host, HostError, PlaneHandler, Port};
use lapwing_net::identity::Role;
use lapwing_net::metrics::Health;
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::Shutdown;
use lapwing_net::tls::Plane;
use lapwing_protocol::id::Incarnation;
use lapwing_server_core::delivery::Offerings;
use lapwing_store::journal::{self, DirectoryPartitions, JournalOptions};
use lapwing_store::{DiskOptions, RowStore};

use crate::commands::Commands;
use crate::config::Config;
use crate::events::Exporter;
use crate::heartbeat::Beat;
use crate::metrics::SessionMetrics;
use crate::roster::Roster;
use crate::sessions::{RECEIVE_BYTES, Sessions};

/// Runs a Detection server until the shutdown begins.
///
/// # Errors
/// A store, address or certificate cannot be used; the error says which and what to do.
pub async fn run(config: Config, executor: Executor, shutdown: Shutdown) -> Result<(), HostError> {
    let mut host = Host::open(&config.server, env!("CARGO_PKG_VERSION"), &executor, &shutdown)?;
    let server = Arc::new(Server::open(config, &host)?);
    server.start(&host)?;
    let ports = server.ports(&mut host)?;
    let health = {
        let journal = Arc::clone(&server.journal);
        move || match journal.failure() {
            None => Health::Up,
            Some(error) => Health::Down(error.to_string()),
        }
    };
    host.serve_ports(ports, Clients::OfDeployment, health).await?;
    smol::unblock(move || server.close()).await;
    Ok(())
}

/// A Detection server.
struct Server {
    config: Config,
    journal: Arc<journal::Journal>,
    state: RowStore,
    sessions: Arc<Sessions>,
    exporter: Arc<Exporter>,
    draining: Arc<AtomicBool>,
}

impl Server {
    fn open(config: Config, host: &Host) -> Result<Self, HostError> {
        let server = host.myself().server();
        if server != config.detection.id {
            return Err(HostError::Role(format!(
                "detection.id: the certificate is of server {server}; write that id, or name the \
                 certificate that was made for this one"
            )));
        }
        let journal = open_journal(&config)?;
        let state = RowStore::open(&config.server.data_dir.join("state")).map_err(role)?;
        let owner = (config.server.deployment, server);
        let roster = Arc::new(Roster::load(owner, &journal, &state).map_err(role)?);
        let commands = Arc::new(Commands::load(state.clone()).map_err(role)?);
        let (deployment, rows_max) = (config.server.deployment, config.detection.rows_max);
        let exporter =
            Exporter::new(Arc::clone(&journal), Arc::clone(&roster), deployment, rows_max);
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
            changed: Event::new(),
        };
        Ok(Self {
            config,
            journal,
            state,
            sessions: Arc::new(sessions),
            exporter: Arc::new(exporter),
            draining: Arc::default(),
        })
    }

    /// Starts the tasks.
    fn start(&self, host: &Host) -> Result<(), HostError> {
        let peers = &self.config.peers;
        if !peers.registration.is_empty() {
            let addresses = peers.registration.clone();
            let registration = host.client("registration", Role::Registration, addresses)?;
            let beat = self.beat(host);
            host.executor().spawn(async move { beat.run(registration).await }).detach();
        }
        Ok(())
    }

    fn beat(&self, host: &Host) -> Beat {
        let first = host.addresses().first().copied();
        let console_address = self.config.detection.console_listen;
        Beat {
            server: self.config.detection.id,
            name: self.config.server.name.clone(),
            sensor_address: self.config.detection.advertise.or(first).unwrap_or(console_address),
            console_address,
            malware_address: self.config.detection.malware_listen,
            capacity: Arc::clone(&self.sessions.capacity),
            draining: Arc::clone(&self.draining),
            incarnation: Incarnation(self.journal.incarnation()),
            roster: Arc::clone(&self.sessions.roster),
        }
    }

    /// What is served on which port.
    fn ports(&self, host: &mut Host) -> Result<Vec<Port>, HostError> {
        let sessions = Arc::clone(&self.sessions);
        let sensors: PlaneHandler = Arc::new(move |connection| {
            let sessions = Arc::clone(&sessions);
            Box::pin(async move { sessions.serve(connection).await })
        });
        let port = |listener| Port {
            listener,
            planes: vec![Plane::Sensor],
            handler: Arc::clone(&sensors),
        };
        let ports = host.take_listeners().into_iter().map(port).collect();
        Ok(ports)
    }

    fn close(&self) {
        self.journal.close();
        self.state.close();
    }
}

fn role(error: impl std::fmt::Display) -> HostError {
    HostError::Role(error.to_string())
}

fn open_journal(config: &Config) -> Result<Arc<journal::Journal>, HostError> {
    let folder = config.server.data_dir.join("journal");
    let mut fresh = [0; 16];
    getrandom::fill(&mut fresh).map_err(role)?;
    let mut options = JournalOptions::new(journal::Incarnation::Keep(fresh), clock::unix_ms());
    options.partition_bytes_max = config.journal.partition.0;
    let partitions = DirectoryPartitions::new(&folder, DiskOptions::default());
    journal::Journal::open(Arc::new(partitions), &options).map(Arc::new).map_err(role)
}
