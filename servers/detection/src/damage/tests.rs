//! Tests of reading past damage.

use std::sync::Arc;

use lapwing_protocol::digest::Chain;
use lapwing_server_core::view::message_bytes;
use lapwing_store::journal::{
    Append, Incarnation, JournalOptions, LogKey, MemoryPartitions, Partitions,
};
use lapwing_store::{Batch, MemoryDisk, Store};

use super::*;
use crate::roster::lane_key;

/// Milliseconds of a day: the entries of each have a partition of their own.
const DAY_MS: u64 = 86_400_000;

/// Memory of which one partition does not open.
struct Torn(MemoryPartitions, u64, Arc<str>);

impl Partitions for Torn {
    fn place(&self) -> &Arc<str> {
        &self.2
    }

    fn list(&self) -> Result<Vec<u64>, StoreError> {
        self.0.list()
    }

    fn create(&self, first: u64) -> Result<Box<dyn Store>, StoreError> {
        self.0.create(first)
    }

    fn open(&self, first: u64) -> Result<Box<dyn Store>, StoreError> {
        if first == self.1 {
            return Err(StoreError::corrupt(Operation::Open, &self.2, "its pages are torn"));
        }
        self.0.open(first)
    }

    fn remove(&self, first: u64) -> Result<(), StoreError> {
        self.0.remove(first)
    }
}

fn memory() -> MemoryPartitions {
    MemoryPartitions::new("damage")
}

fn open(partitions: Arc<dyn Partitions>) -> Journal {
    Journal::open(partitions, &JournalOptions::new(Incarnation::Keep([9; 16]), 0)).unwrap()
}

/// Appends chunk `seq` of a sensor, with nothing in it.
fn append(journal: &Journal, sensor: u8, seq: u64, wall_ms: u64) {
    let (sensor, log) = (SensorId([sensor; 16]), LogId([sensor; 16]));
    let header = EntryHeader { form: EntryForm::Chunk, seq, first_index: seq, chain: None };
    let mut head = HeadRecord::begin(log, Chain([0; 32]));
    head.current.next_seq = seq + 1;
    let ticket = journal.append(Append {
        log: LogKey { lane: lane_key(sensor, Lane::Urgent), log: log.0 },
        segment: 1,
        received_wall_ms: wall_ms,
        header: message_bytes(&header),
        body: vec![7; 20],
        head: head.to_bytes().unwrap(),
    });
    ticket.unwrap().wait().unwrap();
}

fn damage(partitions: &MemoryPartitions, commit: u64) {
    let store = partitions.open(1).unwrap();
    let mut batch = Batch::new();
    let key = [&b"c"[..], &commit.to_be_bytes(), &[0, 0]].concat();
    batch.put_sealed(&key, &[7; 60]).unwrap();
    store.apply(batch).unwrap();
    store.sync().unwrap();
}

/// Everything from the beginning on: commit ids, and in brackets what is damaged, with its owner.
fn all(journal: &Journal, entries: usize) -> Vec<String> {
    let (mut from, mut steps) = (1, Vec::new());
    loop {
        let passage = read(journal, from, PageLimit { entries, bytes: 1 << 20 }).unwrap();
        steps.extend(passage.steps.iter().map(|step| match step {
            Step::Entry(entry) => entry.commit_id.to_string(),
            Step::Damaged(Damaged { commits, owner, .. }) => {
                let owner = owner.map(|it| format!(" {} {}", it.sensor.0[0], it.seq));
                format!("[{commits:?}{}]", owner.unwrap_or_default())
            }
        }));
        if passage.next == from {
            return steps;
        }
        from = passage.next;
    }
}

#[test]
fn damaged_entries_take_nothing_with_them_and_what_is_left_tells_whose_they_are() {
    let partitions = Arc::new(memory());
    let journal = open(Arc::clone(&partitions) as _);
    for (sensor, seq) in [(1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (3, 1), (1, 4)] {
        append(&journal, sensor, seq, 0);
    }
    drop(journal);
    // The second of sensor 1, the last of sensor 2, and the only one of sensor 3.
    [3, 4, 6].iter().for_each(|commit| damage(&partitions, *commit));
    let journal = open(Arc::clone(&partitions) as _);
    let expected = ["1", "2", "[3..4 1 2]", "[4..5 2 2]", "5", "[6..7 3 1]", "7"];
    assert_eq!(all(&journal, 256), expected);
    assert_eq!(all(&journal, 3), expected, "the next entry of its log is in a later read");
}

#[test]
fn a_partition_that_does_not_open_is_one_gap() {
    let partitions = memory();
    let torn = |partitions, first| Arc::new(Torn(partitions, first, "torn".into()));
    let whole = torn(partitions, 0);
    let journal = open(Arc::clone(&whole) as _);
    (0..12).for_each(|at| append(&journal, 1, at + 1, at / 3 * DAY_MS));
    drop(journal);
    let partitions = Arc::into_inner(whole).unwrap().0;
    let journal = open(torn(partitions, 4));
    let expected = ["1", "2", "3", "[4..7]", "7", "8", "9", "10", "11", "12"];
    assert_eq!(all(&journal, 256), expected);
}

#[test]
fn what_was_met_is_counted_once_and_said_until_it_can_be_read_again() {
    let partitions = Arc::new(memory());
    let journal = open(Arc::clone(&partitions) as _);
    (1..4).for_each(|seq| append(&journal, 1, seq, 0));
    drop(journal);
    let sound = partitions.open(1).unwrap().get(b"c\0\0\0\0\0\0\0\x02\0\0").unwrap().unwrap();
    damage(&partitions, 2);
    let disk = MemoryDisk::new("state");
    let damages = |notice: &Notice| {
        let state = RowStore::over(Arc::new(disk.open().unwrap())).unwrap();
        let damages = Damages::open(&state, notice, &Metrics::default()).unwrap();
        (damages, state)
    };
    let notice = Notice::default();
    let (met, state) = damages(&notice);
    let owner =
        Owner { sensor: SensorId([1; 16]), lane: Lane::Urgent, log: LogId([1; 16]), seq: 2 };
    let damaged = Damaged { commits: 2..3, what: "a bad checksum".into(), owner: Some(owner) };
    met.handle(&damaged);
    met.handle(&damaged);
    assert_eq!(met.entries.get(), 1);
    let said = notice.text();
    assert!(said.contains("1 entries") && said.contains("entry 2 (chunk 2 of sensor"), "{said}");
    state.close();
    drop((met, state));

    let notice = Notice::default();
    let (met, state) = damages(&notice);
    met.look_again(&open(Arc::clone(&partitions) as _));
    assert!(notice.text().contains("entry 2 (chunk 2"), "{}", notice.text());

    let store = partitions.open(1).unwrap();
    let mut batch = Batch::new();
    batch.put(b"c\0\0\0\0\0\0\0\x02\0\0", &sound).unwrap();
    store.apply(batch).unwrap();
    store.sync().unwrap();
    drop(store);
    met.look_again(&open(partitions as _));
    assert_eq!(notice.text(), "");
    state.close();
}
