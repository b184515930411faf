//! What the journal's tests share: partitions that count their open stores, and short builders.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lapwing_store::journal::{
    Append, DirectoryPartitions, Incarnation, Journal, JournalOptions, LaneKey, LogKey,
    MemoryPartitions, Partitions,
};
use lapwing_store::{Batch, DiskOptions, Engine, Scan, Store, StoreError, Visitor};

pub(crate) const DAY_MS: u64 = 86_400_000;
pub(crate) const INCARNATION: [u8; 16] = [0xab; 16];

pub(crate) fn lane(sensor: u8) -> LaneKey {
    LaneKey { sensor: [sensor; 16], lane: 0 }
}

pub(crate) fn log(sensor: u8, log: u8) -> LogKey {
    LogKey { lane: lane(sensor), log: [log; 16] }
}

/// An entry of 100 bytes for `segment` of log 1 of `sensor`, received on day `day`.
pub(crate) fn append(sensor: u8, segment: u64, day: u64) -> Append {
    Append {
        log: log(sensor, 1),
        segment,
        received_wall_ms: day * DAY_MS + 5,
        header: vec![sensor; 10],
        body: vec![segment.to_le_bytes()[0]; 100],
        head: vec![sensor, 0xee],
    }
}

pub(crate) fn options(day: u64) -> JournalOptions {
    JournalOptions::new(Incarnation::Keep(INCARNATION), day * DAY_MS)
}

pub(crate) fn open(partitions: &Arc<MemoryPartitions>) -> Journal {
    Journal::open(Arc::clone(partitions) as _, &options(0)).unwrap()
}

pub(crate) fn in_memory() -> Arc<MemoryPartitions> {
    Arc::new(MemoryPartitions::new("journal"))
}

pub(crate) fn on_disk(directory: &tempfile::TempDir, engine: Engine) -> Arc<dyn Partitions> {
    let options = DiskOptions::of(engine);
    Arc::new(DirectoryPartitions::new(&directory.path().join("journal"), options))
}

/// Appends and waits until it is durable.
pub(crate) fn commit(journal: &Journal, append: Append) -> u64 {
    journal.append(append).unwrap().wait().unwrap()
}

pub(crate) fn commit_ids(journal: &Journal, from: u64) -> Vec<u64> {
    let page = journal.read_from(from, Default::default()).unwrap();
    page.entries.iter().map(|entry| entry.commit_id).collect()
}

pub(crate) fn firsts(journal: &Journal) -> Vec<u64> {
    journal.partitions().unwrap().iter().map(|partition| partition.first).collect()
}

/// Partitions that know how many of their stores are open, and were open at most.
pub(crate) struct Counted {
    inner: MemoryPartitions,
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Counted {
    pub(crate) fn new() -> Arc<Self> {
        let inner = MemoryPartitions::new("counted");
        Arc::new(Self { inner, open: Arc::default(), most: Arc::default() })
    }

    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    fn count(&self, inner: Box<dyn Store>) -> Box<dyn Store> {
        let now = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Box::new(CountedStore { inner, open: Arc::clone(&self.open) })
    }
}

impl Partitions for Counted {
    fn place(&self) -> &Arc<str> {
        self.inner.place()
    }

    fn list(&self) -> Result<Vec<u64>, StoreError> {
        self.inner.list()
    }

    fn create(&self, first: u64) -> Result<Box<dyn Store>, StoreError> {
        self.inner.create(first).map(|store| self.count(store))
    }

    fn open(&self, first: u64) -> Result<Box<dyn Store>, StoreError> {
        self.inner.open(first).map(|store| self.count(store))
    }

    fn remove(&self, first: u64) -> Result<(), StoreError> {
        self.inner.remove(first)
    }
}

struct CountedStore {
    inner: Box<dyn Store>,
    open: Arc<AtomicUsize>,
}

impl Store for CountedStore {
    fn place(&self) -> &Arc<str> {
        self.inner.place()
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.inner.apply(batch)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync()
    }

    fn read_sealed(&self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool, StoreError> {
        self.inner.read_sealed(key, visit)
    }

    fn scan_sealed(&self, scan: &Scan<'_>, visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.inner.scan_sealed(scan, visit)
    }

    fn size_bytes(&self) -> Result<u64, StoreError> {
        self.inner.size_bytes()
    }
}

impl Drop for CountedStore {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}
