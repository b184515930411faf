//! One conformance suite for every back end: what `docs/store.md` asks of a store, as functions.
//!
//! A back end's test hands over a place that can be opened again and again; each function opens it
//! fresh. What it is not: a benchmark, or a test of the engine below.
//! Invariant: a case fails with words that name the requirement.

use std::fmt;
use std::ops::ControlFlow;

use crate::batch::{Batch, Misuse};
use crate::envelope::Damage;
use crate::error::{Blame, StoreError};
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::store::{Direction, Scan, Store};

/// A place for one store.
pub trait Place {
    /// Opens the store; the handle before it has been dropped.
    ///
    /// # Errors
    /// As the back end says.
    fn open(&self) -> Result<Box<dyn Store>, StoreError>;

    /// Takes away what was not synced, as far as the place can do that.
    fn cut_power(&self) -> PowerCut;
}

/// What a place did when it was asked to cut the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCut {
    /// Everything since the last sync is gone and open handles are dead.
    Done,
    /// This place cannot do that; the case is skipped.
    NotSimulated,
}

/// A case that failed, in words.
#[derive(Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl From<Misuse> for Failure {
    fn from(misuse: Misuse) -> Self {
        Self(misuse.to_string())
    }
}

/// A conformance case: needs an empty place.
pub type Case = fn(&dyn Place) -> Result<(), Failure>;

/// Every case with its name.
pub const CASES: &[(&str, Case)] = &[
    ("values_come_back", values_come_back),
    ("a_batch_is_whole_and_its_last_word_counts", a_batch_is_whole_and_its_last_word_counts),
    ("keys_are_ordered_as_bytes", keys_are_ordered_as_bytes),
    ("scans_keep_their_bounds", scans_keep_their_bounds),
    ("bounds_of_keys_and_values", bounds_of_keys_and_values),
    ("damage_is_found_and_named", damage_is_found_and_named),
    ("what_was_synced_survives_reopening", what_was_synced_survives_reopening),
    ("a_power_cut_takes_only_the_unsynced", a_power_cut_takes_only_the_unsynced),
    ("many_batches_agree_with_a_map", many_batches_agree_with_a_map),
    ("size_is_told", size_is_told),
    ("handles_are_shared_between_threads", handles_are_shared_between_threads),
];

fn check(condition: bool, requirement: &str) -> Result<(), Failure> {
    if condition { Ok(()) } else { Err(Failure(requirement.to_owned())) }
}

fn put(store: &dyn Store, rows: &[(&[u8], &[u8])]) -> Result<(), Failure> {
    let mut batch = Batch::new();
    rows.iter().try_for_each(|(key, value)| batch.put(key, value))?;
    Ok(store.apply(batch)?)
}

fn keys(store: &dyn Store, scan: &Scan<'_>) -> Result<Vec<Vec<u8>>, Failure> {
    Ok(store.scan(scan)?.into_iter().map(|(key, _)| key).collect())
}

fn values_come_back(place: &dyn Place) -> Result<(), Failure> {
    let store = place.open()?;
    check(store.get(b"a")?.is_none(), "an absent key is absent")?;
    put(&*store, &[(b"a", b"one"), (b"b", b"")])?;
    check(store.get(b"a")?.as_deref() == Some(b"one"), "a value is seen at once")?;
    check(store.get(b"b")?.as_deref() == Some(b""), "an empty value is a value")?;
    put(&*store, &[(b"a", b"two")])?;
    check(store.get(b"a")?.as_deref() == Some(b"two"), "a later put replaces")?;
    let mut batch = Batch::new();
    batch.delete(b"a")?;
    batch.delete(b"never there")?;
    store.apply(batch)?;
    check(store.get(b"a")?.is_none(), "a deleted key is absent")?;
    store.apply(Batch::new())?;
    Ok(store.sync()?)
}

fn a_batch_is_whole_and_its_last_word_counts(place: &dyn Place) -> Result<(), Failure> {
    let store = place.open()?;
    put(&*store, &[(b"gone", b"x")])?;
    let mut batch = Batch::new();
    batch.put(b"k", b"first")?;
    batch.put(b"k", b"second")?;
    batch.put(b"d", b"x")?;
    batch.delete(b"d")?;
    batch.delete(b"gone")?;
    batch.put(b"gone", b"back")?;
    store.apply(batch)?;
    check(store.get(b"k")?.as_deref() == Some(b"second"), "the last put of a key counts")?;
    check(store.get(b"d")?.is_none(), "a delete after a put counts")?;
    check(store.get(b"gone")?.as_deref() == Some(b"back"), "a put after a delete counts")?;

    let mut large = Batch::new();
    for n in 0..2000_u32 {
        large.put(&n.to_be_bytes(), &[7; 500])?;
    }
    store.apply(large)?;
    store.sync()?;
    drop(store);
    let store = place.open()?;
    let rows = store.scan(&Scan::range(&[0], &2000_u32.to_be_bytes(), 5000))?;
    check(rows.len() == 2000, "a large batch is there as a whole after reopening")
}

fn keys_are_ordered_as_bytes(place: &dyn Place) -> Result<(), Failure> {
    let store = place.open()?;
    let mut expected: Vec<Vec<u8>> =
        [&b"\0"[..], b"\0\0", b"\x01", b"a", b"a\0", b"aa", b"b", b"\xff", b"\xff\xff"]
            .iter()
            .map(|key| key.to_vec())
            .collect();
    for key in expected.iter().rev() {
        put(&*store, &[(key, b"v")])?;
    }
    check(keys(&*store, &Scan::from(&[], 100))? == expected, "ascending keys")?;
    expected.reverse();
    check(keys(&*store, &Scan::from(&[], 100).descending())? == expected, "descending keys")
}

fn scans_keep_their_bounds(place: &dyn Place) -> Result<(), Failure> {
    let store = place.open()?;
    for n in 0..100_u8 {
        put(&*store, &[(&[n], &[n])])?;
    }
    let range = Scan::range(&[10], &[20], 100);
    let forward = keys(&*store, &range)?;
    check(forward == (10..20_u8).map(|n| vec![n]).collect::<Vec<_>>(), "from <= key < to")?;
    let backward = keys(&*store, &range.descending())?;
    check(backward.iter().rev().eq(forward.iter()), "the same keys from the other end")?;
    let three = Scan { limit: 3, ..range };
    check(keys(&*store, &three)? == [[10], [11], [12]], "a limit from the start")?;
    check(keys(&*store, &three.descending())? == [[19], [18], [17]], "a limit from the end")?;
    check(keys(&*store, &Scan { limit: 0, ..range })?.is_empty(), "a limit of nothing")?;
    check(keys(&*store, &Scan::range(&[20], &[20], 9))?.is_empty(), "an empty range")?;
    check(keys(&*store, &Scan::range(&[20], &[10], 9))?.is_empty(), "an inverted range")?;
    check(keys(&*store, &Scan::from(&[98], 9))? == [[98], [99]], "a range without end")?;
    let mut visited = 0;
    store.visit(&Scan::from(&[], 100), &mut |_, _| {
        visited += 1;
        if visited == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    check(visited == 5, "a visitor that breaks is heard")
}

fn bounds_of_keys_and_values(place: &dyn Place) -> Result<(), Failure> {
    let store = place.open()?;
    let (key, value) = ([9; KEY_BYTES_MAX], vec![3; VALUE_BYTES_MAX]);
    put(&*store, &[(&key, &value)])?;
    check(store.get(&key)?.as_ref() == Some(&value), "the longest key and value fit")?;
    let refused = store.get(&[9; KEY_BYTES_MAX + 1]).map_err(|error| error.blame);
    check(refused == Err(Blame::Caller(Misuse::KeyTooLong(129))), "a longer key is refused")?;
    let refused = store.get(b"").map_err(|error| error.blame);
    check(refused == Err(Blame::Caller(Misuse::KeyEmpty)), "an empty key is refused")?;
    put(&*store, &[(b"after", b"v")])?;
    check(store.get(b"after")?.is_some(), "a refused key does not stop the store")
}

fn damage_is_found_and_named(place: &dyn Place) -> Result<(), Failure> {
    let store = place.open()?;
    put(&*store, &[(b"a", b"fine"), (b"b", b"spoiled"), (b"c", b"fine")])?;
    let mut sealed = Vec::new();
    store.read_sealed(b"b", &mut |bytes| sealed = bytes.to_vec())?;
    for (at, damage) in [(7, Damage::Checksum), (0, Damage::Version(0xfe))] {
        let mut spoiled = sealed.clone();
        spoiled[at] ^= 0xff;
        let mut batch = Batch::new();
        batch.put_sealed(b"b", &spoiled)?;
        store.apply(batch)?;
        let expected = Blame::Value { key: b"b"[..].into(), damage };
        let got = store.get(b"b").map_err(|error| error.blame);
        check(got == Err(expected.clone()), "get names the damaged key")?;
        let scanned = store.scan(&Scan::from(b"a", 9)).map_err(|error| error.blame);
        check(scanned == Err(expected), "a scan names the damaged key")?;
    }
    let mut batch = Batch::new();
    batch.put_sealed(b"c", &sealed)?;
    store.apply(batch)?;
    check(store.get(b"c").is_err(), "a value that strayed to another key is damage")?;
    check(store.get(b"a")?.is_some(), "other values can still be read")
}

fn what_was_synced_survives_reopening(place: &dyn Place) -> Result<(), Failure> {
    for round in 0..5_u8 {
        let store = place.open()?;
        for before in 0..round {
            check(store.get(&[before])?.as_deref() == Some(&[before; 100]), "synced is kept")?;
        }
        put(&*store, &[(&[round], &[round; 100])])?;
        store.sync()?;
    }
    Ok(())
}

fn a_power_cut_takes_only_the_unsynced(place: &dyn Place) -> Result<(), Failure> {
    let store = place.open()?;
    put(&*store, &[(b"kept", b"old"), (b"also", b"kept")])?;
    store.sync()?;
    put(&*store, &[(b"kept", b"new"), (b"lost", b"x")])?;
    let mut batch = Batch::new();
    batch.delete(b"also")?;
    store.apply(batch)?;
    if place.cut_power() == PowerCut::NotSimulated {
        return Ok(());
    }
    check(store.sync().is_err(), "a handle from before the power cut is dead")?;
    drop(store);
    let store = place.open()?;
    check(store.get(b"kept")?.as_deref() == Some(b"old"), "a synced value is back")?;
    check(store.get(b"also")?.as_deref() == Some(b"kept"), "an unsynced delete is undone")?;
    check(store.get(b"lost")?.is_none(), "an unsynced put is gone")
}

fn many_batches_agree_with_a_map(place: &dyn Place) -> Result<(), Failure> {
    let mut model = std::collections::BTreeMap::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for _ in 0..4 {
        let store = place.open()?;
        for _ in 0..100 {
            let mut batch = Batch::new();
            for _ in 0..draw(20) {
                let key = draw(300).to_be_bytes();
                if draw(4) == 0 {
                    batch.delete(&key)?;
                    model.remove(&key[..]);
                } else {
                    let value = vec![draw(256) as u8; draw(3000) as usize];
                    batch.put(&key, &value)?;
                    model.insert(key.to_vec(), value);
                }
            }
            store.apply(batch)?;
        }
        store.sync()?;
        let rows = store.scan(&Scan::from(&[], 1000))?;
        check(rows.into_iter().eq(model.clone()), "the store and a map agree")?;
        for direction in [Direction::Ascending, Direction::Descending] {
            let (from, to) = (draw(300).to_be_bytes(), draw(300).to_be_bytes());
            let scan = Scan { from: &from, to: Some(&to), direction, limit: 50 };
            let mut expected: Vec<_> = model
                .iter()
                .filter(|(key, _)| key[..] >= from[..] && key[..] < to[..])
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            if direction == Direction::Descending {
                expected.reverse();
            }
            expected.truncate(50);
            check(store.scan(&scan)? == expected, "a range of the store and of a map agree")?;
        }
    }
    Ok(())
}

fn size_is_told(place: &dyn Place) -> Result<(), Failure> {
    let store = place.open()?;
    for n in 0..500_u32 {
        put(&*store, &[(&n.to_be_bytes(), &[n.to_le_bytes()[0]; 4000])])?;
    }
    store.sync()?;
    check(store.size_bytes()? >= 2_000_000, "2 MB of values take at least as much")
}

fn handles_are_shared_between_threads(place: &dyn Place) -> Result<(), Failure> {
    let store = place.open()?;
    let written = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4_u8)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || {
                    (0..50_u8).try_for_each(|n| {
                        put(&**store, &[(&[writer, n, 0], b"left"), (&[writer, n, 1], b"right")])?;
                        check(store.get(&[writer, n, 1])?.is_some(), "a thread sees its write")
                    })
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().ok()).collect::<Vec<_>>()
    });
    for outcome in written {
        outcome.unwrap_or_else(|| Err(Failure("a writer panicked".to_owned())))?;
    }
    store.sync()?;
    check(store.scan(&Scan::from(&[], 1000))?.len() == 400, "every write is there")
}
