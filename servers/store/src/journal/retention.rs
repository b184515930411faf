//! Retention: dropping whole partitions by age and size, except what a live head still needs.
//!
//! Invariants: the newest partition is never dropped; a partition is dropped only if no live head's
//! segment, from its start to its last entry, reaches into it; the table forgets a partition,
//! durably, before its files are removed; what was kept is reported with the reason.

use super::reading;
use super::record::{Head, LaneKey};
use super::shared::{Shared, Span};
use crate::error::StoreError;
use crate::limits::HEADS_MAX;

/// What may go. A partition goes when either bound asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Drop partitions whose last entry was received before this wall time, in milliseconds
    /// since 1970.
    pub before_wall_ms: Option<u64>,
    /// Drop the oldest partitions until the journal takes at most this many bytes on disk.
    pub bytes_max: Option<u64>,
    /// Keep this entry and all behind it, whatever their age: somebody has not read them yet.
    pub unread_from: Option<u64>,
}

/// A partition of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its first commit id.
    pub first: u64,
    /// The first commit id behind it; `None` for the newest.
    pub end: Option<u64>,
    /// When it was opened, by the wall clock of the entry that opened it.
    pub opened_wall_ms: u64,
    /// Its bytes on disk; for the newest as of now.
    pub bytes: u64,
}

/// Why a partition stayed although its time had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// The current segment of this lane reaches into it. A keyframe of that lane (a new segment)
    /// lets it go; of several such lanes the one whose segment began first is named.
    LiveSegment {
        /// The lane.
        lane: LaneKey,
        /// The commit id that opened the segment.
        segment_start: u64,
    },
    /// It holds entries that somebody has not read yet.
    Unread {
        /// The first of them.
        from: u64,
    },
}

/// What retention did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// The partitions that were dropped, oldest first.
    pub dropped: Vec<PartitionInfo>,
    /// The partitions that should have been dropped and why they stayed, oldest first.
    pub kept: Vec<(PartitionInfo, Kept)>,
    /// The bytes that the journal still takes.
    pub bytes: u64,
}

pub(crate) fn partitions(shared: &Shared) -> Result<Vec<PartitionInfo>, StoreError> {
    let newest_bytes = shared.with_newest(crate::store::Store::size_bytes)?;
    let table = shared.table();
    Ok(table
        .iter()
        .map(|(first, record)| PartitionInfo {
            first: *first,
            end: (record.end != 0).then_some(record.end),
            opened_wall_ms: record.opened_wall_ms,
            bytes: if record.end == 0 { newest_bytes } else { record.bytes },
        })
        .collect())
}

/// What a retention run would drop and keep.
pub(crate) fn plan(shared: &Shared, retention: Retention) -> Result<RetentionReport, StoreError> {
    let all = partitions(shared)?;
    let heads = reading::heads(shared, None, HEADS_MAX)?;
    let mut report = RetentionReport {
        bytes: all.iter().map(|partition| partition.bytes).sum(),
        ..RetentionReport::default()
    };
    for pair in all.windows(2) {
        let [partition, successor] = pair else { break };
        // Its last entry came before the one that opened its successor.
        let is_old = retention.before_wall_ms.is_some_and(|wall| successor.opened_wall_ms <= wall);
        let is_over = retention.bytes_max.is_some_and(|bytes_max| report.bytes > bytes_max);
        if !is_old && !is_over {
            continue;
        }
        let span = Span { first: partition.first, end: partition.end };
        let unread = retention.unread_from.filter(|from| span.end.is_none_or(|end| *from < end));
        match unread.map(|from| Kept::Unread { from }).or_else(|| needed_by(&heads, span)) {
            Some(kept) => report.kept.push((*partition, kept)),
            None => {
                report.bytes -= partition.bytes;
                report.dropped.push(*partition);
            }
        }
    }
    Ok(report)
}

fn needed_by(heads: &[(LaneKey, Head)], span: Span) -> Option<Kept> {
    heads
        .iter()
        .filter(|(_, head)| {
            head.last_commit >= span.first && span.end.is_none_or(|end| head.segment_start < end)
        })
        .min_by_key(|(_, head)| head.segment_start)
        .map(|(lane, head)| Kept::LiveSegment { lane: *lane, segment_start: head.segment_start })
}

/// Removes the files of partitions that the table has forgotten.
pub(crate) fn remove(shared: &Shared, dropped: &[PartitionInfo]) -> Result<(), StoreError> {
    // Under this lock no reader can open one of them again.
    let mut older = shared.older();
    for partition in dropped {
        older.take_if(|open| open.first == partition.first);
        shared.partitions.remove(partition.first)?;
    }
    Ok(())
}
