//! One server each: loads its configuration, runs it until a signal, says what was wrong.

use std::fmt::Display;
use std::future::Future;
use std::path::Path;

use lapwing_microservices::{fleet, malops, tagging};
use lapwing_net::config::{self, Config as _, ConfigError};
use lapwing_net::identity::Role;
use lapwing_net::logging;
use lapwing_net::runtime::{self, Executor};
use lapwing_net::shutdown::{self, Shutdown};

use crate::exit::Exit;

/// Runs a role until SIGINT or SIGTERM, or until its parent is gone.
pub(crate) fn run(role: &str, file: &Path, with_parent: bool) -> Exit {
    if with_parent {
        end_with_parent();
    }
    match role {
        "registration" => serve(file, lapwing_registration::run),
        "detection" => serve(file, lapwing_detection::run),
        "update" => serve(file, lapwing_update::run),
        "intel" => serve(file, lapwing_intel::run),
        "webapp" => serve(file, lapwing_webapp::run),
        "malops" => serve(file, malops::run),
        "tagging" => serve(file, tagging::run),
        "fleet" => serve(file, fleet::run),
        other => unknown_role(other),
    }
}

fn serve<C, F, R, E>(file: &Path, run: F) -> Exit
where
    C: config::Config,
    F: FnOnce(C, Executor, Shutdown) -> R,
    R: Future<Output = Result<(), E>>,
    E: Display,
{
    let config: C = match config::load(file) {
        Ok(config) => config,
        Err(error) => return report(&error),
    };
    logging::start(config.server().log_level.into());
    let (name, data_dir) = (config.server().name.clone(), config.server().data_dir.clone());
    if let Err(error) = std::fs::create_dir_all(&data_dir) {
        return report(&format!("server.data_dir: {}: {error}", data_dir.display()));
    }
    let ended = runtime::run(runtime::cores(), |executor, trigger, stop| async move {
        let signals = executor.spawn(async move { shutdown::on_signal(trigger).await });
        let ended = run(config, executor, stop).await;
        drop(signals);
        ended
    });
    match ended {
        Ok(()) => Exit::Done,
        Err(error) => report(&format!("{name}: {error}")),
    }
}

fn report(error: &dyn Display) -> Exit {
    eprintln!("lapwing: {error}");
    Exit::Failed
}

/// Runs the sensor's own command line.
pub(crate) fn sensor(arguments: &[String]) -> Exit {
    let (ours, theirs): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(|argument| *argument == "--with-parent");
    if !ours.is_empty() {
        end_with_parent();
    }
    match lapwing_sensor_os::cli(&["lapwing", "sensor"], &theirs) {
        0 => Exit::Done,
        2 => Exit::Usage,
        3 => Exit::Partial,
        4 => Exit::Refused,
        5 => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

/// Whoever started this process holds the other end of its standard input: when that is gone, even
/// by a kill, this process ends in good order too, so that nothing is left behind on its ports.
fn end_with_parent() {
    std::thread::spawn(|| {
        let mut nothing = [0; 64];
        while std::io::Read::read(&mut std::io::stdin(), &mut nothing).is_ok_and(|read| read > 0) {}
        // Cannot fail: the signal is valid and this process exists.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM);
    });
}

/// Prints a role's example.
pub(crate) fn example(role: &str) -> Exit {
    let example = match role {
        "registration" => lapwing_registration::Config::EXAMPLE,
        "detection" => lapwing_detection::Config::EXAMPLE,
        "update" => lapwing_update::Config::EXAMPLE,
        "intel" | "intel-private" | "intel-global" => lapwing_intel::Config::EXAMPLE,
        "webapp" => lapwing_webapp::Config::EXAMPLE,
        "malops" => malops::Config::EXAMPLE,
        "tagging" => tagging::Config::EXAMPLE,
        "fleet" => fleet::Config::EXAMPLE,
        "sensor" => lapwing_sensor_os::config::EXAMPLE,
        other => return unknown_role(other),
    };
    print!("{example}");
    Exit::Done
}

fn unknown_role(role: &str) -> Exit {
    let roles = "registration, detection, update, intel, webapp, malops, tagging, fleet and sensor";
    eprintln!("{role:?} is no role; there are {roles}");
    Exit::Usage
}

/// Checks a configuration file by the loader of the role that it names.
pub(crate) fn check(file: &Path) -> Exit {
    match check_file(file) {
        Ok(role) => {
            println!("{}: a sound configuration of {role}", file.display());
            Exit::Done
        }
        Err(text) => {
            eprintln!("{text}");
            Exit::Failed
        }
    }
}

/// The role of a sound file, or what is wrong with it.
pub(crate) fn check_file(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    if toml::from_str::<toml::Table>(&text).is_ok_and(|table| table.contains_key("state_dir")) {
        let loaded = lapwing_sensor_os::Config::load(file);
        return loaded.map(|_| String::from("sensor")).map_err(|error| error.to_string());
    }
    let role = config::role_of(file).map_err(|error| error.to_string())?;
    let tls = check_as(role, file).map_err(|error| error.to_string())?;
    for (key, named) in [("cert", &tls.cert), ("key", &tls.key), ("ca", &tls.ca)] {
        if let Err(error) = std::fs::File::open(named) {
            // No error: a file may be checked on another machine than the one it is for.
            eprintln!("note: `server.tls.{key}`: {}: {error}", named.display());
        }
    }
    Ok(role.to_string())
}

fn check_as(role: Role, file: &Path) -> Result<config::Tls, ConfigError> {
    fn tls<C: config::Config>(file: &Path) -> Result<config::Tls, ConfigError> {
        config::load::<C>(file).map(|config| config.server().tls.clone())
    }
    match role {
        Role::Registration => tls::<lapwing_registration::Config>(file),
        Role::Update => tls::<lapwing_update::Config>(file),
        Role::IntelPrivate | Role::IntelGlobal => tls::<lapwing_intel::Config>(file),
        Role::Webapp => tls::<lapwing_webapp::Config>(file),
        Role::Malops => tls::<malops::Config>(file),
        Role::Tagging => tls::<tagging::Config>(file),
        Role::Fleet => tls::<fleet::Config>(file),
        // A sensor's file has no [server]; a command has no file. Both fail with the remedy.
        Role::Detection | Role::Sensor | Role::Ctl => tls::<lapwing_detection::Config>(file),
    }
}
