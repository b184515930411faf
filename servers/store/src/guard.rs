//! The durability guard: what a back end's own flush does not do on this operating system.
//!
//! The default back end flushes with a call that starts write-back of file pages and waits for
//! it, but neither writes file metadata nor empties the disk's cache; a power cut then loses what
//! was acknowledged. The guard holds a handle of its own on the same file and syncs it after
//! every flush, and syncs each directory that a store's files were created in.
//! Invariant: `sync` returned means that the file's bytes and length are durable.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A handle on the data file of an open store.
#[derive(Debug)]
pub(crate) struct Guard {
    file: File,
    side_files: PathBuf,
    syncs: AtomicU64,
}

impl Guard {
    /// Opens the guard's own handle on `data_file`. `side_files` is the directory where the back
    /// end would put values that do not fit its file (within our bounds: none).
    pub(crate) fn open(data_file: &Path, side_files: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(data_file)?;
        Ok(Self { file, side_files: side_files.to_path_buf(), syncs: AtomicU64::new(0) })
    }

    /// Makes durable what the back end has flushed.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if sync_files_in(&self.side_files)? > 0 {
            sync_directory(&self.side_files)?;
        }
        self.file.sync_data()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The number of syncs that succeeded.
    #[cfg(test)]
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }
}

/// Creates `path` and what is missing above it, each one durable in its parent.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = parent_of(path);
    create_directory(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_directory(parent)
}

/// Syncs every file in `path`, the directory itself and its parent: after creation and after an
/// opening that may have written new files.
pub(crate) fn sync_tree(path: &Path) -> io::Result<()> {
    sync_files_in(path)?;
    sync_directory(path)?;
    sync_directory(parent_of(path))
}

/// Writes a small file so that it is there whole or not at all.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    fs::write(&unfinished, bytes)?;
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_directory(parent_of(path))
}

/// Makes the entries of the directory `path` durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The directory that holds `path`.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ if path.has_root() => path,
        _ => Path::new("."),
    }
}

fn sync_files_in(path: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let synced = match entry.file_type() {
            Ok(kind) if !kind.is_file() => continue,
            Ok(_) => File::open(entry.path()).and_then(|file| file.sync_all()),
            Err(error) => Err(error),
        };
        match synced {
            // The back end removes its outdated files by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map(|()| files += 1)?,
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_is_counted_and_a_missing_file_refuses() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("data");
        assert!(Guard::open(&file, directory.path()).is_err());
        fs::write(&file, b"bytes").unwrap();
        let guard = Guard::open(&file, directory.path()).unwrap();
        guard.sync().unwrap();
        guard.sync().unwrap();
        assert_eq!(guard.syncs(), 2);
    }

    #[test]
    fn nested_directories_are_created_and_a_file_in_the_way_refuses() {
        let directory = tempfile::tempdir().unwrap();
        let nested = directory.path().join("a/b/c");
        create_directory(&nested).unwrap();
        create_directory(&nested).unwrap();
        assert!(nested.is_dir());
        fs::write(directory.path().join("file"), b"").unwrap();
        assert!(create_directory(&directory.path().join("file/below")).is_err());
    }

    #[test]
    fn a_small_file_is_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("format");
        write_file(&path, b"one").unwrap();
        write_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
