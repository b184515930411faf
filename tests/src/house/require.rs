//! What a test does when a tool it needs is not there.
//!
//! A developer's run says SKIPPED and why; where `LAPWING_REQUIRE=all` is set a skip is a failure,
//! so that continuous integration never passes by leaving something out.

use std::env;
use std::path::PathBuf;

/// The variable that turns a skip into a failure when it is `all`.
pub const REQUIRE: &str = "LAPWING_REQUIRE";

/// Looks for a program on the `PATH`. `None` after saying SKIPPED.
///
/// # Panics
/// When the program is missing and `LAPWING_REQUIRE=all`.
pub fn tool(test: &str, program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found =
        env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    if found.is_none() {
        skip(test, &format!("`{program}` is not on the PATH; .ci/run installs it"));
    }
    found
}

/// Says that a test is skipped and why.
///
/// # Panics
/// When `LAPWING_REQUIRE=all`.
pub fn skip(test: &str, reason: &str) {
    let is_required = env::var(REQUIRE).is_ok_and(|value| value == "all");
    assert!(!is_required, "{test} may not be skipped under {REQUIRE}=all: {reason}");
    println!("SKIPPED {test}: {reason}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_there_is_found() {
        assert!(tool("a_program_that_is_there_is_found", "cargo").is_some());
    }
}
