//! Killing the server under test, and starting it again.
//!
//! Invariant: when `restart` returns, the server answers again at the same address.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::play::wait;

/// How long a server may take to be there again.
const START: Duration = Duration::from_secs(90);

/// A server that can be killed.
pub trait Process: Send + Sync {
    /// Ends it as a power cut of the process would: nothing is flushed, nobody is told.
    ///
    /// # Errors
    /// It cannot; the text says why.
    fn kill(&self) -> Result<(), String>;

    /// Asks it to stop, as an operator does.
    ///
    /// # Errors
    /// A server that is killed by a command of the operator's cannot be asked.
    fn stop(&self) -> Result<(), String>;

    /// Starts it again and waits until it answers.
    ///
    /// # Errors
    /// It does not come back; the text says why.
    fn start(&self) -> Result<(), String>;

    /// As [`Self::start`], with as little room as the server can be given for what is on its way to
    /// the disk; `None` where it is not said how.
    ///
    /// # Errors
    /// As [`Self::start`].
    fn start_narrow(&self) -> Option<Result<(), String>> {
        None
    }

    /// As [`Self::start`], with a folder for backups; `None` where it is not said how.
    ///
    /// # Errors
    /// As [`Self::start`].
    fn start_backed(&self) -> Option<Result<(), String>> {
        None
    }

    /// Whether [`Self::start_backed`] can be done: then [`Self::start`] is without backups.
    fn can_be_backed(&self) -> bool {
        false
    }
}

/// A server that this program started, by `--server-cmd`.
pub struct Started {
    command: String,
    narrow: Option<String>,
    backed: Option<String>,
    address: SocketAddr,
    child: Mutex<Child>,
}

impl Started {
    /// Starts `command` with a shell, and waits until `address` answers. `narrow` and `backed`
    /// are the commands for [`Process::start_narrow`] and [`Process::start_backed`].
    ///
    /// # Errors
    /// It does not start.
    pub fn start(
        command: &str,
        (narrow, backed): (Option<String>, Option<String>),
        address: SocketAddr,
    ) -> Result<Self, String> {
        let mut child = spawn(command)?;
        answers(address, || ended(&mut child))?;
        let child = Mutex::new(child);
        Ok(Self { command: command.into(), narrow, backed, address, child })
    }

    fn start_by(&self, command: &str) -> Result<(), String> {
        let mut child = self.child();
        let is_over = wait::attempt(START, || child.try_wait().ok().flatten()).is_some();
        if !is_over {
            return Err(format!("the server did not end within {START:?}"));
        }
        *child = spawn(command)?;
        answers(self.address, || ended(&mut child))
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process for Started {
    fn kill(&self) -> Result<(), String> {
        let mut child = self.child();
        child.kill().map_err(|error| format!("cannot kill the server: {error}"))?;
        child.wait().map(drop).map_err(|error| error.to_string())
    }

    fn stop(&self) -> Result<(), String> {
        let id = self.child().id().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status();
        status.map(drop).map_err(|error| format!("cannot run kill: {error}"))
    }

    fn start(&self) -> Result<(), String> {
        self.start_by(&self.command)
    }

    fn start_narrow(&self) -> Option<Result<(), String>> {
        self.narrow.as_ref().map(|command| self.start_by(command))
    }

    fn start_backed(&self) -> Option<Result<(), String>> {
        self.backed.as_ref().map(|command| self.start_by(command))
    }

    fn can_be_backed(&self) -> bool {
        self.backed.is_some()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A server whose operator gave `--restart-cmd`: a command that kills it with -9 and starts it.
pub struct ByCommand {
    /// The command.
    pub command: String,
    /// Where the server answers.
    pub address: SocketAddr,
}

impl Process for ByCommand {
    fn kill(&self) -> Result<(), String> {
        let status = shell(&self.command).status().map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("`{}`: {status}", self.command)) }
    }

    fn stop(&self) -> Result<(), String> {
        Err("--restart-cmd kills; with --server-cmd the server can be asked to stop".into())
    }

    fn start(&self) -> Result<(), String> {
        answers(self.address, || None)
    }
}

fn shell(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::null());
    shell
}

/// `exec`, so that the process that is killed is the server and not a shell around it.
fn spawn(command: &str) -> Result<Child, String> {
    let command = format!("exec {command}");
    shell(&command).spawn().map_err(|error| format!("cannot start `{command}`: {error}"))
}

fn ended(child: &mut Child) -> Option<String> {
    let status = child.try_wait().ok().flatten()?;
    Some(format!("the server ended by itself with {status}"))
}

fn answers(address: SocketAddr, mut ended: impl FnMut() -> Option<String>) -> Result<(), String> {
    let found = wait::attempt(START, || {
        if let Some(why) = ended() {
            return Some(Err(why));
        }
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok().map(|_| Ok(()))
    });
    found.unwrap_or_else(|| Err(format!("nothing answers at {address} within {START:?}")))
}
