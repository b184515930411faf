//! A Detection server that the harness plays: one sensor, one session at a time, and everything
//! that comes judged as it comes.
//!
//! Not here: when to acknowledge, refuse or cut, unless `answers` says so; the cases choose. What
//! was seen of a log outlives the session (`shelf.rs`).

mod judge;
mod say;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{RootCertStore, ServerConfig};

use super::link::{Got, Link, PATIENCE, QUIET};
use super::shelf::Shelf;
use super::wait;
use crate::crypto::authority::{Authority, Usage};
use crate::crypto::identity::{Credentials, Identity, hex};
use crate::crypto::tls::{self, Clients};
use crate::wire::chunk::{CHUNK_BYTES_MAX, Chunk};
use crate::wire::frame::Frame;
use crate::wire::message::{
    Chain, ChainMark, Credit, Hello, Id, Jump, Lane, LogHead, LogVerdict, Message, Ping, Reply,
};
use crate::wire::primitive::{Reader, Wire as _};

/// How long a sensor may take to come back: its window doubles from 2 s, and the machine is busy.
pub const RETURN: Duration = Duration::from_secs(60);
/// FRM-006: what may be sent before the other end said what it takes.
const GREETING_BYTES_MAX: usize = 4_096;
/// LIM-030.
const MARK_CHUNKS: u64 = 64;
/// Credit that nobody reaches.
pub const AMPLE: Credit = Credit { limit_seq: 1_000_000, limit_bytes: 1 << 40 };

/// What one lane was granted in this session.
struct Granted {
    log: Id,
    credit: Credit,
    /// The next sequence that may come.
    expect: u64,
    /// The highest sequence whose bytes were counted, and their sum.
    counted: (u64, u64),
    /// A ChainMark of this sequence is due.
    mark: Option<u64>,
    episode: u32,
}

/// What a HelloAck says of one lane in place of what the shelf says.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The verdict.
    pub verdict: LogVerdict,
    /// What the server takes next.
    pub next_seq: u64,
    /// Its chain before that; `None` for the right one.
    pub chain: Option<Chain>,
}

/// What it does by itself.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Acknowledges each chunk of a lane as it comes.
    pub acks: [bool; 2],
    /// Answers a Hello within a session.
    pub greets: bool,
    /// The credit of each lane, said with HelloAck and each Ack.
    pub credit: [Credit; 2],
    /// Rows that it has room for.
    pub rows_max: u32,
    /// Bytes of the longest frame that it takes.
    pub receive_bytes_max: u32,
    /// Whether the sensor may have dropped what nobody acknowledged: its spool is at its bound.
    pub may_drop: bool,
}

/// The server.
pub struct Station {
    /// Its id.
    pub id: Id,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it does by itself.
    pub answers: Answers,
    /// What was seen of each log.
    pub shelves: BTreeMap<Id, Shelf>,
    /// The Hello of the session, once it came.
    pub hello: Option<Hello>,
    /// Hellos of all sessions.
    pub hellos: u64,
    /// Chunks in the order in which they came in this session: lane and sequence.
    pub came: Vec<(Lane, u64)>,
    /// Replies to our calls.
    pub replies: Vec<Reply>,
    listener: TcpListener,
    config: Arc<ServerConfig>,
    deployment: Id,
    sensor: Id,
    link: Option<Link>,
    granted: [Option<Granted>; 2],
    is_greeted: bool,
    epoch: u64,
    pongs: Vec<u64>,
}

impl Station {
    /// Opens it.
    ///
    /// # Errors
    /// There is no port, or no certificate.
    pub fn open(
        authority: &Authority,
        roots: &Arc<RootCertStore>,
        (deployment, id, sensor): (Id, Id, Id),
    ) -> Result<Self, String> {
        let uri = Identity { deployment, role: "detection".into(), id }.to_string();
        let own = authority.issue(&[uri], Usage::Server).map_err(|error| error.to_string())?;
        let config = tls::server(&own, &[tls::SENSOR], roots, Clients::Certified)
            .map_err(|error| error.to_string())?;
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        listener.set_nonblocking(true).map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        Ok(Self {
            id,
            address,
            answers: Answers {
                acks: [true; 2],
                greets: true,
                credit: [AMPLE; 2],
                rows_max: 65_536,
                receive_bytes_max: CHUNK_BYTES_MAX as u32 + 256,
                may_drop: false,
            },
            shelves: BTreeMap::new(),
            hello: None,
            hellos: 0,
            came: Vec::new(),
            replies: Vec::new(),
            listener,
            config,
            deployment,
            sensor,
            link: None,
            granted: [None, None],
            is_greeted: false,
            epoch: 1 << 32,
            pongs: Vec::new(),
        })
    }

    // --- Connections.

    /// The next connection, with another certificate than its own where one is given; `None` when
    /// nobody comes within `limit`.
    ///
    /// # Errors
    /// The handshake failed.
    pub fn connection(
        &mut self,
        limit: Duration,
        config: Option<&Arc<ServerConfig>>,
    ) -> Option<Result<Link, String>> {
        let found = wait::attempt(limit, || self.listener.accept().ok());
        let (socket, _) = found?;
        if let Err(error) = socket.set_nonblocking(false) {
            return Some(Err(error.to_string()));
        }
        Some(Link::accept(socket, config.unwrap_or(&self.config)))
    }

    /// Whether the sensor wants a connection within `limit`; it is taken and cut.
    pub fn is_wanted_within(&mut self, limit: Duration) -> bool {
        wait::attempt(limit, || self.listener.accept().ok()).is_some()
    }

    /// Takes the sensor's next connection, up to its Hello, which is judged and not answered.
    ///
    /// # Errors
    /// It does not come, is not who it should be, or does not begin with a sound Hello.
    pub fn meet(&mut self) -> Result<(), String> {
        self.granted = [None, None];
        (self.is_greeted, self.hello) = (false, None);
        self.came.clear();
        let link = self.connection(RETURN, None);
        let link = link.ok_or("the sensor does not connect")??;
        let certificate = link.peer_certificate().ok_or("PLN-002: no certificate of the sensor")?;
        let identity = Identity::of_certificate(&certificate)?;
        if identity.role != "sensor" || identity.id != self.sensor {
            return Err(format!("PLN-003: {identity} connects, {} enrolled", hex(&self.sensor)));
        }
        if link.plane().as_deref() != Some(tls::SENSOR) {
            return Err(format!("PLN-002: the plane is {:?}", link.plane()));
        }
        self.link = Some(link);
        self.pump("HEL-001: a Hello", |station| station.hello.is_some())
    }

    /// Takes the next connection and answers its Hello from what was seen and acknowledged.
    ///
    /// # Errors
    /// As [`Self::meet`].
    pub fn welcome(&mut self) -> Result<(), String> {
        self.meet()?;
        self.greet(&[])
    }

    /// Ends the connection at once.
    pub fn cut(&mut self) {
        if let Some(link) = self.link.take() {
            link.cut();
        }
        self.granted = [None, None];
    }

    /// The connection.
    ///
    /// # Errors
    /// There is none.
    pub fn link(&mut self) -> Result<&mut Link, String> {
        self.link.as_mut().ok_or_else(|| "there is no session".into())
    }

    // --- What comes.

    /// Takes what comes until `is_done`.
    ///
    /// # Errors
    /// It does not in time, the sensor closes, or breaks a requirement.
    pub fn pump(&mut self, what: &str, is_done: impl Fn(&Self) -> bool) -> Result<(), String> {
        if self.pump_for(PATIENCE, is_done)? {
            return Ok(());
        }
        Err(format!("{what} did not come in {PATIENCE:?}"))
    }

    /// Takes what comes until `is_done` or `limit` has passed; whether it is done.
    ///
    /// # Errors
    /// The sensor closes, or breaks a requirement.
    pub fn pump_for(
        &mut self,
        limit: Duration,
        is_done: impl Fn(&Self) -> bool,
    ) -> Result<bool, String> {
        let deadline = Instant::now() + limit;
        while !is_done(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.link()?.next(left) {
                Got::Frame(frame) => self.take(&frame)?,
                Got::Closed(how) => return Err(format!("the sensor closed: {how}")),
                Got::Silence => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Takes all that what was said so far leads to: two exchanges of Pings, and a silence.
    ///
    /// # Errors
    /// As [`Self::pump`].
    pub fn settle(&mut self) -> Result<(), String> {
        for nonce in [0x5e77_1e00, 0x5e77_1e01] {
            self.pongs.clear();
            self.link()?.send(Ping { nonce });
            self.pump("FRM-010: a Pong with the nonce", |station| station.pongs.contains(&nonce))?;
        }
        self.pump_for(QUIET, |_| false).map(drop)
    }

    /// Takes what comes until the sensor closes; whether it does within `limit`.
    ///
    /// # Errors
    /// It breaks a requirement.
    pub fn is_left_within(&mut self, limit: Duration) -> Result<bool, String> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.link()?.next(left) {
                Got::Frame(frame) => self.take(&frame)?,
                Got::Closed(_) => break,
                Got::Silence => return Ok(false),
            }
        }
        self.link = None;
        Ok(true)
    }

    /// The sensor must close, whatever it sends before.
    ///
    /// # Errors
    /// It does not.
    pub fn expect_close(&mut self, why: &str) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.link()?.next(left) {
                Got::Frame(frame) if frame.kind == 12 => {
                    return Err("FRM-009: a sensor sends Refused".into());
                }
                Got::Frame(_) => {}
                Got::Closed(_) => break,
                Got::Silence => return Err(format!("{why}: the sensor does not close")),
            }
        }
        self.link = None;
        Ok(())
    }

    fn take(&mut self, frame: &Frame) -> Result<(), String> {
        if frame.flags != 0 {
            return Err(format!("FRM-003: flags {:#x} on kind {}", frame.flags, frame.kind));
        }
        let length = frame.body.len() + 4;
        if !self.is_greeted && length > GREETING_BYTES_MAX {
            return Err(format!("FRM-006: {length} bytes before HelloAck"));
        }
        if self.is_greeted && length > self.answers.receive_bytes_max as usize {
            return Err(format!("FRM-006: {length} bytes, where fewer are taken"));
        }
        if frame.kind == 3 {
            return self.take_chunk(&frame.body);
        }
        let message = Message::decode(frame)
            .map_err(|error| format!("FRM-004: a frame of kind {}: {error}", frame.kind))?;
        match message {
            Some(Message::Pong(pong)) => self.pongs.push(pong.nonce),
            Some(Message::Hello(hello)) => self.take_hello(hello)?,
            _ if !self.is_greeted => {
                return Err(format!("HEL-001: kind {} comes before HelloAck", frame.kind));
            }
            Some(Message::Jump(jump)) => self.take_jump(&jump)?,
            Some(Message::ChainMark(mark)) => self.take_mark(&mark)?,
            Some(Message::Reply(reply)) => self.replies.push(reply),
            _ => return Err(format!("FRM-008: kind {} comes from a sensor", frame.kind)),
        }
        Ok(())
    }

    fn take_hello(&mut self, hello: Hello) -> Result<(), String> {
        judge::hello(&hello)?;
        for head in &hello.logs {
            let new = || Shelf::new(&self.deployment, &self.sensor, head);
            let shelf = self.shelves.entry(head.log).or_insert_with(new);
            judge::head(head, shelf, self.answers.may_drop)?;
        }
        self.granted = [None, None];
        (self.hello, self.hellos) = (Some(hello), self.hellos + 1);
        let was_greeted = std::mem::replace(&mut self.is_greeted, false);
        if was_greeted && self.answers.greets {
            self.greet(&[])?;
        }
        Ok(())
    }

    fn take_chunk(&mut self, bytes: &[u8]) -> Result<(), String> {
        if !self.is_greeted {
            return Err("HEL-001: a chunk comes before HelloAck".into());
        }
        let chunk = Chunk::read(&mut Reader::of_chunk(bytes))
            .map_err(|error| format!("ENC-002: a chunk: {error}"))?;
        let (lane, seq) = (chunk.lane(), chunk.seq);
        let Some(granted) = &mut self.granted[lane as usize] else {
            return Err(format!("HEL-010: chunk {seq} of lane {lane:?}, which has no log here"));
        };
        if seq != granted.expect {
            return Err(format!("LOG-002: chunk {seq} comes, {} was to come", granted.expect));
        }
        if let Some(due) = granted.mark.take() {
            return Err(format!("CHN-002: no ChainMark came behind chunk {due}"));
        }
        granted.expect = seq + 1;
        if seq > granted.counted.0 {
            granted.counted = (seq, granted.counted.1 + bytes.len() as u64);
        }
        let Credit { limit_seq, limit_bytes } = granted.credit;
        if seq > limit_seq || granted.counted.1 > limit_bytes {
            return Err(format!(
                "DLV-007: chunk {seq}, {} bytes, is beyond the credit of {limit_seq}, \
                 {limit_bytes} bytes",
                granted.counted.1
            ));
        }
        granted.mark = seq.is_multiple_of(MARK_CHUNKS).then_some(seq);
        let log = granted.log;
        let shelf = self.shelves.get_mut(&log).ok_or("a log without a Hello")?;
        shelf.take(bytes)?;
        self.came.push((lane, seq));
        if self.answers.acks[lane as usize] {
            self.ack(lane, seq, seq)?;
        }
        Ok(())
    }

    fn take_jump(&mut self, jump: &Jump) -> Result<(), String> {
        let Some(granted) = &mut self.granted[jump.lane as usize] else {
            return Err(format!("HEL-010: {jump:?} of a lane that has no log here"));
        };
        if jump.from_seq != granted.expect {
            return Err(format!("JMP-001: {jump:?}, {} was to come", granted.expect));
        }
        granted.expect = jump.to_seq + 1;
        granted.counted.0 = granted.counted.0.max(jump.to_seq);
        let log = granted.log;
        let shelf = self.shelves.get_mut(&log).ok_or("a log without a Hello")?;
        shelf.jump(jump)?;
        if self.answers.acks[jump.lane as usize] {
            self.ack(jump.lane, jump.to_seq, jump.to_seq)?;
        }
        Ok(())
    }

    fn take_mark(&mut self, mark: &ChainMark) -> Result<(), String> {
        let Some(granted) = &mut self.granted[mark.lane as usize] else {
            return Err("CHN-002: a ChainMark of a lane that has no log here".into());
        };
        if granted.mark.take() != Some(mark.seq) {
            return Err(format!("CHN-002: a ChainMark at {} is out of place", mark.seq));
        }
        let known = self.shelves.get(&granted.log).and_then(|shelf| shelf.chains.get(&mark.seq));
        if known != Some(&mark.chain) {
            return Err(format!("CHN-001: the chain in the mark at {} is another", mark.seq));
        }
        Ok(())
    }

    // --- What is known.

    /// The log of a lane in this session.
    ///
    /// # Errors
    /// The lane has none.
    pub fn log(&self, lane: Lane) -> Result<Id, String> {
        let head = self.head(lane)?;
        Ok(head.log)
    }

    /// What the last Hello says of a lane.
    ///
    /// # Errors
    /// It does not speak of it.
    pub fn head(&self, lane: Lane) -> Result<&LogHead, String> {
        let logs = self.hello.as_ref().map(|hello| hello.logs.as_slice()).unwrap_or_default();
        let found = logs.iter().find(|head| head.lane == lane);
        found.ok_or_else(|| format!("HEL-002: the Hello does not speak of lane {lane:?}"))
    }

    /// What was seen of the lane's log.
    ///
    /// # Errors
    /// The lane has none.
    pub fn shelf(&self, lane: Lane) -> Result<&Shelf, String> {
        let log = self.log(lane)?;
        self.shelves.get(&log).ok_or_else(|| "nothing was seen of the log".into())
    }

    /// The highest sequence that was seen of the lane's log; 0 where there is none.
    #[must_use]
    pub fn seen(&self, lane: Lane) -> u64 {
        self.shelf(lane).map_or(0, Shelf::seen)
    }

    /// What the sensor told of commands: issuer, sequence, outcome.
    #[must_use]
    pub fn outcomes(&self) -> Vec<(u64, u64, u64)> {
        self.shelves.values().flat_map(Shelf::outcomes).collect()
    }
}

/// A server's configuration with other credentials than its own.
///
/// # Errors
/// They are not sound.
pub fn configured(
    credentials: &Credentials,
    roots: &Arc<RootCertStore>,
) -> Result<Arc<ServerConfig>, String> {
    tls::server(credentials, &[tls::SENSOR], roots, Clients::Certified)
        .map_err(|error| error.to_string())
}
