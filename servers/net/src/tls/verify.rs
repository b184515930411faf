//! Who the other side is: its chain must end at a trusted authority, and the URI in its certificate
//! must fit.
//!
//! Not here: signatures and chains themselves (webpki does those). Invariants: the identity is
//! looked at only after the chain was verified; DNS names and addresses never decide.

use std::fmt;
use std::sync::Arc;

use lapwing_protocol::id::DeploymentId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::provider;
use crate::identity::{IdentityError, PeerIdentity, Role};

/// The SHA-256 of the public key in a certificate (DER): what a deny list holds, since a renewed
/// certificate of the same key has the same.
#[must_use]
pub fn key_digest(certificate: &[u8]) -> Option<[u8; 32]> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(Sha256::digest(parsed.public_key().raw).into())
}

/// What the other side must be. What is `None` may be anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExpectedPeer {
    /// Its deployment; none for the vendor's servers, which belong to no organisation.
    pub deployment: Option<DeploymentId>,
    /// Its role.
    pub role: Option<Role>,
    /// Its id.
    pub id: Option<[u8; 16]>,
}

impl ExpectedPeer {
    /// Any server of `role` in `deployment`.
    #[must_use]
    pub fn of_role(deployment: DeploymentId, role: Role) -> Self {
        Self { deployment: Some(deployment), role: Some(role), id: None }
    }

    /// A server of the vendor, which belongs to no deployment of ours.
    #[must_use]
    pub fn of_vendor(role: Role) -> Self {
        Self { deployment: None, role: Some(role), id: None }
    }

    pub(super) fn check(&self, found: &PeerIdentity) -> Result<(), PeerMismatch> {
        let fits = self.deployment.is_none_or(|deployment| deployment == found.deployment)
            && self.role.is_none_or(|role| role == found.role)
            && self.id.is_none_or(|id| id == found.id);
        if fits { Ok(()) } else { Err(PeerMismatch::OtherPeer { expected: *self, found: *found }) }
    }
}

impl fmt::Display for ExpectedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Some(role) => write!(f, "{role}")?,
            None => f.write_str("any role")?,
        }
        if let Some(id) = self.id {
            write!(f, " {}", crate::hexadecimal::encode(&id))?;
        }
        if let Some(deployment) = self.deployment {
            write!(f, " of deployment {deployment}")?;
        }
        Ok(())
    }
}

/// A verified certificate whose identity does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerMismatch {
    /// It names nobody.
    NoIdentity(IdentityError),
    /// It names somebody else.
    OtherPeer {
        /// Who was expected.
        expected: ExpectedPeer,
        /// Who answered.
        found: PeerIdentity,
    },
    /// Its role may not speak on this plane.
    RoleNotServed(PeerIdentity),
    /// It belongs to another deployment.
    OtherDeployment(PeerIdentity),
}

impl fmt::Display for PeerMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIdentity(error) => error.fmt(f),
            Self::OtherPeer { expected, found } => {
                write!(f, "expected {expected}, but the certificate is of {found}")
            }
            Self::RoleNotServed(found) => {
                write!(f, "the role {} may not speak on this plane ({found})", found.role)
            }
            Self::OtherDeployment(found) => {
                write!(f, "the certificate is of another deployment ({found})")
            }
        }
    }
}

impl std::error::Error for PeerMismatch {}

impl From<PeerMismatch> for Error {
    fn from(mismatch: PeerMismatch) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch))))
    }
}

/// For clients: verifies the server's chain, then who it is.
#[derive(Debug)]
pub(super) struct ServerByIdentity {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    expected: ExpectedPeer,
}

impl ServerByIdentity {
    pub(super) fn new(roots: Arc<RootCertStore>, expected: ExpectedPeer) -> Self {
        Self { roots, algorithms: provider().signature_verification_algorithms, expected }
    }
}

impl ServerCertVerifier for ServerByIdentity {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        let found = PeerIdentity::from_certificate(end_entity).map_err(PeerMismatch::NoIdentity)?;
        self.expected.check(&found)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Which roles a plane serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServedRoles {
    Sensors,
    Servers,
}

/// For servers: verifies the client's chain, then whether it may speak on the plane.
#[derive(Debug)]
pub(super) struct ClientByIdentity {
    chain: Arc<dyn ClientCertVerifier>,
    roles: ServedRoles,
    deployment: Option<DeploymentId>,
}

impl ClientByIdentity {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        roles: ServedRoles,
        deployment: Option<DeploymentId>,
    ) -> Result<Self, rustls::server::VerifierBuilderError> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots, provider())
            // Naming our authorities to whoever asks tells strangers about the deployment and helps
            // no client of ours: each has one certificate.
            .clear_root_hint_subjects()
            .build()?;
        Ok(Self { chain, roles, deployment })
    }
}

impl ClientCertVerifier for ClientByIdentity {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let found = PeerIdentity::from_certificate(end_entity).map_err(PeerMismatch::NoIdentity)?;
        let fits = found.role.is_server() == (self.roles == ServedRoles::Servers);
        if !fits && !cfg!(mutant = "any_role_accepted") {
            return Err(PeerMismatch::RoleNotServed(found).into());
        }
        if self.deployment.is_some_and(|deployment| deployment != found.deployment) {
            return Err(PeerMismatch::OtherDeployment(found).into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
