//! What the oracle knows of a machine: where each fact was put, and why one may be missing.

use std::collections::{BTreeMap, BTreeSet};

use lapwing_protocol::command::CommandNumber;
use lapwing_protocol::hello::LogCause;
use lapwing_protocol::id::{Lane, LogId, ServerId};

/// Why a fact may be missing although no Jump covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excuse {
    /// It was in the memory of a process that was killed.
    Killed,
    /// It was written and not synced when the power went.
    PowerCut,
    /// The disk was put back to an image without it.
    RolledBack,
    /// The log it was in was given up as forked or rolled back.
    GivenUp,
    /// This server, which had it, was put back to an older backup; none, where several were.
    ServerRestored(Option<ServerId>),
}

/// Where a fact was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) log: LogId,
    pub(crate) index: u64,
    pub(crate) excuse: Option<Excuse>,
    /// The sensor dropped it by rule, and told of it by a finding.
    pub(crate) is_dropped: bool,
    /// The sensor took the finding that tells of it.
    pub(crate) is_told: bool,
}

/// What the oracle knows of a machine.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// Where each fact was put, by its number.
    pub(crate) placed: BTreeMap<u64, Placed>,
    /// How often each command was carried out; a disk that is put back forgets what it did.
    pub(crate) executed: BTreeMap<(u64, CommandNumber), u64>,
    /// Times that what was run before was forgotten, here or by a server for who has no memory.
    pub(crate) incarnation: u64,
    /// Times the disk was put back to an image.
    pub(crate) rollbacks: u64,
    /// Losses of synced things, after which a count of findings proves nothing.
    pub(crate) disasters: u64,
    /// Logs that were given up with something of them unacknowledged.
    pub(crate) given_up: BTreeSet<LogId>,
    /// Logs of this machine by the cause they were opened with.
    pub(crate) logs: Vec<(Lane, LogId, LogCause)>,
    /// What the shell did wrong, in words.
    pub(crate) broken: Vec<String>,
}

impl Truth {
    /// These facts went into a hole.
    pub(crate) fn note_dropped(&mut self, log: LogId, indices: std::ops::Range<u64>) {
        for placed in self.placed.values_mut() {
            let is_it = placed.log == log && indices.contains(&placed.index);
            placed.is_dropped |= is_it && placed.excuse.is_none();
        }
    }
}
