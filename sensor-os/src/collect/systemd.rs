//! systemd as its files show it: unit files, the links that enable them, the units it keeps
//! active, and the control groups their processes are in.
//!
//! What is read is public and needs no privilege and no bus. What only the manager knows is not
//! seen: that a unit failed (it shows as inactive), and drop-ins are not merged into what a unit
//! says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::limits::SERVICES_MAX;
use super::procfs::{read_bounded, read_stat};
use super::services::{Unit, UnitSource};
use super::stamp::Stamp;

/// Where systemd keeps what this reads; a test has its own.
#[derive(Clone, Debug)]
pub(crate) struct SystemdPaths {
    /// Exists where systemd is the init system.
    pub(crate) running: PathBuf,
    /// Links of the units it keeps active.
    pub(crate) active: PathBuf,
    /// Folders of unit files, the first one wins.
    pub(crate) units: Vec<PathBuf>,
    /// Roots of the control groups, tried in order.
    pub(crate) groups: Vec<PathBuf>,
}

impl Default for SystemdPaths {
    fn default() -> Self {
        Self {
            running: "/run/systemd/system".into(),
            active: "/run/systemd/units".into(),
            units: ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"]
                .map(PathBuf::from)
                .into(),
            groups: ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"]
                .map(PathBuf::from)
                .into(),
        }
    }
}

/// Reads systemd's files.
#[derive(Debug)]
pub(crate) struct SystemdUnits {
    paths: SystemdPaths,
    stamp: Stamp,
    /// What unit files say, until they change.
    said: BTreeMap<PathBuf, (Stamp, Said)>,
}

/// What a unit file says.
#[derive(Clone, Debug, Default)]
struct Said {
    description: Option<String>,
    user: Option<String>,
    command_line: Option<String>,
    can_be_enabled: bool,
}

impl SystemdUnits {
    pub(crate) fn new(paths: SystemdPaths) -> Self {
        Self { paths, stamp: Stamp::default(), said: BTreeMap::new() }
    }

    fn read(&mut self) -> Vec<Unit> {
        let enabled = self.enabled();
        let active = self.active();
        let groups = self.groups();
        let mut units = BTreeMap::new();
        for folder in self.paths.units.clone() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.ends_with(".service") && !name.ends_with("@.service") {
                    units.entry(name).or_insert_with(|| entry.path());
                }
            }
        }
        // Instances of templates have no file of their own.
        for name in active.iter().chain(groups.keys()) {
            if !units.contains_key(name)
                && let Some(template) = template_of(name)
            {
                let folders = self.paths.units.iter().map(|folder| folder.join(&template));
                let path = folders.into_iter().find(|path| path.exists());
                units.insert(name.clone(), path.unwrap_or_default());
            }
        }
        self.said.retain(|path, _| units.values().any(|known| known == path));
        let units = units.into_iter().take(SERVICES_MAX + 1);
        units
            .map(|(name, path)| {
                let processes = groups.get(&name);
                let mut unit = self.unit(name, path, &enabled);
                let is_active = active.contains(&unit.name);
                let (state, sub_state) = match (processes, is_active) {
                    (Some(_), _) => ("active", "running"),
                    (None, true) => ("active", "exited"),
                    (None, false) => ("inactive", "dead"),
                };
                unit.state = state.to_owned();
                unit.sub_state = Some(sub_state.to_owned());
                unit.main_pid = processes.and_then(|pids| main_of(pids));
                unit
            })
            .collect()
    }

    fn unit(&mut self, name: String, path: PathBuf, enabled: &BTreeSet<String>) -> Unit {
        let masked = fs::read_link(&path).is_ok_and(|target| target == Path::new("/dev/null"));
        let said = self.said_in(&path);
        let enablement = if masked {
            "masked"
        } else if enabled.contains(&name) {
            "enabled"
        } else if said.can_be_enabled {
            "disabled"
        } else {
            "static"
        };
        Unit {
            enablement: Some(enablement.to_owned()),
            path: (!path.as_os_str().is_empty()).then_some(path),
            description: said.description,
            user: said.user,
            command_line: said.command_line,
            name,
            ..Unit::default()
        }
    }

    fn said_in(&mut self, path: &Path) -> Said {
        let (stamp, said) = self.said.entry(path.to_owned()).or_default();
        if stamp.changed([path]) {
            let text = read_bounded(path, 64 << 10).unwrap_or_default();
            *said = parse_unit(&String::from_utf8_lossy(&text));
        }
        said.clone()
    }

    /// Units that a `.wants` or `.requires` folder links.
    fn enabled(&self) -> BTreeSet<String> {
        let mut enabled = BTreeSet::new();
        for folder in &self.paths.units {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.ends_with(".wants") || name.ends_with(".requires") {
                    let links = fs::read_dir(entry.path()).into_iter().flatten().flatten();
                    enabled.extend(links.map(|l| l.file_name().to_string_lossy().into_owned()));
                }
            }
        }
        enabled
    }

    fn active(&self) -> BTreeSet<String> {
        let links = fs::read_dir(&self.paths.active).into_iter().flatten().flatten();
        let names = links.map(|link| link.file_name().to_string_lossy().into_owned());
        names.filter_map(|name| name.strip_prefix("invocation:").map(str::to_owned)).collect()
    }

    /// The processes of each service's control group, those below it included.
    fn groups(&self) -> BTreeMap<String, Vec<u32>> {
        let mut groups = BTreeMap::new();
        let root = self.paths.groups.iter().find(|root| root.join("system.slice").is_dir());
        if let Some(root) = root {
            walk_groups(root, 0, &mut groups);
        }
        groups
    }
}

impl UnitSource for SystemdUnits {
    fn mechanism(&self) -> &'static str {
        "systemd's unit files and control groups"
    }

    fn unseen(&self) -> &'static str {
        "that a unit failed: it shows as inactive"
    }

    fn units(&mut self) -> Result<Option<Vec<Unit>>, String> {
        if !self.paths.running.is_dir() {
            self.forget();
            return Err("no init system answers: systemd does not run here, and no unit file is \
                configured"
                .to_owned());
        }
        let wants = self.paths.units.iter().map(|folder| folder.join("multi-user.target.wants"));
        let looked_at: Vec<PathBuf> = self
            .paths
            .units
            .iter()
            .cloned()
            .chain([self.paths.active.clone()])
            .chain(wants)
            .collect();
        Ok(self.stamp.changed(looked_at).then(|| self.read()))
    }

    fn forget(&mut self) {
        self.stamp = Stamp::default();
    }
}

fn walk_groups(folder: &Path, depth: usize, groups: &mut BTreeMap<String, Vec<u32>>) {
    const DEPTH_MAX: usize = 4;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".service") {
            let mut pids = Vec::new();
            collect_pids(&entry.path(), 0, &mut pids);
            if !pids.is_empty() {
                groups.insert(name, pids);
            }
        } else if name.ends_with(".slice") && name != "user.slice" && depth < DEPTH_MAX {
            walk_groups(&entry.path(), depth + 1, groups);
        }
    }
}

fn collect_pids(folder: &Path, depth: usize, pids: &mut Vec<u32>) {
    const DEPTH_MAX: usize = 3;
    let listed = read_bounded(folder.join("cgroup.procs"), 64 << 10).unwrap_or_default();
    pids.extend(String::from_utf8_lossy(&listed).lines().filter_map(|l| l.parse::<u32>().ok()));
    if depth < DEPTH_MAX {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                collect_pids(&entry.path(), depth + 1, pids);
            }
        }
    }
}

/// The main process of a service: the only one that the init system itself started.
fn main_of(pids: &[u32]) -> Option<u32> {
    let mut started =
        pids.iter().copied().filter(|pid| read_stat(*pid).is_some_and(|stat| stat.parent_pid == 1));
    let main = started.next()?;
    started.next().is_none().then_some(main)
}

/// `name@.service` for `name@instance.service`.
fn template_of(name: &str) -> Option<String> {
    let (prefix, _) = name.strip_suffix(".service")?.split_once('@')?;
    Some(format!("{prefix}@.service"))
}

fn parse_unit(text: &str) -> Said {
    let mut said = Said::default();
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
            said.can_be_enabled |= section == "Install";
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        match (section, key.trim()) {
            ("Unit", "Description") => said.description = value,
            ("Service", "User") => said.user = value,
            ("Service", "ExecStart") => said.command_line = value,
            _ => {}
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_from_files_links_and_groups() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for folder in ["run", "active", "etc/multi-user.target.wants", "lib"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        fs::create_dir_all(at("cgroup/system.slice/web.service")).unwrap();
        fs::create_dir_all(at("cgroup/system.slice/idle.service")).unwrap();
        let own = std::process::id().to_string();
        fs::write(at("cgroup/system.slice/web.service/cgroup.procs"), own).unwrap();
        fs::write(at("cgroup/system.slice/idle.service/cgroup.procs"), "").unwrap();
        let web =
            "[Unit]\nDescription=A web\n[Service]\nUser=www\nExecStart=/bin/web -d\n[Install]\n";
        fs::write(at("lib/web.service"), web).unwrap();
        fs::write(at("lib/idle.service"), "[Service]\n").unwrap();
        fs::write(at("lib/get@.service"), "[Service]\n").unwrap();
        std::os::unix::fs::symlink("/dev/null", at("etc/off.service")).unwrap();
        std::os::unix::fs::symlink(
            at("lib/web.service"),
            at("etc/multi-user.target.wants/web.service"),
        )
        .unwrap();
        std::os::unix::fs::symlink("x", at("active/invocation:get@a.service")).unwrap();
        let mut source = SystemdUnits::new(SystemdPaths {
            running: at("run"),
            active: at("active"),
            units: vec![at("etc"), at("lib")],
            groups: vec![at("cgroup")],
        });
        let units = source.units().unwrap().unwrap();
        let shown: Vec<_> = units
            .iter()
            .map(|unit| {
                let enablement = unit.enablement.as_deref().unwrap();
                (unit.name.as_str(), unit.state.as_str(), enablement)
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("get@a.service", "active", "static"),
                ("idle.service", "inactive", "static"),
                ("off.service", "inactive", "masked"),
                ("web.service", "active", "enabled"),
            ]
        );
        assert_eq!(units[3].command_line.as_deref(), Some("/bin/web -d"));
        assert_eq!(units[3].user.as_deref(), Some("www"));
        assert_eq!(source.units().unwrap(), None, "nothing changed");
    }

    #[test]
    fn where_no_init_system_answers_it_says_so() {
        let paths = SystemdPaths { running: "/nowhere".into(), ..SystemdPaths::default() };
        assert!(SystemdUnits::new(paths).units().unwrap_err().contains("no init system"));
    }
}
