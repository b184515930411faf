//! A browser's and a script's end, without a socket: cookies, forms, and answers to look at.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails by it; one file uses it")]

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, header};
use http_body_util::BodyExt as _;
use lapwing_net::config::TokenDigest;
use lapwing_net::durable_file::{Access, write};
use lapwing_net::runtime::Executor;
use lapwing_net::shutdown;
use lapwing_store::MemoryDisk;
use lapwing_webapp::config::FirstUser;
use serde_json::Value;
use smol::block_on;
use tower_service::Service as _;

use crate::fixture::Fixture;

/// The API token that there is.
pub const TOKEN: &str = "the token of the test";

/// An answer.
pub struct Answer {
    pub status: u16,
    pub location: String,
    pub text: String,
    headers: HeaderMap,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Whoever asks.
pub struct Browser {
    site_router: Router,
    executor: Executor,
    _trigger: shutdown::ShutdownTrigger,
    cookie: String,
    /// The last cookie that was given.
    pub set_cookie: String,
    pub request_token: String,
    /// What the browser says of where a request comes from.
    pub site: &'static str,
    pub token: String,
}

impl Browser {
    pub fn new(fixture: &Fixture) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write(&path("password"), b"first password", Access::Owner).unwrap();
        let digest = TokenDigest::of(TOKEN).to_string();
        write(&path("token"), digest.as_bytes(), Access::Owner).unwrap();
        let first = FirstUser {
            name: String::from("admin"),
            password_file: path("password"),
            api_token_digest_file: Some(path("token")),
        };
        let executor: Executor = Arc::new(smol::Executor::new());
        let (trigger, stop) = shutdown::pair();
        let store = Arc::new(MemoryDisk::new("site").open().unwrap());
        let transport = Arc::new(fixture.clone());
        let site = lapwing_webapp::site(transport, store, Some(&first), &executor, stop);
        Self {
            site_router: block_on(site).unwrap(),
            executor,
            _trigger: trigger,
            cookie: String::new(),
            set_cookie: String::new(),
            request_token: String::new(),
            site: "same-origin",
            token: TOKEN.to_owned(),
        }
    }

    fn send(&self, request: Request<Body>) -> Answer {
        let mut router = self.site_router.clone();
        block_on(self.executor.run(async {
            let response = router.call(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let text = body.collect().await.unwrap().to_bytes();
            let location = parts.headers.get(header::LOCATION);
            Answer {
                status: parts.status.as_u16(),
                location: location.map_or("", |place| place.to_str().unwrap()).to_owned(),
                text: String::from_utf8(text.to_vec()).unwrap(),
                headers: parts.headers,
            }
        }))
    }

    pub fn get(&self, path: &str) -> Answer {
        let request = Request::get(path).header(header::COOKIE, &self.cookie);
        self.send(request.body(Body::empty()).unwrap())
    }

    /// Sends a form of a page.
    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let token = [("request_token", self.request_token.as_str())];
        let pairs = token.iter().chain(fields);
        let body: Vec<String> =
            pairs.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let request = Request::post(path)
            .header(header::COOKIE, &self.cookie)
            .header("sec-fetch-site", self.site)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(body.join("&"))).unwrap())
    }

    /// Asks the API as a script of the page does.
    pub fn api(&self, method: &str, path: &str, body: &Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(header::COOKIE, &self.cookie)
            .header("sec-fetch-site", self.site)
            .header("x-request-token", &self.request_token)
            .header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap())
    }

    /// Asks the API with the token.
    pub fn script(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json");
        let body = body.map_or(Body::empty(), |body| Body::from(body.to_string()));
        self.send(request.body(body).unwrap())
    }

    pub fn log_in(&mut self, password: &str) -> Answer {
        let form = self.get("/login");
        self.take_cookie(&form);
        self.request_token = token_in(&form.text);
        let answer = self.post("/login", &[("name", "admin"), ("password", password)]);
        self.take_cookie(&answer);
        if answer.location == "/password" {
            self.request_token = token_in(&self.get("/password").text);
        }
        answer
    }

    pub fn change_password(&self, old: &str, new: &str) -> Answer {
        self.post("/password", &[("old", old), ("new", new), ("again", new)])
    }

    /// Logs in and changes the first password.
    pub fn enter(&mut self) {
        self.log_in("first password");
        let changed = self.change_password("first password", "second password");
        assert_eq!(changed.location, "/malops", "{}", changed.text);
    }

    /// Waits until the site has heard of a sensor's facts.
    pub fn wait_for_facts(&self, sensor: &str) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !self.get(&format!("/sensors/{sensor}")).text.contains("<li><time") {
            assert!(std::time::Instant::now() < deadline, "no fact arrived");
            let pause = std::time::Instant::now() + std::time::Duration::from_millis(20);
            block_on(self.executor.run(smol::Timer::at(pause)));
        }
    }

    fn take_cookie(&mut self, answer: &Answer) {
        let given = answer.header("set-cookie");
        if !given.is_empty() {
            self.set_cookie = given.to_owned();
            self.cookie = given.split(';').next().unwrap().to_owned();
        }
    }
}

fn token_in(text: &str) -> String {
    let mark = "name=\"request_token\" value=\"";
    let start = text.find(mark).unwrap_or_else(|| panic!("no form in {text}")) + mark.len();
    text[start..].split('"').next().unwrap().to_owned()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
