//! HTTP: routes, who may, cookies, headers of defence, files.
//!
//! Not here: what is shown (page/) and answered (api/). Invariant: a route is either in the list
//! of those open to everybody, or its handler takes an actor.

mod assets;
mod cookie;
mod error;
mod events;
mod guard;
mod headers;
mod posted;
pub(crate) mod visible;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::get;
use lapwing_net::clock;
use lapwing_net::shutdown::Shutdown;

pub(crate) use cookie::{clear_session, login_cookie, session_cookie};
pub(crate) use error::{ApiError, remedy};
pub(crate) use guard::{ApiActor, PageActor};
pub(crate) use posted::{LoginPosted, Posted};

use crate::accounts::Accounts;
use crate::backend::Backend;
use crate::live::Live;
use crate::view::ServerLine;
use crate::{api, page};

/// What every handler has.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

/// See [`App`].
pub(crate) struct Inner {
    pub(crate) backend: Backend,
    pub(crate) accounts: Accounts,
    pub(crate) live: Live,
    pub(crate) shutdown: Shutdown,
    /// This server's name.
    pub(crate) name: String,
    /// When it started, milliseconds since 1970.
    pub(crate) started_ms: u64,
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    pub(crate) fn new(
        backend: Backend,
        accounts: Accounts,
        shutdown: Shutdown,
        name: &str,
    ) -> Self {
        let (live, name) = (Live::default(), name.to_owned());
        let started_ms = clock::unix_ms();
        Self(Arc::new(Inner { backend, accounts, live, shutdown, name, started_ms }))
    }

    /// Every server, this one too.
    pub(crate) async fn servers(&self) -> Vec<ServerLine> {
        let mut lines = self.backend.servers().await;
        let own = self.own_line();
        match lines.iter_mut().find(|line| line.name == self.name) {
            Some(line) => *line = ServerLine { starts: line.starts, ..own },
            None => lines.push(own),
        }
        lines.sort_by(|one, other| {
            (rank(&one.role), &one.name).cmp(&(rank(&other.role), &other.name))
        });
        lines
    }

    fn own_line(&self) -> ServerLine {
        ServerLine {
            name: self.name.clone(),
            role: String::from("webapp"),
            status: String::from("up"),
            pid: Some(std::process::id()),
            version: String::from(env!("CARGO_PKG_VERSION")),
            started: crate::view::Time::known(self.started_ms),
            ..ServerLine::default()
        }
    }

    /// Notes what was done. What cannot be noted is logged, and is not undone.
    pub(crate) async fn audit(
        &self,
        actor: &str,
        source: IpAddr,
        action: &str,
        target: &str,
        outcome: &str,
    ) {
        if let Err(error) = self.accounts.audit(actor, source, action, target, outcome).await {
            log::error!("the audit record of {action} by {actor} cannot be written: {error}");
        }
    }
}

/// The order in which roles are listed: along the road of a fact.
fn rank(role: &str) -> usize {
    const ROAD: [&str; 10] = [
        "sensor",
        "registration",
        "detection",
        "malops",
        "fleet",
        "tagging",
        "intel-private",
        "intel-global",
        "update",
        "webapp",
    ];
    ROAD.iter().position(|known| *known == role).unwrap_or(ROAD.len())
}

/// Every route.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .merge(page::routes())
        .merge(api::routes())
        .route("/events", get(events::events))
        .route("/assets/{name}", get(assets::asset))
        .fallback(error::not_found)
        .layer(middleware::from_fn(headers::add))
        .with_state(app)
}
