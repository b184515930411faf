//! What the spool is told and tells: options, where logs stand, holes, counts.

use lapwing_protocol::delivery::JumpCause;
use lapwing_protocol::digest::Chain;
use lapwing_protocol::hello::{LogCause, LogParent};
use lapwing_protocol::id::{Lane, LogId};
use serde::{Deserialize, Serialize};

use super::Place;
use crate::config::Sync;

/// A run of a log that will not be sent; the twin of the core's hole, as files hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredHole {
    /// First sequence.
    pub from_seq: u64,
    /// Last sequence.
    pub to_seq: u64,
    /// The index of the fact behind it, where known.
    pub next_index: Option<u64>,
    /// The chain after `to_seq`.
    pub chain: Chain,
    /// Why.
    pub cause: JumpCause,
}

/// How large a spool may be and how safe it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolOptions {
    /// Bytes of all files at the most.
    pub bytes_max: u64,
    /// Milliseconds for which a sensor may run before what it made then is dropped.
    pub age_ms_max: u64,
    /// When what was written is made to outlive a power cut.
    pub sync: Sync,
}

/// Where a log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Which lane.
    pub lane: Lane,
    /// Which log.
    pub log: LogId,
    /// Why it was opened.
    pub cause: LogCause,
    /// The log before it.
    pub parent: Option<LogParent>,
    /// The oldest chunk that can be fetched; one behind `made` when there is none.
    pub first_seq: u64,
    /// Behind the highest chunk that some server stored.
    pub acked: Place,
    /// Behind the last chunk.
    pub made: Place,
}

impl LogState {
    /// This log as the parent of the next one.
    #[must_use]
    pub fn as_parent(&self) -> LogParent {
        LogParent {
            log: self.log,
            next_seq: self.made.seq + 1,
            next_index: self.made.next_index,
            chain: self.made.chain,
        }
    }
}

/// A log that lost files from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// Which lane.
    pub lane: Lane,
    /// Which log.
    pub log: LogId,
    /// The oldest chunk that is left.
    pub first_seq: u64,
    /// What the files that went leave behind; none where all in them was stored.
    pub hole: Option<StoredHole>,
    /// Facts in that hole.
    pub facts: u64,
}

/// What the spool did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolStats {
    /// Chunks appended.
    pub appended: u64,
    /// Syncs.
    pub syncs: u64,
    /// Chunks dropped that were stored but in no backup yet.
    pub unprotected: u64,
    /// Chunks dropped that no server had.
    pub dropped: u64,
}
