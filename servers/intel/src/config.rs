//! The configuration file of a Threat Intel server, private or global; `server.role` says which.
//!
//! Not here: the common `[server]` section (lapwing-net). Unknown keys are refused.

use std::net::SocketAddr;
use std::path::PathBuf;

use lapwing_net::config::{self, Refusal, Server};
use lapwing_net::identity::Role;
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every server has.
    pub server: Server,
    /// Of a Private server: where Global is.
    #[serde(default)]
    pub global: Option<Global>,
    /// The list.
    #[serde(default)]
    pub list: List,
}

/// Where Global Threat Intel is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Global {
    /// Its addresses.
    pub addresses: Vec<SocketAddr>,
    /// The vendor's root that signed it, PEM.
    pub ca: PathBuf,
}

/// The list.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct List {
    /// Entries at the most.
    pub entries_max: usize,
    /// Of a Global server: a file of indicators that it knows from its start on.
    pub file: Option<PathBuf>,
}

impl Default for List {
    fn default() -> Self {
        Self { entries_max: 1_000_000, file: None }
    }
}

impl config::Config for Config {
    const ROLES: &'static [Role] = &[Role::IntelPrivate, Role::IntelGlobal];
    const EXAMPLE: &'static str = include_str!("example.toml");

    fn server(&self) -> &Server {
        &self.server
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = self.server.paths();
        paths.extend(self.global.as_mut().map(|global| &mut global.ca));
        paths.extend(self.list.file.as_mut());
        paths
    }

    fn check(&self) -> Result<(), Refusal> {
        match (&self.global, self.server.role) {
            (Some(_), Role::IntelGlobal) => Err(Refusal::new(
                "global",
                "a Global server asks no other one",
                "leave the section out, or set server.role to \"intel-private\"",
            )),
            (Some(global), _) if global.addresses.is_empty() => Err(Refusal::new(
                "global.addresses",
                "there is no address to ask at",
                "write at least one, or leave the section out",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn the_example_is_complete() {
        let config = lapwing_net::config::check_example::<Config>().unwrap();
        assert!(config.global.is_none());
    }
}
