//! An authority of our own: for the servers that the harness plays, for the server it starts
//! itself, and for certificates that must be refused.
//!
//! Not here: the authority of the deployment under test; of that one only the certificate is known.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateSigningRequestDer;

use super::identity::Credentials;

/// An authority with its key.
pub struct Authority {
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// Its certificate, DER.
    pub certificate_der: Vec<u8>,
    /// Its key, PEM.
    pub key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// To be connected to, and to connect.
    Server,
    /// To connect.
    Client,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// The machine gives no randomness.
    pub fn create(name: &str) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = parameters.self_signed(&key)?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            certificate_der: certificate.der().to_vec(),
            key_pem: key.serialize_pem(),
            issuer: Issuer::new(parameters, key),
        })
    }

    /// A key and a certificate that names `uris`.
    ///
    /// # Errors
    /// The machine gives no randomness, or a URI cannot stand in a certificate.
    pub fn issue(&self, uris: &[String], usage: Usage) -> Result<Credentials, rcgen::Error> {
        self.signed(&leaf(uris, usage)?)
    }

    fn signed(&self, parameters: &CertificateParams) -> Result<Credentials, rcgen::Error> {
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        Ok(Credentials {
            certificate: certificate.der().to_vec(),
            certificate_pem: certificate.pem(),
            key: key.serialize_der(),
            key_pem: key.serialize_pem(),
        })
    }

    /// As [`Self::issue`], for a time that is over.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn expired(&self, uris: &[String], usage: Usage) -> Result<Credentials, rcgen::Error> {
        let mut parameters = leaf(uris, usage)?;
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2020, 2, 1);
        self.signed(&parameters)
    }

    /// A certificate (DER) for the key of a signing request, whose own signature is verified.
    ///
    /// # Errors
    /// The request is not sound.
    pub fn sign(&self, request: &[u8], uris: &[String]) -> Result<Vec<u8>, rcgen::Error> {
        let request = CertificateSigningRequestDer::from(request);
        let asked = CertificateSigningRequestParams::from_der(&request)?;
        let certificate = leaf(uris, Usage::Client)?.signed_by(&asked.public_key, &self.issuer)?;
        Ok(certificate.der().to_vec())
    }
}

fn leaf(uris: &[String], usage: Usage) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "lapwing-conformance");
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if usage == Usage::Server {
        parameters.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        parameters.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
    }
    for uri in uris {
        parameters.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
    }
    Ok(parameters)
}
