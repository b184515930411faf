//! Bounds of this crate, with what they cost and what happens when they are reached.
//!
//! Bounds that the wire knows are in [`lapwing_protocol::limits`]; sizes that a shell chooses are
//! the lengths of what it lends, see [`crate::Storage`].

use lapwing_protocol::limits::CHUNK_HEADER_BYTES_MAX;

/// Features of one fact or row: as many as a kind may have. A list of this length lives on the
/// stack while a fact is taken in, about 2.5 KiB.
pub const FIELDS_MAX: usize = lapwing_protocol::limits::FEATURES_MAX as usize;
/// Rows at the most: a row's slot and the mark of an empty place fit 16 bits.
pub const ROWS_MAX: usize = 65_535;
/// Bytes before each row in the arena: its slot, length of key, length of row.
pub const ROW_RECORD_BYTES: usize = 6;
/// Bytes before each chunk in the outbox: its length, sequence and chain.
pub const CHUNK_RECORD_BYTES: usize = 2 + 8 + 32;
/// The smallest open chunk: a header, a preamble and a row of a few numbers.
pub const CHUNK_BYTES_MIN: usize = 192;
/// Kept free in each chunk for what may have to follow: the end of a keyframe (19 bytes) and a
/// count of dropped facts (12 bytes).
pub const CHUNK_RESERVE_BYTES: usize = 19 + 12;
/// What a preamble takes at the most: boot, wall clock, string slots.
pub const PREAMBLE_BYTES_MAX: usize = 1 + 16 + 10 + 5;
/// Ways of one set of the string table: how many slots are looked at for one string.
pub const STRING_WAYS: usize = 4;
/// Strings shorter than this are written out: a slot's number is not shorter.
pub const STRING_BYTES_MIN: usize = 3;

/// Commands between receipt and outcome. One more is turned away and counted: it stays with the
/// server, which sends it again after the Hello that the sensor says once its inbox is empty.
pub const COMMANDS_MAX: usize = 4;

/// How long a server may take to answer a Hello, in milliseconds.
pub const GREETING_MS_MAX: u64 = 10_000;
/// How long a draining session waits for the last acknowledgements, in milliseconds.
pub const DRAINING_MS_MAX: u64 = 5_000;
/// Data in flight and no acknowledgement for this long is trouble, in milliseconds.
pub const PROGRESS_MS_MAX: u64 = 30_000;
/// Between two segments begun for a server that asked, in milliseconds; an earlier one waits.
pub const RESYNC_MS_MIN: u64 = 60_000;

/// The first retry comes at a random moment within this window, in milliseconds.
pub const RETRY_FIRST_MS: u64 = 2_000;
/// The window's largest size until Registration has been asked, in milliseconds.
pub const RETRY_UNASKED_MS_MAX: u64 = 4_000;
/// The window's largest size after that: 5 minutes, so that a fleet costs a returning server
/// little.
pub const RETRY_MS_MAX: u64 = 300_000;
/// A server is in trouble after this many failed attempts ...
pub const TROUBLE_ATTEMPTS: u32 = 2;
/// ... and this long after the session was lost, in milliseconds.
pub const TROUBLE_MS: u64 = 5_000;
/// A session that lived this long was a good one: waiting starts from its beginning again.
pub const STABLE_MS: u64 = 10_000;

const _: () =
    assert!(CHUNK_BYTES_MIN > CHUNK_HEADER_BYTES_MAX + PREAMBLE_BYTES_MAX + CHUNK_RESERVE_BYTES);
const _: () =
    assert!(RETRY_FIRST_MS <= RETRY_UNASKED_MS_MAX && RETRY_UNASKED_MS_MAX < RETRY_MS_MAX);

/// Bytes of a Hello at the most, but for its three texts: what is always there, and each lane.
pub const HELLO_BYTES_MAX: [usize; 2] = [128, 512];
