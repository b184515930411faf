//! The sections `[server.store]` and `[server.backup]`: how a server keeps what it must not lose.
//!
//! Not here: stores. Invariant: what is left out keeps a server safe: a floor of free space, and
//! no quota that nobody chose.

use std::path::PathBuf;
use std::time::Duration;

use lapwing_server_core::engine::Engine;
use lapwing_server_core::pressure::Bounds;
use serde::Deserialize;

use super::{Period, Refusal, Size};

/// Free space below which a server takes nothing more: more than all that its sensors may still
/// send on the credit they have, and the copy of the heads that a partition opens with.
const FREE_SPACE_FLOOR: Size = Size(256 << 20);
/// Each backup opens a partition of the journal, and those are bounded: at this pace, kept for
/// 30 days, they are 2,880 of 4,096.
const BACKUP_EVERY_MIN: Duration = Duration::from_secs(900);

/// The engine of the stores, and the room they may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// What keeps the stores on disk.
    pub engine: Engine,
    /// Bytes that the stores may take; left out: as much as there is.
    pub quota: Option<Size>,
    /// Bytes that must stay free on their file system.
    pub free_space_floor: Size,
}

impl Default for Storage {
    fn default() -> Self {
        Self { engine: Engine::default(), quota: None, free_space_floor: FREE_SPACE_FLOOR }
    }
}

impl Storage {
    /// The bounds of the room.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds { quota: self.quota.map(|quota| quota.0), free_space_floor: self.free_space_floor.0 }
    }
}

/// Where and how often the stores are backed up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// The folder of this server's backups, best on another disk. It is this server's alone.
    pub folder: PathBuf,
    /// How long after one backup the next one begins.
    #[serde(default = "every")]
    pub every: Period,
}

fn every() -> Period {
    Period(Duration::from_secs(3_600))
}

impl Backup {
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.every.0 < BACKUP_EVERY_MIN {
            return Err(Refusal::new(
                "server.backup.every",
                format!("{} is less than 15 m", self.every),
                "write at least \"15 m\"; `lapwing backup` makes one at any time",
            ));
        }
        Ok(())
    }
}
