//! Room in the spool: what may go when it is safe, and what must go at the bound.
//!
//! Invariants: before a file goes, what is left is synced and the progress is durable; a file that
//! no server has all of goes only together with those that cannot be decoded without it, and its
//! hole is durable before.

use lapwing_protocol::delivery::JumpCause;
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::op::DropReason;

use super::log_folder::{LogFolder, Segment};
use super::{LaneLogs, Spool, SpoolError, SpoolStats, StoredHole, Trimmed};

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
        if !self.lanes.iter().flat_map(LaneLogs::all).any(|log| trimmable(log).is_some()) {
            return Ok(trimmed);
        }
        // A trim is a promise that the rest is there.
        self.sync_files()?;
        for logs in &mut self.lanes {
            for log in logs.all_mut().filter(|log| trimmable(log).is_some()) {
                log.save_progress()?;
                while let Some(count) = trimmable(log) {
                    remove_run(log, 0, count)?;
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
            if is_done && Some(log.log) != but {
                log.remove()?;
                logs.old.remove(at);
            }
        }
        self.count_bytes();
        Ok(())
    }

    /// Makes room at the bound: first what is stored but not yet safe, then the oldest of the bulk
    /// lane that is not stored, its hole made durable before the file goes. `None` when there is
    /// nothing but the file that is open, and what a hole has left behind is not stored.
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
            // The newest is the parent of the next log where none is appended to yet.
            let count = logs.old.len() - usize::from(logs.current.is_none()).min(logs.old.len());
            let Some(at) = logs.old.iter().take(count).position(is_all_stored) else { continue };
            let lane = logs.old[at].lane;
            return self.drop_stored_log(lane, at).map(Some);
        }
        let mut logs = self.lanes.iter_mut().flat_map(LaneLogs::all_mut);
        let goes = |log: &LogFolder| stored(log).or_else(|| left_behind(log));
        let Some((log, count)) = logs.find_map(|log| goes(log).map(|count| (log, count))) else {
            return Ok(None);
        };
        drop_stored_run(log, count, &mut self.stats).map(Some)
    }

    /// Removes the old log `at`, of which everything is stored.
    pub(super) fn drop_stored_log(&mut self, lane: Lane, at: usize) -> Result<Trimmed, SpoolError> {
        let logs = &mut self.lanes[lane.index()];
        let log = &logs.old[at];
        let (id, first_seq) = (log.log, log.made.seq + 1);
        let unsafe_chunks = log.made.seq.saturating_sub(log.progress.safe_seq);
        log.remove()?;
        logs.old.remove(at);
        self.stats.unprotected += unsafe_chunks;
        Ok(Trimmed { lane, log: id, first_seq, hole: None, facts: 0 })
    }

    fn drop_unstored(&mut self) -> Result<Option<Trimmed>, SpoolError> {
        let lane = if cfg!(mutant = "urgent_dropped_first") { Lane::Urgent } else { Lane::Bulk };
        let logs = &mut self.lanes[lane.index()];
        let old = logs.old.iter_mut().map(|log| (log, false));
        let all = old.chain(logs.current.iter_mut().map(|log| (log, true)));
        let mut found = None;
        for (log, is_open) in all {
            if let Some((at, count)) = unstored(log, is_open) {
                found = Some((log, at, count));
                break;
            }
        }
        let Some((log, at, count)) = found else { return Ok(None) };
        drop_unstored_run(log, (at, count), &mut self.stats).map(Some)
    }
}

/// Removes so many of the first files, all of which is stored.
pub(super) fn drop_stored_run(
    log: &mut LogFolder,
    count: usize,
    stats: &mut SpoolStats,
) -> Result<Trimmed, SpoolError> {
    log.save_progress()?;
    let (first, last) = (log.segments[0], log.segments[count - 1]);
    remove_run(log, 0, count)?;
    let protected_seq = log.progress.safe_seq.max(first.before.seq);
    stats.unprotected += last.last_seq.saturating_sub(protected_seq);
    let (lane, first_seq) = (log.lane, log.first_seq());
    Ok(Trimmed { lane, log: log.log, first_seq, hole: None, facts: 0 })
}

/// Removes `count` files from `at` on, which no server has all of, behind a durable hole.
pub(super) fn drop_unstored_run(
    log: &mut LogFolder,
    (at, count): (usize, usize),
    stats: &mut SpoolStats,
) -> Result<Trimmed, SpoolError> {
    let newest = log.segments.len().saturating_sub(count + 1);
    let at = if cfg!(mutant = "newest_dropped_first") { newest.max(at) } else { at };
    let first = log.segments[at];
    let after = log.segments.get(at + count).map_or(log.written, |next| next.before);
    let hole = StoredHole {
        from_seq: first.first_seq().max(log.progress.acked.seq + 1),
        to_seq: after.seq,
        next_index: Some(after.next_index - u64::from(cfg!(mutant = "hole_counts_short"))),
        chain: after.chain,
        cause: JumpCause::Dropped(if cfg!(mutant = "drop_cause_wrong") {
            DropReason::TableFull
        } else {
            DropReason::SpoolFull
        }),
    };
    log.progress.add_hole(hole);
    log.save_progress()?;
    remove_run(log, at, count)?;
    stats.dropped += 1 + hole.to_seq - hole.from_seq;
    let (lane, first_seq) = (log.lane, log.first_seq());
    let first_index = first.before.next_index.max(log.progress.acked.next_index);
    let facts = after.next_index.saturating_sub(first_index);
    Ok(Trimmed { lane, log: log.log, first_seq, hole: Some(hole), facts })
}

/// Removes `count` files from `at` on, the last first: what is left begins where decoding can.
fn remove_run(log: &mut LogFolder, at: usize, count: usize) -> Result<(), SpoolError> {
    (at..at + count).rev().try_for_each(|at| log.remove_segment(at))
}

/// How many files from `at` on belong together, because decoding cannot start at the later ones.
fn run(log: &LogFolder, at: usize) -> usize {
    let follows = |segment: &&Segment| !segment.opens;
    1 + log.segments.iter().skip(at + 1).take_while(follows).count()
}

/// How many of the first files may go: all in them is safe, the acknowledged place lies in a later
/// one.
fn trimmable(log: &LogFolder) -> Option<usize> {
    let is_safe = |seq| seq <= log.progress.safe_seq || cfg!(mutant = "trimmed_before_acked");
    stored(log).filter(|count| is_safe(log.segments[count - 1].last_seq))
}

/// How many of the first files hold nothing but what is stored.
pub(super) fn stored(log: &LogFolder) -> Option<usize> {
    let count = run(log, 0);
    let is_last = log.segments.len() <= count;
    let is_stored = |seq| seq < log.progress.acked.seq || cfg!(mutant = "trimmed_before_acked");
    (!is_last && is_stored(log.segments[count - 1].last_seq)).then_some(count)
}

/// How many files a hole at the end has left behind, with all in them stored: nothing is appended
/// to the last of them any more, and what comes next opens. Where they fill the bound, only their
/// end lets anything be appended again.
fn left_behind(log: &LogFolder) -> Option<usize> {
    let last_seq = log.segments.back()?.last_seq;
    let is_followed_by_hole = last_seq < log.made.seq;
    (is_followed_by_hole && last_seq <= log.progress.acked.seq).then_some(log.segments.len())
}

/// The first file that holds something unstored, and how many must go with it; none that is
/// appended to.
pub(super) fn unstored(log: &LogFolder, is_open: bool) -> Option<(usize, usize)> {
    let acked_seq = log.progress.acked.seq;
    let at = log.segments.iter().position(|segment| segment.last_seq > acked_seq)?;
    let count = run(log, at);
    (!is_open || at + count < log.segments.len()).then_some((at, count))
}

/// Whether nothing of a log is left to be sent.
pub(super) fn is_all_stored(log: &LogFolder) -> bool {
    log.progress.acked.seq >= log.made.seq
}
