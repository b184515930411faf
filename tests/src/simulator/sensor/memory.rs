//! The memory that lives of sensors are lent, made once for a world.

use lapwing_sensor_core::{
    Flight, Hole, LaneSizes, LaneStorage, RowEntry, Sizes, Storage, Stored, StringSlot,
};

/// Small enough that bounds are met.
pub(crate) const SIZES: Sizes = Sizes {
    rows: 32,
    index: 64,
    row_bytes: 6 << 10,
    strings: 64,
    definitions: 0,
    bulk: LaneSizes { open: 1_024, window: 8 << 10, flight: 16, holes: 4, stored: 4 },
    urgent: LaneSizes { open: 1_024, window: 4 << 10, flight: 4, holes: 4, stored: 4 },
    receive: 4_096,
    fetch: 1_024,
    call: 256,
};

/// The memory of one lane.
struct Lane {
    open: Vec<u8>,
    window: Vec<u8>,
    flight: Vec<Flight>,
    holes: Vec<Hole>,
    stored: Vec<Stored>,
}

impl Lane {
    fn new(sizes: &LaneSizes) -> Self {
        Self {
            open: vec![0; sizes.open],
            window: vec![0; sizes.window],
            flight: vec![Flight::NONE; sizes.flight],
            holes: vec![Hole::NONE; sizes.holes],
            stored: vec![Stored::NONE; sizes.stored],
        }
    }

    fn lend(&mut self) -> LaneStorage<'_> {
        LaneStorage {
            open: &mut self.open,
            window: &mut self.window,
            flight: &mut self.flight,
            holes: &mut self.holes,
            stored: &mut self.stored,
        }
    }
}

/// The memory of one life.
pub(crate) struct Lent {
    rows: Vec<RowEntry>,
    index: Vec<u16>,
    row_bytes: Vec<u8>,
    strings: Vec<StringSlot>,
    lanes: [Lane; 2],
    receive: Vec<u8>,
    fetch: Vec<u8>,
    call: Vec<u8>,
}

impl Lent {
    pub(crate) fn new(sizes: &Sizes) -> Self {
        Self {
            rows: vec![RowEntry::default(); sizes.rows],
            index: vec![0; sizes.index],
            row_bytes: vec![0; sizes.row_bytes],
            strings: vec![StringSlot::default(); sizes.strings],
            lanes: [Lane::new(&sizes.bulk), Lane::new(&sizes.urgent)],
            receive: vec![0; sizes.receive],
            fetch: vec![0; sizes.fetch],
            call: vec![0; sizes.call],
        }
    }

    pub(crate) fn lend(&mut self) -> Storage<'_> {
        let [bulk, urgent] = &mut self.lanes;
        Storage {
            rows: &mut self.rows,
            index: &mut self.index,
            row_bytes: &mut self.row_bytes,
            strings: &mut self.strings,
            definitions: &mut [],
            bulk: bulk.lend(),
            urgent: urgent.lend(),
            receive: &mut self.receive,
            fetch: &mut self.fetch,
            call: &mut self.call,
        }
    }
}
