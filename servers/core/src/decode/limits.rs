//! Bounds of a decoder, with their reasons.

/// The most memory that the table of one sensor takes, in bytes, and as much again for a keyframe
/// that is under way. A machine with 65,536 rows of 250 bytes fills a quarter of it; without the
/// bound the same rows of 8 KiB would be half a gigabyte. A chunk that goes beyond does not decode:
/// it is stored as it came, counted, and answered by a Resync.
pub const TABLE_BYTES_MAX: usize = 64 << 20;

/// What a row is counted with besides its fields and text: its places in the maps of rows, its
/// model, its id.
pub const ROW_OVERHEAD_BYTES: usize = 160;
