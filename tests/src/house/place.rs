//! Tracked files name no machine and no package registry: both change, and neither is the project.
//!
//! The lock file is left out: cargo writes the address of its registry there by itself. The
//! patterns are put together from pieces here, so that this file does not find itself.

use super::Finding;

/// Starts of paths that exist on one machine only.
const PATHS: [&str; 6] = [
    concat!("/wor", "k/"),
    concat!("/far", "m/"),
    concat!("/root/.", "cargo"),
    concat!("/root/.", "rustup"),
    concat!("/tmp/", "bash_jobs"),
    concat!("/tmp/", "brief"),
];

/// Hosts that hand out packages.
const HOSTS: [&str; 9] = [
    concat!("crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("pypi", ".org"),
    concat!("files.python", "hosted.org"),
    concat!("registry.npm", "js.org"),
    concat!("proxy.golang", ".org"),
    concat!("deb.debian", ".org"),
    concat!("archive.ubuntu", ".com"),
    concat!("repo.maven.apache", ".org"),
];

/// All rules of this module for one file of any kind.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    if path.ends_with("Cargo.lock") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        for pattern in PATHS.iter().filter(|pattern| stands_alone(line, pattern)) {
            let remedy = "write the path from the root of the repository, or read it from the \
                          environment";
            let rule = format!("`{pattern}` is a path of one machine");
            findings.push(Finding::new(path, number, rule, remedy));
        }
        if let Some(host) = HOSTS.iter().find(|host| stands_alone(line, host)) {
            let remedy = "name the package alone; its client knows where to get it";
            let rule = format!("`{host}` is a package registry");
            findings.push(Finding::new(path, number, rule, remedy));
        }
    }
    findings
}

/// Whether the pattern stands in the line with no letter, digit, dot or underscore before it.
fn stands_alone(line: &str, pattern: &str) -> bool {
    line.match_indices(pattern).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|sign| sign.is_alphanumeric() || "._$}".contains(sign))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_paths_are_found() {
        for pattern in PATHS {
            assert_eq!(check("a.md", &format!("see {pattern}x")).len(), 1, "{pattern}");
            assert!(check("a.md", &format!("see src{pattern}x")).is_empty(), "{pattern}");
        }
    }

    #[test]
    fn registries_are_found_but_not_in_the_lock_file() {
        for host in HOSTS {
            assert_eq!(check("a.toml", &format!("from https://{host}/x")).len(), 1, "{host}");
            assert!(check("fuzz/Cargo.lock", host).is_empty(), "{host}");
        }
    }

    #[test]
    fn ordinary_text_passes() {
        assert!(check("a.md", "/etc/lapwing, /tmp, ./work/x, crates in a workspace").is_empty());
    }
}
