//! Orders: one action on many sensors, numbered and stored before anything is sent.

use std::collections::BTreeSet;
use std::fmt;

use lapwing_protocol::command::Action;
use lapwing_protocol::fleet::{ActionState, BatchResult};
use lapwing_protocol::id::SensorId;
use lapwing_protocol::limits::NAME_BYTES_MAX;

use super::Fleet;
use super::limits::{
    ACTIONS_MAX, EXPIRES_AFTER_MS_DEFAULT, EXPIRES_AFTER_MS_MAX, OPEN_ACTIONS_MAX,
    ORDER_SENSORS_MAX, OUTCOME_GRACE_MS,
};
use super::record::{ActionRecord, BatchRecord, key};
use crate::rows::Row;

/// An order.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// On which sensors; one named twice counts once.
    pub sensors: BTreeSet<SensorId>,
    /// What is to be done.
    pub action: Action,
    /// How long it may wait, in milliseconds; 0 for a day.
    pub expires_after_ms: u64,
    /// Who orders it.
    pub author: &'a str,
}

/// An order that was taken. Store the rows, tell [`Fleet::handle_durable`], then reply.
#[derive(Clone, Debug)]
pub struct Acted {
    /// The batch's number.
    pub batch: u64,
    /// Sensors in it.
    pub sensors: u32,
    /// What to store, in one batch.
    pub rows: Vec<Row>,
}

/// Why an order is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActRefused {
    /// It names no sensor.
    NoSensors,
    /// It names too many.
    TooManySensors,
    /// The author is missing, too long or holds control characters.
    BadAuthor,
    /// It may wait for too long.
    BadExpiry,
    /// Too many actions wait for their outcome already.
    TooManyOpen,
}

impl fmt::Display for ActRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSensors => f.write_str("the order names no sensor; name at least one"),
            Self::TooManySensors => write!(
                f,
                "the order names more than {ORDER_SENSORS_MAX} sensors; order in several batches"
            ),
            Self::BadAuthor => write!(
                f,
                "the author must have 1 to {NAME_BYTES_MAX} bytes without control characters"
            ),
            Self::BadExpiry => f.write_str("an action may wait for 30 days at the most"),
            Self::TooManyOpen => write!(
                f,
                "{OPEN_ACTIONS_MAX} actions wait for their outcome already; wait for some to finish"
            ),
        }
    }
}

impl std::error::Error for ActRefused {}

impl Fleet {
    /// Takes an order and numbers its commands. Nothing of it is put before
    /// [`Self::handle_durable`] says that the rows are stored.
    ///
    /// # Errors
    /// The order is not taken; nothing has changed.
    pub fn act(&mut self, unix_ms: u64, order: &Order<'_>) -> Result<Acted, ActRefused> {
        self.check(order)?;
        let wait_ms = match order.expires_after_ms {
            0 => EXPIRES_AFTER_MS_DEFAULT,
            wait_ms => wait_ms,
        };
        let batch = self.batches.last_key_value().map_or(1, |(last, _)| last + 1);
        let sensors = u32::try_from(order.sensors.len()).unwrap_or(u32::MAX);
        let record = BatchRecord {
            action: order.action,
            author: order.author.to_owned(),
            created_ms: unix_ms,
            expires_ms: unix_ms.saturating_add(wait_ms),
            sensors,
        };
        let mut rows = vec![Row::put(key::batch(batch), &record)];
        self.batches.insert(batch, record);
        self.held.insert(batch);
        for sensor in &order.sensors {
            self.number(unix_ms, batch, *sensor, &mut rows);
        }
        rows.extend(self.forget_finished(sensors as usize));
        Ok(Acted { batch, sensors, rows })
    }

    /// The rows of `batch` are durable: its commands may be put.
    pub fn handle_durable(&mut self, batch: u64) {
        self.held.remove(&batch);
    }

    /// How far a batch is on each of its sensors; `None` for one that is not known (any more).
    pub fn results(&self, batch: u64) -> Option<impl Iterator<Item = BatchResult<'_>>> {
        let action = self.batches.get(&batch)?.action;
        let ids = (batch, SensorId([0; 16]))..=(batch, SensorId([0xff; 16]));
        Some(self.actions.range(ids).map(move |((_, sensor), record)| BatchResult {
            sensor: *sensor,
            action,
            state: record.state,
            detail: &record.detail,
            updated_ms: record.updated_ms,
        }))
    }

    /// Ends the actions whose time is over. Returns the rows to store.
    pub fn handle_time(&mut self, unix_ms: u64) -> Vec<Row> {
        let over: Vec<(SensorId, u64)> = self
            .open
            .iter()
            .filter(|(sensor, seq)| self.is_over(unix_ms, *sensor, *seq))
            .copied()
            .collect();
        let mut rows = Vec::new();
        for (sensor, seq) in over {
            rows.extend(self.change(sensor, seq, |record| {
                record.state = ActionState::Expired;
                record.detail = String::from("its time was over before the sensor answered");
                record.updated_ms = unix_ms;
            }));
        }
        rows
    }

    /// This fleet was restored from a backup: an action that had no outcome then may have run
    /// since, and would run again under this issuer's number. Ends them all. Returns the rows to
    /// store, before the issuer is.
    pub fn close_unsure(&mut self, unix_ms: u64) -> Vec<Row> {
        let open: Vec<(SensorId, u64)> = self.open.iter().copied().collect();
        let closed = open.into_iter().filter_map(|(sensor, seq)| {
            self.change(sensor, seq, |record| {
                record.state = ActionState::Expired;
                record.detail = String::from(
                    "restored from a backup without its outcome: it may have run since; order it \
                     again where it is still wanted",
                );
                record.updated_ms = unix_ms;
            })
        });
        closed.collect()
    }

    fn check(&self, order: &Order<'_>) -> Result<(), ActRefused> {
        let author = order.author;
        let is_author =
            (1..=NAME_BYTES_MAX).contains(&author.len()) && !author.chars().any(char::is_control);
        if order.sensors.is_empty() {
            Err(ActRefused::NoSensors)
        } else if order.sensors.len() > ORDER_SENSORS_MAX {
            Err(ActRefused::TooManySensors)
        } else if !is_author {
            Err(ActRefused::BadAuthor)
        } else if order.expires_after_ms > EXPIRES_AFTER_MS_MAX {
            Err(ActRefused::BadExpiry)
        } else if self.open.len() + order.sensors.len() > OPEN_ACTIONS_MAX {
            Err(ActRefused::TooManyOpen)
        } else {
            Ok(())
        }
    }

    fn number(&mut self, unix_ms: u64, batch: u64, sensor: SensorId, rows: &mut Vec<Row>) {
        let record = match self.sensors.get_mut(&sensor) {
            Some(known) => {
                known.record.last_seq += 1;
                rows.push(Row::put(key::sensor(sensor), &known.record));
                ActionRecord {
                    seq: known.record.last_seq,
                    state: ActionState::Pending,
                    queued_at: None,
                    detail: String::new(),
                    updated_ms: unix_ms,
                }
            }
            None => ActionRecord {
                seq: 0,
                state: ActionState::UnknownSensor,
                queued_at: None,
                detail: String::from("no Detection server ever saw this sensor"),
                updated_ms: unix_ms,
            },
        };
        rows.push(Row::put(key::action(batch, sensor), &record));
        self.index(batch, sensor, &record);
        self.actions.insert((batch, sensor), record);
    }

    /// Forgets the oldest finished batches until the bound holds, at most about as many actions as
    /// were just added, so that the rows fit the same batch.
    fn forget_finished(&mut self, added: usize) -> Vec<Row> {
        let mut rows = Vec::new();
        let oldest: Vec<u64> = self.batches.keys().copied().collect();
        for batch in oldest {
            if self.actions.len() <= ACTIONS_MAX || rows.len() > added {
                break;
            }
            let ids = (batch, SensorId([0; 16]))..=(batch, SensorId([0xff; 16]));
            let actions: Vec<(SensorId, u64)> = self
                .actions
                .range(ids.clone())
                .map(|((_, id), record)| (*id, record.seq))
                .collect();
            if self.actions.range(ids).any(|(_, record)| record.is_open()) {
                continue;
            }
            for (sensor, seq) in actions {
                self.actions.remove(&(batch, sensor));
                self.batch_by_number.remove(&(sensor, seq));
                rows.push(Row::remove(key::action(batch, sensor)));
            }
            self.batches.remove(&batch);
            rows.push(Row::remove(key::batch(batch)));
        }
        rows
    }

    fn is_over(&self, unix_ms: u64, sensor: SensorId, seq: u64) -> bool {
        let Some((record, batch)) = self.action(sensor, seq) else { return false };
        let was_put = record.state == ActionState::Queued || self.was_tried(sensor, seq);
        let grace_ms = if was_put { OUTCOME_GRACE_MS } else { 0 };
        unix_ms >= batch.expires_ms.saturating_add(grace_ms)
    }

    pub(super) fn action(
        &self,
        sensor: SensorId,
        seq: u64,
    ) -> Option<(&ActionRecord, &BatchRecord)> {
        let batch = self.batch_by_number.get(&(sensor, seq))?;
        Some((self.actions.get(&(*batch, sensor))?, self.batches.get(batch)?))
    }

    /// Changes an action and returns its row.
    pub(super) fn change(
        &mut self,
        sensor: SensorId,
        seq: u64,
        change: impl FnOnce(&mut ActionRecord),
    ) -> Option<Row> {
        let batch = *self.batch_by_number.get(&(sensor, seq))?;
        let record = self.actions.get_mut(&(batch, sensor))?;
        change(record);
        let record = record.clone();
        self.index(batch, sensor, &record);
        Some(Row::put(key::action(batch, sensor), &record))
    }
}
