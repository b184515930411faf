//! Who the server is: its chain must end at a trusted authority, and the URI in its certificate
//! must be of the expected role and deployment.
//!
//! Not here: signatures and chains themselves (webpki does those). Invariant: the URI is looked at
//! only after the chain was verified.

use std::fmt;
use std::sync::Arc;

use lapwing_protocol::id::{DeploymentId, ServerId};
use lapwing_protocol::registration::ServerRole;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The name in a certificate: `lapwing://DEPLOYMENT/ROLE/ID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerUri {
    pub(crate) deployment: DeploymentId,
    pub(crate) role: String,
    pub(crate) id: ServerId,
}

impl PeerUri {
    /// The one such URI of a certificate in DER.
    pub(crate) fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("lapwing://"),
            _ => None,
        });
        let parts: Vec<&str> = uris.next()?.split('/').collect();
        let [deployment, role, id] = parts.as_slice() else { return None };
        if uris.next().is_some() || !role.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
            return None;
        }
        let (deployment, id) = (deployment.parse().ok()?, id.parse().ok()?);
        Some(Self { deployment, role: (*role).to_owned(), id })
    }
}

/// Who may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// One of these roles.
    pub(crate) roles: &'static [ServerRole],
    /// Of this deployment, where it is known.
    pub(crate) deployment: Option<DeploymentId>,
    /// This very server, where it is known.
    pub(crate) server: Option<ServerId>,
}

impl Expected {
    fn is(&self, found: &PeerUri) -> bool {
        self.roles.iter().any(|role| role.name() == found.role)
            && self.deployment.is_none_or(|deployment| deployment == found.deployment)
            && self.server.is_none_or(|server| server == found.id)
    }
}

/// A verified certificate that is not of whom we want to speak with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// It names nobody.
    NoUri,
    /// It names somebody else.
    Other { expected: Expected, found: PeerUri },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Other { expected, found } = self else {
            return f.write_str("the server's certificate does not say which server it is");
        };
        let roles: Vec<&str> = expected.roles.iter().map(|role| role.name()).collect();
        if !roles.contains(&found.role.as_str()) {
            let (wanted, role) = (roles.join(" or "), &found.role);
            return write!(f, "a {role} server answers where a {wanted} server is expected");
        }
        match expected.deployment {
            Some(deployment) if deployment != found.deployment => write!(
                f,
                "the server is of deployment {}, this sensor of {deployment}",
                found.deployment
            ),
            _ => write!(f, "another {} server answers ({})", found.role, found.id),
        }
    }
}

impl std::error::Error for Mismatch {}

#[derive(Debug)]
pub(super) struct ServerByUri {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    expected: Expected,
}

impl ServerByUri {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        expected: Expected,
    ) -> Self {
        Self { roots, provider, expected }
    }
}

fn mismatch(mismatch: Mismatch) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch))))
}

impl ServerCertVerifier for ServerByUri {
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
            self.provider.signature_verification_algorithms.all,
        )?;
        let found = PeerUri::of(end_entity).ok_or_else(|| mismatch(Mismatch::NoUri))?;
        if !self.expected.is(&found) && !cfg!(mutant = "any_server_accepted") {
            return Err(mismatch(Mismatch::Other { expected: self.expected.clone(), found }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
