//! What the sensors' sessions give cause for, on its way to the analyst; and old logs that a head
//! has no room for.
//!
//! Not here: what is suspicious (`lapwing_server_core::evidence::delivery`). Keys in the state
//! store: `w` and the sensor: what is remembered of its sessions; `f` and an evidence's id: what
//! was found and is not in the feed yet; `l`, sensor, lane and log: an old log.
//!
//! Invariants: a finding is durable before the Hello that showed it is answered; it leaves its row
//! in the batch that puts it into the feed.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use lapwing_protocol::id::{DeploymentId, Lane, LogId, SensorId};
use lapwing_server_core::delivery::RetiredLog;
use lapwing_server_core::evidence::Evidence;
use lapwing_server_core::evidence::delivery::{DeliveryWatch, Subject, Suspicion};
use lapwing_server_core::rows::{self, Row};
use lapwing_store::{RowStore, StoreError};
use smol::channel::Sender;

use crate::analyst::Heard;

/// The first byte of the key of a finding that waits for the feed.
pub(crate) const FOUND: u8 = b'f';
const WATCH: u8 = b'w';
const OLD_LOG: u8 = b'l';
/// Old logs of one lane that are kept: a sensor without a spool makes one at each start, and of 256
/// starts none is likely to come back.
const OLD_LOGS_MAX: usize = 256;

/// What was found of sensors' deliveries, on its way to the analyst.
pub(crate) struct Findings {
    pub(crate) deployment: DeploymentId,
    pub(crate) server_name: String,
    pub(crate) state: RowStore,
    pub(crate) teller: OnceLock<Sender<Heard>>,
}

impl std::fmt::Debug for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Findings").finish_non_exhaustive()
    }
}

impl Findings {
    /// What these suspicions of `sensor` are as evidence.
    pub(crate) fn evidence(
        &self,
        now_ms: u64,
        (sensor, machine): (SensorId, &str),
        suspicions: &[Suspicion],
    ) -> Vec<Evidence> {
        let (deployment, server) = (self.deployment, self.server_name.as_str());
        let subject = Subject { deployment, sensor, machine, server };
        suspicions.iter().map(|suspicion| suspicion.evidence(now_ms, subject)).collect()
    }

    /// The rows that keep them until they are in the feed.
    pub(crate) fn rows(found: &[Evidence]) -> impl Iterator<Item = Row> + '_ {
        found.iter().map(|it| Row { key: key(it), value: Some(it.to_bytes()) })
    }

    /// Hands what is durable to the analyst. One that does not take it finds it at its next start.
    pub(crate) fn tell(&self, found: Vec<Evidence>) {
        for evidence in &found {
            log::warn!("{} ({})", evidence.title, evidence.rule);
        }
        if let Some(teller) = self.teller.get().filter(|_| !found.is_empty()) {
            let _ = teller.try_send(Heard::Found(found));
        }
    }

    /// Keeps and tells what was found where nobody waits for it.
    pub(crate) async fn report(&self, found: Vec<Evidence>) {
        if found.is_empty() {
            return;
        }
        let submitted = self.state.submit(Self::rows(&found).collect());
        let durable = match submitted {
            Ok(committing) => committing.durable().await,
            Err(error) => Err(error),
        };
        match durable {
            Ok(()) => self.tell(found),
            Err(error) => log::error!("a finding cannot be stored: {error}"),
        }
    }
}

/// The key of a finding's row.
pub(crate) fn key(found: &Evidence) -> Vec<u8> {
    let mut key = vec![FOUND];
    key.extend_from_slice(&found.evidence.0);
    key
}

/// The row that keeps what is remembered of a sensor's sessions.
pub(crate) fn watch_row(sensor: SensorId, watch: &DeliveryWatch) -> Row {
    let mut key = vec![WATCH];
    key.extend_from_slice(&sensor.0);
    Row::put(key, watch)
}

/// What is remembered of every sensor's sessions. Blocks.
pub(crate) fn read_watches(
    state: &RowStore,
) -> Result<BTreeMap<SensorId, DeliveryWatch>, StoreError> {
    let rows = state.scan(&[WATCH], &[WATCH + 1])?.into_iter();
    Ok(rows
        .filter_map(|(key, value)| {
            let sensor = SensorId(key.get(1..)?.try_into().ok()?);
            Some((sensor, rows::read(&value).ok()?))
        })
        .collect())
}

fn lane_keys(sensor: SensorId, lane: Lane) -> Vec<u8> {
    let mut key = vec![OLD_LOG];
    key.extend_from_slice(&sensor.0);
    key.push(lane as u8);
    key
}

fn old_log_key(sensor: SensorId, lane: Lane, log: LogId) -> Vec<u8> {
    let mut key = lane_keys(sensor, lane);
    key.extend_from_slice(&log.0);
    key
}

/// Where an old log stands, if it is kept. Blocks.
pub(crate) fn old_log(
    state: &RowStore,
    (sensor, lane, log): (SensorId, Lane, LogId),
) -> Result<Option<RetiredLog>, StoreError> {
    let value = state.get(&old_log_key(sensor, lane, log))?;
    Ok(value.and_then(|value| rows::read::<(u64, RetiredLog)>(&value).ok()).map(|(_, log)| log))
}

/// The rows that keep old logs, and remove the oldest beyond the bound. Blocks.
pub(crate) fn old_log_rows(
    state: &RowStore,
    (now_ms, sensor): (u64, SensorId),
    logs: &[(Lane, RetiredLog)],
) -> Result<Vec<Row>, StoreError> {
    let mut rows = Vec::new();
    for (lane, log) in logs {
        rows.push(Row::put(old_log_key(sensor, *lane, log.log), &(now_ms, *log)));
        let (from, mut to) = (lane_keys(sensor, *lane), lane_keys(sensor, *lane));
        to.extend_from_slice(&[0xff; 17]);
        let kept = state.scan(&from, &to)?;
        if kept.len() >= OLD_LOGS_MAX {
            let age = |value: &[u8]| {
                rows::read::<(u64, RetiredLog)>(value).map_or(0, |(kept_ms, _)| kept_ms)
            };
            let oldest = kept.into_iter().min_by_key(|(_, value)| age(value));
            rows.extend(oldest.map(|(key, _)| Row::remove(key)));
        }
    }
    Ok(rows)
}
