//! kill -9 at any moment. The operating system's cache stays: this does not show a power cut.

use lapwing_store::Engine;

use crate::writer::{Running, open, verify};
use crate::{Random, rounds};

/// After so many entries a new store is begun: checking all of them again costs time.
const ENTRIES_MAX: u64 = 4_000;

fn every_acknowledged_entry_survives(engine: Engine) {
    let directory = tempfile::tempdir().unwrap();
    let (mut random, mut acked_in_all, mut switched) = (Random(0x5eed), 0, 0);
    let (mut store, mut acked, mut boots) = (0, 0, 0);
    let count = rounds("LAPWING_KILLS", 20);
    for _ in 0..count {
        let root = directory.path().join(format!("journal {store}"));
        let writer = Running::start(&root, engine);
        // From the very opening on, over flushes and the switch of a partition.
        writer.listen(1 + random.below(700));
        acked = writer.kill().acked.max(acked);
        let journal = open(&root, engine);
        boots += 2;
        assert_eq!(journal.boots(), boots);
        verify(&journal, acked);
        if journal.durable() > ENTRIES_MAX {
            acked_in_all += acked;
            switched += journal.partitions().unwrap().len() - 1;
            (store, acked, boots) = (store + 1, 0, 0);
        } else if journal.partitions().unwrap().len() > 1 {
            switched += 1;
        }
    }
    assert!(switched > 0, "no partition was ever switched");
    let entries = acked_in_all + acked;
    println!("{engine}: {count} kills, {entries} acknowledged, 0 missing, 0 doubled");
}

#[test]
fn every_acknowledged_entry_survives_kill_9_on_sled() {
    every_acknowledged_entry_survives(Engine::Sled);
}

#[test]
fn every_acknowledged_entry_survives_kill_9_on_redb() {
    every_acknowledged_entry_survives(Engine::Redb);
}
