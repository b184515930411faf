//! One TLS connection with frames on it, blocking, with deadlines.
//!
//! Invariant: nothing waits longer than it was told to; a peer that closes, in whatever way, is an
//! answer and no error of ours.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection, StreamOwned,
};

use crate::wire::code;
use crate::wire::frame::{Cutter, Frame};
use crate::wire::message::{Call, Message, Ping, Pong, Refused, Reply};
use crate::wire::method::REPORT;

/// How long an answer that must come may take, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// How long silence is listened to where nothing must come, after an exchange of Pings.
pub const QUIET: Duration = Duration::from_millis(150);

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// A frame.
    Frame(Frame),
    /// The peer closed; how.
    Closed(String),
    /// Nothing, for as long as was asked.
    Silence,
}

enum Tls {
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

/// A connection.
pub struct Link {
    tls: Tls,
    cutter: Cutter,
    closed: Option<String>,
    /// Frames that came while others were waited for.
    set_aside: Vec<Frame>,
    /// What a played sensor answers to `report`; without it there is nothing to tell.
    pub report: Option<Vec<u8>>,
    /// How often it was told.
    pub reported: u64,
}

impl Link {
    /// Connects, up to the end of our side of the handshake. A server that refuses a client's
    /// certificate says so only later, as a close.
    ///
    /// # Errors
    /// There is no connection or no handshake; the text says why.
    pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<Self, String> {
        let socket = socket(address)?;
        let name = ServerName::IpAddress(address.ip().into());
        let mut connection = ClientConnection::new(Arc::clone(config), name)
            .map_err(|error| format!("TLS: {error}"))?;
        let mut socket = socket;
        while connection.is_handshaking() {
            connection
                .complete_io(&mut socket)
                .map_err(|error| format!("the handshake failed: {error}"))?;
        }
        let tls = Tls::Client(Box::new(StreamOwned::new(connection, socket)));
        Ok(Self {
            tls,
            cutter: Cutter::default(),
            closed: None,
            set_aside: Vec::new(),
            report: None,
            reported: 0,
        })
    }

    /// Answers a connection that was accepted.
    ///
    /// # Errors
    /// There is no handshake; the text says why.
    pub fn accept(mut socket: TcpStream, config: &Arc<ServerConfig>) -> Result<Self, String> {
        let prepared = socket
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| socket.set_write_timeout(Some(PATIENCE)))
            .and_then(|()| socket.set_nodelay(true));
        prepared.map_err(|error| error.to_string())?;
        let mut connection =
            ServerConnection::new(Arc::clone(config)).map_err(|error| format!("TLS: {error}"))?;
        while connection.is_handshaking() {
            connection
                .complete_io(&mut socket)
                .map_err(|error| format!("the handshake failed: {error}"))?;
        }
        let tls = Tls::Server(Box::new(StreamOwned::new(connection, socket)));
        Ok(Self {
            tls,
            cutter: Cutter::default(),
            closed: None,
            set_aside: Vec::new(),
            report: None,
            reported: 0,
        })
    }

    /// The peer's certificate, DER.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        let chain = match &self.tls {
            Tls::Client(stream) => stream.conn.peer_certificates(),
            Tls::Server(stream) => stream.conn.peer_certificates(),
        };
        chain.and_then(|chain| chain.first()).map(|certificate| certificate.to_vec())
    }

    /// The plane that was chosen.
    #[must_use]
    pub fn plane(&self) -> Option<String> {
        let alpn = match &self.tls {
            Tls::Client(stream) => stream.conn.alpn_protocol(),
            Tls::Server(stream) => stream.conn.alpn_protocol(),
        };
        alpn.map(|name| String::from_utf8_lossy(name).into_owned())
    }

    /// Whether an earlier session of TLS was resumed, and whether early data was taken.
    #[must_use]
    pub fn resumed(&self) -> (bool, bool) {
        match &self.tls {
            Tls::Client(stream) => (
                stream.conn.handshake_kind() == Some(HandshakeKind::Resumed),
                stream.conn.is_early_data_accepted(),
            ),
            Tls::Server(_) => (false, false),
        }
    }

    fn tcp(&self) -> &TcpStream {
        match &self.tls {
            Tls::Client(stream) => &stream.sock,
            Tls::Server(stream) => &stream.sock,
        }
    }

    /// Sends bytes as they are. A peer that closed already is found when reading.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let sent = match &mut self.tls {
            Tls::Client(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Tls::Server(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        };
        drop(sent);
    }

    /// Sends a frame.
    pub fn send_frame(&mut self, frame: &Frame) {
        self.send_bytes(&frame.to_bytes());
    }

    /// Sends a message.
    pub fn send(&mut self, message: impl Into<Message>) {
        self.send_frame(&message.into().frame());
    }

    fn is_client(&self) -> bool {
        matches!(self.tls, Tls::Client(_))
    }

    /// A server may ask a sensor at any time; a played one has little to tell.
    fn answer(&mut self, call: &Call) {
        let told = self.report.clone().filter(|_| call.method == REPORT);
        self.reported += u64::from(told.is_some());
        let code = if told.is_some() { 0 } else { code::UNSUPPORTED };
        let body = told.unwrap_or_else(|| b"nothing to tell".to_vec());
        self.send(Reply { call: call.call, more: false, code, body });
    }

    /// The next frame, set aside or new, within `limit`. Pings are answered and not given; so are
    /// calls of a server.
    pub fn next(&mut self, limit: Duration) -> Got {
        if !self.set_aside.is_empty() {
            return Got::Frame(self.set_aside.remove(0));
        }
        self.next_new(limit)
    }

    fn next_new(&mut self, limit: Duration) -> Got {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(frame) = self.cutter.next_frame() {
                match Message::decode(&frame) {
                    Ok(Some(Message::Ping(Ping { nonce }))) => self.send(Pong { nonce }),
                    Ok(Some(Message::Call(call))) if self.is_client() => self.answer(&call),
                    _ => return Got::Frame(frame),
                }
                continue;
            }
            if let Some(how) = &self.closed {
                return Got::Closed(how.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Got::Silence;
            }
            self.receive(left);
        }
    }

    /// The next frame of any kind within `limit`, Pings included.
    pub fn next_raw(&mut self, limit: Duration) -> Got {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(frame) = self.cutter.next_frame() {
                return Got::Frame(frame);
            }
            if let Some(how) = &self.closed {
                return Got::Closed(how.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Got::Silence;
            }
            self.receive(left);
        }
    }

    fn receive(&mut self, limit: Duration) {
        let _ = self.tcp().set_read_timeout(Some(limit.max(Duration::from_millis(1))));
        let mut buffer = [0; 16_384];
        let read = match &mut self.tls {
            Tls::Client(stream) => stream.read(&mut buffer),
            Tls::Server(stream) => stream.read(&mut buffer),
        };
        match read {
            Ok(0) => self.closed = Some("closed".into()),
            Ok(length) => self.cutter.feed(&buffer[..length]),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                _ => self.closed = Some(error.to_string()),
            },
        }
    }

    /// The first message that `pick` takes; the others are set aside.
    ///
    /// # Errors
    /// The peer closed, sent bytes that are no message, or did not send such a one in time.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(&Message) -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + PATIENCE;
        let aside = std::mem::take(&mut self.set_aside);
        for (at, frame) in aside.iter().enumerate() {
            if let Some(found) = decoded(frame)?.as_ref().and_then(&mut pick) {
                self.set_aside.extend(aside[..at].iter().cloned());
                self.set_aside.extend(aside[at + 1..].iter().cloned());
                return Ok(found);
            }
        }
        self.set_aside = aside;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next_new(left) {
                Got::Frame(frame) => {
                    let message = decoded(&frame)?;
                    if let Some(found) = message.as_ref().and_then(&mut pick) {
                        return Ok(found);
                    }
                    if let Some(Message::Refused(refused)) = message {
                        return Err(format!("{what} was to come, but {}", said(&refused)));
                    }
                    self.set_aside.push(frame);
                }
                Got::Closed(how) => return Err(format!("{what} was to come, but: {how}")),
                Got::Silence => return Err(format!("{what} did not come in {PATIENCE:?}")),
            }
        }
    }

    /// Everything that what was sent so far leads to without waiting for the disk: two exchanges of
    /// Pings, then a short silence.
    ///
    /// # Errors
    /// A frame that is no message; a Ping that is not answered.
    pub fn settle(&mut self) -> Result<Vec<Message>, String> {
        for nonce in [0x51de_0001, 0x51de_0002] {
            self.send(Ping { nonce });
            let deadline = Instant::now() + PATIENCE;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                match self.next_new(left) {
                    Got::Frame(frame) => match decoded(&frame)? {
                        Some(Message::Pong(pong)) if pong.nonce == nonce => break,
                        _ => self.set_aside.push(frame),
                    },
                    Got::Closed(_) => return self.drain(),
                    Got::Silence => return Err("a Ping was not answered".into()),
                }
            }
        }
        loop {
            match self.next_new(QUIET) {
                Got::Frame(frame) => self.set_aside.push(frame),
                Got::Closed(_) | Got::Silence => return self.drain(),
            }
        }
    }

    fn drain(&mut self) -> Result<Vec<Message>, String> {
        let frames = std::mem::take(&mut self.set_aside);
        frames.iter().filter_map(|frame| decoded(frame).transpose()).collect()
    }

    /// The refusal with which the peer closes, and that it does close behind it; what else comes
    /// before is dropped. `None` for a peer that closes without a word.
    ///
    /// # Errors
    /// It does not close.
    pub fn refusal(&mut self) -> Result<Option<Refused>, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut found = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next(left) {
                Got::Frame(frame) => {
                    if let Some(refused) = &found {
                        return Err(format!(
                            "FRM-009: kind {} came behind {refused:?}",
                            frame.kind
                        ));
                    }
                    if let Some(Message::Refused(refused)) = decoded(&frame)? {
                        found = Some(refused);
                    }
                }
                Got::Closed(_) => return Ok(found),
                Got::Silence => return Err("the peer does not close".into()),
            }
        }
    }

    /// Whether the peer has closed, looked at for `limit`; frames that come are set aside.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            match self.next_new(deadline.saturating_duration_since(Instant::now())) {
                Got::Frame(frame) => self.set_aside.push(frame),
                Got::Closed(_) => return true,
                Got::Silence => return false,
            }
        }
    }

    /// Ends the connection at once, without a word of TLS.
    pub fn cut(self) {
        let _ = self.tcp().shutdown(std::net::Shutdown::Both);
    }
}

/// A refusal as a person reads it.
#[must_use]
pub fn said(refused: &Refused) -> String {
    let name = code::name(refused.code);
    format!("the peer refused with {name}: {:?}", refused.detail)
}

fn decoded(frame: &Frame) -> Result<Option<Message>, String> {
    Message::decode(frame).map_err(|error| format!("a frame of kind {}: {error}", frame.kind))
}

/// A plain connection, with timeouts.
///
/// # Errors
/// There is none; the text says why.
pub fn socket(address: SocketAddr) -> Result<TcpStream, String> {
    let socket = TcpStream::connect_timeout(&address, PATIENCE)
        .map_err(|error| format!("cannot connect to {address}: {error}"))?;
    let prepared = socket
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| socket.set_write_timeout(Some(PATIENCE)))
        .and_then(|()| socket.set_nodelay(true));
    prepared.map_err(|error| error.to_string())?;
    Ok(socket)
}
