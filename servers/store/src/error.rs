//! Store errors: which operation, at which place, and who is to blame.
//!
//! Invariant: errors are values that can be cloned, because one failed flush answers every waiter;
//! the text names the place and, where an operator can act, the remedy.

use std::fmt;
use std::io;
use std::sync::Arc;

use lapwing_server_core::engine::Engine;

use crate::batch::Misuse;
use crate::envelope::Damage;

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Making a new store or partition.
    Create,
    /// Opening what exists.
    Open,
    /// Applying a batch.
    Apply,
    /// Making what was applied durable.
    Sync,
    /// Reading or scanning.
    Read,
    /// Measuring the size.
    Measure,
    /// Removing a partition.
    Remove,
}

/// Who or what is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Blame {
    /// The caller: a key, value or batch beyond its bound. Nothing was stored.
    Caller(Misuse),
    /// The disk or the file system answered with an error.
    Disk {
        /// The kind of the operating system's error.
        kind: io::ErrorKind,
        /// Its text.
        text: Arc<str>,
    },
    /// Another process, or another handle of this one, holds the store.
    Busy,
    /// There is no store at the place.
    Missing,
    /// Another storage engine than the configured one keeps it.
    OtherEngine {
        /// Whose data it is.
        found: Engine,
        /// Which engine was to open it.
        wanted: Engine,
    },
    /// One stored value does not match its checksum or has an unknown version.
    Value {
        /// The key of the damaged value.
        key: Arc<[u8]>,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The stored records contradict each other or the back end found its files corrupt.
    Corrupt(Arc<str>),
    /// The store was written by a version that this one cannot read.
    Version(u8),
    /// The back end broke its own promise (a panic or an internal error). The handle is dead.
    BackEnd(Arc<str>),
    /// Opening took longer than allowed, in seconds.
    Slow(u64),
    /// An earlier failure stopped this store; nothing is acknowledged until it is opened anew.
    Stopped,
    /// A fault ordered by a test.
    Simulated,
}

/// One failed operation on a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// What was being done.
    pub operation: Operation,
    /// The directory of the store, or a name for a store in memory.
    pub place: Arc<str>,
    /// Who is to blame.
    pub blame: Blame,
}

impl StoreError {
    /// An error of `operation` at `place`.
    #[must_use]
    pub fn new(operation: Operation, place: &Arc<str>, blame: Blame) -> Self {
        Self { operation, place: Arc::clone(place), blame }
    }

    /// An operating system's error during `operation` at `place`.
    #[must_use]
    pub fn disk(operation: Operation, place: &Arc<str>, error: &io::Error) -> Self {
        let text = error.to_string().into();
        Self::new(operation, place, Blame::Disk { kind: error.kind(), text })
    }

    /// Records at `place` that contradict each other, found by `operation`.
    #[must_use]
    pub fn corrupt(operation: Operation, place: &Arc<str>, what: impl Into<Arc<str>>) -> Self {
        Self::new(operation, place, Blame::Corrupt(what.into()))
    }

    /// Whether the store itself is damaged, so that opening it again will not help.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self.blame, Blame::Value { .. } | Blame::Corrupt(_))
    }

    const fn remedy(&self) -> Option<&'static str> {
        Some(match &self.blame {
            Blame::Busy => "stop the other process that uses it; one process owns one store",
            Blame::Disk { kind: io::ErrorKind::StorageFull, .. } => {
                "free space on that file system, then start the server again"
            }
            Blame::Disk { kind: io::ErrorKind::PermissionDenied, .. } => {
                "make the directory owned and writable by the user of the server"
            }
            Blame::Disk { .. } => "check the disk and the kernel's messages, then start again",
            Blame::Corrupt(_) | Blame::Value { .. } => {
                "move the directory aside, keep it for inspection, and restore the last backup"
            }
            Blame::Version(_) => "start the version that wrote it, or convert it",
            Blame::BackEnd(_) | Blame::Stopped => "start the server again",
            Blame::Slow(_) => "check the disk; if it is healthy, restore the last backup",
            Blame::Missing => "check the configured data directory",
            Blame::OtherEngine { .. } => {
                "set server.store.engine to the engine that keeps it, or convert: with the old \
                 setting `lapwing store export`, move the folder aside, and with the new setting \
                 `lapwing store import`"
            }
            Blame::Caller(_) | Blame::Simulated => return None,
        })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Open => "open",
            Self::Apply => "write to",
            Self::Sync => "sync",
            Self::Read => "read from",
            Self::Measure => "measure",
            Self::Remove => "remove",
        })
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller(misuse) => misuse.fmt(f),
            Self::Disk { text, .. } => f.write_str(text),
            Self::Busy => f.write_str("it is in use"),
            Self::Missing => f.write_str("there is no store"),
            Self::OtherEngine { found, wanted } => {
                write!(f, "it holds data of {found}, and the configuration says {wanted}")
            }
            Self::Value { key, damage } => {
                f.write_str("the value of key ")?;
                key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                write!(f, " is damaged ({damage})")
            }
            Self::Corrupt(what) => write!(f, "it is damaged: {what}"),
            Self::Version(version) => write!(f, "it has the unknown format version {version}"),
            Self::BackEnd(what) => write!(f, "the storage engine failed: {what}"),
            Self::Slow(seconds) => write!(f, "it did not answer within {seconds} s"),
            Self::Stopped => f.write_str("it stopped after an earlier failure"),
            Self::Simulated => f.write_str("a simulated fault"),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} the store at {}: {}", self.operation, self.place, self.blame)?;
        self.remedy().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

impl std::error::Error for StoreError {}
