//! The graph: the elements of all sensors of one Detection server, and the links between them.
//!
//! It is built from changes alone and can be rebuilt from them. Element-typed features are links;
//! they are followed forward through the id they hold and backward through `referrers`. A link may
//! name an element that was not told of yet; it works once it is.
//!
//! What it is not: no detection and no storage. History beyond memory is the journal's.
//!
//! Invariants: a row that its sensor reports is never evicted; what is evicted is the oldest of
//! what is past (ended, no longer reported, or an event) and is counted per sensor and kind, so
//! that an answer can say what it lacks; the same changes in the same order give the same graph.

mod element;
mod guid_map;
pub mod limits;
mod past;
#[cfg(test)]
mod properties;
mod referrers;
#[cfg(test)]
mod tests;
pub(crate) mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use lapwing_protocol::element::{self as model, Feature, Kind, kind as built_in};
use lapwing_protocol::id::{ElementGuid, SensorId};

use crate::change::{Change, KindModel, OwnedValue, What};
pub(crate) use element::bit;
pub use element::{Element, Presence};
use element::{difference, merge};
use guid_map::{GuidHash, GuidMap};
use limits::{GraphLimits, MODELS_MAX};
use past::Past;
use referrers::{Referrer, Referrers};

/// The place of an element in the graph. It holds until the next change is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ElementIndex(u32);

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its element.
    pub guid: ElementGuid,
    /// The features that are not what they were before; bit i stands for feature i.
    pub touched: u64,
}

/// What of one sensor and kind is no longer in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// How many elements.
    pub count: u64,
    /// The last time, by this server's clock in milliseconds since 1970, that any of them changed.
    pub until_ms: u64,
}

/// Figures of the graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GraphCounts {
    /// Elements in memory.
    pub elements: usize,
    /// Rows that their sensors report.
    pub live: usize,
    /// Bytes they are counted with.
    pub bytes: u64,
    /// Elements evicted since the start.
    pub evicted: u64,
}

#[derive(Debug)]
struct SensorSlot {
    sensor: SensorId,
    machine: Option<ElementGuid>,
    evicted: BTreeMap<Kind, Evicted>,
}

/// The graph.
#[derive(Debug)]
pub struct Graph {
    limits: GraphLimits,
    slots: Vec<Option<Element>>,
    free: Vec<u32>,
    index_by_guid: GuidMap<ElementIndex>,
    referrers: GuidMap<Referrers>,
    sensors: Vec<SensorSlot>,
    slot_by_sensor: BTreeMap<SensorId, u32>,
    models: BTreeMap<Arc<str>, Vec<Arc<KindModel>>>,
    models_count: usize,
    past: Past,
    counts: GraphCounts,
}

impl Graph {
    /// An empty graph; `hash_key` is chance that sensors cannot know.
    #[must_use]
    pub fn new(limits: GraphLimits, hash_key: u64) -> Self {
        Self {
            limits,
            slots: Vec::new(),
            free: Vec::new(),
            index_by_guid: GuidMap::with_hasher(GuidHash(hash_key)),
            referrers: GuidMap::with_hasher(GuidHash(hash_key)),
            sensors: Vec::new(),
            slot_by_sensor: BTreeMap::new(),
            models: BTreeMap::new(),
            models_count: 0,
            past: Past::default(),
            counts: GraphCounts::default(),
        }
    }

    /// Applies one change of `sensor`; `now_ms` is the server's clock, milliseconds since 1970.
    pub fn apply(&mut self, now_ms: u64, sensor: SensorId, change: Change) -> Applied {
        let guid = change.guid;
        let slot = self.sensor_slot(sensor);
        let is_machine = change.model.kind == model::machine::KIND;
        let touched = match self.index_by_guid.get(&guid) {
            Some(index) => self.update(now_ms, *index, change),
            None => self.create(now_ms, slot, change),
        };
        if is_machine && let Some(slot) = self.sensors.get_mut(slot as usize) {
            slot.machine = Some(guid);
        }
        self.evict();
        Applied { guid, touched }
    }

    /// Drops everything known of `sensor`, before it is built again. What was evicted of it stays
    /// counted.
    pub fn forget_sensor(&mut self, sensor: SensorId) {
        let Some(slot) = self.slot_by_sensor.get(&sensor).copied() else { return };
        for index in 0..self.slots.len() as u32 {
            let index = ElementIndex(index);
            if self.element(index).is_some_and(|element| element.sensor == slot) {
                self.remove(index);
            }
        }
        let slots = &self.slots;
        self.past.sweep(|index| past_number(slots, index));
        if let Some(slot) = self.sensors.get_mut(slot as usize) {
            slot.machine = None;
        }
    }

    /// The element at `index`.
    #[must_use]
    pub fn element(&self, index: ElementIndex) -> Option<&Element> {
        self.slots.get(index.0 as usize)?.as_ref()
    }

    /// The place of the element of that id.
    #[must_use]
    pub fn index(&self, guid: ElementGuid) -> Option<ElementIndex> {
        self.index_by_guid.get(&guid).copied()
    }

    /// The element of that id.
    #[must_use]
    pub fn find(&self, guid: ElementGuid) -> Option<&Element> {
        self.element(self.index(guid)?)
    }

    /// The place at `position` of all places, in the order in which they are searched.
    #[must_use]
    pub fn place(&self, position: usize) -> Option<ElementIndex> {
        (position < self.slots.len()).then_some(ElementIndex(position as u32))
    }

    /// Those that name `guid` in one of their features, the longest known first.
    pub fn referrers(&self, guid: ElementGuid) -> impl Iterator<Item = ElementIndex> {
        self.referrers.get(&guid).into_iter().flat_map(Referrers::iter)
    }

    /// The sensor of `element`.
    #[must_use]
    pub fn sensor_of(&self, element: &Element) -> SensorId {
        self.sensors.get(element.sensor as usize).map_or(SensorId([0; 16]), |slot| slot.sensor)
    }

    /// The machine of `element`'s sensor, where it was told of.
    #[must_use]
    pub fn machine_of(&self, element: &Element) -> Option<&Element> {
        self.find(self.sensors.get(element.sensor as usize)?.machine?)
    }

    /// The name of the machine of `element`'s sensor; empty while it is not known.
    #[must_use]
    pub fn machine_name(&self, element: &Element) -> std::borrow::Cow<'_, str> {
        self.machine_of(element).and_then(|it| it.text(model::machine::name)).unwrap_or_default()
    }

    /// What was evicted, by sensor and kind.
    pub fn evicted(&self) -> impl Iterator<Item = (SensorId, Kind, Evicted)> {
        let of_slot = |slot: &u32| self.sensors.get(*slot as usize);
        self.slot_by_sensor.values().filter_map(of_slot).flat_map(|slot| {
            slot.evicted.iter().map(|(kind, evicted)| (slot.sensor, *kind, *evicted))
        })
    }

    /// The models of kinds that are not built in, or have more features than the built-in ones.
    pub fn models(&self) -> impl Iterator<Item = &Arc<KindModel>> {
        self.models.values().flatten()
    }

    /// Figures.
    #[must_use]
    pub fn counts(&self) -> GraphCounts {
        self.counts
    }

    /// Whether living rows alone are beyond the limits: then no further sensor should be taken,
    /// for rows are never refused.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.counts.elements > self.limits.elements_max || self.counts.bytes > self.limits.bytes_max
    }

    fn sensor_slot(&mut self, sensor: SensorId) -> u32 {
        *self.slot_by_sensor.entry(sensor).or_insert_with(|| {
            self.sensors.push(SensorSlot { sensor, machine: None, evicted: BTreeMap::new() });
            (self.sensors.len() - 1) as u32
        })
    }

    fn create(&mut self, now_ms: u64, sensor: u32, change: Change) -> u64 {
        self.learn(&change.model);
        let happened_ns = began_ns(&change);
        let mut element = Element {
            guid: change.guid,
            model: change.model,
            fields: change.fields,
            first_seen_ms: now_ms,
            changed_ms: now_ms,
            happened_ns,
            past_number: 0,
            sensor,
            bytes: 0,
            presence: presence(change.what),
        };
        element.bytes = element.count_bytes();
        self.counts.bytes += u64::from(element.bytes);
        self.counts.elements += 1;
        let touched = element.fields.iter().fold(0, |bits, (of, _)| bits | bit(*of));
        let index = ElementIndex(match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(None);
                (self.slots.len() - 1) as u32
            }
        });
        for target in targets(&element.fields) {
            self.referrers.entry(target).or_default().add((now_ms, index));
        }
        if element.presence == Presence::Live {
            self.counts.live += 1;
        } else {
            element.past_number = self.past.push(index);
        }
        self.index_by_guid.insert(element.guid, index);
        if let Some(slot) = self.slots.get_mut(index.0 as usize) {
            *slot = Some(element);
        }
        touched
    }

    fn update(&mut self, now_ms: u64, index: ElementIndex, change: Change) -> u64 {
        let Some(element) = self.slots.get_mut(index.0 as usize).and_then(Option::as_mut) else {
            return 0;
        };
        let before = element.presence;
        let has_links = |fields: &[(Feature, OwnedValue)]| {
            fields.iter().any(|(_, value)| matches!(value, OwnedValue::Element(_)))
        };
        // Most patches have none, and those of a process would cost an allocation each.
        let may_relink = match change.what {
            What::Put | What::Restated | What::Happened => true,
            What::Patched | What::Ended | What::Forgotten => has_links(&change.fields),
        };
        let old_targets = if may_relink { targets(&element.fields) } else { Vec::new() };
        let touched = match change.what {
            What::Put | What::Restated | What::Happened => {
                let touched = difference(&element.fields, &change.fields);
                if touched != 0 {
                    element.fields = change.fields;
                }
                touched
            }
            What::Patched | What::Ended | What::Forgotten => {
                merge(&mut element.fields, change.fields)
            }
        };
        element.presence = presence(change.what);
        if touched != 0 || element.presence != before {
            element.changed_ms = now_ms;
        }
        if touched != 0 {
            self.counts.bytes -= u64::from(element.bytes);
            element.bytes = element.count_bytes();
            self.counts.bytes += u64::from(element.bytes);
            if may_relink {
                let (new_targets, known_ms) = (targets(&element.fields), element.first_seen_ms);
                self.relink((known_ms, index), &old_targets, &new_targets);
            }
        }
        self.settle(index, before, presence(change.what));
        touched
    }

    /// Moves an element between the living and the past.
    fn settle(&mut self, index: ElementIndex, before: Presence, after: Presence) {
        let was_live = before == Presence::Live;
        if was_live == (after == Presence::Live) {
            return;
        }
        let number = if was_live {
            self.counts.live -= 1;
            self.past.push(index)
        } else {
            self.counts.live += 1;
            0
        };
        if let Some(element) = self.slots.get_mut(index.0 as usize).and_then(Option::as_mut) {
            element.past_number = number;
        }
        if !was_live {
            let slots = &self.slots;
            self.past.strike(|index| past_number(slots, index));
        }
    }

    fn relink(&mut self, referrer: Referrer, old: &[ElementGuid], new: &[ElementGuid]) {
        for target in old.iter().filter(|target| !new.contains(target)) {
            self.unlink(*target, referrer);
        }
        for target in new.iter().filter(|target| !old.contains(target)) {
            self.referrers.entry(*target).or_default().add(referrer);
        }
    }

    fn unlink(&mut self, target: ElementGuid, referrer: Referrer) {
        if let Some(referrers) = self.referrers.get_mut(&target) {
            referrers.remove(referrer);
            if referrers.is_empty() {
                self.referrers.remove(&target);
            }
        }
    }

    fn evict(&mut self) {
        while self.is_over() {
            let slots = &self.slots;
            let Some(index) = self.past.pop(|index| past_number(slots, index)) else { return };
            let Some(element) = self.remove(index) else { continue };
            self.counts.evicted += 1;
            if let Some(slot) = self.sensors.get_mut(element.sensor as usize) {
                let evicted = slot.evicted.entry(element.kind()).or_default();
                evicted.count += 1;
                evicted.until_ms = evicted.until_ms.max(element.changed_ms);
            }
        }
    }

    fn remove(&mut self, index: ElementIndex) -> Option<Element> {
        let element = self.slots.get_mut(index.0 as usize)?.take()?;
        self.free.push(index.0);
        self.index_by_guid.remove(&element.guid);
        for target in targets(&element.fields) {
            self.unlink(target, (element.first_seen_ms, index));
        }
        self.counts.elements -= 1;
        self.counts.bytes -= u64::from(element.bytes);
        if element.presence == Presence::Live {
            self.counts.live -= 1;
        }
        Some(element)
    }

    /// Remembers a model that is not the built-in one. Beyond the limit it is not remembered, and
    /// queries then know its kind by number only through the elements they reach by links.
    fn learn(&mut self, found: &Arc<KindModel>) {
        let is_built_in = built_in(found.kind).is_some_and(|spec| {
            found.features.len() == spec.features.len() + model::COMMON_FEATURES.len()
        });
        if is_built_in || self.models_count >= MODELS_MAX {
            return;
        }
        let models = self.models.entry(Arc::clone(&found.name)).or_default();
        if !models.iter().any(|known| Arc::ptr_eq(known, found) || **known == **found) {
            models.push(Arc::clone(found));
            self.models_count += 1;
        }
    }
}

fn past_number(slots: &[Option<Element>], index: ElementIndex) -> u64 {
    slots.get(index.0 as usize).and_then(Option::as_ref).map_or(0, |element| element.past_number)
}

fn presence(what: What) -> Presence {
    match what {
        What::Put | What::Restated | What::Patched => Presence::Live,
        What::Ended => Presence::Ended,
        What::Forgotten => Presence::Unreported,
        What::Happened => Presence::Happened,
    }
}

/// What these fields name, each once.
fn targets(fields: &[(Feature, OwnedValue)]) -> Vec<ElementGuid> {
    let mut targets = Vec::new();
    for (_, value) in fields {
        if let OwnedValue::Element(target) = value
            && !targets.contains(target)
        {
            targets.push(*target);
        }
    }
    targets
}

/// When the element of a change began by the sensor's wall clock, in nanoseconds since 1970: a
/// process that was running before the sensor came began when it says, not when it was found.
fn began_ns(change: &Change) -> u64 {
    let began = match change.model.kind {
        model::process::KIND => change.value(model::process::started),
        model::connection::KIND => change.value(model::connection::first_seen),
        _ => None,
    };
    match began {
        Some(OwnedValue::Time(time_ns)) if *time_ns <= change.time_ns => {
            change.wall_ns.saturating_sub(change.time_ns - time_ns)
        }
        _ => change.wall_ns,
    }
}
