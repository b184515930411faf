//! One store into records, and records into one store.
//!
//! Invariant: each value passes its checksum at both ends.

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::Path;

use super::error::TransferError;
use super::file::{Fault, Record, RecordReader, RecordWriter};
use super::{Progress, Teller};
use crate::batch::Batch;
use crate::envelope;
use crate::error::{Blame, Operation, StoreError};
use crate::store::{Scan, Store};

/// Entries that are read in one go; between two such pages others may work with the store.
pub(super) const PAGE: usize = 4_096;

/// A page of a store's entries, from `from` on: writes them and gives the key behind the last one;
/// `None` after the last page.
pub(super) fn write_page<W: Write>(
    store: &dyn Store,
    from: &[u8],
    file: &Path,
    out: &mut RecordWriter<W>,
    count: &mut u64,
) -> Result<Option<Vec<u8>>, TransferError> {
    let mut verdict = Ok(());
    let mut last = Vec::new();
    let mut seen = 0;
    store.scan_sealed(&Scan::from(from, PAGE), &mut |key, sealed| {
        let checked = envelope::open(key, sealed).map_err(|damage| {
            let blame = Blame::Value { key: key.into(), damage };
            StoreError::new(Operation::Read, store.place(), blame).into()
        });
        verdict = checked
            .and_then(|_| out.write(&Record::Put(key, sealed)).map_err(TransferError::disk(file)));
        seen += 1;
        last.clear();
        last.extend_from_slice(key);
        if verdict.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    verdict?;
    *count += seen;
    last.push(0);
    Ok((seen == PAGE as u64).then_some(last))
}

/// All entries of a store that nobody changes meanwhile, with its beginning and end.
pub(super) fn write_store<W: Write>(
    name: &str,
    store: &dyn Store,
    file: &Path,
    out: &mut RecordWriter<W>,
    tell: &mut Teller<'_>,
) -> Result<u64, TransferError> {
    out.write(&Record::Store(name)).map_err(TransferError::disk(file))?;
    let mut count = 0;
    let mut next = Some(Vec::new());
    while let Some(from) = next {
        next = write_page(store, &from, file, out, &mut count)?;
        tell(Progress { store: name, entries: count });
    }
    out.write(&Record::Done(count)).map_err(TransferError::disk(file))?;
    Ok(count)
}

/// Turns a fault of a file into an error that names it.
pub(super) fn named(file: &Path) -> impl Fn(Fault) -> TransferError {
    move |fault| match fault {
        Fault::Read(error) => TransferError::Disk { path: file.to_path_buf(), error },
        Fault::Damage(at, what) => TransferError::Damaged { path: file.to_path_buf(), at, what },
    }
}

/// Reads what follows the beginning of a store into `store`, up to its end, and syncs it.
pub(super) fn read_store<R: Read>(
    name: &str,
    file: &Path,
    input: &mut RecordReader<R>,
    store: &dyn Store,
    tell: &mut Teller<'_>,
) -> Result<u64, TransferError> {
    let mut batch = Batch::new();
    let mut count = 0;
    loop {
        let at = input.at();
        let damaged = |what: String| TransferError::Damaged { path: file.to_path_buf(), at, what };
        let operation = match input.next().map_err(named(file))? {
            Some(Record::Put(key, sealed)) => {
                envelope::open(key, sealed).map_err(|damage| damaged(damage.to_string()))?;
                let mut one = Batch::new();
                one.put_sealed(key, sealed).map(|()| one)
            }
            Some(Record::Delete(key)) => {
                let mut one = Batch::new();
                one.delete(key).map(|()| one)
            }
            Some(Record::Done(expected)) if expected == count => break,
            Some(Record::Done(_)) => return Err(damaged("a store of another length".to_owned())),
            Some(Record::Store(_)) | None => {
                return Err(damaged("a store without its end".to_owned()));
            }
        };
        let operation = operation.map_err(|misuse| damaged(misuse.to_string()))?;
        if let Err(operation) = batch.absorb(operation) {
            store.apply(std::mem::replace(&mut batch, operation))?;
            tell(Progress { store: name, entries: count });
        }
        count += 1;
    }
    store.apply(batch)?;
    store.sync()?;
    tell(Progress { store: name, entries: count });
    Ok(count)
}
