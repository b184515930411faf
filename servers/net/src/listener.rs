//! Accepts connections, bounds them before any TLS work, chooses the plane, and hands each to a
//! handler.
//!
//! Not here: what is spoken on a plane. Invariants: bounds come before the handshake; a peer that
//! misbehaves, or a handler that panics, ends its own connection and is logged with source and
//! reason; on shutdown no connection is accepted any more, and those that stand get `drain_time`.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures_rustls::LazyConfigAcceptor;
use futures_rustls::server::TlsStream;
use smol::future::FutureExt as _;
use smol::lock::Semaphore;
use smol::{Async, Timer};

use crate::admission::{Admission, Admitted, SourceKey, network_of};
use crate::budget::{Budget, Charge};
use crate::clock;
use crate::complaint::Complaints;
use crate::door::Door;
use crate::gate::{Gate, Turn};
use crate::identity::PeerIdentity;
use crate::limits::{
    ACCEPTS_MAX, BACKLOG_MAX, HANDSHAKE_OVERREAD_BYTES, ListenerLimits, SENSOR_BYTES,
};
use crate::metrics::ListenerMetrics;
use crate::runtime::Executor;
use crate::shutdown::{self, Shutdown};
use crate::socket::Socket;
use crate::tls::{Choice, HandshakeError, PeerMismatch, Plane, ServerPlanes, key_digest};
use crate::waiting::{Seat, WaitingRoom};

/// What ends a connection for cause. The text is logged, so it names the cause and carries nothing
/// secret.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// A connection whose handshake is done.
pub struct Connection {
    /// What is spoken on it.
    pub plane: Plane,
    /// Who the peer is, by its certificate; none on the enrol and HTTP planes.
    pub peer: Option<PeerIdentity>,
    /// The SHA-256 of the peer's public key, for deny lists; none where `peer` is none.
    pub key_digest: Option<[u8; 32]>,
    /// Where it comes from.
    pub source: SocketAddr,
    /// The encrypted stream. Boxed, since handlers' futures move it around: each place would cost
    /// its 1.2 KiB in every idle connection.
    pub stream: Box<TlsStream<Socket>>,
    /// Begins when the server shuts down: tell the peer, finish, return.
    pub shutdown: Shutdown,
}

/// What does the speaking on connections.
pub trait Handler: Send + Sync + 'static {
    /// Speaks on one connection until it ends. An `Err` is the peer's fault and is logged as such;
    /// a peer that goes away is none.
    fn handle(&self, connection: Connection) -> impl Future<Output = Result<(), Fault>> + Send;
}

impl<F, R> Handler for F
where
    F: Fn(Connection) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Fault>> + Send,
{
    fn handle(&self, connection: Connection) -> impl Future<Output = Result<(), Fault>> + Send {
        self(connection)
    }
}

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    socket: Async<TcpListener>,
    address: SocketAddr,
}

/// An address that could not be bound.
#[derive(Debug)]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The operating system's word.
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (problem, remedy) = match self.error.kind() {
            io::ErrorKind::AddrInUse => (
                String::from("another process listens there"),
                "stop it (`ss -ltnp` names it) or change `server.listen`",
            ),
            io::ErrorKind::PermissionDenied => (
                String::from("this user may not listen there"),
                "use a port above 1023, or grant CAP_NET_BIND_SERVICE",
            ),
            io::ErrorKind::AddrNotAvailable => (
                String::from("this machine does not have the address"),
                "change `server.listen` to an address that `ip address` shows",
            ),
            _ => (self.error.to_string(), "change `server.listen`"),
        };
        write!(f, "cannot listen on {}: {problem}; {remedy}", self.address)
    }
}

impl std::error::Error for BindError {}

/// What a listener needs to serve, besides its planes and handler.
#[derive(Clone)]
pub struct ListenerContext {
    /// Where connections run.
    pub executor: Executor,
    /// Bounds.
    pub limits: ListenerLimits,
    /// Counts.
    pub metrics: ListenerMetrics,
    /// When to stop.
    pub shutdown: Shutdown,
    /// What the connections of all listeners of a process may hold, by their planes.
    pub memory: Budget,
    /// Where the handshakes of all listeners of a process are done.
    door: Arc<Door>,
}

impl ListenerContext {
    /// A context with the memory that `limits` grant, for all listeners of a process.
    #[must_use]
    pub fn new(
        executor: &Executor,
        limits: ListenerLimits,
        metrics: ListenerMetrics,
        shutdown: Shutdown,
    ) -> Self {
        let memory = Budget::new(limits.connections_max.saturating_mul(SENSOR_BYTES));
        let door = Door::open(executor);
        Self { executor: Arc::clone(executor), limits, metrics, shutdown, memory, door }
    }
}

impl Listener {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address is in use, forbidden or not of this machine; the error says what to do.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let refused = |error| BindError { address, error };
        let socket = Async::<TcpListener>::bind(address).map_err(refused)?;
        // Listening again only changes how many may wait.
        rustix::net::listen(&socket, BACKLOG_MAX).map_err(|error| refused(error.into()))?;
        let address = socket.get_ref().local_addr().map_err(refused)?;
        Ok(Self { socket, address })
    }

    /// The address that was bound, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the shutdown begins and the connections have drained.
    pub async fn serve<H: Handler>(
        self,
        planes: ServerPlanes,
        context: ListenerContext,
        handler: H,
    ) {
        let (cut, cut_begun) = shutdown::pair();
        let shared = Arc::new(Shared {
            connections: Arc::new(Semaphore::new(context.limits.connections_max)),
            waiting: WaitingRoom::new(context.limits.hellos_max),
            handshakes: Gate::new(context.limits.handshakes_max),
            anonymous: Semaphore::new(context.limits.anonymous_max),
            admission: Mutex::new(Admission::new(context.limits)),
            complaints: Complaints::default(),
            planes,
            handler,
            cut: cut_begun,
            context,
        });
        let stop = shared.context.shutdown.clone();
        let accepting = async {
            loop {
                for _ in 0..ACCEPTS_MAX {
                    accept_one(&self.socket, &shared).await;
                }
                smol::future::yield_now().await;
            }
        };
        smol::future::or(accepting, stop.begun()).await;
        drop(self.socket);
        let drained = async {
            // Every connection holds one permit; when all are back, nobody is left.
            let mut held = Vec::new();
            for _ in 0..shared.context.limits.connections_max {
                held.push(shared.connections.acquire().await);
            }
        };
        let late = async {
            Timer::after(shared.context.limits.drain_time).await;
            log::warn!("{}: cutting the connections that did not end", self.address);
        };
        smol::future::or(drained, late).await;
        cut.begin();
    }
}

struct Shared<H> {
    connections: Arc<Semaphore>,
    waiting: Arc<WaitingRoom>,
    handshakes: Arc<Gate>,
    anonymous: Semaphore,
    admission: Mutex<Admission>,
    complaints: Complaints,
    planes: ServerPlanes,
    handler: H,
    cut: Shutdown,
    context: ListenerContext,
}

/// Holds a place among the handshakes of its network; gives it back when dropped.
struct HandshakeSlot<H: Handler> {
    shared: Arc<Shared<H>>,
    key: SourceKey,
}

impl<H: Handler> Drop for HandshakeSlot<H> {
    fn drop(&mut self) {
        self.shared.admission().handshake_ended(self.key);
    }
}

impl<H> Shared<H> {
    fn admission(&self) -> std::sync::MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, source: SocketAddr, reason: &'static str, text: &dyn fmt::Display) {
        self.context.metrics.refused(reason);
        self.complaints.closed(source, text);
    }
}

async fn accept_one<H: Handler>(socket: &Async<TcpListener>, shared: &Arc<Shared<H>>) {
    let (stream, source) = match socket.accept().await {
        Ok(accepted) => accepted,
        Err(error) => {
            // Out of file descriptors, mostly: waiting lets some come back, spinning does not.
            log::error!("cannot accept connections: {error}; raise the limit of open files");
            Timer::after(std::time::Duration::from_millis(100)).await;
            return;
        }
    };
    let Some(place) = shared.connections.try_acquire_arc() else {
        return shared.refuse(
            source,
            "connections_max",
            &"this server has all the connections it takes",
        );
    };
    let key = match shared.admission().admit(clock::monotonic_ms(), source.ip()) {
        Admitted::Yes(key) => key,
        Admitted::TooOften => {
            return shared.refuse(source, "too_often", &"its network connects too often");
        }
        Admitted::TooManyHandshakes => {
            return shared.refuse(
                source,
                "source_handshakes",
                &"its network has too many handshakes",
            );
        }
    };
    let slot = HandshakeSlot { shared: Arc::clone(shared), key };
    let seat = shared.waiting.enter(network_of(source.ip().to_canonical()));
    let shared = Arc::clone(shared);
    let door = Arc::clone(&shared.context.door);
    let task = async move {
        let arrival = Arrival { stream, source, seat };
        let cut = shared.cut.clone();
        smol::future::or(arrive(shared, arrival, (place, slot)), cut.begun()).await;
    };
    door.executor().spawn(task).detach();
}

/// A connection that was admitted and has said nothing yet.
struct Arrival {
    stream: Async<TcpStream>,
    source: SocketAddr,
    seat: Seat,
}

/// A connection's place among all, held while it stands.
type Place = smol::lock::SemaphoreGuardArc;

/// One connection from its first byte to the end of its handshake; then it is served elsewhere.
async fn arrive<H: Handler>(
    shared: Arc<Shared<H>>,
    arrival: Arrival,
    (place, slot): (Place, HandshakeSlot<H>),
) {
    let source = arrival.source;
    let connection = match accept_tls(&shared, arrival).await {
        Ok(connection) => connection,
        Err(error) => return shared.refuse(source, error.reason(), &error),
    };
    drop(slot);
    let executor = Arc::clone(&shared.context.executor);
    let task = async move {
        let _place = place;
        let cut = shared.cut.clone();
        smol::future::or(serve(shared, connection), cut.begun()).await;
    };
    executor.spawn(task).detach();
}

/// One connection from its handshake to its end. Nothing that happens here reaches another
/// connection.
async fn serve<H: Handler>(shared: Arc<Shared<H>>, connection: Connection) {
    let (metrics, source) = (shared.context.metrics.clone(), connection.source);
    let anonymous = match connection.peer {
        Some(_) => None,
        None => match shared.anonymous.try_acquire() {
            Some(place) => Some(place),
            None => {
                let text = "this server has all the connections without a certificate it takes";
                return shared.refuse(source, "anonymous_max", &text);
            }
        },
    };
    let plane = connection.plane;
    let Some(charge) = charged(&shared.context.memory, plane) else {
        return shared.refuse(source, "memory", &"the connections hold all the memory they may");
    };
    metrics.opened(plane);
    let served =
        AssertUnwindSafe(async { shared.handler.handle(connection).await }).catch_unwind().await;
    metrics.closed(plane);
    drop((anonymous, charge));
    match served {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => shared.refuse(source, "fault", &fault),
        Err(_) => {
            metrics.refused("panic");
            log::error!("{source}: the handler of its {} connection panicked", plane.name());
        }
    }
}

/// The memory that a connection of `plane` may hold.
fn charged(memory: &Budget, plane: Plane) -> Option<Charge> {
    let charge = memory.charge();
    charge.take(plane.held_bytes_max()).then_some(charge)
}

async fn accept_tls<H: Handler>(
    shared: &Shared<H>,
    Arrival { stream, source, seat }: Arrival,
) -> Result<Connection, HandshakeError> {
    let network = network_of(source.ip().to_canonical());
    let handshake = async {
        let mut socket = Socket::new(stream).map_err(|error| HandshakeError::from_io(&error))?;
        let budget = shared.context.limits.handshake_bytes_max + HANDSHAKE_OVERREAD_BYTES;
        socket.set_read_budget(Some(budget));
        let arriving = async {
            let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), socket);
            let hello = hello.await.map_err(|error| HandshakeError::from_io(&error))?;
            let turn: Turn = shared.handshakes.ask(network);
            turn.come().await;
            Ok((hello, turn))
        };
        let crowded_out = async {
            seat.crowded_out().await;
            Err(HandshakeError::CrowdedOut)
        };
        let (hello, _turn) = smol::future::or(arriving, crowded_out).await?;
        drop(seat);
        let (plane, config) = match shared.planes.choose(hello.client_hello().alpn()) {
            Choice::Served(plane, config) => (Some(plane), config),
            Choice::NotServed(Some(config)) => (None, config),
            Choice::NotServed(None) => return Err(HandshakeError::NoCommonPlane),
        };
        let stream =
            hello.into_stream(config).await.map_err(|error| HandshakeError::from_io(&error))?;
        // A hello without ALPN passes the TLS library's own check, whatever the configuration.
        let plane = plane.ok_or(HandshakeError::NoCommonPlane)?;
        Ok((plane, stream))
    };
    let late = async {
        Timer::after(shared.context.limits.handshake_time).await;
        Err(HandshakeError::TimedOut)
    };
    let (plane, mut stream) = smol::future::or(handshake, late).await?;
    stream.get_mut().0.set_read_budget(None);
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let (peer, key_digest) = match certificate {
        None => (None, None),
        Some(certificate) => {
            let identity = PeerIdentity::from_certificate(certificate)
                .map_err(|error| HandshakeError::Mismatch(PeerMismatch::NoIdentity(error)))?;
            (Some(identity), key_digest(certificate))
        }
    };
    Ok(Connection {
        plane,
        peer,
        key_digest,
        source,
        stream: Box::new(stream),
        shutdown: shared.context.shutdown.clone(),
    })
}
