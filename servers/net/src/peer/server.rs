//! The answering end: takes calls from a connection, runs them side by side, replies.
//!
//! Not here: methods. Invariants: at most `CALLS_MAX` calls of one connection run at once, one more
//! is answered `busy`; when the connection ends, its calls end; a call that panics is answered
//! `internal`.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::delivery::{Ping, Pong, Refused};
use lapwing_protocol::limits::{
    CALLS_MAX, FRAME_BYTES_MAX, FRAME_BYTES_UNAUTHENTICATED_MAX, REPLY_BYTES_MAX,
};
use lapwing_protocol::message::Message;
use smol::Timer;
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt as _;
use smol::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::error::{Failure, PeerFault};
use super::wire::{FrameReader, Patience, Received, frame, reply_frames};
use crate::identity::PeerIdentity;
use crate::limits::{ENROL_TIME, PARTING_TIME, PEER_DRAIN_TIME, SEND_FRAMES_MAX};
use crate::listener::{Connection, Fault};
use crate::runtime::Executor;
use crate::shutdown::{self, Shutdown};
use crate::tls::Plane;

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// On which plane.
    pub plane: Plane,
    /// Who it is by its certificate; none on the enrol plane.
    pub identity: Option<PeerIdentity>,
    /// The SHA-256 of its public key; none where `identity` is none.
    pub key_digest: Option<[u8; 32]>,
    /// From where.
    pub source: SocketAddr,
}

/// What answers calls.
pub trait Service: Send + Sync + 'static {
    /// Answers one call with the reply's body. May wait (a long poll); is dropped when the
    /// connection ends.
    fn call(
        &self,
        caller: Caller,
        method: Method,
        body: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, Failure>> + Send;
}

impl<F, R> Service for F
where
    F: Fn(Caller, Method, Vec<u8>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Vec<u8>, Failure>> + Send,
{
    fn call(
        &self,
        caller: Caller,
        method: Method,
        body: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, Failure>> + Send {
        self(caller, method, body)
    }
}

/// Answers the calls of one connection until the peer goes or the server shuts down.
///
/// # Errors
/// The peer misbehaved.
pub async fn serve<S: Service>(
    executor: Executor,
    connection: Connection,
    service: Arc<S>,
) -> Result<(), Fault> {
    let Connection { plane, peer, key_digest, source, stream, shutdown } = connection;
    let caller = Caller { plane, identity: peer, key_digest, source };
    let frame_bytes_max = match plane {
        Plane::Peer => FRAME_BYTES_MAX,
        // What sensors ask outside of their sessions is small, and there may be many of them.
        Plane::Enrol | Plane::Sensor | Plane::Http => FRAME_BYTES_UNAUTHENTICATED_MAX,
    };
    let (read_half, write_half) = smol::io::split(stream);
    let (frames, queue) = smol::channel::bounded(SEND_FRAMES_MAX);
    let (end, ended) = shutdown::pair();
    let calls = Calls {
        executor,
        service,
        caller,
        frames: frames.clone(),
        running: Arc::new(AtomicUsize::new(0)),
        ended,
    };
    let mut buffer = vec![0; frame_bytes_max];
    let mut reader = FrameReader::new(read_half, &mut buffer, Patience::default());
    let mut why = None;
    let speaking = async {
        let fault = speak(&mut reader, &calls, &shutdown).await;
        let parting = part_with(&mut reader, &frames, &fault).await;
        why = Some(fault);
        parting
    };
    let writing = async { write_all(&queue, write_half).await };
    let broken = smol::future::or(speaking, writing).await;
    end.begin();
    let fault = why.unwrap_or(broken);
    if fault.is_misbehaviour() { Err(Box::new(fault)) } else { Ok(()) }
}

/// Answers until the peer is gone or at fault, or the server shuts down.
async fn speak<R: AsyncRead + Unpin, S: Service>(
    reader: &mut FrameReader<'_, R>,
    calls: &Calls<S>,
    shutdown: &Shutdown,
) -> PeerFault {
    let draining = async {
        shutdown.begun().await;
        calls.drain().await;
        PeerFault::Drained
    };
    let late = async {
        if calls.caller.identity.is_some() {
            std::future::pending::<()>().await;
        }
        Timer::after(ENROL_TIME).await;
        PeerFault::Idle
    };
    let reading = async { answer_all(reader, calls).await };
    smol::future::or(reading, smol::future::or(draining, late)).await
}

/// Tells the peer why the connection ends, closes it, and waits a moment for the peer to close too:
/// a socket that is dropped with bytes unread would take what was told with it.
async fn part_with<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<'_, R>,
    frames: &Sender<Vec<u8>>,
    fault: &PeerFault,
) -> PeerFault {
    let Some((code, retry_after_ms)) = fault.refusal() else { return PeerFault::Gone };
    let detail = fault.to_string();
    let parting = async {
        let refused = Refused { code, retry_after_ms, detail: &detail };
        send(frames, &Message::Refused(refused)).await;
        frames.close();
        reader.discard().await;
        PeerFault::Gone
    };
    let late = async {
        Timer::after(PARTING_TIME).await;
        PeerFault::Gone
    };
    smol::future::or(parting, late).await
}

/// What to do with a message, once it is out of the buffer.
enum Task {
    Run(u32, Method, Vec<u8>),
    Pong(u64),
    Nothing,
    Fault(&'static str),
}

async fn answer_all<R: AsyncRead + Unpin, S: Service>(
    reader: &mut FrameReader<'_, R>,
    calls: &Calls<S>,
) -> PeerFault {
    let frames = &calls.frames;
    let mut nonce = 0;
    loop {
        let received = reader.next(|message| match message {
            Message::Call(call) => Task::Run(call.call, call.method, call.body.to_vec()),
            Message::Ping(ping) => Task::Pong(ping.nonce),
            Message::Pong(_) => Task::Nothing,
            Message::Reply(_) => Task::Fault("Reply without a call"),
            _ => Task::Fault("message of another plane"),
        });
        match received.await {
            Ok(Received::Message(Task::Run(call, method, body))) => {
                calls.start(call, method, body).await
            }
            Ok(Received::Message(Task::Pong(nonce))) => {
                send(frames, &Message::Pong(Pong { nonce })).await;
            }
            Ok(Received::Message(Task::Nothing)) => {}
            Ok(Received::Message(Task::Fault(what))) => return PeerFault::OutOfPlace(what),
            Ok(Received::Silence) => {
                nonce += 1;
                send(frames, &Message::Ping(Ping { nonce })).await;
            }
            Err(fault) => return fault,
        }
    }
}

/// Writes what is queued until the queue is closed and empty.
pub(super) async fn write_all<W: AsyncWrite + Unpin>(
    queue: &Receiver<Vec<u8>>,
    mut stream: W,
) -> PeerFault {
    while let Ok(frame) = queue.recv().await {
        let written = async {
            stream.write_all(&frame).await?;
            // More waits already: let it share the record's flush.
            if queue.is_empty() { stream.flush().await } else { Ok(()) }
        };
        if let Err(error) = written.await {
            return PeerFault::from_io(&error);
        }
    }
    // The peer may be gone already; we are done either way. Whoever closed the queue ends the
    // connection.
    let _ = stream.close().await;
    std::future::pending().await
}

/// Queues a message of our own; does nothing once the connection ends.
pub(super) async fn send(frames: &Sender<Vec<u8>>, message: &Message<'_>) {
    if let Some(frame) = frame(message, 256) {
        let _ = frames.send(frame).await;
    }
}

/// The calls of one connection.
struct Calls<S> {
    executor: Executor,
    service: Arc<S>,
    caller: Caller,
    frames: Sender<Vec<u8>>,
    running: Arc<AtomicUsize>,
    ended: Shutdown,
}

/// Counts a running call for as long as it lives.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<S: Service> Calls<S> {
    async fn start(&self, call: u32, method: Method, body: Vec<u8>) {
        // Only this connection's reader adds, so the count cannot pass the bound between the two
        // lines.
        if self.running.load(Ordering::Acquire) >= CALLS_MAX {
            let text = format!("{CALLS_MAX} calls are under way on this connection");
            reply(&self.frames, call, Err(Failure::new(Code::BUSY, text))).await;
            return;
        }
        self.running.fetch_add(1, Ordering::AcqRel);
        let running = Running(Arc::clone(&self.running));
        let (service, caller, frames) =
            (Arc::clone(&self.service), self.caller, self.frames.clone());
        let ended = self.ended.clone();
        let work = async move {
            let _running = running;
            let answered = AssertUnwindSafe(async { service.call(caller, method, body).await })
                .catch_unwind()
                .await;
            let result = answered.unwrap_or_else(|_| {
                log::error!("{}: the call of method {} panicked", caller.source, method.0);
                Err(Failure::new(
                    Code::INTERNAL,
                    "this is a fault of the server; its log tells more",
                ))
            });
            reply(&frames, call, result).await;
        };
        let task = async move { smol::future::or(work, ended.begun()).await };
        self.executor.spawn(task).detach();
    }

    /// Waits until no call runs, for a bounded time.
    async fn drain(&self) {
        let idle = async {
            while self.running.load(Ordering::Acquire) > 0 {
                Timer::after(std::time::Duration::from_millis(20)).await;
            }
        };
        smol::future::or(idle, async {
            Timer::after(PEER_DRAIN_TIME).await;
        })
        .await;
    }
}

async fn reply(frames: &Sender<Vec<u8>>, call: u32, result: Result<Vec<u8>, Failure>) {
    let too_large = || {
        let text = format!("the reply would have more than {REPLY_BYTES_MAX} bytes; ask for less");
        Failure::new(Code::TOO_LARGE, text)
    };
    let result = match result {
        Ok(body) if body.len() > REPLY_BYTES_MAX => Err(too_large()),
        other => other,
    };
    let (code, body) = match result {
        Ok(body) => (Code::OK, body),
        Err(failure) => (failure.code, failure.text.into_bytes()),
    };
    for frame in reply_frames(call, code, &body) {
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}
