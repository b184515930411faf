//! Turns the chunks of one lane of one sensor into [`Change`]s, and mirrors the sensor's table.
//!
//! Not here: whether a chunk is the next one, and whether it is durable; that is
//! [`crate::delivery`]. A chunk that reaches the decoder is stored already, so an error here loses
//! nothing: the caller counts the chunk as undecoded and asks for a keyframe.
//!
//! Invariants:
//! * a chunk gives all its changes or none;
//! * after an error nothing is decoded until a chunk opens (keyframe part 0, or self-contained);
//! * the digest is the wrapping sum of the rows' digests;
//! * rows never exceed `rows_max`, nor their bytes [`limits::TABLE_BYTES_MAX`].

mod fields;
pub mod limits;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use lapwing_protocol::chunk::{Chunk, ChunkFlags};
use lapwing_protocol::element::{self, Definition, Kind};
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::id::{BootId, DeploymentId, Lane, LogId, SensorId};
use lapwing_protocol::limits::DEFINED_KINDS_MAX;
use lapwing_protocol::op::{DropReason, ENCODING_PLAIN_ROWS, Op, OpReader, Preamble, RowChange};

use crate::change::{Change, KindModel, What};
use fields::Strings;
use limits::TABLE_BYTES_MAX;
use table::Table;

/// Whose chunks these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogContext {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The sensor.
    pub sensor: SensorId,
    /// The lane.
    pub lane: Lane,
    /// The log.
    pub log: LogId,
}

/// What a chunk came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// Facts the sensor dropped after intake.
    pub dropped: Vec<(DropReason, u64)>,
    /// Whether the table here is no longer the sensor's: a keyframe must be asked for.
    pub divergent: bool,
}

/// Decodes one lane of one sensor.
#[derive(Debug)]
pub struct Decoder {
    context: LogContext,
    rows_max: u32,
    /// The chunk to come must open: nothing seen yet, or an error.
    waiting: bool,
    divergent: bool,
    clock: Option<SegmentClock>,
    strings: Strings,
    own_models: BTreeMap<Kind, Arc<KindModel>>,
    built_in: BuiltIn,
    table: Table,
    next_part: u16,
}

/// How the segment's monotonic times become wall times.
#[derive(Clone, Copy, Debug)]
struct SegmentClock {
    boot: BootId,
    base_ns: u64,
    wall_ms: u64,
}

impl SegmentClock {
    fn wall_ns(&self, time_ns: u64) -> u64 {
        let base = self.wall_ms.saturating_mul(1_000_000);
        base.saturating_add_signed(time_ns.wrapping_sub(self.base_ns) as i64)
    }
}

/// The built-in kinds, owned once per process and shared by all decoders.
#[derive(Clone, Debug)]
pub struct BuiltIn(Arc<BTreeMap<Kind, Arc<KindModel>>>);

impl Default for BuiltIn {
    fn default() -> Self {
        let models = element::MODEL.iter();
        Self(Arc::new(models.map(|spec| (spec.kind, Arc::new(KindModel::new(spec)))).collect()))
    }
}

impl BuiltIn {
    /// The built-in model of `kind`.
    #[must_use]
    pub fn model(&self, kind: Kind) -> Option<&Arc<KindModel>> {
        self.0.get(&kind)
    }
}

impl Decoder {
    /// A decoder that waits for a chunk that opens.
    #[must_use]
    pub fn new(context: LogContext, rows_max: u32, built_in: BuiltIn) -> Self {
        Self {
            context,
            rows_max,
            waiting: true,
            divergent: false,
            clock: None,
            strings: Strings::default(),
            own_models: BTreeMap::new(),
            built_in,
            table: Table::new(TABLE_BYTES_MAX),
            next_part: 0,
        }
    }

    /// The same decoder, new, with another bound for its table's memory.
    #[must_use]
    pub fn with_table_bytes_max(self, bytes_max: usize) -> Self {
        Self { table: Table::new(bytes_max), ..self }
    }

    /// Goes over to another log of the same lane; the table stays until its keyframe ends.
    pub fn open_log(&mut self, log: LogId) {
        if self.context.log != log {
            self.context.log = log;
            self.own_models.clear();
            self.await_opening();
        }
    }

    /// Ignores what follows until a chunk opens: after a Jump, or an error.
    pub fn await_opening(&mut self) {
        self.waiting = true;
        self.table.abandon_keyframe();
    }

    /// Whose chunks are decoded at present.
    #[must_use]
    pub fn context(&self) -> &LogContext {
        &self.context
    }

    /// Rows of the table.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.table.len()
    }

    /// The state digest.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.table.digest()
    }

    /// Whether the table is known not to be the sensor's.
    #[must_use]
    pub fn is_divergent(&self) -> bool {
        self.divergent
    }

    /// Decodes `chunk`.
    ///
    /// # Errors
    /// Why it did not decode; the decoder then waits for a chunk that opens.
    pub fn handle_chunk(&mut self, chunk: &Chunk<'_>) -> Result<Decoded, DecodeError> {
        let mut decoded = Decoded::default();
        match self.decode(chunk, &mut decoded) {
            Ok(()) => {
                self.table.keep();
                self.check_digest(chunk);
                decoded.divergent = self.divergent;
                Ok(decoded)
            }
            Err(error) => {
                self.table.take_back();
                // The urgent lane has no table that could differ.
                self.divergent = self.context.lane == Lane::Bulk;
                self.await_opening();
                Err(error)
            }
        }
    }

    fn decode(&mut self, chunk: &Chunk<'_>, decoded: &mut Decoded) -> Result<(), DecodeError> {
        let header = &chunk.header;
        if header.encoding != ENCODING_PLAIN_ROWS && !cfg!(mutant = "encoding_ignored") {
            return Err(DecodeError::UnknownTag);
        }
        self.begin(chunk)?;
        let mut reader = OpReader::new(chunk.body, header.time_base_ns);
        let mut index = header.first_index;
        let keyframe = header.flags.has(ChunkFlags::KEYFRAME);
        let mut may_preamble = header.flags.opens(header.part);
        while let Some(op) = reader.op()? {
            if matches!(op, Op::Preamble(_)) && !may_preamble {
                return Err(DecodeError::Shape);
            }
            may_preamble = false;
            if keyframe && !states_the_table(&op) {
                return Err(DecodeError::Shape);
            }
            if matches!(op, Op::KeyframeEnd { .. }) && !ends(chunk, index, &reader) {
                return Err(DecodeError::Shape);
            }
            let facts = if keyframe { 0 } else { op.facts() };
            let fact = (facts > 0).then_some(index);
            self.apply(&op, fact, header.time_base_ns, &mut reader, decoded)?;
            index = index.checked_add(facts).ok_or(DecodeError::Limit)?;
        }
        let goes_on = keyframe && !header.flags.has(ChunkFlags::KEYFRAME_LAST);
        let is_sum = index == chunk.next_index() || cfg!(mutant = "count_unchecked");
        if !is_sum || self.table.is_midway() != goes_on {
            return Err(DecodeError::Shape);
        }
        Ok(())
    }

    /// Checks that the chunk may come at this point and forgets what an opening chunk outlives.
    fn begin(&mut self, chunk: &Chunk<'_>) -> Result<(), DecodeError> {
        let header = &chunk.header;
        if header.flags.opens(header.part) {
            if !cfg!(mutant = "strings_kept") {
                self.strings = Strings::default();
            }
            self.clock = None;
            self.waiting = false;
            // Each part of a keyframe may be self-contained; only the first begins it.
            if header.flags.has(ChunkFlags::KEYFRAME) && header.part == 0 {
                self.table.begin_keyframe();
                self.next_part = 0;
            }
        }
        if self.waiting {
            return Err(DecodeError::NotOpened);
        }
        if !header.flags.has(ChunkFlags::KEYFRAME) {
            return if self.table.is_midway() { Err(DecodeError::Shape) } else { Ok(()) };
        }
        if header.part != self.next_part || !self.table.is_midway() {
            return Err(DecodeError::Shape);
        }
        self.next_part = self.next_part.wrapping_add(1);
        Ok(())
    }

    fn apply(
        &mut self,
        op: &Op<'_>,
        index: Option<u64>,
        base_ns: u64,
        reader: &mut OpReader<'_>,
        decoded: &mut Decoded,
    ) -> Result<(), DecodeError> {
        match *op {
            Op::Preamble(preamble) => self.preamble(preamble, base_ns),
            Op::Define(definition) => self.define(&definition)?,
            Op::Dropped { count, reason } => decoded.dropped.push((reason, count)),
            Op::Forget(slot) => {
                let row = self.table.take(slot).ok_or(DecodeError::EmptySlot)?;
                let time_ns = base_ns;
                let change = self.change(&row, (What::Forgotten, time_ns), index)?;
                decoded.changes.push(change);
            }
            Op::Row { change, slot, kind, time_ns } => {
                self.row_op((change, slot), (kind, time_ns), index, reader, decoded)?;
            }
            Op::Event { kind, time_ns } => {
                let change = self.event((kind, time_ns), index, reader)?;
                decoded.changes.push(change);
            }
            Op::KeyframeEnd { rows, digest } => {
                self.end_keyframe((rows, digest), base_ns, decoded)?
            }
        }
        Ok(())
    }

    fn preamble(&mut self, preamble: Preamble, base_ns: u64) {
        let Preamble { boot, wall_ms, string_slots } = preamble;
        self.strings.limit(string_slots);
        self.clock = Some(SegmentClock { boot, base_ns, wall_ms });
    }

    fn define(&mut self, definition: &Definition<'_>) -> Result<(), DecodeError> {
        if self.own_models.len() >= DEFINED_KINDS_MAX
            && !self.own_models.contains_key(&definition.kind)
        {
            return Err(DecodeError::Limit);
        }
        let model = fields::model_of(definition)?;
        self.own_models.insert(definition.kind, Arc::new(model));
        Ok(())
    }

    fn model(&self, kind: Kind) -> Result<Arc<KindModel>, DecodeError> {
        let model = self.own_models.get(&kind).or_else(|| self.built_in.model(kind));
        model.cloned().ok_or(DecodeError::UnknownKind)
    }

    fn clock(&self) -> Result<SegmentClock, DecodeError> {
        self.clock.ok_or(DecodeError::Shape)
    }

    fn row_op(
        &mut self,
        (change, slot): (RowChange, u32),
        (kind, time_ns): (Kind, u64),
        index: Option<u64>,
        reader: &mut OpReader<'_>,
        decoded: &mut Decoded,
    ) -> Result<(), DecodeError> {
        if slot >= self.rows_max {
            return Err(DecodeError::Limit);
        }
        let model = self.model(kind)?;
        let fields = fields::read(reader, &model, &mut self.strings)?;
        if self.table.is_midway() {
            return self.table.put_keyframe(slot, model, time_ns, fields.written);
        }
        let clock = self.clock()?;
        let scope = (&self.context, clock.boot);
        let written = self.table.resolve(fields.written)?;
        let mut displaced = None;
        let (what, row) = match change {
            // State of the urgent lane is not in the table: its key says which element is meant.
            RowChange::Put | RowChange::Remove if self.context.lane == Lane::Urgent => {
                let what = if change == RowChange::Put { What::Put } else { What::Ended };
                (what, table::Row::new(model, written.clone(), scope)?)
            }
            RowChange::Put => {
                let (row, before) = self.table.put(slot, model, written.clone(), scope)?;
                displaced = before;
                (What::Put, row)
            }
            RowChange::Patch => (What::Patched, self.table.patch(slot, &model, &written, scope)?),
            RowChange::Remove => (What::Ended, self.table.remove(slot, &model, &written, scope)?),
        };
        if let Some(displaced) = displaced {
            decoded.changes.push(self.change(&displaced, (What::Forgotten, time_ns), None)?);
        }
        decoded.changes.push(Change {
            guid: row.guid,
            model: row.model,
            what,
            time_ns,
            wall_ns: clock.wall_ns(time_ns),
            index,
            source_seq: fields.source_seq,
            fields: table::owned(&written, scope),
        });
        Ok(())
    }

    fn event(
        &mut self,
        (kind, time_ns): (Kind, u64),
        index: Option<u64>,
        reader: &mut OpReader<'_>,
    ) -> Result<Change, DecodeError> {
        let model = self.model(kind)?;
        let fields = fields::read(reader, &model, &mut self.strings)?;
        let clock = self.clock()?;
        let written = self.table.resolve(fields.written)?;
        let scope = (&self.context, clock.boot);
        Ok(Change {
            guid: table::event_guid(&model, time_ns, &written, scope),
            model,
            what: What::Happened,
            time_ns,
            wall_ns: clock.wall_ns(time_ns),
            index,
            source_seq: fields.source_seq,
            fields: table::owned(&written, scope),
        })
    }

    fn end_keyframe(
        &mut self,
        (rows, digest): (u64, u64),
        time_ns: u64,
        decoded: &mut Decoded,
    ) -> Result<(), DecodeError> {
        let clock = self.clock()?;
        let scope = (&self.context, clock.boot);
        let swap = self.table.end_keyframe(scope)?;
        let mask = if cfg!(mutant = "half_a_digest_compared") { u32::MAX.into() } else { u64::MAX };
        let differs = (self.table.digest() ^ digest) & mask != 0;
        self.divergent = differs || self.table.len() as u64 != rows;
        for row in &swap.gone {
            let change = self.change(row, (What::Forgotten, time_ns), None)?;
            decoded.changes.push(change);
        }
        for (time_ns, row) in &swap.restated {
            let mut change = self.change(row, (What::Restated, *time_ns), None)?;
            change.fields = table::owned(&row.fields, (&self.context, clock.boot));
            decoded.changes.push(change);
        }
        Ok(())
    }

    fn change(
        &self,
        row: &table::Row,
        (what, time_ns): (What, u64),
        index: Option<u64>,
    ) -> Result<Change, DecodeError> {
        let wall_ns = self.clock()?.wall_ns(time_ns);
        let (guid, model) = (row.guid, Arc::clone(&row.model));
        Ok(Change { guid, model, what, time_ns, wall_ns, index, source_seq: None, fields: vec![] })
    }

    /// Compares digests where both ends speak of the same table: not within a keyframe.
    fn check_digest(&mut self, chunk: &Chunk<'_>) {
        let header = &chunk.header;
        if self.context.lane == Lane::Bulk && !header.flags.has(ChunkFlags::KEYFRAME) {
            let low = self.table.digest().to_le_bytes();
            let differs = low[..4] != header.digest && !cfg!(mutant = "digest_ignored");
            self.divergent |= differs;
        }
    }
}

/// Whether an op may stand in a keyframe (LOG-005). A fact there would have no index: it would be
/// judged and be in no account.
fn states_the_table(op: &Op<'_>) -> bool {
    match op {
        Op::Row { change, .. } => *change == RowChange::Put,
        Op::Preamble(_) | Op::Define(_) | Op::KeyframeEnd { .. } => true,
        Op::Event { .. } | Op::Forget(_) | Op::Dropped { .. } => false,
    }
}

/// Whether a keyframe may end at this op: it is the last of the last part, which covers no facts.
/// What would be found wrong behind it could not be taken back.
fn ends(chunk: &Chunk<'_>, index: u64, reader: &OpReader<'_>) -> bool {
    let last = ChunkFlags::KEYFRAME | ChunkFlags::KEYFRAME_LAST;
    let is_over = matches!(reader.clone().op(), Ok(None));
    chunk.header.flags.has(last) && index == chunk.next_index() && is_over
}
