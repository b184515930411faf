//! The session with a Detection server: greeting, sending within credit, what comes back.
//!
//! One session is one connection. Nothing durable depends on it: a new one begins with a Hello and
//! both ends compare where they stand. To change a log within a session is to say Hello again,
//! which waits until nothing is in flight, so that no place is judged that is not yet durable.
//!
//! Invariants: nothing but Hello is sent before HelloAck; the urgent lane is served first; with a
//! spool nothing is sent that the shell has not spooled.

mod fetch;
mod greeting;
mod transmit;

use lapwing_protocol::delivery::{Ack, Nack};
use lapwing_protocol::hello::HelloAck;
use lapwing_protocol::id::{Lane, LogId, ServerId};
use lapwing_protocol::limits::{IDLE_MS_MAX, PING_MS};

use crate::error::{CloseReason, PeerFault};
use crate::event::Event;
use crate::lane::{LaneLink, Phase, Told};
use crate::limits::{DRAINING_MS_MAX, GREETING_MS_MAX, PROGRESS_MS_MAX};
use crate::outbox::Outbox;
use crate::position::{LogPositions, Position};
use crate::registration::Served;
use crate::time::{Now, nanoseconds};
pub(crate) use fetch::FetchSlot;
pub(crate) use greeting::Standing;

/// What is known of an open connection.
#[derive(Clone, Copy, Debug)]
struct Connection {
    stage: Stage,
    /// When something last came from the server.
    heard_ns: u64,
    /// When a Ping was last sent.
    pinged_ns: u64,
    /// The nonce of a Ping to be answered.
    pong: Option<u64>,
    /// Largest frame the server takes.
    frame_bytes_max: u32,
    server: Option<ServerId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A Hello is to be sent, once nothing is in flight.
    HelloDue,
    /// The server has the Hello.
    Greeting { since_ns: u64 },
    /// Chunks go out.
    Live,
    /// The server is going away: what is in flight may still be acknowledged.
    Draining { until_ns: u64, retry_after_ms: u32 },
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// No connection.
    Idle,
    Open(Connection),
    /// The shell is to close the connection.
    Closing {
        reason: CloseReason,
        told: Told,
    },
}

#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) outboxes: [Outbox<'a>; 2],
    links: [LaneLink<'a>; 2],
    has_urgent: bool,
    fetch: FetchSlot<'a>,
    state: State,
    /// By lane: an Acked event is due.
    is_acked_news: [bool; 2],
    safe_seq: [u64; 2],
    /// The server that stored last, for the Acked event.
    last_server: ServerId,
    greeted: Option<(ServerId, u64)>,
    /// How far the server came since the connection was made.
    served: Served,
    /// By lane: facts of a log that was given up, which nobody acknowledged.
    pub(crate) facts_given_up: [u64; 2],
    /// By lane: a log was opened on this connection.
    is_log_opened: [bool; 2],
    /// The bulk lane must open a segment before it goes on with a server that lacks the last one.
    pub(crate) is_segment_wanted: bool,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        outboxes: [Outbox<'a>; 2],
        links: [LaneLink<'a>; 2],
        fetch: &'a mut [u8],
        has_urgent: bool,
    ) -> Self {
        Self {
            outboxes,
            links,
            has_urgent,
            fetch: FetchSlot::new(fetch),
            state: State::Idle,
            is_acked_news: [false; 2],
            safe_seq: [0; 2],
            last_server: ServerId([0; 16]),
            greeted: None,
            served: Served::Nothing,
            facts_given_up: [0; 2],
            is_log_opened: [false; 2],
            is_segment_wanted: false,
        }
    }

    /// The lanes in use, the urgent one first.
    fn lanes(&self) -> impl Iterator<Item = Lane> + use<> {
        let has_urgent = self.has_urgent;
        let mut lanes = Lane::BY_URGENCY;
        if cfg!(mutant = "bulk_lane_first") {
            lanes.reverse();
        }
        lanes.into_iter().filter(move |lane| has_urgent || *lane == Lane::Bulk)
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// The server, once it greeted back.
    pub(crate) fn server(&self) -> Option<ServerId> {
        self.connection().and_then(|connection| connection.server)
    }

    /// Whether messages of a greeted session are in place.
    pub(crate) fn is_greeted(&self) -> bool {
        self.server().is_some()
    }

    fn connection(&self) -> Option<&Connection> {
        match &self.state {
            State::Open(connection) => Some(connection),
            State::Idle | State::Closing { .. } => None,
        }
    }

    fn connection_mut(&mut self) -> Option<&mut Connection> {
        match &mut self.state {
            State::Open(connection) => Some(connection),
            State::Idle | State::Closing { .. } => None,
        }
    }

    pub(crate) fn handle_connected(&mut self, now: Now) {
        self.is_log_opened = [false; 2];
        for link in &mut self.links {
            link.disconnect();
        }
        self.state = State::Open(Connection {
            stage: Stage::HelloDue,
            heard_ns: now.monotonic_ns,
            pinged_ns: now.monotonic_ns,
            pong: None,
            frame_bytes_max: lapwing_protocol::limits::FRAME_BYTES_UNAUTHENTICATED_MAX as u32,
            server: None,
        });
    }

    /// The connection is gone; answers with why the sensor closed it and whether it was greeted.
    pub(crate) fn handle_disconnected(&mut self) -> (Option<CloseReason>, Served) {
        let served = core::mem::replace(&mut self.served, Served::Nothing);
        let reason = match self.state {
            State::Closing { reason, .. } => Some(reason),
            State::Open(Connection { stage: Stage::Draining { retry_after_ms, .. }, .. }) => {
                Some(CloseReason::Draining { retry_after_ms })
            }
            State::Open(_) | State::Idle => None,
        };
        self.state = State::Idle;
        for (link, outbox) in self.links.iter_mut().zip(&mut self.outboxes) {
            link.disconnect();
            outbox.unsent_seq = outbox.sending().acked.seq + 1;
        }
        self.fetch.clear();
        (reason, served)
    }

    /// Ends the session.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        if self.is_open() {
            self.state = State::Closing { reason, told: Told::NotYet };
            for link in &mut self.links {
                link.disconnect();
            }
        }
    }

    /// Something came from the server.
    pub(crate) fn heard(&mut self, now: Now) {
        if let Some(connection) = self.connection_mut() {
            connection.heard_ns = now.monotonic_ns;
        }
    }

    pub(crate) fn handle_ping(&mut self, nonce: u64) {
        if let Some(connection) = self.connection_mut() {
            connection.pong = Some(nonce);
        }
    }

    pub(crate) fn handle_draining(&mut self, now: Now, retry_after_ms: u32) {
        if cfg!(mutant = "draining_ignored") {
            return;
        }
        if let Some(connection) = self.connection_mut() {
            let until_ns = now.after_ms(DRAINING_MS_MAX);
            connection.stage = Stage::Draining { until_ns, retry_after_ms };
        }
        self.settle_draining(now);
    }

    pub(crate) fn handle_ack(&mut self, now: Now, ack: &Ack) -> Result<(), PeerFault> {
        let Some(server) = self.server() else { return Err(PeerFault::OutOfPlace) };
        let index = self.lane_index(ack.lane)?;
        let link = &mut self.links[index];
        if !link.is_granted() {
            // Of the log before the Hello that is under way.
            return Ok(());
        }
        if let Some(position) = link.handle_ack(now, ack)? {
            self.served = Served::Storing;
            self.note_stored(index, server, position);
        }
        let safe_seq = ack.safe_seq.min(ack.stored_seq);
        if safe_seq > self.safe_seq[index] {
            self.safe_seq[index] = safe_seq;
            self.is_acked_news[index] = true;
        }
        self.settle_tail(index);
        self.settle_draining(now);
        Ok(())
    }

    pub(crate) fn handle_nack(&mut self, now: Now, nack: &Nack) -> Result<(), PeerFault> {
        if !self.is_greeted() {
            return Err(PeerFault::OutOfPlace);
        }
        let index = self.lane_index(nack.lane)?;
        let link = &mut self.links[index];
        if link.is_granted() {
            link.handle_nack(now, nack)?;
            self.outboxes[index].unsent_seq = link.cursor();
        }
        Ok(())
    }

    fn lane_index(&self, lane: Lane) -> Result<usize, PeerFault> {
        let is_used = self.lanes().any(|used| used == lane);
        if is_used { Ok(lane.index()) } else { Err(PeerFault::OutOfPlace) }
    }

    fn note_stored(&mut self, index: usize, server: ServerId, position: Position) {
        self.last_server = server;
        if self.outboxes[index].handle_stored(server, position) {
            self.is_acked_news[index] = true;
        }
    }

    /// An old log that is all stored makes room for the next one.
    fn settle_tail(&mut self, index: usize) {
        let (link, outbox) = (&mut self.links[index], &self.outboxes[index]);
        let is_done = link.stored_seq() >= outbox.sending().made.seq;
        if link.is_granted() && outbox.has_tail() && is_done {
            link.phase = Phase::Drained(Told::NotYet);
        }
    }

    fn settle_draining(&mut self, now: Now) {
        let Some(Connection { stage: Stage::Draining { until_ns, retry_after_ms }, .. }) =
            self.connection().copied()
        else {
            return;
        };
        let is_quiet = !self.links.iter().any(LaneLink::is_in_flight);
        if is_quiet || until_ns <= now.monotonic_ns {
            self.close(CloseReason::Draining { retry_after_ms });
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) {
        self.settle_draining(now);
        let Some(connection) = self.connection().copied() else { return };
        if now.is_past(connection.heard_ns, IDLE_MS_MAX) {
            return self.close(CloseReason::Idle);
        }
        match connection.stage {
            Stage::Greeting { since_ns } if now.is_past(since_ns, GREETING_MS_MAX) => {
                self.close(CloseReason::GreetingTimedOut);
            }
            Stage::Live | Stage::HelloDue => {
                let mut stalled = self.links.iter().filter_map(LaneLink::stalled_since_ns);
                let is_watched = !cfg!(mutant = "progress_unwatched");
                if is_watched && stalled.any(|since_ns| now.is_past(since_ns, PROGRESS_MS_MAX)) {
                    self.close(CloseReason::NoProgress);
                }
            }
            Stage::Greeting { .. } | Stage::Draining { .. } => {}
        }
    }

    /// When [`Self::handle_timeout`] or a transmission is due.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        let connection = self.connection()?;
        if self.fetch.is_wanted() {
            return Some(0);
        }
        let stage = match connection.stage {
            Stage::Greeting { since_ns } => Some(since_ns + nanoseconds(GREETING_MS_MAX)),
            Stage::Draining { until_ns, .. } => Some(until_ns),
            Stage::HelloDue | Stage::Live => None,
        };
        let idle = Some(connection.heard_ns + nanoseconds(IDLE_MS_MAX));
        let ping = Some(connection.heard_ns.max(connection.pinged_ns) + nanoseconds(PING_MS))
            .filter(|_| self.is_live());
        // A moment at which nothing would be done must not be named: it would be due for ever.
        let is_sending = connection.stage == Stage::Live;
        let is_judged = is_sending || connection.stage == Stage::HelloDue;
        let links = self.links.iter().flat_map(|link| {
            let stalled = link.stalled_since_ns().map(|since| since + nanoseconds(PROGRESS_MS_MAX));
            [stalled.filter(|_| is_judged), link.retry_at_ns().filter(|_| is_sending)]
        });
        links.chain([stage, idle, ping]).flatten().min()
    }

    /// Opens a log in place of the one that was given up or came to its end.
    pub(crate) fn handle_open_log(&mut self, lane: Lane, log: LogPositions) {
        let index = lane.index();
        let given_up = self.outboxes[index].open_log(log);
        if !cfg!(mutant = "facts_lost_unsaid") {
            self.facts_given_up[index] += given_up;
        }
        self.is_log_opened[index] = true;
        self.change_log(index);
    }

    /// Puts an old log before the current one, or, with `None`, goes on to the current one.
    pub(crate) fn handle_tail(&mut self, lane: Lane, tail: Option<LogPositions>) {
        let index = lane.index();
        self.outboxes[index].set_tail(tail);
        self.change_log(index);
    }

    fn change_log(&mut self, index: usize) {
        self.links[index].reset();
        self.safe_seq[index] = 0;
        self.fetch.clear();
        if let Some(connection) = self.connection_mut()
            && matches!(connection.stage, Stage::Live | Stage::Greeting { .. })
        {
            connection.stage = Stage::HelloDue;
        }
    }

    /// Another Hello is to be said, when nothing is in flight.
    pub(crate) fn greet_again(&mut self) {
        if let Some(connection) = self.connection_mut()
            && connection.stage == Stage::Live
        {
            connection.stage = Stage::HelloDue;
        }
    }

    /// What the shell is to do for delivery.
    pub(crate) fn poll_event(&mut self) -> Option<Event<'static>> {
        if let State::Closing { reason, told: told @ Told::NotYet } = &mut self.state {
            *told = Told::Already;
            return Some(Event::Close(*reason));
        }
        if let Some((server, server_ms)) = self.greeted.take() {
            return Some(Event::Greeted { server, server_ms });
        }
        if let Some((lane, log, seq)) = self.fetch.poll() {
            return Some(Event::Fetch { lane, log, seq });
        }
        for lane in self.lanes() {
            let index = lane.index();
            let log = self.outboxes[index].sending();
            if self.is_acked_news[index] {
                self.is_acked_news[index] = false;
                let (server, safe_seq) = (self.last_server, self.safe_seq[index]);
                let (log, acked) = (log.log, log.acked);
                return Some(Event::Acked { lane, log, server, acked, safe_seq });
            }
            let event = match &mut self.links[index].phase {
                Phase::Locating { find, told: told @ Told::NotYet, .. } => {
                    *told = Told::Already;
                    Event::Locate { lane, log: log.log, find: *find }
                }
                Phase::Opening { cause, told: told @ Told::NotYet } => {
                    *told = Told::Already;
                    Event::OpenLog { lane, cause: *cause, parent: log.as_parent() }
                }
                Phase::Drained(told @ Told::NotYet) => {
                    *told = Told::Already;
                    Event::LogDrained { lane, log: log.log }
                }
                Phase::Locating { .. }
                | Phase::Opening { .. }
                | Phase::Drained(_)
                | Phase::Ungranted
                | Phase::Granted => continue,
            };
            return Some(event);
        }
        None
    }

    /// Takes HelloAck's word on everything but rows.
    pub(crate) fn handle_hello_ack(
        &mut self,
        now: Now,
        ack: &HelloAck<'_>,
    ) -> Result<(), PeerFault> {
        let Some(connection) = self.connection_mut() else { return Err(PeerFault::OutOfPlace) };
        if !matches!(connection.stage, Stage::Greeting { .. }) {
            return Err(PeerFault::OutOfPlace);
        }
        connection.stage = Stage::Live;
        connection.frame_bytes_max = ack.receive_bytes_max;
        connection.server = Some(ack.server);
        self.greeted = Some((ack.server, ack.server_ms));
        self.served = self.served.max(Served::Greeting);
        self.align_all(now, ack)
    }

    /// The shell has read a chunk.
    pub(crate) fn handle_fetched(&mut self, lane: Lane, seq: u64, bytes: &[u8]) -> bool {
        let log = self.outboxes[lane.index()].sending().log;
        self.fetch.fill((lane, log, seq), bytes)
    }

    /// What was looked for does not come: it lies in a hole.
    pub(crate) fn forget_fetch(&mut self, lane: Lane, log: LogId, seqs: (u64, u64)) {
        self.fetch.forget(lane, log, seqs);
    }

    /// Largest frame the server takes.
    pub(crate) fn frame_bytes_max(&self) -> usize {
        self.connection().map_or(0, |connection| connection.frame_bytes_max as usize)
    }
}
