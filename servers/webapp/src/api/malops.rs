//! MalOps, suspicions and malware alerts.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use lapwing_protocol::id::MalOpId;
use lapwing_protocol::limits::{FEED_PAGE_MAX, FEED_WAIT_MS_MAX};
use lapwing_protocol::malop::MalOpStatus;
use serde::Deserialize;
use serde_json::{Value, json};

use super::params::{Body, Id, Params, bounded};
use super::servers::with_missing;
use crate::backend::{BackendError, MalOpCursor};
use crate::limits::{MALOPS_MAX, PAGE_MAX};
use crate::view::{Evidence, MalOp, MalOpDetail, parse_status};
use crate::web::{ApiActor, ApiError, App};

/// `GET /malops?status=&limit=&evidence=`.
pub(super) async fn list(
    _: ApiActor,
    State(app): State<App>,
    params: Params,
) -> Result<Json<Vec<MalOp>>, ApiError> {
    let status = params.text("status").map(status).transpose()?;
    let limit = params.number("limit", 100, MALOPS_MAX)?;
    let malops = if params.is_set("evidence") {
        app.backend.malops_with_evidence(status, limit).await?
    } else {
        app.backend.malops(status, limit).await?
    };
    Ok(Json(malops))
}

/// `GET /malops/changes?incarnation=&cursor=&wait_ms=`: the changes from a cursor on. Each MalOp
/// comes with its evidence, as it is now.
pub(super) async fn changes(
    _: ApiActor,
    State(app): State<App>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let from = MalOpCursor {
        incarnation: params.parsed("incarnation")?,
        cursor: params.parsed("cursor")?.unwrap_or(0),
    };
    let wait_ms = params.number("wait_ms", 0, FEED_WAIT_MS_MAX)?;
    let (malops, next) = app.backend.malop_changes(from, FEED_PAGE_MAX, wait_ms).await?;
    let mut filled = Vec::with_capacity(malops.len());
    for malop in malops {
        let id = malop.id.parse::<MalOpId>().map_err(|_| ApiError::not_found("MalOp"))?;
        filled.push(app.backend.malop(id).await.map_or(malop, |detail| detail.malop));
    }
    let incarnation = next.incarnation.map(|incarnation| incarnation.to_string());
    Ok(Json(json!({ "incarnation": incarnation, "cursor": next.cursor, "malops": filled })))
}

/// `GET /malops/ID`.
pub(super) async fn show(
    _: ApiActor,
    State(app): State<App>,
    Id(id): Id<MalOpId>,
) -> Result<Json<MalOpDetail>, ApiError> {
    Ok(Json(app.backend.malop(id).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StatusBody {
    status: String,
}

/// `POST /malops/ID/status`.
pub(super) async fn set_status(
    actor: ApiActor,
    State(app): State<App>,
    Id(id): Id<MalOpId>,
    Body(body): Body<StatusBody>,
) -> Result<Json<Value>, ApiError> {
    let status = status(&body.status)?;
    change_status(&app, &actor, id, status).await?;
    Ok(Json(json!({ "id": id.to_string(), "status": status.name() })))
}

/// Moves a MalOp on and audits it.
pub(crate) async fn change_status(
    app: &App,
    actor: &ApiActor,
    id: MalOpId,
    status: MalOpStatus,
) -> Result<(), ApiError> {
    let done = app.backend.set_malop_status(id, status, &actor.name).await;
    let outcome = outcome_text(&done, status.name());
    app.audit(&actor.name, actor.source, "malop status", &id.to_string(), &outcome).await;
    Ok(done?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommentBody {
    text: String,
}

/// `POST /malops/ID/comments`.
pub(super) async fn comment(
    actor: ApiActor,
    State(app): State<App>,
    Id(id): Id<MalOpId>,
    Body(body): Body<CommentBody>,
) -> Result<Json<Value>, ApiError> {
    add_comment(&app, &actor, id, &body.text).await?;
    Ok(Json(json!({ "id": id.to_string(), "text": body.text })))
}

/// Says something about a MalOp and audits it.
pub(crate) async fn add_comment(
    app: &App,
    actor: &ApiActor,
    id: MalOpId,
    text: &str,
) -> Result<(), ApiError> {
    let text = bounded("the comment", text)?;
    if text.trim().is_empty() {
        return Err(ApiError::bad("the comment is empty"));
    }
    let done = app.backend.comment_malop(id, &actor.name, text).await;
    let outcome = outcome_text(&done, "ok");
    app.audit(&actor.name, actor.source, "malop comment", &id.to_string(), &outcome).await;
    Ok(done?)
}

/// `GET /suspicions?offset=&limit=`.
pub(super) async fn suspicions(
    _: ApiActor,
    State(app): State<App>,
    params: Params,
) -> Result<Json<Vec<Evidence>>, ApiError> {
    let offset = params.number("offset", 0, u32::MAX)?;
    let limit = params.number("limit", 100, PAGE_MAX)?;
    Ok(Json(app.backend.suspicions(offset, limit).await?.0))
}

/// `GET /malware?limit=`: alerts read from the Detection servers' malware ports.
pub(super) async fn malware(
    _: ApiActor,
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.number("limit", 100, FEED_PAGE_MAX)?;
    let (alerts, failures) = app.backend.malware(limit).await;
    Ok(with_missing(Json(alerts).into_response(), &failures))
}

fn status(name: &str) -> Result<MalOpStatus, ApiError> {
    let names: Vec<&str> = MalOpStatus::ALL.iter().map(|status| status.name()).collect();
    parse_status(name).ok_or_else(|| {
        ApiError::bad(format!("{name:?} is no status; there are {}", names.join(", ")))
    })
}

/// What an audit record says of an attempt.
pub(crate) fn outcome_text(done: &Result<(), BackendError>, well: &str) -> String {
    done.as_ref().map_or_else(BackendError::to_string, |()| well.to_owned())
}
