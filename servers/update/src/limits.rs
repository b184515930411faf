//! The bounds of the Update server, with their reasons.

/// Bytes of one part of a target at the most: a part and its answer's frames stay small beside
/// other answers on the connection, and a 10 MiB package takes 40 calls. A longer request gets this
/// much.
pub const PART_BYTES_MAX: u32 = 256 * 1024;
/// Parts read from the disk at once; each holds up to [`PART_BYTES_MAX`] of memory. One more waits.
pub const READS_MAX: usize = 16;
