//! The calling end: one connection to a server, kept and made again, with many calls under way on
//! it.
//!
//! Not here: what to call. Invariants: a call ends by its own time whatever the connection does; at
//! most `CALLS_MAX` calls are under way and `CALLS_WAITING_MAX` wait; attempts to connect are
//! spread by full jitter, so that a restarted server is not met by all at the same moment; nothing
//! is called twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::delivery::{Ping, Pong};
use lapwing_protocol::limits::{CALLS_MAX, FRAME_BYTES_MAX, REPLY_BYTES_MAX};
use lapwing_protocol::message::Message;
use smol::Timer;
use smol::channel::{Receiver, Sender, TrySendError};
use smol::lock::Semaphore;

use super::error::{CallError, Failure, PeerFault};
use super::server::{send, write_all};
use super::wire::{FrameReader, PART_BYTES_MAX, Patience, Received, call_frame};
use crate::limits::{
    CALLS_WAITING_MAX, CONNECT_TIME, RECONNECT_MAX, RECONNECT_MIN, SEND_FRAMES_MAX,
};
use crate::runtime::Executor;
use crate::tls::{ClientTls, HandshakeError, connect};

/// Calls one server. Clone it freely: clones share the connection, which ends with the last of
/// them.
#[derive(Clone)]
pub struct PeerClient {
    shared: Arc<Shared>,
    requests: Sender<Request>,
    slots: Arc<Semaphore>,
}

struct Shared {
    name: String,
    addresses: Mutex<Vec<SocketAddr>>,
    connected: AtomicBool,
}

/// A call on its way to the connection.
struct Request {
    method: Method,
    body: Vec<u8>,
    reply: Sender<Result<Vec<u8>, CallError>>,
}

/// A call under way.
struct Pending {
    reply: Sender<Result<Vec<u8>, CallError>>,
    parts: Vec<u8>,
}

impl PeerClient {
    /// A client of the server `name` (for errors and logs) at the first of `addresses` that
    /// answers. Connecting begins at once, on `executor`.
    #[must_use]
    pub fn new(
        executor: &Executor,
        name: &str,
        addresses: Vec<SocketAddr>,
        tls: ClientTls,
    ) -> Self {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            addresses: Mutex::new(addresses),
            connected: AtomicBool::new(false),
        });
        let (requests, queue) = smol::channel::bounded(CALLS_WAITING_MAX);
        executor.spawn(keep_connected(Arc::clone(&shared), tls, queue)).detach();
        Self { shared, requests, slots: Arc::new(Semaphore::new(CALLS_MAX)) }
    }

    /// Calls a method and waits at most `time` for the whole reply.
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::is_outcome_unknown`] tells whether it may have been carried
    /// out.
    pub async fn call(
        &self,
        method: Method,
        body: &[u8],
        time: Duration,
    ) -> Result<Vec<u8>, CallError> {
        if body.len() > PART_BYTES_MAX {
            return Err(CallError::TooLarge);
        }
        let attempt = async {
            let _slot = self.slots.acquire().await;
            let (reply, replied) = smol::channel::bounded(1);
            let request = Request { method, body: body.to_vec(), reply };
            match self.requests.try_send(request) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    return Err(CallError::TooManyCalls { peer: self.shared.name.clone() });
                }
                Err(TrySendError::Closed(_)) => return Err(self.shared.lost("the client ended")),
            }
            // The other half is dropped only by an executor that stops.
            replied.recv().await.unwrap_or_else(|_| Err(self.shared.lost("this server shuts down")))
        };
        let late = async {
            Timer::after(time).await;
            Err(CallError::TimedOut { peer: self.shared.name.clone() })
        };
        smol::future::or(attempt, late).await
    }

    /// The server's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Whether a connection stands.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.connected.load(Ordering::Acquire)
    }

    /// Uses other addresses from the next connection on.
    pub fn set_addresses(&self, addresses: Vec<SocketAddr>) {
        *self.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }
}

impl Shared {
    fn lost(&self, reason: &str) -> CallError {
        CallError::Lost { peer: self.name.clone(), reason: reason.to_owned() }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Connects, serves the queue over the connection, and begins again, until the last client is
/// dropped.
async fn keep_connected(shared: Arc<Shared>, tls: ClientTls, queue: Receiver<Request>) {
    let mut failures: u32 = 0;
    loop {
        let attempted = Instant::now();
        let error = match connect_any(&shared, &tls).await {
            Ok(stream) => {
                shared.connected.store(true, Ordering::Release);
                let mut link = Link::default();
                let fault = link.run(stream, &queue).await;
                shared.connected.store(false, Ordering::Release);
                if queue.is_closed() && queue.is_empty() {
                    return;
                }
                if link.heard {
                    failures = 0;
                }
                link.fail_all(&shared, &fault);
                fault_error(&shared, &fault)
            }
            Err(error) => {
                CallError::Unreachable { peer: shared.name.clone(), reason: error.to_string() }
            }
        };
        if failures == 0 {
            log::info!("{error}; connecting again");
        }
        failures = failures.saturating_add(1);
        if !wait_to_reconnect(attempted, failures, &queue, &error).await {
            return;
        }
    }
}

async fn connect_any(
    shared: &Shared,
    tls: &ClientTls,
) -> Result<futures_rustls::client::TlsStream<crate::socket::Socket>, HandshakeError> {
    let mut last = HandshakeError::Setup(String::from("no address is known"));
    for address in shared.addresses() {
        match connect(address, tls, CONNECT_TIME).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Waits out the backoff. Calls that waited for the attempt that just failed are told at once; a
/// new call cuts the wait short, though never below [`RECONNECT_MIN`] between two attempts. False
/// when no client is left.
async fn wait_to_reconnect(
    attempted: Instant,
    failures: u32,
    queue: &Receiver<Request>,
    error: &CallError,
) -> bool {
    while let Ok(request) = queue.try_recv() {
        // The caller may have given up.
        let _ = request.reply.try_send(Err(error.clone()));
    }
    let until = attempted + RECONNECT_MIN + full_jitter(failures);
    let backoff = async {
        Timer::at(until).await;
    };
    let called = async {
        while queue.is_empty() && !queue.is_closed() {
            Timer::after(Duration::from_millis(20)).await;
        }
        Timer::at(attempted + RECONNECT_MIN).await;
    };
    smol::future::or(backoff, called).await;
    !(queue.is_closed() && queue.is_empty())
}

/// A random part of a wait that doubles with each failure, up to [`RECONNECT_MAX`].
fn full_jitter(failures: u32) -> Duration {
    let mean = RECONNECT_MIN.saturating_mul(1 << failures.min(16)).min(RECONNECT_MAX);
    let mut random = [0; 4];
    // Without randomness the whole wait is taken: slower, never wrong.
    let share = match getrandom::fill(&mut random) {
        Ok(()) => f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    };
    mean.mul_f64(share)
}

fn fault_error(shared: &Shared, fault: &PeerFault) -> CallError {
    let (peer, reason) = (shared.name.clone(), fault.to_string());
    match fault {
        // It will come back, or has room again later: nobody refuses us for good.
        PeerFault::Refused { code: Code::DRAINING | Code::BUSY, .. } => {
            CallError::Unreachable { peer, reason }
        }
        PeerFault::Refused { .. } | PeerFault::CertificateRefused(_) => {
            CallError::Refused { peer, reason }
        }
        _ => CallError::Unreachable { peer, reason },
    }
}

/// One connection's calls.
#[derive(Default)]
struct Link {
    pending: Arc<Mutex<BTreeMap<u32, Pending>>>,
    next_call: u32,
    /// Whether the peer said anything: until then it may be about to refuse us.
    heard: bool,
}

impl Link {
    async fn run(
        &mut self,
        stream: futures_rustls::client::TlsStream<crate::socket::Socket>,
        queue: &Receiver<Request>,
    ) -> PeerFault {
        let (read_half, write_half) = smol::io::split(stream);
        let (frames, outgoing) = smol::channel::bounded(SEND_FRAMES_MAX);
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        let mut reader = FrameReader::new(read_half, &mut buffer, Patience::default());
        let pending = Arc::clone(&self.pending);
        let heard = &mut self.heard;
        let reading = async { receive_all(&mut reader, &pending, &frames, heard).await };
        let next_call = &mut self.next_call;
        let sending = async { submit_all(queue, &pending, &frames, next_call).await };
        let writing = async { write_all(&outgoing, write_half).await };
        // Reading first: when the peer said why it closes, that is the reason, not the broken pipe.
        smol::future::or(reading, smol::future::or(sending, writing)).await
    }

    /// Tells every caller that waits for this connection.
    fn fail_all(&mut self, shared: &Shared, fault: &PeerFault) {
        let pending =
            std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        let error = match fault_error(shared, fault) {
            refused @ CallError::Refused { .. } if !self.heard => refused,
            _ => shared.lost(&fault.to_string()),
        };
        for call in pending.into_values() {
            let _ = call.reply.try_send(Err(error.clone()));
        }
    }
}

/// Moves calls from the queue to the connection.
async fn submit_all(
    queue: &Receiver<Request>,
    pending: &Mutex<BTreeMap<u32, Pending>>,
    frames: &Sender<Vec<u8>>,
    next_call: &mut u32,
) -> PeerFault {
    while let Ok(request) = queue.recv().await {
        if request.reply.is_closed() {
            continue; // its caller gave up while it waited
        }
        let call = *next_call;
        *next_call = next_call.wrapping_add(1);
        let Some(frame) = call_frame(call, request.method, &request.body) else {
            let _ = request.reply.try_send(Err(CallError::TooLarge));
            continue;
        };
        {
            let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
            let abandoned = pending.values().filter(|call| call.reply.is_closed()).count();
            if abandoned >= CALLS_MAX {
                let _ = request.reply.try_send(Err(CallError::Remote(Failure::new(
                    Code::BUSY,
                    "the server leaves calls unanswered; connecting to it again",
                ))));
                return PeerFault::Stuck;
            }
            pending.insert(call, Pending { reply: request.reply, parts: Vec::new() });
        }
        if frames.send(frame).await.is_err() {
            break;
        }
    }
    // No client is left: nobody waits for anything.
    PeerFault::Gone
}

/// What came, once it is out of the buffer.
enum Came {
    Ended(Option<(Pending, Code)>),
    More,
    TooLarge,
    Pong(u64),
    Nothing,
    Unasked(u32),
    Refused(Code, String),
    Fault(&'static str),
}

async fn receive_all<R: smol::io::AsyncRead + Unpin>(
    reader: &mut FrameReader<'_, R>,
    pending: &Mutex<BTreeMap<u32, Pending>>,
    frames: &Sender<Vec<u8>>,
    heard: &mut bool,
) -> PeerFault {
    let mut nonce = 0;
    loop {
        let received = reader.next(|message| visit(message, pending)).await;
        let came = match received {
            Ok(Received::Message(came)) => came,
            Ok(Received::Silence) => {
                nonce += 1;
                send(frames, &Message::Ping(Ping { nonce })).await;
                continue;
            }
            Err(fault) => return fault,
        };
        *heard |= !matches!(came, Came::Refused(..));
        match came {
            Came::Ended(Some((call, code))) => {
                let result = match code {
                    Code::OK => Ok(call.parts),
                    _ => Err(CallError::Remote(failure(code, &call.parts))),
                };
                // The caller may have given up.
                let _ = call.reply.try_send(result);
            }
            Came::Ended(None) | Came::More | Came::Nothing => {}
            Came::Pong(nonce) => send(frames, &Message::Pong(Pong { nonce })).await,
            Came::Unasked(call) => {
                for frame in
                    super::wire::reply_frames(call, Code::UNSUPPORTED, b"this end serves no calls")
                {
                    let _ = frames.send(frame).await;
                }
            }
            Came::TooLarge => return PeerFault::ReplyTooLarge,
            Came::Refused(code, detail) => return PeerFault::Refused { code, detail },
            Came::Fault(what) => return PeerFault::OutOfPlace(what),
        }
    }
}

fn visit(message: Message<'_>, pending: &Mutex<BTreeMap<u32, Pending>>) -> Came {
    match message {
        Message::Reply(reply) => {
            let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(call) = pending.get_mut(&reply.call) else {
                return Came::Fault("Reply without a call");
            };
            if call.parts.len() + reply.body.len() > REPLY_BYTES_MAX {
                return Came::TooLarge;
            }
            // Nobody waits for an abandoned call's parts: they are counted as nothing and not kept.
            if !call.reply.is_closed() {
                call.parts.extend_from_slice(reply.body);
            }
            if reply.more {
                return Came::More;
            }
            Came::Ended(pending.remove(&reply.call).map(|call| (call, reply.code)))
        }
        Message::Ping(ping) => Came::Pong(ping.nonce),
        Message::Pong(_) => Came::Nothing,
        Message::Call(call) => Came::Unasked(call.call),
        Message::Refused(refused) => {
            Came::Refused(refused.code, crate::logging::escaped(refused.detail))
        }
        _ => Came::Fault("message of another plane"),
    }
}

fn failure(code: Code, text: &[u8]) -> Failure {
    Failure::new(code, crate::logging::escaped(&String::from_utf8_lossy(text)))
}
