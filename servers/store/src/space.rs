//! Watching the room on the disk: what a server's stores take, and what is free beside them.
//!
//! Not here: what follows from it (`lapwing_server_core::pressure`). Invariants: what cannot be
//! measured counts as it was last measured, and is told to who asks for a measure; what was given
//! to a store and is in no measure yet counts with its bytes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lapwing_server_core::pressure::{Bounds, Pressure, Space};

use crate::error::{Operation, StoreError};

/// The gauge of one folder of stores. Clones share what was measured; reading it is free.
#[derive(Clone, Debug)]
pub struct SpaceGauge {
    folder: PathBuf,
    bounds: Bounds,
    measured: Arc<Measured>,
}

#[derive(Debug, Default)]
struct Measured {
    is_measured: AtomicBool,
    used: AtomicU64,
    free: AtomicU64,
    /// Bytes that were ever given to a store.
    given: AtomicU64,
    /// Of these, those that are durable, or will never be.
    settled: AtomicU64,
    /// Of these, those that the last measure has seen for certain.
    seen: AtomicU64,
}

impl SpaceGauge {
    /// A gauge of `folder`, which need not exist yet; it shows no pressure before it measured.
    #[must_use]
    pub fn new(folder: &Path, bounds: Bounds) -> Self {
        Self { folder: folder.to_path_buf(), bounds, measured: Arc::default() }
    }

    /// How full it was when it was last measured, with everything that was given to a store since.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        if !self.measured.is_measured.load(Ordering::Relaxed) {
            return Pressure::None;
        }
        let Space { used, free } = self.space();
        let given = self.measured.given.load(Ordering::Relaxed);
        let since = given.saturating_sub(self.measured.seen.load(Ordering::Relaxed));
        let (used, free) = (used.saturating_add(since), free.saturating_sub(since));
        self.bounds.pressure(Space { used, free })
    }

    /// So many bytes are given to a store here: they count from now on.
    pub fn give(&self, bytes: u64) {
        self.measured.given.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many of the bytes that were given are durable, or will never be: from here on a measure
    /// sees what they take.
    pub fn settle(&self, bytes: u64) {
        self.measured.settled.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What was measured last.
    #[must_use]
    pub fn space(&self) -> Space {
        Space {
            used: self.measured.used.load(Ordering::Relaxed),
            free: self.measured.free.load(Ordering::Relaxed),
        }
    }

    /// The bounds it measures against.
    #[must_use]
    pub const fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Measures. Blocks on the disk.
    ///
    /// # Errors
    /// The folder or its file system cannot be read; the last measure stays.
    pub fn measure(&self) -> Result<Pressure, StoreError> {
        // What becomes durable meanwhile may be seen or not: it counts once more until the next.
        let seen = self.measured.settled.load(Ordering::Relaxed);
        let space = measure(&self.folder).map_err(|error| {
            let place = self.folder.display().to_string().into();
            StoreError::disk(Operation::Measure, &place, &error)
        })?;
        self.measured.used.store(space.used, Ordering::Relaxed);
        self.measured.free.store(space.free, Ordering::Relaxed);
        self.measured.seen.store(seen, Ordering::Relaxed);
        self.measured.is_measured.store(true, Ordering::Relaxed);
        Ok(self.pressure())
    }
}

fn measure(folder: &Path) -> io::Result<Space> {
    let used = allocated(folder)?;
    let system = nix::sys::statvfs::statvfs(existing(folder)).map_err(io::Error::from)?;
    // Of the blocks that are left, those that need no privilege.
    let free = system.blocks_available().saturating_mul(system.fragment_size());
    Ok(Space { used, free })
}

/// The nearest folder that exists: its file system is where the stores will be.
fn existing(folder: &Path) -> &Path {
    folder.ancestors().find(|path| path.is_dir()).unwrap_or_else(|| Path::new("."))
}

/// The bytes that the files below `folder` take on the disk. What goes away meanwhile counts for
/// nothing: partitions are removed while this runs.
fn allocated(folder: &Path) -> io::Result<u64> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        bytes +=
            if metadata.is_dir() { allocated(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_stores_take_is_seen_in_folders_below_too() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("data");
        let bounds = Bounds { quota: Some(1 << 20), free_space_floor: 0 };
        let gauge = SpaceGauge::new(&folder, bounds);
        assert_eq!(gauge.measure().unwrap(), Pressure::None);
        assert_eq!(gauge.space().used, 0);
        assert!(gauge.space().free > 0);

        fs::create_dir_all(folder.join("journal/p-1")).unwrap();
        fs::write(folder.join("journal/p-1/db"), vec![1; 900_000]).unwrap();
        assert_eq!(gauge.clone().measure().unwrap(), Pressure::High);
        fs::write(folder.join("state"), vec![1; 300_000]).unwrap();
        gauge.measure().unwrap();
        assert_eq!(gauge.pressure(), Pressure::Full);
        assert!(gauge.space().used >= 1_200_000);
    }

    #[test]
    fn what_is_given_counts_at_once_and_a_measure_sees_what_is_settled() {
        let directory = tempfile::tempdir().unwrap();
        let bounds = Bounds { quota: Some(1 << 20), free_space_floor: 0 };
        let gauge = SpaceGauge::new(directory.path(), bounds);
        gauge.give(1 << 20);
        assert_eq!(gauge.pressure(), Pressure::None, "nothing is known before the first measure");
        assert_eq!(gauge.measure().unwrap(), Pressure::Full, "it is on its way");
        gauge.settle(1 << 20);
        assert_eq!(gauge.pressure(), Pressure::Full);
        assert_eq!(
            gauge.measure().unwrap(),
            Pressure::None,
            "it is in the measure: it was nothing"
        );
        gauge.give((1 << 20) / 100 * 90);
        assert_eq!(gauge.clone().pressure(), Pressure::High);
        gauge.give((1 << 20) / 100 * 6);
        assert_eq!(gauge.pressure(), Pressure::Full);

        let floor = Bounds { quota: None, free_space_floor: 1 };
        let gauge = SpaceGauge::new(directory.path(), floor);
        gauge.measure().unwrap();
        gauge.give(gauge.space().free);
        assert_eq!(gauge.pressure(), Pressure::Full, "what is free is given away as well");
    }

    #[test]
    fn a_floor_above_what_is_free_is_full() {
        let directory = tempfile::tempdir().unwrap();
        let bounds = Bounds { quota: None, free_space_floor: u64::MAX };
        let gauge = SpaceGauge::new(directory.path(), bounds);
        assert_eq!(gauge.measure().unwrap(), Pressure::Full);
    }
}
