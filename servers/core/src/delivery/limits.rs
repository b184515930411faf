//! Bounds of the server's end of delivery, with their reasons.

/// Chunks a lane may have in flight beyond what is stored: a second of 250 ms chunks, many times
/// over, and few enough that a restart sends little again.
pub const WINDOW_CHUNKS: u64 = 256;
/// Bytes the bulk lane may have in flight: 64 chunks of 16 KiB, one megabyte a sensor.
pub const WINDOW_BYTES_BULK: u64 = 1 << 20;
/// Bytes the urgent lane may have in flight; at least one chunk always fits.
pub const WINDOW_BYTES_URGENT: u64 = 64 << 10;
/// Bytes of credit with which a session of the bulk lane begins while less than half of the way to
/// the disk is taken: [`WINDOW_CHUNKS`] of the smallest chunks, so that a sensor with a backlog of
/// them does not wait for its first Ack. Beyond that half a session begins with one chunk.
pub const WINDOW_BYTES_FIRST: u64 = WINDOW_CHUNKS * CHUNK_COST_MIN;
/// Bytes the bulk lane may have in flight while the disk is nearly full.
pub const WINDOW_BYTES_HIGH: u64 = 64 << 10;
/// What a chunk counts at least, in bytes: the store writes values of up to 4 KiB, and a small
/// chunk costs as much of its time as one of these.
pub const CHUNK_COST_MIN: u64 = 4 << 10;
/// Bytes of all sensors' bulk lanes on their way to the disk, as shipped: 3,072 chunks, of the
/// 4,096 that the store's queue holds, so that the urgent lane finds room there; and at 50 MB/s a
/// quarter of a second, which is what an urgent chunk waits for at most.
pub const SHARE_BYTES: u64 = 12 << 20;
/// The least of that: four sensors with one of the largest chunks each.
pub const SHARE_BYTES_MIN: u64 = 64 << 10;
/// A turn: two of the largest chunks, so that whoever has one can always send.
pub const TURN_BYTES: u64 = 32 << 10;
/// What is held for a sensor at first, or while it is told to stay away: two turns, so that some
/// hundreds of sensors that say little leave room on the way to the disk for the others.
pub const ABSENT_BYTES_MAX: u64 = 2 * TURN_BYTES;
/// How long a turn is held, in milliseconds: longer than the way to the sensor and back.
pub const TURN_LAPSE_MS: u64 = 1_000;
/// A sensor that uses nothing of its turns for so long gets no more of them, in milliseconds: the
/// way to it and back is shorter, mostly, and what a silent sensor holds should be little.
pub const TURN_DOUBT_MS: u64 = 250;
/// The shortest time after which a refused sensor may come back, in milliseconds.
pub const TURN_RETRY_MS_MIN: u64 = 20;
/// The longest, in milliseconds: a sensor that sees nothing acknowledged for 30 s goes elsewhere,
/// and should have tried a few times before.
pub const TURN_RETRY_MS_MAX: u64 = 5_000;
/// Old logs of a lane whose end is remembered; an older one that comes back is taken as new,
/// and readers tell its chunks apart by their keys.
pub const RETIRED_LOGS_MAX: usize = 8;
/// Messages waiting to be sent to one sensor. Acks and Nacks are states, not queue entries;
/// when this is full, commands wait in their own durable queue.
pub const OUTGOING_MAX: usize = 64;
/// A connection without a Hello is given up after this long, in milliseconds: whoever has a
/// certificate may ping for ever otherwise, and hold a place.
pub const HELLO_MS_MAX: u64 = 60_000;
/// A begun frame must be whole after this long, in milliseconds: 16 KiB at 5 kbit/s.
pub const FRAME_MS_MAX: u64 = 30_000;
/// A begun frame must grow within this long, in milliseconds.
pub const FRAME_PROGRESS_MS_MAX: u64 = 10_000;
/// Frames besides chunks that a session may say at a stroke: the Jumps, marks, pongs and parts
/// of answers of a busy sensor, many times over. Beyond it and [`FRAMES_PER_S`] it is not read from
/// for a while; each chunk that is taken gives one back.
pub const FRAMES_BURST: u32 = 256;
/// The same a second, on average: an honest sensor says one in some seconds.
pub const FRAMES_PER_S: u32 = 16;
/// What a Hello counts as: it makes the server look logs up and write some rows to the disk. So a
/// session may say four at a stroke, then one in four seconds.
pub const HELLO_FRAMES: u32 = 64;
/// At most one Resync a minute and lane, in milliseconds.
pub const RESYNC_PAUSE_MS: u64 = 60_000;

const _: () = assert!(
    TURN_BYTES >= lapwing_protocol::limits::CHUNK_BYTES_MAX as u64
        && WINDOW_BYTES_HIGH >= TURN_BYTES
        && SHARE_BYTES_MIN / 4 >= lapwing_protocol::limits::CHUNK_BYTES_MAX as u64,
    "whoever has a turn must be able to send its largest chunk"
);
const _: () = assert!(
    WINDOW_BYTES_URGENT >= lapwing_protocol::limits::CHUNK_BYTES_MAX as u64,
    "the urgent lane must always have credit for a chunk"
);
