//! The configuration file of a Detection server.
//!
//! Not here: the common `[server]` section (lapwing-net). Unknown keys are refused.

use std::net::SocketAddr;
use std::path::PathBuf;

use lapwing_net::config::{self, Period, Refusal, Server, Size, identifier};
use lapwing_net::enrolment::EnrolmentConfig;
use lapwing_net::identity::Role;
use lapwing_protocol::id::ServerId;
use lapwing_protocol::limits::ROWS_MAX;
use lapwing_server_core::delivery::limits::{SHARE_BYTES, SHARE_BYTES_MIN};
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every server has; `listen` is where sensors connect.
    pub server: Server,
    /// What only a Detection server has.
    pub detection: Detection,
    /// Where the other servers are.
    #[serde(default)]
    pub peers: Peers,
    /// Present where this server enrols sensors itself, since there is no Registration server.
    #[serde(default)]
    pub enrolment: Option<EnrolmentConfig>,
    /// How long the journal is kept.
    #[serde(default)]
    pub journal: Journal,
}

/// What only a Detection server has.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detection {
    /// This server's id; also in its certificate.
    #[serde(deserialize_with = "identifier")]
    pub id: ServerId,
    /// Where other servers ask (reference port 8443).
    pub console_listen: SocketAddr,
    /// Where malware alerts are read (reference port 7075).
    pub malware_listen: SocketAddr,
    /// Where sensors reach this server, as told to Registration; left out: the first of `listen`.
    #[serde(default)]
    pub advertise: Option<SocketAddr>,
    /// Sensors it takes.
    #[serde(default = "capacity")]
    pub capacity: u32,
    /// Rows it keeps for one sensor.
    #[serde(default = "rows_max")]
    pub rows_max: u32,
    /// Bytes of all sensors' bulk lanes on their way to the disk.
    #[serde(default = "in_flight_max")]
    pub in_flight_max: Size,
}

fn capacity() -> u32 {
    10_000
}

fn in_flight_max() -> Size {
    Size(SHARE_BYTES)
}

fn rows_max() -> u32 {
    ROWS_MAX
}

/// Where the other servers are; one that is left out is done without.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    /// Registration, which is told how full this server is.
    #[serde(default)]
    pub registration: Vec<SocketAddr>,
    /// Private Threat Intel, which is asked about hashes, addresses and domains.
    #[serde(default)]
    pub intel: Vec<SocketAddr>,
}

/// How long the journal is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// Partitions older than this are dropped.
    pub keep: Period,
    /// Size at which a partition is closed.
    pub partition: Size,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            keep: Period(std::time::Duration::from_secs(30 * 86_400)),
            partition: Size(100_000_000),
        }
    }
}

impl config::Config for Config {
    const ROLES: &'static [Role] = &[Role::Detection];
    const EXAMPLE: &'static str = include_str!("example.toml");

    fn server(&self) -> &Server {
        &self.server
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = self.server.paths();
        if let Some(enrolment) = &mut self.enrolment {
            paths.extend(enrolment.paths());
        }
        paths
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.detection.rows_max == 0 || self.detection.rows_max > ROWS_MAX {
            return Err(Refusal::new(
                "detection.rows_max",
                format!("{} is not between 1 and {ROWS_MAX}", self.detection.rows_max),
                "leave it out",
            ));
        }
        let least = Size(SHARE_BYTES_MIN);
        if self.detection.in_flight_max < least {
            return Err(Refusal::new(
                "detection.in_flight_max",
                format!("{} is less than {least}", self.detection.in_flight_max),
                "leave it out",
            ));
        }
        if self.detection.capacity == 0 {
            return Err(Refusal::new(
                "detection.capacity",
                "a server of capacity 0 takes no sensor",
                "write how many sensors it may take",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_complete_and_parses() {
        let config = config::check_example::<Config>().unwrap();
        assert_eq!(config.server.role, Role::Detection);
    }
}
