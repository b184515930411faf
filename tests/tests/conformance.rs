//! The product held against its own protocol by a judge that shares no code with it.
//!
//! Not here: the cases (`tests/conformance`). What a case cannot look at it says; each reason that
//! is allowed here is named.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use lapwing_tests::platform::{self, Platform};
use serde_json::Value;

/// The judge, built once for all tests of this file.
fn judge() -> &'static Path {
    static JUDGE: OnceLock<PathBuf> = OnceLock::new();
    JUDGE.get_or_init(|| {
        let profile = platform::binary().parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "lapwing-conformance", "--target-dir"]);
        build.arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "lapwing-conformance does not build");
        profile.join("lapwing-conformance")
    })
}

/// Runs `lapwing-conformance server`, for the cases that wait no longer than ten seconds; the
/// report, which has no FAIL. `options` are as a shell reads them.
fn held(folder: &Path, options: &str) -> Value {
    let report = folder.join("report.json");
    let command = format!("exec \"$0\" server --quick --report \"$1\" {options}");
    let output =
        Command::new("sh").args(["-c", &command]).arg(judge()).arg(&report).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", String::from_utf8_lossy(&output.stdout));
    let page = std::fs::read_to_string(report.with_extension("html")).unwrap();
    assert!(page.contains("DLV-001"), "the page does not tell the requirements");
    serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap()
}

/// `count` cases passed at the least, and none was left out for another reason than one of
/// `allowed`.
fn passes(report: &Value, count: u64, allowed: &[&str]) {
    assert!(report["pass"].as_u64().unwrap() >= count, "{} cases passed", report["pass"]);
    for case in report["cases"].as_array().unwrap() {
        let reason = case["reasons"][0].as_str().unwrap_or_default();
        let is_allowed = allowed.iter().any(|option| reason.starts_with(option));
        assert!(case["verdict"] != "SKIP" || is_allowed, "{}: {reason}", case["name"]);
    }
}

#[test]
fn the_detection_server_keeps_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let server = format!("{} detection --config", platform::binary().display());
    let prepared = Command::new(judge())
        .args(["prepare", "--server", &server, "--out"])
        .arg(folder.path().join("deployment"))
        .output()
        .unwrap();
    let options = String::from_utf8(prepared.stdout).unwrap();
    passes(&held(folder.path(), options.trim()), 125, &["--registration"]);
}

/// Two servers to be assigned to; and one of their certificates, which must not speak for another.
#[test]
fn registration_keeps_the_page() {
    let platform = Platform::start(&["--no-sensor", "--capacity", "100,100"]);
    let ready = platform.ready();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let registration = text(&ready["registration"]);
    let detection = &ready["detection"][0];
    let (sensors, name) = (text(&detection["sensor"]), text(&detection["name"]));
    let (token, ca) = (text(&ready["enrolment_token"]), text(&ready["ca_file"]));
    let lent = platform.folder().join("lent");
    std::fs::create_dir(&lent).unwrap();
    let own = platform.folder().join("data/servers").join(name);
    for (from, to) in [("cert.pem", "detection.pem"), ("key.pem", "detection-key.pem")] {
        std::fs::copy(own.join(from), lent.join(to)).unwrap();
    }
    let only = "assign,trouble_moves,registration,speaks_for_another,enrol,key,token,request,role";
    let options = format!(
        "--addr {sensors} --enrol-addr {registration} --registration {registration} \
         --token {token} --ca {ca} --identities {} --only {only}",
        lent.display()
    );
    passes(
        &held(platform.folder(), &options),
        12,
        &["--identities has no", "neither --server-cmd"],
    );
}
