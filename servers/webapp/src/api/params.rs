//! Arguments of requests: query, path and JSON body, each refused with an error of the API.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use lapwing_protocol::code::Code;
use serde::de::DeserializeOwned;

use crate::limits::TEXT_BYTES_MAX;
use crate::web::{ApiError, App};

/// The query's arguments.
pub(crate) struct Params(BTreeMap<String, String>);

impl FromRequestParts<App> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let query = Query::<BTreeMap<String, String>>::from_request_parts(parts, app).await;
        let Query(arguments) = query.map_err(|rejection| ApiError::bad(rejection.body_text()))?;
        Ok(Self(arguments))
    }
}

impl Params {
    /// An argument, where it was given.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A number up to `max`, or `default`.
    pub(crate) fn number(&self, name: &str, default: u32, max: u32) -> Result<u32, ApiError> {
        match self.text(name).map(str::parse::<u32>) {
            None => Ok(default),
            Some(Ok(number)) if number <= max => Ok(number),
            Some(_) => Err(ApiError::bad(format!("{name} is a number from 0 to {max}"))),
        }
    }

    /// Something with a text form of its own, where it was given.
    pub(crate) fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let parsed = self.text(name).map(str::parse::<T>).transpose();
        parsed.map_err(|_| ApiError::bad(format!("{name} is malformed")))
    }

    /// Whether `name` is true.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| matches!(text, "" | "1" | "true" | "yes"))
    }
}

/// One part of the path, as an id.
pub(crate) struct Id<T>(pub(crate) T);

impl<T: FromStr> FromRequestParts<App> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, app).await;
        let Path(text) = path.map_err(|rejection| ApiError::bad(rejection.body_text()))?;
        let problem =
            || ApiError::bad(format!("{text:?} is not an id: 32 lower-case hexadecimal digits"));
        text.parse().map(Self).map_err(|_| problem())
    }
}

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        match Json::<T>::from_request(request, app).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(ApiError::bad(rejection.body_text())),
        }
    }
}

/// A text of a person, within its bound.
pub(crate) fn bounded<'a>(name: &str, text: &'a str) -> Result<&'a str, ApiError> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("{name} has {} bytes; {TEXT_BYTES_MAX} are the limit", text.len());
        return Err(ApiError::new(Code::TOO_LARGE, message));
    }
    Ok(text)
}
