//! One log of one lane: a folder of segment files, and how far it was acknowledged.
//!
//! ```text
//! bulk-0000000007-LOG/            lane, ordinal (logs of a lane ascend), log id
//!     log                         why it was opened, and the log before it
//!     progress                    acknowledged place, safe sequence, holes
//!     00000000000000000001.segment  named by its first chunk
//! ```
//!
//! Not here: when to sync, trim and drop ([`super`] decides). Invariants: files ascend and do not
//! overlap; a file once closed never changes; only the log's owner of this start appends.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::hello::{LogCause, LogParent, StoredRange};
use lapwing_protocol::id::{DeploymentId, Lane, LogId, SensorId, ServerId};
use lapwing_protocol::limits::ELSEWHERE_MAX;
use serde::{Deserialize, Serialize};

use super::format::{HEAD_BYTES, Head, Place, read_record, record_bytes, write_record};
use super::{SpoolError, StoredHole};
use crate::durable_file::{self, Durability};
use crate::identity::record;

const SUFFIX: &str = ".segment";
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
    fn at(start: Place) -> Self {
        Self { acked: start, safe_seq: 0, holes: Vec::new(), stored: Vec::new() }
    }

    /// Adds a hole; one that meets the last makes it longer.
    pub(super) fn add_hole(&mut self, hole: StoredHole) {
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
            self.stored[0].from_seq = first.from_seq;
        }
    }
}

/// One segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) before: Place,
    /// Whether decoding may start at it.
    pub(super) opens: bool,
    /// The last chunk it may hold: one before the next file's first.
    pub(super) last_seq: u64,
    pub(super) bytes: u64,
}

impl Segment {
    pub(super) fn first_seq(&self) -> u64 {
        self.before.seq + 1
    }
}

/// Where a chunk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Behind the last one.
    Nothing,
    /// Into a new file.
    File,
}

fn opens(chunk: &[u8]) -> bool {
    Chunk::decode(chunk).is_ok_and(|chunk| chunk.header.flags.opens(chunk.header.part))
}

#[derive(Debug)]
struct Cursor {
    first_seq: u64,
    next_seq: u64,
    file: BufReader<File>,
}

#[derive(Debug)]
pub(super) struct LogFolder {
    pub(super) path: PathBuf,
    pub(super) lane: Lane,
    pub(super) ordinal: u64,
    pub(super) log: LogId,
    owner: (DeploymentId, SensorId),
    pub(super) origin: Origin,
    pub(super) progress: Progress,
    pub(super) made: Place,
    pub(super) segments: VecDeque<Segment>,
    /// Whether its last file ended in something that is no record.
    pub(super) is_torn: bool,
    writer: Option<File>,
    has_new_name: bool,
    cursor: Option<Cursor>,
    record: Vec<u8>,
}

/// The name of a lane in folders and output.
#[must_use]
pub(crate) fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Bulk => "bulk",
        Lane::Urgent => "urgent",
    }
}

/// Lane, ordinal and log in a folder's name.
pub(super) fn parse_name(name: &str) -> Option<(Lane, u64, LogId)> {
    let mut parts = name.split('-');
    let lane = match parts.next()? {
        "bulk" => Lane::Bulk,
        "urgent" => Lane::Urgent,
        _ => return None,
    };
    let (ordinal, log) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some((lane, ordinal, log))
}

fn file_name(first_seq: u64) -> String {
    format!("{first_seq:020}{SUFFIX}")
}

impl LogFolder {
    /// Makes the folder of a new log; it is durable when this returns.
    pub(super) fn create(
        spool: &Path,
        owner: (DeploymentId, SensorId),
        (lane, ordinal, log): (Lane, u64, LogId),
        origin: Origin,
    ) -> Result<Self, SpoolError> {
        let path = spool.join(format!("{}-{ordinal:010}-{log}", lane_name(lane)));
        let failed = |error| SpoolError::file("open a log", &path, error);
        durable_file::make_folder(&path).map_err(failed)?;
        record::write(&path.join("log"), &origin).map_err(failed)?;
        durable_file::sync_folder(spool).map_err(failed)?;
        let start = Place::start(owner, lane, log);
        let progress = Progress::at(start);
        let (segments, record) = (VecDeque::new(), Vec::new());
        Ok(Self {
            path,
            lane,
            ordinal,
            log,
            owner,
            origin,
            progress,
            made: start,
            segments,
            is_torn: false,
            writer: None,
            has_new_name: false,
            cursor: None,
            record,
        })
    }

    /// Finds a log that an earlier start wrote; `None` for a folder that holds none of this sensor.
    pub(super) fn find(
        path: PathBuf,
        owner: (DeploymentId, SensorId),
    ) -> Result<Option<Self>, SpoolError> {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(parse_name);
        let Some((lane, ordinal, log)) = name else { return Ok(None) };
        let failed = |error| SpoolError::file("read", &path, error);
        let origin = record::read(&path.join("log")).ok().flatten();
        let Some(origin) = origin else { return Ok(None) };
        let start = Place::start(owner, lane, log);
        let (mut segments, is_cut) = find_segments(&path, owner, (lane, log)).map_err(failed)?;
        let (made, is_torn) = match segments.back_mut() {
            None => (None, false),
            Some(last) => {
                let (made, is_torn) = scan(&path, last).map_err(failed)?;
                last.last_seq = made.seq;
                (Some(made), is_torn)
            }
        };
        let progress: Option<Progress> = record::read(&path.join("progress")).ok().flatten();
        let mut progress = progress.unwrap_or(Progress::at(start));
        let mut made = made.unwrap_or(progress.acked);
        for hole in &progress.holes {
            if (hole.from_seq..=hole.to_seq).contains(&(made.seq + 1))
                && let Some(next_index) = hole.next_index
            {
                made = Place { seq: hole.to_seq, next_index, chain: hole.chain };
            }
        }
        // A rolled-back disk may hold an older log than its progress; the chunks are what counts.
        if progress.acked.seq > made.seq {
            progress.acked = made;
        }
        Ok(Some(Self {
            path,
            lane,
            ordinal,
            log,
            owner,
            origin,
            progress,
            made,
            segments,
            is_torn: is_torn || is_cut,
            writer: None,
            has_new_name: false,
            cursor: None,
            record: Vec::new(),
        }))
    }

    /// The oldest chunk it can still give.
    pub(super) fn first_seq(&self) -> u64 {
        self.segments.front().map_or(self.made.seq + 1, Segment::first_seq)
    }

    /// Bytes of its files.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Writes a chunk behind the last one and says how many bytes that took. On an error the file
    /// is as it was, or is closed.
    pub(super) fn append(
        &mut self,
        chunk: &[u8],
        after: Place,
        begin: Begin,
    ) -> Result<u64, SpoolError> {
        let mut written = record_bytes(chunk);
        if begin == Begin::File || self.writer.is_none() {
            self.begin_file(opens(chunk))?;
            written += HEAD_BYTES as u64;
        }
        let path = self.path.join(file_name(self.segments.back().map_or(1, Segment::first_seq)));
        let (Some(file), Some(segment)) = (self.writer.as_mut(), self.segments.back_mut()) else {
            let error = io::Error::other("no file is open");
            return Err(SpoolError::file("write", &self.path, error));
        };
        write_record(&mut self.record, &after, chunk);
        if let Err(error) = file.write_all(&self.record) {
            // Half a record must not stand before whole ones.
            let is_mended = file.set_len(segment.bytes).is_ok()
                && file.seek(SeekFrom::Start(segment.bytes)).is_ok();
            if !is_mended {
                self.writer = None;
            }
            return Err(SpoolError::file("write", &path, error));
        }
        segment.bytes += record_bytes(chunk);
        segment.last_seq = after.seq;
        self.made = after;
        Ok(written)
    }

    fn begin_file(&mut self, opens: bool) -> Result<(), SpoolError> {
        self.sync_file()?;
        self.writer = None;
        let first_seq = self.made.seq + 1;
        let path = self.path.join(file_name(first_seq));
        let failed = |error| SpoolError::file("begin", &path, error);
        let head = Head {
            lane: self.lane,
            opens,
            deployment: self.owner.0,
            sensor: self.owner.1,
            log: self.log,
            before: self.made,
        };
        // A file of this name can only be one whose head or first record failed before.
        durable_file::remove(&path).map_err(failed)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        if let Err(error) = file.write_all(&head.to_bytes()) {
            drop(file);
            let _ = durable_file::remove(&path);
            return Err(failed(error));
        }
        if self.segments.back().is_some_and(|last| last.first_seq() == first_seq) {
            self.segments.pop_back();
        }
        let bytes = HEAD_BYTES as u64;
        let (before, last_seq) = (self.made, self.made.seq);
        self.segments.push_back(Segment { before, opens, last_seq, bytes });
        self.writer = Some(file);
        self.has_new_name = true;
        Ok(())
    }

    /// Goes on behind a hole at the end; what comes next begins a new file.
    pub(super) fn skip(&mut self, hole: StoredHole, to: Place) -> Result<(), SpoolError> {
        // The file is left behind, and what is in it is not synced later.
        let synced = self.sync_file();
        self.writer = None;
        self.made = to;
        self.progress.add_hole(hole);
        self.save_progress().and(synced)
    }

    fn sync_file(&self) -> Result<(), SpoolError> {
        match &self.writer {
            Some(file) => {
                file.sync_data().map_err(|error| SpoolError::file("sync", &self.path, error))
            }
            None => Ok(()),
        }
    }

    /// Makes what was appended outlive a power cut.
    pub(super) fn sync(&mut self) -> Result<(), SpoolError> {
        self.sync_file()?;
        if self.has_new_name {
            durable_file::sync_folder(&self.path)
                .map_err(|error| SpoolError::file("sync", &self.path, error))?;
            self.has_new_name = false;
        }
        Ok(())
    }

    /// Makes the progress durable.
    pub(super) fn save_progress(&self) -> Result<(), SpoolError> {
        self.write_progress(Durability::PowerCut)
    }

    /// Writes the progress so that the next start of the process, or who looks, knows it.
    pub(super) fn note_progress(&self) -> Result<(), SpoolError> {
        self.write_progress(Durability::Process)
    }

    fn write_progress(&self, durability: Durability) -> Result<(), SpoolError> {
        let path = self.path.join("progress");
        record::write_as(&path, &self.progress, durability)
            .map_err(|error| SpoolError::file("write", &path, error))
    }

    /// Removes the file at `position` among the segments.
    pub(super) fn remove_segment(&mut self, position: usize) -> Result<(), SpoolError> {
        let Some(segment) = self.segments.get(position).copied() else { return Ok(()) };
        let path = self.path.join(file_name(segment.first_seq()));
        durable_file::remove(&path).map_err(|error| SpoolError::file("remove", &path, error))?;
        if self.cursor.as_ref().is_some_and(|cursor| cursor.first_seq == segment.first_seq()) {
            self.cursor = None;
        }
        self.segments.remove(position);
        Ok(())
    }

    /// Removes the whole log.
    pub(super) fn remove(self) -> Result<(), SpoolError> {
        fs::remove_dir_all(&self.path)
            .map_err(|error| SpoolError::file("remove", &self.path, error))
    }

    /// The file that holds `seq`, by its number among the segments.
    pub(super) fn segment_of(&self, seq: u64) -> Option<usize> {
        let holds = |segment: &Segment| segment.first_seq() <= seq && seq <= segment.last_seq;
        self.segments.iter().position(holds)
    }

    /// Reads the chunk `seq` into `chunk`; `None` when this log does not hold it, or it is damaged.
    pub(super) fn fetch(
        &mut self,
        seq: u64,
        chunk: &mut Vec<u8>,
    ) -> Result<Option<Place>, SpoolError> {
        let found = self.segment_of(seq).and_then(|at| self.segments.get(at).copied());
        let Some(segment) = found else { return Ok(None) };
        let path = self.path.join(file_name(segment.first_seq()));
        let failed = |error| SpoolError::file("read", &path, error);
        let cursor = self
            .cursor
            .take()
            .filter(|cursor| cursor.first_seq == segment.first_seq() && cursor.next_seq <= seq);
        let mut cursor = match cursor {
            Some(cursor) => cursor,
            None => {
                let mut file = BufReader::new(File::open(&path).map_err(failed)?);
                if Head::read(&mut file).map_err(failed)?.is_none() {
                    return Ok(None);
                }
                let first_seq = segment.first_seq();
                Cursor { first_seq, next_seq: first_seq, file }
            }
        };
        loop {
            let place = read_record(&mut cursor.file, cursor.next_seq, chunk).map_err(failed)?;
            let Some(place) = place else { return Ok(None) };
            cursor.next_seq += 1;
            if place.seq == seq {
                self.cursor = Some(cursor);
                return Ok(Some(place));
            }
        }
    }
}

/// The files of a log, oldest first, and whether one that can only be a torn beginning was found.
fn find_segments(
    folder: &Path,
    owner: (DeploymentId, SensorId),
    (lane, log): (Lane, LogId),
) -> io::Result<(VecDeque<Segment>, bool)> {
    let mut found = Vec::new();
    let mut is_cut = false;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "segment") {
            continue;
        }
        let mut file = File::open(&path)?;
        match Head::read(&mut file)? {
            Some(head)
                if (head.deployment, head.sensor, head.lane, head.log)
                    == (owner.0, owner.1, lane, log) =>
            {
                let bytes = file.metadata()?.len();
                let Head { before, opens, .. } = head;
                found.push(Segment { before, opens, last_seq: before.seq, bytes });
            }
            _ => is_cut = true,
        }
    }
    found.sort_by_key(|segment| segment.before.seq);
    for at in 1..found.len() {
        found[at - 1].last_seq = found[at].before.seq;
    }
    Ok((found.into(), is_cut))
}

/// Reads the last file to its end: the place behind its last whole record, and whether more
/// follows.
fn scan(folder: &Path, segment: &Segment) -> io::Result<(Place, bool)> {
    let raw = File::open(folder.join(file_name(segment.first_seq())))?;
    let mut file = BufReader::with_capacity(64 << 10, &raw);
    Head::read(&mut file)?;
    let (mut chunk, mut made, mut end) = (Vec::new(), segment.before, HEAD_BYTES as u64);
    while let Some(place) = read_record(&mut file, made.seq + 1, &mut chunk)? {
        made = place;
        end += record_bytes(&chunk);
    }
    let is_torn = raw.read_at(&mut [0], end)? > 0;
    Ok((made, is_torn))
}
