//! The bounds of sensor management, with their reasons.

/// A sensor that was not seen for this long is stale: a machine that is switched off over night is
/// not, one that nobody switched on for a day is.
pub const STALE_AFTER_MS: u64 = 24 * 3_600 * 1_000;
/// A server's word on who is connected counts for this long: ten polls.
pub const SNAPSHOT_AGE_MS_MAX: u64 = 10_000;
/// The last sight of a connected sensor is stored this often at the most: one write a minute and
/// sensor, instead of one a second.
pub const SEEN_STORED_EVERY_MS: u64 = 60_000;
/// Sensors of one fleet, about 1 KiB each. More are not shown, and the shell counts and logs them.
pub const SENSORS_MAX: usize = 65_536;
/// Health of one sensor, in bytes: 40 parts with a sentence each. What does not fit is left out,
/// whole parts at a time.
pub const HEALTH_BYTES_MAX: usize = 8_192;

/// Sensors in one order: two rows each must fit one batch of the store. More are refused as too
/// large; the caller orders in several batches.
pub const ORDER_SENSORS_MAX: usize = 2_048;
/// Actions without an outcome, about 200 bytes each; one order more is refused as busy.
pub const OPEN_ACTIONS_MAX: usize = 65_536;
/// Actions that are remembered, open ones included. Beyond it the oldest batches that are finished
/// are forgotten, whole batches at a time.
pub const ACTIONS_MAX: usize = 131_072;
/// How long an action waits where the order does not say: a day.
pub const EXPIRES_AFTER_MS_DEFAULT: u64 = 24 * 3_600 * 1_000;
/// How long an action may wait at the most: 30 days.
pub const EXPIRES_AFTER_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;
/// How long after its end the outcome of a queued action is waited for: the sensor may have begun
/// it in time, and its outcome is on its way.
pub const OUTCOME_GRACE_MS: u64 = 60_000;
/// The pause before a command is put again after a failure.
pub const PUT_RETRY_MS: u64 = 2_000;
/// What happened, for a person, in bytes; the rest is cut.
pub const DETAIL_BYTES_MAX: usize = 512;
