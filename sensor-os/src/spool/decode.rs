//! Chunks in words: every op with its kind, its key and its fields, slots resolved.
//!
//! For people and scripts that look into a spool; nothing that is sent or stored depends on it.
//! Invariant: a chunk that does not decode is shown as far as it does, with the reason.

use std::collections::BTreeMap;
use std::fmt;

use lapwing_protocol::chunk::{Chunk, ChunkFlags};
use lapwing_protocol::element::{
    self, Feature, FeatureSpec, Kind, KindSpec, Nature, Scope, Value, read_value,
};
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::op::{
    DropReason, Op, OpReader, RawString, RawValue, RowChange, string_value,
};
use lapwing_protocol::varint::Reader;
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::escape::escaped_bytes;
use crate::hexadecimal;

/// A value as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Unsigned(u64),
    Signed(i64),
    Bool(bool),
    Text(Vec<u8>),
    Word(String),
    Element(Fields),
}

/// Named values in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(pub(crate) Vec<(String, Shown)>);

/// One op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownOp {
    pub(crate) op: &'static str,
    pub(crate) kind: Option<String>,
    pub(crate) time_ns: Option<u64>,
    /// The key of the row it changes, where the op itself does not name it.
    pub(crate) key: Fields,
    pub(crate) fields: Fields,
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unsigned(value) => serializer.serialize_u64(*value),
            Self::Signed(value) => serializer.serialize_i64(*value),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Text(bytes) => serializer.serialize_str(&String::from_utf8_lossy(bytes)),
            Self::Word(word) => serializer.serialize_str(word),
            Self::Element(fields) => fields.serialize(serializer),
        }
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Serialize for ShownOp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", &self.kind)?;
        map.serialize_entry("op", self.op)?;
        map.serialize_entry("time_ns", &self.time_ns)?;
        if !self.key.0.is_empty() {
            map.serialize_entry("key", &self.key)?;
        }
        map.serialize_entry("fields", &self.fields)?;
        map.end()
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Text(bytes) => write!(f, "\"{}\"", escaped_bytes(bytes)),
            Self::Word(word) => f.write_str(word),
            Self::Element(fields) => write!(f, "({fields})"),
        }
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            let blank = if at == 0 { "" } else { " " };
            write!(f, "{blank}{name}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ShownOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8}", self.op)?;
        if let Some(kind) = &self.kind {
            write!(f, " {kind}")?;
        }
        if !self.key.0.is_empty() {
            write!(f, " ({})", self.key)?;
        }
        if self.fields.0.is_empty() { Ok(()) } else { write!(f, " {}", self.fields) }
    }
}

/// An agent's own kind.
#[derive(Clone, Debug)]
struct OwnKind {
    name: String,
    nature: Nature,
    scope: Scope,
    features: Vec<(Feature, String, element::Type, element::Role)>,
}

#[derive(Clone, Debug)]
struct Row {
    kind: Kind,
    key: Fields,
}

/// What a reader of one log knows.
#[derive(Debug, Default)]
pub(crate) struct LogDecoder {
    strings: BTreeMap<u32, Vec<u8>>,
    rows: BTreeMap<u32, Row>,
    kinds: BTreeMap<Kind, OwnKind>,
}

impl LogDecoder {
    /// The ops of the next chunk, and why the rest of it cannot be read where it cannot.
    pub(crate) fn chunk(&mut self, chunk: &Chunk<'_>) -> (Vec<ShownOp>, Option<DecodeError>) {
        let header = &chunk.header;
        if header.flags.opens(header.part) {
            self.strings.clear();
        }
        if header.flags.has(ChunkFlags::KEYFRAME) && header.part == 0 {
            self.rows.clear();
        }
        let mut reader = OpReader::new(chunk.body, header.time_base_ns);
        let mut ops = Vec::new();
        loop {
            match self.op(&mut reader) {
                Ok(Some(op)) => ops.push(op),
                Ok(None) => return (ops, None),
                Err(error) => return (ops, Some(error)),
            }
        }
    }

    fn op(&mut self, reader: &mut OpReader<'_>) -> Result<Option<ShownOp>, DecodeError> {
        let Some(op) = reader.op()? else { return Ok(None) };
        let mut shown = ShownOp {
            op: "",
            kind: None,
            time_ns: None,
            key: Fields::default(),
            fields: Fields::default(),
        };
        match op {
            Op::Row { change, slot, kind, time_ns } => {
                self.row(reader, (change, slot, kind), &mut shown)?;
                shown.time_ns = Some(time_ns);
            }
            Op::Event { kind, time_ns } => {
                (shown.op, shown.time_ns) = ("event", Some(time_ns));
                (shown.kind, shown.fields, _) = self.fields(reader, kind)?;
            }
            Op::Forget(slot) => {
                shown.op = "forget";
                if let Some(row) = self.rows.remove(&slot) {
                    shown.kind = Some(self.kind_name(row.kind));
                    shown.key = row.key;
                }
            }
            Op::Define(definition) => {
                (shown.op, shown.kind) = ("define", Some(definition.name.to_owned()));
                let mut features = Vec::new();
                for feature in definition.features.iter() {
                    let FeatureSpec { feature, name, value_type, role } = feature?;
                    features.push((feature, name.to_owned(), value_type, role));
                }
                let names = features.iter().map(|(feature, name, ..)| {
                    (name.clone(), Shown::Unsigned(u64::from(feature.0)))
                });
                shown.fields = Fields(names.collect());
                let name = definition.name.to_owned();
                let own =
                    OwnKind { name, nature: definition.nature, scope: definition.scope, features };
                self.kinds.insert(definition.kind, own);
            }
            Op::Dropped { count, reason } => {
                shown.op = "dropped";
                shown.fields = Fields(vec![
                    ("count".into(), Shown::Unsigned(count)),
                    ("reason".into(), Shown::Word(reason_name(reason).into())),
                ]);
            }
            Op::Preamble(preamble) => {
                shown.op = "preamble";
                shown.fields = Fields(vec![
                    ("boot".into(), Shown::Word(preamble.boot.to_string())),
                    ("wall_ms".into(), Shown::Unsigned(preamble.wall_ms)),
                ]);
            }
            Op::KeyframeEnd { rows, digest } => {
                shown.op = "keyframe_end";
                shown.fields = Fields(vec![
                    ("rows".into(), Shown::Unsigned(rows)),
                    ("digest".into(), Shown::Word(format!("{digest:016x}"))),
                ]);
            }
        }
        Ok(Some(shown))
    }

    fn row(
        &mut self,
        reader: &mut OpReader<'_>,
        (change, slot, kind): (RowChange, u32, Kind),
        shown: &mut ShownOp,
    ) -> Result<(), DecodeError> {
        let (name, fields, key) = self.fields(reader, kind)?;
        (shown.kind, shown.fields) = (name, fields);
        match change {
            RowChange::Put => {
                shown.op = "put";
                self.rows.insert(slot, Row { kind, key });
            }
            RowChange::Patch => {
                shown.op = "patch";
                shown.key = self.rows.get(&slot).map_or(Fields::default(), |row| row.key.clone());
            }
            RowChange::Remove => {
                shown.op = "remove";
                shown.key = self.rows.remove(&slot).map_or(Fields::default(), |row| row.key);
            }
        }
        Ok(())
    }

    /// The kind's name, the fields of the op that follow, and of these the key.
    fn fields(
        &mut self,
        reader: &mut OpReader<'_>,
        kind: Kind,
    ) -> Result<(Option<String>, Fields, Fields), DecodeError> {
        let own = self.kinds.get(&kind).cloned();
        let own_features = own.as_ref().map(|own| own.specs());
        let spec = match (&own, &own_features) {
            (Some(own), Some(features)) => own.spec(kind, features),
            _ => *element::kind(kind).ok_or(DecodeError::UnknownKind)?,
        };
        let (mut fields, mut key) = (Fields::default(), Fields::default());
        while let Some((feature, raw)) = reader.field(&spec)? {
            let found = spec.feature(feature).ok_or(DecodeError::UnknownFeature)?;
            let shown = match raw {
                RawValue::Plain(value) => self.shown(value),
                RawValue::String(value_type, raw) => {
                    let bytes = self.string(raw)?;
                    self.shown(string_value(value_type, &bytes)?)
                }
                RawValue::Row(slot) => {
                    let row = self.rows.get(&slot).ok_or(DecodeError::EmptySlot)?;
                    self.element(row.kind, row.key.0.clone())
                }
            };
            if found.role.is_key() {
                key.0.push((found.name.to_owned(), shown.clone()));
            }
            fields.0.push((found.name.to_owned(), shown));
        }
        Ok((Some(spec.name.to_owned()), fields, key))
    }

    fn string(&mut self, raw: RawString<'_>) -> Result<Vec<u8>, DecodeError> {
        match raw {
            RawString::Literal(bytes) => Ok(bytes.to_vec()),
            RawString::Define(slot, bytes) => {
                self.strings.insert(slot, bytes.to_vec());
                Ok(bytes.to_vec())
            }
            RawString::Slot(slot) => self.strings.get(&slot).cloned().ok_or(DecodeError::EmptySlot),
        }
    }

    fn shown(&self, value: Value<'_>) -> Shown {
        match value {
            Value::U64(value) | Value::Time(value) => Shown::Unsigned(value),
            Value::I64(value) => Shown::Signed(value),
            Value::Bool(value) => Shown::Bool(value),
            Value::Text(bytes) => Shown::Text(bytes.to_vec()),
            Value::Bytes(bytes) | Value::Hash(bytes) => Shown::Word(hexadecimal::encode(bytes)),
            Value::Ip(address) => Shown::Word(address.to_string()),
            Value::Ref(reference) => {
                let key = self.key_fields(reference.kind, reference.key).unwrap_or_else(|_| {
                    vec![("key".into(), Shown::Word(hexadecimal::encode(reference.key)))]
                });
                self.element(reference.kind, key)
            }
        }
    }

    fn element(&self, kind: Kind, key: Vec<(String, Shown)>) -> Shown {
        let mut fields = vec![("kind".into(), Shown::Word(self.kind_name(kind)))];
        fields.extend(key);
        Shown::Element(Fields(fields))
    }

    fn key_fields(&self, kind: Kind, key: &[u8]) -> Result<Vec<(String, Shown)>, DecodeError> {
        let own = self.kinds.get(&kind);
        let own_features = own.map(|own| own.specs());
        let spec = match (own, &own_features) {
            (Some(own), Some(features)) => own.spec(kind, features),
            _ => *element::kind(kind).ok_or(DecodeError::UnknownKind)?,
        };
        let mut reader = Reader::new(key);
        let keys = spec.features.iter().filter(|feature| feature.role.is_key());
        keys.map(|feature| {
            let value = read_value(&mut reader, feature.value_type)?;
            Ok((feature.name.to_owned(), self.shown(value)))
        })
        .collect()
    }

    fn kind_name(&self, kind: Kind) -> String {
        let own = self.kinds.get(&kind).map(|own| own.name.clone());
        own.or_else(|| element::kind(kind).map(|spec| spec.name.to_owned()))
            .unwrap_or_else(|| format!("kind {}", kind.0))
    }
}

impl OwnKind {
    fn specs(&self) -> Vec<FeatureSpec<'_>> {
        self.features
            .iter()
            .map(|(feature, name, value_type, role)| FeatureSpec {
                feature: *feature,
                name,
                value_type: *value_type,
                role: *role,
            })
            .collect()
    }

    fn spec<'a>(&'a self, kind: Kind, features: &'a [FeatureSpec<'a>]) -> KindSpec<'a> {
        KindSpec { kind, name: &self.name, nature: self.nature, scope: self.scope, features }
    }
}

fn reason_name(reason: DropReason) -> &'static str {
    match reason {
        DropReason::TableFull => "table_full",
        DropReason::TooLarge => "too_large",
        DropReason::SpoolFull => "spool_full",
        DropReason::MemoryFull => "memory_full",
        DropReason::SpoolFailed => "spool_failed",
        DropReason::Malformed => "malformed",
    }
}
