//! The section `[server]` that every role's file has.
//!
//! Not here: a role's own sections. Invariant: unknown keys are refused here too.

use std::net::SocketAddr;
use std::path::PathBuf;

use lapwing_protocol::id::DeploymentId;
use lapwing_protocol::limits::NAME_BYTES_MAX;
use serde::Deserialize;

use super::{Backup, Refusal, Storage};
use crate::identity::Role;
use crate::limits::ListenerLimits;

/// What every server must know about itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Which server this file is for; must be the role it is started as.
    pub role: Role,
    /// The name shown to people, unique in the deployment.
    pub name: String,
    /// The folder of this server's store. One process owns it.
    pub data_dir: PathBuf,
    /// The installation this server belongs to: 32 hexadecimal digits.
    #[serde(deserialize_with = "identifier")]
    pub deployment: DeploymentId,
    /// Addresses to listen on, for every plane the role serves.
    pub listen: Vec<SocketAddr>,
    /// Certificate, key and the authorities to trust.
    pub tls: Tls,
    /// A file with the SHA-256, in hexadecimal, of the token that may read the metrics. Without it
    /// nobody may.
    #[serde(default)]
    pub metrics_token_file: Option<PathBuf>,
    /// The least important level that is logged. The environment's `LAPWING_LOG` goes before it.
    #[serde(default)]
    pub log_level: LogLevel,
    /// Bounds of the listeners.
    #[serde(default)]
    pub limits: ServerLimits,
    /// The engine of its stores, and the room they may take.
    #[serde(default)]
    pub store: Storage,
    /// Where its stores are backed up; left out: nowhere.
    #[serde(default)]
    pub backup: Option<Backup>,
}

/// The files of the server's identity, all PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// This server's certificate, and any between it and its authority.
    pub cert: PathBuf,
    /// Its private key; mode 0600.
    pub key: PathBuf,
    /// The authority that signed it, and that signs the servers it calls.
    pub ca: PathBuf,
    /// The authorities whose clients may connect. Left out: `ca` alone.
    #[serde(default)]
    pub client_ca: Vec<PathBuf>,
}

/// Bounds of the listeners that an operator may change.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerLimits {
    /// Connections at once; more are closed before the handshake.
    pub connections_max: usize,
    /// Handshakes at once.
    pub handshakes_max: usize,
    /// New connections a second from one network (/24 or /64), on average.
    pub source_rate_per_s: u32,
    /// New connections at a stroke from one network.
    pub source_burst: u32,
}

impl Default for ServerLimits {
    fn default() -> Self {
        let limits = ListenerLimits::default();
        Self {
            connections_max: limits.connections_max,
            handshakes_max: limits.handshakes_max,
            source_rate_per_s: limits.source_rate_per_s,
            source_burst: limits.source_burst,
        }
    }
}

impl ServerLimits {
    /// The listener's bounds with these put in.
    #[must_use]
    pub fn listener(&self) -> ListenerLimits {
        ListenerLimits {
            connections_max: self.connections_max,
            handshakes_max: self.handshakes_max,
            source_rate_per_s: self.source_rate_per_s,
            source_burst: self.source_burst,
            ..ListenerLimits::default()
        }
    }
}

/// The least important level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Nothing at all.
    Off,
    /// What an operator must act on.
    Error,
    /// What an operator should look at.
    Warn,
    /// What happened.
    #[default]
    Info,
    /// What a developer asks for.
    Debug,
    /// Every frame.
    Trace,
}

impl From<LogLevel> for log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::Off,
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

impl Server {
    /// Every path of this section.
    pub fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths =
            vec![&mut self.data_dir, &mut self.tls.cert, &mut self.tls.key, &mut self.tls.ca];
        paths.extend(self.tls.client_ca.iter_mut());
        paths.extend(self.metrics_token_file.iter_mut());
        paths.extend(self.backup.iter_mut().map(|backup| &mut backup.folder));
        paths
    }

    /// What the types cannot say.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn check(&self) -> Result<(), Refusal> {
        let name_ok = !self.name.is_empty()
            && self.name.len() <= NAME_BYTES_MAX
            && self.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !name_ok {
            return Err(Refusal::new(
                "server.name",
                format!("{:?} is not a name", self.name),
                "write 1 to 255 letters, digits, `-`, `_` or `.`",
            ));
        }
        if self.listen.is_empty() {
            return Err(Refusal::new(
                "server.listen",
                "there is no address to listen on",
                "write at least one, such as [\"127.0.0.1:8443\"]",
            ));
        }
        self.backup.as_ref().map_or(Ok(()), Backup::check)?;
        let limits = [
            ("connections_max", self.limits.connections_max),
            ("handshakes_max", self.limits.handshakes_max),
            ("source_rate_per_s", self.limits.source_rate_per_s as usize),
            ("source_burst", self.limits.source_burst as usize),
        ];
        match limits.iter().find(|(_, limit)| *limit == 0) {
            Some((key, _)) => Err(Refusal::new(
                format!("server.limits.{key}"),
                "a limit of 0 lets nobody in",
                "write at least 1, or leave the key out",
            )),
            None => Ok(()),
        }
    }
}

/// For `#[serde(deserialize_with)]`: an id of the protocol as 32 lower-case hexadecimal digits.
///
/// # Errors
/// The value is not such a text.
pub fn identifier<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "{text:?} is not an id; write its 32 lower-case hexadecimal digits"
        ))
    })
}
