//! The journal's side of the writer thread: it numbers entries, builds their batches and opens new
//! partitions.
//!
//! Invariants: commit ids are dense in the order of submission; an entry, its head and its index
//! record are one batch; a new partition is durable, heads and table included, before the first
//! entry goes there, and what those heads speak of was synced before.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::record::{
    self, Entry, HEAD, Head, LaneKey, LogKey, META, Meta, PartitionRecord, SEGMENT_END,
};
use super::shared::{Partition, Shared};
use crate::batch::{Batch, Misuse};
use crate::error::{Blame, Operation, StoreError};
use crate::limits::{HEADS_MAX, PARTITIONS_MAX, SCAN_ENTRIES_MAX};
use crate::store::{Scan, Store};
use crate::writer::{Sink, gather};

const DAY_MS: u64 = 86_400_000;

/// What one append costs in the queue beside its bytes.
const APPEND_OVERHEAD_BYTES: usize = 160;

/// An entry to append with the head record it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The log it belongs to.
    pub log: LogKey,
    /// The segment of that log; the first entry of another segment is put into the index. Any
    /// number but `u64::MAX`, rising within a log.
    pub segment: u64,
    /// When it was received, by the caller's wall clock, in milliseconds since 1970.
    pub received_wall_ms: u64,
    /// The caller's header, at most `HEADER_BYTES_MAX`.
    pub header: Vec<u8>,
    /// The body as received, at most `BODY_BYTES_MAX`.
    pub body: Vec<u8>,
    /// The caller's record for the head of the lane, at most `HEAD_RECORD_BYTES_MAX`.
    pub head: Vec<u8>,
}

/// What the journal's thread is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Append(Append),
    ForgetHead(LaneKey),
    DropPartitions(Vec<u64>),
    ClosePartition(u64),
}

/// What the sink keeps of a head, to number and link without reading.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) log: [u8; 16],
    pub(crate) segment: u64,
    pub(crate) segment_start: u64,
    pub(crate) last_commit: u64,
}

pub(crate) struct JournalSink {
    pub(crate) shared: Arc<Shared>,
    pub(crate) heads: BTreeMap<LaneKey, Position>,
    /// What the entries of the running group put; applied as one batch.
    pub(crate) gathered: Batch,
    pub(crate) next_commit_id: u64,
    pub(crate) partition_bytes: u64,
    pub(crate) partition_bytes_max: u64,
}

impl Sink for JournalSink {
    type Item = Command;
    type Receipt = u64;

    fn place(&self) -> Arc<str> {
        Arc::clone(&self.shared.place)
    }

    fn weigh(item: &Command) -> usize {
        match item {
            Command::Append(append) => {
                APPEND_OVERHEAD_BYTES + append.header.len() + append.body.len() + append.head.len()
            }
            Command::ForgetHead(_) | Command::ClosePartition(_) => APPEND_OVERHEAD_BYTES,
            Command::DropPartitions(firsts) => APPEND_OVERHEAD_BYTES + 8 * firsts.len(),
        }
    }

    fn apply(&mut self, item: Command) -> Result<u64, StoreError> {
        match item {
            Command::Append(append) => self.append(append),
            Command::ForgetHead(lane) => self.forget_head(lane),
            Command::DropPartitions(firsts) => self.drop_partitions(&firsts),
            Command::ClosePartition(wall_ms) => self.close_partition(wall_ms),
        }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.apply_gathered()?;
        self.shared.with_newest(Store::sync)?;
        self.shared.durable.store(self.next_commit_id - 1, Ordering::Release);
        self.shared.changed.notify(usize::MAX);
        Ok(())
    }
}

impl JournalSink {
    fn append(&mut self, append: Append) -> Result<u64, StoreError> {
        let before = self.heads.get(&append.log.lane).copied();
        if before.is_none() && self.heads.len() >= HEADS_MAX {
            return Err(self.misuse(Misuse::HeadsFull));
        }
        self.turn_partition(append.received_wall_ms)?;
        let commit_id = self.next_commit_id;
        let mut batch = Batch::new();
        let position =
            self.link(&append, before, &mut batch).map_err(|misuse| self.misuse(misuse))?;
        let previous = match before {
            Some(before) if before.log == append.log.log => before.last_commit,
            Some(_) => self.end_of_left_log(&append.log)?,
            None => 0,
        };
        let lane = append.log.lane;
        let Append { log, segment, received_wall_ms, header, body, head } = append;
        let segment_start = position.segment_start;
        let entry = Entry {
            commit_id,
            log,
            segment,
            segment_start,
            previous,
            received_wall_ms,
            header,
            body,
        };
        let head = position.with_record(head);
        record::entry_parts(&entry, |part, value| {
            batch.put(&record::entry_key(commit_id, part), value)
        })
        .and_then(|()| batch.put(&record::head_key(&lane), &head.encode()))
        .map_err(|misuse| self.misuse(misuse))?;
        self.partition_bytes += batch.bytes() as u64;
        self.gather(batch)?;
        self.heads.insert(lane, position);
        self.next_commit_id += 1;
        Ok(commit_id)
    }

    /// The head's new position; puts index records where a segment opens or a log is left.
    fn link(
        &self,
        append: &Append,
        before: Option<Position>,
        batch: &mut Batch,
    ) -> Result<Position, Misuse> {
        let commit_id = self.next_commit_id;
        let mut position = Position {
            log: append.log.log,
            segment: append.segment,
            segment_start: commit_id,
            last_commit: commit_id,
        };
        let same_log = before.filter(|before| before.log == append.log.log);
        match same_log.filter(|before| before.segment == append.segment) {
            Some(before) => position.segment_start = before.segment_start,
            None => batch
                .put(&record::index_key(&append.log, append.segment), &commit_id.to_le_bytes())?,
        }
        if let (Some(before), None) = (before, same_log) {
            let left = LogKey { lane: append.log.lane, log: before.log };
            batch.put(&record::index_key(&left, SEGMENT_END), &before.last_commit.to_le_bytes())?;
        }
        Ok(position)
    }

    /// The last commit of a log that is entered again, if the newest partition knows it.
    fn end_of_left_log(&mut self, log: &LogKey) -> Result<u64, StoreError> {
        self.apply_gathered()?;
        let key = record::index_key(log, SEGMENT_END);
        let value = self.shared.with_newest(|store| store.get(&key))?;
        Ok(value.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes))
    }

    fn forget_head(&mut self, lane: LaneKey) -> Result<u64, StoreError> {
        let mut batch = Batch::new();
        if let Some(position) = self.heads.get(&lane) {
            let log = LogKey { lane, log: position.log };
            batch
                .put(&record::index_key(&log, SEGMENT_END), &position.last_commit.to_le_bytes())
                .and_then(|()| batch.delete(&record::head_key(&lane)))
                .map_err(|misuse| self.misuse(misuse))?;
            self.gather(batch)?;
            self.heads.remove(&lane);
        }
        Ok(self.next_commit_id - 1)
    }

    /// Takes partitions out of the table; their files are removed once this is durable.
    fn drop_partitions(&mut self, firsts: &[u64]) -> Result<u64, StoreError> {
        let mut batch = Batch::new();
        for first in firsts {
            batch.delete(&record::partition_key(*first)).map_err(|misuse| self.misuse(misuse))?;
        }
        self.gather(batch)?;
        self.shared.table().retain(|first, _| !firsts.contains(first));
        Ok(self.next_commit_id - 1)
    }

    /// Opens a new partition behind everything that came before.
    fn close_partition(&mut self, wall_ms: u64) -> Result<u64, StoreError> {
        let (first, opened_wall_ms, count) = self.newest();
        if first != self.next_commit_id {
            if count >= PARTITIONS_MAX {
                return Err(self.misuse(Misuse::PartitionsFull));
            }
            self.open_partition(first, wall_ms.max(opened_wall_ms))?;
        }
        Ok(self.next_commit_id - 1)
    }

    /// The newest partition's first commit id and time of opening, and how many there are.
    fn newest(&self) -> (u64, u64, usize) {
        let table = self.shared.table();
        let newest = table.last_key_value();
        let (first, wall_ms) = newest.map_or((0, 0), |(first, at)| (*first, at.opened_wall_ms));
        (first, wall_ms, table.len())
    }

    fn gather(&mut self, batch: Batch) -> Result<(), StoreError> {
        gather(&mut self.gathered, batch, |full| self.shared.with_newest(|store| store.apply(full)))
    }

    fn apply_gathered(&mut self) -> Result<(), StoreError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.gathered);
        self.shared.with_newest(|store| store.apply(batch))
    }

    /// Opens a new partition when the newest is full or a later day has begun.
    fn turn_partition(&mut self, wall_ms: u64) -> Result<(), StoreError> {
        let (first, opened_wall_ms, count) = self.newest();
        let is_due = self.partition_bytes >= self.partition_bytes_max
            || wall_ms / DAY_MS > opened_wall_ms / DAY_MS;
        if !is_due || first == self.next_commit_id {
            return Ok(());
        }
        if count >= PARTITIONS_MAX {
            log::warn!(
                "{}: the journal keeps {count} partitions and opens no more; \
                        set a shorter retention",
                self.shared.place
            );
            self.partition_bytes = 0;
            return Ok(());
        }
        self.open_partition(first, wall_ms)
    }

    fn open_partition(&mut self, old_first: u64, wall_ms: u64) -> Result<(), StoreError> {
        self.apply_gathered()?;
        let shared = Arc::clone(&self.shared);
        let first = self.next_commit_id;
        // The new heads must not speak of entries that a power cut could still take.
        let size = shared.with_newest(|store| store.sync().and_then(|()| store.size_bytes()))?;
        let mut table = shared.table().clone();
        if let Some(record) = table.get_mut(&old_first) {
            record.end = first;
            record.bytes = size;
        }
        table.insert(first, PartitionRecord { end: 0, opened_wall_ms: wall_ms, bytes: 0 });

        // Held throughout: two partitions are open now, and no reader may open a third.
        let mut older = shared.older();
        *older = None;
        let store = shared.partitions.create(first)?;
        shared.with_newest(|newest| copy_heads(newest, &*store))?;
        let meta = Meta { incarnation: shared.incarnation, boots: shared.boots };
        finish_partition(&*store, &table, &meta)?;
        shared.with_newest(|newest| mark_successor(newest, first, &table))?;

        let mut newest = shared.newest.write().unwrap_or_else(PoisonError::into_inner);
        *older = Some(std::mem::replace(&mut *newest, Partition { first, store }));
        *shared.table() = table;
        self.partition_bytes = 0;
        Ok(())
    }

    fn misuse(&self, misuse: Misuse) -> StoreError {
        StoreError::new(Operation::Apply, &self.shared.place, Blame::Caller(misuse))
    }
}

impl Position {
    pub(crate) const fn of(head: &Head) -> Self {
        Self {
            log: head.log,
            segment: head.segment,
            segment_start: head.segment_start,
            last_commit: head.last_commit,
        }
    }

    const fn with_record(&self, record: Vec<u8>) -> Head {
        Head {
            log: self.log,
            segment: self.segment,
            segment_start: self.segment_start,
            last_commit: self.last_commit,
            record,
        }
    }
}

fn copy_heads(from: &dyn Store, to: &dyn Store) -> Result<(), StoreError> {
    let mut after = vec![HEAD];
    loop {
        let mut batch = Batch::new();
        let mut last = Vec::new();
        let scan = Scan::range(&after, &[HEAD + 1], SCAN_ENTRIES_MAX);
        from.scan_sealed(&scan, &mut |key, sealed| {
            if batch.put_sealed(key, sealed).is_err() {
                return ControlFlow::Break(());
            }
            last = key.to_vec();
            ControlFlow::Continue(())
        })?;
        if batch.is_empty() {
            return Ok(());
        }
        to.apply(batch)?;
        last.push(0);
        after = last;
    }
}

/// Writes the table and, last, the record that makes a partition count; then syncs.
pub(crate) fn finish_partition(
    store: &dyn Store,
    table: &BTreeMap<u64, PartitionRecord>,
    meta: &Meta,
) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    table
        .iter()
        .try_for_each(|(first, record)| batch.put(&record::partition_key(*first), &record.encode()))
        .and_then(|()| batch.put(META, &meta.encode()))
        .map_err(|misuse| {
            StoreError::new(Operation::Create, store.place(), Blame::Caller(misuse))
        })?;
    store.apply(batch)?;
    store.sync()
}

/// Notes in a partition which one follows it, so that the loss of that one is noticed.
pub(crate) fn mark_successor(
    store: &dyn Store,
    first: u64,
    table: &BTreeMap<u64, PartitionRecord>,
) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    let Some(record) = table.get(&first) else { return Ok(()) };
    batch.put(&record::partition_key(first), &record.encode()).map_err(|misuse| {
        StoreError::new(Operation::Create, store.place(), Blame::Caller(misuse))
    })?;
    store.apply(batch)?;
    store.sync()
}
