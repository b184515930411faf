//! The Registration server: turns a token and a signing request into a certificate, and tells each
//! sensor which Detection server is its own.
//!
//! This crate is the shell: sockets, store, clock, metrics. Who may enrol and who gets which server
//! is decided in `lapwing_server_core::enrolment` and `assignment`; the desk that makes
//! certificates is `lapwing_net::enrolment`.
//!
//! Invariants: no reply before what it says is durable; a sensor is who its certificate says.
#![forbid(unsafe_code)]

mod config;
mod counts;
mod service;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;

use lapwing_net::host::{Clients, Host, HostError};
use lapwing_net::metrics::Health;
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::Shutdown;
use lapwing_net::tls::Plane;
use lapwing_store::RowStore;

pub use config::Config;

use service::Registration;

/// A complete configuration file with a comment above every key.
pub const EXAMPLE: &str = <Config as lapwing_net::config::Config>::EXAMPLE;

/// A Registration server whose addresses are bound and whose store is open.
pub struct Server {
    host: Host,
    registration: Arc<Registration>,
    rows: RowStore,
}

impl Server {
    /// Loads everything that `config` names. Blocks on the disk.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub fn open(
        config: &Config,
        executor: &Executor,
        shutdown: &Shutdown,
    ) -> Result<Self, HostError> {
        let host = Host::open(&config.server, env!("CARGO_PKG_VERSION"), executor, shutdown)?;
        let role = |error: &dyn std::fmt::Display| HostError::Role(error.to_string());
        let rows = host.storage().rows("store").map_err(|error| role(&error))?;
        let registration =
            Registration::open(config, &host, rows.clone()).map_err(|error| role(&error))?;
        Ok(Self { host, registration: Arc::new(registration), rows })
    }

    /// The addresses that are listened on.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.host.addresses()
    }

    /// Serves until the shutdown has begun and connections have drained.
    ///
    /// # Errors
    /// The TLS library refuses.
    pub async fn serve(self) -> Result<(), HostError> {
        let watched = self.host.executor().spawn(Arc::clone(&self.registration).watch());
        let rows = self.rows.clone();
        let health = move || match rows.failure() {
            None => Health::Up,
            Some(error) => Health::Down(error.to_string()),
        };
        let planes = [Plane::Enrol, Plane::Sensor, Plane::Peer];
        let served =
            self.host.serve(&planes, Clients::OfDeployment, self.registration, health).await;
        drop(watched);
        smol::unblock(move || self.rows.close()).await;
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
        smol::unblock(move || Server::open(&config, &executor, &shutdown)).await?
    };
    opened.serve().await
}
