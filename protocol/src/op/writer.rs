//! Writes ops in chunk encoding 1; how they look is in [`super`].
//!
//! The choice between literal and slot is the caller's ([`Compressor`]). What is written is what
//! [`super::OpReader`] reads.

use core::net::IpAddr;

use super::{
    CONTROL, CONTROL_KEYFRAME_END, CONTROL_PREAMBLE, DEFINE, DROPPED, DropReason, EVENT, FORGET,
    KIND_ESCAPE, OP_OVERHEAD_BYTES_MAX, Preamble, RowChange, VALUE_OVERHEAD_BYTES_MAX,
};
use crate::element::{Definition, Feature, Field, Kind, Reference, Value, write_value};
use crate::error::{BufferFull, to_slice};
use crate::limits::VALUE_BYTES_MAX;
use crate::row::bit;
use crate::varint::Writer;

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
