//! The product's sensor as `lapwing-conformance sensor` wants one: told by its environment where to
//! go, and by its standard input what to observe.
//!
//! ```text
//! cargo build -p lapwing-sensor-os --example shim
//! lapwing-conformance sensor --cmd target/debug/examples/shim
//! ```
//!
//! It observes nothing of the machine: `event N` makes N facts of two kinds of its own, one with
//! rows, so that keyframes and digests have something to say. What it must understand is in
//! docs/conformance.md. Everything below the facts is the sensor as it is shipped.

use std::error::Error;
use std::io::BufRead as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lapwing_protocol::element::Type;
use lapwing_sensor_os::agent::Ended;
use lapwing_sensor_os::config::Collect;
use lapwing_sensor_os::{Agent, Config, Handle, OwnFact, OwnKind};

/// Something that happened.
const MOMENT: u16 = 0x8001;
/// Something that is so, one of `GAUGES` rows.
const GAUGE: u16 = 0x8002;
const GAUGES: u64 = 16;
const NUMBER: u16 = 3;
const TEXT: u16 = 4;
/// Bytes of a fact's text: twenty facts are a chunk.
const TEXT_BYTES: usize = 900;

fn main() -> ExitCode {
    match run() {
        Ok(Ended::Stopped) => ExitCode::SUCCESS,
        Ok(Ended::Restart) => start_again(),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Ended, Box<dyn Error>> {
    let agent = Agent::builder(Config::load(&configuration()?)?)
        .agent("lapwing-shim/1")
        .collect(Collect::none())
        .define(OwnKind::event(MOMENT, "moment").feature(NUMBER, "number", Type::U64).feature(
            TEXT,
            "text",
            Type::Text,
        ))
        .define(OwnKind::state(GAUGE, "gauge").key(NUMBER, "number", Type::U64).feature(
            TEXT,
            "text",
            Type::Text,
        ))
        .build()?;
    let handle = agent.handle();
    std::thread::spawn(move || obey(&handle));
    Ok(smol::block_on(agent.run())?)
}

/// The configuration file that the environment stands for, in the folder of the state.
fn configuration() -> Result<PathBuf, Box<dyn Error>> {
    let variable = |name: &str| {
        std::env::var(name).map_err(|_| format!("{name} is not set; see docs/conformance.md"))
    };
    let folder = PathBuf::from(variable("LAPWING_STATE")?);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let servers = ["registration", "detection"].map(|role| {
        let address = std::env::var(format!("LAPWING_{}", role.to_uppercase()));
        address.map_or_else(|_| String::new(), |address| format!("{role} = [\"{address}\"]\n"))
    });
    write(&folder.join("token"), &variable("LAPWING_TOKEN")?)?;
    let spool = match std::env::var("LAPWING_SPOOL").as_deref() {
        Ok("none") => "[spool]\nmode = \"memory\"\n".to_owned(),
        Ok(bytes) => format!("[spool]\nmax = \"{bytes} B\"\n"),
        Err(_) => String::new(),
    };
    let text = format!(
        "state_dir = \"state\"\nname = \"shim\"\nlog_level = \"info\"\n[servers]\n{}ca_file = \
         \"{}\"\n[enrolment]\ntoken_file = \"token\"\n{}",
        servers.concat(),
        variable("LAPWING_CA")?,
        spool,
    );
    let file = folder.join("sensor.toml");
    write(&file, &text)?;
    Ok(file)
}

fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut open = options.write(true).create(true).truncate(true).mode(0o600).open(file)?;
    std::io::Write::write_all(&mut open, text.as_bytes())
}

/// Does what the lines of the standard input say, until it ends.
fn obey(handle: &Handle) {
    let mut number = 0;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("event", count)) => {
                for _ in 0..count.trim().parse().unwrap_or(0) {
                    number += 1;
                    if handle.send(fact(number)).is_err() {
                        return;
                    }
                }
            }
            _ if line.trim() == "stop" => handle.stop(),
            _ => eprintln!("`{line}` is neither `event N` nor `stop`"),
        }
    }
}

fn fact(number: u64) -> OwnFact {
    let text = format!("{number} {}", "x".repeat(TEXT_BYTES));
    if number.is_multiple_of(3) {
        OwnFact::state(GAUGE).number(NUMBER, number % GAUGES).text(TEXT, &text)
    } else {
        OwnFact::event(MOMENT).number(NUMBER, number).text(TEXT, &text)
    }
}

fn start_again() -> ExitCode {
    let Ok(program) = std::env::current_exe() else { return ExitCode::FAILURE };
    let error = std::process::Command::new(program).exec();
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
