//! Our own sensor and the second one held against the protocol's page by servers that are played.
//!
//! Not here: the cases (`tests/conformance`). Those that wait longer than ten seconds are left out.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use lapwing_tests::house::require;
use serde_json::Value;

/// Cases at once: they wait far more than they work.
const JOBS: &str = "10";

/// The folder of the judge and of our own sensor as it wants one, built once for all tests here.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // target/PROFILE/deps/this-test
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        for wanted in [
            ["lapwing-conformance", "--bin", "lapwing-conformance"],
            ["lapwing-sensor-os", "--example", "shim"],
        ] {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--quiet", "--package"]).args(wanted).arg("--target-dir");
            build.arg(profile.parent().unwrap());
            if profile.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().unwrap().success(), "{wanted:?} does not build");
        }
        profile.to_owned()
    })
}

/// Holds the cases against `command`; none fails, and but for those in `left_out` all are passed.
fn held(command: &str, left_out: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let output = Command::new(built().join("lapwing-conformance"))
        .args(["sensor", "--quick", "--jobs", JOBS, "--cmd", command, "--report"])
        .arg(&report)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", String::from_utf8_lossy(&output.stdout));
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    for case in report["cases"].as_array().unwrap() {
        let is_left_out = left_out.iter().any(|name| case["name"] == *name);
        assert_eq!(case["verdict"], if is_left_out { "SKIP" } else { "PASS" }, "{case}");
    }
    assert!(report["pass"].as_u64().unwrap() >= 40, "{} cases passed", report["pass"]);
}

#[test]
fn our_sensor_keeps_the_page() {
    held(&built().join("examples/shim").display().to_string(), &[]);
}

#[test]
fn the_second_sensor_keeps_the_page() {
    let name = "the_second_sensor_keeps_the_page";
    if require::tool(name, "python3").is_none() || require::tool(name, "openssl").is_none() {
        return;
    }
    let sensor = Path::new(env!("CARGO_MANIFEST_DIR")).join("second/sensor.py");
    let command = format!("PYTHONDONTWRITEBYTECODE=1 python3 {} --stay yes", sensor.display());
    // It has a spool whatever it is told, and makes no more facts where that is full.
    let left_out =
        ["without_a_spool_each_start_begins_a_log", "a_full_spool_drops_its_oldest_and_says_so"];
    held(&command, &left_out);
}
