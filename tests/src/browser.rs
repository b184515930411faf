//! A real browser for a test: headless Chromium, driven over WebDriver.
//!
//! Only what the journeys need: open, type, click, read, look. Chromium is kept from asking
//! anything outside this machine.

#![allow(clippy::expect_used, reason = "a test fails where it stands")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::wait;

/// How long the driver may take to answer: a bound for failing.
const ANSWER: Duration = Duration::from_secs(60);
/// The name under which WebDriver hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser whose window is `width` by `height`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(chromedriver: &Path, (width, height): (u32, u32)) -> Self {
        let port = {
            let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
            free.local_addr().expect("it is bound").port()
        };
        let driver = Command::new(chromedriver)
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let profile = tempfile::tempdir().expect("a folder for its profile");
        let mut browser = Self { driver, address, session: String::new(), profile };
        wait::until("chromedriver to listen", ANSWER, || TcpStream::connect(address).ok());
        let folder = browser.profile.path().display();
        let mut arguments =
            vec![format!("--user-data-dir={folder}"), format!("--window-size={width},{height}")];
        let fixed = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
        ];
        arguments.extend(fixed.map(str::to_owned));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "acceptInsecureCerts": true,
            "goog:chromeOptions": { "args": arguments },
        }}});
        let session = browser.ask("POST", "/session", &wanted);
        let id = session["sessionId"].as_str();
        browser.session = id.unwrap_or_else(|| panic!("no browser: {session}")).to_owned();
        browser
    }

    /// Opens a page.
    pub fn open(&self, url: &str) {
        self.command("POST", "url", &json!({ "url": url }));
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        self.command("GET", "url", &Value::Null).as_str().unwrap_or_default().to_owned()
    }

    /// Types `text` into the first element that `selector` names.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn fill(&self, selector: &str, text: &str) {
        self.fill_element(&self.wait_for(selector), text);
    }

    /// Clicks the first element that `selector` names.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn click(&self, selector: &str) {
        let element = self.wait_for(selector);
        self.command("POST", &format!("element/{element}/click"), &json!({}));
    }

    /// Waits for an element that `selector` names.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn wait_for(&self, selector: &str) -> String {
        wait::until(&format!("{selector} on the page"), ANSWER, || self.find(selector))
    }

    /// All elements that `selector` names.
    #[must_use]
    pub fn all(&self, selector: &str) -> Vec<String> {
        let by = json!({ "using": "css selector", "value": selector });
        let found = self.command("POST", "elements", &by);
        let elements = found.as_array().into_iter().flatten();
        elements.filter_map(|element| element[ELEMENT].as_str().map(str::to_owned)).collect()
    }

    /// Types `text` into an element that [`Self::all`] gave.
    pub fn fill_element(&self, element: &str, text: &str) {
        self.command("POST", &format!("element/{element}/value"), &json!({ "text": text }));
    }

    fn find(&self, selector: &str) -> Option<String> {
        let by = json!({ "using": "css selector", "value": selector });
        self.command("POST", "element", &by)[ELEMENT].as_str().map(str::to_owned)
    }

    /// The text that a person reads on the page.
    #[must_use]
    pub fn text(&self) -> String {
        let script = json!({ "script": "return document.body.innerText", "args": [] });
        self.command("POST", "execute/sync", &script).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a person can read `text` on the page.
    ///
    /// # Panics
    /// When that is not so in time; with what the page says.
    pub fn wait_for_text(&self, text: &str) {
        let mut said = String::new();
        let found = wait::attempt(ANSWER, || {
            said = self.text();
            said.contains(text).then_some(())
        });
        assert!(found.is_some(), "{text:?} does not appear at {}:\n{said}", self.url());
    }

    /// What a script says of the page.
    #[must_use]
    pub fn run(&self, script: &str) -> Value {
        self.command("POST", "execute/sync", &json!({ "script": script, "args": [] }))
    }

    fn command(&self, method: &str, command: &str, body: &Value) -> Value {
        self.ask(method, &format!("/session/{}/{command}", self.session), body)
    }

    /// One WebDriver request; the answer's `value`.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(self.address).expect("chromedriver listens");
        stream.set_read_timeout(Some(ANSWER)).expect("a limit");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("chromedriver listens");
        let mut answer = Vec::new();
        // chromedriver may keep the connection open behind a whole answer.
        let mut piece = [0; 65_536];
        while whole_body(&answer).is_none() {
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(length) => answer.extend_from_slice(&piece[..length]),
            }
        }
        let text = whole_body(&answer).unwrap_or_default();
        let answer: Value = serde_json::from_slice(text).unwrap_or(Value::Null);
        answer["value"].clone()
    }
}

/// The body of an HTTP answer once all of it is there.
fn whole_body(answer: &[u8]) -> Option<&[u8]> {
    let head_end = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let (head, body) = answer.split_at(head_end);
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    let length: usize = length.trim().parse().ok()?;
    body.get(..length)
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            self.command("DELETE", "", &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_whole_when_its_length_says_so() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab";
        assert_eq!(whole_body(answer), None);
        assert_eq!(whole_body(&[&answer[..], b"c"].concat()), Some(&b"abc"[..]));
    }
}
