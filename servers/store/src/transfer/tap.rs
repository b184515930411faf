//! What is applied to a store while it is copied: kept in a file beside the copy.
//!
//! A scan that runs beside batches may see any part of them. Whoever then applies again, in their
//! order, all batches that came between the scan's beginning and its end has the store as it was at
//! that end: each key that changed meanwhile gets its last word, and the scan saw the others.
//! Invariant: a batch is in the tap, or was applied before the scan began.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::file::{Record, RecordWriter};
use crate::batch::{Batch, Operation};
use crate::error::StoreError;

/// The tap of one store; open while it is being copied.
#[derive(Default)]
pub struct Tap(Mutex<Option<Running>>);

struct Running {
    out: RecordWriter<BufWriter<File>>,
    failed: Option<io::Error>,
}

impl Tap {
    /// Applies `batch` by `apply`, and keeps it where a copy is under way. A tap that cannot be
    /// written spoils the copy, never the batch.
    pub(crate) fn apply(
        &self,
        batch: Batch,
        apply: impl FnOnce(Batch) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // Held until it is applied: a batch must not be neither before the scan nor in the tap.
        let mut running = self.lock();
        if let Some(running) = running.as_mut().filter(|running| running.failed.is_none()) {
            running.failed = batch
                .operations()
                .try_for_each(|operation| {
                    running.out.write(&match operation {
                        Operation::Put { key, sealed } => Record::Put(key, sealed),
                        Operation::Delete { key } => Record::Delete(key),
                    })
                })
                .err();
        }
        apply(batch)
    }

    /// Opens the tap into a new file.
    pub(super) fn open(&self, file: &Path) -> io::Result<()> {
        let out = RecordWriter::begin(BufWriter::new(File::create(file)?))?;
        *self.lock() = Some(Running { out, failed: None });
        Ok(())
    }

    /// Closes the tap; its file is whole then.
    pub(super) fn close(&self) -> io::Result<()> {
        // Taken first: no batch waits for the disk.
        let running = self.lock().take();
        match running {
            Some(Running { failed: Some(error), .. }) => Err(error),
            Some(Running { out, .. }) => out.end().map(drop),
            None => Err(io::Error::other("the copy was given up by another one")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
