//! The sensor's machine: the real sensor core over a simulated disk.
//!
//! A life ends by a clean stop, a kill or a power cut; the disk goes on to the next. Lent memory is
//! leaked at each start, since a sensor keeps what it is lent for good: 60 KiB a life.

use std::collections::BTreeMap;

use lapwing_protocol::command::{CommandNumber, Outcome};
use lapwing_protocol::hello::Memory;
use lapwing_protocol::id::{Lane, LogId};
use lapwing_sensor_core::{
    CloseReason, Config, Event, Flight, Hole, Installation, Intake, IntakeError, LaneStorage, Now,
    RowEntry, Sensor, Sizes, Storage, Stored, StringSlot,
};

use super::chance::Chance;
use super::facts::MadeFact;
use super::faults::{Coverage, Reached};
use super::spool::{Spool, Spooled};
use super::{BOOT, DEPLOYMENT, SENSOR};

/// Small enough that bounds are met, large enough that no fact is dropped.
const SIZES: Sizes = Sizes {
    rows: 64,
    index: 128,
    row_bytes: 8 << 10,
    strings: 64,
    definitions: 0,
    bulk: lapwing_sensor_core::LaneSizes {
        open: 1_024,
        window: 8 << 10,
        flight: 16,
        holes: 4,
        stored: 4,
    },
    urgent: lapwing_sensor_core::LaneSizes {
        open: 1_024,
        window: 4 << 10,
        flight: 4,
        holes: 4,
        stored: 4,
    },
    receive: 4_096,
    fetch: 1_024,
    call: 256,
};

/// What a life of the sensor wants from the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A connection to the server.
    Dial,
    /// No connection any more.
    HangUp,
    /// These bytes to the server.
    Send(Vec<u8>),
}

/// The machine the sensor runs on.
pub(crate) struct SensorMachine {
    pub(crate) spool: Spool,
    last_command: Option<CommandNumber>,
    life: Option<Sensor<'static>>,
    /// How often each command was carried out.
    pub(crate) executed: BTreeMap<CommandNumber, u64>,
    /// Where each fact was put, by its source_seq.
    pub(crate) placed: BTreeMap<u64, Placed>,
    current: [LogId; 2],
}

/// Where a fact was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) log: LogId,
    pub(crate) index: u64,
    /// Whether a kill or power cut may have taken it.
    pub(crate) is_excused: bool,
}

impl SensorMachine {
    pub(crate) fn new() -> Self {
        Self {
            spool: Spool::default(),
            last_command: None,
            life: None,
            executed: BTreeMap::new(),
            placed: BTreeMap::new(),
            current: [LogId([0; 16]); 2],
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.life.is_some()
    }

    pub(crate) fn life(&self) -> Option<&Sensor<'static>> {
        self.life.as_ref()
    }

    /// Starts the sensor's process.
    pub(crate) fn start(&mut self, now: Now, chance: &mut Chance, coverage: &mut Coverage) {
        let logs = self.spool.begin(chance);
        self.current = [logs[0].log, logs[1].log];
        let config = Config {
            deployment: DEPLOYMENT,
            sensor: SENSOR,
            boot: BOOT,
            memory: Memory::Disk,
            agent: "simulated/1",
            name: "machine",
            os: "none",
            installation: Installation { has_detection: true, ..Installation::default() },
            last_command: self.last_command,
            hash_key: chance.id(),
            seed: chance.number(),
        };
        let Ok(mut sensor) = Sensor::new(config, storage(&SIZES), logs) else { return };
        for lane in [Lane::Bulk, Lane::Urgent] {
            if let Some(tail) = self.spool.tail(lane) {
                coverage.count(Reached::TailSent);
                sensor.handle_tail(lane, Some(tail));
            }
        }
        sensor.start(now);
        self.life = Some(sensor);
    }

    /// Stops the process cleanly; gives what it still had to send.
    pub(crate) fn stop(&mut self, now: Now) {
        if let Some(sensor) = &mut self.life {
            sensor.stop(now);
        }
        self.append(now);
        self.life = None;
        self.spool.sync();
        self.spool.is_clean = true;
    }

    /// Kills the process: what is in its memory alone is gone.
    pub(crate) fn kill(&mut self) {
        self.life = None;
        self.excuse();
    }

    /// Cuts the power.
    pub(crate) fn cut_power(&mut self, chance: &mut Chance) {
        self.life = None;
        self.spool.cut_power(chance);
        self.excuse();
    }

    /// Marks the facts that are in no chunk on the disk.
    fn excuse(&mut self) {
        for logs in self.spool.logs.values() {
            for log in logs {
                let next_index = log.positions().made.next_index;
                let lost = self
                    .placed
                    .values_mut()
                    .filter(|placed| placed.log == log.start.log && placed.index >= next_index);
                lost.for_each(|placed| placed.is_excused = true);
            }
        }
    }

    /// Hands a fact in.
    pub(crate) fn observe(&mut self, now: Now, fact: &MadeFact) {
        let fields = fact.fields();
        let fact_in = lapwing_protocol::element::Fact {
            kind: fact.kind,
            change: fact.change,
            time_ns: now.monotonic_ns,
            fields: &fields,
        };
        loop {
            let Some(sensor) = &mut self.life else { return };
            match sensor.handle_fact(now, Lane::Bulk, &fact_in) {
                Err(IntakeError::Undrained) => self.append(now),
                Ok(Intake::Unchanged) => return,
                Ok(_) => {
                    let index = sensor.stats().lanes[0].facts_produced;
                    let log = self.current[0];
                    let placed = Placed { log, index, is_excused: false };
                    self.placed.insert(fact.source_seq, placed);
                    return;
                }
            }
        }
    }

    /// Appends the chunks that are made to the spool.
    fn append(&mut self, now: Now) {
        let Self { life: Some(sensor), spool, .. } = self else { return };
        while let Some(chunk) = sensor.poll_chunk(now) {
            let (lane, log, seq) = (chunk.lane, chunk.log, chunk.seq);
            let behind = lapwing_sensor_core::Position {
                seq,
                next_index: chunk.next_index,
                chain: chunk.chain_after,
            };
            let opens = chunk.opens_segment;
            let bytes = chunk.bytes.to_vec();
            spool.append(lane, log, seq, Spooled { bytes, opens, behind });
            sensor.handle_spooled(now, lane, seq);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) {
        if let Some(sensor) = &mut self.life {
            sensor.handle_timeout(now);
        }
    }

    pub(crate) fn handle_connected(&mut self, now: Now) {
        if let Some(sensor) = &mut self.life {
            sensor.handle_connected(now);
        }
    }

    pub(crate) fn handle_dial_failed(&mut self, now: Now) {
        if let Some(sensor) = &mut self.life {
            sensor.handle_dial_failed(now);
        }
    }

    pub(crate) fn handle_disconnected(&mut self, now: Now) {
        if let Some(sensor) = &mut self.life {
            sensor.handle_disconnected(now);
        }
    }

    /// Hands bytes in, draining as the core asks for it.
    pub(crate) fn handle_input(
        &mut self,
        now: Now,
        bytes: &[u8],
        chance: &mut Chance,
    ) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(sensor) = &mut self.life else { break };
            let taken = sensor.handle_input(now, rest);
            rest = &rest[taken..];
            wishes.extend(self.drain(now, chance));
        }
        wishes
    }

    /// Drains the core, in the order its contract says.
    pub(crate) fn drain(&mut self, now: Now, chance: &mut Chance) -> Vec<Wish> {
        let mut wishes = Vec::new();
        loop {
            self.append(now);
            if !self.handle_event(now, chance, &mut wishes) {
                break;
            }
        }
        let Some(sensor) = &mut self.life else { return wishes };
        let mut buffer = vec![0; 8_192];
        while let Ok(length @ 1..) = sensor.poll_transmit(now, &mut buffer) {
            wishes.push(Wish::Send(buffer[..length].to_vec()));
        }
        wishes
    }

    fn handle_event(&mut self, now: Now, chance: &mut Chance, wishes: &mut Vec<Wish>) -> bool {
        let Some(sensor) = &mut self.life else { return false };
        let Some(event) = sensor.poll_event(now) else { return false };
        match event {
            Event::DialDetection(_) => wishes.push(Wish::Dial),
            Event::Close(CloseReason::Stopped) => {}
            Event::Close(_) => {
                wishes.push(Wish::HangUp);
                sensor.handle_disconnected(now);
            }
            Event::Acked { lane, log, acked, .. } => {
                if let Some(first_seq) = self.spool.acked(lane, log, acked) {
                    sensor.handle_trimmed(lane, log, first_seq);
                }
            }
            Event::Fetch { lane, log, seq } => {
                let bytes = self.spool.fetch(lane, log, seq).unwrap_or_default();
                assert!(sensor.handle_fetched(lane, seq, &bytes).is_ok(), "fetch of {seq}");
            }
            Event::Locate { lane, log, find } => {
                let found = self.spool.locate(lane, log, find);
                sensor.handle_located(now, lane, found);
            }
            Event::OpenLog { lane, cause, parent } => {
                let ids = (DEPLOYMENT, SENSOR);
                let log = lapwing_sensor_core::LogPositions::open(
                    ids,
                    lane,
                    LogId(chance.id()),
                    cause,
                    Some(parent),
                );
                self.spool.open(lane, log);
                self.current[lane.index()] = log.log;
                sensor.handle_open_log(lane, log);
            }
            Event::LogDrained { lane, log } => {
                // Whatever is left of it was given up: it is not offered again.
                if let Some(held) = self.spool.log(lane, log) {
                    held.acked = held.positions().made;
                }
                let next = self.spool.tail(lane);
                sensor.handle_tail(lane, next);
            }
            Event::AcceptCommand(number) => {
                self.last_command = Some(number);
                sensor.handle_accepted(number);
            }
            Event::ExecuteCommand(command) => {
                *self.executed.entry(command.number).or_default() += 1;
                let done = sensor.handle_outcome(now, command.number, Outcome::Done, "");
                assert!(done.is_ok(), "the urgent lane has room");
            }
            Event::AskRegistration { .. }
            | Event::Greeted { .. }
            | Event::Call { .. }
            | Event::Reply { .. } => {}
        }
        true
    }
}

fn lend<T: Clone>(item: T, length: usize) -> &'static mut [T] {
    Box::leak(vec![item; length].into_boxed_slice())
}

fn storage(sizes: &Sizes) -> Storage<'static> {
    let lane = |sizes: &lapwing_sensor_core::LaneSizes| LaneStorage {
        open: lend(0, sizes.open),
        window: lend(0, sizes.window),
        flight: lend(Flight::NONE, sizes.flight),
        holes: lend(Hole::NONE, sizes.holes),
        stored: lend(Stored::NONE, sizes.stored),
    };
    Storage {
        rows: lend(RowEntry::default(), sizes.rows),
        index: lend(0, sizes.index),
        row_bytes: lend(0, sizes.row_bytes),
        strings: lend(StringSlot::default(), sizes.strings),
        definitions: lend(0, sizes.definitions),
        bulk: lane(&sizes.bulk),
        urgent: lane(&sizes.urgent),
        receive: lend(0, sizes.receive),
        fetch: lend(0, sizes.fetch),
        call: lend(0, sizes.call),
    }
}
