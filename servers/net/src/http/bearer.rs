//! Bearer tokens in the `Authorization` header.
//!
//! Not here: where tokens come from and what they allow. Invariants: a server keeps only the
//! digest; comparing takes the same time whatever differs.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use crate::config::TokenDigest;

/// The token of a request, if it has one.
#[must_use]
pub fn token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Whether the request carries the token of this digest. Without a digest nobody is authorized.
#[must_use]
pub fn is_authorized(headers: &HeaderMap, digest: Option<&TokenDigest>) -> bool {
    match (token(headers), digest) {
        (Some(token), Some(digest)) => digest.matches(token),
        (None, _) | (_, None) => false,
    }
}

/// The answer to a request without the right token.
#[must_use]
pub fn unauthorized() -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"lapwing\"")];
    (StatusCode::UNAUTHORIZED, challenge, "present the token as `Authorization: Bearer TOKEN`\n")
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::is_authorized;
    use crate::config::TokenDigest;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", value.parse().unwrap());
        headers
    }

    #[test]
    fn only_the_right_token_is_authorized() {
        let digest = TokenDigest::of("right");
        assert!(is_authorized(&headers("Bearer right"), Some(&digest)));
        assert!(is_authorized(&headers("bearer right"), Some(&digest)));
        for value in ["Bearer wrong", "Basic right", "right", "Bearer ", "Bearer right2"] {
            assert!(!is_authorized(&headers(value), Some(&digest)), "{value}");
        }
        assert!(!is_authorized(&HeaderMap::new(), Some(&digest)));
        assert!(!is_authorized(&headers("Bearer right"), None));
    }
}
