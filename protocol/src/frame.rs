//! The envelope of everything on a connection, and the deframer that cuts a byte stream into it.
//!
//! ```text
//! | u16 LE body length | u16 LE kind (low 12 bits), flags (high 4) | body: one postcard message |
//! ```
//!
//! Invariants: a body is at most [`FRAME_BODY_BYTES_MAX`]; the deframer holds no more than the
//! buffer lent to it; what it gives out does not depend on how the stream was cut.

use serde::Serialize;

use crate::error::{BufferFull, DecodeError};
use crate::limits::{FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES};

/// Set when a receiver that does not know the kind may skip the frame.
pub const FLAG_SKIPPABLE: u16 = 0x8000;
const KIND_MASK: u16 = 0x0fff;
/// Flags without a meaning yet: a frame that sets one is refused, so that they can get one.
const FLAGS_RESERVED: u16 = 0x7000;

/// What a frame's body is: a number of the table in [`crate::message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameKind(pub u16);

/// A whole frame, borrowed from the deframer's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the body is.
    pub kind: FrameKind,
    /// Whether a receiver that does not know the kind may skip it.
    pub skippable: bool,
    /// One message.
    pub body: &'a [u8],
}

/// Writes the header for a body of `length` bytes.
///
/// # Errors
/// [`BufferFull`] when the body is longer than a frame may be.
pub fn header(
    kind: FrameKind,
    skippable: bool,
    length: usize,
) -> Result<[u8; FRAME_HEADER_BYTES], BufferFull> {
    if length > FRAME_BODY_BYTES_MAX {
        return Err(BufferFull);
    }
    let length = u16::try_from(length).map_err(|_| BufferFull)?.to_le_bytes();
    let flags = if skippable { FLAG_SKIPPABLE } else { 0 };
    let kind = (kind.0 & KIND_MASK | flags).to_le_bytes();
    Ok([length[0], length[1], kind[0], kind[1]])
}

/// Writes a whole frame with `message` as its body and returns its length.
///
/// # Errors
/// [`BufferFull`] when `buffer` or the frame bound is too small.
pub fn encode<T: Serialize + ?Sized>(
    kind: FrameKind,
    message: &T,
    buffer: &mut [u8],
) -> Result<usize, BufferFull> {
    let room = buffer.get_mut(FRAME_HEADER_BYTES..).ok_or(BufferFull)?;
    let length = crate::error::to_slice(message, room)?.len();
    let head = header(kind, false, length)?;
    buffer.get_mut(..FRAME_HEADER_BYTES).ok_or(BufferFull)?.copy_from_slice(&head);
    Ok(FRAME_HEADER_BYTES + length)
}

/// Writes a whole frame whose body is already encoded and returns its length.
///
/// # Errors
/// [`BufferFull`] when `buffer` or the frame bound is too small.
pub fn encode_body(kind: FrameKind, body: &[u8], buffer: &mut [u8]) -> Result<usize, BufferFull> {
    let head = header(kind, false, body.len())?;
    let end = FRAME_HEADER_BYTES + body.len();
    let room = buffer.get_mut(..end).ok_or(BufferFull)?;
    let (to_head, to_body) = room.split_at_mut_checked(FRAME_HEADER_BYTES).ok_or(BufferFull)?;
    to_head.copy_from_slice(&head);
    to_body.copy_from_slice(body);
    Ok(end)
}

/// Cuts a byte stream into frames inside a lent buffer.
///
/// Fill [`Self::space`] from the stream, tell [`Self::filled`], then call [`Self::next_frame`]
/// until it gives `None`. A frame longer than the bound is an error: the connection must close.
#[derive(Debug)]
pub struct Deframer<'b> {
    buffer: &'b mut [u8],
    start: usize,
    end: usize,
    frame_bytes_max: usize,
}

impl<'b> Deframer<'b> {
    /// A deframer over `buffer`, whose length is the largest frame it takes.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        let frame_bytes_max = buffer.len();
        Self { buffer, start: 0, end: 0, frame_bytes_max }
    }

    /// Bounds frames (header included) below the buffer's length, or lifts that bound again.
    pub fn limit_frames(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max.min(self.buffer.len());
    }

    /// Forgets what it holds, for another stream.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Where the next bytes of the stream go; never empty after `next_frame` gave `None`.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// Says that `length` bytes were put into [`Self::space`].
    pub fn filled(&mut self, length: usize) {
        self.end = self.end.saturating_add(length).min(self.buffer.len());
    }

    /// Takes as much of `bytes` as there is space for and returns how much that was.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let space = self.space();
        let length = space.len().min(bytes.len());
        space[..length].copy_from_slice(&bytes[..length]);
        self.filled(length);
        length
    }

    /// Whether part of a frame waits for the rest of it.
    #[must_use]
    pub fn is_midway(&self) -> bool {
        self.start < self.end
    }

    /// The next whole frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`DecodeError::Limit`] when a frame is announced that is longer than the bound,
    /// [`DecodeError::UnknownTag`] when it has a flag that means nothing.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, DecodeError> {
        let held = self.buffer.get(self.start..self.end).unwrap_or_default();
        let Some((head, rest)) = held.split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let kind = u16::from_le_bytes([head[2], head[3]]);
        let is_long =
            length > FRAME_BODY_BYTES_MAX || FRAME_HEADER_BYTES + length > self.frame_bytes_max;
        if is_long && !cfg!(mutant = "oversize_frame_read") {
            return Err(DecodeError::Limit);
        }
        if kind & FLAGS_RESERVED != 0 && !cfg!(mutant = "reserved_flags_ignored") {
            return Err(DecodeError::UnknownTag);
        }
        if rest.len() < length {
            return Ok(None);
        }
        let from = self.start + FRAME_HEADER_BYTES;
        self.start = from + length;
        Ok(Some(Frame {
            kind: FrameKind(kind & KIND_MASK),
            skippable: kind & FLAG_SKIPPABLE != 0,
            body: &self.buffer[from..from + length],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn two_frames() -> Vec<u8> {
        let mut buffer = [0; 64];
        let first = encode(FrameKind(3), &(7u8, "ab"), &mut buffer).unwrap();
        let mut stream = buffer[..first].to_vec();
        let second = encode_body(FrameKind(9), &[], &mut buffer).unwrap();
        stream.extend_from_slice(&buffer[..second]);
        stream
    }

    #[test]
    fn a_frame_has_the_written_bytes() {
        assert_eq!(two_frames(), [4, 0, 3, 0, 7, 2, b'a', b'b', 0, 0, 9, 0]);
    }

    #[test]
    fn any_cut_of_the_stream_gives_the_same_frames() {
        let stream = two_frames();
        for cut in 1..stream.len() {
            let mut buffer = [0; 16];
            let mut deframer = Deframer::new(&mut buffer);
            let mut kinds = Vec::new();
            for piece in stream.chunks(cut) {
                let mut piece = piece;
                while !piece.is_empty() {
                    let taken = deframer.feed(piece);
                    piece = &piece[taken..];
                    while let Some(frame) = deframer.next_frame().unwrap() {
                        kinds.push((frame.kind.0, frame.body.len()));
                    }
                }
            }
            assert_eq!(kinds, [(3, 4), (9, 0)], "cut {cut}");
        }
    }

    #[test]
    fn a_flag_without_a_meaning_is_refused() {
        let mut buffer = [0; 16];
        let mut deframer = Deframer::new(&mut buffer);
        deframer.feed(&[0, 0, 1, 0x10]);
        assert_eq!(deframer.next_frame(), Err(DecodeError::UnknownTag));
    }

    #[test]
    fn one_byte_over_the_bound_is_refused() {
        let mut buffer = [0; 16];
        let mut deframer = Deframer::new(&mut buffer);
        deframer.feed(&[13, 0, 1, 0]);
        assert_eq!(deframer.next_frame(), Err(DecodeError::Limit));
        let mut buffer = [0; 16];
        let mut deframer = Deframer::new(&mut buffer);
        deframer.feed(&[12, 0, 1, 0]);
        assert_eq!(deframer.next_frame(), Ok(None));
    }
}
