//! MalOps: the list, and one with everything it rests on.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use lapwing_protocol::id::MalOpId;
use lapwing_protocol::malop::MalOpStatus;
use serde::Deserialize;

use super::{Shell, Trouble, actor_of, error_page, or_trouble, page, redirect_or_error, shell};
use crate::api::{add_comment, change_status};
use crate::limits::MALOPS_MAX;
use crate::view::{Evidence, MalOp, MalOpDetail, parse_status, status_text};
use crate::web::{ApiError, App, PageActor, Posted};

/// A filter of the list.
struct Filter {
    name: &'static str,
    query: &'static str,
    count: usize,
    is_active: bool,
}

#[derive(Template)]
#[template(path = "malops.html")]
struct ListPage {
    shell: Shell,
    filters: Vec<Filter>,
    malops: Vec<MalOp>,
    total: usize,
    trouble: Trouble,
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    #[serde(default)]
    show: String,
}

/// `GET /malops?show=open|done|all`.
pub(super) async fn list(
    actor: PageActor,
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Response {
    let (all, trouble) = or_trouble(app.backend.malops(None, MALOPS_MAX).await);
    let total = all.len();
    let open = all.iter().filter(|malop| malop.is_open()).count();
    let show = match query.show.as_str() {
        "done" => "done",
        "all" => "all",
        _ => "open",
    };
    let filter = |name, query, count| Filter { name, query, count, is_active: query == show };
    let filters = vec![
        filter("Open", "open", open),
        filter("Done", "done", total - open),
        filter("All", "all", total),
    ];
    let wanted = |malop: &MalOp| match show {
        "open" => malop.is_open(),
        "done" => !malop.is_open(),
        _ => true,
    };
    let malops = all.into_iter().filter(wanted).collect();
    let shell = shell(&app, &actor, "/malops", "MalOps");
    page(&ListPage { shell, filters, malops, total, trouble })
}

/// A button that moves a MalOp on.
struct Step {
    name: &'static str,
    text: String,
    is_present: bool,
}

#[derive(Template)]
#[template(path = "malop.html")]
struct DetailPage {
    shell: Shell,
    malop: MalOp,
    detail: MalOpDetail,
    steps: Vec<Step>,
}

/// `GET /malops/ID`.
pub(super) async fn show(
    actor: PageActor,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Response {
    let Ok(id) = id.parse::<MalOpId>() else {
        return error_page(&ApiError::not_found("MalOp"), "/malops");
    };
    let detail = match app.backend.malop(id).await {
        Ok(detail) => detail,
        Err(error) => return error_page(&ApiError::from(error), "/malops"),
    };
    let steps = MalOpStatus::ALL
        .into_iter()
        .filter(|status| !matches!(status, MalOpStatus::New | MalOpStatus::Reopened))
        .map(|status| Step {
            name: status.name(),
            text: status_text(status.name()),
            is_present: status.name() == detail.malop.status,
        })
        .collect();
    let shell = shell(&app, &actor, "/malops", &detail.malop.title);
    page(&DetailPage { shell, malop: detail.malop.clone(), detail, steps })
}

impl DetailPage {
    fn evidence(&self) -> &[Evidence] {
        &self.detail.malop.evidence
    }
}

/// `POST /malops/ID/status`.
pub(super) async fn set_status(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Response {
    let back = format!("/malops/{id}");
    let (Ok(id), Some(status)) = (id.parse::<MalOpId>(), parse_status(posted.field("status")))
    else {
        return error_page(&ApiError::not_found("MalOp or status"), "/malops");
    };
    let done = change_status(&app, &actor_of(&posted), id, status).await;
    redirect_or_error(done, &back)
}

/// `POST /malops/ID/comments`.
pub(super) async fn comment(
    State(app): State<App>,
    Path(id): Path<String>,
    posted: Posted,
) -> Response {
    let back = format!("/malops/{id}");
    let Ok(id) = id.parse::<MalOpId>() else {
        return error_page(&ApiError::not_found("MalOp"), "/malops");
    };
    let done = add_comment(&app, &actor_of(&posted), id, posted.field("text")).await;
    redirect_or_error(done, &back)
}
