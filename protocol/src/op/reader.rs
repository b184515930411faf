//! Reads ops in chunk encoding 1; how they look is in [`super`].
//!
//! It keeps no tables: it hands out what is written. Every byte may be hostile: it answers with a
//! [`DecodeError`] and never panics.

use super::{
    CONTROL_KEYFRAME_END, CONTROL_PREAMBLE, DEFINE, DROPPED, DropReason, EVENT, FORGET,
    KIND_ESCAPE, Op, PATCH, PUT, Preamble, REMOVE, RawString, RawValue, RowChange,
};
use crate::element::{Feature, Kind, KindSpec, Type, Value, read_bool, read_reference};
use crate::error::{DecodeError, from_bytes};
use crate::id::BootId;
use crate::limits::{STRING_SLOT_BYTES_MAX, STRING_SLOTS_MAX, VALUE_BYTES_MAX};
use crate::varint::Reader;

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
