//! The spool: chunks on disk before they are sent, until a server has them for good.
//!
//! A folder for each log, a file for each segment; `docs/spool.md` is the normative text and its
//! numbers (SPL-...) stand in the tests. A chunk is appended before it is sent, always, so the end
//! of this process loses nothing; when it outlives a power cut is a matter of policy.
//!
//! Not here: when a chunk is made or sent, and what a Jump says (`runner` and the core).
//! Invariants: bytes never exceed the bound; an old log is never appended to after an unclean
//! start; a file is unlinked only when all in it is safe, or after the hole it leaves is durable.

pub(crate) mod decode;
mod error;
mod format;
mod log_folder;
mod room;
mod state;
pub(crate) mod view;

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lapwing_protocol::chunk::{Chunk, ChunkFlags};
use lapwing_protocol::delivery::{JumpCause, LossReason};
use lapwing_protocol::hello::{LogCause, LogParent, StoredRange};
use lapwing_protocol::id::{DeploymentId, Lane, LogId, SensorId, ServerId};
use lapwing_protocol::limits::LANES;

pub use error::SpoolError;
pub use format::Place;
pub use state::{LogState, SpoolOptions, SpoolStats, StoredHole, Trimmed};

use crate::config::Sync;
use crate::durable_file;
use crate::identity::record;
use log_folder::{Begin, LogFolder, Origin};
use room::is_all_stored;

/// Bytes that may be written before a sync is due, with [`Sync::Interval`].
pub const SYNC_BYTES: u64 = 256 << 10;
/// How long what was written may wait for a sync, in milliseconds, with [`Sync::Interval`].
pub const SYNC_MS: u64 = 5_000;
/// The part of the bound that only the urgent lane may use, so that losses can be told.
const URGENT_PART: u64 = 16;
/// A file of the urgent lane, whose chunks all open: small enough to be trimmed soon.
const URGENT_FILE_BYTES: u64 = 64 << 10;

#[derive(Debug, Default)]
struct LaneLogs {
    /// Logs of earlier starts, oldest first.
    old: VecDeque<LogFolder>,
    current: Option<LogFolder>,
}

impl LaneLogs {
    fn all(&self) -> impl Iterator<Item = &LogFolder> {
        self.old.iter().chain(&self.current)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut LogFolder> {
        self.old.iter_mut().chain(&mut self.current)
    }
}

/// The spool of one sensor.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    owner: (DeploymentId, SensorId),
    options: SpoolOptions,
    lanes: [LaneLogs; LANES],
    next_ordinal: u64,
    was_clean: bool,
    /// Logs that could not be read and were left out.
    damaged: u64,
    bytes: u64,
    unsynced_bytes: u64,
    unsynced_since_ns: Option<u64>,
    /// When a sync failed that was not tried again yet.
    sync_failed_ns: Option<u64>,
    stats: SpoolStats,
}

/// The mark of a clean stop: the log and last chunk of each lane.
type CleanMark = Vec<(Lane, LogId, u64)>;

impl Spool {
    /// Opens the spool in `folder`, which is made where it is missing.
    ///
    /// # Errors
    /// The folder itself cannot be used. A log that cannot be read is left out and counted.
    pub fn open(
        folder: &Path,
        owner: (DeploymentId, SensorId),
        options: SpoolOptions,
    ) -> Result<Self, SpoolError> {
        let failed = |error| SpoolError::file("open", folder, error);
        durable_file::make_folder(folder).map_err(failed)?;
        let mark_path = folder.join("clean");
        let mark: Option<CleanMark> = record::read(&mark_path).ok().flatten();
        durable_file::remove(&mark_path).map_err(failed)?;
        durable_file::sync_folder(folder).map_err(failed)?;
        let mut spool = Self {
            folder: folder.to_path_buf(),
            owner,
            options,
            lanes: Default::default(),
            next_ordinal: 1,
            was_clean: true,
            damaged: 0,
            bytes: 0,
            unsynced_bytes: 0,
            unsynced_since_ns: None,
            sync_failed_ns: None,
            stats: SpoolStats::default(),
        };
        spool.find_logs().map_err(failed)?;
        for lane in Lane::BY_URGENCY {
            spool.take_over(lane, mark.as_ref())?;
        }
        spool.count_bytes();
        Ok(spool)
    }

    fn find_logs(&mut self) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((_, ordinal, _)) = name.to_str().and_then(log_folder::parse_name) else {
                continue;
            };
            self.next_ordinal = self.next_ordinal.max(ordinal + 1);
            match LogFolder::find(entry.path(), self.owner) {
                Ok(Some(log)) => found.push(log),
                Ok(None) => self.leave_out(&entry.path(), &"it does not say what it is"),
                Err(error) => self.leave_out(&entry.path(), &error),
            }
        }
        found.sort_by_key(|log| log.ordinal);
        for log in found {
            self.lanes[log.lane.index()].old.push_back(log);
        }
        Ok(())
    }

    fn leave_out(&mut self, path: &Path, why: &dyn fmt::Display) {
        self.damaged += 1;
        log::error!("{}: this log of the spool is left out: {why}", path.display());
    }

    /// Goes on with the newest log of a lane after a clean stop; else it stays an old one.
    fn take_over(&mut self, lane: Lane, mark: Option<&CleanMark>) -> Result<(), SpoolError> {
        let logs = &mut self.lanes[lane.index()];
        let is_clean = |log: &LogFolder| {
            let marked = (lane, log.log, log.made.seq);
            !log.is_torn && mark.is_some_and(|mark| mark.contains(&marked))
        };
        match logs.old.back() {
            None => {}
            Some(newest) if is_clean(newest) => logs.current = logs.old.pop_back(),
            Some(_) => self.was_clean = false,
        }
        for at in (0..logs.old.len()).rev() {
            // What holds nothing, a hole neither, is nothing but a name; the newest is still needed
            // as the parent.
            if logs.old[at].segments.is_empty()
                && is_all_stored(&logs.old[at])
                && at + 1 < logs.old.len()
                && let Some(log) = logs.old.remove(at)
            {
                log.remove()?;
            }
        }
        Ok(())
    }

    /// Whether the last sensor on this spool stopped cleanly; also of a new spool.
    #[must_use]
    pub fn was_clean(&self) -> bool {
        self.was_clean
    }

    /// Logs that could not be read.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// What it did so far.
    #[must_use]
    pub fn stats(&self) -> SpoolStats {
        self.stats
    }

    /// Bytes of all its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn count_bytes(&mut self) {
        self.bytes = self.lanes.iter().flat_map(LaneLogs::all).map(LogFolder::bytes).sum();
    }

    /// The log that is appended to; none at a first or an unclean start, until one is opened.
    #[must_use]
    pub fn current(&self, lane: Lane) -> Option<LogState> {
        self.lanes[lane.index()].current.as_ref().map(state)
    }

    /// The newest log of earlier starts: the parent of the next one.
    #[must_use]
    pub fn newest_old(&self, lane: Lane) -> Option<LogState> {
        self.lanes[lane.index()].old.back().map(state)
    }

    /// The oldest log of earlier starts of which something is not acknowledged.
    #[must_use]
    pub fn tail(&self, lane: Lane) -> Option<LogState> {
        let mut old = self.lanes[lane.index()].old.iter();
        old.find(|log| log.progress.acked.seq < log.made.seq).map(state)
    }

    /// The holes of a log.
    #[must_use]
    pub fn holes(&self, lane: Lane, log: LogId) -> Vec<StoredHole> {
        let mut logs = self.lanes[lane.index()].all();
        logs.find(|known| known.log == log).map_or(Vec::new(), |log| log.progress.holes.clone())
    }

    /// Opens a new log, durably. The one that was appended to becomes an old one.
    ///
    /// # Errors
    /// The file system refuses; the current log then stays.
    pub fn open_log(
        &mut self,
        lane: Lane,
        log: LogId,
        cause: LogCause,
        parent: Option<LogParent>,
    ) -> Result<LogState, SpoolError> {
        let (ordinal, origin) = (self.next_ordinal, Origin { cause, parent });
        let logs = &mut self.lanes[lane.index()];
        // An old log is not synced any more.
        logs.current.as_mut().map_or(Ok(()), LogFolder::sync)?;
        let new = LogFolder::create(&self.folder, self.owner, (lane, ordinal, log), origin)?;
        self.next_ordinal += 1;
        let opened = state(&new);
        logs.old.extend(logs.current.replace(new));
        Ok(opened)
    }

    /// Appends a chunk behind the last one of the current log of its lane. When this returns, the
    /// end of the process does not lose it; see [`Self::is_sync_due`] for more.
    ///
    /// # Errors
    /// The file system refuses, or the bound is reached: nothing was appended.
    pub fn append(&mut self, now_ns: u64, chunk: &[u8], after: Place) -> Result<(), SpoolError> {
        let header = Chunk::decode(chunk).map_err(|_| SpoolError::NoLog)?.header;
        let bytes = format::record_bytes(chunk) + format::HEAD_BYTES as u64;
        let lane = header.flags.lane();
        let reserve = match lane {
            Lane::Bulk => self.options.bytes_max / URGENT_PART,
            Lane::Urgent => 0,
        };
        if self.bytes + bytes + reserve > self.options.bytes_max {
            return Err(SpoolError::Full);
        }
        let log = self.lanes[lane.index()].current.as_mut().ok_or(SpoolError::NoLog)?;
        let begins_segment = header.flags.has(ChunkFlags::KEYFRAME) && header.part == 0;
        let is_long = || {
            let bytes = log.segments.back().map_or(0, |segment| segment.bytes);
            header.flags.has(ChunkFlags::SELF_CONTAINED) && bytes >= URGENT_FILE_BYTES
        };
        let begin = if begins_segment || is_long() { Begin::File } else { Begin::Nothing };
        let written = log.append(chunk, after, begin)?;
        self.stats.appended += 1;
        self.bytes += written;
        self.unsynced_bytes += written;
        self.unsynced_since_ns.get_or_insert(now_ns);
        Ok(())
    }

    /// Whether [`Self::sync`] is due, as the policy says. With [`Sync::Each`] a chunk must not be
    /// sent before.
    #[must_use]
    pub fn is_sync_due(&self, now_ns: u64) -> bool {
        let is_time = self.poll_timeout().is_some_and(|due_ns| due_ns <= now_ns);
        match self.options.sync {
            // A disk that refused is asked again when it is time, not with each chunk.
            _ if self.sync_failed_ns.is_some() => is_time,
            Sync::Each => self.unsynced_bytes > 0,
            Sync::Interval => self.unsynced_bytes >= SYNC_BYTES || is_time,
        }
    }

    /// Whether everything that was appended outlives a power cut.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.unsynced_bytes == 0
    }

    /// When a sync is due, in nanoseconds of the clock that `append` was told.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let since = self.sync_failed_ns.or(self.unsynced_since_ns);
        since.map(|since| since.saturating_add(SYNC_MS * 1_000_000))
    }

    /// Makes everything appended outlive a power cut.
    ///
    /// # Errors
    /// The file system refuses; it is due again after the same time.
    pub fn sync(&mut self, now_ns: u64) -> Result<(), SpoolError> {
        if self.unsynced_bytes == 0 {
            return Ok(());
        }
        self.sync_failed_ns = Some(now_ns);
        self.sync_files()?;
        (self.unsynced_bytes, self.unsynced_since_ns, self.sync_failed_ns) = (0, None, None);
        Ok(())
    }

    fn sync_files(&mut self) -> Result<(), SpoolError> {
        self.stats.syncs += 1;
        self.lanes.iter_mut().filter_map(|logs| logs.current.as_mut()).try_for_each(LogFolder::sync)
    }

    /// Reads the chunk `seq` of a log into `chunk`, and says what place is behind it; `None` when
    /// it is not there or is damaged.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn fetch(
        &mut self,
        (lane, log): (Lane, LogId),
        seq: u64,
        chunk: &mut Vec<u8>,
    ) -> Result<Option<Place>, SpoolError> {
        self.find(lane, log)?.fetch(seq, chunk)
    }

    /// The place behind the chunk `seq` of a log; `None` when it is not known here.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn behind(
        &mut self,
        (lane, log): (Lane, LogId),
        seq: u64,
    ) -> Result<Option<Place>, SpoolError> {
        let known = self.find(lane, log)?;
        let places = known.segments.iter().map(|segment| segment.before);
        let holes = known.progress.holes.iter().filter_map(|hole| {
            Some(Place { seq: hole.to_seq, next_index: hole.next_index?, chain: hole.chain })
        });
        let own = [known.made, known.progress.acked];
        if let Some(place) = places.chain(holes).chain(own).find(|place| place.seq == seq) {
            return Ok(Some(place));
        }
        self.fetch((lane, log), seq, &mut Vec::new())
    }

    /// The place before the first chunk of the segment that holds `seq`.
    ///
    /// # Errors
    /// There is no such log.
    pub fn before_segment_of(
        &mut self,
        (lane, log): (Lane, LogId),
        seq: u64,
    ) -> Result<Option<Place>, SpoolError> {
        let known = self.find(lane, log)?;
        let Some(mut at) = known.segment_of(seq) else { return Ok(None) };
        while at > 0 && !known.segments[at].opens {
            at -= 1;
        }
        Ok(Some(known.segments[at].before))
    }

    fn find(&mut self, lane: Lane, log: LogId) -> Result<&mut LogFolder, SpoolError> {
        let mut logs = self.lanes[lane.index()].all_mut();
        logs.find(|known| known.log == log).ok_or(SpoolError::NoLog)
    }

    /// What was made behind the last chunk of the current log is not appended and never will be: up
    /// to `to` there is a hole. What comes next must open a segment.
    ///
    /// # Errors
    /// The hole could not be made durable; it is known until the process ends.
    pub fn skip(&mut self, lane: Lane, to: Place, cause: JumpCause) -> Result<(), SpoolError> {
        let log = self.lanes[lane.index()].current.as_mut().ok_or(SpoolError::NoLog)?;
        let from_seq = log.made.seq + 1;
        let (to_seq, next_index) = (to.seq, Some(to.next_index));
        self.stats.dropped += to.seq.saturating_sub(log.made.seq);
        log.skip(StoredHole { from_seq, to_seq, next_index, chain: to.chain, cause }, to)
    }

    /// The chunk `seq` of a log cannot be read: it and what builds upon it is a hole from now on.
    ///
    /// # Errors
    /// The hole could not be made durable; it is known until the process ends.
    pub fn handle_damage(
        &mut self,
        (lane, log): (Lane, LogId),
        seq: u64,
    ) -> Result<StoredHole, SpoolError> {
        let known = self.find(lane, log)?;
        let mut later = known.segments.iter().filter(|segment| segment.opens);
        let next = later.find(|segment| segment.before.seq >= seq).map(|segment| segment.before);
        let to = next.unwrap_or(known.made);
        let hole = StoredHole {
            from_seq: seq,
            to_seq: to.seq,
            next_index: Some(to.next_index),
            chain: to.chain,
            cause: JumpCause::Lost(LossReason::SpoolDamaged),
        };
        known.progress.add_hole(hole);
        known.save_progress()?;
        Ok(hole)
    }

    /// Nothing more of an old log is sent, whether it was stored or given up.
    pub fn handle_drained(&mut self, lane: Lane, log: LogId) {
        if let Ok(log) = self.find(lane, log) {
            log.progress.acked = log.made;
        }
    }

    /// What servers stored of a log, oldest first.
    #[must_use]
    pub fn stored(&self, lane: Lane, log: LogId) -> Vec<StoredRange> {
        let mut logs = self.lanes[lane.index()].all();
        logs.find(|known| known.log == log).map_or(Vec::new(), |log| log.progress.stored.clone())
    }

    /// `server` stored everything of a log up to `acked`, and backed it up to `safe_seq`.
    pub fn handle_stored(
        &mut self,
        (lane, log): (Lane, LogId),
        server: ServerId,
        acked: Place,
        safe_seq: u64,
    ) {
        let Ok(known) = self.find(lane, log) else { return };
        let progress = &mut known.progress;
        progress.note_stored(server, acked.seq);
        if acked.seq >= progress.acked.seq {
            progress.acked = acked;
        }
        progress.safe_seq = progress.safe_seq.max(safe_seq.min(acked.seq));
        progress.holes.retain(|hole| hole.to_seq > acked.seq);
        let is_safe = progress.safe_seq > 0;
        let logs = &mut self.lanes[lane.index()];
        if is_safe && logs.current.as_ref().is_some_and(|current| current.log == log) {
            // Old logs are stored before the current one begins, and a backup leaves nothing out.
            for old in logs.old.iter_mut().filter(|old| is_all_stored(old)) {
                old.progress.safe_seq = old.made.seq;
            }
        }
    }

    /// Ends in good order: syncs everything and leaves the mark by which the next start goes on
    /// with the same logs.
    ///
    /// # Errors
    /// The file system refuses; the next start then takes this one for unclean.
    pub fn close(mut self) -> Result<(), SpoolError> {
        self.sync_files()?;
        self.save_progress()?;
        let current = self.lanes.iter().filter_map(|logs| logs.current.as_ref());
        let mark: CleanMark = current.map(|log| (log.lane, log.log, log.made.seq)).collect();
        let path = self.folder.join("clean");
        record::write(&path, &mark).map_err(|error| SpoolError::file("write", &path, error))
    }
}

fn state(log: &LogFolder) -> LogState {
    LogState {
        lane: log.lane,
        log: log.log,
        cause: log.origin.cause,
        parent: log.origin.parent,
        first_seq: log.first_seq(),
        acked: log.progress.acked,
        made: log.made,
    }
}
