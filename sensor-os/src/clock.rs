//! The clocks of the shell: what the core takes as an argument is read here.
//!
//! Order, age and expiry follow the time since boot, counting suspend; the wall clock is only
//! carried along as what the machine claims.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapwing_sensor_core::Now;

use crate::sys;

/// This moment.
#[must_use]
pub(crate) fn now() -> Now {
    Now { monotonic_ns: sys::clock::boottime_ns(), wall_ms: unix_ms() }
}

/// What the wall clock claims, milliseconds since 1970.
#[must_use]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
