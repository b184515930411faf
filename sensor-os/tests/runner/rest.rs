//! What a machine at rest costs on the network: counted on the socket, TLS and pings included.

use std::time::{Duration, Instant};

use lapwing_protocol::element::process;
use lapwing_sensor_os::OwnFact;
use lapwing_sensor_os::config::Collect;

use crate::Running;
use crate::servers::Servers;

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

#[test]
#[ignore = "takes a minute: cargo test -p lapwing-sensor-os --test runner -- --ignored --nocapture"]
fn a_minute_at_rest_takes_two_kib_at_the_most() {
    let servers = Servers::start();
    let state = tempfile::tempdir().unwrap();
    let units = servers.path("units");
    let lines = (0..SERVICES).map(|at| format!("unit-{at}.service active running enabled\n"));
    std::fs::write(&units, lines.collect::<String>()).unwrap();
    let services = Collect { services: true, unit_source: Some(units), ..Collect::none() };
    let sensor = Running::with(&servers, state.path(), "", services);
    let scan = || {
        let sent: Vec<_> =
            (1..=PROCESSES).map(|pid| sensor.handle.send(process_fact(pid)).unwrap()).collect();
        sent.into_iter().for_each(|receipt| receipt.wait().unwrap());
    };
    scan();
    sensor.store("all is told");
    crate::wait::until("every row", || {
        let status = sensor.status();
        (u64::from(status.rows) > PROCESSES + SERVICES as u64).then_some(())
    });
    // The counts of the collectors' first minute are told once; then the machine is at rest.
    std::thread::sleep(MINUTE + MINUTE / 4);
    let before = sensor.status();
    let began = Instant::now();
    while began.elapsed() < MINUTE {
        std::thread::sleep(Duration::from_secs(5));
        scan();
    }
    std::thread::sleep(Duration::from_secs(2));
    let after = sensor.status();
    sensor.stop();
    let (up, down) = (after.bytes_up - before.bytes_up, after.bytes_down - before.bytes_down);
    println!("{:?}: {up} bytes up, {down} bytes down", began.elapsed());
    assert_eq!(after.facts_produced, before.facts_produced, "nothing is told");
    assert!(up + down <= BYTES_MAX, "{up} up, {down} down");
}
