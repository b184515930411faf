//! One log as a played server saw it: every chunk, judged as it came.
//!
//! Not here: credit and order within a session (`station.rs`). Invariant: a chunk is judged once;
//! when it comes again, its bytes must be the same.

use std::collections::BTreeMap;

use crate::crypto::chain;
use crate::wire::chunk::{CHUNK_BYTES_MAX, Chunk, KEYFRAME, KEYFRAME_LAST, SELF_CONTAINED, URGENT};
use crate::wire::decode::{Lane as Decoder, Said};
use crate::wire::message::{Chain, Id, Jump, Lane, LogCause, LogHead, LogParent};
use crate::wire::op::{Text, Value};
use crate::wire::primitive::{Reader, Wire as _};

/// LIM-012.
const CHUNK_FACTS_MAX: u64 = 1_024;
/// LIM-020.
const VALUE_BYTES_MAX: usize = 4_096;

/// A log, as far as it was seen.
pub struct Shelf {
    /// Its lane.
    pub lane: Lane,
    /// Why it was opened, as its first Hello says.
    pub cause: LogCause,
    /// The log before it, as its first Hello says.
    pub parent: Option<LogParent>,
    /// What was seen, by sequence.
    pub chunks: BTreeMap<u64, Vec<u8>>,
    /// The chain behind each sequence.
    pub chains: BTreeMap<u64, Chain>,
    /// The next index behind each sequence.
    pub indexes: BTreeMap<u64, u64>,
    /// What the chunks say, with their sequences.
    pub said: Vec<(u64, Said)>,
    /// The Jumps that were said.
    pub jumps: Vec<Jump>,
    /// The highest sequence that was acknowledged to the sensor.
    pub stored: u64,
    /// Where segments begin.
    pub openings: Vec<u64>,
    decoder: Decoder,
    must_open: bool,
    decoded: u64,
    keyframe_part: Option<u16>,
}

impl Shelf {
    /// An empty one.
    #[must_use]
    pub fn new(deployment: &Id, sensor: &Id, head: &LogHead) -> Self {
        let start = chain::start(deployment, sensor, head.lane, &head.log);
        Self {
            lane: head.lane,
            cause: head.cause,
            parent: head.parent.clone(),
            chunks: BTreeMap::new(),
            chains: BTreeMap::from([(0, start)]),
            indexes: BTreeMap::from([(0, 1)]),
            said: Vec::new(),
            jumps: Vec::new(),
            stored: 0,
            openings: Vec::new(),
            decoder: Decoder::new(head.log),
            must_open: true,
            decoded: 0,
            keyframe_part: None,
        }
    }

    /// The highest sequence that was seen.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.chains.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    /// A chunk came.
    ///
    /// # Errors
    /// The requirement that it breaks.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut reader = Reader::of_chunk(bytes);
        let chunk = Chunk::read(&mut reader).and_then(|chunk| reader.end().map(|()| chunk));
        let chunk = chunk.map_err(|error| format!("ENC-002, FRM-004: a chunk: {error}"))?;
        let seq = chunk.seq;
        if let Some(known) = self.chunks.get(&seq) {
            if known != bytes {
                return Err(format!("LOG-003: chunk {seq} came again with other bytes"));
            }
            return Ok(());
        }
        self.judge_head(&chunk, bytes)?;
        let before = self.chains.get(&(seq - 1)).copied();
        let before = before.ok_or_else(|| format!("LOG-002: chunk {seq} follows nothing"))?;
        let index = self.indexes.get(&(seq - 1)).copied();
        if index.is_some_and(|index| index != chunk.first_index) {
            return Err(format!(
                "LOG-002: chunk {seq} has first_index {}, {index:?} follows",
                chunk.first_index
            ));
        }
        self.chains.insert(seq, chain::next(&before, bytes));
        self.indexes.insert(seq, chunk.first_index + chunk.count);
        self.chunks.insert(seq, bytes.to_vec());
        self.judge_body(&chunk)
    }

    fn judge_head(&mut self, chunk: &Chunk, bytes: &[u8]) -> Result<(), String> {
        let seq = chunk.seq;
        if bytes.len() > CHUNK_BYTES_MAX {
            return Err(format!("LIM-010: chunk {seq} has {} bytes", bytes.len()));
        }
        if chunk.flags & !(URGENT | KEYFRAME | KEYFRAME_LAST | SELF_CONTAINED) != 0 {
            return Err(format!("LOG-021: chunk {seq} has flags {:#x}", chunk.flags));
        }
        if self.must_open && !chunk.opens() {
            return Err(format!("DLV-011, JMP-004: chunk {seq} must open, and does not"));
        }
        if chunk.flags & URGENT != 0 && chunk.flags & SELF_CONTAINED == 0 {
            return Err(format!("LOG-007: urgent chunk {seq} is not self-contained"));
        }
        if chunk.flags & URGENT != 0 && chunk.digest != [0; 4] {
            return Err(format!("LOG-008: urgent chunk {seq} has a digest"));
        }
        let is_keyframe = chunk.flags & KEYFRAME != 0;
        let expected = self.keyframe_part.map_or(0, |part| part + 1);
        match (self.keyframe_part, is_keyframe) {
            (Some(_), false) => {
                return Err(format!("LOG-005: chunk {seq} stands between parts of a keyframe"));
            }
            (_, true) if chunk.part != expected || chunk.count != 0 => {
                return Err(format!("LOG-005: part {} of a keyframe at {seq}", chunk.part));
            }
            _ => {}
        }
        let is_open = is_keyframe && chunk.flags & KEYFRAME_LAST == 0;
        self.keyframe_part = is_open.then_some(chunk.part);
        if chunk.opens() {
            self.openings.push(seq);
        }
        self.must_open = false;
        Ok(())
    }

    fn judge_body(&mut self, chunk: &Chunk) -> Result<(), String> {
        let seq = chunk.seq;
        if chunk.opens() {
            self.decoded = seq - 1;
        }
        if self.decoded + 1 != seq {
            return Ok(()); // what it builds upon was not seen
        }
        let said = self.decoder.read(chunk);
        let said =
            said.map_err(|error| format!("DLV-010: chunk {seq} does not decode: {error}"))?;
        self.decoded = seq;
        if chunk.count > CHUNK_FACTS_MAX && !said.iter().any(|op| matches!(op, Said::Dropped(..))) {
            return Err(format!("LIM-012: chunk {seq} has {} facts", chunk.count));
        }
        if let Some(length) = said.iter().flat_map(lengths).find(|length| *length > VALUE_BYTES_MAX)
        {
            return Err(format!("LIM-020: a value of {length} bytes in chunk {seq}"));
        }
        let is_stated = self.lane == Lane::Bulk && chunk.flags & (KEYFRAME | URGENT) == 0;
        let digest = (self.decoder.digest() as u32).to_le_bytes();
        if is_stated && digest != chunk.digest {
            let said = chunk.digest;
            return Err(format!("CHN-004: chunk {seq} says {said:x?}, its rows are {digest:x?}"));
        }
        self.said.extend(said.into_iter().map(|op| (seq, op)));
        Ok(())
    }

    /// A Jump came.
    ///
    /// # Errors
    /// The requirement that it breaks.
    pub fn jump(&mut self, jump: &Jump) -> Result<(), String> {
        if jump.from_seq == 0 || jump.from_seq > jump.to_seq {
            return Err(format!("JMP-003: {jump:?}"));
        }
        if let Some(known) = self.chains.get(&jump.to_seq)
            && *known != jump.chain_at_to
        {
            return Err(format!("JMP-001: the chain at {} was another", jump.to_seq));
        }
        if let (Some(known), Some(said)) = (self.indexes.get(&jump.to_seq), jump.to_index)
            && *known != said + 1
        {
            return Err(format!("JMP-001: the index behind {} was {known}", jump.to_seq));
        }
        self.chains.insert(jump.to_seq, jump.chain_at_to);
        if let Some(index) = jump.to_index {
            self.indexes.insert(jump.to_seq, index + 1);
        }
        // What was seen already opens where it opened.
        self.must_open = !self.chunks.contains_key(&(jump.to_seq + 1));
        self.jumps.push(jump.clone());
        Ok(())
    }

    /// Number and outcome of each command that the log tells of.
    pub fn outcomes(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let number = |value: Option<&Value>| match value {
            Some(Value::U64(number)) => *number,
            _ => u64::MAX,
        };
        self.said.iter().filter_map(move |(_, op)| match op {
            Said::Event { kind: crate::wire::model::COMMAND_OUTCOME, fields, .. } => {
                Some((number(fields.get(&3)), number(fields.get(&4)), number(fields.get(&5))))
            }
            _ => None,
        })
    }

    /// The codes of the findings that the log tells of.
    pub fn findings(&self) -> impl Iterator<Item = u64> + '_ {
        self.said.iter().filter_map(|(_, op)| match op {
            Said::Event { kind: crate::wire::model::FINDING, fields, .. } => match fields.get(&3) {
                Some(Value::U64(code)) => Some(*code),
                _ => None,
            },
            _ => None,
        })
    }

    /// The slots of the table that hold a row.
    #[must_use]
    pub fn slots(&self) -> Vec<u64> {
        self.decoder.rows.keys().copied().collect()
    }

    /// Facts that the log tells of, between the indices it covers.
    #[must_use]
    pub fn facts(&self) -> u64 {
        self.indexes.last_key_value().map_or(0, |(_, index)| index - 1)
    }
}

/// The lengths of the strings that an op says.
fn lengths(op: &Said) -> Vec<usize> {
    let (Said::Row { fields, .. } | Said::Event { fields, .. }) = op else { return Vec::new() };
    let length = |value: &Value| match value {
        Value::Text(Text::Full(bytes)) => Some(bytes.len()),
        _ => None,
    };
    fields.values().filter_map(length).collect()
}
