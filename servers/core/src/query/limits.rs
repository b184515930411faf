//! Every bound of a query, with its reason. What happens at each is in `docs/query.md`.

/// Steps of a path: longer chains than eight are a loop in somebody's head.
pub const STEPS_OF_PATH_MAX: usize = 8;

/// Conditions nested in each other: a parser that recurses must know where to stop.
pub const NESTING_MAX: usize = 32;

/// Values in one list of `in`.
pub const LIST_MAX: usize = 256;

/// Columns that may be asked for: one for each feature of the widest kind.
pub const COLUMNS_MAX: usize = 64;

/// Rows of one answer, whatever is asked: what a page or a terminal can show, and more.
pub const ROWS_MAX: u32 = 10_000;

/// Text and cells of one answer, in bytes: half of what one reply may hold.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Work of one query: each element looked at and each link followed is one step. Ten times the
/// elements a graph holds, about a second.
pub const WORK_MAX: u64 = 10_000_000;

/// Work that counts as one millisecond of the time a caller allows: 12,000 to 28,000 elements a
/// millisecond were measured over a graph of 750,000; a margin below, so that a query keeps its
/// time.
pub const WORK_PER_MS: u64 = 8_000;

/// Work between two moments at which changes may be applied to the graph: about 1 ms, a small part
/// of what a fact may wait.
pub const SLICE_WORK: u64 = 10_000;
