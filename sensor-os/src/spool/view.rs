//! Looking into a spool from outside, while a sensor runs on it or not: what `spool` shows.
//!
//! Reads files and changes none. Invariant: what vanishes or is torn while it is read ends that
//! file and nothing else.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use lapwing_protocol::chunk::{Chunk, ChunkFlags};
use lapwing_protocol::command::CommandNumber;
use lapwing_protocol::element::{Value, command_outcome};
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::op::{Op, OpReader, RawValue};
use serde::Serialize;

use super::age::{self, Age};
use super::decode::{LogDecoder, ShownOp};
use super::format::{Head, read_record};
use super::log_folder::{lane_name, parse_name};
use super::progress::Progress;
use crate::identity::record;

/// One file.
#[derive(Debug, Serialize)]
pub(crate) struct SegmentView {
    pub(crate) lane: &'static str,
    pub(crate) log: String,
    pub(crate) first_seq: u64,
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
    /// Up to where of this log a server has it; 0 when nowhere.
    pub(crate) acked_seq: u64,
    /// For how long, at least, a sensor ran since its first chunk; none where no mark says.
    pub(crate) age_ms: Option<u64>,
    pub(crate) file: String,
}

/// One chunk, decoded.
#[derive(Debug, Serialize)]
pub(crate) struct ChunkView {
    pub(crate) lane: &'static str,
    pub(crate) log: String,
    pub(crate) seq: u64,
    pub(crate) first_index: u64,
    pub(crate) count: u64,
    pub(crate) keyframe: bool,
    pub(crate) acked: bool,
    pub(crate) bytes: usize,
    pub(crate) ops: Vec<ShownOp>,
    /// Why the rest of it cannot be read; none where it can.
    pub(crate) undecoded: Option<String>,
}

/// A run of a log that is not there.
#[derive(Debug, Serialize)]
pub(crate) struct HoleView {
    pub(crate) lane: &'static str,
    pub(crate) log: String,
    pub(crate) from_seq: u64,
    pub(crate) to_seq: u64,
    /// The last index in it; none where nobody knows how many facts it held.
    pub(crate) to_index: Option<u64>,
    /// Why.
    pub(crate) cause: String,
    /// Whether a server was told of it.
    pub(crate) acked: bool,
}

/// A file that was found.
#[derive(Debug)]
pub(crate) struct FoundFile {
    path: PathBuf,
    head: Head,
    acked_seq: u64,
    age_ms: Option<u64>,
}

/// The folders of a spool's logs, in order of lane and age; a spool that is not there has none.
fn folders(spool: &Path) -> io::Result<Vec<(Lane, u64, LogId, PathBuf)>> {
    let entries = match fs::read_dir(spool) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut logs = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some((lane, ordinal, log)) = entry.file_name().to_str().and_then(parse_name) {
            logs.push((lane, ordinal, log, entry.path()));
        }
    }
    logs.sort_by_key(|(lane, ordinal, ..)| (*lane, *ordinal));
    Ok(logs)
}

/// What is known durably and, newer, for the next start of the process.
fn words(folder: &Path) -> Option<Progress> {
    let word = |name| record::read::<Progress>(&folder.join(name)).ok().flatten();
    match (word("progress"), word("noted")) {
        (Some(progress), noted) => Some(progress.with_noted(noted)),
        (None, noted) => noted,
    }
}

/// The holes of a spool's logs, as far as they are written down.
///
/// # Errors
/// As [`files`].
pub(crate) fn holes(spool: &Path) -> io::Result<Vec<HoleView>> {
    let mut found = Vec::new();
    for (lane, _, log, folder) in folders(spool)? {
        let Some(progress) = words(&folder) else { continue };
        found.extend(progress.holes.iter().map(|hole| HoleView {
            lane: lane_name(lane),
            log: log.to_string(),
            from_seq: hole.from_seq,
            to_seq: hole.to_seq,
            to_index: hole.next_index.map(|next| next.saturating_sub(1)),
            cause: format!("{:?}", hole.cause),
            acked: hole.to_seq <= progress.acked.seq,
        }));
    }
    Ok(found)
}

/// The segment files of a spool in order of lane, log and sequence.
///
/// # Errors
/// The folder cannot be read; one that is not there holds nothing.
pub(crate) fn files(spool: &Path) -> io::Result<Vec<FoundFile>> {
    let mut found = Vec::new();
    let age: Age = record::read(&spool.join(age::FILE)).ok().flatten().unwrap_or_default();
    for (.., folder) in folders(spool)? {
        let acked_seq = words(&folder).map_or(0, |progress| progress.acked.seq);
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let mut files: Vec<PathBuf> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "segment"));
        files.sort();
        for path in files {
            let Ok(mut file) = File::open(&path) else { continue };
            if let Ok(Some(head)) = Head::read(&mut file) {
                let age_ms = age.least_ms(head.log, head.before.seq + 1);
                found.push(FoundFile { path, head, acked_seq, age_ms });
            }
        }
    }
    Ok(found)
}

/// Whether an outcome of the command `number` stands in the urgent lane, the newest files first.
///
/// # Errors
/// The folder or a file cannot be read.
pub(crate) fn has_outcome(spool: &Path, number: CommandNumber) -> io::Result<bool> {
    let files = files(spool)?;
    for file in files.iter().rev().filter(|file| file.head.lane == Lane::Urgent) {
        let mut opened = BufReader::with_capacity(64 << 10, File::open(&file.path)?);
        Head::read(&mut opened)?;
        let (mut bytes, mut seq) = (Vec::new(), file.head.before.seq);
        while read_record(&mut opened, seq + 1, &mut bytes)?.is_some() {
            seq += 1;
            let Ok(chunk) = Chunk::decode(&bytes) else { break };
            // What does not decode is no outcome of ours.
            if tells_outcome(&chunk, number).unwrap_or(false) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn tells_outcome(chunk: &Chunk<'_>, number: CommandNumber) -> Result<bool, DecodeError> {
    let mut reader = OpReader::new(chunk.body, chunk.header.time_base_ns);
    while let Some(op) = reader.op()? {
        match op {
            Op::Event { kind: command_outcome::KIND, .. } => {}
            // A chunk of the urgent lane holds one fact: another kind is not looked into.
            Op::Event { .. } | Op::Row { .. } => return Ok(false),
            Op::Preamble(_)
            | Op::Define(_)
            | Op::Forget(_)
            | Op::Dropped { .. }
            | Op::KeyframeEnd { .. } => continue,
        }
        let (mut issuer, mut seq) = (None, None);
        while let Some((feature, raw)) = reader.field(&command_outcome::SPEC)? {
            match (feature, raw) {
                (command_outcome::issuer, RawValue::Plain(Value::U64(value))) => {
                    issuer = Some(value);
                }
                (command_outcome::command_seq, RawValue::Plain(Value::U64(value))) => {
                    seq = Some(value);
                }
                _ => {}
            }
        }
        if (issuer, seq) == (Some(number.issuer), Some(number.seq)) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl FoundFile {
    /// Reads the file: each chunk goes to `visit`, and what the file is comes back.
    ///
    /// # Errors
    /// The file cannot be read, or `visit` failed.
    pub(crate) fn read(
        &self,
        decoder: &mut LogDecoder,
        mut visit: impl FnMut(ChunkView) -> io::Result<()>,
    ) -> io::Result<SegmentView> {
        let mut file = BufReader::with_capacity(64 << 10, File::open(&self.path)?);
        Head::read(&mut file)?;
        let (mut bytes, mut seq) = (Vec::new(), self.head.before.seq);
        while read_record(&mut file, seq + 1, &mut bytes)?.is_some() {
            seq += 1;
            let Ok(chunk) = Chunk::decode(&bytes) else { break };
            let (ops, error) = decoder.chunk(&chunk);
            visit(ChunkView {
                lane: lane_name(self.head.lane),
                log: self.head.log.to_string(),
                seq,
                first_index: chunk.header.first_index,
                count: chunk.header.count,
                keyframe: chunk.header.flags.has(ChunkFlags::KEYFRAME),
                acked: seq <= self.acked_seq,
                bytes: bytes.len(),
                ops,
                undecoded: error.map(|error| error.to_string()),
            })?;
        }
        Ok(SegmentView {
            lane: lane_name(self.head.lane),
            log: self.head.log.to_string(),
            first_seq: self.head.before.seq + 1,
            chunks: seq - self.head.before.seq,
            bytes: fs::metadata(&self.path).map_or(0, |data| data.len()),
            acked_seq: self.acked_seq,
            age_ms: self.age_ms,
            file: self.path.display().to_string(),
        })
    }

    /// Whether it is of another log than `other`, so that a decoder starts anew.
    pub(crate) fn begins_log(&self, other: Option<&Self>) -> bool {
        other.is_none_or(|other| other.head.log != self.head.log)
    }
}
