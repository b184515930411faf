//! The memory that the core is lent, on the heap.

use lapwing_sensor_core::{
    Flight, Hole, LaneSizes, LaneStorage, RowEntry, Sizes, Storage, Stored, StringSlot,
};

#[derive(Debug)]
struct LaneMemory {
    open: Vec<u8>,
    window: Vec<u8>,
    flight: Vec<Flight>,
    holes: Vec<Hole>,
    stored: Vec<Stored>,
}

impl LaneMemory {
    fn new(sizes: LaneSizes) -> Self {
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

/// All of it; most pages are never touched on a quiet machine.
#[derive(Debug)]
pub(crate) struct Memory {
    rows: Vec<RowEntry>,
    index: Vec<u16>,
    row_bytes: Vec<u8>,
    strings: Vec<StringSlot>,
    definitions: Vec<u8>,
    lanes: [LaneMemory; 2],
    receive: Vec<u8>,
    fetch: Vec<u8>,
    call: Vec<u8>,
}

impl Memory {
    pub(crate) fn new(sizes: &Sizes) -> Self {
        Self {
            rows: vec![RowEntry::default(); sizes.rows],
            index: vec![0; sizes.index],
            row_bytes: vec![0; sizes.row_bytes],
            strings: vec![StringSlot::default(); sizes.strings],
            definitions: vec![0; sizes.definitions],
            lanes: [LaneMemory::new(sizes.bulk), LaneMemory::new(sizes.urgent)],
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
            definitions: &mut self.definitions,
            bulk: bulk.lend(),
            urgent: urgent.lend(),
            receive: &mut self.receive,
            fetch: &mut self.fetch,
            call: &mut self.call,
        }
    }
}
