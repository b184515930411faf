//! Errors of the API: `{code, name, message, remedy}`, with the number of the registry.

use axum::Json;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use lapwing_protocol::code::Code;
use serde_json::json;

use crate::accounts::AccountError;
use crate::backend::BackendError;

/// Why a request of the API was not done.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(Code::BAD_ARGUMENT, message)
    }

    pub(crate) fn not_found(thing: &str) -> Self {
        Self::new(Code::NOT_FOUND, format!("there is no such {thing}"))
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self.code {
            Code::BAD_ARGUMENT | Code::UNSUPPORTED => StatusCode::BAD_REQUEST,
            Code::UNAUTHENTICATED => StatusCode::UNAUTHORIZED,
            Code::FORBIDDEN | Code::REVOKED => StatusCode::FORBIDDEN,
            Code::NOT_FOUND | Code::UNKNOWN_PEER => StatusCode::NOT_FOUND,
            Code::CONFLICT => StatusCode::CONFLICT,
            Code::TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
            Code::BUSY | Code::DRAINING => StatusCode::SERVICE_UNAVAILABLE,
            Code::UNREACHABLE => StatusCode::BAD_GATEWAY,
            Code::TIMED_OUT => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<BackendError> for ApiError {
    fn from(error: BackendError) -> Self {
        Self::new(error.code, error.message)
    }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({
            "code": self.code.0,
            "name": self.code.name(),
            "message": self.message,
            "remedy": remedy(self.code),
        });
        let mut response = (self.status(), Json(body)).into_response();
        if self.code == Code::UNAUTHENTICATED {
            let challenge = header::HeaderValue::from_static("Bearer realm=\"lapwing\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// What to do about an error of this number.
pub(crate) fn remedy(code: Code) -> &'static str {
    match code {
        Code::BAD_ARGUMENT => "correct the argument and ask again",
        Code::UNAUTHENTICATED => "log in, or present an API token as `Authorization: Bearer TOKEN`",
        Code::FORBIDDEN => "ask from the page itself, or use an account or token that may do this",
        Code::NOT_FOUND | Code::UNKNOWN_PEER => "look at the list and use an id that is in it",
        Code::UNREACHABLE => "look at System (`lapwing ctl servers list`) and start what is down",
        Code::TIMED_OUT => "try again; if it stays so, look at that server's load and log",
        Code::BUSY | Code::ALL_FULL => "try again in a moment",
        Code::DRAINING => "try again when the server is up again",
        Code::STORE_FAILED => "look at the server's log and at the disk it writes to",
        Code::TOO_LARGE => "ask for less",
        Code::CONFLICT => "look at the present state and ask again",
        Code::UNSUPPORTED => "look at docs/api.md for what there is",
        Code::REVOKED => "use a credential that was not revoked",
        _ => "look at the server's log; if it stays so, report it",
    }
}

/// What has no route: an error of the API, or the first page.
pub(super) async fn not_found(uri: Uri) -> Response {
    if uri.path().starts_with("/api/") {
        let message = format!("there is no route {}", uri.path());
        return ApiError::new(Code::NOT_FOUND, message).into_response();
    }
    if uri.path().starts_with("/assets/") || uri.path().contains('.') {
        return StatusCode::NOT_FOUND.into_response();
    }
    Redirect::to("/malops").into_response()
}
