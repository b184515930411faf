//! What can go wrong on the way: where, what, and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// A transfer that did not come to its end. What it was to make is not there.
#[derive(Debug)]
#[non_exhaustive]
pub enum TransferError {
    /// A store at one end.
    Store(StoreError),
    /// A file or folder cannot be read or written.
    Disk {
        /// Which.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// A file is not whole, or not what was written.
    Damaged {
        /// Which.
        path: PathBuf,
        /// Where in it, in bytes from its start.
        at: u64,
        /// What is wrong.
        what: String,
    },
    /// It would go over what exists, or there is nothing to copy.
    Refused {
        /// Where.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
}

impl TransferError {
    pub(crate) fn disk(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |error| Self::Disk { path, error }
    }

    pub(crate) fn refused(path: &Path, why: impl Into<String>) -> Self {
        Self::Refused { path: path.to_path_buf(), why: why.into() }
    }
}

impl From<StoreError> for TransferError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Disk { path, error } => {
                write!(f, "{}: {error}; check the path, its owner and the disk", path.display())
            }
            Self::Damaged { path, at, what } => write!(
                f,
                "{}: damaged at byte {at}: {what}; nothing was made of it: take another copy",
                path.display()
            ),
            Self::Refused { path, why } => write!(f, "{}: {why}", path.display()),
        }
    }
}

impl std::error::Error for TransferError {}
