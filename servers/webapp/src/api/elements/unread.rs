//! What servers could not read of their journals, for the last line of an export.

use std::collections::BTreeMap;

use lapwing_protocol::id::SensorId;

use crate::view::Event;

/// Logs that are named one by one; what is beyond is one number.
const LOGS_MAX: usize = 32;

/// Server, sensor, lane, log.
type Place = (String, String, &'static str, String);

/// Entries that could not be read, by where they were stored.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// Their number, and the first of them.
    logs: BTreeMap<Place, (u64, String)>,
    beyond: u64,
}

impl Unread {
    /// Notes `event`, where it stands in the place of what could not be read; says whether.
    pub(super) fn take(&mut self, event: &Event) -> bool {
        if event.op != "damaged" {
            return false;
        }
        let count = event.fields.text("count").parse().unwrap_or(1);
        let (server, sensor) = (event.server.clone(), event.sensor.clone());
        let place = (server, sensor, event.lane, event.log.clone());
        if self.logs.len() >= LOGS_MAX && !self.logs.contains_key(&place) {
            self.beyond += count;
            return true;
        }
        let first = || (0, event.fields.text("commit"));
        self.logs.entry(place).or_insert_with(first).0 += count;
        true
    }

    /// What was noted, in words.
    pub(super) fn words(&self) -> impl Iterator<Item = String> + '_ {
        let unknown = SensorId([0; 16]).to_string();
        let logs = self.logs.iter().map(move |((server, sensor, lane, log), (count, first))| {
            let of = if *sensor == unknown {
                String::from("of an unknown sensor")
            } else {
                format!("of sensor {sensor}, lane {lane}, log {log}")
            };
            let entries = if *count == 1 { "entry" } else { "entries" };
            format!("{server}: {count} {entries} {of} cannot be read, the first is entry {first}")
        });
        let beyond = (self.beyond > 0)
            .then(|| format!("{} more entries of other logs cannot be read", self.beyond));
        logs.chain(beyond)
    }
}
