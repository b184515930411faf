//! Long bodies in parts: keys `(id, part)` and the split into values of at most one value's size.
//!
//! Invariant: the parts of one id are neighbours in key order and part numbers are dense from 0.

use crate::limits::VALUE_BYTES_MAX;

/// The key of part `part` of the body `id` under a one-byte prefix: prefix, id and part big endian.
#[must_use]
pub fn part_key(prefix: u8, id: u64, part: u16) -> [u8; 11] {
    let mut key = [prefix; 11];
    key[1..9].copy_from_slice(&id.to_be_bytes());
    key[9..].copy_from_slice(&part.to_be_bytes());
    key
}

/// Splits `body` into parts: the first of at most `first_bytes_max`, the others of at most
/// `VALUE_BYTES_MAX`. The first part is always there, if need be empty.
pub fn split_parts(body: &[u8], first_bytes_max: usize) -> impl Iterator<Item = &[u8]> {
    let (first, rest) = body.split_at(body.len().min(first_bytes_max));
    std::iter::once(first).chain(rest.chunks(VALUE_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_id_then_part() {
        assert!(part_key(b'c', 1, u16::MAX) < part_key(b'c', 2, 0));
        assert!(part_key(b'c', 255, 255) < part_key(b'c', 255, 256));
        assert!(part_key(b'c', 255, 0) < part_key(b'c', 256, 0));
    }

    #[test]
    fn parts_rebuild_the_body_and_keep_the_bounds() {
        let body: Vec<u8> = (0..20_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        for length in [0, 1, 99, 100, 101, 100 + VALUE_BYTES_MAX, 101 + VALUE_BYTES_MAX, 20_000] {
            let parts: Vec<&[u8]> = split_parts(&body[..length], 100).collect();
            assert!(parts[0].len() <= 100 && parts[1..].iter().all(|p| p.len() <= VALUE_BYTES_MAX));
            assert_eq!(parts.concat(), &body[..length]);
            assert_eq!(parts.len(), 1 + length.saturating_sub(100).div_ceil(VALUE_BYTES_MAX));
        }
    }
}
