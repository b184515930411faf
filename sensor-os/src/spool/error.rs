//! What the spool could not do, in a sentence with its remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What the spool could not do.
#[derive(Debug)]
pub enum SpoolError {
    /// The file system refuses.
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Its word.
        error: io::Error,
    },
    /// The bound is reached and nothing may be dropped.
    Full,
    /// There is no such log.
    NoLog,
}

impl SpoolError {
    pub(super) fn file(operation: &'static str, path: &Path, error: io::Error) -> Self {
        Self::File { operation, path: path.to_path_buf(), error }
    }
}

impl SpoolError {
    /// Whether it says nothing of what was to be read: the process or the system had no room.
    pub(crate) fn is_passing(&self) -> bool {
        let Self::File { error, .. } = self else { return false };
        matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
            || error.kind() == io::ErrorKind::OutOfMemory
    }
}

impl SpoolError {
    /// Whether a disk refuses that may take it later: it is full, or not well.
    pub(crate) fn is_refusal(&self) -> bool {
        let Self::File { error, .. } = self else { return false };
        let kinds = [
            io::ErrorKind::StorageFull,
            io::ErrorKind::QuotaExceeded,
            io::ErrorKind::ReadOnlyFilesystem,
        ];
        kinds.contains(&error.kind()) || error.raw_os_error() == Some(libc::EIO)
    }
}

impl From<io::Error> for SpoolError {
    fn from(error: io::Error) -> Self {
        Self::File { operation: "draw a log's number", path: "/dev/random".into(), error }
    }
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { operation, path, error } => {
                let remedy = match error.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        "make room on the disk"
                    }
                    io::ErrorKind::PermissionDenied => "let this process' user write there",
                    _ => "see the system's log for the disk",
                };
                write!(f, "{}: cannot {operation}: {error}; {remedy}", path.display())
            }
            Self::Full => f.write_str("the spool is full; raise `spool.max`"),
            Self::NoLog => f.write_str("the spool has no such log"),
        }
    }
}

impl std::error::Error for SpoolError {}
