//! What the WebApp asks of its peers: one file a peer, owned views out.
//!
//! Not here: connections (transport.rs) and who may ask (web/). Invariants: every question has a
//! time; what one Detection server cannot answer is said, never left out in silence.

mod detection;
mod fleet;
mod intel;
mod ledger;
mod malops;
mod registration;
mod supervisor;
mod tagging;
mod transport;
mod update;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lapwing_net::peer::{CallError, to_body};
use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::registration::ServerRole;
use serde::Serialize;

pub(crate) use detection::EventCursor;
pub(crate) use fleet::BatchLine;
pub(crate) use ledger::Verification;
pub(crate) use malops::MalOpCursor;
pub(crate) use transport::PeerTransport;

use crate::limits::CALL_TIME;

/// A peer of the WebApp. Detection servers are numbered as in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Assigns sensors.
    Registration,
    /// A Detection server's console.
    Detection(usize),
    /// A Detection server's malware port.
    Malware(usize),
    /// The organisation's own intel.
    IntelPrivate,
    /// The shared intel.
    IntelGlobal,
    /// Hosts updates.
    Update,
    /// Decides on MalOps.
    MalOps,
    /// Tags.
    Tagging,
    /// Sensor management.
    Fleet,
    /// What started the servers of this machine.
    Supervisor,
}

/// What a transport's call comes to.
pub type CallResult = Result<Vec<u8>, CallError>;

/// Carries a call to a peer. The real one speaks TLS; tests answer from memory.
pub trait Transport: Send + Sync + 'static {
    /// Calls `method` of `peer` and waits at most `time` for the whole reply.
    fn call(
        &self,
        peer: Peer,
        method: Method,
        body: Vec<u8>,
        time: Duration,
    ) -> Pin<Box<dyn Future<Output = CallResult> + Send + '_>>;

    /// The peers that there are, each with its name for people.
    fn peers(&self) -> Vec<(Peer, String)>;
}

/// Why a peer's answer is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BackendError {
    /// The registry's number.
    pub(crate) code: Code,
    /// For a person: names the server and what is wrong.
    pub(crate) message: String,
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl BackendError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn unreadable(server: &str, error: DecodeError) -> Self {
        let message = format!("the answer of {server} cannot be read: {error}");
        Self::new(Code::MALFORMED, message)
    }
}

/// The peers, as a set of questions.
#[derive(Clone)]
pub(crate) struct Backend {
    transport: Arc<dyn Transport>,
}

impl Backend {
    pub(crate) fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    /// The Detection servers, each with its name.
    pub(crate) fn detections(&self) -> Vec<(usize, String)> {
        let peers = self.transport.peers().into_iter();
        peers
            .filter_map(|(peer, name)| match peer {
                Peer::Detection(number) => Some((number, name)),
                Peer::Registration
                | Peer::Malware(_)
                | Peer::IntelPrivate
                | Peer::IntelGlobal
                | Peer::Update
                | Peer::MalOps
                | Peer::Tagging
                | Peer::Fleet
                | Peer::Supervisor => None,
            })
            .collect()
    }

    fn name_of(&self, peer: Peer) -> Option<String> {
        self.transport.peers().into_iter().find(|(other, _)| *other == peer).map(|(_, name)| name)
    }

    /// Whether the configuration names this peer.
    pub(crate) fn has(&self, peer: Peer) -> bool {
        self.name_of(peer).is_some()
    }

    /// Asks, and hands the reply's bytes to `read`.
    async fn ask<R, V>(
        &self,
        peer: Peer,
        method: Method,
        request: &R,
        read: impl FnOnce(&[u8]) -> Result<V, DecodeError>,
    ) -> Result<V, BackendError>
    where
        R: Serialize + Sync,
    {
        self.ask_within(peer, method, request, CALL_TIME, read).await
    }

    async fn ask_within<R, V>(
        &self,
        peer: Peer,
        method: Method,
        request: &R,
        time: Duration,
        read: impl FnOnce(&[u8]) -> Result<V, DecodeError>,
    ) -> Result<V, BackendError>
    where
        R: Serialize + Sync,
    {
        let body =
            to_body(request).map_err(|failure| BackendError::new(failure.code, failure.text))?;
        self.ask_bytes(peer, method, body, time, read).await
    }

    /// Asks with an encoded body; an empty request is no bytes.
    async fn ask_bytes<V>(
        &self,
        peer: Peer,
        method: Method,
        body: Vec<u8>,
        time: Duration,
        read: impl FnOnce(&[u8]) -> Result<V, DecodeError>,
    ) -> Result<V, BackendError> {
        let Some(name) = self.name_of(peer) else {
            let message =
                format!("there is no {} here; start it and name it in `[peers]`", noun(peer));
            return Err(BackendError::new(Code::UNREACHABLE, message));
        };
        let reply = self.transport.call(peer, method, body, time).await.map_err(|error| {
            let message = match &error {
                CallError::Remote(failure) => format!("{name}: {}", failure.text),
                other => other.to_string(),
            };
            BackendError::new(error.code(), message)
        })?;
        read(&reply).map_err(|error| BackendError::unreadable(&name, error))
    }
}

/// What a peer is called where none is configured.
pub(crate) const fn noun(peer: Peer) -> &'static str {
    match peer {
        Peer::Registration => "Registration server",
        Peer::Detection(_) | Peer::Malware(_) => "Detection server",
        Peer::IntelPrivate => "Private Threat Intel server",
        Peer::IntelGlobal => "Global Threat Intel server",
        Peer::Update => "Update server",
        Peer::MalOps => "MalOp service",
        Peer::Tagging => "tagging service",
        Peer::Fleet => "sensor management",
        Peer::Supervisor => "supervisor (`lapwing up`)",
    }
}

/// The role a peer's certificate must name; the supervisor speaks as the operator's command.
pub(crate) const fn role(peer: Peer) -> Option<ServerRole> {
    match peer {
        Peer::Registration => Some(ServerRole::Registration),
        Peer::Detection(_) | Peer::Malware(_) => Some(ServerRole::Detection),
        Peer::IntelPrivate => Some(ServerRole::IntelPrivate),
        Peer::IntelGlobal => Some(ServerRole::IntelGlobal),
        Peer::Update => Some(ServerRole::Update),
        Peer::MalOps => Some(ServerRole::MalOps),
        Peer::Tagging => Some(ServerRole::Tagging),
        Peer::Fleet => Some(ServerRole::Fleet),
        Peer::Supervisor => None,
    }
}

/// Reads a reply that must be empty.
pub(crate) fn nothing(reply: &[u8]) -> Result<(), DecodeError> {
    if reply.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
}

/// Runs one future for each, side by side, and gives the outputs in order.
pub(crate) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> =
        futures.into_iter().map(|future| Slot::Running(Box::pin(future))).collect();
    std::future::poll_fn(move |context| {
        let mut is_done = true;
        for slot in &mut running {
            if let Slot::Running(future) = slot {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(output) => *slot = Slot::Done(Some(output)),
                    std::task::Poll::Pending => is_done = false,
                }
            }
        }
        if !is_done {
            return std::task::Poll::Pending;
        }
        let outputs = running.iter_mut().filter_map(|slot| match slot {
            Slot::Done(output) => output.take(),
            Slot::Running(_) => None,
        });
        std::task::Poll::Ready(outputs.collect())
    })
    .await
}

enum Slot<F: Future> {
    Running(Pin<Box<F>>),
    Done(Option<F::Output>),
}

impl<F: Future> Unpin for Slot<F> {}
