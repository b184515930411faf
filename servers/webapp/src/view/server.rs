//! Servers as an operator sees them, and what may be installed.

use serde::Serialize;

use super::Time;

/// One server, put together from what it, Registration and the supervisor say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ServerLine {
    pub(crate) name: String,
    pub(crate) role: String,
    pub(crate) id: String,
    /// up, draining, starting, stopped, dead or unreachable.
    pub(crate) status: String,
    pub(crate) pid: Option<u32>,
    pub(crate) version: String,
    /// Sensors it can take; null where the role takes none.
    pub(crate) capacity: Option<u32>,
    pub(crate) sensors: Option<u32>,
    pub(crate) assigned: Option<u32>,
    /// How busy it is, from 0 to 1.
    pub(crate) load: Option<Share>,
    pub(crate) address: String,
    pub(crate) started: Option<Time>,
    pub(crate) starts: Option<u32>,
    /// What is not as it should be; empty when all is well.
    pub(crate) trouble: String,
}

/// A share in thousandths; a fraction in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share(pub(crate) u16);

impl Serialize for Share {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 1000.0)
    }
}

impl ServerLine {
    /// The colour of its status.
    pub(crate) fn tone(&self) -> &'static str {
        match self.status.as_str() {
            "up" => "good",
            "draining" | "starting" => "warn",
            "stopped" => "quiet",
            _ => "bad",
        }
    }

    /// Whether sensors connect to it.
    pub(crate) fn takes_sensors(&self) -> bool {
        self.role == "detection"
    }

    /// How often it was started again.
    pub(crate) fn restarts(&self) -> u32 {
        self.starts.unwrap_or_default().saturating_sub(1)
    }

    /// Its load in percent.
    pub(crate) fn load_percent(&self) -> String {
        self.load.map(|share| format!("{} %", share.0 / 10)).unwrap_or_default()
    }
}

/// One target of the update manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct UpdateLine {
    pub(crate) name: String,
    pub(crate) version: String,
    /// What it is for.
    pub(crate) target: String,
    /// available: nothing is pulled unasked.
    pub(crate) state: String,
    pub(crate) length: Option<u64>,
    pub(crate) sha256: String,
}
