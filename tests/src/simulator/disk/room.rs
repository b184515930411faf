//! Room in the spool: what may go when it is safe, and what must go at the bound (SPL-005, -006).

use lapwing_protocol::delivery::JumpCause;
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::op::DropReason;
use lapwing_sensor_core::Hole;

use super::log::{File, Log};
use super::{Disk, Refused};

/// A log begins later than before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trimmed {
    pub(crate) lane: Lane,
    pub(crate) log: LogId,
    pub(crate) first_seq: u64,
    pub(crate) hole: Option<Hole>,
    /// Facts in that hole.
    pub(crate) facts: u64,
}

impl Disk {
    /// Removes files in which all is safe, but for the one that holds the acknowledged place.
    pub(crate) fn trim(&mut self) -> Result<Vec<Trimmed>, Refused> {
        let mut trimmed = Vec::new();
        if !self.lanes.iter().flatten().any(is_trimmable) {
            return Ok(trimmed);
        }
        self.sync_files()?;
        if self.refuses_writes {
            return Err(Refused::Failed);
        }
        for log in self.lanes.iter_mut().flatten().filter(|log| is_trimmable(log)) {
            log.save_progress();
            while is_trimmable(log) {
                log.segments.pop_front();
            }
            trimmed.push(begins_later(log, None, 0));
        }
        Ok(trimmed)
    }

    /// Removes the old logs of which all is stored and safe.
    pub(crate) fn retire(&mut self) {
        for (logs, is_current) in self.lanes.iter_mut().zip(self.is_current) {
            let Some(newest) = logs.last().map(|log| log.id).filter(|_| is_current) else {
                continue;
            };
            logs.retain(|log| {
                let progress = &log.progress;
                log.id == newest || log.made.seq > progress.acked.seq.min(progress.safe_seq)
            });
        }
    }

    /// Makes room at the bound; `None` when there is nothing but the file that is open.
    pub(crate) fn make_room(&mut self) -> Result<Option<Trimmed>, Refused> {
        self.sync_files()?;
        if self.refuses_writes {
            return Err(Refused::Failed);
        }
        Ok(self.drop_stored().or_else(|| self.drop_unstored()))
    }

    fn drop_stored(&mut self) -> Option<Trimmed> {
        for (logs, is_current) in self.lanes.iter_mut().zip(self.is_current) {
            let old = logs.len() - usize::from(is_current);
            if let Some(at) = logs[..old].iter().position(Log::is_all_stored) {
                let mut log = logs.remove(at);
                log.segments.clear();
                return Some(begins_later(&log, None, 0));
            }
        }
        let mut logs = self.lanes.iter_mut().flatten();
        let log = logs.find(|log| is_stored(log) || log.is_left_behind())?;
        log.save_progress();
        log.segments.pop_front();
        Some(begins_later(log, None, 0))
    }

    fn drop_unstored(&mut self) -> Option<Trimmed> {
        let mut logs = self.lanes[Lane::Bulk.index()].iter_mut();
        let (log, at, count) =
            logs.find_map(|log| oldest_unstored(log).map(|(at, count)| (log, at, count)))?;
        let (first, after) = (log.segments[at].before, log.segments[at + count].before);
        let hole = Hole {
            log: log.id,
            from_seq: (first.seq + 1).max(log.progress.acked.seq + 1),
            to_seq: after.seq,
            next_index: Some(after.next_index),
            chain: after.chain,
            cause: JumpCause::Dropped(DropReason::SpoolFull),
        };
        log.add_hole(hole);
        log.save_progress();
        log.segments.drain(at..at + count);
        let first_index = first.next_index.max(log.progress.acked.next_index);
        let facts = after.next_index.saturating_sub(first_index);
        Some(begins_later(log, Some(hole), facts))
    }
}

fn begins_later(log: &Log, hole: Option<Hole>, facts: u64) -> Trimmed {
    Trimmed { lane: log.lane, log: log.id, first_seq: log.first_seq(), hole, facts }
}

fn is_trimmable(log: &Log) -> bool {
    is_stored(log) && log.segments[0].last_seq() <= log.progress.safe_seq
}

fn is_stored(log: &Log) -> bool {
    log.segments.len() > 1 && log.segments[0].last_seq() < log.progress.acked.seq
}

/// The first file that holds something unstored and is not the last, and how many files behind it
/// must go with it because decoding cannot start at them.
fn oldest_unstored(log: &Log) -> Option<(usize, usize)> {
    let acked_seq = log.progress.acked.seq;
    let at = log.segments.iter().position(|file| file.last_seq() > acked_seq)?;
    let follows = |file: &&File| !file.opens;
    let count = 1 + log.segments.iter().skip(at + 1).take_while(follows).count();
    (at + count < log.segments.len()).then_some((at, count))
}
