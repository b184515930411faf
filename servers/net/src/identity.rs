//! Who a peer is: the URI `lapwing://DEPLOYMENT/ROLE/ID` in its certificate.
//!
//! Not here: whether the certificate is to be believed (tls/). Invariants: an identity has one
//! spelling; a certificate has exactly one such URI or it has no identity.

use std::fmt;
use std::str::FromStr;

use lapwing_protocol::id::{DeploymentId, SensorId, ServerId};
use serde::Deserialize;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const SCHEME: &str = "lapwing://";

/// What a peer is in the deployment. Its certificate says it, nothing else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// An endpoint's sensor.
    Sensor,
    /// Assigns sensors to Detection servers.
    Registration,
    /// Ends sensors' connections and detects.
    Detection,
    /// Hosts signed updates; under the vendor's authority.
    Update,
    /// The organisation's own threat intelligence.
    IntelPrivate,
    /// The shared threat intelligence; under the vendor's authority.
    IntelGlobal,
    /// The analyst's page and API.
    Webapp,
    /// Decides what is a MalOp.
    Malops,
    /// Asset tags.
    Tagging,
    /// Sensor management.
    Fleet,
    /// The operator's command.
    Ctl,
}

/// Every role with its name in certificates, files and commands.
const ROLES: [(Role, &str); 11] = [
    (Role::Sensor, "sensor"),
    (Role::Registration, "registration"),
    (Role::Detection, "detection"),
    (Role::Update, "update"),
    (Role::IntelPrivate, "intel-private"),
    (Role::IntelGlobal, "intel-global"),
    (Role::Webapp, "webapp"),
    (Role::Malops, "malops"),
    (Role::Tagging, "tagging"),
    (Role::Fleet, "fleet"),
    (Role::Ctl, "ctl"),
];

impl Role {
    /// The role's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        ROLES.iter().find(|(role, _)| *role == self).map_or("", |(_, name)| name)
    }

    /// The names of all roles.
    #[must_use]
    pub fn names() -> [&'static str; ROLES.len()] {
        ROLES.map(|(_, name)| name)
    }

    /// Whether a peer of this role may speak on the peer plane: everyone but a sensor.
    #[must_use]
    pub fn is_server(self) -> bool {
        self != Self::Sensor
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        ROLES
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(role, _)| *role)
            .ok_or(IdentityError::UnknownRole)
    }
}

/// A peer's whole name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIdentity {
    /// The installation it belongs to.
    pub deployment: DeploymentId,
    /// What it is.
    pub role: Role,
    /// Which one it is: a sensor's or a server's id.
    pub id: [u8; 16],
}

impl PeerIdentity {
    /// The identity of a sensor.
    #[must_use]
    pub fn of_sensor(deployment: DeploymentId, sensor: SensorId) -> Self {
        Self { deployment, role: Role::Sensor, id: sensor.0 }
    }

    /// The identity of a server.
    #[must_use]
    pub fn of_server(deployment: DeploymentId, role: Role, server: ServerId) -> Self {
        Self { deployment, role, id: server.0 }
    }

    /// The sensor's id, if it is one.
    #[must_use]
    pub fn sensor(&self) -> Option<SensorId> {
        (self.role == Role::Sensor).then_some(SensorId(self.id))
    }

    /// The server's id, if it is one.
    #[must_use]
    pub fn server(&self) -> Option<ServerId> {
        self.role.is_server().then_some(ServerId(self.id))
    }

    /// Reads the identity from a certificate in DER. Believe it only after the chain was verified.
    ///
    /// # Errors
    /// The certificate cannot be read, or does not hold exactly one such URI.
    pub fn from_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| IdentityError::BadCertificate)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| IdentityError::BadCertificate)?
            .ok_or(IdentityError::NoIdentity)?;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
            _ => None,
        });
        let uri = uris.next().ok_or(IdentityError::NoIdentity)?;
        match uris.next() {
            None => uri.parse(),
            Some(_) => Err(IdentityError::TwoIdentities),
        }
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}/{}", self.deployment, self.role, ServerId(self.id))
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PeerIdentity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let path = uri.strip_prefix(SCHEME).ok_or(IdentityError::BadUri)?;
        let mut parts = path.split('/');
        let (Some(deployment), Some(role), Some(id), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(IdentityError::BadUri);
        };
        let deployment = deployment.parse().map_err(|_| IdentityError::BadUri)?;
        let ServerId(id) = id.parse().map_err(|_| IdentityError::BadUri)?;
        Ok(Self { deployment, role: role.parse()?, id })
    }
}

/// Why a certificate or text names no peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityError {
    /// The bytes are no certificate.
    BadCertificate,
    /// The certificate has no `lapwing://` URI.
    NoIdentity,
    /// The certificate has several.
    TwoIdentities,
    /// The URI is not `lapwing://DEPLOYMENT/ROLE/ID`.
    BadUri,
    /// The role is none that this version knows.
    UnknownRole,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadCertificate => "the certificate cannot be read",
            Self::NoIdentity => "the certificate has no lapwing:// URI",
            Self::TwoIdentities => "the certificate has more than one lapwing:// URI",
            Self::BadUri => "the URI is not lapwing://DEPLOYMENT/ROLE/ID",
            Self::UnknownRole => "the role is unknown",
        })
    }
}

impl std::error::Error for IdentityError {}

#[cfg(test)]
mod tests {
    use super::{IdentityError, PeerIdentity, Role};
    use lapwing_protocol::id::{DeploymentId, SensorId};

    #[test]
    fn an_identity_is_printed_and_parsed_as_a_uri() {
        let identity = PeerIdentity::of_sensor(DeploymentId([0xab; 16]), SensorId([1; 16]));
        let uri = identity.to_string();
        assert_eq!(uri, format!("lapwing://{}/sensor/{}", "ab".repeat(16), "01".repeat(16)));
        assert_eq!(uri.parse(), Ok(identity));
    }

    #[test]
    fn every_role_has_one_name() {
        for name in Role::names() {
            let role: Role = name.parse().unwrap();
            assert_eq!(role.name(), name);
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        let (deployment, id) = ("ab".repeat(16), "01".repeat(16));
        for uri in [
            format!("LAPWING://{deployment}/sensor/{id}"),
            format!("lapwing://{deployment}/sensor/{id}/"),
            format!("lapwing://{deployment}/sensor/{}", id.replace("01", "0A")),
            format!("lapwing://{deployment}/sensor"),
            format!("lapwing://{deployment}//{id}"),
        ] {
            assert!(uri.parse::<PeerIdentity>().is_err(), "{uri}");
        }
        let uri = format!("lapwing://{deployment}/root/{id}");
        assert_eq!(uri.parse::<PeerIdentity>(), Err(IdentityError::UnknownRole));
    }
}
