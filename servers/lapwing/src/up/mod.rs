//! `lapwing up`: the whole platform on this machine, each server a process of its own.
//!
//! Not here: what servers do. Reading order: `plan` (names, ports, ids; kept in DATA/up.toml),
//! `files` (authorities, certificates, secrets, configurations), `children` (starts, watches,
//! starts again), `supervisor` (answers the WebApp), `ready` (the file for scripts), `terminal`.
//!
//! Invariants: ports are chosen once; one `up` owns one data folder; a child outlives neither a
//! stop nor a killed `up`; nothing secret is printed twice.

mod answering;
mod children;
mod data_folder;
mod files;
pub mod plan;
mod ready;
mod session;
mod supervisor;
mod terminal;

use std::net::IpAddr;
use std::path::PathBuf;

pub use files::write_all;
pub use plan::{Plan, PlanError};

use crate::exit::Exit;

/// Whether something is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// Which ports servers get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Free ones on one address.
    Free,
    /// 443, 8443 and 7075 on a loopback address for each server.
    Reference,
}

/// What `up` was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of everything.
    pub data: PathBuf,
    /// The address to listen on; `None` for what it was, at first 127.0.0.1.
    pub bind: Option<IpAddr>,
    /// One Detection server for each; `None` for what it was, at first one.
    pub capacities: Option<Vec<u32>>,
    /// This machine's own sensor.
    pub sensor: Wanted,
    /// The Registration server.
    pub registration: Wanted,
    /// The ports.
    pub ports: Ports,
    /// Where to write addresses and credentials.
    pub ready_file: Option<PathBuf>,
}

/// The folder that is used where none is named.
#[must_use]
pub fn default_data() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let data = folder("XDG_DATA_HOME").map(PathBuf::from);
    let home = || folder("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    data.or_else(home).map(|data| data.join("lapwing"))
}

/// Starts everything and stays until a signal.
#[must_use]
pub fn main(options: &Options) -> Exit {
    match session::run(options) {
        Ok(()) => Exit::Done,
        Err(text) => {
            eprintln!("lapwing up: {text}");
            Exit::Failed
        }
    }
}
