//! Who asks: a session's user on pages, a bearer token or a session in the API.
//!
//! Invariants: a request that changes something by a session comes from our own origin and carries
//! the session's request token; a session whose password must be changed opens nothing else.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse as _, Redirect, Response};
use lapwing_net::http::{ClientAddress, bearer};
use lapwing_protocol::code::Code;

use super::cookie::session_secret;
use super::{ApiError, App};
use crate::accounts::SessionView;

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source(pub(crate) IpAddr);

impl<S: Sync> FromRequestParts<S> for Source {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let address = parts.extensions.get::<ClientAddress>();
        // A request without an address is one of a test, which is on this machine.
        Ok(Self(address.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.0.ip())))
    }
}

/// A page's reader: a session whose password is the user's own.
#[derive(Clone, Debug)]
pub(crate) struct PageActor {
    pub(crate) session: SessionView,
    pub(crate) source: IpAddr,
}

impl FromRequestParts<App> for PageActor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let Some(session) = session_of(&parts.headers, app).await else {
            return Err(Redirect::to("/login").into_response());
        };
        if session.must_change && parts.uri.path() != "/password" && parts.uri.path() != "/logout" {
            return Err(Redirect::to("/password").into_response());
        }
        let Source(source) = source_of(parts).await;
        Ok(Self { session, source })
    }
}

/// Who asks the API.
#[derive(Clone, Debug)]
pub(crate) struct ApiActor {
    /// A user's name, or `token:NAME`.
    pub(crate) name: String,
    pub(crate) source: IpAddr,
}

impl FromRequestParts<App> for ApiActor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Source(source) = source_of(parts).await;
        if let Some(token) = bearer::token(&parts.headers) {
            let refused = || ApiError::new(Code::UNAUTHENTICATED, "the API token is not known");
            let name = app.accounts.token_name(token).ok_or_else(refused)?;
            return Ok(Self { name: format!("token:{name}"), source });
        }
        let message = "the request has neither a session nor an API token";
        let session = session_of(&parts.headers, app).await;
        let session = session.ok_or_else(|| ApiError::new(Code::UNAUTHENTICATED, message))?;
        if session.must_change {
            let message = "the password must be changed first";
            return Err(ApiError::new(Code::FORBIDDEN, message));
        }
        if parts.method != Method::GET && parts.method != Method::HEAD {
            let token = parts.headers.get("x-request-token").and_then(|token| token.to_str().ok());
            check_intent(&parts.headers, token, &session)?;
        }
        Ok(Self { name: session.user, source })
    }
}

async fn source_of(parts: &mut Parts) -> Source {
    match Source::from_request_parts(parts, &()).await {
        Ok(source) => source,
        Err(never) => match never {},
    }
}

async fn session_of(headers: &HeaderMap, app: &App) -> Option<SessionView> {
    app.accounts.session(session_secret(headers)?).await
}

/// Whether the browser says that the request was made by a page of ours.
pub(super) fn is_same_origin(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin")
}

/// Refuses what another site's page made the browser send.
pub(super) fn check_intent(
    headers: &HeaderMap,
    token: Option<&str>,
    session: &SessionView,
) -> Result<(), ApiError> {
    if !is_same_origin(headers) {
        let message = "the request does not come from this site's own page";
        return Err(ApiError::new(Code::FORBIDDEN, message));
    }
    if !token.is_some_and(|token| same(token, &session.request_token)) {
        let message = "the request token is missing or belongs to another session";
        return Err(ApiError::new(Code::FORBIDDEN, message));
    }
    Ok(())
}

/// Compares two texts without telling where they differ.
pub(super) fn same(one: &str, other: &str) -> bool {
    let difference =
        one.bytes().zip(other.bytes()).fold(0_u8, |sum, (left, right)| sum | (left ^ right));
    one.len() == other.len() && std::hint::black_box(difference) == 0
}
