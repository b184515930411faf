//! Rows: what a policy wants stored, as keys and values, so that its owner can put them into one
//! batch of whatever store it has.
//!
//! Not here: stores. Invariant: a value is one postcard message and nothing behind it.

use lapwing_protocol::error::DecodeError;
use serde::{Deserialize, Serialize};

/// One key and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: Vec<u8>,
    /// The new value; `None` removes the key.
    pub value: Option<Vec<u8>>,
}

impl Row {
    /// `record` under `key`.
    #[must_use]
    pub fn put<T: Serialize>(key: Vec<u8>, record: &T) -> Self {
        // A record holds texts, numbers and byte strings, all of which can be written; were one
        // not, the empty value would be refused by `read` and not taken for a record.
        let value = postcard::to_extend(record, Vec::new()).unwrap_or_default();
        Self { key, value: Some(value) }
    }

    /// Nothing under `key` any more.
    #[must_use]
    pub fn remove(key: Vec<u8>) -> Self {
        Self { key, value: None }
    }
}

/// The record in a stored value.
///
/// # Errors
/// The value is no `T`: it was written by another version, or by a fault.
pub fn read<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, DecodeError> {
    lapwing_protocol::error::from_bytes(value)
}

/// A key and its value.
pub type StoredRow = (Vec<u8>, Vec<u8>);

/// Keeps rows durably: what a policy's owner needs of a store, whichever it is.
pub trait RowKeeper: Send + Sync + 'static {
    /// All keys and values of `from <= key < to`, in order. May wait for a disk.
    ///
    /// # Errors
    /// The store cannot be read.
    fn scan(&self, from: &[u8], to: &[u8]) -> Result<Vec<StoredRow>, KeeperError>;

    /// Takes rows as one batch, in the order of the calls, before it returns; the future ends when
    /// they are durable.
    fn write(
        &self,
        rows: Vec<Row>,
    ) -> impl Future<Output = Result<(), KeeperError>> + Send + 'static;
}

/// Why rows are not kept, for a person: it names the store and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperError(pub String);

impl std::fmt::Display for KeeperError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeeperError {}
