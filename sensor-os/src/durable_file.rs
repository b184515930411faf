//! Small files that are whole or absent: after a power cut the old or the new content is there.
//!
//! Not here: the spool, whose files only grow. Invariant: a file appears under its name only when
//! its bytes are on the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The owner alone (0600).
    Owner,
    /// Everyone (0644).
    Everyone,
}

/// Whether a file must outlive a power cut, or only this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Synced, and its folder too.
    PowerCut,
    /// Renamed into place: whole, but perhaps old after a power cut.
    Process,
}

/// Makes `folder` and those above it, for the owner alone.
///
/// # Errors
/// Those of the file system.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Whether a folder is this process' own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It is, and nobody else may look into it.
    Us,
    /// Another user could change what lies in it.
    Others,
}

/// Makes a folder of ours the owner's alone, and says whether it is ours.
///
/// # Errors
/// Those of the file system.
pub(crate) fn close_folder(folder: &Path) -> io::Result<Owner> {
    let data = fs::metadata(folder)?;
    if data.uid() != crate::sys::host::effective_user() {
        return Ok(Owner::Others);
    }
    if data.mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(Owner::Us)
}

/// Writes `bytes` beside `path`, then renames them to `path`.
///
/// # Errors
/// Those of the file system; `path` then still has its old content.
pub(crate) fn write(
    path: &Path,
    bytes: &[u8],
    access: Access,
    durability: Durability,
) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.new", std::process::id()));
    let temporary = folder_of(path).join(temporary_name);
    let written = write_new(&temporary, bytes, access, durability)
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // It may not exist; the first error is the one that tells.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    match durability {
        Durability::PowerCut => sync_folder(folder_of(path)),
        Durability::Process => Ok(()),
    }
}

fn write_new(path: &Path, bytes: &[u8], access: Access, durability: Durability) -> io::Result<()> {
    // What a crashed run left behind may have another mode, which opening it again would keep.
    remove(path)?;
    let mode = match access {
        Access::Owner => 0o600,
        Access::Everyone => 0o644,
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    match durability {
        Durability::PowerCut => file.sync_all(),
        Durability::Process => Ok(()),
    }
}

/// Removes a file; one that is not there is removed already.
///
/// # Errors
/// Those of the file system.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The bytes of a file of at most `bytes_max`; `None` when there is no such file.
///
/// # Errors
/// Those of the file system, and `InvalidData` for a longer file.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too long"));
    }
    Ok(Some(bytes))
}

/// Makes the names in `folder` outlive a power cut.
///
/// # Errors
/// Those of the file system.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A lock on a folder that ends with the process that holds it.
#[derive(Debug)]
pub(crate) struct FolderLock {
    file: File,
}

impl Drop for FolderLock {
    /// Closing would not do: a process that is being started just now has a copy of the descriptor
    /// until it becomes another program, and would hold the lock on.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            log::warn!("a folder's lock is not given back: {error}");
        }
    }
}

/// Whether a folder's lock was free.
#[derive(Debug)]
pub(crate) enum Locked {
    /// It was, and is now held.
    Ours(FolderLock),
    /// Another process holds it.
    Others,
}

/// Takes the lock of `folder`.
///
/// # Errors
/// Those of the file system.
pub(crate) fn lock_folder(folder: &Path) -> io::Result<Locked> {
    let path: PathBuf = folder.join("lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    // A link that somebody laid there must not have us open, or make, a file of its choice.
    let file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Locked::Ours(FolderLock { file })),
        Err(fs::TryLockError::WouldBlock) => Ok(Locked::Others),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_given_back_is_free_though_a_copy_of_its_descriptor_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let Locked::Ours(lock) = lock_folder(folder.path()).unwrap() else { panic!("it is free") };
        let copy = lock.file.try_clone().unwrap();
        drop(lock);
        assert!(matches!(lock_folder(folder.path()).unwrap(), Locked::Ours(_)));
        drop(copy);
    }

    #[test]
    fn a_key_is_the_owners_alone_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for (content, durability) in [(b"one", Durability::PowerCut), (b"two", Durability::Process)]
        {
            write(&path, content, Access::Owner, durability).unwrap();
        }
        assert_eq!(read(&path, 3).unwrap().unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(read(&path, 2).is_err());
        assert!(read(&folder.path().join("none"), 2).unwrap().is_none());
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = folder.path().join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, folder.path().join("lock")).unwrap();
        assert!(lock_folder(folder.path()).is_err());
        assert!(!elsewhere.exists());
    }

    #[test]
    fn a_folder_of_ours_is_closed_and_one_of_others_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(close_folder(folder.path()).unwrap(), Owner::Us);
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
        if crate::sys::host::is_root() {
            std::os::unix::fs::chown(folder.path(), Some(12_345), None).unwrap();
            assert_eq!(close_folder(folder.path()).unwrap(), Owner::Others);
        }
    }

    #[test]
    fn a_folder_is_locked_once() {
        let folder = tempfile::tempdir().unwrap();
        let Locked::Ours(held) = lock_folder(folder.path()).unwrap() else { panic!() };
        assert!(matches!(lock_folder(folder.path()).unwrap(), Locked::Others));
        drop(held);
        assert!(matches!(lock_folder(folder.path()).unwrap(), Locked::Ours(_)));
    }
}
