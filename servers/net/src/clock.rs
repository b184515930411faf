//! The one place of a server that reads a clock.
//!
//! Cores take `now` as an argument; shells take it from here. Wall time orders nothing: it is shown
//! and compared with certificates. Monotonic time measures.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 by the wall clock; 0 for a clock set before that.
#[must_use]
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Milliseconds since this process first asked; never goes back.
#[must_use]
pub fn monotonic_ms() -> u64 {
    u64::try_from(since_start().as_millis()).unwrap_or(u64::MAX)
}

/// Nanoseconds since this process first asked; never goes back.
#[must_use]
pub fn monotonic_ns() -> u64 {
    u64::try_from(since_start().as_nanos()).unwrap_or(u64::MAX)
}

fn since_start() -> std::time::Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}
