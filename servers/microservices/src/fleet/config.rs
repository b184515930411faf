//! The configuration file of sensor management.
//!
//! Not here: the common `[server]` section (lapwing-net). Unknown keys are refused.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lapwing_net::config::{self, Period, Refusal, Server};
use lapwing_net::identity::Role;
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every server has.
    pub server: Server,
    /// Where the Detection servers are found.
    #[serde(default)]
    pub peers: Peers,
}

/// Where the Detection servers are found.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Peers {
    /// The Registration server, which knows them all; none where there is none.
    pub registration: Vec<SocketAddr>,
    /// How often each is asked for its sensors.
    pub poll_every: Period,
    /// Those that are named here.
    pub detection: Vec<DetectionPeer>,
}

impl Default for Peers {
    fn default() -> Self {
        let poll_every = Period(Duration::from_secs(1));
        Self { registration: Vec::new(), poll_every, detection: Vec::new() }
    }
}

/// A Detection server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectionPeer {
    /// Its name, for messages until it answers.
    pub name: String,
    /// Where its console answers.
    pub console: SocketAddr,
}

impl config::Config for Config {
    const ROLES: &'static [Role] = &[Role::Fleet];
    const EXAMPLE: &'static str = include_str!("example.toml");

    fn server(&self) -> &Server {
        &self.server
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        self.server.paths()
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.peers.registration.is_empty() && self.peers.detection.is_empty() {
            return Err(Refusal::new(
                "peers",
                "no Detection server can be found",
                "name Registration or at least one [[peers.detection]]",
            ));
        }
        let every = self.peers.poll_every.0;
        if every < Duration::from_millis(50) || every > Duration::from_secs(5) {
            return Err(Refusal::new(
                "peers.poll_every",
                format!("{} is too short or too long", self.peers.poll_every),
                "write 50 ms to 5 s; a server that was not asked for 10 s counts as silent",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn the_example_is_complete() {
        let config = lapwing_net::config::check_example::<Config>().unwrap();
        assert_eq!(config.peers.detection.len(), 1);
    }

    #[test]
    fn without_any_server_it_is_refused_with_a_remedy() {
        let (text, _) = super::super::EXAMPLE.split_once("# Where the Detection").unwrap();
        let refused = lapwing_net::config::parse::<Config>("f.toml".as_ref(), text).unwrap_err();
        assert!(refused.to_string().contains("[[peers.detection]]"), "{refused}");
    }
}
