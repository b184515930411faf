//! redb over a medium that fails on order and loses what was not synced.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::*;
use crate::suite::{CASES, Place, PowerCut};
use crate::{Refusal, StoreSink, Writer, WriterOptions};

type Answer<T> = std::io::Result<T>;

/// A disk of bytes. What was written since its last sync survives a power cut in parts: each
/// write as a whole or not at all, by its turn, and in no order, as disks do it.
#[derive(Clone, Debug, Default)]
struct Medium(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    bytes: Mutex<Bytes>,
    sync_fails: AtomicBool,
}

#[derive(Debug, Default)]
struct Bytes {
    now: Vec<u8>,
    synced: Vec<u8>,
    writes: Vec<(usize, Vec<u8>)>,
}

impl Medium {
    fn lock(&self) -> MutexGuard<'_, Bytes> {
        self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A medium that holds what a power cut now would leave; every `of`th write, counted from
    /// `turn`, is not in it.
    fn after_power_cut(&self, turn: usize, of: usize) -> Self {
        let bytes = self.lock();
        let mut left = bytes.synced.clone();
        for (number, (at, written)) in bytes.writes.iter().enumerate() {
            if !(number + turn).is_multiple_of(of) {
                left.resize(left.len().max(at + written.len()), 0);
                left[*at..at + written.len()].copy_from_slice(written);
            }
        }
        let bytes = Bytes { now: left.clone(), synced: left, writes: Vec::new() };
        Self(Arc::new(Shared { bytes: Mutex::new(bytes), sync_fails: AtomicBool::new(false) }))
    }
}

impl StorageBackend for Medium {
    fn len(&self) -> Answer<u64> {
        Ok(self.lock().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Answer<()> {
        let from = offset as usize;
        out.copy_from_slice(&self.lock().now[from..from + out.len()]);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Answer<()> {
        let mut bytes = self.lock();
        bytes.now.resize(length as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Answer<()> {
        if self.0.sync_fails.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("the disk does not sync"));
        }
        let mut bytes = self.lock();
        bytes.synced = bytes.now.clone();
        bytes.writes.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Answer<()> {
        let mut bytes = self.lock();
        let at = offset as usize;
        bytes.now[at..at + data.len()].copy_from_slice(data);
        bytes.writes.push((at, data.to_vec()));
        Ok(())
    }
}

fn open(medium: &Medium) -> Result<RedbStore, StoreError> {
    RedbStore::open_on(medium.clone(), &"medium".into(), &DiskOptions::default())
}

struct OnMedium(Mutex<Medium>);

impl Place for OnMedium {
    fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(open(&self.0.lock().unwrap())?))
    }

    fn cut_power(&self) -> PowerCut {
        let mut medium = self.0.lock().unwrap();
        medium.0.sync_fails.store(true, Ordering::SeqCst);
        let left = medium.after_power_cut(0, 2);
        *medium = left;
        PowerCut::Done
    }
}

/// STO-005, STO-022: the suite, with power cuts.
#[test]
fn redb_on_a_disk_that_forgets_conforms() {
    for (name, case) in CASES.iter().filter(|(name, _)| *name != "size_is_told") {
        if let Err(failure) = case(&OnMedium(Mutex::default())) {
            panic!("{name}: {failure}");
        }
    }
}

/// STO-020, STO-022: whichever of the unsynced writes a power cut keeps, what was synced is there,
/// and what is there of the rest is a prefix of the batches.
#[test]
fn a_power_cut_at_any_write_keeps_what_was_synced_and_a_prefix() {
    let medium = Medium::default();
    let store = open(&medium).unwrap();
    let mut synced = 0;
    let mut cuts = 0;
    for number in 1..=60_u32 {
        let mut batch = Batch::new();
        batch.put(b"last", &number.to_be_bytes()).unwrap();
        batch.put(&[b"n", &number.to_be_bytes()[..]].concat(), &[7; 2_000]).unwrap();
        store.apply(batch).unwrap();
        if number % 7 == 0 {
            store.sync().unwrap();
            synced = number;
        }
        for (turn, of) in [(0, 1), (0, 2), (1, 2), (1, 3), (2, 5), (0, 1_000_000)] {
            cuts += 1;
            let left = open(&medium.after_power_cut(turn, of)).unwrap();
            let last = left.get(b"last").unwrap();
            let last = last.map_or(0, |last| u32::from_be_bytes(last.try_into().unwrap()));
            assert!(last >= synced && last <= number, "{last} of {synced} synced, {number}");
            let rows = left.scan(&Scan::range(b"n", b"o", 100)).unwrap();
            assert_eq!(rows.len(), last as usize);
        }
    }
    assert_eq!(cuts, 360);
}

/// STO-006, STO-021: a sync that fails is never followed by an acknowledgement.
#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    let medium = Medium::default();
    let store = Arc::new(open(&medium).unwrap());
    let writer =
        Writer::start(StoreSink::new(Arc::clone(&store) as _), WriterOptions::default()).unwrap();
    let batch = |key: &[u8]| {
        let mut batch = Batch::new();
        batch.put(key, b"value").unwrap();
        batch
    };
    writer.submit(batch(b"before")).unwrap().wait().unwrap();
    medium.0.sync_fails.store(true, Ordering::SeqCst);
    let error = writer.submit(batch(b"during")).unwrap().wait().unwrap_err();
    assert!(error.to_string().contains("the disk does not sync"), "{error}");
    medium.0.sync_fails.store(false, Ordering::SeqCst);
    let refused = writer.submit(batch(b"after")).unwrap_err();
    assert!(matches!(refused.why, Refusal::Stopped(_)));
    assert_eq!(store.sync().unwrap_err().blame, Blame::Stopped);
    assert_eq!(store.apply(batch(b"after")).unwrap_err().blame, Blame::Stopped);
    drop((writer, store));
    let store = open(&medium.after_power_cut(0, 1)).unwrap();
    assert!(store.get(b"before").unwrap().is_some());
    assert!(store.get(b"after").unwrap().is_none());
}
