//! The second sensor: a program in another language, written from docs/protocol.md alone, against
//! the platform over real sockets.
//!
//! What it delivers is checked from outside, by `lapwing ctl`. That it shares no code with the
//! product is its whole worth: where this fails, one of the two or the page is wrong.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lapwing_tests::house::require;
use lapwing_tests::platform::{PATIENCE, Platform, signal};
use lapwing_tests::wait;
use serde_json::Value;

/// Facts of the corpus.
const FACTS: usize = 5_000;
/// Facts a second, so that there is a middle to be killed in.
const RATE: &str = "1000";

/// The second sensor's folder in the repository.
fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("second")
}

/// A run of the second sensor; it ends with the test.
struct Second(Child);

impl Second {
    fn start(platform: &Platform, corpus: &Path) -> Self {
        let ready = platform.ready();
        let text = |name: &str| ready[name].as_str().expect("the ready file is whole").to_owned();
        let output = platform.folder().join("second.log");
        let output = std::fs::File::options().create(true).append(true).open(output);
        let child = Command::new("python3")
            .arg(source().join("sensor.py"))
            .args(["--registration", &text("registration"), "--ca", &text("ca_file")])
            .args(["--token", &text("enrolment_token"), "--name", "second", "--rate", RATE])
            .arg("--state")
            .arg(platform.folder().join("second"))
            .arg("--corpus")
            .arg(corpus)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(output.expect("a file for what it says"))
            .spawn()
            .expect("python3 starts");
        Self(child)
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().expect("it is a child").is_none()
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the platform holds of the second sensor's bulk lane.
fn ledger(platform: &Platform) -> Option<Value> {
    let rows = platform.try_ctl(&["ledger"])?;
    rows.as_array()?.iter().find(|row| row["lane"] == "bulk").cloned()
}

fn until_stored(platform: &Platform, facts: u64) {
    wait::until(&format!("{facts} facts to be stored"), PATIENCE, || {
        let stored = ledger(platform)?["stored"].as_u64()?;
        (stored >= facts).then_some(())
    });
}

/// What a line of the corpus is stored as.
fn stored_as(line: &Value) -> (&'static str, &'static str) {
    match line["type"].as_str().unwrap_or("?") {
        "process_start" => ("put", "process"),
        "process_end" => ("remove", "process"),
        "tcp_connect" => ("put", "connection"),
        "tcp_close" => ("remove", "connection"),
        "dns_query" => ("event", "dns"),
        "note" => ("event", "second_note"),
        _ => ("event", "file_event"),
    }
}

/// Every stored fact of the corpus, by its `source_seq`.
fn exported(platform: &Platform) -> BTreeMap<u64, Vec<Value>> {
    let output = platform.ctl_output(&["events", "export", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut facts: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let fact: Value = serde_json::from_slice(line).expect("a line is a fact");
        if let Some(number) = fact["source_seq"].as_u64() {
            facts.entry(number).or_default().push(fact);
        }
    }
    facts
}

/// CHN-004, DLV-001, DLV-003, HEL-022, HEL-032, LOG-005 and the rest, by somebody else's reading.
#[test]
fn a_sensor_written_from_the_page_delivers_exactly_once() {
    let name = "a_sensor_written_from_the_page_delivers_exactly_once";
    if require::tool(name, "python3").is_none() || require::tool(name, "openssl").is_none() {
        return;
    }
    let platform = Platform::start(&["--no-sensor"]);
    let corpus = platform.folder().join("corpus.jsonl");
    let mut generate = Command::new("python3");
    generate.arg(source().join("generate.py")).arg(FACTS.to_string()).arg(&corpus);
    assert!(generate.status().expect("python3 runs").success());

    let mut second = Second::start(&platform, &corpus);
    until_stored(&platform, 1_000);
    assert!(second.runs(), "it is killed in the middle of its work");
    drop(second);
    let mut second = Second::start(&platform, &corpus);
    until_stored(&platform, 2_500);
    assert!(second.runs(), "the server is killed in the middle of the sensor's work");
    let server = platform.ready()["detection"][0]["pid"].as_u64().expect("it runs");
    signal(u32::try_from(server).expect("a process number"), "KILL");
    let said = || std::fs::read_to_string(platform.folder().join("second.log")).unwrap_or_default();
    wait::until("the second sensor to be done", PATIENCE, || (!second.runs()).then_some(()));
    let last: Value = serde_json::from_str(said().lines().last().unwrap_or_default())
        .unwrap_or_else(|_| panic!("the second sensor ended: {}", said()));
    assert_eq!(last["delivered"], true, "{}", said());
    assert_eq!(last["resyncs"], 0, "the two agree on every digest: {}", said());

    let facts = exported(&platform);
    let lines = std::fs::read_to_string(&corpus).expect("the corpus");
    assert_eq!(lines.lines().count(), FACTS);
    for line in lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
        let number = line["seq"].as_u64().expect("a number");
        let [fact] = facts.get(&number).map_or(&[][..], Vec::as_slice) else {
            panic!("source_seq {number} is stored {:?}", facts.get(&number));
        };
        let (op, kind) = stored_as(&line);
        assert_eq!((&fact["op"], &fact["kind"]), (&op.into(), &kind.into()), "of {line}");
    }
    assert_eq!(facts.len(), FACTS, "nothing that is not in the corpus");
    let account = ledger(&platform).expect("an account");
    println!("the account: {account}\nthe sensor: {}", said());
    assert_eq!(account["balanced"], true, "{account}");
    assert_eq!(account["produced"], account["stored"], "nothing is lost: {account}");
    let told = platform.metric("d1", "lapwing_graph_rows", "");
    assert_eq!(Some(told), last["rows"].as_f64(), "the server's rows are the sensor's");
    drop(platform.stop());
}
