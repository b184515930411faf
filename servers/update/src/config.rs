//! The configuration file of an Update server.
//!
//! Not here: the common `[server]` section (lapwing-net). Unknown keys are refused.

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
    /// What is hosted.
    pub repository: RepositoryConfig,
}

/// What is hosted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryConfig {
    /// The folder that `lapwing_update::vendor` writes: `targets.json` and the folder `targets`.
    pub dir: PathBuf,
    /// The vendor's public key: 64 hexadecimal digits.
    pub vendor_key: PathBuf,
}

impl config::Config for Config {
    const ROLES: &'static [Role] = &[Role::Update];
    const EXAMPLE: &'static str = include_str!("example.toml");

    fn server(&self) -> &Server {
        &self.server
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = self.server.paths();
        paths.extend([&mut self.repository.dir, &mut self.repository.vendor_key]);
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn the_example_is_complete() {
        let config = lapwing_net::config::check_example::<Config>().unwrap();
        assert!(config.repository.vendor_key.ends_with("vendor.pub"));
    }
}
