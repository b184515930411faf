//! How long to wait before the next attempt: full jitter over a window that grows.
//!
//! The window begins at [`RETRY_FIRST_MS`], stays within [`RETRY_UNASKED_MS_MAX`] until
//! Registration was asked, and then doubles up to [`RETRY_MS_MAX`]. What a server says overrides.

use crate::limits::{RETRY_FIRST_MS, RETRY_MS_MAX, RETRY_UNASKED_MS_MAX};

/// Delays between attempts, from a given seed.
#[derive(Clone, Debug)]
pub struct Backoff {
    window_ms: u64,
    window_ms_max: u64,
    random: u64,
}

impl Backoff {
    /// A backoff whose delays follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { window_ms: RETRY_FIRST_MS, window_ms_max: RETRY_UNASKED_MS_MAX, random: seed }
    }

    /// The delay before the next attempt, in milliseconds; the window grows.
    pub fn next_ms(&mut self) -> u64 {
        let delay = self.random() % self.window_ms;
        self.window_ms = (self.window_ms * 2).min(self.window_ms_max);
        delay
    }

    /// A delay within the first window, in milliseconds; nothing grows.
    pub fn jitter_ms(&mut self) -> u64 {
        self.random() % RETRY_FIRST_MS
    }

    /// Registration was asked: from here on the window may grow to its largest.
    pub fn asked(&mut self) {
        self.window_ms_max = RETRY_MS_MAX;
    }

    /// All is well: the next trouble begins with the first window.
    pub fn reset(&mut self) {
        self.window_ms = RETRY_FIRST_MS;
        self.window_ms_max = RETRY_UNASKED_MS_MAX;
    }

    /// splitmix64: small, and good enough to spread a fleet.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_to_its_bound_and_starts_again() {
        let mut backoff = Backoff::new(7);
        assert!(backoff.next_ms() < 2_000);
        for _ in 0..50 {
            assert!(backoff.next_ms() < 4_000);
        }
        backoff.asked();
        let longest = (0..50).map(|_| backoff.next_ms()).max().unwrap();
        assert!((60_000..300_000).contains(&longest), "{longest}");
        backoff.reset();
        assert!(backoff.next_ms() < 2_000);
    }

    #[test]
    fn delays_are_spread_over_the_window() {
        let firsts = (0..1_000).map(|seed| Backoff::new(seed).next_ms());
        let early = firsts.filter(|delay| *delay < 1_000).count();
        assert!((400..600).contains(&early), "{early}");
    }
}
