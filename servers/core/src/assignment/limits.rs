//! The bounds of assignment, with their reasons.

/// A server that was not heard of for this long is dead: five heartbeats of two seconds.
pub const DEAD_AFTER_MS: u64 = 10_000;

/// Detection servers of one deployment. At 10,000 sensors each that is far beyond what one
/// Registration server is for; one more is refused with its first heartbeat.
pub const SERVERS_MAX: usize = 1_024;

/// When a sensor for which there is no room may ask again: an operator who adds capacity waits no
/// longer than this, and 10,000 waiting sensors ask 333 times a second.
pub const RETRY_FULL_MS: u64 = 30_000;
