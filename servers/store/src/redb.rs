//! The engine redb: one file, copy on write, a commit that syncs by itself.
//!
//! redb is named in this file alone. A batch is a commit without durability, and a sync is a
//! commit with it: redb then writes and syncs everything that was committed before.
//! Invariants: one handle per file (a file lock); what `sync` returned for is on the disk.

use std::fmt;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use redb::{
    Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _, StorageError,
    TableDefinition,
};

use crate::batch::{Batch, Operation as BatchOperation};
use crate::condition::Condition;
use crate::disk::DiskOptions;
use crate::envelope::FORMAT_VERSION;
use crate::error::{Blame, Operation, StoreError};
use crate::store::{Direction, Scan, Store, Visitor};

/// The engine's file inside the store's directory.
pub(crate) const DATA_FILE: &str = "redb";
const DATA: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("data");
/// A table beside the data, so that the format record is in nobody's scan.
const FORMAT: TableDefinition<'static, &str, u8> = TableDefinition::new("format");
const FORMAT_KEY: &str = "version";

/// A store in a file of redb's.
pub(crate) struct RedbStore {
    condition: Condition,
    /// Taken only by `drop`.
    database: Option<Database>,
}

impl RedbStore {
    /// Opens the engine's file in the directory `path`, which exists. Where the store is not
    /// `complete`, its creation is finished.
    pub(crate) fn open(
        path: &Path,
        place: &Arc<str>,
        options: &DiskOptions,
        complete: bool,
    ) -> Result<Self, StoreError> {
        let file = path.join(DATA_FILE);
        let database = builder(options).create(file);
        Self::over(database.map_err(|error| opening(place, error))?, place, complete)
    }

    /// The engine over another medium than a file: one that fails on order.
    #[cfg(test)]
    pub(crate) fn open_on(
        backend: impl redb::StorageBackend,
        place: &Arc<str>,
        options: &DiskOptions,
    ) -> Result<Self, StoreError> {
        let database = builder(options).create_with_backend(backend);
        Self::over(database.map_err(|error| opening(place, error))?, place, false)
    }

    fn over(database: Database, place: &Arc<str>, complete: bool) -> Result<Self, StoreError> {
        let store = Self { condition: Condition::of(place), database: Some(database) };
        match store.format(complete)? {
            Some(FORMAT_VERSION) => Ok(store),
            Some(version) => Err(StoreError::new(Operation::Open, place, Blame::Version(version))),
            None => Err(StoreError::corrupt(
                Operation::Open,
                place,
                "its format record is gone, and what came after it",
            )),
        }
    }

    /// The format record; written, with the table of the data, where the store is new.
    fn format(&self, complete: bool) -> Result<Option<u8>, StoreError> {
        self.engine(Operation::Open, |database| {
            if !complete {
                let writing = database.begin_write()?;
                {
                    let mut format = writing.open_table(FORMAT)?;
                    let known = format.get(FORMAT_KEY)?.is_some();
                    if !known {
                        format.insert(FORMAT_KEY, FORMAT_VERSION)?;
                    }
                    writing.open_table(DATA)?;
                }
                writing.commit()?;
            }
            let reading = database.begin_read()?;
            match reading.open_table(FORMAT) {
                Ok(format) => Ok(format.get(FORMAT_KEY)?.map(|version| version.value())),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn engine<T>(
        &self,
        operation: Operation,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        self.condition.run(operation, translate, || match &self.database {
            Some(database) => work(database),
            None => Err(redb::Error::DatabaseClosed),
        })
    }
}

fn builder(options: &DiskOptions) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(usize::try_from(options.cache_bytes).unwrap_or(usize::MAX));
    builder
}

fn opening(place: &Arc<str>, error: DatabaseError) -> StoreError {
    let blame = match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Blame::Busy,
        DatabaseError::UpgradeRequired(version) => Blame::Version(version),
        // Its words for a file that is none of its own.
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() == std::io::ErrorKind::InvalidData =>
        {
            Blame::Corrupt(error.to_string().into())
        }
        other => return translate(Operation::Open, place, other.into()),
    };
    StoreError::new(Operation::Open, place, blame)
}

fn translate(operation: Operation, place: &Arc<str>, error: redb::Error) -> StoreError {
    let blame = match error {
        redb::Error::Io(error) => return StoreError::disk(operation, place, &error),
        redb::Error::Corrupted(what) => Blame::Corrupt(what.into()),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => Blame::Stopped,
        other => Blame::BackEnd(other.to_string().into()),
    };
    StoreError::new(operation, place, blame)
}

impl Store for RedbStore {
    fn place(&self) -> &Arc<str> {
        &self.condition.place
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.engine(Operation::Apply, |database| {
            let mut writing = database.begin_write()?;
            writing.set_durability(Durability::None)?;
            {
                let mut data = writing.open_table(DATA)?;
                for operation in batch.into_operations() {
                    match operation {
                        BatchOperation::Put { key, sealed } => {
                            data.insert(key.as_slice(), sealed.as_slice())?;
                        }
                        BatchOperation::Delete { key } => {
                            data.remove(key.as_slice())?;
                        }
                    }
                }
            }
            Ok(writing.commit()?)
        })
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.engine(Operation::Sync, |database| {
            let mut writing = database.begin_write()?;
            writing.set_durability(Durability::Immediate)?;
            Ok(writing.commit()?)
        })
    }

    fn read_sealed(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool, StoreError> {
        let value = self.engine(Operation::Read, |database| {
            let data = database.begin_read()?.open_table(DATA)?;
            Ok(data.get(key)?.map(|value| value.value().to_vec()))
        })?;
        if let Some(value) = &value {
            visit(value);
        }
        Ok(value.is_some())
    }

    fn scan_sealed(&self, scan: &Scan<'_>, visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        if scan.is_empty() {
            return Ok(());
        }
        let to = scan.to.map_or(Bound::Unbounded, Bound::Excluded);
        let mut range = self.engine(Operation::Read, |database| {
            let data = database.begin_read()?.open_table(DATA)?;
            Ok(data.range::<&[u8]>((Bound::Included(scan.from), to))?)
        })?;
        for _ in 0..scan.limit() {
            let next = self.engine(Operation::Read, |_| {
                let next = match scan.direction {
                    Direction::Ascending => range.next(),
                    Direction::Descending => range.next_back(),
                };
                Ok(next.transpose()?)
            })?;
            let Some((key, sealed)) = next else { break };
            if visit(key.value(), sealed.value()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn size_bytes(&self) -> Result<u64, StoreError> {
        let file = Path::new(&**self.place()).join(DATA_FILE);
        let metadata = std::fs::metadata(file);
        let failed = |error| StoreError::disk(Operation::Measure, self.place(), &error);
        metadata.map(|metadata| metadata.len()).map_err(failed)
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore").field("place", self.place()).finish_non_exhaustive()
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.condition.close(self.database.take());
    }
}

#[cfg(test)]
mod tests;
