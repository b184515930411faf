//! Sensors, actions on them, and tags of their machines.

use axum::Json;
use axum::extract::{Path, State};
use lapwing_protocol::command::Action;
use lapwing_protocol::id::SensorId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::params::{Body, Params, bounded};
use crate::backend::BatchLine;
use crate::view::{Sensor, TagLine};
use crate::web::{ApiActor, ApiError, App};

/// How long an action may wait for its sensor, unless the request says otherwise: one hour.
pub(crate) const EXPIRES_MS: u64 = 3_600_000;

/// `GET /sensors`.
pub(super) async fn list(
    _: ApiActor,
    State(app): State<App>,
) -> Result<Json<Vec<Sensor>>, ApiError> {
    Ok(Json(app.backend.sensors().await?))
}

/// `GET /sensors/ID`: by id, or by the machine's name where that is unique.
pub(super) async fn show(
    _: ApiActor,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let sensor = find(&app, &id).await?;
    let tags = match sensor.id.parse::<SensorId>() {
        Ok(id) => app.backend.tags(Some(id)).await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let mut shown = serde_json::to_value(&sensor).unwrap_or_default();
    if let Value::Object(fields) = &mut shown {
        fields.insert(String::from("tags"), json!(tags));
    }
    Ok(Json(shown))
}

/// The sensor of that id or name.
pub(crate) async fn find(app: &App, id: &str) -> Result<Sensor, ApiError> {
    let sensors = app.backend.sensors().await?;
    if let Some(sensor) = sensors.iter().find(|sensor| sensor.id == id) {
        return Ok(sensor.clone());
    }
    let mut named = sensors.iter().filter(|sensor| sensor.name == id);
    match (named.next(), named.next()) {
        (Some(sensor), None) => Ok(sensor.clone()),
        (Some(_), Some(_)) => {
            Err(ApiError::bad(format!("several machines are called {id:?}; use the sensor's id")))
        }
        (None, _) => Err(ApiError::not_found("sensor")),
    }
}

/// An action on a sensor.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActionBody {
    action: String,
    expires_after_ms: Option<u64>,
}

/// `POST /sensors/ID/actions`: `{action}` becomes a batch of one.
pub(super) async fn act(
    actor: ApiActor,
    State(app): State<App>,
    Path(id): Path<String>,
    Body(body): Body<ActionBody>,
) -> Result<Json<Value>, ApiError> {
    let action = match body.action.as_str() {
        "start_collection" => Action::StartCollection,
        "stop_collection" => Action::StopCollection,
        other => {
            let known = "start_collection and stop_collection";
            return Err(ApiError::bad(format!("{other:?} is no action; there are {known}")));
        }
    };
    let sensor = find(&app, &id).await?;
    let expires_ms = body.expires_after_ms.unwrap_or(EXPIRES_MS);
    let batch = act_on(&app, &actor, &sensor, action, expires_ms).await?;
    Ok(Json(json!({ "batch": batch, "sensor": sensor.id, "action": action.name() })))
}

/// Has an action done on one sensor and audits it; the batch's number.
pub(crate) async fn act_on(
    app: &App,
    actor: &ApiActor,
    sensor: &Sensor,
    action: Action,
    expires_ms: u64,
) -> Result<u64, ApiError> {
    let id = sensor.id.parse::<SensorId>().map_err(|_| ApiError::not_found("sensor"))?;
    let done = app.backend.act_on_sensors(&[id], action, expires_ms, &actor.name).await;
    let outcome = match &done {
        Ok(batch) => format!("batch {batch}"),
        Err(error) => error.to_string(),
    };
    app.audit(&actor.name, actor.source, action.name(), &sensor.id, &outcome).await;
    Ok(done?)
}

/// `GET /batches/BATCH`.
pub(super) async fn batch(
    _: ApiActor,
    State(app): State<App>,
    Path(batch): Path<u64>,
) -> Result<Json<Vec<BatchLine>>, ApiError> {
    Ok(Json(app.backend.batch(batch).await?))
}

/// `GET /tags?sensor=`.
pub(super) async fn tags(
    _: ApiActor,
    State(app): State<App>,
    params: Params,
) -> Result<Json<Vec<TagLine>>, ApiError> {
    let sensor = match params.text("sensor") {
        Some(id) => find(&app, id).await?.id.parse().ok(),
        None => None,
    };
    Ok(Json(app.backend.tags(sensor).await?))
}

/// A tag; without a value it is taken off.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TagBody {
    sensor: String,
    name: String,
    value: Option<String>,
}

/// `PUT /tags`.
pub(super) async fn set_tag(
    actor: ApiActor,
    State(app): State<App>,
    Body(body): Body<TagBody>,
) -> Result<Json<Value>, ApiError> {
    let sensor = find(&app, &body.sensor).await?;
    let id = sensor.id.parse::<SensorId>().map_err(|_| ApiError::not_found("sensor"))?;
    let name = bounded("name", &body.name)?;
    let value = body.value.as_deref().map(|value| bounded("value", value)).transpose()?;
    app.backend.set_tag(id, name, value, &actor.name).await?;
    let outcome = value.unwrap_or("(taken off)");
    app.audit(&actor.name, actor.source, &format!("tag {name}"), &sensor.id, outcome).await;
    Ok(Json(json!({ "sensor": sensor.id, "name": name, "value": value })))
}
