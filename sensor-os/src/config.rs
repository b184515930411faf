//! The configuration file: TOML, every mistake named by file, line, key and remedy.
//!
//! Not here: anything that opens a socket or a spool. Invariants: an unknown key is refused, never
//! ignored; a relative path means "relative to the folder of the configuration file"; a secret
//! never stands in the file itself but in a file that it names.

mod error;
mod quantity;

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use error::ConfigError;
use error::Refusal;
pub use quantity::Size;

use crate::collect::Source;
use crate::durable_file;

/// The largest configuration file that is read: far above any real one.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The smallest memory in place of a spool, and the largest: some chunks of 16 KiB, and what a
/// window is searched through in a moment.
const MEMORY_BYTES: std::ops::RangeInclusive<u64> = (256 << 10)..=(256 << 20);
/// The smallest spool: each lane holds a few segments, so that one can be dropped.
const SPOOL_BYTES_MIN: u64 = 4 << 20;
/// The longest age of what a spool holds: ten years, so that sums of it stay far from their end.
const SPOOL_DAYS_MAX: u32 = 3_650;
/// What is older than a month changes nobody's mind, and would come before what is new.
const SPOOL_DAYS_DEFAULT: u32 = 30;
/// Addresses of one kind; each costs a bounded attempt when none answers.
const ADDRESSES_MAX: usize = 16;

/// A complete configuration file with a comment above every key.
pub const EXAMPLE: &str = include_str!("config/example.toml");

/// The sensor's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where identity, spool and status lie.
    pub state_dir: PathBuf,
    /// The machine's name as servers show it; `None` for the host name.
    #[serde(default)]
    pub name: Option<String>,
    /// What is logged.
    #[serde(default)]
    pub log_level: LogLevel,
    /// Whom to ask and whom to send to.
    pub servers: Servers,
    /// How to enrol where there is no identity yet.
    #[serde(default)]
    pub enrolment: Enrolment,
    /// What is collected.
    #[serde(default)]
    pub collect: Collect,
    /// What is kept on disk.
    #[serde(default)]
    pub spool: Spool,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each level is what its name says")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub(crate) fn filter(self) -> log::LevelFilter {
        match self {
            Self::Error => log::LevelFilter::Error,
            Self::Warn => log::LevelFilter::Warn,
            Self::Info => log::LevelFilter::Info,
            Self::Debug => log::LevelFilter::Debug,
            Self::Trace => log::LevelFilter::Trace,
        }
    }
}

/// The servers a sensor knows from its package.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Servers {
    /// Registration servers (`host:port`), asked in order.
    #[serde(default)]
    pub registration: Vec<String>,
    /// Detection servers (`host:port`) to go to where no Registration server assigned one.
    #[serde(default)]
    pub detection: Vec<String>,
    /// The organisation's CA, PEM.
    pub ca_file: PathBuf,
}

/// How a sensor without an identity gets one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// A file that holds an enrolment token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
}

/// Which collectors run, and on what.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Collect {
    /// Programs that run.
    pub processes: bool,
    /// Connections between sockets.
    pub connections: bool,
    /// Changes in watched folders.
    pub files: bool,
    /// Names that were looked up.
    pub dns: bool,
    /// Accounts.
    pub users: bool,
    /// Services of the operating system.
    pub services: bool,
    /// The machine itself.
    pub machine: bool,
    /// Folders whose files are watched, those below them included.
    pub watched_folders: Vec<PathBuf>,
    /// A file that stands in for the init system's list of units.
    pub unit_source: Option<PathBuf>,
}

impl Default for Collect {
    fn default() -> Self {
        let watched_folders =
            ["/etc", "/usr/local/bin", "/tmp"].into_iter().map(PathBuf::from).collect();
        Self {
            processes: true,
            connections: true,
            files: true,
            dns: true,
            users: true,
            services: true,
            machine: true,
            watched_folders,
            unit_source: None,
        }
    }
}

impl Collect {
    /// Nothing is collected: for an agent that only sends facts of its own.
    #[must_use]
    pub fn none() -> Self {
        Self {
            processes: false,
            connections: false,
            files: false,
            dns: false,
            users: false,
            services: false,
            machine: false,
            watched_folders: Vec::new(),
            unit_source: None,
        }
    }

    /// Whether a collector is to run.
    #[must_use]
    pub fn has(&self, source: Source) -> bool {
        match source {
            Source::Processes => self.processes,
            Source::Connections => self.connections,
            Source::Files => self.files,
            Source::Names => self.dns,
            Source::Users => self.users,
            Source::Services => self.services,
            Source::Machine => self.machine,
        }
    }
}

/// What is kept on disk until a server has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spool {
    /// Where chunks are kept until a server has them.
    pub mode: Mode,
    /// Bytes on disk at the most.
    pub max: Size,
    /// Bytes in memory at the most, with [`Mode::Memory`].
    pub memory_max: Size,
    /// Days for which a sensor may run before what it made then, and no server has, is dropped.
    pub max_age_days: u32,
    /// When what was written is made to outlive a power cut.
    pub sync: Sync,
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            mode: Mode::Disk,
            max: Size(256 << 20),
            memory_max: Size(4 << 20),
            max_age_days: SPOOL_DAYS_DEFAULT,
            sync: Sync::Interval,
        }
    }
}

/// Where chunks are kept until a server has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In files: what is not sent outlives the process.
    #[default]
    Disk,
    /// In memory alone, for small devices: the end of the process loses what no server has, and the
    /// servers are told so.
    Memory,
}

/// When the spool is synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// Each 5 s or 256 KiB, and before every trim and Jump.
    #[default]
    Interval,
    /// Each chunk, before it is sent.
    Each,
}

impl Config {
    /// Reads and checks a file. Relative paths in it become absolute.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, or has a key that is unknown, missing or wrong.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let text = durable_file::read(file, FILE_BYTES_MAX)
            .and_then(|bytes| bytes.ok_or_else(missing))
            .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other))
            .map_err(|error| ConfigError::unreadable(file, &error))?;
        Self::parse(file, &text)
    }

    /// As [`Self::load`] for text already read; `file` names it and anchors its relative paths.
    ///
    /// # Errors
    /// As [`Self::load`], but for reading.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config: Self =
            toml::from_str(text).map_err(|error| ConfigError::from_toml(file, text, &error))?;
        config.check().map_err(|refusal| ConfigError::refused(file, text, refusal))?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let anchor = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
        for path in config.paths() {
            *path = anchor.join(&*path);
        }
        Ok(config)
    }

    fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.state_dir, &mut self.servers.ca_file]
            .into_iter()
            .chain(&mut self.enrolment.token_file)
            .chain(&mut self.collect.watched_folders)
            .chain(&mut self.collect.unit_source)
    }

    fn check(&self) -> Result<(), Refusal> {
        let lists = [
            ("servers.registration", &self.servers.registration),
            ("servers.detection", &self.servers.detection),
        ];
        for (key, addresses) in lists {
            if let Some(wrong) = addresses.iter().find(|address| !is_address(address)) {
                return Err(Refusal {
                    key,
                    problem: format!("{wrong:?} is not host:port"),
                    remedy: "write an address or name and a port, such as \"192.0.2.10:443\"",
                });
            }
            if addresses.len() > ADDRESSES_MAX {
                return Err(Refusal {
                    key,
                    problem: format!("{} addresses are too many", addresses.len()),
                    remedy: "write at most 16",
                });
            }
        }
        if lists.iter().all(|(_, addresses)| addresses.is_empty()) {
            return Err(Refusal {
                key: "servers.registration",
                problem: "neither a Registration nor a Detection server is named".into(),
                remedy: "write at least one address of either",
            });
        }
        if self.spool.max.0 < SPOOL_BYTES_MIN {
            return Err(Refusal {
                key: "spool.max",
                problem: format!("{} bytes are too few", self.spool.max.0),
                remedy: "write at least \"4 MiB\"",
            });
        }
        if !MEMORY_BYTES.contains(&self.spool.memory_max.0) {
            return Err(Refusal {
                key: "spool.memory_max",
                problem: format!("{} bytes are too few or too many", self.spool.memory_max.0),
                remedy: "write \"256 KiB\" to \"256 MiB\"",
            });
        }
        if !(1..=SPOOL_DAYS_MAX).contains(&self.spool.max_age_days) {
            return Err(Refusal {
                key: "spool.max_age_days",
                problem: format!("{} days are too few or too many", self.spool.max_age_days),
                remedy: "write 1 to 3650",
            });
        }
        let is_name = |name: &String| (1..=255).contains(&name.len()) && !has_control(name);
        if !self.name.iter().all(is_name) {
            return Err(Refusal {
                key: "name",
                problem: "it is empty, too long, or holds control characters".into(),
                remedy: "write 1 to 255 bytes of plain text",
            });
        }
        Ok(())
    }
}

/// Whether `text` is `host:port`, IPv6 addresses in brackets.
pub(crate) fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_host = match host.strip_prefix('[') {
        Some(rest) => rest.ends_with(']'),
        None => !host.contains(':'),
    };
    is_host && !host.is_empty() && !has_control(host) && port.parse::<u16>().is_ok_and(|p| p > 0)
}

fn has_control(text: &str) -> bool {
    text.chars().any(|character| character.is_control() || character == ' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/etc/lapwing/sensor.toml"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn the_example_parses_as_it_is_and_with_every_optional_key() {
        let as_it_is = parse(EXAMPLE).unwrap();
        assert_eq!(as_it_is.collect, Collect::default());
        assert_eq!(as_it_is.spool, Spool::default());
        let mut all_keys = String::new();
        let mut previous_is_comment = false;
        for line in EXAMPLE.lines() {
            let is_prose = line.starts_with("# ") || line == "#";
            let bare = if is_prose { "" } else { line.strip_prefix('#').unwrap_or(line) };
            assert!(!bare.contains('=') || previous_is_comment, "no comment above {bare}");
            previous_is_comment = is_prose;
            all_keys.push_str(bare);
            all_keys.push('\n');
        }
        let full = parse(&all_keys).unwrap();
        assert!(full.name.is_some() && full.enrolment.token_file.is_some());
        assert!(full.collect.unit_source.is_some());
        assert_eq!(full.servers.ca_file, Path::new("/etc/lapwing/ca.pem"));
    }

    #[test]
    fn mistakes_name_file_line_key_and_remedy() {
        let good = "state_dir = \"s\"\n[servers]\nca_file = \"ca.pem\"\ndetection = [\"h:1\"]\n";
        assert!(parse(good).is_ok());
        let cases = [
            (
                format!("statedir = \"s\"\n{good}"),
                "line 1: `statedir`: unknown key; write `state_dir`",
            ),
            (
                format!("{good}[spool]\nmax = 64\n"),
                "line 6: `spool.max`: \"64\" is not a size; write a whole number and B, KiB, MiB or GiB, \
                 such as \"256 MiB\"",
            ),
            (
                format!("{good}[spool]\nmax = \"1 MiB\"\n"),
                "line 6: `spool.max`: 1048576 bytes are too few; write at least \"4 MiB\"",
            ),
            (
                format!("{good}[spool]\nmax_age_days = 0\n"),
                "line 6: `spool.max_age_days`: 0 days are too few or too many; write 1 to 3650",
            ),
            (
                format!("{good}[spool]\nsync = \"never\"\n"),
                "line 6: `spool.sync`: \"never\" is none of its values; write one of interval, each",
            ),
            (
                good.replace("h:1", "h"),
                "line 4: `servers.detection`: \"h\" is not host:port; write an address or name and \
                 a port, such as \"192.0.2.10:443\"",
            ),
            (
                good.replace("detection = [\"h:1\"]\n", ""),
                "`servers.registration`: neither a Registration nor a Detection server is named; \
                 write at least one address of either",
            ),
            (
                good.replace("ca_file = \"ca.pem\"\n", ""),
                "line 2: `servers.ca_file`: the key is missing; see the example in docs/sensor.md",
            ),
            ("state_dir = s".into(), "not TOML"),
        ];
        for (text, expected) in cases {
            let error = parse(&text).unwrap_err();
            assert!(error.starts_with("/etc/lapwing/sensor.toml"), "{error}");
            assert!(error.contains(expected), "{error}\nexpected {expected}");
        }
        let none = Config::load(Path::new("/none/sensor.toml")).unwrap_err().to_string();
        assert_eq!(none, "/none/sensor.toml: there is no such file; name an existing file");
    }

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["127.0.0.1:443", "[::1]:443", "sensor.example.org:1"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", ":1", "h", "h:0", "h:99999", "::1:443", "a b:1", "[::1:443"] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
