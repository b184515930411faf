//! The organisation's own lists, and what intel says.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderValue;
use axum::response::{IntoResponse as _, Response};
use lapwing_protocol::intel::{Classification, Indicator, KeyType};
use serde::Deserialize;
use serde_json::{Value, json};

use super::malops::outcome_text;
use super::params::{Body, Params, bounded};
use crate::backend::Peer;
use crate::limits::PAGE_MAX;
use crate::view::{VerdictLine, canonical, parse_key_type};
use crate::web::{ApiActor, ApiError, App};

/// `GET /reputations?offset=&limit=`; the header `lapwing-total` says how many there are.
pub(super) async fn list(
    _: ApiActor,
    State(app): State<App>,
    params: Params,
) -> Result<Response, ApiError> {
    let offset = params.number("offset", 0, u32::MAX)?;
    let limit = params.number("limit", PAGE_MAX, PAGE_MAX)?;
    let (entries, total) = app.backend.reputations(offset, limit).await?;
    let mut response = Json(entries).into_response();
    response.headers_mut().insert("lapwing-total", HeaderValue::from(total));
    Ok(response)
}

/// An entry for a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PutBody {
    #[serde(rename = "type")]
    key_type: String,
    key: String,
    verdict: String,
    #[serde(default)]
    comment: String,
    expires_at_ms: Option<u64>,
}

/// `PUT /reputations`.
pub(super) async fn put(
    actor: ApiActor,
    State(app): State<App>,
    Body(body): Body<PutBody>,
) -> Result<Json<Value>, ApiError> {
    let (key_type, key) = indicator(&body.key_type, &body.key)?;
    let verdict = match body.verdict.as_str() {
        "block" => Classification::Blocked,
        "allow" => Classification::Allowed,
        other => return Err(ApiError::bad(format!("{other:?} is neither block nor allow"))),
    };
    let entry = Entry { key_type, key, verdict, comment: &body.comment };
    add(&app, &actor, &entry, body.expires_at_ms).await?;
    Ok(Json(json!({ "type": key_type.name(), "key": entry.key, "verdict": verdict.name() })))
}

/// What goes on a list.
pub(crate) struct Entry<'a> {
    pub(crate) key_type: KeyType,
    pub(crate) key: String,
    pub(crate) verdict: Classification,
    pub(crate) comment: &'a str,
}

/// Puts an entry on its list and audits it.
pub(crate) async fn add(
    app: &App,
    actor: &ApiActor,
    entry: &Entry<'_>,
    expires_ms: Option<u64>,
) -> Result<(), ApiError> {
    let comment = bounded("the comment", entry.comment)?;
    let indicator = Indicator { key_type: entry.key_type, key: &entry.key };
    let done = app
        .backend
        .put_reputation(indicator, entry.verdict, comment, &actor.name, expires_ms)
        .await;
    let outcome = outcome_text(&done, "ok");
    let action = format!("reputation {}", entry.verdict.name());
    app.audit(&actor.name, actor.source, &action, &entry.key, &outcome).await;
    Ok(done?)
}

/// `DELETE /reputations/TYPE/KEY`.
pub(super) async fn remove(
    actor: ApiActor,
    State(app): State<App>,
    Path((key_type, key)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let (key_type, key) = indicator(&key_type, &key)?;
    take_off(&app, &actor, key_type, &key).await?;
    Ok(Json(json!({ "type": key_type.name(), "key": key })))
}

/// Takes an entry off its list and audits it.
pub(crate) async fn take_off(
    app: &App,
    actor: &ApiActor,
    key_type: KeyType,
    key: &str,
) -> Result<(), ApiError> {
    let done = app.backend.remove_reputation(Indicator { key_type, key }).await;
    let outcome = outcome_text(&done, "ok");
    app.audit(&actor.name, actor.source, "reputation remove", key, &outcome).await;
    Ok(done?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClassifyBody {
    #[serde(rename = "type")]
    key_type: String,
    key: String,
    /// Ask Global alone.
    #[serde(default)]
    global: bool,
}

/// `POST /reputations/classify`.
pub(super) async fn classify(
    _: ApiActor,
    State(app): State<App>,
    Body(body): Body<ClassifyBody>,
) -> Result<Json<Vec<VerdictLine>>, ApiError> {
    let (key_type, key) = indicator(&body.key_type, &body.key)?;
    let intel = if body.global { Peer::IntelGlobal } else { Peer::IntelPrivate };
    Ok(Json(app.backend.classify(intel, Indicator { key_type, key: &key }).await?))
}

/// A key in its canonical writing.
pub(crate) fn indicator(key_type: &str, key: &str) -> Result<(KeyType, String), ApiError> {
    let known = parse_key_type(key_type)
        .ok_or_else(|| ApiError::bad(format!("{key_type:?} is none of hash, ip and domain")))?;
    let key =
        canonical(known, key).map_err(|problem| ApiError::bad(format!("{key:?}: {problem}")))?;
    Ok((known, key))
}
