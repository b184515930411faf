//! The bytes of a segment file: a head, then records one behind the other.
//!
//! ```text
//! head    = "LWSPOOL1", lane: u8, opens: u8, deployment, sensor, log: 16 bytes each,
//!           place before the first chunk (seq: u64 LE, next index: u64 LE, chain: 32 bytes),
//!           crc32c of all before: u32 LE
//! record  = length of the payload: u32 LE, crc32c of the payload: u32 LE, payload
//! payload = next index: u64 LE, chain after the chunk: 32 bytes, the chunk as it travels
//! ```
//!
//! Chunks of a file are dense, so a record's sequence follows from its number. The place after each
//! chunk stands beside it so that a start reads no more than the last file and hashes nothing.
//!
//! Invariant: what does not check ends the file, and nothing behind it is believed.

use std::io::{self, Read};

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::digest::Chain;
use lapwing_protocol::id::{DeploymentId, Lane, LogId, SensorId};
use lapwing_protocol::limits::CHUNK_BYTES_MAX;
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"LWSPOOL1";
/// Bytes of a head.
pub(super) const HEAD_BYTES: usize = 8 + 2 + 3 * 16 + PLACE_BYTES + 4;
const PLACE_BYTES: usize = 8 + 8 + 32;
const RECORD_HEAD_BYTES: usize = 8;
const BESIDE_BYTES: usize = 8 + 32;

/// The place right behind one chunk of a log; the twin of the core's position, as files hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The chunk's sequence; 0 is the place before the first.
    pub seq: u64,
    /// The index the next fact has.
    pub next_index: u64,
    /// The chain after the chunk.
    pub chain: Chain,
}

impl Place {
    /// The place before the first chunk of a log. Indices count from 1.
    #[must_use]
    pub fn start((deployment, sensor): (DeploymentId, SensorId), lane: Lane, log: LogId) -> Self {
        Self { seq: 0, next_index: 1, chain: Chain::start(deployment, sensor, lane, log) }
    }
}

/// Whose log a file is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) lane: Lane,
    /// Whether its first chunk decodes from nothing but itself and what follows it.
    pub(super) opens: bool,
    pub(super) deployment: DeploymentId,
    pub(super) sensor: SensorId,
    pub(super) log: LogId,
    pub(super) before: Place,
}

impl Head {
    pub(super) fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[self.lane as u8, u8::from(self.opens)]);
        for id in [self.deployment.0, self.sensor.0, self.log.0] {
            bytes.extend_from_slice(&id);
        }
        bytes.extend_from_slice(&self.before.seq.to_le_bytes());
        bytes.extend_from_slice(&self.before.next_index.to_le_bytes());
        bytes.extend_from_slice(&self.before.chain.0);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let mut head = [0; HEAD_BYTES];
        head.copy_from_slice(&bytes);
        head
    }

    /// Reads a head; `None` when it is torn or is of something else.
    pub(super) fn read(file: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEAD_BYTES];
        if read_full(file, &mut bytes)? < HEAD_BYTES {
            return Ok(None);
        }
        let mut cutter = Cutter(&bytes);
        let magic: [u8; 8] = cutter.array();
        let [lane, opens] = cutter.array();
        let (deployment, sensor, log) =
            (DeploymentId(cutter.array()), SensorId(cutter.array()), LogId(cutter.array()));
        let seq = u64::from_le_bytes(cutter.array());
        let next_index = u64::from_le_bytes(cutter.array());
        let before = Place { seq, next_index, chain: Chain(cutter.array()) };
        let checksum = u32::from_le_bytes(cutter.array());
        let lane = match lane {
            0 => Lane::Bulk,
            1 => Lane::Urgent,
            _ => return Ok(None),
        };
        let is_sound = &magic == MAGIC && checksum == crc32c::crc32c(&bytes[..HEAD_BYTES - 4]);
        let opens = opens != 0;
        Ok(is_sound.then_some(Self { lane, opens, deployment, sensor, log, before }))
    }
}

/// Cuts arrays off a slice that is known to be long enough.
struct Cutter<'a>(&'a [u8]);

impl Cutter<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (front, rest) = self.0.split_first_chunk::<N>().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *front
    }
}

/// Bytes that a chunk takes in a file.
#[must_use]
pub(super) fn record_bytes(chunk: &[u8]) -> u64 {
    (RECORD_HEAD_BYTES + BESIDE_BYTES + chunk.len()) as u64
}

/// Puts the record of `chunk` into `buffer`, in place of what was there.
pub(super) fn write_record(buffer: &mut Vec<u8>, after: &Place, chunk: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(&[0; RECORD_HEAD_BYTES]);
    buffer.extend_from_slice(&after.next_index.to_le_bytes());
    buffer.extend_from_slice(&after.chain.0);
    buffer.extend_from_slice(chunk);
    let payload = &buffer[RECORD_HEAD_BYTES..];
    // A chunk has at most 16 KiB, so its length fits.
    let length = (payload.len() as u32).to_le_bytes();
    let checksum = crc32c::crc32c(payload).to_le_bytes();
    buffer[..4].copy_from_slice(&length);
    buffer[4..RECORD_HEAD_BYTES].copy_from_slice(&checksum);
}

/// Reads the next record into `chunk`; `None` at the end of what is sound.
pub(super) fn read_record(
    file: &mut impl Read,
    seq: u64,
    chunk: &mut Vec<u8>,
) -> io::Result<Option<Place>> {
    let mut head = [0; RECORD_HEAD_BYTES];
    if read_full(file, &mut head)? < RECORD_HEAD_BYTES {
        return Ok(None);
    }
    let mut cutter = Cutter(&head);
    let length = u32::from_le_bytes(cutter.array()) as usize;
    let checksum = u32::from_le_bytes(cutter.array());
    if !(BESIDE_BYTES..=BESIDE_BYTES + CHUNK_BYTES_MAX).contains(&length) {
        return Ok(None);
    }
    chunk.resize(length, 0);
    if read_full(file, chunk)? < length || checksum != crc32c::crc32c(chunk) {
        return Ok(None);
    }
    let mut cutter = Cutter(chunk);
    let next_index = u64::from_le_bytes(cutter.array());
    let chain = Chain(cutter.array());
    chunk.drain(..BESIDE_BYTES);
    let is_it = Chunk::decode(chunk).is_ok_and(|chunk| chunk.header.seq == seq);
    Ok(is_it.then_some(Place { seq, next_index, chain }))
}

/// The place behind the last sound record of a later chunk than `seq` that stands anywhere in
/// `bytes`; none where there is no such record.
///
/// A record is looked for at each byte, and what cannot be one is passed over by its length and its
/// chunk's head before anything is summed up.
#[must_use]
pub(super) fn find_record(bytes: &[u8], seq: u64) -> Option<Place> {
    let (mut at, mut last, mut chunk) = (0, None, Vec::new());
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() > RECORD_HEAD_BYTES) {
        let known_seq = last.map_or(seq, |place: Place| place.seq);
        let candidate = candidate_seq(rest).filter(|found| *found > known_seq);
        let found = candidate.and_then(|found| {
            let mut rest = rest;
            read_record(&mut rest, found, &mut chunk).ok().flatten()
        });
        match found {
            Some(place) => {
                last = Some(place);
                at += record_bytes(&chunk) as usize;
            }
            None => at += 1,
        }
    }
    last
}

/// The sequence of the chunk that `bytes` begin with, if they may be a record.
fn candidate_seq(bytes: &[u8]) -> Option<u64> {
    let mut cutter = Cutter(bytes);
    let length = u32::from_le_bytes(cutter.array()) as usize;
    let payload = bytes.get(RECORD_HEAD_BYTES..)?.get(..length)?;
    let chunk = payload.get(BESIDE_BYTES..).filter(|chunk| chunk.len() <= CHUNK_BYTES_MAX)?;
    Some(Chunk::decode(chunk).ok()?.header.seq)
}

/// Reads until `buffer` is full or the file ends; says how much that was.
fn read_full(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
