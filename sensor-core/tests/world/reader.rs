//! A reader of one log: turns chunks back into rows and events, and checks all they promise.

use std::collections::BTreeMap;

use lapwing_protocol::chunk::{Chunk, ChunkFlags};
use lapwing_protocol::digest::row_digest;
use lapwing_protocol::element::{self, Feature, Field, Kind, KindSpec, Reference, Value};
use lapwing_protocol::element::{read_value, write_value};
use lapwing_protocol::id::LogId;
use lapwing_protocol::limits::CHUNK_FACTS_MAX;
use lapwing_protocol::op::{
    DropReason, Op, OpReader, RawString, RawValue, RowChange, string_value,
};
use lapwing_protocol::varint::{Reader as Cursor, Writer};

/// Canonical values by feature.
pub(crate) type Row = BTreeMap<u16, Vec<u8>>;
pub(crate) type Rows = BTreeMap<u32, (Kind, Row)>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Reader {
    pub(crate) rows: Rows,
    pub(crate) events: Vec<(Kind, Row)>,
    pub(crate) removed: Vec<(Kind, Row)>,
    pub(crate) dropped: Vec<(DropReason, u64)>,
    pub(crate) next_index: u64,
    pub(crate) keyframes: usize,
    strings: BTreeMap<u32, Vec<u8>>,
    /// The table of a keyframe that is under way.
    coming: Option<Rows>,
    is_open: bool,
}

impl Reader {
    /// A reader at the start of a log, whose first fact has index 1.
    pub(crate) fn new() -> Self {
        Self { next_index: 1, ..Self::default() }
    }

    /// Applies one chunk of `log`.
    pub(crate) fn apply(&mut self, log: LogId, bytes: &[u8]) {
        let chunk = Chunk::decode(bytes).expect("a chunk");
        let header = &chunk.header;
        let alone = header.flags.has(ChunkFlags::SELF_CONTAINED);
        let is_keyframe = header.flags.has(ChunkFlags::KEYFRAME);
        assert!(self.is_open || header.flags.opens(header.part), "nothing to build upon");
        self.is_open = true;
        assert_eq!(header.first_index, self.next_index, "indices are dense");
        if is_keyframe && header.part == 0 {
            self.strings.clear();
            self.coming = Some(Rows::new());
        }
        assert_eq!(is_keyframe, self.coming.is_some(), "no delta between parts of a keyframe");
        if alone {
            assert!(self.strings.is_empty(), "a self-contained chunk uses no slots");
        }
        let mut ops = OpReader::new(chunk.body, header.time_base_ns);
        let mut facts = 0;
        let mut number = 0;
        while let Some(op) = ops.op().expect("an op") {
            let opens = header.flags.opens(header.part) && number == 0;
            let is_preamble = matches!(op, Op::Preamble(_));
            assert_eq!(opens || alone && number == 0, is_preamble, "preambles open");
            facts += if is_keyframe { 0 } else { op.facts() };
            self.op(&op, &mut ops, log);
            number += 1;
        }
        assert_eq!(facts, header.count);
        assert!(facts <= CHUNK_FACTS_MAX || !self.dropped.is_empty());
        self.next_index += facts;
        if header.flags.has(ChunkFlags::KEYFRAME_LAST) {
            self.rows = self.coming.take().expect("a keyframe is under way");
            self.keyframes += 1;
        }
        if self.coming.is_none() && header.flags.lane() == lapwing_protocol::id::Lane::Bulk {
            assert_eq!(header.digest, (digest(log, &self.rows) as u32).to_le_bytes(), "digest");
        }
    }

    fn op(&mut self, op: &Op<'_>, ops: &mut OpReader<'_>, log: LogId) {
        match *op {
            Op::Row { change, slot, kind, .. } => {
                let row = self.fields(kind, ops);
                self.change(change, slot, kind, row);
            }
            Op::Event { kind, .. } => {
                let row = self.fields(kind, ops);
                self.events.push((kind, row));
            }
            Op::Forget(slot) => {
                self.rows.remove(&slot).expect("a row to forget");
            }
            Op::Dropped { count, reason } => self.dropped.push((reason, count)),
            Op::KeyframeEnd { rows, digest: expected } => {
                let coming = self.coming.as_ref().expect("a keyframe is under way");
                assert_eq!((coming.len() as u64, digest(log, coming)), (rows, expected));
            }
            Op::Preamble(_) | Op::Define(_) => {}
        }
    }

    fn change(&mut self, change: RowChange, slot: u32, kind: Kind, mut row: Row) {
        row.remove(&Feature::SOURCE_SEQ.0);
        let rows = self.coming.as_mut().unwrap_or(&mut self.rows);
        match change {
            RowChange::Put => {
                rows.insert(slot, (kind, row));
            }
            RowChange::Patch => {
                let known = rows.get_mut(&slot).expect("a row to patch");
                assert_eq!(known.0, kind);
                for (feature, value) in row {
                    assert_ne!(known.1.insert(feature, value.clone()), Some(value), "no change");
                }
            }
            RowChange::Remove => {
                let (known, mut last) = rows.remove(&slot).unwrap_or((kind, Row::new()));
                assert_eq!(known, kind);
                last.extend(row);
                self.removed.push((kind, last));
            }
        }
    }

    fn fields(&mut self, kind: Kind, ops: &mut OpReader<'_>) -> Row {
        let spec = element::kind(kind).expect("a built-in kind");
        let mut row = Row::new();
        while let Some((feature, raw)) = ops.field(spec).expect("a field") {
            let value = self.resolve(raw);
            row.insert(feature.0, value);
        }
        row
    }

    fn resolve(&mut self, raw: RawValue<'_>) -> Vec<u8> {
        match raw {
            RawValue::Plain(value) => canonical(value),
            RawValue::String(value_type, string) => {
                let bytes = match string {
                    RawString::Literal(bytes) => bytes.to_vec(),
                    RawString::Define(slot, bytes) => {
                        self.strings.insert(slot, bytes.to_vec());
                        bytes.to_vec()
                    }
                    RawString::Slot(slot) => self.strings.get(&slot).expect("a string").clone(),
                };
                canonical(string_value(value_type, &bytes).expect("a value"))
            }
            RawValue::Row(slot) => {
                let rows = self.coming.as_ref().unwrap_or(&self.rows);
                let (kind, row) = rows.get(&slot).expect("a row to refer to");
                let key = key_of(element::kind(*kind).expect("a kind"), row);
                canonical(Value::Ref(Reference { kind: *kind, key: &key }))
            }
        }
    }
}

/// The natural key of a row, in canonical form.
pub(crate) fn key_of(spec: &KindSpec<'_>, row: &Row) -> Vec<u8> {
    let keys = spec.features.iter().filter(|feature| feature.role.is_key());
    keys.flat_map(|feature| row[&feature.feature.0].clone()).collect()
}

pub(crate) fn canonical(value: Value<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 8_192];
    let mut writer = Writer::new(&mut buffer);
    write_value(&mut writer, value).expect("room");
    writer.written().to_vec()
}

/// A row as both ends hash it.
pub(crate) fn row_bytes(row: &Row) -> Vec<u8> {
    let mut buffer = [0; 10];
    let mut writer = Writer::new(&mut buffer);
    writer.unsigned(row.keys().fold(0, |bits, feature| bits | 1 << feature)).expect("room");
    let mut bytes = writer.written().to_vec();
    row.values().for_each(|value| bytes.extend(value));
    bytes
}

pub(crate) fn digest(log: LogId, rows: &Rows) -> u64 {
    rows.values()
        .fold(0, |sum, (kind, row)| sum.wrapping_add(row_digest(log, *kind, &row_bytes(row))))
}

/// A list of fields as a row.
pub(crate) fn row_of(fields: &[Field<'_>]) -> Row {
    fields.iter().map(|field| (field.feature.0, canonical(field.value))).collect()
}

/// The text in a canonical value.
pub(crate) fn text(value: &[u8]) -> String {
    let value = read_value(&mut Cursor::new(value), element::Type::Text).expect("a text");
    String::from_utf8_lossy(value.as_string().expect("a text")).into_owned()
}
