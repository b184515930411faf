//! The data folder: what lies where, and who owns it.
//!
//! Invariant: while a [`Lock`] stands, no other `up` works on the folder.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// The places in a data folder.
#[derive(Clone, Debug)]
pub(super) struct DataFolder(PathBuf);

impl DataFolder {
    pub(super) fn new(path: &Path) -> std::io::Result<Self> {
        let path = std::path::absolute(path)?;
        let folder = Self(path);
        for part in ["authority", "secrets", "servers", "sensor", "logs"] {
            std::fs::create_dir_all(folder.0.join(part))?;
        }
        close_to_others(&folder.0)?;
        Ok(folder)
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    pub(super) fn plan(&self) -> PathBuf {
        self.0.join("up.toml")
    }

    pub(super) fn authority(&self, name: &str) -> PathBuf {
        self.0.join("authority").join(name)
    }

    pub(super) fn secret(&self, name: &str) -> PathBuf {
        self.0.join("secrets").join(name)
    }

    pub(super) fn server(&self, name: &str) -> PathBuf {
        self.0.join("servers").join(name)
    }

    pub(super) fn config(&self, name: &str) -> PathBuf {
        match name {
            "sensor" => self.0.join("sensor/config.toml"),
            name => self.server(name).join("config.toml"),
        }
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.0.join("logs").join(format!("{name}.log"))
    }

    pub(super) fn ready(&self) -> PathBuf {
        self.0.join("ready.json")
    }

    /// Takes the folder, or says who has it.
    pub(super) fn lock(&self) -> Result<Lock, String> {
        let path = self.0.join("lock");
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let mut options = File::options();
        let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = file.read_to_string(&mut owner);
                return Err(format!(
                    "another `lapwing up` (process {}) runs on {}; stop it, or name another folder \
                     with --data DIR",
                    owner.trim(),
                    self.0.display()
                ));
            }
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|error| failed(&error))?;
        Ok(Lock(file))
    }
}

/// The folder is ours until this is dropped.
pub(super) struct Lock(#[expect(dead_code, reason = "held, never read")] File);

#[cfg(unix)]
fn close_to_others(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn close_to_others(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::DataFolder;

    #[test]
    fn a_second_owner_is_told_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::new(folder.path()).unwrap();
        let lock = data.lock().unwrap();
        let refusal = data.lock().err().unwrap();
        assert!(refusal.contains(&std::process::id().to_string()), "{refusal}");
        drop(lock);
        assert!(data.lock().is_ok());
    }
}
