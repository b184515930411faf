//! Copies of stores at rest and at work: whole, checked, another life, and never over what exists.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lapwing_server_core::engine::Engine;
use lapwing_server_core::rows::Row;

use super::*;
use crate::journal::{
    Append, DirectoryPartitions, Incarnation, Journal, JournalOptions, LaneKey, LogKey, PageLimit,
    Retention,
};
use crate::{Blame, DiskOptions, DiskStore, RowStore, Scan, Store};

const LIFE: Life<'static> =
    Life { incarnation: [0xee; 16], forgotten: &[("state", b"a/incarnation")] };

fn quiet(_: Progress<'_>) {}

fn append(number: u64) -> Append {
    let lane = LaneKey { sensor: [(number % 3) as u8; 16], lane: 0 };
    Append {
        log: LogKey { lane, log: [1; 16] },
        segment: number / 20,
        received_wall_ms: number,
        header: number.to_be_bytes().to_vec(),
        body: vec![number as u8; 5_000],
        head: number.to_be_bytes().to_vec(),
    }
}

fn journal(folder: &Path, engine: Engine) -> Arc<Journal> {
    let options = JournalOptions {
        partition_bytes_max: 100_000,
        ..JournalOptions::new(Incarnation::Keep([0xaa; 16]), 0)
    };
    let partitions = DirectoryPartitions::new(&folder.join("journal"), DiskOptions::of(engine));
    Arc::new(Journal::open(Arc::new(partitions), &options).unwrap())
}

fn fill(journal: &Journal, numbers: std::ops::Range<u64>) {
    let tickets: Vec<_> = numbers.map(|number| journal.append(append(number)).unwrap()).collect();
    for ticket in tickets {
        ticket.wait().unwrap();
    }
}

fn headers(journal: &Journal) -> Vec<u64> {
    let mut headers = Vec::new();
    let mut next = 1;
    while next <= journal.durable() {
        let page = journal.read_from(next, PageLimit::default()).unwrap();
        headers.extend(
            page.entries
                .iter()
                .map(|entry| u64::from_be_bytes(entry.header.clone().try_into().unwrap())),
        );
        next = page.next;
    }
    headers
}

fn state(folder: &Path, engine: Engine) -> RowStore {
    RowStore::open(&folder.join("state"), &DiskOptions::of(engine)).unwrap()
}

fn put(rows: &RowStore, key: &[u8], value: u64) {
    let row = Row { key: key.to_vec(), value: Some(value.to_be_bytes().to_vec()) };
    smol::block_on(rows.submit(vec![row]).unwrap().durable()).unwrap();
}

/// A server's folder at rest: a journal of several partitions, and rows.
fn at_rest(folder: &Path, engine: Engine) {
    fill(&journal(folder, engine), 0..100);
    let rows = state(folder, engine);
    (0..9_000_u64).step_by(1_000).for_each(|number| put(&rows, &number.to_be_bytes(), number));
    put(&rows, b"a/incarnation", 1);
}

/// STO-090 to STO-093: through a file a folder comes to another engine whole.
#[test]
fn an_export_becomes_a_folder_of_either_engine() {
    for (from, to) in [(Engine::Sled, Engine::Redb), (Engine::Redb, Engine::Sled)] {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        at_rest(&path("old"), from);
        let out = path("out.lapwing");
        let exported = export(&path("old"), &out, &mut quiet).unwrap();
        assert!(exported.stores > 3 && exported.entries > 200, "{exported:?}");
        let options = DiskOptions::of(to);
        let imported = import(&out, &path("new"), &options, &LIFE, &mut quiet).unwrap();
        assert_eq!(imported, exported);

        let journal = journal(&path("new"), to);
        assert_eq!(headers(&journal), (0..100).collect::<Vec<_>>());
        assert_eq!(journal.incarnation(), LIFE.incarnation);
        assert!(journal.boots() > 60_000);
        fill(&journal, 100..103);
        assert_eq!(headers(&journal).len(), 103);
        let rows = state(&path("new"), to);
        assert_eq!(
            rows.get(&4_000_u64.to_be_bytes()).unwrap(),
            Some(4_000_u64.to_be_bytes().into())
        );
        assert_eq!(rows.get(b"a/incarnation").unwrap(), None);
    }
}

/// STO-092: every cut and every flipped byte is found, and nothing is made.
#[test]
fn a_file_that_is_not_whole_is_refused_at_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let rows = state(&path("old"), Engine::Redb);
    (0..5_u64).for_each(|number| put(&rows, &number.to_be_bytes(), number));
    drop(rows);
    let out = path("out.lapwing");
    export(&path("old"), &out, &mut quiet).unwrap();
    let whole = fs::read(&out).unwrap();
    let spoiled = path("spoiled.lapwing");
    let check = |bytes: &[u8], what: String| {
        fs::write(&spoiled, bytes).unwrap();
        let options = DiskOptions::of(Engine::Redb);
        let error = import(&spoiled, &path("new"), &options, &LIFE, &mut quiet).unwrap_err();
        assert!(matches!(error, TransferError::Damaged { .. }), "{what}: {error}");
        assert!(error.to_string().contains("spoiled.lapwing"), "{error}");
        assert!(!path("new").exists(), "{what}");
    };
    for at in (0..whole.len()).step_by(7) {
        check(&whole[..at], format!("cut at {at}"));
        let mut flipped = whole.clone();
        flipped[at] ^= 0x20;
        check(&flipped, format!("byte {at} flipped"));
    }
    check(&[whole, vec![0]].concat(), "a byte too many".to_owned());
}

#[test]
fn what_exists_or_is_open_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    at_rest(&path("old"), Engine::Sled);
    let out = path("out.lapwing");

    let running = journal(&path("old"), Engine::Sled);
    let error = export(&path("old"), &out, &mut quiet).unwrap_err();
    let is_busy = matches!(&error, TransferError::Store(error) if error.blame == Blame::Busy);
    assert!(is_busy && !out.exists(), "{error}");
    drop(running);

    export(&path("old"), &out, &mut quiet).unwrap();
    let error = export(&path("old"), &out, &mut quiet).unwrap_err();
    assert!(error.to_string().contains("it exists"), "{error}");
    let options = DiskOptions::of(Engine::Sled);
    let error = import(&out, &path("old"), &options, &LIFE, &mut quiet).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    assert_eq!(headers(&journal(&path("old"), Engine::Sled)).len(), 100);
    let error = export(&path("nowhere"), &path("other"), &mut quiet).unwrap_err();
    assert!(error.to_string().contains("no store"), "{error}");
}

fn sources_of(rows: &RowStore, journal: &Arc<Journal>) -> Sources {
    Sources {
        rows: vec![("state".into(), Arc::clone(rows.store()))],
        journals: vec![("journal".into(), Arc::clone(journal))],
    }
}

/// STO-095, STO-096: a copy of a store at work is the store as it was at one moment.
#[test]
fn rows_that_change_while_they_are_copied_are_copied_as_of_one_moment() {
    const KEYS: u64 = 6_000;
    for engine in Engine::ALL {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let rows = state(&path("data"), engine);
        // Each batch writes one number to the first keys, to the last, and to one between.
        let write = |number: u64| {
            let keys = [0, 1, KEYS / 2, KEYS - 2, KEYS - 1, 2 + number % (KEYS - 4)];
            let rows = keys.map(|key| Row {
                key: key.to_be_bytes().to_vec(),
                value: Some(number.to_be_bytes().to_vec()),
            });
            rows.to_vec()
        };
        for number in 0..KEYS {
            let _ = rows.submit(write(number)).unwrap();
        }
        smol::block_on(rows.submit(write(KEYS)).unwrap().durable()).unwrap();
        let (over, written) = (AtomicBool::new(false), AtomicU64::new(KEYS));
        std::thread::scope(|scope| {
            let _ending = Ending(&over);
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let number = written.load(Ordering::SeqCst) + 1;
                    smol::block_on(rows.submit(write(number)).unwrap().durable()).unwrap();
                    written.store(number, Ordering::SeqCst);
                }
            });
            for round in 0..3 {
                let before = written.load(Ordering::SeqCst);
                let sources = Sources {
                    rows: vec![("state".into(), Arc::clone(rows.store()))],
                    ..Sources::default()
                };
                // A copy that takes a while: the writer comes between its pages.
                let mut tell = |_: Progress<'_>| {
                    let seen = written.load(Ordering::SeqCst);
                    while written.load(Ordering::SeqCst) < seen + 3 {
                        std::thread::yield_now();
                    }
                };
                back_up(&sources, &path("backup"), 1, &mut tell).unwrap();
                let new = path(&format!("new {round}"));
                restore(&path("backup"), &new, &DiskOptions::of(engine), &LIFE, &mut quiet)
                    .unwrap();
                let store = DiskStore::open(&new.join("state"), &DiskOptions::of(engine)).unwrap();
                let value = |key: u64| {
                    let bytes = store.get(&key.to_be_bytes()).unwrap().unwrap();
                    u64::from_be_bytes(bytes.try_into().unwrap())
                };
                let moment = value(0);
                assert!(moment >= before, "{moment} is older than the backup's beginning {before}");
                assert!([1, KEYS / 2, KEYS - 2, KEYS - 1].iter().all(|key| value(*key) == moment));
                assert_eq!(value(2 + moment % (KEYS - 4)), moment);
                assert_eq!(store.scan(&Scan::from(&[], 10_000)).unwrap().len(), KEYS as usize);
            }
        });
    }
}

/// Ends the writer beside a test, also when the test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// STO-097: a partition is copied once, and what a backup protects is read from it.
#[test]
fn a_second_backup_copies_what_is_new_and_a_restore_ends_where_the_backup_did() {
    for engine in Engine::ALL {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (journal, rows) = (journal(&path("data"), engine), state(&path("data"), engine));
        put(&rows, b"k", 1);
        fill(&journal, 0..60);
        assert_eq!(protected(&path("backup"), "journal").unwrap(), None);
        let sources = sources_of(&rows, &journal);
        let first = back_up(&sources, &path("backup"), 10, &mut quiet).unwrap();
        assert!(first.written > 3 && first.written == first.files, "{first:?}");
        let known = protected(&path("backup"), "journal").unwrap().unwrap();
        assert_eq!((known.position, known.incarnation), (60, [0xaa; 16]));
        let heads: Vec<u64> = known.heads.iter().map(|(_, head)| head.last_commit).collect();
        assert_eq!(heads, [58, 59, 60]);

        put(&rows, b"k", 2);
        fill(&journal, 60..65);
        let second = back_up(&sources, &path("backup"), 20, &mut quiet).unwrap();
        assert_eq!((second.number, second.written), (2, 2), "the rows and one partition");
        fill(&journal, 65..80);
        drop((sources, journal, rows));

        let new = path("new");
        restore(&path("backup"), &new, &DiskOptions::of(engine), &LIFE, &mut quiet).unwrap();
        let journal = self::journal(&new, engine);
        assert_eq!(headers(&journal), (0..65).collect::<Vec<_>>());
        assert_eq!(journal.incarnation(), LIFE.incarnation);
        assert_eq!(state(&new, engine).get(b"k").unwrap(), Some(2_u64.to_be_bytes().into()));
        // Numbers behind the backup's end are given again, in another life.
        fill(&journal, 100..101);
        assert_eq!(journal.durable(), 66);
        let third =
            back_up(&sources_of(&state(&new, engine), &journal), &path("backup"), 30, &mut quiet);
        assert_eq!(third.unwrap().number, 3);
        assert_eq!(protected(&path("backup"), "journal").unwrap().unwrap().incarnation, [0xee; 16]);
    }
}

#[test]
fn what_retention_dropped_is_in_no_backup_and_hinders_no_restore() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (journal, rows) =
        (journal(&path("data"), Engine::Redb), state(&path("data"), Engine::Redb));
    fill(&journal, 0..120);
    let sources = sources_of(&rows, &journal);
    let first = back_up(&sources, &path("backup"), 10, &mut quiet).unwrap();
    let retained =
        journal.retain(Retention { bytes_max: Some(0), ..Retention::default() }).unwrap();
    assert!(!retained.dropped.is_empty());
    let second = back_up(&sources, &path("backup"), 20, &mut quiet).unwrap();
    assert_eq!(first.files - second.files, retained.dropped.len() as u64);
    let files = fs::read_dir(path("backup")).unwrap().count() as u64;
    assert_eq!(files, second.files + 1, "files and their list");
    let options = DiskOptions::of(Engine::Redb);
    restore(&path("backup"), &path("new"), &options, &LIFE, &mut quiet).unwrap();
    let restored = self::journal(&path("new"), Engine::Redb);
    assert_eq!(headers(&restored), headers(&journal));
    assert_eq!(restored.durable(), 120);
}

/// STO-098: the list names what is whole; without one, or with a file changed, nothing is made.
#[test]
fn a_backup_that_is_not_whole_is_not_restored_and_a_failed_one_leaves_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let options = DiskOptions::of(Engine::Redb);
    let error = restore(&path("backup"), &path("new"), &options, &LIFE, &mut quiet).unwrap_err();
    assert!(error.to_string().contains("no finished backup"), "{error}");

    let (journal, rows) =
        (journal(&path("data"), Engine::Redb), state(&path("data"), Engine::Redb));
    fill(&journal, 0..30);
    let sources = sources_of(&rows, &journal);
    back_up(&sources, &path("backup"), 10, &mut quiet).unwrap();
    // The next one fails at its first file.
    fs::create_dir(path("backup").join("2-state.store")).unwrap();
    fill(&journal, 30..40);
    back_up(&sources, &path("backup"), 20, &mut quiet).unwrap_err();
    fs::remove_dir(path("backup").join("2-state.store")).unwrap();
    assert_eq!(protected(&path("backup"), "journal").unwrap().unwrap().position, 30);
    restore(&path("backup"), &path("new"), &options, &LIFE, &mut quiet).unwrap();
    assert_eq!(headers(&self::journal(&path("new"), Engine::Redb)).len(), 30);

    let file = fs::read_dir(path("backup")).unwrap().map(|file| file.unwrap().path());
    let file = file.into_iter().find(|file| file.to_string_lossy().contains("p-")).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let error = restore(&path("backup"), &path("newer"), &options, &LIFE, &mut quiet).unwrap_err();
    assert!(matches!(error, TransferError::Damaged { .. }), "{error}");
    assert!(!path("newer").exists());
}
