//! The rules of the house, as functions.
//!
//! Every check takes text (a source file, a manifest, a page) and returns findings, so that each
//! rule has its own small tests beside it. Nothing here decides which files are read: that is
//! `tree`, and the two tests `architecture` and `tidy` put both together. No check reads the clock
//! or the network.

pub mod docs;
pub mod edges;
pub mod form;
pub mod place;
pub mod purity;
pub mod require;
pub mod source;
pub mod tree;
pub mod words;

use std::fmt;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum Weight {
    /// Printed, but the test passes.
    Warning,
    /// The test fails.
    Failure,
}

/// One place that breaks one rule.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct Finding {
    /// Path from the root of the repository, with `/`.
    pub path: String,
    /// Line from 1; 1 where the finding is about the whole file.
    pub line: usize,
    /// The rule, in a few words, and what was found.
    pub rule: String,
    /// What to do about it.
    pub remedy: String,
    /// Whether the test fails by it.
    pub weight: Weight,
}

impl Finding {
    /// A finding that fails the test.
    pub fn new(
        path: &str,
        line: usize,
        rule: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (rule, remedy) = (rule.into(), remedy.into());
        Self { path: path.to_owned(), line, rule, remedy, weight: Weight::Failure }
    }

    /// The same finding, printed only.
    pub fn warning(mut self) -> Self {
        self.weight = Weight::Warning;
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, rule, remedy, .. } = self;
        write!(formatter, "{path}:{line}: {rule}\n    remedy: {remedy}")
    }
}

/// Prints the warnings and panics with all failures, if there are any.
///
/// # Panics
/// When a finding of weight `Failure` is among them: this is what makes the test fail.
pub fn hold(mut findings: Vec<Finding>) {
    findings.sort();
    let (failures, warnings): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|finding| finding.weight == Weight::Failure);
    for warning in &warnings {
        println!("warning: {warning}");
    }
    let lines: Vec<String> = failures.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} finding(s)\n{}", lines.len(), lines.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_place_rule_and_remedy() {
        let finding = Finding::new("a/b.rs", 7, "too long", "split it");
        assert_eq!(finding.to_string(), "a/b.rs:7: too long\n    remedy: split it");
    }

    #[test]
    fn warnings_pass() {
        hold(vec![Finding::new("a.rs", 1, "long", "split").warning()]);
    }

    #[test]
    #[should_panic(expected = "1 finding(s)")]
    fn failures_do_not() {
        hold(vec![Finding::new("a.rs", 1, "long", "split")]);
    }
}
