//! Integers of variable length, and the two cursors that ops are written and read with.
//!
//! Seven bits a byte, least significant first, shortest form only. Signed ones are zigzag. The
//! cursors never panic: a writer reports a full buffer, a reader reports truncated input.

use crate::error::{BufferFull, DecodeError};

/// Writes into a lent buffer.
#[derive(Debug)]
pub struct Writer<'b> {
    buffer: &'b mut [u8],
    length: usize,
}

impl<'b> Writer<'b> {
    /// A writer at the start of `buffer`.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, length: 0 }
    }

    /// A writer that goes on behind `length` bytes already in `buffer`.
    pub fn resume(buffer: &'b mut [u8], length: usize) -> Self {
        let length = length.min(buffer.len());
        Self { buffer, length }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes written so far.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    /// Goes back to an earlier length; a later one changes nothing.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`BufferFull`]; nothing is written then.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), BufferFull> {
        let end = self.length.checked_add(bytes.len()).ok_or(BufferFull)?;
        self.buffer.get_mut(self.length..end).ok_or(BufferFull)?.copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }

    /// Appends one byte.
    ///
    /// # Errors
    /// [`BufferFull`].
    pub fn byte(&mut self, byte: u8) -> Result<(), BufferFull> {
        self.bytes(&[byte])
    }

    /// Appends an unsigned integer, 1 to 10 bytes.
    ///
    /// # Errors
    /// [`BufferFull`].
    pub fn unsigned(&mut self, mut value: u64) -> Result<(), BufferFull> {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80)?;
            value >>= 7;
        }
        self.byte(value as u8)
    }

    /// Appends a signed integer in zigzag form.
    ///
    /// # Errors
    /// [`BufferFull`].
    pub fn signed(&mut self, value: i64) -> Result<(), BufferFull> {
        self.unsigned((value << 1 ^ value >> 63) as u64)
    }

    /// Appends a length and that many bytes.
    ///
    /// # Errors
    /// [`BufferFull`].
    pub fn sized(&mut self, bytes: &[u8]) -> Result<(), BufferFull> {
        self.unsigned(bytes.len() as u64)?;
        self.bytes(bytes)
    }
}

/// Reads from a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What is not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all is read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.bytes(N)?.try_into().map_err(|_| DecodeError::Truncated)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// An unsigned integer in its shortest form.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] or [`DecodeError::Varint`].
    pub fn unsigned(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || shift > 0 && byte == 0 {
                return Err(DecodeError::Varint);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint)
    }

    /// A signed integer in zigzag form.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] or [`DecodeError::Varint`].
    pub fn signed(&mut self) -> Result<i64, DecodeError> {
        let value = self.unsigned()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A length, at most `length_max`, and that many bytes.
    ///
    /// # Errors
    /// [`DecodeError::Limit`] when the length is beyond `length_max`, else as [`Self::bytes`].
    pub fn sized(&mut self, length_max: usize) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.unsigned()?).map_err(|_| DecodeError::Limit)?;
        if length > length_max {
            return Err(DecodeError::Limit);
        }
        self.bytes(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_come_back_and_take_their_shortest_form() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut buffer = [0; 10];
            let mut writer = Writer::new(&mut buffer);
            writer.unsigned(value).unwrap();
            let mut reader = Reader::new(writer.written());
            assert_eq!(reader.unsigned(), Ok(value));
            assert!(reader.is_empty());
        }
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            let mut buffer = [0; 10];
            let mut writer = Writer::new(&mut buffer);
            writer.signed(value).unwrap();
            assert_eq!(Reader::new(writer.written()).signed(), Ok(value));
        }
    }

    #[test]
    fn padded_and_oversized_integers_are_refused() {
        assert_eq!(Reader::new(&[0x80, 0]).unsigned(), Err(DecodeError::Varint));
        assert_eq!(Reader::new(&[0xff; 11]).unsigned(), Err(DecodeError::Varint));
        assert_eq!(Reader::new(&[0x80]).unsigned(), Err(DecodeError::Truncated));
        assert_eq!(Reader::new(&[5, 1]).sized(4), Err(DecodeError::Limit));
    }

    #[test]
    fn a_full_buffer_takes_nothing() {
        let mut buffer = [0; 2];
        let mut writer = Writer::new(&mut buffer);
        assert_eq!(writer.bytes(&[1, 2, 3]), Err(BufferFull));
        assert!(writer.is_empty());
    }
}
