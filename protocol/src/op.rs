//! Chunk encoding 1, "plain rows": how ops are written inside a chunk's body.
//!
//! ```text
//! body  = op*
//! op    = head: u8 (operation: low 3 bits, kind: high 5 bits; 31 = a varint follows) operands
//! put   = slot time fields      a row is as written, whatever was in the slot
//! patch = slot time fields      the named features of the row are so
//! remove= slot time fields      the row ended; its last features
//! event = time fields           it happened
//! forget= slot                  the row is no longer reported (kind 0)
//! define= definition            postcard, with its length before it (kind 0)
//! dropped = count reason        facts dropped after intake (kind 0)
//! control = by kind: 0 preamble (boot, wall clock, string slots), 1 end of keyframe (rows, digest)
//! time  = signed varint, nanoseconds since the op before (the first: since the header's base)
//! fields= varint bitmap, then values in order of feature
//! ```
//!
//! Strings (bytes, text, hash, address) are written as 0 = literal, 1 = literal that takes the slot
//! that follows, n = the string in slot n - 2. References are 0 = literal, n = the row in slot
//! n - 1. `source_seq` is the signed difference to the one before in the chunk; a time value is the
//! signed difference to the op's time.
//!
//! The choice between literal and slot is the writer's ([`Compressor`]). The reader keeps no
//! tables: it hands out what is written and its caller resolves it. Nothing here panics on any
//! input.

mod reader;
mod writer;

use crate::element::{Definition, Kind, Type, Value, ip_of};
use crate::error::DecodeError;
use crate::id::BootId;

pub use reader::OpReader;
pub use writer::{Compressor, Literal, OpWriter, StringChoice, op_bytes_max};

/// The number of this encoding in a chunk header.
pub const ENCODING_PLAIN_ROWS: u8 = 1;

const PUT: u8 = 0;
const PATCH: u8 = 1;
const REMOVE: u8 = 2;
const FORGET: u8 = 3;
const EVENT: u8 = 4;
const DEFINE: u8 = 5;
const DROPPED: u8 = 6;
const CONTROL: u8 = 7;
const CONTROL_PREAMBLE: u16 = 0;
const CONTROL_KEYFRAME_END: u16 = 1;
const KIND_ESCAPE: u16 = 31;
/// Bytes an op needs beyond its values, at the most.
pub const OP_OVERHEAD_BYTES_MAX: usize = 1 + 3 + 5 + 10 + 10;
/// Bytes a value needs beyond its canonical form, at the most: a tag and a slot.
pub const VALUE_OVERHEAD_BYTES_MAX: usize = 1 + 5;

/// Why facts were dropped after intake. Append only.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum DropReason {
    /// The sensor's table is full.
    TableFull,
    /// The fact is larger than a row may be.
    TooLarge,
    /// The spool reached its bound.
    SpoolFull,
    /// The memory of a sensor without a spool was full.
    MemoryFull,
    /// The disk refused the spool.
    SpoolFailed,
    /// The fact does not fit the element model.
    Malformed,
}

impl DropReason {
    const ALL: [Self; 6] = [
        Self::TableFull,
        Self::TooLarge,
        Self::SpoolFull,
        Self::MemoryFull,
        Self::SpoolFailed,
        Self::Malformed,
    ];

    fn from_number(number: u64) -> Result<Self, DecodeError> {
        let index = usize::try_from(number).map_err(|_| DecodeError::UnknownTag)?;
        Self::ALL.get(index).copied().ok_or(DecodeError::UnknownTag)
    }
}

/// What opens a segment and every self-contained chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// The boot whose monotonic clock the times are of.
    pub boot: BootId,
    /// What the sensor's wall clock claimed at the header's time base, milliseconds since 1970.
    pub wall_ms: u64,
    /// String slots the segment uses.
    pub string_slots: u32,
}

/// The three ways in which a row of the table changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// The slot holds this row.
    Put = PUT as isize,
    /// The named features of the row are so.
    Patch = PATCH as isize,
    /// The row ended.
    Remove = REMOVE as isize,
}

/// One op as written; its fields are read next with [`OpReader::field`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// A change of the row in `slot`. Fields follow.
    Row {
        /// Which change.
        change: RowChange,
        /// The row's slot in the sensor's table.
        slot: u32,
        /// The row's kind.
        kind: Kind,
        /// When, in monotonic nanoseconds since boot.
        time_ns: u64,
    },
    /// It happened. Fields follow.
    Event {
        /// The event's kind.
        kind: Kind,
        /// When, in monotonic nanoseconds since boot.
        time_ns: u64,
    },
    /// The row in this slot is no longer reported.
    Forget(u32),
    /// An agent's own kind.
    Define(Definition<'a>),
    /// Facts dropped after intake.
    Dropped {
        /// How many.
        count: u64,
        /// Why.
        reason: DropReason,
    },
    /// Opens a segment or a self-contained chunk.
    Preamble(Preamble),
    /// Ends a keyframe.
    KeyframeEnd {
        /// Rows of the keyframe.
        rows: u64,
        /// Digest of all rows.
        digest: u64,
    },
}

impl Op<'_> {
    /// How many facts (indices) this op stands for. A keyframe's Puts stand for none.
    #[must_use]
    pub fn facts(&self) -> u64 {
        match self {
            Self::Row { .. } | Self::Event { .. } | Self::Forget(_) => 1,
            Self::Dropped { count, .. } => *count,
            Self::Define(_) | Self::Preamble(_) | Self::KeyframeEnd { .. } => 0,
        }
    }
}

/// A string as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawString<'a> {
    /// In full.
    Literal(&'a [u8]),
    /// In full; it takes this slot.
    Define(u32, &'a [u8]),
    /// The string in this slot.
    Slot(u32),
}

/// A value as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawValue<'a> {
    /// The value itself.
    Plain(Value<'a>),
    /// A string of this type; [`string_value`] makes the value once it is resolved.
    String(Type, RawString<'a>),
    /// The row in this slot.
    Row(u32),
}

/// Makes the value that a resolved string of `value_type` stands for.
///
/// # Errors
/// [`DecodeError::Shape`] when the type is not written as a string, or the address is no address.
pub fn string_value(value_type: Type, bytes: &[u8]) -> Result<Value<'_>, DecodeError> {
    match value_type {
        Type::Bytes => Ok(Value::Bytes(bytes)),
        Type::Text => Ok(Value::Text(bytes)),
        Type::Hash => Ok(Value::Hash(bytes)),
        Type::Ip => ip_of(bytes).map(Value::Ip),
        Type::U64 | Type::I64 | Type::Bool | Type::Time | Type::Ref => Err(DecodeError::Shape),
    }
}
