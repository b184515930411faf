//! Every back end passes the one suite. A case gets an empty place of its own.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use lapwing_store::suite::{CASES, Place, PowerCut};
use lapwing_store::{DiskOptions, DiskStore, Engine, MemoryDisk, Store, StoreError};

struct InMemory(MemoryDisk);

impl Place for InMemory {
    fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(self.0.open()?))
    }

    fn cut_power(&self) -> PowerCut {
        self.0.cut_power(0);
        PowerCut::Done
    }
}

struct OnDisk(tempfile::TempDir, Engine);

impl Place for OnDisk {
    fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        let options = DiskOptions::of(self.1);
        Ok(Box::new(DiskStore::open(&self.0.path().join("store"), &options)?))
    }

    fn cut_power(&self) -> PowerCut {
        PowerCut::NotSimulated
    }
}

fn run(place: impl Fn(&str) -> Box<dyn Place>) {
    for (name, case) in CASES {
        if let Err(failure) = case(&*place(name)) {
            panic!("{name}: {failure}");
        }
    }
}

#[test]
fn the_memory_back_end_conforms() {
    run(|name| Box::new(InMemory(MemoryDisk::new(name))));
}

#[test]
fn sled_on_disk_conforms() {
    run(|_| Box::new(OnDisk(tempfile::tempdir().unwrap(), Engine::Sled)));
}

#[test]
fn redb_on_disk_conforms() {
    run(|_| Box::new(OnDisk(tempfile::tempdir().unwrap(), Engine::Redb)));
}

#[test]
fn a_disk_in_memory_keeps_a_prefix_of_the_unsynced() {
    let disk = MemoryDisk::new("prefix");
    let store = disk.open().unwrap();
    for n in 0..5_u8 {
        let mut batch = lapwing_store::Batch::new();
        batch.put(&[n], b"v").unwrap();
        batch.put(b"last", &[n]).unwrap();
        store.apply(batch).unwrap();
    }
    disk.cut_power(3);
    drop(store);
    let store = disk.open().unwrap();
    assert_eq!(store.get(b"last").unwrap().as_deref(), Some(&[2][..]));
    assert!(store.get(&[2]).unwrap().is_some() && store.get(&[3]).unwrap().is_none());
}
