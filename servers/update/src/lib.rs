//! The Update server: hosts what the vendor signed, for whoever asks. It deploys nothing and sends
//! nothing unasked.
//!
//! [`vendor`] is the other side of the signature: it makes the key and signs manifests, on the
//! vendor's machine (or at the first `lapwing up`), never in a serving process.
//!
//! Not here: what a manifest is and when it is believed (`lapwing_server_core::manifest`).
//! Invariants: only files that a believed manifest names can be read; the bytes that were signed
//! are served as they are.
#![forbid(unsafe_code)]

mod config;
pub mod limits;
mod repository;
mod service;
pub mod vendor;

use std::net::SocketAddr;
use std::sync::Arc;

use lapwing_net::clock;
use lapwing_net::host::{Clients, Host, HostError};
use lapwing_net::metrics::Health;
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::Shutdown;
use lapwing_net::tls::Plane;

pub use config::{Config, RepositoryConfig};
pub use repository::RepositoryError;

use repository::Repository;
use service::Updates;

/// A complete configuration file with a comment above every key.
pub const EXAMPLE: &str = <Config as lapwing_net::config::Config>::EXAMPLE;

/// An Update server whose addresses are bound and whose manifest is good.
pub struct Server {
    host: Host,
    updates: Arc<Updates>,
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
        let role = |error: RepositoryError| HostError::Role(error.to_string());
        let repository = Repository::open(&config.repository).map_err(role)?;
        repository.refresh(clock::unix_ms()).map_err(role)?;
        let updates = Arc::new(Updates::new(repository, &host));
        Ok(Self { host, updates })
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
        let updates = Arc::clone(&self.updates);
        let health = move || match updates.trouble() {
            trouble if trouble.is_empty() => Health::Up,
            trouble => Health::Down(trouble),
        };
        self.host.serve(&[Plane::Peer], Clients::OfAnyDeployment, self.updates, health).await
    }
}

/// Opens the server and serves until the shutdown has begun.
///
/// # Errors
/// What is wrong, and what to do about it.
pub async fn run(config: Config, executor: Executor, shutdown: Shutdown) -> Result<(), HostError> {
    smol::unblock(move || Server::open(&config, &executor, &shutdown)).await?.serve().await
}
