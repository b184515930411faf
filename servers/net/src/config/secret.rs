//! Secrets by file: a configuration names the file, this reads it, refuses it where others could
//! read it too, and keeps it out of every log line. Also digests of bearer tokens, which are no
//! secrets.
//!
//! Invariant: `Debug` of a [`Secret`] shows nothing of it.

use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// The longest secret that is read, in bytes.
const SECRET_BYTES_MAX: usize = 4096;

/// A secret read from a file, without its closing line end.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Reads a secret from `path`.
    ///
    /// # Errors
    /// The file is missing, empty, too long, or readable by every user of the machine.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let refused = |problem: String, remedy: &'static str| SecretError {
            file: path.to_path_buf(),
            problem,
            remedy,
        };
        let unreadable =
            |error: std::io::Error| refused(error.to_string(), "name a file this server can read");
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if readable_by_everyone(&metadata) {
            return Err(refused(
                String::from("every user of this machine can read the secret"),
                "chmod 600 the file",
            ));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() || secret.len() > SECRET_BYTES_MAX {
            return Err(refused(
                format!("the secret has {} bytes", secret.len()),
                "the file must hold the secret and nothing else",
            ));
        }
        Ok(Self(secret.to_owned()))
    }

    /// The secret itself. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The SHA-256 of a bearer token: what a server keeps, so that its files never let anyone in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest of a token's bytes.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Reads a file that holds one digest as 64 hexadecimal digits.
    ///
    /// # Errors
    /// The file is missing or holds something else.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let refused = |problem: String, remedy: &'static str| SecretError {
            file: path.to_path_buf(),
            problem,
            remedy,
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| refused(error.to_string(), "name a file this server can read"))?;
        let digest = crate::hexadecimal::decode::<32>(text.trim()).ok_or_else(|| {
            refused(
                String::from("this is not a SHA-256 in hexadecimal"),
                "write the 64 digits of the token's SHA-256",
            )
        })?;
        Ok(Self(digest))
    }

    /// Whether `token` has this digest. Compares digests, each byte always, so that the time tells
    /// nothing.
    #[must_use]
    pub fn matches(&self, token: &str) -> bool {
        let other = Self::of(token);
        let difference =
            self.0.iter().zip(other.0.iter()).fold(0_u8, |sum, (left, right)| sum | (left ^ right));
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::hexadecimal::encode(&self.0))
    }
}

/// A secret's file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.file.display(), self.problem, self.remedy)
    }
}

impl std::error::Error for SecretError {}

#[cfg(unix)]
fn readable_by_everyone(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o007 != 0
}

#[cfg(not(unix))]
fn readable_by_everyone(_: &std::fs::Metadata) -> bool {
    false
}
