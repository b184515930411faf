//! The spool: chunks on disk before they are sent, until a server has them for good.
//!
//! A folder for each log, a file for each segment; `docs/spool.md` is the normative text and its
//! numbers (SPL-...) stand in the tests. A chunk is appended before it is sent, always, so the end
//! of this process loses nothing; when it outlives a power cut is a matter of policy.
//!
//! Not here: when a chunk is made or sent, and what a Jump says (`runner` and the core).
//! Invariants: bytes never exceed the bound; an old log is never appended to after an unclean
//! start; a file is unlinked only when all in it is safe, or after the hole it leaves is durable.

mod age;
pub(crate) mod decode;
mod disk;
mod error;
mod format;
mod log_folder;
mod lookup;
mod progress;
mod recover;
mod room;
mod state;
pub(crate) mod view;
mod writer;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lapwing_protocol::chunk::{Chunk, ChunkFlags};
use lapwing_protocol::delivery::{JumpCause, LossReason};
use lapwing_protocol::hello::{LogCause, LogParent};
use lapwing_protocol::id::{DeploymentId, Lane, LogId, SensorId};
use lapwing_protocol::limits::LANES;
use serde::{Deserialize, Serialize};

pub use disk::{Disk, DiskFile, Durability, RealDisk};
pub use error::SpoolError;
pub use format::Place;
pub use state::{LogState, SpoolOptions, SpoolStats, StoredHole, Trimmed};

use crate::config::Sync;
use crate::identity::record;
use age::Age;
use log_folder::{Begin, LogFolder};
use lookup::state;
use progress::Origin;
use room::is_all_stored;

/// Bytes that may be written before a sync is due, with [`Sync::Interval`].
pub const SYNC_BYTES: u64 = 256 << 10;
/// How long what was written may wait for a sync, in milliseconds, with [`Sync::Interval`].
pub const SYNC_MS: u64 = 5_000;
/// The part of the bound that only the urgent lane may use, so that losses can be told.
const URGENT_PART: u64 = 16;
/// Chunks behind a log's end that a power cut may have taken: more than fit between two syncs, so
/// that a server that has some of them stands within what is then not known.
const UNSYNCED_CHUNKS_MAX: u64 = 8_192;
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
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    owner: (DeploymentId, SensorId),
    options: SpoolOptions,
    lanes: [LaneLogs; LANES],
    next_ordinal: u64,
    was_clean: bool,
    /// Logs that could not be read and were left out.
    damaged: u64,
    /// By lane: the newest of these.
    damaged_ordinal: [u64; LANES],
    bytes: u64,
    unsynced_bytes: u64,
    unsynced_since_ns: Option<u64>,
    /// When a sync failed that was not tried again yet.
    sync_failed_ns: Option<u64>,
    stats: SpoolStats,
    age: Age,
}

/// The mark of a clean stop: the log of each lane, its last chunk, and the last that was sent.
type CleanMark = Vec<(Lane, LogId, u64, u64)>;

/// What is told of the last run to the next: the file `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    /// Which boot of the machine it was in.
    boot: [u8; 16],
}

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
        Self::open_on(Arc::new(RealDisk), folder, owner, options)
    }

    /// A spool that holds no chunk, for a sensor that keeps them in memory: it knows which logs
    /// there are, and nothing of it outlives the process.
    ///
    /// # Errors
    /// None in fact.
    pub(crate) fn without_disk(owner: (DeploymentId, SensorId)) -> Result<Self, SpoolError> {
        let options = SpoolOptions { bytes_max: 0, age_ms_max: u64::MAX, sync: Sync::Interval };
        Self::open_on(Arc::new(disk::NoDisk), Path::new(""), owner, options)
    }

    /// As [`Self::open`], on a disk of the caller's.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        folder: &Path,
        owner: (DeploymentId, SensorId),
        options: SpoolOptions,
    ) -> Result<Self, SpoolError> {
        let failed = |error| SpoolError::file("open", folder, error);
        disk.make_folder(folder).map_err(failed)?;
        let mark_path = folder.join("clean");
        let mark: Option<CleanMark> = read_record_file(&*disk, &mark_path);
        disk.remove(&mark_path).map_err(failed)?;
        disk.sync_folder(folder).map_err(failed)?;
        let mut spool = Self {
            disk,
            folder: folder.to_path_buf(),
            owner,
            options,
            lanes: Default::default(),
            next_ordinal: 1,
            was_clean: true,
            damaged: 0,
            damaged_ordinal: [0; LANES],
            bytes: 0,
            unsynced_bytes: 0,
            unsynced_since_ns: None,
            sync_failed_ns: None,
            stats: SpoolStats::default(),
            age: Age::default(),
        };
        spool.load_age();
        let has_lost_power = spool.begin_run();
        spool.find_logs().map_err(failed)?;
        for lane in Lane::BY_URGENCY {
            spool.take_over(lane, mark.as_ref())?;
            if has_lost_power {
                spool.lose_unsynced(lane);
            }
        }
        spool.count_bytes();
        Ok(spool)
    }

    /// Notes the boot of this run, and says whether the last one was in another.
    fn begin_run(&self) -> bool {
        let path = self.folder.join("run");
        let last: Option<Run> = read_record_file(&*self.disk, &path);
        let Ok(boot) = self.disk.boot() else { return false };
        if last == Some(Run { boot }) {
            return false;
        }
        let noted = record::encode(&Run { boot })
            .and_then(|bytes| self.disk.replace(&path, &bytes, Durability::PowerCut));
        if let Err(error) = noted {
            log::warn!(
                "{}: {error}; a power cut will be taken for a killed process",
                path.display()
            );
        }
        last.is_some()
    }

    /// The machine went down under a log that is appended to: what was not synced may be gone, and
    /// nobody knows how much it was. With `each` nothing was sent that was not synced.
    fn lose_unsynced(&mut self, lane: Lane) {
        if self.options.sync == Sync::Each {
            return;
        }
        let logs = &mut self.lanes[lane.index()];
        let Some(newest) = logs.old.back_mut().filter(|_| logs.current.is_none()) else { return };
        let end = newest.progress.hole_at(newest.made.seq);
        if end.is_some_and(|hole| hole.cause == JumpCause::Lost(LossReason::MemoryLost)) {
            return;
        }
        let seq = newest.made.seq + UNSYNCED_CHUNKS_MAX;
        newest.lose_end(Place { seq, ..newest.made }, None, LossReason::MemoryLost);
        if let Err(error) = newest.save_progress() {
            log::error!("{error}");
        }
    }

    fn find_logs(&mut self) -> io::Result<()> {
        let mut found = Vec::new();
        for path in self.disk.list(&self.folder)? {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some((lane, ordinal, _)) = name.and_then(log_folder::parse_name) else { continue };
            self.next_ordinal = self.next_ordinal.max(ordinal + 1);
            match LogFolder::find(&self.disk, path.clone(), self.owner) {
                Ok(Some(log)) => found.push(log),
                Ok(None) => self.leave_out(&path, (lane, ordinal), &"it does not say what it is"),
                Err(error) => self.leave_out(&path, (lane, ordinal), &error),
            }
        }
        found.sort_by_key(|log| log.ordinal);
        for log in found {
            self.lanes[log.lane.index()].old.push_back(log);
        }
        Ok(())
    }

    fn leave_out(&mut self, path: &Path, (lane, ordinal): (Lane, u64), why: &dyn fmt::Display) {
        self.damaged += 1;
        let newest = &mut self.damaged_ordinal[lane.index()];
        *newest = (*newest).max(ordinal);
        log::error!("{}: this log of the spool is left out: {why}", path.display());
    }

    /// Goes on with the newest log of a lane after a clean stop; else it stays an old one.
    fn take_over(&mut self, lane: Lane, mark: Option<&CleanMark>) -> Result<(), SpoolError> {
        let logs = &mut self.lanes[lane.index()];
        let clean_mark = |log: &LogFolder| {
            let is_it = |(of, id, made_seq, _): &&(Lane, LogId, u64, u64)| {
                (*of, *id, *made_seq) == (lane, log.log, log.made.seq)
            };
            mark.filter(|_| !log.is_torn)?.iter().find(is_it)
        };
        match logs.old.back() {
            None => {}
            Some(newest) if clean_mark(newest).is_some() || cfg!(mutant = "log_reused") => {
                let sent_seq = clean_mark(newest).map(|(.., sent_seq)| *sent_seq);
                logs.current = logs.old.pop_back();
                if let Some(current) = &mut logs.current {
                    current.sent_seq = sent_seq;
                    current.go_on()?;
                }
            }
            Some(_) => self.was_clean = false,
        }
        for at in (0..logs.old.len()).rev() {
            // What holds nothing, a hole neither, is nothing but a name; the newest is still needed
            // as the parent.
            if logs.old[at].segments.is_empty()
                && is_all_stored(&logs.old[at])
                && at + 1 < logs.old.len()
            {
                logs.old[at].remove()?;
                logs.old.remove(at);
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

    /// Whether the newest log of a lane is one that could not be read.
    #[must_use]
    pub fn is_newest_damaged(&self, lane: Lane) -> bool {
        let logs = &self.lanes[lane.index()];
        let newest = logs.all().last();
        let damaged = self.damaged_ordinal[lane.index()];
        damaged > newest.map_or(0, |log| log.ordinal) || newest.is_some_and(|log| log.is_nameless)
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
        let place = (&self.disk, self.folder.as_path());
        let new = LogFolder::create(place, self.owner, (lane, ordinal, log), origin)?;
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
        let mut current = self.lanes.iter_mut().filter_map(|logs| logs.current.as_mut());
        let synced = current.try_for_each(LogFolder::sync);
        // What a failed sync had written anew takes room too.
        self.count_bytes();
        synced
    }

    /// Ends in good order: syncs everything and leaves the mark by which the next start goes on
    /// with the same logs.
    ///
    /// # Errors
    /// The file system refuses; the next start then takes this one for unclean.
    pub fn close(mut self) -> Result<(), SpoolError> {
        self.sync_files()?;
        self.save_progress()?;
        self.save_age()?;
        let current = self.lanes.iter().filter_map(|logs| logs.current.as_ref());
        // Where nobody said how far was sent, all may have been.
        let sent_seq = |log: &LogFolder| log.sent_seq.unwrap_or(log.made.seq);
        let marked = |log: &LogFolder| (log.lane, log.log, log.made.seq, sent_seq(log));
        let mark: CleanMark = current.map(marked).collect();
        let path = self.folder.join("clean");
        record::encode(&mark)
            .and_then(|bytes| self.disk.replace(&path, &bytes, Durability::PowerCut))
            .map_err(|error| SpoolError::file("write", &path, error))
    }
}

/// The value in a small file; none where it is missing or damaged.
fn read_record_file<T: for<'de> Deserialize<'de>>(disk: &dyn Disk, path: &Path) -> Option<T> {
    let bytes = disk.load(path, record::BYTES_MAX as u64).ok().flatten()?;
    record::decode(&bytes).ok()
}
