//! Certificate authorities: the organisation's, and the vendor's root.
//!
//! Not here: who may get a certificate (the Registration server decides) and revocation.
//! Invariants: an authority's key is used in this module and nowhere else; a certificate's subject
//! and names are the authority's words, of a request only the public key is taken.

mod error;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer as _, X509Certificate};

pub use error::AuthorityError;

use crate::durable_file::{self, Access};
use crate::identity::PeerIdentity;

/// A certificate is valid from this long before it is made, so that a machine whose clock is behind
/// can use it.
pub const BACKDATE: Duration = Duration::from_secs(24 * 3600);

/// The largest signing request that is looked at, in bytes; one with a P-384 key has under 500.
pub const REQUEST_BYTES_MAX: usize = 2048;

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy)]
pub enum Usage<'a> {
    /// A server that also calls others: both extended usages, and the names and addresses it serves
    /// on.
    Server(&'a [ServedName]),
    /// A client alone.
    Client,
}

/// A name or address a server is reached by. Our own clients go by the URI; browsers go by these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServedName {
    /// A DNS name.
    Dns(String),
    /// An IP address.
    Address(IpAddr),
}

/// An authority with its key.
pub struct Authority {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate for a key that its owner keeps.
pub struct SignedCertificate {
    /// As it travels.
    pub der: Vec<u8>,
    /// As it stands in a file.
    pub pem: String,
}

/// A certificate with its key, both PEM.
pub struct Leaf {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key (PKCS #8). A secret.
    pub key_pem: String,
}

impl Leaf {
    /// Writes both files; the key first, so that a certificate never stands without its key.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), AuthorityError> {
        save_pair(certificate, &self.certificate_pem, key, &self.key_pem)
    }
}

impl Authority {
    /// Makes a new authority, valid from `now_unix_ms` less [`BACKDATE`] for `validity`.
    ///
    /// # Errors
    /// The machine gives no randomness, or the name cannot stand in a certificate.
    pub fn create(
        now_unix_ms: u64,
        common_name: &str,
        validity: Duration,
    ) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::making)?;
        let mut parameters = parameters(now_unix_ms, common_name, validity)?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = parameters.self_signed(&key).map_err(AuthorityError::making)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            issuer: Issuer::new(parameters, key),
        })
    }

    /// Loads an authority that [`Self::save`] wrote.
    ///
    /// # Errors
    /// A file cannot be read, is not what it should be, or the two do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        let certificate_pem = read(certificate)?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|_| AuthorityError::not_pem(certificate, "a certificate"))?;
        let key_pair = KeyPair::from_pem(&read(key)?)
            .map_err(|_| AuthorityError::not_pem(key, "a private key"))?;
        let (_, parsed) = X509Certificate::from_der(&der)
            .map_err(|_| AuthorityError::not_pem(certificate, "a certificate"))?;
        if parsed.public_key().raw != key_pair.subject_public_key_info() {
            return Err(AuthorityError::Mismatch {
                certificate: certificate.to_path_buf(),
                key: key.to_path_buf(),
            });
        }
        let issuer = Issuer::from_ca_cert_der(&der, key_pair)
            .map_err(|_| AuthorityError::not_pem(certificate, "an authority's certificate"))?;
        Ok(Self { certificate: der, certificate_pem, issuer })
    }

    /// Writes both files; the key with mode 0600.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), AuthorityError> {
        save_pair(certificate, &self.certificate_pem, key, &self.issuer.key().serialize_pem())
    }

    /// The authority's certificate, PEM: what everyone who trusts it holds.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's certificate, DER.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// Makes a key and a certificate for `subject`.
    ///
    /// # Errors
    /// The machine gives no randomness, or a name cannot stand in a certificate.
    pub fn issue(
        &self,
        now_unix_ms: u64,
        subject: &PeerIdentity,
        usage: Usage<'_>,
        validity: Duration,
    ) -> Result<Leaf, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::making)?;
        let certificate = leaf_parameters(now_unix_ms, subject, usage, validity)?
            .signed_by(&key, &self.issuer)
            .map_err(AuthorityError::making)?;
        Ok(Leaf { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Signs the public key of a PKCS #10 request (DER) for `subject`; whatever else the request
    /// asks for is not looked at. The request's own signature must hold, so that nobody gets a
    /// certificate for another's key.
    ///
    /// # Errors
    /// The request is too long, cannot be read, has a wrong signature or a kind of key that is not
    /// taken.
    pub fn sign_request(
        &self,
        now_unix_ms: u64,
        request: &[u8],
        subject: &PeerIdentity,
        usage: Usage<'_>,
        validity: Duration,
    ) -> Result<SignedCertificate, AuthorityError> {
        let key = key_of_request(request)?;
        let certificate = leaf_parameters(now_unix_ms, subject, usage, validity)?
            .signed_by(&key, &self.issuer)
            .map_err(AuthorityError::making)?;
        Ok(SignedCertificate { der: certificate.der().to_vec(), pem: certificate.pem() })
    }
}

/// A new key (PKCS #8 PEM) and a signing request for it (DER), as an enrolling peer makes them.
///
/// # Errors
/// The machine gives no randomness.
pub fn make_request() -> Result<(String, Vec<u8>), AuthorityError> {
    let key = KeyPair::generate().map_err(AuthorityError::making)?;
    let request =
        CertificateParams::default().serialize_request(&key).map_err(AuthorityError::making)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

fn key_of_request(request: &[u8]) -> Result<SubjectPublicKeyInfo, AuthorityError> {
    if request.len() > REQUEST_BYTES_MAX {
        return Err(AuthorityError::BadRequest("it is too long"));
    }
    let (rest, parsed) = X509CertificationRequest::from_der(request)
        .map_err(|_| AuthorityError::BadRequest("it is not PKCS #10 in DER"))?;
    if !rest.is_empty() {
        return Err(AuthorityError::BadRequest("bytes follow it"));
    }
    let verified = parsed.verify_signature();
    if verified.is_err() && !cfg!(mutant = "request_unchecked") {
        return Err(AuthorityError::BadRequest("its signature does not hold"));
    }
    let key = SubjectPublicKeyInfo::from_der(parsed.certification_request_info.subject_pki.raw)
        .map_err(|_| AuthorityError::BadRequest("its kind of key is unknown"))?;
    let taken =
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
    if !taken.contains(&key.algorithm()) {
        return Err(AuthorityError::BadRequest("its key is none of P-256, P-384 and Ed25519"));
    }
    Ok(key)
}

fn leaf_parameters(
    now_unix_ms: u64,
    subject: &PeerIdentity,
    usage: Usage<'_>,
    validity: Duration,
) -> Result<CertificateParams, AuthorityError> {
    let uri = subject.to_string();
    // A common name may have 64 characters: role and id fit, the deployment is in the URI.
    let common_name = uri.rsplitn(3, '/').take(2).collect::<Vec<_>>();
    let common_name = common_name.into_iter().rev().collect::<Vec<_>>().join(" ");
    let mut parameters = parameters(now_unix_ms, &common_name, validity)?;
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.subject_alt_names =
        vec![SanType::URI(uri.try_into().map_err(AuthorityError::making)?)];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if let Usage::Server(names) = usage {
        parameters.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        for name in names {
            parameters.subject_alt_names.push(match name {
                ServedName::Address(address) => SanType::IpAddress(*address),
                ServedName::Dns(name) => {
                    SanType::DnsName(name.as_str().try_into().map_err(AuthorityError::making)?)
                }
            });
        }
    }
    Ok(parameters)
}

fn parameters(
    now_unix_ms: u64,
    common_name: &str,
    validity: Duration,
) -> Result<CertificateParams, AuthorityError> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|_| AuthorityError::NoRandomness)?;
    // A serial number is a positive integer in its shortest form.
    serial[0] = serial[0] & 0x7f | 0x40;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_millis(now_unix_ms);
    let mut parameters = CertificateParams::default();
    parameters.not_before = epoch + now.saturating_sub(BACKDATE);
    parameters.not_after = epoch + now + validity;
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    Ok(parameters)
}

fn save_pair(
    certificate: &Path,
    certificate_pem: &str,
    key: &Path,
    key_pem: &str,
) -> Result<(), AuthorityError> {
    durable_file::write(key, key_pem.as_bytes(), Access::Owner)
        .map_err(|error| AuthorityError::file(key, error))?;
    durable_file::write(certificate, certificate_pem.as_bytes(), Access::Everyone)
        .map_err(|error| AuthorityError::file(certificate, error))
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    std::fs::read_to_string(path).map_err(|error| AuthorityError::file(path, error))
}
