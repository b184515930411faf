//! Values of columns and features.
//!
//! Invariant: in JSON a number stays a number and an absent value is null.

use std::fmt;

use lapwing_protocol::console::{Cell as WireCell, NamedCell};
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::items::Items;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Absent,
    U64(u64),
    I64(i64),
    Bool(bool),
    Text(String),
    /// Another element, by its id.
    Element(String),
}

impl From<WireCell<'_>> for Cell {
    fn from(cell: WireCell<'_>) -> Self {
        match cell {
            WireCell::Absent => Self::Absent,
            WireCell::U64(value) => Self::U64(value),
            WireCell::I64(value) => Self::I64(value),
            WireCell::Bool(value) => Self::Bool(value),
            WireCell::Text(text) => Self::Text(text.to_owned()),
            WireCell::Element(guid) => Self::Element(guid.to_string()),
        }
    }
}

impl Cell {
    /// Whether it is a number, which columns align to the right.
    pub(crate) const fn is_number(&self) -> bool {
        matches!(self, Self::U64(_) | Self::I64(_))
    }

    /// Whether it is another element's id.
    pub(crate) const fn is_element(&self) -> bool {
        matches!(self, Self::Element(_))
    }
}

impl Cell {
    /// The first eight digits of an element's id: enough for an eye.
    pub(crate) fn short(&self) -> String {
        let text = self.to_string();
        text.get(..8).unwrap_or(&text).to_owned()
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => Ok(()),
            Self::U64(value) => write!(f, "{value}"),
            Self::I64(value) => write!(f, "{value}"),
            Self::Bool(true) => f.write_str("yes"),
            Self::Bool(false) => f.write_str("no"),
            Self::Text(text) | Self::Element(text) => f.write_str(text),
        }
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent => serializer.serialize_none(),
            Self::U64(value) => serializer.serialize_u64(*value),
            Self::I64(value) => serializer.serialize_i64(*value),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Text(text) | Self::Element(text) => serializer.serialize_str(text),
        }
    }
}

/// Named values in their order; a map in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(String, Cell)>);

impl Fields {
    /// The names and values, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Cell)> {
        self.0.iter().map(|(name, cell)| (name.as_str(), cell))
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `name`, as text; empty where there is none.
    pub(crate) fn text(&self, name: &str) -> String {
        self.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, cell)| cell.to_string())
            .unwrap_or_default()
    }
}

impl FromIterator<(String, Cell)> for Fields {
    fn from_iter<I: IntoIterator<Item = (String, Cell)>>(named: I) -> Self {
        Self(named.into_iter().collect())
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, cell) in &self.0 {
            map.serialize_entry(name, cell)?;
        }
        map.end()
    }
}

/// The owned twin of a list of named cells.
pub(crate) fn fields(items: &Items<'_, NamedCell<'_>>) -> Result<Fields, DecodeError> {
    items
        .iter()
        .map(|item| item.map(|named| (named.name.to_owned(), Cell::from(named.value))))
        .collect()
}
