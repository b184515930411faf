//! A fleet of 100,000 sensors and 20 servers under one Registration, in virtual time: the real
//! policy of assignment against the sensors' real waiting times.
//!
//! Not here: sockets and the store; a question to Registration takes no time. A sensor whose server
//! is gone does what the sensor core does: it tries twice, and after 5 s asks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use lapwing_protocol::id::{Incarnation, SensorId, ServerId};
use lapwing_protocol::registration::{AssignReason, AssignRequest};
use lapwing_sensor_core::Backoff;
use lapwing_server_core::assignment::record::{HeartbeatRecord, ServerRecord};
use lapwing_server_core::assignment::{Assignments, Decision};

const SENSORS: u32 = 100_000;
const SERVERS: u8 = 20;
/// Sensors that the smallest server takes; the n-th takes n times as many.
const CAPACITY_STEP: u32 = 700;
const HEARTBEAT_MS: u64 = 2_000;
/// All sensors ask for the first time within this time.
const FIRST_WITHIN_MS: u64 = 60_000;
/// Attempts and time since the session was lost after which a sensor asks.
const TROUBLE: (u32, u64) = (2, 5_000);
/// The server that dies: its share is 5,238 sensors.
const VICTIM: u8 = 11;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Every server that lives says so.
    Heartbeats,
    /// A sensor asks for the first time.
    First(u32),
    /// A sensor whose session was lost tries its server, for the n-th time.
    Attempt(u32, u32),
}

struct Fleet {
    registration: Assignments,
    now_ms: u64,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    /// Of each sensor: its waiting times, its server and when it lost that.
    sensors: Vec<(Backoff, Option<ServerId>, u64)>,
    dead: Option<ServerId>,
    /// Questions to Registration by second, and answers that named another server than before.
    asked: BTreeMap<u64, u32>,
    moved: u32,
}

fn server_id(number: u8) -> ServerId {
    ServerId([number; 16])
}

fn sensor_id(number: u32) -> SensorId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    SensorId(id)
}

fn capacity(number: u8) -> u32 {
    u32::from(number) * CAPACITY_STEP
}

impl Fleet {
    fn new() -> Self {
        let sensor = |number: u32| (Backoff::new(u64::from(number) << 20), None, 0);
        let mut fleet = Self {
            registration: Assignments::default(),
            now_ms: 0,
            events: BinaryHeap::new(),
            sensors: (0..SENSORS).map(sensor).collect(),
            dead: None,
            asked: BTreeMap::new(),
            moved: 0,
        };
        fleet.heartbeats();
        let spread = FIRST_WITHIN_MS * 1_000 / u64::from(SENSORS);
        for number in 0..SENSORS {
            let at_ms = u64::from(number) * spread / 1_000;
            fleet.events.push(Reverse((at_ms, Event::First(number))));
        }
        fleet.run_until(FIRST_WITHIN_MS);
        fleet
    }

    fn run_until(&mut self, end_ms: u64) {
        while let Some(Reverse((at_ms, event))) = self.events.pop() {
            if at_ms > end_ms {
                self.events.push(Reverse((at_ms, event)));
                break;
            }
            self.now_ms = at_ms;
            match event {
                Event::Heartbeats => self.heartbeats(),
                Event::First(number) => self.ask(number, AssignReason::First),
                Event::Attempt(number, attempts) => self.attempt(number, attempts),
            }
        }
        self.now_ms = end_ms;
    }

    fn heartbeats(&mut self) {
        let counts = self.counts();
        for number in (1..=SERVERS).filter(|number| Some(server_id(*number)) != self.dead) {
            let id = server_id(number);
            let said = ServerRecord {
                name: format!("d{number}"),
                sensor_address: "192.0.2.1:443".into(),
                console_address: "192.0.2.1:8443".into(),
                malware_address: "192.0.2.1:7075".into(),
                capacity_reported: capacity(number),
                version: "0.1.0".into(),
                capacity_set: None,
                drain: false,
            };
            let sensors = counts.get(&id).copied().unwrap_or_default();
            let passing = HeartbeatRecord {
                sensors,
                incarnation: Incarnation([1; 16]),
                ..HeartbeatRecord::default()
            };
            let heard = self.registration.handle_heartbeat(self.now_ms, id, said, passing);
            assert!(heard.is_ok(), "{number}: {heard:?}");
        }
        self.events.push(Reverse((self.now_ms + HEARTBEAT_MS, Event::Heartbeats)));
    }

    fn counts(&self) -> BTreeMap<ServerId, u32> {
        let mut counts = BTreeMap::new();
        for server in self.sensors.iter().filter_map(|(_, server, _)| *server) {
            *counts.entry(server).or_default() += 1;
        }
        counts
    }

    fn ask(&mut self, number: u32, reason: AssignReason) {
        let (backoff, server, _) = &mut self.sensors[number as usize];
        let trouble_with = server.filter(|_| reason != AssignReason::First);
        let request = AssignRequest { reason, trouble_with };
        *self.asked.entry(self.now_ms / 1_000).or_default() += 1;
        match self.registration.assign(self.now_ms, self.now_ms, sensor_id(number), request) {
            Decision::Kept(given) | Decision::Given { server: given, .. } => {
                self.moved += u32::from(server.is_some_and(|before| before != given));
                *server = Some(given);
                backoff.reset();
            }
            Decision::AllFull { .. } => panic!("there is room for every sensor"),
        }
    }

    /// A sensor dials its server; a dead one does not answer.
    fn attempt(&mut self, number: u32, attempts: u32) {
        let (backoff, server, lost_ms) = &mut self.sensors[number as usize];
        if *server != self.dead {
            backoff.reset();
        } else if attempts >= TROUBLE.0 && self.now_ms - *lost_ms >= TROUBLE.1 {
            backoff.asked();
            self.ask(number, AssignReason::Unreachable);
        } else {
            let at_ms = self.now_ms + backoff.next_ms();
            self.events.push(Reverse((at_ms, Event::Attempt(number, attempts + 1))));
        }
    }

    /// A server dies, and all its sensors lose their session; how many that are.
    fn kill(&mut self, victim: ServerId) -> u32 {
        self.dead = Some(victim);
        let mut lost = 0;
        for (number, (backoff, server, lost_ms)) in (0..).zip(&mut self.sensors) {
            if *server == Some(victim) {
                *lost_ms = self.now_ms;
                let at_ms = self.now_ms + backoff.next_ms();
                self.events.push(Reverse((at_ms, Event::Attempt(number, 0))));
                lost += 1;
            }
        }
        lost
    }

    /// The largest distance of a server from its share of `SENSORS`, in per cent of that share.
    fn largest_error_percent(&self) -> f64 {
        let lives = |number: &u8| Some(server_id(*number)) != self.dead;
        let total: u32 = (1..=SERVERS).filter(lives).map(capacity).sum();
        let counts = self.counts();
        let error = |number: u8| {
            let share = f64::from(SENSORS) * f64::from(capacity(number)) / f64::from(total);
            let has = counts.get(&server_id(number)).copied().unwrap_or_default();
            (f64::from(has) - share).abs() * 100.0 / share
        };
        (1..=SERVERS).filter(lives).map(error).fold(0.0, f64::max)
    }
}

#[test]
fn a_large_fleet_is_spread_by_capacity_and_a_death_moves_only_whom_it_must() {
    let mut fleet = Fleet::new();
    let spread = fleet.largest_error_percent();
    assert!(spread <= 5.0, "{spread:.2} % from the shares after the first assignment");
    assert_eq!(fleet.moved, 0);

    fleet.asked.clear();
    let before: Vec<_> = fleet.sensors.iter().map(|(_, server, _)| *server).collect();
    let lost = fleet.kill(server_id(VICTIM));
    let killed_ms = fleet.now_ms;
    fleet.run_until(killed_ms + 60_000);
    let (questions, peak) =
        (fleet.asked.values().sum::<u32>(), fleet.asked.values().copied().max().unwrap_or(0));
    let last_s = fleet.asked.keys().next_back().copied().unwrap_or(0) - killed_ms / 1_000;
    let after_death = fleet.largest_error_percent();
    println!(
        "{spread:.2} % from the shares at first, {after_death:.2} % after a death; {lost} sensors \
         lost their server, {} moved, {questions} questions, {peak} in one second at the most, the \
         last after {last_s} s",
        fleet.moved
    );
    assert_eq!((fleet.moved, questions), (lost, lost), "each moves once, and asks once");
    let others = before
        .iter()
        .zip(&fleet.sensors)
        .filter(|(before, (_, now, _))| **before != Some(server_id(VICTIM)) && **before != *now);
    assert_eq!(others.count(), 0, "no sensor of a healthy server moves");
    assert!(after_death <= 5.0, "{after_death:.2} % from the shares of those that live");
    assert!(peak <= lost * 6 / 10, "{peak} of {lost} asked in one second");
    assert!(last_s <= 30, "the last asked after {last_s} s");

    // It is back: nobody has trouble, nobody asks, nobody moves.
    fleet.dead = None;
    fleet.asked.clear();
    let moved = fleet.moved;
    fleet.run_until(fleet.now_ms + 600_000);
    assert_eq!((fleet.asked.len(), fleet.moved), (0, moved));
}
