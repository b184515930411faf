//! A log as its sensor has it: chunks, chain, index, and the table behind the digest.
//!
//! Not here: which chunks are sent when. The builders make sound chunks; a case that wants an
//! unsound one takes a sound one and changes it, or gives its own to [`Log::push`].

use std::collections::BTreeMap;

use crate::crypto::chain;
use crate::wire::chunk::{Chunk, KEYFRAME, KEYFRAME_LAST, PLAIN_ROWS, SELF_CONTAINED, URGENT};
use crate::wire::decode::row_digest;
use crate::wire::message::{
    Chain, ChainMark, Id, Jump, JumpCause, Lane, LogCause, LogHead, LogParent, StoredRange,
};
use crate::wire::model::{DNS, FINDING, SERVICE};
use crate::wire::op::{Fields, OpWriter, Text, Value};
use crate::wire::primitive::{Items, Wire as _};

/// The boot that every played sensor claims.
pub const BOOT: Id = [0x55; 16];
/// The wall clock it claims at every base.
pub const WALL_MS: u64 = 1_795_496_400_000;

/// A log.
#[derive(Clone, Debug)]
pub struct Log {
    /// Its lane.
    pub lane: Lane,
    /// Its id.
    pub log: Id,
    /// Why it was opened, as Hello says.
    pub cause: LogCause,
    /// The log before it, as Hello says.
    pub parent: Option<LogParent>,
    /// Chunk n stands at n - 1; a hole has empty bytes.
    pub chunks: Vec<Vec<u8>>,
    /// The chain after chunk n stands at n.
    pub chains: Vec<Chain>,
    /// The index of the next fact.
    pub next_index: u64,
    /// The highest sequence that some server acknowledged.
    pub acked: u64,
    /// The oldest chunk that is still held.
    pub first_seq: u64,
    /// Who acknowledged what.
    pub elsewhere: Vec<StoredRange>,
    /// The rows of the table: slot, name of the service, state.
    rows: BTreeMap<u64, Fields>,
}

impl Log {
    /// An empty log.
    #[must_use]
    pub fn new(deployment: &Id, sensor: &Id, lane: Lane, log: Id) -> Self {
        Self {
            lane,
            log,
            cause: LogCause::First,
            parent: None,
            chunks: Vec::new(),
            chains: vec![chain::start(deployment, sensor, lane, &log)],
            next_index: 1,
            acked: 0,
            first_seq: 1,
            elsewhere: Vec::new(),
            rows: BTreeMap::new(),
        }
    }

    /// The sequence of the next chunk.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.chunks.len() as u64 + 1
    }

    /// The chain after chunk `seq`.
    #[must_use]
    pub fn chain_at(&self, seq: u64) -> Chain {
        usize::try_from(seq).ok().and_then(|at| self.chains.get(at)).copied().unwrap_or([0; 32])
    }

    /// Where it stands, as Hello says it.
    #[must_use]
    pub fn head(&self) -> LogHead {
        LogHead {
            lane: self.lane,
            log: self.log,
            cause: self.cause,
            parent: self.parent.clone(),
            first_seq: self.first_seq,
            next_seq: self.next_seq(),
            next_index: self.next_index,
            acked_seq: self.acked,
            acked_chain: self.chain_at(self.acked),
            elsewhere: Items(self.elsewhere.clone()),
        }
    }

    /// The mark behind the newest chunk.
    #[must_use]
    pub fn mark(&self) -> ChainMark {
        let seq = self.chunks.len() as u64;
        ChainMark { lane: self.lane, seq, chain: self.chain_at(seq) }
    }

    /// Takes a chunk into the log: its sequence, index and the chain follow.
    pub fn push(&mut self, chunk: &Chunk) -> Chunk {
        let bytes = chunk.to_bytes();
        self.chains.push(chain::next(&self.chain_at(self.chunks.len() as u64), &bytes));
        self.chunks.push(bytes);
        self.next_index = chunk.first_index.wrapping_add(chunk.count);
        chunk.clone()
    }

    /// A chunk that would be the next, with `body` and `count`.
    #[must_use]
    pub fn next(&self, flags: u8, count: u64, body: Vec<u8>) -> Chunk {
        let urgent = if self.lane == Lane::Urgent { URGENT } else { 0 };
        let low = (self.digest() as u32).to_le_bytes();
        Chunk {
            flags: flags | urgent,
            encoding: PLAIN_ROWS,
            seq: self.next_seq(),
            first_index: self.next_index,
            count,
            part: 0,
            base: base(self.next_seq()),
            digest: if urgent == 0 { low } else { [0; 4] },
            body,
        }
    }

    /// The state digest.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.rows.values().fold(0, |sum, fields| {
            let fields: BTreeMap<u16, Value> = fields.iter().cloned().collect();
            sum.wrapping_add(row_digest(&self.log, SERVICE, &fields))
        })
    }

    /// The next chunk, self-contained, with one fact: a name was looked up (on the urgent lane: a
    /// finding). The fact's `source_seq` is the chunk's sequence.
    pub fn fact(&mut self) -> Chunk {
        let chunk = self.fact_of(0);
        self.push(&chunk)
    }

    /// As [`Self::fact`], not taken into the log, with a text of about `bytes` bytes.
    #[must_use]
    pub fn fact_of(&self, bytes: usize) -> Chunk {
        let mut ops = self.opened();
        self.event(&mut ops, bytes);
        self.next(SELF_CONTAINED, 1, ops.body())
    }

    fn event(&self, ops: &mut OpWriter, bytes: usize) {
        let seq = self.next_seq();
        let text = format!("host-{seq}.example{}", "x".repeat(bytes));
        let time = base(seq) + 5;
        let number = (0, Value::U64(seq));
        match self.lane {
            Lane::Bulk => ops.event(DNS, time, &vec![number, (3, Value::text(&text))]),
            Lane::Urgent => {
                let code = (3, Value::U64(26)); // facts_lost
                let fields = vec![number, code, (5, Value::text(&text)), (6, Value::U64(0))];
                ops.event(FINDING, time, &fields);
            }
        }
    }

    /// Ops of a chunk that opens.
    #[must_use]
    pub fn opened(&self) -> OpWriter {
        let mut ops = OpWriter::new(base(self.next_seq()));
        ops.preamble(BOOT, WALL_MS, 16);
        ops
    }

    /// The next chunk, a keyframe in one part, of the rows as they are.
    pub fn keyframe(&mut self) -> Chunk {
        let mut ops = self.opened();
        for (slot, fields) in &self.rows {
            ops.put(SERVICE, *slot, base(self.next_seq()), fields);
        }
        ops.keyframe_end(self.rows.len() as u64, self.digest());
        let chunk = self.next(KEYFRAME | KEYFRAME_LAST, 0, ops.body());
        self.push(&chunk)
    }

    /// The next chunk, a delta that puts the row of a service in `slot`.
    pub fn put(&mut self, slot: u64, name: &str, state: &str) -> Chunk {
        let fields = service(name, state);
        let mut ops = OpWriter::new(base(self.next_seq()));
        ops.put(SERVICE, slot, base(self.next_seq()), &fields);
        self.rows.insert(slot, fields);
        let chunk = self.next(0, 1, ops.body());
        self.push(&chunk)
    }

    /// The next chunk, a delta with one event.
    pub fn delta(&mut self) -> Chunk {
        let mut ops = OpWriter::new(base(self.next_seq()));
        self.event(&mut ops, 0);
        let chunk = self.next(0, 1, ops.body());
        self.push(&chunk)
    }

    /// A Jump over the next `chunks` chunks with `facts` facts; the log stands behind it.
    pub fn jump(&mut self, chunks: u64, facts: u64, cause: JumpCause) -> Jump {
        let from_seq = self.next_seq();
        let salt = chain::next(&self.chain_at(from_seq - 1), b"a hole");
        for _ in 0..chunks {
            self.chunks.push(Vec::new());
            self.chains.push(salt);
        }
        self.next_index += facts;
        Jump {
            lane: self.lane,
            from_seq,
            to_seq: from_seq + chunks - 1,
            to_index: Some(self.next_index - 1),
            chain_at_to: salt,
            cause,
        }
    }
}

/// A row of a service.
#[must_use]
pub fn service(name: &str, state: &str) -> Fields {
    vec![(3, Value::text(name)), (4, Value::Text(Text::Full(state.as_bytes().to_vec())))]
}

/// The base of chunk `seq`: a second later each.
#[must_use]
pub fn base(seq: u64) -> u64 {
    60_000_000_000u64.wrapping_add(seq.wrapping_mul(1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The session of docs/protocol.md, byte by byte: chain and digest come out as the page says.
    #[test]
    fn the_start_of_a_chain_is_the_pages() {
        let log = Log::new(&[0x11; 16], &[0x22; 16], Lane::Bulk, [0x44; 16]);
        let expected = "596c1dfc70c084590556cbf72ca369aeb1b5a8a55300e871fa1ed769a0f6d20f";
        assert_eq!(crate::crypto::identity::hex(&log.chain_at(0)), expected);
    }

    #[test]
    fn what_it_builds_reads_back() {
        let mut log = Log::new(&[1; 16], &[2; 16], Lane::Bulk, [3; 16]);
        let mut lane = crate::wire::decode::Lane::new(log.log);
        for _ in 0..2 {
            let chunks = [
                log.keyframe(),
                log.put(1, "ssh", "active"),
                log.delta(),
                log.put(2, "cron", "inactive"),
            ];
            for chunk in chunks {
                lane.read(&chunk).unwrap();
                let low = (lane.digest() as u32).to_le_bytes();
                assert_eq!(chunk.digest, low, "chunk {}", chunk.seq);
            }
        }
        lane.read(&log.fact()).unwrap();
        assert_eq!(lane.rows.len(), 2);
    }
}
