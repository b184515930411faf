//! The one chunk that came back from the spool, or is awaited from it.
//!
//! One place serves both lanes; the urgent lane takes it from the bulk lane, which asks again.

use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::id::{Lane, LogId};

use crate::lane::Told;

type Key = (Lane, LogId, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Empty,
    Wanted { key: Key, told: Told },
    Held { key: Key, length: usize },
}

#[derive(Debug)]
pub(crate) struct FetchSlot<'a> {
    buffer: &'a mut [u8],
    state: State,
}

impl<'a> FetchSlot<'a> {
    pub(crate) fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, state: State::Empty }
    }

    pub(crate) fn clear(&mut self) {
        self.state = State::Empty;
    }

    /// The chunk, if it is here; else it is wanted, if its lane may want one now.
    pub(crate) fn get(&mut self, key: Key) -> Option<&[u8]> {
        let is_other_lane = |other: Key| other.0 != key.0;
        let is_free = match self.state {
            State::Held { key: held, length } if held == key => {
                return self.buffer.get(..length);
            }
            State::Wanted { key: wanted, .. } if wanted == key => false,
            State::Held { key: other, .. } | State::Wanted { key: other, .. } => {
                !is_other_lane(other) || key.0 == Lane::Urgent
            }
            State::Empty => true,
        };
        if is_free {
            self.state = State::Wanted { key, told: Told::NotYet };
        }
        None
    }

    /// The chunk `key` was sent.
    pub(crate) fn release(&mut self, key: Key) {
        if matches!(self.state, State::Held { key: held, .. } if held == key) {
            self.state = State::Empty;
        }
    }

    /// Whether [`Self::poll`] has something.
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(self.state, State::Wanted { told: Told::NotYet, .. })
    }

    /// What the shell is to read.
    pub(crate) fn poll(&mut self) -> Option<Key> {
        match &mut self.state {
            State::Wanted { key, told: told @ Told::NotYet } => {
                *told = Told::Already;
                Some(*key)
            }
            State::Empty | State::Wanted { .. } | State::Held { .. } => None,
        }
    }

    /// Takes what the shell read; `false` when it is not the chunk that was asked for. What is no
    /// longer wanted is ignored.
    pub(crate) fn fill(&mut self, key: Key, bytes: &[u8]) -> bool {
        if !matches!(self.state, State::Wanted { key: wanted, .. } if wanted == key) {
            return true;
        }
        let is_it = Chunk::decode(bytes)
            .is_ok_and(|chunk| chunk.header.seq == key.2 && chunk.header.flags.lane() == key.0);
        let Some(place) = self.buffer.get_mut(..bytes.len()).filter(|_| is_it) else {
            return false;
        };
        place.copy_from_slice(bytes);
        self.state = State::Held { key, length: bytes.len() };
        true
    }

    /// Chunks `seqs` of a log will not come.
    pub(crate) fn forget(&mut self, lane: Lane, log: LogId, (from, to): (u64, u64)) {
        if let State::Wanted { key, .. } | State::Held { key, .. } = self.state
            && (key.0, key.1) == (lane, log)
            && (from..=to).contains(&key.2)
        {
            self.state = State::Empty;
        }
    }
}
