//! The WebApp's configuration.
//!
//! Invariant: an address that is left out means that the page shows that peer as absent, and says
//! how to add it.

use std::net::SocketAddr;
use std::path::PathBuf;

use lapwing_net::config::{self, Refusal, Server};
use lapwing_net::identity::Role;
use serde::Deserialize;

use crate::backend::Peer;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every server has.
    pub server: Server,
    /// Where the other servers are.
    #[serde(default)]
    pub peers: Peers,
    /// The account that is made at the first start.
    #[serde(default)]
    pub first_user: Option<FirstUser>,
}

/// Where the other servers are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    /// The vendor's root, which Update and Global Intel are signed by; left out: `server.tls.ca`.
    #[serde(default)]
    pub vendor_ca: Option<PathBuf>,
    /// Registration.
    #[serde(default)]
    pub registration: Option<SocketAddr>,
    /// The Update server.
    #[serde(default)]
    pub update: Option<SocketAddr>,
    /// Private Threat Intel.
    #[serde(default)]
    pub intel_private: Option<SocketAddr>,
    /// Global Threat Intel.
    #[serde(default)]
    pub intel_global: Option<SocketAddr>,
    /// The MalOp service.
    #[serde(default)]
    pub malops: Option<SocketAddr>,
    /// The tagging service.
    #[serde(default)]
    pub tagging: Option<SocketAddr>,
    /// Sensor management.
    #[serde(default)]
    pub fleet: Option<SocketAddr>,
    /// What started the servers of this machine.
    #[serde(default)]
    pub supervisor: Option<SocketAddr>,
    /// Detection servers.
    #[serde(default)]
    pub detection: Vec<DetectionPeer>,
}

/// A Detection server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectionPeer {
    /// Its name.
    pub name: String,
    /// Where its console answers.
    pub console: SocketAddr,
    /// Where its malware alerts are read.
    pub malware: SocketAddr,
}

/// The account that is made where there is none yet.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstUser {
    /// Its name.
    pub name: String,
    /// A file with its first password, which must be changed at the first login. Read only where
    /// the account does not exist; it may be deleted afterwards.
    pub password_file: PathBuf,
    /// A file with the SHA-256 of an API token with all scopes.
    #[serde(default)]
    pub api_token_digest_file: Option<PathBuf>,
}

impl Peers {
    /// Every peer with its name and address.
    pub(crate) fn addresses(&self) -> Vec<(Peer, String, SocketAddr)> {
        let single = [
            (Peer::Registration, "registration", self.registration),
            (Peer::Update, "update", self.update),
            (Peer::IntelPrivate, "intel-private", self.intel_private),
            (Peer::IntelGlobal, "intel-global", self.intel_global),
            (Peer::MalOps, "malops", self.malops),
            (Peer::Tagging, "tagging", self.tagging),
            (Peer::Fleet, "fleet", self.fleet),
            (Peer::Supervisor, "supervisor", self.supervisor),
        ];
        let single = single.into_iter();
        let mut peers: Vec<_> = single
            .filter_map(|(peer, name, address)| {
                address.map(|address| (peer, name.to_owned(), address))
            })
            .collect();
        for (number, detection) in self.detection.iter().enumerate() {
            let name = detection.name.clone();
            peers.push((Peer::Detection(number), name.clone(), detection.console));
            peers.push((Peer::Malware(number), name, detection.malware));
        }
        peers
    }
}

impl config::Config for Config {
    const ROLES: &'static [Role] = &[Role::Webapp];

    const EXAMPLE: &'static str = EXAMPLE;

    fn server(&self) -> &Server {
        &self.server
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = self.server.paths();
        paths.extend(self.peers.vendor_ca.iter_mut());
        if let Some(user) = &mut self.first_user {
            paths.push(&mut user.password_file);
            paths.extend(user.api_token_digest_file.iter_mut());
        }
        paths
    }

    fn check(&self) -> Result<(), Refusal> {
        let mut names: Vec<&str> =
            self.peers.detection.iter().map(|peer| peer.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Refusal::new(
                "peers.detection",
                format!("two Detection servers are called {:?}", pair[0]),
                "give each its own name, as its own configuration has it",
            ));
        }
        match &self.first_user {
            Some(user) if !crate::accounts::is_name(&user.name) => Err(Refusal::new(
                "first_user.name",
                format!("{:?} is not a user's name", user.name),
                "write 1 to 64 letters, digits, `-`, `_`, `.` or `@`",
            )),
            Some(_) | None => Ok(()),
        }
    }
}

const EXAMPLE: &str = r##"# The WebApp server: the analyst's page and /api/v1.

# What every server has.
[server]
# Which server this file is for.
role = "webapp"
# The name shown to people, unique in the deployment.
name = "webapp"
# The folder of this server's store: users, sessions, tokens, audit.
data_dir = "store"
# The installation this server belongs to: 32 hexadecimal digits.
deployment = "00112233445566778899aabbccddeeff"
# Where browsers and `lapwing ctl` connect.
listen = ["127.0.0.1:443"]
# A file with the SHA-256 of the token that may read the metrics; without it nobody may.
#metrics_token_file = "metrics-token.sha256"
# The least important level that is logged: off, error, warn, info, debug or trace.
#log_level = "info"

# How what it must not lose is kept.
[server.store]
# The engine: sled or redb. Changed with data in the folder: see `lapwing store --help`.
#engine = "sled"
# Bytes that its stores may take; left out: as much as there is.
#quota = "100 GiB"
# Bytes that must stay free on their file system.
#free_space_floor = "256 MiB"

# Where its stores are backed up while it runs. Without this section nothing is.
#[server.backup]
# The folder of this server's backups alone, best on another disk.
#folder = "backup"
# How long after one backup the next one begins; at least 15 m.
#every = "1 h"

# Certificate, key and the authorities to trust, all PEM.
[server.tls]
# This server's certificate; browsers see it too, so it should name the host they use.
cert = "cert.pem"
# Its private key; mode 0600.
key = "key.pem"
# The organisation's authority.
ca = "ca.pem"

# Where the other servers are; the page shows one that is left out as absent.
[peers]
# The vendor's root, which Update and Global Intel are signed by.
#vendor_ca = "vendor.pem"
# Registration, which assigns sensors to Detection servers.
#registration = "127.0.0.1:8444"
# The Update server.
#update = "127.0.0.1:8445"
# The organisation's own threat intelligence.
#intel_private = "127.0.0.1:8446"
# The shared threat intelligence.
#intel_global = "127.0.0.1:8447"
# The MalOp service.
#malops = "127.0.0.1:8448"
# The tagging service.
#tagging = "127.0.0.1:8449"
# Sensor management.
#fleet = "127.0.0.1:8450"
# What started the servers of this machine (`lapwing up`): stops and starts them.
#supervisor = "127.0.0.1:8451"

# One such section for each Detection server.
[[peers.detection]]
# Its name, as in its own configuration.
name = "d1"
# Where its console answers.
console = "127.0.0.1:8443"
# Where its malware alerts are read.
malware = "127.0.0.1:7075"

# The account that is made where there is none yet.
[first_user]
# Its name.
name = "admin"
# A file with its first password; it must be changed at the first login.
password_file = "first-password"
# A file with the SHA-256 of an API token with all scopes.
#api_token_digest_file = "api-token.sha256"
"##;

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn the_example_is_a_configuration() {
        lapwing_net::config::check_example::<Config>().unwrap();
    }
}
