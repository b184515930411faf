//! `/api/v1`: everything that `lapwing ctl` does, as JSON. docs/api.md is its description.
//!
//! Not here: who may (web/guard.rs) and how peers are asked (backend/). Invariants: every handler
//! takes an `ApiActor`; what changes something is audited; names are those of the contract.

mod accounts;
mod elements;
mod malops;
mod params;
mod reputations;
mod sensors;
mod servers;

use axum::Router;
use axum::routing::{get, post};

use crate::web::App;

pub(crate) use elements::answer;
pub(crate) use malops::{add_comment, change_status};
pub(crate) use reputations::{
    Entry, add as add_reputation, indicator, take_off as take_off_reputation,
};
pub(crate) use sensors::{EXPIRES_MS, act_on as act_on_sensor, find as find_sensor};
pub(crate) use servers::{act_on as act_on_server, parse as parse_server_action};

/// Every route of the API.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/api/v1/sensors", get(sensors::list))
        .route("/api/v1/sensors/{id}", get(sensors::show))
        .route("/api/v1/sensors/{id}/actions", post(sensors::act))
        .route("/api/v1/batches/{batch}", get(sensors::batch))
        .route("/api/v1/tags", get(sensors::tags).put(sensors::set_tag))
        .route("/api/v1/servers", get(servers::list))
        .route("/api/v1/servers/{name}/actions", post(servers::act))
        .route("/api/v1/updates", get(servers::updates))
        .route("/api/v1/ledger", get(servers::ledger))
        .route("/api/v1/ledger/verify", get(servers::verify))
        .route("/api/v1/malops", get(malops::list))
        .route("/api/v1/malops/changes", get(malops::changes))
        .route("/api/v1/malops/{id}", get(malops::show))
        .route("/api/v1/malops/{id}/status", post(malops::set_status))
        .route("/api/v1/malops/{id}/comments", post(malops::comment))
        .route("/api/v1/suspicions", get(malops::suspicions))
        .route("/api/v1/malware", get(malops::malware))
        .route("/api/v1/elements/query", post(elements::query))
        .route("/api/v1/elements/{guid}/tree", get(elements::tree))
        .route("/api/v1/events", get(elements::events))
        .route("/api/v1/reputations", get(reputations::list).put(reputations::put))
        .route("/api/v1/reputations/{type}/{key}", axum::routing::delete(reputations::remove))
        .route("/api/v1/reputations/classify", post(reputations::classify))
        .route("/api/v1/users", get(accounts::users))
        .route("/api/v1/users/{name}/reset-password", post(accounts::reset_password))
        .route("/api/v1/tokens", get(accounts::tokens))
        .route("/api/v1/tokens/{id}", axum::routing::delete(accounts::revoke))
        .route("/api/v1/audit", get(accounts::audit))
}
