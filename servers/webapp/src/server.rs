//! Puts the WebApp together and serves it.
//!
//! Invariant: everything that can be wrong with the configuration is found before anything is
//! served, and named with its remedy.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use lapwing_net::config::{SecretError, TokenDigest};
use lapwing_net::http;
use lapwing_net::identity::{PeerIdentity, Role};
use lapwing_net::listener::{BindError, Connection, Listener, ListenerContext};
use lapwing_net::metrics::{self, Health, ListenerMetrics, Metrics};
use lapwing_net::notice::Notice;
use lapwing_net::peer::{self, Caller, Failure};
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown::Shutdown;
use lapwing_net::storage::{Storage, Stored};
use lapwing_net::tls::{Credentials, CredentialsError, HandshakeError, Plane, ServerPlanes};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::id::ServerId;
use lapwing_protocol::registration::{ServerRole, ServerStatus};
use lapwing_store::{Store, StoreError};

use crate::accounts::{AccountError, Accounts};
use crate::backend::{Backend, PeerTransport, Transport};
use crate::config::{Config, FirstUser};
use crate::live;
use crate::web::{App, router};

/// Why the WebApp cannot start, in words for an operator.
#[derive(Debug)]
pub enum RunError {
    /// Certificate, key or authority cannot be used.
    Credentials(CredentialsError),
    /// The certificate is not one of a WebApp of this deployment.
    Identity(String),
    /// An address cannot be listened on.
    Bind(BindError),
    /// The TLS library refuses.
    Tls(HandshakeError),
    /// The token of the metrics or of the API cannot be read.
    Secret(SecretError),
    /// The store cannot be opened.
    Store(StoreError),
    /// The accounts cannot be read, or the first one cannot be made.
    Accounts(String),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credentials(error) => error.fmt(f),
            Self::Identity(text) | Self::Accounts(text) => f.write_str(text),
            Self::Bind(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Secret(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RunError {}

impl From<AccountError> for RunError {
    fn from(error: AccountError) -> Self {
        Self::Accounts(error.to_string())
    }
}

/// Opens the WebApp and serves until the shutdown has begun and connections have drained.
///
/// # Errors
/// What is wrong, and what to do about it.
pub async fn run(config: Config, executor: Executor, shutdown: Shutdown) -> Result<(), RunError> {
    let credentials = Credentials::load(&config.server.tls).map_err(RunError::Credentials)?;
    let transport = transport(&config, &credentials, &executor)?;
    serve(config, credentials, transport, executor, shutdown).await
}

/// As [`run`], with another way to the peers.
///
/// # Errors
/// As [`run`].
pub async fn run_over(
    config: Config,
    transport: Arc<dyn Transport>,
    executor: Executor,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let credentials = Credentials::load(&config.server.tls).map_err(RunError::Credentials)?;
    serve(config, credentials, transport, executor, shutdown).await
}

/// The pages and the API without their listener, over any way to the peers and any store: what
/// tests ask. The tasks that ask the peers for changes run on `executor`.
///
/// # Errors
/// The accounts cannot be read, or the first one cannot be made.
pub async fn site(
    transport: Arc<dyn Transport>,
    store: Arc<dyn Store>,
    first_user: Option<&FirstUser>,
    executor: &Executor,
    shutdown: Shutdown,
) -> Result<Router, RunError> {
    let accounts = smol::unblock(move || Accounts::open(store)).await?;
    ensure_first(&accounts, first_user).await?;
    let app = App::new(Backend::new(transport), accounts, shutdown, "webapp");
    live::start(&app, executor);
    Ok(router(app))
}

async fn serve(
    config: Config,
    credentials: Credentials,
    transport: Arc<dyn Transport>,
    executor: Executor,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let identity = identity(&config, &credentials)?;
    let listeners = config.server.listen.iter().map(|address| Listener::bind(*address));
    let listeners: Vec<Listener> = listeners.collect::<Result<_, _>>().map_err(RunError::Bind)?;
    let metrics = Metrics::default();
    let notice = Notice::default();
    let storage = Arc::new(Storage::new(&config.server, &metrics, notice.clone()));
    let accounts = open_accounts(&config, &storage).await?;
    let app = App::new(Backend::new(transport), accounts, shutdown.clone(), &config.server.name);
    live::start(&app, &executor);
    let metrics_token = read_digest(config.server.metrics_token_file.as_deref())?;
    let site =
        router(app.clone()).merge(metrics::router(metrics.clone(), metrics_token, || Health::Up));
    let planes = [Plane::Peer, Plane::Http];
    let planes = ServerPlanes::new(&credentials, Some(config.server.deployment), &planes)
        .map_err(RunError::Tls)?;
    let context = ListenerContext::new(
        &executor,
        config.server.limits.listener(),
        ListenerMetrics::registered(&metrics),
        shutdown,
    );
    let status = Arc::new(status_service(app, identity, notice));
    let status = Arc::new(Stored::new(&storage, identity, status));
    let watching = executor.spawn(storage.watch());
    let bounds = http::Bounds::registered(&metrics);
    let mut serving = Vec::new();
    for listener in listeners {
        log::info!("the page is at https://{}/", listener.address());
        let handler =
            handler((Arc::clone(&executor), bounds.clone()), site.clone(), Arc::clone(&status));
        let served = listener.serve(planes.clone(), context.clone(), handler);
        serving.push(executor.spawn(served));
    }
    for task in serving {
        task.await;
    }
    drop(watching);
    Ok(())
}

fn handler<S: peer::Service>(
    (executor, bounds): (Executor, http::Bounds),
    site: Router,
    status: Arc<S>,
) -> impl lapwing_net::listener::Handler {
    move |connection: Connection| {
        let (executor, site, status) = (Arc::clone(&executor), site.clone(), Arc::clone(&status));
        let bounds = bounds.clone();
        async move {
            match connection.plane {
                Plane::Peer => peer::serve(executor, connection, status).await,
                Plane::Http | Plane::Enrol | Plane::Sensor => {
                    http::serve(executor, connection, site, &bounds).await
                }
            }
        }
    }
}

/// What peers may ask of the WebApp: how it is.
fn status_service(app: App, identity: PeerIdentity, notice: Notice) -> impl peer::Service {
    move |_: Caller, method: Method, _: Vec<u8>| {
        let (app, trouble) = (app.clone(), notice.text());
        async move {
            if method != Method::STATUS {
                let text = "the WebApp answers no calls but `status`; its API is /api/v1";
                return Err(Failure::new(Code::UNSUPPORTED, text));
            }
            peer::to_body(&ServerStatus {
                server: ServerId(identity.id),
                name: &app.name,
                role: ServerRole::WebApp,
                version: env!("CARGO_PKG_VERSION"),
                pid: std::process::id(),
                started_ms: app.started_ms,
                trouble: &trouble,
            })
        }
    }
}

fn identity(config: &Config, credentials: &Credentials) -> Result<PeerIdentity, RunError> {
    let identity = credentials.identity().map_err(|error| {
        let remedy = "name a certificate that this platform made";
        RunError::Identity(format!("server.tls.cert: {error}; {remedy}"))
    })?;
    if identity.role != Role::Webapp || identity.deployment != config.server.deployment {
        return Err(RunError::Identity(format!(
            "server.tls.cert: the certificate is of {identity}, but this file is for the WebApp of \
             deployment {}; name the certificate that was made for it",
            config.server.deployment
        )));
    }
    Ok(identity)
}

async fn open_accounts(config: &Config, storage: &Arc<Storage>) -> Result<Accounts, RunError> {
    let storage = Arc::clone(storage);
    let accounts = smol::unblock(move || {
        let store = storage.store(".").map_err(RunError::Store)?;
        Accounts::open(store).map_err(RunError::from)
    })
    .await?;
    ensure_first(&accounts, config.first_user.as_ref()).await?;
    Ok(accounts)
}

async fn ensure_first(accounts: &Accounts, user: Option<&FirstUser>) -> Result<(), RunError> {
    if let Some(user) = user {
        let token = read_digest(user.api_token_digest_file.as_deref())?;
        accounts.ensure_first(&user.name, &user.password_file, token).await?;
    }
    Ok(())
}

fn transport(
    config: &Config,
    ours: &Credentials,
    executor: &Executor,
) -> Result<Arc<dyn Transport>, RunError> {
    let vendor = match &config.peers.vendor_ca {
        Some(ca) => {
            let mut tls = config.server.tls.clone();
            tls.ca.clone_from(ca);
            Credentials::load(&tls).map_err(RunError::Credentials)?
        }
        None => ours.clone(),
    };
    let deployment = config.server.deployment;
    let transport = PeerTransport::new(executor, deployment, &config.peers, ours, &vendor);
    Ok(Arc::new(transport.map_err(RunError::Tls)?))
}

fn read_digest(path: Option<&std::path::Path>) -> Result<Option<TokenDigest>, RunError> {
    path.map(TokenDigest::read).transpose().map_err(RunError::Secret)
}
