//! The planes: what is spoken on a connection, chosen by the ALPN names in the ClientHello.
//!
//! Not here: how it is spoken. Invariants: each plane has its own configuration; a plane that was
//! not asked for when the listener was made does not exist on it.

use std::sync::Arc;

use lapwing_protocol::id::DeploymentId;
use rustls::ServerConfig;
use rustls::server::{NoClientAuth, NoServerSessionStorage, ServerSessionMemoryCache};

use super::verify::{ClientByIdentity, ServedRoles};
use super::{Credentials, HandshakeError, provider};
use crate::limits::{ENROL_BYTES, HTTP_BYTES, PEER_BYTES, SENSOR_BYTES};

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plane {
    /// Enrolment: no client certificate, a token in the message.
    Enrol,
    /// A sensor's session: a client certificate of the role `sensor`.
    Sensor,
    /// Calls between servers: a client certificate of any other role.
    Peer,
    /// HTTP: pages, API, metrics. No client certificate; tokens and cookies.
    Http,
}

impl Plane {
    const ALL: [Self; 4] = [Self::Enrol, Self::Sensor, Self::Peer, Self::Http];

    /// The plane's ALPN names, the preferred one first.
    #[must_use]
    pub fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::Enrol => &[b"lapwing-enrol/1"],
            Self::Sensor => &[b"lapwing-sensor/1"],
            Self::Peer => &[b"lapwing-peer/1"],
            Self::Http => &[b"h2", b"http/1.1"],
        }
    }

    /// The plane's name in logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Enrol => "enrol",
            Self::Sensor => "sensor",
            Self::Peer => "peer",
            Self::Http => "http",
        }
    }

    /// What one of its connections may hold of this server's memory.
    #[must_use]
    pub fn held_bytes_max(self) -> usize {
        match self {
            Self::Enrol => ENROL_BYTES,
            Self::Sensor => SENSOR_BYTES,
            Self::Peer => PEER_BYTES,
            Self::Http => HTTP_BYTES,
        }
    }

    /// The plane of one ALPN name.
    #[must_use]
    pub fn of_alpn(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|plane| plane.alpn().contains(&name))
    }
}

/// The server configurations of the planes that one listener serves.
#[derive(Debug, Clone)]
pub struct ServerPlanes {
    configs: Vec<(Plane, Arc<ServerConfig>)>,
}

impl ServerPlanes {
    /// Configurations for `planes`. On the sensor and peer planes, clients must be of `deployment`;
    /// `None` takes any deployment under the trusted authorities, as the vendor's servers do.
    ///
    /// # Errors
    /// The credentials trust no authority.
    pub fn new(
        credentials: &Credentials,
        deployment: Option<DeploymentId>,
        planes: &[Plane],
    ) -> Result<Self, HandshakeError> {
        let configs = planes
            .iter()
            .map(|plane| Ok((*plane, Arc::new(config(credentials, deployment, *plane)?))))
            .collect::<Result<_, HandshakeError>>()?;
        Ok(Self { configs })
    }

    /// The first plane of `offered` that is served; HTTP when nothing is offered.
    ///
    /// The configuration for a hello that offers nothing we serve is any other: the TLS library
    /// then answers with the alert made for this, which tells the client more than a closed socket.
    pub(crate) fn choose<'a>(&self, offered: Option<impl Iterator<Item = &'a [u8]>>) -> Choice {
        let wanted = match offered {
            None => self.config_of(Plane::Http).map(|config| (Plane::Http, config)),
            Some(names) => names
                .filter_map(Plane::of_alpn)
                .find_map(|plane| self.config_of(plane).map(|config| (plane, config))),
        };
        let any = self.configs.first().filter(|_| cfg!(mutant = "any_plane_accepted"));
        let wanted = wanted.or_else(|| any.map(|(plane, config)| (*plane, Arc::clone(config))));
        match (wanted, self.configs.first()) {
            (Some((plane, config)), _) => Choice::Served(plane, config),
            (None, Some((_, config))) => Choice::NotServed(Some(Arc::clone(config))),
            (None, None) => Choice::NotServed(None),
        }
    }

    fn config_of(&self, plane: Plane) -> Option<Arc<ServerConfig>> {
        self.configs
            .iter()
            .find(|(served, _)| *served == plane)
            .map(|(_, config)| Arc::clone(config))
    }
}

/// What a ClientHello leads to.
pub(crate) enum Choice {
    Served(Plane, Arc<ServerConfig>),
    /// With a configuration to refuse it by.
    NotServed(Option<Arc<ServerConfig>>),
}

fn config(
    credentials: &Credentials,
    deployment: Option<DeploymentId>,
    plane: Plane,
) -> Result<ServerConfig, HandshakeError> {
    let client =
        |roles| -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, HandshakeError> {
            let roots = Arc::clone(&credentials.client_roots);
            let verifier = ClientByIdentity::new(roots, roles, deployment)
                .map_err(|error| HandshakeError::Setup(error.to_string()))?;
            Ok(Arc::new(verifier))
        };
    let verifier = match plane {
        Plane::Sensor => client(ServedRoles::Sensors)?,
        Plane::Peer => client(ServedRoles::Servers)?,
        Plane::Enrol | Plane::Http => Arc::new(NoClientAuth),
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| HandshakeError::Setup(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(
            Arc::clone(&credentials.slot) as Arc<dyn rustls::server::ResolvesServerCert>
        );
    if !cfg!(mutant = "any_plane_accepted") {
        config.alpn_protocols = plane.alpn().iter().map(|name| name.to_vec()).collect();
    }
    config.max_early_data_size = 0;
    match plane {
        Plane::Http => {
            config.session_storage = ServerSessionMemoryCache::new(256);
        }
        // No tickets and no session store: 4 KiB less for each idle connection, and a revoked peer
        // cannot come back by resumption.
        Plane::Enrol | Plane::Sensor | Plane::Peer => {
            if cfg!(mutant = "sessions_resumed") {
                config.session_storage = ServerSessionMemoryCache::new(256);
            } else {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
        }
    }
    Ok(config)
}
