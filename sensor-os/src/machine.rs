//! What a sensor says of its machine when it enrols and greets: name, system, machine id.
//!
//! Not here: the collector of the machine's row. Invariant: every text fits the wire and holds no
//! control character.

use std::path::Path;

use lapwing_protocol::limits::NAME_BYTES_MAX;
use sha2::{Digest as _, Sha256};

use crate::{durable_file, sys};

const FILE_BYTES_MAX: u64 = 64 << 10;

/// The machine's name: the configured one, else the host name.
pub(crate) fn name(configured: Option<&str>) -> String {
    let name = configured.map_or_else(|| sys::host::names().host, str::to_owned);
    plain(&name).unwrap_or_else(|| "unnamed".into())
}

/// The operating system and its version, as its vendor names it.
pub(crate) fn os() -> String {
    ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|file| pretty_name(&read(Path::new(file))?))
        .unwrap_or_else(|| format!("Linux {}", sys::host::names().release))
}

/// SHA-256 of the operating system's machine id; zeros where it has none.
pub(crate) fn machine_id() -> [u8; 32] {
    let id = ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .iter()
        .find_map(|file| read(Path::new(file)).filter(|id| !id.trim().is_empty()));
    id.map_or([0; 32], |id| Sha256::digest(id.trim().as_bytes()).into())
}

fn read(file: &Path) -> Option<String> {
    String::from_utf8(durable_file::read(file, FILE_BYTES_MAX).ok()??).ok()
}

fn pretty_name(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    plain(value.trim().trim_matches('"'))
}

fn plain(text: &str) -> Option<String> {
    let kept: String = text.chars().filter(|character| !character.is_control()).collect();
    let end = kept.floor_char_boundary(NAME_BYTES_MAX.min(kept.len()));
    (end > 0).then(|| kept[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_bounded() {
        assert_eq!(name(Some("a\u{1b}b\n")), "ab");
        assert_eq!(name(Some("\n")), "unnamed");
        assert_eq!(name(Some(&"n".repeat(300))).len(), NAME_BYTES_MAX);
        assert_eq!(pretty_name("ID=x\nPRETTY_NAME=\"X 1\"\n").as_deref(), Some("X 1"));
    }
}
