//! The front door: one sensor, as a state machine.

use lapwing_protocol::call::{Call, Reply};
use lapwing_protocol::command::{Action, CommandNumber, Outcome};
use lapwing_protocol::element::{Definition, Fact, Kind};
use lapwing_protocol::error::{BufferFull, DecodeError};
use lapwing_protocol::frame::Deframer;
use lapwing_protocol::hello::Memory;
use lapwing_protocol::id::{Lane, LogId, ServerId};
use lapwing_protocol::limits::{CHUNK_BYTES_MAX, FRAME_HEADER_BYTES};
use lapwing_protocol::message::Message;

use crate::calls::CallSlot;
use crate::chunker::Chunker;
use crate::config::Config;
use crate::engine::Engine;
use crate::error::{CloseReason, DefineError, IntakeError, PeerFault, StorageError};
use crate::event::{Event, Spool};
use crate::inbox::Inbox;
use crate::lane::LaneLink;
use crate::limits::HELLO_BYTES_MAX;
use crate::outbox::{Outbox, Stored};
use crate::position::{Hole, LogPositions, Position};
use crate::recorder::{Intake, Parts, Recorder};
use crate::registration::{Place, Registrar};
use crate::session::Session;
use crate::stats::{LaneStats, Stats};
use crate::storage::{LaneStorage, Storage};
use crate::strings::StringTable;
use crate::table::Table;
use crate::time::Now;

/// A sensor: facts in, chunks and frames out.
///
/// It does no I/O and reads no clock. Methods are of four kinds: nouns look; `handle_*` say what
/// happened; verbs (`start`, `stop`, `define`, `begin_scan`, ...) say what the owner wants;
/// `poll_*` give what must be done outside.
///
/// After each `handle_*` or verb, before the next one, drain in this order:
/// 1. [`Self::poll_chunk`] until `None`: append each chunk to the spool, then
///    [`Self::handle_spooled`] (nothing of a chunk is sent before);
/// 2. [`Self::poll_event`] until `None`: do what it says; some answers are `handle_*` again, and
///    then draining begins anew;
/// 3. [`Self::poll_transmit`] until 0: write the bytes to the connection;
/// 4. again from 1 on, until none gives anything: what was sent may ask for the next chunk;
/// 5. [`Self::poll_timeout`]: call [`Self::handle_timeout`] at that moment at the latest.
///
/// `now` must not run backwards.
#[derive(Debug)]
pub struct Sensor<'a> {
    deframer: Deframer<'a>,
    engine: Engine<'a>,
}

impl<'a> Sensor<'a> {
    /// A sensor over lent memory. `logs` are the bulk and the urgent log to go on with, or new ones
    /// ([`LogPositions::open`]); after an unclean stop they must be new.
    ///
    /// # Errors
    /// Which part of `storage` cannot be used.
    pub fn new(
        config: Config<'a>,
        storage: Storage<'a>,
        logs: [LogPositions; 2],
    ) -> Result<Self, StorageError> {
        let has_spool = config.memory == Memory::Disk;
        storage.check(has_spool)?;
        let Storage { bulk, urgent, .. } = storage;
        let has_urgent = !urgent.open.is_empty();
        let receive_bytes_max = storage.receive.len() as u32;
        let keys = (config.hash_key, logs[0].log);
        let memory = config.memory;
        let (bulk_chunker, bulk_outbox, bulk_link) = lane(Lane::Bulk, memory, bulk, logs[0]);
        let (chunker, urgent_outbox, urgent_link) = lane(Lane::Urgent, memory, urgent, logs[1]);
        let recorder = Recorder::new(Parts {
            definitions: storage.definitions,
            table: Table::new(storage.rows, storage.index, storage.row_bytes, keys),
            strings: StringTable::new(storage.strings, config.hash_key),
            bulk: bulk_chunker,
            urgent: has_urgent.then_some(chunker),
            boot: config.boot,
            memory,
        });
        let outboxes = [bulk_outbox, urgent_outbox];
        let links = [bulk_link, urgent_link];
        let engine = Engine {
            recorder,
            session: Session::new(outboxes, links, storage.fetch, has_urgent),
            registrar: Registrar::new(config.installation, config.seed),
            inbox: Inbox::new(config.last_command),
            calls: CallSlot::new(storage.call),
            is_collecting: true,
            receive_bytes_max,
            resynced_ns: None,
            resync_due_ns: None,
            untold_seq: None,
            config,
        };
        Ok(Self { deframer: Deframer::new(storage.receive), engine })
    }

    // --- Nouns.

    /// What it counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let recorder = &self.engine.recorder;
        let mut stats = Stats { rows: recorder.rows(), ..recorder.stats };
        for (outbox, lane) in self.engine.session.outboxes.iter().zip(&mut stats.lanes) {
            *lane = LaneStats {
                facts_produced: outbox.current().made.next_index - 1,
                chunks_made: outbox.chunks_made,
                bytes_made: outbox.bytes_made,
                acked_seq: outbox.current().acked.seq,
            };
            stats.dropped_memory_full += outbox.facts_dropped;
        }
        stats.lanes[0].facts_produced += recorder.open_facts();
        stats
    }

    /// Where the current log of `lane` stands.
    #[must_use]
    pub fn positions(&self, lane: Lane) -> LogPositions {
        *self.engine.session.outboxes[lane.index()].current()
    }

    /// The server it is greeted by, while a session is open.
    #[must_use]
    pub fn server(&self) -> Option<ServerId> {
        self.engine.session.server()
    }

    /// The server it is assigned to.
    #[must_use]
    pub fn assigned(&self) -> Option<ServerId> {
        self.engine.registrar.assigned()
    }

    /// Where it stands on its way to a server.
    #[must_use]
    pub fn place(&self) -> Place {
        self.engine.registrar.place()
    }

    /// What a command between receipt and outcome wants done.
    #[must_use]
    pub fn action(&self, number: CommandNumber) -> Option<Action> {
        self.engine.inbox.action(number)
    }

    /// The digest of the table.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.engine.recorder.digest()
    }

    /// The kind and canonical row in `slot` of the table.
    #[must_use]
    pub fn row(&self, slot: u32) -> Option<(Kind, &[u8])> {
        self.engine.recorder.row(slot)
    }

    /// The buffer that [`Self::poll_transmit`] needs at the least: the largest chunk in its frame,
    /// or a Hello.
    #[must_use]
    pub fn transmit_bytes_min(&self) -> usize {
        let chunks = self.engine.session.outboxes.iter().map(|outbox| outbox.chunk_bytes_max);
        let lanes = chunks.clone().filter(|bytes| *bytes > 0).count();
        let config = &self.engine.config;
        let texts = config.agent.len() + config.name.len() + config.os.len();
        let hello = HELLO_BYTES_MAX[0] + lanes * HELLO_BYTES_MAX[1] + texts;
        let chunk = chunks.max().unwrap_or(CHUNK_BYTES_MAX) + FRAME_HEADER_BYTES;
        chunk.max(hello)
    }

    // --- Verbs.

    /// Begins to look for a server.
    pub fn start(&mut self, now: Now) {
        self.engine.registrar.start(now);
    }

    /// Closes the open chunk and the session; facts may still come in.
    pub fn stop(&mut self, now: Now) {
        self.close_chunk(now);
        self.engine.session.close(CloseReason::Stopped);
        if !self.engine.session.is_open() {
            self.engine.registrar.stop();
        }
    }

    /// Closes the open chunk whatever its age.
    pub fn close_chunk(&mut self, now: Now) {
        let bulk = &mut self.engine.session.outboxes[Lane::Bulk.index()];
        self.engine.recorder.close(now, bulk);
    }

    /// Describes a kind of the agent's own; before the first fact of it.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn define(&mut self, definition: &Definition<'_>) -> Result<(), DefineError> {
        self.engine.recorder.define(definition)
    }

    /// What the next Hello says of collection.
    pub fn set_collecting(&mut self, is_collecting: bool) {
        self.engine.is_collecting = is_collecting;
    }

    /// Begins a scan of all elements of `kind`.
    pub fn begin_scan(&mut self, kind: Kind) {
        self.engine.recorder.begin_scan(kind);
    }

    /// Ends a scan: rows of `kind` that were not observed since it began are ended.
    ///
    /// # Errors
    /// [`IntakeError::Undrained`]; the scan is still open.
    pub fn end_scan(&mut self, now: Now, kind: Kind) -> Result<(), IntakeError> {
        let bulk = &mut self.engine.session.outboxes[Lane::Bulk.index()];
        self.engine.recorder.end_scan(now, kind, bulk)
    }

    /// Tells, at a start, what a server stored of a log in earlier runs; oldest first.
    pub fn note_stored(&mut self, lane: Lane, stored: Stored) {
        self.engine.session.outboxes[lane.index()].note_stored(stored);
    }

    // --- What happened: facts.

    /// A fact was observed. Without an urgent lane the bulk lane takes urgent facts too.
    ///
    /// State in the urgent lane does not enter the table: it is sent as it is, each time.
    ///
    /// # Errors
    /// [`IntakeError::Undrained`]: the fact was not taken; drain, and hand it in again.
    pub fn handle_fact(
        &mut self,
        now: Now,
        lane: Lane,
        fact: &Fact<'_>,
    ) -> Result<Intake, IntakeError> {
        self.engine.take(now, lane, fact)
    }

    /// A moment has come that [`Self::poll_timeout`] named.
    pub fn handle_timeout(&mut self, now: Now) {
        self.engine.handle_timeout(now);
    }

    // --- What happened: the spool.

    /// Everything up to chunk `seq` of the current log is appended to the spool.
    pub fn handle_spooled(&mut self, now: Now, lane: Lane, seq: u64) {
        let outbox = &mut self.engine.session.outboxes[lane.index()];
        outbox.handle_spooled(seq);
        if lane == Lane::Bulk {
            self.engine.recorder.pump(now, outbox);
        }
    }

    /// A chunk was read for [`Event::Fetch`].
    ///
    /// # Errors
    /// The bytes are not that chunk: the shell must declare a hole ([`Self::handle_hole`]).
    pub fn handle_fetched(
        &mut self,
        lane: Lane,
        seq: u64,
        bytes: &[u8],
    ) -> Result<(), DecodeError> {
        let is_it = self.engine.session.handle_fetched(lane, seq, bytes);
        if is_it { Ok(()) } else { Err(DecodeError::Shape) }
    }

    /// Something was looked up for [`Event::Locate`]; `None` when the spool does not have it.
    pub fn handle_located(&mut self, now: Now, lane: Lane, found: Option<Position>) {
        self.engine.session.handle_located(now, lane, found);
        self.engine.begin_wanted_segment(now);
    }

    /// A run of a log will not be sent: the spool reached its bound, failed or is damaged. What
    /// follows the hole must open a segment. The shell makes it durable first and says it again at
    /// each start until it is acknowledged.
    pub fn handle_hole(&mut self, now: Now, lane: Lane, hole: Hole) {
        self.engine.handle_hole(now, lane, hole);
    }

    /// The spool no longer holds what lies before `first_seq`.
    pub fn handle_trimmed(&mut self, lane: Lane, log: LogId, first_seq: u64) {
        self.engine.session.outboxes[lane.index()].handle_trimmed(log, first_seq);
    }

    /// A new log was opened for [`Event::OpenLog`].
    pub fn handle_open_log(&mut self, lane: Lane, log: LogPositions) {
        let engine = &mut self.engine;
        if lane == Lane::Bulk {
            engine.untold_seq = None;
            let given_up = engine.recorder.open_log(log.log);
            if !cfg!(mutant = "facts_lost_unsaid") {
                engine.session.facts_given_up[0] += given_up;
            }
            // Who has the old log's rows has those of another branch: it is told of these, however
            // long the next fact takes.
            engine.session.is_segment_wanted |= engine.recorder.rows() > 0;
        }
        engine.session.handle_open_log(lane, log);
    }

    /// An earlier start went on with `log`, the lane's current one or its tail, from the fact
    /// `index` on. Where the disk was an older image then, that is another branch than what a
    /// server has which is beyond the log's end (HEL-023).
    pub fn note_continued(&mut self, lane: Lane, log: LogId, index: u64) {
        self.engine.session.outboxes[lane.index()].note_continued(log, index);
    }

    /// Earlier starts sent nothing of `log`, the lane's current one, behind its chunk `seq`: what
    /// [`Self::sent_seq`] said when the last of them stopped. A server that is further in a hole
    /// has another branch (HEL-038). Not said where that is not known, as after an unclean stop.
    pub fn note_sent(&mut self, lane: Lane, log: LogId, seq: u64) {
        self.engine.session.outboxes[lane.index()].note_sent_before(log, seq);
    }

    /// The last chunk of the lane's current log that some server may have from here, for the next
    /// start.
    #[must_use]
    pub fn sent_seq(&self, lane: Lane) -> u64 {
        self.engine.session.outboxes[lane.index()].sent_seq()
    }

    /// An older log of `lane` goes first, at a start or after [`Event::LogDrained`]; `None`: there
    /// is none left.
    pub fn handle_tail(&mut self, lane: Lane, tail: Option<LogPositions>) {
        self.engine.session.handle_tail(lane, tail);
    }

    // --- What happened: registration and connection.

    /// Registration answered.
    pub fn handle_assigned(&mut self, now: Now, server: ServerId) {
        self.engine.registrar.handle_assigned(now, server);
    }

    /// Registration did not answer, or refused; `retry_after_ms` is its wish, or 0.
    pub fn handle_ask_failed(&mut self, now: Now, retry_after_ms: u32) {
        self.engine.registrar.handle_ask_failed(now, retry_after_ms);
    }

    /// The connection is made and both ends have proven who they are.
    pub fn handle_connected(&mut self, now: Now) {
        self.deframer.clear();
        let is_stopped = self.place() == Place::Stopped;
        self.engine.registrar.handle_connected(now);
        self.engine.session.handle_connected(now);
        if is_stopped {
            self.engine.session.close(CloseReason::Stopped);
        }
    }

    /// The connection could not be made.
    pub fn handle_dial_failed(&mut self, now: Now) {
        self.engine.registrar.handle_dial_failed(now);
    }

    /// The connection is gone, whoever closed it.
    pub fn handle_disconnected(&mut self, now: Now) {
        self.deframer.clear();
        self.engine.handle_disconnected(now);
    }

    /// Bytes came from the server; answers with how many were taken. When not all were, drain
    /// [`Self::poll_event`] and hand in the rest.
    pub fn handle_input(&mut self, now: Now, bytes: &[u8]) -> usize {
        let mut taken = 0;
        self.engine.session.heard(now);
        loop {
            self.decode(now);
            if !self.engine.session.is_open() {
                return bytes.len();
            }
            let fed = self.deframer.feed(bytes.get(taken..).unwrap_or_default());
            if fed == 0 {
                return taken;
            }
            taken += fed;
        }
    }

    /// Handles whole frames until one waits for the shell.
    fn decode(&mut self, now: Now) {
        let Self { deframer, engine } = self;
        while engine.session.is_open() && engine.calls.is_free() {
            let result = match deframer.next_frame() {
                Ok(None) => return,
                Ok(Some(frame)) => match Message::decode(&frame) {
                    Ok(Some(message)) => engine.handle_message(now, &message),
                    Ok(None) => Ok(()),
                    Err(error) => Err(PeerFault::Malformed(error).into()),
                },
                Err(error) => Err(PeerFault::Malformed(error).into()),
            };
            if let Err(reason) = result {
                engine.session.close(reason);
            }
        }
    }

    // --- What happened: commands.

    /// The number of [`Event::AcceptCommand`] is durable.
    pub fn handle_accepted(&mut self, number: CommandNumber) {
        self.engine.inbox.handle_accepted(number);
    }

    /// A command was carried out, or not.
    ///
    /// # Errors
    /// [`IntakeError::Undrained`]: drain, and say it again.
    pub fn handle_outcome(
        &mut self,
        now: Now,
        number: CommandNumber,
        outcome: Outcome,
        detail: &str,
    ) -> Result<(), IntakeError> {
        let Some(action) = self.engine.inbox.action(number) else { return Ok(()) };
        self.engine.record_outcome(now, (number, action), outcome, detail)?;
        self.engine.inbox.finish(number);
        Ok(())
    }

    /// At a start: this command was accepted and not finished. It is not run again.
    ///
    /// # Errors
    /// [`IntakeError::Undrained`]: drain, and say it again.
    pub fn handle_interrupted(
        &mut self,
        now: Now,
        number: CommandNumber,
        action: Action,
    ) -> Result<(), IntakeError> {
        self.engine.record_outcome(now, (number, action), Outcome::Interrupted, "").map(|_| ())
    }

    // --- What must be done outside.

    /// The next chunk for the spool; none without one.
    pub fn poll_chunk(&mut self, now: Now) -> Option<Spool<'_>> {
        let [bulk, urgent] = &mut self.engine.session.outboxes;
        self.engine.recorder.pump(now, bulk);
        let outbox = if urgent.has_offer() { urgent } else { bulk };
        outbox.offer()
    }

    /// The next thing for the shell to do.
    pub fn poll_event(&mut self, now: Now) -> Option<Event<'_>> {
        self.decode(now);
        match self.engine.poll_event(now) {
            Some(event) => Some(event),
            None => self.engine.calls.poll(),
        }
    }

    /// Writes as many frames into `buffer` as there are and fit; returns the length. 0: nothing.
    ///
    /// # Errors
    /// [`BufferFull`] when not even the next frame fits, see [`Self::transmit_bytes_min`].
    pub fn poll_transmit(&mut self, now: Now, buffer: &mut [u8]) -> Result<usize, BufferFull> {
        let mut length = 0;
        loop {
            let room = buffer.get_mut(length..).unwrap_or_default();
            match self.engine.transmit(now, room) {
                Ok(0) => return Ok(length),
                Ok(written) => length += written,
                Err(BufferFull) if length > 0 => return Ok(length),
                Err(error) => return Err(error),
            }
        }
    }

    /// When [`Self::handle_timeout`] is due, in monotonic nanoseconds; 0, at once, while an event
    /// still waits.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.engine.deadline_ns()
    }

    // --- Calls, written into the shell's own output between frames.

    /// Writes the answer to [`Event::Call`], or a part of it; 0 when the session is over.
    ///
    /// # Errors
    /// [`BufferFull`] when it does not fit `buffer`, or is longer than the server takes.
    pub fn encode_reply(&self, reply: &Reply<'_>, buffer: &mut [u8]) -> Result<usize, BufferFull> {
        self.encode(&Message::Reply(*reply), buffer)
    }

    /// Writes a call to the server; 0 when no session is open. The answer is [`Event::Reply`].
    ///
    /// # Errors
    /// [`BufferFull`] when it does not fit `buffer`, or is longer than the server takes.
    pub fn encode_call(&self, call: &Call<'_>, buffer: &mut [u8]) -> Result<usize, BufferFull> {
        self.encode(&Message::Call(*call), buffer)
    }

    fn encode(&self, message: &Message<'_>, buffer: &mut [u8]) -> Result<usize, BufferFull> {
        if self.server().is_none() {
            return Ok(0);
        }
        let length = buffer.len().min(self.engine.session.frame_bytes_max());
        message.encode(buffer.get_mut(..length).ok_or(BufferFull)?)
    }
}

fn lane<'a>(
    lane: Lane,
    memory: Memory,
    storage: LaneStorage<'a>,
    log: LogPositions,
) -> (Chunker<'a>, Outbox<'a>, LaneLink<'a>) {
    let chunker = Chunker::new(storage.open, lane);
    let kind = (lane, memory, chunker.chunk_bytes_max());
    let lists = (storage.holes, storage.stored);
    let outbox = Outbox::new(kind, log, storage.window, lists);
    (chunker, outbox, LaneLink::new(storage.flight, log.acked))
}
