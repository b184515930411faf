//! One small value in a file: version, checksum, postcard.
//!
//! ```text
//! version: u8 = 1, crc32c of the rest: u32 LE, one postcard value
//! ```
//!
//! Invariant: a value that comes back is the one that was written.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::durable_file::{self, Access, Durability};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 5;
/// Two certificates of 4 KiB and what is around them.
pub(crate) const BYTES_MAX: usize = 16 << 10;

/// Why a value did not come back.
#[derive(Debug)]
pub(crate) enum RecordError {
    /// The file system refuses.
    File(io::Error),
    /// The bytes are not what was written.
    Damaged,
}

/// Makes `value` durable under `path`.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_as(path, value, Durability::PowerCut)
}

/// Writes `value` under `path`, as durable as is asked.
pub(crate) fn write_as<T: Serialize>(
    path: &Path,
    value: &T,
    durability: Durability,
) -> io::Result<()> {
    durable_file::write(path, &encode(value)?, Access::Owner, durability)
}

/// The bytes of a file that holds `value`.
pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; BYTES_MAX];
    let length = lapwing_protocol::error::to_slice(value, &mut bytes[HEAD_BYTES..])
        .map_err(io::Error::other)?
        .len();
    bytes.truncate(HEAD_BYTES + length);
    bytes[0] = VERSION;
    let checksum = crc32c::crc32c(&bytes[HEAD_BYTES..]).to_le_bytes();
    bytes[1..HEAD_BYTES].copy_from_slice(&checksum);
    Ok(bytes)
}

/// The value under `path`; `None` when there is no such file.
pub(crate) fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, RecordError> {
    let bytes = durable_file::read(path, BYTES_MAX as u64).map_err(RecordError::File)?;
    bytes.map(|bytes| decode(&bytes)).transpose()
}

/// The value in the bytes of a file.
pub(crate) fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, RecordError> {
    let (head, body) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(RecordError::Damaged)?;
    let checksum = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    if head[0] != VERSION || checksum != crc32c::crc32c(body) {
        return Err(RecordError::Damaged);
    }
    lapwing_protocol::error::from_bytes(body).map_err(|_| RecordError::Damaged)
}
