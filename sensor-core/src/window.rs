//! Chunks in lent memory, oldest first: the part of a log that is sent without asking the shell.
//!
//! ```text
//! record = length: u16 LE, sequence: u64 LE, chain after it: 32 bytes, the chunk
//! ```
//!
//! Records lie one behind the other; when the end of the memory is reached they are moved to its
//! beginning. Invariant: `start <= end <= bytes.len()`, sequences ascend.

use lapwing_protocol::digest::Chain;

use crate::limits::CHUNK_RECORD_BYTES;

/// A chunk in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held<'w> {
    pub(crate) seq: u64,
    pub(crate) chain: Chain,
    pub(crate) bytes: &'w [u8],
}

#[derive(Debug)]
pub(crate) struct Window<'a> {
    bytes: &'a mut [u8],
    start: usize,
    end: usize,
    /// A record's place and sequence from which a search may begin.
    hint: (usize, u64),
}

impl<'a> Window<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, start: 0, end: 0, hint: (0, u64::MAX) }
    }

    /// Bytes that are not used by records.
    pub(crate) fn free(&self) -> usize {
        self.bytes.len() - (self.end - self.start)
    }

    /// All of its bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
        self.hint = (0, u64::MAX);
    }

    /// The oldest chunk.
    pub(crate) fn front(&self) -> Option<Held<'_>> {
        self.at(self.start)
    }

    /// Appends a chunk; `false` when there is no room.
    pub(crate) fn push(&mut self, seq: u64, chain: Chain, chunk: &[u8]) -> bool {
        let length = CHUNK_RECORD_BYTES + chunk.len();
        if length > self.free() || chunk.len() > usize::from(u16::MAX) {
            return false;
        }
        if length > self.bytes.len() - self.end {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            self.hint = (0, u64::MAX);
        }
        let Some(record) = self.bytes.get_mut(self.end..self.end + length) else { return false };
        record[..2].copy_from_slice(&(chunk.len() as u16).to_le_bytes());
        record[2..10].copy_from_slice(&seq.to_le_bytes());
        record[10..CHUNK_RECORD_BYTES].copy_from_slice(&chain.0);
        record[CHUNK_RECORD_BYTES..].copy_from_slice(chunk);
        self.end += length;
        true
    }

    /// Takes out the oldest chunk.
    pub(crate) fn pop(&mut self) {
        let Some(length) = self.front().map(|held| CHUNK_RECORD_BYTES + held.bytes.len()) else {
            return;
        };
        self.start += length;
        if self.start == self.end {
            self.clear();
        } else if self.hint.0 < self.start {
            self.hint = (0, u64::MAX);
        }
    }

    /// Takes out the chunk `seq`, wherever it is.
    pub(crate) fn remove(&mut self, seq: u64) {
        let Some((place, held)) = self.search(seq) else { return };
        if held.seq != seq {
            return;
        }
        let length = CHUNK_RECORD_BYTES + held.bytes.len();
        self.bytes.copy_within(place + length..self.end, place);
        self.end -= length;
        self.hint = (0, u64::MAX);
    }

    /// The chunk `seq`.
    pub(crate) fn find(&mut self, seq: u64) -> Option<Held<'_>> {
        let (place, found) = self.search(seq).map(|(place, held)| (place, held.seq))?;
        self.hint = (place, found);
        self.at(place).filter(|held| held.seq == seq)
    }

    /// The first chunk from `seq` on.
    pub(crate) fn find_from(&self, seq: u64) -> Option<Held<'_>> {
        self.search(seq).map(|(_, held)| held)
    }

    fn search(&self, seq: u64) -> Option<(usize, Held<'_>)> {
        let mut place = if self.hint.1 <= seq { self.hint.0 } else { self.start };
        loop {
            let held = self.at(place)?;
            if held.seq >= seq {
                return Some((place, held));
            }
            place += CHUNK_RECORD_BYTES + held.bytes.len();
        }
    }

    fn at(&self, place: usize) -> Option<Held<'_>> {
        if place >= self.end {
            return None;
        }
        let record = self.bytes.get(place..self.end)?;
        let (head, rest) = record.split_first_chunk::<CHUNK_RECORD_BYTES>()?;
        let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let mut seq = [0; 8];
        seq.copy_from_slice(&head[2..10]);
        let mut chain = [0; 32];
        chain.copy_from_slice(&head[10..]);
        let seq = u64::from_le_bytes(seq);
        Some(Held { seq, chain: Chain(chain), bytes: rest.get(..length)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: Chain = Chain([0; 32]);

    #[test]
    fn chunks_come_out_in_order_while_the_memory_is_used_again() {
        let mut bytes = [0; 3 * (CHUNK_RECORD_BYTES + 10)];
        let mut window = Window::new(&mut bytes);
        for seq in 1..=40u64 {
            while !window.push(seq, CHAIN, &[seq as u8; 10]) {
                window.pop();
            }
            assert_eq!(window.find(seq).unwrap().bytes, [seq as u8; 10]);
            let oldest = window.front().unwrap().seq;
            assert_eq!(oldest, seq.saturating_sub(2).max(1));
            assert_eq!(window.find(oldest).unwrap().seq, oldest);
        }
    }

    #[test]
    fn a_chunk_in_the_middle_can_be_taken_out() {
        let mut bytes = [0; 256];
        let mut window = Window::new(&mut bytes);
        for seq in 1..=4u64 {
            assert!(window.push(seq, CHAIN, &[seq as u8; 5]));
        }
        window.find(3).unwrap();
        window.remove(2);
        assert!(window.find(2).is_none());
        assert_eq!(window.find_from(2).unwrap().seq, 3);
        assert_eq!(window.find(4).unwrap().bytes, [4; 5]);
        assert_eq!(window.find(1).unwrap().bytes, [1; 5]);
    }
}
