//! The configuration file of the tagging service: the common `[server]` section alone.

use std::path::PathBuf;

use lapwing_net::config::{self, Server};
use lapwing_net::identity::Role;
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every server has.
    pub server: Server,
}

impl config::Config for Config {
    const ROLES: &'static [Role] = &[Role::Tagging];
    const EXAMPLE: &'static str = include_str!("example.toml");

    fn server(&self) -> &Server {
        &self.server
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        self.server.paths()
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn the_example_is_complete() {
        lapwing_net::config::check_example::<Config>().unwrap();
    }
}
