//! Bounds of the sensors' connections, with their reasons.

use std::time::Duration;

use lapwing_protocol::limits::{CHUNK_BYTES_MAX, FRAME_HEADER_BYTES};
use lapwing_server_core::delivery::Patience;
use lapwing_server_core::delivery::limits::{FRAMES_BURST, SHARE_BYTES};

/// Bytes of one receive buffer: the largest frame a sensor sends is a chunk.
pub(crate) const RECEIVE_BYTES: usize = CHUNK_BYTES_MAX + FRAME_HEADER_BYTES + 252;
/// Entries of one connection on their way to the disk; then the connection is not read from.
pub(crate) const STORING_MAX: usize = 64;
/// Reads of one connection, each of at most [`RECEIVE_BYTES`], before others get their turn: a
/// connection that always has more to say would hold a thread for ever otherwise.
pub(crate) const READS_MAX: u32 = 4;
/// How long a sensor is told to stay away from a draining or full server, in milliseconds.
pub(crate) const RETRY_AFTER_MS: u32 = 2_000;
/// How often it is looked for turns that nobody used.
pub(crate) const SHARE_TIME: Duration = Duration::from_millis(200);

/// What tests lower, and an operator in part.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Bytes of all sensors' bulk lanes on their way to the disk.
    pub in_flight_bytes_max: u64,
    /// How long a connection waits for what.
    pub patience: Patience,
    /// How long a peer may take to receive what is sent, before it is dropped as a slow reader.
    pub send_time: Duration,
    /// Frames besides chunks that a sensor may say at a stroke.
    pub frames_burst: u32,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            in_flight_bytes_max: SHARE_BYTES,
            patience: Patience::default(),
            send_time: Duration::from_secs(30),
            frames_burst: FRAMES_BURST,
        }
    }
}
