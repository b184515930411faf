//! The journeys: the whole platform on this machine, over real sockets, as people meet it.
//!
//! Each starts `lapwing up` with this machine's own sensor and speaks to it by `lapwing ctl` alone.
//! They need root: without it the sensor sees less than they ask for.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::io::Write as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Instant;

use lapwing_tests::platform::{PATIENCE, Platform, fresh_program, may_see, signal};
use lapwing_tests::wait;
use serde_json::Value;

/// Waits for the MalOp whose root cause holds `cause`, and says how long it took.
fn malop_about(platform: &Platform, cause: &str) -> Value {
    let since = Instant::now();
    let malop = wait::until(&format!("a MalOp about {cause}"), PATIENCE, || {
        let rows = platform.try_ctl(&["malops", "list"])?;
        let found = |row: &&Value| row["root_cause"].to_string().contains(cause);
        rows.as_array()?.iter().find(found).cloned()
    });
    println!("MalOp about {cause} after {} ms", since.elapsed().as_millis());
    malop
}

fn count_of_malops(platform: &Platform, cause: &str) -> usize {
    let rows = platform.rows(&["malops", "list"]);
    rows.iter().filter(|row| row["root_cause"].to_string().contains(cause)).count()
}

/// Waits until a query about this machine has a row, and gives the first.
fn element(platform: &Platform, expression: &str) -> Value {
    wait::until(&format!("an element: {expression}"), PATIENCE, || {
        let answer = platform.try_ctl(&["elements", "query", expression])?;
        answer["rows"].as_array()?.first().cloned()
    })
}

/// How often the Private Threat Intel server asked Global about `hash`, by what it wrote down.
fn questions_to_global(platform: &Platform, hash: &str) -> usize {
    let log = platform.folder().join("data/logs/intel-private.log");
    let log = std::fs::read_to_string(log).expect("the server keeps a log");
    let question = format!("asked Global about hash {hash}");
    log.lines().filter(|line| line.contains(&question)).count()
}

#[test]
fn a_blocklisted_program_becomes_a_malop_once() {
    if !may_see("a_blocklisted_program_becomes_a_malop_once") {
        return;
    }
    let platform = Platform::start(&[]);
    let sensor = platform.sensor_online();
    let (program, hash) = fresh_program(platform.folder(), "fresh-sleep", "/bin/sleep");
    platform.ctl(&["reputation", "add", "--hash", &hash, "--block"]);
    let ran = Command::new(&program).arg("0.01").status().expect("it runs");
    assert!(ran.success());

    let malop = malop_about(&platform, &hash);
    let text = malop.to_string();
    assert!(text.contains(sensor["name"].as_str().unwrap_or("?")), "this machine: {text}");
    assert!(malop["users"].to_string().contains("root"), "its user: {text}");
    let shown = platform.ctl(&["malops", "show", malop["id"].as_str().unwrap_or("?")]).to_string();
    assert!(shown.contains("fresh-sleep"), "the process: {shown}");
    assert!(shown.contains(&hash) && shown.contains("private"), "the reputation: {shown}");
    let parent = std::env::current_exe().expect("this test");
    let parent = parent.file_name().and_then(|name| name.to_str()).unwrap_or("?");
    assert!(shown.contains(parent), "the parent chain ends at this test, {parent}: {shown}");

    // A private word needs no question to Global; an unknown hash seen often needs one.
    let asked = platform.metric("intel_global", "lapwing_intel_questions_total", "hash");
    let (other, other_hash) = fresh_program(platform.folder(), "fresh-true", "/bin/true");
    for _ in 0..100 {
        assert!(Command::new(&other).status().expect("it runs").success());
    }
    element(&platform, &format!("process where image_hash = \"{other_hash}\""));
    wait::until("a question to Global", PATIENCE, || {
        (questions_to_global(&platform, &other_hash) > 0).then_some(())
    });
    // A last fact behind all others: what it asked was asked after they were judged.
    let (last, last_hash) = fresh_program(platform.folder(), "fresh-last", "/bin/true");
    assert!(Command::new(&last).status().expect("it runs").success());
    wait::until("the last program's question", PATIENCE, || {
        (questions_to_global(&platform, &last_hash) > 0).then_some(())
    });
    assert_eq!(questions_to_global(&platform, &other_hash), 1, "seen 100 times, asked once");
    assert_eq!(questions_to_global(&platform, &hash), 0, "a private word needs no question");
    let now = platform.metric("intel_global", "lapwing_intel_questions_total", "hash");
    assert!(now >= asked + 2.0, "Global counts what it is asked: {asked} then {now}");
    let rows = platform.ctl(&["reputation", "classify", "--hash", &hash]).to_string();
    assert!(rows.contains("private"), "{rows}");
    assert_eq!(count_of_malops(&platform, &hash), 1, "once, not twice");
    drop(platform.stop());
}

#[test]
fn a_blocklisted_domain_and_address_become_malops() {
    if !may_see("a_blocklisted_domain_and_address_become_malops") {
        return;
    }
    let platform = Platform::start(&[]);
    platform.sensor_online();
    platform.ctl(&["reputation", "add", "--domain", "evil.lapwing.example", "--block"]);
    platform.ctl(&["reputation", "add", "--ip", "127.66.6.6", "--block"]);

    let resolver = UdpSocket::bind("127.66.6.53:53").expect("a resolver of the test's own");
    let answering = std::thread::spawn(move || answer_one(&resolver));
    ask_for("evil.lapwing.example");
    answering.join().expect("the resolver answers");
    malop_about(&platform, "evil.lapwing.example");

    let listener = TcpListener::bind("127.66.6.6:0").expect("an address of this machine");
    let address = listener.local_addr().expect("it is bound");
    let mut client = TcpStream::connect(address).expect("loopback counts");
    let (server, _) = listener.accept().expect("it comes");
    client.write_all(b"hello").expect("it is open");
    malop_about(&platform, "127.66.6.6");
    drop((client, server));
    assert_eq!(count_of_malops(&platform, "evil.lapwing.example"), 1);
    drop(platform.stop());
}

/// Asks the test's resolver for the A record of `name`.
fn ask_for(name: &str) {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
    socket.send_to(&question, "127.66.6.53:53").expect("the question is sent");
    let mut answer = [0; 512];
    socket.recv(&mut answer).expect("the resolver answers");
}

/// Answers one question with the address 192.0.2.66.
fn answer_one(resolver: &UdpSocket) {
    let mut question = [0; 512];
    let (length, from) = resolver.recv_from(&mut question).expect("a question comes");
    let mut answer = question[..length].to_vec();
    answer[2] = 0x81;
    answer[3] = 0x80;
    answer[7] = 1;
    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 66]);
    resolver.send_to(&answer, from).expect("the answer is sent");
}

#[test]
fn collection_stops_and_starts_on_command() {
    if !may_see("collection_stops_and_starts_on_command") {
        return;
    }
    let platform = Platform::start(&[]);
    let sensor = platform.sensor_online();
    let id = sensor["id"].as_str().expect("an id").to_owned();
    let until_collection = |state: &str| {
        wait::until(&format!("collection to be {state}"), PATIENCE, || {
            let rows = platform.try_ctl(&["sensors", "list"])?;
            rows.as_array()?.iter().find(|row| row["collection"] == state).cloned()
        })
    };
    until_collection("enabled");
    platform.ctl(&["sensors", "stop", &id]);
    until_collection("disabled");
    let (unseen, unseen_hash) = fresh_program(platform.folder(), "unseen", "/bin/true");
    assert!(Command::new(&unseen).status().expect("it runs").success());
    platform.ctl(&["sensors", "start", &id]);
    until_collection("enabled");
    let (seen, seen_hash) = fresh_program(platform.folder(), "seen", "/bin/true");
    assert!(Command::new(&seen).status().expect("it runs").success());
    element(&platform, &format!("process where image_hash = \"{seen_hash}\""));
    let query = format!("process where image_hash = \"{unseen_hash}\"");
    let answer = platform.ctl(&["elements", "query", &query]);
    assert_eq!(answer["rows"].as_array().map(Vec::len), Some(0), "nothing was collected: {answer}");
    drop(platform.stop());
}

#[test]
fn what_dies_is_started_again_and_nothing_is_missing() {
    if !may_see("what_dies_is_started_again_and_nothing_is_missing") {
        return;
    }
    let platform = Platform::start(&[]);
    platform.sensor_online();
    let (program, hash) = fresh_program(platform.folder(), "before", "/bin/true");
    assert!(Command::new(&program).status().expect("it runs").success());
    element(&platform, &format!("process where image_hash = \"{hash}\""));

    let pid_of = |name: &str| {
        let rows = platform.try_ctl(&["servers", "list"])?;
        let row = rows.as_array()?.iter().find(|row| row["name"] == name)?.clone();
        (row["status"] == "up").then(|| row["pid"].as_u64()).flatten()
    };
    let names: Vec<String> = platform
        .rows(&["servers", "list"])
        .iter()
        .filter_map(|row| row["name"].as_str().map(str::to_owned))
        .collect();
    assert!(names.len() >= 10, "{names:?}");
    for name in &names {
        let pid = wait::until(&format!("{name} to be up"), PATIENCE, || pid_of(name));
        signal(u32::try_from(pid).expect("a pid"), "KILL");
        wait::until(&format!("another {name}"), PATIENCE, || {
            pid_of(name).filter(|now| *now != pid)
        });
    }
    platform.sensor_online();
    let (after, after_hash) = fresh_program(platform.folder(), "after", "/bin/true");
    wait::until("facts after all of them came back", PATIENCE, || {
        Command::new(&after).status().ok()?;
        let query = format!("process where image_hash = \"{after_hash}\"");
        let answer = platform.try_ctl(&["elements", "query", &query])?;
        answer["rows"].as_array()?.first().cloned()
    });
    // What was acknowledged before is still there, once.
    let exported = platform.ctl_output(&["events", "export"]);
    assert!(exported.status.success());
    let text = String::from_utf8_lossy(&exported.stdout);
    let mut keys = std::collections::BTreeSet::new();
    let mut about_before = 0;
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).expect("one object a line");
        let key = ["sensor", "lane", "log", "index"].map(|name| event[name].to_string());
        if !["dropped", "jump", "undecoded"].contains(&event["op"].as_str().unwrap_or_default()) {
            assert!(keys.insert(key), "twice: {line}");
        }
        about_before += usize::from(line.contains(&hash));
    }
    assert!(about_before >= 1, "the fact from before is in the export");
    drop(platform.stop());
}

#[test]
fn a_healthy_sensor_asks_registration_once() {
    if !may_see("a_healthy_sensor_asks_registration_once") {
        return;
    }
    let platform = Platform::start(&[]);
    platform.sensor_online();
    let asked = || platform.metric("registration", "lapwing_registration_requests_total", "");
    assert_eq!(asked(), 1.0);
    let folder = platform.stop();
    let platform = Platform::start_in(folder, &[]);
    platform.sensor_online();
    let again = platform.metric("registration", "lapwing_registration_requests_total", "");
    assert_eq!(again, 0.0, "after a restart it goes to the server it knows");
    drop(platform.stop());
}

#[test]
fn without_registration_the_sensor_goes_straight_to_detection() {
    if !may_see("without_registration_the_sensor_goes_straight_to_detection") {
        return;
    }
    let platform = Platform::start(&["--no-registration"]);
    let sensor = platform.sensor_online();
    assert!(platform.ready()["registration"].is_null());
    assert_eq!(sensor["detection"], "d1", "{sensor}");
    drop(platform.stop());
}

#[test]
fn a_second_platform_on_the_same_data_is_refused() {
    let platform = Platform::start(&["--no-sensor"]);
    let data = platform.folder().join("data");
    let second = Command::new(lapwing_tests::platform::binary())
        .args(["up", "--no-sensor", "--data"])
        .arg(&data)
        .output()
        .expect("it runs");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains(data.to_str().unwrap_or("?")), "it names the folder: {said}");
    drop(platform.stop());
}
