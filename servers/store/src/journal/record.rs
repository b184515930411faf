//! The journal's keys and records as bytes. `docs/store.md` (STO-030 and following) is their
//! normative description; a change here is a new format version.
//!
//! Invariants: keys are big endian so that they sort by number; records are little endian; a record
//! that does not decode is damage, never a panic.

use crate::limits::VALUE_BYTES_MAX;
use crate::parts::{part_key, split_parts};

pub(crate) const ENTRY: u8 = b'c';
pub(crate) const HEAD: u8 = b'h';
pub(crate) const INDEX: u8 = b'i';
pub(crate) const META: &[u8] = b"m";
pub(crate) const PARTITION: u8 = b'p';

/// The segment number under which the index keeps the last commit of a log that was left.
pub(crate) const SEGMENT_END: u64 = u64::MAX;

/// Bytes of an entry's first part before header and body.
const ENTRY_FIXED_BYTES: usize = 16 + 1 + 16 + 8 + 8 + 8 + 8 + 2 + 4;

/// One lane of one sensor: what a head belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneKey {
    /// The sensor's id.
    pub sensor: [u8; 16],
    /// The lane.
    pub lane: u8,
}

/// One log of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogKey {
    /// Sensor and lane.
    pub lane: LaneKey,
    /// The log's id.
    pub log: [u8; 16],
}

/// An entry of the journal, as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key: dense, from 1.
    pub commit_id: u64,
    /// The log it belongs to.
    pub log: LogKey,
    /// The segment of that log.
    pub segment: u64,
    /// The commit id that opened that segment; its own if it did.
    pub segment_start: u64,
    /// The commit id of the entry before it in the same log and visit to that log; 0 if none.
    pub previous: u64,
    /// When it was received, by the caller's wall clock, in milliseconds since 1970.
    pub received_wall_ms: u64,
    /// The caller's header.
    pub header: Vec<u8>,
    /// The caller's body, as received.
    pub body: Vec<u8>,
}

/// A head: where one lane of one sensor stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The log of the last entry.
    pub log: [u8; 16],
    /// The segment of the last entry.
    pub segment: u64,
    /// The commit id that opened that segment.
    pub segment_start: u64,
    /// The commit id of the last entry.
    pub last_commit: u64,
    /// The caller's record.
    pub record: Vec<u8>,
}

/// The journal's own record, in every partition; its presence says that the partition is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) incarnation: [u8; 16],
    pub(crate) boots: u64,
}

/// A partition in the table that every partition carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartitionRecord {
    /// The first commit id behind it; 0 while it is the newest.
    pub(crate) end: u64,
    pub(crate) opened_wall_ms: u64,
    /// Its size on disk when it was closed.
    pub(crate) bytes: u64,
}

pub(crate) fn entry_key(commit_id: u64, part: u16) -> [u8; 11] {
    part_key(ENTRY, commit_id, part)
}

pub(crate) fn head_key(lane: &LaneKey) -> [u8; 18] {
    let mut key = [HEAD; 18];
    key[1..17].copy_from_slice(&lane.sensor);
    key[17] = lane.lane;
    key
}

pub(crate) fn index_key(log: &LogKey, segment: u64) -> [u8; 42] {
    let mut key = [INDEX; 42];
    key[1..17].copy_from_slice(&log.lane.sensor);
    key[17] = log.lane.lane;
    key[18..34].copy_from_slice(&log.log);
    key[34..].copy_from_slice(&segment.to_be_bytes());
    key
}

pub(crate) fn partition_key(first: u64) -> [u8; 9] {
    let mut key = [PARTITION; 9];
    key[1..].copy_from_slice(&first.to_be_bytes());
    key
}

pub(crate) fn commit_of_entry_key(key: &[u8]) -> Option<(u64, u16)> {
    let mut rest = key.strip_prefix(&[ENTRY])?;
    let commit_id = u64::from_be_bytes(take(&mut rest)?);
    let part = u16::from_be_bytes(take(&mut rest)?);
    rest.is_empty().then_some((commit_id, part))
}

pub(crate) fn lane_of_head_key(key: &[u8]) -> Option<LaneKey> {
    let mut rest = key.strip_prefix(&[HEAD])?;
    let sensor = take(&mut rest)?;
    let [lane] = take(&mut rest)?;
    rest.is_empty().then_some(LaneKey { sensor, lane })
}

pub(crate) fn first_of_partition_key(key: &[u8]) -> Option<u64> {
    let mut rest = key.strip_prefix(&[PARTITION])?;
    let first = u64::from_be_bytes(take(&mut rest)?);
    rest.is_empty().then_some(first)
}

pub(crate) fn segment_of_index_key(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.last_chunk::<8>()?))
}

/// What an entry's first part says before header and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryFixed {
    pub(crate) log: LogKey,
    pub(crate) segment: u64,
    pub(crate) segment_start: u64,
    pub(crate) previous: u64,
    pub(crate) received_wall_ms: u64,
    header_bytes: u16,
    body_bytes: u32,
}

/// Shows the values of an entry's parts in order: the first holds the fixed fields, the header
/// and what fits of the body. The caller has checked the bounds of header and body.
pub(crate) fn entry_parts<E>(
    entry: &Entry,
    mut put: impl FnMut(u16, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut first = Vec::with_capacity(
        VALUE_BYTES_MAX.min(ENTRY_FIXED_BYTES + entry.header.len() + entry.body.len()),
    );
    first.extend_from_slice(&entry.log.lane.sensor);
    first.push(entry.log.lane.lane);
    first.extend_from_slice(&entry.log.log);
    first.extend_from_slice(&entry.segment.to_le_bytes());
    first.extend_from_slice(&entry.segment_start.to_le_bytes());
    first.extend_from_slice(&entry.previous.to_le_bytes());
    first.extend_from_slice(&entry.received_wall_ms.to_le_bytes());
    first.extend_from_slice(&(entry.header.len() as u16).to_le_bytes());
    first.extend_from_slice(&(entry.body.len() as u32).to_le_bytes());
    first.extend_from_slice(&entry.header);
    let room = VALUE_BYTES_MAX - first.len();
    for (part, bytes) in (0..).zip(split_parts(&entry.body, room)) {
        if part == 0 {
            first.extend_from_slice(bytes);
            put(0, &first)?;
        } else {
            put(part, bytes)?;
        }
    }
    Ok(())
}

/// The fixed fields of a first part, and its rest.
pub(crate) fn entry_fixed(part: &[u8]) -> Option<(EntryFixed, &[u8])> {
    let mut rest = part;
    let sensor = take(&mut rest)?;
    let [lane] = take(&mut rest)?;
    let fixed = EntryFixed {
        log: LogKey { lane: LaneKey { sensor, lane }, log: take(&mut rest)? },
        segment: u64::from_le_bytes(take(&mut rest)?),
        segment_start: u64::from_le_bytes(take(&mut rest)?),
        previous: u64::from_le_bytes(take(&mut rest)?),
        received_wall_ms: u64::from_le_bytes(take(&mut rest)?),
        header_bytes: u16::from_le_bytes(take(&mut rest)?),
        body_bytes: u32::from_le_bytes(take(&mut rest)?),
    };
    Some((fixed, rest))
}

/// Rebuilds one entry from its parts in order.
#[derive(Debug)]
pub(crate) struct Assembly {
    entry: Entry,
    body_bytes: usize,
    next_part: u16,
}

impl Assembly {
    /// Begins with the first part's value.
    pub(crate) fn begin(commit_id: u64, value: &[u8]) -> Option<Self> {
        let (fixed, rest) = entry_fixed(value)?;
        let (header, body) = rest.split_at_checked(usize::from(fixed.header_bytes))?;
        let body_bytes = fixed.body_bytes as usize;
        let entry = Entry {
            commit_id,
            log: fixed.log,
            segment: fixed.segment,
            segment_start: fixed.segment_start,
            previous: fixed.previous,
            received_wall_ms: fixed.received_wall_ms,
            header: header.to_vec(),
            body: body.to_vec(),
        };
        (body.len() <= body_bytes).then_some(Self { entry, body_bytes, next_part: 1 })
    }

    /// Adds a further part; false if it does not belong here.
    pub(crate) fn add(&mut self, commit_id: u64, part: u16, value: &[u8]) -> bool {
        let fits = commit_id == self.entry.commit_id
            && part == self.next_part
            && self.entry.body.len() + value.len() <= self.body_bytes;
        if fits {
            self.entry.body.extend_from_slice(value);
            self.next_part += 1;
        }
        fits
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.entry.body.len() == self.body_bytes
    }

    pub(crate) fn into_entry(self) -> Entry {
        self.entry
    }
}

impl Head {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(40 + self.record.len());
        bytes.extend_from_slice(&self.log);
        for number in [self.segment, self.segment_start, self.last_commit] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.record);
        bytes
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        Some(Self {
            log: take(rest)?,
            segment: u64::from_le_bytes(take(rest)?),
            segment_start: u64::from_le_bytes(take(rest)?),
            last_commit: u64::from_le_bytes(take(rest)?),
            record: rest.to_vec(),
        })
    }
}

impl Meta {
    pub(crate) fn encode(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.incarnation);
        bytes[16..].copy_from_slice(&self.boots.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        Some(Self { incarnation: take(rest)?, boots: u64::from_le_bytes(take(rest)?) })
    }
}

impl PartitionRecord {
    pub(crate) fn encode(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.end.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.opened_wall_ms.to_le_bytes());
        bytes[16..].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        Some(Self {
            end: u64::from_le_bytes(take(rest)?),
            opened_wall_ms: u64::from_le_bytes(take(rest)?),
            bytes: u64::from_le_bytes(take(rest)?),
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (chunk, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> LogKey {
        LogKey { lane: LaneKey { sensor: [0x11; 16], lane: 1 }, log: [0x22; 16] }
    }

    #[test]
    fn keys_are_frozen() {
        assert_eq!(entry_key(0x0102, 3), *b"c\0\0\0\0\0\0\x01\x02\0\x03");
        assert_eq!(&head_key(&log().lane)[..2], b"h\x11");
        assert_eq!(head_key(&log().lane)[17], 1);
        assert_eq!(&index_key(&log(), 5)[33..], b"\x22\0\0\0\0\0\0\0\x05");
        assert_eq!(partition_key(9), *b"p\0\0\0\0\0\0\0\x09");
        assert_eq!(commit_of_entry_key(&entry_key(77, 8)), Some((77, 8)));
        assert_eq!(lane_of_head_key(&head_key(&log().lane)), Some(log().lane));
        assert_eq!(first_of_partition_key(&partition_key(9)), Some(9));
        assert_eq!(segment_of_index_key(&index_key(&log(), 5)), Some(5));
    }

    #[test]
    fn entries_of_every_size_survive_their_parts() {
        for (header, body) in
            [(0, 0), (1, 1), (1024, 3003), (1024, 3004), (1024, 3005), (60, 16_384), (60, 262_144)]
        {
            let entry = Entry {
                commit_id: 7,
                log: log(),
                segment: 3,
                segment_start: 5,
                previous: 6,
                received_wall_ms: 1_700_000_000_000,
                header: vec![1; header],
                body: (0..body).map(|n: u32| n.to_le_bytes()[0]).collect(),
            };
            let mut assembly: Option<Assembly> = None;
            entry_parts::<()>(&entry, |part, value| {
                assert!(value.len() <= VALUE_BYTES_MAX);
                match &mut assembly {
                    None => assembly = Assembly::begin(7, value),
                    Some(assembly) => {
                        assert!(!assembly.is_complete());
                        assert!(assembly.add(7, part, value));
                    }
                }
                Ok(())
            })
            .unwrap();
            let assembly = assembly.unwrap();
            assert!(assembly.is_complete());
            assert_eq!(assembly.into_entry(), entry);
        }
    }

    #[test]
    fn short_records_are_no_records() {
        assert_eq!(Meta::decode(&[0; 23]), None);
        assert_eq!(Head::decode(&[0; 39]), None);
        assert!(Assembly::begin(1, &[0; 70]).is_none());
        let head =
            Head { log: [1; 16], segment: 2, segment_start: 3, last_commit: 4, record: vec![5] };
        assert_eq!(Head::decode(&head.encode()), Some(head));
    }
}
