//! Where the rows of the MalOps are, and how long records are split into parts.
//!
//! | key | value |
//! |---|---|
//! | `m`, MalOp, part | a [`Group`](super::Group): a MalOp, or a cause under suspicion |
//! | `b`, number, part | an evidence: part 0 its id, the others its bytes while it is kept |
//! | `i`, evidence | the evidence's number |
//! | `k`, MalOp, number, part | a [`Comment`](super::Comment) |
//! | `n` | how far numbers went |
//! | `c`, server | of the shell: how far that server's feed was read |
//! | `f` | of the shell: the incarnation of the feed of changes |
//!
//! Numbers are big endian. Invariant: the parts of a record are neighbours, dense from 0.

use lapwing_protocol::id::{EvidenceId, MalOpId};

use super::limits::PART_BYTES_MAX;
use crate::rows::Row;

const GROUP: u8 = b'm';
const BODY: u8 = b'b';
const IDENTITY: u8 = b'i';
const COMMENT: u8 = b'k';

/// Before every group's key, and behind it.
pub const GROUPS: [&[u8]; 2] = [&[GROUP], &[GROUP + 1]];
/// The key of the numbers.
pub const NUMBERS: &[u8] = b"n";

/// Of the number of an evidence: it is there when the evidence was counted.
#[must_use]
pub fn identity(evidence: EvidenceId) -> Vec<u8> {
    [&[IDENTITY][..], &evidence.0].concat()
}

/// Before the parts of the evidences from number `from` to before `to`, and behind them.
#[must_use]
pub fn bodies(from: u64, to: u64) -> [Vec<u8>; 2] {
    [body(from), body(to)]
}

/// Before the comments of a MalOp, and behind them.
#[must_use]
pub fn comments(malop: MalOpId) -> [Vec<u8>; 2] {
    let from = [&[COMMENT][..], &malop.0].concat();
    let to = [&from[..], &[0xff; 6]].concat();
    [from, to]
}

pub(super) fn group(malop: MalOpId) -> Vec<u8> {
    [&[GROUP][..], &malop.0].concat()
}

pub(super) fn body(number: u64) -> Vec<u8> {
    [&[BODY][..], &number.to_be_bytes()].concat()
}

pub(super) fn comment(malop: MalOpId, number: u32) -> Vec<u8> {
    [&[COMMENT][..], &malop.0, &number.to_be_bytes()].concat()
}

/// The key of one part of the record under `record`.
pub(super) fn part(record: &[u8], part: u16) -> Vec<u8> {
    [record, &part.to_be_bytes()].concat()
}

/// The record and the part of a key.
pub(super) fn split_part(key: &[u8]) -> Option<(&[u8], u16)> {
    let (record, part) = key.split_last_chunk::<2>()?;
    Some((record, u16::from_be_bytes(*part)))
}

/// Puts `bytes` under `record` in parts, from part `first` on; gives the part behind the last.
pub(super) fn put_parts(rows: &mut Vec<Row>, record: &[u8], (first, bytes): (u16, &[u8])) -> u16 {
    let mut parts = first;
    for chunk in bytes.chunks(PART_BYTES_MAX) {
        rows.push(Row { key: part(record, parts), value: Some(chunk.to_vec()) });
        parts += 1;
    }
    parts
}

/// Removes the parts `from..to` of `record`.
pub(super) fn remove_parts(rows: &mut Vec<Row>, record: &[u8], from: u16, to: u16) {
    rows.extend((from..to).map(|number| Row::remove(part(record, number))));
}

/// Puts the records together of which `entries` are the parts, in the order of their keys. A part
/// without those before it is left out with its record.
#[must_use]
pub fn join_parts(entries: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for (stored_at, value) in entries {
        match (split_part(&stored_at), records.last_mut()) {
            (Some((record, 0)), _) => records.push((record.to_vec(), value)),
            (Some((record, _)), Some((last, bytes))) if *last == record => bytes.extend(value),
            _ => {}
        }
    }
    records
}
