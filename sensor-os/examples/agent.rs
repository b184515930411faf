//! An agent of one's own: it links the sensor, defines a kind of element, and sends a fact of it.
//!
//! Run it against a platform that is up, with a sensor configuration of its own (its own
//! `state_dir`, and `enrolment.token_file` so that it enrols by itself):
//!
//! ```text
//! cargo run --release -- up
//! cargo run -p lapwing-sensor-os --example agent -- my-agent.toml
//! ```
//!
//! Of the machine it collects no more than its name and system; a real agent chooses what of
//! `Collect` it wants.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use lapwing_protocol::element::Type;
use lapwing_sensor_os::config::Collect;
use lapwing_sensor_os::{Agent, Config, OwnFact, OwnKind};

/// A number of the agent's own: 0x8000 or higher, and never used for anything else.
const DOOR: u16 = 0x8001;
/// Features of a door; the first three numbers are the platform's.
const NAME: u16 = 3;
const STATE: u16 = 4;
const BADGE: u16 = 5;

fn main() -> ExitCode {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("usage: agent CONFIG.toml");
        return ExitCode::from(2);
    };
    match run(Path::new(&file)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(file: &Path) -> Result<(), Box<dyn Error>> {
    let kind = OwnKind::state(DOOR, "door")
        .key(NAME, "name", Type::Text)
        .feature(STATE, "state", Type::Text)
        .feature(BADGE, "badge", Type::U64);
    let agent = Agent::builder(Config::load(file)?)
        .agent("door-agent/1.0")
        .collect(Collect { machine: true, ..Collect::none() })
        .define(kind)
        .build()?;
    let handle = agent.handle();
    let runs = std::thread::spawn(move || smol::block_on(agent.run()));

    let fact = OwnFact::state(DOOR)
        .text(NAME, "north gate")
        .text(STATE, "forced open")
        .number(BADGE, 4_711);
    handle.send(fact)?.wait()?;
    println!("stored durably by the Detection server; find it with");
    println!("    lapwing ctl elements query 'door where name = \"north gate\"'");

    handle.stop();
    runs.join().map_err(|_| "the sensor panicked")??;
    Ok(())
}
