//! The two cookies: the session's, and the one that ties a login form to the browser that asked.
//!
//! Invariant: both are `__Host-`: from us alone, over TLS alone, for the whole site, and closed to
//! scripts.

use axum::http::header::{self, HeaderValue};
use axum::http::{HeaderMap, HeaderName};
use lapwing_net::hexadecimal::encode;

const SESSION: &str = "__Host-lapwing";
const LOGIN: &str = "__Host-lapwing-login";
const ATTRIBUTES: &str = "; Path=/; Secure; HttpOnly; SameSite=Strict";

/// The header that gives the browser its session.
pub(crate) fn session_cookie(secret: &str) -> (HeaderName, HeaderValue) {
    set(&format!("{SESSION}={secret}{ATTRIBUTES}"))
}

/// The header that takes the session from the browser.
pub(crate) fn clear_session() -> (HeaderName, HeaderValue) {
    set(&format!("{SESSION}={ATTRIBUTES}; Max-Age=0"))
}

/// The header that gives the browser its login token, and the token; none without randomness.
pub(crate) fn login_cookie() -> Option<((HeaderName, HeaderValue), String)> {
    let mut token = [0; 16];
    getrandom::fill(&mut token).ok()?;
    let token = encode(&token);
    Some((set(&format!("{LOGIN}={token}{ATTRIBUTES}; Max-Age=3600")), token))
}

/// The login token of a request.
pub(crate) fn login_token(headers: &HeaderMap) -> Option<&str> {
    value(headers, LOGIN)
}

/// The session's secret of a request.
pub(super) fn session_secret(headers: &HeaderMap) -> Option<&str> {
    value(headers, SESSION)
}

fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn set(text: &str) -> (HeaderName, HeaderValue) {
    // Hexadecimal digits and constants only, so it is always a header's value.
    let value = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    (header::SET_COOKIE, value)
}
