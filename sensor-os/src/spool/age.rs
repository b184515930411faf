//! The bound of age: how long ago chunks were made, by the time that this sensor ran since.
//!
//! Nothing rests on a wall clock (HEL-035), which may jump and would then drop what is young. So
//! the spool counts the time for which a sensor ran on it, and marks, now and then, how far each
//! log had come by then. The time without a sensor does not count: nobody could tell how long it
//! was.
//!
//! Not here: what a Jump says. Invariants: what lies behind the newest mark that is old enough is
//! never taken for old; a lost count makes all younger, never older.

use std::collections::VecDeque;
use std::path::PathBuf;

use lapwing_protocol::id::{Lane, LogId};
use serde::{Deserialize, Serialize};

use super::disk::Durability;
use super::log_folder::LogFolder;
use super::room::{drop_stored_run, drop_unstored_run, is_all_stored, stored, unstored};
use super::{LaneLogs, Spool, SpoolError, Trimmed, read_record_file};
use crate::identity::record;

/// Marks within the bound: so much later than at the bound, in parts of it, a chunk may go.
const MARKS_PER_BOUND: u64 = 32;
/// Marks at the most: all of two current logs and one or two of each old one. With their file's
/// bound of 16 KiB in mind; what finds no room is taken for as young as the next mark.
const MARKS_MAX: usize = 384;
/// How often the count is written, in milliseconds: what a kill takes of it.
const SAVE_MS: u64 = 3_600_000;

/// The file's name.
pub(super) const FILE: &str = "age";

/// How far a log had come at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// By the spool's count.
    ran_ms: u64,
    lane: Lane,
    log: LogId,
    /// Its last chunk.
    seq: u64,
}

/// The count of a spool's time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Age {
    /// How long sensors ran on this spool, in milliseconds.
    ran_ms: u64,
    /// When it was last looked how far the logs had come.
    marked_ms: u64,
    /// Oldest first.
    marks: VecDeque<Mark>,
    #[serde(skip)]
    counted_ns: Option<u64>,
    #[serde(skip)]
    saved_ms: u64,
}

impl Age {
    /// Counts on to `now_ns`.
    fn count(&mut self, now_ns: u64) {
        let since_ns = self.counted_ns.map_or(0, |counted_ns| now_ns.saturating_sub(counted_ns));
        // What is not a whole millisecond is counted the next time.
        self.ran_ms = self.ran_ms.saturating_add(since_ns / 1_000_000);
        self.counted_ns = Some(now_ns - since_ns % 1_000_000);
    }

    /// The last chunk of a log that is older than `bound_ms`; 0 when none is known to be.
    fn aged_seq(&self, bound_ms: u64, log: LogId) -> u64 {
        let is_old = |mark: &&Mark| mark.ran_ms.saturating_add(bound_ms) <= self.ran_ms;
        let old = self.marks.iter().take_while(is_old).filter(|mark| mark.log == log);
        old.map(|mark| mark.seq).max().unwrap_or(0)
    }

    /// For how long at least `seq` of a log is made; none where no mark says.
    pub(super) fn least_ms(&self, log: LogId, seq: u64) -> Option<u64> {
        let mark = self.marks.iter().find(|mark| mark.log == log && mark.seq >= seq)?;
        Some(self.ran_ms.saturating_sub(mark.ran_ms))
    }

    /// Forgets the marks of logs that are gone, and those that a later one outdoes.
    fn forget(&mut self, bound_ms: u64, is_known: impl Fn(LogId) -> bool) {
        let known: Vec<Mark> = self.marks.iter().copied().collect();
        self.marks.retain(|mark| {
            let is_old = |mark: &Mark| mark.ran_ms.saturating_add(bound_ms) <= self.ran_ms;
            let is_outdone = known
                .iter()
                .any(|later| later.log == mark.log && later.seq > mark.seq && is_old(later));
            is_known(mark.log) && !is_outdone
        });
    }

    fn mark(&mut self, (lane, log): (Lane, LogId), seq: u64) {
        let is_marked = |mark: &Mark| mark.log == log && mark.seq >= seq;
        if seq > 0 && self.marks.len() < MARKS_MAX && !self.marks.iter().any(is_marked) {
            self.marks.push_back(Mark { ran_ms: self.ran_ms, lane, log, seq });
        }
    }
}

impl Spool {
    fn age_path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// What an earlier start counted; one that cannot be read makes all as young as this start.
    pub(super) fn load_age(&mut self) {
        self.age = read_record_file(&*self.disk, &self.age_path()).unwrap_or_default();
        self.age.saved_ms = self.age.ran_ms;
    }

    /// Writes what was counted.
    pub(super) fn save_age(&mut self) -> Result<(), SpoolError> {
        let path = self.age_path();
        self.age.saved_ms = self.age.ran_ms;
        record::encode(&self.age)
            .and_then(|bytes| self.disk.replace(&path, &bytes, Durability::PowerCut))
            .map_err(|error| SpoolError::file("write", &path, error))
    }

    /// Milliseconds between two marks.
    fn mark_ms(&self) -> u64 {
        (self.options.age_ms_max / MARKS_PER_BOUND).max(1)
    }

    /// When [`Self::drop_aged`] is due, in nanoseconds of the clock that it is told.
    #[must_use]
    pub fn age_due_ns(&self) -> u64 {
        let age = &self.age;
        let Some(counted_ns) = age.counted_ns else { return 0 };
        let due_ms = (age.marked_ms + self.mark_ms()).min(age.saved_ms + SAVE_MS);
        counted_ns.saturating_add(due_ms.saturating_sub(age.ran_ms).saturating_mul(1_000_000))
    }

    /// Counts the time on, and drops the files in which everything is older than the bound: what is
    /// stored without a Jump, the rest behind a durable hole; of both lanes, but for the file that
    /// is open.
    ///
    /// # Errors
    /// The file system refuses; what was dropped before is in `dropped`, the rest is tried again.
    pub fn drop_aged(&mut self, now_ns: u64, dropped: &mut Vec<Trimmed>) -> Result<(), SpoolError> {
        self.age.count(now_ns);
        let is_mark_due = self.age.ran_ms >= self.age.marked_ms + self.mark_ms();
        if !is_mark_due && self.age.ran_ms < self.age.saved_ms + SAVE_MS {
            return Ok(());
        }
        if is_mark_due {
            self.age.marked_ms = self.age.ran_ms;
            for log in self.lanes.iter().flat_map(LaneLogs::all) {
                self.age.mark((log.lane, log.log), log.made.seq);
            }
        }
        let result = self.drop_old(dropped);
        self.count_bytes();
        let logs: Vec<LogId> = self.lanes.iter().flat_map(LaneLogs::all).map(|it| it.log).collect();
        self.age.forget(self.options.age_ms_max, |log| logs.contains(&log));
        result.and(self.save_age())
    }

    fn drop_old(&mut self, dropped: &mut Vec<Trimmed>) -> Result<(), SpoolError> {
        let bound_ms = self.options.age_ms_max;
        let aged = |log: &LogFolder| (log.lane, log.log, self.age.aged_seq(bound_ms, log.log));
        let aged: Vec<_> = self.lanes.iter().flat_map(LaneLogs::all).map(aged).collect();
        let mut is_synced = false;
        for (lane, log, seq) in aged.into_iter().filter(|(.., seq)| *seq > 0) {
            while let Some(old) = self.find_old(lane, log, seq) {
                if !is_synced {
                    // A file that goes is a promise that the rest is there.
                    self.sync_files()?;
                    is_synced = true;
                }
                dropped.extend(self.drop_one(lane, log, old)?);
            }
        }
        Ok(())
    }

    /// What of a log is to go next: everything in it is at most `seq`.
    fn find_old(&self, lane: Lane, log: LogId, seq: u64) -> Option<Old> {
        let logs = &self.lanes[lane.index()];
        let is_open = logs.current.as_ref().is_some_and(|current| current.log == log);
        let is_parent = logs.current.is_none() && logs.old.back().is_some_and(|it| it.log == log);
        let known = logs.all().find(|known| known.log == log)?;
        if is_all_stored(known) && known.made.seq <= seq && !is_open && !is_parent {
            return Some(Old::Log);
        }
        let is_old = |last: usize| known.segments[last].last_seq <= seq;
        if let Some(count) = stored(known).filter(|count| is_old(count - 1)) {
            return Some(Old::Stored(count));
        }
        let unstored = unstored(known, is_open).filter(|(at, count)| is_old(at + count - 1));
        unstored.map(|(at, count)| Old::Unstored(at, count))
    }

    fn drop_one(
        &mut self,
        lane: Lane,
        log: LogId,
        old: Old,
    ) -> Result<Option<Trimmed>, SpoolError> {
        let logs = &mut self.lanes[lane.index()];
        if old == Old::Log {
            let at = logs.old.iter().position(|known| known.log == log);
            return at.map(|at| self.drop_stored_log(lane, at)).transpose();
        }
        let Some(known) = logs.all_mut().find(|known| known.log == log) else { return Ok(None) };
        match old {
            Old::Log => Ok(None),
            Old::Stored(count) => drop_stored_run(known, count, &mut self.stats).map(Some),
            Old::Unstored(at, count) => {
                drop_unstored_run(known, (at, count), &mut self.stats).map(Some)
            }
        }
    }
}

/// What goes for its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Old {
    /// A whole log of which everything is stored.
    Log,
    /// So many of the first files, which are stored.
    Stored(usize),
    /// From this file on so many, which are not.
    Unstored(usize, usize),
}
