//! Where the partitions of a journal live: directories of disk stores, or disks in memory.
//!
//! A partition is named by its first commit id. Invariant: a partition that `create` returned is
//! empty, whatever an earlier attempt had left there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{DiskOptions, DiskStore};
use crate::error::{Blame, Operation, StoreError};
use crate::memory::MemoryDisk;
use crate::store::Store;

/// A factory of partition stores.
pub trait Partitions: Send + Sync + 'static {
    /// The directory that holds the partitions, or a name.
    fn place(&self) -> &Arc<str>;

    /// The first commit ids of the partitions that exist, complete or not, in any order.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    fn list(&self) -> Result<Vec<u64>, StoreError>;

    /// Makes an empty partition.
    ///
    /// # Errors
    /// When it cannot be made durably.
    fn create(&self, first: u64) -> Result<Box<dyn Store>, StoreError>;

    /// Opens a partition.
    ///
    /// # Errors
    /// `Blame::Missing` where its creation was not finished, otherwise as its back end says.
    fn open(&self, first: u64) -> Result<Box<dyn Store>, StoreError>;

    /// Removes a partition with everything in it; one that is not there is no error. It is closed.
    ///
    /// # Errors
    /// When something of it stays.
    fn remove(&self, first: u64) -> Result<(), StoreError>;
}

/// Partitions as directories `p-<first commit id in 16 hex digits>` of one directory.
#[derive(Debug)]
pub struct DirectoryPartitions {
    root: PathBuf,
    place: Arc<str>,
    options: DiskOptions,
}

impl DirectoryPartitions {
    /// Partitions below `root`, which need not exist yet.
    #[must_use]
    pub fn new(root: &Path, options: DiskOptions) -> Self {
        Self { root: root.to_path_buf(), place: root.display().to_string().into(), options }
    }

    fn path(&self, first: u64) -> PathBuf {
        self.root.join(format!("p-{first:016x}"))
    }
}

impl Partitions for DirectoryPartitions {
    fn place(&self) -> &Arc<str> {
        &self.place
    }

    fn list(&self) -> Result<Vec<u64>, StoreError> {
        let failed = |error| StoreError::disk(Operation::Open, &self.place, &error);
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut firsts = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let first = name.to_str().and_then(|name| name.strip_prefix("p-"));
            let first = first.filter(|digits| digits.len() == 16);
            firsts.extend(first.and_then(|digits| u64::from_str_radix(digits, 16).ok()));
        }
        Ok(firsts)
    }

    fn create(&self, first: u64) -> Result<Box<dyn Store>, StoreError> {
        let path = self.path(first);
        if path.exists() {
            DiskStore::remove(&path)?;
        }
        Ok(Box::new(DiskStore::open(&path, &self.options)?))
    }

    fn open(&self, first: u64) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(DiskStore::open_existing(&self.path(first), &self.options)?))
    }

    fn remove(&self, first: u64) -> Result<(), StoreError> {
        DiskStore::remove(&self.path(first))
    }
}

/// Partitions in memory, which survive the journal that uses them; for tests and the simulator.
#[derive(Debug)]
pub struct MemoryPartitions {
    disks: Mutex<BTreeMap<u64, MemoryDisk>>,
    place: Arc<str>,
}

impl MemoryPartitions {
    /// No partitions yet.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { disks: Mutex::default(), place: name.into() }
    }

    /// The disk of the partition that begins with `first`.
    #[must_use]
    pub fn disk(&self, first: u64) -> Option<MemoryDisk> {
        self.lock().get(&first).cloned()
    }

    /// The disk of the newest partition.
    #[must_use]
    pub fn newest_disk(&self) -> Option<MemoryDisk> {
        self.lock().values().next_back().cloned()
    }

    /// Cuts the power of all disks; see [`MemoryDisk::cut_power`].
    pub fn cut_power(&self, unsynced_kept: usize) {
        for disk in self.lock().values() {
            disk.cut_power(unsynced_kept);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, MemoryDisk>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Partitions for MemoryPartitions {
    fn place(&self) -> &Arc<str> {
        &self.place
    }

    fn list(&self) -> Result<Vec<u64>, StoreError> {
        Ok(self.lock().keys().copied().collect())
    }

    fn create(&self, first: u64) -> Result<Box<dyn Store>, StoreError> {
        let disk = MemoryDisk::new(&format!("{} p-{first:016x}", self.place));
        self.lock().insert(first, disk.clone());
        Ok(Box::new(disk.open()?))
    }

    fn open(&self, first: u64) -> Result<Box<dyn Store>, StoreError> {
        let disk = self.disk(first);
        let missing = || StoreError::new(Operation::Open, &self.place, Blame::Missing);
        Ok(Box::new(disk.ok_or_else(missing)?.open()?))
    }

    fn remove(&self, first: u64) -> Result<(), StoreError> {
        self.lock().remove(&first);
        Ok(())
    }
}
