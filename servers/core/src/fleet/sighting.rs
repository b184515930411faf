//! What Detection servers say of their sensors, merged into one view.

use lapwing_protocol::console::{HealthView, SensorView};
use lapwing_protocol::id::{SensorId, ServerId};
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::NAME_BYTES_MAX;

use super::limits::{HEALTH_BYTES_MAX, SEEN_STORED_EVERY_MS, SENSORS_MAX};
use super::record::{Collection, SensorRecord, key};
use super::{Fleet, Sensor};
use crate::rows::Row;

/// What one server says of a sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) connected: bool,
    pub(super) last_seen_ms: u64,
    /// Encoded `HealthView`s.
    pub(super) health: Vec<u8>,
}

impl Fleet {
    /// The whole answer of `server` to the question for its sensors; `now_ms` is monotonic. A
    /// sensor that is no longer in it is no longer at that server. Returns the rows to store, and
    /// how many sensors found no room.
    pub fn handle_sensors<'a>(
        &mut self,
        now_ms: u64,
        server: ServerId,
        name: &str,
        views: impl Iterator<Item = SensorView<'a>>,
    ) -> (Vec<Row>, usize) {
        let polled = self.server_mut(server);
        polled.name = cut(name, NAME_BYTES_MAX);
        polled.polled_ms = Some(now_ms);
        for sensor in self.sensors.values_mut() {
            sensor.sightings.remove(&server);
        }
        let mut rows = Vec::new();
        let mut without_room = 0;
        for view in views {
            if !self.sensors.contains_key(&view.sensor) && self.sensors.len() >= SENSORS_MAX {
                without_room += 1;
                continue;
            }
            rows.extend(self.sighted(now_ms, server, &view));
        }
        (rows, without_room)
    }

    /// The name of `server`, before it answered for the first time.
    pub fn name_server(&mut self, server: ServerId, name: &str) {
        self.server_mut(server).name = cut(name, NAME_BYTES_MAX);
    }

    fn sighted(&mut self, now_ms: u64, server: ServerId, view: &SensorView<'_>) -> Option<Row> {
        let seen = Sighting {
            connected: view.connected,
            last_seen_ms: view.last_seen_ms,
            health: kept_health(view.health),
        };
        let mut is_new = false;
        let sensor = self.sensors.entry(view.sensor).or_insert_with(|| {
            is_new = true;
            Sensor { record: first_record(server, view), sightings: Default::default() }
        });
        sensor.sightings.insert(server, seen);
        let sensor = self.sensors.get(&view.sensor)?;
        let is_best = self.best(now_ms, sensor).is_some_and(|(best, _)| best == server);
        let mut record = sensor.record.clone();
        record.first_seen_ms = record.first_seen_ms.min(view.first_seen_ms);
        if is_best {
            record.name = cut(view.name, NAME_BYTES_MAX);
            record.os = cut(view.os, NAME_BYTES_MAX);
            record.agent = cut(view.agent, NAME_BYTES_MAX);
            record.server = server;
            record.collection.note_said(view.session_epoch, view.collecting);
            let behind_ms = view.last_seen_ms.saturating_sub(record.last_seen_ms);
            if behind_ms >= SEEN_STORED_EVERY_MS || !view.connected {
                record.last_seen_ms = record.last_seen_ms.max(view.last_seen_ms);
            }
        }
        if !is_new && record == sensor.record {
            return None;
        }
        let row = Row::put(key::sensor(view.sensor), &record);
        self.sensors.get_mut(&view.sensor)?.record = record;
        Some(row)
    }

    /// Puts a sensor aside, or takes it back. Returns the row to store; none where nothing changes
    /// or nobody knows the sensor.
    pub fn archive(&mut self, sensor: SensorId, archived: bool) -> Option<Row> {
        let known = self.sensors.get_mut(&sensor)?;
        if known.record.archived == archived {
            return None;
        }
        known.record.archived = archived;
        Some(Row::put(key::sensor(sensor), &known.record))
    }
}

fn first_record(server: ServerId, view: &SensorView<'_>) -> SensorRecord {
    SensorRecord {
        name: cut(view.name, NAME_BYTES_MAX),
        os: cut(view.os, NAME_BYTES_MAX),
        agent: cut(view.agent, NAME_BYTES_MAX),
        server,
        first_seen_ms: view.first_seen_ms,
        last_seen_ms: view.last_seen_ms,
        collection: Collection::default(),
        archived: false,
        last_seq: 0,
    }
}

/// As many whole parts as fit.
fn kept_health(health: Items<'_, HealthView<'_>>) -> Vec<u8> {
    let mut kept = Vec::new();
    for part in health.iter().map_while(Result::ok) {
        match postcard::to_extend(&part, Vec::new()) {
            Ok(bytes) if kept.len() + bytes.len() <= HEALTH_BYTES_MAX => kept.extend(bytes),
            Ok(_) | Err(_) => break,
        }
    }
    kept
}

/// The text, cut to at most `bytes_max` bytes.
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}
