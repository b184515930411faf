//! The two digests that make delivery checkable.
//!
//! The *chain* proves that both ends hold the same chunks of a log, in the same order:
//! `h(0) = SHA-256("lapwing-chain-1", deployment, sensor, lane, log)`,
//! `h(n) = SHA-256(h(n-1), chunk n as spooled)`.
//!
//! The *state digest* proves that both ends hold the same table: the wrapping sum, over the rows,
//! of SipHash-1-3 keyed by the log id over kind (u16 LE) and canonical row. It does not depend on
//! the order of rows and changes by one subtraction and one addition per op.

use core::hash::Hasher;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher13;

use crate::element::Kind;
use crate::id::{BootId, DeploymentId, ElementGuid, Lane, LogId, SensorId};

/// The chain value after a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain(pub [u8; 32]);

impl Chain {
    /// h(0) of a log.
    #[must_use]
    pub fn start(deployment: DeploymentId, sensor: SensorId, lane: Lane, log: LogId) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"lapwing-chain-1");
        hash.update(deployment.0);
        hash.update(sensor.0);
        hash.update([lane as u8]);
        hash.update(log.0);
        Self(hash.finalize().into())
    }

    /// The value after `chunk`, given as spooled.
    #[must_use]
    pub fn next(&self, chunk: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(chunk);
        Self(hash.finalize().into())
    }
}

/// The keyed hash of one row; the state digest is the wrapping sum of these.
#[must_use]
pub fn row_digest(log: LogId, kind: Kind, row: &[u8]) -> u64 {
    let mut hash = SipHasher13::new_with_key(&log.0);
    hash.write(&kind.0.to_le_bytes());
    hash.write(row);
    hash.finish()
}

/// A keyed hash for tables that never leave a process; whoever does not know `key` cannot aim at a
/// bucket.
#[must_use]
pub fn keyed_hash(key: &[u8; 16], bytes: &[u8]) -> u64 {
    let mut hash = SipHasher13::new_with_key(key);
    hash.write(bytes);
    hash.finish()
}

/// The id of an element with a natural key (`key` in canonical form).
///
/// `boot` is given for kinds whose key is unique within one boot only.
#[must_use]
pub fn element_guid(
    deployment: DeploymentId,
    sensor: SensorId,
    (kind, boot): (Kind, Option<BootId>),
    key: &[u8],
) -> ElementGuid {
    let mut hash = Sha256::new();
    hash.update(b"lapwing-element-1");
    hash.update(deployment.0);
    hash.update(sensor.0);
    hash.update(kind.0.to_le_bytes());
    hash.update(boot.map_or([0; 16], |boot| boot.0));
    hash.update(key);
    ElementGuid(first_half(&hash.finalize().into()))
}

/// The id of an event: it has no natural key, so its boot, time and row stand for one.
#[must_use]
pub fn event_guid(
    deployment: DeploymentId,
    sensor: SensorId,
    (kind, boot, time_ns): (Kind, BootId, u64),
    row: &[u8],
) -> ElementGuid {
    let mut hash = Sha256::new();
    hash.update(b"lapwing-event-1");
    hash.update(deployment.0);
    hash.update(sensor.0);
    hash.update(kind.0.to_le_bytes());
    hash.update(boot.0);
    hash.update(time_ns.to_le_bytes());
    hash.update(row);
    ElementGuid(first_half(&hash.finalize().into()))
}

/// The first 16 bytes of a SHA-256: what every derived id is.
#[must_use]
pub fn first_half(hash: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    half
}

/// SHA-256 of the concatenation of `parts`, cut to an id; `domain` keeps uses apart.
#[must_use]
pub fn derived_id(domain: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(domain);
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    first_half(&hash.finalize().into())
}
