//! What the tests of a whole sensor share: lent memory, a shell that spools, a reader that decodes
//! chunks by the book, and a server that checks every frame.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod peer;
pub(crate) mod reader;
pub(crate) mod rig;
pub(crate) mod shell;

use lapwing_protocol::hello::{LogCause, Memory};
use lapwing_protocol::id::{BootId, DeploymentId, Lane, LogId, SensorId};
use lapwing_sensor_core::*;

pub(crate) const DEPLOYMENT: DeploymentId = DeploymentId([1; 16]);
pub(crate) const SENSOR: SensorId = SensorId([2; 16]);
pub(crate) const BULK_LOG: LogId = LogId([3; 16]);
pub(crate) const URGENT_LOG: LogId = LogId([4; 16]);
pub(crate) const BOOT: BootId = BootId([5; 16]);

pub(crate) fn at(ms: u64) -> Now {
    Now { monotonic_ns: ms * 1_000_000, wall_ms: 1_700_000_000_000 + ms }
}

pub(crate) fn config(memory: Memory) -> Config<'static> {
    Config {
        deployment: DEPLOYMENT,
        sensor: SENSOR,
        boot: BOOT,
        memory,
        agent: "test/1",
        name: "machine",
        os: "none",
        installation: Installation { has_detection: true, ..Installation::default() },
        last_command: None,
        hash_key: [9; 16],
        seed: 1,
    }
}

pub(crate) fn log(lane: Lane, log: LogId) -> LogPositions {
    LogPositions::open((DEPLOYMENT, SENSOR), lane, log, LogCause::First, None)
}

pub(crate) fn logs() -> [LogPositions; 2] {
    [log(Lane::Bulk, BULK_LOG), log(Lane::Urgent, URGENT_LOG)]
}

/// Small enough to fill, large enough to work.
pub(crate) const SMALL: Sizes = Sizes {
    rows: 24,
    index: 64,
    row_bytes: 4_096,
    strings: 16,
    definitions: 256,
    bulk: LaneSizes { open: 512, window: 4_096, flight: 8, holes: 2, stored: 4 },
    urgent: LaneSizes { open: 512, window: 2_048, flight: 4, holes: 2, stored: 4 },
    receive: 1_024,
    fetch: 512,
    call: 64,
};

/// The lent memory, owned.
pub(crate) struct Owned {
    rows: Vec<RowEntry>,
    index: Vec<u16>,
    row_bytes: Vec<u8>,
    strings: Vec<StringSlot>,
    definitions: Vec<u8>,
    bulk: OwnedLane,
    urgent: OwnedLane,
    receive: Vec<u8>,
    fetch: Vec<u8>,
    call: Vec<u8>,
}

struct OwnedLane {
    open: Vec<u8>,
    window: Vec<u8>,
    flight: Vec<Flight>,
    holes: Vec<Hole>,
    stored: Vec<Stored>,
}

impl Owned {
    pub(crate) fn new(sizes: &Sizes) -> Self {
        Self {
            rows: vec![RowEntry::default(); sizes.rows],
            index: vec![0; sizes.index],
            row_bytes: vec![0; sizes.row_bytes],
            strings: vec![StringSlot::default(); sizes.strings],
            definitions: vec![0; sizes.definitions],
            bulk: OwnedLane::new(&sizes.bulk),
            urgent: OwnedLane::new(&sizes.urgent),
            receive: vec![0; sizes.receive],
            fetch: vec![0; sizes.fetch],
            call: vec![0; sizes.call],
        }
    }

    pub(crate) fn storage(&mut self) -> Storage<'_> {
        Storage {
            rows: &mut self.rows,
            index: &mut self.index,
            row_bytes: &mut self.row_bytes,
            strings: &mut self.strings,
            definitions: &mut self.definitions,
            bulk: self.bulk.storage(),
            urgent: self.urgent.storage(),
            receive: &mut self.receive,
            fetch: &mut self.fetch,
            call: &mut self.call,
        }
    }
}

impl OwnedLane {
    fn new(sizes: &LaneSizes) -> Self {
        Self {
            open: vec![0; sizes.open],
            window: vec![0; sizes.window],
            flight: vec![Flight::NONE; sizes.flight],
            holes: vec![Hole::NONE; sizes.holes],
            stored: vec![Stored::NONE; sizes.stored],
        }
    }

    fn storage(&mut self) -> LaneStorage<'_> {
        LaneStorage {
            open: &mut self.open,
            window: &mut self.window,
            flight: &mut self.flight,
            holes: &mut self.holes,
            stored: &mut self.stored,
        }
    }
}
