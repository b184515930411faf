//! Segments of the bulk lane: how rows and events are written, and when a segment begins.
//!
//! With a spool, chunks refer to slots of strings and rows that stand earlier in their segment,
//! and a segment opens with a keyframe. Without one every chunk is self-contained: a preamble,
//! literals and whole rows, and a keyframe is only made when the server asks.
//!
//! Invariant: a segment is begun only while no chunk is open, and its keyframe is whole before any
//! delta; the string table is empty at its start.

use lapwing_protocol::chunk::ChunkFlags;
use lapwing_protocol::element::{Fact, Field, Kind, KindSpec};
use lapwing_protocol::error::BufferFull;
use lapwing_protocol::hello::Memory;
use lapwing_protocol::id::BootId;
use lapwing_protocol::limits::{SEGMENT_AGE_MS_MAX, SEGMENT_DELTA_BYTES_MIN, SEGMENT_DELTA_RATIO};
use lapwing_protocol::op::{DropReason, Literal, Preamble, RowChange, op_bytes_max};

use crate::chunker::Chunker;
use crate::definitions::Definitions;
use crate::delta::{Difference, fields_of};
use crate::outbox::Outbox;
use crate::strings::{SegmentCompressor, StringTable};
use crate::table::Table;
use crate::time::{Now, nanoseconds};

/// When it is, and which kinds there are.
pub(crate) struct Context<'c, 'd> {
    pub(crate) now: Now,
    pub(crate) definitions: &'c Definitions<'d>,
}

/// How far a keyframe is written.
#[derive(Clone, Copy, Debug)]
struct Keyframe {
    next_slot: u32,
    next_definition: usize,
    part: u16,
    rows: u64,
}

#[derive(Debug)]
pub(crate) struct Press<'a> {
    chunker: Chunker<'a>,
    strings: StringTable<'a>,
    boot: BootId,
    memory: Memory,
    is_segment_due: bool,
    keyframe: Option<Keyframe>,
    segment_seq: u64,
    segment_began_ns: Option<u64>,
    keyframe_bytes: u64,
    delta_bytes: u64,
    /// Bit i: definition i stands in this segment.
    defined: u64,
}

impl<'a> Press<'a> {
    pub(crate) fn new(
        chunker: Chunker<'a>,
        strings: StringTable<'a>,
        (boot, memory): (BootId, Memory),
    ) -> Self {
        Self {
            chunker,
            strings,
            boot,
            memory,
            is_segment_due: memory == Memory::Disk,
            keyframe: None,
            segment_seq: 0,
            segment_began_ns: None,
            keyframe_bytes: 0,
            delta_bytes: 0,
            defined: 0,
        }
    }

    pub(crate) fn is_self_contained(&self) -> bool {
        self.memory == Memory::RamOnly && !cfg!(mutant = "memory_needs_table")
    }

    pub(crate) fn chunk_bytes_max(&self) -> usize {
        self.chunker.chunk_bytes_max()
    }

    /// Facts in the open chunk.
    pub(crate) fn open_facts(&self) -> u64 {
        self.chunker.open_facts()
    }

    /// Room for an op of `kind` in an empty chunk.
    pub(crate) fn op_bytes_max(&self, kind: Kind, context: &Context<'_, '_>) -> usize {
        self.op_bytes_max_of(context.definitions.op_bytes(kind))
    }

    /// Room for an op in a chunk that is empty but for a preamble and definitions.
    pub(crate) fn op_bytes_max_of(&self, definition_bytes: usize) -> usize {
        self.chunker.op_bytes_max(definition_bytes)
    }

    pub(crate) fn segment_seq(&self) -> u64 {
        self.segment_seq
    }

    pub(crate) fn is_segment_due(&self) -> bool {
        self.is_segment_due
    }

    pub(crate) fn request_segment(&mut self) {
        self.is_segment_due = true;
    }

    /// As [`Self::request_segment`], when what a keyframe under way builds upon is lost: it begins
    /// anew.
    pub(crate) fn restart_segment(&mut self) {
        self.keyframe = None;
        self.is_segment_due = true;
    }

    pub(crate) fn is_segment_old(&self, now: Now) -> bool {
        self.segment_began_ns.is_some_and(|since| now.is_past(since, SEGMENT_AGE_MS_MAX))
    }

    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        let old = self.segment_began_ns.map(|since| since + nanoseconds(SEGMENT_AGE_MS_MAX));
        [self.chunker.deadline_ns(), old].into_iter().flatten().min()
    }

    /// What opens a segment or self-contained chunk whose time base is `now`.
    pub(crate) fn preamble(&self, now: Now, string_slots: u32) -> Preamble {
        Preamble { boot: self.boot, wall_ms: now.wall_ms, string_slots }
    }

    /// How a difference of a row is written: as a change, and with which features.
    pub(crate) fn row_change(&self, difference: Difference) -> (RowChange, u64) {
        match difference {
            Difference::Features(mask) if !self.is_self_contained() => (RowChange::Patch, mask),
            Difference::Features(_) | Difference::Whole | Difference::Nothing => {
                (RowChange::Put, u64::MAX)
            }
        }
    }

    /// Forgets the old log's open chunk and answers with its facts.
    pub(crate) fn open_log(&mut self) -> u64 {
        self.keyframe = None;
        self.is_segment_due = true;
        self.segment_seq = 0;
        self.segment_began_ns = None;
        self.chunker.abandon()
    }

    /// Begins the segment that is due, as far as there is room; `false` while it is not whole.
    pub(crate) fn prepare(
        &mut self,
        context: &Context<'_, '_>,
        table: &Table<'_>,
        outbox: &mut Outbox<'_>,
    ) -> bool {
        if self.is_segment_due {
            self.begin_segment(context.now, table, outbox);
        }
        self.pump_keyframe(context, table, outbox) && outbox.has_room(self.chunk_bytes_max())
    }

    /// Closes the open chunk and begins a keyframe.
    pub(crate) fn begin_segment(&mut self, now: Now, table: &Table<'_>, outbox: &mut Outbox<'_>) {
        if self.keyframe.is_some() {
            return;
        }
        self.close(now, table, outbox);
        self.strings.reset();
        self.is_segment_due = false;
        self.segment_seq = outbox.current().made.seq + 1;
        self.segment_began_ns = Some(now.monotonic_ns);
        self.keyframe_bytes = 0;
        self.delta_bytes = 0;
        self.defined = 0;
        self.keyframe = Some(Keyframe { next_slot: 0, next_definition: 0, part: 0, rows: 0 });
    }

    /// Writes parts of the keyframe while there is room; `true` when none is left to write.
    pub(crate) fn pump_keyframe(
        &mut self,
        context: &Context<'_, '_>,
        table: &Table<'_>,
        outbox: &mut Outbox<'_>,
    ) -> bool {
        while let Some(keyframe) = self.keyframe {
            if !outbox.has_room(self.chunk_bytes_max()) {
                return false;
            }
            let next_index = outbox.current().made.next_index;
            let alone = if self.is_self_contained() { ChunkFlags::SELF_CONTAINED } else { 0 };
            let flags = ChunkFlags::KEYFRAME | alone;
            self.chunker.begin(context.now, flags, keyframe.part, next_index);
            // A full buffer cannot be met here: a part is opened empty and checked before each op.
            let _ = self.write_part(context, table, keyframe);
            self.seal(context.now, table, outbox);
        }
        true
    }

    fn write_part(
        &mut self,
        context: &Context<'_, '_>,
        table: &Table<'_>,
        mut keyframe: Keyframe,
    ) -> Result<(), BufferFull> {
        let alone = self.is_self_contained();
        if alone || keyframe.part == 0 {
            let slots = if alone { 0 } else { self.strings.len() as u32 };
            self.chunker.preamble(&self.preamble(context.now, slots))?;
        }
        if !alone && !self.write_definitions(context, &mut keyframe)? {
            keyframe.part += 1;
            self.keyframe = Some(keyframe);
            return Ok(());
        }
        while let Some(slot) = table.next_used(keyframe.next_slot) {
            if !self.write_keyframe_row(context, table, slot)? {
                keyframe.next_slot = slot;
                keyframe.part += 1;
                self.keyframe = Some(keyframe);
                return Ok(());
            }
            keyframe.next_slot = slot + 1;
            keyframe.rows += 1;
        }
        self.keyframe = None;
        self.chunker.set_last();
        self.chunker.write(0, |writer| writer.keyframe_end(keyframe.rows, table.digest()))
    }

    /// Writes definitions until the part is full; `true` when all are written.
    fn write_definitions(
        &mut self,
        context: &Context<'_, '_>,
        keyframe: &mut Keyframe,
    ) -> Result<bool, BufferFull> {
        for encoded in context.definitions.encoded().skip(keyframe.next_definition) {
            if !self.chunker.fits(encoded.len() + 4) {
                return Ok(false);
            }
            self.chunker.write(0, |writer| writer.define_encoded(encoded))?;
            self.defined |= 1 << (keyframe.next_definition & 63);
            keyframe.next_definition += 1;
        }
        Ok(true)
    }

    /// Writes the row in `slot`; `false` when it belongs into the next part.
    fn write_keyframe_row(
        &mut self,
        context: &Context<'_, '_>,
        table: &Table<'_>,
        slot: u32,
    ) -> Result<bool, BufferFull> {
        let Some((kind, row)) = table.row(slot) else { return Ok(true) };
        let mut features = heapless::Vec::new();
        let Some(spec) = context.definitions.spec(kind, &mut features) else { return Ok(true) };
        let fields = fields_of(row, &spec, u64::MAX, None);
        let alone = self.is_self_contained();
        let definition = if alone { context.definitions.op_bytes(kind) } else { 0 };
        if !self.chunker.fits(op_bytes_max(&fields) + definition) {
            return Ok(false);
        }
        let head = (kind, context.now.monotonic_ns);
        if alone {
            self.chunker.define(kind, context.definitions)?;
            self.chunker
                .write(0, |writer| writer.row(RowChange::Put, slot, head, &fields, &mut Literal))?;
            return Ok(true);
        }
        let mut compressor = SegmentCompressor {
            strings: &mut self.strings,
            table,
            rows_below: slot,
            own_slot: Some(slot),
        };
        self.chunker
            .write(0, |writer| writer.row(RowChange::Put, slot, head, &fields, &mut compressor))?;
        Ok(true)
    }

    /// Makes sure that a chunk is open in which an op of `kind` and `bytes` fits.
    pub(crate) fn make_room(
        &mut self,
        context: &Context<'_, '_>,
        table: &Table<'_>,
        (kind, bytes): (Kind, usize),
        outbox: &mut Outbox<'_>,
    ) {
        let definition =
            if self.is_defined(kind, context) { 0 } else { context.definitions.op_bytes(kind) };
        if self.chunker.is_open() && !self.chunker.fits(bytes + definition) {
            self.close(context.now, table, outbox);
        }
        self.open(context.now, outbox);
        // What does not fit an empty chunk was refused before.
        if !self.is_defined(kind, context)
            && self.chunker.define(kind, context.definitions).is_ok()
            && let Some((number, _)) = context.definitions.find(kind)
        {
            self.defined |= 1 << (number & 63);
        }
    }

    fn is_defined(&self, kind: Kind, context: &Context<'_, '_>) -> bool {
        if lapwing_protocol::element::kind(kind).is_some() {
            return true;
        }
        context.definitions.find(kind).is_none_or(|(number, _)| {
            if self.is_self_contained() {
                self.chunker.has_defined(number)
            } else {
                self.defined & 1 << (number & 63) != 0
            }
        })
    }

    fn open(&mut self, now: Now, outbox: &Outbox<'_>) {
        if self.chunker.is_open() {
            return;
        }
        let next_index = outbox.current().made.next_index;
        if self.is_self_contained() {
            self.chunker.begin(now, ChunkFlags::SELF_CONTAINED, 0, next_index);
            // The smallest chunk has room for a preamble.
            let _ = self.chunker.preamble(&self.preamble(now, 0));
        } else {
            self.chunker.begin(now, 0, 0, next_index);
        }
    }

    /// Writes a change of a row; room was made before.
    pub(crate) fn write_row(
        &mut self,
        table: &Table<'_>,
        (change, slot): (RowChange, u32),
        head: (Kind, u64),
        fields: &[Field<'_>],
    ) {
        let alone = self.is_self_contained();
        let own_slot = if change == RowChange::Put { Some(slot) } else { None };
        let mut compressor =
            SegmentCompressor { strings: &mut self.strings, table, rows_below: u32::MAX, own_slot };
        let written = self.chunker.write(1, |writer| {
            if alone {
                writer.row(change, slot, head, fields, &mut Literal)
            } else {
                writer.row(change, slot, head, fields, &mut compressor)
            }
        });
        debug_assert!(written.is_ok(), "room was made for this op");
    }

    /// Writes an event; room was made before.
    pub(crate) fn write_event(&mut self, table: &Table<'_>, fact: &Fact<'_>) {
        let alone = self.is_self_contained();
        let mut compressor = SegmentCompressor {
            strings: &mut self.strings,
            table,
            rows_below: u32::MAX,
            own_slot: None,
        };
        let head = (fact.kind, fact.time_ns);
        let written = self.chunker.write(1, |writer| {
            if alone {
                writer.event(head, fact.fields, &mut Literal)
            } else {
                writer.event(head, fact.fields, &mut compressor)
            }
        });
        debug_assert!(written.is_ok(), "room was made for this op");
    }

    /// Ends the row in `slot` for a scan that did not see it.
    pub(crate) fn remove_row(
        &mut self,
        context: &Context<'_, '_>,
        (table, slot): (&mut Table<'_>, u32),
        (kind, spec): (Kind, &KindSpec<'_>),
        outbox: &mut Outbox<'_>,
    ) {
        let mask = if self.is_self_contained() { spec.key_mask() } else { 0 };
        let row = table.row(slot).map(|(_, row)| row).unwrap_or_default();
        let fields = fields_of(row, spec, mask, None);
        self.make_room(context, table, (kind, op_bytes_max(&fields)), outbox);
        let head = (kind, context.now.monotonic_ns);
        self.write_row(table, (RowChange::Remove, slot), head, &fields);
        drop(fields);
        table.remove(slot);
        self.close_due(context.now, table, outbox);
    }

    /// Forgets the row in `slot`.
    pub(crate) fn forget_row(
        &mut self,
        context: &Context<'_, '_>,
        (table, slot): (&mut Table<'_>, u32),
        outbox: &mut Outbox<'_>,
    ) {
        let Some((kind, _)) = table.row(slot) else { return };
        self.make_room(context, table, (kind, op_bytes_max(&[])), outbox);
        let written = self.chunker.write(1, |writer| writer.forget(slot));
        debug_assert!(written.is_ok(), "room was made for this op");
        table.remove(slot);
        self.close_due(context.now, table, outbox);
    }

    /// Counts a fact as dropped.
    pub(crate) fn drop_fact(
        &mut self,
        context: &Context<'_, '_>,
        table: &Table<'_>,
        reason: DropReason,
        outbox: &mut Outbox<'_>,
    ) {
        if self.chunker.is_open() && !self.chunker.fits(0) {
            self.close(context.now, table, outbox);
        }
        self.open(context.now, outbox);
        let counted = self.chunker.drop_fact(reason);
        debug_assert!(counted.is_ok(), "a count has its room in every chunk");
        self.close_due(context.now, table, outbox);
    }

    /// Closes the open chunk when its time has come.
    pub(crate) fn close_due(&mut self, now: Now, table: &Table<'_>, outbox: &mut Outbox<'_>) {
        if self.chunker.deadline_ns().is_some_and(|deadline| deadline <= now.monotonic_ns) {
            self.close(now, table, outbox);
        }
    }

    /// Closes the open chunk, if there is one.
    pub(crate) fn close(&mut self, now: Now, table: &Table<'_>, outbox: &mut Outbox<'_>) {
        if self.chunker.is_open() {
            self.seal(now, table, outbox);
        }
    }

    fn seal(&mut self, now: Now, table: &Table<'_>, outbox: &mut Outbox<'_>) {
        let seq = outbox.current().made.seq + 1;
        let digest = table.digest() ^ u64::from(cfg!(mutant = "digest_wrong"));
        let Some(sealed) = self.chunker.seal(now, seq, digest) else { return };
        let bytes = self.chunker.sealed(&sealed);
        if sealed.flags.has(ChunkFlags::KEYFRAME) {
            self.keyframe_bytes += bytes.len() as u64;
        } else {
            self.delta_bytes += bytes.len() as u64;
        }
        let due = (self.keyframe_bytes * SEGMENT_DELTA_RATIO).max(SEGMENT_DELTA_BYTES_MIN);
        if !self.is_self_contained() && self.delta_bytes >= due {
            self.is_segment_due = true;
        }
        outbox.push(bytes, sealed.next_index);
    }
}
