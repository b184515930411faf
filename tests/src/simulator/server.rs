//! A Detection server's machine: the real receivers, sessions and decoders over a journal in
//! memory, with a shell as `servers/detection` has one.
//!
//! An entry becomes durable some time after it was given out; a kill keeps a part of what was on
//! its way. What is left is what a restarted server knows. A restore puts the journal back to an
//! older backup.

mod connection;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::command::{Action, Command, CommandNumber};
use lapwing_protocol::delivery::ResyncReason;
use lapwing_protocol::digest::Chain;
use lapwing_protocol::id::{Lane, LogId, SensorId, ServerId};
use lapwing_protocol::registration::AssignRequest;
use lapwing_server_core::decode::{BuiltIn, Decoder, LogContext};
use lapwing_server_core::delivery::{Entry, EntryKind, HeadRecord, Receiver};

use super::chance::Chance;
use super::coverage::{Coverage, Reached};
use super::{DEPLOYMENT, MS};
pub(crate) use connection::{Connection, Reply};

/// Rows a server keeps for one sensor.
pub(crate) const ROWS_MAX: u32 = 1_000;

/// An entry in a journal, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) sensor: SensorId,
    pub(crate) entry: Entry,
}

/// What outlives the server's process.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerDisk {
    /// Entries in commit order.
    pub(crate) journal: Vec<Rc<Stored>>,
    /// Commands that wait for a sensor.
    commands: BTreeMap<SensorId, Vec<Command>>,
}

/// The machine a Detection server runs on.
pub(crate) struct ServerMachine {
    pub(crate) number: usize,
    pub(crate) server: ServerId,
    pub(crate) disk: ServerDisk,
    pub(crate) backup: Option<ServerDisk>,
    /// Whether backups are configured: only what is in one is safe (DLV-005).
    pub(crate) has_backups: bool,
    /// Entries of the journal that are in a backup of this life of it.
    safe_entries: usize,
    pub(crate) is_up: bool,
    /// Entries on their way to the disk, with when they will be there.
    pending: VecDeque<(u64, Rc<Stored>)>,
    receivers: BTreeMap<SensorId, Receiver>,
    decoders: BTreeMap<(SensorId, Lane), Decoder>,
    built_in: BuiltIn,
    pub(crate) connections: BTreeMap<u64, Connection>,
    /// Numbers of sessions go on over restarts and restores.
    epochs: u64,
    /// The highest durable sequence of each log.
    durable: BTreeMap<(SensorId, Lane, LogId), u64>,
    pub(crate) skew_ms: i64,
    /// Sensors it takes at once.
    pub(crate) capacity: usize,
    pub(crate) is_draining: bool,
    /// Acks are written by nobody.
    pub(crate) holds_acks: bool,
    /// The journal's flush fails from now on.
    pub(crate) has_failed: bool,
    /// An Ack is to be lost, or to come twice.
    pub(crate) ack_fate: Option<AckFate>,
    /// What was said or done and must not have been, in words.
    pub(crate) broken: Vec<String>,
    /// Sensors whose chunks belied the chain: of an image's branches only.
    pub(crate) belied: Vec<SensorId>,
    seen: BTreeMap<(SensorId, LogId, u64), u64>,
}

/// What becomes of the next Ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckFate {
    Lost,
    Repeated,
}

impl ServerMachine {
    pub(crate) fn new(number: usize, server: ServerId) -> Self {
        Self {
            number,
            server,
            disk: ServerDisk::default(),
            backup: None,
            has_backups: false,
            safe_entries: 0,
            is_up: true,
            pending: VecDeque::new(),
            receivers: BTreeMap::new(),
            decoders: BTreeMap::new(),
            built_in: BuiltIn::default(),
            connections: BTreeMap::new(),
            epochs: 0,
            durable: BTreeMap::new(),
            skew_ms: 0,
            capacity: usize::MAX,
            is_draining: false,
            holds_acks: false,
            has_failed: false,
            ack_fate: None,
            broken: Vec::new(),
            belied: Vec::new(),
            seen: BTreeMap::new(),
        }
    }

    // --- Life and death.

    /// Ends the process: of what was on its way to the disk a part is there.
    pub(crate) fn kill(&mut self, chance: &mut Chance, coverage: &mut Coverage) {
        let kept = chance.below(self.pending.len() as u64 + 1) as usize;
        if kept < self.pending.len() {
            coverage.count(Reached::ServerUnsyncedLost);
        }
        self.disk.journal.extend(self.pending.drain(..kept).map(|(_, stored)| stored));
        self.pending.clear();
        self.receivers.clear();
        self.decoders.clear();
        self.connections.clear();
        self.durable.clear();
        self.is_up = false;
        (self.has_failed, self.holds_acks, self.is_draining) = (false, false, false);
        self.capacity = usize::MAX;
    }

    /// Starts the process: it knows what the disk holds.
    pub(crate) fn start(&mut self) {
        self.is_up = true;
        for stored in &self.disk.journal {
            let entry = &stored.entry;
            self.durable.insert((stored.sensor, entry.lane, entry.log), entry.seq);
        }
    }

    /// Takes a backup; the sensors are told what is in it.
    pub(crate) fn back_up(&mut self) {
        self.backup = Some(self.disk.clone());
        self.safe_entries = self.disk.journal.len();
        if self.has_backups {
            let journal = &self.disk.journal;
            for (sensor, receiver) in &mut self.receivers {
                receiver.handle_backed_up(heads(journal, *sensor));
            }
        }
    }

    /// The highest sequence of a log that is in a backup of this life of the journal, where only
    /// that is safe.
    fn safe_seq(&self, (sensor, lane, log): (SensorId, Lane, LogId)) -> Option<u64> {
        let is_it = |stored: &&Rc<Stored>| {
            let entry = &stored.entry;
            (stored.sensor, entry.lane, entry.log) == (sensor, lane, log)
        };
        let last = self.disk.journal[..self.safe_entries].iter().rev().find(is_it);
        self.has_backups.then(|| last.map_or(0, |stored| stored.entry.seq))
    }

    /// Puts the disk of a killed server back to `backup`, and answers with the entries that are
    /// gone by it.
    pub(crate) fn restore(&mut self, backup: ServerDisk) -> Vec<Rc<Stored>> {
        let gone = self.disk.journal.split_off(backup.journal.len().min(self.disk.journal.len()));
        self.disk = backup;
        // A backup of an earlier life holds nothing of this one.
        self.safe_entries = 0;
        gone
    }

    fn receiver(&mut self, sensor: SensorId) -> &mut Receiver {
        let (journal, server) = (&self.disk.journal, self.server);
        let safe = self.has_backups.then(|| &journal[..self.safe_entries]);
        self.receivers.entry(sensor).or_insert_with(|| {
            let mut receiver = Receiver::new((DEPLOYMENT, server), sensor, heads(journal, sensor));
            if let Some(safe) = safe {
                receiver.handle_backed_up(heads(safe, sensor));
            }
            receiver
        })
    }

    /// The chain at the end of a log in the journal, where that is `seq`.
    pub(crate) fn chain_at_end(
        &self,
        (sensor, lane, log): (SensorId, Lane, LogId),
        seq: u64,
    ) -> Option<Chain> {
        let is_it = |stored: &&Rc<Stored>| {
            let entry = &stored.entry;
            (stored.sensor, entry.lane, entry.log) == (sensor, lane, log)
        };
        let last = &self.disk.journal.iter().rev().find(is_it)?.entry;
        (last.seq == seq).then_some(last.head.current.chain)
    }

    /// Whether the journal holds something of a log.
    pub(crate) fn has_log(&self, sensor: SensorId, log: LogId) -> bool {
        let mut journal = self.disk.journal.iter();
        journal.any(|stored| stored.sensor == sensor && stored.entry.log == log)
    }

    // --- What an operator does.

    /// Queues a command for a sensor.
    pub(crate) fn command(&mut self, sensor: SensorId, seq: u64) {
        let number = CommandNumber { issuer: 1, seq };
        let action = Action::StartCollection;
        let command = Command { number, expires_after_ms: 3_600_000, action };
        self.disk.commands.entry(sensor).or_default().push(command);
    }

    /// Says whether the bulk lane is refused.
    pub(crate) fn overload(&mut self, retry_after_ms: Option<u32>) {
        self.receivers.values_mut().for_each(|receiver| receiver.overload(retry_after_ms));
    }

    /// Says whether credit is raised.
    pub(crate) fn hold_credit(&mut self, is_held: bool) {
        for receiver in self.receivers.values_mut() {
            if is_held { receiver.hold_credit() } else { receiver.lift_credit() }
        }
    }

    // --- Time.

    /// Lets time pass: entries become durable, silent peers are given up. Answers with the
    /// connections that end.
    pub(crate) fn handle_time(&mut self, now_ns: u64, coverage: &mut Coverage) -> Vec<Reply> {
        let due = self.pending.iter().take_while(|(at_ns, _)| *at_ns <= now_ns).count();
        if self.has_failed {
            for receiver in self.receivers.values_mut() {
                receiver.handle_store_failed();
            }
            return self.end_all(Connection::refuse_store_failed);
        }
        for (_, stored) in self.pending.drain(..due).collect::<Vec<_>>() {
            let entry = &stored.entry;
            self.durable.insert((stored.sensor, entry.lane, entry.log), entry.seq);
            let (lane, log, seq) = (entry.lane, entry.log, entry.seq);
            self.receiver(stored.sensor).handle_stored(lane, log, seq);
            self.decode(now_ns / MS, &stored, coverage);
            self.disk.journal.push(stored);
        }
        let mut replies = Vec::new();
        for (link, connection) in &mut self.connections {
            if connection.poll_timeout() <= now_ns / MS
                && let Err(fault) = connection.handle_timeout(now_ns / MS)
            {
                replies.push(Reply { link: *link, bytes: fault, is_last: true });
            }
        }
        self.forget(&replies);
        replies
    }

    /// When [`Self::handle_time`] is due.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        let pending = self.pending.front().map(|(at_ns, _)| *at_ns).filter(|_| !self.has_failed);
        let idle = self.connections.values().map(|connection| connection.poll_timeout() * MS);
        pending.into_iter().chain(idle).min()
    }

    /// Decodes what is durable, and asks for a keyframe where that does not succeed.
    fn decode(&mut self, now_ms: u64, stored: &Stored, coverage: &mut Coverage) {
        let entry = &stored.entry;
        let (sensor, lane, log) = (stored.sensor, entry.lane, entry.log);
        let context = LogContext { deployment: DEPLOYMENT, sensor, lane, log };
        let built_in = &self.built_in;
        let decoder = self
            .decoders
            .entry((sensor, lane))
            .or_insert_with(|| Decoder::new(context, ROWS_MAX, built_in.clone()));
        decoder.open_log(log);
        if let EntryKind::Jump { .. } = entry.kind {
            return decoder.await_opening();
        }
        let Ok(chunk) = Chunk::decode(&entry.bytes) else { return };
        let reason = match decoder.handle_chunk(&chunk) {
            Err(_) => Some(ResyncReason::Undecodable),
            Ok(decoded) if decoded.divergent => Some(ResyncReason::DigestDiffers),
            Ok(_) => None,
        };
        if chunk.header.flags.has(lapwing_protocol::chunk::ChunkFlags::KEYFRAME_LAST) {
            coverage.count(Reached::Keyframe);
        }
        if let Some(reason) = reason {
            self.receiver(sensor).handle_divergent(now_ms, lane, entry.seq, reason);
        }
    }

    /// The digest of a sensor's table as this process decoded it, where all of it decoded.
    pub(crate) fn digest(&self, sensor: SensorId) -> Option<u64> {
        let decoder = self.decoders.get(&(sensor, Lane::Bulk))?;
        (!decoder.is_divergent()).then(|| decoder.digest())
    }

    /// Whether nothing is on its way to the disk.
    pub(crate) fn is_quiet(&self) -> bool {
        self.pending.is_empty()
    }

    fn end_all(&mut self, farewell: impl Fn() -> Vec<u8>) -> Vec<Reply> {
        let links = std::mem::take(&mut self.connections).into_keys();
        links.map(|link| Reply { link, bytes: farewell(), is_last: true }).collect()
    }

    /// Tells every sensor that this server is going away, and ends their connections.
    pub(crate) fn drain_sensors(&mut self) -> Vec<Reply> {
        self.is_draining = true;
        self.end_all(Connection::draining)
    }

    pub(crate) fn forget(&mut self, replies: &[Reply]) {
        for reply in replies.iter().filter(|reply| reply.is_last) {
            self.connections.remove(&reply.link);
        }
    }
}

/// Where the lanes of a sensor stand by a journal.
fn heads(journal: &[Rc<Stored>], sensor: SensorId) -> [Option<HeadRecord>; 2] {
    [Lane::Bulk, Lane::Urgent].map(|lane| {
        let mut newest = journal.iter().rev();
        let is_it = |stored: &&Rc<Stored>| stored.sensor == sensor && stored.entry.lane == lane;
        Some(newest.find(is_it)?.entry.head.clone())
    })
}

/// A question to Registration, as it travels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) machine: usize,
    pub(crate) life: u64,
    pub(crate) request: AssignRequest,
}
