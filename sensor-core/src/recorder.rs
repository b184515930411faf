//! From facts to chunks: table, delta, string table and open chunks, put together.
//!
//! A fact that says something new gets its index first; then it either becomes one op, or one more
//! in a count of dropped facts. Long work (a keyframe, the end of a scan, forgetting) is done piece
//! by piece as far as the outbox has room, and no fact is taken before it is done.
//!
//! Invariants: a chunk's digest is the table's after the chunk's last op, so room for an op is made
//! before the table changes; between a keyframe's parts stands no other op.

use lapwing_protocol::chunk::ChunkFlags;
use lapwing_protocol::element::{Change, Definition, Fact, Feature, Kind, KindSpec, Value};
use lapwing_protocol::hello::Memory;
use lapwing_protocol::id::{BootId, LogId};
use lapwing_protocol::op::{DropReason, Literal, RowChange, op_bytes_max};
use lapwing_protocol::row;

use crate::chunker::Chunker;
use crate::definitions::Definitions;
use crate::delta::{Difference, FieldList, compare, fields_of, is_sound, merge};
use crate::error::{DefineError, IntakeError};
use crate::outbox::Outbox;
use crate::press::{Context, Press};
use crate::stats::Stats;
use crate::strings::StringTable;
use crate::table::{Staged, Table};
use crate::time::Now;

/// What became of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// It is in the log.
    Recorded,
    /// It said nothing new: no index, no op.
    Unchanged,
    /// It has an index and is announced as dropped.
    Dropped(DropReason),
}

/// Work that is done piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sweep {
    /// Rows of a kind that a scan did not see ended.
    Unseen { kind: Kind, slot: u32 },
    /// Rows beyond the table's bound are no longer reported.
    Forget { slot: u32 },
}

#[derive(Debug)]
pub(crate) struct Recorder<'a> {
    definitions: Definitions<'a>,
    table: Table<'a>,
    press: Press<'a>,
    urgent: Option<Chunker<'a>>,
    sweep: Option<Sweep>,
    is_forget_due: bool,
    pub(crate) stats: Stats,
}

/// What a recorder is made of.
pub(crate) struct Parts<'a> {
    pub(crate) definitions: &'a mut [u8],
    pub(crate) table: Table<'a>,
    pub(crate) strings: StringTable<'a>,
    pub(crate) bulk: Chunker<'a>,
    pub(crate) urgent: Option<Chunker<'a>>,
    pub(crate) boot: BootId,
    pub(crate) memory: Memory,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(parts: Parts<'a>) -> Self {
        let press = Press::new(parts.bulk, parts.strings, (parts.boot, parts.memory));
        Self {
            definitions: Definitions::new(parts.definitions),
            table: parts.table,
            press,
            urgent: parts.urgent,
            sweep: None,
            is_forget_due: false,
            stats: Stats::default(),
        }
    }

    /// Takes in an agent's own kind, if a chunk can describe it.
    pub(crate) fn define(&mut self, definition: &Definition<'_>) -> Result<(), DefineError> {
        self.definitions.define(definition, self.press.op_bytes_max_of(0))
    }

    pub(crate) fn rows(&self) -> u32 {
        self.table.len()
    }

    pub(crate) fn digest(&self) -> u64 {
        self.table.digest()
    }

    /// Facts that have an index and stand in no chunk yet.
    pub(crate) fn open_facts(&self) -> u64 {
        self.press.open_facts()
    }

    /// The canonical row in `slot`.
    pub(crate) fn row(&self, slot: u32) -> Option<(Kind, &[u8])> {
        self.table.row(slot)
    }

    /// The first chunk of the newest segment.
    pub(crate) fn segment_seq(&self) -> u64 {
        self.press.segment_seq()
    }

    /// When the open chunk or the segment must be closed.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        self.press.deadline_ns()
    }

    /// Takes in a fact of the bulk lane.
    pub(crate) fn take(
        &mut self,
        now: Now,
        fact: &Fact<'_>,
        outbox: &mut Outbox<'_>,
    ) -> Result<Intake, IntakeError> {
        if !self.pump(now, outbox) {
            return Err(IntakeError::Undrained);
        }
        let Self { definitions, table, press, stats, .. } = self;
        let mut features = heapless::Vec::new();
        let spec = definitions.spec(fact.kind, &mut features);
        let context = Context { now, definitions: &*definitions };
        let Some(spec) = spec.filter(|spec| is_sound(fact, spec)) else {
            return dropped(DropReason::Malformed, (table, press, stats), &context, outbox);
        };
        let mut bulk = Bulk { table, press, stats, context: &context, spec: &spec };
        match fact.change {
            Change::Event => bulk.event(fact, outbox),
            Change::Whole | Change::Update => bulk.state(fact, outbox),
            Change::Ended => bulk.ended(fact, outbox),
        }
    }

    /// Takes in a fact of the urgent lane: a chunk of its own, at once, without the table.
    pub(crate) fn take_urgent(
        &mut self,
        now: Now,
        fact: &Fact<'_>,
        outbox: &mut Outbox<'_>,
    ) -> Result<Intake, IntakeError> {
        let Self { definitions, press, urgent, stats, .. } = self;
        let Some(chunker) = urgent else { return Err(IntakeError::Undrained) };
        if !outbox.has_room(chunker.chunk_bytes_max()) {
            return Err(IntakeError::Undrained);
        }
        let mut features = heapless::Vec::new();
        let spec = definitions.spec(fact.kind, &mut features);
        let is_sound = spec.is_some_and(|spec| is_sound(fact, &spec));
        let room = chunker.op_bytes_max(definitions.op_bytes(fact.kind));
        let refusal = match is_sound {
            false => Some(DropReason::Malformed),
            true if op_bytes_max(fact.fields) > room => Some(DropReason::TooLarge),
            true => None,
        };
        chunker.begin(now, ChunkFlags::SELF_CONTAINED, 0, outbox.current().made.next_index);
        let written = chunker.preamble(&press.preamble(now, 0)).and_then(|()| match refusal {
            Some(reason) => chunker.drop_fact(reason),
            None => {
                chunker.define(fact.kind, definitions)?;
                write_urgent(chunker, fact)
            }
        });
        // Room was measured above; were that wrong, the fact would still be counted as dropped.
        let refusal = refusal.or(written.err().map(|_| DropReason::TooLarge));
        if written.is_err() {
            let _ = chunker.drop_fact(DropReason::TooLarge);
        }
        if let Some(sealed) = chunker.seal(now, outbox.current().made.seq + 1, 0) {
            outbox.push(chunker.sealed(&sealed), sealed.next_index);
        }
        Ok(refusal.map_or(Intake::Recorded, |reason| {
            stats.drop_fact(reason);
            Intake::Dropped(reason)
        }))
    }

    /// Marks the rows of `kind`: those not observed until [`Self::end_scan`] ended.
    pub(crate) fn begin_scan(&mut self, kind: Kind) {
        self.table.begin_scan(kind);
    }

    /// Ends the rows of `kind` that were not observed since [`Self::begin_scan`].
    pub(crate) fn end_scan(
        &mut self,
        now: Now,
        kind: Kind,
        outbox: &mut Outbox<'_>,
    ) -> Result<(), IntakeError> {
        if !self.pump(now, outbox) {
            return Err(IntakeError::Undrained);
        }
        self.sweep = Some(Sweep::Unseen { kind, slot: 0 });
        self.pump(now, outbox);
        Ok(())
    }

    /// Keeps to the server's bound of rows.
    pub(crate) fn set_rows_max(&mut self, now: Now, rows_max: u32, outbox: &mut Outbox<'_>) {
        let rows_max = rows_max.min(self.table.slots());
        if rows_max != self.table.capacity() {
            self.table.set_capacity(rows_max);
            self.is_forget_due = self.table.next_used(rows_max).is_some();
            self.pump(now, outbox);
        }
    }

    /// The next chunk opens a segment.
    pub(crate) fn request_segment(&mut self) {
        self.press.request_segment();
    }

    /// What was made last is lost: the next chunk opens a segment, whatever was under way.
    pub(crate) fn restart_segment(&mut self) {
        self.press.restart_segment();
    }

    /// Begins a segment at once.
    pub(crate) fn begin_segment(&mut self, now: Now, outbox: &mut Outbox<'_>) {
        self.press.request_segment();
        self.press.begin_segment(now, &self.table, outbox);
        self.pump(now, outbox);
    }

    /// Goes over to another log: digests are keyed by it, and it opens with a keyframe. Answers
    /// with the facts of the open chunk, which are in no log then.
    pub(crate) fn open_log(&mut self, log: LogId) -> u64 {
        self.table.rekey(log);
        self.press.open_log()
    }

    /// Closes what is due.
    pub(crate) fn handle_timeout(&mut self, now: Now, outbox: &mut Outbox<'_>) {
        self.press.close_due(now, &self.table, outbox);
        if self.press.is_segment_old(now) {
            self.begin_segment(now, outbox);
        }
        self.pump(now, outbox);
    }

    /// Closes the open chunk whatever its age, for a shell that is about to stop.
    pub(crate) fn close(&mut self, now: Now, outbox: &mut Outbox<'_>) {
        self.press.close(now, &self.table, outbox);
    }

    /// Does the long work as far as there is room; `true` when nothing is left of it.
    pub(crate) fn pump(&mut self, now: Now, outbox: &mut Outbox<'_>) -> bool {
        loop {
            if !outbox.has_room(self.press.chunk_bytes_max()) {
                return false;
            }
            let context = Context { now, definitions: &self.definitions };
            if !self.press.pump_keyframe(&context, &self.table, outbox) {
                return false;
            }
            if self.sweep.is_none() && self.is_forget_due {
                self.is_forget_due = false;
                self.sweep = Some(Sweep::Forget { slot: self.table.capacity() });
            }
            let Some(sweep) = self.sweep else { return true };
            if self.press.is_segment_due() {
                self.press.begin_segment(now, &self.table, outbox);
                continue;
            }
            self.sweep = self.step(now, sweep, outbox);
        }
    }

    fn step(&mut self, now: Now, sweep: Sweep, outbox: &mut Outbox<'_>) -> Option<Sweep> {
        let context = Context { now, definitions: &self.definitions };
        match sweep {
            Sweep::Unseen { kind, slot } => {
                let slot = self.table.next_unseen(kind, slot)?;
                let mut features = heapless::Vec::new();
                let spec = self.definitions.spec(kind, &mut features)?;
                self.press.remove_row(&context, (&mut self.table, slot), (kind, &spec), outbox);
                Some(Sweep::Unseen { kind, slot: slot + 1 })
            }
            Sweep::Forget { slot } => {
                let slot = self.table.next_used(slot)?;
                self.press.forget_row(&context, (&mut self.table, slot), outbox);
                Some(Sweep::Forget { slot: slot + 1 })
            }
        }
    }
}

fn write_urgent(
    chunker: &mut Chunker<'_>,
    fact: &Fact<'_>,
) -> Result<(), lapwing_protocol::error::BufferFull> {
    let head = (fact.kind, fact.time_ns);
    chunker.write(1, |writer| match fact.change {
        Change::Event => writer.event(head, fact.fields, &mut Literal),
        Change::Whole | Change::Update => {
            writer.row(RowChange::Put, 0, head, fact.fields, &mut Literal)
        }
        Change::Ended => writer.row(RowChange::Remove, 0, head, fact.fields, &mut Literal),
    })
}

fn dropped(
    reason: DropReason,
    (table, press, stats): (&Table<'_>, &mut Press<'_>, &mut Stats),
    context: &Context<'_, '_>,
    outbox: &mut Outbox<'_>,
) -> Result<Intake, IntakeError> {
    if !press.prepare(context, table, outbox) {
        return Err(IntakeError::Undrained);
    }
    press.drop_fact(context, table, reason, outbox);
    stats.drop_fact(reason);
    Ok(Intake::Dropped(reason))
}

/// One fact on its way into the bulk lane.
struct Bulk<'f, 'a, 'd> {
    table: &'f mut Table<'a>,
    press: &'f mut Press<'a>,
    stats: &'f mut Stats,
    context: &'f Context<'f, 'd>,
    spec: &'f KindSpec<'f>,
}

impl Bulk<'_, '_, '_> {
    fn refuse(
        &mut self,
        reason: DropReason,
        outbox: &mut Outbox<'_>,
    ) -> Result<Intake, IntakeError> {
        let parts = (&*self.table, &mut *self.press, &mut *self.stats);
        dropped(reason, parts, self.context, outbox)
    }

    fn prepare(&mut self, outbox: &mut Outbox<'_>) -> Result<(), IntakeError> {
        let is_ready = self.press.prepare(self.context, self.table, outbox);
        if is_ready { Ok(()) } else { Err(IntakeError::Undrained) }
    }

    fn event(&mut self, fact: &Fact<'_>, outbox: &mut Outbox<'_>) -> Result<Intake, IntakeError> {
        let bytes = op_bytes_max(fact.fields);
        if bytes > self.press.op_bytes_max(fact.kind, self.context) {
            return self.refuse(DropReason::TooLarge, outbox);
        }
        self.prepare(outbox)?;
        self.press.make_room(self.context, self.table, (fact.kind, bytes), outbox);
        self.press.write_event(self.table, fact);
        self.press.close_due(self.context.now, self.table, outbox);
        Ok(Intake::Recorded)
    }

    fn state(&mut self, fact: &Fact<'_>, outbox: &mut Outbox<'_>) -> Result<Intake, IntakeError> {
        let mut key = [0; lapwing_protocol::limits::KEY_BYTES_MAX];
        let Ok(key) = row::key(fact.fields, self.spec, &mut key) else {
            return self.refuse(DropReason::Malformed, outbox);
        };
        let found = self.table.find(fact.kind, key);
        let spec = self.spec;
        let staged = match (fact.change, found) {
            (Change::Update, Some(slot)) => {
                let fields = fact.fields;
                self.table.stage_merged(slot, key, |old, buffer| merge(old, fields, spec, buffer))
            }
            _ => self.table.stage(fact.kind, key, fact.fields),
        };
        let Ok(staged) = staged else { return self.refuse(DropReason::TableFull, outbox) };
        let difference = match found.and_then(|slot| self.table.row(slot)) {
            Some((_, old)) => compare(old, self.table.staged_row(&staged), spec),
            None => Difference::Whole,
        };
        if let (Difference::Nothing, Some(slot)) = (difference, found) {
            self.table.see(slot);
            self.stats.unchanged += 1;
            return Ok(Intake::Unchanged);
        }
        self.prepare(outbox)?;
        if found.is_none() && !self.table.has_slot() {
            return self.refuse(DropReason::TableFull, outbox);
        }
        self.write_state(fact, &staged, difference, outbox)
    }

    fn write_state(
        &mut self,
        fact: &Fact<'_>,
        staged: &Staged,
        difference: Difference,
        outbox: &mut Outbox<'_>,
    ) -> Result<Intake, IntakeError> {
        let source_seq = fact.value(Feature::SOURCE_SEQ);
        let (change, mask) = self.press.row_change(difference);
        let row = self.table.staged_row(staged);
        let whole = op_bytes_max(&fields_of(row, self.spec, u64::MAX, Some(Value::U64(0))));
        if whole > self.press.op_bytes_max(fact.kind, self.context) {
            return self.refuse(DropReason::TooLarge, outbox);
        }
        let bytes = op_bytes_max(&fields_of(row, self.spec, mask, source_seq));
        self.press.make_room(self.context, self.table, (fact.kind, bytes), outbox);
        let Some(slot) = self.table.commit(staged) else {
            return self.refuse(DropReason::TableFull, outbox);
        };
        let Some((_, row)) = self.table.row(slot) else {
            return self.refuse(DropReason::TableFull, outbox);
        };
        let fields = fields_of(row, self.spec, mask, source_seq);
        self.press.write_row(self.table, (change, slot), (fact.kind, fact.time_ns), &fields);
        self.press.close_due(self.context.now, self.table, outbox);
        Ok(Intake::Recorded)
    }

    fn ended(&mut self, fact: &Fact<'_>, outbox: &mut Outbox<'_>) -> Result<Intake, IntakeError> {
        let mut key = [0; lapwing_protocol::limits::KEY_BYTES_MAX];
        let Ok(key) = row::key(fact.fields, self.spec, &mut key) else {
            return self.refuse(DropReason::Malformed, outbox);
        };
        let Some(slot) = self.table.find(fact.kind, key) else {
            // Nobody was told of this element. When that is for want of room, it is one more
            // fact that found none; else there is nothing to take back.
            if !self.table.has_slot() {
                return self.refuse(DropReason::TableFull, outbox);
            }
            self.stats.unchanged += 1;
            return Ok(Intake::Unchanged);
        };
        let fields = self.last_fields(fact, slot);
        let bytes = op_bytes_max(&fields);
        if bytes > self.press.op_bytes_max(fact.kind, self.context) {
            return self.refuse(DropReason::TooLarge, outbox);
        }
        self.prepare(outbox)?;
        self.press.make_room(self.context, self.table, (fact.kind, bytes), outbox);
        let fields = self.last_fields(fact, slot);
        let head = (fact.kind, fact.time_ns);
        self.press.write_row(self.table, (RowChange::Remove, slot), head, &fields);
        self.table.remove(slot);
        self.press.close_due(self.context.now, self.table, outbox);
        Ok(Intake::Recorded)
    }

    /// What a Remove carries: all of the fact where a chunk must stand alone, else what is news.
    fn last_fields<'r>(&self, fact: &Fact<'r>, slot: u32) -> FieldList<'r> {
        let mut list = FieldList::new();
        let row = self.table.row(slot).map(|(_, row)| row).unwrap_or_default();
        let is_alone = self.press.is_self_contained();
        for field in fact.fields {
            if is_alone || row::value(row, self.spec, field.feature) != Some(field.value) {
                let _ = list.push(*field);
            }
        }
        list
    }
}
