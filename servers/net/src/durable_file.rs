//! Writes small files so that after a power cut the old or the new content is there, never half of
//! it.
//!
//! Not here: stores. Invariant: the file appears under its name only when its bytes are on the
//! disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// Who may read the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The owner alone: keys and secrets (mode 0600).
    Owner,
    /// Everyone: certificates and configurations (mode 0644).
    Everyone,
}

/// Writes `bytes` to a file beside `path`, syncs it, renames it to `path` and syncs the folder.
///
/// # Errors
/// Those of the file system; `path` then still has its old content.
pub fn write(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.new", std::process::id()));
    let temporary = folder.join(temporary_name);
    let written =
        write_synced(&temporary, bytes, access).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // The file may not exist; the first error is the one that tells.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

fn write_synced(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    // What a crashed run left behind may have another mode, which opening it again would keep.
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    set_mode(&mut options, access);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(unix)]
fn set_mode(options: &mut OpenOptions, access: Access) {
    use std::os::unix::fs::OpenOptionsExt as _;
    options.mode(match access {
        Access::Owner => 0o600,
        Access::Everyone => 0o644,
    });
}

#[cfg(not(unix))]
fn set_mode(_: &mut OpenOptions, _: Access) {}

#[cfg(test)]
mod tests {
    use super::{Access, write};

    #[cfg(unix)]
    #[test]
    fn a_key_is_the_owners_alone_and_nothing_else_is_left() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        write(&path, b"one", Access::Owner).unwrap();
        write(&path, b"two", Access::Owner).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
