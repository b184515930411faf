//! What every server consists of, put together: credentials, listeners, planes, metrics, health,
//! status.
//!
//! Not here: what a role answers. Invariants: everything that can be wrong with a configuration is
//! found by [`Host::open`], before anything is served; the identity in the certificate is that of
//! the configuration.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lapwing_protocol::id::ServerId;
use lapwing_protocol::registration::{ServerRole, ServerStatus};
use lapwing_store::StoreError;
use smol::Timer;

use crate::clock;
use crate::config::{SecretError, Server, TokenDigest};
use crate::http;
use crate::identity::{IdentityError, PeerIdentity, Role};
use crate::listener::{BindError, Connection, Fault, Listener, ListenerContext};
use crate::metrics::{self, Health, ListenerMetrics, Metrics};
use crate::notice::Notice;
use crate::peer::{self, Failure, PeerClient, Service};
use crate::runtime::Executor;
use crate::shutdown::Shutdown;
use crate::storage::{Storage, Stored};
use crate::tls::{
    ClientTls, Credentials, CredentialsError, ExpectedPeer, HandshakeError, Plane, ServerPlanes,
};

/// How long a server whose store failed goes on, so that its connections say so.
const STORE_FAILED_TIME: Duration = Duration::from_millis(500);

/// Whose clients may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// Those of the own deployment.
    OfDeployment,
    /// Those of any deployment under the trusted authorities, as the vendor's servers take them.
    OfAnyDeployment,
}

/// Why a server cannot start, in words for an operator.
#[derive(Debug)]
pub enum HostError {
    /// Certificate, key or authority cannot be used.
    Credentials(CredentialsError),
    /// The certificate names nobody.
    NoIdentity(IdentityError),
    /// The certificate is another server's.
    OtherIdentity {
        /// Who the certificate is of.
        found: PeerIdentity,
        /// What the configuration says.
        role: Role,
    },
    /// An address cannot be listened on.
    Bind(BindError),
    /// The TLS library refuses.
    Tls(HandshakeError),
    /// The token of the metrics cannot be read.
    Secret(SecretError),
    /// Something of the role itself: its store, its files.
    Role(String),
    /// A store failed while the server ran: nothing more is acknowledged, and it ends.
    Store(StoreError),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credentials(error) => error.fmt(f),
            Self::NoIdentity(error) => {
                write!(f, "server.tls.cert: {error}; name a certificate that this platform made")
            }
            Self::OtherIdentity { found, role } => write!(
                f,
                "server.tls.cert: the certificate is of {found}, but this file is for {role} of \
                 server.deployment; name the certificate that was made for this server"
            ),
            Self::Bind(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Secret(error) => error.fmt(f),
            Self::Role(text) => f.write_str(text),
            Self::Store(error) => write!(f, "nothing more is acknowledged: {error}"),
        }
    }
}

impl std::error::Error for HostError {}

/// Who this server is, for answers about itself.
#[derive(Debug, Clone)]
pub struct Myself {
    /// By its certificate.
    pub identity: PeerIdentity,
    /// The name in its configuration.
    pub name: String,
    /// The version of this program.
    pub version: &'static str,
    /// When it started, milliseconds since 1970.
    pub started_ms: u64,
    /// What a person should know although it works.
    pub notice: Notice,
}

impl Myself {
    /// This server's id.
    #[must_use]
    pub fn server(&self) -> ServerId {
        ServerId(self.identity.id)
    }

    /// The answer to `Method::STATUS`; `trouble` is for a person, empty when all is well.
    ///
    /// # Errors
    /// The role has no such answer: a sensor's, or that of a command.
    pub fn status(&self, trouble: &str) -> Result<Vec<u8>, Failure> {
        let notice = self.notice.text();
        let trouble = if trouble.is_empty() { notice.as_str() } else { trouble };
        let role = server_role(self.identity.role).ok_or_else(|| {
            Failure::new(lapwing_protocol::code::Code::UNSUPPORTED, "this is no server")
        })?;
        peer::to_body(&ServerStatus {
            server: self.server(),
            name: &self.name,
            role,
            version: self.version,
            pid: std::process::id(),
            started_ms: self.started_ms,
            trouble,
        })
    }
}

fn server_role(role: Role) -> Option<ServerRole> {
    match role {
        Role::Registration => Some(ServerRole::Registration),
        Role::Detection => Some(ServerRole::Detection),
        Role::Update => Some(ServerRole::Update),
        Role::IntelPrivate => Some(ServerRole::IntelPrivate),
        Role::IntelGlobal => Some(ServerRole::IntelGlobal),
        Role::Webapp => Some(ServerRole::WebApp),
        Role::Malops => Some(ServerRole::MalOps),
        Role::Tagging => Some(ServerRole::Tagging),
        Role::Fleet => Some(ServerRole::Fleet),
        _ => None,
    }
}

/// A server that is ready to serve.
pub struct Host {
    executor: Executor,
    shutdown: Shutdown,
    server: Server,
    credentials: Credentials,
    listeners: Vec<Listener>,
    metrics: Metrics,
    token: Option<TokenDigest>,
    myself: Arc<Myself>,
    storage: Arc<Storage>,
}

impl Host {
    /// Loads what `[server]` names, and binds its addresses. `version` is that of the program.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub fn open(
        server: &Server,
        version: &'static str,
        executor: &Executor,
        shutdown: &Shutdown,
    ) -> Result<Self, HostError> {
        let credentials = Credentials::load(&server.tls).map_err(HostError::Credentials)?;
        let identity = credentials.identity().map_err(HostError::NoIdentity)?;
        if identity.role != server.role || identity.deployment != server.deployment {
            return Err(HostError::OtherIdentity { found: identity, role: server.role });
        }
        let token = server.metrics_token_file.as_deref().map(TokenDigest::read).transpose();
        let token = token.map_err(HostError::Secret)?;
        let listeners = server.listen.iter().map(|address| Listener::bind(*address));
        let listeners: Vec<Listener> =
            listeners.collect::<Result<_, _>>().map_err(HostError::Bind)?;
        let metrics = Metrics::default();
        let notice = Notice::default();
        let storage = Storage::new(server, &metrics, notice.clone());
        let started_ms = clock::unix_ms();
        let myself = Myself { identity, name: server.name.clone(), version, started_ms, notice };
        Ok(Self {
            executor: Arc::clone(executor),
            shutdown: shutdown.clone(),
            server: server.clone(),
            credentials,
            listeners,
            metrics,
            token,
            myself: Arc::new(myself),
            storage: Arc::new(storage),
        })
    }

    /// The addresses that are listened on, with their real ports.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(Listener::address).collect()
    }

    /// Where tasks run.
    #[must_use]
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// When to end.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Where the role registers its counts.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The stores of this server.
    #[must_use]
    pub fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// `service`, which can be told to back this server up besides.
    pub fn stored<S: Service>(&self, service: Arc<S>) -> Arc<Stored<S>> {
        Arc::new(Stored::new(&self.storage, self.myself.identity, service))
    }

    /// Who this server is.
    #[must_use]
    pub fn myself(&self) -> Arc<Myself> {
        Arc::clone(&self.myself)
    }

    /// What this server shows, and whom it trusts.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// A client of the server of `role`, in the own deployment, that is called `name` in errors.
    ///
    /// # Errors
    /// The TLS library refuses.
    pub fn client(
        &self,
        name: &str,
        role: Role,
        addresses: Vec<SocketAddr>,
    ) -> Result<PeerClient, HostError> {
        let expected = ExpectedPeer::of_role(self.server.deployment, role);
        let tls =
            ClientTls::new(&self.credentials, Plane::Peer, expected).map_err(HostError::Tls)?;
        Ok(PeerClient::new(&self.executor, name, addresses, tls))
    }

    /// Answers calls on `planes`, and HTTP with metrics and health, on every address of `[server]`,
    /// until the shutdown has begun and connections have drained.
    ///
    /// # Errors
    /// The TLS library refuses.
    pub async fn serve<S: Service>(
        mut self,
        planes: &[Plane],
        clients: Clients,
        service: Arc<S>,
        health: impl Fn() -> Health + Clone + Send + Sync + 'static,
    ) -> Result<(), HostError> {
        let executor = Arc::clone(&self.executor);
        let service = self.stored(service);
        let handler: PlaneHandler = Arc::new(move |connection| {
            Box::pin(peer::serve(Arc::clone(&executor), connection, Arc::clone(&service)))
        });
        let ports = std::mem::take(&mut self.listeners).into_iter().map(|listener| Port {
            listener,
            planes: planes.to_vec(),
            handler: Arc::clone(&handler),
        });
        let ports = ports.collect();
        self.serve_ports(ports, clients, health).await
    }

    /// The listeners of the addresses of `[server]`, for a role whose ports differ in what they
    /// serve.
    pub fn take_listeners(&mut self) -> Vec<Listener> {
        std::mem::take(&mut self.listeners)
    }

    /// Serves each port on its planes, and HTTP with metrics and health on all of them, until the
    /// shutdown has begun and connections have drained.
    ///
    /// # Errors
    /// The TLS library refuses, or a store failed.
    pub async fn serve_ports(
        self,
        ports: Vec<Port>,
        clients: Clients,
        health: impl Fn() -> Health + Clone + Send + Sync + 'static,
    ) -> Result<(), HostError> {
        let deployment = match clients {
            Clients::OfDeployment => Some(self.server.deployment),
            Clients::OfAnyDeployment => None,
        };
        let router = metrics::router(self.metrics.clone(), self.token, health);
        let context = ListenerContext::new(
            &self.executor,
            self.server.limits.listener(),
            ListenerMetrics::registered(&self.metrics),
            self.shutdown.clone(),
        );
        let bounds = http::Bounds::registered(&self.metrics);
        let mut serving = Vec::new();
        for Port { listener, planes, handler } in ports {
            log::info!(
                "{} {} listens on {}",
                self.server.role,
                self.server.name,
                listener.address()
            );
            let planes: Vec<Plane> = planes.into_iter().chain([Plane::Http]).collect();
            let planes = ServerPlanes::new(&self.credentials, deployment, &planes)
                .map_err(HostError::Tls)?;
            let (executor, router) = (Arc::clone(&self.executor), router.clone());
            let bounds = bounds.clone();
            let handler = move |connection: Connection| match connection.plane {
                Plane::Http => {
                    let (executor, router) = (Arc::clone(&executor), router.clone());
                    let bounds = bounds.clone();
                    Box::pin(
                        async move { http::serve(executor, connection, router, &bounds).await },
                    )
                }
                Plane::Enrol | Plane::Sensor | Plane::Peer => handler(connection),
            };
            serving.push(self.executor.spawn(listener.serve(planes, context.clone(), handler)));
        }
        let drained = async {
            for task in serving {
                task.await;
            }
            Ok(())
        };
        let failed = async {
            let error = Arc::clone(&self.storage).watch().await;
            // Who waits for an answer is told why there is none.
            Timer::after(STORE_FAILED_TIME).await;
            Err(HostError::Store(error))
        };
        smol::future::or(drained, failed).await
    }
}

/// What speaks on the connections of a port, HTTP left out.
pub type PlaneHandler =
    Arc<dyn Fn(Connection) -> smol::future::Boxed<Result<(), Fault>> + Send + Sync>;

/// An address and what is served there.
pub struct Port {
    /// The address, bound.
    pub listener: Listener,
    /// The planes; HTTP is served besides.
    pub planes: Vec<Plane>,
    /// What speaks on them.
    pub handler: PlaneHandler,
}
