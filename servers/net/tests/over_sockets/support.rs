//! A deployment in memory, and listeners on free ports.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lapwing_net::authority::{Authority, ServedName, Usage};
use lapwing_net::identity::{PeerIdentity, Role};
use lapwing_net::limits::ListenerLimits;
use lapwing_net::listener::{Handler, Listener, ListenerContext};
use lapwing_net::metrics::{ListenerMetrics, Metrics};
use lapwing_net::runtime::{self, Executor};
use lapwing_net::shutdown::{self, ShutdownTrigger};
use lapwing_net::tls::{Credentials, Plane, ServerPlanes};
use lapwing_net::{clock, runtime::cores};
use lapwing_protocol::id::DeploymentId;

pub(crate) const DAY: Duration = Duration::from_secs(86_400);
/// Longer than anything here takes on a busy machine; reaching it is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A connection after its handshake.
pub(crate) type Stream = futures_rustls::client::TlsStream<lapwing_net::socket::Socket>;

pub(crate) struct Deployment {
    pub(crate) id: DeploymentId,
    pub(crate) authority: Authority,
}

impl Deployment {
    pub(crate) fn new(byte: u8) -> Self {
        let authority = Authority::create(clock::unix_ms(), "test authority", 10 * DAY).unwrap();
        Self { id: DeploymentId([byte; 16]), authority }
    }

    pub(crate) fn identity(&self, role: Role, id: u8) -> PeerIdentity {
        PeerIdentity { deployment: self.id, role, id: [id; 16] }
    }

    /// Credentials of a server, which are good for a client too.
    pub(crate) fn credentials(&self, role: Role, id: u8) -> Credentials {
        self.credentials_at(clock::unix_ms(), role, id)
    }

    pub(crate) fn credentials_at(&self, now_unix_ms: u64, role: Role, id: u8) -> Credentials {
        let names =
            [ServedName::Address([127, 0, 0, 1].into()), ServedName::Dns("localhost".into())];
        let usage = if role.is_server() { Usage::Server(&names) } else { Usage::Client };
        let leaf = self.authority.issue(now_unix_ms, &self.identity(role, id), usage, DAY).unwrap();
        Credentials::from_pem(
            self.authority.certificate_pem(),
            &leaf.certificate_pem,
            &leaf.key_pem,
        )
        .unwrap()
    }
}

/// A listener that serves.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: ListenerMetrics,
    pub(crate) registry: Metrics,
    pub(crate) trigger: ShutdownTrigger,
    pub(crate) ended: smol::Task<()>,
}

pub(crate) struct Setup<'a> {
    pub(crate) executor: &'a Executor,
    pub(crate) credentials: Credentials,
    pub(crate) deployment: DeploymentId,
    pub(crate) planes: &'a [Plane],
    pub(crate) limits: ListenerLimits,
}

impl Setup<'_> {
    pub(crate) fn serve<H: Handler>(self, handler: H) -> Serving {
        self.serve_at(([127, 0, 0, 1], 0).into(), handler)
    }

    pub(crate) fn serve_at<H: Handler>(self, address: SocketAddr, handler: H) -> Serving {
        let registry = Metrics::default();
        let metrics = ListenerMetrics::registered(&registry);
        let listener = Listener::bind(address).unwrap();
        let address = listener.address();
        let planes =
            ServerPlanes::new(&self.credentials, Some(self.deployment), self.planes).unwrap();
        let (trigger, shutdown) = shutdown::pair();
        let context = ListenerContext::new(self.executor, self.limits, metrics.clone(), shutdown);
        let ended = self.executor.spawn(listener.serve(planes, context, handler));
        Serving { address, metrics, registry, trigger, ended }
    }
}

/// Runs a test on an executor of its own.
pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce(Executor) -> F) {
    run_within(3 * PATIENCE, test);
}

/// The same for a test that waits until a bound in time is reached.
pub(crate) fn run_within<F: Future<Output = ()>>(
    patience: Duration,
    test: impl FnOnce(Executor) -> F,
) {
    runtime::run(cores(), |executor, _, _| async move {
        let late = async {
            smol::Timer::at(Instant::now() + patience).await;
            panic!("the test hangs");
        };
        smol::future::or(test(executor), late).await;
    });
}
