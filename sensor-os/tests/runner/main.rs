//! The whole sensor against servers in this process: real sockets, real TLS, a real disk.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where a value is missing")]

mod disk;
mod name;
mod servers;
mod space;
mod wait;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::JoinHandle;

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::command::{Action, Outcome};
use lapwing_protocol::element::{Type, Value as FieldValue, command_outcome, service};
use lapwing_protocol::id::Lane;
use lapwing_protocol::op::{DropReason, Op, OpReader, RawValue};
use lapwing_sensor_os::config::{Collect, Size};
use lapwing_sensor_os::status::{State, Status};
use lapwing_sensor_os::{
    Agent, AgentError, Config, Ended, Handle, OwnFact, OwnKind, SendError, Stored,
};
use serde_json::Value;

use servers::{Servers, config};
use wait::until;

const DOOR: u16 = 0x8001;

/// A sensor that runs in a thread of this process.
struct Running {
    handle: Handle,
    state: std::path::PathBuf,
    thread: JoinHandle<Result<Ended, AgentError>>,
}

impl Running {
    /// Runs a sensor that collects nothing by itself.
    fn start(servers: &Servers, state: &Path) -> Self {
        Self::with(servers, state, "", Collect::none())
    }

    fn with(servers: &Servers, state: &Path, more: &str, collect: Collect) -> Self {
        let text = config(servers, state, more);
        let config = Config::parse("/sensor.toml".as_ref(), &text).unwrap();
        let door = OwnKind::event(DOOR, "door").feature(3, "name", Type::Text);
        Self::of(Agent::builder(config).collect(collect).define(door).build().unwrap(), state)
    }

    fn of(agent: Agent, state: &Path) -> Self {
        let handle = agent.handle();
        let thread = std::thread::spawn(move || smol::block_on(agent.run()));
        Self { handle, state: state.to_path_buf(), thread }
    }

    fn status(&self) -> Status {
        Status::read(&self.state).unwrap()
    }

    fn await_state(&self, state: State) -> Status {
        until(&format!("{state:?}"), || Some(self.status()).filter(|now| now.state == state))
    }

    /// Sends a fact and waits until it is stored.
    fn store(&self, name: &str) {
        self.handle.send(OwnFact::event(DOOR).text(3, name)).unwrap().wait().unwrap();
    }

    fn stop(self) {
        self.handle.stop();
        assert_eq!(self.thread.join().unwrap().unwrap(), Ended::Stopped);
    }
}

/// Runs the binary.
fn sensor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lapwing-sensor")).args(arguments).output().unwrap()
}

fn error_of(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Every op in the spool with its chunk's keyframe mark, as `spool --json` shows it.
fn ops(servers: &Servers, state: &Path) -> Vec<(bool, Value)> {
    let file = servers.path("look.toml");
    std::fs::write(&file, config(servers, state, "")).unwrap();
    let output = sensor(&["spool", "--config", file.to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{}", error_of(&output));
    let spool: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut ops = Vec::new();
    for chunk in spool["chunks"].as_array().unwrap() {
        assert_eq!(chunk["undecoded"], Value::Null);
        for op in chunk["ops"].as_array().unwrap() {
            ops.push((chunk["keyframe"].as_bool().unwrap(), op.clone()));
        }
    }
    ops
}

#[test]
fn a_fresh_sensor_enrols_asks_once_and_sends() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    let sensor = Running::start(&servers, state.path());
    sensor.store("front");
    let status = sensor.await_state(State::Online);
    assert_eq!(status.id, Some("5e".repeat(16)));
    assert_eq!(status.detection, Some(servers.detection.to_string()));
    assert_eq!(status.registration, Some(servers.registration.to_string()));
    assert!(status.reason.is_empty());
    sensor.stop();
    let memory = servers.memory();
    assert_eq!((memory.enrolled, memory.questions), (1, 1));
    assert!(!memory.entries.is_empty());
}

#[test]
fn reconnects_lose_nothing_and_ask_nobody() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    let sensor = Running::start(&servers, state.path());
    sensor.store("first");
    for at in 1..=10 {
        servers.cut();
        sensor.store(&format!("door {at}"));
        until("another greeting", || (servers.memory().greetings.len() > at).then_some(()));
    }
    sensor.stop();
    assert_eq!(servers.memory().questions, 1);
    let chunks = servers.chunks(Lane::Bulk);
    let log = chunks[0].0;
    for (at, chunk) in chunks.iter().enumerate() {
        assert_eq!((chunk.0, chunk.1), (log, at as u64 + 1), "one log, no hole, nothing twice");
    }
    assert_eq!(chunks.iter().map(|(.., facts)| facts).sum::<u64>(), 11);
}

#[test]
fn a_clean_restart_goes_on_with_its_log_and_an_unclean_one_opens_a_new_one() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    for name in ["first", "second"] {
        let sensor = Running::start(&servers, state.path());
        sensor.store(name);
        sensor.stop();
    }
    assert_eq!(servers.memory().questions, 1, "the assignment is kept");
    let logs = |servers: &Servers| {
        let mut logs: Vec<_> = servers.chunks(Lane::Bulk).iter().map(|chunk| chunk.0).collect();
        logs.dedup();
        logs.len()
    };
    assert_eq!(logs(&servers), 1);
    // Without its mark the last stop was not clean.
    std::fs::remove_file(state.path().join("spool/clean")).unwrap();
    let sensor = Running::start(&servers, state.path());
    sensor.store("third");
    sensor.stop();
    assert_eq!(logs(&servers), 2);
    let facts: u64 = servers.chunks(Lane::Bulk).iter().map(|(.., facts)| facts).sum();
    assert_eq!(facts, 3);
}

#[test]
fn what_was_seen_while_nobody_answered_is_sent_later() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    let sensor = Running::start(&servers, state.path());
    sensor.store("online");
    sensor.stop();
    // Nobody answers at the address of the assignment, and no Registration server does.
    let nobody = "[servers]\nregistration = [\"127.0.0.1:9\"]";
    let text = config(&servers, state.path(), "");
    let text =
        text.replace(&format!("[servers]\nregistration = [\"{}\"]", servers.registration), nobody);
    let assignment = std::fs::read(state.path().join("assignment")).unwrap();
    std::fs::remove_file(state.path().join("assignment")).unwrap();
    let offline = Config::parse("/sensor.toml".as_ref(), &text).unwrap();
    let door = OwnKind::event(DOOR, "door").feature(3, "name", Type::Text);
    let agent = Agent::builder(offline).collect(Collect::none()).define(door).build().unwrap();
    let handle = agent.handle();
    let thread = std::thread::spawn(move || smol::block_on(agent.run()));
    for at in 0..50 {
        handle.send(OwnFact::event(DOOR).text(3, &format!("offline {at}"))).unwrap();
    }
    let status = until("it says why", || {
        let status = Status::read(state.path()).unwrap();
        (status.state == State::Unassigned && !status.reason.is_empty()).then_some(status)
    });
    assert!(status.reason.contains("Registration server 127.0.0.1:9"), "{}", status.reason);
    handle.stop();
    thread.join().unwrap().unwrap();
    std::fs::write(state.path().join("assignment"), assignment).unwrap();

    let sensor = Running::start(&servers, state.path());
    sensor.store("online again");
    sensor.stop();
    let facts: u64 = servers.chunks(Lane::Bulk).iter().map(|(.., facts)| facts).sum();
    assert_eq!(facts, 52);
}

#[test]
fn without_registration_the_package_names_the_server_and_an_unassigned_one_says_why() {
    let servers = Servers::start();
    servers.stop_registration();
    let state = tempfile::tempdir().unwrap();
    let fresh = Running::start(&servers, state.path());
    let status = until("it says why", || {
        let status = fresh.status();
        (status.state == State::Unassigned && !status.reason.is_empty()).then_some(status)
    });
    assert!(status.reason.contains(&servers.registration.to_string()), "{}", status.reason);
    fresh.stop();

    let more = "";
    let text = config(&servers, state.path(), more)
        .replace("ca_file", &format!("detection = [\"{}\"]\nca_file", servers.detection));
    let packaged = Config::parse("/sensor.toml".as_ref(), &text).unwrap();
    let agent = Agent::builder(packaged).collect(Collect::none()).build().unwrap();
    let handle = agent.handle();
    let thread = std::thread::spawn(move || smol::block_on(agent.run()));
    until("a greeting", || (!servers.memory().greetings.is_empty()).then_some(()));
    handle.stop();
    thread.join().unwrap().unwrap();
    assert_eq!(servers.memory().questions, 0);
}

#[test]
fn a_server_of_another_role_is_not_spoken_with() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    Running::start(&servers, state.path()).stop();
    let text = config(&servers, state.path(), "");
    let text = text.replace("registration = ", "detection = ");
    let misled = Config::parse("/sensor.toml".as_ref(), &text).unwrap();
    let agent = Agent::builder(misled).collect(Collect::none()).build().unwrap();
    let handle = agent.handle();
    let thread = std::thread::spawn(move || smol::block_on(agent.run()));
    let expected = "a registration server answers where a detection server is expected";
    until(expected, || {
        let status = Status::read(state.path()).unwrap();
        status.reason.contains(expected).then_some(())
    });
    handle.stop();
    thread.join().unwrap().unwrap();
}

/// The outcomes that the server stored: command and outcome numbers.
fn outcomes(servers: &Servers) -> Vec<(u64, u64)> {
    let mut told = Vec::new();
    for bytes in servers.chunk_bytes(Lane::Urgent) {
        let chunk = Chunk::decode(&bytes).unwrap();
        let mut reader = OpReader::new(chunk.body, chunk.header.time_base_ns);
        while let Some(op) = reader.op().unwrap() {
            let Op::Event { kind: command_outcome::KIND, .. } = op else { continue };
            let mut numbers = BTreeMap::new();
            while let Some((feature, raw)) = reader.field(&command_outcome::SPEC).unwrap() {
                if let RawValue::Plain(FieldValue::U64(number)) = raw {
                    numbers.insert(feature, number);
                }
            }
            told.push((numbers[&command_outcome::command_seq], numbers[&command_outcome::outcome]));
        }
    }
    told
}

#[test]
fn collection_stops_and_starts_on_command_and_stays_so_over_a_restart() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    let units = servers.path("units");
    std::fs::write(&units, "ssh.service active running enabled\n").unwrap();
    let services =
        || Collect { services: true, unit_source: Some(units.clone()), ..Collect::none() };
    let sensor = Running::with(&servers, state.path(), "", services());
    sensor.await_state(State::Online);
    servers.command(Action::StopCollection);
    until("stopped", || (sensor.status().collection == "disabled").then_some(()));
    until("its outcome", || (!outcomes(&servers).is_empty()).then_some(()));
    sensor.stop();

    let sensor = Running::with(&servers, state.path(), "", services());
    let status = sensor.await_state(State::Online);
    assert_eq!(status.collection, "disabled");
    assert!(!servers.memory().greetings.last().unwrap().collecting);
    servers.command(Action::StartCollection);
    until("started", || (sensor.status().collection == "enabled").then_some(()));
    servers.command(Action::Isolate);
    until("three outcomes", || (outcomes(&servers).len() == 3).then_some(()));
    sensor.stop();
    let done = Outcome::Done as u64;
    let expected = [(1, done), (2, done), (3, Outcome::NotSupported as u64)];
    assert_eq!(outcomes(&servers), expected);
}

#[test]
fn a_restart_is_told_before_it_happens() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    let sensor = Running::start(&servers, state.path());
    sensor.await_state(State::Online);
    servers.command(Action::Restart);
    assert_eq!(sensor.thread.join().unwrap().unwrap(), Ended::Restart);
    let sensor = Running::start(&servers, state.path());
    until("its outcome", || (!outcomes(&servers).is_empty()).then_some(()));
    sensor.stop();
    assert_eq!(outcomes(&servers), [(1, Outcome::Done as u64)]);
}

#[test]
fn at_the_bound_of_the_spool_the_oldest_goes_and_the_server_learns_how_much() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    let sensor = Running::start(&servers, state.path());
    sensor.store("online");
    sensor.stop();
    let assignment = std::fs::read(state.path().join("assignment")).unwrap();
    std::fs::remove_file(state.path().join("assignment")).unwrap();

    // Nobody answers while much more is seen than the spool holds.
    let text = config(&servers, state.path(), "");
    let text = text.replace(&servers.registration.to_string(), "127.0.0.1:9");
    let mut offline = Config::parse("/sensor.toml".as_ref(), &text).unwrap();
    offline.spool.max = Size(400_000);
    let door = OwnKind::event(DOOR, "door").feature(3, "name", Type::Text);
    let agent = Agent::builder(offline).collect(Collect::none()).define(door).build().unwrap();
    let handle = agent.handle();
    let thread = std::thread::spawn(move || smol::block_on(agent.run()));
    let names = (0..1_000).map(|at| format!("{at:04} {}", "x".repeat(1_000)));
    for name in names {
        handle.send(OwnFact::event(DOOR).text(3, &name)).unwrap();
    }
    handle.stop();
    thread.join().unwrap().unwrap();
    let status = Status::read(state.path()).unwrap();
    assert!(status.spool_bytes <= 400_000 && status.facts_lost > 0, "{status:?}");
    std::fs::write(state.path().join("assignment"), assignment).unwrap();

    let sensor = Running::start(&servers, state.path());
    sensor.store("online again");
    sensor.stop();
    let dropped = servers.jumped(Lane::Bulk, DropReason::SpoolFull);
    let stored: u64 = servers.chunks(Lane::Bulk).iter().map(|(.., facts)| facts).sum();
    assert!(dropped > 0);
    assert_eq!(stored + dropped, 1_002, "stored {stored}, dropped {dropped}");
}

#[test]
fn a_disk_that_refuses_is_a_loss_that_is_told_and_the_sensor_goes_on() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    let sensor =
        Running::with(&servers, state.path(), "[spool]\nsync = \"each\"\n", Collect::none());
    sensor.store("before");
    let spool = state.path().join("spool");
    let entries = std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().path());
    let folder = entries
        .into_iter()
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("bulk"))
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    // A lost session begins a new segment, and so a new file.
    servers.cut();
    until("another greeting", || (servers.memory().greetings.len() > 1).then_some(()));
    let refused = sensor.handle.send(OwnFact::event(DOOR).text(3, "meanwhile")).unwrap().wait();
    assert_eq!(refused, Err(SendError::NotStored(Stored::Dropped(DropReason::SpoolFailed))));
    until("the status says it", || (sensor.status().facts_lost == 1).then_some(()));
    std::fs::create_dir(&folder).unwrap();
    sensor.store("after");
    until("a finding", || (!servers.chunk_bytes(Lane::Urgent).is_empty()).then_some(()));
    sensor.stop();
    let dropped = servers.jumped(Lane::Bulk, DropReason::SpoolFailed);
    let stored: u64 = servers.chunks(Lane::Bulk).iter().map(|(.., facts)| facts).sum();
    assert_eq!((stored, dropped), (2, 1));
}

fn service_fact(at: usize, state: &str) -> OwnFact {
    OwnFact::state(service::KIND.0)
        .text(service::name.0, &format!("unit-{at}.service"))
        .text(service::state.0, state)
        .text(service::sub_state.0, "running")
        .text(service::enablement.0, "enabled")
}

#[test]
fn only_changes_travel() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    let sensor = Running::start(&servers, state.path());
    let scan = || {
        let facts = (0..100).map(|at| sensor.handle.send(service_fact(at, "active")).unwrap());
        facts.collect::<Vec<_>>().into_iter().for_each(|receipt| receipt.wait().unwrap());
    };
    scan();
    let before = ops(&servers, state.path()).len();
    for _ in 0..10 {
        scan();
    }
    sensor.store("a fact behind the scans");
    let after = ops(&servers, state.path());
    let services = after[before..].iter().filter(|(_, op)| op["kind"] == "service");
    assert_eq!(services.count(), 0, "ten scans of what did not change say nothing");

    sensor.handle.send(service_fact(7, "failed")).unwrap().wait().unwrap();
    let said = ops(&servers, state.path()).split_off(after.len());
    let [(_, op)] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!((&op["kind"], &op["op"]), (&"service".into(), &"patch".into()));
    assert_eq!(op["key"]["name"], "unit-7.service");
    assert_eq!(op["fields"], serde_json::json!({ "state": "failed" }));
    sensor.stop();
}

#[test]
fn a_touched_unit_of_a_hundred_sends_one_field() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    let units = servers.path("units");
    let list = |state: &str| {
        let line = |at| match at {
            7 => format!("unit-7.service {state} running enabled\n"),
            _ => format!("unit-{at}.service active running enabled\n"),
        };
        (0..100).map(line).collect::<String>()
    };
    std::fs::write(&units, list("active")).unwrap();
    let services = Collect { services: true, unit_source: Some(units.clone()), ..Collect::none() };
    let sensor = Running::with(&servers, state.path(), "", services);
    let puts = |(_, op): &(bool, Value)| op["kind"] == "service" && op["op"] == "put";
    until("a hundred services", || {
        (ops(&servers, state.path()).iter().filter(|op| puts(op)).count() >= 100).then_some(())
    });
    sensor.store("behind the first scan");
    let before = ops(&servers, state.path()).len();
    std::fs::write(&units, list("failed")).unwrap();
    let said = until("the change", || {
        let mut said = ops(&servers, state.path()).split_off(before);
        said.retain(|(_, op)| op["kind"] == "service");
        (!said.is_empty()).then_some(said)
    });
    let [(_, op)] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(op["op"], "patch");
    assert_eq!(op["fields"], serde_json::json!({ "state": "failed" }));
    sensor.stop();
}

#[test]
fn the_command_line_enrols_shows_and_says_what_is_wrong() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    let (registration, folder) = (servers.registration.to_string(), state.path().to_str().unwrap());
    let ca = servers.path("ca.pem");
    let enrol = |address: &str, token: &str, ca: &str| {
        sensor(&[
            "enrol",
            "--registration",
            address,
            "--token",
            token,
            "--ca",
            ca,
            "--state",
            folder,
        ])
    };
    let ca = ca.to_str().unwrap();
    let refused = enrol(&registration, "wrong", ca);
    assert_eq!(refused.status.code(), Some(4));
    assert!(error_of(&refused).contains("token is unknown, used up or expired"));
    let unreachable = enrol("127.0.0.1:9", servers::TOKEN, ca);
    assert_eq!(unreachable.status.code(), Some(5));
    assert!(error_of(&unreachable).contains("127.0.0.1:9: nobody answers there"));
    let others = Servers::start();
    let other_ca = others.path("ca.pem");
    let wrong = enrol(&registration, servers::TOKEN, other_ca.to_str().unwrap());
    assert!(error_of(&wrong).contains("from another CA than this sensor trusts"));
    assert_eq!(sensor(&["enrol", "--token", "x"]).status.code(), Some(2));

    let enrolled = enrol(&registration, servers::TOKEN, ca);
    assert!(enrolled.status.success(), "{}", error_of(&enrolled));
    let again = enrol(&registration, servers::TOKEN, ca);
    assert!(error_of(&again).contains("has enrolled already"));

    let file = servers.path("sensor.toml");
    std::fs::write(&file, config(&servers, state.path(), "")).unwrap();
    let shown = sensor(&["status", "--config", file.to_str().unwrap(), "--json"]);
    let status: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&status["id"], &status["state"]), (&"5e".repeat(16).into(), &"stopped".into()));
    for field in ["reason", "registration", "detection", "bytes_up", "bytes_down"] {
        assert!(status.get(field).is_some(), "{field}");
    }
    let bad = sensor(&["run", "--config", "/none.toml"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(error_of(&bad).contains("/none.toml: there is no such file"));
}
