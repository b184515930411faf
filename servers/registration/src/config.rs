//! The configuration file of a Registration server.
//!
//! Not here: the common `[server]` section (lapwing-net). Unknown keys are refused.

use std::path::PathBuf;

use lapwing_net::config::{self, Server};
use lapwing_net::enrolment::EnrolmentConfig;
use lapwing_net::identity::Role;
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every server has.
    pub server: Server,
    /// How sensors are enrolled.
    pub enrolment: EnrolmentConfig,
}

impl config::Config for Config {
    const ROLES: &'static [Role] = &[Role::Registration];
    const EXAMPLE: &'static str = include_str!("example.toml");

    fn server(&self) -> &Server {
        &self.server
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = self.server.paths();
        paths.extend(self.enrolment.paths());
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn the_example_is_complete() {
        let config = lapwing_net::config::check_example::<Config>().unwrap();
        assert!(config.enrolment.tokens_file.ends_with("enrolment-tokens.sha256"));
    }
}
