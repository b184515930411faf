//! Delivery as a stranger can check it: a load of events over real sockets, servers that die under
//! it, and afterwards the export and the ledger, counted here.
//!
//! The same with larger numbers is in docs/benchmarks.md. Held over sockets: DLV-001, DLV-003,
//! DLV-006, DLV-014, DLV-019.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::collections::{BTreeMap, BTreeSet};
use std::thread::JoinHandle;
use std::time::Duration;

use lapwing_tests::load::{self, Arguments, Gate, Report, sample};
use lapwing_tests::platform::{Platform, signal};
use lapwing_tests::wait;
use serde_json::Value;

/// How long a load may take on a busy machine: a bound for failing.
const LONG: Duration = Duration::from_secs(240);

/// Runs a load beside the test.
fn start_load(
    platform: &Platform,
    corpus: &str,
    gate: &Gate,
    more: &[&str],
) -> JoinHandle<Result<Report, String>> {
    let file = platform.folder().join("corpus.jsonl");
    std::fs::write(&file, corpus).expect("a corpus");
    let ready_file = platform.ready_file();
    let named = |name: &str, value: &std::path::Path| {
        [name.to_owned(), value.to_str().expect("a plain path").to_owned()]
    };
    let mut all: Vec<String> = Vec::new();
    all.extend(named("--ready-file", &ready_file));
    all.extend(named("--corpus", &file));
    all.extend(more.iter().map(|text| (*text).to_owned()));
    let gate = gate.clone();
    std::thread::spawn(move || {
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let arguments: Arguments =
            argh::FromArgs::from_args(&["lapwing-load"], &all).map_err(|exit| exit.output)?;
        load::run_gated(&arguments, &gate)
    })
}

fn finished(load: JoinHandle<Result<Report, String>>) -> Report {
    load.join().expect("the load does not panic").unwrap_or_else(|problem| panic!("{problem}"))
}

/// The rows of the export: those that stand for a fact of the corpus, by its number, and the rest.
struct Export {
    events: BTreeMap<u64, Vec<Value>>,
    others: Vec<Value>,
}

fn export(platform: &Platform) -> Export {
    let output = platform.ctl_output(&["events", "export"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "events export: {}\n{said}", output.status);
    let mut export = Export { events: BTreeMap::new(), others: Vec::new() };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let row: Value = serde_json::from_str(line).expect("one object a line");
        match row["source_seq"].as_u64() {
            Some(seq) => export.events.entry(seq).or_default().push(row),
            None => export.others.push(row),
        }
    }
    export
}

impl Export {
    /// Holds that every event below `count` is there once, told by the sensor it went to.
    fn assert_each_once(&self, count: u64, corpus: &str, sensors: u64) {
        let twice: Vec<_> = self.events.iter().filter(|(_, rows)| rows.len() > 1).take(3).collect();
        assert!(twice.is_empty(), "twice: {twice:#?}");
        let missing: Vec<u64> =
            (0..count).filter(|seq| !self.events.contains_key(seq)).take(9).collect();
        assert!(missing.is_empty(), "missing: {missing:?}");
        assert_eq!(self.events.len() as u64, count);
        for (line, (seq, rows)) in corpus.lines().zip(&self.events) {
            let event: Value = serde_json::from_str(line).expect("a line of the corpus");
            assert_eq!(event["seq"], *seq);
            let expected = format!("load-{:05}", event["pid"].as_u64().expect("a pid") % sensors);
            assert_eq!(rows[0]["machine"], Value::from(expected), "{line}");
        }
    }

    /// Rows that tell of something wrong.
    fn alarms(&self) -> Vec<&Value> {
        let is_wrong = |row: &&Value| {
            row["kind"] == "finding" || row["op"] == "undecoded" || row["op"] == "unreadable"
        };
        self.others.iter().filter(is_wrong).collect()
    }
}

/// Holds that the ledger balances, and gives what it says was produced, stored and dropped.
fn balanced(platform: &Platform) -> (u64, u64, u64) {
    let (mut produced, mut stored, mut dropped) = (0, 0, 0);
    for row in platform.rows(&["ledger"]) {
        assert_eq!(row["balanced"], Value::from(true), "{row}");
        produced += row["produced"].as_u64().expect("produced");
        stored += row["stored"].as_u64().expect("stored");
        let reasons = row["dropped"].as_object().expect("dropped, by reason");
        dropped += reasons.values().filter_map(Value::as_u64).sum::<u64>();
    }
    assert_eq!(produced, stored + dropped);
    (produced, stored, dropped)
}

fn detection_pid(platform: &Platform, name: &str) -> Option<u32> {
    let ready = platform.ready();
    let server = ready["detection"].as_array()?.iter().find(|it| it["name"] == name)?.clone();
    u32::try_from(server["pid"].as_u64()?).ok()
}

/// Chunks that a server has taken since it started; `None` while it does not answer.
fn chunks_taken(platform: &Platform, server: &str) -> Option<u64> {
    let rows = platform.try_ctl(&["servers", "list"])?;
    let is_up = |row: &Value| row["name"] == server && row["status"] == "up";
    rows.as_array()?.iter().any(is_up).then_some(())?;
    platform.try_metric(server, "lapwing_sensor_chunks_total", "").map(|count| count as u64)
}

#[test]
fn a_server_that_is_killed_under_load_loses_nothing_and_doubles_nothing() {
    let platform = Platform::start(&["--no-sensor"]);
    let (events, sensors) = (20_000, 10);
    let corpus = sample::corpus(events, 0);
    let gate = Gate::at(0);
    let load = start_load(&platform, &corpus, &gate, &["--sensors", "10", "--chunk-events", "50"]);
    for kill in 1..=2 {
        gate.raise(events * kill / 3);
        wait::until("chunks to come in", LONG, || {
            chunks_taken(&platform, "d1").filter(|chunks| *chunks >= 20)
        });
        let pid = detection_pid(&platform, "d1").expect("it runs");
        signal(pid, "KILL");
        gate.raise(events * kill / 3 + 500);
        wait::until("another process", LONG, || {
            detection_pid(&platform, "d1").filter(|now| *now != pid)
        });
    }
    gate.raise(events);
    let report = finished(load);
    assert_eq!((report.missing(), report.unfinished()), (0, 0), "{}", report.json());
    assert_eq!(*report.value("events"), events);
    assert!(report.value("sessions").as_u64() >= Some(2 * sensors), "{}", report.json());
    let export = export(&platform);
    export.assert_each_once(events, &corpus, sensors);
    assert!(export.alarms().is_empty(), "{:?}", export.alarms());
    let (produced, _, dropped) = balanced(&platform);
    assert_eq!((Value::from(produced), dropped), (report.value("produced").clone(), 0));
    drop(platform.stop());
}

#[test]
fn what_a_small_spool_drops_is_announced_to_the_event() {
    let platform = Platform::start(&["--no-sensor"]);
    let events = 50_000;
    let corpus = sample::corpus(events, 300);
    let folder = platform.folder().join("spool");
    let folder = folder.to_str().expect("a plain path");
    let bounds = ["--spool-max", "4194304", "--offline-events", "45000"];
    let mut options = vec!["--sensors", "1", "--spool-dir", folder];
    options.extend(bounds);
    let report = finished(start_load(&platform, &corpus, &Gate::at(u64::MAX), &options));
    assert_eq!((report.missing(), report.unfinished()), (0, 0), "{}", report.json());
    let export = export(&platform);
    let twice = export.events.values().filter(|rows| rows.len() > 1).count();
    assert_eq!(twice, 0);
    let (produced, stored, dropped) = balanced(&platform);
    assert!(dropped > 1_000, "the spool was too small for all: {}", report.json());
    assert_eq!(Value::from(produced), *report.value("produced"));
    assert_eq!(Value::from(dropped), *report.value("dropped"));
    let facts = |row: &&Value| row["op"] != "jump";
    let exported = export.events.len() + export.others.iter().filter(facts).count();
    assert_eq!(exported as u64, stored, "the export and the ledger agree");
    // The newest are kept, and nothing is missing behind the last hole.
    let last: BTreeSet<u64> = export.events.keys().copied().filter(|seq| *seq >= 45_000).collect();
    assert_eq!(last.len(), 5_000);
    drop(platform.stop());
}

#[test]
fn a_sensor_that_moves_with_unacknowledged_chunks_and_comes_back_is_told_once() {
    let platform = Platform::start_with_fault("ack.hold@d1", &["--no-sensor", "--capacity", "2,1"]);
    platform.ctl(&["reputation", "add", "--hash", sample::FIRST_HASH, "--block"]);
    let events = 30_000;
    let corpus = sample::corpus(events, 0);
    // More than one window of 256 chunks: what lies beyond it in the same segment is d2's alone.
    let gate = Gate::at(18_000);
    let options = ["--sensors", "1", "--chunk-events", "64", "--patience", "200"];
    let load = start_load(&platform, &corpus, &gate, &options);
    let at = |server: &str| {
        wait::until(&format!("the sensor to be at {server}"), LONG, || {
            let rows = platform.try_ctl(&["sensors", "list"])?;
            let is_there = |row: &&Value| row["detection"] == server && row["status"] == "Online";
            rows.as_array()?.iter().find(is_there).cloned()
        })
    };
    at("d1");
    wait::until("200 chunks that are stored and not acknowledged", LONG, || {
        chunks_taken(&platform, "d1").filter(|chunks| *chunks >= 200)
    });
    platform.ctl(&["servers", "stop", "d1", "--kill"]);
    at("d2");
    gate.raise(24_000);
    wait::until("what d1 never acknowledged, at d2", LONG, || {
        chunks_taken(&platform, "d2").filter(|chunks| *chunks >= 300)
    });
    platform.ctl(&["servers", "start", "d1"]);
    wait::until("d1 to be back", LONG, || chunks_taken(&platform, "d1"));
    platform.ctl(&["servers", "stop", "d2"]);
    at("d1");
    platform.ctl(&["servers", "start", "d2"]);
    gate.raise(events);
    let report = finished(load);
    wait::until("d2 to be back", LONG, || chunks_taken(&platform, "d2"));
    assert_eq!((report.missing(), report.unfinished()), (0, 0), "{}", report.json());
    assert!(report.value("resent").as_u64() >= Some(200), "{}", report.json());

    let export = export(&platform);
    export.assert_each_once(events, &corpus, 1);
    assert!(export.alarms().is_empty(), "{:?}", export.alarms());
    let of =
        |server: &str| export.events.iter().filter(|(_, rows)| rows[0]["server"] == server).count();
    assert!(of("d1") > 0 && of("d2") > 0, "{} at d1, {} at d2", of("d1"), of("d2"));
    let last = export.events.get(&(events - 1)).expect("the last event");
    assert_eq!(last[0]["server"], "d1", "it came back");
    let (_, _, dropped) = balanced(&platform);
    assert_eq!(dropped, 0);
    let malops = platform.rows(&["malops", "list"]);
    let about: Vec<_> = malops
        .iter()
        .filter(|row| row["root_cause"].to_string().contains(sample::FIRST_HASH))
        .collect();
    assert_eq!((about.len(), malops.len()), (1, 1), "{malops:#?}");
    drop(platform.stop());
}
