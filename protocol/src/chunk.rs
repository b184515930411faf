//! A chunk: a bounded, numbered run of ops, and the unit of spooling, sending and acknowledging.
//!
//! A chunk's bytes (header and body) are made once, by the sensor, and never change: the same
//! bytes are spooled, framed, chained and journalled, to whichever server they go. The log is not
//! named in them: it is fixed by the session (Hello) or the segment, and it seeds the chain.

use serde::{Deserialize, Serialize};

use crate::error::{BufferFull, DecodeError, from_bytes, to_slice};
use crate::id::Lane;
use crate::limits::{CHUNK_BYTES_MAX, CHUNK_FACTS_MAX, SEQ_MAX};

/// What sort of chunk it is, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkFlags(pub u8);

impl ChunkFlags {
    /// The chunk is of the urgent lane.
    pub const URGENT: u8 = 1;
    /// The chunk is a part of a keyframe; its Puts are not facts.
    pub const KEYFRAME: u8 = 2;
    /// The chunk is the last part of a keyframe: the receiver takes over the new table.
    pub const KEYFRAME_LAST: u8 = 4;
    /// The chunk decodes from nothing but itself: literals and whole rows only.
    pub const SELF_CONTAINED: u8 = 8;
    /// All flags that mean something.
    pub const KNOWN: u8 = 15;

    /// Whether all bits of `flags` are set.
    #[must_use]
    pub const fn has(self, flags: u8) -> bool {
        self.0 & flags == flags
    }

    /// The lane the chunk is of.
    #[must_use]
    pub const fn lane(self) -> Lane {
        if self.has(Self::URGENT) { Lane::Urgent } else { Lane::Bulk }
    }

    /// Whether decoding may start at this chunk.
    #[must_use]
    pub const fn opens(self, part: u16) -> bool {
        self.has(Self::SELF_CONTAINED) || self.has(Self::KEYFRAME) && part == 0
    }
}

/// The head of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkHeader {
    /// Lane, keyframe, self-contained.
    pub flags: ChunkFlags,
    /// How the body is encoded; 1 is [`crate::op`].
    pub encoding: u8,
    /// Its number in the log, dense from 1.
    pub seq: u64,
    /// Index of its first fact; with no facts, of the next one.
    pub first_index: u64,
    /// How many facts (indices) it covers.
    pub count: u64,
    /// Its number within a keyframe, from 0; 0 otherwise.
    pub part: u16,
    /// Monotonic nanoseconds since boot that times in the body count from.
    pub time_base_ns: u64,
    /// Low 4 bytes, little-endian, of the state digest after this chunk.
    pub digest: [u8; 4],
}

/// A chunk: header and opaque body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk<'a> {
    /// The head.
    pub header: ChunkHeader,
    /// The ops, encoded as the header says.
    pub body: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// Reads the bytes of a chunk and checks its bounds, not its ops.
    ///
    /// # Errors
    /// [`DecodeError::Limit`] beyond a bound, else what the bytes lack.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.len() > CHUNK_BYTES_MAX {
            return Err(DecodeError::Limit);
        }
        let chunk: Self = from_bytes(bytes)?;
        let header = &chunk.header;
        // A Dropped op may stand for any number of facts, so only the sum is bounded.
        let is_numbered = (1..=SEQ_MAX).contains(&header.seq);
        if !is_numbered || header.first_index.checked_add(header.count).is_none() {
            return Err(DecodeError::Limit);
        }
        Ok(chunk)
    }

    /// Writes the bytes of the chunk into `buffer`.
    ///
    /// # Errors
    /// [`BufferFull`] when it is longer than `buffer` or than a chunk may be.
    pub fn encode<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b mut [u8], BufferFull> {
        let length = buffer.len().min(CHUNK_BYTES_MAX);
        to_slice(self, buffer.get_mut(..length).ok_or(BufferFull)?)
    }

    /// The index behind the last fact of this chunk.
    #[must_use]
    pub const fn next_index(&self) -> u64 {
        self.header.first_index.saturating_add(self.header.count)
    }
}

const _: () = assert!(CHUNK_FACTS_MAX < u16::MAX as u64);
