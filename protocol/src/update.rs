//! Updates: a signed manifest, and targets in parts. Nobody is sent one unasked.

use serde::{Deserialize, Serialize};

/// The manifest as signed: exact bytes, never canonicalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedManifest<'a> {
    /// The manifest, a TUF targets document.
    pub manifest: &'a [u8],
    /// Id of the key: SHA-256 of its public part.
    pub key: [u8; 32],
    /// Ed25519 over `manifest`.
    #[serde(with = "signature")]
    pub signature: [u8; 64],
}

/// Ask for a part of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRequest<'a> {
    /// The target's name in the manifest.
    pub target: &'a str,
    /// Where the part begins, in bytes.
    pub offset: u64,
    /// Bytes at the most.
    pub length: u32,
}

/// A part of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part<'a> {
    /// Where it begins.
    pub offset: u64,
    /// The target's whole length.
    pub total: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// 64 bytes as two arrays of 32: serde writes arrays up to 32 only.
mod signature {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 64], to: S) -> Result<S::Ok, S::Error> {
        let (mut first, mut second) = ([0; 32], [0; 32]);
        first.copy_from_slice(&bytes[..32]);
        second.copy_from_slice(&bytes[32..]);
        (first, second).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 64], D::Error> {
        let (first, second) = <([u8; 32], [u8; 32])>::deserialize(from)?;
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&first);
        bytes[32..].copy_from_slice(&second);
        Ok(bytes)
    }
}
