//! kill -9: a child process commits through the journal and reports each acknowledged entry; it is
//! killed at any moment, and after reopening every reported entry is whole.
//!
//! What it does not show: a power cut. kill -9 leaves the operating system's cache intact.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapwing_store::DiskOptions;
use lapwing_store::journal::{
    Append, DirectoryPartitions, Incarnation, Journal, JournalOptions, LaneKey, LogKey, PageLimit,
};

const CHILD: &str = "LAPWING_STORE_CRASH_CHILD";
const ROUNDS: u64 = 8;
/// Small, so that new partitions open all the time.
const PARTITION_BYTES_MAX: u64 = 300_000;

fn open(root: &Path) -> Journal {
    let options = JournalOptions {
        partition_bytes_max: PARTITION_BYTES_MAX,
        ..JournalOptions::new(Incarnation::Keep([7; 16]), 0)
    };
    let partitions = DirectoryPartitions::new(root, DiskOptions::default());
    Journal::open(Arc::new(partitions), &options).unwrap()
}

/// Entry number `n` of the journal, whole and recognisable.
fn entry(n: u64) -> Append {
    let sensor = [n.to_le_bytes()[0] % 5; 16];
    Append {
        log: LogKey { lane: LaneKey { sensor, lane: 0 }, log: [1; 16] },
        segment: n / 50,
        received_wall_ms: 0,
        header: n.to_le_bytes().to_vec(),
        body: n.to_le_bytes().repeat(1 + (n as usize * 131) % 2000),
        head: n.to_le_bytes().to_vec(),
    }
}

/// Not a test of its own: the child commits until it is killed.
#[test]
fn child() {
    let Some(root) = std::env::var_os(CHILD) else { return };
    let journal = open(Path::new(&root));
    let mut next = journal.durable() + 1;
    let mut out = std::io::stdout();
    loop {
        let tickets: Vec<_> = (0..20).map(|n| journal.append(entry(next + n)).unwrap()).collect();
        for ticket in tickets {
            let id = ticket.wait().unwrap();
            writeln!(out, "acked {id}").unwrap();
            out.flush().unwrap();
        }
        next += 20;
    }
}

/// Runs the child until it has acknowledged something, then a while longer, and kills it. Returns
/// the last id that it reported.
fn run_and_kill(root: &Path, grace: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let acked = |line: &str| line.rsplit_once("acked ").and_then(|(_, id)| id.parse::<u64>().ok());
    let mut last = lines.by_ref().map_while(Result::ok).find_map(|line| acked(&line)).unwrap();
    let until = Instant::now() + grace;
    while Instant::now() < until {
        let Some(Ok(line)) = lines.next() else { break };
        last = acked(&line).unwrap_or(last);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What is still in the pipe was acknowledged too; the very last line may be cut.
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let whole = rest.len().saturating_sub(1);
    rest[..whole].iter().filter_map(|line| acked(line)).fold(last, u64::max)
}

fn verify(journal: &Journal, acked: u64) {
    assert!(journal.durable() >= acked, "{} of {acked} are left", journal.durable());
    let mut next = 1;
    while next <= journal.durable() {
        let page = journal.read_from(next, PageLimit::default()).unwrap();
        for stored in page.entries {
            let expected = entry(stored.commit_id);
            assert_eq!((stored.log, stored.segment), (expected.log, expected.segment));
            assert!(stored.header == expected.header && stored.body == expected.body);
        }
        next = page.next;
    }
    for (lane, head) in journal.heads(None, 100).unwrap() {
        let last = journal.entry(head.last_commit).unwrap().unwrap();
        assert_eq!((last.log.lane, last.header), (lane, head.record));
    }
}

#[test]
fn every_acknowledged_entry_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("journal");
    let mut acked = 0;
    for round in 1..=ROUNDS {
        // Spread over the flush, the partition switch and the opening of the next round.
        let grace = Duration::from_millis(20 + (round * 7919) % 230);
        acked = acked.max(run_and_kill(&root, grace));
        let journal = open(&root);
        verify(&journal, acked);
        assert_eq!(journal.boots(), 2 * round);
    }
    assert!(open(&root).partitions().unwrap().len() > 1, "no partition was ever switched");
}
