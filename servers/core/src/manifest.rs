//! The update manifest: what the vendor says there is, signed; read, written and judged here.
//!
//! The manifest is a TUF targets document in canonical JSON. Its exact bytes are signed and travel
//! unchanged; nothing is put into another form before a signature is checked, and nothing is read
//! before its signature holds. `docs/decisions/0060-update-manifest.md` has the shape and the
//! reasons.
//!
//! Not here: keys' secret halves, files, the clock. Invariant: a [`Manifest`] from [`verify`] was
//! signed by the trusted key, had not expired, and was no older than what was known.

mod digits;
pub mod json;
pub mod time;
mod write;

use std::collections::BTreeMap;
use std::fmt;

use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};

pub use digits::{hex, unhex};
pub use write::{envelope, tuf_key_id};

use json::{JsonError, Value};

/// The largest manifest, in bytes: 1,024 targets at 400 bytes, doubled.
pub const MANIFEST_BYTES_MAX: usize = 1 << 20;
/// Targets in one manifest.
pub const TARGETS_MAX: usize = 1_024;
/// A target's name, in bytes.
pub const TARGET_NAME_BYTES_MAX: usize = 128;
/// A target's length: 4 GiB.
pub const TARGET_LENGTH_MAX: u64 = 4 << 30;

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its number; a higher one replaces a lower.
    pub version: u64,
    /// When it ends, milliseconds since 1970; a whole second.
    pub expires_ms: u64,
    /// The targets by name.
    pub targets: BTreeMap<String, Target>,
}

/// One file, and for what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its length in bytes.
    pub length: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// What it is a package of: `sensor`, `server`, `rules`, `intel`.
    pub component: String,
    /// For which operating system; `any` for all.
    pub os: String,
    /// For which processor architecture; `any` for all.
    pub arch: String,
    /// Its version.
    pub version: String,
}

/// Why a manifest is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// It is longer than any manifest.
    TooLarge,
    /// It is signed with a key that is not the trusted one.
    OtherKey,
    /// The trusted key is no key.
    BadKey,
    /// The signature does not hold.
    BadSignature,
    /// The vendor signed something that is not JSON as we take it.
    NotJson(JsonError),
    /// The vendor signed something that is not a manifest: which field is wrong.
    NotManifest(&'static str),
    /// Its time is over.
    Expired {
        /// When it ended, milliseconds since 1970.
        expires_ms: u64,
    },
    /// A later one was seen before.
    Rollback {
        /// The number of this one.
        version: u64,
        /// The number that was seen.
        known: u64,
    },
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => {
                write!(f, "the manifest has more than {MANIFEST_BYTES_MAX} bytes")
            }
            Self::OtherKey => {
                f.write_str("the manifest is signed with another key than the vendor's")
            }
            Self::BadKey => f.write_str("the vendor's key is not an Ed25519 key"),
            Self::BadSignature => f.write_str("the manifest's signature does not hold"),
            Self::NotJson(error) => write!(f, "the manifest is not JSON: {error}"),
            Self::NotManifest(field) => {
                write!(f, "the manifest's `{field}` is missing or not as it must be")
            }
            Self::Expired { expires_ms } => write!(
                f,
                "the manifest expired at {}; sign a new one, or set this machine's clock",
                time::format(*expires_ms)
            ),
            Self::Rollback { version, known } => {
                write!(f, "the manifest has version {version}, but {known} was seen before")
            }
        }
    }
}

impl std::error::Error for ManifestError {}

/// The id of a vendor's key: the SHA-256 of its 32 public bytes.
#[must_use]
pub fn key_id(public: &[u8; 32]) -> [u8; 32] {
    Sha256::digest(public).into()
}

/// Judges a manifest at `now_unix_ms`, given the vendor's public key and the highest version that
/// was seen before (0 for none).
///
/// # Errors
/// It is not to be believed, and why.
pub fn verify(
    now_unix_ms: u64,
    vendor: &[u8; 32],
    known_version: u64,
    manifest: &[u8],
    key: &[u8; 32],
    signature: &[u8; 64],
) -> Result<Manifest, ManifestError> {
    if manifest.len() > MANIFEST_BYTES_MAX {
        return Err(ManifestError::TooLarge);
    }
    if *key != key_id(vendor) {
        return Err(ManifestError::OtherKey);
    }
    let vendor = VerifyingKey::from_bytes(vendor).map_err(|_| ManifestError::BadKey)?;
    vendor
        .verify_strict(manifest, &Signature::from_bytes(signature))
        .map_err(|_| ManifestError::BadSignature)?;
    let manifest = Manifest::parse(manifest)?;
    if now_unix_ms >= manifest.expires_ms {
        return Err(ManifestError::Expired { expires_ms: manifest.expires_ms });
    }
    if manifest.version < known_version {
        return Err(ManifestError::Rollback { version: manifest.version, known: known_version });
    }
    Ok(manifest)
}

/// What a file of signed metadata holds: the exact signed bytes, and the signature of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The bytes that are signed.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: [u8; 64],
}

/// Finds the exact signed bytes in a file of signed metadata (TUF's form: `signatures`, `signed`),
/// and the signature that `vendor` made of them. Verifies nothing.
///
/// # Errors
/// The file has another form, or `vendor` has not signed it.
pub fn open_envelope<'a>(file: &'a [u8], vendor: &[u8; 32]) -> Result<Envelope<'a>, ManifestError> {
    if file.len() > MANIFEST_BYTES_MAX {
        return Err(ManifestError::TooLarge);
    }
    let members = json::members(file).map_err(ManifestError::NotJson)?;
    let raw = |name: &'static str| {
        let found = members.iter().find(|(key, _)| key == name);
        found.map(|(_, raw)| *raw).ok_or(ManifestError::NotManifest(name))
    };
    let signed = raw("signed")?;
    let signatures = json::parse(raw("signatures")?).map_err(ManifestError::NotJson)?;
    let wanted = hex(&tuf_key_id(vendor));
    let ours = signatures
        .list()
        .unwrap_or_default()
        .iter()
        .find(|signature| signature.member("keyid").and_then(Value::text) == Some(&*wanted));
    let text = ours.ok_or(ManifestError::OtherKey)?.member("sig").and_then(Value::text);
    let signature =
        text.and_then(unhex::<64>).ok_or(ManifestError::NotManifest("signatures.sig"))?;
    Ok(Envelope { signed, signature })
}

impl Manifest {
    /// Reads a manifest's bytes. Believe it only after its signature was checked.
    ///
    /// # Errors
    /// The bytes are not a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let value = json::parse(bytes).map_err(ManifestError::NotJson)?;
        if text(&value, "_type")? != "targets" {
            return Err(ManifestError::NotManifest("_type"));
        }
        if !text(&value, "spec_version")?.starts_with("1.") {
            return Err(ManifestError::NotManifest("spec_version"));
        }
        let version = number(&value, "version")?;
        let expires_ms =
            time::parse(text(&value, "expires")?).ok_or(ManifestError::NotManifest("expires"))?;
        let listed = value.member("targets").and_then(Value::object);
        let listed = listed.filter(|listed| listed.len() <= TARGETS_MAX);
        let targets = listed
            .ok_or(ManifestError::NotManifest("targets"))?
            .iter()
            .map(|(name, target)| Ok((name.clone(), Target::read(name, target)?)))
            .collect::<Result<_, ManifestError>>()?;
        Ok(Self { version, expires_ms, targets })
    }

    /// The manifest's bytes in canonical form, ready to be signed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        write::manifest(self)
    }

    /// What an author got wrong, before it is signed: so that only what [`Self::parse`] takes is.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ManifestError> {
        match Self::parse(&self.to_bytes())? == *self {
            true => Ok(()),
            false => Err(ManifestError::NotManifest("expires")), // Not a whole second.
        }
    }
}

impl Target {
    fn read(name: &str, value: &Value) -> Result<Self, ManifestError> {
        if !is_target_name(name) {
            return Err(ManifestError::NotManifest("targets"));
        }
        let length = number(value, "length")?;
        let hashes = value.member("hashes").ok_or(ManifestError::NotManifest("hashes"))?;
        let custom = value.member("custom").ok_or(ManifestError::NotManifest("custom"))?;
        if length > TARGET_LENGTH_MAX {
            return Err(ManifestError::NotManifest("length"));
        }
        let word = |name| {
            let word = text(custom, name)?;
            if is_target_name(word) {
                Ok(word.to_owned())
            } else {
                Err(ManifestError::NotManifest(name))
            }
        };
        Ok(Self {
            length,
            sha256: unhex(text(hashes, "sha256")?).ok_or(ManifestError::NotManifest("sha256"))?,
            component: word("component")?,
            os: word("os")?,
            arch: word("arch")?,
            version: word("version")?,
        })
    }
}

/// Whether a name can be that of a target: a plain file name that is the same on every system, in
/// JSON, and in a terminal.
#[must_use]
pub fn is_target_name(name: &str) -> bool {
    name.len() <= TARGET_NAME_BYTES_MAX
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte))
}

fn text<'v>(value: &'v Value, name: &'static str) -> Result<&'v str, ManifestError> {
    value.member(name).and_then(Value::text).ok_or(ManifestError::NotManifest(name))
}

fn number(value: &Value, name: &'static str) -> Result<u64, ManifestError> {
    value.member(name).and_then(Value::number).ok_or(ManifestError::NotManifest(name))
}

#[cfg(test)]
mod tests;
