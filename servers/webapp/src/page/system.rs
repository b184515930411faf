//! The system: servers, their capacity and health, and what could be installed.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;

use super::{Shell, Trouble, actor_of, error_page, or_trouble, page, redirect_or_error, shell};
use crate::api::{act_on_server, parse_server_action};
use crate::backend::Peer;
use crate::view::{ServerLine, UpdateLine};
use crate::web::{ApiError, App, PageActor, Posted};

#[derive(Template)]
#[template(path = "system.html")]
struct SystemPage {
    shell: Shell,
    servers: Vec<ServerLine>,
    troubled: usize,
    is_supervised: bool,
    updates: Vec<UpdateLine>,
    trouble: Trouble,
}

/// `GET /system`.
pub(super) async fn show(actor: PageActor, State(app): State<App>) -> Response {
    let (servers, updates) = smol::future::zip(app.servers(), app.backend.updates()).await;
    let (updates, trouble) = or_trouble(updates);
    let troubled = servers.iter().filter(|server| server.status != "up").count();
    let is_supervised = app.backend.has(Peer::Supervisor);
    let shell = shell(&app, &actor, "/system", "System");
    page(&SystemPage { shell, servers, troubled, is_supervised, updates, trouble })
}

/// `POST /system/servers/NAME`.
pub(super) async fn act(
    State(app): State<App>,
    Path(name): Path<String>,
    posted: Posted,
) -> Response {
    let word = posted.field("action");
    let Some(action) = parse_server_action(word, false) else {
        return error_page(&ApiError::bad("there is no such action"), "/system");
    };
    let done = act_on_server(&app, &actor_of(&posted), &name, action, word).await;
    redirect_or_error(done, "/system")
}
