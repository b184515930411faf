//! A server's certificate, key and trusted authorities, loaded from PEM files; replaceable while it
//! runs.
//!
//! Not here: what is done with them (plane.rs, client.rs). Invariant: certificate and key belong
//! together, or loading fails.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::RootCertStore;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::provider;
use crate::config;
use crate::identity::{IdentityError, PeerIdentity};

/// What a server shows and whom it trusts.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub(super) slot: Arc<CertificateSlot>,
    /// Authorities of the servers we call.
    pub(super) server_roots: Arc<RootCertStore>,
    /// Authorities of the clients that call us.
    pub(super) client_roots: Arc<RootCertStore>,
}

impl Credentials {
    /// Loads what `[server.tls]` names.
    ///
    /// # Errors
    /// A file is missing, is not PEM, or certificate and key do not belong together.
    pub fn load(tls: &config::Tls) -> Result<Self, CredentialsError> {
        let server_roots = Arc::new(load_roots([tls.ca.as_path()])?);
        let client_roots = match tls.client_ca.as_slice() {
            [] => Arc::clone(&server_roots),
            files => Arc::new(load_roots(files.iter().map(PathBuf::as_path))?),
        };
        let slot = CertificateSlot::new(load_certified_key(&tls.cert, &tls.key)?);
        Ok(Self { slot: Arc::new(slot), server_roots, client_roots })
    }

    /// From PEM text: an authority, and the certificate and key it signed. For tools and tests.
    ///
    /// # Errors
    /// As [`Self::load`]; files are named `(memory)`.
    pub fn from_pem(ca: &str, certificate: &str, key: &str) -> Result<Self, CredentialsError> {
        let memory = Path::new("(memory)");
        let roots = Arc::new(roots_from_pem(memory, ca.as_bytes())?);
        let slot = CertificateSlot::new(certified_key(
            memory,
            certificate.as_bytes(),
            memory,
            key.as_bytes(),
        )?);
        Ok(Self { slot: Arc::new(slot), server_roots: Arc::clone(&roots), client_roots: roots })
    }

    /// The same, with other authorities (PEM) for clients.
    ///
    /// # Errors
    /// The text holds no certificate.
    pub fn with_client_authorities(mut self, pem: &str) -> Result<Self, CredentialsError> {
        self.client_roots = Arc::new(roots_from_pem(Path::new("(memory)"), pem.as_bytes())?);
        Ok(self)
    }

    /// The same, but calling servers that the authorities in a PEM file signed: the vendor's.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn with_server_authority(mut self, file: &Path) -> Result<Self, CredentialsError> {
        self.server_roots = Arc::new(load_roots([file])?);
        Ok(self)
    }

    /// Loads certificate and key again, after they were renewed. New connections use them at once,
    /// both those we accept and those we make; connections that stand stay.
    ///
    /// # Errors
    /// As [`Self::load`]; the old ones then stay in use.
    pub fn reload(&self, tls: &config::Tls) -> Result<(), CredentialsError> {
        let renewed = load_certified_key(&tls.cert, &tls.key)?;
        *self.slot.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
        Ok(())
    }

    /// Who we are, by our own certificate.
    ///
    /// # Errors
    /// The certificate does not say.
    pub fn identity(&self) -> Result<PeerIdentity, IdentityError> {
        let current = self.slot.current();
        let certificate = current.cert.first().ok_or(IdentityError::NoIdentity)?;
        PeerIdentity::from_certificate(certificate)
    }
}

/// The certificate and key in use; new handshakes see the newest.
#[derive(Debug)]
pub(super) struct CertificateSlot(RwLock<Arc<CertifiedKey>>);

impl CertificateSlot {
    fn new(key: CertifiedKey) -> Self {
        Self(RwLock::new(Arc::new(key)))
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for CertificateSlot {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for CertificateSlot {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn load_certified_key(certificate: &Path, key: &Path) -> Result<CertifiedKey, CredentialsError> {
    certified_key(certificate, &read(certificate)?, key, &read(key)?)
}

fn certified_key(
    certificate_file: &Path,
    certificate: &[u8],
    key_file: &Path,
    key: &[u8],
) -> Result<CertifiedKey, CredentialsError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| CredentialsError::not_pem(certificate_file, "certificates"))?;
    if chain.is_empty() {
        return Err(CredentialsError::not_pem(certificate_file, "a certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| CredentialsError::not_pem(key_file, "a private key"))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| CredentialsError::Unusable {
        certificate: certificate_file.to_path_buf(),
        key: key_file.to_path_buf(),
        error,
    })
}

/// Loads authorities from PEM files, each of which may hold several.
pub(super) fn load_roots<'a>(
    files: impl IntoIterator<Item = &'a Path>,
) -> Result<RootCertStore, CredentialsError> {
    let mut roots = RootCertStore::empty();
    for file in files {
        roots.extend(roots_from_pem(file, &read(file)?)?.roots);
    }
    Ok(roots)
}

pub(super) fn roots_from_pem(file: &Path, pem: &[u8]) -> Result<RootCertStore, CredentialsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate
            .map_err(|_| CredentialsError::not_pem(file, "an authority's certificate"))?;
        roots
            .add(certificate)
            .map_err(|_| CredentialsError::not_pem(file, "an authority's certificate"))?;
    }
    if roots.is_empty() {
        return Err(CredentialsError::not_pem(file, "an authority's certificate"));
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    std::fs::read(path).map_err(|error| CredentialsError::File { path: path.to_path_buf(), error })
}

/// Why credentials could not be loaded.
#[derive(Debug)]
pub enum CredentialsError {
    /// A file could not be read.
    File {
        /// The file.
        path: PathBuf,
        /// The file system's word.
        error: std::io::Error,
    },
    /// A file does not hold what it should.
    NotPem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// Certificate and key do not belong together, or the key is of an unknown kind.
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The TLS library's word.
        error: rustls::Error,
    },
}

impl CredentialsError {
    fn not_pem(path: &Path, expected: &'static str) -> Self {
        Self::NotPem { path: path.to_path_buf(), expected }
    }
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => {
                write!(f, "{}: {error}; name the right file in [server.tls]", path.display())
            }
            Self::NotPem { path, expected } => write!(
                f,
                "{}: this is not {expected} in PEM; name the right file in [server.tls]",
                path.display()
            ),
            Self::Unusable { certificate, key, error } => write!(
                f,
                "{} and {} do not belong together ({error}); \
                 name two files that were made together",
                certificate.display(),
                key.display()
            ),
        }
    }
}

impl std::error::Error for CredentialsError {}
