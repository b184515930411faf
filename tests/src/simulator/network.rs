//! One connection between sensor and server: bytes with a delay, in order, until it is cut.
//!
//! Invariant: what arrives is a prefix of what was sent.

use std::collections::VecDeque;

/// Bytes on their way in one direction.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    packets: VecDeque<(u64, Vec<u8>)>,
    last_arrival_ns: u64,
}

impl Pipe {
    /// Sends `bytes`, to arrive `delay_ns` from `now_ns`, never before what was sent earlier.
    pub(crate) fn send(&mut self, now_ns: u64, delay_ns: u64, bytes: Vec<u8>) {
        self.last_arrival_ns = self.last_arrival_ns.max(now_ns + delay_ns);
        self.packets.push_back((self.last_arrival_ns, bytes));
    }

    /// When the next bytes arrive.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.packets.front().map(|(at_ns, _)| *at_ns)
    }

    /// The bytes that arrive at `now_ns`.
    pub(crate) fn arrive(&mut self, now_ns: u64) -> Option<Vec<u8>> {
        if self.next_ns()? > now_ns {
            return None;
        }
        self.packets.pop_front().map(|(_, bytes)| bytes)
    }

    /// Bytes on their way.
    pub(crate) fn in_flight(&self) -> usize {
        self.packets.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

/// A connection.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) up: Pipe,
    pub(crate) down: Pipe,
    /// Nothing arrives any more, and neither end knows.
    pub(crate) is_silent: bool,
}
