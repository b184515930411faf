//! A Registration and a Detection server in memory: real TLS sockets, the servers' own delivery.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use lapwing_net::authority::{Authority, ServedName, Usage};
use lapwing_net::clock;
use lapwing_net::identity::{PeerIdentity, Role};
use lapwing_net::limits::ListenerLimits;
use lapwing_net::listener::{Connection, Fault, Listener, ListenerContext};
use lapwing_net::metrics::{ListenerMetrics, Metrics};
use lapwing_net::peer::{self, Caller, Failure, to_body};
use lapwing_net::runtime::{self, Executor};
use lapwing_net::shutdown::{self, ShutdownTrigger};
use lapwing_net::tls::{Credentials, Plane, ServerPlanes};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::command::{Action, Command, CommandNumber};
use lapwing_protocol::delivery::JumpCause;
use lapwing_protocol::enrol::{EnrolRequest, Enrolled};
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::frame::Deframer;
use lapwing_protocol::id::{DeploymentId, Lane, LogId, SensorId, ServerId};
use lapwing_protocol::limits::FRAME_BYTES_MAX;
use lapwing_protocol::op::DropReason;
use lapwing_protocol::registration::Assignment;
use lapwing_server_core::delivery::{
    Entry, EntryKind, Greeting, Offerings, Receiver, Session, SessionEvent,
};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const TOKEN: &str = "correct-horse-battery-staple";
const DEPLOYMENT: DeploymentId = DeploymentId([0xd0; 16]);
const DETECTION: ServerId = ServerId([0xde; 16]);

/// What both servers remember and what the test wants of them.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) enrolled: usize,
    pub(crate) questions: usize,
    pub(crate) greetings: Vec<Greeting>,
    pub(crate) entries: Vec<Entry>,
    receiver: Option<Receiver>,
    epochs: u64,
    detection: Option<SocketAddr>,
    commands: u64,
    /// Whether connections are closed before a word is said.
    is_held: bool,
}

/// What the test says to the open session.
enum Order {
    Cut,
    Send(Command),
}

#[derive(Clone)]
struct Shared {
    authority: Arc<Authority>,
    memory: Arc<Mutex<Memory>>,
    orders: smol::channel::Receiver<Order>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }
}

pub(crate) struct Servers {
    pub(crate) registration: SocketAddr,
    pub(crate) detection: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
    orders: smol::channel::Sender<Order>,
    shared: Shared,
    registration_trigger: ShutdownTrigger,
    _detection_trigger: ShutdownTrigger,
    end: ShutdownTrigger,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Servers {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(clock::unix_ms(), "test authority", 60 * DAY).unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.certificate_pem()).unwrap();
        std::fs::write(folder.path().join("token"), TOKEN).unwrap();
        let (orders, ordered) = smol::channel::unbounded();
        let shared =
            Shared { authority: Arc::new(authority), memory: Arc::default(), orders: ordered };
        let (end, ended) = shutdown::pair();
        let (give, take) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            runtime::run(2, |executor, _, _| async move {
                give.send(executor).unwrap();
                ended.begun().await;
            });
        });
        let executor = take.recv().unwrap();
        let (detection, detection_trigger) = serve(&executor, &shared, Role::Detection);
        shared.lock().detection = Some(detection);
        let (registration, registration_trigger) = serve(&executor, &shared, Role::Registration);
        let thread = Some(thread);
        Self {
            registration,
            detection,
            folder,
            orders,
            shared,
            registration_trigger,
            _detection_trigger: detection_trigger,
            end,
            thread,
        }
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.shared.lock()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn stop_registration(&self) {
        self.registration_trigger.begin();
        super::wait::until("Registration stops", || {
            std::net::TcpStream::connect(self.registration).is_err().then_some(())
        });
    }

    /// The Detection server answers nobody until it is released.
    pub(crate) fn hold(&self) {
        self.memory().is_held = true;
    }

    pub(crate) fn release(&self) {
        self.memory().is_held = false;
    }

    /// Closes the connection of the sensor.
    pub(crate) fn cut(&self) {
        self.orders.try_send(Order::Cut).unwrap();
    }

    /// Sends a command and says its number.
    pub(crate) fn command(&self, action: Action) -> u64 {
        let mut memory = self.memory();
        memory.commands += 1;
        let number = CommandNumber { issuer: 1, seq: memory.commands };
        let command = Command { number, expires_after_ms: 30_000, action };
        self.orders.try_send(Order::Send(command)).unwrap();
        number.seq
    }

    /// Facts of a lane in its holes, all of which were announced as dropped for `reason`.
    pub(crate) fn jumped(&self, lane: Lane, reason: DropReason) -> u64 {
        let memory = self.memory();
        let jumps = memory.entries.iter().filter(|entry| entry.lane == lane);
        jumps
            .filter_map(|entry| match entry.kind {
                EntryKind::Jump { first_index, to_index, cause, .. } => {
                    assert_eq!(cause, JumpCause::Dropped(reason));
                    to_index.map(|to| to + 1 - first_index)
                }
                EntryKind::Chunk { .. } => None,
            })
            .sum()
    }

    /// The chunks of a lane as they were stored.
    pub(crate) fn chunk_bytes(&self, lane: Lane) -> Vec<Vec<u8>> {
        let memory = self.memory();
        let chunks = memory
            .entries
            .iter()
            .filter(|entry| entry.lane == lane && matches!(entry.kind, EntryKind::Chunk { .. }));
        chunks.map(|entry| entry.bytes.clone()).collect()
    }

    /// Chunks of a lane, one log behind the other, in the order they were stored.
    pub(crate) fn chunks(&self, lane: Lane) -> Vec<(LogId, u64, u64)> {
        let memory = self.memory();
        let chunks = memory.entries.iter().filter(|entry| entry.lane == lane);
        chunks
            .filter_map(|entry| match entry.kind {
                EntryKind::Chunk { count, .. } => Some((entry.log, entry.seq, count)),
                EntryKind::Jump { .. } => None,
            })
            .collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.end.begin();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(executor: &Executor, shared: &Shared, role: Role) -> (SocketAddr, ShutdownTrigger) {
    let names = [ServedName::Address([127, 0, 0, 1].into())];
    let id = if role == Role::Detection { DETECTION.0 } else { [1; 16] };
    let identity = PeerIdentity { deployment: DEPLOYMENT, role, id };
    let usage = Usage::Server(&names);
    let leaf = shared.authority.issue(clock::unix_ms(), &identity, usage, DAY).unwrap();
    let credentials = Credentials::from_pem(
        shared.authority.certificate_pem(),
        &leaf.certificate_pem,
        &leaf.key_pem,
    )
    .unwrap();
    let planes =
        ServerPlanes::new(&credentials, Some(DEPLOYMENT), &[Plane::Enrol, Plane::Sensor]).unwrap();
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.address();
    let (trigger, shutdown) = shutdown::pair();
    let metrics = ListenerMetrics::registered(&Metrics::default());
    let context = ListenerContext::new(executor, ListenerLimits::default(), metrics, shutdown);
    let (shared, spawner) = (shared.clone(), Arc::clone(executor));
    let handler = move |connection: Connection| {
        let (shared, executor) = (shared.clone(), Arc::clone(&spawner));
        async move {
            match (connection.plane, role) {
                (Plane::Sensor, Role::Detection) => session(shared, connection).await,
                _ => {
                    let service = Arc::new(move |caller, method, body| {
                        answer(shared.clone(), caller, method, body)
                    });
                    peer::serve(executor, connection, service).await
                }
            }
        }
    };
    executor.spawn(listener.serve(planes, context, handler)).detach();
    (address, trigger)
}

async fn answer(
    shared: Shared,
    _: Caller,
    method: Method,
    body: Vec<u8>,
) -> Result<Vec<u8>, Failure> {
    match method {
        Method::ENROL => enrol(&shared, &body),
        Method::ASSIGN => {
            let mut memory = shared.lock();
            memory.questions += 1;
            let address = memory.detection.unwrap().to_string();
            to_body(&Assignment { server: DETECTION, name: "d1", address: &address })
        }
        _ => Err(Failure::new(Code::UNSUPPORTED, "not here")),
    }
}

fn enrol(shared: &Shared, body: &[u8]) -> Result<Vec<u8>, Failure> {
    let request: EnrolRequest<'_> = from_bytes(body).unwrap();
    if request.token != TOKEN {
        return Err(Failure::new(Code::BAD_TOKEN, "no"));
    }
    let sensor = SensorId([0x5e; 16]);
    let subject = PeerIdentity::of_sensor(DEPLOYMENT, sensor);
    let now = clock::unix_ms();
    let signed =
        shared.authority.sign_request(now, request.request, &subject, Usage::Client, DAY).unwrap();
    shared.lock().enrolled += 1;
    to_body(&Enrolled {
        sensor,
        deployment: DEPLOYMENT,
        certificate: &signed.der,
        authority: shared.authority.certificate_der(),
        not_after_ms: now + 86_400_000,
    })
}

/// One session of the Detection server; what it stores is durable at once.
async fn session(shared: Shared, mut connection: Connection) -> Result<(), Fault> {
    let sensor = connection.peer.and_then(|peer| peer.sensor()).unwrap();
    if shared.lock().is_held {
        return Ok(());
    }
    let offerings = Offerings {
        server: DETECTION,
        name: "d1".into(),
        receive_bytes_max: FRAME_BYTES_MAX as u32,
        rows_max: 65_536,
    };
    let epoch = {
        let mut memory = shared.lock();
        memory.epochs += 1;
        let epoch = memory.epochs;
        let receiver = memory
            .receiver
            .get_or_insert_with(|| Receiver::new((DEPLOYMENT, DETECTION), sensor, [None, None]));
        receiver.begin_session(epoch);
        epoch
    };
    let mut session = Session::new(clock::monotonic_ms(), epoch, offerings);
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut deframer = Deframer::new(&mut buffer);
    loop {
        let mut out = Vec::new();
        {
            let mut memory = shared.lock();
            let now = (clock::monotonic_ms(), clock::unix_ms());
            while let Some(frame) = deframer.next_frame()? {
                let receiver = memory.receiver.as_mut().unwrap();
                match session.handle_frame(now, &frame, receiver).map_err(|fault| fault.text())? {
                    Some(SessionEvent::Entry(entry)) => {
                        receiver.handle_stored(entry.lane, entry.log, entry.seq);
                        memory.entries.push(entry);
                    }
                    Some(SessionEvent::Greeted(greeting)) => memory.greetings.push(greeting),
                    Some(SessionEvent::Called { .. } | SessionEvent::Replied { .. }) | None => {}
                }
            }
            let receiver = memory.receiver.as_mut().unwrap();
            while let Some(frame) = session.poll_transmit(receiver) {
                out.extend_from_slice(&frame);
            }
        }
        connection.stream.write_all(&out).await?;
        connection.stream.flush().await?;
        let read = async { Next::Read(connection.stream.read(deframer.space()).await) };
        let ordered = async { Next::Order(shared.orders.recv().await) };
        match smol::future::or(ordered, read).await {
            Next::Read(Ok(length)) if length > 0 => deframer.filled(length),
            Next::Order(Ok(Order::Send(command))) => session.send_command(command),
            Next::Read(_) | Next::Order(_) => return Ok(()),
        }
    }
}

enum Next {
    Read(std::io::Result<usize>),
    Order(Result<Order, smol::channel::RecvError>),
}

/// A configuration of a sensor of these servers.
pub(crate) fn config(servers: &Servers, state: &Path, more: &str) -> String {
    format!(
        "state_dir = {state:?}\n[servers]\nregistration = [\"{}\"]\nca_file = {:?}\n\
         [enrolment]\ntoken_file = {:?}\n{more}",
        servers.registration,
        servers.path("ca.pem"),
        servers.path("token"),
    )
}
