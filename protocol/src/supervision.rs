//! Supervision: the servers that `lapwing up` started, and what an operator may ask of it.

use serde::{Deserialize, Serialize};

use crate::registration::ServerRole;

/// How a supervised server is doing. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChildState {
    /// Its process was started and does not answer yet.
    Starting,
    /// Its process runs.
    Running,
    /// Its process ended by itself; it is started again after a pause.
    Waiting,
    /// An operator stopped it; it stays so until an operator starts it.
    Stopped,
}

impl ChildState {
    /// The state's name in API and command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
        }
    }
}

/// A supervised server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildView<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is; `None` for this machine's own sensor.
    pub role: Option<ServerRole>,
    /// How it is doing.
    pub state: ChildState,
    /// Its process number, while it has one.
    pub pid: Option<u32>,
    /// How often its process was started since the supervisor started.
    pub starts: u32,
    /// Where its log is.
    pub log_file: &'a str,
    /// How its last process ended, for a person; empty when none did.
    pub ending: &'a str,
}

/// An operator's wish for a supervised server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildChange<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is wanted.
    pub wish: ChildWish,
}

/// What an operator may wish. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChildWish {
    /// End it in good order, and leave it ended.
    Stop,
    /// End it at once, as a power cut would, and leave it ended.
    Kill,
    /// Start it.
    Start,
}
