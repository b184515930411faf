//! Measures what a minute at rest costs on the network: a sensor with 300 processes and 100
//! services, looked at again and again, against servers in this process, counted on the socket with
//! TLS and pings. Ends with 1 where that is more than 2 KiB.
//!
//!     cargo run --release -p lapwing-sensor-os --example rest
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement ends where a value is missing"
)]

#[allow(dead_code, reason = "the tests of the runner use the rest")]
#[path = "../tests/runner/servers.rs"]
mod servers;
#[path = "../tests/runner/wait.rs"]
mod wait;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use lapwing_protocol::element::process;
use lapwing_sensor_os::config::Collect;
use lapwing_sensor_os::status::Status;
use lapwing_sensor_os::{Agent, Config, Handle, OwnFact};

use servers::{Servers, config};

const PROCESSES: u64 = 300;
const SERVICES: usize = 100;
const MINUTE: Duration = Duration::from_secs(60);
const BYTES_MAX: u64 = 2 << 10;

fn process_fact(pid: u64) -> OwnFact {
    OwnFact::state(process::KIND.0)
        .number(process::pid.0, pid)
        .number(process::start_ticks.0, 1_000 + pid)
        .text(process::name.0, &format!("worker-{pid}"))
        .text(process::command_line.0, &format!("/usr/bin/worker --number {pid}"))
        .text(process::image_path.0, "/usr/bin/worker")
        .number(process::uid.0, 1_000)
}

/// Tells of every process, and waits until what was new of it is stored.
fn scan(sensor: &Handle) {
    let sent: Vec<_> = (1..=PROCESSES).map(|pid| sensor.send(process_fact(pid)).unwrap()).collect();
    sent.into_iter().for_each(|receipt| receipt.wait().unwrap());
}

fn main() -> ExitCode {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    let units = servers.path("units");
    let lines = (0..SERVICES).map(|at| format!("unit-{at}.service active running enabled\n"));
    std::fs::write(&units, lines.collect::<String>()).unwrap();
    let services = Collect { services: true, unit_source: Some(units), ..Collect::none() };
    let text = config(&servers, state.path(), "");
    let config = Config::parse("/sensor.toml".as_ref(), &text).unwrap();
    let agent = Agent::builder(config).collect(services).build().unwrap();
    let sensor = agent.handle();
    let thread = std::thread::spawn(move || smol::block_on(agent.run()));
    scan(&sensor);
    let status = || Status::read(state.path()).unwrap();
    wait::until("every row", || {
        (u64::from(status().rows) > PROCESSES + SERVICES as u64).then_some(())
    });
    // The counts of the collectors' first minute are told once; then the machine is at rest.
    std::thread::sleep(MINUTE + MINUTE / 4);
    let before = status();
    let began = Instant::now();
    while began.elapsed() < MINUTE {
        std::thread::sleep(MINUTE / 12);
        scan(&sensor);
    }
    // The status is written within a second.
    std::thread::sleep(MINUTE / 30);
    let (after, took) = (status(), began.elapsed());
    sensor.stop();
    thread.join().unwrap().unwrap();
    let (up, down) = (after.bytes_up - before.bytes_up, after.bytes_down - before.bytes_down);
    let facts = after.facts_produced - before.facts_produced;
    println!("{took:.1?}: {up} bytes up, {down} bytes down, {facts} facts");
    if up + down <= BYTES_MAX { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
