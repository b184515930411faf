//! Words and names that have no place in the tree: unfinished work, silenced tests, sleeps, and
//! files named after nothing.
//!
//! The words are put together from pieces here, so that this file does not find itself.

use super::Finding;
use super::form::is_test_path;
use super::source::Source;

/// The name of the one file of a crate in which its tests may sleep: it polls a condition until a
/// deadline. `tests/src/wait.rs` is the one that journeys use.
pub const WAIT_FILE: &str = "wait.rs";

/// File names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 4] = ["utils.rs", "helpers.rs", "common.rs", "misc.rs"];
/// Notes to oneself.
const NOTES: [&str; 2] = [concat!("FIX", "ME"), concat!("X", "XX")];
/// Macros that stand where work is missing, or that were meant for one run.
const MACROS: [&str; 3] = [concat!("to", "do"), "unimplemented", concat!("d", "bg")];

/// All rules of this module for one Rust file.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = file_name(path);
    findings.extend(notes(path, text));
    if let Ok(source) = Source::parse(text) {
        findings.extend(unfinished(path, &source));
        findings.extend(ignored(path, &source));
        findings.extend(sleeps(path, &source));
    }
    findings
}

/// A file is named by the noun it holds.
pub fn file_name(path: &str) -> Vec<Finding> {
    let name = path.rsplit('/').next().unwrap_or(path);
    if !EMPTY_NAMES.contains(&name) {
        return Vec::new();
    }
    let remedy = "name the file by the noun it holds, or make it two files";
    vec![Finding::new(path, 1, format!("`{name}` names nothing"), remedy)]
}

/// Notes to oneself do not land.
pub fn notes(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        for note in NOTES {
            let mut words = line.split(|sign: char| !sign.is_alphanumeric() && sign != '_');
            if words.any(|word| word == note) {
                let remedy = "finish it, or open an issue and take the note away";
                findings.push(Finding::new(path, number, format!("`{note}`"), remedy));
            }
        }
    }
    findings
}

/// No macro stands in for missing work.
pub fn unfinished(path: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in MACROS {
        for line in source.lines_of(&[name, "!"]) {
            let remedy = "write what is missing, or return an error that says so";
            findings.push(Finding::new(path, line, format!("`{name}!`"), remedy));
        }
    }
    findings
}

/// No test is left out.
pub fn ignored(path: &str, source: &Source) -> Vec<Finding> {
    let remedy = "mend the test, or delete it; a missing tool is `require::tool`";
    let lines = source.lines_of(&["#", "[", "ignore"]);
    lines.into_iter().map(|line| Finding::new(path, line, "an ignored test", remedy)).collect()
}

/// Tests wait for a condition, never for luck.
pub fn sleeps(path: &str, source: &Source) -> Vec<Finding> {
    if path.rsplit('/').next() == Some(WAIT_FILE) {
        return Vec::new();
    }
    let remedy = "wait for the condition with `lapwing_tests::wait::until`, or with a polling \
                  helper in a file `wait.rs` of your own; a deadline is `Timer::at`";
    let names = source.names().into_iter().filter(|name| name.is_test || is_test_path(path));
    names
        .filter(|name| ["thread::sleep", "Timer::after"].iter().any(|end| ends(&name.text, end)))
        .map(|name| Finding::new(path, name.line, format!("`{}` in a test", name.text), remedy))
        .collect()
}

fn ends(name: &str, end: &str) -> bool {
    name == end || name.strip_suffix(end).is_some_and(|rest| rest.ends_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(path, text).len()
    }

    #[test]
    fn empty_file_names_are_found() {
        assert_eq!(file_name("a/src/utils.rs").len(), 1);
        assert!(file_name("a/src/backoff.rs").is_empty());
    }

    #[test]
    fn notes_are_found_as_whole_words() {
        let note = NOTES[0];
        assert_eq!(notes("a.rs", &format!("// {note}: later")).len(), 1);
        assert!(notes("a.rs", &format!("// {note}D and mktemp.{}", "X".repeat(6))).is_empty());
    }

    #[test]
    fn macros_for_missing_work_are_found_and_prose_is_not() {
        for name in MACROS {
            assert_eq!(count("a.rs", &format!("fn f() {{ {name}!() }}")), 1, "{name}");
            assert_eq!(count("a.rs", &format!("// {name}!()\nfn {name}() {{}}")), 0, "{name}");
        }
    }

    #[test]
    fn ignored_tests_are_found() {
        assert_eq!(count("a.rs", "#[test]\n#[ignore]\nfn f() {}"), 1);
        assert_eq!(count("a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}"), 1);
        assert_eq!(count("a.rs", "fn ignore() {}"), 0);
    }

    #[test]
    fn sleeps_are_found_in_tests_only() {
        let text = "fn f() { std::thread::sleep(d); smol::Timer::after(d); }";
        assert_eq!(count("a/tests/b.rs", text), 2);
        assert_eq!(count("a/src/b.rs", text), 0);
        assert_eq!(count("a/src/b.rs", &format!("#[cfg(test)]\nmod t {{ {text} }}")), 2);
        assert_eq!(count("a/tests/wait.rs", text), 0);
        assert_eq!(count("a/tests/b.rs", "fn f() { Timer::at(deadline); my_thread::sleep(); }"), 0);
    }
}
