//! Asset tagging: what an organisation says of its machines.
//!
//! Not here: what a tag may be (`lapwing_server_core::tags`). Invariant: a tag is durable, with its
//! audit, before its setter hears of it.

mod config;
mod service;

use std::net::SocketAddr;
use std::sync::Arc;

use lapwing_net::host::{Clients, Host, HostError};
use lapwing_net::metrics::Health;
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::Shutdown;
use lapwing_net::tls::Plane;
use lapwing_store::RowStore;

pub use config::Config;

use service::Tagging;

/// A complete configuration file with a comment above every key.
pub const EXAMPLE: &str = <Config as lapwing_net::config::Config>::EXAMPLE;

/// A tagging service whose addresses are bound and whose store is open.
pub struct Server {
    host: Host,
    tagging: Arc<Tagging>,
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
        let tagging = Tagging::open(&host, rows.clone()).map_err(HostError::Role)?;
        Ok(Self { host, tagging: Arc::new(tagging), rows })
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
        let rows = self.rows.clone();
        let health = move || match rows.failure() {
            None => Health::Up,
            Some(error) => Health::Down(error.to_string()),
        };
        let served =
            self.host.serve(&[Plane::Peer], Clients::OfDeployment, self.tagging, health).await;
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
