//! TLS as the planes want it: 1.3 alone, ALPN, a chain to the CA, no names of DNS.
//!
//! Not here: sockets. The verifier checks chain and signatures; who the peer is by its URI is left
//! to the cases, which want to say what is wrong with it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
};

use super::identity::Credentials;

/// The enrol plane.
pub const ENROL: &str = "lapwing-enrol/1";
/// The sensor plane.
pub const SENSOR: &str = "lapwing-sensor/1";
/// The peer plane.
pub const PEER: &str = "lapwing-peer/1";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The authority to trust.
///
/// # Errors
/// The bytes are no certificate.
pub fn roots(authority: &[u8]) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.to_vec()))?;
    Ok(Arc::new(roots))
}

/// A client that trusts `roots` and offers `planes`.
///
/// # Errors
/// The credentials are not sound.
pub fn client(
    roots: &Arc<RootCertStore>,
    planes: &[&str],
    credentials: Option<&Credentials>,
) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ByChain(Arc::clone(roots), provider())));
    let mut config = match credentials {
        Some(credentials) => {
            let (chain, key) = parts(credentials);
            builder.with_client_auth_cert(chain, key)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = planes.iter().map(|plane| plane.as_bytes().to_vec()).collect();
    config.enable_early_data = true;
    Ok(Arc::new(config))
}

/// Which clients a server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Those with a certificate of the authority.
    Certified,
    /// Those, and such as have none.
    All,
}

/// A server that offers `planes`, for `clients` of the authority in `roots`.
///
/// # Errors
/// The credentials are not sound.
pub fn server(
    credentials: &Credentials,
    planes: &[&str],
    roots: &Arc<RootCertStore>,
    clients: Clients,
) -> Result<Arc<ServerConfig>, Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider());
    let verifier = match clients {
        Clients::Certified => verifier,
        Clients::All => verifier.allow_unauthenticated(),
    };
    let verifier = verifier.build().map_err(|error| Error::General(error.to_string()))?;
    let (chain, key) = parts(credentials);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = planes.iter().map(|plane| plane.as_bytes().to_vec()).collect();
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn parts(credentials: &Credentials) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = vec![CertificateDer::from(credentials.certificate.clone())];
    (chain, PrivateKeyDer::from(PrivatePkcs8KeyDer::from(credentials.key.clone())))
}

/// Verifies that the chain ends at the authority, and no name.
#[derive(Debug)]
struct ByChain(Arc<RootCertStore>, Arc<CryptoProvider>);

impl ServerCertVerifier for ByChain {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.1.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.0,
            intermediates,
            now,
            algorithms,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.1.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.1.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }
}
