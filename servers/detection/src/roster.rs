//! The sensors this server knows: where each stands, what it said of itself, whether it is here.
//!
//! Not here: connections (sessions.rs) and what sensors observe (the graph). What must survive a
//! restart is written to the state store before the sensor is answered for the first time.
//!
//! Invariant: there is one [`Member`] per sensor, and its receiver is the only one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::Event;
use lapwing_protocol::command::CommandNumber;
use lapwing_protocol::console::SensorReport;
use lapwing_protocol::hello::Memory;
use lapwing_protocol::id::{DeploymentId, Lane, SensorId, ServerId};
use lapwing_protocol::limits::NAME_BYTES_MAX;
use lapwing_server_core::delivery::{Greeting, HeadRecord, Receiver, Standing};
use lapwing_server_core::evidence::delivery::DeliveryWatch;
use lapwing_server_core::rows::{self, Row};
use lapwing_store::journal::{Head, Journal, LaneKey};
use lapwing_store::{RowStore, StoreError};
use serde::{Deserialize, Serialize};

use crate::health::SensorHealth;
use crate::told::{self, Collected, Told};
use crate::watch;

/// The first byte of a sensor's key in the state store.
const SENSOR: u8 = b's';
/// The same of the key under which is kept whether it collects.
const COLLECTING: u8 = b'g';

/// A sensor this server knows.
#[derive(Debug)]
pub(crate) struct Member {
    /// Which sensor.
    pub(crate) sensor: SensorId,
    /// Notified when something may be sent to it, or its session was fenced.
    pub(crate) wake: Event,
    /// Held from the moment a frame is taken until its entry is in the journal's queue: a later
    /// connection's entries must not overtake those of the one before.
    pub(crate) intake: smol::lock::Mutex<()>,
    receiver: Mutex<Receiver>,
    about: Mutex<About>,
}

/// What is known of a sensor.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// What is kept over a restart.
    pub(crate) record: SensorRecord,
    /// The open session's number and where it comes from.
    pub(crate) session: Option<(u64, SocketAddr)>,
    /// Last frame, milliseconds since 1970.
    pub(crate) last_seen_ms: u64,
    /// Whether it said that it collects, last of all here or before a restart.
    pub(crate) collecting: bool,
    /// Whether its spool survives.
    pub(crate) memory: Memory,
    /// Rows of its table here.
    pub(crate) rows: u32,
    /// Whether its table here is known to differ from its own.
    pub(crate) divergent: bool,
    /// Its parts, and whether it collects, by its facts.
    pub(crate) health: SensorHealth,
    /// Commands whose outcome came and that still wait to be deleted.
    pub(crate) outcomes: Vec<CommandNumber>,
    /// Where its logs stand by its own word.
    pub(crate) told: Told,
    /// What its collectors counted.
    pub(crate) collected: Collected,
    /// What is remembered of its sessions.
    pub(crate) watch: DeliveryWatch,
    /// Whether it is to be asked for a report.
    pub(crate) report_due: bool,
    /// When it last reported, milliseconds of this server's monotonic clock.
    pub(crate) reported_ms: Option<u64>,
}

/// What is kept of a sensor over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SensorRecord {
    /// Its machine's name.
    pub(crate) name: String,
    /// Its machine's operating system.
    pub(crate) os: String,
    /// Its agent's name and version.
    pub(crate) agent: String,
    /// First Hello here, milliseconds since 1970.
    pub(crate) first_seen_ms: u64,
    /// Last Hello here, milliseconds since 1970.
    pub(crate) last_hello_ms: u64,
}

impl Member {
    pub(crate) fn receiver(&self) -> MutexGuard<'_, Receiver> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn about(&self) -> MutexGuard<'_, About> {
        self.about.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where its lanes stand.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        self.receiver().standings().collect()
    }

    /// Takes over what the sensor says of itself; gives the record where it must be written.
    pub(crate) fn greet(&self, now_ms: u64, greeting: &Greeting) -> SensorRecord {
        let mut about = self.about();
        about.collecting = greeting.collecting;
        about.health.collecting = Some(greeting.collecting);
        about.memory = greeting.memory;
        about.last_seen_ms = now_ms;
        about.told.handle_greeting(now_ms, &greeting.logs);
        about.report_due = true;
        about.record = SensorRecord {
            name: shortened(&greeting.name, NAME_BYTES_MAX),
            os: shortened(&greeting.os, NAME_BYTES_MAX),
            agent: shortened(&greeting.agent, NAME_BYTES_MAX),
            first_seen_ms: about.record.first_seen_ms,
            last_hello_ms: now_ms,
        };
        about.record.clone()
    }
}

impl About {
    /// Whether it collects, by its last word.
    pub(crate) fn collects(&self) -> bool {
        self.health.collecting.unwrap_or(self.collecting)
    }

    /// Takes a sensor's report.
    pub(crate) fn handle_report(&mut self, now_ms: u64, report: &SensorReport<'_>) {
        told::handle_report(now_ms, (&mut self.told, &mut self.collected), report);
    }
}

/// All sensors this server knows.
#[derive(Debug)]
pub(crate) struct Roster {
    deployment: DeploymentId,
    server: ServerId,
    members: Mutex<BTreeMap<SensorId, Arc<Member>>>,
    /// What the last finished backup holds; none where no backup is configured.
    protected: Mutex<Option<Heads>>,
}

impl Roster {
    /// Reads what is known from the journal's heads and the state store. Blocks.
    pub(crate) fn load(
        (deployment, server): (DeploymentId, ServerId),
        journal: &Journal,
        state: &RowStore,
    ) -> Result<Self, StoreError> {
        let roster =
            Self { deployment, server, members: Mutex::default(), protected: Mutex::default() };
        let mut heads = read_heads(journal)?;
        for (sensor, record) in read_records(state)? {
            let heads = heads.remove(&sensor).unwrap_or_default();
            roster.insert(sensor, heads, record);
        }
        // A head without a record: the sensor's first Hello was cut short by a crash.
        for (sensor, heads) in heads {
            roster.insert(sensor, heads, unknown(0));
        }
        for (key, value) in state.scan(&[COLLECTING], &[COLLECTING + 1])? {
            let member = sensor_of(&key).and_then(|sensor| roster.find(sensor));
            if let (Some(member), Ok(collecting)) = (member, rows::read(&value)) {
                member.about().collecting = collecting;
            }
        }
        for (sensor, watch) in watch::read_watches(state)? {
            if let Some(member) = roster.find(sensor) {
                member.about().watch = watch;
            }
        }
        for (key, value) in state.scan(&Told::KEYS.0, &Told::KEYS.1)? {
            let member = sensor_of(&key).and_then(|sensor| roster.find(sensor));
            if let (Some(member), Ok(told)) = (member, rows::read(&value)) {
                member.about().told = told;
            }
        }
        Ok(roster)
    }

    fn insert(&self, sensor: SensorId, heads: [Option<HeadRecord>; 2], record: SensorRecord) {
        self.lock().insert(sensor, self.make(sensor, heads, record));
    }

    fn make(
        &self,
        sensor: SensorId,
        heads: [Option<HeadRecord>; 2],
        record: SensorRecord,
    ) -> Arc<Member> {
        let mut receiver = Receiver::new((self.deployment, self.server), sensor, heads);
        if let Some(protected) = &*self.protected() {
            receiver.handle_backed_up(protected.get(&sensor).cloned().unwrap_or_default());
        }
        Arc::new(Member {
            sensor,
            wake: Event::new(),
            intake: smol::lock::Mutex::new(()),
            receiver: Mutex::new(receiver),
            about: Mutex::new(About {
                last_seen_ms: record.last_hello_ms,
                record,
                session: None,
                collecting: false,
                memory: Memory::Disk,
                rows: 0,
                divergent: false,
                health: SensorHealth::default(),
                outcomes: Vec::new(),
                told: Told::default(),
                collected: Collected::default(),
                watch: DeliveryWatch::default(),
                report_due: false,
                reported_ms: None,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SensorId, Arc<Member>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sensor's member, made now if it is new.
    pub(crate) fn member(&self, now_ms: u64, sensor: SensorId) -> Arc<Member> {
        let mut members = self.lock();
        let member = members
            .entry(sensor)
            .or_insert_with(|| self.make(sensor, [None, None], unknown(now_ms)));
        Arc::clone(member)
    }

    fn protected(&self) -> MutexGuard<'_, Option<Heads>> {
        self.protected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A backup holds the lanes as far as `heads`: from now on no more than that is safe.
    pub(crate) fn protect(&self, heads: Vec<(LaneKey, Head)>) {
        let mut protected = Heads::new();
        insert_heads(&mut protected, heads);
        // Before the members, so that one who comes now has it too.
        *self.protected() = Some(protected.clone());
        for member in self.all() {
            let heads = protected.remove(&member.sensor).unwrap_or_default();
            member.receiver().handle_backed_up(heads);
            member.wake.notify(usize::MAX);
        }
    }

    /// The sensor's member.
    pub(crate) fn find(&self, sensor: SensorId) -> Option<Arc<Member>> {
        self.lock().get(&sensor).cloned()
    }

    /// Every member, in order of sensor.
    pub(crate) fn all(&self) -> Vec<Arc<Member>> {
        self.lock().values().cloned().collect()
    }

    /// Sensors with an open session.
    pub(crate) fn connected(&self) -> usize {
        self.lock().values().filter(|member| member.about().session.is_some()).count()
    }
}

/// At most the first `bytes_max` bytes of `text`, cut between characters: what a sensor says of
/// itself goes into a stored row and into the list of all sensors.
pub(crate) fn shortened(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

fn unknown(now_ms: u64) -> SensorRecord {
    SensorRecord {
        name: String::new(),
        os: String::new(),
        agent: String::new(),
        first_seen_ms: now_ms,
        last_hello_ms: now_ms,
    }
}

/// The row that keeps a sensor's record.
pub(crate) fn record_row(sensor: SensorId, record: &SensorRecord) -> Row {
    Row::put(key(SENSOR, sensor).to_vec(), record)
}

/// The row that keeps whether a sensor collects.
pub(crate) fn collecting_row(sensor: SensorId, collecting: bool) -> Row {
    Row::put(key(COLLECTING, sensor).to_vec(), &collecting)
}

fn key(first: u8, sensor: SensorId) -> [u8; 17] {
    let mut key = [first; 17];
    key[1..].copy_from_slice(&sensor.0);
    key
}

fn sensor_of(key: &[u8]) -> Option<SensorId> {
    key.get(1..)?.try_into().ok().map(SensorId)
}

fn read_records(state: &RowStore) -> Result<Vec<(SensorId, SensorRecord)>, StoreError> {
    let records = state.scan(&[SENSOR], &[SENSOR + 1])?.into_iter().filter_map(|(key, value)| {
        let sensor = sensor_of(&key)?;
        match rows::read(&value) {
            Ok(record) => Some((sensor, record)),
            Err(error) => {
                log::error!(
                    "the record of sensor {sensor} is not readable ({error}); it is made anew"
                );
                None
            }
        }
    });
    Ok(records.collect())
}

type Heads = BTreeMap<SensorId, [Option<HeadRecord>; 2]>;

fn read_heads(journal: &Journal) -> Result<Heads, StoreError> {
    let mut heads = Heads::new();
    let mut after: Option<LaneKey> = None;
    loop {
        let page = journal.heads(after.as_ref(), 1024)?;
        let Some((last, _)) = page.last() else { return Ok(heads) };
        after = Some(*last);
        insert_heads(&mut heads, page);
    }
}

fn insert_heads(heads: &mut Heads, found: Vec<(LaneKey, Head)>) {
    for (lane, head) in found {
        let slot = heads.entry(SensorId(lane.sensor)).or_default();
        let record = HeadRecord::from_bytes(&head.record);
        match (record, slot.get_mut(usize::from(lane.lane))) {
            (Ok(record), Some(slot)) => *slot = Some(record),
            (Err(_), _) | (_, None) => log::error!(
                "the head of sensor {} lane {} is not readable; the sensor starts a new log",
                SensorId(lane.sensor),
                lane.lane
            ),
        }
    }
}

/// The number a lane has in the journal.
pub(crate) fn lane_key(sensor: SensorId, lane: Lane) -> LaneKey {
    LaneKey { sensor: sensor.0, lane: lane as u8 }
}

/// The lane of a number in the journal.
pub(crate) fn lane_of(number: u8) -> Option<Lane> {
    [Lane::Bulk, Lane::Urgent].into_iter().find(|lane| *lane as u8 == number)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use lapwing_store::MemoryDisk;
    use lapwing_store::journal::{Incarnation, JournalOptions, MemoryPartitions};

    use super::*;

    #[test]
    fn connections_that_come_at_once_are_of_one_member() {
        let partitions = Arc::new(MemoryPartitions::new("roster"));
        let options = JournalOptions::new(Incarnation::Keep([9; 16]), 1);
        let journal = Journal::open(partitions, &options).unwrap();
        let state = RowStore::over(Arc::new(MemoryDisk::new("state").open().unwrap())).unwrap();
        let owner = (DeploymentId([1; 16]), ServerId([2; 16]));
        let roster = Roster::load(owner, &journal, &state).unwrap();
        for number in 0..200 {
            let sensor = SensorId([number; 16]);
            let start = Barrier::new(2);
            let come = || {
                start.wait();
                roster.member(0, sensor)
            };
            let (one, other) = std::thread::scope(|scope| {
                let one = scope.spawn(come);
                (come(), one.join().unwrap())
            });
            assert!(Arc::ptr_eq(&one, &other));
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(shortened("aé", 2), "a");
        assert_eq!(shortened("aé", 3), "aé");
    }
}
