//! What source may name, by where it lies: cores read no clock, disk, network or environment; one
//! module and one test tool hold `unsafe`; each storage engine is named in one file.
//!
//! Test code inside the cores is free. The manifest side of the same rules is in `edges`.

use super::Finding;
use super::form::is_test_path;
use super::source::{Name, Source};

/// Source folders whose code does no I/O.
pub const CORES: [&str; 3] = ["protocol/src/", "sensor-core/src/", "servers/core/src/"];
/// Crate roots that must say `#![no_std]`.
pub const BARE_ROOTS: [&str; 2] = ["protocol/src/lib.rs", "sensor-core/src/lib.rs"];
/// Fault points for the simulator: behind a feature it names the standard library.
pub const FAULT_POINTS_FILE: &str = "protocol/src/buggify.rs";
/// Where `unsafe` may stand.
pub const UNSAFE_FOLDER: &str = "sensor-os/src/sys";
/// The one test tool that needs `unsafe`: no safe call cuts the power of a file system.
pub const UNSAFE_TOOL: &str = "servers/store/tests/power/shutdown.rs";
/// The one file that names sled.
pub const SLED_FILE: &str = "servers/store/src/sled.rs";
/// The one file that names redb.
pub const REDB_FILE: &str = "servers/store/src/redb.rs";

/// Names, and everything below them, that a core does not use.
const IMPURE: [&str; 13] = [
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "rand",
    "getrandom",
    "smol",
    "async_io",
    "tokio",
];
/// Calls that read a clock, whatever they are brought in as.
const CLOCKS: [&str; 4] =
    ["Instant::now", "SystemTime::now", "std::time::Instant", "std::time::SystemTime"];

/// All rules of this module for one Rust file.
pub fn check(path: &str, source: &Source) -> Vec<Finding> {
    let mut findings = unsafe_places(path, source);
    for (engine, file) in [("sled", SLED_FILE), ("redb", REDB_FILE)] {
        findings.extend(engine_places(path, source, engine, file));
    }
    let is_product = !is_test_path(path);
    if is_product && CORES.iter().any(|core| path.starts_with(core)) {
        findings.extend(pure(path, source));
    }
    let in_bare = |root: &&str| root.strip_suffix("lib.rs").is_some_and(|at| path.starts_with(at));
    if is_product && path != FAULT_POINTS_FILE && BARE_ROOTS.iter().any(in_bare) {
        findings.extend(without_std(path, source));
    }
    findings.extend(crate_root(path, source));
    findings
}

/// A core names no clock, disk, network, environment, thread or source of chance.
pub fn pure(path: &str, source: &Source) -> Vec<Finding> {
    let names = source.names().into_iter().filter(|name| !name.is_test);
    let mut findings = Vec::new();
    for name in names {
        let is_clock =
            CLOCKS.iter().any(|clock| is_below(&name.text, clock) || ends(&name.text, clock));
        let is_impure = IMPURE.iter().any(|impure| is_below(&name.text, impure));
        if is_clock || is_impure {
            let rule = format!("a core names `{}`", name.text);
            let remedy = match is_clock {
                true => "take `now` as the first argument; the shell reads the clock",
                false => "take the value as an argument (addresses are in `core::net`)",
            };
            findings.push(Finding::new(path, name.line, rule, remedy));
        }
    }
    findings
}

/// A crate without std names nothing of it, nor of alloc.
pub fn without_std(path: &str, source: &Source) -> Vec<Finding> {
    let is_std = |name: &Name| {
        !name.is_test && ["std", "alloc"].iter().any(|library| is_below(&name.text, library))
    };
    let names = source.names().into_iter().filter(is_std);
    let remedy = "use `core`, or storage that the caller lends";
    names
        .map(|name| Finding::new(path, name.line, format!("`{}` without std", name.text), remedy))
        .collect()
}

/// Crate roots: `no_std` where it is promised, `unsafe` forbidden wherever it has no place.
pub fn crate_root(path: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_bare = BARE_ROOTS.contains(&path);
    if is_bare && source.lines_of(&["#", "!", "[", "no_std", "]"]).is_empty() {
        let remedy = "write `#![no_std]`, without a condition";
        findings.push(Finding::new(path, 1, "the crate is not `no_std`", remedy));
    }
    let is_library = path.ends_with("/src/lib.rs") && !path.starts_with("sensor-os/");
    let forbids = source.lines_of(&["#", "!", "[", "forbid", "(", "unsafe_code"]);
    if is_library && forbids.is_empty() {
        let remedy = "write `#![forbid(unsafe_code)]` below the opening";
        findings.push(Finding::new(path, 1, "the crate does not forbid `unsafe`", remedy));
    }
    findings
}

/// `unsafe` stands in one module, and no other silences the lint against it.
pub fn unsafe_places(path: &str, source: &Source) -> Vec<Finding> {
    let is_sensors = path == "sensor-os/src/sys.rs" || path.starts_with("sensor-os/src/sys/");
    if is_sensors || path == UNSAFE_TOOL {
        return Vec::new();
    }
    let remedy = "call a safe function of `sensor-os/src/sys`, or add one there";
    let lines = source.lines_of(&["unsafe"]).into_iter();
    let mut findings: Vec<Finding> =
        lines.map(|line| Finding::new(path, line, "`unsafe` outside its module", remedy)).collect();
    for word in ["allow", "expect"] {
        for line in source.lines_of(&[word, "(", "unsafe_code"]) {
            let is_parent = path == "sensor-os/src/lib.rs";
            let rule = "the lint against `unsafe` is silenced";
            findings.extend((!is_parent).then(|| Finding::new(path, line, rule, remedy)));
        }
    }
    findings
}

/// One file, and what lies below it, names a storage engine.
pub fn engine_places(path: &str, source: &Source, engine: &str, file: &str) -> Vec<Finding> {
    let below = file.strip_suffix(".rs").and_then(|folder| path.strip_prefix(folder));
    if path == file || below.is_some_and(|rest| rest.starts_with('/')) {
        return Vec::new();
    }
    let names = source.names().into_iter().filter(|name| is_below(&name.text, engine));
    let remedy = format!("go through the `Store` trait; our own module is `crate::{engine}`");
    names
        .map(|name| {
            let rule = format!("`{}` names {engine}", name.text);
            Finding::new(path, name.line, rule, remedy.as_str())
        })
        .collect()
}

fn is_below(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn ends(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<String> {
        let source = Source::parse(text).unwrap();
        check(path, &source).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn cores_read_no_clock() {
        let text = "use std::time::{Duration, Instant};\nfn f() { Instant::now(); }";
        assert_eq!(
            rules("servers/core/src/a.rs", text),
            ["a core names `std::time::Instant`", "a core names `Instant::now`"]
        );
        assert!(rules("servers/net/src/a.rs", text).is_empty());
        assert!(rules("servers/core/src/a.rs", "use std::time::Duration;").is_empty());
    }

    #[test]
    fn cores_reach_for_nothing_outside() {
        for name in ["std::fs::read", "std::net::TcpStream", "std::env::var", "rand::random"] {
            let text = format!("fn f() {{ {name}(); }}");
            assert_eq!(rules("servers/core/src/a.rs", &text).len(), 1, "{name}");
            let test = format!("#[cfg(test)]\nmod tests {{ {text} }}");
            assert!(rules("servers/core/src/a.rs", &test).is_empty(), "{name}");
            assert!(rules("servers/core/src/a/tests.rs", &text).is_empty(), "{name}");
        }
        assert!(rules("servers/core/src/a.rs", "use core::net::IpAddr;").is_empty());
        assert!(rules("servers/core/src/a.rs", "use std::collections::BTreeMap;").is_empty());
    }

    #[test]
    fn bare_crates_name_no_std() {
        assert_eq!(rules("protocol/src/a.rs", "use std::fmt;").len(), 1);
        assert_eq!(rules("sensor-core/src/a.rs", "extern crate alloc;").len(), 1);
        assert!(rules("protocol/src/a.rs", "use core::fmt;").is_empty());
        let test = "#[cfg(test)]\nextern crate std;\nuse core::fmt;";
        assert!(rules("protocol/src/a.rs", test).is_empty());
    }

    #[test]
    fn roots_say_what_they_are() {
        let both = "#![no_std]\n#![forbid(unsafe_code)]\n";
        assert!(rules("protocol/src/lib.rs", both).is_empty());
        assert_eq!(rules("protocol/src/lib.rs", "#![cfg_attr(not(test), no_std)]").len(), 2);
        assert_eq!(rules("servers/net/src/lib.rs", ""), ["the crate does not forbid `unsafe`"]);
        assert!(rules("sensor-os/src/lib.rs", "").is_empty());
    }

    #[test]
    fn unsafe_has_one_place() {
        let text = "fn f() { unsafe { g() } }";
        assert_eq!(rules("servers/net/src/a.rs", text), ["`unsafe` outside its module"]);
        assert!(rules("sensor-os/src/sys/linux.rs", text).is_empty());
        assert!(rules("sensor-os/src/sys.rs", text).is_empty());
        assert!(rules(UNSAFE_TOOL, text).is_empty());
        assert_eq!(rules("sensor-os/src/system.rs", text).len(), 1);
        assert_eq!(rules("sensor-os/src/a.rs", "#![allow(unsafe_code)]").len(), 1);
        assert!(rules("servers/net/src/a.rs", "// unsafe\nconst A: &str = \"unsafe\";").is_empty());
    }

    #[test]
    fn an_engine_has_one_file() {
        assert_eq!(rules("servers/store/src/disk.rs", "use redb::Database;").len(), 1);
        assert!(rules("servers/store/src/redb/tests.rs", "use redb::Database;").is_empty());
        assert_eq!(rules("servers/store/src/journal.rs", "use sled::Db;").len(), 1);
        assert_eq!(rules("tests/tests/a.rs", "fn f() { sled::open(p); }").len(), 1);
        assert!(rules(SLED_FILE, "use sled::Db;").is_empty());
        assert!(rules("servers/store/src/a.rs", "pub use self::sled::SledStore;").is_empty());
    }
}
