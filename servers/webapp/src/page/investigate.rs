//! Investigation: a question in the query language and its rows.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::{Shell, Trouble, page, shell};
use crate::api::answer;
use crate::view::Rows;
use crate::web::{App, PageActor};

/// A question to begin with.
struct Sample {
    text: &'static str,
    expression: &'static str,
}

const SAMPLES: [(&str, &str); 7] = [
    (
        "Running processes",
        "process where presence = live show guid, machine, pid, user, image_path, command_line \
         limit 200",
    ),
    (
        "Open connections and who has them",
        "connection where presence = live show guid, machine, remote_address, remote_port, \
         image_path, user limit 200",
    ),
    ("Programs run from /tmp", "process where image_path matches \"/tmp/*\""),
    ("Changed files below /etc", "file_event where path startswith /etc/ since 24h"),
    ("Names looked up in the last hour", "dns since 1h"),
    ("Failed services", "service where state = failed"),
    ("Shells and their parents", "process where name in (sh, bash, dash, zsh) -> parent"),
];

#[derive(Template)]
#[template(path = "investigate.html")]
struct InvestigatePage {
    shell: Shell,
    expression: String,
    samples: Vec<Sample>,
    rows: Option<Rows>,
    trouble: Trouble,
}

#[derive(Deserialize)]
pub(super) struct Question {
    #[serde(default)]
    q: String,
}

/// `GET /investigate?q=`.
pub(super) async fn show(
    actor: PageActor,
    State(app): State<App>,
    Query(question): Query<Question>,
) -> Response {
    let (rows, trouble) = if question.q.trim().is_empty() {
        (None, Trouble::default())
    } else {
        match answer(&app, &question.q, None).await {
            Ok(rows) => (Some(rows), Trouble::default()),
            Err(error) => (None, Trouble::of(error.code, error.message)),
        }
    };
    let samples =
        SAMPLES.into_iter().map(|(text, expression)| Sample { text, expression }).collect();
    let shell = shell(&app, &actor, "/investigate", "Investigate");
    page(&InvestigatePage { shell, expression: question.q, samples, rows, trouble })
}
