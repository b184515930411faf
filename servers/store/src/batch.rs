//! A batch: puts and deletes that a store applies as a whole or not at all.
//!
//! Invariants: every key and value in a batch is within its bound and sealed; the last operation
//! on a key wins.

use std::fmt;

use crate::envelope;
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX, KEY_BYTES_MAX, STORED_BYTES_MAX, VALUE_BYTES_MAX,
};

/// A bound that a caller broke. Lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// An empty key.
    KeyEmpty,
    /// A key of this length, beyond `KEY_BYTES_MAX`.
    KeyTooLong(usize),
    /// A value of this length, beyond `VALUE_BYTES_MAX`.
    ValueTooLong(usize),
    /// One operation more than `BATCH_OPERATIONS_MAX`, or bytes beyond `BATCH_BYTES_MAX`.
    BatchFull,
    /// A journal entry's header of this length.
    HeaderTooLong(usize),
    /// A journal entry's body of this length.
    BodyTooLong(usize),
    /// A journal head record of this length.
    HeadTooLong(usize),
    /// One sensor lane more than `HEADS_MAX`.
    HeadsFull,
    /// The segment number that is reserved for the end of a log.
    SegmentReserved,
    /// One partition more than `PARTITIONS_MAX`.
    PartitionsFull,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyEmpty => f.write_str("the key is empty"),
            Self::KeyTooLong(length) => write!(f, "the key has {length} bytes"),
            Self::ValueTooLong(length) => write!(f, "the value has {length} bytes"),
            Self::BatchFull => f.write_str("the batch is full"),
            Self::HeaderTooLong(length) => write!(f, "the header has {length} bytes"),
            Self::BodyTooLong(length) => write!(f, "the body has {length} bytes"),
            Self::HeadTooLong(length) => write!(f, "the head record has {length} bytes"),
            Self::HeadsFull => f.write_str("the journal holds as many heads as it may"),
            Self::SegmentReserved => f.write_str("the segment number is reserved"),
            Self::PartitionsFull => {
                f.write_str("the journal keeps as many partitions as it may: keep facts for less")
            }
        }
    }
}

impl std::error::Error for Misuse {}

/// One operation of a batch, as a back end sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Store the sealed value under the key.
    Put {
        /// The key.
        key: Vec<u8>,
        /// The value in its envelope.
        sealed: Vec<u8>,
    },
    /// Remove the key, if it is there.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

/// Puts and deletes that are applied as a whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    operations: Vec<Operation>,
    bytes: usize,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put of `value` (at most `VALUE_BYTES_MAX`) under `key`.
    ///
    /// # Errors
    /// The bound that was broken; the batch is then unchanged.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Misuse> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(Misuse::ValueTooLong(value.len()));
        }
        self.reserve(key, value.len())?;
        self.operations
            .push(Operation::Put { key: key.to_vec(), sealed: envelope::seal(key, value) });
        Ok(())
    }

    /// Adds a put of a value that is already in its envelope, as `Store::scan_sealed` shows it:
    /// to carry a store from one back end to another, damage included.
    ///
    /// # Errors
    /// The bound that was broken; the batch is then unchanged.
    pub fn put_sealed(&mut self, key: &[u8], sealed: &[u8]) -> Result<(), Misuse> {
        if sealed.len() > STORED_BYTES_MAX {
            return Err(Misuse::ValueTooLong(sealed.len()));
        }
        self.reserve(key, sealed.len())?;
        self.operations.push(Operation::Put { key: key.to_vec(), sealed: sealed.to_vec() });
        Ok(())
    }

    /// Adds a removal of `key`.
    ///
    /// # Errors
    /// The bound that was broken; the batch is then unchanged.
    pub fn delete(&mut self, key: &[u8]) -> Result<(), Misuse> {
        self.reserve(key, 0)?;
        self.operations.push(Operation::Delete { key: key.to_vec() });
        Ok(())
    }

    /// Takes over the operations of `other` behind its own, if both fit in one batch: stores apply
    /// one large batch several times faster than many small ones.
    ///
    /// # Errors
    /// `other`, unchanged, where they do not fit.
    pub fn absorb(&mut self, mut other: Self) -> Result<(), Self> {
        let bytes = self.bytes + other.bytes;
        if self.len() + other.len() > BATCH_OPERATIONS_MAX || bytes > BATCH_BYTES_MAX {
            return Err(other);
        }
        self.operations.append(&mut other.operations);
        self.bytes = bytes;
        Ok(())
    }

    /// The number of operations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is nothing to apply.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Key and value bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The operations in the order in which they were added.
    pub fn operations(&self) -> impl ExactSizeIterator<Item = &Operation> {
        self.operations.iter()
    }

    pub(crate) fn into_operations(self) -> Vec<Operation> {
        self.operations
    }

    fn reserve(&mut self, key: &[u8], value_bytes: usize) -> Result<(), Misuse> {
        check_key(key)?;
        let bytes = self.bytes + key.len() + value_bytes;
        if self.operations.len() >= BATCH_OPERATIONS_MAX || bytes > BATCH_BYTES_MAX {
            return Err(Misuse::BatchFull);
        }
        self.bytes = bytes;
        Ok(())
    }
}

/// Checks a key's length.
pub(crate) const fn check_key(key: &[u8]) -> Result<(), Misuse> {
    match key.len() {
        0 => Err(Misuse::KeyEmpty),
        1..=KEY_BYTES_MAX => Ok(()),
        length => Err(Misuse::KeyTooLong(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_and_leave_the_batch_unchanged() {
        let mut batch = Batch::new();
        assert_eq!(batch.put(b"", b"v"), Err(Misuse::KeyEmpty));
        assert_eq!(batch.put(&[0; 129], b"v"), Err(Misuse::KeyTooLong(129)));
        let long = vec![0; VALUE_BYTES_MAX + 1];
        assert_eq!(batch.put(b"k", &long), Err(Misuse::ValueTooLong(4092)));
        assert!(batch.is_empty() && batch.bytes() == 0);
        batch.put(&[0; 128], &long[1..]).unwrap();
        assert_eq!(batch.bytes(), 128 + VALUE_BYTES_MAX);
    }

    #[test]
    fn absorbing_keeps_order_and_bounds() {
        let (mut first, mut second) = (Batch::new(), Batch::new());
        first.put(b"k", b"one").unwrap();
        second.put(b"k", b"two").unwrap();
        let mut expected = first.clone();
        expected.put(b"k", b"two").unwrap();
        first.absorb(second.clone()).unwrap();
        assert_eq!(first, expected);
        while first.put(b"k", &[0; VALUE_BYTES_MAX]).is_ok() {}
        let full = first.clone();
        let mut large = Batch::new();
        large.put(b"k", &[0; VALUE_BYTES_MAX]).unwrap();
        assert_eq!(first.absorb(large.clone()), Err(large));
        assert_eq!(first, full);
    }

    #[test]
    fn a_full_batch_refuses_the_next_operation() {
        let mut batch = Batch::new();
        for _ in 0..BATCH_OPERATIONS_MAX {
            batch.delete(b"k").unwrap();
        }
        assert_eq!(batch.delete(b"k"), Err(Misuse::BatchFull));
    }
}
