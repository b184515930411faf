//! Fields as a chunk writes them: strings resolved, references to rows not yet.

use std::sync::Arc;

use lapwing_protocol::element::{Definition, Feature, FeatureSpec, KindSpec, Type, ip_of, is_name};
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::limits::{FEATURES_MAX, STRING_SLOTS_MAX};
use lapwing_protocol::op::{OpReader, RawString, RawValue};

use crate::change::{FeatureModel, KindModel, OwnedValue};

/// A value as written: plain, or a reference still to be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Any value but a reference.
    Plain(OwnedValue),
    /// A reference to the row in this slot.
    Slot(u32),
    /// A reference by kind and key.
    Key(u16, Arc<[u8]>),
}

/// The fields of one op.
#[derive(Debug, Default)]
pub(super) struct ReadFields {
    /// In ascending order of feature, `source_seq` left out.
    pub(super) written: Vec<(Feature, Written)>,
    /// The source's own number.
    pub(super) source_seq: Option<u64>,
}

/// The string table of a segment.
#[derive(Debug, Default)]
pub(super) struct Strings {
    slots: Vec<Option<Arc<[u8]>>>,
    slots_max: u32,
}

impl Strings {
    /// The segment uses so many slots.
    pub(super) fn limit(&mut self, slots: u32) {
        self.slots_max = slots.min(STRING_SLOTS_MAX);
    }

    fn resolve(&mut self, string: RawString<'_>) -> Result<Arc<[u8]>, DecodeError> {
        match string {
            RawString::Literal(bytes) => Ok(bytes.into()),
            RawString::Slot(slot) => {
                let held = self.slots.get(slot as usize).and_then(Option::as_ref);
                held.cloned().ok_or(DecodeError::EmptySlot)
            }
            RawString::Define(slot, bytes) => {
                if slot >= self.slots_max {
                    return Err(DecodeError::Limit);
                }
                let shared: Arc<[u8]> = bytes.into();
                if self.slots.len() <= slot as usize {
                    self.slots.resize(slot as usize + 1, None);
                }
                if let Some(held) = self.slots.get_mut(slot as usize) {
                    *held = Some(Arc::clone(&shared));
                }
                Ok(shared)
            }
        }
    }
}

/// Reads all fields of the current op.
pub(super) fn read(
    reader: &mut OpReader<'_>,
    model: &KindModel,
    strings: &mut Strings,
) -> Result<ReadFields, DecodeError> {
    let mut fields = ReadFields::default();
    fields.written.reserve(reader.pending().count_ones() as usize);
    while reader.pending() != 0 {
        let feature = Feature(reader.pending().trailing_zeros() as u16);
        let known = model.feature(feature).ok_or(DecodeError::UnknownFeature)?;
        let spec = single(known);
        let single = std::slice::from_ref(&spec);
        let kind_spec = KindSpec {
            kind: model.kind,
            name: "",
            nature: model.nature,
            scope: model.scope,
            features: single,
        };
        let Some((feature, value)) = reader.field(&kind_spec)? else { break };
        let written = match value {
            RawValue::Row(slot) => Written::Slot(slot),
            RawValue::String(value_type, string) => {
                Written::Plain(string_value(value_type, strings.resolve(string)?)?)
            }
            RawValue::Plain(lapwing_protocol::element::Value::Ref(reference)) => {
                Written::Key(reference.kind.0, reference.key.into())
            }
            RawValue::Plain(value) => {
                Written::Plain(OwnedValue::from_plain(value).ok_or(DecodeError::Shape)?)
            }
        };
        match written {
            Written::Plain(OwnedValue::U64(number)) if feature == Feature::SOURCE_SEQ => {
                fields.source_seq = Some(number);
            }
            written => fields.written.push((feature, written)),
        }
    }
    Ok(fields)
}

fn single(model: &FeatureModel) -> FeatureSpec<'_> {
    FeatureSpec {
        feature: model.feature,
        name: &model.name,
        value_type: model.value_type,
        role: model.role,
    }
}

fn string_value(value_type: Type, bytes: Arc<[u8]>) -> Result<OwnedValue, DecodeError> {
    match value_type {
        Type::Text => Ok(OwnedValue::Text(bytes)),
        Type::Bytes => Ok(OwnedValue::Bytes(bytes)),
        Type::Hash => Ok(OwnedValue::Hash(bytes)),
        Type::Ip => ip_of(&bytes).map(OwnedValue::Ip),
        Type::U64 | Type::I64 | Type::Bool | Type::Time | Type::Ref => Err(DecodeError::Shape),
    }
}

/// The model that a Define op describes, checked against the bounds.
pub(super) fn model_of(definition: &Definition<'_>) -> Result<KindModel, DecodeError> {
    let mut features: Vec<FeatureSpec<'_>> = Vec::new();
    for feature in &definition.features {
        let feature = feature?;
        let after = features.last().is_none_or(|last| last.feature < feature.feature);
        let within = (Feature::FIRST_OF_KIND.0..FEATURES_MAX).contains(&feature.feature.0);
        if !after || !within || !is_name(feature.name) {
            return Err(DecodeError::Limit);
        }
        features.push(feature);
    }
    if !is_name(definition.name) {
        return Err(DecodeError::Text);
    }
    Ok(KindModel::new(&KindSpec {
        kind: definition.kind,
        name: definition.name,
        nature: definition.nature,
        scope: definition.scope,
        features: &features,
    }))
}
