//! Frames (docs/protocol.md, "Framing"): four bytes of head, then one message.
//!
//! Not here: what a body means. A cutter of frames is fed with bytes in any pieces.

/// A receiver that does not know the kind goes on without it (FRM-002).
pub const SKIPPABLE: u16 = 0x8000;
/// Flags that must be 0 (FRM-003).
pub const RESERVED: [u16; 3] = [0x1000, 0x2000, 0x4000];

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The low 12 bits.
    pub kind: u16,
    /// The high 4 bits, in their place.
    pub flags: u16,
    /// The message.
    pub body: Vec<u8>,
}

impl Frame {
    /// A frame without flags.
    #[must_use]
    pub fn new(kind: u16, body: Vec<u8>) -> Self {
        Self { kind, flags: 0, body }
    }

    /// Its bytes. A body beyond 65,535 bytes is cut: it cannot be said.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = u16::try_from(self.body.len()).unwrap_or(u16::MAX);
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(&(self.kind | self.flags).to_le_bytes());
        bytes.extend_from_slice(&self.body[..usize::from(length)]);
        bytes
    }
}

/// The head alone of a frame: a length that is promised and never kept.
#[must_use]
pub fn head(length: u16, kind: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (length.to_le_bytes(), kind.to_le_bytes());
    [a, b, c, d]
}

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub struct Cutter {
    held: Vec<u8>,
}

impl Cutter {
    /// More bytes came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next frame, once it is whole.
    pub fn next_frame(&mut self) -> Option<Frame> {
        let (head, rest) = self.held.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let kind = u16::from_le_bytes([head[2], head[3]]);
        let body = rest.get(..length)?.to_vec();
        self.held.drain(..4 + length);
        Some(Frame { kind: kind & 0x0fff, flags: kind & 0xf000, body })
    }

    /// Bytes that belong to no whole frame yet.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_whole_however_they_were_cut() {
        let frames = [Frame::new(9, vec![1]), Frame { kind: 700, flags: SKIPPABLE, body: vec![] }];
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::to_bytes).collect();
        let mut cutter = Cutter::default();
        let mut found = Vec::new();
        for byte in bytes {
            cutter.feed(&[byte]);
            found.extend(cutter.next_frame());
        }
        assert_eq!(found, frames);
        assert_eq!(cutter.held(), 0);
    }
}
