//! The engine sled 0.34.7 behind the durability guard: the default.
//!
//! sled is named in this file alone. Its flush is not durable on Linux by itself, so each sync is
//! sled's flush and then the guard's; its panics and its damaged files become typed errors here.
//! Invariants: one handle per directory (held by a file lock); after a failed apply or sync, or a
//! panic inside the engine, the handle refuses everything.

use std::fmt;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::batch::{Batch, Operation as BatchOperation};
use crate::condition::Condition;
use crate::disk::DiskOptions;
use crate::envelope::FORMAT_VERSION;
use crate::error::{Blame, Operation, StoreError};
use crate::guard::Guard;
use crate::limits::FLUSH_EVERY_MS;
use crate::store::{Direction, Scan, Store, Visitor};

/// The engine's data file inside the store's directory.
pub(crate) const DATA_FILE: &str = "db";
/// The engine's directory for values beyond its segment size; ours never are.
const SIDE_FILES: &str = "blobs";
/// A tree beside the data, so that the format record is in nobody's scan.
const FORMAT_TREE: &[u8] = b"format";
const FORMAT_KEY: &[u8] = b"version";
/// The engine releases its lock a moment after its handle is dropped, from another thread.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// A store in a directory of sled's.
pub(crate) struct SledStore {
    condition: Condition,
    /// Taken only by `drop`.
    db: Option<sled::Db>,
    guard: Guard,
}

impl SledStore {
    /// Opens the engine in the directory `path`, which exists. Where the store is not `complete`,
    /// its creation is finished.
    pub(crate) fn open(
        path: &Path,
        place: &Arc<str>,
        options: &DiskOptions,
        complete: bool,
    ) -> Result<Self, StoreError> {
        let db = open_engine(path, place, options)?;
        let guard = Guard::open(&path.join(DATA_FILE), &path.join(SIDE_FILES))
            .map_err(|error| StoreError::disk(Operation::Open, place, &error))?;
        let store = Self { condition: Condition::of(place), db: Some(db), guard };
        store.check_format(complete)?;
        Ok(store)
    }

    fn check_format(&self, complete: bool) -> Result<(), StoreError> {
        let found = self.engine(Operation::Open, |db| {
            let tree = db.open_tree(FORMAT_TREE)?;
            if !complete {
                tree.insert(FORMAT_KEY, &[FORMAT_VERSION])?;
            }
            Ok(tree.get(FORMAT_KEY)?.map(|value| value.to_vec()))
        })?;
        let place = self.place();
        match found.as_deref() {
            Some([FORMAT_VERSION]) => Ok(()),
            Some([version]) => {
                Err(StoreError::new(Operation::Open, place, Blame::Version(*version)))
            }
            _ => Err(StoreError::corrupt(
                Operation::Open,
                place,
                "its format record is gone, and what came after it",
            )),
        }
    }

    fn engine<T>(
        &self,
        operation: Operation,
        work: impl FnOnce(&sled::Db) -> sled::Result<T>,
    ) -> Result<T, StoreError> {
        self.condition.run(operation, translate, || match &self.db {
            Some(db) => work(db),
            None => Err(sled::Error::Unsupported("it is closed".into())),
        })
    }
}

fn open_engine(
    path: &Path,
    place: &Arc<str>,
    options: &DiskOptions,
) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(options.cache_bytes)
        .flush_every_ms(Some(FLUSH_EVERY_MS))
        .mode(sled::Mode::HighThroughput);
    let lock_until = Instant::now() + LOCK_WAIT;
    loop {
        match config.open().map_err(|error| translate(Operation::Open, place, error)) {
            Err(StoreError { blame: Blame::Busy, .. }) if Instant::now() < lock_until => {
                thread::sleep(LOCK_RETRY);
            }
            other => return other,
        }
    }
}

fn translate(operation: Operation, place: &Arc<str>, error: sled::Error) -> StoreError {
    let blame = match error {
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            Blame::Busy
        }
        sled::Error::Io(error) => return StoreError::disk(operation, place, &error),
        sled::Error::Corruption { .. } => Blame::Corrupt(error.to_string().into()),
        other => Blame::BackEnd(other.to_string().into()),
    };
    StoreError::new(operation, place, blame)
}

impl Store for SledStore {
    fn place(&self) -> &Arc<str> {
        &self.condition.place
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut writes = sled::Batch::default();
        for operation in batch.into_operations() {
            match operation {
                BatchOperation::Put { key, sealed } => writes.insert(key, sealed),
                BatchOperation::Delete { key } => writes.remove(key),
            }
        }
        self.engine(Operation::Apply, |db| db.apply_batch(writes))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.engine(Operation::Sync, |db| db.flush())?;
        self.guard.sync().map_err(|error| {
            self.condition.stop();
            StoreError::disk(Operation::Sync, self.place(), &error)
        })
    }

    fn read_sealed(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool, StoreError> {
        let value = self.engine(Operation::Read, |db| db.get(key))?;
        if let Some(value) = &value {
            visit(value);
        }
        Ok(value.is_some())
    }

    fn scan_sealed(&self, scan: &Scan<'_>, visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        if scan.is_empty() {
            return Ok(());
        }
        let to = scan.to.map_or(Bound::Unbounded, Bound::Excluded);
        let mut range = self.engine(Operation::Read, |db| {
            Ok(db.range::<&[u8], _>((Bound::Included(scan.from), to)))
        })?;
        for _ in 0..scan.limit() {
            let next = self.engine(Operation::Read, |_| {
                match scan.direction {
                    Direction::Ascending => range.next(),
                    Direction::Descending => range.next_back(),
                }
                .transpose()
            })?;
            let Some((key, sealed)) = next else { break };
            if visit(&key, &sealed).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn size_bytes(&self) -> Result<u64, StoreError> {
        self.engine(Operation::Measure, |db| db.size_on_disk())
    }
}

impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledStore").field("place", self.place()).finish_non_exhaustive()
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.condition.close(self.db.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(key: &[u8], value: &[u8]) -> Batch {
        let mut batch = Batch::new();
        batch.put(key, value).unwrap();
        batch
    }

    fn open(directory: &tempfile::TempDir) -> SledStore {
        let path = directory.path();
        let place = path.display().to_string().into();
        SledStore::open(path, &place, &DiskOptions::default(), false).unwrap()
    }

    #[test]
    fn every_sync_is_a_sync_of_the_guard() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let before = store.guard.syncs();
        for n in 1..=3 {
            store.apply(batch(b"key", &[n])).unwrap();
            store.sync().unwrap();
            assert_eq!(store.guard.syncs(), before + u64::from(n));
        }
    }

    #[test]
    fn a_guard_that_fails_stops_the_store() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(&directory);
        let nowhere = directory.path().join("nowhere");
        store.guard = Guard::open(&directory.path().join(DATA_FILE), &nowhere).unwrap();
        store.apply(batch(b"key", b"value")).unwrap();
        let error = store.sync().unwrap_err();
        assert!(matches!(error.blame, Blame::Disk { .. }), "{error}");
        assert_eq!(store.sync().unwrap_err().blame, Blame::Stopped);
        assert_eq!(store.apply(batch(b"key", b"other")).unwrap_err().blame, Blame::Stopped);
    }

    #[test]
    fn a_flipped_bit_is_never_a_wrong_value_and_never_a_panic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = crate::DiskStore::open(&path, &DiskOptions::default()).unwrap();
        for n in 0..300_u32 {
            store.apply(batch(&n.to_be_bytes(), &[n.to_le_bytes()[0]; 2000])).unwrap();
        }
        store.sync().unwrap();
        drop(store);
        let whole = std::fs::read(path.join(DATA_FILE)).unwrap();
        for round in 0..12 {
            let mut spoiled = whole.clone();
            let at = (round * 50_021 + 100) % spoiled.len();
            spoiled[at] ^= 0x10;
            // A fresh place each round: an engine that gave up may still hold the last one's lock.
            let path = directory.path().join(format!("round {round}"));
            std::fs::create_dir_all(path.join(SIDE_FILES)).unwrap();
            for file in ["conf", "format"] {
                std::fs::copy(directory.path().join("store").join(file), path.join(file)).unwrap();
            }
            std::fs::write(path.join(DATA_FILE), spoiled).unwrap();
            let options = DiskOptions { open_seconds_max: 10, ..DiskOptions::default() };
            let Ok(store) = crate::DiskStore::open_existing(&path, &options) else { continue };
            for n in 0..300_u32 {
                if let Ok(Some(value)) = store.get(&n.to_be_bytes()) {
                    assert_eq!(value, [n.to_le_bytes()[0]; 2000]);
                }
            }
        }
    }
}
