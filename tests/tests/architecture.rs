//! The architecture as a test: who depends on whom, and what may be named where.
//!
//! The allowed edges and owners are tables in `src/house/edges.rs`; `docs/architecture.md` tells
//! them in words. A failure names the file, the line, the rule and the remedy.

use lapwing_tests::house::edges::{self, Manifest};
use lapwing_tests::house::source::Source;
use lapwing_tests::house::tree::{self, File};
use lapwing_tests::house::{self, purity};

#[test]
fn crates_depend_only_on_what_they_may() {
    house::hold(manifests().iter().flat_map(edges::check).collect());
}

#[test]
fn every_crate_of_the_architecture_is_there() {
    let manifests = manifests();
    for (name, _) in edges::EDGES {
        assert!(manifests.iter().any(|found| found.name == name), "no manifest of `{name}`");
    }
}

#[test]
fn crates_without_std_take_nothing_that_needs_it() {
    let root = text("Cargo.toml").parse().expect("the workspace's manifest is TOML");
    house::hold(manifests().iter().flat_map(|found| edges::bare(found, &root)).collect());
}

#[test]
fn there_is_one_crypto_provider() {
    house::hold(edges::lock("Cargo.lock", &text("Cargo.lock")));
}

#[test]
fn source_names_only_what_its_place_allows() {
    let sources = files().into_iter().filter(|file| file.has_extension("rs"));
    let findings = sources.filter_map(|file| {
        let source = Source::parse(&file.text).ok()?; // what does not parse is `tidy`'s to report
        Some(purity::check(&file.path, &source))
    });
    house::hold(findings.flatten().collect());
}

fn manifests() -> Vec<Manifest> {
    let ours = files()
        .into_iter()
        .filter(|file| file.path.ends_with("Cargo.toml") && !file.path.starts_with("fuzz/"));
    let read = |file: File| match Manifest::parse(&file.path, &file.text) {
        Ok(manifest) => manifest,
        Err(finding) => panic!("{finding}"),
    };
    ours.filter_map(read).collect()
}

fn text(path: &str) -> String {
    let file = files().into_iter().find(|file| file.path == path);
    file.unwrap_or_else(|| panic!("{path} is missing")).text
}

fn files() -> Vec<File> {
    tree::files(&tree::root())
}
