//! The command line: `run`, `enrol`, `status`, `spool`.
//!
//! A function of the arguments, so that a multi-call binary hosts it as one of its roles. Output
//! goes to standard output, the log to standard error. Exit codes: 0 done, 1 failed, 2 bad usage, 4
//! refused, 5 unreachable.

mod enrol;
mod run;
mod show;

use std::path::PathBuf;

use argh::FromArgs;

/// Done.
const DONE: i32 = 0;
/// Failed.
const FAILED: i32 = 1;
/// Wrong arguments.
const BAD_USAGE: i32 = 2;
/// Refused by policy or permission.
const REFUSED: i32 = 4;
/// Nobody answers.
const UNREACHABLE: i32 = 5;

/// The sensor of a machine: it observes what happens there and sends what changed.
#[derive(FromArgs)]
struct Arguments {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Run(Run),
    Enrol(Enrol),
    Status(ShowStatus),
    Spool(ShowSpool),
}

/// Observe and send, until SIGINT or SIGTERM.
#[derive(FromArgs)]
#[argh(subcommand, name = "run")]
struct Run {
    /// configuration file
    #[argh(option)]
    config: PathBuf,
}

/// Get an identity from a Registration or Detection server.
#[derive(FromArgs)]
#[argh(subcommand, name = "enrol")]
struct Enrol {
    /// registration server, host:port
    #[argh(option)]
    registration: Option<String>,
    /// detection server, host:port, where there is no Registration server
    #[argh(option)]
    detection: Option<String>,
    /// enrolment token
    #[argh(option)]
    token: String,
    /// the organisation's CA, PEM
    #[argh(option)]
    ca: PathBuf,
    /// state folder (default: /var/lib/lapwing-sensor)
    #[argh(option, default = "PathBuf::from(DEFAULT_STATE)")]
    state: PathBuf,
    /// the machine's name as servers show it, kept for each run whose configuration names none
    /// (default: the host name)
    #[argh(option)]
    name: Option<String>,
}

const DEFAULT_STATE: &str = "/var/lib/lapwing-sensor";

/// Show how the sensor of a configuration fares.
#[derive(FromArgs)]
#[argh(subcommand, name = "status")]
struct ShowStatus {
    /// configuration file
    #[argh(option)]
    config: PathBuf,
    /// one JSON object
    #[argh(switch)]
    json: bool,
}

/// Show what is in the spool, decoded.
#[derive(FromArgs)]
#[argh(subcommand, name = "spool")]
struct ShowSpool {
    /// configuration file
    #[argh(option)]
    config: PathBuf,
    /// one JSON object
    #[argh(switch)]
    json: bool,
}

/// How output is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

impl Form {
    fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// Runs the command line and answers with the exit code. `command` is what the user typed to get
/// here, such as `lapwing-sensor` or `lapwing sensor`; `arguments` is what follows it.
#[must_use]
pub fn cli(command: &[&str], arguments: &[&str]) -> i32 {
    if let ["--version"] = arguments {
        println!("lapwing-sensor {}", env!("CARGO_PKG_VERSION"));
        return DONE;
    }
    let parsed = match Arguments::from_args(command, arguments) {
        Ok(parsed) => parsed,
        Err(early) if early.status.is_ok() => {
            println!("{}", early.output.trim_end());
            return DONE;
        }
        Err(early) => {
            eprintln!("{}", early.output.trim_end());
            return BAD_USAGE;
        }
    };
    match parsed.command {
        Command::Run(run) => run::run(&run.config),
        Command::Enrol(arguments) => enrol::enrol(&arguments),
        Command::Status(show) => show::status(&show.config, Form::of(show.json)),
        Command::Spool(show) => show::spool(&show.config, Form::of(show.json)),
    }
}

/// Says what went wrong, on standard error.
fn complain(problem: &dyn std::fmt::Display) {
    eprintln!("error: {}", crate::escape::escaped(&problem.to_string()));
}
