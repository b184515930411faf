//! Reads the chunks of one lane with the state they build on: string slots, rows, definitions, the
//! digest (docs/protocol.md, "Chunk encoding 1", CHN-004, CHN-005).
//!
//! Not here: order, chain and index of chunks. Invariants: no bytes make it panic; it says which
//! rule of the page a chunk breaks.

use std::collections::BTreeMap;

use super::chunk::{Chunk, KEYFRAME, KEYFRAME_LAST, PLAIN_ROWS, SELF_CONTAINED};
use super::message::{DropReason, Id};
use super::model::{self, Definition, Type};
use super::op::{Reference, Text, Value};
use super::primitive::{Malformed, Reader, Wire, Writer};
use crate::crypto::digest::siphash_1_3;

/// What one op said, with slots resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The clock that the times are of.
    Preamble {
        /// Which boot.
        boot: Id,
        /// What the sensor's wall clock claimed at the base.
        wall_ms: u64,
        /// String slots.
        slots: u64,
    },
    /// A row: operation 0 to 2.
    Row {
        /// 0 put, 1 patch, 2 remove.
        operation: u8,
        /// Of what kind.
        kind: u16,
        /// In which slot.
        slot: u64,
        /// When.
        time: u64,
        /// What is so.
        fields: BTreeMap<u16, Value>,
    },
    /// The row in this slot is no longer reported.
    Forget(u64),
    /// It happened.
    Event {
        /// Of what kind.
        kind: u16,
        /// When.
        time: u64,
        /// What is so.
        fields: BTreeMap<u16, Value>,
    },
    /// A kind was defined.
    Define(Definition),
    /// Facts dropped after intake.
    Dropped(u64, DropReason),
    /// A keyframe is whole.
    KeyframeEnd {
        /// Rows it says it has.
        rows: u64,
        /// The digest it says.
        digest: u64,
    },
}

impl Said {
    /// Facts the op stands for (ENC-003), outside keyframes.
    #[must_use]
    pub fn facts(&self) -> u64 {
        match self {
            Self::Row { .. } | Self::Forget(_) | Self::Event { .. } => 1,
            Self::Dropped(count, _) => *count,
            Self::Preamble { .. } | Self::Define(_) | Self::KeyframeEnd { .. } => 0,
        }
    }
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its kind.
    pub kind: u16,
    /// Its features; references in full.
    pub fields: BTreeMap<u16, Value>,
}

/// What a lane's chunks build on.
#[derive(Clone, Debug, Default)]
pub struct Lane {
    log: Id,
    /// The table, by slot.
    pub rows: BTreeMap<u64, Row>,
    strings: BTreeMap<u64, Vec<u8>>,
    string_slots: u64,
    definitions: BTreeMap<u16, Definition>,
    in_force: bool,
    keyframe: Option<BTreeMap<u64, Row>>,
}

impl Lane {
    /// A lane whose log begins.
    #[must_use]
    pub fn new(log: Id) -> Self {
        Self { log, ..Self::default() }
    }

    /// The state digest (CHN-004).
    #[must_use]
    pub fn digest(&self) -> u64 {
        let rows = self.rows.values();
        rows.fold(0, |sum, row| sum.wrapping_add(row_digest(&self.log, row.kind, &row.fields)))
    }

    /// Reads a chunk: what its ops say.
    ///
    /// # Errors
    /// The rule that it breaks; the lane is then of no use until a chunk opens.
    pub fn read(&mut self, chunk: &Chunk) -> Result<Vec<Said>, Malformed> {
        if chunk.encoding != PLAIN_ROWS {
            return Err(Malformed::Rule(format!("encoding {} is not known", chunk.encoding)));
        }
        if chunk.opens() {
            self.strings.clear();
            self.in_force = false;
            let is_keyframe = chunk.flags & KEYFRAME != 0;
            self.keyframe = is_keyframe.then(BTreeMap::new);
        }
        let mut reader = Reader::of_chunk(&chunk.body);
        let mut state = Ops { time: chunk.base, source_seq: 0 };
        let mut said = Vec::new();
        while !reader.is_empty() {
            let op = self.op(&mut reader, &mut state)?;
            let is_preamble = matches!(op, Said::Preamble { .. });
            if is_preamble != (said.is_empty() && chunk.opens()) {
                return Err(Malformed::Rule("ENC-004: a preamble is where none may be".into()));
            }
            self.apply(&op, chunk)?;
            said.push(op);
        }
        let facts: u64 =
            if chunk.flags & KEYFRAME != 0 { 0 } else { said.iter().map(Said::facts).sum() };
        if facts != chunk.count {
            let rule = format!("ENC-003: count is {}, the ops are {facts} facts", chunk.count);
            return Err(Malformed::Rule(rule));
        }
        Ok(said)
    }

    fn op(&mut self, from: &mut Reader<'_>, state: &mut Ops) -> Result<Said, Malformed> {
        let head = from.byte()?;
        let (operation, high) = (head & 7, u16::from(head >> 3));
        let kind = if high == 31 { u16::read(from)? } else { high };
        if high == 31 && kind < 31 {
            return Err(Malformed::NotShortest);
        }
        if matches!(operation, 3 | 5 | 6) && kind != 0 {
            return Err(Malformed::Rule("ENC-009: the kind must be 0 here".into()));
        }
        match (operation, kind) {
            (0..=2, _) => {
                let slot = from.varint(32)?;
                let time = state.time(from)?;
                let fields = self.fields(from, kind, state)?;
                Ok(Said::Row { operation, kind, slot, time, fields })
            }
            (3, _) => Ok(Said::Forget(from.varint(32)?)),
            (4, _) => {
                let time = state.time(from)?;
                Ok(Said::Event { kind, time, fields: self.fields(from, kind, state)? })
            }
            (5, _) => Definition::from_bytes(from.bytes()?).map(Said::Define),
            (6, _) => Ok(Said::Dropped(from.varint(64)?, DropReason::read(from)?)),
            (7, 0) => {
                let boot = Id::read(from)?;
                Ok(Said::Preamble { boot, wall_ms: from.varint(64)?, slots: from.varint(64)? })
            }
            (7, 1) => {
                let rows = from.varint(64)?;
                let digest = u64::from_le_bytes(Wire::read(from)?);
                Ok(Said::KeyframeEnd { rows, digest })
            }
            _ => Err(Malformed::Rule(format!("ENC-009: operation 7 of kind {kind}"))),
        }
    }

    fn model(&self, kind: u16) -> Result<&Definition, Malformed> {
        let known = self.definitions.get(&kind).or_else(|| model::kinds().get(&kind));
        known.ok_or_else(|| Malformed::Rule(format!("MOD-007: kind {kind} is not defined")))
    }

    fn fields(
        &mut self,
        from: &mut Reader<'_>,
        kind: u16,
        state: &mut Ops,
    ) -> Result<BTreeMap<u16, Value>, Malformed> {
        let bits = from.varint(64)?;
        let mut fields = BTreeMap::new();
        for feature in (0..64u16).filter(|feature| bits >> feature & 1 == 1) {
            let value_type = self.model(kind)?.type_of(feature).ok_or_else(|| {
                Malformed::Rule(format!("ENC-009: kind {kind} has no feature {feature}"))
            })?;
            let value = match value_type {
                Type::U64 if feature == 0 => {
                    state.source_seq = state.source_seq.wrapping_add(from.zigzag()? as u64);
                    Value::U64(state.source_seq)
                }
                Type::U64 => Value::U64(from.varint(64)?),
                Type::I64 => Value::I64(from.zigzag()?),
                Type::Bool => Value::Bool(from.flag()?),
                Type::Time => Value::Time(state.time.wrapping_add(from.zigzag()? as u64)),
                Type::Bytes | Type::Text | Type::Hash | Type::Ip => {
                    Value::Text(Text::Full(self.string(from)?))
                }
                Type::Ref => Value::Ref(self.reference(from)?),
            };
            fields.insert(feature, value);
        }
        Ok(fields)
    }

    fn string(&mut self, from: &mut Reader<'_>) -> Result<Vec<u8>, Malformed> {
        match from.varint(64)? {
            0 => Ok(from.bytes()?.to_vec()),
            1 => {
                let slot = from.varint(64)?;
                let bytes = from.bytes()?.to_vec();
                if slot >= self.string_slots || bytes.len() > 255 {
                    return Err(Malformed::Rule("ENC-005: no such string slot".into()));
                }
                self.strings.insert(slot, bytes.clone());
                Ok(bytes)
            }
            slot => self.strings.get(&(slot - 2)).cloned().ok_or_else(|| {
                Malformed::Rule(format!("ENC-005: string slot {} was not filled", slot - 2))
            }),
        }
    }

    fn reference(&mut self, from: &mut Reader<'_>) -> Result<Reference, Malformed> {
        match from.varint(64)? {
            0 => Ok(Reference::Full(u16::read(from)?, from.bytes()?.to_vec())),
            slot => Ok(Reference::Slot(slot - 1)),
        }
    }

    fn apply(&mut self, op: &Said, chunk: &Chunk) -> Result<(), Malformed> {
        let self_contained = chunk.flags & SELF_CONTAINED != 0;
        match op {
            Said::Preamble { slots, .. } => {
                if *slots > 4_096 {
                    return Err(Malformed::Rule("ENC-005: too many string slots".into()));
                }
                self.string_slots = *slots;
                self.in_force = true;
                if self_contained || chunk.flags & KEYFRAME != 0 {
                    self.definitions.clear();
                }
                Ok(())
            }
            Said::Define(definition) => {
                self.definitions.insert(definition.kind, definition.clone());
                Ok(())
            }
            Said::Dropped(..) => Ok(()),
            Said::KeyframeEnd { rows, digest } => self.end_keyframe(*rows, *digest, chunk),
            _ if !self.in_force => Err(Malformed::Rule("ENC-004: no preamble is in force".into())),
            Said::Event { .. } => Ok(()),
            Said::Forget(slot) => self.taken(*slot, self_contained),
            Said::Row { operation, kind, slot, fields, .. } => {
                if chunk.flags & super::chunk::URGENT != 0 {
                    return Ok(()); // LOG-008: these rows do not enter the table
                }
                self.row(*operation, (*kind, *slot), fields, self_contained)
            }
        }
    }

    fn taken(&mut self, slot: u64, self_contained: bool) -> Result<(), Malformed> {
        match self.rows.remove(&slot) {
            None if !self_contained => {
                Err(Malformed::Rule(format!("ENC-008: slot {slot} holds nothing")))
            }
            _ => Ok(()),
        }
    }

    fn row(
        &mut self,
        operation: u8,
        (kind, slot): (u16, u64),
        fields: &BTreeMap<u16, Value>,
        self_contained: bool,
    ) -> Result<(), Malformed> {
        let mut fields = fields.clone();
        fields.remove(&0);
        match operation {
            0 => {
                let row = Row { kind, fields };
                let table = self.keyframe.as_mut().unwrap_or(&mut self.rows);
                table.insert(slot, row);
                if self.keyframe.is_none() {
                    self.resolve(slot)?;
                }
                Ok(())
            }
            1 => {
                let row = self.rows.get_mut(&slot).filter(|row| row.kind == kind);
                let row = row.ok_or_else(|| {
                    Malformed::Rule(format!("ENC-007: slot {slot} holds no row of kind {kind}"))
                })?;
                row.fields.extend(fields);
                self.resolve(slot)
            }
            _ => {
                // ENC-008: one that carries its key can be read without the row.
                let carries = self.model(kind)?.keys().all(|key| fields.contains_key(&key));
                self.taken(slot, self_contained || carries)
            }
        }
    }

    /// References by slot become references by key (ENC-006).
    fn resolve(&mut self, slot: u64) -> Result<(), Malformed> {
        let Some(row) = self.rows.get(&slot).cloned() else { return Ok(()) };
        let mut fields = row.fields.clone();
        for value in fields.values_mut() {
            if let Value::Ref(Reference::Slot(at)) = value {
                let target = self.rows.get(at).ok_or_else(|| {
                    Malformed::Rule(format!("ENC-006: slot {at} holds nothing to refer to"))
                })?;
                let definition = self.model(target.kind)?;
                let key = natural_key(definition, &target.fields);
                *value = Value::Ref(Reference::Full(target.kind, key));
            }
        }
        self.rows.insert(slot, Row { kind: row.kind, fields });
        Ok(())
    }

    fn end_keyframe(&mut self, rows: u64, digest: u64, chunk: &Chunk) -> Result<(), Malformed> {
        if chunk.flags & KEYFRAME_LAST == 0 {
            return Err(Malformed::Rule("LOG-005: a keyframe ends before its last part".into()));
        }
        let table = self.keyframe.take();
        self.rows =
            table.ok_or_else(|| Malformed::Rule("LOG-005: no keyframe is under way".into()))?;
        let slots: Vec<u64> = self.rows.keys().copied().collect();
        for slot in slots {
            self.resolve(slot)?;
        }
        if self.rows.len() as u64 != rows || self.digest() != digest {
            return Err(Malformed::Rule("LOG-005: the keyframe's rows or digest differ".into()));
        }
        Ok(())
    }
}

/// What goes from op to op within one chunk.
struct Ops {
    time: u64,
    source_seq: u64,
}

impl Ops {
    fn time(&mut self, from: &mut Reader<'_>) -> Result<u64, Malformed> {
        self.time = self.time.wrapping_add(from.zigzag()? as u64);
        Ok(self.time)
    }
}

/// A row in canonical form (CHN-005). References by slot cannot be said in it and count as empty.
#[must_use]
pub fn canonical(fields: &BTreeMap<u16, Value>) -> Vec<u8> {
    let mut to = Writer::default();
    let held = || fields.iter().filter(|(feature, _)| **feature != 0);
    to.varint(held().fold(0, |bits, (feature, _)| bits | 1 << (feature & 63)));
    for (_, value) in held() {
        canonical_value(&mut to, value);
    }
    to.0
}

/// A natural key in canonical form (CHN-006).
#[must_use]
pub fn natural_key(definition: &Definition, fields: &BTreeMap<u16, Value>) -> Vec<u8> {
    let mut to = Writer::default();
    for value in definition.keys().filter_map(|feature| fields.get(&feature)) {
        canonical_value(&mut to, value);
    }
    to.0
}

fn canonical_value(to: &mut Writer, value: &Value) {
    match value {
        Value::U64(number) | Value::Time(number) => to.varint(*number),
        Value::I64(number) => to.zigzag(*number),
        Value::Bool(is) => to.raw(&[u8::from(*is)]),
        Value::Text(Text::Full(bytes) | Text::Kept(_, bytes)) => to.bytes(bytes),
        Value::Ref(Reference::Full(kind, key)) => {
            to.varint(u64::from(*kind));
            to.bytes(key);
        }
        Value::Text(Text::Slot(_)) | Value::Ref(Reference::Slot(_)) => to.varint(0),
    }
}

/// One row's part of the state digest.
#[must_use]
pub fn row_digest(log: &Id, kind: u16, fields: &BTreeMap<u16, Value>) -> u64 {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(canonical(fields));
    siphash_1_3(log, &bytes)
}
