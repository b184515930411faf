//! Who may depend on whom, read from the manifests.
//!
//! The two tables below are the architecture: an edge that is not in them fails the test. They hold
//! what `docs/architecture.md` tells in words; whoever changes one changes the other.

use toml::{Table, Value};

use super::Finding;

/// Every crate of the workspace and the crates of the workspace it may depend on.
pub const EDGES: [(&str, &[&str]); 15] = [
    ("lapwing-protocol", &[]),
    ("lapwing-sensor-core", &["lapwing-protocol"]),
    ("lapwing-sensor-os", &["lapwing-protocol", "lapwing-sensor-core"]),
    ("lapwing-server-core", &["lapwing-protocol"]),
    ("lapwing-store", &["lapwing-protocol", "lapwing-server-core"]),
    ("lapwing-net", &["lapwing-protocol", "lapwing-server-core", "lapwing-store"]),
    ("lapwing-registration", SERVER),
    ("lapwing-detection", SERVER),
    ("lapwing-update", SERVER),
    ("lapwing-intel", SERVER),
    ("lapwing-webapp", SERVER),
    ("lapwing-microservices", SERVER),
    ("lapwing", EVERYTHING),
    ("lapwing-tests", EVERYTHING),
    // It judges the others by the page alone: with their code it would share their faults.
    ("lapwing-conformance", &[]),
];

/// Edges that only tests may have: the sensor's shell is tested against a real server's shell.
pub const TEST_EDGES: [(&str, &[&str]); 1] =
    [("lapwing-sensor-os", &["lapwing-net", "lapwing-server-core"])];

const SERVER: &[&str] =
    &["lapwing-protocol", "lapwing-server-core", "lapwing-store", "lapwing-net"];

const EVERYTHING: &[&str] = &[
    "lapwing-protocol",
    "lapwing-sensor-core",
    "lapwing-sensor-os",
    "lapwing-server-core",
    "lapwing-store",
    "lapwing-net",
    "lapwing-registration",
    "lapwing-detection",
    "lapwing-update",
    "lapwing-intel",
    "lapwing-webapp",
    "lapwing-microservices",
    "lapwing",
];

/// Foreign crates that only some crates may name, and those crates.
pub const FOREIGN: [(&str, &[&str]); 12] = [
    ("sled", &["lapwing-store"]),
    ("redb", &["lapwing-store"]),
    ("rustls", &["lapwing-net", "lapwing-sensor-os", "lapwing-tests", "lapwing-conformance"]),
    ("futures-rustls", &["lapwing-net", "lapwing-sensor-os", "lapwing-tests"]),
    ("ring", &["lapwing-net", "lapwing-sensor-os", "lapwing-tests"]),
    ("serde_json", SPEAKERS),
    ("rcgen", CERTIFIERS),
    ("tokio", &[]),
    ("rand", &["lapwing-tests"]),
    ("openssl", &[]),
    ("native-tls", &[]),
    ("aws-lc-rs", &[]),
];

/// Those at the outer edge, where JSON is spoken.
const SPEAKERS: &[&str] =
    &["lapwing-webapp", "lapwing", "lapwing-sensor-os", "lapwing-tests", "lapwing-conformance"];

const CERTIFIERS: &[&str] = &[
    "lapwing-net",
    "lapwing-registration",
    "lapwing-sensor-os",
    "lapwing",
    "lapwing-tests",
    "lapwing-conformance",
];

/// Crates whose dependencies must do without a standard library and without a heap.
const BARE: [&str; 2] = ["lapwing-protocol", "lapwing-sensor-core"];
/// Features that bring the standard library or a heap back.
const STD_FEATURES: [&str; 4] = ["std", "use-std", "alloc", "default"];
/// Packages that must not even be reached by way of others: a second crypto provider.
const UNREACHED: [&str; 5] = ["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls"];

/// Which table of a manifest a dependency stands in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// Needed to build or to run.
    Product,
    /// Needed by tests, examples and benches.
    Test,
}

/// One line of a dependency table.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// The package's own name, also where the manifest renames it.
    pub name: String,
    /// Line from 1.
    pub line: usize,
    /// What it is for.
    pub purpose: Purpose,
    value: Value,
}

/// The manifest of one crate.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Path from the root.
    pub path: String,
    /// Name of the package.
    pub name: String,
    /// All its dependencies.
    pub dependencies: Vec<Dependency>,
    holds_lints: bool,
}

impl Manifest {
    /// Reads the manifest of a package; `None` for one without a package (the workspace's).
    ///
    /// # Errors
    /// A finding where the text is not TOML.
    pub fn parse(path: &str, text: &str) -> Result<Option<Self>, Finding> {
        let table = text.parse::<Table>().map_err(|error| {
            Finding::new(path, 1, format!("not TOML: {}", error.message()), "mend the manifest")
        })?;
        let package = table.get("package").and_then(|package| package.get("name"));
        let Some(name) = package.and_then(Value::as_str) else { return Ok(None) };
        let lints = table.get("lints").and_then(|lints| lints.get("workspace"));
        let mut dependencies = tables(&table, text);
        let targets = table.get("target").and_then(Value::as_table);
        for target in targets.into_iter().flat_map(Table::values).filter_map(Value::as_table) {
            dependencies.extend(tables(target, text));
        }
        Ok(Some(Self {
            path: path.to_owned(),
            name: name.to_owned(),
            dependencies,
            holds_lints: lints.and_then(Value::as_bool) == Some(true),
        }))
    }
}

fn tables(table: &Table, text: &str) -> Vec<Dependency> {
    let kinds = [
        ("dependencies", Purpose::Product),
        ("build-dependencies", Purpose::Product),
        ("dev-dependencies", Purpose::Test),
    ];
    let mut found = Vec::new();
    for (kind, purpose) in kinds {
        let entries = table.get(kind).and_then(Value::as_table);
        for (key, value) in entries.into_iter().flatten() {
            let package = value.get("package").and_then(Value::as_str);
            let (name, line) = (package.unwrap_or(key).to_owned(), line_of(text, key));
            found.push(Dependency { name, line, purpose, value: value.clone() });
        }
    }
    found
}

/// The first line whose key is `key`, plain, dotted or quoted.
fn line_of(text: &str, key: &str) -> usize {
    let opens = |line: &str| {
        let rest = line.trim_start().trim_start_matches('"').strip_prefix(key)?;
        rest.starts_with(['"', '.', ' ', '=']).then_some(())
    };
    text.lines().zip(1..).find(|(line, _)| opens(line).is_some()).map_or(1, |(_, number)| number)
}

/// The edges of one manifest, inside the workspace and out of it.
pub fn check(manifest: &Manifest) -> Vec<Finding> {
    let Manifest { path, name, .. } = manifest;
    let mut findings = Vec::new();
    let Some((_, allowed)) = EDGES.iter().find(|(known, _)| known == name) else {
        let remedy =
            "give it a row in EDGES of tests/src/house/edges.rs and in docs/architecture.md";
        return vec![Finding::new(
            path,
            1,
            format!("`{name}` has no place in the architecture"),
            remedy,
        )];
    };
    if !manifest.holds_lints {
        let remedy = "write `[lints]` and `workspace = true`";
        findings.push(Finding::new(
            path,
            1,
            "the crate does not take the workspace's lints",
            remedy,
        ));
    }
    for dependency in &manifest.dependencies {
        let Dependency { name: other, line, purpose, value } = dependency;
        let is_ours = EDGES.iter().any(|(known, _)| known == other);
        let in_tests = *purpose == Purpose::Test
            && TEST_EDGES.iter().any(|(from, to)| from == name && to.contains(&other.as_str()));
        if is_ours && !allowed.contains(&other.as_str()) && !in_tests {
            let rule = format!("`{name}` may not depend on `{other}`");
            let remedy = "move the shared part down into a crate that both may name";
            findings.push(Finding::new(path, *line, rule, remedy));
        }
        if value.get("workspace").and_then(Value::as_bool) != Some(true) {
            let rule = format!("`{other}` states its version here");
            let remedy = "state it in [workspace.dependencies] and write `workspace = true`";
            findings.push(Finding::new(path, *line, rule, remedy));
        }
        let is_free = *purpose == Purpose::Test && !["sled", "tokio"].contains(&other.as_str());
        let owners = FOREIGN.iter().find(|(foreign, _)| foreign == other);
        if let Some((_, owners)) =
            owners.filter(|(_, owners)| !is_free && !owners.contains(&name.as_str()))
        {
            let rule = format!("`{name}` may not name `{other}`");
            let remedy = match owners {
                [] => "no crate may; docs/decisions says what to use in its place".to_owned(),
                owners => format!("reach it through {}", owners.join(", ")),
            };
            findings.push(Finding::new(path, *line, rule, remedy));
        }
    }
    findings
}

/// The dependencies of the crates that must run without a standard library and a heap. `root` is
/// the workspace's manifest, in which versions and features stand.
pub fn bare(manifest: &Manifest, root: &Table) -> Vec<Finding> {
    if !BARE.contains(&manifest.name.as_str()) {
        return Vec::new();
    }
    let shared = root.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let mut findings = Vec::new();
    let product = manifest.dependencies.iter().filter(|found| found.purpose == Purpose::Product);
    for dependency in product.filter(|found| !EDGES.iter().any(|(known, _)| *known == found.name)) {
        let entry = shared.and_then(|shared| shared.get(&dependency.name));
        let is_default = entry.and_then(|entry| entry.get("default-features"));
        if is_default.and_then(Value::as_bool) != Some(false) {
            let rule = format!("`{}` comes with its default features", dependency.name);
            let remedy = "set `default-features = false` in [workspace.dependencies]";
            findings.push(Finding::new(&manifest.path, dependency.line, rule, remedy));
        }
        for feature in features(entry).chain(features(Some(&dependency.value))) {
            if STD_FEATURES.contains(&feature) {
                let rule =
                    format!("`{}` with `{feature}` in a crate without heap", dependency.name);
                let remedy = "take the feature away; the crate that needs it adds it for itself";
                findings.push(Finding::new(&manifest.path, dependency.line, rule, remedy));
            }
        }
    }
    findings
}

fn features(entry: Option<&Value>) -> impl Iterator<Item = &str> {
    let features = entry.and_then(|entry| entry.get("features")).and_then(Value::as_array);
    features.into_iter().flatten().filter_map(Value::as_str)
}

/// What the lock file may not hold, however it got there.
pub fn lock(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let name = line.strip_prefix("name = \"").and_then(|rest| rest.strip_suffix('"'));
        if let Some(name) = name.filter(|name| UNREACHED.contains(name)) {
            let rule = format!("`{name}` is a second crypto provider; ring is the one");
            let remedy = format!("run `cargo tree -i {name}` and turn that feature off");
            findings.push(Finding::new(path, number, rule, remedy));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, rest: &str) -> Manifest {
        let text = format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n{rest}");
        Manifest::parse("x/Cargo.toml", &text).unwrap().unwrap()
    }

    fn rules(name: &str, rest: &str) -> Vec<String> {
        check(&manifest(name, rest)).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn an_allowed_edge_passes() {
        let rest = "[dependencies]\nlapwing-protocol.workspace = true\n";
        assert!(rules("lapwing-sensor-core", rest).is_empty());
    }

    #[test]
    fn servers_do_not_name_each_other() {
        let rest = "[dependencies]\nlapwing-intel.workspace = true\n";
        let findings = check(&manifest("lapwing-detection", rest));
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 6);
        assert_eq!(findings[0].rule, "`lapwing-detection` may not depend on `lapwing-intel`");
    }

    #[test]
    fn the_sides_meet_in_protocol_only_also_in_tests() {
        let rest = "[dev-dependencies]\nlapwing-sensor-os = { workspace = true }\n";
        assert_eq!(rules("lapwing-net", rest).len(), 1);
        assert!(rules("lapwing", rest).is_empty());
    }

    #[test]
    fn the_sensor_shell_is_tested_against_a_servers_shell_and_shipped_without() {
        let tested = "[dev-dependencies]\nlapwing-net.workspace = true\n";
        assert!(rules("lapwing-sensor-os", tested).is_empty());
        let shipped = "[dependencies]\nlapwing-net.workspace = true\n";
        assert_eq!(rules("lapwing-sensor-os", shipped).len(), 1);
    }

    #[test]
    fn foreign_crates_have_their_owners() {
        let sled = "[target.'cfg(unix)'.dependencies]\nsled.workspace = true\n";
        assert_eq!(rules("lapwing-detection", sled), ["`lapwing-detection` may not name `sled`"]);
        assert!(rules("lapwing-store", sled).is_empty());
        let json = "[dependencies]\nserde_json.workspace = true\n";
        assert_eq!(rules("lapwing-store", json).len(), 1);
        assert!(rules("lapwing-webapp", json).is_empty());
    }

    #[test]
    fn a_renamed_dependency_is_seen() {
        let rest = "[dependencies]\ndisk = { workspace = true, package = \"sled\" }\n";
        assert_eq!(rules("lapwing-net", rest), ["`lapwing-net` may not name `sled`"]);
    }

    #[test]
    fn tests_may_use_json_but_not_another_store_or_runtime() {
        let rest = |name: &str| format!("[dev-dependencies]\n{name}.workspace = true\n");
        assert!(rules("lapwing-store", &rest("serde_json")).is_empty());
        assert_eq!(rules("lapwing-net", &rest("sled")).len(), 1);
        assert_eq!(rules("lapwing-net", &rest("tokio")).len(), 1);
    }

    #[test]
    fn versions_are_stated_once() {
        assert_eq!(rules("lapwing-net", "[dependencies]\nlog = \"0.4\"\n").len(), 1);
    }

    #[test]
    fn lints_are_taken_from_the_workspace_and_every_crate_has_a_place() {
        let without = "[package]\nname = \"lapwing-net\"\n";
        let parsed = Manifest::parse("x/Cargo.toml", without).unwrap().unwrap();
        assert_eq!(check(&parsed).len(), 1);
        assert_eq!(rules("lapwing-new", ""), ["`lapwing-new` has no place in the architecture"]);
    }

    #[test]
    fn bare_crates_take_nothing_that_needs_std() {
        let root = "[workspace.dependencies]\nserde = { version = \"1\", default-features = false }\n\
                    sha2 = \"1\"\nlog = { version = \"1\", default-features = false, features = [\"std\"] }";
        let root = root.parse::<Table>().unwrap();
        let count = |crate_name: &str, dependency: &str| {
            let rest = format!("[dependencies]\n{dependency}.workspace = true\n");
            bare(&manifest(crate_name, &rest), &root).len()
        };
        assert_eq!(count("lapwing-protocol", "serde"), 0);
        assert_eq!(count("lapwing-protocol", "sha2"), 1);
        assert_eq!(count("lapwing-sensor-core", "log"), 1);
        assert_eq!(count("lapwing-net", "sha2"), 0);
    }

    #[test]
    fn a_second_crypto_provider_is_found_in_the_lock_file() {
        assert_eq!(lock("Cargo.lock", "[[package]]\nname = \"aws-lc-rs\"\n").len(), 1);
        assert!(lock("Cargo.lock", "[[package]]\nname = \"ring\"\n").is_empty());
    }

    #[test]
    fn the_workspace_manifest_is_no_crate() {
        assert!(Manifest::parse("Cargo.toml", "[workspace]\n").unwrap().is_none());
        assert!(Manifest::parse("Cargo.toml", "[workspace\n").is_err());
    }
}
