//! Forms of pages: read, and refused unless they were meant.
//!
//! Invariant: there is no way to a form's fields but through this check.

use std::collections::BTreeMap;

use axum::Form;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse as _, Response};
use lapwing_protocol::code::Code;

use super::cookie::login_token;
use super::guard::{Source, check_intent, is_same_origin, same};
use super::{ApiError, App, PageActor};
use crate::page::error_page;

/// A form that a user sent from a page of ours.
pub(crate) struct Posted {
    pub(crate) actor: PageActor,
    fields: Fields,
}

type Fields = BTreeMap<String, String>;

impl Posted {
    /// A field's value without blanks around it; empty where it was not sent.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.trim())
    }

    /// A field's value as it was sent: a password may begin with a blank.
    pub(crate) fn raw(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

impl FromRequest<App> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let actor = PageActor::from_request_parts(&mut parts, app).await?;
        let headers = parts.headers.clone();
        let fields = read(Request::from_parts(parts, body)).await?;
        let token = fields.get("request_token").map(String::as_str);
        check_intent(&headers, token, &actor.session)
            .map_err(|error| error_page(&error, "/malops"))?;
        Ok(Self { actor, fields })
    }
}

/// The login form, sent by the browser that asked for it.
pub(crate) struct LoginPosted {
    pub(crate) source: Source,
    pub(crate) name: String,
    pub(crate) password: String,
}

impl FromRequest<App> for LoginPosted {
    type Rejection = Response;

    async fn from_request(request: Request, _: &App) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let source = match Source::from_request_parts(&mut parts, &()).await {
            Ok(source) => source,
            Err(never) => match never {},
        };
        let headers = parts.headers.clone();
        let mut fields = read(Request::from_parts(parts, body)).await?;
        let sent = fields.get("request_token").map_or("", String::as_str);
        let is_meant = is_same_origin(&headers)
            && login_token(&headers).is_some_and(|expected| same(sent, expected));
        if !is_meant {
            let message = "the login form is too old or comes from another site; try again";
            let error = ApiError::new(Code::FORBIDDEN, message);
            return Err(error_page(&error, "/login"));
        }
        let mut take = |name| fields.remove(name).unwrap_or_default();
        let (name, password) = (take("name").trim().to_owned(), take("password"));
        Ok(Self { source, name, password })
    }
}

async fn read(request: Request) -> Result<Fields, Response> {
    match Form::<Fields>::from_request(request, &()).await {
        Ok(Form(fields)) => Ok(fields),
        Err(rejection) => Err(rejection.into_response()),
    }
}
