//! The trait that every back end implements, and the scan it serves.
//!
//! What it is not: no transactions that read, no many trees, no compression. Ordered keys, atomic
//! batches and a sync are all that the servers need, so another engine can take the place.
//! Invariant: back ends move sealed values; the provided methods are the only way to payloads.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::batch::{Batch, check_key};
use crate::envelope::{self, Damage};
use crate::error::{Blame, Operation, StoreError};
use crate::limits::SCAN_ENTRIES_MAX;
use crate::transfer::Tap;

/// A key and its verified payload.
pub type Entry = (Vec<u8>, Vec<u8>);

/// The order of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key on.
    Ascending,
    /// From the largest key on.
    Descending,
}

/// An ordered scan over `from <= key < to` that visits at most `limit` entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan<'a> {
    /// The smallest key of the range, included.
    pub from: &'a [u8],
    /// The end of the range, excluded; `None` has no end.
    pub to: Option<&'a [u8]>,
    /// The order.
    pub direction: Direction,
    /// The most entries to visit; more than `SCAN_ENTRIES_MAX` counts as that.
    pub limit: usize,
}

impl<'a> Scan<'a> {
    /// An ascending scan of `from <= key < to`.
    #[must_use]
    pub const fn range(from: &'a [u8], to: &'a [u8], limit: usize) -> Self {
        Self { from, to: Some(to), direction: Direction::Ascending, limit }
    }

    /// An ascending scan from `from` to the end of the store.
    #[must_use]
    pub const fn from(from: &'a [u8], limit: usize) -> Self {
        Self { from, to: None, direction: Direction::Ascending, limit }
    }

    /// The same range from its other end.
    #[must_use]
    pub const fn descending(self) -> Self {
        Self { direction: Direction::Descending, ..self }
    }

    /// The number of entries to visit at most.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.min(SCAN_ENTRIES_MAX)
    }

    /// Whether the range cannot hold a key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.to.is_some_and(|to| self.from >= to)
    }
}

/// What a scan shows a key and a value to; it breaks to end the scan.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An ordered store of bounded keys and values, owned by one process.
///
/// All methods block. Handles may be shared between threads; a batch is seen whole by `get`, while
/// a scan that runs beside an apply may see a part of it. A visitor must not call its store.
pub trait Store: Send + Sync + 'static {
    /// The directory of the store, or a name for a store in memory.
    fn place(&self) -> &Arc<str>;

    /// Applies `batch` as a whole. Readers see it at once; it is durable after the next `sync`.
    ///
    /// # Errors
    /// After any error but `Blame::Caller` the store refuses everything (`Blame::Stopped`).
    fn apply(&self, batch: Batch) -> Result<(), StoreError>;

    /// Returns when everything applied before the call is durable.
    ///
    /// # Errors
    /// What was applied since the last sync may then be lost, and the store refuses everything.
    fn sync(&self) -> Result<(), StoreError>;

    /// Shows the sealed value of `key` to `visit`; returns whether there is one.
    ///
    /// # Errors
    /// When the back end cannot read.
    fn read_sealed(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool, StoreError>;

    /// Shows keys and sealed values of `scan` in order until the range or the limit ends or
    /// `visit` breaks.
    ///
    /// # Errors
    /// When the back end cannot read.
    fn scan_sealed(&self, scan: &Scan<'_>, visit: &mut Visitor<'_>) -> Result<(), StoreError>;

    /// The bytes that the store takes on disk (or in memory).
    ///
    /// # Errors
    /// When the back end cannot measure.
    fn size_bytes(&self) -> Result<u64, StoreError>;

    /// What keeps the batches that are applied while the store is copied; `None` where nobody
    /// copies a store at work.
    fn tap(&self) -> Option<&Tap> {
        None
    }

    /// The payload of `key`, verified.
    ///
    /// # Errors
    /// `Blame::Value` names the key of a damaged value.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        check_key(key).map_err(|misuse| {
            StoreError::new(Operation::Read, self.place(), Blame::Caller(misuse))
        })?;
        let mut value = Ok(None);
        self.read_sealed(key, &mut |sealed| {
            value = envelope::open(key, sealed).map(|payload| Some(payload.to_vec()));
        })?;
        value.map_err(|damage| damaged(self.place(), key, damage))
    }

    /// Shows keys and verified payloads of `scan` in order until `visit` breaks.
    ///
    /// # Errors
    /// `Blame::Value` names the key of a damaged value; what came before it was visited.
    fn visit(&self, scan: &Scan<'_>, visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        let mut verdict = Ok(());
        self.scan_sealed(scan, &mut |key, sealed| match envelope::open(key, sealed) {
            Ok(payload) => visit(key, payload),
            Err(damage) => {
                verdict = Err(damaged(self.place(), key, damage));
                ControlFlow::Break(())
            }
        })?;
        verdict
    }

    /// The entries of `scan`, verified and owned.
    ///
    /// # Errors
    /// As for [`Store::visit`].
    fn scan(&self, scan: &Scan<'_>) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        self.visit(scan, &mut |key, payload| {
            entries.push((key.to_vec(), payload.to_vec()));
            ControlFlow::Continue(())
        })?;
        Ok(entries)
    }
}

fn damaged(place: &Arc<str>, key: &[u8], damage: Damage) -> StoreError {
    StoreError::new(Operation::Read, place, Blame::Value { key: key.into(), damage })
}
