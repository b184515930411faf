//! What is wrong with a configuration file, in the words an operator needs: file, line, key,
//! problem, remedy.
//!
//! Not here: finding the line (locate.rs). Invariant: every error carries a remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::locate::{Locations, line_of};
use crate::identity::Role;

/// Which kind of mistake it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigErrorKind {
    /// The file is missing, forbidden, too long, or not text.
    Unreadable,
    /// The file is not TOML.
    Syntax,
    /// A key that no such file has.
    UnknownKey,
    /// A key that must be there is not.
    MissingKey,
    /// A value of the wrong type, or outside its range.
    WrongValue,
}

/// A mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Which kind of mistake.
    pub kind: ConfigErrorKind,
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

/// What a role's own check has against one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The dotted key, such as `server.listen`.
    pub key: String,
    /// What is wrong with its value.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl Refusal {
    /// A refusal of `key`.
    pub fn new(
        key: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { key: key.into(), problem: problem.into(), remedy: remedy.into() }
    }
}

impl ConfigError {
    pub(super) fn unreadable(file: &Path, error: &io::Error) -> Self {
        let (problem, remedy) = match error.kind() {
            io::ErrorKind::NotFound => ("there is no such file", "name an existing file"),
            io::ErrorKind::PermissionDenied => {
                ("the file may not be read", "let this process' user read it")
            }
            io::ErrorKind::InvalidData => ("the file is not UTF-8 text", "save it as UTF-8"),
            _ => ("the file cannot be read", "see the system's log for the disk"),
        };
        Self {
            kind: ConfigErrorKind::Unreadable,
            file: file.to_path_buf(),
            line: None,
            key: None,
            problem: String::from(problem),
            remedy: String::from(remedy),
        }
    }

    pub(super) fn too_long(file: &Path, bytes: u64) -> Self {
        Self {
            kind: ConfigErrorKind::Unreadable,
            file: file.to_path_buf(),
            line: None,
            key: None,
            problem: format!("the file has {bytes} bytes, more than any configuration has"),
            remedy: String::from("name the right file"),
        }
    }

    pub(super) fn syntax(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        Self {
            kind: ConfigErrorKind::Syntax,
            file: file.to_path_buf(),
            line: error.span().map(|span| line_of(text, span.start)),
            key: None,
            problem: format!("not TOML: {}", one_line(error.message())),
            remedy: String::from("mend the line; strings stand in double quotes"),
        }
    }

    pub(super) fn from_serde(
        file: &Path,
        roles: &[Role],
        locations: &Locations,
        error: &toml::de::Error,
    ) -> Self {
        let message = one_line(error.message());
        let place = error.span().map(|span| locations.find(&span));
        let (line, at) = match place {
            Some(place) => (Some(place.line), place.key),
            None => (None, None),
        };
        let role = roles.first().map_or("ROLE", |role| role.name());
        let example = format!("`lapwing config example {role}` prints a complete file");
        let mut quoted = message.split('`').skip(1).step_by(2).map(str::to_owned);
        let (kind, key, problem, remedy) = if message.starts_with("unknown field") {
            let unknown = quoted.next().unwrap_or_default();
            let known: Vec<String> = quoted.collect();
            let remedy = nearest(&unknown, &known).map_or(example, |key| format!("write `{key}`"));
            let key = at.unwrap_or(unknown);
            (ConfigErrorKind::UnknownKey, Some(key), String::from("unknown key"), remedy)
        } else if message.starts_with("missing field") {
            let missing = quoted.next().unwrap_or_default();
            let key = match at {
                Some(table) if !table.is_empty() => format!("{table}.{missing}"),
                _ => missing,
            };
            (ConfigErrorKind::MissingKey, Some(key), String::from("the key is missing"), example)
        } else {
            let (problem, remedy) = match message.split_once("; ") {
                Some((problem, remedy)) => (problem.to_owned(), remedy.to_owned()),
                None => (message.clone(), example),
            };
            (ConfigErrorKind::WrongValue, at, problem, remedy)
        };
        Self { kind, file: file.to_path_buf(), line, key, problem, remedy }
    }

    pub(super) fn refused(file: &Path, locations: &Locations, refusal: Refusal) -> Self {
        Self {
            kind: ConfigErrorKind::WrongValue,
            file: file.to_path_buf(),
            line: locations.line_of_key(&refusal.key),
            key: Some(refusal.key),
            problem: refusal.problem,
            remedy: refusal.remedy,
        }
    }
}

fn one_line(message: &str) -> String {
    message.trim().replace('\n', ", ")
}

/// The known key that a misspelling most likely meant, if one is near enough to be worth naming.
fn nearest<'a>(unknown: &str, known: &'a [String]) -> Option<&'a str> {
    let best = known.iter().min_by_key(|key| (edit_distance(unknown, key), key.as_str()))?;
    let near = edit_distance(unknown, best) <= 1 + unknown.len() / 3;
    let within = best.contains(unknown) || unknown.contains(best.as_str());
    (near || within).then_some(best.as_str())
}

/// Levenshtein's distance by one row; configuration keys are short, so the square cost does not
/// matter.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (left_index, left_char) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = left_index + 1;
        for (index, right_char) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(left_char != *right_char);
            diagonal = row[index + 1];
            row[index + 1] = substituted.min(row[index] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::{edit_distance, nearest};

    #[test]
    fn distance_counts_edits() {
        assert_eq!(edit_distance("listen", "listen"), 0);
        assert_eq!(edit_distance("listne", "listen"), 2);
        assert_eq!(edit_distance("", "abc"), 3);
    }

    #[test]
    fn a_far_word_has_no_neighbour() {
        let known = [String::from("listen"), String::from("data_dir")];
        assert_eq!(nearest("lisen", &known), Some("listen"));
        assert_eq!(nearest("zzzzzz", &known), None);
    }
}
