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

use core::net::IpAddr;

use crate::element::{
    Definition, Feature, Field, Kind, KindSpec, Reference, Type, Value, ip_of, read_bool,
    read_reference, write_value,
};
use crate::error::{BufferFull, DecodeError, from_bytes, to_slice};
use crate::id::BootId;
use crate::limits::{STRING_SLOT_BYTES_MAX, STRING_SLOTS_MAX, VALUE_BYTES_MAX};
use crate::row::bit;
use crate::varint::{Reader, Writer};

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

/// How a string is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringChoice {
    /// In full, and forgotten.
    Literal,
    /// In full, and kept in this slot.
    Define(u32),
    /// As the slot that holds it.
    Slot(u32),
}

/// The writer's memory: which strings and rows the reader already has.
pub trait Compressor {
    /// Decides how `bytes` is written; after `Define` it must know the string in that slot.
    fn string(&mut self, bytes: &[u8]) -> StringChoice;
    /// The slot of the row that `reference` names, where the reader has it.
    fn row(&mut self, reference: Reference<'_>) -> Option<u32>;
}

/// A compressor for self-contained chunks of few strings: everything is written in full.
#[derive(Clone, Copy, Debug, Default)]
pub struct Literal;

impl Compressor for Literal {
    fn string(&mut self, _: &[u8]) -> StringChoice {
        StringChoice::Literal
    }
    fn row(&mut self, _: Reference<'_>) -> Option<u32> {
        None
    }
}

/// An upper bound of the bytes that an op with `fields` takes.
#[must_use]
pub fn op_bytes_max(fields: &[Field<'_>]) -> usize {
    fields.iter().fold(OP_OVERHEAD_BYTES_MAX, |sum, field| {
        let value = match field.value {
            Value::Bytes(bytes) | Value::Text(bytes) | Value::Hash(bytes) => bytes.len() + 3,
            Value::Ip(_) => 17,
            Value::Ref(reference) => reference.key.len() + 6,
            Value::U64(_) | Value::I64(_) | Value::Time(_) | Value::Bool(_) => 10,
        };
        sum + value + VALUE_OVERHEAD_BYTES_MAX
    })
}

/// Writes ops one after the other.
///
/// A caller checks [`op_bytes_max`] against the room left before it writes an op: after a
/// [`BufferFull`] the compressor may know strings that the reader will never see.
#[derive(Debug)]
pub struct OpWriter<'b> {
    writer: Writer<'b>,
    time_ns: u64,
    source_seq: u64,
}

impl<'b> OpWriter<'b> {
    /// A writer at the start of `buffer`; `time_base_ns` is the chunk header's.
    pub fn new(buffer: &'b mut [u8], time_base_ns: u64) -> Self {
        Self { writer: Writer::new(buffer), time_ns: time_base_ns, source_seq: 0 }
    }

    /// A writer that goes on behind `length` bytes already in `buffer`, with the state that
    /// [`Self::state`] gave then.
    pub fn resume(buffer: &'b mut [u8], length: usize, state: (u64, u64)) -> Self {
        Self { writer: Writer::resume(buffer, length), time_ns: state.0, source_seq: state.1 }
    }

    /// What [`Self::resume`] needs: time of the last op, last source sequence.
    #[must_use]
    pub fn state(&self) -> (u64, u64) {
        (self.time_ns, self.source_seq)
    }

    /// The ops written so far.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        self.writer.written()
    }

    /// Opens a segment or a self-contained chunk.
    ///
    /// # Errors
    /// [`BufferFull`].
    pub fn preamble(&mut self, preamble: &Preamble) -> Result<(), BufferFull> {
        self.head(CONTROL, CONTROL_PREAMBLE)?;
        self.writer.bytes(&preamble.boot.0)?;
        self.writer.unsigned(preamble.wall_ms)?;
        self.writer.unsigned(u64::from(preamble.string_slots))
    }

    /// Ends a keyframe of `rows` rows with the digest of all of them.
    ///
    /// # Errors
    /// [`BufferFull`].
    pub fn keyframe_end(&mut self, rows: u64, digest: u64) -> Result<(), BufferFull> {
        self.head(CONTROL, CONTROL_KEYFRAME_END)?;
        self.writer.unsigned(rows)?;
        self.writer.bytes(&digest.to_le_bytes())
    }

    /// Writes a Put, Patch or Remove of the row in `slot`.
    ///
    /// # Errors
    /// [`BufferFull`].
    pub fn row<C: Compressor>(
        &mut self,
        change: RowChange,
        slot: u32,
        (kind, time_ns): (Kind, u64),
        fields: &[Field<'_>],
        compressor: &mut C,
    ) -> Result<(), BufferFull> {
        self.head(change as u8, kind.0)?;
        self.writer.unsigned(u64::from(slot))?;
        self.time(time_ns)?;
        self.fields(fields, compressor)
    }

    /// Writes an Event.
    ///
    /// # Errors
    /// [`BufferFull`].
    pub fn event<C: Compressor>(
        &mut self,
        (kind, time_ns): (Kind, u64),
        fields: &[Field<'_>],
        compressor: &mut C,
    ) -> Result<(), BufferFull> {
        self.head(EVENT, kind.0)?;
        self.time(time_ns)?;
        self.fields(fields, compressor)
    }

    /// Writes a Forget of the row in `slot`.
    ///
    /// # Errors
    /// [`BufferFull`].
    pub fn forget(&mut self, slot: u32) -> Result<(), BufferFull> {
        self.head(FORGET, 0)?;
        self.writer.unsigned(u64::from(slot))
    }

    /// Describes an agent's own kind.
    ///
    /// # Errors
    /// [`BufferFull`].
    pub fn define(&mut self, definition: &Definition<'_>) -> Result<(), BufferFull> {
        let mut buffer = [0; VALUE_BYTES_MAX];
        let bytes = to_slice(definition, &mut buffer)?;
        self.define_encoded(bytes)
    }

    /// Describes an agent's own kind by a [`Definition`] that is encoded already.
    ///
    /// # Errors
    /// [`BufferFull`].
    pub fn define_encoded(&mut self, definition: &[u8]) -> Result<(), BufferFull> {
        self.head(DEFINE, 0)?;
        self.writer.sized(definition)
    }

    /// Announces `count` facts that were dropped after intake.
    ///
    /// # Errors
    /// [`BufferFull`].
    pub fn dropped(&mut self, count: u64, reason: DropReason) -> Result<(), BufferFull> {
        self.head(DROPPED, 0)?;
        self.writer.unsigned(count)?;
        self.writer.unsigned(reason as u64)
    }

    fn head(&mut self, operation: u8, kind: u16) -> Result<(), BufferFull> {
        if kind < KIND_ESCAPE {
            return self.writer.byte(operation | (kind as u8) << 3);
        }
        self.writer.byte(operation | (KIND_ESCAPE as u8) << 3)?;
        self.writer.unsigned(u64::from(kind))
    }

    fn time(&mut self, time_ns: u64) -> Result<(), BufferFull> {
        self.writer.signed(time_ns.wrapping_sub(self.time_ns) as i64)?;
        self.time_ns = time_ns;
        Ok(())
    }

    fn fields<C: Compressor>(
        &mut self,
        fields: &[Field<'_>],
        compressor: &mut C,
    ) -> Result<(), BufferFull> {
        self.writer.unsigned(fields.iter().fold(0, |bits, field| bits | bit(field.feature)))?;
        for field in fields {
            self.value(field, compressor)?;
        }
        Ok(())
    }

    fn value<C: Compressor>(
        &mut self,
        field: &Field<'_>,
        compressor: &mut C,
    ) -> Result<(), BufferFull> {
        match field.value {
            Value::U64(value) if field.feature == Feature::SOURCE_SEQ => {
                let step = value.wrapping_sub(self.source_seq) as i64;
                self.source_seq = value;
                self.writer.signed(step)
            }
            Value::Bytes(bytes) | Value::Text(bytes) | Value::Hash(bytes) => {
                self.string(bytes, compressor)
            }
            Value::Ip(IpAddr::V4(address)) => self.string(&address.octets(), compressor),
            Value::Ip(IpAddr::V6(address)) => self.string(&address.octets(), compressor),
            Value::Time(time) => self.writer.signed(time.wrapping_sub(self.time_ns) as i64),
            Value::Ref(reference) => match compressor.row(reference) {
                Some(slot) => self.writer.unsigned(u64::from(slot) + 1),
                None => {
                    self.writer.byte(0)?;
                    write_value(&mut self.writer, field.value)
                }
            },
            Value::U64(_) | Value::I64(_) | Value::Bool(_) => {
                write_value(&mut self.writer, field.value)
            }
        }
    }

    fn string<C: Compressor>(
        &mut self,
        bytes: &[u8],
        compressor: &mut C,
    ) -> Result<(), BufferFull> {
        match compressor.string(bytes) {
            StringChoice::Literal => {
                self.writer.byte(0)?;
                self.writer.sized(bytes)
            }
            StringChoice::Define(slot) => {
                self.writer.byte(1)?;
                self.writer.unsigned(u64::from(slot))?;
                self.writer.sized(bytes)
            }
            StringChoice::Slot(slot) => self.writer.unsigned(u64::from(slot) + 2),
        }
    }
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

/// Reads ops one after the other; after each that has fields, these must be read to their end.
#[derive(Clone, Debug)]
pub struct OpReader<'a> {
    reader: Reader<'a>,
    time_ns: u64,
    source_seq: u64,
    bits: u64,
}

impl<'a> OpReader<'a> {
    /// A reader of a chunk's body; `time_base_ns` is the chunk header's.
    #[must_use]
    pub fn new(body: &'a [u8], time_base_ns: u64) -> Self {
        Self { reader: Reader::new(body), time_ns: time_base_ns, source_seq: 0, bits: 0 }
    }

    /// The next op, or `None` at the end.
    ///
    /// # Errors
    /// A [`DecodeError`]; the rest of the chunk cannot be read then.
    pub fn op(&mut self) -> Result<Option<Op<'a>>, DecodeError> {
        if self.bits != 0 {
            return Err(DecodeError::Shape);
        }
        if self.reader.is_empty() {
            return Ok(None);
        }
        let head = self.reader.byte()?;
        let mut kind = u16::from(head >> 3);
        if kind == KIND_ESCAPE {
            let escaped = self.reader.unsigned()?;
            kind = u16::try_from(escaped).map_err(|_| DecodeError::UnknownKind)?;
            if kind < KIND_ESCAPE {
                return Err(DecodeError::Varint);
            }
        }
        self.operands(head & 7, Kind(kind)).map(Some)
    }

    fn operands(&mut self, operation: u8, kind: Kind) -> Result<Op<'a>, DecodeError> {
        Ok(match operation {
            PUT => self.row_op(RowChange::Put, kind)?,
            PATCH => self.row_op(RowChange::Patch, kind)?,
            REMOVE => self.row_op(RowChange::Remove, kind)?,
            EVENT => {
                let time_ns = self.time()?;
                self.bits = self.reader.unsigned()?;
                Op::Event { kind, time_ns }
            }
            // These speak of no kind; another number there is kept for a meaning yet to come.
            FORGET | DEFINE | DROPPED if kind.0 != 0 => return Err(DecodeError::UnknownTag),
            FORGET => Op::Forget(self.slot()?),
            DEFINE => Op::Define(from_bytes(self.reader.sized(VALUE_BYTES_MAX)?)?),
            DROPPED => {
                let count = self.reader.unsigned()?;
                Op::Dropped { count, reason: DropReason::from_number(self.reader.unsigned()?)? }
            }
            _ => self.control(kind.0)?,
        })
    }

    fn row_op(&mut self, change: RowChange, kind: Kind) -> Result<Op<'a>, DecodeError> {
        let slot = self.slot()?;
        let time_ns = self.time()?;
        self.bits = self.reader.unsigned()?;
        Ok(Op::Row { change, slot, kind, time_ns })
    }

    fn control(&mut self, control: u16) -> Result<Op<'a>, DecodeError> {
        match control {
            CONTROL_PREAMBLE => {
                let boot = BootId(self.reader.array()?);
                let wall_ms = self.reader.unsigned()?;
                let string_slots = self.slot()?;
                if string_slots > STRING_SLOTS_MAX {
                    return Err(DecodeError::Limit);
                }
                Ok(Op::Preamble(Preamble { boot, wall_ms, string_slots }))
            }
            CONTROL_KEYFRAME_END => {
                let rows = self.reader.unsigned()?;
                Ok(Op::KeyframeEnd { rows, digest: u64::from_le_bytes(self.reader.array()?) })
            }
            _ => Err(DecodeError::UnknownTag),
        }
    }

    fn slot(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.reader.unsigned()?).map_err(|_| DecodeError::Limit)
    }

    fn time(&mut self) -> Result<u64, DecodeError> {
        self.time_ns = self.time_ns.wrapping_add(self.reader.signed()? as u64);
        Ok(self.time_ns)
    }

    /// The features of the current op that are not read yet, as a bitmap.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.bits
    }

    /// The next field of the current op, or `None` when all are read.
    ///
    /// # Errors
    /// A [`DecodeError`]; the rest of the chunk cannot be read then.
    pub fn field(
        &mut self,
        spec: &KindSpec<'_>,
    ) -> Result<Option<(Feature, RawValue<'a>)>, DecodeError> {
        if self.bits == 0 {
            return Ok(None);
        }
        let feature = Feature(self.bits.trailing_zeros() as u16);
        self.bits &= self.bits - 1;
        let spec = spec.feature(feature).ok_or(DecodeError::UnknownFeature)?;
        Ok(Some((feature, self.value(feature, spec.value_type)?)))
    }

    fn value(&mut self, feature: Feature, value_type: Type) -> Result<RawValue<'a>, DecodeError> {
        Ok(RawValue::Plain(match value_type {
            Type::U64 if feature == Feature::SOURCE_SEQ => {
                self.source_seq = self.source_seq.wrapping_add(self.reader.signed()? as u64);
                Value::U64(self.source_seq)
            }
            Type::U64 => Value::U64(self.reader.unsigned()?),
            Type::I64 => Value::I64(self.reader.signed()?),
            Type::Bool => Value::Bool(read_bool(&mut self.reader)?),
            Type::Time => Value::Time(self.time_ns.wrapping_add(self.reader.signed()? as u64)),
            Type::Bytes | Type::Text | Type::Hash | Type::Ip => {
                return Ok(RawValue::String(value_type, self.string()?));
            }
            Type::Ref => match self.reader.unsigned()? {
                0 => Value::Ref(read_reference(&mut self.reader)?),
                slot => {
                    let slot = u32::try_from(slot - 1).map_err(|_| DecodeError::Limit)?;
                    return Ok(RawValue::Row(slot));
                }
            },
        }))
    }

    fn string(&mut self) -> Result<RawString<'a>, DecodeError> {
        match self.reader.unsigned()? {
            0 => Ok(RawString::Literal(self.reader.sized(VALUE_BYTES_MAX)?)),
            1 => {
                let slot = self.slot()?;
                if slot >= STRING_SLOTS_MAX {
                    return Err(DecodeError::Limit);
                }
                Ok(RawString::Define(slot, self.reader.sized(STRING_SLOT_BYTES_MAX)?))
            }
            slot if slot - 2 < u64::from(STRING_SLOTS_MAX) => Ok(RawString::Slot(slot as u32 - 2)),
            _ => Err(DecodeError::Limit),
        }
    }
}
