//! The chain of a log (CHN-001).

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
