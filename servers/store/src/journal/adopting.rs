//! A journal made of copied partitions: another life, that goes on where the copy ends.
//!
//! Invariant: nothing is adopted whose newest partition was not complete.

use super::opening::{newest_complete, read_table};
use super::partitions::Partitions;
use super::record::{self, Head, LaneKey, META, Meta, PartitionRecord};
use crate::batch::{Batch, Misuse};
use crate::envelope;
use crate::error::{Blame, Operation, StoreError};
use crate::limits::BOOTS_SKIPPED;

/// Makes partitions that were copied, perhaps while their journal lived, a journal of their own.
/// The newest is open again; partitions of its table that were not copied are forgotten.
pub(crate) fn adopt(partitions: &dyn Partitions, incarnation: [u8; 16]) -> Result<(), StoreError> {
    let mut listed = partitions.list()?;
    listed.sort_unstable();
    let (Some((newest, meta)), _) = newest_complete(partitions, &listed)? else { return Ok(()) };
    let table = read_table(&*newest.store)?;
    let batch = || -> Result<Batch, Misuse> {
        let mut batch = Batch::new();
        for (first, of) in &table {
            if !listed.contains(first) || *first > newest.first {
                log::info!("{}: partition {first:016x} is not in the copy", partitions.place());
                batch.delete(&record::partition_key(*first))?;
            } else if *first == newest.first {
                let open = PartitionRecord { end: 0, bytes: 0, ..*of };
                batch.put(&record::partition_key(*first), &open.encode())?;
            }
        }
        let meta = Meta { incarnation, boots: meta.boots + BOOTS_SKIPPED };
        batch.put(META, &meta.encode())?;
        Ok(batch)
    };
    let batch = batch().map_err(|misuse| {
        StoreError::new(Operation::Create, partitions.place(), Blame::Caller(misuse))
    })?;
    newest.store.apply(batch)?;
    newest.store.sync()
}

/// The head that a key and its sealed value are, if they are one.
pub(crate) fn decode_head(key: &[u8], sealed: &[u8]) -> Option<(LaneKey, Head)> {
    let lane = record::lane_of_head_key(key)?;
    Some((lane, Head::decode(envelope::open(key, sealed).ok()?)?))
}
