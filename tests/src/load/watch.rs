//! What frames tell whoever only looks on: which chunks went out, which Nacks came back.
//!
//! Invariant: it looks at whole frames of a stream and changes nothing; what it cannot read it
//! passes over, since the core judges it.

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::delivery::Nack;
use lapwing_protocol::frame::{Frame, FrameKind};
use lapwing_protocol::id::Lane;
use lapwing_protocol::limits::FRAME_HEADER_BYTES;
use lapwing_protocol::message::{CHUNK, Message};

/// The kind of frame a Nack travels in.
const NACK: FrameKind = FrameKind(5);
/// A Nack is small; a longer frame of its kind is none.
const NACK_BYTES_MAX: usize = 64;

/// Calls `see` with lane and sequence of each chunk in `frames`, which are whole.
pub(super) fn chunks_sent(mut frames: &[u8], mut see: impl FnMut(Lane, u64)) {
    while let Some((head, rest)) = frames.split_at_checked(FRAME_HEADER_BYTES) {
        let (length, kind) = parse(head);
        let Some((body, rest)) = rest.split_at_checked(length) else { return };
        if kind == CHUNK
            && let Ok(chunk) = Chunk::decode(body)
        {
            see(chunk.header.flags.lane(), chunk.header.seq);
        }
        frames = rest;
    }
}

/// Length of the body, and kind.
fn parse(head: &[u8]) -> (usize, FrameKind) {
    let at = |index: usize| head.get(index).copied().unwrap_or_default();
    let length = usize::from(u16::from_le_bytes([at(0), at(1)]));
    (length, FrameKind(u16::from_le_bytes([at(2), at(3)]) & 0x0fff))
}

/// Looks for Nacks in a stream of bytes, however it is cut.
#[derive(Debug, Default)]
pub(super) struct NackWatch {
    /// The header of the frame that is coming, and the body where that may be a Nack.
    held: Vec<u8>,
    /// Bytes of the current frame's body that are passed over.
    skipping: usize,
}

impl NackWatch {
    /// Takes bytes as they come, and calls `see` with each Nack that is whole.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut see: impl FnMut(&Nack)) {
        while !bytes.is_empty() {
            if self.skipping > 0 {
                let passed = self.skipping.min(bytes.len());
                self.skipping -= passed;
                bytes = bytes.get(passed..).unwrap_or_default();
                continue;
            }
            let wanted = match self.held.len() {
                ..FRAME_HEADER_BYTES => FRAME_HEADER_BYTES,
                _ => FRAME_HEADER_BYTES + parse(&self.held).0,
            };
            let taken = (wanted - self.held.len()).min(bytes.len());
            let (now, later) = bytes.split_at(taken);
            self.held.extend_from_slice(now);
            bytes = later;
            self.look(&mut see);
        }
    }

    fn look(&mut self, see: &mut impl FnMut(&Nack)) {
        let Some((head, body)) = self.held.split_at_checked(FRAME_HEADER_BYTES) else { return };
        let (length, kind) = parse(head);
        if kind != NACK || length > NACK_BYTES_MAX {
            self.skipping = length;
            self.held.clear();
        } else if body.len() == length {
            let frame = Frame { kind, skippable: false, body };
            if let Ok(Some(Message::Nack(nack))) = Message::decode(&frame) {
                see(&nack);
            }
            self.held.clear();
        }
    }

    /// A new connection begins.
    pub(super) fn clear(&mut self) {
        self.held.clear();
        self.skipping = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapwing_protocol::delivery::{NackReason, Ping};

    #[test]
    fn nacks_are_seen_however_the_stream_is_cut() {
        let nack = Nack {
            lane: Lane::Bulk,
            next_seq: 7,
            episode: 1,
            reason: NackReason::Throttled,
            retry_after_ms: 50,
        };
        let messages = [
            Message::Ping(Ping { nonce: 3 }),
            Message::Nack(nack),
            Message::Ping(Ping { nonce: u64::MAX }),
            Message::Nack(Nack { next_seq: 8, ..nack }),
        ];
        let mut stream = Vec::new();
        for message in &messages {
            let mut buffer = [0; 64];
            let length = message.encode(&mut buffer).unwrap();
            stream.extend_from_slice(&buffer[..length]);
        }
        for cut in 1..stream.len() {
            let (mut watch, mut seen) = (NackWatch::default(), Vec::new());
            for piece in stream.chunks(cut) {
                watch.feed(piece, |nack| seen.push(nack.next_seq));
            }
            assert_eq!(seen, [7, 8], "cut at {cut}");
        }
    }
}
