//! Kinds and facts of an agent's own: what a program that links the sensor sends.
//!
//! Not here: the built-in kinds (`lapwing_protocol::element`). Invariant: fields ascend and are
//! unique, in whatever order they were given.

use lapwing_protocol::element::{
    Change, Definition, Fact, Feature, FeatureSpec, Field, Kind, Nature, Role, Scope, Type,
};
use lapwing_protocol::error::BufferFull;
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::VALUE_BYTES_MAX;

use crate::collect::OwnedValue;

/// A kind of the agent's own, to be described in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnKind {
    kind: Kind,
    name: String,
    nature: Nature,
    features: Vec<(Feature, String, Type, Role)>,
}

impl OwnKind {
    /// A kind whose elements only happen. `number` is 0x8000 or higher, and once used it is never
    /// used for anything else.
    #[must_use]
    pub fn event(number: u16, name: &str) -> Self {
        Self { kind: Kind(number), name: name.into(), nature: Nature::Event, features: Vec::new() }
    }

    /// A kind whose elements stay: rows of the table, told apart by their key features.
    #[must_use]
    pub fn state(number: u16, name: &str) -> Self {
        Self { nature: Nature::State, ..Self::event(number, name) }
    }

    /// Adds a key feature; its number is 3 or higher and ascends.
    #[must_use]
    pub fn key(self, number: u16, name: &str, value_type: Type) -> Self {
        self.add(number, name, value_type, Role::Key)
    }

    /// Adds a feature that may be absent and may change.
    #[must_use]
    pub fn feature(self, number: u16, name: &str, value_type: Type) -> Self {
        self.add(number, name, value_type, Role::Property)
    }

    fn add(mut self, number: u16, name: &str, value_type: Type, role: Role) -> Self {
        self.features.push((Feature(number), name.into(), value_type, role));
        self.features.sort_by_key(|(feature, ..)| *feature);
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lends it to `use_definition` in the protocol's form.
    pub(crate) fn with_definition<R>(
        &self,
        use_definition: impl FnOnce(&Definition<'_>) -> R,
    ) -> Result<R, BufferFull> {
        let mut buffer = [0; VALUE_BYTES_MAX];
        let specs = self.features.iter().map(|(feature, name, value_type, role)| FeatureSpec {
            feature: *feature,
            name,
            value_type: *value_type,
            role: *role,
        });
        Ok(use_definition(&Definition {
            kind: self.kind,
            name: &self.name,
            nature: self.nature,
            scope: Scope::Machine,
            features: Items::encode(specs, &mut buffer)?,
        }))
    }
}

/// A fact of the agent's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFact {
    kind: Kind,
    change: Change,
    fields: Vec<(Feature, OwnedValue)>,
}

impl OwnFact {
    /// A fact of the kind with this number; the sensor stamps it when it takes it in.
    #[must_use]
    pub fn new(kind: u16, change: Change) -> Self {
        Self { kind: Kind(kind), change, fields: Vec::new() }
    }

    /// An element as it is: what is not named is absent.
    #[must_use]
    pub fn state(kind: u16) -> Self {
        Self::new(kind, Change::Whole)
    }

    /// Something that happened.
    #[must_use]
    pub fn event(kind: u16) -> Self {
        Self::new(kind, Change::Event)
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, feature: u16, text: &str) -> Self {
        self.value(feature, OwnedValue::Text(text.as_bytes().into()))
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, feature: u16, number: u64) -> Self {
        self.value(feature, OwnedValue::U64(number))
    }

    /// Adds any value.
    #[must_use]
    pub fn value(mut self, feature: u16, value: OwnedValue) -> Self {
        self.fields.push((Feature(feature), value));
        self.fields.sort_by_key(|(feature, _)| *feature);
        self.fields.dedup_by_key(|(feature, _)| *feature);
        self
    }

    /// Lends it to `use_fact` in the protocol's form.
    pub(crate) fn with_fact<R>(&self, time_ns: u64, use_fact: impl FnOnce(&Fact<'_>) -> R) -> R {
        let fields: Vec<Field<'_>> = self
            .fields
            .iter()
            .map(|(feature, value)| Field::new(*feature, value.as_value()))
            .collect();
        use_fact(&Fact { kind: self.kind, change: self.change, time_ns, fields: &fields })
    }
}
