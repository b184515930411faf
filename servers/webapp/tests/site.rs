//! Pages and API as a browser and a script meet them, over peers in memory: who may, what is
//! refused, what is shown, and what a hostile string cannot do.

mod browser;
mod fixture;

use lapwing_protocol::call::Method;
use lapwing_webapp::Peer;
use serde_json::{Value, json};

use browser::{Browser, TOKEN};
use fixture::data::Words;
use fixture::{Fixture, sensor_id};

const MALOP: &str = "b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0";
/// Every page that shows what a sensor said.
const PAGES: [&str; 7] = [
    "/malops",
    "/malops/b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0",
    "/sensors",
    "/sensors/a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",
    "/investigate?q=process",
    "/reputations",
    "/system",
];

fn honest() -> (Fixture, Browser) {
    let fixture = Fixture::new(Words::honest());
    (fixture.clone(), Browser::new(&fixture))
}

#[test]
fn a_stranger_sees_the_login_and_nothing_else() {
    let (_, browser) = honest();
    for page in PAGES {
        let answer = browser.get(page);
        assert_eq!((answer.status, answer.location.as_str()), (303, "/login"), "{page}");
    }
    for path in ["/api/v1/sensors", "/api/v1/malops", "/api/v1/audit", "/events"] {
        let answer = browser.get(path);
        assert_eq!((answer.status, answer.json()["code"].clone()), (401, json!(29)), "{path}");
    }
    assert_eq!(browser.get("/login").status, 200);
    assert_eq!(browser.get("/assets/app.css").status, 200);
    assert_eq!(browser.get("/assets/../Cargo.toml").status, 404);
}

#[test]
fn the_first_password_opens_nothing_but_its_change() {
    let (_, mut browser) = honest();
    assert_eq!(browser.log_in("first password").location, "/password");
    assert_eq!(browser.get("/malops").location, "/password");
    assert_eq!(browser.get("/api/v1/sensors").status, 403);
    let short = browser.change_password("first password", "short");
    assert_eq!(short.status, 400);
    assert!(short.text.contains("at least 10 characters"));
    assert_eq!(browser.change_password("wrong", "second password").status, 400);
    assert_eq!(browser.change_password("first password", "second password").location, "/malops");
    assert_eq!(browser.get("/malops").status, 200);
}

#[test]
fn the_cookie_is_ours_alone_and_a_logout_ends_the_session() {
    let (_, mut browser) = honest();
    browser.enter();
    for part in ["__Host-lapwing=", "Path=/", "Secure", "HttpOnly", "SameSite=Strict"] {
        assert!(browser.set_cookie.contains(part), "{part}: {}", browser.set_cookie);
    }
    assert_eq!(browser.post("/logout", &[]).location, "/login");
    assert_eq!(browser.get("/malops").location, "/login");
}

#[test]
fn a_request_of_another_site_changes_nothing() {
    let (fixture, mut browser) = honest();
    browser.enter();
    let path = format!("/malops/{MALOP}/status");
    browser.site = "cross-site";
    assert_eq!(browser.post(&path, &[("status", "closed")]).status, 403);
    browser.site = "same-site";
    assert_eq!(browser.post(&path, &[("status", "closed")]).status, 403);
    browser.site = "same-origin";
    let token = std::mem::replace(&mut browser.request_token, String::from("00"));
    assert_eq!(browser.post(&path, &[("status", "closed")]).status, 403);
    assert_eq!(browser.api("POST", &format!("/malops/{MALOP}/status"), &json!({})).status, 403);
    let asked = |method| fixture.state().calls.iter().any(|(_, called)| *called == method);
    assert!(!asked(Method::MALOP_STATUS));
    browser.request_token = token;
    assert_eq!(browser.post(&path, &[("status", "closed")]).status, 303);
    assert!(asked(Method::MALOP_STATUS));
}

#[test]
fn the_sixth_wrong_password_is_not_even_looked_at() {
    let (_, mut browser) = honest();
    for _ in 0..5 {
        assert_eq!(browser.log_in("nonsense").status, 401);
    }
    let answer = browser.log_in("first password");
    assert_eq!(answer.status, 429);
    assert!(answer.text.contains("too many failed logins"));
}

#[test]
fn every_answer_tells_the_browser_what_it_must_not_do() {
    let (_, mut browser) = honest();
    browser.enter();
    for path in ["/login", "/malops", "/api/v1/sensors", "/assets/app.js", "/nowhere"] {
        let answer = browser.get(path);
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"));
        assert!(!policy.contains("unsafe"));
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert!(answer.header("strict-transport-security").starts_with("max-age="), "{path}");
    }
    assert_eq!(browser.get("/malops").header("cache-control"), "no-store");
}

#[test]
fn pages_have_no_inline_script_or_style() {
    let (_, mut browser) = honest();
    browser.enter();
    for page in PAGES {
        let text = browser.get(page).text.to_lowercase();
        assert_eq!(text.matches("<script").count(), 1, "{page}");
        assert_eq!(text.matches("<script type=\"module\" src=\"/assets/").count(), 1, "{page}");
        for inline in ["<style", " style=", "onclick", "onload", "onerror", "javascript:"] {
            assert!(!text.contains(inline), "{page}: {inline}");
        }
    }
}

#[test]
fn a_hostile_string_is_text_on_every_page() {
    let hostile = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "'><svg/onload=alert(1)>",
        "</title></textarea></script><iframe>",
        "` onmouseover=alert(1) x=`",
        "javascript:alert(1)",
        "{{7*7}}{% raw %}",
        "&lt;b&gt;",
        "a\u{202e}gpj.exe\u{200b}\u{1b}[31m\r\nSet-Cookie: x=y",
    ];
    let pages_with = |word: &str| {
        let mut browser = Browser::new(&Fixture::new(Words::all(word)));
        browser.enter();
        browser.wait_for_facts(&sensor_id());
        PAGES.map(|page| browser.get(page).text)
    };
    let plain = pages_with("harmless");
    for word in hostile {
        let pages = PAGES.into_iter().zip(pages_with(word)).zip(&plain);
        for ((page, text), plain) in pages {
            for markup in ["<script>", "<img src=x", "<svg/onload", "<iframe", "&lt;b&gt;"] {
                assert!(!text.contains(markup), "{page}: {markup} of {word:?}");
            }
            for broken in ["\"><", "href=\"javascript:", "value=\"`"] {
                // What the template itself has, for each fact and row of it.
                let expected = plain.matches(broken).count() > 0;
                let found = text.matches(broken).count() > 0;
                assert_eq!(found, expected, "{page}: {broken} of {word:?}");
            }
            let hidden = ['\u{202e}', '\u{200b}', '\u{1b}', '\r'];
            assert!(!text.contains(hidden), "{page}: a hidden character of {word:?}");
        }
    }
}

#[test]
fn a_malop_shows_its_evidence_reputation_and_chain_of_parents() {
    let (_, mut browser) = honest();
    browser.enter();
    let text = browser.get(&format!("/malops/{MALOP}")).text;
    for shown in ["Blocked program ran", "build-07", "ines", "intel.hash.blocked", "T1204.002"] {
        assert!(text.contains(shown), "{shown}");
    }
    let order = ["/usr/lib/systemd/systemd", "/usr/sbin/sshd", "/usr/bin/bash", "/tmp/.cache"];
    let places: Vec<usize> = order.iter().map(|path| text.find(path).unwrap()).collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn stopping_collection_is_ordered_by_the_page_and_told_on_it() {
    let (_, mut browser) = honest();
    browser.enter();
    let path = format!("/sensors/{}/collection", sensor_id());
    assert_eq!(browser.post(&path, &[("action", "stop")]).location, "/sensors");
    let text = browser.get(&format!("/sensors/{}", sensor_id())).text;
    assert!(text.contains("Collection is stopped."));
    assert!(text.contains("Start collection"));
}

#[test]
fn what_a_sensor_lacks_is_told_with_the_command_that_mends_it() {
    let (_, mut browser) = honest();
    browser.enter();
    browser.wait_for_facts(&sensor_id());
    let text = browser.get("/malops").text;
    assert!(text.contains("sees less than it could"));
    assert!(text.contains("sudo setcap cap_sys_admin"));
}

#[test]
fn reputations_are_added_in_canonical_form_and_removed() {
    let (fixture, mut browser) = honest();
    browser.enter();
    let fields = [("key", "Bad.Example."), ("type", ""), ("verdict", "block"), ("comment", "")];
    assert_eq!(browser.post("/reputations", &fields).status, 303);
    assert!(fixture.state().reputations.contains_key("bad.example"));
    assert!(browser.get("/reputations").text.contains("bad.example"));
    let wrong = [("key", "not a key!"), ("type", "hash"), ("verdict", "block")];
    assert_eq!(browser.post("/reputations", &wrong).status, 400);
    let remove = [("key", "bad.example"), ("type", "domain")];
    assert_eq!(browser.post("/reputations/remove", &remove).status, 303);
    assert!(fixture.state().reputations.is_empty());
}

#[test]
fn a_peer_that_is_down_is_named_with_what_to_do() {
    let (fixture, mut browser) = honest();
    browser.enter();
    fixture.state().down.insert(Peer::MalOps);
    let page = browser.get("/malops");
    assert_eq!(page.status, 200);
    assert!(page.text.contains("cannot be reached"));
    assert!(page.text.contains("What to do:"));
    let answer = browser.script("GET", "/malops", None);
    assert_eq!((answer.status, answer.json()["name"].clone()), (502, json!("unreachable")));
}

#[test]
fn one_server_down_makes_an_answer_partial_and_all_down_an_error() {
    let (fixture, browser) = honest();
    let ask = || browser.script("POST", "/elements/query", Some(json!({ "expression": "dns" })));
    assert_eq!(ask().json()["partial"], json!(false));
    fixture.state().down.insert(Peer::Detection(1));
    let partial = ask().json();
    assert_eq!(partial["partial"], json!(true));
    assert!(partial["reason"].as_str().unwrap().contains("Detection(1)"));
    fixture.state().down.insert(Peer::Detection(0));
    assert_eq!(ask().status, 502);
}

#[test]
fn the_api_speaks_the_names_of_the_contract() {
    let (_, browser) = honest();
    let fields = |path: &str, names: &[&str]| {
        let list = browser.script("GET", path, None).json();
        let first = list.as_array().unwrap().first().unwrap_or_else(|| panic!("{path}")).clone();
        for name in names {
            assert!(first.get(name).is_some(), "{path}: {name} in {first}");
        }
        first
    };
    fields(
        "/sensors",
        &[
            "id",
            "name",
            "status",
            "service",
            "collection",
            "detection",
            "version",
            "os",
            "last_seen",
            "collectors",
        ],
    );
    fields("/servers", &["name", "role", "pid", "status", "capacity", "sensors", "load"]);
    let malop = fields(
        "/malops?evidence=true",
        &[
            "id",
            "title",
            "status",
            "severity",
            "techniques",
            "root_cause",
            "machines",
            "users",
            "evidence",
            "count",
            "first_seen",
            "last_seen",
        ],
    );
    let evidence = &malop["evidence"][0];
    assert_eq!(evidence["reputation"]["verdict"], json!("block"));
    assert_eq!(evidence["processes"].as_array().unwrap().len(), 4);
    fields("/suspicions", &["id", "rule", "techniques", "element", "machine", "time"]);
    fields("/updates", &["name", "version", "target", "state"]);
    let line = fields(
        "/ledger",
        &[
            "produced",
            "stored",
            "in_flight",
            "dropped",
            "lost_unknown",
            "collector_seen",
            "undecoded",
            "balanced",
        ],
    );
    // Both servers tell the same log: it is merged by position.
    assert_eq!(line["dropped"], json!({ "spool_full": 10 }));
    let numbers = ["produced", "stored", "in_flight", "collector_seen"].map(|it| &line[it]);
    assert_eq!(json!(numbers), json!([53, 40, 3, 61]));
    assert_eq!(line["balanced"], json!(true));
}

#[test]
fn every_fact_is_exported_once_though_two_servers_have_it() {
    let (_, browser) = honest();
    let text = browser.script("GET", "/events", None).text;
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 40);
    let indexes: Vec<u64> = lines.iter().map(|line| line["index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, (1..=40).collect::<Vec<u64>>());
    for name in
        ["sensor", "server", "lane", "log", "seq", "source_seq", "time", "kind", "op", "fields"]
    {
        assert!(lines[0].get(name).is_some(), "{name}");
    }
}

#[test]
fn an_export_says_what_it_could_not_read() {
    let (fixture, browser) = honest();
    fixture.state().down.insert(Peer::Detection(1));
    let text = browser.script("GET", "/events", None).text;
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["partial"], json!(true));
}

#[test]
fn bad_arguments_are_refused_with_a_remedy() {
    let (_, browser) = honest();
    let refused = [
        browser.script("GET", "/malops?limit=many", None),
        browser.script("GET", "/malops?status=dancing", None),
        browser.script("GET", "/malops/abc", None),
        browser.script("POST", "/elements/query", Some(json!({ "expression": "" }))),
        browser.script("POST", "/elements/query", Some(json!({ "expression": "nonsense" }))),
        browser.script("POST", "/elements/query", Some(json!({ "question": "dns" }))),
        browser.script("PUT", "/reputations", Some(json!({ "type": "ip", "key": "1.2.3" }))),
        browser.script("POST", "/reputations/classify", Some(json!({ "type": "x", "key": "" }))),
        browser.script("POST", &format!("/malops/{MALOP}/comments"), Some(json!({ "text": " " }))),
    ];
    for answer in refused {
        assert_eq!(answer.status, 400, "{}", answer.text);
        let error = answer.json();
        assert_eq!(error["code"], json!(16));
        assert!(!error["message"].as_str().unwrap().is_empty());
        assert!(!error["remedy"].as_str().unwrap().is_empty());
    }
    assert_eq!(browser.script("GET", "/nowhere", None).status, 404);
}

#[test]
fn a_token_is_known_or_refused_and_a_revoked_one_is_refused() {
    let (_, mut browser) = honest();
    assert_eq!(browser.script("GET", "/sensors", None).status, 200);
    let id = browser.script("GET", "/tokens", None).json()[0]["id"].clone();
    let id = id.as_str().unwrap();
    assert_eq!(browser.script("DELETE", &format!("/tokens/{id}"), None).status, 200);
    assert_eq!(browser.script("GET", "/sensors", None).status, 401);
    browser.token = format!("{TOKEN}x");
    assert_eq!(browser.script("GET", "/sensors", None).status, 401);
}

#[test]
fn a_reset_password_is_told_once_and_must_be_changed() {
    let (_, mut browser) = honest();
    browser.enter();
    let answer = browser.script("POST", "/users/admin/reset-password", None).json();
    assert_eq!(browser.get("/malops").location, "/login");
    let password = answer["password"].as_str().unwrap().to_owned();
    assert_eq!(browser.log_in(&password).location, "/password");
    assert_eq!(browser.script("POST", "/users/nobody/reset-password", None).status, 404);
}

#[test]
fn what_was_done_is_in_the_audit_log() {
    let (_, mut browser) = honest();
    browser.enter();
    browser.post(&format!("/malops/{MALOP}/comments"), &[("text", "looked at it")]);
    browser.script("POST", "/servers/d1/actions", Some(json!({ "action": "drain" })));
    let lines = browser.script("GET", "/audit", None).json();
    let actions: Vec<&str> =
        lines.as_array().unwrap().iter().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(actions[..2], ["server drain", "malop comment"]);
    assert_eq!(lines[0]["actor"], json!("token:up"));
    assert_eq!(lines[1]["actor"], json!("admin"));
}

#[test]
fn servers_are_drained_stopped_and_started() {
    let (_, browser) = honest();
    let status = |name: &str| {
        let servers = browser.script("GET", "/servers", None).json();
        let server = servers.as_array().unwrap().iter().find(|server| server["name"] == name);
        server.unwrap()["status"].as_str().unwrap().to_owned()
    };
    let act = |action: &str| {
        browser.script("POST", "/servers/d1/actions", Some(json!({ "action": action }))).status
    };
    assert_eq!((act("drain"), status("d1").as_str()), (200, "draining"));
    assert_eq!((act("undrain"), status("d1").as_str()), (200, "up"));
    assert_eq!((act("stop"), status("d1").as_str()), (200, "stopped"));
    assert_eq!((act("start"), status("d1").as_str()), (200, "up"));
    assert_eq!(act("dance"), 400);
}
