//! What the journal's writer thread and its readers share: the open partitions and their table.
//!
//! Invariants: at most two partitions are open, the newest and one older; a partition is closed
//! before it is opened again or removed, because every use of one happens under its lock.
//! Lock order: `older`, then `newest`, then `table`.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use event_listener::Event;

use super::partitions::Partitions;
use super::record::PartitionRecord;
use crate::error::StoreError;
use crate::store::Store;

/// An open partition.
pub(crate) struct Partition {
    pub(crate) first: u64,
    pub(crate) store: Box<dyn Store>,
}

pub(crate) struct Shared {
    pub(crate) place: Arc<str>,
    pub(crate) partitions: Arc<dyn Partitions>,
    pub(crate) newest: RwLock<Partition>,
    pub(crate) older: Mutex<Option<Partition>>,
    pub(crate) table: Mutex<BTreeMap<u64, PartitionRecord>>,
    /// The last commit id that is durable; 0 if none.
    pub(crate) durable: AtomicU64,
    pub(crate) changed: Event,
    pub(crate) incarnation: [u8; 16],
    pub(crate) boots: u64,
}

/// A partition and the commit ids it may hold: `first <= id < end`, without end for the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) end: Option<u64>,
}

/// Where a commit id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    In(Span),
    /// Dropped by retention; the next id that is kept.
    Dropped {
        next: u64,
    },
}

impl Shared {
    pub(crate) fn table(&self) -> MutexGuard<'_, BTreeMap<u64, PartitionRecord>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn older(&self) -> MutexGuard<'_, Option<Partition>> {
        self.older.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partitions from the oldest to the newest.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.table().iter().map(|(first, record)| span(*first, record)).collect()
    }

    pub(crate) fn locate(&self, commit_id: u64) -> Location {
        let table = self.table();
        let at = table.range(..=commit_id).next_back().map(|(first, record)| span(*first, record));
        match at {
            Some(at) if at.end.is_none_or(|end| commit_id < end) => Location::In(at),
            _ => {
                let next = table.range(commit_id..).next().map_or(commit_id, |(first, _)| *first);
                Location::Dropped { next }
            }
        }
    }

    /// Runs `work` on the partition `first`, opening it if need be; `None` if it was dropped.
    pub(crate) fn with_partition<T>(
        &self,
        first: u64,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        {
            let newest = self.newest.read().unwrap_or_else(PoisonError::into_inner);
            if newest.first == first {
                return work(&*newest.store).map(Some);
            }
        }
        let mut older = self.older();
        if !self.table().contains_key(&first) {
            return Ok(None);
        }
        if older.as_ref().is_none_or(|open| open.first != first) {
            // Closed before the next one opens, so that never more than two are open.
            *older = None;
            *older = Some(Partition { first, store: self.partitions.open(first)? });
        }
        older.as_ref().map(|open| work(&*open.store)).transpose()
    }

    /// Runs `work` on the newest partition.
    pub(crate) fn with_newest<T>(&self, work: impl FnOnce(&dyn Store) -> T) -> T {
        let newest = self.newest.read().unwrap_or_else(PoisonError::into_inner);
        work(&*newest.store)
    }
}

fn span(first: u64, record: &PartitionRecord) -> Span {
    Span { first, end: (record.end != 0).then_some(record.end) }
}
