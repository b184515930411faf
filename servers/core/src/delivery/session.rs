//! One connection of a sensor: greeting, liveness, and what goes out.
//!
//! The shell cuts the byte stream into frames ([`lapwing_protocol::frame::Deframer`]), hands each
//! to [`Session::handle_frame`], acts on the event, and drains [`Session::poll_transmit`].

use std::collections::VecDeque;

use lapwing_protocol::buggify;
use lapwing_protocol::call::{Call, Method, Reply};
use lapwing_protocol::code::Code;
use lapwing_protocol::command::{Command, CommandNumber};
use lapwing_protocol::delivery::{Draining, Ping, Pong, Refused};
use lapwing_protocol::digest::Chain;
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::frame::Frame;
use lapwing_protocol::hello::{
    Hello, HelloAck, LogCause, LogGrant, LogHead, LogParent, Memory, PROTOCOL_VERSION,
};
use lapwing_protocol::id::{BootId, ServerId};
use lapwing_protocol::limits::{
    FRAME_BYTES_MAX, IDLE_MS_MAX, NAME_BYTES_MAX, PING_MS, RECEIVE_BYTES_MIN,
};
use lapwing_protocol::message::Message;

use super::limits::{
    FRAME_MS_MAX, FRAME_PROGRESS_MS_MAX, FRAMES_BURST, HELLO_FRAMES, HELLO_MS_MAX, OUTGOING_MAX,
};
use super::pace::Pace;
use super::receiver::{Entry, EntryKind, Offer, PeerFault, Receiver};

/// What a server says of itself in each HelloAck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offerings {
    /// Which server this is.
    pub server: ServerId,
    /// Its name.
    pub name: String,
    /// Largest frame it takes, in bytes.
    pub receive_bytes_max: u32,
    /// Rows it keeps for one sensor.
    pub rows_max: u32,
}

/// What a sensor said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Its machine's name.
    pub name: String,
    /// Its machine's operating system.
    pub os: String,
    /// Its agent's name and version.
    pub agent: String,
    /// Which boot.
    pub boot: BootId,
    /// Whether it collects.
    pub collecting: bool,
    /// Whether its spool survives.
    pub memory: Memory,
    /// The highest command it accepted.
    pub last_command: Option<CommandNumber>,
    /// What it said of its logs, and what it was answered.
    pub logs: Vec<GreetedLog>,
}

/// What a Hello and its answer say of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GreetedLog {
    /// Why the log was opened.
    pub cause: LogCause,
    /// The log before it.
    pub parent: Option<LogParent>,
    /// The oldest chunk that the sensor can still send.
    pub first_seq: u64,
    /// The sequence that it will use next.
    pub made_seq: u64,
    /// The index that it will give next.
    pub made_index: u64,
    /// The highest sequence that some server acknowledged; 0 when none.
    pub acked_seq: u64,
    /// The chain after it, by the sensor's word.
    pub acked_chain: Chain,
    /// What this server answered.
    pub grant: LogGrant,
}

impl GreetedLog {
    fn new(head: &LogHead<'_>, grant: LogGrant) -> Self {
        Self {
            cause: head.cause,
            parent: head.parent,
            first_seq: head.first_seq,
            made_seq: head.next_seq,
            made_index: head.next_index,
            acked_seq: head.acked_seq,
            acked_chain: head.acked_chain,
            grant,
        }
    }
}

/// What is left of the bytes that came, behind the frames cut from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    None,
    /// Part of a frame.
    PartOfFrame,
}

/// What the shell must act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The sensor said Hello and was answered.
    Greeted(Greeting),
    /// Store this.
    Entry(Entry),
    /// The sensor asks; answer with [`Session::reply`].
    Called {
        /// The call to answer.
        call: u32,
        /// What is asked.
        method: Method,
        /// The request message.
        body: Vec<u8>,
    },
    /// The sensor answered a call of ours, or a part of one.
    Replied {
        /// Which call.
        call: u32,
        /// Whether another part follows.
        more: bool,
        /// How it went.
        code: Code,
        /// The reply message, or a part of it.
        body: Vec<u8>,
    },
}

/// How long a session waits for what, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Silence after which a Ping is due.
    pub ping_ms: u64,
    /// Silence after which the connection is given up.
    pub idle_ms: u64,
    /// From the beginning of a connection to its Hello.
    pub hello_ms: u64,
    /// From the first byte of a frame to its last.
    pub frame_ms: u64,
    /// From one byte of a frame to the next.
    pub progress_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            ping_ms: PING_MS,
            idle_ms: IDLE_MS_MAX,
            hello_ms: HELLO_MS_MAX,
            frame_ms: FRAME_MS_MAX,
            progress_ms: FRAME_PROGRESS_MS_MAX,
        }
    }
}

/// A frame of which a part is here.
#[derive(Clone, Copy, Debug)]
struct Begun {
    at_ms: u64,
    /// When its last byte came.
    grew_ms: u64,
}

/// One connection of a sensor.
#[derive(Debug)]
pub struct Session {
    epoch: u64,
    patience: Patience,
    began_ms: u64,
    begun: Option<Begun>,
    offerings: Offerings,
    greeted: bool,
    receive_bytes_max: usize,
    heard_ms: u64,
    pinged_ms: Option<u64>,
    pace: Pace,
    outgoing: VecDeque<Vec<u8>>,
    next_call: u32,
}

impl Session {
    /// A session that awaits a Hello.
    #[must_use]
    pub fn new(now_ms: u64, epoch: u64, offerings: Offerings) -> Self {
        Self {
            epoch,
            patience: Patience::default(),
            began_ms: now_ms,
            begun: None,
            offerings,
            greeted: false,
            receive_bytes_max: RECEIVE_BYTES_MIN,
            heard_ms: now_ms,
            pinged_ms: None,
            pace: Pace::new(now_ms, FRAMES_BURST),
            outgoing: VecDeque::new(),
            next_call: 1,
        }
    }

    /// The same session with other times.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The same session, which may say `burst` frames besides chunks at a stroke.
    #[must_use]
    pub fn with_burst(self, burst: u32) -> Self {
        Self { pace: Pace::new(self.began_ms, burst), ..self }
    }

    /// Whether the sensor said Hello and was answered: before, frames of
    /// [`FRAME_BYTES_UNAUTHENTICATED_MAX`](lapwing_protocol::limits) at most are taken.
    #[must_use]
    pub fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// This session's number.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// When the last frame came, in milliseconds of the caller's clock.
    #[must_use]
    pub fn heard_ms(&self) -> u64 {
        self.heard_ms
    }

    /// Bytes came, and were cut into frames: says whether part of a frame is left over.
    pub fn handle_bytes(&mut self, now_ms: u64, rest: Rest) {
        self.begun = match rest {
            Rest::None => None,
            Rest::PartOfFrame => {
                let at_ms = self.begun.map_or(now_ms, |begun| begun.at_ms);
                Some(Begun { at_ms, grew_ms: now_ms })
            }
        };
    }

    /// When the sensor may be read from again, which says more than a session may: see
    /// [`FRAMES_PER_S`](super::limits::FRAMES_PER_S). `None` when it may be at once.
    #[must_use]
    pub fn poll_resume(&self) -> Option<u64> {
        self.pace.resume_ms()
    }

    /// Nothing was read until now: a frame's time begins anew.
    pub fn excuse(&mut self, now_ms: u64) {
        self.begun = self.begun.map(|_| Begun { at_ms: now_ms, grew_ms: now_ms });
    }

    /// Takes one frame, whatever else is on its way to the disk.
    ///
    /// # Errors
    /// What the peer did wrong: send [`Self::refusal`] and close.
    pub fn handle_frame(
        &mut self,
        now: (u64, u64),
        frame: &Frame<'_>,
        receiver: &mut Receiver,
    ) -> Result<Option<SessionEvent>, PeerFault> {
        self.handle_frame_if(now, frame, receiver, &mut |_| Ok(()))
    }

    /// Takes one frame; `admit` is asked as [`Receiver::handle_chunk_if`] says.
    ///
    /// # Errors
    /// What the peer did wrong: send [`Self::refusal`] and close.
    pub fn handle_frame_if(
        &mut self,
        (now_ms, wall_ms): (u64, u64),
        frame: &Frame<'_>,
        receiver: &mut Receiver,
        admit: &mut dyn FnMut(usize) -> Result<(), u32>,
    ) -> Result<Option<SessionEvent>, PeerFault> {
        self.begun = None;
        self.heard_ms = now_ms;
        self.pinged_ms = None;
        let message = Message::decode(frame).map_err(|error| match error {
            DecodeError::UnknownKind => PeerFault::UnknownKind,
            DecodeError::Limit => PeerFault::TooLarge,
            _ => PeerFault::Malformed,
        })?;
        let cost = match message {
            Some(Message::Hello(_)) => HELLO_FRAMES,
            // What credit bounds, and what comes again.
            Some(Message::Chunk(_)) => 0,
            // A Jump among them: it has no credit, and each is a write to the disk.
            _ => 1,
        };
        self.pace.spend(now_ms, cost);
        let Some(message) = message else { return Ok(None) };
        receiver.handle_time(self.epoch, now_ms);
        if matches!(message, Message::Chunk(_)) && buggify!("server.ping") {
            self.send(&Message::Ping(Ping { nonce: now_ms }));
        }
        let is_early = !matches!(message, Message::Hello(_) | Message::Ping(_) | Message::Pong(_));
        if !self.greeted && is_early && !cfg!(mutant = "hello_not_first") {
            return Err(PeerFault::OutOfPlace);
        }
        let entry = match message {
            Message::Hello(hello) => return self.greet(wall_ms, &hello, receiver).map(Some),
            Message::Chunk(chunk) => {
                receiver.handle_chunk_if(self.epoch, &chunk, frame.body, admit)?
            }
            Message::Jump(jump) => receiver.handle_jump_if(self.epoch, &jump, frame.body, admit)?,
            Message::ChainMark(mark) => {
                receiver.handle_chain_mark(self.epoch, (mark.lane, mark.seq, mark.chain))?;
                None
            }
            Message::Ping(ping) => {
                let nonce = if cfg!(mutant = "pong_without_nonce") { 0 } else { ping.nonce };
                self.send(&Message::Pong(Pong { nonce }));
                None
            }
            Message::Pong(_) => None,
            Message::Call(Call { call, method, body }) => {
                return Ok(Some(SessionEvent::Called { call, method, body: body.to_vec() }));
            }
            Message::Reply(Reply { call, more, code, body }) => {
                let body = body.to_vec();
                return Ok(Some(SessionEvent::Replied { call, more, code, body }));
            }
            Message::HelloAck(_)
            | Message::Ack(_)
            | Message::Nack(_)
            | Message::Resync(_)
            | Message::Draining(_)
            | Message::Refused(_)
            | Message::Command(_)
            | Message::Auth(_) => return Err(PeerFault::OutOfPlace),
        };
        if entry.as_ref().is_some_and(|entry| matches!(entry.kind, EntryKind::Chunk { .. })) {
            self.pace.earn();
        }
        Ok(entry.map(SessionEvent::Entry))
    }

    fn greet(
        &mut self,
        wall_ms: u64,
        hello: &Hello<'_>,
        receiver: &mut Receiver,
    ) -> Result<SessionEvent, PeerFault> {
        let speaks = (hello.version_min..=hello.version_max).contains(&PROTOCOL_VERSION);
        if !speaks && !cfg!(mutant = "version_unchecked") {
            return Err(PeerFault::Version);
        }
        let texts = [hello.agent, hello.name, hello.os];
        let is_short = (hello.receive_bytes_max as usize) < RECEIVE_BYTES_MIN;
        if is_short || !(texts.into_iter().all(is_text) || cfg!(mutant = "text_unchecked")) {
            return Err(PeerFault::Malformed);
        }
        self.receive_bytes_max = (hello.receive_bytes_max as usize).min(FRAME_BYTES_MAX);
        let logs = receiver.handle_hello(self.epoch, hello)?;
        let greeted = hello.logs.iter().zip(&logs);
        let greeted = greeted.map(|(head, grant)| GreetedLog::new(head, *grant)).collect();
        let offerings = self.offerings.clone();
        self.greeted = true;
        self.send(&Message::HelloAck(HelloAck {
            version: PROTOCOL_VERSION,
            capabilities: heapless::Vec::new(),
            server: offerings.server,
            name: &offerings.name,
            session_epoch: if cfg!(mutant = "epoch_constant") { 1 } else { self.epoch },
            server_ms: wall_ms,
            receive_bytes_max: offerings.receive_bytes_max,
            rows_max: offerings.rows_max,
            logs,
        }));
        Ok(SessionEvent::Greeted(Greeting {
            name: hello.name.into(),
            os: hello.os.into(),
            agent: hello.agent.into(),
            boot: hello.boot,
            collecting: hello.collecting,
            memory: hello.memory,
            last_command: hello.last_command,
            logs: greeted,
        }))
    }

    /// Lets time pass: pings a silent peer, gives up one that stays silent or drips.
    ///
    /// # Errors
    /// [`PeerFault::Idle`], [`PeerFault::Dripping`].
    pub fn handle_timeout(&mut self, now_ms: u64) -> Result<(), PeerFault> {
        if self.drip_ms().is_some_and(|at| now_ms >= at) {
            return Err(PeerFault::Dripping);
        }
        if now_ms >= self.idle_ms() && !cfg!(mutant = "idle_kept") {
            return Err(PeerFault::Idle);
        }
        if self.pinged_ms.is_none() && now_ms >= self.heard_ms + self.patience.ping_ms {
            self.pinged_ms = Some(now_ms);
            self.send(&Message::Ping(Ping { nonce: now_ms }));
        }
        Ok(())
    }

    /// When [`Self::handle_timeout`] is due next, in milliseconds of the caller's clock.
    #[must_use]
    pub fn poll_timeout(&self) -> u64 {
        let ping_ms = match self.pinged_ms {
            None => self.heard_ms + self.patience.ping_ms,
            Some(_) => u64::MAX,
        };
        let drip_ms = self.drip_ms().unwrap_or(u64::MAX);
        self.idle_ms().min(ping_ms).min(drip_ms)
    }

    /// When the peer is given up as silent.
    fn idle_ms(&self) -> u64 {
        let silent_ms = self.heard_ms + self.patience.idle_ms;
        let mute_ms = self.began_ms + self.patience.hello_ms;
        if self.greeted { silent_ms } else { silent_ms.min(mute_ms) }
    }

    /// When the peer is given up for the frame it does not end.
    fn drip_ms(&self) -> Option<u64> {
        let Begun { at_ms, grew_ms } = self.begun?;
        Some((at_ms + self.patience.frame_ms).min(grew_ms + self.patience.progress_ms))
    }

    /// The next frame to send, or `None` when there is none.
    pub fn poll_transmit(&mut self, receiver: &mut Receiver) -> Option<Vec<u8>> {
        if let Some(frame) = self.outgoing.pop_front() {
            return Some(frame);
        }
        if !self.greeted {
            return None;
        }
        let message = match receiver.poll_message(self.epoch)? {
            Offer::Nack(nack) => Message::Nack(nack),
            Offer::Ack(ack) => Message::Ack(ack),
            Offer::Resync(resync) => Message::Resync(resync),
        };
        frame_of(&message)
    }

    /// Whether another command or call may be given to this session.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.greeted && self.outgoing.len() < OUTGOING_MAX
    }

    /// Sends a command; the caller keeps it queued until its outcome or acceptance is known.
    pub fn send_command(&mut self, command: Command) {
        self.send(&Message::Command(command));
    }

    /// Asks the sensor; the answer comes as [`SessionEvent::Replied`] with the number given here.
    pub fn call(&mut self, method: Method, body: &[u8]) -> u32 {
        let call = self.next_call;
        self.next_call = self.next_call.wrapping_add(1);
        self.send(&Message::Call(Call { call, method, body }));
        call
    }

    /// Answers a call of the sensor's, in as many parts as its receive bound asks for.
    pub fn reply(&mut self, call: u32, code: Code, body: &[u8]) {
        let part_max = self.receive_bytes_max.saturating_sub(64).max(1);
        let mut parts = body.chunks(part_max).peekable();
        if parts.peek().is_none() {
            self.send(&Message::Reply(Reply { call, more: false, code, body: &[] }));
        }
        while let Some(part) = parts.next() {
            let more = parts.peek().is_some();
            self.send(&Message::Reply(Reply { call, more, code, body: part }));
        }
    }

    /// Tells the sensor that this server is going away.
    pub fn send_draining(&mut self, retry_after_ms: u32) {
        self.send(&Message::Draining(Draining { retry_after_ms }));
    }

    /// The last frame before closing.
    #[must_use]
    pub fn refusal(fault: PeerFault, retry_after_ms: u32) -> Vec<u8> {
        let refused = Refused { code: fault.code(), retry_after_ms, detail: fault.text() };
        frame_of(&Message::Refused(refused)).unwrap_or_default()
    }

    /// Replies may go beyond the queue's bound: they are bounded by the calls under way.
    fn send(&mut self, message: &Message<'_>) {
        if let Some(frame) = frame_of(message) {
            self.outgoing.push_back(frame);
        }
    }
}

/// Whether `text` may stand in a record, a table and a log line.
fn is_text(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

fn frame_of(message: &Message<'_>) -> Option<Vec<u8>> {
    let mut small = [0; 512];
    if let Ok(length) = message.encode(&mut small) {
        return Some(small[..length].to_vec());
    }
    let mut large = vec![0; FRAME_BYTES_MAX];
    let length = message.encode(&mut large).ok()?;
    large.truncate(length);
    Some(large)
}
