//! A chunk: its header, and its body as bytes (docs/protocol.md, "Chunk").
//!
//! Not here: the ops in the body (`op.rs`).

use super::message::Lane;
use super::primitive::{Malformed, Reader, Wire, Writer};

/// Flag URGENT.
pub const URGENT: u8 = 1;
/// Flag KEYFRAME.
pub const KEYFRAME: u8 = 2;
/// Flag KEYFRAME_LAST.
pub const KEYFRAME_LAST: u8 = 4;
/// Flag SELF_CONTAINED.
pub const SELF_CONTAINED: u8 = 8;
/// The encoding that this page describes.
pub const PLAIN_ROWS: u8 = 1;
/// LIM-010.
pub const CHUNK_BYTES_MAX: usize = 16_384;

/// A chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// URGENT, KEYFRAME, KEYFRAME_LAST, SELF_CONTAINED.
    pub flags: u8,
    /// How the body is written.
    pub encoding: u8,
    /// Its number in the log, from 1.
    pub seq: u64,
    /// Index of its first fact.
    pub first_index: u64,
    /// Facts covered.
    pub count: u64,
    /// Number within a keyframe.
    pub part: u16,
    /// Monotonic nanoseconds that times in the body count from.
    pub base: u64,
    /// Low half of the state digest after it.
    pub digest: [u8; 4],
    /// The ops.
    pub body: Vec<u8>,
}

impl Chunk {
    /// Which lane it is of (LOG-020).
    #[must_use]
    pub fn lane(&self) -> Lane {
        if self.flags & URGENT == 0 { Lane::Bulk } else { Lane::Urgent }
    }

    /// Whether decoding may begin with it (DLV-011).
    #[must_use]
    pub fn opens(&self) -> bool {
        self.flags & SELF_CONTAINED != 0 || (self.flags & KEYFRAME != 0 && self.part == 0)
    }
}

impl Wire for Chunk {
    fn write(&self, to: &mut Writer) {
        to.raw(&[self.flags, self.encoding]);
        for number in [self.seq, self.first_index, self.count, u64::from(self.part), self.base] {
            to.varint(number);
        }
        to.raw(&self.digest);
        to.bytes(&self.body);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (flags, encoding) = (from.byte()?, from.byte()?);
        let [seq, first_index, count] = [from.varint(64)?, from.varint(64)?, from.varint(64)?];
        let part = u16::read(from)?;
        let base = from.varint(64)?;
        let digest = Wire::read(from)?;
        let body = from.bytes()?.to_vec();
        Ok(Self { flags, encoding, seq, first_index, count, part, base, digest, body })
    }
}
