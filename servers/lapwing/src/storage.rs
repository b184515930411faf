//! `lapwing store`, `lapwing backup`, `lapwing restore`: one server's stores as files.
//!
//! Not here: what a copy is (lapwing-store). Invariants: a server that runs is asked, never worked
//! around; nothing is copied over what exists; progress goes to standard error.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use argh::FromArgs;
use lapwing_microservices::{fleet, malops};
use lapwing_net::clock;
use lapwing_net::config::{self, Backup, Server};
use lapwing_net::identity::Role;
use lapwing_net::peer::{CallError, PeerClient};
use lapwing_net::runtime;
use lapwing_net::tls::{ClientTls, Credentials, ExpectedPeer, Plane};
use lapwing_protocol::call::Method;
use lapwing_store::DiskOptions;
use lapwing_store::transfer::{self, Life, Progress, Summary};
use serde::Deserialize;

use crate::exit::Exit;

/// How long a server may take to back itself up.
const BACKUP_TIME: Duration = Duration::from_secs(6 * 3_600);
/// How long it may take to take the connection: it runs on this machine.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Write all stores of a server that does not run into a file, or make them of one. To change
/// the engine: export with the old configuration, move the data folder aside, import with the new.
#[derive(FromArgs)]
#[argh(subcommand, name = "store")]
pub(crate) struct Store {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Verb {
    Export(Export),
    Import(Import),
}

/// Write all stores of a server that does not run into one new file.
#[derive(FromArgs)]
#[argh(subcommand, name = "export")]
struct Export {
    /// the server's configuration file
    #[argh(option, arg_name = "FILE")]
    config: PathBuf,
    /// the file to write; it must not exist
    #[argh(option, arg_name = "FILE")]
    out: PathBuf,
}

/// Make a server's stores of an export; its data folder must be empty or absent.
#[derive(FromArgs)]
#[argh(subcommand, name = "import")]
struct Import {
    /// the server's configuration file; its engine is the new one
    #[argh(option, arg_name = "FILE")]
    config: PathBuf,
    /// the file to read
    #[argh(option, arg_name = "FILE")]
    from: PathBuf,
}

/// Back a server's stores up into the folder that its configuration names; it may run meanwhile.
#[derive(FromArgs)]
#[argh(subcommand, name = "backup")]
pub(crate) struct BackupNow {
    /// the server's configuration file, with a section [server.backup]
    #[argh(option, arg_name = "FILE")]
    config: PathBuf,
}

/// Make a server's stores of its last finished backup; its data folder must be empty or absent.
#[derive(FromArgs)]
#[argh(subcommand, name = "restore")]
pub(crate) struct Restore {
    /// the server's configuration file
    #[argh(option, arg_name = "FILE")]
    config: PathBuf,
    /// the folder of the backup (default: server.backup.folder)
    #[argh(option, arg_name = "DIR")]
    from: Option<PathBuf>,
}

/// What is read of any server's configuration.
#[derive(Deserialize)]
struct AnyServer {
    server: Server,
    #[serde(default)]
    detection: Option<Console>,
}

/// Where a Detection server is asked.
#[derive(Deserialize)]
struct Console {
    console_listen: SocketAddr,
}

impl config::Config for AnyServer {
    const ROLES: &'static [Role] = &[
        Role::Registration,
        Role::Detection,
        Role::IntelPrivate,
        Role::IntelGlobal,
        Role::Webapp,
        Role::Malops,
        Role::Tagging,
        Role::Fleet,
    ];
    const EXAMPLE: &'static str = "";

    fn server(&self) -> &Server {
        &self.server
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        self.server.paths()
    }
}

impl AnyServer {
    fn options(&self) -> DiskOptions {
        DiskOptions::of(self.server.store.engine)
    }

    /// Where it answers other servers, from this machine.
    fn address(&self) -> Option<SocketAddr> {
        let console = self.detection.as_ref().map(|detection| detection.console_listen);
        let mut address = console.or(self.server.listen.first().copied())?;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            });
        }
        Some(address)
    }

    /// Rows that a copy makes anew, so that who follows this server notices.
    const fn made_anew(&self) -> &'static [(&'static str, &'static [u8])] {
        match self.server.role {
            Role::Detection => lapwing_detection::MADE_ANEW,
            Role::IntelPrivate | Role::IntelGlobal => lapwing_intel::MADE_ANEW,
            Role::Malops => malops::MADE_ANEW,
            Role::Fleet => fleet::MADE_ANEW,
            _ => &[],
        }
    }

    fn life(&self) -> Result<Life<'static>, String> {
        let mut incarnation = [0; 16];
        getrandom::fill(&mut incarnation).map_err(|error| format!("no random bytes: {error}"))?;
        Ok(Life { incarnation, forgotten: self.made_anew() })
    }
}

/// Runs `lapwing store`.
pub(crate) fn store(store: &Store) -> Exit {
    match &store.verb {
        Verb::Export(export) => finish(run_export(export)),
        Verb::Import(import) => finish(run_import(import)),
    }
}

/// Runs `lapwing backup`.
pub(crate) fn backup(backup: &BackupNow) -> Exit {
    finish(run_backup(&backup.config))
}

/// Runs `lapwing restore`.
pub(crate) fn restore(restore: &Restore) -> Exit {
    finish(run_restore(restore))
}

fn finish(done: Result<String, String>) -> Exit {
    match done {
        Ok(text) => {
            println!("{text}");
            Exit::Done
        }
        Err(text) => {
            eprintln!("lapwing: {text}");
            Exit::Failed
        }
    }
}

fn load(file: &Path) -> Result<AnyServer, String> {
    config::load(file).map_err(said)
}

fn said(error: impl Display) -> String {
    error.to_string()
}

/// Tells now and then how far it is.
fn teller() -> impl FnMut(Progress<'_>) {
    let mut told = Instant::now();
    move |progress| {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            eprintln!("{}: {} entries", progress.store, progress.entries);
        }
    }
}

fn summed(summary: Summary) -> String {
    format!("{} stores with {} entries", summary.stores, summary.entries)
}

fn run_export(export: &Export) -> Result<String, String> {
    let config = load(&export.config)?;
    let summary = transfer::export(&config.server.data_dir, &export.out, &mut teller());
    let summary = summary.map_err(said)?;
    Ok(format!("{} are in {}", summed(summary), export.out.display()))
}

fn run_import(import: &Import) -> Result<String, String> {
    let config = load(&import.config)?;
    let (folder, life) = (&config.server.data_dir, config.life()?);
    let summary = transfer::import(&import.from, folder, &config.options(), &life, &mut teller());
    Ok(format!("{} are in {}", summed(summary.map_err(said)?), folder.display()))
}

fn run_restore(restore: &Restore) -> Result<String, String> {
    let config = load(&restore.config)?;
    let configured = config.server.backup.as_ref().map(|backup| backup.folder.clone());
    let from = restore.from.clone().or(configured).ok_or_else(|| {
        String::from("there is no [server.backup] in the configuration; name a folder with --from")
    })?;
    let (folder, life) = (&config.server.data_dir, config.life()?);
    let summary = transfer::restore(&from, folder, &config.options(), &life, &mut teller());
    Ok(format!("{} are in {}", summed(summary.map_err(said)?), folder.display()))
}

fn run_backup(file: &Path) -> Result<String, String> {
    let config = load(file)?;
    let Some(backup) = config.server.backup.clone() else {
        return Err(format!(
            "{}: no backup is configured; add [server.backup] with a folder",
            file.display()
        ));
    };
    let running = config
        .address()
        .filter(|address| TcpStream::connect_timeout(address, CONNECT_TIME).is_ok());
    match running {
        Some(address) => ask(&config.server, address)?,
        None => back_up_here(&config, &backup)?,
    }
    let finished = transfer::finished(&backup.folder).map_err(said)?;
    let number = finished.map_or(0, |(_, number)| number);
    Ok(format!("backup {number} is in {}", backup.folder.display()))
}

/// Has the server that runs back itself up; only it may touch its stores.
fn ask(server: &Server, address: SocketAddr) -> Result<(), String> {
    let credentials = Credentials::load(&server.tls).map_err(said)?;
    let expected = ExpectedPeer::of_role(server.deployment, server.role);
    let tls = ClientTls::new(&credentials, Plane::Peer, expected).map_err(said)?;
    let name = server.name.clone();
    let reply = runtime::run(1, |executor, _, _| async move {
        let client = PeerClient::new(&executor, &name, vec![address], tls);
        client.call(Method::BACKUP, &[], BACKUP_TIME).await
    });
    reply.map(drop).map_err(|error: CallError| error.to_string())
}

/// Backs up what no server has open.
fn back_up_here(config: &AnyServer, backup: &Backup) -> Result<(), String> {
    let (folder, now_ms) = (&config.server.data_dir, clock::unix_ms());
    let sources = transfer::open_sources(folder, &config.options(), now_ms).map_err(said)?;
    transfer::back_up(&sources, &backup.folder, now_ms, &mut teller()).map(drop).map_err(said)
}

#[cfg(test)]
mod tests;
