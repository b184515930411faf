//! Where a sensor's chunks lie until they are safe: in memory without a bound, or in the product's
//! own spool on disk.
//!
//! Not here: power cuts; a load's sensor lives as long as its process. Invariant: both answer the
//! same questions the same way, so that the core does not know which it is.

mod memory;

use std::path::Path;

use lapwing_protocol::delivery::JumpCause;
use lapwing_protocol::hello::{LogCause, LogParent, StoredRange};
use lapwing_protocol::id::{DeploymentId, Lane, LogId, SensorId, ServerId};
use lapwing_sensor_core::{Find, Hole, LogPositions, Position};
use lapwing_sensor_os::config::Sync;
use lapwing_sensor_os::spool::{
    LogState, Place, Spool as DiskSpool, SpoolError, SpoolOptions, StoredHole, Trimmed,
};

use memory::MemorySpool;

/// Sensor and deployment.
pub(super) type Owner = (DeploymentId, SensorId);

/// Where an operation applies.
pub(super) type LogName = (Lane, LogId);

/// The spool of one sensor.
#[derive(Debug)]
pub(super) enum Spool {
    Memory(MemorySpool),
    Disk(Box<DiskSpool>),
}

pub(super) fn place(position: Position) -> Place {
    let Position { seq, next_index, chain } = position;
    Place { seq, next_index, chain }
}

pub(super) fn position(place: Place) -> Position {
    let Place { seq, next_index, chain } = place;
    Position { seq, next_index, chain }
}

pub(super) fn core_hole(log: LogId, hole: &StoredHole) -> Hole {
    let StoredHole { from_seq, to_seq, next_index, chain, cause } = *hole;
    Hole { log, from_seq, to_seq, next_index, chain, cause }
}

fn positions(state: LogState) -> LogPositions {
    let LogState { log, cause, parent, first_seq, acked, made, .. } = state;
    LogPositions { log, cause, parent, first_seq, acked: position(acked), made: position(made) }
}

impl Spool {
    /// A spool in memory.
    pub(super) fn in_memory(owner: Owner) -> Self {
        Self::Memory(MemorySpool::new(owner))
    }

    /// A spool on disk in a folder of its own.
    pub(super) fn on_disk(folder: &Path, owner: Owner, bytes_max: u64) -> Result<Self, SpoolError> {
        let options = SpoolOptions { bytes_max, age_ms_max: u64::MAX, sync: Sync::Interval };
        DiskSpool::open(folder, owner, options).map(|spool| Self::Disk(Box::new(spool)))
    }

    /// Opens a log, which becomes the current one of its lane.
    pub(super) fn open_log(
        &mut self,
        lane: Lane,
        log: LogId,
        (cause, parent): (LogCause, Option<LogParent>),
    ) -> Result<LogPositions, SpoolError> {
        match self {
            Self::Memory(spool) => Ok(spool.open_log(lane, log, (cause, parent))),
            Self::Disk(spool) => spool.open_log(lane, log, cause, parent).map(positions),
        }
    }

    /// Appends a chunk. At the bound room is made first; `trimmed` gets what that took away.
    pub(super) fn append(
        &mut self,
        now_ns: u64,
        (lane, bytes, opens): (Lane, &[u8], bool),
        after: Position,
        trimmed: &mut Vec<Trimmed>,
    ) -> Result<(), SpoolError> {
        let spool = match self {
            Self::Memory(spool) => return spool.append(lane, (bytes, opens), after),
            Self::Disk(spool) => spool,
        };
        loop {
            match spool.append(now_ns, bytes, place(after)) {
                Err(SpoolError::Full) => match spool.make_room()? {
                    Some(room) => trimmed.push(room),
                    None => return Err(SpoolError::Full),
                },
                other => return other,
            }
        }
    }

    /// The last chunk of the current log of a lane.
    pub(super) fn made(&self, lane: Lane) -> Option<Position> {
        match self {
            Self::Memory(spool) => spool.made(lane),
            Self::Disk(spool) => spool.current(lane).map(|log| position(log.made)),
        }
    }

    /// What was made up to `to` and not appended never will be.
    pub(super) fn skip(&mut self, lane: Lane, to: Position, cause: JumpCause) {
        if let Self::Disk(spool) = self {
            // A hole that is not durable is known until the process ends, and so is this spool.
            let _ = spool.skip(lane, place(to), cause);
        }
    }

    /// Syncs where that is due.
    pub(super) fn sync_if_due(&mut self, now_ns: u64) -> Result<(), SpoolError> {
        match self {
            Self::Disk(spool) if spool.is_sync_due(now_ns) => spool.sync(now_ns),
            Self::Memory(_) | Self::Disk(_) => Ok(()),
        }
    }

    /// When a sync is due.
    pub(super) fn poll_timeout(&self) -> Option<u64> {
        match self {
            Self::Memory(_) => None,
            Self::Disk(spool) => spool.poll_timeout(),
        }
    }

    /// Reads a chunk; whether it is there.
    pub(super) fn fetch(
        &mut self,
        log: LogName,
        seq: u64,
        chunk: &mut Vec<u8>,
    ) -> Result<bool, SpoolError> {
        match self {
            Self::Memory(spool) => Ok(spool.fetch(log, seq, chunk)),
            Self::Disk(spool) => Ok(spool.fetch(log, seq, chunk)?.is_some()),
        }
    }

    /// Looks a place up.
    pub(super) fn locate(
        &mut self,
        log: LogName,
        find: Find,
    ) -> Result<Option<Position>, SpoolError> {
        let found = match (self, find) {
            (Self::Memory(spool), find) => return Ok(spool.locate(log, find)),
            (Self::Disk(spool), Find::Behind(seq)) => spool.behind(log, seq),
            (Self::Disk(spool), Find::SegmentOf(seq)) => spool.before_segment_of(log, seq),
        };
        found.map(|found| found.map(position))
    }

    /// A chunk cannot be read: it and what builds upon it is a hole.
    pub(super) fn damage(&mut self, log: LogName, seq: u64) -> Option<Hole> {
        match self {
            Self::Memory(_) => None,
            Self::Disk(spool) => {
                spool.handle_damage(log, seq).ok().map(|hole| core_hole(log.1, &hole))
            }
        }
    }

    /// `server` stored everything up to `acked`. Gives what may be forgotten now: log and the
    /// oldest chunk that is left of it.
    pub(super) fn stored(
        &mut self,
        (lane, log): LogName,
        server: ServerId,
        acked: Position,
        safe_seq: u64,
    ) -> Result<Vec<(Lane, LogId, u64)>, SpoolError> {
        match self {
            Self::Memory(spool) => Ok(spool.stored((lane, log), server, acked, safe_seq)),
            Self::Disk(spool) => {
                spool.handle_stored((lane, log), server, place(acked), safe_seq);
                let trimmed = spool.trim()?;
                for lane in Lane::BY_URGENCY {
                    let tail = spool.tail(lane).map(|tail| tail.log);
                    spool.retire(lane, tail)?;
                }
                Ok(trimmed.iter().map(|it| (it.lane, it.log, it.first_seq)).collect())
            }
        }
    }

    /// Nothing more of an old log is sent.
    pub(super) fn drained(&mut self, lane: Lane, log: LogId) {
        match self {
            Self::Memory(spool) => spool.drained(lane, log),
            // A disk that refuses is told of with the next chunk.
            Self::Disk(spool) => drop(spool.handle_drained(lane, log)),
        }
    }

    /// The oldest log before the current one that has something to send.
    pub(super) fn tail(&self, lane: Lane) -> Option<LogPositions> {
        match self {
            Self::Memory(spool) => spool.tail(lane),
            Self::Disk(spool) => spool.tail(lane).map(positions),
        }
    }

    /// What servers stored of a log, and its holes.
    pub(super) fn memories(&self, (lane, log): LogName) -> (Vec<StoredRange>, Vec<Hole>) {
        match self {
            Self::Memory(spool) => (spool.ranges(lane, log), Vec::new()),
            Self::Disk(spool) => {
                let holes = spool.holes(lane, log);
                let holes = holes.iter().map(|hole| core_hole(log, hole)).collect();
                (spool.stored(lane, log), holes)
            }
        }
    }

    /// Makes what was acknowledged known to a later reader of the files.
    pub(super) fn note_progress(&self) {
        if let Self::Disk(spool) = self {
            // The next acknowledgement writes it again.
            let _ = spool.note_progress();
        }
    }
}
