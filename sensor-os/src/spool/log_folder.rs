//! One log of one lane: a folder of segment files, and how far it was acknowledged.
//!
//! ```text
//! bulk-0000000007-LOG/            lane, ordinal (logs of a lane ascend), log id
//!     log                         why it was opened, and the log before it
//!     continued                   where a start last went on with it: an index
//!     progress, noted             acknowledged place, safe sequence, holes: synced, and newer
//!     00000000000000000001.segment  named by its first chunk
//! ```
//!
//! Not here: when to sync, trim and drop ([`super`] decides). Invariants: files ascend and do not
//! overlap; a file once closed never changes; only the log's owner of this start appends.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::delivery::{JumpCause, LossReason};
use lapwing_protocol::hello::LogCause;
use lapwing_protocol::id::{DeploymentId, Lane, LogId, SensorId};

use super::disk::{Disk, Durability};
use super::format::{HEAD_BYTES, Head, Place, read_record, record_bytes};
use super::progress::{Origin, Progress};
use super::recover::{End, SUFFIX, find_files, read_end};
use super::writer::{Copied, Writer};
use super::{SpoolError, StoredHole};
use crate::identity::record;

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

struct Cursor {
    first_seq: u64,
    next_seq: u64,
    file: BufReader<Box<dyn Read + Send>>,
}

pub(super) struct LogFolder {
    disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    pub(super) lane: Lane,
    pub(super) ordinal: u64,
    pub(super) log: LogId,
    owner: (DeploymentId, SensorId),
    pub(super) origin: Origin,
    pub(super) progress: Progress,
    pub(super) made: Place,
    /// Behind the last record of the last file; `made` lies behind it where a hole follows.
    pub(super) written: Place,
    pub(super) segments: VecDeque<Segment>,
    /// Whether its last file ended in something that is no record.
    pub(super) is_torn: bool,
    /// Whether its file `log` could not be read.
    pub(super) is_nameless: bool,
    /// The index of the first fact since a start went on with it, since it was last acknowledged.
    pub(super) continued_index: Option<u64>,
    /// The last chunk that was sent, as far as a stop in good order said.
    pub(super) sent_seq: Option<u64>,
    writer: Option<Writer>,
    cursor: Option<Cursor>,
}

impl std::fmt::Debug for LogFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogFolder")
            .field("path", &self.path)
            .field("made", &self.made)
            .field("segments", &self.segments)
            .finish_non_exhaustive()
    }
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
        (disk, spool): (&Arc<dyn Disk>, &Path),
        owner: (DeploymentId, SensorId),
        (lane, ordinal, log): (Lane, u64, LogId),
        origin: Origin,
    ) -> Result<Self, SpoolError> {
        let path = spool.join(format!("{}-{ordinal:010}-{log}", lane_name(lane)));
        let failed = |error| SpoolError::file("open a log", &path, error);
        let made = disk
            .make_folder(&path)
            .and_then(|()| record::encode(&origin))
            .and_then(|bytes| disk.replace(&path.join("log"), &bytes, Durability::PowerCut))
            .and_then(|()| disk.sync_folder(spool));
        if let Err(error) = made {
            // Nothing is in it; a folder without its word would be taken for a damaged log.
            let _ = disk.remove_folder(&path);
            return Err(failed(error));
        }
        let start = Place::start(owner, lane, log);
        Ok(Self {
            disk: Arc::clone(disk),
            path,
            lane,
            ordinal,
            log,
            owner,
            origin,
            progress: Progress::at(start),
            made: start,
            written: start,
            segments: VecDeque::new(),
            is_torn: false,
            is_nameless: false,
            continued_index: None,
            sent_seq: None,
            writer: None,
            cursor: None,
        })
    }

    /// Finds a log that an earlier start wrote; `None` for a folder that holds none of this sensor.
    pub(super) fn find(
        disk: &Arc<dyn Disk>,
        path: PathBuf,
        owner: (DeploymentId, SensorId),
    ) -> Result<Option<Self>, SpoolError> {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(parse_name);
        let Some((lane, ordinal, log)) = name else { return Ok(None) };
        let failed = |error| SpoolError::file("read", &path, error);
        let load = |name| disk.load(&path.join(name), record::BYTES_MAX as u64).ok().flatten();
        let origin: Option<Origin> = load("log").and_then(|bytes| record::decode(&bytes).ok());
        let files = find_files(&**disk, &path, owner, (lane, log)).map_err(failed)?;
        if origin.is_none() && files.segments.is_empty() {
            return Ok(None);
        }
        let start = Place::start(owner, lane, log);
        let word = |name| load(name).and_then(|bytes| record::decode::<Progress>(&bytes).ok());
        let progress = word("progress").unwrap_or(Progress::at(start)).with_noted(word("noted"));
        let path_of = |seq| path.join(file_name(seq));
        let (made, end) = read_end(&**disk, &files, progress.acked, path_of).map_err(failed)?;
        let continued_index = load("continued").and_then(|bytes| record::decode(&bytes).ok());
        // What is wrong with the word of it is nothing that a server or reader depends on.
        let lost = Origin { cause: LogCause::SpoolLost, parent: None };
        let mut found = Self {
            disk: Arc::clone(disk),
            path,
            lane,
            ordinal,
            log,
            owner,
            origin: origin.unwrap_or(lost),
            progress,
            made,
            written: made,
            segments: files.segments,
            is_torn: end != End::Whole || files.is_cut,
            is_nameless: origin.is_none(),
            continued_index,
            sent_seq: None,
            writer: None,
            cursor: None,
        };
        found.settle_end(end);
        Ok(Some(found))
    }

    /// Takes the end of a found log for what it is: a hole where something is lost behind the last
    /// whole record, known or not.
    fn settle_end(&mut self, end: End) {
        if let Some(last) = self.segments.back_mut() {
            last.last_seq = self.made.seq.max(last.before.seq);
        }
        let holes = &self.progress.holes;
        let goes_on =
            |hole: &&StoredHole| (hole.from_seq..=hole.to_seq).contains(&(self.made.seq + 1));
        if let Some(hole) = holes.iter().rev().find(goes_on).copied() {
            let next_index = hole.next_index.unwrap_or(self.made.next_index);
            self.made = Place { seq: hole.to_seq, next_index, chain: hole.chain };
        }
        match end {
            End::Damaged(place) if place.seq > self.made.seq => {
                self.lose_end(place, Some(place.next_index), LossReason::SpoolDamaged);
            }
            End::Unknown(seq) => {
                let seq = seq.max(self.made.seq + 1);
                self.lose_end(Place { seq, ..self.made }, None, LossReason::SpoolDamaged);
            }
            End::Whole | End::Torn | End::Damaged(_) => {}
        }
        // A rolled-back disk may hold an older log than its progress; the chunks are what counts.
        if self.progress.acked.seq > self.made.seq {
            self.progress.acked = self.made;
        }
        // A file whose removal did not reach the disk is back; its hole is told of already.
        let Self { disk, path, progress, segments, .. } = self;
        segments.retain(|segment| {
            let is_gone = segment.last_seq > segment.before.seq
                && progress.covers(segment.first_seq(), segment.last_seq);
            if is_gone {
                let _ = disk.remove(&path.join(file_name(segment.first_seq())));
            }
            !is_gone
        });
    }

    /// What was made behind the last whole record is lost, up to `to`.
    pub(super) fn lose_end(&mut self, to: Place, next_index: Option<u64>, reason: LossReason) {
        let (from_seq, to_seq, chain) = (self.made.seq + 1, to.seq, to.chain);
        let cause = JumpCause::Lost(reason);
        self.progress.add_hole(StoredHole { from_seq, to_seq, next_index, chain, cause });
        self.made = to;
    }

    /// A start goes on with it: where the disk is an older image, what comes now is another branch.
    pub(super) fn go_on(&mut self) -> Result<(), SpoolError> {
        let acked_index = self.progress.acked.next_index;
        let known = self.continued_index.filter(|index| *index >= acked_index);
        let index = known.unwrap_or(self.made.next_index);
        if self.continued_index == Some(index) {
            return Ok(());
        }
        self.continued_index = Some(index);
        let path = self.path.join("continued");
        record::encode(&index)
            .and_then(|bytes| self.disk.replace(&path, &bytes, Durability::PowerCut))
            .map_err(|error| SpoolError::file("write", &path, error))
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
        if begin == Begin::File || !self.writer.as_ref().is_some_and(Writer::is_open) {
            self.begin_file(opens(chunk))?;
            written += HEAD_BYTES as u64;
        }
        let (Some(writer), Some(segment)) = (self.writer.as_mut(), self.segments.back_mut()) else {
            let error = io::Error::other("no file is open");
            return Err(SpoolError::file("write", &self.path, error));
        };
        writer
            .append(chunk, after, opens(chunk))
            .map_err(|error| SpoolError::file("write", writer.path(), error))?;
        segment.bytes = writer.bytes();
        segment.last_seq = after.seq;
        (self.made, self.written) = (after, after);
        Ok(written)
    }

    fn begin_file(&mut self, opens: bool) -> Result<(), SpoolError> {
        self.sync()?;
        self.writer = None;
        let first_seq = self.made.seq + 1;
        let path = self.path.join(file_name(first_seq));
        let head = self.head(self.made, opens);
        let writer = Writer::begin(&*self.disk, path.clone(), head)
            .map_err(|error| SpoolError::file("begin", &path, error))?;
        if self.segments.back().is_some_and(|last| last.first_seq() == first_seq) {
            self.segments.pop_back();
        }
        let (before, last_seq, bytes) = (self.made, self.made.seq, writer.bytes());
        self.segments.push_back(Segment { before, opens, last_seq, bytes });
        self.writer = Some(writer);
        Ok(())
    }

    fn head(&self, before: Place, opens: bool) -> Head {
        let Self { lane, log, owner: (deployment, sensor), .. } = *self;
        Head { lane, opens, deployment, sensor, log, before }
    }

    /// Goes on behind a hole at the end; what comes next begins a new file.
    pub(super) fn skip(&mut self, hole: StoredHole, to: Place) -> Result<(), SpoolError> {
        let synced = self.sync();
        match &mut self.writer {
            // What it holds is still to be synced, before the next file begins.
            Some(writer) if synced.is_err() => writer.close(),
            _ => self.writer = None,
        }
        self.made = to;
        self.progress.add_hole(hole);
        self.save_progress().and(synced)
    }

    /// Makes what was appended outlive a power cut. Where a sync fails a new file takes the place
    /// of what it was to cover; where that cannot be had either, it is tried at the next call.
    pub(super) fn sync(&mut self) -> Result<(), SpoolError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let Err(error) = writer.sync(&*self.disk, &self.path) else { return Ok(()) };
        log::warn!("{}: cannot sync: {error}; it is written anew", writer.path().display());
        let (from, path) = (writer.synced(), writer.path().to_path_buf());
        let waiting_opens = writer.waiting_opens();
        let Some(segment) = self.segments.back().copied() else { return Ok(()) };
        let is_whole = from.seq == segment.before.seq;
        let opens = if is_whole { segment.opens } else { waiting_opens };
        let head = self.head(from, opens);
        let failed = |error| SpoolError::file("sync", &path, error);
        let target = self.path.join(file_name(from.seq + 1));
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let copied =
            writer.copy_forward(&*self.disk, (&self.path, target), head).map_err(failed)?;
        self.cursor = None;
        let bytes = writer.bytes();
        if let Some(last) = self.segments.back_mut() {
            let last_seq = last.last_seq;
            if is_whole {
                last.bytes = bytes;
            } else {
                last.last_seq = from.seq;
                self.segments.push_back(Segment { before: from, opens, last_seq, bytes });
            }
        }
        match copied {
            Copied::Durable => Ok(()),
            Copied::Unnamed(error) => Err(failed(error)),
        }
    }

    /// Makes the progress durable.
    pub(super) fn save_progress(&self) -> Result<(), SpoolError> {
        self.write_progress("progress", Durability::PowerCut)
    }

    /// Writes the progress so that the next start of the process, or who looks, knows it.
    pub(super) fn note_progress(&self) -> Result<(), SpoolError> {
        // In a file of its own: what is not synced must not take the place of what is.
        self.write_progress("noted", Durability::Process)
    }

    fn write_progress(&self, name: &str, durability: Durability) -> Result<(), SpoolError> {
        let path = self.path.join(name);
        record::encode(&self.progress)
            .and_then(|bytes| self.disk.replace(&path, &bytes, durability))
            .map_err(|error| SpoolError::file("write", &path, error))
    }

    /// Removes the file at `position` among the segments.
    pub(super) fn remove_segment(&mut self, position: usize) -> Result<(), SpoolError> {
        let Some(segment) = self.segments.get(position).copied() else { return Ok(()) };
        let path = self.path.join(file_name(segment.first_seq()));
        self.disk.remove(&path).map_err(|error| SpoolError::file("remove", &path, error))?;
        if self.cursor.as_ref().is_some_and(|cursor| cursor.first_seq == segment.first_seq()) {
            self.cursor = None;
        }
        self.segments.remove(position);
        Ok(())
    }

    /// Removes the whole log from the disk.
    pub(super) fn remove(&self) -> Result<(), SpoolError> {
        self.disk
            .remove_folder(&self.path)
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
                let mut file = BufReader::new(self.disk.open(&path).map_err(failed)?);
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
