//! The configuration file of the MalOp service.
//!
//! Not here: the common `[server]` section (lapwing-net). Unknown keys are refused.

use std::net::SocketAddr;
use std::path::PathBuf;

use lapwing_net::config::{self, Refusal, Server};
use lapwing_net::identity::Role;
use lapwing_server_core::malop::MalOpLimits;
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every server has.
    pub server: Server,
    /// How much is kept.
    #[serde(default)]
    pub malops: Bounds,
    /// Where the Detection servers are found.
    #[serde(default)]
    pub peers: Peers,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// MalOps at the most.
    pub malops_max: usize,
    /// Causes under suspicion at the most.
    pub suspicious_causes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        let MalOpLimits { malops_max, suspicious_causes_max, .. } = MalOpLimits::default();
        Self { malops_max, suspicious_causes_max }
    }
}

impl Bounds {
    pub(crate) fn limits(self) -> MalOpLimits {
        let Self { malops_max, suspicious_causes_max } = self;
        MalOpLimits { malops_max, suspicious_causes_max, ..MalOpLimits::default() }
    }
}

/// Where the Detection servers are found.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Peers {
    /// The Registration server, which knows them all; none where there is none.
    pub registration: Vec<SocketAddr>,
    /// Those that are named here.
    pub detection: Vec<DetectionPeer>,
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

/// What an operator may set a bound to: a million MalOps are 2 GiB.
const BOUND_MAX: usize = 1_000_000;

impl config::Config for Config {
    const ROLES: &'static [Role] = &[Role::Malops];
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
        let bounds = [
            ("malops.malops_max", self.malops.malops_max),
            ("malops.suspicious_causes_max", self.malops.suspicious_causes_max),
        ];
        match bounds.iter().find(|(_, bound)| !(1..=BOUND_MAX).contains(bound)) {
            None => Ok(()),
            Some((key, bound)) => Err(Refusal::new(
                *key,
                format!("{bound} is too few or too many"),
                format!("write 1 to {BOUND_MAX}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn the_example_is_complete() {
        let config = lapwing_net::config::check_example::<Config>().unwrap();
        assert_eq!(config.peers.detection.len(), 1);
        assert_eq!(config.malops.malops_max, 20_000);
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_remedy() {
        let told = |text: &str| {
            let refused = lapwing_net::config::parse::<Config>("m.toml".as_ref(), text);
            refused.unwrap_err().to_string()
        };
        let (text, _) = super::super::EXAMPLE.split_once("# Where the Detection").unwrap();
        let nowhere = told(text);
        assert!(nowhere.contains("[[peers.detection]]"), "{nowhere}");
        let none = super::super::EXAMPLE.replace("#malops_max = 20000", "malops_max = 0");
        let none = told(&none);
        assert!(none.contains("malops_max") && none.contains("write 1 to"), "{none}");
    }
}
