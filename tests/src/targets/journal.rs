//! A server's journal over stores that hold any keys and values, well sealed: what another version
//! or a defect of ours could have written.
//!
//! Laws: nothing panics; reading ends; an entry that comes back has the number it was asked for.
#![allow(clippy::expect_used, reason = "a law that does not hold is a panic")]

use std::sync::Arc;

use lapwing_store::journal::{
    Append, Incarnation, Journal, JournalOptions, LaneKey, LogKey, MemoryPartitions,
};
use lapwing_store::{Batch, Store as _};

use super::input::Input;

const LANE: LaneKey = LaneKey { sensor: [2; 16], lane: 0 };
const LOG: LogKey = LogKey { lane: LANE, log: [3; 16] };
const ENTRIES: u64 = 6;
/// The letters that keys begin with.
const LETTERS: [u8; 5] = *b"chimp";

/// Any records in the place of some that a journal wrote.
///
/// Repeated: the key's letter, the key, the value.
pub fn journal(data: &[u8]) {
    let partitions = Arc::new(MemoryPartitions::new("fuzzed"));
    let options = JournalOptions::new(Incarnation::Keep([7; 16]), 1_000);
    let journal = Journal::open(Arc::clone(&partitions) as _, &options).expect("a new journal");
    for number in 0..ENTRIES {
        let append = Append {
            log: LOG,
            segment: number / 2 + 1,
            received_wall_ms: 1_000 + number,
            header: vec![1; 8],
            body: vec![number as u8; 30],
            head: vec![2; 12],
        };
        let Ok(ticket) = journal.append(append) else { panic!("an empty journal takes it") };
        ticket.wait().expect("it is stored");
    }
    journal.close();
    drop(journal);
    overwrite(&partitions, &mut Input::new(data));
    let Ok(journal) = Journal::open(Arc::clone(&partitions) as _, &options) else { return };
    read(&journal);
}

fn overwrite(partitions: &MemoryPartitions, input: &mut Input<'_>) {
    let disk = partitions.newest_disk().expect("it has one");
    let store = disk.open().expect("nobody else has it open");
    let mut batch = Batch::new();
    for _ in 0..8 {
        if input.is_over() {
            break;
        }
        let mut key = vec![LETTERS[usize::from(input.below(5))]];
        match input.below(4) {
            0 => key.extend_from_slice(input.bytes(50)),
            1 => {
                key.extend_from_slice(&LOG.lane.sensor);
                key.push(0);
                key.extend_from_slice(input.bytes(24));
            }
            2 => {}
            _ => {
                key.extend_from_slice(&u64::from(input.byte() & 15).to_be_bytes());
                key.extend_from_slice(&[0, input.byte() & 3]);
            }
        }
        let is_put = input.below(8) != 0;
        // What the store itself does not take cannot be in it.
        let _ = if is_put { batch.put(&key, input.bytes(200)) } else { batch.delete(&key) };
    }
    store.apply(batch).expect("a disk in memory takes it");
    store.sync().expect("and keeps it");
}

fn read(journal: &Journal) {
    let mut from = 0;
    for _ in 0..64 {
        let Ok(page) = journal.read_from(from, Default::default()) else { break };
        let Some(last) = page.entries.last() else { break };
        assert!(last.commit_id >= from, "pages go forward");
        from = last.commit_id.saturating_add(1);
    }
    for number in 0..=ENTRIES + 2 {
        if let Ok(Some(entry)) = journal.entry(number) {
            assert_eq!(entry.commit_id, number);
        }
    }
    drop(journal.head(&LANE));
    drop(journal.heads(None, 10));
    drop(journal.segments(&LOG, 0, 10));
    drop(journal.log_range(&LOG, 1..=3));
    drop(journal.partitions());
}
