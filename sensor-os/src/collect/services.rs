//! Services of the operating system: where they are read from, and what changed of them.
//!
//! A [`UnitSource`] says which units there are. Two exist: systemd as its files and control groups
//! show it (`systemd.rs`), and a plain file for machines whose services something else knows.
//! Nothing is executed and no bus is spoken to.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use lapwing_protocol::element::{Change, service};

use super::fact::{CollectedFact, FactBuilder, Room};
use super::limits::{FILE_BYTES_MAX, KEY_TEXT_BYTES_MAX, SERVICES_MAX};
use super::procfs::read_bounded;
use super::queue::Source;
use super::shared::ProcessDirectory;
use super::stamp::Stamp;

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) name: String,
    /// `active`, `inactive`, `failed`, ...
    pub(crate) state: String,
    pub(crate) sub_state: Option<String>,
    /// `enabled`, `disabled`, `static`, `masked`, ...
    pub(crate) enablement: Option<String>,
    pub(crate) path: Option<PathBuf>,
    pub(crate) description: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) command_line: Option<String>,
    pub(crate) main_pid: Option<u32>,
}

/// Where services are read from.
pub(crate) trait UnitSource: fmt::Debug + Send {
    /// What it is, for health.
    fn mechanism(&self) -> &'static str;

    /// What it cannot see, for health; empty where that is nothing.
    fn unseen(&self) -> &'static str;

    /// The units, or `None` where nothing can have changed since it was last asked.
    ///
    /// # Errors
    ///
    /// Why there are none to be read.
    fn units(&mut self) -> Result<Option<Vec<Unit>>, String>;

    /// Forgets what it knows, so that it reads everything again.
    fn forget(&mut self);
}

/// Units as a file lists them: one a line, `NAME STATE [SUB_STATE [ENABLEMENT [DESCRIPTION...]]]`,
/// `-` for a field left out; `#` begins a comment.
#[derive(Debug)]
pub(crate) struct FileUnits {
    path: PathBuf,
    stamp: Stamp,
}

impl FileUnits {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), stamp: Stamp::default() }
    }
}

impl UnitSource for FileUnits {
    fn mechanism(&self) -> &'static str {
        "unit file"
    }

    fn unseen(&self) -> &'static str {
        ""
    }

    fn units(&mut self) -> Result<Option<Vec<Unit>>, String> {
        if !self.stamp.changed([&self.path]) {
            return Ok(None);
        }
        match read_bounded(&self.path, FILE_BYTES_MAX) {
            Some(text) => Ok(Some(parse_units(&String::from_utf8_lossy(&text)))),
            None => {
                self.forget();
                Err(format!("the unit file {} cannot be read", self.path.display()))
            }
        }
    }

    fn forget(&mut self) {
        self.stamp = Stamp::default();
    }
}

fn parse_units(text: &str) -> Vec<Unit> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (name, state) = (fields.next()?.to_owned(), fields.next()?.to_owned());
            let mut optional = || fields.next().filter(|field| *field != "-").map(str::to_owned);
            let (sub_state, enablement) = (optional(), optional());
            let description = fields.collect::<Vec<_>>().join(" ");
            let description = (!description.is_empty()).then_some(description);
            Some(Unit { name, state, sub_state, enablement, description, ..Unit::default() })
        })
        .collect()
}

/// Tells what changed of the services.
#[derive(Debug)]
pub(crate) struct ServiceCollector {
    source: Box<dyn UnitSource>,
    told: BTreeMap<String, Unit>,
    left_out: usize,
}

impl ServiceCollector {
    pub(crate) fn new(source: Box<dyn UnitSource>) -> Self {
        Self { source, told: BTreeMap::new(), left_out: 0 }
    }

    pub(crate) fn source(&self) -> &dyn UnitSource {
        self.source.as_ref()
    }

    /// How many services the bound left out at the last look.
    pub(crate) fn left_out(&self) -> usize {
        self.left_out
    }

    /// Forgets what was told, so that everything is told again.
    pub(crate) fn tell_again(&mut self) {
        self.told.clear();
        self.source.forget();
    }

    /// Gives what changed since the last look to `give`.
    ///
    /// # Errors
    ///
    /// Why there are no services to be read.
    pub(crate) fn collect(
        &mut self,
        now_ns: u64,
        processes: &ProcessDirectory,
        mut give: impl FnMut(CollectedFact),
    ) -> Result<(), String> {
        let Some(mut units) = self.source.units()? else { return Ok(()) };
        units.retain(|unit| unit.name.len() <= KEY_TEXT_BYTES_MAX);
        units.sort_by(|one, other| one.name.cmp(&other.name));
        units.dedup_by(|one, other| one.name == other.name);
        self.left_out = units.len().saturating_sub(SERVICES_MAX);
        units.truncate(SERVICES_MAX);
        let mut before = std::mem::take(&mut self.told);
        for unit in units {
            if before.remove(&unit.name).as_ref() != Some(&unit) {
                give(fact(&unit, now_ns, processes));
            }
            self.told.insert(unit.name.clone(), unit);
        }
        for name in before.keys() {
            let ended = FactBuilder::new(Source::Services, service::KIND, Change::Ended, now_ns);
            give(ended.text(service::name, name, Room::Key).build());
        }
        Ok(())
    }
}

fn fact(unit: &Unit, now_ns: u64, processes: &ProcessDirectory) -> CollectedFact {
    let process = unit.main_pid.and_then(|pid| processes.find(pid));
    let path = unit.path.as_ref().map(|path| path.as_os_str().as_encoded_bytes());
    FactBuilder::new(Source::Services, service::KIND, Change::Whole, now_ns)
        .text(service::name, &unit.name, Room::Key)
        .text(service::state, &unit.state, Room::Path)
        .text_if(service::sub_state, unit.sub_state.as_ref(), Room::Path)
        .text_if(service::enablement, unit.enablement.as_ref(), Room::Path)
        .text_if(service::unit_path, path, Room::Path)
        .value_if(service::process, process.map(|process| process.key.reference()))
        .text_if(service::description, unit.description.as_ref(), Room::Path)
        .text_if(service::user, unit.user.as_ref(), Room::Path)
        .text_if(service::command_line, unit.command_line.as_ref(), Room::CommandLine)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    fn listing(changed: Option<usize>) -> String {
        (0..100).fold(String::from("# one hundred\n"), |mut text, unit| {
            let state = if changed == Some(unit) { "failed" } else { "active" };
            writeln!(text, "unit-{unit}.service {state} running enabled Unit {unit}").unwrap();
            text
        })
    }

    #[test]
    fn touching_one_of_a_hundred_services_is_one_fact() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("units");
        std::fs::write(&path, listing(None)).unwrap();
        let processes = ProcessDirectory::default();
        let mut collector = ServiceCollector::new(Box::new(FileUnits::new(&path)));
        let mut collect = || {
            let mut facts = Vec::new();
            collector.collect(1, &processes, |fact| facts.push(fact)).unwrap();
            facts
        };
        assert_eq!(collect().len(), 100);
        assert_eq!(collect(), []);
        // By rename, as a careful writer does: the inode tells even within one tick of the clock.
        let next = folder.path().join("next");
        std::fs::write(&next, listing(Some(42))).unwrap();
        std::fs::rename(&next, &path).unwrap();
        let facts = collect();
        assert_eq!(facts.len(), 1);
        assert_eq!(facts[0].text(service::name), Some("unit-42.service"));
        assert_eq!(facts[0].text(service::state), Some("failed"));
        assert_eq!(facts[0].text(service::description), Some("Unit 42"));
    }

    #[test]
    fn a_unit_source_that_is_not_there_is_named() {
        let mut units = FileUnits::new(Path::new("/nowhere/units"));
        assert!(units.units().unwrap_err().contains("/nowhere/units"));
        assert!(units.units().is_err(), "still");
    }

    #[test]
    fn fields_may_be_left_out() {
        let units = parse_units("a.service active\nb.service failed - disabled\nonly\n\n");
        assert_eq!(units.len(), 2);
        assert_eq!(units[1].sub_state, None);
        assert_eq!(units[1].enablement.as_deref(), Some("disabled"));
    }
}
