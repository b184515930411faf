//! The sensor's disk: logs of segments, their progress, the small notes, and what a crash takes.
//!
//! A model of `sensor-os`'s spool by its rules (docs/spool.md, SPL-...), record by record: what was
//! appended is there for the process at once and for the disk after a sync; progress is in memory,
//! noted (outlives the process) or saved (outlives a power cut); the mark of a clean stop and the
//! notes are saved at once. It is a value, so an image is a clone of it.

mod log;
mod room;

use std::rc::Rc;

use lapwing_protocol::command::CommandNumber;
use lapwing_protocol::delivery::JumpCause;
use lapwing_protocol::hello::{LogCause, LogParent};
use lapwing_protocol::id::{BootId, Lane, LogId, SensorId, ServerId};
use lapwing_sensor_core::{Find, Hole, LogPositions, Position, Stored};

use super::DEPLOYMENT;
use super::chance::Chance;
pub(crate) use log::{Log, Record};
pub(crate) use room::Trimmed;

/// How often what was appended is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Before anything of it is sent.
    Each,
    /// After some time or some bytes.
    Interval,
}

/// Why the disk did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The spool is at its bound.
    Full,
    /// The file system refuses.
    Failed,
}

/// What of a crash was worth counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Crash {
    /// Whole records are gone.
    pub(crate) has_lost: bool,
    /// A record is there in part.
    pub(crate) is_torn: bool,
}

/// A command as the notes hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotedCommand {
    pub(crate) number: CommandNumber,
    pub(crate) action: lapwing_protocol::command::Action,
    pub(crate) is_ended: bool,
}

/// Small files, each replaced whole and synced.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Notes {
    pub(crate) assignment: Option<ServerId>,
    pub(crate) command: Option<NotedCommand>,
}

/// How long what was appended waits for a sync, in nanoseconds.
const SYNC_NS: u64 = 5_000_000_000;
/// Bytes after which a sync is due.
const SYNC_BYTES: u64 = 16 << 10;
/// The part of the bound that only the urgent lane may use.
const URGENT_PART: u64 = 16;
/// A file of the urgent lane.
const URGENT_FILE_BYTES: u64 = 2 << 10;

/// The disk of one machine.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    sensor: SensorId,
    /// Logs of each lane, oldest first.
    pub(crate) lanes: [Vec<Log>; 2],
    /// Whether the last log of each lane is appended to.
    is_current: [bool; 2],
    clean: Option<Vec<(Lane, LogId, u64, u64)>>,
    /// The boot in which it was last used.
    run: Option<BootId>,
    /// How far the log of each lane was sent, as the last clean stop said.
    pub(crate) sent_seq: [Option<u64>; 2],
    pub(crate) notes: Notes,
    pub(crate) bytes_max: u64,
    pub(crate) sync: Sync,
    unsynced_bytes: u64,
    unsynced_since_ns: Option<u64>,
    sync_failed_ns: Option<u64>,
    /// Writes are refused: it is full, or worse.
    pub(crate) refuses_writes: bool,
    /// Syncs are refused.
    pub(crate) refuses_syncs: bool,
}

impl Disk {
    pub(crate) fn new(sensor: SensorId, bytes_max: u64, sync: Sync) -> Self {
        Self {
            sensor,
            lanes: Default::default(),
            is_current: [false; 2],
            clean: None,
            run: None,
            sent_seq: [None; 2],
            notes: Notes::default(),
            bytes_max,
            sync,
            unsynced_bytes: 0,
            unsynced_since_ns: None,
            sync_failed_ns: None,
            refuses_writes: false,
            refuses_syncs: false,
        }
    }

    // --- Starts and ends.

    /// A process opens the spool: answers with the logs to go on with, opening new ones after an
    /// unclean stop. The mark is taken away first. Where the machine went down meanwhile, nobody
    /// knows how much of the newest log was not synced (SPL-013).
    pub(crate) fn begin(&mut self, boot: BootId, chance: &mut Chance) -> [LogPositions; 2] {
        let mark = self.clean.take();
        let last = self.run.replace(boot);
        let is_unsynced = last.is_some_and(|last| last != boot) && self.sync == Sync::Interval;
        (self.unsynced_bytes, self.unsynced_since_ns, self.sync_failed_ns) = (0, None, None);
        [Lane::Bulk, Lane::Urgent].map(|lane| {
            let logs = &mut self.lanes[lane.index()];
            logs.iter_mut().for_each(Log::reopen);
            // The mark is compared with what is found.
            let newest = logs.last().map(|log| (lane, log.id, log.made.seq));
            let mut marked = mark.iter().flatten();
            let marked = marked.find(|(lane, log, made, _)| newest == Some((*lane, *log, *made)));
            let is_clean = marked.is_some();
            self.sent_seq[lane.index()] = marked.map(|(.., sent_seq)| *sent_seq);
            self.is_current[lane.index()] = is_clean;
            let keep = logs.len().saturating_sub(1);
            let mut at = 0;
            logs.retain(|log| {
                at += 1;
                at > keep || !(log.segments.is_empty() && log.is_all_stored())
            });
            if let Some(newest) = logs.last_mut().filter(|_| is_clean) {
                newest.go_on();
                return newest.positions();
            }
            if let Some(newest) = logs.last_mut().filter(|_| is_unsynced) {
                newest.lose_unsynced();
            }
            let parent = logs.last().map(|log| log.positions().as_parent());
            let cause = if parent.is_some() { LogCause::Unclean } else { LogCause::First };
            self.create(lane, LogId(chance.id()), cause, parent)
        })
    }

    /// The process stops in good order, having sent each lane's log so far; `Err` when the disk
    /// refused and the mark is not there.
    pub(crate) fn close(&mut self, sent_seq: [u64; 2]) -> Result<(), Refused> {
        self.sync_files()?;
        self.save_progress()?;
        let current = Lane::BY_URGENCY.into_iter().filter_map(|lane| self.current(lane));
        let mark = |log: &Log| (log.lane, log.id, log.made.seq, sent_seq[log.lane.index()]);
        self.clean = Some(current.map(mark).collect());
        Ok(())
    }

    /// The process is gone: what was in its memory alone is lost.
    pub(crate) fn handle_killed(&mut self) {
        self.lanes.iter_mut().flatten().for_each(Log::reopen);
    }

    /// The power is gone: of what was not synced, a part of chance's choosing is left.
    pub(crate) fn handle_power_cut(&mut self, chance: &mut Chance) -> Crash {
        let mut crash = Crash::default();
        for log in self.lanes.iter_mut().flatten() {
            log.noted = log.saved.clone();
            let unsynced = log.made.seq.saturating_sub(log.synced_seq);
            let kept = log.synced_seq + chance.below(unsynced + 1);
            if kept < log.made.seq {
                crash.has_lost = true;
                // The first record that is missing may be there in part; it ends the file.
                crash.is_torn |= chance.once_in(2);
                log.cut_behind(kept);
            }
            log.reopen();
        }
        crash
    }

    // --- Logs.

    pub(crate) fn current(&self, lane: Lane) -> Option<&Log> {
        self.lanes[lane.index()].last().filter(|_| self.is_current[lane.index()])
    }

    fn current_mut(&mut self, lane: Lane) -> Result<&mut Log, Refused> {
        let is_current = self.is_current[lane.index()];
        self.lanes[lane.index()].last_mut().filter(|_| is_current).ok_or(Refused::Failed)
    }

    pub(crate) fn find(&self, lane: Lane, log: LogId) -> Option<&Log> {
        self.lanes[lane.index()].iter().find(|known| known.id == log)
    }

    fn find_mut(&mut self, lane: Lane, log: LogId) -> Option<&mut Log> {
        self.lanes[lane.index()].iter_mut().find(|known| known.id == log)
    }

    /// The oldest log before the current one of which something is not acknowledged.
    pub(crate) fn tail(&self, lane: Lane) -> Option<LogPositions> {
        let logs = &self.lanes[lane.index()];
        let old = logs.len() - usize::from(self.is_current[lane.index()]);
        logs[..old].iter().find(|log| !log.is_all_stored()).map(Log::positions)
    }

    /// What earlier runs know of a log: who stored what of it, and its holes.
    pub(crate) fn known_of(&self, lane: Lane, log: LogId) -> (Vec<Stored>, Vec<Hole>) {
        let Some(known) = self.find(lane, log) else { return Default::default() };
        let stored = known.progress.stored.iter().map(|range| Stored { log, range: *range });
        let acked_seq = known.progress.acked.seq;
        let holes = known.progress.holes.iter().filter(|hole| hole.to_seq > acked_seq);
        (stored.collect(), holes.copied().collect())
    }

    fn create(
        &mut self,
        lane: Lane,
        log: LogId,
        cause: LogCause,
        parent: Option<LogParent>,
    ) -> LogPositions {
        let opened = LogPositions::open((DEPLOYMENT, self.sensor), lane, log, cause, parent);
        self.lanes[lane.index()].push(Log::new(lane, opened));
        self.is_current[lane.index()] = true;
        opened
    }

    /// Opens a new log, durably; the one before becomes an old one.
    pub(crate) fn open_log(
        &mut self,
        lane: Lane,
        log: LogId,
        cause: LogCause,
        parent: LogParent,
    ) -> Result<LogPositions, Refused> {
        if self.refuses_writes || self.refuses_syncs {
            return Err(Refused::Failed);
        }
        self.current_mut(lane)?.sync();
        Ok(self.create(lane, log, cause, Some(parent)))
    }

    // --- Chunks.

    /// A fact got an index in the current log of its lane.
    pub(crate) fn note_fact(&mut self, lane: Lane, index: u64, source_seq: u64) {
        if let Ok(log) = self.current_mut(lane) {
            log.note_fact(index, source_seq);
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.lanes.iter().flatten().map(Log::bytes).sum()
    }

    /// Appends a chunk behind the last one of the current log of its lane.
    pub(crate) fn append(
        &mut self,
        now_ns: u64,
        (lane, opens): (Lane, bool),
        record: Record,
    ) -> Result<(), Refused> {
        let bytes = record.disk_bytes() + log::HEAD_BYTES;
        let reserve = if lane == Lane::Bulk { self.bytes_max / URGENT_PART } else { 0 };
        if self.bytes() + bytes + reserve > self.bytes_max {
            return Err(Refused::Full);
        }
        if self.refuses_writes {
            return Err(Refused::Failed);
        }
        let log = self.current_mut(lane)?;
        let is_new_file = match lane {
            Lane::Bulk => opens && record.part() == 0,
            Lane::Urgent => log.last_file_bytes() >= URGENT_FILE_BYTES,
        };
        self.unsynced_bytes += record.disk_bytes();
        self.unsynced_since_ns.get_or_insert(now_ns);
        self.current_mut(lane)?.append(record, is_new_file, opens);
        Ok(())
    }

    pub(crate) fn fetch(&self, lane: Lane, log: LogId, seq: u64) -> Option<Rc<[u8]>> {
        let record = self.find(lane, log)?.record(seq)?;
        (!record.is_damaged).then(|| Rc::clone(&record.bytes))
    }

    pub(crate) fn locate(&self, lane: Lane, log: LogId, find: Find) -> Option<Position> {
        let known = self.find(lane, log)?;
        match find {
            Find::Behind(seq) => known.behind(seq),
            Find::SegmentOf(seq) => known.before_segment_of(seq),
        }
    }

    /// What was made behind the last chunk of the current log is not appended: a hole up to `to`.
    pub(crate) fn skip(&mut self, lane: Lane, to: Position, cause: JumpCause) {
        let has_failed = self.refuses_writes;
        let Ok(log) = self.current_mut(lane) else { return };
        log.skip(to, cause);
        if !has_failed {
            log.save_progress();
        }
    }

    /// A chunk cannot be read: it and what builds upon it is a hole.
    pub(crate) fn handle_damage(&mut self, lane: Lane, log: LogId, seq: u64) -> Option<Hole> {
        let can_save = !self.refuses_writes;
        let known = self.find_mut(lane, log)?;
        let hole = known.damage(seq);
        if can_save {
            known.save_progress();
        }
        Some(hole)
    }

    // --- What servers have.

    pub(crate) fn handle_drained(&mut self, lane: Lane, log: LogId) {
        if let Some(known) = self.find_mut(lane, log) {
            known.progress.acked = known.made;
        }
    }

    pub(crate) fn handle_stored(
        &mut self,
        (lane, log): (Lane, LogId),
        server: ServerId,
        acked: Position,
        safe_seq: u64,
    ) {
        let Some(known) = self.find_mut(lane, log) else { return };
        known.handle_stored(server, acked, safe_seq);
        let is_safe = known.progress.safe_seq > 0;
        if is_safe && self.current(lane).is_some_and(|current| current.id == log) {
            // Old logs are stored before the current one begins, and a backup leaves nothing out.
            for old in self.lanes[lane.index()].iter_mut().filter(|old| old.is_all_stored()) {
                old.progress.safe_seq = old.made.seq;
            }
        }
    }

    /// Progress outlives the process from here on.
    pub(crate) fn note_progress(&mut self) {
        for log in self.lanes.iter_mut().flatten().filter(|_| !self.refuses_writes) {
            log.noted = log.progress.clone();
        }
    }

    /// Progress outlives a power cut from here on.
    pub(crate) fn save_progress(&mut self) -> Result<(), Refused> {
        if self.refuses_writes || self.refuses_syncs {
            return Err(Refused::Failed);
        }
        self.lanes.iter_mut().flatten().for_each(Log::save_progress);
        Ok(())
    }

    // --- Syncs.

    pub(crate) fn is_sync_due(&self, now_ns: u64) -> bool {
        let is_time = self.next_ns().is_some_and(|due_ns| due_ns <= now_ns);
        match self.sync {
            _ if self.sync_failed_ns.is_some() => is_time,
            Sync::Each => self.unsynced_bytes > 0,
            Sync::Interval => self.unsynced_bytes >= SYNC_BYTES || is_time,
        }
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.unsynced_bytes == 0
    }

    /// When a sync is due.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.sync_failed_ns.or(self.unsynced_since_ns).map(|since_ns| since_ns + SYNC_NS)
    }

    pub(crate) fn sync(&mut self, now_ns: u64) -> Result<(), Refused> {
        if self.unsynced_bytes == 0 {
            return Ok(());
        }
        self.sync_failed_ns = Some(now_ns);
        self.sync_files()?;
        (self.unsynced_bytes, self.unsynced_since_ns, self.sync_failed_ns) = (0, None, None);
        Ok(())
    }

    fn sync_files(&mut self) -> Result<(), Refused> {
        if self.refuses_syncs {
            return Err(Refused::Failed);
        }
        for lane in Lane::BY_URGENCY {
            if let Ok(log) = self.current_mut(lane) {
                log.sync();
            }
        }
        Ok(())
    }

    /// A bit rots in a chunk that nobody acknowledged and that is not in the newest file.
    pub(crate) fn damage_something(&mut self, chance: &mut Chance) -> bool {
        let mut candidates = Vec::new();
        for log in &mut self.lanes[Lane::Bulk.index()] {
            let acked_seq = log.progress.acked.seq;
            let files = log.segments.len().saturating_sub(1);
            let records = log.segments.iter_mut().take(files).flat_map(|file| &mut file.records);
            candidates.extend(records.filter(|record| record.after.seq > acked_seq));
        }
        let which = chance.below(candidates.len() as u64) as usize;
        match candidates.get_mut(which) {
            Some(record) => record.is_damaged = true,
            None => return false,
        }
        true
    }
}
