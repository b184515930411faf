//! What an earlier start left of a log: its files, how far the last one goes, and what is damaged.
//!
//! A file may end anywhere, for whatever ended its writer. But where sound records stand behind
//! what is not one, the disk lost something in between; the places that stand beside the chunks say
//! how much. Not here: what is announced of it. Invariant: nothing is believed that does not check.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};

use lapwing_protocol::id::{DeploymentId, Lane, LogId, SensorId};

use super::disk::Disk;
use super::format::{HEAD_BYTES, Head, Place, find_record, read_record, record_bytes};
use super::log_folder::Segment;

pub(super) const SUFFIX: &str = ".segment";
/// Bytes of a last file that are looked through for records behind damage: several segments.
const SEARCHED_BYTES_MAX: u64 = 16 << 20;

/// How a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a whole record.
    Whole,
    /// With something that was never whole.
    Torn,
    /// With damage: this is the last place of which there is word, and all up to it is lost.
    Damaged(Place),
    /// With damage of which nobody knows how much it took; the last file was to begin behind this
    /// chunk.
    Unknown(u64),
}

/// The files of a log, oldest first; what lies within another file's part counts to the later one.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) segments: VecDeque<Segment>,
    /// The newest file without a sound head, and the first chunk that its name speaks of.
    broken: Option<(u64, PathBuf)>,
    /// Whether there is any such file.
    pub(super) is_cut: bool,
}

pub(super) fn find_files(
    disk: &dyn Disk,
    folder: &Path,
    owner: (DeploymentId, SensorId),
    (lane, log): (Lane, LogId),
) -> io::Result<Files> {
    let (mut found, mut files) = (Vec::new(), Files::default());
    for path in disk.list(folder)? {
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension == Some("copy") {
            // A copy that never took its place.
            let _ = disk.remove(&path);
        }
        if extension != Some("segment") {
            continue;
        }
        let expected = (owner.0, owner.1, lane, log);
        match Head::read(&mut disk.open(&path)?)? {
            Some(head) if (head.deployment, head.sensor, head.lane, head.log) == expected => {
                let bytes = disk.length(&path)?;
                let Head { before, opens, .. } = head;
                found.push(Segment { before, opens, last_seq: before.seq, bytes });
            }
            // Of another sensor or log: nothing that was lost here.
            Some(_) => files.is_cut = true,
            None => {
                files.is_cut = true;
                let name = path.file_stem().and_then(|stem| stem.to_str());
                let first_seq = name.and_then(|name| name.parse().ok()).unwrap_or(0);
                if files.broken.as_ref().is_none_or(|(known, _)| *known <= first_seq) {
                    files.broken = Some((first_seq, path));
                }
            }
        }
    }
    found.sort_by_key(|segment| segment.before.seq);
    for at in 1..found.len() {
        found[at - 1].last_seq = found[at].before.seq;
    }
    files.segments = found.into();
    Ok(files)
}

/// Reads the last file to its end: the place behind its last whole record, and what follows it. A
/// newer file without a head is looked through for records too.
pub(super) fn read_end(
    disk: &dyn Disk,
    files: &Files,
    start: Place,
    path_of: impl Fn(u64) -> PathBuf,
) -> io::Result<(Place, End)> {
    let (mut made, mut end) = (start, End::Whole);
    if let Some(last) = files.segments.back() {
        let mut file = BufReader::with_capacity(64 << 10, disk.open(&path_of(last.first_seq()))?);
        Head::read(&mut file)?;
        (made, end) = scan(&mut file, last.before, last.bytes - HEAD_BYTES as u64)?;
    }
    let last_seq = if let End::Damaged(place) = end { place.seq } else { made.seq };
    let Some((first_seq, path)) = &files.broken else { return Ok((made, end)) };
    if *first_seq <= last_seq {
        return Ok((made, if end == End::Whole { End::Torn } else { end }));
    }
    let bytes = disk.length(path)?;
    let mut rest = Vec::new();
    disk.open(path)?.take(SEARCHED_BYTES_MAX).read_to_end(&mut rest)?;
    let end = match find_record(&rest, last_seq) {
        Some(place) => End::Damaged(place),
        None if bytes > HEAD_BYTES as u64 => End::Unknown(first_seq.saturating_sub(1)),
        None if end == End::Whole => End::Torn,
        None => end,
    };
    Ok((made, end))
}

/// Reads records from `before` on: the place behind the last whole one, and what follows it.
fn scan(file: &mut impl io::Read, before: Place, bytes: u64) -> io::Result<(Place, End)> {
    // What ends the records is looked through, so it is kept as it is read.
    let mut kept = Kept { file, bytes: Vec::new() };
    let (mut chunk, mut made, mut read) = (Vec::new(), before, 0);
    loop {
        kept.bytes.clear();
        let Some(place) = read_record(&mut kept, made.seq + 1, &mut chunk)? else { break };
        made = place;
        read += record_bytes(&chunk);
    }
    if read >= bytes {
        return Ok((made, End::Whole));
    }
    let Kept { file, bytes: mut rest } = kept;
    file.take(SEARCHED_BYTES_MAX).read_to_end(&mut rest)?;
    let end = find_record(&rest, made.seq).map_or(End::Torn, End::Damaged);
    Ok((made, end))
}

/// Keeps what is read.
struct Kept<'f, R> {
    file: &'f mut R,
    bytes: Vec<u8>,
}

impl<R: io::Read> io::Read for Kept<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.bytes.extend_from_slice(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}
