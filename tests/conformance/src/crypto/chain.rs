//! The chain of a log (CHN-001), and the ids that rest on hashes (CHN-007, CHN-008).

use sha2::{Digest as _, Sha256};

use crate::wire::message::{Chain, Id, Lane};

/// h(0).
#[must_use]
pub fn start(deployment: &Id, sensor: &Id, lane: Lane, log: &Id) -> Chain {
    let lane = [lane as u8];
    let parts: [&[u8]; 5] = [b"lapwing-chain-1", deployment, sensor, &lane, log];
    parts.into_iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

/// h(n) of h(n-1) and chunk n as spooled.
#[must_use]
pub fn next(chain: &Chain, chunk: &[u8]) -> Chain {
    Sha256::new().chain_update(chain).chain_update(chunk).finalize().into()
}

/// Who speaks of an element or event, and in which boot; the boot is 0 where the scope is machine.
#[derive(Clone, Copy, Debug)]
pub struct Speaker {
    /// The deployment.
    pub deployment: Id,
    /// The sensor.
    pub sensor: Id,
    /// The boot.
    pub boot: Id,
}

/// An element's id: of its kind and natural key.
#[must_use]
pub fn element(of: &Speaker, kind: u16, key: &[u8]) -> Id {
    hashed(b"lapwing-element-1", of, kind, &[key])
}

/// An event's id: of its kind, time and row, which is without `source_seq`.
#[must_use]
pub fn event(of: &Speaker, kind: u16, time: u64, row: &[u8]) -> Id {
    hashed(b"lapwing-event-1", of, kind, &[&time.to_le_bytes(), row])
}

fn hashed(label: &[u8], of: &Speaker, kind: u16, rest: &[&[u8]]) -> Id {
    let kind = kind.to_le_bytes();
    let parts = [label, &of.deployment, &of.sensor, &kind, &of.boot];
    let parts = parts.into_iter().chain(rest.iter().copied());
    let whole = parts.fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&whole[..16]);
    id
}
