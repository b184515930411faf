//! A process runs an executable that has no name in any folder: removed before it ran, or made in
//! memory (memfd). Malware does so to leave nothing to find (T1070.004, T1620).
//!
//! Looks alike: container runtimes that run a copy of themselves from memory; those are left out by
//! name. A program that is upgraded while it runs is not meant: the sensor sets `image_deleted` for
//! what had no name when it started.

use lapwing_protocol::console::{ActivityType, Severity};
use lapwing_protocol::element::{Kind, process};

use super::{Behaviour, cause};
use crate::change::OwnedValue;
use crate::evidence::finding::Finding;
use crate::graph::{Element, Graph, bit};

pub(super) struct UnnamedExecutable;

impl Behaviour for UnnamedExecutable {
    fn kind(&self) -> Kind {
        process::KIND
    }

    fn features(&self) -> u64 {
        bit(process::image_deleted) | bit(process::image_path)
    }

    fn judge(&self, _graph: &Graph, element: &Element) -> Option<Finding> {
        let path = element.text(process::image_path).unwrap_or_default();
        let in_memory = path.contains("/memfd:") || path.starts_with("memfd:");
        let is_unnamed = element.value(process::image_deleted) == Some(&OwnedValue::Bool(true));
        if !(is_unnamed || in_memory) || path.contains("memfd:runc") {
            return None;
        }
        let (title, techniques): (_, &[&str]) = if in_memory {
            (format!("{} runs from memory alone", element.label()), &["T1620"])
        } else {
            (format!("{} runs a removed executable", element.label()), &["T1070.004"])
        };
        Some(Finding {
            rule: "unnamed_executable",
            title,
            severity: Severity::Medium,
            activity: ActivityType::MaliciousInfection,
            suspicious: true,
            techniques,
            root_cause: cause(element),
            event_key: String::new(),
            reputation: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{judge, text};
    use super::*;

    fn of(path: &str, deleted: bool) -> Option<&'static [&'static str]> {
        let fields = vec![
            (process::image_path, text(path)),
            (process::image_deleted, OwnedValue::Bool(deleted)),
        ];
        judge(&UnnamedExecutable, vec![(process::KIND, fields)]).map(|found| found.techniques)
    }

    #[test]
    fn removed_and_memory_executables_are_found() {
        assert_eq!(of("/tmp/x (deleted)", true), Some(&["T1070.004"][..]));
        assert_eq!(of("/memfd:x (deleted)", true), Some(&["T1620"][..]));
    }

    #[test]
    fn named_executables_and_container_runtimes_are_not() {
        assert_eq!(of("/usr/bin/cat", false), None);
        assert_eq!(of("/memfd:runc_cloned:/proc/self/exe (deleted)", true), None);
    }
}
