//! Every bound of the analyst and its feeds, with its reason.

use std::time::Duration;

/// Evidence kept: at 4 KiB each, 4 GB; a MalOp service that is away for months still finds it all.
pub(crate) const EVIDENCE_MAX: u64 = 1_000_000;

/// Command outcomes kept: a fleet of 10,000 commanded ten times.
pub(crate) const OUTCOMES_MAX: u64 = 100_000;

/// Bytes of items in one page of a feed, exceeded by one item at the most: a quarter of a reply.
pub(crate) const FEED_PAGE_BYTES: usize = 2 << 20;

/// Stored values that one read of a feed looks at: what a filter may pass over at a time.
pub(crate) const FEED_SCAN_MAX: usize = 20_000;

/// Evidence written in one batch; the batch's own bound is 8,192 operations.
pub(crate) const RECORD_ITEMS_MAX: usize = 256;

/// Bytes of evidence after which a batch is written: a quarter of what a batch may hold, since the
/// item that passes it may be large.
pub(crate) const RECORD_BYTES: usize = 1 << 20;

/// How long a moved cursor may stay unwritten. What lies behind it is judged again after a crash,
/// which adds nothing but takes time.
pub(crate) const CURSOR_TIME: Duration = Duration::from_secs(2);

/// Entries that wait between the rebuilding thread and the analyst.
pub(crate) const REBUILD_QUEUE_MAX: usize = 64;

/// Answers that wait for the analyst: four questions are under way, and the feed of changes.
pub(crate) const ANSWERS_QUEUE_MAX: usize = 8;

/// How long a question may take.
pub(crate) const QUESTION_TIME: Duration = Duration::from_secs(10);

/// How long a read of the feed of changes may take: its longest wait and a little.
pub(crate) const CHANGES_TIME: Duration = Duration::from_secs(30);

/// How long to stay away from the feed of changes after it could not be read.
pub(crate) const CHANGES_PAUSE: Duration = Duration::from_secs(1);

/// How long the analyst waits at the most before it looks again, whatever it waits for.
pub(crate) const LOOK_TIME: Duration = Duration::from_secs(30);
