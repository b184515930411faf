//! The default back end on disk: sled 0.34.7 behind the durability guard.
//!
//! sled is named in this file alone. Its flush is not durable on Linux by itself, so each sync is
//! sled's flush and then the guard's; its panics and its damaged files become typed errors here.
//! Invariants: one handle per directory (held by a file lock); after a failed apply or sync, or a
//! panic inside the engine, the handle refuses everything.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::batch::{Batch, Operation as BatchOperation};
use crate::envelope::FORMAT_VERSION;
use crate::error::{Blame, Operation, StoreError};
use crate::guard::{self, Guard};
use crate::limits::{CACHE_BYTES, FLUSH_EVERY_MS, OPEN_SECONDS_MAX};
use crate::store::{Direction, Scan, Store, Visitor};

/// The engine's data file inside the store's directory.
const DATA_FILE: &str = "db";
/// The engine's directory for values beyond its segment size; ours never are.
const SIDE_FILES: &str = "blobs";
/// Written when creation is complete: from then on the format record must be found.
const FORMAT_FILE: &str = "format";
/// A tree beside the data, so that the format record is in nobody's scan.
const FORMAT_TREE: &[u8] = b"format";
const FORMAT_KEY: &[u8] = b"version";
/// The engine releases its lock a moment after its handle is dropped, from another thread.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(5);

const RUNNING: u8 = 0;
const STOPPED: u8 = 1;
const BROKEN: u8 = 2;

/// How to open a [`DiskStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// The page cache in bytes.
    pub cache_bytes: u64,
    /// How long opening may take, in seconds.
    pub open_seconds_max: u64,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self { cache_bytes: CACHE_BYTES, open_seconds_max: OPEN_SECONDS_MAX }
    }
}

/// A store in a directory.
pub struct DiskStore {
    place: Arc<str>,
    /// Taken only by `drop`.
    db: Option<sled::Db>,
    guard: Guard,
    condition: AtomicU8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Create,
    Expect,
}

impl DiskStore {
    /// Opens the store in `path`, creating it if nothing is there.
    ///
    /// # Errors
    /// `Blame::Busy` where another process holds it, `Blame::Corrupt` where its files are damaged,
    /// `Blame::Disk` where the path cannot be created, opened or synced.
    pub fn open(path: &Path, options: &DiskOptions) -> Result<Self, StoreError> {
        Self::open_as(path, options, Presence::Create)
    }

    /// Opens the store in `path`, which must exist.
    ///
    /// # Errors
    /// As for [`DiskStore::open`], and `Blame::Missing`.
    pub fn open_existing(path: &Path, options: &DiskOptions) -> Result<Self, StoreError> {
        Self::open_as(path, options, Presence::Expect)
    }

    /// Removes the store in `path` with all its files, durably. It is closed; one that is not there
    /// is no error.
    ///
    /// # Errors
    /// `Blame::Disk` when something of it stays.
    pub fn remove(path: &Path) -> Result<(), StoreError> {
        let place: Arc<str> = path.display().to_string().into();
        let failed = |error: io::Error| StoreError::disk(Operation::Remove, &place, &error);
        // Without the format file the rest is no store any more, whatever a crash leaves of it.
        remove_if_there(&path.join(FORMAT_FILE)).map_err(failed)?;
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        guard::sync_directory(guard::parent_of(path)).map_err(failed)
    }

    /// The number of syncs that the durability guard made since opening.
    #[must_use]
    pub fn guard_syncs(&self) -> u64 {
        self.guard.syncs()
    }

    fn open_as(path: &Path, options: &DiskOptions, presence: Presence) -> Result<Self, StoreError> {
        let place: Arc<str> = path.display().to_string().into();
        let failed = |error: io::Error| StoreError::disk(Operation::Open, &place, &error);
        let complete = path.join(FORMAT_FILE).is_file();
        if complete && !path.join(DATA_FILE).is_file() {
            return Err(StoreError::corrupt(Operation::Open, &place, "its data file is gone"));
        }
        if presence == Presence::Expect && !complete {
            return Err(StoreError::new(Operation::Open, &place, Blame::Missing));
        }
        guard::create_directory(path).map_err(failed)?;
        let db = open_engine(path, &place, options)?;
        let guard = Guard::open(&path.join(DATA_FILE), &path.join(SIDE_FILES)).map_err(failed)?;
        guard::sync_tree(path).map_err(failed)?;
        let store = Self { place, db: Some(db), guard, condition: AtomicU8::new(RUNNING) };
        store.check_format(path, complete)?;
        Ok(store)
    }

    fn check_format(&self, path: &Path, complete: bool) -> Result<(), StoreError> {
        let found = self.engine(Operation::Open, |db| {
            let tree = db.open_tree(FORMAT_TREE)?;
            if !complete {
                tree.insert(FORMAT_KEY, &[FORMAT_VERSION])?;
            }
            Ok(tree.get(FORMAT_KEY)?.map(|value| value.to_vec()))
        })?;
        match found.as_deref() {
            Some([FORMAT_VERSION]) if complete => Ok(()),
            Some([FORMAT_VERSION]) => {
                self.sync()?;
                guard::write_file(&path.join(FORMAT_FILE), format!("{FORMAT_VERSION}\n").as_bytes())
                    .map_err(|error| StoreError::disk(Operation::Create, &self.place, &error))
            }
            Some([version]) => {
                Err(StoreError::new(Operation::Open, &self.place, Blame::Version(*version)))
            }
            _ => Err(StoreError::corrupt(
                Operation::Open,
                &self.place,
                "its format record is gone, and what came after it",
            )),
        }
    }

    /// Runs `work` on the engine; an error or a panic becomes a typed error and, unless it was
    /// only a failed read, the end of this handle.
    fn engine<T>(
        &self,
        operation: Operation,
        work: impl FnOnce(&sled::Db) -> sled::Result<T>,
    ) -> Result<T, StoreError> {
        let (Some(db), RUNNING) = (&self.db, self.condition.load(Ordering::Acquire)) else {
            return Err(StoreError::new(operation, &self.place, Blame::Stopped));
        };
        match catch_unwind(AssertUnwindSafe(|| work(db))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if matches!(operation, Operation::Apply | Operation::Sync) {
                    self.condition.fetch_max(STOPPED, Ordering::AcqRel);
                }
                Err(translate(operation, &self.place, error))
            }
            Err(panic) => {
                self.condition.fetch_max(BROKEN, Ordering::AcqRel);
                Err(broken(operation, &self.place, &*panic))
            }
        }
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
        match open_in_time(path, &config, place, options.open_seconds_max) {
            Err(StoreError { blame: Blame::Busy, .. }) if Instant::now() < lock_until => {
                thread::sleep(LOCK_RETRY);
            }
            other => return other,
        }
    }
}

/// Opens on a thread of its own: a damaged store may panic in the engine or never return.
fn open_in_time(
    path: &Path,
    config: &sled::Config,
    place: &Arc<str>,
    seconds_max: u64,
) -> Result<sled::Db, StoreError> {
    let (sender, receiver) = sync_channel(1);
    let config = config.clone();
    let name = format!("open {}", name_of(path));
    thread::Builder::new()
        .name(name)
        .spawn(move || {
            let opened = catch_unwind(AssertUnwindSafe(|| config.open()));
            // Nobody listens any more after the deadline; the handle is then dropped here.
            let _ = sender.send(opened);
        })
        .map_err(|error| StoreError::disk(Operation::Open, place, &error))?;
    match receiver.recv_timeout(Duration::from_secs(seconds_max)) {
        Ok(Ok(Ok(db))) => Ok(db),
        Ok(Ok(Err(error))) => Err(translate(Operation::Open, place, error)),
        Ok(Err(panic)) => Err(corrupt_panic(place, &*panic)),
        Err(RecvTimeoutError::Timeout) => {
            Err(StoreError::new(Operation::Open, place, Blame::Slow(seconds_max)))
        }
        Err(RecvTimeoutError::Disconnected) => {
            Err(StoreError::corrupt(Operation::Open, place, "the engine gave up opening it"))
        }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
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

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

fn broken(
    operation: Operation,
    place: &Arc<str>,
    panic: &(dyn std::any::Any + Send),
) -> StoreError {
    StoreError::new(operation, place, Blame::BackEnd(panic_text(panic).into()))
}

fn corrupt_panic(place: &Arc<str>, panic: &(dyn std::any::Any + Send)) -> StoreError {
    let what = format!("the engine cannot read it: {}", panic_text(panic));
    StoreError::corrupt(Operation::Open, place, what)
}

impl Store for DiskStore {
    fn place(&self) -> &Arc<str> {
        &self.place
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
            self.condition.fetch_max(STOPPED, Ordering::AcqRel);
            StoreError::disk(Operation::Sync, &self.place, &error)
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

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        let db = self.db.take();
        if self.condition.load(Ordering::Acquire) == BROKEN {
            // After a panic the engine's own drop may wait for a thread that is gone.
            std::mem::forget(db);
        } else if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            log::error!("the store at {} failed while it was closed", self.place);
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
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

    #[test]
    fn every_sync_is_a_sync_of_the_guard() {
        let directory = tempfile::tempdir().unwrap();
        let store = DiskStore::open(directory.path(), &DiskOptions::default()).unwrap();
        let before = store.guard_syncs();
        for n in 1..=3 {
            store.apply(batch(b"key", &[n])).unwrap();
            store.sync().unwrap();
            assert_eq!(store.guard_syncs(), before + u64::from(n));
        }
    }

    #[test]
    fn a_guard_that_fails_stops_the_store() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = DiskStore::open(directory.path(), &DiskOptions::default()).unwrap();
        let nowhere = directory.path().join("nowhere");
        store.guard = Guard::open(&directory.path().join(DATA_FILE), &nowhere).unwrap();
        store.apply(batch(b"key", b"value")).unwrap();
        let error = store.sync().unwrap_err();
        assert!(matches!(error.blame, Blame::Disk { .. }), "{error}");
        assert_eq!(store.sync().unwrap_err().blame, Blame::Stopped);
        assert_eq!(store.apply(batch(b"key", b"other")).unwrap_err().blame, Blame::Stopped);
    }

    #[test]
    fn a_second_handle_is_refused_as_busy() {
        let directory = tempfile::tempdir().unwrap();
        let _first = DiskStore::open(directory.path(), &DiskOptions::default()).unwrap();
        let error = DiskStore::open(directory.path(), &DiskOptions::default()).unwrap_err();
        assert_eq!(error.blame, Blame::Busy);
        assert!(error.to_string().contains("one process owns one store"));
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"").unwrap();
        let error = DiskStore::open(&path, &DiskOptions::default()).unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        let error = DiskStore::open_existing(directory.path(), &DiskOptions::default());
        assert_eq!(error.unwrap_err().blame, Blame::Missing);
    }

    #[test]
    fn spoiled_files_are_typed_errors_and_never_a_new_empty_store() {
        for (file, spoil) in [
            (DATA_FILE, b"\xff".repeat(300_000)),
            (DATA_FILE, Vec::new()),
            (DATA_FILE, b"\0".repeat(70_000)),
            ("conf", b"nonsense: yes\n".to_vec()),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let store = DiskStore::open(directory.path(), &DiskOptions::default()).unwrap();
            for n in 0..500_u32 {
                store.apply(batch(&n.to_be_bytes(), &[7; 900])).unwrap();
            }
            store.sync().unwrap();
            drop(store);
            std::fs::write(directory.path().join(file), spoil).unwrap();
            let options = DiskOptions { open_seconds_max: 10, ..DiskOptions::default() };
            let error = DiskStore::open(directory.path(), &options).unwrap_err();
            assert!(
                matches!(error.blame, Blame::Corrupt(_) | Blame::BackEnd(_) | Blame::Slow(_)),
                "{file}: {error}"
            );
        }
    }

    #[test]
    fn a_flipped_bit_is_never_a_wrong_value_and_never_a_panic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = DiskStore::open(&path, &DiskOptions::default()).unwrap();
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
            for file in ["conf", FORMAT_FILE] {
                std::fs::copy(directory.path().join("store").join(file), path.join(file)).unwrap();
            }
            std::fs::write(path.join(DATA_FILE), spoiled).unwrap();
            let options = DiskOptions { open_seconds_max: 10, ..DiskOptions::default() };
            let Ok(store) = DiskStore::open_existing(&path, &options) else { continue };
            for n in 0..300_u32 {
                if let Ok(Some(value)) = store.get(&n.to_be_bytes()) {
                    assert_eq!(value, [n.to_le_bytes()[0]; 2000]);
                }
            }
        }
    }

    #[test]
    fn a_removed_store_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p");
        drop(DiskStore::open(&path, &DiskOptions::default()).unwrap());
        DiskStore::remove(&path).unwrap();
        DiskStore::remove(&path).unwrap();
        assert!(!path.exists());
    }
}
