//! What is wrong with a configuration file: file, line, key, problem, remedy.
//!
//! Invariants: lines count from 1; every error carries a remedy.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

/// A mistake in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The line, from 1, where one is to blame.
    pub line: Option<usize>,
    /// The dotted key, where one is to blame.
    pub key: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": `{key}`")?;
        }
        write!(f, ": {}; {}", self.problem, self.remedy)
    }
}

impl std::error::Error for ConfigError {}

/// What the checks have against one key.
pub(super) struct Refusal {
    pub(super) key: &'static str,
    pub(super) problem: String,
    pub(super) remedy: &'static str,
}

const EXAMPLE_REMEDY: &str = "see the example in docs/sensor.md";

impl ConfigError {
    pub(super) fn unreadable(file: &Path, error: &io::Error) -> Self {
        let (problem, remedy) = match error.kind() {
            io::ErrorKind::NotFound => ("there is no such file", "name an existing file"),
            io::ErrorKind::PermissionDenied => {
                ("the file may not be read", "let this process' user read it")
            }
            io::ErrorKind::InvalidData => {
                ("the file is too long for a configuration, or not text", "name the right file")
            }
            _ => ("the file cannot be read", "see the system's log for the disk"),
        };
        Self {
            file: file.to_path_buf(),
            line: None,
            key: None,
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    pub(super) fn from_toml(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let message = error.message().trim().replace('\n', ", ");
        let line = error.span().map(|span| line_of(text, span.start));
        let at = error.span().and_then(|span| key_at(text, &span));
        let mut quoted = message.split('`').skip(1).step_by(2).map(str::to_owned);
        let (key, problem, remedy) = if message.starts_with("unknown field") {
            let unknown = quoted.next().unwrap_or_default();
            let known: Vec<String> = quoted.collect();
            let remedy = match nearest(&unknown, &known) {
                Some(key) => format!("write `{key}`"),
                None => format!("take it away, or write one of {}", known.join(", ")),
            };
            (Some(at.unwrap_or(unknown)), "unknown key".to_owned(), remedy)
        } else if message.starts_with("missing field") {
            let missing = quoted.next().unwrap_or_default();
            let key = at.map_or(missing.clone(), |table| format!("{table}.{missing}"));
            (Some(key), "the key is missing".to_owned(), EXAMPLE_REMEDY.to_owned())
        } else if message.starts_with("unknown variant") {
            let unknown = quoted.next().unwrap_or_default();
            let known: Vec<String> = quoted.collect();
            let remedy = format!("write one of {}", known.join(", "));
            (at, format!("{unknown:?} is none of its values"), remedy)
        } else if at.is_none() {
            let remedy = "mend the line; strings stand in double quotes".to_owned();
            (None, format!("not TOML: {message}"), remedy)
        } else {
            let (problem, remedy) = match message.split_once("; ") {
                Some((problem, remedy)) => (problem.to_owned(), remedy.to_owned()),
                None => (message, EXAMPLE_REMEDY.to_owned()),
            };
            (at, problem, remedy)
        };
        Self { file: file.to_path_buf(), line, key, problem, remedy }
    }

    pub(super) fn refused(file: &Path, text: &str, refusal: Refusal) -> Self {
        let line = keys(text)
            .into_iter()
            .find(|found| found.key == refusal.key)
            .map(|found| line_of(text, found.key_span.start));
        Self {
            file: file.to_path_buf(),
            line,
            key: Some(refusal.key.into()),
            problem: refusal.problem,
            remedy: refusal.remedy.into(),
        }
    }
}

struct Located {
    key: String,
    key_span: Range<usize>,
    value_span: Range<usize>,
}

fn keys(text: &str) -> Vec<Located> {
    let mut found = Vec::new();
    if let Ok(table) = DeTable::parse(text) {
        walk("", table.get_ref(), &mut found);
    }
    found
}

fn walk(prefix: &str, table: &DeTable<'_>, found: &mut Vec<Located>) {
    for (key, value) in table {
        let name = match prefix {
            "" => key.get_ref().to_string(),
            _ => format!("{prefix}.{}", key.get_ref()),
        };
        if let DeValue::Table(inner) = value.get_ref() {
            walk(&name, inner, found);
        }
        found.push(Located { key: name, key_span: key.span(), value_span: value.span() });
    }
}

/// The innermost key that covers `span`.
fn key_at(text: &str, span: &Range<usize>) -> Option<String> {
    let covers = |outer: &Range<usize>| outer.start <= span.start && span.end <= outer.end;
    keys(text)
        .into_iter()
        .filter(|at| covers(&at.key_span) || covers(&at.value_span))
        .max_by_key(|at| at.key.matches('.').count())
        .map(|at| at.key)
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// The known key that a misspelling most likely meant, if one is near enough to be worth naming.
fn nearest<'a>(unknown: &str, known: &'a [String]) -> Option<&'a str> {
    let best = known.iter().min_by_key(|key| edit_distance(unknown, key))?;
    (edit_distance(unknown, best) <= 1 + unknown.len() / 3).then_some(best.as_str())
}

/// Levenshtein's distance by one row; keys are short, so the square cost does not matter.
fn edit_distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (left_index, left_char) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], left_index + 1);
        for (index, right_char) in right.chars().enumerate() {
            let substituted = diagonal + usize::from(left_char != right_char);
            diagonal = row[index + 1];
            row[index + 1] = substituted.min(row[index] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{edit_distance, nearest};

    #[test]
    fn the_nearest_key_is_named_and_a_far_one_is_not() {
        assert_eq!(edit_distance("listne", "listen"), 2);
        let known = ["state_dir".to_owned(), "log_level".to_owned()];
        assert_eq!(nearest("statedir", &known), Some("state_dir"));
        assert_eq!(nearest("zzzzzz", &known), None);
    }
}
