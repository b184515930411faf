//! SipHash-1-3 with a key of 16 bytes, as the state digest uses it (CHN-004).

/// The hash of `bytes` under `key`.
#[must_use]
pub fn siphash_1_3(key: &[u8; 16], bytes: &[u8]) -> u64 {
    let [low, high] = [&key[..8], &key[8..]].map(word);
    let mut state = [
        low ^ 0x736f_6d65_7073_6575,
        high ^ 0x646f_7261_6e64_6f6d,
        low ^ 0x6c79_6765_6e65_7261,
        high ^ 0x7465_6462_7974_6573,
    ];
    let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % 8);
    let last = word(rest) | (bytes.len() as u64) << 56;
    for block in whole.chunks_exact(8).map(word).chain([last]) {
        state[3] ^= block;
        round(&mut state);
        state[0] ^= block;
    }
    state[2] ^= 0xff;
    (0..3).for_each(|_| round(&mut state));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

/// Up to eight bytes, the first the least.
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}
