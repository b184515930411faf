//! The sensor's process is killed with -9 again and again, at moments of chance, under load and
//! against a real Detection server: what its spool held is stored in the end, each fact once.
//!
//! `LAPWING_ROUNDS` says how often; few where it is not set. One round costs about a second.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lapwing_tests::platform::{self, PATIENCE, Platform, may_see};
use lapwing_tests::wait;
use serde_json::Value;

const ROUNDS: u64 = 10;

/// Key of a chunk: lane, log, sequence.
type Key = (String, String, u64);

/// A machine whose sensor watches one folder.
struct Machine {
    folder: PathBuf,
    config: PathBuf,
    made: u64,
}

impl Machine {
    fn new(platform: &Platform) -> Self {
        let folder = platform.folder().join("machine");
        let watched = folder.join("watched");
        std::fs::create_dir_all(&watched).unwrap();
        let ready = platform.ready();
        let token = folder.join("token");
        std::fs::write(&token, ready["enrolment_token"].as_str().unwrap()).unwrap();
        let config = folder.join("sensor.toml");
        let others = ["processes", "connections", "dns", "users", "services", "machine"];
        let others = others.map(|name| format!("{name} = false\n")).concat();
        let text = format!(
            "state_dir = \"state\"\nname = \"mortal\"\n[servers]\nregistration = [{}]\n\
             ca_file = {}\n[enrolment]\ntoken_file = {token:?}\n[collect]\n{others}\
             watched_folders = [{watched:?}]\n",
            ready["registration"], ready["ca_file"],
        );
        std::fs::write(&config, text).unwrap();
        Self { folder, config, made: 0 }
    }

    fn start(&self) -> Child {
        let log = File::options().append(true).create(true).open(self.folder.join("log")).unwrap();
        Command::new(platform::binary())
            .args(["sensor", "run", "--config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// What `lapwing sensor VERB --json` says.
    fn ask(&self, verb: &str) -> Value {
        let output = Command::new(platform::binary())
            .args(["sensor", verb, "--json", "--config"])
            .arg(&self.config)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Makes files for so many moments.
    fn work(&mut self, moments: u64) {
        for _ in 0..moments {
            for _ in 0..4 {
                self.made += 1;
                let path = self.folder.join(format!("watched/file-{}", self.made % 50));
                std::fs::write(path, self.made.to_string()).unwrap();
            }
            wait::a_moment();
        }
    }
}

/// The chunks in a spool: their keys, and the facts they cover.
fn chunks(spool: &Value) -> BTreeMap<Key, std::ops::Range<u64>> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rows = spool["chunks"].as_array().unwrap().iter();
    rows.map(|chunk| {
        assert_eq!(chunk["undecoded"], Value::Null, "{chunk}");
        let key = (text(&chunk["lane"]), text(&chunk["log"]), chunk["seq"].as_u64().unwrap());
        let first = chunk["first_index"].as_u64().unwrap();
        (key, first..first + chunk["count"].as_u64().unwrap())
    })
    .collect()
}

/// Every stored fact: key and index. Fails where one is there twice.
fn export(platform: &Platform, sensor: &str) -> BTreeSet<(Key, u64)> {
    let output = platform.ctl_output(&["events", "export", "--sensor", sensor]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut facts = BTreeSet::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let fact: Value = serde_json::from_str(line).unwrap();
        assert_eq!(fact["partial"], Value::Null, "{line}");
        let text = |name: &str| match &fact[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let key = (text("lane"), text("log"), fact["seq"].as_u64().unwrap());
        let index = fact["index"].as_u64().unwrap();
        assert!(facts.insert((key, index)), "twice: {line}");
    }
    facts
}

fn rounds() -> u64 {
    std::env::var("LAPWING_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

#[test]
fn a_sensor_killed_again_and_again_loses_nothing_it_spooled_and_doubles_nothing() {
    let test = "a_sensor_killed_again_and_again_loses_nothing_it_spooled_and_doubles_nothing";
    if !may_see(test) {
        return;
    }
    let platform = Platform::start(&["--no-sensor"]);
    let mut machine = Machine::new(&platform);
    let mut held = BTreeMap::new();
    let mut chance = u64::from(std::process::id());
    for round in 1..=rounds() {
        let mut sensor = machine.start();
        chance =
            chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Half of the rounds end while it still connects.
        machine.work(2 + (chance >> 33) % 60);
        sensor.kill().unwrap();
        sensor.wait().unwrap();
        let found = chunks(&machine.ask("spool"));
        println!("round {round}: {} chunks in the spool", found.len());
        for (key, facts) in found {
            let known = held.insert(key.clone(), facts.clone());
            assert!(known.is_none_or(|known| known == facts), "{key:?} changed");
        }
    }
    let mut sensor = machine.start();
    wait::until("all to be stored", PATIENCE, || {
        let spool = machine.ask("spool");
        let all = spool["chunks"].as_array()?.iter().all(|chunk| chunk["acked"] == true);
        let is_online = machine.ask("status")["state"] == "online";
        (all && is_online).then_some(())
    });
    held.extend(chunks(&machine.ask("spool")));
    end(&mut sensor, &machine.folder);

    let id = machine.ask("status")["id"].as_str().unwrap().to_owned();
    let stored = export(&platform, &id);
    let mut spooled = 0;
    for (key, facts) in &held {
        for index in facts.clone() {
            spooled += 1;
            assert!(stored.contains(&(key.clone(), index)), "lost: {key:?} fact {index}");
        }
    }
    // Nothing was dropped, so each log's facts are dense.
    let mut logs: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for ((lane, log, _), index) in &stored {
        logs.entry((lane, log)).or_default().push(*index);
    }
    for (log, mut indices) in logs {
        indices.sort_unstable();
        assert!(indices.iter().copied().eq(1..=indices.len() as u64), "{log:?} has a hole");
    }
    println!(
        "{} rounds: {spooled} facts seen in the spool, {} stored, none lost, none doubled",
        rounds(),
        stored.len()
    );
    assert!(spooled > rounds() * 3, "{spooled} facts are too few to show anything");
    drop(platform.stop());
}

fn end(sensor: &mut Child, folder: &Path) {
    platform::signal(sensor.id(), "TERM");
    let status = wait::until("the sensor to end", PATIENCE, || sensor.try_wait().ok().flatten());
    let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    assert!(status.success(), "{log}");
}
