//! Where a lane stands, as the journal keeps it beside each chunk.

use lapwing_protocol::digest::Chain;
use lapwing_protocol::error::{BufferFull, DecodeError, from_bytes};
use lapwing_protocol::id::LogId;
use serde::{Deserialize, Serialize};

use super::limits::RETIRED_LOGS_MAX;

/// Where one log stands: the current one of a lane, or one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredLog {
    /// Which log.
    pub log: LogId,
    /// The sequence that would be taken next.
    pub next_seq: u64,
    /// The index that would be expected next.
    pub next_index: u64,
    /// The chain before `next_seq`.
    pub chain: Chain,
    /// Whether the next chunk must open: after a Jump, and at the start of a log.
    pub must_open: bool,
    /// The first sequence of the newest segment: decoding may start there.
    pub segment_seq: u64,
}

impl RetiredLog {
    /// A log of which nothing was taken yet.
    #[must_use]
    pub fn begin(log: LogId, chain: Chain) -> Self {
        Self { log, next_seq: 1, next_index: 1, chain, must_open: true, segment_seq: 1 }
    }
}

/// Where a lane stands: its log, and the logs before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadRecord {
    /// The log that is being taken.
    pub current: RetiredLog,
    /// Logs before it, newest first.
    pub retired: Vec<RetiredLog>,
}

impl HeadRecord {
    /// A lane whose log begins.
    #[must_use]
    pub fn begin(log: LogId, chain: Chain) -> Self {
        Self { current: RetiredLog::begin(log, chain), retired: Vec::new() }
    }

    /// Goes over to `log`, which goes on where it stood; the current one is remembered. Gives the
    /// one for which there is no room any more.
    pub fn open(&mut self, log: RetiredLog) -> Option<RetiredLog> {
        self.retired.retain(|retired| retired.log != log.log);
        self.retired.insert(0, self.current);
        self.current = log;
        if self.retired.len() > RETIRED_LOGS_MAX { self.retired.pop() } else { None }
    }

    /// Where `log` stands, if it is remembered.
    #[must_use]
    pub fn find(&self, log: LogId) -> Option<RetiredLog> {
        std::iter::once(&self.current).chain(&self.retired).find(|held| held.log == log).copied()
    }

    /// The record as stored.
    ///
    /// # Errors
    /// [`BufferFull`] never happens: the bound on retired logs keeps it below 1 KiB.
    pub fn to_bytes(&self) -> Result<Vec<u8>, BufferFull> {
        let mut buffer = [0; 1024];
        lapwing_protocol::error::to_slice(self, &mut buffer).map(|bytes| bytes.to_vec())
    }

    /// Reads a stored record.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        from_bytes(bytes)
    }
}
