//! Logging in and out, and changing one's password.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};

use super::{Shell, error_page, page};
use crate::accounts::AccountError;
use crate::web::{
    ApiError, App, LoginPosted, PageActor, Posted, clear_session, login_cookie, session_cookie,
};

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    shell: Shell,
    problem: String,
    name: String,
}

/// `GET /login`.
pub(super) async fn form() -> Response {
    login_page(StatusCode::OK, String::new(), String::new())
}

fn login_page(status: StatusCode, problem: String, name: String) -> Response {
    let Some((cookie, token)) = login_cookie() else {
        let error = AccountError::Machine("the operating system gives no random bytes");
        return error_page(&ApiError::from(error), "/login");
    };
    let mut shell = Shell::bare("Log in");
    shell.request_token = token;
    let mut response = (status, page(&LoginPage { shell, problem, name })).into_response();
    response.headers_mut().append(cookie.0, cookie.1);
    response
}

/// `POST /login`.
pub(super) async fn log_in(State(app): State<App>, posted: LoginPosted) -> Response {
    let source = posted.source.0;
    match app.accounts.log_in(&posted.name, &posted.password, source).await {
        Ok(login) => {
            app.audit(&posted.name, source, "login", "", "ok").await;
            let path = if login.must_change { "/password" } else { "/malops" };
            let (name, value) = session_cookie(&login.secret);
            let mut response = Redirect::to(path).into_response();
            response.headers_mut().append(name, value);
            response
        }
        Err(error) => {
            app.audit(&posted.name, source, "login", "", &error.to_string()).await;
            let status = match error {
                AccountError::WrongLogin => StatusCode::UNAUTHORIZED,
                AccountError::Throttled(_) | AccountError::Busy => StatusCode::TOO_MANY_REQUESTS,
                AccountError::WeakPassword(_)
                | AccountError::NotFound(_)
                | AccountError::BadName
                | AccountError::Store(_)
                | AccountError::Machine(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            login_page(status, error.to_string(), posted.name)
        }
    }
}

/// `POST /logout`.
pub(super) async fn log_out(State(app): State<App>, posted: Posted) -> Response {
    let actor = &posted.actor;
    let done = app.accounts.log_out(actor.session.digest).await;
    app.audit(&actor.session.user, actor.source, "logout", "", "ok").await;
    let mut headers = HeaderMap::new();
    let (name, value) = clear_session();
    headers.append(name, value);
    match done {
        Ok(()) => (headers, Redirect::to("/login")).into_response(),
        Err(error) => (headers, error_page(&ApiError::from(error), "/login")).into_response(),
    }
}

#[derive(Template)]
#[template(path = "password.html")]
struct PasswordPage {
    shell: Shell,
    problem: String,
    must_change: bool,
}

/// `GET /password`.
pub(super) async fn password_form(actor: PageActor, State(app): State<App>) -> Response {
    password_page(&app, &actor, StatusCode::OK, String::new())
}

fn password_page(app: &App, actor: &PageActor, status: StatusCode, problem: String) -> Response {
    let session = &actor.session;
    let title = "Change your password";
    let shell = if session.must_change {
        let request_token = session.request_token.clone();
        Shell { request_token, ..Shell::bare(title) }
    } else {
        Shell::new(app, session, "/password", title)
    };
    let template = PasswordPage { shell, problem, must_change: session.must_change };
    (status, page(&template)).into_response()
}

/// `POST /password`.
pub(super) async fn change_password(State(app): State<App>, posted: Posted) -> Response {
    let actor = &posted.actor;
    let (old, new) = (posted.raw("old"), posted.raw("new"));
    if new != posted.raw("again") {
        let problem = String::from("the two new passwords differ");
        return password_page(&app, actor, StatusCode::BAD_REQUEST, problem);
    }
    let (user, digest) = (&actor.session.user, actor.session.digest);
    let done = app.accounts.change_password(user, old, new, actor.source, digest).await;
    let outcome = done.as_ref().map_or_else(AccountError::to_string, |()| String::from("ok"));
    app.audit(user, actor.source, "password change", user, &outcome).await;
    match done {
        Ok(()) => Redirect::to("/malops").into_response(),
        Err(AccountError::WrongLogin) => {
            let problem = String::from("the present password is wrong");
            password_page(&app, actor, StatusCode::BAD_REQUEST, problem)
        }
        Err(error) => password_page(&app, actor, StatusCode::BAD_REQUEST, error.to_string()),
    }
}
