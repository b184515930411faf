//! The memory of a small sensor: small enough that every bound is met soon.

use lapwing_protocol::limits::RECEIVE_BYTES_MIN;
use lapwing_sensor_core::{
    Flight, Hole, LaneSizes, LaneStorage, RowEntry, Sizes, Storage, Stored, StringSlot,
};

const CHUNK_BYTES: usize = 512;

const LANE: LaneSizes =
    LaneSizes { open: CHUNK_BYTES, window: 4 << 10, flight: 4, holes: 2, stored: 2 };
const SIZES: Sizes = Sizes {
    rows: 8,
    index: 16,
    row_bytes: 1 << 10,
    strings: 8,
    definitions: 0,
    bulk: LANE,
    urgent: LANE,
    receive: RECEIVE_BYTES_MIN,
    fetch: CHUNK_BYTES,
    call: 64,
};

/// The lent memory, owned.
pub(super) struct Owned {
    rows: Vec<RowEntry>,
    index: Vec<u16>,
    row_bytes: Vec<u8>,
    strings: Vec<StringSlot>,
    lanes: [OwnedLane; 2],
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

impl OwnedLane {
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

impl Owned {
    pub(super) fn new() -> Self {
        let lane = |sizes: LaneSizes| OwnedLane {
            open: vec![0; sizes.open],
            window: vec![0; sizes.window],
            flight: vec![Flight::NONE; sizes.flight],
            holes: vec![Hole::NONE; sizes.holes],
            stored: vec![Stored::NONE; sizes.stored],
        };
        Self {
            rows: vec![RowEntry::default(); SIZES.rows],
            index: vec![0; SIZES.index],
            row_bytes: vec![0; SIZES.row_bytes],
            strings: vec![StringSlot::default(); SIZES.strings],
            lanes: [lane(SIZES.bulk), lane(SIZES.urgent)],
            receive: vec![0; SIZES.receive],
            fetch: vec![0; SIZES.fetch],
            call: vec![0; SIZES.call],
        }
    }

    pub(super) fn storage(&mut self) -> Storage<'_> {
        let [bulk, urgent] = &mut self.lanes;
        Storage {
            rows: &mut self.rows,
            index: &mut self.index,
            row_bytes: &mut self.row_bytes,
            strings: &mut self.strings,
            definitions: &mut [],
            bulk: bulk.storage(),
            urgent: urgent.storage(),
            receive: &mut self.receive,
            fetch: &mut self.fetch,
            call: &mut self.call,
        }
    }
}
