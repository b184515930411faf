//! The reference back end: an ordered map in memory, with a disk that can fail on order.
//!
//! What it is for: tests, the simulator, and a judge for the other back ends. The disk outlives
//! its handles, so that a store can be closed, opened again and lose its power.
//! Invariant: what a power cut keeps is a prefix of the applied batches, every synced one in it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::batch::{Batch, Operation as BatchOperation};
use crate::error::{Blame, Operation, StoreError};
use crate::store::{Direction, Scan, Store, Visitor};

type Before = (Vec<u8>, Option<Vec<u8>>);

/// A disk in memory: what is on it survives the handles, what was not synced may be cut off.
#[derive(Clone)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
    place: Arc<str>,
}

#[derive(Default)]
struct State {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// For each batch since the last sync: what its keys held before.
    unsynced: Vec<Vec<Before>>,
    /// Handles of an earlier power cycle are dead.
    power_cycle: u64,
    open: bool,
    fail_next_sync: bool,
    fail_next_apply: bool,
    syncs: u64,
}

/// A handle on a [`MemoryDisk`]; there is at most one at a time.
pub struct MemoryStore {
    disk: MemoryDisk,
    power_cycle: u64,
    stopped: Mutex<bool>,
}

impl MemoryDisk {
    /// An empty disk; `name` stands in errors where a path would.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { state: Arc::default(), place: name.into() }
    }

    /// Opens the store on this disk.
    ///
    /// # Errors
    /// `Blame::Busy` while another handle is alive.
    pub fn open(&self) -> Result<MemoryStore, StoreError> {
        let mut state = self.lock();
        if state.open {
            return Err(StoreError::new(Operation::Open, &self.place, Blame::Busy));
        }
        state.open = true;
        let power_cycle = state.power_cycle;
        Ok(MemoryStore { disk: self.clone(), power_cycle, stopped: Mutex::new(false) })
    }

    /// Cuts the power: of the batches since the last sync the first `unsynced_kept` survive (a
    /// real disk may have written some), the others are undone. Open handles are dead.
    pub fn cut_power(&self, unsynced_kept: usize) {
        let mut state = self.lock();
        while state.unsynced.len() > unsynced_kept {
            for (key, before) in state.unsynced.pop().into_iter().flatten().rev() {
                match before {
                    Some(sealed) => state.values.insert(key, sealed),
                    None => state.values.remove(&key),
                };
            }
        }
        state.unsynced.clear();
        state.power_cycle += 1;
        state.open = false;
    }

    /// Lets the next sync fail; what it should have made durable stays unsynced.
    pub fn fail_next_sync(&self) {
        self.lock().fail_next_sync = true;
    }

    /// Lets the next apply fail without applying anything.
    pub fn fail_next_apply(&self) {
        self.lock().fail_next_apply = true;
    }

    /// The number of syncs that succeeded on this disk.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDisk").field("place", &self.place).finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("place", &self.disk.place).finish_non_exhaustive()
    }
}

impl MemoryStore {
    fn state(&self, operation: Operation) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.disk.lock();
        if state.power_cycle == self.power_cycle && !*self.stopped() {
            Ok(state)
        } else {
            Err(StoreError::new(operation, &self.disk.place, Blame::Stopped))
        }
    }

    fn stopped(&self) -> MutexGuard<'_, bool> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, operation: Operation) -> StoreError {
        *self.stopped() = true;
        StoreError::new(operation, &self.disk.place, Blame::Simulated)
    }
}

impl Store for MemoryStore {
    fn place(&self) -> &Arc<str> {
        &self.disk.place
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut state = self.state(Operation::Apply)?;
        if std::mem::take(&mut state.fail_next_apply) {
            return Err(self.fail(Operation::Apply));
        }
        let mut undo = Vec::with_capacity(batch.len());
        for operation in batch.into_operations() {
            undo.push(match operation {
                BatchOperation::Put { key, sealed } => {
                    let before = state.values.insert(key.clone(), sealed);
                    (key, before)
                }
                BatchOperation::Delete { key } => {
                    let before = state.values.remove(&key);
                    (key, before)
                }
            });
        }
        state.unsynced.push(undo);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut state = self.state(Operation::Sync)?;
        if std::mem::take(&mut state.fail_next_sync) {
            return Err(self.fail(Operation::Sync));
        }
        state.unsynced.clear();
        state.syncs += 1;
        Ok(())
    }

    fn read_sealed(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool, StoreError> {
        let state = self.state(Operation::Read)?;
        let sealed = state.values.get(key);
        if let Some(sealed) = sealed {
            visit(sealed);
        }
        Ok(sealed.is_some())
    }

    fn scan_sealed(&self, scan: &Scan<'_>, visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        if scan.is_empty() {
            return Ok(());
        }
        let state = self.state(Operation::Read)?;
        let to = scan.to.map_or(Bound::Unbounded, Bound::Excluded);
        let mut range = state.values.range::<[u8], _>((Bound::Included(scan.from), to));
        for _ in 0..scan.limit() {
            let next = match scan.direction {
                Direction::Ascending => range.next(),
                Direction::Descending => range.next_back(),
            };
            let Some((key, sealed)) = next else { break };
            if visit(key, sealed).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn size_bytes(&self) -> Result<u64, StoreError> {
        let state = self.state(Operation::Measure)?;
        Ok(state.values.iter().map(|(key, sealed)| (key.len() + sealed.len()) as u64).sum())
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if state.power_cycle == self.power_cycle {
            state.open = false;
        }
    }
}
