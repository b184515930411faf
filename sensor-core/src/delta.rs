//! What of a fact is new: checks a fact against its kind, and compares rows.
//!
//! Pure functions over canonical rows; what follows from a difference is decided in
//! [`crate::recorder`].

use core::net::IpAddr;

use heapless::Vec;
use lapwing_protocol::element::{Change, Fact, Feature, Field, KindSpec, Nature, Value};
use lapwing_protocol::error::BufferFull;
use lapwing_protocol::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use lapwing_protocol::row::{self, Fields, bit};

use crate::limits::FIELDS_MAX;

/// A list of fields, on the stack.
pub(crate) type FieldList<'f> = Vec<Field<'f>, FIELDS_MAX>;

/// How a row differs from the one it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// Not at all.
    Nothing,
    /// A feature vanished, or there was no row: the whole row is to be sent.
    Whole,
    /// These features are new or changed; bit i is feature i.
    Features(u64),
}

/// Whether `fact` fits its kind: nature, order, types and bounds.
pub(crate) fn is_sound(fact: &Fact<'_>, spec: &KindSpec<'_>) -> bool {
    let nature = match fact.change {
        Change::Whole | Change::Update | Change::Ended => Nature::State,
        Change::Event => Nature::Event,
    };
    if nature != spec.nature || fact.fields.len() > FIELDS_MAX {
        return false;
    }
    let is_ascending = fact.fields.windows(2).all(|pair| pair[0].feature < pair[1].feature);
    is_ascending && fact.fields.iter().all(|field| is_sound_field(field, spec))
}

fn is_sound_field(field: &Field<'_>, spec: &KindSpec<'_>) -> bool {
    let is_bounded = match field.value {
        Value::Bytes(bytes) | Value::Text(bytes) | Value::Hash(bytes) => {
            bytes.len() <= VALUE_BYTES_MAX
        }
        Value::Ref(reference) => reference.key.len() <= KEY_BYTES_MAX,
        Value::Ip(IpAddr::V4(_) | IpAddr::V6(_))
        | Value::U64(_)
        | Value::I64(_)
        | Value::Bool(_)
        | Value::Time(_) => true,
    };
    let expected = spec.feature(field.feature).map(|feature| feature.value_type);
    is_bounded && expected == Some(field.value.value_type())
}

/// How `new` differs from `old`; both are rows of `spec`.
pub(crate) fn compare(old: &[u8], new: &[u8], spec: &KindSpec<'_>) -> Difference {
    if old == new {
        return Difference::Nothing;
    }
    let (Ok(mut old), Ok(new)) = (Fields::new(old, spec), Fields::new(new, spec)) else {
        return Difference::Whole;
    };
    if old.bits() & !new.bits() != 0 {
        return Difference::Whole;
    }
    let mut mask = 0;
    let mut before = old.next();
    for field in new {
        let Ok(field) = field else { return Difference::Whole };
        match before {
            Some(Ok(known)) if known.feature == field.feature => {
                if known.value != field.value {
                    mask |= bit(field.feature);
                }
                before = old.next();
            }
            _ => mask |= bit(field.feature),
        }
    }
    Difference::Features(mask)
}

/// Writes the row that `old` becomes with `update` laid over it, and returns its length.
pub(crate) fn merge(
    old: &[u8],
    update: &[Field<'_>],
    spec: &KindSpec<'_>,
    buffer: &mut [u8],
) -> Result<usize, BufferFull> {
    let mut merged = FieldList::new();
    let mut update = update.iter().filter(|field| field.feature != Feature::SOURCE_SEQ).peekable();
    for known in Fields::new(old, spec).map_err(|_| BufferFull)? {
        let known = known.map_err(|_| BufferFull)?;
        while let Some(new) = update.next_if(|new| new.feature < known.feature) {
            merged.push(*new).map_err(|_| BufferFull)?;
        }
        let replaced = update.next_if(|new| new.feature == known.feature);
        merged.push(replaced.copied().unwrap_or(known)).map_err(|_| BufferFull)?;
    }
    for new in update {
        merged.push(*new).map_err(|_| BufferFull)?;
    }
    row::write(&merged, buffer).map(<[u8]>::len)
}

/// The fields of `row` that `mask` names, and the number the source gave the fact, if any.
pub(crate) fn fields_of<'r>(
    row: &'r [u8],
    spec: &KindSpec<'_>,
    mask: u64,
    source_seq: Option<Value<'r>>,
) -> FieldList<'r> {
    let mut list = FieldList::new();
    // Neither push can fail: a row has at most as many features as the list has places, and the
    // source's number is never one of them.
    if let Some(value) = source_seq {
        let _ = list.push(Field::new(Feature::SOURCE_SEQ, value));
    }
    let Ok(fields) = Fields::new(row, spec) else { return list };
    for field in fields.flatten().filter(|field| mask & bit(field.feature) != 0) {
        let _ = list.push(field);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapwing_protocol::element::service;

    fn row_of<'b>(fields: &[Field<'_>], buffer: &'b mut [u8]) -> &'b [u8] {
        row::write(fields, buffer).unwrap()
    }

    fn field(feature: Feature, text: &'static str) -> Field<'static> {
        Field::new(feature, Value::text(text))
    }

    #[test]
    fn only_what_changed_is_named_and_what_vanished_asks_for_the_whole_row() {
        let (mut first, mut second) = ([0; 64], [0; 64]);
        let name = field(service::name, "ssh");
        let old = row_of(&[name, field(service::state, "active")], &mut first);
        assert_eq!(compare(old, old, &service::SPEC), Difference::Nothing);
        let new = [name, field(service::state, "failed"), field(service::user, "root")];
        let new = row_of(&new, &mut second);
        let mask = bit(service::state) | bit(service::user);
        assert_eq!(compare(old, new, &service::SPEC), Difference::Features(mask));
        assert_eq!(compare(new, old, &service::SPEC), Difference::Whole);
    }

    #[test]
    fn an_update_leaves_what_it_does_not_name() {
        let (mut first, mut second) = ([0; 64], [0; 64]);
        let name = field(service::name, "ssh");
        let state = field(service::state, "active");
        let old = row_of(&[name, state], &mut first);
        let user = field(service::user, "root");
        let source = Field::new(Feature::SOURCE_SEQ, Value::U64(3));
        let length = merge(old, &[source, name, user], &service::SPEC, &mut second).unwrap();
        let merged = fields_of(&second[..length], &service::SPEC, u64::MAX, None);
        assert_eq!(merged, [name, state, user]);
    }

    #[test]
    fn a_fact_of_the_wrong_shape_is_not_sound() {
        let judge = |change, fields: &[Field<'_>]| {
            is_sound(&Fact { kind: service::KIND, change, time_ns: 0, fields }, &service::SPEC)
        };
        let name = field(service::name, "ssh");
        let state = field(service::state, "active");
        assert!(judge(Change::Whole, &[name, state]));
        assert!(!judge(Change::Whole, &[state, name]));
        assert!(!judge(Change::Event, &[name]));
        let number = Field::new(service::name, Value::U64(1));
        assert!(!judge(Change::Whole, &[number]));
        let stranger = Field::new(Feature(60), Value::U64(1));
        assert!(!judge(Change::Whole, &[name, stranger]));
    }
}
