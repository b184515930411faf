//! The server's machine: the real receiver and session over a journal in memory.
//!
//! An entry becomes durable some time after it was given out; a kill loses what was not. What is
//! left is what a restarted server knows.

use std::collections::BTreeMap;

use lapwing_protocol::command::{Action, Command, CommandNumber};
use lapwing_protocol::delivery::NackReason;
use lapwing_protocol::frame::Deframer;
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::message::Message;
use lapwing_server_core::delivery::{
    Entry, HeadRecord, Offerings, PeerFault, Receiver, Session, SessionEvent,
};

use super::chance::Chance;
use super::faults::{Coverage, Reached};
use super::{DEPLOYMENT, SENSOR, SERVER};

/// The machine the server runs on.
pub(crate) struct ServerMachine {
    /// Entries that are durable, in commit order.
    pub(crate) journal: Vec<Entry>,
    /// Entries on their way to the disk, with when they will be there.
    pending: Vec<(u64, Entry)>,
    receiver: Receiver,
    session: Option<(Session, Box<[u8]>, Vec<u8>)>,
    boots: u64,
    sessions: u64,
    commands: Vec<Command>,
    sent: Option<CommandNumber>,
    /// Frames from the sensor that broke a rule.
    pub(crate) faults: Vec<PeerFault>,
    /// What was said to the sensor and must not have been, in words.
    pub(crate) broken: Vec<String>,
    seen: BTreeMap<(LogId, u64), u64>,
    /// The highest durable sequence of each log.
    durable: BTreeMap<(Lane, LogId), u64>,
    /// The log of each lane, by the last answer to a Hello.
    granted: BTreeMap<Lane, LogId>,
}

impl ServerMachine {
    pub(crate) fn new() -> Self {
        Self {
            journal: Vec::new(),
            pending: Vec::new(),
            receiver: Receiver::new((DEPLOYMENT, SERVER), SENSOR, [None, None]),
            session: None,
            boots: 1,
            sessions: 0,
            commands: Vec::new(),
            sent: None,
            faults: Vec::new(),
            broken: Vec::new(),
            seen: BTreeMap::new(),
            durable: BTreeMap::new(),
            granted: BTreeMap::new(),
        }
    }

    /// Kills the process and starts it again: what was not durable is gone.
    pub(crate) fn restart(&mut self) {
        self.pending.clear();
        self.session = None;
        self.boots += 1;
        let head = |lane: Lane| -> Option<HeadRecord> {
            let entry = self.journal.iter().rev().find(|entry| entry.lane == lane)?;
            Some(entry.head.clone())
        };
        let heads = [head(Lane::Bulk), head(Lane::Urgent)];
        self.receiver = Receiver::new((DEPLOYMENT, SERVER), SENSOR, heads);
    }

    /// A sensor connected.
    pub(crate) fn accept(&mut self, now_ms: u64) {
        self.sessions += 1;
        let epoch = (self.boots << 32) + self.sessions;
        self.receiver.begin_session(epoch);
        let offerings = Offerings {
            server: SERVER,
            name: "simulated".into(),
            receive_bytes_max: 16_640,
            rows_max: 1_000,
        };
        let session = Session::new(now_ms, epoch, offerings);
        self.session = Some((session, vec![0; 16_640].into_boxed_slice(), Vec::new()));
        self.sent = None;
    }

    /// The connection is gone.
    pub(crate) fn hang_up(&mut self) {
        self.session = None;
    }

    /// Queues a command for the sensor.
    pub(crate) fn command(&mut self, seq: u64) {
        self.commands.push(Command {
            number: CommandNumber { issuer: 1, seq },
            expires_after_ms: 3_600_000,
            action: Action::StartCollection,
        });
    }

    /// Says whether the bulk lane is refused.
    pub(crate) fn overload(&mut self, retry_after_ms: Option<u32>) {
        self.receiver.overload(retry_after_ms);
    }

    /// Takes bytes from the sensor; `Err` when the connection must end.
    pub(crate) fn handle_input(
        &mut self,
        now_ns: u64,
        bytes: &[u8],
        chance: &mut Chance,
        coverage: &mut Coverage,
    ) -> Result<(), PeerFault> {
        let Some((mut session, mut buffer, mut held)) = self.session.take() else { return Ok(()) };
        held.extend_from_slice(bytes);
        let mut deframer = Deframer::new(&mut buffer);
        let mut rest: &[u8] = &held;
        let mut taken = 0;
        let now_ms = now_ns / 1_000_000;
        loop {
            let fed = deframer.feed(rest);
            rest = &rest[fed..];
            let before = taken;
            while let Ok(Some(frame)) = deframer.next_frame() {
                taken += frame.body.len() + 4;
                self.note(&frame, coverage);
                let event = session.handle_frame((now_ms, now_ms), &frame, &mut self.receiver)?;
                match event {
                    Some(SessionEvent::Greeted(greeting)) => {
                        if !self.pending.is_empty() {
                            coverage.count(Reached::GreetedWithPending);
                        }
                        self.sent = greeting.last_command;
                        let accepted = greeting.last_command;
                        self.commands.retain(|command| Some(command.number) > accepted);
                    }
                    Some(SessionEvent::Entry(entry)) => {
                        // Now and then the disk is slow enough for a sensor to come back before
                        // what it sent is there.
                        let longest_ns = if chance.once_in(40) { 900_000_000 } else { 6_000_000 };
                        let durable_ns = now_ns + chance.between(200_000, longest_ns);
                        let last_ns = self.pending.last().map_or(0, |(at_ns, _)| *at_ns);
                        self.pending.push((durable_ns.max(last_ns), entry));
                    }
                    Some(SessionEvent::Called { .. } | SessionEvent::Replied { .. }) | None => {}
                }
            }
            if fed == 0 && taken == before {
                break;
            }
        }
        held.drain(..taken);
        self.session = Some((session, buffer, held));
        Ok(())
    }

    /// Counts chunks that come again.
    fn note(&mut self, frame: &lapwing_protocol::frame::Frame<'_>, coverage: &mut Coverage) {
        if frame.kind == lapwing_protocol::message::CHUNK
            && let Ok(chunk) = lapwing_protocol::chunk::Chunk::decode(frame.body)
        {
            let lane = chunk.header.flags.lane();
            let Some(standing) = self.receiver.standings().find(|it| it.lane == lane) else {
                return;
            };
            let times = self.seen.entry((standing.log, chunk.header.seq)).or_default();
            *times += 1;
            if *times > 1 {
                coverage.count(Reached::Resent);
            }
        }
    }

    /// Lets time pass: entries become durable, silent peers are given up.
    pub(crate) fn handle_time(&mut self, now_ns: u64) -> Result<(), PeerFault> {
        let due = self.pending.iter().take_while(|(at_ns, _)| *at_ns <= now_ns).count();
        for (_, entry) in self.pending.drain(..due) {
            self.receiver.handle_stored(entry.lane, entry.log, entry.seq);
            self.durable.insert((entry.lane, entry.log), entry.seq);
            self.journal.push(entry);
        }
        match &mut self.session {
            Some((session, ..)) if session.poll_timeout() <= now_ns / 1_000_000 => {
                session.handle_timeout(now_ns / 1_000_000)
            }
            _ => Ok(()),
        }
    }

    /// When [`Self::handle_time`] is due.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        let pending = self.pending.first().map(|(at_ns, _)| *at_ns);
        let session = self.session.as_ref();
        let idle = session.map(|(session, ..)| session.poll_timeout() * 1_000_000);
        pending.into_iter().chain(idle).min()
    }

    /// The bytes to send now.
    pub(crate) fn drain(&mut self) -> Vec<u8> {
        let Some((session, ..)) = &mut self.session else { return Vec::new() };
        for command in &self.commands {
            if Some(command.number) > self.sent && session.has_room() {
                session.send_command(*command);
                self.sent = Some(command.number);
            }
        }
        let mut bytes = Vec::new();
        while let Some(frame) = session.poll_transmit(&mut self.receiver) {
            bytes.extend_from_slice(&frame);
        }
        self.check(&bytes);
        bytes
    }

    /// Looks at everything that is said: nothing is acknowledged before it is durable, and no
    /// sensor is told that it went beyond its credit, since none of ours may.
    fn check(&mut self, bytes: &[u8]) {
        let mut buffer = vec![0; 16_640];
        let mut deframer = Deframer::new(&mut buffer);
        let mut rest = bytes;
        while !rest.is_empty() {
            let fed = deframer.feed(rest);
            rest = &rest[fed..];
            while let Ok(Some(frame)) = deframer.next_frame() {
                match Message::decode(&frame) {
                    Ok(Some(Message::HelloAck(ack))) => {
                        for grant in &ack.logs {
                            self.granted.insert(grant.lane, grant.log);
                            let seq = grant.next_seq - 1;
                            note(&mut self.broken, &self.durable, (grant.lane, grant.log), seq);
                        }
                    }
                    Ok(Some(Message::Ack(ack))) => {
                        if let Some(log) = self.granted.get(&ack.lane) {
                            let log = (ack.lane, *log);
                            note(&mut self.broken, &self.durable, log, ack.stored_seq);
                        }
                    }
                    Ok(Some(Message::Nack(nack))) if nack.reason == NackReason::BeyondCredit => {
                        self.broken.push(format!("{:?} went beyond its credit", nack.lane));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Whether nothing is on its way to the disk.
    pub(crate) fn is_quiet(&self) -> bool {
        self.pending.is_empty()
    }
}

/// Notes an acknowledgement of what is not durable.
fn note(
    broken: &mut Vec<String>,
    durable: &BTreeMap<(Lane, LogId), u64>,
    (lane, log): (Lane, LogId),
    acked_seq: u64,
) {
    let durable = durable.get(&(lane, log)).copied().unwrap_or_default();
    if acked_seq > durable {
        broken.push(format!("{lane:?} {log}: {acked_seq} acknowledged, {durable} durable"));
    }
}
