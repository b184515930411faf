//! The sensor's disk: logs of chunks, a notebook of small records, and what a power cut takes.
//!
//! Appends are there for the process at once and for the disk after a sync. The notebook (what was
//! acknowledged, which command was accepted, the mark of a clean stop) is written whole and synced.

use std::collections::BTreeMap;

use lapwing_protocol::hello::LogCause;
use lapwing_protocol::id::{Lane, LogId};
use lapwing_sensor_core::{Find, LogPositions, Position};

use super::chance::Chance;
use super::{DEPLOYMENT, SENSOR};

/// A chunk in the spool.
#[derive(Clone, Debug)]
pub(crate) struct Spooled {
    pub(crate) bytes: Vec<u8>,
    pub(crate) opens: bool,
    pub(crate) behind: Position,
}

/// One log of one lane.
#[derive(Clone, Debug)]
pub(crate) struct SpoolLog {
    pub(crate) start: LogPositions,
    pub(crate) acked: Position,
    pub(crate) chunks: BTreeMap<u64, Spooled>,
    synced_seq: u64,
}

impl SpoolLog {
    fn new(start: LogPositions) -> Self {
        Self { start, acked: start.acked, chunks: BTreeMap::new(), synced_seq: 0 }
    }

    fn made(&self) -> Position {
        self.chunks.last_key_value().map_or(self.start.made, |(_, chunk)| chunk.behind)
    }

    /// The log as a starting sensor is told of it.
    pub(crate) fn positions(&self) -> LogPositions {
        let made = self.made();
        let first_seq = self.chunks.first_key_value().map_or(made.seq + 1, |(seq, _)| *seq);
        LogPositions { first_seq, acked: self.acked, made, ..self.start }
    }

    fn has_tail(&self) -> bool {
        self.acked.seq < self.made().seq
    }
}

/// The disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spool {
    /// Logs of each lane, oldest first.
    pub(crate) logs: BTreeMap<Lane, Vec<SpoolLog>>,
    pub(crate) is_clean: bool,
}

impl Spool {
    /// What a sensor starts with: a log for each lane, and the older ones that go first. After an
    /// unclean stop, or none before, the logs are new.
    pub(crate) fn begin(&mut self, chance: &mut Chance) -> [LogPositions; 2] {
        let is_clean = std::mem::take(&mut self.is_clean);
        [Lane::Bulk, Lane::Urgent].map(|lane| {
            let logs = self.logs.entry(lane).or_default();
            let last = logs.last().map(SpoolLog::positions);
            if let Some(last) = last.filter(|_| is_clean) {
                return last;
            }
            let cause = if last.is_some() { LogCause::Unclean } else { LogCause::First };
            let parent = last.map(|last| last.as_parent());
            let ids = (DEPLOYMENT, SENSOR);
            let log = LogPositions::open(ids, lane, LogId(chance.id()), cause, parent);
            logs.push(SpoolLog::new(log));
            log
        })
    }

    /// Opens a new log behind the others.
    pub(crate) fn open(&mut self, lane: Lane, log: LogPositions) {
        self.logs.entry(lane).or_default().push(SpoolLog::new(log));
    }

    /// The oldest log of `lane`, before the current one, that has something to send.
    pub(crate) fn tail(&self, lane: Lane) -> Option<LogPositions> {
        let (_, older) = self.logs.get(&lane)?.split_last()?;
        older.iter().find(|log| log.has_tail()).map(SpoolLog::positions)
    }

    pub(crate) fn log(&mut self, lane: Lane, log: LogId) -> Option<&mut SpoolLog> {
        self.logs.get_mut(&lane)?.iter_mut().find(|held| held.start.log == log)
    }

    /// Gives up what is left of a log: the server said that it cannot be gone on with.
    pub(crate) fn append(&mut self, lane: Lane, log: LogId, seq: u64, chunk: Spooled) {
        if let Some(held) = self.log(lane, log) {
            held.chunks.insert(seq, chunk);
        }
    }

    pub(crate) fn fetch(&mut self, lane: Lane, log: LogId, seq: u64) -> Option<Vec<u8>> {
        self.log(lane, log)?.chunks.get(&seq).map(|chunk| chunk.bytes.clone())
    }

    pub(crate) fn locate(&mut self, lane: Lane, log: LogId, find: Find) -> Option<Position> {
        let held = self.log(lane, log)?;
        let start = LogPositions::open((DEPLOYMENT, SENSOR), lane, log, LogCause::First, None);
        let behind = |seq: u64| match seq {
            0 => Some(start.made),
            seq if seq == held.acked.seq => Some(held.acked),
            seq => held.chunks.get(&seq).map(|chunk| chunk.behind),
        };
        match find {
            Find::Behind(seq) => behind(seq),
            Find::SegmentOf(seq) => {
                let mut openers = held.chunks.range(..=seq).rev().filter(|(_, chunk)| chunk.opens);
                openers.next().and_then(|(start, _)| behind(start - 1))
            }
        }
    }

    /// Notes what is acknowledged, and drops whole segments in front of it.
    pub(crate) fn acked(&mut self, lane: Lane, log: LogId, acked: Position) -> Option<u64> {
        let held = self.log(lane, log)?;
        if acked.seq > held.acked.seq {
            held.acked = acked;
        }
        let mut openers = held.chunks.range(..=acked.seq).rev().filter(|(_, chunk)| chunk.opens);
        let keep_from = openers.next().map(|(seq, _)| *seq)?;
        held.chunks.retain(|seq, _| *seq >= keep_from);
        Some(keep_from)
    }

    /// Everything appended so far survives a power cut.
    pub(crate) fn sync(&mut self) {
        for log in self.logs.values_mut().flatten() {
            log.synced_seq = log.made().seq;
        }
    }

    /// The power goes: of what was not synced, a prefix of chance's choosing is left.
    pub(crate) fn cut_power(&mut self, chance: &mut Chance) {
        for log in self.logs.values_mut().flatten() {
            let made = log.made().seq;
            let kept = log.synced_seq + chance.below(made.saturating_sub(log.synced_seq) + 1);
            log.chunks.retain(|seq, _| *seq <= kept);
            if log.acked.seq > log.made().seq && log.chunks.is_empty() {
                log.start.made = log.acked;
            }
        }
    }
}
