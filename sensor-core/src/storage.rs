//! The memory that a shell lends a sensor, and how much of it two kinds of machine need.
//!
//! Sizes are checked once, when a sensor is made. Nothing grows afterwards; what happens when a
//! part is full is said at the part.

use lapwing_protocol::limits::{
    CHUNK_BYTES_MAX, FRAME_BYTES_MAX, RECEIVE_BYTES_MIN, STRING_SLOTS_MAX,
};

use crate::error::StorageError;
use crate::limits::{CHUNK_BYTES_MIN, CHUNK_RECORD_BYTES, ROWS_MAX, STRING_WAYS};
use crate::outbox::Stored;
use crate::position::{Flight, Hole};
use crate::strings::StringSlot;
use crate::table::RowEntry;

/// Memory of one lane. The urgent lane may have none (`open` is empty): then its facts go into the
/// bulk lane.
#[derive(Debug, Default)]
pub struct LaneStorage<'a> {
    /// The open chunk; its length is the largest chunk the lane makes, at most 16 KiB.
    pub open: &'a mut [u8],
    /// Chunks on their way. Full with a spool: the spooled ones leave and are fetched again.
    /// Full without one: the oldest unsent is dropped and announced.
    pub window: &'a mut [u8],
    /// Chunks sent and not acknowledged: as many may be in flight. Full: nothing more is sent.
    pub flight: &'a mut [Flight],
    /// Holes to be announced. Full: the last one swallows what lies before the next.
    pub holes: &'a mut [Hole],
    /// Which servers stored what. Full: the two oldest become one.
    pub stored: &'a mut [Stored],
}

/// All memory of a sensor.
#[derive(Debug, Default)]
pub struct Storage<'a> {
    /// Rows of the table. Full: the fact is dropped and announced.
    pub rows: &'a mut [RowEntry],
    /// The table's index: a power of two larger than `rows`, better twice as large.
    pub index: &'a mut [u16],
    /// Keys and rows of the table. Full: the fact is dropped and announced.
    pub row_bytes: &'a mut [u8],
    /// The string table: 0 or a power of two from 4 on. Full: an older string leaves.
    pub strings: &'a mut [StringSlot],
    /// An agent's own kinds. Full: `define` refuses.
    pub definitions: &'a mut [u8],
    /// The bulk lane.
    pub bulk: LaneStorage<'a>,
    /// The urgent lane, or nothing.
    pub urgent: LaneStorage<'a>,
    /// Input that is not yet a whole frame; its length is the largest frame the sensor takes.
    pub receive: &'a mut [u8],
    /// A chunk that came back from the spool; with a spool as large as the largest chunk.
    pub fetch: &'a mut [u8],
    /// The body of a call or reply until the shell has seen it. Too small: the call is refused.
    pub call: &'a mut [u8],
}

impl Storage<'_> {
    pub(crate) fn check(&self, has_spool: bool) -> Result<(), StorageError> {
        if self.rows.is_empty() || self.rows.len() > ROWS_MAX {
            return Err(StorageError::Rows);
        }
        if !self.index.len().is_power_of_two() || self.index.len() <= self.rows.len() {
            return Err(StorageError::Index);
        }
        let slots = self.strings.len();
        let is_sets = slots.is_power_of_two() && slots >= STRING_WAYS;
        if slots != 0 && (!is_sets || slots > STRING_SLOTS_MAX as usize) {
            return Err(StorageError::Strings);
        }
        if self.bulk.open.is_empty() {
            return Err(StorageError::NoLane);
        }
        if self.receive.len() < RECEIVE_BYTES_MIN {
            return Err(StorageError::Receive);
        }
        self.bulk.check()?;
        if !self.urgent.open.is_empty() {
            self.urgent.check()?;
        }
        let chunk = self.bulk.open.len().max(self.urgent.open.len()).min(CHUNK_BYTES_MAX);
        if has_spool && self.fetch.len() < chunk { Err(StorageError::Fetch) } else { Ok(()) }
    }
}

impl LaneStorage<'_> {
    fn check(&self) -> Result<(), StorageError> {
        if self.open.len() < CHUNK_BYTES_MIN {
            return Err(StorageError::Open);
        }
        let chunk = self.open.len().min(CHUNK_BYTES_MAX) + CHUNK_RECORD_BYTES;
        if self.window.len() < 3 * chunk {
            return Err(StorageError::Window);
        }
        if self.flight.is_empty() || self.holes.is_empty() {
            return Err(StorageError::Flight);
        }
        Ok(())
    }
}

/// Lengths of one lane's parts, in items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSizes {
    /// Bytes of the largest chunk; 0 = the lane is not used.
    pub open: usize,
    /// Bytes of chunks on their way.
    pub window: usize,
    /// Chunks in flight.
    pub flight: usize,
    /// Holes.
    pub holes: usize,
    /// Runs stored by servers.
    pub stored: usize,
}

/// Lengths of all parts, in items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Rows.
    pub rows: usize,
    /// Places of the index.
    pub index: usize,
    /// Bytes of keys and rows.
    pub row_bytes: usize,
    /// String slots.
    pub strings: usize,
    /// Bytes of definitions.
    pub definitions: usize,
    /// The bulk lane.
    pub bulk: LaneSizes,
    /// The urgent lane.
    pub urgent: LaneSizes,
    /// Bytes of input.
    pub receive: usize,
    /// Bytes of a fetched chunk.
    pub fetch: usize,
    /// Bytes of a call's body.
    pub call: usize,
}

impl LaneSizes {
    const NONE: Self = Self { open: 0, window: 0, flight: 0, holes: 0, stored: 0 };

    const fn bytes(&self) -> usize {
        self.open
            + self.window
            + self.flight * size_of::<Flight>()
            + self.holes * size_of::<Hole>()
            + self.stored * size_of::<Stored>()
    }
}

/// What a [`crate::Sensor`] itself takes at the most where addresses have 32 bits.
pub const SENSOR_BYTES_32_BIT: usize = 3_216;

#[cfg(target_pointer_width = "32")]
const _: () = assert!(size_of::<crate::Sensor<'static>>() <= SENSOR_BYTES_32_BIT);
const _: () = assert!(Sizes::MICROCONTROLLER.bytes() <= 4_036);

impl Sizes {
    /// A microcontroller without a spool: 32 rows, six chunks of the largest size (256 bytes) on
    /// their way, one lane. 4,036 bytes are lent; the sensor itself takes [`SENSOR_BYTES_32_BIT`]
    /// more on a 32-bit machine, and lists of fields lie on the stack, see
    /// [`crate::limits::FIELDS_MAX`].
    pub const MICROCONTROLLER: Self = Self {
        rows: 32,
        index: 64,
        row_bytes: 448,
        strings: 0,
        definitions: 0,
        bulk: LaneSizes {
            open: 256,
            window: 6 * (256 + CHUNK_RECORD_BYTES),
            flight: 2,
            holes: 1,
            stored: 1,
        },
        urgent: LaneSizes::NONE,
        receive: RECEIVE_BYTES_MIN,
        fetch: 0,
        call: 0,
    };

    /// A desktop or server with a spool: about 8,000 rows, both lanes; some 4 MiB.
    pub const DESKTOP: Self = Self {
        rows: 8_192,
        index: 16_384,
        row_bytes: 3 << 20,
        strings: 4_096,
        definitions: 16_384,
        bulk: LaneSizes {
            open: CHUNK_BYTES_MAX,
            window: 16 * (CHUNK_BYTES_MAX + CHUNK_RECORD_BYTES),
            flight: 512,
            holes: 8,
            stored: 8,
        },
        urgent: LaneSizes {
            open: CHUNK_BYTES_MAX,
            window: 4 * (CHUNK_BYTES_MAX + CHUNK_RECORD_BYTES),
            flight: 64,
            holes: 8,
            stored: 8,
        },
        receive: FRAME_BYTES_MAX,
        fetch: CHUNK_BYTES_MAX,
        call: FRAME_BYTES_MAX,
    };

    /// Bytes of all parts together; a sensor itself comes on top, `size_of::<Sensor>()`.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.rows * size_of::<RowEntry>()
            + self.index * size_of::<u16>()
            + self.row_bytes
            + self.strings * size_of::<StringSlot>()
            + self.definitions
            + self.bulk.bytes()
            + self.urgent.bytes()
            + self.receive
            + self.fetch
            + self.call
    }
}
