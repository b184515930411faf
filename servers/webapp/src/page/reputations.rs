//! Reputations: the organisation's own lists.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use lapwing_protocol::intel::{Classification, Indicator};
use serde::Deserialize;

use super::{Shell, Trouble, actor_of, error_page, or_trouble, page, redirect_or_error, shell};
use crate::api::{Entry, add_reputation, indicator, take_off_reputation};
use crate::backend::Peer;
use crate::limits::PAGE_MAX;
use crate::view::{Reputation, VerdictLine};
use crate::web::{ApiError, App, PageActor, Posted};

#[derive(Template)]
#[template(path = "reputations.html")]
struct ReputationsPage {
    shell: Shell,
    entries: Vec<Reputation>,
    total: u32,
    trouble: Trouble,
    asked: String,
    verdicts: Vec<VerdictLine>,
    answer_trouble: Trouble,
}

#[derive(Deserialize)]
pub(super) struct Question {
    #[serde(default)]
    q: String,
}

/// `GET /reputations?q=KEY`: the lists, and what intel says of a key.
pub(super) async fn list(
    actor: PageActor,
    State(app): State<App>,
    Query(question): Query<Question>,
) -> Response {
    let ((entries, total), trouble) = or_trouble(app.backend.reputations(0, PAGE_MAX).await);
    let asked = question.q.trim().to_owned();
    let (verdicts, answer_trouble) = if asked.is_empty() {
        (Vec::new(), Trouble::default())
    } else {
        classify(&app, &asked).await
    };
    let shell = shell(&app, &actor, "/reputations", "Reputations");
    page(&ReputationsPage { shell, entries, total, trouble, asked, verdicts, answer_trouble })
}

async fn classify(app: &App, asked: &str) -> (Vec<VerdictLine>, Trouble) {
    let (key_type, key) = match guess(asked) {
        Ok(found) => found,
        Err(error) => return (Vec::new(), Trouble::of(error.code, error.message)),
    };
    let indicator = Indicator { key_type, key: &key };
    or_trouble(app.backend.classify(Peer::IntelPrivate, indicator).await)
}

/// A key's type, told from its form: a hash, else an address, else a domain.
fn guess(key: &str) -> Result<(lapwing_protocol::intel::KeyType, String), ApiError> {
    indicator("hash", key).or_else(|_| indicator("ip", key)).or_else(|_| indicator("domain", key))
}

/// `POST /reputations`.
pub(super) async fn add(State(app): State<App>, posted: Posted) -> Response {
    let verdict = match posted.field("verdict") {
        "allow" => Classification::Allowed,
        "block" => Classification::Blocked,
        _ => return error_page(&ApiError::bad("choose block or allow"), "/reputations"),
    };
    let found = match posted.field("type") {
        "" => guess(posted.field("key")),
        key_type => indicator(key_type, posted.field("key")),
    };
    let (key_type, key) = match found {
        Ok(found) => found,
        Err(error) => return error_page(&error, "/reputations"),
    };
    let entry = Entry { key_type, key, verdict, comment: posted.field("comment") };
    let done = add_reputation(&app, &actor_of(&posted), &entry, None).await;
    redirect_or_error(done, "/reputations")
}

/// `POST /reputations/remove`.
pub(super) async fn remove(State(app): State<App>, posted: Posted) -> Response {
    let done = match indicator(posted.field("type"), posted.field("key")) {
        Ok((key_type, key)) => take_off_reputation(&app, &actor_of(&posted), key_type, &key).await,
        Err(error) => Err(error),
    };
    redirect_or_error(done, "/reputations")
}
