//! Fleet management (sensor management): all sensors over all Detection servers, and the commands
//! that operators order. It is the one issuer of commands.
//!
//! Not here: status, numbers, order, expiry (`lapwing_server_core::fleet`). Invariants: an order is
//! durable before its reply and before any command of it is sent; a page of outcomes is stored with
//! the cursor behind it in one batch.

mod config;
mod counts;
mod directory;
mod follow;
mod put;
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

pub use config::{Config, DetectionPeer, Peers};

/// What a restored server makes anew, by store and key, so that whoever follows it notices.
pub const MADE_ANEW: &[(&str, &[u8])] =
    &[("store", lapwing_server_core::fleet::record::key::ISSUER)];

use directory::Directory;
use service::Desk;
use state::State;

/// A complete configuration file with a comment above every key.
pub const EXAMPLE: &str = <Config as lapwing_net::config::Config>::EXAMPLE;

/// Sensor management whose addresses are bound and whose store is open.
pub struct Server {
    host: Host,
    state: Arc<State>,
    directory: Directory,
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
        let rows = host.storage().rows("store");
        let rows = rows.map_err(|error| HostError::Role(error.to_string()))?;
        let state = State::open(rows.clone(), host.metrics()).map_err(HostError::Role)?;
        let state = Arc::new(state);
        let directory = Directory::new(&config.peers, &host, &state)?;
        Ok(Self { host, state, directory, rows })
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
        let executor = Arc::clone(self.host.executor());
        let following = executor.spawn(self.directory.run());
        let putting = executor.spawn(put::run(Arc::clone(&executor), Arc::clone(&self.state)));
        let service = Arc::new(Desk::new(Arc::clone(&self.state), self.host.myself()));
        let rows = self.rows.clone();
        let health = move || match rows.failure() {
            None => Health::Up,
            Some(error) => Health::Down(error.to_string()),
        };
        let served = self.host.serve(&[Plane::Peer], Clients::OfDeployment, service, health).await;
        drop((following, putting));
        smol::unblock(move || self.rows.close()).await;
        served
    }
}

/// Opens the service and serves until the shutdown has begun.
///
/// # Errors
/// What is wrong, and what to do about it.
pub async fn run(config: Config, executor: Executor, shutdown: Shutdown) -> Result<(), HostError> {
    smol::unblock(move || Server::open(&config, &executor, &shutdown)).await?.serve().await
}
