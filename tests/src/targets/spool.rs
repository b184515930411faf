//! A sensor's spool over a disk that gave back other bytes than were written.
//!
//! Laws: opening never fails for what is in a file, and never panics; a chunk that comes back is
//! the one that was appended, byte for byte; what is missing is behind all that is there, or can be
//! announced as a hole.
#![allow(clippy::expect_used, reason = "a law that does not hold is a panic")]

use std::fs;
use std::path::{Path, PathBuf};

use lapwing_protocol::chunk::{Chunk, ChunkFlags, ChunkHeader};
use lapwing_protocol::hello::LogCause;
use lapwing_protocol::id::{DeploymentId, Lane, LogId, SensorId};
use lapwing_protocol::op::ENCODING_PLAIN_ROWS;
use lapwing_sensor_os::config::Sync;
use lapwing_sensor_os::spool::{Place, Spool, SpoolOptions};

use super::input::Input;

const IDS: (DeploymentId, SensorId) = (DeploymentId([1; 16]), SensorId([2; 16]));
const LOG: LogId = LogId([3; 16]);
const OPTIONS: SpoolOptions =
    SpoolOptions { bytes_max: 1 << 20, age_ms_max: u64::MAX, sync: Sync::Interval };
/// Two segments of three chunks.
const CHUNKS: u64 = 6;
const SEGMENT_CHUNKS: u64 = 3;

/// Any change to any file of a spool: bytes replaced, a tail cut off, bytes added.
///
/// Repeated: which file, what is done, where, with what.
pub fn spool(data: &[u8]) {
    let folder = tempfile::tempdir_in(memory_folder()).expect("a folder for the spool");
    let folder = folder.path().join("spool");
    let chunks = write(&folder);
    let mut input = Input::new(data);
    let is_clean = input.flag();
    for _ in 0..8 {
        if input.is_over() {
            break;
        }
        damage(&folder, &mut input);
    }
    if !is_clean {
        let _ = fs::remove_file(folder.join("clean"));
    }
    check(&folder, &chunks);
}

/// Where files cost no disk.
pub(super) fn memory_folder() -> PathBuf {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared.into() } else { std::env::temp_dir() }
}

fn write(folder: &Path) -> Vec<Vec<u8>> {
    let mut spool = Spool::open(folder, IDS, OPTIONS).expect("a new folder");
    let state = spool.open_log(Lane::Bulk, LOG, LogCause::First, None).expect("a new log");
    let mut place = state.made;
    let mut chunks = Vec::new();
    for seq in 1..=CHUNKS {
        let opens = (seq - 1).is_multiple_of(SEGMENT_CHUNKS);
        let keyframe = ChunkFlags::KEYFRAME | ChunkFlags::KEYFRAME_LAST;
        let header = ChunkHeader {
            flags: ChunkFlags(if opens { keyframe } else { 0 }),
            encoding: ENCODING_PLAIN_ROWS,
            seq,
            first_index: place.next_index,
            count: 2,
            part: 0,
            time_base_ns: seq,
            digest: [0; 4],
        };
        let mut buffer = [0; 256];
        let body = [seq as u8; 20];
        let bytes =
            Chunk { header, body: &body }.encode(&mut buffer).expect("it is small").to_vec();
        place = Place { seq, next_index: place.next_index + 2, chain: place.chain.next(&bytes) };
        spool.append(seq, &bytes, place).expect("there is room");
        chunks.push(bytes);
    }
    spool.close().expect("a clean end");
    chunks
}

fn damage(folder: &Path, input: &mut Input<'_>) {
    let mut files = Vec::new();
    list(folder, &mut files);
    files.sort();
    if files.is_empty() {
        return;
    }
    let file = &files[usize::from(input.byte()) % files.len()];
    let Ok(mut bytes) = fs::read(file) else { return };
    let at = usize::from(u16::from_le_bytes(input.array())) % (bytes.len() + 1);
    match input.below(5) {
        0 => bytes.truncate(at),
        1 => bytes.extend_from_slice(input.bytes(32)),
        2 => bytes = input.bytes(255).to_vec(),
        3 => {
            let _ = fs::remove_file(file);
            return;
        }
        _ => {
            for (byte, new) in bytes[at..].iter_mut().zip(input.bytes(16)) {
                *byte = *new;
            }
        }
    }
    fs::write(file, bytes).expect("the file can be written");
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { list(&path, files) } else { files.push(path) }
    }
}

fn check(folder: &Path, chunks: &[Vec<u8>]) {
    let mut spool = Spool::open(folder, IDS, OPTIONS).expect("a damaged spool opens");
    let states = [spool.current(Lane::Bulk), spool.tail(Lane::Bulk)];
    for state in states.into_iter().flatten().filter(|state| state.log == LOG) {
        let key = (state.lane, state.log);
        assert!(state.made.seq <= CHUNKS || spool.damaged() > 0, "{} chunks", state.made.seq);
        for seq in state.first_seq..=state.made.seq.min(CHUNKS) {
            let mut found = Vec::new();
            match spool.fetch(key, seq, &mut found) {
                Ok(Some(place)) => {
                    assert_eq!(place.seq, seq);
                    assert_eq!(found, chunks[seq as usize - 1], "chunk {seq} comes back as it was");
                }
                Ok(None) => {
                    let hole = spool.handle_damage(key, seq).expect("the hole is kept");
                    let run = hole.from_seq..=hole.to_seq;
                    assert!(run.contains(&seq), "a hole that holds {seq}: {run:?}");
                }
                Err(_) => {}
            }
            drop(spool.behind(key, seq));
            drop(spool.before_segment_of(key, seq));
        }
    }
}
