//! Which files belong to the repository, and their text.
//!
//! Git is asked first, so that what `.gitignore` names is not read; where git does not answer (an
//! unpacked archive) the folders are walked and build output is left out by name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One text file of the repository.
#[derive(Clone, Debug)]
pub struct File {
    /// Path from the root, with `/`.
    pub path: String,
    /// Its whole text.
    pub text: String,
}

impl File {
    /// Whether the path ends in this extension, given without its dot.
    pub fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }
}

/// The root of the repository: the folder above this crate.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every path of the repository below `root`, in order, whether text or not.
pub fn paths(root: &Path) -> Vec<String> {
    let mut paths = git_paths(root).unwrap_or_else(|| {
        let mut found = Vec::new();
        walk(root, "", &mut found);
        found
    });
    paths.retain(|path| root.join(path).is_file());
    paths.sort();
    paths.dedup();
    paths
}

/// Every UTF-8 file of the repository below `root`, in order of path.
pub fn files(root: &Path) -> Vec<File> {
    let read = |path: String| {
        let text = fs::read_to_string(root.join(&path)).ok()?;
        Some(File { path, text })
    };
    paths(root).into_iter().filter_map(read).collect()
}

fn git_paths(root: &Path) -> Option<Vec<String>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let paths: Vec<String> =
        text.split('\0').filter(|path| !path.is_empty()).map(ToOwned::to_owned).collect();
    (output.status.success() && !paths.is_empty()).then_some(paths)
}

fn walk(folder: &Path, prefix: &str, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !["target", ".git", "corpus"].contains(&name.as_str()) => {
                walk(&entry.path(), &path, found);
            }
            Ok(kind) if kind.is_file() => found.push(path),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_holds_this_file_and_no_build_output() {
        let paths = paths(&root());
        assert!(paths.iter().any(|path| path == "tests/src/house/tree.rs"));
        assert!(paths.iter().all(|path| !path.starts_with("target/")));
    }

    #[test]
    fn walking_leaves_build_output_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/target")).unwrap();
        fs::write(folder.path().join("a/one.rs"), "").unwrap();
        fs::write(folder.path().join("a/target/two.rs"), "").unwrap();
        let mut found = Vec::new();
        walk(folder.path(), "", &mut found);
        assert_eq!(found, ["a/one.rs"]);
    }
}
