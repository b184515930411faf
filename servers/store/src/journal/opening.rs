//! Opening a journal: which partitions count, what must be there, where numbering continues.
//!
//! Invariants: nothing is created over something that exists but cannot be read; a partition whose
//! creation was interrupted held no entry and is removed; a missing partition, a missing newest
//! entry or a head beyond the last entry is damage.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::RwLock;
use std::sync::atomic::AtomicU64;

use event_listener::Event;

use super::partitions::Partitions;
use super::reading::entry_in;
use super::record::{self, ENTRY, HEAD, Head, LaneKey, META, Meta, PARTITION, PartitionRecord};
use super::shared::{Partition, Shared};
use super::sink::{JournalSink, Position, finish_partition, mark_successor};
use super::{Incarnation, JournalOptions};
use crate::batch::Batch;
use crate::error::{Blame, Operation, StoreError};
use crate::limits::{BOOTS_SKIPPED, SCAN_ENTRIES_MAX};
use crate::store::{Scan, Store};

const FIRST_COMMIT_ID: u64 = 1;

/// A partition with the record that makes it count.
pub(super) type Complete = (Partition, Meta);

pub(crate) fn open(
    partitions: Arc<dyn Partitions>,
    options: &JournalOptions,
) -> Result<JournalSink, StoreError> {
    let mut listed = partitions.list()?;
    listed.sort_unstable();
    let (newest, incomplete) = newest_complete(&*partitions, &listed)?;
    if let Some(newest) = &newest {
        check_successor(newest)?;
    }
    for first in &incomplete {
        log::warn!(
            "{}: removing partition {first:016x}, whose creation was interrupted",
            partitions.place()
        );
        partitions.remove(*first)?;
    }
    let sink = match newest {
        Some(newest) => {
            listed.retain(|first| !incomplete.contains(first));
            reopen(partitions, newest, &listed, options)?
        }
        None => create(partitions, options)?,
    };
    Ok(sink)
}

/// The newest partition whose creation was finished, and later ones whose was not.
pub(super) fn newest_complete(
    partitions: &dyn Partitions,
    listed: &[u64],
) -> Result<(Option<Complete>, Vec<u64>), StoreError> {
    let mut incomplete = Vec::new();
    for first in listed.iter().rev() {
        match partitions.open(*first) {
            Err(StoreError { blame: Blame::Missing, .. }) => {}
            Err(error) => return Err(error),
            Ok(store) => {
                if let Some(meta) = read_meta(&*store)? {
                    return Ok((Some((Partition { first: *first, store }, meta)), incomplete));
                }
                if last_commit_id(&*store)?.is_some() {
                    let what = "it has entries but no record of the journal";
                    return Err(StoreError::corrupt(Operation::Open, store.place(), what));
                }
            }
        }
        incomplete.push(*first);
        // A new partition is begun only behind a complete one, so at most one is interrupted.
        if incomplete.len() > 1 {
            let what = "more than one partition is incomplete";
            return Err(StoreError::corrupt(Operation::Open, partitions.place(), what));
        }
    }
    Ok((None, incomplete))
}

fn read_meta(store: &dyn Store) -> Result<Option<Meta>, StoreError> {
    store
        .get(META)?
        .map(|bytes| {
            Meta::decode(&bytes).ok_or_else(|| {
                StoreError::corrupt(Operation::Open, store.place(), "the journal's record is short")
            })
        })
        .transpose()
}

pub(super) fn read_table(store: &dyn Store) -> Result<BTreeMap<u64, PartitionRecord>, StoreError> {
    let scan = Scan::range(&[PARTITION], &[PARTITION + 1], SCAN_ENTRIES_MAX);
    let rows = store.scan(&scan)?.into_iter().map(|(key, value)| {
        record::first_of_partition_key(&key).zip(PartitionRecord::decode(&value))
    });
    rows.collect::<Option<_>>().ok_or_else(|| {
        StoreError::corrupt(Operation::Open, store.place(), "the table of partitions is unreadable")
    })
}

fn check_successor((newest, _): &Complete) -> Result<(), StoreError> {
    match read_table(&*newest.store)?.last_key_value() {
        Some((first, _)) if *first > newest.first => {
            let what = format!("partition {first:016x}, which follows, is gone or lost its record");
            Err(StoreError::corrupt(Operation::Open, newest.store.place(), what))
        }
        _ => Ok(()),
    }
}

fn last_commit_id(store: &dyn Store) -> Result<Option<u64>, StoreError> {
    let scan = Scan::range(&[ENTRY], &[ENTRY + 1], 1).descending();
    let mut last = None;
    store.scan_sealed(&scan, &mut |key, _| {
        last = record::commit_of_entry_key(key).map(|(commit_id, _)| commit_id);
        ControlFlow::Break(())
    })?;
    Ok(last)
}

fn create(
    partitions: Arc<dyn Partitions>,
    options: &JournalOptions,
) -> Result<JournalSink, StoreError> {
    let store = partitions.create(FIRST_COMMIT_ID)?;
    let record = PartitionRecord { end: 0, opened_wall_ms: options.wall_ms, bytes: 0 };
    let table = BTreeMap::from([(FIRST_COMMIT_ID, record)]);
    let meta = Meta { incarnation: options.incarnation.bytes(), boots: 1 };
    finish_partition(&*store, &table, &meta)?;
    let newest = Partition { first: FIRST_COMMIT_ID, store };
    Ok(assemble(partitions, newest, None, table, meta, BTreeMap::new(), FIRST_COMMIT_ID, options))
}

fn reopen(
    partitions: Arc<dyn Partitions>,
    (newest, before): Complete,
    listed: &[u64],
    options: &JournalOptions,
) -> Result<JournalSink, StoreError> {
    let store = &*newest.store;
    let table = read_table(store)?;
    check_table(&*partitions, &table, &newest, listed)?;
    let next = match last_commit_id(store)? {
        Some(last) => {
            entry_in(store, last)?;
            last + 1
        }
        None => newest.first,
    };
    let heads = read_heads(store, next)?;
    let (incarnation, opened) = match options.incarnation {
        Incarnation::Keep(_) => (before.incarnation, 1),
        // Its boots may be those of an older state.
        Incarnation::Renew(bytes) => (bytes, BOOTS_SKIPPED),
    };
    let meta = Meta { incarnation, boots: before.boots.saturating_add(opened) };
    let mut batch = Batch::new();
    batch
        .put(META, &meta.encode())
        .map_err(|misuse| StoreError::new(Operation::Open, store.place(), Blame::Caller(misuse)))?;
    store.apply(batch)?;
    store.sync()?;
    let older = open_predecessor(&*partitions, &table, newest.first)?;
    Ok(assemble(partitions, newest, older, table, meta, heads, next, options))
}

/// Compares the table with what is there; removes what retention had begun to remove.
fn check_table(
    partitions: &dyn Partitions,
    table: &BTreeMap<u64, PartitionRecord>,
    newest: &Partition,
    listed: &[u64],
) -> Result<(), StoreError> {
    let missing = table.keys().find(|first| !listed.contains(first));
    if let Some(first) = missing {
        let what = format!("partition {first:016x} is gone");
        return Err(StoreError::corrupt(Operation::Open, partitions.place(), what));
    }
    if !table.contains_key(&newest.first) {
        let what = "the table of partitions does not name its own";
        return Err(StoreError::corrupt(Operation::Open, newest.store.place(), what));
    }
    for first in listed.iter().filter(|first| !table.contains_key(first)) {
        log::info!("{}: finishing the removal of partition {first:016x}", partitions.place());
        partitions.remove(*first)?;
    }
    Ok(())
}

fn read_heads(store: &dyn Store, next: u64) -> Result<BTreeMap<LaneKey, Position>, StoreError> {
    let mut heads = BTreeMap::new();
    let mut wrong = None;
    let scan = Scan::range(&[HEAD], &[HEAD + 1], SCAN_ENTRIES_MAX);
    store.visit(&scan, &mut |key, value| match record::lane_of_head_key(key)
        .zip(Head::decode(value))
    {
        Some((lane, head)) if head.last_commit < next => {
            heads.insert(lane, Position::of(&head));
            ControlFlow::Continue(())
        }
        Some((_, head)) => {
            wrong = Some(format!(
                "a head stands at entry {}, but the last entry is {}",
                head.last_commit,
                next - 1
            ));
            ControlFlow::Break(())
        }
        None => {
            wrong = Some("a head is unreadable".to_owned());
            ControlFlow::Break(())
        }
    })?;
    match wrong {
        None => Ok(heads),
        Some(what) => Err(StoreError::corrupt(Operation::Open, store.place(), what)),
    }
}

/// Opens the partition before the newest; it must know its successor, and a crash may have come
/// between.
fn open_predecessor(
    partitions: &dyn Partitions,
    table: &BTreeMap<u64, PartitionRecord>,
    newest: u64,
) -> Result<Option<Partition>, StoreError> {
    let Some((first, _)) = table.range(..newest).next_back() else { return Ok(None) };
    let store = partitions.open(*first)?;
    if store.get(&record::partition_key(newest))?.is_none() {
        mark_successor(&*store, newest, table)?;
    }
    Ok(Some(Partition { first: *first, store }))
}

#[expect(clippy::too_many_arguments, reason = "one constructor for two ways of opening")]
fn assemble(
    partitions: Arc<dyn Partitions>,
    newest: Partition,
    older: Option<Partition>,
    table: BTreeMap<u64, PartitionRecord>,
    meta: Meta,
    heads: BTreeMap<LaneKey, Position>,
    next_commit_id: u64,
    options: &JournalOptions,
) -> JournalSink {
    let shared = Shared {
        place: Arc::clone(partitions.place()),
        partitions,
        newest: RwLock::new(newest),
        older: Mutex::new(older),
        table: Mutex::new(table),
        durable: AtomicU64::new(next_commit_id - 1),
        changed: Event::new(),
        incarnation: meta.incarnation,
        boots: meta.boots,
    };
    // What the newest partition holds already counts towards its bound.
    let partition_bytes = shared.with_newest(Store::size_bytes).unwrap_or(0);
    JournalSink {
        shared: Arc::new(shared),
        heads,
        gathered: Batch::new(),
        next_commit_id,
        partition_bytes,
        partition_bytes_max: options.partition_bytes_max,
    }
}
