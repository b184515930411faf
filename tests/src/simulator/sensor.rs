//! The sensor's machine: the real sensor core, a shell as `sensor-os` has one, a simulated disk.
//!
//! A life is one process: it ends by a stop, a kill or a power cut, and the disk goes on to the
//! next. An image of the disk makes another machine with the same identity, or the same machine as
//! it was. Memory is lent from the world's pool, a piece a life.

mod drain;
mod memory;
mod truth;

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::command::CommandNumber;
use lapwing_protocol::element::Fact;
use lapwing_protocol::hello::{LogCause, LogParent, Memory as Kept};
use lapwing_protocol::id::{BootId, Lane, LogId, SensorId, ServerId};
use lapwing_protocol::registration::AssignReason;
use lapwing_sensor_core::{
    Config, Installation, Intake, IntakeError, LogPositions, Now, Sensor, Storage,
};

use super::chance::Chance;
use super::disk::{Crash, Disk, NotedCommand, Sync};
use super::facts::{MadeFact, Nature};
use super::{DEPLOYMENT, MS, WALL_MS};
pub(crate) use memory::{Lent, SIZES};
pub(crate) use truth::{Excuse, Placed, Truth};

/// How soon what the disk refused is tried again.
const RETRY_NS: u64 = 1_000 * MS;
/// How often progress is noted.
const PROGRESS_NS: u64 = 1_000 * MS;

/// What a life of the sensor wants from the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Ask Registration.
    Ask { reason: AssignReason, trouble_with: Option<ServerId> },
    /// A connection to this server.
    Dial(ServerId),
    /// No connection any more.
    HangUp,
    /// These bytes to the server.
    Send(Vec<u8>),
    /// To die between the acceptance of a command and its execution.
    Die,
}

/// What is to be done when the disk works again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retry {
    OpenLog { lane: Lane, cause: LogCause, parent: LogParent },
    Accept(CommandNumber),
}

/// The machine the sensor runs on.
pub(crate) struct SensorMachine<'m> {
    /// Which of the world's machines.
    pub(crate) number: usize,
    pub(crate) sensor: SensorId,
    pub(crate) kept: Kept,
    pub(crate) disk: Disk,
    life: Option<Sensor<'m>>,
    /// Processes so far.
    pub(crate) lives: u64,
    pub(crate) boot: BootId,
    boot_ns: u64,
    /// How far its wall clock is off, in milliseconds.
    pub(crate) skew_ms: i64,
    pub(crate) link: Option<u64>,
    pub(crate) wishes: Vec<Wish>,
    /// Whether there is another life after this one.
    pub(crate) may_die: bool,
    pub(crate) truth: Truth,
    /// Events worth counting, for the world.
    pub(crate) notes: Vec<super::coverage::Reached>,
    current: [LogId; 2],
    unreported: [Option<u64>; 2],
    losses: (u64, u64),
    /// Where a server last stood within a hole, by lane.
    place_in_hole: [Option<(LogId, u64)>; 2],
    retries: Vec<Retry>,
    retry_ns: Option<u64>,
    progress_ns: Option<u64>,
    command: Option<NotedCommand>,
}

impl<'m> SensorMachine<'m> {
    pub(crate) fn new(number: usize, sensor: SensorId, kept: Kept, disk: Disk) -> Self {
        Self {
            number,
            sensor,
            kept,
            disk,
            life: None,
            lives: 0,
            boot: BootId([number as u8; 16]),
            boot_ns: 0,
            skew_ms: 0,
            link: None,
            wishes: Vec::new(),
            may_die: false,
            truth: Truth::default(),
            notes: Vec::new(),
            current: [LogId([0; 16]); 2],
            unreported: [None; 2],
            losses: (0, 0),
            place_in_hole: [None; 2],
            retries: Vec::new(),
            retry_ns: None,
            progress_ns: None,
            command: None,
        }
    }

    // --- Nouns.

    pub(crate) fn is_alive(&self) -> bool {
        self.life.is_some()
    }

    pub(crate) fn life(&self) -> Option<&Sensor<'m>> {
        self.life.as_ref()
    }

    /// The log facts go to.
    pub(crate) fn current(&self, lane: Lane) -> LogId {
        self.current[lane.index()]
    }

    pub(crate) fn now(&self, now_ns: u64) -> Now {
        let wall_ms = WALL_MS.saturating_add_signed(self.skew_ms) + now_ns / MS;
        Now { monotonic_ns: now_ns - self.boot_ns, wall_ms }
    }

    /// When something is due here.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        let core = self.life.as_ref()?.poll_timeout();
        let mine = [core, self.disk_next_ns(), self.retry_ns, self.progress_ns];
        mine.into_iter().flatten().min().map(|at_ns| at_ns + self.boot_ns)
    }

    fn disk_next_ns(&self) -> Option<u64> {
        self.disk.next_ns().filter(|_| self.kept == Kept::Disk)
    }

    /// Everything it has is acknowledged.
    pub(crate) fn is_at_rest(&self) -> bool {
        let Some(sensor) = &self.life else { return false };
        let is_done = Lane::BY_URGENCY.into_iter().all(|lane| {
            let positions = sensor.positions(lane);
            positions.acked.seq == positions.made.seq && self.disk.tail(lane).is_none()
        });
        let produced = sensor.stats().lanes[0].facts_produced;
        let chunked = sensor.positions(Lane::Bulk).made.next_index - 1;
        is_done && produced == chunked && sensor.server().is_some() && self.losses.0 == 0
    }

    // --- Life and death.

    /// Starts the process with lent memory.
    pub(crate) fn start(&mut self, now_ns: u64, lent: Storage<'m>, chance: &mut Chance) {
        let now = self.now(now_ns);
        let logs = match self.kept {
            Kept::Disk => self.disk.begin(self.boot, chance),
            Kept::RamOnly => [Lane::Bulk, Lane::Urgent].map(|lane| {
                let ids = (DEPLOYMENT, self.sensor);
                LogPositions::open(ids, lane, LogId(chance.id()), LogCause::Started, None)
            }),
        };
        for (lane, log) in [Lane::Bulk, Lane::Urgent].into_iter().zip(&logs) {
            self.current[lane.index()] = log.log;
            self.truth.logs.push((lane, log.log, log.cause));
        }
        self.lives += 1;
        self.unreported = [None; 2];
        self.losses = (0, 0);
        self.retries.clear();
        (self.retry_ns, self.progress_ns, self.command) = (None, None, None);
        let notes = self.disk.notes;
        let assigned = notes.assignment;
        let installation = Installation { has_registration: true, has_detection: false, assigned };
        let config = Config {
            deployment: DEPLOYMENT,
            sensor: self.sensor,
            boot: self.boot,
            memory: self.kept,
            agent: "simulated/1",
            name: "machine",
            os: "none",
            installation,
            last_command: notes.command.map(|command| command.number),
            hash_key: chance.id(),
            seed: chance.number(),
        };
        let mut sensor = match Sensor::new(config, lent, logs) {
            Ok(sensor) => sensor,
            Err(error) => return self.truth.broken.push(format!("no sensor: {error}")),
        };
        if self.kept == Kept::Disk {
            for (lane, log) in [Lane::Bulk, Lane::Urgent].into_iter().zip(&logs) {
                self.remind(&mut sensor, now, (lane, log.log));
                self.next_tail(&mut sensor, now, lane);
            }
        }
        self.life = Some(sensor);
        self.tell_interrupted(now);
        if let Some(sensor) = &mut self.life {
            sensor.start(now);
        }
        self.drain(now, chance);
    }

    /// What earlier runs know of a log.
    fn remind(&self, sensor: &mut Sensor<'m>, now: Now, (lane, log): (Lane, LogId)) {
        if let Some(index) = self.disk.find(lane, log).and_then(|log| log.continued_index) {
            sensor.note_continued(lane, log, index);
        }
        if let Some(seq) = self.disk.sent_seq[lane.index()] {
            sensor.note_sent(lane, log, seq);
        }
        let (stored, holes) = self.disk.known_of(lane, log);
        for stored in stored {
            sensor.note_stored(lane, stored);
        }
        for hole in holes {
            sensor.handle_hole(now, lane, hole);
        }
    }

    fn next_tail(&self, sensor: &mut Sensor<'m>, now: Now, lane: Lane) {
        if let Some(tail) = self.disk.tail(lane) {
            sensor.handle_tail(lane, Some(tail));
            self.remind(sensor, now, (lane, tail.log));
        }
    }

    /// Stops the process in good order. What it still sends is in the wishes.
    pub(crate) fn stop(&mut self, now_ns: u64, chance: &mut Chance) {
        let now = self.now(now_ns);
        self.drain(now, chance);
        if let Some(sensor) = &mut self.life {
            sensor.close_chunk(now);
        }
        self.drain(now, chance);
        if let Some(sensor) = &mut self.life {
            sensor.stop(now);
            sensor.handle_disconnected(now);
        }
        self.spool_chunks(now);
        let sent_seq = [Lane::Bulk, Lane::Urgent]
            .map(|lane| self.life.as_ref().map_or(u64::MAX, |life| life.sent_seq(lane)));
        if self.kept == Kept::RamOnly || self.disk.close(sent_seq).is_err() {
            self.disk.handle_killed();
        }
        self.end_life(Excuse::Killed);
    }

    /// Kills the process: what is in its memory alone is gone.
    pub(crate) fn kill(&mut self) {
        self.disk.handle_killed();
        self.end_life(Excuse::Killed);
    }

    /// Cuts the power; the machine boots anew.
    pub(crate) fn cut_power(&mut self, now_ns: u64, chance: &mut Chance) -> Crash {
        let crash = self.disk.handle_power_cut(chance);
        self.end_life(Excuse::PowerCut);
        self.truth.disasters += u64::from(crash.has_lost);
        self.boot = BootId(chance.id());
        self.boot_ns = now_ns;
        crash
    }

    /// Puts the disk back to an image of it, taken earlier.
    pub(crate) fn roll_back(&mut self, image: Disk) {
        self.disk = image;
        self.disk.handle_killed();
        self.truth.rollbacks += 1;
        self.truth.incarnation += 1;
        self.truth.disasters += 1;
        self.end_life(Excuse::RolledBack);
        // The image is of a time before the next log told of a crash: that log is no more.
        let current = self.disk.current(Lane::Bulk).map(|log| log.id);
        for placed in self.truth.placed.values_mut() {
            let is_crashed = matches!(placed.excuse, Some(Excuse::Killed | Excuse::PowerCut));
            if is_crashed && Some(placed.log) == current {
                placed.excuse = Some(Excuse::RolledBack);
            }
        }
    }

    fn end_life(&mut self, why: Excuse) {
        self.wishes.clear();
        let life = self.life.take();
        if self.kept == Kept::RamOnly {
            let acked = life.map_or(1, |life| life.positions(Lane::Bulk).acked.next_index);
            let log = self.current[0];
            return self.excuse(why, |placed| placed.log == log && placed.index >= acked);
        }
        // What is in no chunk on the disk is nowhere. After a second image the place of a fact may
        // hold one of the branch that the first image ended.
        let logs = &self.disk.lanes[Lane::Bulk.index()];
        let is_gone = |source_seq: u64, placed: &Placed| {
            let log = logs.iter().find(|log| log.id == placed.log);
            match log {
                Some(log) => !log.has_fact(placed.index, source_seq),
                // Only an image can bring back a time before a log was opened.
                None => why == Excuse::RolledBack,
            }
        };
        for (source_seq, placed) in &mut self.truth.placed {
            if placed.excuse.is_none() && is_gone(*source_seq, placed) {
                placed.excuse = Some(why);
            }
        }
    }

    fn excuse(&mut self, why: Excuse, is_gone: impl Fn(&Placed) -> bool) {
        for placed in self.truth.placed.values_mut() {
            if placed.excuse.is_none() && is_gone(placed) {
                placed.excuse = Some(why);
            }
        }
    }

    // --- What happens.

    /// Hands a fact in.
    pub(crate) fn observe(&mut self, now_ns: u64, made: &MadeFact, chance: &mut Chance) {
        let now = self.now(now_ns);
        let fields = made.fields();
        let Nature { kind, change } = made.nature;
        let fact = Fact { kind, change, time_ns: now.monotonic_ns, fields: &fields };
        for _ in 0..64 {
            let Some(sensor) = &mut self.life else { return };
            match sensor.handle_fact(now, Lane::Bulk, &fact) {
                Err(IntakeError::Undrained) => self.spool_chunks(now),
                Ok(Intake::Unchanged) => break,
                Ok(Intake::Recorded | Intake::Dropped(_)) => {
                    let index = sensor.stats().lanes[0].facts_produced;
                    let log = self.current[0];
                    let placed =
                        Placed { log, index, excuse: None, is_dropped: false, is_told: false };
                    self.truth.placed.insert(made.source_seq, placed);
                    self.disk.note_fact(Lane::Bulk, index, made.source_seq);
                    break;
                }
            }
        }
        self.drain(now, chance);
    }

    /// Lets time pass.
    pub(crate) fn handle_time(&mut self, now_ns: u64, chance: &mut Chance) {
        let now = self.now(now_ns);
        let is_due = |due_ns: Option<u64>| due_ns.is_some_and(|due| due <= now.monotonic_ns);
        let Some(sensor) = &mut self.life else { return };
        if is_due(sensor.poll_timeout()) {
            sensor.handle_timeout(now);
        }
        self.sync_if_due(now);
        self.tell_losses(now);
        if is_due(self.progress_ns) {
            self.progress_ns = None;
            self.disk.note_progress();
        }
        if is_due(self.retry_ns) {
            self.retry_ns = None;
            for retry in std::mem::take(&mut self.retries) {
                match retry {
                    Retry::OpenLog { lane, cause, parent } => {
                        self.open_log(now, (lane, cause, parent), chance);
                    }
                    Retry::Accept(number) => self.accept(now, number),
                }
            }
        }
        self.drain(now, chance);
    }

    pub(crate) fn handle_connected(&mut self, now_ns: u64, chance: &mut Chance) {
        self.with(now_ns, chance, |sensor, now| sensor.handle_connected(now));
    }

    pub(crate) fn handle_dial_failed(&mut self, now_ns: u64, chance: &mut Chance) {
        self.with(now_ns, chance, |sensor, now| sensor.handle_dial_failed(now));
    }

    pub(crate) fn handle_disconnected(&mut self, now_ns: u64, chance: &mut Chance) {
        self.link = None;
        // As the real one does; where the disk refuses, the next session says it again.
        let _ = self.disk.save_progress();
        self.with(now_ns, chance, |sensor, now| sensor.handle_disconnected(now));
    }

    pub(crate) fn handle_asked(
        &mut self,
        now_ns: u64,
        answer: Result<ServerId, u32>,
        chance: &mut Chance,
    ) {
        if let Ok(server) = answer
            && !self.disk.refuses_writes
        {
            self.disk.notes.assignment = Some(server);
        }
        self.with(now_ns, chance, |sensor, now| match answer {
            Ok(server) => sensor.handle_assigned(now, server),
            Err(retry_after_ms) => sensor.handle_ask_failed(now, retry_after_ms),
        });
    }

    fn with(
        &mut self,
        now_ns: u64,
        chance: &mut Chance,
        handle: impl FnOnce(&mut Sensor<'m>, Now),
    ) {
        let now = self.now(now_ns);
        if let Some(sensor) = &mut self.life {
            handle(sensor, now);
        }
        self.drain(now, chance);
    }

    /// Hands bytes in, draining as the core asks for it.
    pub(crate) fn handle_input(&mut self, now_ns: u64, bytes: &[u8], chance: &mut Chance) {
        let now = self.now(now_ns);
        let mut rest = bytes;
        while !rest.is_empty() && self.link.is_some() {
            let Some(sensor) = &mut self.life else { return };
            let taken = sensor.handle_input(now, rest);
            rest = &rest[taken..];
            self.drain(now, chance);
        }
    }

    /// Whether the outcome of `number` is in a chunk on the disk.
    fn has_outcome(&self, number: CommandNumber) -> bool {
        let records = self.disk.lanes[Lane::Urgent.index()].iter();
        let mut records = records.flat_map(|log| &log.segments).flat_map(|file| &file.records);
        records.any(|record| {
            Chunk::decode(&record.bytes)
                .is_ok_and(|chunk| super::oracle::outcome_of(self.sensor, &chunk) == Some(number))
        })
    }

    pub(crate) fn is_syncing_each(&self) -> bool {
        self.disk.sync == Sync::Each
    }
}
