//! What a log's folder says of it beside its chunks: why it was opened, and how far it got.
//!
//! Not here: when it is written (the spool decides). Invariant: holes that are not acknowledged are
//! never forgotten; those that are stay as long as there is room and a file before them is kept,
//! since a server that is restored may ask for what was there.

use lapwing_protocol::hello::{LogCause, LogParent, StoredRange};
use lapwing_protocol::id::ServerId;
use lapwing_protocol::limits::ELSEWHERE_MAX;
use serde::{Deserialize, Serialize};

use super::StoredHole;
use super::format::Place;

/// Holes of one log: with what else it holds, a progress stays within the bound of a small file.
/// When there is no room for one more, the last is made to reach it (JMP-009).
pub(super) const HOLES_MAX: usize = 64;

/// Why a log was opened: its file `log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) cause: LogCause,
    pub(super) parent: Option<LogParent>,
}

/// How far a log got: its file `progress`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) acked: Place,
    pub(super) safe_seq: u64,
    pub(super) holes: Vec<StoredHole>,
    /// Which servers acknowledged what, oldest first.
    pub(super) stored: Vec<StoredRange>,
}

impl Progress {
    pub(super) fn at(start: Place) -> Self {
        Self { acked: start, safe_seq: 0, holes: Vec::new(), stored: Vec::new() }
    }

    /// What was known in the end: this is the durable word, and `noted` the one that was written
    /// more often and never synced. A hole of either is one.
    pub(super) fn with_noted(self, noted: Option<Self>) -> Self {
        let (mut newer, other) = match noted {
            Some(noted) if noted.acked.seq >= self.acked.seq => (noted, self),
            Some(noted) => (self, noted),
            None => return self,
        };
        newer.safe_seq = newer.safe_seq.max(other.safe_seq);
        for hole in other.holes {
            if !newer.covers(hole.from_seq, hole.to_seq) {
                newer.add_hole(hole);
            }
        }
        newer
    }

    /// Adds a hole; one that meets the last makes it longer, and those within it are it.
    pub(super) fn add_hole(&mut self, hole: StoredHole) {
        let is_within =
            |known: &StoredHole| hole.from_seq <= known.from_seq && known.to_seq <= hole.to_seq;
        self.holes.retain(|known| !is_within(known));
        if self.holes.len() >= HOLES_MAX {
            let acked_seq = self.acked.seq;
            self.holes.retain(|known| known.to_seq > acked_seq);
        }
        let is_full = self.holes.len() >= HOLES_MAX;
        match self.holes.last_mut() {
            Some(last) if last.to_seq + 1 == hole.from_seq && last.cause == hole.cause => {
                *last = StoredHole { from_seq: last.from_seq, ..hole };
            }
            Some(last) if is_full => {
                let furthest = if hole.to_seq > last.to_seq { hole } else { *last };
                let from_seq = last.from_seq.min(hole.from_seq);
                *last = StoredHole { from_seq, cause: last.cause, ..furthest };
            }
            _ => self.holes.push(hole),
        }
    }

    /// The hole in which `seq` lies.
    pub(super) fn hole_at(&self, seq: u64) -> Option<StoredHole> {
        let mut holes = self.holes.iter();
        holes.find(|hole| (hole.from_seq..=hole.to_seq).contains(&seq)).copied()
    }

    /// Whether everything from `from_seq` to `to_seq` lies in one hole.
    pub(super) fn covers(&self, from_seq: u64, to_seq: u64) -> bool {
        self.hole_at(from_seq).is_some_and(|hole| to_seq <= hole.to_seq)
    }

    /// Forgets the holes that nobody can ask for any more.
    pub(super) fn forget_holes(&mut self, first_seq: u64) {
        let acked_seq = self.acked.seq;
        self.holes.retain(|hole| hole.to_seq > acked_seq || hole.to_seq >= first_seq);
    }

    /// Remembers that `server` has everything up to `to_seq`.
    pub(super) fn note_stored(&mut self, server: ServerId, to_seq: u64) {
        match self.stored.last_mut() {
            Some(last) if last.server == server => last.to_seq = last.to_seq.max(to_seq),
            _ => {
                let from_seq = self.acked.seq + 1;
                self.stored.push(StoredRange { server, from_seq, to_seq });
            }
        }
        if self.stored.len() > ELSEWHERE_MAX {
            let first = self.stored.remove(0);
            if !cfg!(mutant = "oldest_run_forgotten") {
                self.stored[0].from_seq = first.from_seq;
            }
        }
    }
}
