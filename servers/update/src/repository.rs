//! The folder of updates: the signed manifest and the files that it names.
//!
//! Invariants: the manifest in force was verified; when the file on the disk becomes bad, what was
//! in force before stays and the trouble is told; a file is read only by a name in that manifest.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use lapwing_server_core::manifest::{
    MANIFEST_BYTES_MAX, Manifest, ManifestError, key_id, open_envelope, unhex, verify,
};

use crate::config::RepositoryConfig;

/// The manifest's file in the repository.
pub(crate) const MANIFEST_FILE: &str = "targets.json";
/// The folder of the targets in the repository.
pub(crate) const TARGETS_FOLDER: &str = "targets";

/// A repository in a folder.
#[derive(Debug)]
pub(crate) struct Repository {
    folder: PathBuf,
    vendor: [u8; 32],
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    /// What the file looked like when it was last read.
    seen: Option<(SystemTime, u64)>,
    published: Option<Arc<Published>>,
    trouble: String,
}

/// A verified manifest, with the bytes that were signed.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) manifest: Manifest,
    pub(crate) signed: Vec<u8>,
    pub(crate) key: [u8; 32],
    pub(crate) signature: [u8; 64],
}

/// Why there is nothing to host.
#[derive(Debug)]
pub enum RepositoryError {
    /// A file cannot be read.
    File {
        /// The file.
        file: PathBuf,
        /// The file system's word.
        error: io::Error,
    },
    /// The vendor's key is none.
    NotAKey {
        /// Its file.
        file: PathBuf,
    },
    /// The manifest is not to be believed.
    Manifest {
        /// Its file.
        file: PathBuf,
        /// Why.
        error: ManifestError,
    },
}

impl fmt::Display for RepositoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, error } => {
                write!(f, "{}: {error}; name the right files in [repository]", file.display())
            }
            Self::NotAKey { file } => write!(
                f,
                "{}: this is not the vendor's public key; write its 64 hexadecimal digits",
                file.display()
            ),
            Self::Manifest { file, error } => {
                write!(f, "{}: {error}", file.display())
            }
        }
    }
}

impl std::error::Error for RepositoryError {}

impl Repository {
    /// Reads the vendor's key; the manifest is read by [`Self::refresh`].
    pub(crate) fn open(config: &RepositoryConfig) -> Result<Self, RepositoryError> {
        let file = config.vendor_key.clone();
        let text = std::fs::read_to_string(&file)
            .map_err(|error| RepositoryError::File { file: file.clone(), error })?;
        let vendor = unhex::<32>(text.trim()).ok_or(RepositoryError::NotAKey { file })?;
        Ok(Self { folder: config.dir.clone(), vendor, current: Mutex::default() })
    }

    /// Reads the manifest again if its file changed. Blocks on the disk.
    ///
    /// # Errors
    /// There is no manifest to host. A bad one behind a good one is no error, but trouble.
    pub(crate) fn refresh(&self, unix_ms: u64) -> Result<Arc<Published>, RepositoryError> {
        let file = self.folder.join(MANIFEST_FILE);
        let unreadable = |error| RepositoryError::File { file: file.clone(), error };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = std::fs::metadata(&file)
            .and_then(|metadata| Ok((metadata.modified()?, metadata.len())));
        let read = match (&seen, &current.published) {
            (Ok(seen), Some(published)) if current.seen == Some(*seen) => {
                let published = Arc::clone(published);
                // It was good when it was read, and ends by itself.
                if unix_ms >= published.manifest.expires_ms && current.trouble.is_empty() {
                    let expires_ms = published.manifest.expires_ms;
                    current.trouble = ManifestError::Expired { expires_ms }.to_string();
                    log::warn!("{}: {}", file.display(), current.trouble);
                }
                return Ok(published);
            }
            (Ok(_), before) => {
                let known = before.as_ref().map_or(0, |published| published.manifest.version);
                read_bounded(&file)
                    .map_err(unreadable)
                    .and_then(|bytes| self.judge(unix_ms, known, &file, &bytes))
            }
            (Err(error), _) => Err(unreadable(io::Error::from(error.kind()))),
        };
        current.seen = seen.ok();
        match (read, &current.published) {
            (Ok(published), _) => {
                log::info!("manifest {} is in force", published.manifest.version);
                let published = Arc::new(published);
                current.published = Some(Arc::clone(&published));
                current.trouble.clear();
                Ok(published)
            }
            (Err(error), Some(before)) => {
                let before = Arc::clone(before);
                current.trouble =
                    format!("{error}; manifest {} stays in force", before.manifest.version);
                log::warn!("{}", current.trouble);
                Ok(before)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// What is wrong with the manifest's file; empty when all is well.
    pub(crate) fn trouble(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).trouble.clone()
    }

    /// Up to `length` bytes of a target of `published` from `offset` on. Blocks on the disk.
    ///
    /// # Errors
    /// The file is not there, or not as long as the manifest says: the repository is incomplete.
    pub(crate) fn read_part(
        &self,
        published: &Published,
        target: &str,
        offset: u64,
        length: u32,
    ) -> io::Result<Option<(u64, Vec<u8>)>> {
        let Some(listed) = published.manifest.targets.get(target) else { return Ok(None) };
        let mut file = File::open(self.folder.join(TARGETS_FOLDER).join(target))?;
        if file.metadata()?.len() != listed.length {
            return Err(io::Error::other("its length is not that in the manifest"));
        }
        file.seek(SeekFrom::Start(offset.min(listed.length)))?;
        let mut bytes = Vec::new();
        file.take(u64::from(length)).read_to_end(&mut bytes)?;
        Ok(Some((listed.length, bytes)))
    }

    fn judge(
        &self,
        unix_ms: u64,
        known: u64,
        file: &Path,
        bytes: &[u8],
    ) -> Result<Published, RepositoryError> {
        let refused = |error| RepositoryError::Manifest { file: file.to_path_buf(), error };
        let envelope = open_envelope(bytes, &self.vendor).map_err(refused)?;
        let key = key_id(&self.vendor);
        let signature = envelope.signature;
        let manifest = verify(unix_ms, &self.vendor, known, envelope.signed, &key, &signature)
            .map_err(refused)?;
        Ok(Published { manifest, signed: envelope.signed.to_vec(), key, signature })
    }
}

/// Reads a file, but no more than one byte beyond the largest manifest.
fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MANIFEST_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
