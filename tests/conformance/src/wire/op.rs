//! Ops as they are written into a chunk's body (docs/protocol.md, "Chunk encoding 1").
//!
//! Not here: reading them back with a table of rows (`decode.rs`). A writer here writes what it is
//! told, also what the page forbids: that is what cases are made of.

use super::message::{DropReason, Id};
use super::model::Definition;
use super::primitive::{Wire, Writer};

/// A string as an op writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// In full.
    Full(Vec<u8>),
    /// In full, and kept in this slot.
    Kept(u64, Vec<u8>),
    /// What this slot holds.
    Slot(u64),
}

/// A reference as an op writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Kind and natural key, canonical.
    Full(u16, Vec<u8>),
    /// The row in this slot.
    Slot(u64),
}

/// A value as an op writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// U64; of feature 0, the source's number.
    U64(u64),
    /// I64.
    I64(i64),
    /// Bool.
    Bool(bool),
    /// Time: monotonic nanoseconds.
    Time(u64),
    /// Bytes, Text, Hash, Ip.
    Text(Text),
    /// Ref.
    Ref(Reference),
}

impl Value {
    /// A string in full.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(Text::Full(text.as_bytes().to_vec()))
    }
}

/// Features in ascending order of number, each with its value.
pub type Fields = Vec<(u16, Value)>;

/// Writes ops one behind the other.
#[derive(Clone, Debug)]
pub struct OpWriter {
    to: Writer,
    last_time: u64,
    last_source_seq: u64,
}

impl OpWriter {
    /// An empty body of a chunk whose header says `base`.
    #[must_use]
    pub fn new(base: u64) -> Self {
        Self { to: Writer::default(), last_time: base, last_source_seq: 0 }
    }

    /// The body.
    #[must_use]
    pub fn body(self) -> Vec<u8> {
        self.to.0
    }

    /// Bytes of no op at all.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.to.raw(bytes);
    }

    /// The boot, the wall clock at the base, the string slots.
    pub fn preamble(&mut self, boot: Id, wall_ms: u64, string_slots: u64) {
        self.head(7, 0);
        boot.write(&mut self.to);
        self.to.varint(wall_ms);
        self.to.varint(string_slots);
    }

    /// The row in `slot` is exactly this.
    pub fn put(&mut self, kind: u16, slot: u64, time: u64, fields: &Fields) {
        self.row(0, kind, slot, time, fields);
    }

    /// These features of the row in `slot` are so.
    pub fn patch(&mut self, kind: u16, slot: u64, time: u64, fields: &Fields) {
        self.row(1, kind, slot, time, fields);
    }

    /// The row in `slot` ended.
    pub fn remove(&mut self, kind: u16, slot: u64, time: u64, fields: &Fields) {
        self.row(2, kind, slot, time, fields);
    }

    /// The row in `slot` is no longer reported.
    pub fn forget(&mut self, slot: u64) {
        self.head(3, 0);
        self.to.varint(slot);
    }

    /// It happened.
    pub fn event(&mut self, kind: u16, time: u64, fields: &Fields) {
        self.head(4, kind);
        self.time(time);
        self.fields(time, fields);
    }

    /// A kind of element.
    pub fn define(&mut self, definition: &Definition) {
        self.head(5, 0);
        self.to.bytes(&definition.to_bytes());
    }

    /// Facts dropped after intake.
    pub fn dropped(&mut self, count: u64, reason: DropReason) {
        self.head(6, 0);
        self.to.varint(count);
        reason.write(&mut self.to);
    }

    /// The keyframe is whole.
    pub fn keyframe_end(&mut self, rows: u64, digest: u64) {
        self.head(7, 1);
        self.to.varint(rows);
        self.to.raw(&digest.to_le_bytes());
    }

    fn row(&mut self, operation: u8, kind: u16, slot: u64, time: u64, fields: &Fields) {
        self.head(operation, kind);
        self.to.varint(slot);
        self.time(time);
        self.fields(time, fields);
    }

    /// The operation in the low 3 bits, the kind in the high 5; 31 there: the kind follows.
    pub fn head(&mut self, operation: u8, kind: u16) {
        let high = u8::try_from(kind.min(31)).unwrap_or(31);
        self.to.raw(&[operation | high << 3]);
        if high == 31 {
            self.to.varint(u64::from(kind));
        }
    }

    fn time(&mut self, time: u64) {
        self.to.zigzag(time.wrapping_sub(self.last_time) as i64);
        self.last_time = time;
    }

    fn fields(&mut self, time: u64, fields: &Fields) {
        self.to.varint(bitmap(fields));
        for (feature, value) in fields {
            self.value(*feature, time, value);
        }
    }

    fn value(&mut self, feature: u16, time: u64, value: &Value) {
        match value {
            Value::U64(number) if feature == 0 => {
                self.to.zigzag(number.wrapping_sub(self.last_source_seq) as i64);
                self.last_source_seq = *number;
            }
            Value::U64(number) => self.to.varint(*number),
            Value::I64(number) => self.to.zigzag(*number),
            Value::Bool(is) => self.to.raw(&[u8::from(*is)]),
            Value::Time(at) => self.to.zigzag(at.wrapping_sub(time) as i64),
            Value::Text(Text::Full(bytes)) => {
                self.to.varint(0);
                self.to.bytes(bytes);
            }
            Value::Text(Text::Kept(slot, bytes)) => {
                self.to.varint(1);
                self.to.varint(*slot);
                self.to.bytes(bytes);
            }
            Value::Text(Text::Slot(slot)) => self.to.varint(slot + 2),
            Value::Ref(Reference::Full(kind, key)) => {
                self.to.varint(0);
                self.to.varint(u64::from(*kind));
                self.to.bytes(key);
            }
            Value::Ref(Reference::Slot(slot)) => self.to.varint(slot + 1),
        }
    }
}

/// Bit i is feature i.
#[must_use]
pub fn bitmap(fields: &Fields) -> u64 {
    fields.iter().fold(0, |bits, (feature, _)| bits | 1 << (feature & 63))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::model::{DNS, PROCESS, SERVICE};

    /// The keyframe and the chunk of the page's session, op by op.
    #[test]
    fn the_ops_of_the_page_have_its_bytes() {
        let kept = |slot, text: &str| Value::Text(Text::Kept(slot, text.as_bytes().to_vec()));
        let base = 60_000_000_000;
        let mut ops = OpWriter::new(base);
        ops.preamble([0x55; 16], 1_795_496_400_000, 16);
        let process = vec![(3, Value::U64(1)), (4, Value::U64(2)), (6, kept(0, "/sbin/init"))];
        ops.put(PROCESS, 0, base, &process);
        ops.put(SERVICE, 1, base, &vec![(3, kept(1, "ssh")), (4, kept(2, "inactive"))]);
        ops.keyframe_end(2, 0xc90a_7154_637e_51f0);
        let expected = "0755555555555555555555555555555555 80a9b3dfa034 10 180000 58 0102 \
            01000a2f7362696e2f696e6974 380100 18 010103737368 010208696e616374697665 0f02 \
            f0517e6354710ac9";
        assert_eq!(hex(&ops.body()), expected.replace(' ', ""));

        let base = 60_000_001_000;
        let mut ops = OpWriter::new(base);
        ops.patch(SERVICE, 1, base - 500, &vec![(4, kept(3, "active"))]);
        let lookup = vec![
            (3, kept(4, "example.org")),
            (4, Value::U64(1)),
            (7, Value::Ref(Reference::Slot(0))),
            (10, Value::Text(Text::Slot(0))),
        ];
        ops.event(DNS, base - 100, &lookup);
        ops.dropped(3, DropReason::TableFull);
        let expected = "3901e70710010306616374697665 34a006 9809 01040b6578616d706c652e6f7267 01 \
            01 02 060300";
        assert_eq!(hex(&ops.body()), expected.replace(' ', ""));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
