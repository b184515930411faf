//! Where a log stands: what the shell keeps durable for each log, and gives back at a start.
//!
//! Invariant of [`LogPositions`]: `acked.seq <= made.seq`, `first_seq <= made.seq + 1`.

use lapwing_protocol::delivery::JumpCause;
use lapwing_protocol::digest::Chain;
use lapwing_protocol::hello::{LogCause, LogParent};
use lapwing_protocol::id::{DeploymentId, Lane, LogId, SensorId};

/// The place right behind one chunk of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The chunk's sequence; 0 is the place before the first.
    pub seq: u64,
    /// The index the next fact has; the first fact of a log has 1.
    pub next_index: u64,
    /// The chain after the chunk.
    pub chain: Chain,
}

/// One log of one lane, as the shell finds it at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPositions {
    /// Which log.
    pub log: LogId,
    /// Why it was opened.
    pub cause: LogCause,
    /// The log before it.
    pub parent: Option<LogParent>,
    /// The oldest chunk that can still be sent; `made.seq + 1` when there is none.
    pub first_seq: u64,
    /// Behind the highest chunk that some server acknowledged.
    pub acked: Position,
    /// Behind the last chunk.
    pub made: Position,
}

impl LogPositions {
    /// A new, empty log.
    #[must_use]
    pub fn open(
        (deployment, sensor): (DeploymentId, SensorId),
        lane: Lane,
        log: LogId,
        cause: LogCause,
        parent: Option<LogParent>,
    ) -> Self {
        let chain = Chain::start(deployment, sensor, lane, log);
        let start = Position { seq: 0, next_index: 1, chain };
        Self { log, cause, parent, first_seq: 1, acked: start, made: start }
    }

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

/// A run of a log that will not be sent, and why: what a Jump announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Which log.
    pub log: LogId,
    /// First sequence of the hole.
    pub from_seq: u64,
    /// Last sequence of the hole. What follows it must open a segment or be self-contained.
    pub to_seq: u64,
    /// The index of the fact behind the hole; `None` when it is not known.
    pub next_index: Option<u64>,
    /// The chain after `to_seq`.
    pub chain: Chain,
    /// Why.
    pub cause: JumpCause,
}

/// A chunk that was sent and is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flight {
    /// The place behind it.
    pub(crate) position: Position,
    /// Bytes of credit used up behind it.
    pub(crate) bytes_after: u64,
}

impl Flight {
    /// An unused place, for the arrays that a shell lends.
    pub const NONE: Self = Self {
        position: Position { seq: 0, next_index: 0, chain: Chain([0; 32]) },
        bytes_after: 0,
    };
}
