//! Ends that nobody planned, for every engine: a writer is killed with -9, and the power of its
//! file system is cut. What was acknowledged is there afterwards, whole, once, and the store opens.
//!
//! `LAPWING_KILLS` and `LAPWING_POWER_CUTS` set how many rounds each engine gets.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod cut;
mod kill;
mod shutdown;
mod writer;

/// The number of rounds that `variable` asks for.
fn rounds(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// Numbers that repeat with their seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
