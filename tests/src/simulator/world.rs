//! One world: a sensor, a server, what is between them, and what goes wrong.
//!
//! Time jumps from one event to the next. In the first phase faults happen; in the second nothing
//! more goes wrong, and everything must come to rest within an hour of virtual time.

use lapwing_protocol::frame::Deframer;
use lapwing_protocol::hello::LogVerdict;
use lapwing_protocol::message::Message;
use lapwing_sensor_core::Now;
use sha2::{Digest as _, Sha256};

use super::chance::Chance;
use super::facts::Machine;
use super::faults::{Coverage, Reached};
use super::network::Link;
use super::oracle;
use super::sensor::{SensorMachine, Wish};
use super::server::ServerMachine;

/// Facts of one world, at the least.
const FACTS: u64 = 1_000;
/// Faults of one world, at the least.
const FAULTS: u64 = 8;
/// How long the second phase may take: an hour.
const REST_NS: u64 = 3_600_000_000_000;
const MS: u64 = 1_000_000;

/// What one seed came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Facts that happened.
    pub facts: u64,
    /// Facts that were neither stored nor excused.
    pub lost: u64,
    /// Facts that were stored more than once.
    pub doubled: u64,
    /// Facts that a kill or power cut took before they were on the disk.
    pub excused: u64,
    /// What was reached.
    pub coverage: Coverage,
    /// What must hold and does not, in words; empty when all is well.
    pub broken: Vec<String>,
    /// SHA-256 of everything that crossed the network.
    pub trace: [u8; 32],
}

pub(crate) struct World {
    pub(crate) now_ns: u64,
    pub(crate) chance: Chance,
    pub(crate) machine: Machine,
    pub(crate) sensor: SensorMachine,
    pub(crate) server: ServerMachine,
    link: Option<Link>,
    pub(crate) coverage: Coverage,
    dial_ns: Option<u64>,
    start_ns: Option<u64>,
    server_up_ns: Option<u64>,
    fact_ns: u64,
    fault_ns: u64,
    sync_ns: u64,
    relief_ns: Option<u64>,
    faults: u64,
    commands: u64,
    trace: Sha256,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    let mut world = World::new(seed);
    world.live();
    world.come_to_rest();
    oracle::judge(seed, &mut world)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let first = chance.between(1, 20) * MS;
        Self {
            now_ns: MS,
            machine: Machine::default(),
            sensor: SensorMachine::new(),
            server: ServerMachine::new(),
            link: None,
            coverage: Coverage::default(),
            dial_ns: None,
            start_ns: Some(MS),
            server_up_ns: None,
            fact_ns: first,
            fault_ns: 200 * MS,
            sync_ns: 5_000 * MS,
            relief_ns: None,
            faults: 0,
            commands: 0,
            trace: Sha256::new(),
            chance,
        }
    }

    fn now(&self) -> Now {
        Now { monotonic_ns: self.now_ns, wall_ms: 1_700_000_000_000 + self.now_ns / MS }
    }

    fn live(&mut self) {
        while self.machine.made() < FACTS || self.faults < FAULTS {
            self.step(true);
        }
    }

    fn come_to_rest(&mut self) {
        let until_ns = self.now_ns + REST_NS;
        if let Some(link) = &mut self.link {
            link.is_silent = false;
        }
        self.server.overload(None);
        let now = self.now();
        self.sensor.handle_timeout(now);
        while self.now_ns < until_ns && !self.is_at_rest() {
            self.step(false);
        }
    }

    /// Everything that the sensor has is acknowledged, and nothing is on its way.
    pub(crate) fn is_at_rest(&self) -> bool {
        let Some(sensor) = self.sensor.life() else { return false };
        let acked = sensor.stats().lanes.iter().all(|lane| lane.chunks_made == 0)
            || [lapwing_protocol::id::Lane::Bulk, lapwing_protocol::id::Lane::Urgent]
                .into_iter()
                .all(|lane| {
                    let positions = sensor.positions(lane);
                    positions.acked.seq == positions.made.seq
                        && self.sensor.spool.tail(lane).is_none()
                });
        let produced = sensor.stats().lanes[0].facts_produced;
        let spooled = sensor.positions(lapwing_protocol::id::Lane::Bulk).made.next_index - 1;
        acked && produced == spooled && self.server.is_quiet()
    }

    fn step(&mut self, with_faults: bool) {
        self.now_ns = self.next_ns(with_faults).max(self.now_ns + 1);
        if with_faults {
            if self.now_ns >= self.fault_ns {
                self.fault_ns = self.now_ns + self.chance.between(50, 1_500) * MS;
                self.fault();
            }
            if self.now_ns >= self.fact_ns {
                self.happen();
            }
        }
        self.machines_start();
        self.network();
        let now = self.now();
        if let Some(due_ns) = self.sensor.life().and_then(|sensor| sensor.poll_timeout())
            && self.now_ns >= due_ns
        {
            self.sensor.handle_timeout(now);
        }
        if self.server.handle_time(self.now_ns).is_err() {
            self.break_link();
        }
        if self.now_ns >= self.sync_ns {
            self.sync_ns = self.now_ns + 5_000 * MS;
            self.sensor.spool.sync();
        }
        self.drain();
    }

    fn next_ns(&self, with_faults: bool) -> u64 {
        let link = self.link.iter().filter(|link| !link.is_silent);
        let arrivals =
            link.flat_map(|link| link.up.next_ns().into_iter().chain(link.down.next_ns()));
        let sensor = self.sensor.life().and_then(|sensor| sensor.poll_timeout());
        let faults = with_faults.then_some(self.fault_ns.min(self.fact_ns));
        let starts = [self.dial_ns, self.start_ns, self.server_up_ns, self.relief_ns];
        let others = [sensor, self.server.next_ns(), faults, Some(self.sync_ns)];
        let all = arrivals.chain(starts.into_iter().flatten()).chain(others.into_iter().flatten());
        all.min().unwrap_or(self.now_ns + MS)
    }

    fn happen(&mut self) {
        let quiet = self.chance.once_in(20);
        self.fact_ns = self.now_ns
            + if quiet { self.chance.between(300, 2_000) } else { self.chance.between(0, 30) } * MS;
        // What happens while no sensor runs is nobody's fact.
        if self.sensor.is_alive() {
            let fact = self.machine.happen(&mut self.chance);
            let now = self.now();
            self.sensor.observe(now, &fact);
        }
        if self.chance.once_in(200) {
            self.commands += 1;
            self.server.command(self.commands);
        }
    }

    fn fault(&mut self) {
        self.faults += 1;
        match self.chance.below(16) {
            0..=2 => self.cut(Reached::Cut),
            3..=4 => self.cut(Reached::CutMidway),
            5 => {
                if let Some(link) = &mut self.link {
                    link.is_silent = true;
                    self.coverage.count(Reached::HalfOpen);
                }
            }
            6..=7 => self.end_sensor(Reached::SensorKilled),
            8..=9 => self.end_sensor(Reached::SensorPowerCut),
            10 => self.end_sensor(Reached::SensorStopped),
            11..=13 => {
                self.coverage.count(Reached::ServerKilled);
                self.server.restart();
                self.server_up_ns = Some(self.now_ns + self.chance.between(1, 4_000) * MS);
                self.break_link();
            }
            _ => {
                self.coverage.count(Reached::Throttled);
                let retry_after_ms = self.chance.between(10, 900) as u32;
                self.server.overload(Some(retry_after_ms));
                self.relief_ns = Some(self.now_ns + self.chance.between(20, 1_500) * MS);
            }
        }
    }

    fn end_sensor(&mut self, how: Reached) {
        if !self.sensor.is_alive() {
            return;
        }
        self.coverage.count(how);
        match how {
            Reached::SensorKilled => self.sensor.kill(),
            Reached::SensorPowerCut => self.sensor.cut_power(&mut self.chance),
            _ => {
                let now = self.now();
                self.sensor.stop(now);
            }
        }
        self.link = None;
        self.server.hang_up();
        self.dial_ns = None;
        self.start_ns = Some(self.now_ns + self.chance.between(1, 3_000) * MS);
    }

    fn machines_start(&mut self) {
        let now = self.now();
        if self.start_ns.is_some_and(|at_ns| self.now_ns >= at_ns) {
            self.start_ns = None;
            self.sensor.start(now, &mut self.chance, &mut self.coverage);
        }
        if self.server_up_ns.is_some_and(|at_ns| self.now_ns >= at_ns) {
            self.server_up_ns = None;
        }
        if self.relief_ns.is_some_and(|at_ns| self.now_ns >= at_ns) {
            self.relief_ns = None;
            self.server.overload(None);
        }
        if self.dial_ns.is_some_and(|at_ns| self.now_ns >= at_ns) {
            self.dial_ns = None;
            if self.server_up_ns.is_some() {
                self.coverage.count(Reached::DialFailed);
                self.sensor.handle_dial_failed(now);
            } else {
                self.link = Some(Link::default());
                self.server.accept(self.now_ns / MS);
                self.sensor.handle_connected(now);
            }
        }
    }

    /// Bytes arrive.
    fn network(&mut self) {
        loop {
            let Some(link) = self.link.as_mut().filter(|link| !link.is_silent) else { return };
            if let Some(bytes) = link.up.arrive(self.now_ns) {
                self.trace.update([0]);
                self.trace.update(&bytes);
                let (now_ns, chance) = (self.now_ns, &mut self.chance);
                let taken = self.server.handle_input(now_ns, &bytes, chance, &mut self.coverage);
                if let Err(fault) = taken {
                    self.server.faults.push(fault);
                    self.break_link();
                }
            } else if let Some(bytes) = link.down.arrive(self.now_ns) {
                self.trace.update([1]);
                self.trace.update(&bytes);
                self.note_verdicts(&bytes);
                let now = self.now();
                let wishes = self.sensor.handle_input(now, &bytes, &mut self.chance);
                self.grant(wishes);
            } else {
                return;
            }
        }
    }

    fn note_verdicts(&mut self, bytes: &[u8]) {
        let mut buffer = vec![0; 16_640];
        let mut deframer = Deframer::new(&mut buffer);
        deframer.feed(bytes);
        while let Ok(Some(frame)) = deframer.next_frame() {
            if let Ok(Some(Message::HelloAck(ack))) = Message::decode(&frame) {
                for grant in &ack.logs {
                    self.coverage.count(match grant.verdict {
                        LogVerdict::Resume => Reached::VerdictResume,
                        LogVerdict::New => Reached::VerdictNew,
                        LogVerdict::SensorBehind => Reached::VerdictSensorBehind,
                        LogVerdict::ServerBehind | LogVerdict::Forked => continue,
                    });
                }
            }
        }
    }

    fn drain(&mut self) {
        let now = self.now();
        let wishes = self.sensor.drain(now, &mut self.chance);
        self.grant(wishes);
        let bytes = self.server.drain();
        let delay_ns = self.chance.between(100_000, 40 * MS);
        if let Some(link) = self.link.as_mut().filter(|_| !bytes.is_empty()) {
            link.down.send(self.now_ns, delay_ns, bytes);
        }
    }

    fn grant(&mut self, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Dial => {
                    self.dial_ns = Some(self.now_ns + self.chance.between(1, 60) * MS);
                }
                Wish::HangUp => {
                    self.link = None;
                    self.server.hang_up();
                }
                Wish::Send(bytes) => {
                    let delay_ns = self.chance.between(100_000, 40 * MS);
                    if let Some(link) = &mut self.link {
                        link.up.send(self.now_ns, delay_ns, bytes);
                    }
                }
            }
        }
    }

    /// Cuts the connection; `CutMidway` lets a part of the first delivery through.
    fn cut(&mut self, how: Reached) {
        let Some(link) = &mut self.link else { return };
        if link.down.in_flight() > 0 {
            self.coverage.count(Reached::AckLost);
        }
        if how == Reached::CutMidway {
            let Some(at_ns) = link.up.next_ns() else { return };
            let bytes = link.up.arrive(at_ns).unwrap_or_default();
            let part = self.chance.below(bytes.len() as u64) as usize;
            let (now_ns, chance) = (self.now_ns, &mut self.chance);
            // The connection ends whatever the server thinks of the part.
            let _ = self.server.handle_input(now_ns, &bytes[..part], chance, &mut self.coverage);
        }
        self.coverage.count(how);
        self.break_link();
    }

    fn break_link(&mut self) {
        if self.link.take().is_some() {
            self.server.hang_up();
            let now = self.now();
            self.sensor.handle_disconnected(now);
        }
    }

    pub(crate) fn trace(&self) -> [u8; 32] {
        self.trace.clone().finalize().into()
    }
}
