//! What a sensor says of itself to who asks on its machine: a file that the runner rewrites.
//!
//! Not here: what servers are told. Invariants: the file is whole whenever it is read; a status
//! whose sensor no longer runs is shown as stopped.

use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::durable_file::{self, Access, Durability};
use crate::escape::escaped;
use crate::identity::{self, StateError};
use crate::logging::utc_time;

const FILE: &str = "status";
const BYTES_MAX: u64 = 1 << 20;

/// Where a sensor stands on its way to a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No sensor runs on this state folder.
    #[default]
    Stopped,
    /// It has no Detection server yet.
    Unassigned,
    /// It asks Registration for another Detection server.
    Asking,
    /// It connects and greets.
    Connecting,
    /// A Detection server greeted it and takes its facts.
    Online,
    /// It waits before it tries again.
    Waiting,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Unassigned => "unassigned",
            Self::Asking => "asking",
            Self::Connecting => "connecting",
            Self::Online => "online",
            Self::Waiting => "waiting",
        }
    }
}

/// One collector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectorStatus {
    /// Which.
    pub name: String,
    /// active, degraded, missing or stopped.
    pub status: String,
    /// What it uses.
    pub mechanism: String,
    /// Why it is not active; empty where it is.
    pub reason: String,
    /// The command that mends it; empty where none is needed.
    pub remedy: String,
    /// Facts it made.
    pub seen: u64,
    /// Facts that the full queue refused.
    pub refused: u64,
    /// Times that the kernel reported a loss.
    pub overflowed: u64,
}

/// All that a sensor says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Its id; none before it enrolled.
    pub id: Option<String>,
    /// The machine's name as servers know it.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// Why it is not online; empty where it is.
    pub reason: String,
    /// The Registration server it asks, `host:port`.
    pub registration: Option<String>,
    /// The Detection server it sends to, `host:port`.
    pub detection: Option<String>,
    /// That server's id, once it greeted.
    pub server: Option<String>,
    /// Bytes sent since the sensor started, TLS included.
    pub bytes_up: u64,
    /// Bytes received since the sensor started, TLS included.
    pub bytes_down: u64,
    /// enabled or disabled.
    pub collection: String,
    /// disk, or memory for a sensor without a spool.
    pub spool_mode: String,
    /// Bytes of its spool.
    pub spool_bytes: u64,
    /// What is wrong with its spool, and what to do; empty where it takes chunks.
    pub spool_trouble: String,
    /// Facts that got a number, on both lanes, in the logs written now.
    pub facts_produced: u64,
    /// Observations that said nothing new.
    pub facts_unchanged: u64,
    /// Facts lost since the sensor started, each announced to the server.
    pub facts_lost: u64,
    /// Rows of its table.
    pub rows: u32,
    /// Sessions that a server greeted.
    pub sessions: u64,
    /// Times that Registration was asked.
    pub questions: u64,
    /// When its certificate ends, milliseconds since 1970.
    pub certificate_ends_ms: u64,
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When this was written, milliseconds since 1970.
    pub updated_ms: u64,
    /// Its collectors.
    pub collectors: Vec<CollectorStatus>,
}

impl Status {
    /// Rewrites the file in `folder`.
    pub(crate) fn save(&self, folder: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let path = folder.join(FILE);
        durable_file::write(&path, text.as_bytes(), Access::Everyone, Durability::Process)
    }

    /// Reads the status of the sensor on `folder`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(folder: &Path) -> Result<Self, StateError> {
        let path = folder.join(FILE);
        let failed = |error| StateError::File { path: path.clone(), error };
        let bytes = durable_file::read(&path, BYTES_MAX).map_err(failed)?;
        let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let parsed = text.map(|text| toml::from_str::<Self>(&text));
        let damaged = || StateError::Damaged {
            path: path.clone(),
            remedy: "start the sensor: it rewrites it",
        };
        let mut status = match parsed {
            Some(parsed) => parsed.map_err(|_| damaged())?,
            None => Self::default(),
        };
        if !identity::is_running(folder) {
            let identity = identity::peek_identity(folder)?;
            status.id = identity.map(|identity| identity.sensor.to_string());
            status.state = State::Stopped;
            status.reason = match &status.id {
                Some(_) => "no sensor runs on this state folder".into(),
                None => "no sensor runs on this state folder, and none has enrolled".into(),
            };
        }
        Ok(status)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = || "none".to_owned();
        let mut line = |name: &str, value: &str| writeln!(f, "{name:<14}{}", escaped(value));
        line("id", &self.id.clone().unwrap_or_else(none))?;
        line("name", &self.name)?;
        line("state", self.state.name())?;
        if !self.reason.is_empty() {
            line("reason", &self.reason)?;
        }
        line("registration", &self.registration.clone().unwrap_or_else(none))?;
        line("detection", &self.detection.clone().unwrap_or_else(none))?;
        line("collection", &self.collection)?;
        line("bytes up", &self.bytes_up.to_string())?;
        line("bytes down", &self.bytes_down.to_string())?;
        match self.spool_mode.as_str() {
            "memory" => line("spool", "none: chunks are kept in memory")?,
            _ => line("spool bytes", &self.spool_bytes.to_string())?,
        }
        if !self.spool_trouble.is_empty() {
            line("spool", &self.spool_trouble)?;
        }
        line("facts", &format!("{} ({} lost)", self.facts_produced, self.facts_lost))?;
        line("certificate", &format!("until {}", utc_time(self.certificate_ends_ms)))?;
        line("version", &self.version)?;
        for collector in &self.collectors {
            let CollectorStatus { name, status, mechanism, reason, remedy, .. } = collector;
            line(&format!("  {name}"), &format!("{status}  {mechanism}"))?;
            if !reason.is_empty() {
                line("", reason)?;
            }
            if !remedy.is_empty() {
                line("", &format!("mend: {remedy}"))?;
            }
        }
        Ok(())
    }
}
