//! TLS as a sensor speaks it: 1.3 alone, ring alone, the server known by CA and role.
//!
//! Not here: sockets and time bounds ([`crate::dial`]). Invariants: a server is who the URI in its
//! verified certificate says, never who its name or address says; each plane has its own ALPN name.

mod error;
mod verify;

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};

pub(crate) use error::TlsError;
pub(crate) use verify::{Expected, PeerUri};

use crate::durable_file;
use crate::identity::Identity;
use verify::ServerByUri;

const ALPN_ENROL: &[u8] = b"lapwing-enrol/1";
const ALPN_SENSOR: &[u8] = b"lapwing-sensor/1";
/// A CA file: some certificates of 2 KiB.
const CA_BYTES_MAX: u64 = 1 << 20;

/// A file that should hold authorities and cannot be used.
#[derive(Debug)]
pub(crate) enum RootsError {
    /// It cannot be read.
    File(io::Error),
    /// There is no such file.
    Missing,
    /// It holds no certificate in PEM.
    NotPem,
}

/// Whom a sensor trusts.
#[derive(Clone, Debug)]
pub(crate) struct Roots(Arc<RootCertStore>);

impl Roots {
    /// The authorities in a PEM file.
    pub(crate) fn load(file: &Path) -> Result<Self, RootsError> {
        let pem = durable_file::read(file, CA_BYTES_MAX).map_err(RootsError::File)?;
        let pem = pem.ok_or(RootsError::Missing)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|_| RootsError::NotPem)?;
            roots.add(certificate).map_err(|_| RootsError::NotPem)?;
        }
        if roots.is_empty() { Err(RootsError::NotPem) } else { Ok(Self(Arc::new(roots))) }
    }

    /// The one authority that an identity was made under.
    pub(crate) fn of(identity: &Identity) -> Result<Self, RootsError> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from(identity.authority.clone());
        roots.add(authority).map_err(|_| RootsError::NotPem)?;
        Ok(Self(Arc::new(roots)))
    }
}

/// How to speak on the enrol plane: without a certificate of our own.
pub(crate) fn enrol_plane(roots: &Roots, expected: Expected) -> Result<ClientConfig, TlsError> {
    let builder = builder(roots, expected)?;
    Ok(finish(builder.with_no_client_auth(), ALPN_ENROL))
}

/// How to speak on the sensor plane.
pub(crate) fn sensor_plane(
    roots: &Roots,
    expected: Expected,
    identity: &Identity,
) -> Result<ClientConfig, TlsError> {
    let certificate = CertificateDer::from(identity.certificate.clone());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key.clone()));
    let config = builder(roots, expected)?
        .with_client_auth_cert(vec![certificate], key)
        .map_err(|error| TlsError::Setup(error.to_string()))?;
    Ok(finish(config, ALPN_SENSOR))
}

fn builder(
    roots: &Roots,
    expected: Expected,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    let verifier = ServerByUri::new(Arc::clone(&roots.0), provider(), expected);
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| TlsError::Setup(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

fn finish(mut config: ClientConfig, alpn: &[u8]) -> ClientConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    // One connection for days: a ticket store would be memory that is never used.
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    // The server is known by its URI; its name in the hello would tell onlookers and help nobody.
    config.enable_sni = false;
    config
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
