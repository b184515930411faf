//! A fact that owns its values, and how one is built.
//!
//! The protocol's fact borrows, so that the sensor's core needs no heap; a collector's fact must
//! cross a thread, so it owns. [`CollectedFact::with_fact`] lends it in the protocol's form.
//!
//! Invariants: fields ascend and are unique; no text exceeds its bound; what was cut is marked.

use std::net::IpAddr;

use lapwing_protocol::element::{Change, Fact, Feature, Field, Kind, Reference, Value, write_key};
use lapwing_protocol::limits::KEY_BYTES_MAX;

use super::limits::{COMMAND_LINE_BYTES_MAX, KEY_TEXT_BYTES_MAX, PATH_BYTES_MAX};
use super::queue::Source;

/// A value that owns its bytes: see [`Value`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedValue {
    /// Unsigned integer.
    U64(u64),
    /// Signed integer.
    I64(i64),
    /// Yes or no.
    Bool(bool),
    /// Bytes without meaning to the platform.
    Bytes(Box<[u8]>),
    /// Text as the operating system gives it.
    Text(Box<[u8]>),
    /// An address.
    Ip(IpAddr),
    /// A hash of 16, 20 or 32 bytes.
    Hash(Box<[u8]>),
    /// Monotonic nanoseconds since boot, counting suspend.
    Time(u64),
    /// Another element: its kind and natural key.
    Ref(Kind, Box<[u8]>),
}

impl OwnedValue {
    /// Lends it in the protocol's form.
    #[must_use]
    pub fn as_value(&self) -> Value<'_> {
        match self {
            Self::U64(value) => Value::U64(*value),
            Self::I64(value) => Value::I64(*value),
            Self::Bool(value) => Value::Bool(*value),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Text(bytes) => Value::Text(bytes),
            Self::Ip(address) => Value::Ip(*address),
            Self::Hash(bytes) => Value::Hash(bytes),
            Self::Time(value) => Value::Time(*value),
            Self::Ref(kind, key) => Value::Ref(Reference { kind: *kind, key }),
        }
    }
}

/// One observation of one collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectedFact {
    /// Which collector made it.
    pub source: Source,
    /// The kind of element.
    pub kind: Kind,
    /// What it says of the element.
    pub change: Change,
    /// When it was observed: nanoseconds since boot, counting suspend.
    pub time_ns: u64,
    fields: Vec<(Feature, OwnedValue)>,
    scan: Option<ScanMark>,
}

/// Stands between facts, in place of one: all rows of the kind are told again, since something was
/// lost on the way, and what is not told until the end has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanMark {
    /// From here on.
    Begin,
    /// Up to here.
    End,
}

impl CollectedFact {
    pub(crate) fn mark(source: Source, kind: Kind, scan: ScanMark) -> Self {
        let (change, scan) = (Change::Event, Some(scan));
        Self { source, kind, change, time_ns: 0, fields: Vec::new(), scan }
    }

    /// Whether it is no fact but a mark.
    #[must_use]
    pub fn scan(&self) -> Option<ScanMark> {
        self.scan
    }

    /// Lends it to `use_fact` in the protocol's form.
    pub fn with_fact<R>(&self, use_fact: impl FnOnce(&Fact<'_>) -> R) -> R {
        let fields: Vec<Field<'_>> = self
            .fields
            .iter()
            .map(|(feature, value)| Field::new(*feature, value.as_value()))
            .collect();
        let Self { kind, change, time_ns, .. } = *self;
        use_fact(&Fact { kind, change, time_ns, fields: &fields })
    }

    /// The value of `feature`, where the fact names it.
    #[must_use]
    pub fn value(&self, feature: Feature) -> Option<&OwnedValue> {
        self.fields.iter().find(|(named, _)| *named == feature).map(|(_, value)| value)
    }

    /// The text of `feature`, where the fact names it and it is UTF-8 text.
    #[must_use]
    pub fn text(&self, feature: Feature) -> Option<&str> {
        match self.value(feature)? {
            OwnedValue::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The fields in ascending order of feature.
    #[must_use]
    pub fn fields(&self) -> &[(Feature, OwnedValue)] {
        &self.fields
    }
}

/// The natural key of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// Process number.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcessKey {
    pub(crate) fn reference(self) -> OwnedValue {
        let values = [Value::U64(u64::from(self.pid)), Value::U64(self.start_ticks)];
        let mut buffer = [0; KEY_BYTES_MAX];
        // Two integers take at most twenty bytes.
        let key = write_key(&values, &mut buffer).unwrap_or(&[]);
        OwnedValue::Ref(lapwing_protocol::element::process::KIND, key.into())
    }
}

/// Builds a fact field by field, in any order.
#[derive(Debug)]
pub(crate) struct FactBuilder {
    fact: CollectedFact,
    missing: u64,
    truncated: u64,
}

/// How long a text may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// A part of a natural key.
    Key,
    /// A path or a name.
    Path,
    /// A command line.
    CommandLine,
}

impl Room {
    fn bytes(self) -> usize {
        match self {
            Self::Key => KEY_TEXT_BYTES_MAX,
            Self::Path => PATH_BYTES_MAX,
            Self::CommandLine => COMMAND_LINE_BYTES_MAX,
        }
    }
}

impl FactBuilder {
    pub(crate) fn new(source: Source, kind: Kind, change: Change, time_ns: u64) -> Self {
        let fields = Vec::with_capacity(16);
        let fact = CollectedFact { source, kind, change, time_ns, fields, scan: None };
        Self { fact, missing: 0, truncated: 0 }
    }

    pub(crate) fn value(mut self, feature: Feature, value: OwnedValue) -> Self {
        self.fact.fields.push((feature, value));
        self
    }

    pub(crate) fn number(self, feature: Feature, value: u64) -> Self {
        self.value(feature, OwnedValue::U64(value))
    }

    pub(crate) fn text(mut self, feature: Feature, text: impl AsRef<[u8]>, room: Room) -> Self {
        let text = text.as_ref();
        let kept = text.get(..room.bytes()).unwrap_or(text);
        if kept.len() < text.len() {
            self.truncated |= bit(feature);
        }
        self.value(feature, OwnedValue::Text(kept.into()))
    }

    /// A text that may be absent; absence is not marked.
    pub(crate) fn text_if(
        self,
        feature: Feature,
        text: Option<impl AsRef<[u8]>>,
        room: Room,
    ) -> Self {
        match text {
            Some(text) => self.text(feature, text, room),
            None => self,
        }
    }

    pub(crate) fn value_if(self, feature: Feature, value: Option<OwnedValue>) -> Self {
        match value {
            Some(value) => self.value(feature, value),
            None => self,
        }
    }

    /// Marks `feature` as one that exists but was not seen.
    pub(crate) fn missing(mut self, feature: Feature) -> Self {
        self.missing |= bit(feature);
        self
    }

    pub(crate) fn build(mut self) -> CollectedFact {
        if self.missing != 0 {
            self.fact.fields.push((Feature::MISSING, OwnedValue::U64(self.missing)));
        }
        if self.truncated != 0 {
            self.fact.fields.push((Feature::TRUNCATED, OwnedValue::U64(self.truncated)));
        }
        self.fact.fields.sort_by_key(|(feature, _)| *feature);
        self.fact.fields.dedup_by_key(|(feature, _)| *feature);
        self.fact
    }
}

fn bit(feature: Feature) -> u64 {
    1_u64.checked_shl(u32::from(feature.0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapwing_protocol::element::process;

    fn builder() -> FactBuilder {
        FactBuilder::new(Source::Processes, process::KIND, Change::Whole, 1)
    }

    #[test]
    fn fields_ascend_whatever_the_order_they_came_in() {
        let fact = builder()
            .text(process::name, "init", Room::Path)
            .number(process::pid, 1)
            .missing(process::image_hash)
            .build();
        let features: Vec<_> = fact.fields().iter().map(|(feature, _)| *feature).collect();
        assert_eq!(features, [Feature::MISSING, process::pid, process::name]);
        let missing = OwnedValue::U64(1 << process::image_hash.0);
        assert_eq!(fact.value(Feature::MISSING), Some(&missing));
        fact.with_fact(|fact| assert_eq!(fact.value(process::pid), Some(Value::U64(1))));
    }

    #[test]
    fn a_text_beyond_its_room_is_cut_and_marked() {
        let long = vec![b'a'; COMMAND_LINE_BYTES_MAX + 1];
        let fact = builder().text(process::command_line, &long, Room::CommandLine).build();
        let truncated = OwnedValue::U64(1 << process::command_line.0);
        assert_eq!(fact.value(Feature::TRUNCATED), Some(&truncated));
        assert_eq!(fact.text(process::command_line).unwrap().len(), COMMAND_LINE_BYTES_MAX);
    }

    #[test]
    fn a_process_with_all_texts_full_fits_a_row_of_the_wire() {
        let paths = 4 * PATH_BYTES_MAX + COMMAND_LINE_BYTES_MAX;
        assert!(paths + 512 <= lapwing_protocol::limits::ROW_BYTES_MAX);
    }
}
