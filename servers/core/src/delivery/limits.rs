//! Bounds of the server's end of delivery, with their reasons.

/// Chunks a lane may have in flight beyond what is stored: a second of 250 ms chunks, many times
/// over, and few enough that a restart sends little again.
pub const WINDOW_CHUNKS: u64 = 256;
/// Bytes the bulk lane may have in flight: 64 chunks of 16 KiB, one megabyte a sensor.
pub const WINDOW_BYTES_BULK: u64 = 1 << 20;
/// Bytes the urgent lane may have in flight; at least one chunk always fits.
pub const WINDOW_BYTES_URGENT: u64 = 64 << 10;
/// Old logs of a lane whose end is remembered; an older one that comes back is taken as new,
/// and readers tell its chunks apart by their keys.
pub const RETIRED_LOGS_MAX: usize = 8;
/// Messages waiting to be sent to one sensor. Acks and Nacks are states, not queue entries;
/// when this is full, commands wait in their own durable queue.
pub const OUTGOING_MAX: usize = 64;
/// At most one Resync a minute and lane, in milliseconds.
pub const RESYNC_PAUSE_MS: u64 = 60_000;

const _: () = assert!(
    WINDOW_BYTES_URGENT >= lapwing_protocol::limits::CHUNK_BYTES_MAX as u64,
    "the urgent lane must always have credit for a chunk"
);
