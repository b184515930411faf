//! Users, tokens and the audit log.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::params::Params;
use crate::accounts::{AuditLine, TokenLine};
use crate::limits::AUDIT_PAGE_MAX;
use crate::web::{ApiActor, ApiError, App};

/// `GET /users`.
pub(super) async fn users(_: ApiActor, State(app): State<App>) -> Json<Vec<Value>> {
    let names = app.accounts.user_names().into_iter();
    Json(names.map(|name| json!({ "name": name, "role": "admin" })).collect())
}

/// `POST /users/NAME/reset-password`: the new password is in the answer, and nowhere else.
pub(super) async fn reset_password(
    actor: ApiActor,
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let password = app.accounts.reset_password(&name, actor.source).await?;
    app.audit(&actor.name, actor.source, "password reset", &name, "ok").await;
    Ok(Json(json!({ "user": name, "password": password, "must_change": true })))
}

/// `GET /tokens`.
pub(super) async fn tokens(_: ApiActor, State(app): State<App>) -> Json<Vec<TokenLine>> {
    Json(app.accounts.tokens())
}

/// `DELETE /tokens/ID`.
pub(super) async fn revoke(
    actor: ApiActor,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    app.accounts.revoke_token(&id).await?;
    app.audit(&actor.name, actor.source, "token revoke", &id, "ok").await;
    Ok(Json(json!({ "id": id, "state": "revoked" })))
}

/// `GET /audit?limit=`: the newest records, newest first.
pub(super) async fn audit(
    _: ApiActor,
    State(app): State<App>,
    params: Params,
) -> Result<Json<Vec<AuditLine>>, ApiError> {
    let max = u32::try_from(AUDIT_PAGE_MAX).unwrap_or(u32::MAX);
    let limit = params.number("limit", 100, max)?;
    let lines = smol::unblock(move || app.accounts.audit_lines(limit as usize)).await?;
    Ok(Json(lines))
}
