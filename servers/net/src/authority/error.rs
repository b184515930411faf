//! What can go wrong with an authority, by blame: its files, the request, or the machine.
//!
//! Not here: who is refused a certificate. Invariant: no error shows a key.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why an authority could not do what was asked.
#[derive(Debug)]
pub enum AuthorityError {
    /// A file could not be read or written.
    File {
        /// The file.
        path: PathBuf,
        /// The file system's word.
        error: io::Error,
    },
    /// A file does not hold what it should.
    NotPem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// The certificate is not that of the key.
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A signing request that is not taken.
    BadRequest(&'static str),
    /// The operating system gives no random bytes.
    NoRandomness,
    /// The certificate could not be made.
    Making(rcgen::Error),
}

impl AuthorityError {
    pub(super) fn file(path: &Path, error: io::Error) -> Self {
        Self::File { path: path.to_path_buf(), error }
    }

    pub(super) fn not_pem(path: &Path, expected: &'static str) -> Self {
        Self::NotPem { path: path.to_path_buf(), expected }
    }

    pub(super) fn making(error: rcgen::Error) -> Self {
        Self::Making(error)
    }
}

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
            Self::NotPem { path, expected } => {
                write!(f, "{}: this is not {expected} in PEM; restore the file", path.display())
            }
            Self::Mismatch { certificate, key } => write!(
                f,
                "{} is not the certificate of the key in {}; \
                 name two files that were made together",
                certificate.display(),
                key.display()
            ),
            Self::BadRequest(problem) => write!(f, "the signing request is refused: {problem}"),
            Self::NoRandomness => f.write_str("the operating system gives no random bytes"),
            Self::Making(error) => write!(f, "the certificate cannot be made: {error}"),
        }
    }
}

impl std::error::Error for AuthorityError {}
