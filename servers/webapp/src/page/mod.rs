//! The analyst's pages: rendered here, kept live by the browser asking for the page again.
//!
//! Not here: the API. Invariants: every page is a whole answer without scripts; what changes
//! something is a form that ends in a redirect, so that going back repeats nothing.

mod investigate;
mod login;
mod malops;
mod reputations;
mod sensors;
mod shell;
mod system;

use askama::Template;
use axum::Router;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use lapwing_protocol::code::Code;

pub(crate) use shell::Shell;

use crate::web::{ApiActor, ApiError, App, PageActor, Posted, remedy};

/// Every page.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(async || Redirect::to("/malops")))
        .route("/login", get(login::form).post(login::log_in))
        .route("/logout", post(login::log_out))
        .route("/password", get(login::password_form).post(login::change_password))
        .route("/malops", get(malops::list))
        .route("/malops/{id}", get(malops::show))
        .route("/malops/{id}/status", post(malops::set_status))
        .route("/malops/{id}/comments", post(malops::comment))
        .route("/sensors", get(sensors::list))
        .route("/sensors/{id}", get(sensors::show))
        .route("/sensors/{id}/collection", post(sensors::set_collection))
        .route("/investigate", get(investigate::show))
        .route("/reputations", get(reputations::list).post(reputations::add))
        .route("/reputations/remove", post(reputations::remove))
        .route("/system", get(system::show))
        .route("/system/servers/{name}", post(system::act))
}

/// A page, or the page that says why there is none.
pub(super) fn page<T: Template>(template: &T) -> Response {
    match template.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            log::error!("a page cannot be rendered: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    shell: Shell,
    message: &'a str,
    remedy: &'a str,
    name: &'static str,
    number: u16,
    back: &'a str,
}

/// The page that says what failed and how to go on.
pub(crate) fn error_page(error: &ApiError, back: &str) -> Response {
    let template = ErrorPage {
        shell: Shell::bare("That did not work"),
        message: &error.message,
        remedy: remedy(error.code),
        name: error.code.name(),
        number: error.code.0,
        back,
    };
    let status = error.status();
    (status, page(&template)).into_response()
}

/// After a form: back to `path`, or the page that says what failed.
fn redirect_or_error(done: Result<(), ApiError>, path: &str) -> Response {
    match done {
        Ok(()) => Redirect::to(path).into_response(),
        Err(error) => error_page(&error, path),
    }
}

/// The actor of the API that a page's user is.
fn actor_of(posted: &Posted) -> ApiActor {
    ApiActor { name: posted.actor.session.user.clone(), source: posted.actor.source }
}

/// What a list shows where its server does not answer: the page stands, and says what is missing.
#[derive(Debug, Clone, Default)]
struct Trouble {
    message: String,
    remedy: &'static str,
}

impl Trouble {
    fn of(code: Code, message: String) -> Self {
        Self { message, remedy: remedy(code) }
    }

    fn is_some(&self) -> bool {
        !self.message.is_empty()
    }
}

/// A list, or nothing and what is wrong.
fn or_trouble<T: Default>(answer: Result<T, crate::backend::BackendError>) -> (T, Trouble) {
    match answer {
        Ok(list) => (list, Trouble::default()),
        Err(error) => (T::default(), Trouble::of(error.code, error.message)),
    }
}

/// The frame of a page for this reader.
fn shell(app: &App, actor: &PageActor, active: &'static str, title: &str) -> Shell {
    Shell::new(app, &actor.session, active, title)
}
