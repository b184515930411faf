//! Pages over a disk that loses power at any moment: what was read on by the cursor was counted.

use std::collections::BTreeMap;

use lapwing_protocol::console::{ActivityType, Severity};
use lapwing_protocol::element::process;
use lapwing_protocol::id::{ElementGuid, SensorId};
use lapwing_protocol::malop::MalOpStatus;
use lapwing_server_core::evidence::evidence_id;
use lapwing_server_core::view::OwnedCell;
use lapwing_store::MemoryDisk;

use super::*;

const SERVER: ServerId = ServerId([1; 16]);
const PAGE: usize = 40;

#[test]
fn whenever_the_power_is_cut_each_evidence_counts_once() {
    for unsynced_kept in 0..6 {
        let disk = MemoryDisk::new("malops");
        let feed: Vec<Evidence> = (0..200).map(evidence).collect();
        // As many pages as go; then the disk fails in the middle of one, and the power goes.
        for round in 0..6 {
            let state = open(&disk);
            for page in 0..round {
                if page + 1 == round {
                    disk.fail_next_sync();
                }
                let cursor = state.cursor(SERVER).cursor as usize;
                let to = feed.len().min(cursor + PAGE);
                let taken = smol::block_on(state.take(page_of(&feed[cursor..to], to)));
                assert_eq!(taken.is_err(), page + 1 == round);
            }
            drop(state);
            disk.cut_power(unsynced_kept);
        }
        let state = open(&disk);
        let cursor = state.cursor(SERVER).cursor as usize;
        smol::block_on(state.take(page_of(&feed[cursor..], feed.len()))).unwrap();
        assert_eq!(counts(&state), expected(&feed), "{unsynced_kept} kept");
    }
}

#[test]
fn a_reader_never_sees_a_change_that_a_power_cut_takes_back() {
    let disk = MemoryDisk::new("malops");
    let state = open(&disk);
    smol::block_on(state.take(page_of(&[evidence(1)], 1))).unwrap();
    let id = malop::group_id(&evidence(1));
    let seen = state.changes(0, 10).next_cursor;
    disk.fail_next_sync();
    let closing = (id, MalOpStatus::Closed);
    let failed = state.work(|malops| malops.handle_status(1, closing, "anna"));
    assert_eq!(smol::block_on(failed).unwrap_err().code, Code::STORE_FAILED);
    assert!(state.changes(seen, 10).items.is_empty());
    let shown = smol::block_on(state.settle());
    assert_eq!(shown.unwrap_err().code, Code::STORE_FAILED, "nor does who asks");
    drop(state);
    disk.cut_power(0);
    let state = open(&disk);
    smol::block_on(state.take(page_of(&[evidence(21)], 2))).unwrap();
    let again = state.changes(seen, 10);
    assert!(!again.items.is_empty(), "the number is given again, and nobody had it");
    let status = state.look(|malops| malops.malop(id).unwrap().status);
    assert_eq!(status, MalOpStatus::New);
}

#[test]
fn a_page_that_nobody_waits_for_is_taken_before_the_next() {
    let disk = MemoryDisk::new("malops");
    let state = open(&disk);
    let feed: Vec<Evidence> = (0..100).map(evidence).collect();
    for _ in 0..20 {
        let take = state.take(page_of(&feed, feed.len()));
        // Dropped after its first step, as a follower is whose server left the list.
        drop(smol::block_on(smol::future::poll_once(take)));
    }
    smol::block_on(state.take(page_of(&feed, feed.len()))).unwrap();
    assert_eq!(counts(&state), expected(&feed));
}

#[test]
fn changes_come_in_pages_that_leave_nothing_out() {
    let disk = MemoryDisk::new("malops");
    let state = open(&disk);
    let feed: Vec<Evidence> = (0..20).map(evidence).collect();
    smol::block_on(state.take(page_of(&feed, 20))).unwrap();
    let (mut cursor, mut pages) = (0, 0);
    loop {
        let page = state.changes(cursor, 3);
        cursor = page.next_cursor;
        pages += 1;
        if page.at_end {
            break;
        }
    }
    assert_eq!((cursor, pages), (state.look(MalOps::last_change), 7));
}

fn open(disk: &MemoryDisk) -> Arc<State> {
    let rows = RowStore::over(Arc::new(disk.open().unwrap())).unwrap();
    Arc::new(State::open(MalOpLimits::default(), rows, &Metrics::default()).unwrap())
}

fn page_of(evidences: &[Evidence], next: usize) -> EvidencePage {
    let next = CursorRecord { incarnation: Some(Incarnation([1; 16])), cursor: next as u64 };
    EvidencePage { server: SERVER, evidences: evidences.to_vec(), next }
}

fn counts(state: &State) -> BTreeMap<String, u64> {
    state.look(|malops| {
        malops.malops(None).map(|group| (group.root_cause.clone(), group.count)).collect()
    })
}

fn expected(feed: &[Evidence]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for evidence in feed {
        *counts.entry(evidence.root_cause.clone()).or_default() += 1;
    }
    counts
}

/// One of 20 causes.
fn evidence(number: u64) -> Evidence {
    let root_cause = format!("hash:{:02}", number % 20);
    let mut element = [0; 16];
    element[..8].copy_from_slice(&number.to_be_bytes());
    let element = ElementGuid(element);
    Evidence {
        evidence: evidence_id("blocklisted_hash", element, &root_cause),
        rule: "blocklisted_hash".to_owned(),
        title: "sleep (7) runs a blocklisted file".to_owned(),
        sensor: SensorId([1; 16]),
        machine: "m1".to_owned(),
        user: "root".to_owned(),
        element,
        kind: process::KIND,
        label: "sleep (7)".to_owned(),
        root_cause,
        happened_ms: number,
        raised_ms: number,
        severity: Severity::High,
        activity: ActivityType::MaliciousInfection,
        suspicious: true,
        techniques: Vec::new(),
        reputation: vec![("verdict".to_owned(), OwnedCell::Text("block".to_owned()))],
        fields: Vec::new(),
        processes: Vec::new(),
    }
}
