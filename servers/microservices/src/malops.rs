//! MalOp decision-making: reads the evidence of every Detection server, makes MalOps of it, and
//! keeps what people do with them.
//!
//! Not here: what makes a MalOp (`lapwing_server_core::malop`). `docs/malops.md` says what is
//! decided, and how nothing is lost or counted twice.
//!
//! Invariants: how far a feed was read is stored in one batch with what was read; what is shown or
//! told is durable.

mod config;
mod counts;
mod directory;
mod follow;
mod limits;
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

/// What a restored server makes anew, by store and key, so that whoever follows it notices.
pub const MADE_ANEW: &[(&str, &[u8])] = &[("store", state::INCARNATION)];

use directory::Directory;
use service::Desk;
use state::State;

/// A complete configuration file with a comment above every key.
pub const EXAMPLE: &str = <Config as lapwing_net::config::Config>::EXAMPLE;

/// A MalOp service whose addresses are bound and whose store is open.
pub struct Server {
    host: Host,
    desk: Arc<Desk>,
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
        let state = State::open(config.malops.limits(), rows.clone(), host.metrics())
            .map_err(HostError::Role)?;
        let state = Arc::new(state);
        let directory = Directory::new(&config.peers, &host, &state)?;
        let desk = Arc::new(Desk::new(state, host.myself()));
        Ok(Self { host, desk, directory, rows })
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
        let following = self.host.executor().spawn(self.directory.run());
        let rows = self.rows.clone();
        let health = move || match rows.failure() {
            None => Health::Up,
            Some(error) => Health::Down(error.to_string()),
        };
        let served =
            self.host.serve(&[Plane::Peer], Clients::OfDeployment, self.desk, health).await;
        // Where it is in the middle of a page, that page is stored before the store closes.
        following.cancel().await;
        smol::unblock(move || self.rows.close()).await;
        served
    }
}

/// Opens the service and serves until the shutdown has begun.
///
/// # Errors
/// What is wrong, and what to do about it.
pub async fn run(config: Config, executor: Executor, shutdown: Shutdown) -> Result<(), HostError> {
    let opened = smol::unblock(move || Server::open(&config, &executor, &shutdown)).await?;
    opened.serve().await
}
