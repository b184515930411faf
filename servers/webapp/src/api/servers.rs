//! Servers, updates and the ledger.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use lapwing_protocol::id::SensorId;
use lapwing_protocol::registration::ServerSetting;
use lapwing_protocol::supervision::ChildWish;
use serde::Deserialize;
use serde_json::{Value, json};

use super::params::{Body, Params};
use crate::backend::{BackendError, Verification};
use crate::view::{ServerLine, UpdateLine};
use crate::web::{ApiActor, ApiError, App};

/// `GET /servers`.
pub(super) async fn list(_: ApiActor, State(app): State<App>) -> Json<Vec<ServerLine>> {
    Json(app.servers().await)
}

/// What is to be done with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerAction {
    /// Asked of Registration.
    Setting(ServerSetting),
    /// Asked of the supervisor.
    Wish(ChildWish),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActionBody {
    action: String,
    #[serde(default)]
    capacity: Option<u32>,
    #[serde(default)]
    kill: bool,
}

/// `POST /servers/NAME/actions`.
pub(super) async fn act(
    actor: ApiActor,
    State(app): State<App>,
    Path(name): Path<String>,
    Body(body): Body<ActionBody>,
) -> Result<Json<Value>, ApiError> {
    let action = match (body.action.as_str(), body.capacity) {
        ("set", Some(capacity)) => ServerAction::Setting(ServerSetting::Capacity(capacity)),
        ("set", None) => return Err(ApiError::bad("`set` needs a capacity")),
        (other, _) => parse(other, body.kill)
            .ok_or_else(|| ApiError::bad(format!("{other:?} is no action of a server")))?,
    };
    act_on(&app, &actor, &name, action, &body.action).await?;
    Ok(Json(json!({ "name": name, "action": body.action })))
}

/// The action of that name.
pub(crate) fn parse(name: &str, kill: bool) -> Option<ServerAction> {
    match name {
        "drain" => Some(ServerAction::Setting(ServerSetting::Drain)),
        "undrain" => Some(ServerAction::Setting(ServerSetting::Undrain)),
        "stop" if kill => Some(ServerAction::Wish(ChildWish::Kill)),
        "stop" => Some(ServerAction::Wish(ChildWish::Stop)),
        "start" => Some(ServerAction::Wish(ChildWish::Start)),
        _ => None,
    }
}

/// Does it and audits it.
pub(crate) async fn act_on(
    app: &App,
    actor: &ApiActor,
    name: &str,
    action: ServerAction,
    word: &str,
) -> Result<(), ApiError> {
    let is_known = app.servers().await.iter().any(|server| server.name == name);
    if !is_known {
        return Err(ApiError::not_found("server"));
    }
    let done = match action {
        ServerAction::Setting(change) => app.backend.change_server(name, change).await,
        ServerAction::Wish(wish) => app.backend.change_child(name, wish).await,
    };
    let outcome = done.as_ref().map_or_else(BackendError::to_string, |()| String::from("ok"));
    app.audit(&actor.name, actor.source, &format!("server {word}"), name, &outcome).await;
    Ok(done?)
}

/// `GET /updates`.
pub(super) async fn updates(
    _: ApiActor,
    State(app): State<App>,
) -> Result<Json<Vec<UpdateLine>>, ApiError> {
    Ok(Json(app.backend.updates().await?))
}

/// `GET /ledger?sensor=ID`: as the servers keep it.
pub(super) async fn ledger(
    _: ApiActor,
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let sensor = params.parsed::<SensorId>("sensor")?;
    let (lines, failures) = app.backend.ledger(sensor).await?;
    Ok(with_missing(Json(lines).into_response(), &failures))
}

/// How long a request may wait for a scan, in milliseconds.
const SCAN_WAIT_MS_MAX: u32 = 20_000;

/// `GET /ledger/verify?scan=SCAN&wait_ms=MS`: has the journals read, and says how far that is.
pub(super) async fn verify(
    _: ApiActor,
    State(app): State<App>,
    params: Params,
) -> Result<Json<Verification>, ApiError> {
    let wait_ms = params.number("wait_ms", 0, SCAN_WAIT_MS_MAX)?;
    Ok(Json(app.backend.verify(params.text("scan").unwrap_or_default(), wait_ms).await?))
}

/// Says in a header what is missing of a list, so that the list stays a list.
pub(super) fn with_missing(mut response: Response, failures: &[BackendError]) -> Response {
    if failures.is_empty() {
        return response;
    }
    let text: Vec<String> = failures.iter().map(BackendError::to_string).collect();
    let text: String = text.join("; ").chars().map(header_sign).collect();
    let value = HeaderValue::from_str(&text);
    let value = value.unwrap_or(HeaderValue::from_static("something is missing"));
    response.headers_mut().insert(HeaderName::from_static("lapwing-partial"), value);
    response
}

fn header_sign(sign: char) -> char {
    if sign.is_ascii_graphic() || sign == ' ' { sign } else { '?' }
}
