//! One world: sensors, Detection servers, Registration, what is between them, and what goes wrong.
//!
//! Time jumps from one event to the next. In the first phase faults happen; in the second nothing
//! more goes wrong, and everything must come to rest within three hours of virtual time.

mod traffic;

use std::collections::BTreeMap;
use std::rc::Rc;

use lapwing_protocol::buggify;
use lapwing_protocol::hello::Memory as Kept;
use lapwing_protocol::id::{SensorId, ServerId};
use lapwing_sensor_core::Storage;
use sha2::{Digest as _, Sha256};

use super::chance::Chance;
use super::coverage::{Coverage, Reached};
use super::disk::{Disk, Sync};
use super::facts::Machine;
use super::faults::Relief;
use super::network::Link;
use super::registration::RegistrationMachine;
use super::sensor::{Lent, SIZES, SensorMachine};
use super::server::{Question, ServerMachine, Stored};
use super::timeline::tell;
use super::{MS, oracle};

/// Facts of one world, at the least.
const FACTS: u64 = 1_000;
/// Faults of one world, at the least.
const FAULTS: u64 = 8;
/// Lives of sensors in one world, at the most: their memory is made beforehand.
const LIVES_MAX: usize = 120;
/// How long the first phase may take.
const LIVE_NS: u64 = 3_600_000 * MS;
/// How long the second phase may take.
const REST_NS: u64 = 3 * 3_600_000 * MS;
/// Between two heartbeats of a server.
const HEARTBEAT_NS: u64 = 2_000 * MS;

/// What one seed came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Facts that have a number.
    pub facts: u64,
    /// Facts that are stored, exactly once.
    pub stored: u64,
    /// Facts that are missing, and that nothing announces.
    pub lost: u64,
    /// Facts that are stored more than once.
    pub doubled: u64,
    /// Facts that were dropped and that a Jump or a Dropped op covers.
    pub covered: u64,
    /// Facts that went with a crash, an image or a backup, of which the next log tells.
    pub unknown: u64,
    /// Faults that happened.
    pub faults: u64,
    /// What was reached.
    pub coverage: Coverage,
    /// What must hold and does not, in words; empty when all is well.
    pub broken: Vec<String>,
    /// SHA-256 of everything that crossed the network.
    pub trace: [u8; 32],
}

/// One machine with a sensor, as the world sees it.
pub(super) struct Place<'m> {
    pub(super) sensor: SensorMachine<'m>,
    pub(super) source: Machine,
    pub(super) fact_ns: u64,
    pub(super) start_ns: Option<u64>,
    /// It was taken away for good.
    pub(super) is_retired: bool,
    /// It is one of two with the same identity.
    pub(super) is_cloned: bool,
    /// Short lives that are still to come.
    pub(super) storm: u32,
}

pub(super) struct World<'m> {
    pub(super) now_ns: u64,
    pub(super) chance: Chance,
    pub(super) places: Vec<Place<'m>>,
    pub(super) servers: Vec<ServerMachine>,
    pub(super) server_up_ns: Vec<Option<u64>>,
    pub(super) registration: RegistrationMachine,
    pub(super) registration_up_ns: Option<u64>,
    pub(super) links: BTreeMap<u64, Link>,
    next_link: u64,
    /// When, which machine, its life, which server.
    dials: Vec<(u64, usize, u64, ServerId)>,
    questions: Vec<(u64, Question)>,
    /// When, which machine, its life, what.
    answers: Vec<(u64, usize, u64, Result<ServerId, u32>)>,
    heartbeat_ns: u64,
    pub(super) fault_ns: u64,
    pub(super) faults: u64,
    pub(super) brought_together: u64,
    pub(super) is_quiet: bool,
    pub(super) pool: Vec<Storage<'m>>,
    /// Images of disks: whose, and how.
    pub(super) images: Vec<(usize, Disk)>,
    pub(super) reliefs: Vec<(u64, Relief)>,
    pub(super) gone: Vec<Rc<Stored>>,
    pub(super) commands: u64,
    pub(super) coverage: Coverage,
    pub(super) broken: Vec<String>,
    trace: Sha256,
    assigned: BTreeMap<SensorId, ServerId>,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    buggify::arm(seed ^ 0x5eed);
    let mut memory: Vec<Lent> = (0..LIVES_MAX).map(|_| Lent::new(&SIZES)).collect();
    let mut world = World::new(seed, memory.iter_mut().map(Lent::lend).collect());
    world.live();
    world.come_to_rest();
    let mut outcome = oracle::judge(seed, &mut world);
    for (site, times) in buggify::SITES.into_iter().zip(buggify::disarm()) {
        outcome.coverage.sites.insert(site, times);
    }
    outcome
}

impl<'m> World<'m> {
    fn new(seed: u64, pool: Vec<Storage<'m>>) -> Self {
        let mut chance = Chance::new(seed);
        let sensors = chance.between(3, 4) as usize;
        let servers = chance.between(2, 3) as usize;
        let mut world = Self {
            now_ns: MS,
            places: Vec::new(),
            servers: Vec::new(),
            server_up_ns: vec![None; servers],
            registration: RegistrationMachine::new(),
            registration_up_ns: None,
            links: BTreeMap::new(),
            next_link: 1,
            dials: Vec::new(),
            questions: Vec::new(),
            answers: Vec::new(),
            heartbeat_ns: MS,
            fault_ns: 500 * MS,
            faults: 0,
            brought_together: 0,
            is_quiet: false,
            pool,
            images: Vec::new(),
            reliefs: Vec::new(),
            gone: Vec::new(),
            commands: 0,
            coverage: Coverage::default(),
            broken: Vec::new(),
            trace: Sha256::new(),
            assigned: BTreeMap::new(),
            chance,
        };
        for number in 0..servers {
            let id = ServerId([0xd0 | number as u8; 16]);
            let mut server = ServerMachine::new(number, id);
            server.has_backups = world.chance.once_in(3);
            world.servers.push(server);
        }
        for number in 0..sensors {
            let has_no_spool = number == sensors - 1 && world.chance.once_in(3);
            let kept = if has_no_spool { Kept::RamOnly } else { Kept::Disk };
            let bytes_max = [12 << 10, 64 << 10, 1 << 20][world.chance.below(3) as usize];
            let sync = if world.chance.once_in(3) { Sync::Each } else { Sync::Interval };
            let sensor = SensorId([0x50 | number as u8; 16]);
            let disk = Disk::new(sensor, bytes_max, sync);
            world.settle(SensorMachine::new(number, sensor, kept, disk), false);
        }
        world
    }

    /// Puts a machine into the world.
    pub(super) fn settle(&mut self, sensor: SensorMachine<'m>, is_cloned: bool) {
        let number = sensor.number;
        self.places.push(Place {
            source: Machine::new(number),
            fact_ns: self.now_ns + self.chance.between(1, 50) * MS,
            start_ns: Some(self.now_ns + self.chance.between(1, 400) * MS),
            is_retired: false,
            is_cloned,
            storm: 0,
            sensor,
        });
    }

    fn live(&mut self) {
        let made = |world: &Self| -> u64 {
            world.places.iter().map(|place| place.sensor.truth.placed.len() as u64).sum()
        };
        let until_ns = self.now_ns + LIVE_NS;
        while (made(self) < FACTS || self.faults < FAULTS) && self.now_ns < until_ns {
            self.step();
        }
    }

    fn come_to_rest(&mut self) {
        self.calm();
        let until_ns = self.now_ns + REST_NS;
        while self.now_ns < until_ns && !self.is_at_rest() {
            self.step();
            self.retire_clones();
        }
        // A last fact of each, so that the tables can be compared; then time for a Resync.
        for number in 0..self.places.len() {
            if self.places[number].sensor.is_alive() {
                let fact = self.places[number].source.stir(&mut self.chance);
                self.observe(number, &fact);
            }
        }
        let settled_ns = self.now_ns + 200_000 * MS;
        while self.now_ns < settled_ns || (self.now_ns < until_ns && !self.is_at_rest()) {
            self.step();
        }
    }

    /// Everything that the sensors have is acknowledged, and nothing is on its way.
    pub(super) fn is_at_rest(&self) -> bool {
        let here = self.places.iter().filter(|place| !place.is_retired);
        here.into_iter().all(|place| place.sensor.is_at_rest())
            && self.servers.iter().all(ServerMachine::is_quiet)
    }

    /// What is left over of a pair of clones goes when it has told everything.
    fn retire_clones(&mut self) {
        let originals = self.places.len();
        for number in 0..originals {
            let place = &self.places[number];
            let has_twin = self.places.iter().enumerate().any(|(other, twin)| {
                other != number && !twin.is_retired && twin.sensor.sensor == place.sensor.sensor
            });
            if has_twin && !place.is_retired && place.sensor.is_at_rest() {
                self.places[number].is_retired = true;
                self.stop_sensor(number);
                self.places[number].start_ns = None;
            }
        }
    }

    // --- Steps.

    fn step(&mut self) {
        self.now_ns = self.next_ns().max(self.now_ns + 1);
        if !self.is_quiet && self.now_ns >= self.fault_ns {
            self.fault_ns = self.now_ns + self.chance.between(50, 2_500) * MS;
            self.fault();
        }
        if !self.is_quiet {
            self.bring_branches_together();
        }
        self.relieve();
        self.machines_start();
        self.registration_works();
        self.facts_happen();
        self.dial();
        self.network();
        for number in 0..self.places.len() {
            if self.places[number].sensor.next_ns().is_some_and(|due_ns| due_ns <= self.now_ns) {
                self.places[number].sensor.handle_time(self.now_ns, &mut self.chance);
            }
            self.grant(number);
        }
        for number in 0..self.servers.len() {
            if self.servers[number].is_up {
                let replies = self.servers[number].handle_time(self.now_ns, &mut self.coverage);
                self.reply(number, replies);
                let replies = self.servers[number].drain(&mut self.coverage);
                self.reply(number, replies);
            }
        }
    }

    fn next_ns(&self) -> u64 {
        let mut next = self.heartbeat_ns;
        let mut consider = |at_ns: Option<u64>| next = next.min(at_ns.unwrap_or(u64::MAX));
        for link in self.links.values() {
            consider(link.next_ns());
        }
        for place in &self.places {
            consider(place.sensor.next_ns());
            consider(place.start_ns);
            consider(Some(place.fact_ns).filter(|_| !self.is_quiet && !place.is_retired));
        }
        for (server, up_ns) in self.servers.iter().zip(&self.server_up_ns) {
            consider(server.next_ns().filter(|_| server.is_up));
            consider(*up_ns);
        }
        consider(self.registration_up_ns);
        consider(Some(self.fault_ns).filter(|_| !self.is_quiet));
        self.dials.iter().for_each(|(at_ns, ..)| consider(Some(*at_ns)));
        self.questions.iter().for_each(|(at_ns, _)| consider(Some(*at_ns)));
        self.answers.iter().for_each(|(at_ns, ..)| consider(Some(*at_ns)));
        self.reliefs.iter().for_each(|(at_ns, _)| consider(Some(*at_ns)));
        next
    }

    fn machines_start(&mut self) {
        for number in 0..self.places.len() {
            if self.places[number].start_ns.is_some_and(|at_ns| at_ns <= self.now_ns) {
                self.start_sensor(number);
            }
        }
        for number in 0..self.servers.len() {
            if self.server_up_ns[number].is_some_and(|at_ns| at_ns <= self.now_ns) {
                self.server_up_ns[number] = None;
                self.servers[number].start();
                tell(self.now_ns, || format!("server {number} starts"));
            }
        }
        if self.registration_up_ns.is_some_and(|at_ns| at_ns <= self.now_ns) {
            self.registration_up_ns = None;
            self.registration.start(self.now_ns / MS);
        }
    }

    fn start_sensor(&mut self, number: usize) {
        let place = &mut self.places[number];
        place.start_ns = None;
        let Some(lent) = self.pool.pop() else {
            return self.broken.push("more lives than there is memory for".into());
        };
        place.sensor.start(self.now_ns, lent, &mut self.chance);
        let logs = [0, 1].map(|at| place.sensor.truth.logs.iter().rev().nth(1 - at).copied());
        tell(self.now_ns, || format!("machine {number} starts: {logs:?}"));
        if place.sensor.kept == Kept::Disk
            && lapwing_protocol::id::Lane::BY_URGENCY
                .into_iter()
                .any(|lane| place.sensor.disk.tail(lane).is_some())
        {
            self.coverage.count(Reached::TailSent);
        }
        self.grant(number);
    }

    fn registration_works(&mut self) {
        if self.now_ns >= self.heartbeat_ns {
            self.heartbeat_ns = self.now_ns + HEARTBEAT_NS;
            for server in self.servers.iter_mut().filter(|server| server.is_up) {
                if server.has_backups && self.chance.once_in(4) {
                    server.back_up();
                }
                let sensors = server.connections.len() as u32;
                let name = format!("d{}", server.number);
                let about = (sensors, server.is_draining);
                if self.registration.is_up {
                    let now_ms = self.now_ns / MS;
                    self.registration.handle_heartbeat(now_ms, (server.server, &name), about);
                }
            }
        }
        for (_, question) in take_due(&mut self.questions, self.now_ns, |it| it.0) {
            let Question { machine, life, request } = question;
            let (delay_ns, answer) = if self.registration.is_up {
                let sensor = self.places[machine].sensor.sensor;
                let answer = self.registration.assign(self.now_ns / MS, sensor, request);
                if let Ok(server) = answer
                    && self.assigned.insert(sensor, server).is_some_and(|old| old != server)
                {
                    self.coverage.count(Reached::Moved);
                }
                (self.chance.between(1, 60) * MS, answer)
            } else {
                (self.chance.between(500, 8_000) * MS, Err(0))
            };
            self.answers.push((self.now_ns + delay_ns, machine, life, answer));
        }
        for (_, machine, life, answer) in take_due(&mut self.answers, self.now_ns, |it| it.0) {
            let sensor = &mut self.places[machine].sensor;
            if sensor.lives == life && sensor.is_alive() {
                sensor.handle_asked(self.now_ns, answer, &mut self.chance);
                self.grant(machine);
            }
        }
    }

    fn facts_happen(&mut self) {
        if self.is_quiet {
            return;
        }
        for number in 0..self.places.len() {
            let place = &mut self.places[number];
            if place.is_retired || place.fact_ns > self.now_ns {
                continue;
            }
            let gap_ms = match self.chance.below(40) {
                0 => self.chance.between(2_000, 12_000),
                1..=3 => self.chance.between(300, 2_000),
                _ => self.chance.between(0, 60),
            };
            place.fact_ns = self.now_ns + gap_ms * MS;
            // What happens while no sensor runs is nobody's fact.
            if place.sensor.is_alive() {
                let fact = place.source.happen(&mut self.chance);
                self.observe(number, &fact);
            }
            if self.chance.once_in(150) {
                self.commands += 1;
                let sensor = &self.places[number].sensor;
                let (id, kept, seq) = (sensor.sensor, sensor.kept, self.commands);
                // Who remembers no number must be told by one server alone (CMD-004).
                let servers = if kept == Kept::Disk { self.servers.len() } else { 1 };
                let servers = self.servers.iter_mut().take(servers);
                servers.for_each(|server| server.command(id, seq));
            }
        }
    }

    fn observe(&mut self, number: usize, fact: &super::facts::MadeFact) {
        self.places[number].sensor.observe(self.now_ns, fact, &mut self.chance);
        self.grant(number);
    }

    pub(super) fn trace(&self) -> [u8; 32] {
        self.trace.clone().finalize().into()
    }
}

/// Takes out what is due, in the order in which it was put in.
fn take_due<T>(items: &mut Vec<T>, now_ns: u64, at_ns: impl Fn(&T) -> u64) -> Vec<T> {
    let (due, rest) = std::mem::take(items).into_iter().partition(|item| at_ns(item) <= now_ns);
    *items = rest;
    due
}
