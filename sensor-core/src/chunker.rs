//! The open chunk of one lane: ops go in, and at its close the bytes of a chunk come out, once.
//!
//! The body is written behind room for a header; the header is put right before it when it is
//! known, so no byte of the body is moved. When a chunk closes is decided here as far as time goes;
//! whether an op still fits is asked by [`crate::delta`] before it writes one.
//!
//! Invariant: `HEADER <= length <= buffer.len()`; an op is only written when its upper bound fits,
//! so a writer never reports a full buffer halfway through an op.

use lapwing_protocol::chunk::{ChunkFlags, ChunkHeader};
use lapwing_protocol::element::Kind;
use lapwing_protocol::error::BufferFull;
use lapwing_protocol::id::Lane;
use lapwing_protocol::limits::{
    CHUNK_AGE_MS_MAX, CHUNK_BYTES_MAX, CHUNK_FACTS_MAX, CHUNK_HEADER_BYTES_MAX,
};
use lapwing_protocol::op::{DropReason, ENCODING_PLAIN_ROWS, OpWriter, Preamble};
use lapwing_protocol::varint::Writer;

use crate::definitions::Definitions;
use crate::limits::{CHUNK_RESERVE_BYTES, PREAMBLE_BYTES_MAX};
use crate::time::{Now, nanoseconds};

/// Where a body begins in the buffer.
const HEADER: usize = CHUNK_HEADER_BYTES_MAX;

#[derive(Clone, Copy, Debug)]
struct Open {
    flags: u8,
    part: u16,
    first_index: u64,
    facts: u64,
    ops: u32,
    time_base_ns: u64,
    length: usize,
    /// Where the op writer goes on.
    writer: (u64, u64),
    /// Bit i: definition i is in this chunk.
    defined: u64,
    /// Facts dropped since the last op.
    dropped: Option<(DropReason, u64)>,
    deadline_ns: u64,
}

#[derive(Debug)]
pub(crate) struct Chunker<'a> {
    buffer: &'a mut [u8],
    lane: Lane,
    open: Option<Open>,
    /// When the last chunk closed; `None` before the first.
    closed_ns: Option<u64>,
}

/// What a closed chunk covers; its bytes are [`Chunker::sealed`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sealed {
    from: usize,
    to: usize,
    pub(crate) flags: ChunkFlags,
    pub(crate) next_index: u64,
}

impl<'a> Chunker<'a> {
    pub(crate) fn new(buffer: &'a mut [u8], lane: Lane) -> Self {
        let length = buffer.len().min(CHUNK_BYTES_MAX);
        Self { buffer: &mut buffer[..length], lane, open: None, closed_ns: None }
    }

    /// The largest chunk it makes.
    pub(crate) fn chunk_bytes_max(&self) -> usize {
        self.buffer.len()
    }

    /// Room for ops in a chunk that holds nothing but a preamble and `definition_bytes`.
    pub(crate) fn op_bytes_max(&self, definition_bytes: usize) -> usize {
        self.buffer
            .len()
            .saturating_sub(HEADER + PREAMBLE_BYTES_MAX + CHUNK_RESERVE_BYTES + definition_bytes)
    }

    /// Whether a chunk is open.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Facts in the open chunk.
    pub(crate) fn open_facts(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.facts)
    }

    /// When the open chunk closes at the latest.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        self.open
            .as_ref()
            .filter(|open| open.ops > 0 || open.dropped.is_some())
            .map(|open| open.deadline_ns)
    }

    /// Opens a chunk.
    pub(crate) fn begin(&mut self, now: Now, flags: u8, part: u16, first_index: u64) {
        let flags = flags | if self.lane == Lane::Urgent { ChunkFlags::URGENT } else { 0 };
        // After silence the first fact goes at once; urgent ones always do.
        let wait_ms = if self.lane == Lane::Urgent { 0 } else { CHUNK_AGE_MS_MAX };
        let earliest = self.closed_ns.map_or(0, |closed| closed + nanoseconds(wait_ms));
        self.open = Some(Open {
            flags,
            part,
            first_index,
            facts: 0,
            ops: 0,
            time_base_ns: now.monotonic_ns,
            length: HEADER,
            writer: (now.monotonic_ns, 0),
            defined: 0,
            dropped: None,
            deadline_ns: earliest.max(now.monotonic_ns),
        });
    }

    /// Whether an op of at most `bytes` bytes fits the open chunk.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        self.open.as_ref().is_some_and(|open| {
            open.length + bytes + CHUNK_RESERVE_BYTES <= self.buffer.len()
                && open.facts < CHUNK_FACTS_MAX
        })
    }

    /// Whether the definition with this number is in the open chunk.
    pub(crate) fn has_defined(&self, number: usize) -> bool {
        self.open.as_ref().is_some_and(|open| open.defined & 1 << (number & 63) != 0)
    }

    /// Writes with the op writer; `facts` indices are used up.
    ///
    /// # Errors
    /// [`BufferFull`]; the chunk is then as it was.
    pub(crate) fn write<F>(&mut self, facts: u64, write: F) -> Result<(), BufferFull>
    where
        F: FnOnce(&mut OpWriter<'_>) -> Result<(), BufferFull>,
    {
        self.flush_dropped()?;
        let Some(open) = self.open.as_mut() else { return Err(BufferFull) };
        let room = self.buffer.get_mut(HEADER..).ok_or(BufferFull)?;
        let mut writer = OpWriter::resume(room, open.length - HEADER, open.writer);
        write(&mut writer)?;
        open.length = HEADER + writer.written().len();
        open.writer = writer.state();
        open.facts += facts;
        open.ops += 1;
        Ok(())
    }

    /// Writes a preamble.
    ///
    /// # Errors
    /// [`BufferFull`].
    pub(crate) fn preamble(&mut self, preamble: &Preamble) -> Result<(), BufferFull> {
        self.write(0, |writer| writer.preamble(preamble))
    }

    /// Writes the definition of `kind`, unless it is built in or in this chunk already.
    ///
    /// # Errors
    /// [`BufferFull`].
    pub(crate) fn define(
        &mut self,
        kind: Kind,
        definitions: &Definitions<'_>,
    ) -> Result<(), BufferFull> {
        let Some((number, _)) = definitions.find(kind) else { return Ok(()) };
        if self.has_defined(number) {
            return Ok(());
        }
        let Some(encoded) = definitions.encoded().nth(number) else { return Ok(()) };
        self.write(0, |writer| writer.define_encoded(encoded))?;
        if let Some(open) = self.open.as_mut() {
            open.defined |= 1 << (number & 63);
        }
        Ok(())
    }

    /// Counts a fact that was dropped after intake; those of one reason share an op.
    ///
    /// # Errors
    /// [`BufferFull`] when the chunk takes no other op.
    pub(crate) fn drop_fact(&mut self, reason: DropReason) -> Result<(), BufferFull> {
        if self.open.as_ref().is_some_and(|open| open.dropped.is_some_and(|(of, _)| of != reason)) {
            self.flush_dropped()?;
        }
        let Some(open) = self.open.as_mut() else { return Err(BufferFull) };
        let count = open.dropped.map_or(0, |(_, count)| count);
        open.dropped = Some((reason, count + 1));
        open.facts += 1;
        Ok(())
    }

    fn flush_dropped(&mut self) -> Result<(), BufferFull> {
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        let Some((reason, count)) = open.dropped.take() else { return Ok(()) };
        let room = self.buffer.get_mut(HEADER..).ok_or(BufferFull)?;
        let mut writer = OpWriter::resume(room, open.length - HEADER, open.writer);
        writer.dropped(count, reason)?;
        open.length = HEADER + writer.written().len();
        open.ops += 1;
        Ok(())
    }

    /// Closes the open chunk as `seq`; `None` when there is nothing in it.
    pub(crate) fn seal(&mut self, now: Now, seq: u64, digest: u64) -> Option<Sealed> {
        // Room for this op is kept free in every chunk.
        self.flush_dropped().ok()?;
        let open = self.open.take()?;
        if open.ops == 0 {
            return None;
        }
        let flags = ChunkFlags(open.flags);
        let header = ChunkHeader {
            flags,
            encoding: ENCODING_PLAIN_ROWS,
            seq,
            first_index: open.first_index,
            count: open.facts,
            part: open.part,
            time_base_ns: open.time_base_ns,
            digest: (digest as u32).to_le_bytes(),
        };
        let mut head = [0; HEADER];
        let written = lapwing_protocol::error::to_slice(&header, &mut head).ok()?.len();
        // A chunk is its header, then its body with the length before it.
        let mut writer = Writer::resume(&mut head, written);
        writer.unsigned((open.length - HEADER) as u64).ok()?;
        let from = HEADER - writer.len();
        let length = writer.len();
        self.buffer.get_mut(from..HEADER)?.copy_from_slice(&head[..length]);
        // A keyframe is no reason for the fact behind it to wait.
        if open.facts > 0 {
            self.closed_ns = Some(now.monotonic_ns);
        }
        let next_index = open.first_index + open.facts;
        Some(Sealed { from, to: open.length, flags, next_index })
    }

    /// The bytes of a chunk that was just sealed.
    pub(crate) fn sealed(&self, sealed: &Sealed) -> &[u8] {
        self.buffer.get(sealed.from..sealed.to).unwrap_or_default()
    }

    /// Marks the open chunk as the last part of a keyframe.
    pub(crate) fn set_last(&mut self) {
        if let Some(open) = self.open.as_mut() {
            open.flags |= ChunkFlags::KEYFRAME_LAST;
        }
    }

    /// Forgets the open chunk; for a log that is given up.
    pub(crate) fn abandon(&mut self) -> u64 {
        self.open.take().map_or(0, |open| open.facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapwing_protocol::chunk::Chunk;
    use lapwing_protocol::op::{Op, OpReader};

    fn at(ms: u64) -> Now {
        Now { monotonic_ns: nanoseconds(ms), wall_ms: 0 }
    }

    #[test]
    fn a_sealed_chunk_is_what_the_protocol_reads() {
        let mut buffer = [0; 256];
        let mut chunker = Chunker::new(&mut buffer, Lane::Bulk);
        chunker.begin(at(1), 0, 0, 40);
        chunker.write(1, |writer| writer.forget(3)).unwrap();
        chunker.drop_fact(DropReason::TableFull).unwrap();
        chunker.drop_fact(DropReason::TableFull).unwrap();
        let sealed = chunker.seal(at(2), 9, 0x0403_0201).unwrap();
        let chunk = Chunk::decode(chunker.sealed(&sealed)).unwrap();
        assert_eq!((chunk.header.seq, chunk.header.first_index, chunk.header.count), (9, 40, 3));
        assert_eq!(chunk.header.digest, [1, 2, 3, 4]);
        assert_eq!(chunk.next_index(), sealed.next_index);
        let mut reader = OpReader::new(chunk.body, chunk.header.time_base_ns);
        assert_eq!(reader.op(), Ok(Some(Op::Forget(3))));
        assert_eq!(reader.op(), Ok(Some(Op::Dropped { count: 2, reason: DropReason::TableFull })));
        assert_eq!(reader.op(), Ok(None));
    }

    #[test]
    fn the_first_fact_after_silence_goes_at_once_and_the_next_waits() {
        let mut buffer = [0; 256];
        let mut chunker = Chunker::new(&mut buffer, Lane::Bulk);
        for (opened_ms, closes_ms) in [(1_000, 1_000), (1_010, 1_250), (2_000, 2_000)] {
            chunker.begin(at(opened_ms), 0, 0, 0);
            chunker.write(1, |writer| writer.forget(3)).unwrap();
            assert_eq!(chunker.deadline_ns(), Some(nanoseconds(closes_ms)));
            chunker.seal(at(closes_ms), 1, 0);
        }
    }
}
