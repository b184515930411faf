//! Questions to sensor management.

use lapwing_net::peer::to_body;
use lapwing_protocol::call::Method;
use lapwing_protocol::command::Action;
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::fleet::{
    ActionState, BatchQuery, BatchResult, FleetAction, FleetBatch, FleetSensor,
};
use lapwing_protocol::id::SensorId;
use lapwing_protocol::items::Items;
use serde::Serialize;

use super::{Backend, BackendError, Peer};
use crate::view::{Sensor, Time, owned};

/// How far an action is on one sensor.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BatchLine {
    pub(crate) sensor: String,
    pub(crate) action: &'static str,
    /// pending, queued, expired, unknown_sensor, or the outcome's name.
    pub(crate) state: &'static str,
    /// Whether nothing more will happen.
    pub(crate) finished: bool,
    pub(crate) detail: String,
    pub(crate) updated: Time,
}

impl From<BatchResult<'_>> for BatchLine {
    fn from(result: BatchResult<'_>) -> Self {
        let (state, finished) = match result.state {
            ActionState::Pending => ("pending", false),
            ActionState::Queued => ("queued", false),
            ActionState::Expired => ("expired", true),
            ActionState::Finished(outcome) => (outcome.name(), true),
            ActionState::UnknownSensor => ("unknown_sensor", true),
        };
        Self {
            sensor: result.sensor.to_string(),
            action: result.action.name(),
            state,
            finished,
            detail: result.detail.to_owned(),
            updated: Time::from_ms(result.updated_ms),
        }
    }
}

impl Backend {
    /// Every sensor, by name.
    pub(crate) async fn sensors(&self) -> Result<Vec<Sensor>, BackendError> {
        let time = crate::limits::CALL_TIME;
        let mut sensors = self
            .ask_bytes(Peer::Fleet, Method::FLEET_SENSORS, Vec::new(), time, |reply| {
                owned(&Items::<FleetSensor<'_>>::from_bytes(reply), Sensor::try_from)
            })
            .await?;
        sensors.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
        Ok(sensors)
    }

    /// Has an action done on sensors; the batch's number.
    pub(crate) async fn act_on_sensors(
        &self,
        sensors: &[SensorId],
        action: Action,
        expires_after_ms: u64,
        author: &str,
    ) -> Result<u64, BackendError> {
        let mut list = Vec::with_capacity(sensors.len() * 16);
        for sensor in sensors {
            let body =
                to_body(sensor).map_err(|failure| BackendError::new(failure.code, failure.text))?;
            list.extend(body);
        }
        let sensors = Items::from_bytes(&list);
        let request = FleetAction { sensors, action, expires_after_ms, author };
        self.ask(Peer::Fleet, Method::FLEET_ACTION, &request, |reply| {
            from_bytes::<FleetBatch>(reply).map(|batch| batch.batch)
        })
        .await
    }

    /// How far a batch is.
    pub(crate) async fn batch(&self, batch: u64) -> Result<Vec<BatchLine>, BackendError> {
        self.ask(Peer::Fleet, Method::FLEET_BATCH, &BatchQuery { batch }, |reply| {
            owned(&Items::<BatchResult<'_>>::from_bytes(reply), |result| {
                Ok(BatchLine::from(result))
            })
        })
        .await
    }
}
