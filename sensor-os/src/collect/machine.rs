//! The machine itself: one row.

use std::path::Path;

use lapwing_protocol::element::{Change, machine};
use sha2::{Digest, Sha256};

use super::fact::{CollectedFact, FactBuilder, OwnedValue, Room};
use super::procfs::read_bounded;
use super::queue::Source;
use crate::sys::host;

/// Whether facts are collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collection {
    Enabled,
    Disabled,
}

impl Collection {
    const fn name(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        }
    }
}

/// The machine as it is now.
pub(crate) fn machine_fact(now_ns: u64, collection: Collection) -> CollectedFact {
    let names = host::names();
    let release = ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| read_bounded(path, 16 << 10))
        .unwrap_or_default();
    let release = String::from_utf8_lossy(&release).into_owned();
    let version = release_field(&release, "VERSION_ID").or(release_field(&release, "BUILD_ID"));
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut fact = FactBuilder::new(Source::Machine, machine::KIND, Change::Whole, now_ns)
        .text(machine::name, &names.host, Room::Key)
        .text_if(machine::os, release_field(&release, "NAME"), Room::Path)
        .text_if(machine::os_version, version, Room::Path)
        .text(machine::kernel, &names.release, Room::Path)
        .text(machine::architecture, &names.architecture, Room::Path)
        .text(machine::addresses, addresses(), Room::Path)
        .text(machine::sensor_version, env!("CARGO_PKG_VERSION"), Room::Path)
        .number(machine::processors, u64::try_from(processors).unwrap_or(1))
        .number(machine::memory_bytes, host::memory_bytes())
        .text(machine::collection, collection.name(), Room::Path);
    fact = match machine_id(Path::new("/etc/machine-id")) {
        Some(hash) => fact.value(machine::machine_id, OwnedValue::Hash(hash.into())),
        None => fact.missing(machine::machine_id),
    };
    fact.build()
}

/// The machine's id itself is not to leave it; its hash tells machines apart as well.
fn machine_id(path: &Path) -> Option<[u8; 32]> {
    let id = read_bounded(path, 128)?;
    let id = id.trim_ascii();
    (!id.is_empty()).then(|| Sha256::digest(id).into())
}

/// The machine's addresses without those of the loopback device, in order, separated by commas.
fn addresses() -> String {
    let mut addresses = host::addresses();
    addresses.retain(|address| !address.is_loopback());
    addresses.sort_unstable();
    addresses.dedup();
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn release_field(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    let value = value.trim().trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        let fact = machine_fact(1, Collection::Enabled);
        assert!(!fact.text(machine::name).unwrap().is_empty());
        assert_eq!(fact.text(machine::collection), Some("enabled"));
        assert_eq!(fact, machine_fact(1, Collection::Enabled), "and always the same");
    }

    #[test]
    fn release_fields_lose_their_quotes() {
        let text = "PRETTY_NAME=\"x\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='12'\nEMPTY=\n";
        assert_eq!(release_field(text, "NAME").as_deref(), Some("Debian GNU/Linux"));
        assert_eq!(release_field(text, "VERSION_ID").as_deref(), Some("12"));
        assert_eq!(release_field(text, "EMPTY"), None);
    }
}
