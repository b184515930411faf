//! One connection of a sensor at a server: the real session, and what the shell around it does.

use std::rc::Rc;

use lapwing_protocol::code::Code;
use lapwing_protocol::command::CommandNumber;
use lapwing_protocol::delivery::{Draining, Refused};
use lapwing_protocol::frame::{Deframer, Frame, FrameKind};
use lapwing_protocol::hello::Memory;
use lapwing_protocol::id::SensorId;
use lapwing_protocol::message::{self, Message};
use lapwing_server_core::delivery::{Greeting, Offerings, PeerFault, Session, SessionEvent};

use super::watch::Watch;
use super::{AckFate, ROWS_MAX, ServerMachine, Stored};
use crate::simulator::MS;
use crate::simulator::chance::Chance;
use crate::simulator::coverage::{Coverage, Reached};

const HELLO: FrameKind = FrameKind(1);
const ACK: FrameKind = FrameKind(4);
const RECEIVE_BYTES: usize = 16_640;
/// How long a sensor is told to stay away, in milliseconds.
const RETRY_AFTER_MS: u32 = 2_000;
/// Commands of one sensor without an outcome.
const IN_FLIGHT_MAX: usize = 4;

/// What goes back to a sensor.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) link: u64,
    pub(crate) bytes: Vec<u8>,
    /// The connection ends behind it.
    pub(crate) is_last: bool,
}

/// A connection.
pub(crate) struct Connection {
    pub(crate) sensor: SensorId,
    /// Which of the world's machines it is, which no server can know.
    pub(crate) machine: usize,
    session: Session,
    held: Vec<u8>,
    kept: Memory,
    is_greeted: bool,
    sent: Option<CommandNumber>,
    pub(super) watch: Watch,
}

fn frame_of(message: &Message<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 512];
    let length = message.encode(&mut buffer).unwrap_or_default();
    buffer.truncate(length);
    buffer
}

impl Connection {
    pub(super) fn poll_timeout(&self) -> u64 {
        self.session.poll_timeout()
    }

    /// Lets time pass; the farewell where the peer is given up.
    pub(super) fn handle_timeout(&mut self, now_ms: u64) -> Result<(), Vec<u8>> {
        self.session.handle_timeout(now_ms).map_err(|fault| Session::refusal(fault, 0))
    }

    pub(super) fn refuse_store_failed() -> Vec<u8> {
        let code = Code::STORE_FAILED;
        let detail = "the journal takes nothing more";
        frame_of(&Message::Refused(Refused { code, retry_after_ms: RETRY_AFTER_MS, detail }))
    }

    pub(super) fn draining() -> Vec<u8> {
        frame_of(&Message::Draining(Draining { retry_after_ms: RETRY_AFTER_MS }))
    }
}

impl ServerMachine {
    /// A sensor connected; `Err` with the farewell when there is no room for it.
    pub(crate) fn accept(
        &mut self,
        now_ns: u64,
        (link, machine): (u64, usize),
        sensor: SensorId,
    ) -> Result<(), Reply> {
        let is_known = self.connections.values().any(|known| known.sensor == sensor);
        if self.is_draining || (!is_known && self.connections.len() >= self.capacity) {
            let (code, detail) = (Code::BUSY, "this server has all the sensors it takes");
            let refused = Refused { code, retry_after_ms: RETRY_AFTER_MS, detail };
            let bytes = frame_of(&Message::Refused(refused));
            return Err(Reply { link, bytes, is_last: true });
        }
        self.epochs += 1;
        let epoch = self.epochs;
        self.receiver(sensor).begin_session(epoch);
        let offerings = Offerings {
            server: self.server,
            name: "simulated".into(),
            receive_bytes_max: RECEIVE_BYTES as u32,
            rows_max: ROWS_MAX,
        };
        let connection = Connection {
            sensor,
            machine,
            session: Session::new(now_ns / MS, epoch, offerings),
            held: Vec::new(),
            kept: Memory::Disk,
            is_greeted: false,
            sent: None,
            watch: Watch::default(),
        };
        self.connections.insert(link, connection);
        Ok(())
    }

    /// The sensor closed its end.
    pub(crate) fn hang_up(&mut self, link: u64) {
        self.connections.remove(&link);
    }

    /// Takes bytes of a sensor; the farewell where it did wrong.
    pub(crate) fn handle_input(
        &mut self,
        now_ns: u64,
        (link, bytes): (u64, &[u8]),
        chance: &mut Chance,
        coverage: &mut Coverage,
    ) -> Option<Reply> {
        let mut connection = self.connections.remove(&link)?;
        let mut held = std::mem::take(&mut connection.held);
        held.extend_from_slice(bytes);
        let mut buffer = vec![0; RECEIVE_BYTES];
        let mut deframer = Deframer::new(&mut buffer);
        let (mut fed, mut taken) = (0, 0);
        let fault = loop {
            fed += deframer.feed(&held[fed..]);
            match deframer.next_frame() {
                Ok(None) => break None,
                Err(_) => break Some(PeerFault::Malformed),
                Ok(Some(frame)) => {
                    taken += frame.body.len() + 4;
                    let handled =
                        self.handle_frame(now_ns, (&mut connection, &frame), chance, coverage);
                    if let Err(fault) = handled {
                        break Some(fault);
                    }
                }
            }
        };
        held.drain(..taken.min(held.len()));
        connection.held = held;
        match fault {
            None => {
                self.connections.insert(link, connection);
                None
            }
            Some(fault) => {
                self.note_fault(&connection, fault, coverage);
                Some(Reply { link, bytes: Session::refusal(fault, 0), is_last: true })
            }
        }
    }

    /// Only these may come of sensors that keep the rules: another session took over, or (a skewed
    /// peer) another version or kind.
    fn note_fault(&mut self, connection: &Connection, fault: PeerFault, coverage: &mut Coverage) {
        match fault {
            PeerFault::Fenced => self.note_fence(connection, coverage),
            PeerFault::Version => coverage.count(Reached::SkewTooNew),
            PeerFault::UnknownKind => coverage.count(Reached::SkewUnknownKind),
            PeerFault::Idle => {}
            // Two branches of an image meet before either is durable (DLV-003).
            PeerFault::ChainBroken => self.belied.push(connection.sensor),
            _ => self.broken.push(format!(
                "server {}: machine {} broke a rule: {}",
                self.number,
                connection.machine,
                fault.text()
            )),
        }
    }

    fn note_fence(&self, connection: &Connection, coverage: &mut Coverage) {
        let mut newer = self.connections.values();
        let newer = newer.find(|newer| newer.sensor == connection.sensor);
        coverage.count(match newer {
            Some(newer) if newer.machine != connection.machine => Reached::Hel025,
            _ => Reached::Hel037,
        });
    }

    fn handle_frame(
        &mut self,
        now_ns: u64,
        (connection, frame): (&mut Connection, &Frame<'_>),
        chance: &mut Chance,
        coverage: &mut Coverage,
    ) -> Result<(), PeerFault> {
        self.count_resent(connection.sensor, frame, coverage);
        self.broken.extend(connection.watch.look_up(frame));
        if frame.kind == HELLO {
            self.note_hello(connection, frame, coverage);
        }
        let now_ms = now_ns / MS;
        let wall_ms = crate::simulator::WALL_MS.saturating_add_signed(self.skew_ms) + now_ms;
        let sensor = connection.sensor;
        let receiver = self.receiver(sensor);
        let is_older = receiver.epoch() != connection.session.epoch();
        let event = connection.session.handle_frame((now_ms, wall_ms), frame, receiver)?;
        if is_older && matches!(event, Some(SessionEvent::Greeted(_) | SessionEvent::Entry(_))) {
            let text = format!("server {} took from an older session", self.number);
            self.broken.push(text);
        }
        match event {
            Some(SessionEvent::Greeted(greeting)) => self.greet(connection, &greeting, coverage),
            Some(SessionEvent::Entry(entry)) => {
                // Now and then the disk is slow enough for a sensor to come back before what it
                // sent is there.
                let longest_ns = if chance.once_in(40) { 900 * MS } else { 6 * MS };
                let durable_ns = now_ns + chance.between(MS / 5, longest_ns);
                let last_ns = self.pending.back().map_or(0, |(at_ns, _)| *at_ns);
                let stored = Rc::new(Stored { sensor, entry });
                self.pending.push_back((durable_ns.max(last_ns), stored));
            }
            Some(SessionEvent::Called { .. } | SessionEvent::Replied { .. }) | None => {}
        }
        Ok(())
    }

    fn greet(&mut self, connection: &mut Connection, said: &Greeting, coverage: &mut Coverage) {
        if self.pending.iter().any(|(_, stored)| stored.sensor == connection.sensor) {
            coverage.count(Reached::GreetedWithPending);
        }
        (connection.is_greeted, connection.kept) = (true, said.memory);
        connection.sent = said.last_command;
        let accepted = said.last_command;
        let waiting = self.disk.commands.entry(connection.sensor).or_default();
        waiting.retain(|command| Some(command.number) > accepted);
    }

    fn count_resent(&mut self, sensor: SensorId, frame: &Frame<'_>, coverage: &mut Coverage) {
        if frame.kind == message::CHUNK
            && let Ok(chunk) = lapwing_protocol::chunk::Chunk::decode(frame.body)
        {
            let lane = chunk.header.flags.lane();
            let mut standings = self.receiver(sensor).standings();
            let log = standings.find(|it| it.lane == lane).map(|it| it.log);
            drop(standings);
            if let Some(log) = log {
                let times = self.seen.entry((sensor, log, chunk.header.seq)).or_default();
                *times += 1;
                if *times > 1 {
                    coverage.count(Reached::Resent);
                }
            }
        }
    }

    /// Everything that is due on all connections.
    pub(crate) fn drain(&mut self, coverage: &mut Coverage) -> Vec<Reply> {
        let mut replies = Vec::new();
        let mut connections = std::mem::take(&mut self.connections);
        for (link, connection) in &mut connections {
            let sensor = connection.sensor;
            if self.receiver(sensor).epoch() != connection.session.epoch() {
                // A shell that is slow to end an older session says nothing more on it. What still
                // comes there meets the core's fence, or its bound of idle time.
                continue;
            }
            let mut bytes = self.transmit(connection, coverage);
            let is_last = self.receiver(sensor).is_store_failed();
            if is_last {
                bytes = Connection::refuse_store_failed();
            }
            if !bytes.is_empty() {
                replies.push(Reply { link: *link, bytes, is_last });
            }
        }
        self.connections = connections;
        self.forget(&replies);
        replies
    }

    fn transmit(&mut self, connection: &mut Connection, coverage: &mut Coverage) -> Vec<u8> {
        let sensor = connection.sensor;
        self.send_commands(connection);
        let mut bytes = Vec::new();
        loop {
            let receiver = self.receiver(sensor);
            let Some(frame) = connection.session.poll_transmit(receiver) else { break };
            let durable = &self.durable;
            let broken = connection.watch.look_down(&frame, coverage, |lane, log| {
                durable.get(&(sensor, lane, log)).copied().unwrap_or_default()
            });
            self.broken.extend(broken);
            let number = self.number;
            let safe = connection.watch.safe_seq(&frame).filter(|(lane, log, said)| {
                self.safe_seq((sensor, *lane, *log)).is_some_and(|safe| *said > safe)
            });
            self.broken.extend(safe.map(|(lane, log, said)| {
                format!(
                    "server {number}: {lane:?} {log}: {said} is in no backup, and said to be safe"
                )
            }));
            let is_ack = frame.get(2..4) == Some(&ACK.0.to_le_bytes()[..]);
            if !is_ack {
                bytes.extend_from_slice(&frame);
                continue;
            }
            match self.ack_fate.take() {
                _ if self.holds_acks => {}
                Some(AckFate::Lost) => coverage.count(Reached::AckLost),
                Some(AckFate::Repeated) => {
                    coverage.count(Reached::AckRepeated);
                    bytes.extend_from_slice(&frame);
                    bytes.extend_from_slice(&frame);
                }
                None => bytes.extend_from_slice(&frame),
            }
        }
        bytes
    }

    fn send_commands(&mut self, connection: &mut Connection) {
        if !connection.is_greeted || !connection.session.has_room() {
            return;
        }
        let waiting = self.disk.commands.entry(connection.sensor).or_default();
        let due: Vec<_> = waiting
            .iter()
            .take(IN_FLIGHT_MAX)
            .filter(|command| Some(command.number) > connection.sent)
            .copied()
            .collect();
        let Some(last) = due.last().map(|command| command.number) else { return };
        if connection.kept == Memory::RamOnly {
            // A sensor that remembers nothing cannot tell a command that comes again.
            waiting.retain(|command| command.number > last);
        }
        for command in due {
            connection.session.send_command(command);
        }
        connection.sent = Some(last);
    }
}
