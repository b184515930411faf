//! What a sensor says of its own parts, and whether it collects: taken from its facts.
//!
//! Not here: the graph, which has the same rows; this is the small part that each list of sensors
//! shows, kept so that the graph is not searched for it.

use std::collections::BTreeMap;

use lapwing_protocol::command::Outcome;
use lapwing_protocol::console::HealthView;
use lapwing_protocol::element::{Feature, command_outcome, health, machine};
use lapwing_protocol::id::ElementGuid;
use lapwing_server_core::change::{Change, OwnedValue, What};
use lapwing_server_core::view::push_item;

use crate::roster::shortened;

/// Parts of one sensor that are kept; a real one has about ten. One more is not shown.
const PARTS_MAX: usize = 32;
/// Bytes kept of each text of a part: the list of all sensors must fit a reply, whatever one says.
const TEXT_BYTES_MAX: usize = 255;
/// What is kept of a part.
const SHOWN: [Feature; 5] =
    [health::component, health::status, health::reason, health::remedy, health::mechanism];

/// The parts of one sensor.
#[derive(Clone, Debug, Default)]
pub(crate) struct SensorHealth {
    parts: BTreeMap<ElementGuid, BTreeMap<Feature, String>>,
    /// Whether the sensor collects, where its facts said so.
    pub(crate) collecting: Option<bool>,
}

impl SensorHealth {
    /// Takes over what `change` says, if it is of this sort.
    pub(crate) fn handle_change(&mut self, change: &Change) {
        let kind = change.model.kind;
        if kind == health::KIND {
            self.handle_part(change);
        } else if kind == machine::KIND {
            if let Some(collection) = change.value(machine::collection).and_then(OwnedValue::text) {
                self.collecting = Some(collection == "enabled");
            }
        } else if kind == command_outcome::KIND {
            self.handle_outcome(change);
        }
    }

    fn handle_part(&mut self, change: &Change) {
        match change.what {
            What::Ended | What::Forgotten => {
                self.parts.remove(&change.guid);
                return;
            }
            What::Put | What::Restated => {
                self.parts.remove(&change.guid);
            }
            What::Patched | What::Happened => {}
        }
        if self.parts.len() >= PARTS_MAX && !self.parts.contains_key(&change.guid) {
            return;
        }
        let part = self.parts.entry(change.guid).or_default();
        let shown = change.fields.iter().filter(|(feature, _)| SHOWN.contains(feature));
        part.extend(
            shown.map(|(feature, value)| (*feature, shortened(&value.to_string(), TEXT_BYTES_MAX))),
        );
    }

    fn handle_outcome(&mut self, change: &Change) {
        let done = change.value(command_outcome::outcome).and_then(OwnedValue::number)
            == Some(Outcome::Done as u64);
        let action = change.value(command_outcome::action).and_then(OwnedValue::text);
        match (done, action.as_deref()) {
            (true, Some("start_collection")) => self.collecting = Some(true),
            (true, Some("stop_collection")) => self.collecting = Some(false),
            _ => {}
        }
    }

    /// `Items<HealthView>`.
    pub(crate) fn items(&self) -> Vec<u8> {
        let mut items = Vec::new();
        for part in self.parts.values() {
            let text = |feature| part.get(&feature).map(String::as_str).unwrap_or_default();
            push_item(
                &mut items,
                &HealthView {
                    component: text(health::component),
                    status: text(health::status),
                    reason: text(health::reason),
                    remedy: text(health::remedy),
                    mechanism: text(health::mechanism),
                },
            );
        }
        items
    }
}
