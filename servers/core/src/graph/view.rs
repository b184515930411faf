//! What the graph tells of elements: owned views, the chain of parents, and children.

use std::collections::BTreeSet;

use lapwing_protocol::element::{Feature, process};
use lapwing_protocol::id::ElementGuid;

use super::{Element, Graph, bit};
use crate::change::{KindModel, OwnedValue};
use crate::view::{OwnedCell, OwnedElement, OwnedNamedCell};

impl Graph {
    /// The view of `element` with all its features.
    #[must_use]
    pub fn describe(&self, element: &Element) -> OwnedElement {
        OwnedElement {
            guid: element.guid,
            sensor: self.sensor_of(element),
            kind: element.model.name.to_string(),
            label: element.label(),
            ended: element.ended(),
            first_seen_ms: element.first_seen_ms,
            fields: named_fields(element),
        }
    }

    /// The process that `element` is or names, then its parents, nearest first, `max` in all.
    #[must_use]
    pub fn chain(&self, element: &Element, max: usize) -> Vec<&Element> {
        let first = if element.kind() == process::KIND {
            Some(element.guid)
        } else {
            let link = element.model.feature_named("process");
            link.and_then(|link| element.target(link.feature))
        };
        let mut seen = BTreeSet::new();
        let mut chain = Vec::new();
        let mut next = first;
        while let Some(found) = next.and_then(|guid| self.find(guid)) {
            // A sensor may claim a circle.
            if chain.len() >= max || !seen.insert(found.guid) {
                break;
            }
            chain.push(found);
            next = found.target(process::parent);
        }
        chain
    }

    /// Up to `max` processes whose parent is `process`, the longest known first.
    pub fn children(&self, process: ElementGuid, max: usize) -> impl Iterator<Item = &Element> {
        self.referrers(process)
            .filter_map(|index| self.element(index))
            .filter(move |element| element.target(process::parent) == Some(process))
            .filter(|element| element.kind() == process::KIND)
            .take(max)
    }
}

/// The features of `element` by name.
#[must_use]
pub(crate) fn named_fields(element: &Element) -> Vec<OwnedNamedCell> {
    let named = element.fields.iter().filter_map(|(feature, value)| {
        let name = element.model.feature(*feature)?.name.to_string();
        Some((name, cell_of(&element.model, *feature, value)))
    });
    named.collect()
}

/// The cell of one feature. Sets of features (not read, cut) are shown by the features' names.
#[must_use]
pub(crate) fn cell_of(model: &KindModel, feature: Feature, value: &OwnedValue) -> OwnedCell {
    match value {
        OwnedValue::U64(set) if matches!(feature, Feature::MISSING | Feature::TRUNCATED) => {
            let named = model.features.iter().filter(|it| set & bit(it.feature) != 0);
            let names: Vec<&str> = named.map(|it| &*it.name).collect();
            OwnedCell::Text(names.join(","))
        }
        value => OwnedCell::from(value),
    }
}
