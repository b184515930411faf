//! One element as the graph keeps it: compact, its text shared with the change it came from.
//!
//! What it is not: no links (the graph holds the reverse ones), no policy. Invariant: fields are in
//! ascending order of feature, each feature once.

use std::mem::size_of;
use std::sync::Arc;

use lapwing_protocol::element::{self, Feature, Kind};
use lapwing_protocol::id::ElementGuid;

use super::limits::{ELEMENT_OVERHEAD_BYTES, LABEL_BYTES_MAX};
use crate::change::{KindModel, OwnedValue};

/// How an element stands to what its sensor reports now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// It is a row of the sensor's table.
    Live,
    /// It ended.
    Ended,
    /// It is no longer reported; it may go on.
    Unreported,
    /// It is an event: it happened.
    Happened,
}

impl Presence {
    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ended => "ended",
            Self::Unreported => "unreported",
            Self::Happened => "happened",
        }
    }
}

/// One element.
#[derive(Clone, Debug)]
pub struct Element {
    pub(super) guid: ElementGuid,
    pub(super) model: Arc<KindModel>,
    pub(super) fields: Vec<(Feature, OwnedValue)>,
    pub(super) first_seen_ms: u64,
    pub(super) changed_ms: u64,
    pub(super) happened_ns: u64,
    /// Which entry in the row of past elements is its own; 0 for none.
    pub(super) past_number: u64,
    pub(super) sensor: u32,
    pub(super) bytes: u32,
    pub(super) presence: Presence,
}

impl Element {
    /// Its id.
    #[must_use]
    pub fn guid(&self) -> ElementGuid {
        self.guid
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.model.kind
    }

    /// Its kind's row of the model.
    #[must_use]
    pub fn model(&self) -> &Arc<KindModel> {
        &self.model
    }

    /// How it stands.
    #[must_use]
    pub fn presence(&self) -> Presence {
        self.presence
    }

    /// Whether it ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.presence == Presence::Ended
    }

    /// When this server was first told of it, milliseconds since 1970.
    #[must_use]
    pub fn first_seen_ms(&self) -> u64 {
        self.first_seen_ms
    }

    /// When this server was last told of a change of it, milliseconds since 1970.
    #[must_use]
    pub fn changed_ms(&self) -> u64 {
        self.changed_ms
    }

    /// When it happened or began by the sensor's claim, milliseconds since 1970.
    #[must_use]
    pub fn happened_ms(&self) -> u64 {
        self.happened_ns / 1_000_000
    }

    /// Its features in ascending order.
    #[must_use]
    pub fn fields(&self) -> &[(Feature, OwnedValue)] {
        &self.fields
    }

    /// The value of `feature`, where it is present.
    #[must_use]
    pub fn value(&self, feature: Feature) -> Option<&OwnedValue> {
        let position = self.fields.binary_search_by_key(&feature, |(of, _)| *of).ok()?;
        self.fields.get(position).map(|(_, value)| value)
    }

    /// The value of the feature of that name, where it is present.
    #[must_use]
    pub fn value_named(&self, name: &str) -> Option<&OwnedValue> {
        self.value(self.model.feature_named(name)?.feature)
    }

    /// The text of `feature`, where it is present and text.
    #[must_use]
    pub fn text(&self, feature: Feature) -> Option<std::borrow::Cow<'_, str>> {
        self.value(feature)?.text()
    }

    /// The number of `feature`, where it is present and an unsigned number.
    #[must_use]
    pub fn number(&self, feature: Feature) -> Option<u64> {
        self.value(feature)?.number()
    }

    /// The element that `feature` names.
    #[must_use]
    pub fn target(&self, feature: Feature) -> Option<ElementGuid> {
        match self.value(feature)? {
            OwnedValue::Element(guid) => Some(*guid),
            _ => None,
        }
    }

    /// A short name for a person: one line, never empty.
    #[must_use]
    pub fn label(&self) -> String {
        let mut label = match self.kind() {
            element::process::KIND => self.process_label(),
            element::connection::KIND => self.connection_label(),
            element::dns::KIND => self.text_label(element::dns::question),
            element::file_event::KIND => self.text_label(element::file_event::path),
            _ => None,
        }
        .or_else(|| self.first_text())
        .unwrap_or_else(|| format!("{} {}", self.model.name, self.guid));
        if label.len() > LABEL_BYTES_MAX {
            let end = (0..=LABEL_BYTES_MAX - 3).rev().find(|end| label.is_char_boundary(*end));
            label.truncate(end.unwrap_or(0));
            label.push_str("...");
        }
        label
    }

    fn text_label(&self, feature: Feature) -> Option<String> {
        self.text(feature).filter(|text| !text.is_empty()).map(std::borrow::Cow::into_owned)
    }

    fn process_label(&self) -> Option<String> {
        let path = self.text_label(element::process::image_path);
        let base = path.as_deref().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let name = if base.is_empty() {
            self.text_label(element::process::name)?
        } else {
            base.to_owned()
        };
        Some(match self.number(element::process::pid) {
            Some(pid) => format!("{name} ({pid})"),
            None => name,
        })
    }

    fn connection_label(&self) -> Option<String> {
        let protocol = match self.number(element::connection::protocol) {
            Some(6) => "tcp",
            Some(17) => "udp",
            _ => "ip",
        };
        let OwnedValue::Ip(address) = self.value(element::connection::remote_address)? else {
            return None;
        };
        let port = self.number(element::connection::remote_port).unwrap_or(0);
        let port = u16::try_from(port).unwrap_or(0);
        Some(format!("{protocol} {}", core::net::SocketAddr::new(*address, port)))
    }

    fn first_text(&self) -> Option<String> {
        let mut texts = self.fields.iter().filter_map(|(_, value)| value.text());
        texts.find(|text| !text.is_empty()).map(std::borrow::Cow::into_owned)
    }

    /// The memory it is counted with.
    pub(super) fn count_bytes(&self) -> u32 {
        let texts = self.fields.iter().map(|(_, value)| value.text_bytes());
        let fields = self.fields.capacity() * size_of::<(Feature, OwnedValue)>();
        let bytes = size_of::<Self>() + ELEMENT_OVERHEAD_BYTES + fields + texts.sum::<usize>();
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

/// The bit of `feature` in a set of features.
pub(crate) const fn bit(feature: Feature) -> u64 {
    lapwing_protocol::row::bit(feature)
}

/// Lays `newer` over `fields` (both ascending); says which features differ afterwards.
pub(super) fn merge(
    fields: &mut Vec<(Feature, OwnedValue)>,
    newer: Vec<(Feature, OwnedValue)>,
) -> u64 {
    let mut touched = 0;
    for (feature, value) in newer {
        match fields.binary_search_by_key(&feature, |(of, _)| *of) {
            Ok(position) => {
                if let Some((_, old)) = fields.get_mut(position)
                    && *old != value
                {
                    *old = value;
                    touched |= bit(feature);
                }
            }
            Err(position) => {
                fields.insert(position, (feature, value));
                touched |= bit(feature);
            }
        }
    }
    touched
}

/// The features in which two ascending rows differ.
pub(super) fn difference(one: &[(Feature, OwnedValue)], other: &[(Feature, OwnedValue)]) -> u64 {
    let missing_or_other = |row: &[(Feature, OwnedValue)], from: &[(Feature, OwnedValue)]| {
        from.iter().filter(|entry| !row.contains(entry)).fold(0, |bits, (of, _)| bits | bit(*of))
    };
    if one == other { 0 } else { missing_or_other(one, other) | missing_or_other(other, one) }
}
