//! The journal: what sensors sent, as received, in one dense row of commit ids.
//!
//! What it is: the durable truth behind every acknowledgement and the feed that others follow by
//! cursor. It sits on the writer, so that many sensors share a flush.
//! What it is not: it decodes nothing; headers, bodies and head records are the caller's bytes.
//!
//! Invariants: an entry, its lane's head and its index record are durable together or not at all;
//! the newest partition has every live head; readers see only what is durable. `docs/store.md`,
//! STO-030 to STO-053, says the rest.

mod adopting;
mod opening;
mod partitions;
mod reading;
mod record;
mod retention;
mod shared;
mod sink;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(crate) use adopting::{adopt, decode_head};
pub use partitions::{DirectoryPartitions, MemoryPartitions, Partitions};
pub use reading::{LogRange, Page, PageLimit};
pub use record::{Entry, Head, LaneKey, LogKey};
pub use retention::{Kept, PartitionInfo, Retention, RetentionReport};
pub use sink::Append;

use crate::batch::Misuse;
use crate::error::{Blame, Operation, StoreError};
use crate::limits::{BODY_BYTES_MAX, HEAD_RECORD_BYTES_MAX, HEADER_BYTES_MAX, PARTITION_BYTES_MAX};
use crate::store::Store;
use crate::ticket::Ticket;
use crate::writer::{Refusal, Refused, Writer, WriterOptions};
use record::SEGMENT_END;
use shared::Shared;
use sink::{Command, JournalSink};

/// 16 random bytes that name this life of the journal, so that a reader with a cursor notices when
/// the row of commit ids is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incarnation {
    /// Keep what is stored; these bytes are used if the journal is created now.
    Keep([u8; 16]),
    /// Take these bytes in any case: after the journal was restored from a backup, or lost entries.
    /// Its boots go up as those of a restored one do.
    Renew([u8; 16]),
}

impl Incarnation {
    /// The bytes.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        match self {
            Self::Keep(bytes) | Self::Renew(bytes) => bytes,
        }
    }
}

/// How to open a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalOptions {
    /// The incarnation; its bytes come from the caller's source of randomness.
    pub incarnation: Incarnation,
    /// The wall time now, in milliseconds since 1970.
    pub wall_ms: u64,
    /// The bytes at which a partition is closed.
    pub partition_bytes_max: u64,
    /// The bounds of the writer.
    pub writer: WriterOptions,
}

impl JournalOptions {
    /// The usual bounds.
    #[must_use]
    pub fn new(incarnation: Incarnation, wall_ms: u64) -> Self {
        Self {
            incarnation,
            wall_ms,
            partition_bytes_max: PARTITION_BYTES_MAX,
            writer: WriterOptions::default(),
        }
    }
}

/// An open journal. Share it in an `Arc`; dropping it commits what waits and closes the files.
///
/// `append`, `forget_head`, `changed_past` and `room` never block on the disk; every other method
/// does and belongs into a pool for blocking work.
pub struct Journal {
    writer: Writer<JournalSink>,
    shared: Arc<Shared>,
}

impl Journal {
    /// Opens the journal in `partitions`, creating it if nothing is there. Each opening raises the
    /// boot counter, durably. Blocks.
    ///
    /// # Errors
    /// `Blame::Corrupt` where partitions are missing or contradict each other, otherwise as the
    /// back end says; nothing is created over what cannot be read.
    pub fn open(
        partitions: Arc<dyn Partitions>,
        options: &JournalOptions,
    ) -> Result<Self, StoreError> {
        let sink = opening::open(partitions, options)?;
        let shared = Arc::clone(&sink.shared);
        Ok(Self { writer: Writer::start(sink, options.writer)?, shared })
    }

    /// Queues an entry. The ticket resolves to its commit id once it is durable.
    ///
    /// # Errors
    /// The refused append and why: a bound of it, a full queue, or a stopped journal. A lane beyond
    /// `HEADS_MAX` is refused by the ticket.
    pub fn append(&self, append: Append) -> Result<Ticket<u64>, Box<Refused<Append>>> {
        if let Err(misuse) = check(&append) {
            return Err(Box::new(Refused { item: append, why: Refusal::Misuse(misuse) }));
        }
        self.writer.submit(Command::Append(append)).map_err(|refused| match refused.item {
            Command::Append(item) => Box::new(Refused { item, why: refused.why }),
            Command::ForgetHead(_) | Command::DropPartitions(_) | Command::ClosePartition(_) => {
                unreachable!("a writer gives back the item that it was given")
            }
        })
    }

    /// Removes the head of a lane whose sensor is gone for good, so that retention may drop its
    /// entries. The ticket resolves to the last commit id when that is durable.
    ///
    /// # Errors
    /// A full queue or a stopped journal.
    pub fn forget_head(&self, lane: LaneKey) -> Result<Ticket<u64>, Refusal> {
        self.writer.submit(Command::ForgetHead(lane)).map_err(|refused| refused.why)
    }

    /// Resolves when a refused append is worth another attempt.
    pub async fn room(&self) {
        self.writer.room().await;
    }

    /// The last durable commit id; 0 if there is none.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// Resolves when an entry behind `commit_id` is durable. It never resolves on a journal that
    /// has stopped: callers give it a deadline.
    pub async fn changed_past(&self, commit_id: u64) {
        loop {
            let listener = self.shared.changed.listen();
            if self.durable() > commit_id {
                return;
            }
            listener.await;
        }
    }

    /// The error that stopped the journal, if any.
    #[must_use]
    pub fn failure(&self) -> Option<StoreError> {
        self.writer.failure()
    }

    /// Resolves to the error that stopped the journal, when one does.
    pub async fn stopped(&self) -> StoreError {
        self.writer.stopped().await
    }

    /// The number of entries and bytes that wait for the writer.
    #[must_use]
    pub fn backlog(&self) -> (usize, usize) {
        self.writer.backlog()
    }

    /// The incarnation.
    #[must_use]
    pub fn incarnation(&self) -> [u8; 16] {
        self.shared.incarnation
    }

    /// How often the journal has been opened in this life, this time included.
    #[must_use]
    pub fn boots(&self) -> u64 {
        self.shared.boots
    }

    /// The entries from commit id `from` on. An empty page whose `next` is `from` means that there
    /// is nothing new.
    ///
    /// # Errors
    /// A damaged value, a missing entry, or a back end that cannot read.
    pub fn read_from(&self, from: u64, limit: PageLimit) -> Result<Page, StoreError> {
        reading::read_from(&self.shared, from, limit)
    }

    /// The entry `commit_id`; `None` if it is not durable yet or was dropped by retention.
    ///
    /// # Errors
    /// As for [`Journal::read_from`].
    pub fn entry(&self, commit_id: u64) -> Result<Option<Entry>, StoreError> {
        reading::entry(&self.shared, commit_id)
    }

    /// The head of a lane. While appends are under way it may be ahead of `durable`.
    ///
    /// # Errors
    /// A damaged value or a back end that cannot read.
    pub fn head(&self, lane: &LaneKey) -> Result<Option<Head>, StoreError> {
        reading::head(&self.shared, lane)
    }

    /// The heads behind `after`, in order of sensor and lane, at most `limit`.
    ///
    /// # Errors
    /// As for [`Journal::head`].
    pub fn heads(
        &self,
        after: Option<&LaneKey>,
        limit: usize,
    ) -> Result<Vec<(LaneKey, Head)>, StoreError> {
        reading::heads(&self.shared, after, limit)
    }

    /// The segments of `log` from number `from` on, with the commit ids that opened them. Opens
    /// partitions from the oldest on until `limit` segments are found.
    ///
    /// # Errors
    /// As for [`Journal::head`].
    pub fn segments(
        &self,
        log: &LogKey,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, u64)>, StoreError> {
        reading::segments(&self.shared, log, from, limit)
    }

    /// The durable entries of the segments `segments` of `log`, by commit id. For the segment a
    /// head stands in this costs one read per entry and no search.
    ///
    /// # Errors
    /// As for [`Journal::read_from`].
    pub fn log_range(
        &self,
        log: &LogKey,
        segments: RangeInclusive<u64>,
    ) -> Result<LogRange, StoreError> {
        reading::log_range(&self.shared, log, segments)
    }

    /// The partitions, oldest first.
    ///
    /// # Errors
    /// When the newest cannot be measured.
    pub fn partitions(&self) -> Result<Vec<PartitionInfo>, StoreError> {
        retention::partitions(&self.shared)
    }

    /// Drops the partitions whose time has come and that no live head needs.
    ///
    /// # Errors
    /// A stopped journal, or files that cannot be removed; those are removed at the next opening.
    pub fn retain(&self, retention: Retention) -> Result<RetentionReport, StoreError> {
        let report = retention::plan(&self.shared, retention)?;
        if report.dropped.is_empty() {
            return Ok(report);
        }
        let firsts = report.dropped.iter().map(|partition| partition.first).collect();
        self.order(Operation::Remove, Command::DropPartitions(firsts))?;
        retention::remove(&self.shared, &report.dropped)?;
        Ok(report)
    }

    /// Closes the newest partition, if it holds anything, and opens the next one: what is closed
    /// never changes again. Gives the last commit id in it; 0 where there is none. `wall_ms` is the
    /// wall time now, in milliseconds since 1970. Blocks.
    ///
    /// # Errors
    /// There are `PARTITIONS_MAX` already, or the journal stopped.
    pub fn close_partition(&self, wall_ms: u64) -> Result<u64, StoreError> {
        self.order(Operation::Create, Command::ClosePartition(wall_ms))
    }

    /// Runs `work` on the closed partition `first`; `None` where it was dropped. Appends wait for
    /// it only when they open a partition, other readers of closed partitions always: keep it
    /// short. Blocks.
    pub(crate) fn with_closed<T>(
        &self,
        first: u64,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.shared.with_partition(first, work)
    }

    fn order(&self, operation: Operation, command: Command) -> Result<u64, StoreError> {
        let stopped = || StoreError::new(operation, &self.shared.place, Blame::Stopped);
        self.writer
            .submit_blocking(command)
            .map_err(|refused| match refused.why {
                Refusal::Stopped(error) => error,
                Refusal::Full | Refusal::Misuse(_) | Refusal::Closed => stopped(),
            })?
            .wait()
    }

    /// Commits what waits and takes nothing more. Blocks. Reading goes on.
    pub fn close(&self) {
        self.writer.close();
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("place", &self.shared.place).finish_non_exhaustive()
    }
}

fn check(append: &Append) -> Result<(), Misuse> {
    let (header, body, head) = (append.header.len(), append.body.len(), append.head.len());
    if header > HEADER_BYTES_MAX {
        Err(Misuse::HeaderTooLong(header))
    } else if body > BODY_BYTES_MAX {
        Err(Misuse::BodyTooLong(body))
    } else if head > HEAD_RECORD_BYTES_MAX {
        Err(Misuse::HeadTooLong(head))
    } else if append.segment == SEGMENT_END {
        Err(Misuse::SegmentReserved)
    } else {
        Ok(())
    }
}
