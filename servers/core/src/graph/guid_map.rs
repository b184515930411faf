//! A hash map from element ids that is never iterated, with a hash as cheap as the ids allow.
//!
//! Ids are halves of SHA-256 already, so one multiplication mixes them; the key keeps a sensor
//! that can choose its natural keys from choosing our buckets. Invariant: no order leaks out.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use lapwing_protocol::id::ElementGuid;

/// The map.
pub(super) type GuidMap<V> = HashMap<ElementGuid, V, GuidHash>;

/// A keyed hash of ids.
#[derive(Clone, Copy, Debug)]
pub(super) struct GuidHash(pub u64);

/// The hash under way.
#[derive(Debug)]
pub(super) struct GuidHasher(u64);

impl BuildHasher for GuidHash {
    type Hasher = GuidHasher;

    fn build_hasher(&self) -> GuidHasher {
        GuidHasher(self.0)
    }
}

impl Hasher for GuidHasher {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.0 = fold(self.0 ^ u64::from_le_bytes(word));
        }
    }

    // The length before an array says nothing: all ids have 16 bytes.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Multiplies by an odd constant (2^64 divided by the golden ratio) and folds both halves together.
fn fold(word: u64) -> u64 {
    let product = u128::from(word) * 0x9e37_79b9_7f4a_7c15;
    (product >> 64) as u64 ^ product as u64
}
