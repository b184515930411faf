//! The disk below a spool: each operation that can fail by itself, and the real one of them.
//!
//! Whatever else a spool does is arithmetic; so a test that puts another disk below it can refuse
//! an operation, tear it, or forget what was not synced. Not here: what is in the files.
//! Invariants: a path is only ever below the spool's folder; nothing is believed to outlive a
//! power cut unless a sync of it succeeded.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::durable_file;
pub use crate::durable_file::Durability;
use crate::sys;

/// The operations of a disk that a spool needs.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Which boot of the machine this is: what was not synced in an earlier one may be gone.
    ///
    /// # Errors
    /// It cannot be known.
    fn boot(&self) -> io::Result<[u8; 16]>;

    /// Makes a folder and those above it, for the owner alone; one that is there stays.
    ///
    /// # Errors
    /// Those of the file system.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;

    /// What is in a folder, in no order.
    ///
    /// # Errors
    /// Those of the file system.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;

    /// Makes a new, empty file that is appended to, for the owner alone.
    ///
    /// # Errors
    /// Those of the file system; a file of this name exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// A file from its beginning on.
    ///
    /// # Errors
    /// Those of the file system.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>>;

    /// Bytes of a file.
    ///
    /// # Errors
    /// Those of the file system.
    fn length(&self, path: &Path) -> io::Result<u64>;

    /// Gives a small file this content: afterwards it has the old or the new one, whole; after a
    /// power cut too, where `durability` says so.
    ///
    /// # Errors
    /// Those of the file system; the old content is there.
    fn replace(&self, path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()>;

    /// The content of a small file of at most `bytes_max`; `None` when there is none.
    ///
    /// # Errors
    /// Those of the file system, and `InvalidData` for a longer file.
    fn load(&self, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>>;

    /// Gives a file another name; one of that name is replaced.
    ///
    /// # Errors
    /// Those of the file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; one that is not there is removed already.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder and all in it.
    ///
    /// # Errors
    /// Those of the file system; a part may be gone.
    fn remove_folder(&self, folder: &Path) -> io::Result<()>;

    /// Makes the names in a folder outlive a power cut.
    ///
    /// # Errors
    /// Those of the file system. What it was asked for may never reach the disk then, whatever a
    /// later call says.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// A file that is appended to.
pub trait DiskFile: fmt::Debug + Send {
    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// Those of the file system; a part may stand in the file.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file back to `length` bytes; what is appended next stands there.
    ///
    /// # Errors
    /// Those of the file system.
    fn cut(&mut self, length: u64) -> io::Result<()>;

    /// Makes all that was appended outlive a power cut.
    ///
    /// # Errors
    /// Those of the file system. What was appended since the last success may never reach the disk
    /// then, whatever a later call says.
    fn sync(&mut self) -> io::Result<()>;
}

/// No disk: for a sensor that keeps its chunks in memory, and asks for nothing to be kept here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NoDisk;

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile(File);

impl Disk for RealDisk {
    fn boot(&self) -> io::Result<[u8; 16]> {
        sys::clock::boot_id()
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        durable_file::make_folder(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        // Appending, so that bytes cut off and written anew stand behind what is left.
        let file = options.append(true).create_new(true).mode(0o600).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(path)?))
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn replace(&self, path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
        durable_file::write(path, bytes, durable_file::Access::Owner, durability)
    }

    fn load(&self, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        durable_file::read(path, bytes_max)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        durable_file::remove(path)
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        durable_file::sync_folder(folder)
    }
}

impl DiskFile for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

impl Disk for NoDisk {
    fn boot(&self) -> io::Result<[u8; 16]> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn make_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn create(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open(&self, _: &Path) -> io::Result<Box<dyn Read + Send>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn length(&self, _: &Path) -> io::Result<u64> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn replace(&self, _: &Path, _: &[u8], _: Durability) -> io::Result<()> {
        Ok(())
    }

    fn load(&self, _: &Path, _: u64) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}
