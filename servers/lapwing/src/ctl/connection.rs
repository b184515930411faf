//! Where the platform is, and as whom to speak: from a ready file or from three options.

use std::path::{Path, PathBuf};

use axum::http::Method;
use lapwing_net::http::{Answering, Client};
use lapwing_net::identity::Role;
use lapwing_net::tls::{ClientTls, ExpectedPeer, Plane};
use serde_json::Value;

use super::arguments::Ctl;
use super::problem::Problem;
use crate::exit::Exit;
use crate::up::default_data;

/// A way to the API.
pub(super) struct Connection {
    client: Client,
    base: String,
}

/// An answer's body, and what its server says is missing.
pub(super) struct Whole {
    pub(super) value: Value,
    pub(super) partial: Option<String>,
}

/// Where, as whom, and whom to believe.
struct Target {
    server: String,
    token: String,
    ca: PathBuf,
}

impl Connection {
    /// Reads what the options name. Nothing is connected yet.
    pub(super) fn open(ctl: &Ctl) -> Result<Self, Problem> {
        let target = match (&ctl.server, &ctl.ready_file) {
            (Some(_), Some(_)) => {
                let remedy = "give one of --ready-file and --server";
                return Err(Problem::usage("two platforms are named", remedy));
            }
            (Some(server), None) => named(ctl, server)?,
            (None, Some(file)) => from_ready_file(file)?,
            (None, None) => from_ready_file(&default_ready_file()?)?,
        };
        let expected = ExpectedPeer { role: Some(Role::Webapp), ..ExpectedPeer::default() };
        let tls = ClientTls::anonymous(&target.ca, Plane::Http, expected)
            .map_err(|error| Problem::usage(error.to_string(), "name the CA with --ca"))?;
        let base = format!("{}/api/v1", target.server.trim_end_matches('/'));
        Ok(Self { client: Client::new(tls).with_token(&target.token), base })
    }

    /// Asks, and reads the whole JSON answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Whole, Problem> {
        let url = format!("{}{path}", self.base);
        let headers: &[(&str, &str)] = match body {
            Some(_) => &[("content-type", "application/json")],
            None => &[],
        };
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let answer = self
            .client
            .send(method, &url, headers, bytes)
            .await
            .map_err(|error| Problem::of_http(&error, &url))?;
        if !answer.status.is_success() {
            return Err(Problem::of_answer(answer.status.as_u16(), &answer.body));
        }
        let partial = answer.headers.get("lapwing-partial");
        let partial = partial.and_then(|text| text.to_str().ok()).map(String::from);
        let value = serde_json::from_slice(&answer.body).map_err(|error| {
            let message = format!("{url}: the answer is not JSON: {error}");
            Problem::new(Exit::Failed, message, "check that --server names a Lapwing WebApp")
        })?;
        Ok(Whole { value, partial })
    }

    /// Asks, and leaves the answer's body to be read in pieces.
    pub(super) async fn stream(&self, path: &str) -> Result<Answering, Problem> {
        let url = format!("{}{path}", self.base);
        let answering = self.client.open(Method::GET, &url, &[], Vec::new()).await;
        let mut answering = answering.map_err(|error| Problem::of_http(&error, &url))?;
        if answering.status.is_success() {
            return Ok(answering);
        }
        let mut body = Vec::new();
        while let Ok(Some(piece)) = answering.next().await {
            body.extend(piece);
        }
        Err(Problem::of_answer(answering.status.as_u16(), &body))
    }
}

fn named(ctl: &Ctl, server: &str) -> Result<Target, Problem> {
    let (Some(token_file), Some(ca)) = (&ctl.token_file, &ctl.ca) else {
        let message = "--server needs --token-file FILE and --ca FILE";
        return Err(Problem::usage(message, "or name a ready file with --ready-file FILE"));
    };
    let token = read(token_file)?.trim().to_owned();
    Ok(Target { server: server.to_owned(), token, ca: ca.clone() })
}

fn from_ready_file(file: &Path) -> Result<Target, Problem> {
    let value: Value = serde_json::from_str(&read(file)?).map_err(|error| {
        let message = format!("{}: {error}", file.display());
        Problem::usage(message, "name the file that `lapwing up --ready-file FILE` wrote")
    })?;
    let text = |key: &str| {
        value.get(key).and_then(Value::as_str).map(String::from).ok_or_else(|| {
            let message = format!("{}: it has no {key:?}", file.display());
            Problem::usage(message, "name the file that `lapwing up --ready-file FILE` wrote")
        })
    };
    Ok(Target { server: text("web")?, token: text("api_token")?, ca: text("ca_file")?.into() })
}

fn default_ready_file() -> Result<PathBuf, Problem> {
    let file = default_data().map(|data| data.join("ready.json"));
    file.filter(|file| file.exists()).ok_or_else(|| {
        let message = "no platform runs on this machine's default data folder";
        let remedy = "start it (`lapwing up`), or name one with --ready-file FILE or --server URL";
        Problem::new(Exit::Unreachable, message, remedy)
    })
}

fn read(file: &Path) -> Result<String, Problem> {
    std::fs::read_to_string(file).map_err(|error| {
        let message = format!("{}: {error}", file.display());
        Problem::usage(message, "name a file that exists and that you may read")
    })
}

/// A text as a part of a path or query.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn whatever_has_a_meaning_in_a_url_is_encoded() {
        assert_eq!(encoded("a b/c?d=\u{e4}&::1"), "a%20b%2Fc%3Fd%3D%C3%A4%26%3A%3A1");
    }
}
