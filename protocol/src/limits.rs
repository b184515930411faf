//! Every bound of the wire, with what it costs and why it is this large.
//!
//! A bound that a peer can reach has a rule in `docs/protocol.md` for what happens there. Bounds
//! of one process only (queues, caches) live in the limits file of their crate.

/// Bytes of a frame header: body length and kind.
pub const FRAME_HEADER_BYTES: usize = 4;
/// Largest frame, header included: 64 KiB, one buffer per connection on a server.
pub const FRAME_BYTES_MAX: usize = 65_536;
/// Largest frame body.
pub const FRAME_BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - FRAME_HEADER_BYTES;
/// Largest frame before the peer is authenticated: holds a CSR and a token, and little else.
pub const FRAME_BYTES_UNAUTHENTICATED_MAX: usize = 4_096;
/// The smallest receive buffer a sensor may announce: a Command and a HelloAck fit.
pub const RECEIVE_BYTES_MIN: usize = 512;

/// A chunk as spooled (header and body). 16 KiB: one TLS record, and four journal values.
pub const CHUNK_BYTES_MAX: usize = 16_384;
/// Bytes a chunk header can need at the most, reserved when a chunk is filled.
pub const CHUNK_HEADER_BYTES_MAX: usize = 56;
/// Facts in one chunk: bounds the work of one decode to about a millisecond.
pub const CHUNK_FACTS_MAX: u64 = 1_024;
/// How long an open chunk may wait for more facts, in milliseconds.
pub const CHUNK_AGE_MS_MAX: u64 = 250;

/// One text, byte string or hash value. Longer ones are cut and marked (`truncated`).
pub const VALUE_BYTES_MAX: usize = 4_096;
/// One row in canonical form; two of them always fit a chunk.
pub const ROW_BYTES_MAX: usize = 8_064;
/// A natural key in canonical form: a path of 4 KiB would not fit, keys are numbers and names.
pub const KEY_BYTES_MAX: usize = 320;
/// Features of one kind: one bit each in an op's bitmap.
pub const FEATURES_MAX: u16 = 64;
/// String table slots a log may use: 4,096 x 255 bytes bounds a server's table at 1 MiB a sensor.
pub const STRING_SLOTS_MAX: u32 = 4_096;
/// The longest string that may take a slot; longer ones are written out each time.
pub const STRING_SLOT_BYTES_MAX: usize = 255;
/// Rows of one sensor's table, unless the server announces fewer.
pub const ROWS_MAX: u32 = 65_536;
/// Kinds an agent may define in one log.
pub const DEFINED_KINDS_MAX: usize = 64;

/// Sequences of chunks: 292 years at a thousand million a second, and one more never overflows.
pub const SEQ_MAX: u64 = u64::MAX >> 1;
/// Chunks between two chain marks.
pub const CHAIN_MARK_CHUNKS: u64 = 64;
/// A segment ends when its deltas reach this many times its keyframe ...
pub const SEGMENT_DELTA_RATIO: u64 = 32;
/// ... and at least this many bytes.
pub const SEGMENT_DELTA_BYTES_MIN: u64 = 65_536;
/// A segment ends after this long, so that retention never meets an old keyframe (24 h, in ms).
pub const SEGMENT_AGE_MS_MAX: u64 = 86_400_000;

/// Lanes of a sensor.
pub const LANES: usize = 2;
/// Capabilities in a Hello.
pub const CAPABILITIES_MAX: usize = 16;
/// Servers in a log head's `elsewhere`; more are merged into the oldest.
pub const ELSEWHERE_MAX: usize = 8;
/// A name of a machine, server, version or operating system, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// An expression of the query language, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 4_096;

/// Body of all parts of one reply on the peer plane.
pub const REPLY_BYTES_MAX: usize = 8 << 20;
/// Calls under way on one connection; one more is answered `Busy`.
pub const CALLS_MAX: usize = 64;
/// Indicators in one Classify call: about 16 KiB of hashes.
pub const CLASSIFY_KEYS_MAX: usize = 256;
/// Records in one page of a feed.
pub const FEED_PAGE_MAX: u32 = 1_024;
/// Longest wait of a long-polled feed, in milliseconds: below every idle limit.
pub const FEED_WAIT_MS_MAX: u32 = 20_000;

/// Silence after which a Ping is due, in milliseconds.
pub const PING_MS: u64 = 30_000;
/// Silence after which a connection is given up, in milliseconds.
pub const IDLE_MS_MAX: u64 = 90_000;

const _: () = assert!(FRAME_BODY_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(CHUNK_BYTES_MAX + 64 <= FRAME_BODY_BYTES_MAX);
const _: () = assert!(2 * ROW_BYTES_MAX + CHUNK_HEADER_BYTES_MAX <= CHUNK_BYTES_MAX);
const _: () = assert!(VALUE_BYTES_MAX < ROW_BYTES_MAX);
const _: () = assert!(FEED_WAIT_MS_MAX as u64 * 2 < IDLE_MS_MAX);
const _: () = assert!(RECEIVE_BYTES_MIN <= FRAME_BYTES_UNAUTHENTICATED_MAX);
