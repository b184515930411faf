//! The mirror of a sensor's table, by slot, and the keyframe that replaces it.

use std::collections::BTreeMap;
use std::sync::Arc;

use lapwing_protocol::digest;
use lapwing_protocol::element::{Feature, Kind, Role, Scope, write_key};
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::id::{BootId, ElementGuid};
use lapwing_protocol::limits::{KEY_BYTES_MAX, ROW_BYTES_MAX};
use lapwing_protocol::row::bit;
use lapwing_protocol::varint::Writer;

use super::LogContext;
use super::fields::Written;
use super::limits::ROW_OVERHEAD_BYTES;
use crate::change::{KindModel, OwnedValue};

/// What an element's id is derived with: whose log, which boot.
pub(super) type IdScope<'a> = (&'a LogContext, BootId);

/// A field whose references are resolved to kind and key.
pub(super) type ResolvedField = (Feature, Resolved);

/// A value whose references are resolved to kind and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    /// Any value but a reference.
    Plain(OwnedValue),
    /// A reference.
    Key(u16, Arc<[u8]>),
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) guid: ElementGuid,
    pub(super) model: Arc<KindModel>,
    pub(super) fields: Vec<ResolvedField>,
    key: Arc<[u8]>,
    digest: u64,
    /// What it is counted with.
    bytes: usize,
}

/// What a keyframe changed.
#[derive(Debug, Default)]
pub(super) struct Swap {
    /// Rows that are new or other than before, with the time of their Put.
    pub(super) restated: Vec<(u64, Row)>,
    /// Rows that are there no more.
    pub(super) gone: Vec<Row>,
}

#[derive(Debug)]
struct KeyframeRow {
    model: Arc<KindModel>,
    time_ns: u64,
    written: Vec<(Feature, Written)>,
}

/// The rows of a sensor, by slot.
#[derive(Debug)]
pub(super) struct Table {
    bytes_max: usize,
    rows: BTreeMap<u32, Row>,
    /// What the rows are counted with.
    bytes: usize,
    digest: u64,
    keyframe: Option<BTreeMap<u32, KeyframeRow>>,
    keyframe_bytes: usize,
    /// What each slot held before the current chunk changed it, oldest first.
    undo: Vec<(u32, Option<Row>)>,
}

impl Table {
    /// An empty table of at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            rows: BTreeMap::new(),
            bytes: 0,
            digest: 0,
            keyframe: None,
            keyframe_bytes: 0,
            undo: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether a keyframe is under way.
    pub(super) fn is_midway(&self) -> bool {
        self.keyframe.is_some()
    }

    pub(super) fn begin_keyframe(&mut self) {
        self.keyframe = Some(BTreeMap::new());
        self.keyframe_bytes = 0;
    }

    pub(super) fn abandon_keyframe(&mut self) {
        self.keyframe = None;
    }

    pub(super) fn put_keyframe(
        &mut self,
        slot: u32,
        model: Arc<KindModel>,
        time_ns: u64,
        written: Vec<(Feature, Written)>,
    ) -> Result<(), DecodeError> {
        let rows = self.keyframe.as_mut().ok_or(DecodeError::Shape)?;
        self.keyframe_bytes += written_bytes(&written);
        if self.keyframe_bytes > self.bytes_max {
            return Err(DecodeError::Limit);
        }
        match rows.insert(slot, KeyframeRow { model, time_ns, written }) {
            None => Ok(()),
            Some(_) => Err(DecodeError::Shape),
        }
    }

    /// The current chunk is whole: what it changed stays.
    pub(super) fn keep(&mut self) {
        self.undo.clear();
    }

    /// The current chunk is not whole: takes back what it changed, so that the table holds what its
    /// reader was told and nothing else.
    pub(super) fn take_back(&mut self) {
        while let Some((slot, before)) = self.undo.pop() {
            self.set(slot, before);
        }
    }

    /// Puts `row`, or nothing, into `slot` and answers with what was there.
    fn set(&mut self, slot: u32, row: Option<Row>) -> Option<Row> {
        let added = row.as_ref().map_or(0, |row| row.digest);
        self.bytes += row.as_ref().map_or(0, |row| row.bytes);
        let before = match row {
            Some(row) => self.rows.insert(slot, row),
            None => self.rows.remove(&slot),
        };
        let removed = before.as_ref().map_or(0, |row| row.digest);
        self.bytes -= before.as_ref().map_or(0, |row| row.bytes);
        self.digest = self.digest.wrapping_add(added).wrapping_sub(removed);
        before
    }

    /// Replaces the table by the keyframe's; after an error the table is as it was. This cannot be
    /// taken back, so nothing of the chunk may follow.
    pub(super) fn end_keyframe(&mut self, scope: IdScope<'_>) -> Result<Swap, DecodeError> {
        let keyframe = self.keyframe.take().ok_or(DecodeError::Shape)?;
        // A row may refer to one in a later slot, so keys come first and references after.
        let mut keys = BTreeMap::new();
        for (slot, row) in &keyframe {
            let plain = row.written.iter().filter_map(|(feature, value)| match value {
                Written::Plain(value) => Some((*feature, value)),
                Written::Slot(_) | Written::Key(..) => None,
            });
            keys.insert(*slot, (row.model.kind.0, key_of(&row.model, plain)?));
        }
        let mut stated = Vec::with_capacity(keyframe.len());
        let mut bytes = 0;
        for (slot, row) in keyframe {
            let fields = resolve(row.written, |slot| keys.get(&slot).cloned())?;
            let row_of = (slot, row.time_ns, Row::new(row.model, fields, scope)?);
            bytes += row_of.2.bytes;
            if bytes > self.bytes_max {
                return Err(DecodeError::Limit);
            }
            stated.push(row_of);
        }
        let mut before: BTreeMap<ElementGuid, Row> =
            std::mem::take(&mut self.rows).into_values().map(|row| (row.guid, row)).collect();
        (self.digest, self.bytes) = (0, 0);
        self.undo.clear();
        let mut swap = Swap::default();
        for (slot, time_ns, row) in stated {
            match before.remove(&row.guid) {
                Some(held) if held.fields == row.fields => {}
                _ => swap.restated.push((time_ns, row.clone())),
            }
            self.set(slot, Some(row));
        }
        swap.gone = before.into_values().collect();
        Ok(swap)
    }

    /// Turns references to slots into kind and key.
    pub(super) fn resolve(
        &self,
        written: Vec<(Feature, Written)>,
    ) -> Result<Vec<ResolvedField>, DecodeError> {
        resolve(written, |slot| {
            self.rows.get(&slot).map(|row| (row.model.kind.0, Arc::clone(&row.key)))
        })
    }

    /// Puts a row into `slot`; answers with it, and with the row of another element that had the
    /// slot and has none now.
    pub(super) fn put(
        &mut self,
        slot: u32,
        model: Arc<KindModel>,
        fields: Vec<ResolvedField>,
        scope: IdScope<'_>,
    ) -> Result<(Row, Option<Row>), DecodeError> {
        let row = Row::new(model, fields, scope)?;
        let held = self.rows.get(&slot).map_or(0, |held| held.bytes);
        if self.bytes - held + row.bytes > self.bytes_max {
            return Err(DecodeError::Limit);
        }
        let before = self.set(slot, Some(row.clone()));
        let displaced = before.as_ref().filter(|before| before.guid != row.guid).cloned();
        self.undo.push((slot, before));
        Ok((row, displaced))
    }

    pub(super) fn patch(
        &mut self,
        slot: u32,
        model: &KindModel,
        fields: &[ResolvedField],
        scope: IdScope<'_>,
    ) -> Result<Row, DecodeError> {
        let held = self.rows.get(&slot).ok_or(DecodeError::EmptySlot)?;
        if held.model.kind != model.kind {
            return Err(DecodeError::Shape);
        }
        let mut merged: BTreeMap<Feature, Resolved> = held.fields.iter().cloned().collect();
        merged.extend(fields.iter().cloned());
        let model = Arc::clone(&held.model);
        self.put(slot, model, merged.into_iter().collect(), scope).map(|(row, _)| row)
    }

    /// Takes the row in `slot`; a self-contained chunk names it by its key as well.
    pub(super) fn remove(
        &mut self,
        slot: u32,
        model: &Arc<KindModel>,
        fields: &[ResolvedField],
        scope: IdScope<'_>,
    ) -> Result<Row, DecodeError> {
        match self.rows.get(&slot) {
            Some(row) if row.model.kind == model.kind => {
                self.take(slot).ok_or(DecodeError::EmptySlot)
            }
            Some(_) => Err(DecodeError::Shape),
            // The row is not here, but its key says which element ended.
            None => Row::new(Arc::clone(model), fields.to_vec(), scope)
                .map_err(|_| DecodeError::EmptySlot),
        }
    }

    pub(super) fn take(&mut self, slot: u32) -> Option<Row> {
        let row = self.set(slot, None)?;
        self.undo.push((slot, Some(row.clone())));
        Some(row)
    }
}

impl Row {
    /// A row by what it says alone.
    pub(super) fn new(
        model: Arc<KindModel>,
        fields: Vec<ResolvedField>,
        scope: IdScope<'_>,
    ) -> Result<Self, DecodeError> {
        let plain = fields.iter().filter_map(|(feature, value)| match value {
            Resolved::Plain(value) => Some((*feature, value)),
            Resolved::Key(..) => None,
        });
        let key = key_of(&model, plain)?;
        let guid = guid_of(model.kind, model.scope, &key, scope);
        let digest = canonical(&fields, |row| digest::row_digest(scope.0.log, model.kind, row))?;
        let bytes =
            ROW_OVERHEAD_BYTES + key.len() + fields.iter().map(resolved_bytes).sum::<usize>();
        Ok(Self { guid, model, fields, key, digest, bytes })
    }
}

/// What a field is counted with; text that it shares with others counts in full.
fn resolved_bytes((_, value): &ResolvedField) -> usize {
    let text = match value {
        Resolved::Plain(value) => value.text_bytes(),
        Resolved::Key(_, key) => key.len(),
    };
    size_of::<ResolvedField>() + text
}

/// What a row of a keyframe is counted with before its references are resolved.
fn written_bytes(written: &[(Feature, Written)]) -> usize {
    let field = |(_, value): &(Feature, Written)| {
        let text = match value {
            Written::Plain(value) => value.text_bytes(),
            Written::Slot(_) => 0,
            Written::Key(_, key) => key.len(),
        };
        size_of::<(Feature, Written)>() + text
    };
    ROW_OVERHEAD_BYTES + written.iter().map(field).sum::<usize>()
}

fn resolve(
    written: Vec<(Feature, Written)>,
    key_in: impl Fn(u32) -> Option<(u16, Arc<[u8]>)>,
) -> Result<Vec<ResolvedField>, DecodeError> {
    let resolved = written.into_iter().map(|(feature, value)| {
        let value = match value {
            Written::Plain(value) => Resolved::Plain(value),
            Written::Key(kind, key) => Resolved::Key(kind, key),
            Written::Slot(slot) => {
                let (kind, key) = key_in(slot).ok_or(DecodeError::EmptySlot)?;
                Resolved::Key(kind, key)
            }
        };
        Ok((feature, value))
    });
    resolved.collect()
}

/// The owned values of resolved fields: a reference becomes the id of its element.
///
/// A reference to a kind that is not built in is taken to be unique on its machine.
pub(super) fn owned(fields: &[ResolvedField], scope: IdScope<'_>) -> Vec<(Feature, OwnedValue)> {
    let value = |value: &Resolved| match value {
        Resolved::Plain(value) => value.clone(),
        Resolved::Key(kind, key) => {
            let kind = Kind(*kind);
            let spec = lapwing_protocol::element::kind(kind);
            let reach = spec.map_or(Scope::Machine, |spec| spec.scope);
            OwnedValue::Element(guid_of(kind, reach, key, scope))
        }
    };
    fields.iter().map(|(feature, resolved)| (*feature, value(resolved))).collect()
}

fn guid_of(kind: Kind, reach: Scope, key: &[u8], scope: IdScope<'_>) -> ElementGuid {
    let boot = (reach == Scope::Boot).then_some(scope.1);
    digest::element_guid(scope.0.deployment, scope.0.sensor, (kind, boot), key)
}

/// The id of an event.
pub(super) fn event_guid(
    model: &KindModel,
    time_ns: u64,
    fields: &[ResolvedField],
    (context, boot): IdScope<'_>,
) -> ElementGuid {
    let event = (model.kind, boot, time_ns);
    let id = |row: &[u8]| digest::event_guid(context.deployment, context.sensor, event, row);
    // A row beyond its bound has no canonical form; its time tells it apart all the same.
    canonical(fields, id).unwrap_or_else(|_| id(&[]))
}

fn key_of<'f>(
    model: &KindModel,
    fields: impl Iterator<Item = (Feature, &'f OwnedValue)> + Clone,
) -> Result<Arc<[u8]>, DecodeError> {
    let mut values = Vec::new();
    for key in model.features.iter().filter(|feature| feature.role == Role::Key) {
        let found = fields.clone().find(|(feature, _)| *feature == key.feature);
        values.push(found.ok_or(DecodeError::Shape)?.1);
    }
    let mut buffer = [0; KEY_BYTES_MAX];
    let values: Vec<_> = values.into_iter().filter_map(borrowed).collect();
    write_key(&values, &mut buffer).map(Into::into).map_err(|_| DecodeError::Limit)
}

/// Hands the canonical row of `fields` to `use_row`.
fn canonical<T>(
    fields: &[ResolvedField],
    use_row: impl FnOnce(&[u8]) -> T,
) -> Result<T, DecodeError> {
    let mut buffer = [0; ROW_BYTES_MAX];
    let mut writer = Writer::new(&mut buffer);
    let mut write = || {
        writer.unsigned(fields.iter().fold(0, |bits, (feature, _)| bits | bit(*feature)))?;
        for (_, value) in fields {
            match value {
                Resolved::Plain(value) => {
                    if let Some(value) = borrowed(value) {
                        lapwing_protocol::element::write_value(&mut writer, value)?;
                    }
                }
                Resolved::Key(kind, key) => {
                    writer.unsigned(u64::from(*kind))?;
                    writer.sized(key)?;
                }
            }
        }
        Ok::<_, lapwing_protocol::error::BufferFull>(())
    };
    write().map_err(|_| DecodeError::Limit)?;
    Ok(use_row(writer.written()))
}

/// The protocol's twin of a plain value.
fn borrowed(value: &OwnedValue) -> Option<lapwing_protocol::element::Value<'_>> {
    use lapwing_protocol::element::Value;
    Some(match value {
        OwnedValue::U64(value) => Value::U64(*value),
        OwnedValue::I64(value) => Value::I64(*value),
        OwnedValue::Bool(value) => Value::Bool(*value),
        OwnedValue::Bytes(bytes) => Value::Bytes(bytes),
        OwnedValue::Text(bytes) => Value::Text(bytes),
        OwnedValue::Ip(address) => Value::Ip(*address),
        OwnedValue::Hash(bytes) => Value::Hash(bytes),
        OwnedValue::Time(time) => Value::Time(*time),
        OwnedValue::Element(_) => return None,
    })
}
