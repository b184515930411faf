//! Rows of the policies in a store of their own: one directory, one writer, group commit.
//!
//! What it is not: the journal. Invariants: batches are applied in the order in which `submit` was
//! called; nothing is durable before its [`Committing`] says so; after a failure nothing is taken.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use lapwing_server_core::rows::{KeeperError, Row, RowKeeper};

use crate::batch::Batch;
use crate::error::{Blame, Operation, StoreError};
use crate::limits::SCAN_ENTRIES_MAX;
use crate::store::{Entry, Scan, Store};
use crate::ticket::Ticket;
use crate::writer::{Refusal, StoreSink, Writer, WriterOptions};
use crate::{DiskOptions, DiskStore};

/// A store of rows. Clones share it.
#[derive(Clone)]
pub struct RowStore {
    store: Arc<dyn Store>,
    writer: Arc<Writer<StoreSink>>,
}

/// Rows on their way to the disk.
#[must_use = "nothing is durable before it says so"]
pub struct Committing(Option<Ticket<()>>);

impl Committing {
    /// Ends when the rows are durable.
    ///
    /// # Errors
    /// They are not, and the store takes nothing more.
    pub async fn durable(self) -> Result<(), StoreError> {
        match self.0 {
            Some(ticket) => ticket.await,
            None => Ok(()),
        }
    }
}

impl RowStore {
    /// Opens or creates the store in `path`. Blocks on the disk.
    ///
    /// # Errors
    /// As for [`DiskStore::open`].
    pub fn open(path: &Path, options: &DiskOptions) -> Result<Self, StoreError> {
        Self::over(Arc::new(DiskStore::open(path, options)?))
    }

    /// Rows in a store that is open.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn over(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let sink = StoreSink::new(Arc::clone(&store));
        let writer = Arc::new(Writer::start(sink, WriterOptions::default())?);
        Ok(Self { store, writer })
    }

    /// Takes rows as one batch. Blocks only while the writer's queue is full.
    ///
    /// # Errors
    /// The rows break a bound, or the store takes nothing more.
    pub fn submit(&self, rows: Vec<Row>) -> Result<Committing, StoreError> {
        if rows.is_empty() {
            return Ok(Committing(None));
        }
        let refused = |blame| StoreError::new(Operation::Apply, self.store.place(), blame);
        let mut batch = Batch::new();
        for row in rows {
            match row.value {
                Some(value) => batch.put(&row.key, &value),
                None => batch.delete(&row.key),
            }
            .map_err(|misuse| refused(Blame::Caller(misuse)))?;
        }
        match self.writer.submit_blocking(batch) {
            Ok(ticket) => Ok(Committing(Some(ticket))),
            Err(error) => Err(match error.why {
                Refusal::Stopped(error) => error,
                Refusal::Misuse(misuse) => refused(Blame::Caller(misuse)),
                Refusal::Full | Refusal::Closed => refused(Blame::Stopped),
            }),
        }
    }

    /// All rows of `from <= key < to`, in order, however many there are. Blocks on the disk.
    ///
    /// # Errors
    /// The store cannot be read, or a value is damaged.
    pub fn scan(&self, from: &[u8], to: &[u8]) -> Result<Vec<Entry>, StoreError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut next = from.to_vec();
        loop {
            let page = self.store.scan(&Scan::range(&next, to, SCAN_ENTRIES_MAX))?;
            let is_last = page.len() < SCAN_ENTRIES_MAX;
            entries.extend(page);
            match entries.last() {
                // The smallest key behind the last one.
                Some((last, _)) if !is_last => next = [last.as_slice(), &[0]].concat(),
                Some(_) | None => return Ok(entries),
            }
        }
    }

    /// The value of one key. Blocks on the disk.
    ///
    /// # Errors
    /// The store cannot be read, or the value is damaged.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(key)
    }

    /// The store, for reads in pages. Whoever writes does so through [`RowStore::submit`].
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The error that stopped the store, if any.
    #[must_use]
    pub fn failure(&self) -> Option<StoreError> {
        self.writer.failure()
    }

    /// Resolves to the error that stopped the store, when one does.
    pub async fn stopped(&self) -> StoreError {
        self.writer.stopped().await
    }

    /// Commits what waits and takes nothing more. Blocks on the disk.
    pub fn close(&self) {
        self.writer.close();
    }
}

impl RowKeeper for RowStore {
    fn scan(&self, from: &[u8], to: &[u8]) -> Result<Vec<Entry>, KeeperError> {
        Self::scan(self, from, to).map_err(|error| KeeperError(error.to_string()))
    }

    fn write(
        &self,
        rows: Vec<Row>,
    ) -> impl Future<Output = Result<(), KeeperError>> + Send + 'static {
        let submitted = self.submit(rows);
        async move {
            let durable = match submitted {
                Ok(committing) => committing.durable().await,
                Err(error) => Err(error),
            };
            durable.map_err(|error| KeeperError(error.to_string()))
        }
    }
}

impl fmt::Debug for RowStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RowStore").field(self.store.place()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDisk;

    fn row(key: &[u8], value: u32) -> Row {
        Row::put(key.to_vec(), &value)
    }

    #[test]
    fn rows_are_there_after_the_power_was_cut() {
        let disk = MemoryDisk::new("rows");
        let rows = RowStore::over(Arc::new(disk.open().unwrap())).unwrap();
        let durable = rows.submit(vec![row(b"a/1", 1), row(b"a/2", 2), row(b"b/1", 3)]).unwrap();
        smol::block_on(durable.durable()).unwrap();
        smol::block_on(rows.submit(vec![Row::remove(b"a/1".to_vec())]).unwrap().durable()).unwrap();
        disk.cut_power(0);
        let rows = RowStore::over(Arc::new(disk.open().unwrap())).unwrap();
        let found: Vec<Vec<u8>> =
            rows.scan(b"a/", b"a0").unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(found, [b"a/2"]);
        assert!(rows.get(b"b/1").unwrap().is_some());
    }

    #[test]
    fn a_scan_goes_on_beyond_one_page() {
        let disk = MemoryDisk::new("rows");
        let rows = RowStore::over(Arc::new(disk.open().unwrap())).unwrap();
        let count = SCAN_ENTRIES_MAX + 2;
        for first in (0..count).step_by(8_000) {
            let batch = (first..count.min(first + 8_000))
                .map(|number| row(&(number as u32).to_be_bytes(), 0))
                .collect();
            smol::block_on(rows.submit(batch).unwrap().durable()).unwrap();
        }
        assert_eq!(rows.scan(&[0], &[0xff]).unwrap().len(), count);
    }

    #[test]
    fn a_failed_disk_is_told_and_nothing_is_taken_any_more() {
        let disk = MemoryDisk::new("rows");
        let rows = RowStore::over(Arc::new(disk.open().unwrap())).unwrap();
        disk.fail_next_sync();
        let write = RowKeeper::write(&rows, vec![row(b"a", 1)]);
        assert!(smol::block_on(write).unwrap_err().0.contains("rows"));
        assert!(rows.failure().is_some());
        assert!(rows.submit(vec![row(b"a", 1)]).is_err());
    }
}
