//! Every bound of the intel cache, with its reason. The rules at the bounds are in the module
//! above.

/// The most indicators remembered: at about 300 bytes each, 60 MB. A machine that scans the
/// network shows 65,536 addresses in a day.
pub const ENTRIES_MAX: usize = 200_000;

/// The most elements remembered by id per indicator. When there were more, the whole graph is
/// searched once the verdict turns bad, which is rare.
pub const SIGHTED_ELEMENTS_MAX: usize = 8;

/// The most questions under way at once: enough to keep the line busy while the server thinks, few
/// enough that what arrives meanwhile gathers into full questions.
pub const QUESTIONS_IN_FLIGHT_MAX: usize = 4;

/// Bytes of the indicators of one question, about: with the longest domain on top it fits a call.
pub const QUESTION_BYTES_MAX: usize = 32 << 10;

/// A verdict is asked for again at the latest after this long, in milliseconds (24 h).
pub const RECHECK_MS_MAX: u64 = 86_400_000;

/// A verdict is asked for again at the earliest after this long, in milliseconds, whatever its
/// giver says: a giver with a wrong clock must not make us ask without end.
pub const RECHECK_MS_MIN: u64 = 60_000;

/// A stale verdict is asked for again after this long, in milliseconds.
pub const RECHECK_STALE_MS: u64 = 300_000;

/// The first wait after a question that got no answer, in milliseconds; it doubles up to
/// [`RETRY_MS_MAX`].
pub const RETRY_MS_MIN: u64 = 250;

/// The longest wait between attempts, in milliseconds.
pub const RETRY_MS_MAX: u64 = 30_000;

/// Sightings within this many milliseconds count as the same moment when the least recently seen
/// indicator is looked for.
pub const ORDER_MS: u64 = 60_000;
