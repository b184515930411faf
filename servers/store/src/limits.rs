//! Every bound of the store, each with its reason. What happens at a bound is written in
//! `docs/store.md` (STO-070 and following).
//!
//! Invariant: a bound is checked where the thing is built, so that a back end never meets more.

/// The longest key, in bytes. The longest key of the journal has 42; a tagging or policy key may
/// carry a name. Longer keys would crowd the index pages of every back end.
pub const KEY_BYTES_MAX: usize = 128;

/// The longest stored value in bytes, envelope included. The default back end splits a page at 16
/// entries: 16 values of 4 KiB fit its segment, while 64 KiB values would become separate files
/// which it neither syncs nor gives back.
pub const STORED_BYTES_MAX: usize = 4096;

/// Bytes that the envelope adds to a value: version (1) and CRC32C (4).
pub const ENVELOPE_BYTES: usize = 5;

/// The longest value a caller may store under one key, in bytes. Longer bodies go in parts.
pub const VALUE_BYTES_MAX: usize = STORED_BYTES_MAX - ENVELOPE_BYTES;

/// The most operations in one batch. A batch is held in memory and applied as a whole; 8,192
/// operations are twenty times what the largest journal entry needs.
pub const BATCH_OPERATIONS_MAX: usize = 8192;

/// The most key and value bytes in one batch: 4 MiB, eight times the largest journal entry, and
/// about 10 ms of writing.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// The most entries one scan returns, whatever the caller asks: 65,536 head records are the most
/// that a journal holds, and are read in one go at opening.
pub const SCAN_ENTRIES_MAX: usize = 65_536;

/// The most batches that wait for the writer. 4,096 chunks of 4 KiB are 16 MiB of memory, and at
/// the slowest disk that was measured (32 chunks in 57 ms) they are cleared in about 7 s.
pub const WRITER_QUEUE_MAX: usize = 4096;

/// The most bytes that wait for the writer: 64 MiB, so that large chunks cannot multiply the
/// bound above into gigabytes.
pub const WRITER_QUEUE_BYTES_MAX: usize = 64 << 20;

/// The most batches in one flush. 32 was enough to win 3.3 times the speed of single flushes; with
/// chunks of 140 bytes from thousands of sensors the sync itself dominates, so a group may grow
/// further as long as `GROUP_APPLY_MS_MAX` holds.
pub const GROUP_BATCHES_MAX: usize = 256;

/// A group takes no further batch once this many milliseconds were spent taking it up, so that the
/// first batch of a group never waits longer than this for the company it keeps.
pub const GROUP_APPLY_MS_MAX: u64 = 20;

/// Page cache of one open store, in bytes. At most two partitions are open, so a journal costs
/// 32 MiB of cache; the default of the back end is 1 GiB each.
pub const CACHE_BYTES: u64 = 16 << 20;

/// How often the back end writes by itself what nobody flushed, in milliseconds. The same thread
/// reclaims space, so it stays on although every acknowledged write is flushed before.
pub const FLUSH_EVERY_MS: u64 = 500;

/// How long opening a store may take, in seconds. A damaged store has been seen to open without
/// end; 100 MB open in well under a second, and a process that waits for ever tells nobody why.
pub const OPEN_SECONDS_MAX: u64 = 120;

/// A partition is closed when its entries reach this many bytes: 100 MB bound the time to open,
/// what one damaged file can spoil, and the space that is given back at once.
pub const PARTITION_BYTES_MAX: u64 = 100_000_000;

/// The most partitions of one journal. At 100 MB each that is 400 GB; their table is copied
/// into each new partition and must stay small.
pub const PARTITIONS_MAX: usize = 4096;

/// How far the boot counter of a journal that was copied, or lost entries, is put forward: beyond
/// all openings that its former life had after the copy was taken, since what is numbered by it
/// must never be used twice.
pub const BOOTS_SKIPPED: u64 = 1 << 16;

/// The most heads (a sensor has one per lane): 32,768 sensors on one server, three times the size
/// that a server is built for. All are copied when a partition opens.
pub const HEADS_MAX: usize = SCAN_ENTRIES_MAX;

/// The longest head record of a caller, in bytes: position, chain value and a few counters.
pub const HEAD_RECORD_BYTES_MAX: usize = 1024;

/// The longest header of a journal entry, in bytes: a chunk header has under 100.
pub const HEADER_BYTES_MAX: usize = 1024;

/// The longest body of a journal entry, in bytes: the largest frame is 64 KiB, and a keyframe part
/// never exceeds a frame; 256 KiB leave room for entries that do not come from a wire.
pub const BODY_BYTES_MAX: usize = 256 << 10;

/// The most entries in one page of a feed.
pub const PAGE_ENTRIES_MAX: usize = 4096;

/// The most header and body bytes in one page of a feed; a page ends with the entry that reaches
/// it, so it may be exceeded by one entry.
pub const PAGE_BYTES_MAX: usize = 4 << 20;

/// The most commit ids that one walk along a log returns: a segment lasts at most 24 hours, which
/// at four chunks a second are 345,600.
pub const WALK_COMMITS_MAX: usize = 1 << 20;
