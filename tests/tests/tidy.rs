//! The style of the house as a test: `docs/style.md` says why each rule is there.
//!
//! This file only chooses which files a rule is for; the rules are functions in `src/house`.

use lapwing_tests::house::tree::{self, File};
use lapwing_tests::house::{self, Finding, docs, form, place, words};

#[test]
fn source_has_the_form_of_the_house() {
    house::hold(for_rust(form::check));
}

#[test]
fn few_files_are_long() {
    let lengths: Vec<usize> = rust().iter().map(|file| file.text.lines().count()).collect();
    house::hold(form::long_files(&lengths));
}

#[test]
fn nothing_is_unfinished_silenced_or_left_to_luck() {
    house::hold(for_rust(words::check));
}

#[test]
fn files_name_no_machine_and_no_registry() {
    let files = tree::files(&tree::root());
    house::hold(files.iter().flat_map(|file| place::check(&file.path, &file.text)).collect());
}

#[test]
fn links_lead_somewhere() {
    let paths = tree::paths(&tree::root()).into_iter().collect();
    house::hold(docs::links(&pages(), &paths));
}

#[test]
fn decisions_are_numbered_and_listed() {
    house::hold(docs::decisions(&pages()));
}

#[test]
fn requirements_are_stated_once() {
    let files = [pages(), rust()].concat();
    house::hold(docs::requirements(&files));
}

/// Without this the rule above could hold of nothing.
#[test]
fn the_protocol_states_its_requirements() {
    let pages = pages();
    let Some(page) = pages.iter().find(|page| page.path == "docs/protocol.md") else {
        panic!("docs/protocol.md is missing: write the wire down as numbered requirements");
    };
    let count = docs::requirement_count(&page.text);
    assert!(count >= 10, "docs/protocol.md states {count} requirements in a form that is found");
}

fn for_rust(rule: impl Fn(&str, &str) -> Vec<Finding>) -> Vec<Finding> {
    rust().iter().flat_map(|file| rule(&file.path, &file.text)).collect()
}

fn rust() -> Vec<File> {
    with_extension("rs")
}

fn pages() -> Vec<File> {
    with_extension("md")
}

/// Files of one kind; a kind of which there is none would make every rule pass.
fn with_extension(extension: &str) -> Vec<File> {
    let mut files = tree::files(&tree::root());
    files.retain(|file| file.has_extension(extension));
    assert!(
        !files.is_empty(),
        "the tree has no .{extension} file: the rules would hold of nothing"
    );
    files
}
