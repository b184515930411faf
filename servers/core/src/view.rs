//! Owned twins of what the console port tells: cells, named cells and elements, and how lists of
//! them are written.
//!
//! What it is not: no knowledge of the graph; `graph` and `query` make these, shells send them.
//! Invariant: text in here is UTF-8 already (bytes that were not are replaced), but it is still
//! hostile: who shows it escapes it.

use lapwing_protocol::console::{Cell, ElementView, NamedCell};
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::id::{ElementGuid, SensorId};
use lapwing_protocol::items::Items;
use serde::Serialize;

use crate::change::OwnedValue;

/// Appends `item` to a list of items, in the encoding of [`Items`].
pub fn push_item<T: Serialize + ?Sized>(list: &mut Vec<u8>, item: &T) {
    let before = list.len();
    // Only a serializer that does not know its length fails, and the views all do.
    if postcard::to_extend(item, Appender(list)).is_err() {
        list.truncate(before);
    }
}

struct Appender<'a>(&'a mut Vec<u8>);

impl Extend<u8> for Appender<'_> {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.0.extend(bytes);
    }
}

/// The bytes of one message.
#[must_use]
pub fn message_bytes<T: Serialize + ?Sized>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_item(&mut bytes, message);
    bytes
}

/// The owned twin of a [`Cell`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwnedCell {
    /// Nothing.
    Absent,
    /// Unsigned integer.
    U64(u64),
    /// Signed integer.
    I64(i64),
    /// Yes or no.
    Bool(bool),
    /// Text.
    Text(String),
    /// Another element.
    Element(ElementGuid),
}

impl OwnedCell {
    /// The cell that borrows from this one.
    #[must_use]
    pub fn as_cell(&self) -> Cell<'_> {
        match self {
            Self::Absent => Cell::Absent,
            Self::U64(value) => Cell::U64(*value),
            Self::I64(value) => Cell::I64(*value),
            Self::Bool(value) => Cell::Bool(*value),
            Self::Text(text) => Cell::Text(text),
            Self::Element(guid) => Cell::Element(*guid),
        }
    }

    /// The bytes it holds in memory beyond its own size.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        if let Self::Text(text) = self { text.len() } else { 0 }
    }
}

impl From<Cell<'_>> for OwnedCell {
    fn from(cell: Cell<'_>) -> Self {
        match cell {
            Cell::Absent => Self::Absent,
            Cell::U64(value) => Self::U64(value),
            Cell::I64(value) => Self::I64(value),
            Cell::Bool(value) => Self::Bool(value),
            Cell::Text(text) => Self::Text(text.to_owned()),
            Cell::Element(guid) => Self::Element(guid),
        }
    }
}

impl From<&OwnedValue> for OwnedCell {
    fn from(value: &OwnedValue) -> Self {
        match value {
            OwnedValue::U64(value) | OwnedValue::Time(value) => Self::U64(*value),
            OwnedValue::I64(value) => Self::I64(*value),
            OwnedValue::Bool(value) => Self::Bool(*value),
            OwnedValue::Element(guid) => Self::Element(*guid),
            OwnedValue::Text(_)
            | OwnedValue::Bytes(_)
            | OwnedValue::Hash(_)
            | OwnedValue::Ip(_) => Self::Text(value.to_string()),
        }
    }
}

/// A cell with its name.
pub type OwnedNamedCell = (String, OwnedCell);

/// The bytes of `Items<NamedCell>`.
#[must_use]
pub fn named_cells_bytes(cells: &[OwnedNamedCell]) -> Vec<u8> {
    let mut list = Vec::new();
    for (name, value) in cells {
        push_item(&mut list, &NamedCell { name, value: value.as_cell() });
    }
    list
}

/// The owned twins of a list of named cells.
///
/// # Errors
/// The first item that does not decode.
pub fn named_cells(items: &Items<'_, NamedCell<'_>>) -> Result<Vec<OwnedNamedCell>, DecodeError> {
    items
        .iter()
        .map(|cell| cell.map(|cell| (cell.name.to_owned(), OwnedCell::from(cell.value))))
        .collect()
}

/// The owned twin of an [`ElementView`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedElement {
    /// Which element.
    pub guid: ElementGuid,
    /// Its sensor.
    pub sensor: SensorId,
    /// The name of its kind.
    pub kind: String,
    /// A short name for a person.
    pub label: String,
    /// Whether it ended.
    pub ended: bool,
    /// First told of, server's clock, milliseconds since 1970.
    pub first_seen_ms: u64,
    /// Its features.
    pub fields: Vec<OwnedNamedCell>,
}

impl OwnedElement {
    /// Appends it to a list of `ElementView`s.
    pub fn push_to(&self, list: &mut Vec<u8>) {
        let fields = named_cells_bytes(&self.fields);
        push_item(
            list,
            &ElementView {
                guid: self.guid,
                sensor: self.sensor,
                kind: &self.kind,
                label: &self.label,
                ended: self.ended,
                first_seen_ms: self.first_seen_ms,
                fields: Items::from_bytes(&fields),
            },
        );
    }

    /// The owned twin of `view`.
    ///
    /// # Errors
    /// When a field does not decode.
    pub fn from_view(view: &ElementView<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            guid: view.guid,
            sensor: view.sensor,
            kind: view.kind.to_owned(),
            label: view.label.to_owned(),
            ended: view.ended,
            first_seen_ms: view.first_seen_ms,
            fields: named_cells(&view.fields)?,
        })
    }

    /// The value of the feature of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&OwnedCell> {
        self.fields.iter().find(|(of, _)| of == name).map(|(_, value)| value)
    }
}

/// The bytes of `Items<ElementView>`.
#[must_use]
pub fn elements_bytes(elements: &[OwnedElement]) -> Vec<u8> {
    let mut list = Vec::new();
    for element in elements {
        element.push_to(&mut list);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_comes_back_as_it_went() {
        let element = OwnedElement {
            guid: ElementGuid([1; 16]),
            sensor: SensorId([2; 16]),
            kind: "process".to_owned(),
            label: "sh (7)".to_owned(),
            ended: true,
            first_seen_ms: 12,
            fields: vec![
                ("pid".to_owned(), OwnedCell::U64(7)),
                ("parent".to_owned(), OwnedCell::Element(ElementGuid([3; 16]))),
                ("name".to_owned(), OwnedCell::Text("sh".to_owned())),
            ],
        };
        let bytes = elements_bytes(&[element.clone(), element.clone()]);
        let items = Items::<ElementView<'_>>::from_bytes(&bytes);
        let back: Result<Vec<_>, _> =
            items.iter().map(|view| OwnedElement::from_view(&view.unwrap())).collect();
        assert_eq!(back.unwrap(), [element.clone(), element]);
    }

    #[test]
    fn a_hash_is_shown_as_lower_case_hex() {
        let cell = OwnedCell::from(&OwnedValue::Hash([0xab, 0x01].as_slice().into()));
        assert_eq!(cell, OwnedCell::Text("ab01".to_owned()));
    }
}
