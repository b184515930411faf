//! What can be wrong with bytes: small, `Copy`, no text.
//!
//! These say that *bytes* are wrong. A peer that sends right bytes at the wrong moment is the
//! business of the session in `sensor-core` or `servers/core`.

use core::fmt;

/// Why bytes could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends inside a value.
    Truncated,
    /// Bytes follow the last value.
    Trailing,
    /// A variable-length integer is longer than its type; in ops, keys and rows also: not in its
    /// shortest form.
    Varint,
    /// A value lies beyond its bound in [`crate::limits`].
    Limit,
    /// A text that must be UTF-8 is not.
    Text,
    /// A tag that this version does not know.
    UnknownTag,
    /// A kind of element that is neither built in nor defined in the log.
    UnknownKind,
    /// A feature that the kind does not have.
    UnknownFeature,
    /// A slot that holds nothing.
    EmptySlot,
    /// What it builds on is not there: nothing decodes until a chunk opens.
    NotOpened,
    /// The message does not have the shape of its kind.
    Shape,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the bytes end inside a value",
            Self::Trailing => "bytes follow the last value",
            Self::Varint => "an integer is too long or not in its shortest form",
            Self::Limit => "a value is beyond its bound",
            Self::Text => "a text is not UTF-8",
            Self::UnknownTag => "a tag is unknown",
            Self::UnknownKind => "a kind of element is unknown",
            Self::UnknownFeature => "a feature is unknown to its kind",
            Self::EmptySlot => "a slot holds nothing",
            Self::NotOpened => "what it builds on is not there",
            Self::Shape => "the message does not have the shape of its kind",
        })
    }
}

impl core::error::Error for DecodeError {}

/// The caller's buffer cannot take what is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferFull;

impl fmt::Display for BufferFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buffer is too small")
    }
}

impl core::error::Error for BufferFull {}

/// Reads one postcard message and refuses trailing bytes.
///
/// # Errors
/// [`DecodeError::Shape`] when the bytes are not a `T`, [`DecodeError::Trailing`] when more follow.
pub fn from_bytes<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    let (value, rest) = postcard::take_from_bytes::<T>(bytes).map_err(|error| match error {
        postcard::Error::DeserializeUnexpectedEnd => DecodeError::Truncated,
        postcard::Error::DeserializeBadUtf8 => DecodeError::Text,
        postcard::Error::DeserializeBadVarint => DecodeError::Varint,
        _ => DecodeError::Shape,
    })?;
    let is_whole = rest.is_empty() || cfg!(mutant = "trailing_bytes_accepted");
    if is_whole { Ok(value) } else { Err(DecodeError::Trailing) }
}

/// Writes one postcard message into `buffer` and returns the written part.
///
/// # Errors
/// [`BufferFull`] when `buffer` is too small.
pub fn to_slice<'b, T: serde::Serialize + ?Sized>(
    value: &T,
    buffer: &'b mut [u8],
) -> Result<&'b mut [u8], BufferFull> {
    postcard::to_slice(value, buffer).map_err(|_| BufferFull)
}
