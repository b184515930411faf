//! Room in the spool: what may go when it is safe, and what must go at the bound.
//!
//! Invariants: before a file goes, what is left is synced and the progress is durable; a file that
//! no server has all of goes only together with those that cannot be decoded without it, and its
//! hole is durable before.

use lapwing_protocol::delivery::JumpCause;
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::op::DropReason;

use super::log_folder::{LogFolder, Segment};
use super::{LaneLogs, Spool, SpoolError, StoredHole, Trimmed};

impl Spool {
    /// Writes the acknowledged places for the next start of the process, without a sync.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn note_progress(&self) -> Result<(), SpoolError> {
        self.lanes.iter().flat_map(LaneLogs::all).try_for_each(LogFolder::note_progress)
    }

    /// Makes the acknowledged places durable, so that a later start sends less twice.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn save_progress(&self) -> Result<(), SpoolError> {
        self.lanes.iter().flat_map(LaneLogs::all).try_for_each(LogFolder::save_progress)
    }

    /// Removes files in which everything is safe, but for the one that holds the acknowledged
    /// place, and old logs of which everything is safe. Says which logs begin later now.
    ///
    /// # Errors
    /// The file system refuses; it is tried again at the next call.
    pub fn trim(&mut self) -> Result<Vec<Trimmed>, SpoolError> {
        let mut trimmed = Vec::new();
        if !self.lanes.iter().flat_map(LaneLogs::all).any(is_trimmable) {
            return Ok(trimmed);
        }
        // A trim is a promise that the rest is there.
        self.sync_files()?;
        for logs in &mut self.lanes {
            for log in logs.all_mut().filter(|log| is_trimmable(log)) {
                log.save_progress()?;
                while is_trimmable(log) {
                    log.remove_segment(0)?;
                }
                let (lane, first_seq) = (log.lane, log.first_seq());
                trimmed.push(Trimmed { lane, log: log.log, first_seq, hole: None, facts: 0 });
            }
        }
        self.count_bytes();
        Ok(trimmed)
    }

    /// Removes the old logs of `lane` of which everything is stored and safe; not the one with the
    /// id `but`.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn retire(&mut self, lane: Lane, but: Option<LogId>) -> Result<(), SpoolError> {
        let logs = &mut self.lanes[lane.index()];
        if logs.current.is_none() {
            return Ok(());
        }
        for at in (0..logs.old.len()).rev() {
            let log = &logs.old[at];
            let is_done = log.made.seq <= log.progress.acked.seq.min(log.progress.safe_seq);
            if is_done
                && Some(log.log) != but
                && let Some(log) = logs.old.remove(at)
            {
                log.remove()?;
            }
        }
        self.count_bytes();
        Ok(())
    }

    /// Makes room at the bound: first what is stored but not yet safe, then the oldest of the bulk
    /// lane that is not stored, its hole made durable before the file goes. `None` when there is
    /// nothing but the file that is open.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn make_room(&mut self) -> Result<Option<Trimmed>, SpoolError> {
        self.sync_files()?;
        let dropped = match self.drop_stored()? {
            Some(trimmed) => Some(trimmed),
            None => self.drop_unstored()?,
        };
        self.count_bytes();
        Ok(dropped)
    }

    fn drop_stored(&mut self) -> Result<Option<Trimmed>, SpoolError> {
        for logs in &mut self.lanes {
            let at = logs.old.iter().position(is_all_stored);
            if let Some(log) = at.and_then(|at| logs.old.remove(at)) {
                let (lane, id, first_seq) = (log.lane, log.log, log.made.seq + 1);
                self.stats.unprotected += log.made.seq - log.progress.safe_seq;
                log.remove()?;
                return Ok(Some(Trimmed { lane, log: id, first_seq, hole: None, facts: 0 }));
            }
        }
        let mut logs = self.lanes.iter_mut().flat_map(LaneLogs::all_mut);
        let Some(log) = logs.find(|log| is_stored(log)) else { return Ok(None) };
        log.save_progress()?;
        let gone = log.segments[0];
        log.remove_segment(0)?;
        self.stats.unprotected += gone.last_seq - gone.before.seq;
        let (lane, first_seq) = (log.lane, log.first_seq());
        Ok(Some(Trimmed { lane, log: log.log, first_seq, hole: None, facts: 0 }))
    }

    fn drop_unstored(&mut self) -> Result<Option<Trimmed>, SpoolError> {
        let mut logs = self.lanes[Lane::Bulk.index()].all_mut();
        let found = logs.find_map(|log| oldest_unstored(log).map(|run| (log, run)));
        let Some((log, (at, count))) = found else { return Ok(None) };
        let (first, after) = (log.segments[at], log.segments[at + count].before);
        let hole = StoredHole {
            from_seq: first.first_seq().max(log.progress.acked.seq + 1),
            to_seq: after.seq,
            next_index: Some(after.next_index),
            chain: after.chain,
            cause: JumpCause::Dropped(DropReason::SpoolFull),
        };
        log.progress.add_hole(hole);
        log.save_progress()?;
        for _ in 0..count {
            log.remove_segment(at)?;
        }
        self.stats.dropped += 1 + hole.to_seq - hole.from_seq;
        let (lane, first_seq) = (log.lane, log.first_seq());
        let first_index = first.before.next_index.max(log.progress.acked.next_index);
        let facts = after.next_index.saturating_sub(first_index);
        Ok(Some(Trimmed { lane, log: log.log, first_seq, hole: Some(hole), facts }))
    }
}

/// Whether the first file may go: all in it is safe, the acknowledged place lies in a later one.
fn is_trimmable(log: &LogFolder) -> bool {
    let progress = &log.progress;
    is_stored(log) && log.segments[0].last_seq <= progress.safe_seq
}

fn is_stored(log: &LogFolder) -> bool {
    log.segments.len() > 1 && log.segments[0].last_seq < log.progress.acked.seq
}

/// The first file that holds something unstored and is not the last, and how many files behind it
/// must go with it because decoding cannot start at them.
fn oldest_unstored(log: &LogFolder) -> Option<(usize, usize)> {
    let acked_seq = log.progress.acked.seq;
    let at = log.segments.iter().position(|segment| segment.last_seq > acked_seq)?;
    let follows = |segment: &&Segment| !segment.opens;
    let count = 1 + log.segments.iter().skip(at + 1).take_while(follows).count();
    (at + count < log.segments.len()).then_some((at, count))
}

/// Whether nothing of a log is left to be sent.
pub(super) fn is_all_stored(log: &LogFolder) -> bool {
    log.progress.acked.seq >= log.made.seq
}
