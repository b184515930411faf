//! What there is to call: reads the arguments and hands them on.
//!
//! Invariant: a wrong call exits with 2 and says what would be right; `--help` exits with 0.

use std::path::PathBuf;

use argh::FromArgs;

use crate::exit::Exit;
use crate::up::Options;
use crate::{ctl, roles, storage, up};

/// Lapwing: an endpoint detection and response platform on this machine.
///
/// `lapwing` alone is `lapwing up`: the whole platform, and this machine's own sensor.
#[derive(FromArgs)]
struct Lapwing {
    /// print the version
    #[argh(switch)]
    version: bool,
    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Up(Up),
    Ctl(Ctl),
    Sensor(Sensor),
    Config(Config),
    Store(storage::Store),
    Backup(storage::BackupNow),
    Restore(storage::Restore),
    Registration(Registration),
    Detection(Detection),
    Update(Update),
    Intel(Intel),
    Webapp(Webapp),
    Malops(Malops),
    Tagging(Tagging),
    Fleet(Fleet),
}

/// Start the whole platform on this machine, and this machine's own sensor.
#[derive(FromArgs)]
#[argh(subcommand, name = "up")]
struct Up {
    /// folder of everything (default: $XDG_DATA_HOME/lapwing, else ~/.local/share/lapwing)
    #[argh(option, arg_name = "DIR")]
    data: Option<PathBuf>,
    /// address the servers listen on (default: 127.0.0.1)
    #[argh(option, arg_name = "ADDR")]
    bind: Option<std::net::IpAddr>,
    /// sensors a Detection server may take; one server for each number, separated by commas
    #[argh(option, arg_name = "N[,N...]")]
    capacity: Option<String>,
    /// start no sensor for this machine
    #[argh(switch)]
    no_sensor: bool,
    /// start no Registration server; sensors go straight to the first Detection server
    #[argh(switch)]
    no_registration: bool,
    /// give each server a loopback address of its own and the reference ports 443, 8443 and 7075
    #[argh(switch)]
    default_ports: bool,
    /// write addresses and credentials here as JSON, once all servers answer
    #[argh(option, arg_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Ask and steer a running platform: sensors, servers, MalOps, elements, reputations and more.
#[derive(FromArgs)]
#[argh(subcommand, name = "ctl")]
struct Ctl {
    #[argh(positional, greedy)]
    arguments: Vec<String>,
}

/// The sensor of this machine: run, enrol, status, spool (as `lapwing-sensor`).
#[derive(FromArgs)]
#[argh(subcommand, name = "sensor")]
struct Sensor {
    #[argh(positional, greedy)]
    arguments: Vec<String>,
}

/// Print an example configuration, or check a file: `config example ROLE`, `config check FILE`.
#[derive(FromArgs)]
#[argh(subcommand, name = "config")]
struct Config {
    #[argh(subcommand)]
    verb: ConfigVerb,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum ConfigVerb {
    Example(ConfigExample),
    Check(ConfigCheck),
}

/// Print a complete configuration file of a role, with a comment above every key.
#[derive(FromArgs)]
#[argh(subcommand, name = "example")]
struct ConfigExample {
    /// registration, detection, update, intel, webapp, malops, tagging, fleet or sensor
    #[argh(positional, arg_name = "ROLE")]
    role: String,
}

/// Check a configuration file; what is wrong is named by file, line, key and remedy.
#[derive(FromArgs)]
#[argh(subcommand, name = "check")]
struct ConfigCheck {
    /// the file
    #[argh(positional, arg_name = "FILE")]
    file: PathBuf,
}

macro_rules! roles {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {$(
        $(#[$doc])*
        #[derive(FromArgs)]
        #[argh(subcommand, name = $text)]
        struct $name {
            /// its configuration file
            #[argh(option, arg_name = "FILE")]
            config: PathBuf,
            /// end when standard input ends: for a process that starts this one
            #[argh(switch, hidden_help)]
            with_parent: bool,
        }
    )*};
}

roles! {
    /// Run a Registration server: enrols sensors and assigns them to Detection servers.
    Registration = "registration";
    /// Run a Detection server: ends sensors' connections, keeps the graph, raises evidence.
    Detection = "detection";
    /// Run an Update server: hosts signed updates.
    Update = "update";
    /// Run a Threat Intel server, private or global by its configuration.
    Intel = "intel";
    /// Run the WebApp: the analyst's page and the REST API.
    Webapp = "webapp";
    /// Run the MalOp service.
    Malops = "malops";
    /// Run the tagging service.
    Tagging = "tagging";
    /// Run sensor management.
    Fleet = "fleet";
}

/// Runs the command that `arguments` (without the program's name) ask for.
#[must_use]
pub fn main(arguments: &[String]) -> Exit {
    match arguments.split_first() {
        // These read their own arguments: options of theirs may stand anywhere.
        Some((first, rest)) if first == "ctl" => return ctl::main(rest),
        Some((first, rest)) if first == "sensor" => return roles::sensor(rest),
        _ => {}
    }
    let arguments = with_default(arguments);
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match Lapwing::from_args(&["lapwing"], &texts) {
        Ok(lapwing) if lapwing.version => {
            println!("lapwing {}", env!("CARGO_PKG_VERSION"));
            Exit::Done
        }
        Ok(lapwing) => run(lapwing.command),
        Err(early) => early_exit(&early),
    }
}

/// `lapwing` alone, or with options only, is `lapwing up`.
fn with_default(arguments: &[String]) -> Vec<String> {
    let is_up = match arguments.first().map(String::as_str) {
        None => true,
        Some("--help" | "help" | "--version") => false,
        Some(first) => first.starts_with("--"),
    };
    let up = is_up.then(|| String::from("up"));
    up.into_iter().chain(arguments.iter().cloned()).collect()
}

/// What argh says instead of a command: its help (done), or what was wrong (usage).
pub(crate) fn early_exit(early: &argh::EarlyExit) -> Exit {
    if early.status.is_ok() {
        println!("{}", early.output.trim_end());
        Exit::Done
    } else {
        eprintln!("{}\n  add --help to see what is right", early.output.trim_end());
        Exit::Usage
    }
}

fn run(command: Option<Command>) -> Exit {
    match command {
        None => run_up(Up::none()),
        Some(Command::Up(options)) => run_up(options),
        Some(Command::Ctl(ctl)) => ctl::main(&ctl.arguments),
        Some(Command::Sensor(sensor)) => roles::sensor(&sensor.arguments),
        Some(Command::Config(config)) => match config.verb {
            ConfigVerb::Example(example) => roles::example(&example.role),
            ConfigVerb::Check(check) => roles::check(&check.file),
        },
        Some(Command::Store(store)) => storage::store(&store),
        Some(Command::Backup(backup)) => storage::backup(&backup),
        Some(Command::Restore(restore)) => storage::restore(&restore),
        Some(Command::Registration(role)) => {
            roles::run("registration", &role.config, role.with_parent)
        }
        Some(Command::Detection(role)) => roles::run("detection", &role.config, role.with_parent),
        Some(Command::Update(role)) => roles::run("update", &role.config, role.with_parent),
        Some(Command::Intel(role)) => roles::run("intel", &role.config, role.with_parent),
        Some(Command::Webapp(role)) => roles::run("webapp", &role.config, role.with_parent),
        Some(Command::Malops(role)) => roles::run("malops", &role.config, role.with_parent),
        Some(Command::Tagging(role)) => roles::run("tagging", &role.config, role.with_parent),
        Some(Command::Fleet(role)) => roles::run("fleet", &role.config, role.with_parent),
    }
}

impl Up {
    fn none() -> Self {
        Self {
            data: None,
            bind: None,
            capacity: None,
            no_sensor: false,
            no_registration: false,
            default_ports: false,
            ready_file: None,
        }
    }
}

fn run_up(arguments: Up) -> Exit {
    let capacities = match arguments.capacity.as_deref().map(capacities).transpose() {
        Ok(capacities) => capacities,
        Err(text) => {
            eprintln!("--capacity: {text}");
            return Exit::Usage;
        }
    };
    let Some(data) = arguments.data.or_else(up::default_data) else {
        eprintln!("there is no home folder to keep data in; name one with --data DIR");
        return Exit::Usage;
    };
    up::main(&Options {
        data,
        bind: arguments.bind,
        capacities,
        sensor: if arguments.no_sensor { up::Wanted::No } else { up::Wanted::Yes },
        registration: if arguments.no_registration { up::Wanted::No } else { up::Wanted::Yes },
        ports: if arguments.default_ports { up::Ports::Reference } else { up::Ports::Free },
        ready_file: arguments.ready_file,
    })
}

fn capacities(text: &str) -> Result<Vec<u32>, String> {
    let numbers = text.split(',').map(|number| match number.trim().parse::<u32>() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{number:?} is not a number of sensors; write for example 100 or 100,50")),
    });
    numbers.collect()
}

#[cfg(test)]
mod tests {
    use super::{capacities, main, with_default};
    use crate::exit::Exit;

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn alone_or_with_options_it_is_up() {
        assert_eq!(with_default(&[]), ["up"]);
        assert_eq!(with_default(&texts(&["--no-sensor"])), ["up", "--no-sensor"]);
        assert_eq!(with_default(&texts(&["ctl", "--help"])), ["ctl", "--help"]);
        assert_eq!(with_default(&texts(&["--help"])), ["--help"]);
    }

    #[test]
    fn wrong_calls_are_usage_and_help_is_done() {
        assert_eq!(main(&texts(&["dance"])), Exit::Usage);
        assert_eq!(main(&texts(&["detection"])), Exit::Usage);
        assert_eq!(main(&texts(&["up", "--capacity", "many"])), Exit::Usage);
        assert_eq!(main(&texts(&["--help"])), Exit::Done);
        assert_eq!(main(&texts(&["up", "--help"])), Exit::Done);
        assert_eq!(main(&texts(&["--version"])), Exit::Done);
    }

    #[test]
    fn capacities_are_numbers_above_zero() {
        assert_eq!(capacities("100, 50"), Ok(vec![100, 50]));
        assert!(capacities("0").is_err());
        assert!(capacities("100,,50").is_err());
    }
}
