//! The Threat Intel servers: what is known of hashes, addresses and domains.
//!
//! A Private server answers from the organisation's own list; only where that has no opinion does
//! it ask Global, whose word it keeps. A Global server answers from its list. Both are this one
//! crate; `server.role` in the configuration says which.
//!
//! Not here: what counts as definitive, what is kept and for how long; that is
//! `lapwing_server_core::reputation`. Invariants: an entry is durable before its reply; a change of
//! an opinion is in the feed of changes, durably, in the same batch.
#![forbid(unsafe_code)]

mod book;
mod config;
mod counts;
mod file;
mod global;
mod service;

use std::net::SocketAddr;
use std::sync::Arc;

use lapwing_net::host::{Clients, Host, HostError};
use lapwing_net::identity::Role;
use lapwing_net::metrics::Health;
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::Shutdown;
use lapwing_net::tls::Plane;
use lapwing_store::RowStore;

pub use config::{Config, Global, List};

/// What a restored server makes anew, by store and key, so that whoever follows it notices.
pub const MADE_ANEW: &[(&str, &[u8])] = &[("store", book::INCARNATION)];

use service::Intel;

/// A complete configuration file with a comment above every key.
pub const EXAMPLE: &str = <Config as lapwing_net::config::Config>::EXAMPLE;

/// A Threat Intel server whose addresses are bound and whose store is open.
pub struct Server {
    host: Host,
    intel: Arc<Intel>,
    rows: RowStore,
    clients: Clients,
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
        let intel = Intel::open(config, &host, rows.clone()).map_err(HostError::Role)?;
        let clients = match config.server.role {
            Role::IntelGlobal => Clients::OfAnyDeployment,
            _ => Clients::OfDeployment,
        };
        Ok(Self { host, intel: Arc::new(intel), rows, clients })
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
        let expiring = self.host.executor().spawn(Arc::clone(&self.intel).expire());
        let rows = self.rows.clone();
        let health = move || match rows.failure() {
            None => Health::Up,
            Some(error) => Health::Down(error.to_string()),
        };
        let served = self.host.serve(&[Plane::Peer], self.clients, self.intel, health).await;
        drop(expiring);
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
