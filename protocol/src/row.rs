//! A row in canonical form: the one writing of an element's features that both ends hash.
//!
//! ```text
//! row = features: varint (bit i = feature i), then each value in order of feature
//! ```
//!
//! `source_seq` never enters a row: it belongs to a fact, not to an element.

use crate::element::{Feature, Field, KindSpec, Value, read_value, write_value};
use crate::error::{BufferFull, DecodeError};
use crate::limits::FEATURES_MAX;
use crate::varint::{Reader, Writer};

/// Writes `fields` (ascending, each feature once) as a row into `buffer`.
///
/// # Errors
/// [`BufferFull`].
pub fn write<'b>(fields: &[Field<'_>], buffer: &'b mut [u8]) -> Result<&'b [u8], BufferFull> {
    let mut writer = Writer::new(buffer);
    let kept = || fields.iter().filter(|field| field.feature != Feature::SOURCE_SEQ);
    writer.unsigned(kept().fold(0, |bits, field| bits | bit(field.feature)))?;
    for field in kept() {
        write_value(&mut writer, field.value)?;
    }
    let length = writer.len();
    buffer.get(..length).ok_or(BufferFull)
}

/// The bit of `feature` in a row's and an op's bitmap.
#[must_use]
pub const fn bit(feature: Feature) -> u64 {
    1 << (feature.0 % FEATURES_MAX)
}

/// The fields of a row, in order of feature.
#[derive(Clone, Debug)]
pub struct Fields<'r, 's> {
    reader: Reader<'r>,
    bits: u64,
    spec: &'s KindSpec<'s>,
}

impl<'r, 's> Fields<'r, 's> {
    /// Reads `row` as `spec` describes it.
    ///
    /// # Errors
    /// A [`DecodeError`] when the row does not even begin well.
    pub fn new(row: &'r [u8], spec: &'s KindSpec<'s>) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(row);
        let bits = reader.unsigned()?;
        Ok(Self { reader, bits, spec })
    }

    /// The bitmap of the features that are still to come.
    #[must_use]
    pub fn bits(&self) -> u64 {
        self.bits
    }

    fn read(&mut self) -> Result<Field<'r>, DecodeError> {
        let feature = Feature(self.bits.trailing_zeros() as u16);
        self.bits &= self.bits - 1;
        let spec = self.spec.feature(feature).ok_or(DecodeError::UnknownFeature)?;
        Ok(Field::new(feature, read_value(&mut self.reader, spec.value_type)?))
    }
}

impl<'r> Iterator for Fields<'r, '_> {
    type Item = Result<Field<'r>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bits == 0 {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.bits = 0;
        }
        Some(field)
    }
}

/// The value of `feature` in `row`, where it is present and the row is sound.
#[must_use]
pub fn value<'r>(row: &'r [u8], spec: &KindSpec<'_>, feature: Feature) -> Option<Value<'r>> {
    Fields::new(row, spec)
        .ok()?
        .find_map(|field| field.ok().filter(|field| field.feature == feature))
        .map(|field| field.value)
}

/// Writes the natural key of a row or fact given by `fields` into `buffer`.
///
/// # Errors
/// [`DecodeError::Shape`] when a key feature is absent, [`DecodeError::Limit`] when it is too long.
pub fn key<'b>(
    fields: &[Field<'_>],
    spec: &KindSpec<'_>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], DecodeError> {
    let mut writer = Writer::new(buffer);
    for key in spec.features.iter().filter(|feature| feature.role.is_key()) {
        let field = fields.iter().find(|field| field.feature == key.feature);
        let value = field.ok_or(DecodeError::Shape)?.value;
        if value.value_type() != key.value_type {
            return Err(DecodeError::Shape);
        }
        write_value(&mut writer, value).map_err(|_| DecodeError::Limit)?;
    }
    let length = writer.len();
    if length > crate::limits::KEY_BYTES_MAX {
        return Err(DecodeError::Limit);
    }
    buffer.get(..length).ok_or(DecodeError::Limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::{process, service};
    use std::vec::Vec;

    #[test]
    fn a_row_comes_back_without_its_source_seq() {
        let fields = [
            Field::new(Feature::SOURCE_SEQ, Value::U64(9)),
            Field::new(service::name, Value::text("ssh")),
            Field::new(service::state, Value::text("active")),
        ];
        let mut buffer = [0; 64];
        let row = write(&fields, &mut buffer).unwrap();
        assert_eq!(row, b"\x18\x03ssh\x06active");
        let back: Result<Vec<_>, _> = Fields::new(row, &service::SPEC).unwrap().collect();
        assert_eq!(back.unwrap(), fields[1..]);
        assert_eq!(value(row, &service::SPEC, service::state), Some(Value::text("active")));
    }

    #[test]
    fn a_key_needs_all_its_features() {
        let pid = Field::new(process::pid, Value::U64(7));
        let start = Field::new(process::start_ticks, Value::U64(300));
        let mut buffer = [0; 32];
        assert_eq!(key(&[pid, start], &process::SPEC, &mut buffer), Ok(&[7, 0xac, 2][..]));
        assert_eq!(key(&[pid], &process::SPEC, &mut buffer), Err(DecodeError::Shape));
    }
}
