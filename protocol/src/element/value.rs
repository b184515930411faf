//! Values of features, references between elements, and the fact: one observation.

use core::net::IpAddr;

use super::{Feature, FeatureSpec, Kind, Nature, Role, Scope, Type};
use crate::error::{BufferFull, DecodeError};
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::varint::{Reader, Writer};

/// Another element of the same sensor, by its kind and natural key in canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference<'a> {
    /// The other element's kind.
    pub kind: Kind,
    /// Its key features' values, each as [`write_value`] writes it, in order of feature.
    pub key: &'a [u8],
}

/// A value of one feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Unsigned integer.
    U64(u64),
    /// Signed integer.
    I64(i64),
    /// Yes or no.
    Bool(bool),
    /// Bytes without meaning to the platform.
    Bytes(&'a [u8]),
    /// Text as the operating system gives it.
    Text(&'a [u8]),
    /// An address.
    Ip(IpAddr),
    /// A hash of 16 (MD5), 20 (SHA-1) or 32 (SHA-256) bytes.
    Hash(&'a [u8]),
    /// Monotonic nanoseconds since boot, counting suspend.
    Time(u64),
    /// Another element.
    Ref(Reference<'a>),
}

impl<'a> Value<'a> {
    /// A text value.
    #[must_use]
    pub const fn text(text: &'a str) -> Self {
        Self::Text(text.as_bytes())
    }

    /// The type of this value.
    #[must_use]
    pub const fn value_type(&self) -> Type {
        match self {
            Self::U64(_) => Type::U64,
            Self::I64(_) => Type::I64,
            Self::Bool(_) => Type::Bool,
            Self::Bytes(_) => Type::Bytes,
            Self::Text(_) => Type::Text,
            Self::Ip(_) => Type::Ip,
            Self::Hash(_) => Type::Hash,
            Self::Time(_) => Type::Time,
            Self::Ref(_) => Type::Ref,
        }
    }

    /// The bytes of a value that is written through the string table: text, bytes, hash.
    #[must_use]
    pub const fn as_string(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) | Self::Text(bytes) | Self::Hash(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// One feature and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Which feature.
    pub feature: Feature,
    /// Its value.
    pub value: Value<'a>,
}

impl<'a> Field<'a> {
    /// A field.
    #[must_use]
    pub const fn new(feature: Feature, value: Value<'a>) -> Self {
        Self { feature, value }
    }
}

/// What a fact says of its element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The element is as the fields say; what is not named is absent. State kinds only.
    Whole,
    /// The named fields are so; the others stay as they were. State kinds only.
    Update,
    /// The element is no more; the fields (key features at least) are its last. State kinds only.
    Ended,
    /// It happened. Event kinds only.
    Event,
}

/// One observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact<'a> {
    /// The kind of element.
    pub kind: Kind,
    /// What it says of the element.
    pub change: Change,
    /// When it was observed: monotonic nanoseconds since boot, counting suspend.
    pub time_ns: u64,
    /// Fields in ascending order of feature, each feature at most once.
    pub fields: &'a [Field<'a>],
}

impl<'a> Fact<'a> {
    /// The value of `feature`, where the fact names it.
    #[must_use]
    pub fn value(&self, feature: Feature) -> Option<Value<'a>> {
        self.fields.iter().find(|field| field.feature == feature).map(|field| field.value)
    }
}

/// Writes a value in canonical form: no string table, no deltas, no slots.
///
/// # Errors
/// [`BufferFull`].
pub fn write_value(writer: &mut Writer<'_>, value: Value<'_>) -> Result<(), BufferFull> {
    match value {
        Value::U64(value) | Value::Time(value) => writer.unsigned(value),
        Value::I64(value) => writer.signed(value),
        Value::Bool(value) => writer.byte(u8::from(value)),
        Value::Bytes(bytes) | Value::Text(bytes) | Value::Hash(bytes) => writer.sized(bytes),
        Value::Ip(IpAddr::V4(address)) => writer.sized(&address.octets()),
        Value::Ip(IpAddr::V6(address)) => writer.sized(&address.octets()),
        Value::Ref(reference) => {
            writer.unsigned(u64::from(reference.kind.0))?;
            writer.sized(reference.key)
        }
    }
}

/// Reads a value of `value_type` in canonical form.
///
/// # Errors
/// A [`DecodeError`]; never panics.
pub fn read_value<'a>(reader: &mut Reader<'a>, value_type: Type) -> Result<Value<'a>, DecodeError> {
    Ok(match value_type {
        Type::U64 => Value::U64(reader.unsigned()?),
        Type::Time => Value::Time(reader.unsigned()?),
        Type::I64 => Value::I64(reader.signed()?),
        Type::Bool => Value::Bool(read_bool(reader)?),
        Type::Bytes => Value::Bytes(reader.sized(VALUE_BYTES_MAX)?),
        Type::Text => Value::Text(reader.sized(VALUE_BYTES_MAX)?),
        Type::Hash => Value::Hash(reader.sized(VALUE_BYTES_MAX)?),
        Type::Ip => Value::Ip(ip_of(reader.sized(16)?)?),
        Type::Ref => Value::Ref(read_reference(reader)?),
    })
}

pub(crate) fn read_bool(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::UnknownTag),
    }
}

pub(crate) fn read_reference<'a>(reader: &mut Reader<'a>) -> Result<Reference<'a>, DecodeError> {
    let kind = u16::try_from(reader.unsigned()?).map_err(|_| DecodeError::UnknownKind)?;
    Ok(Reference { kind: Kind(kind), key: reader.sized(KEY_BYTES_MAX)? })
}

/// The address that 4 or 16 bytes stand for.
///
/// # Errors
/// [`DecodeError::Shape`] for any other length.
pub fn ip_of(bytes: &[u8]) -> Result<IpAddr, DecodeError> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(bytes).map(IpAddr::from).map_err(|_| DecodeError::Shape)
}

/// Writes a natural key: `values` of the key features in order.
///
/// # Errors
/// [`BufferFull`].
pub fn write_key<'b>(values: &[Value<'_>], buffer: &'b mut [u8]) -> Result<&'b [u8], BufferFull> {
    let mut writer = Writer::new(buffer);
    for value in values {
        write_value(&mut writer, *value)?;
    }
    let length = writer.len();
    if length > KEY_BYTES_MAX {
        return Err(BufferFull);
    }
    buffer.get(..length).ok_or(BufferFull)
}

/// The spec that a Define op carries for one kind, in the order of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Definition<'a> {
    /// The kind that is described.
    pub kind: Kind,
    /// Its name: lower case letters, digits and `_`.
    pub name: &'a str,
    /// Whether it is state or event.
    pub nature: Nature,
    /// How far its natural key reaches.
    pub scope: Scope,
    /// Its features in ascending order of number.
    #[serde(borrow)]
    pub features: crate::items::Items<'a, FeatureSpec<'a>>,
}

impl Role {
    /// Whether this is part of the natural key.
    #[must_use]
    pub const fn is_key(self) -> bool {
        matches!(self, Self::Key)
    }
}
