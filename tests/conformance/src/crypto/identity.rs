//! Who a certificate names (PLN-003), and keys of our own.
//!
//! Not here: whether a certificate is to be believed (`tls.rs`).

use std::fmt;

use rcgen::{CertificateParams, KeyPair, SanType};
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use crate::wire::message::Id;

/// A certificate with its key.
#[derive(Clone)]
pub struct Credentials {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The key, PKCS #8 DER.
    pub key: Vec<u8>,
    /// The key, PEM.
    pub key_pem: String,
}

/// A key, and a request for a certificate of it.
pub struct Request {
    /// The key, PKCS #8 DER.
    pub key: Vec<u8>,
    /// The request, PKCS #10 DER.
    pub der: Vec<u8>,
}

impl Request {
    /// A new key.
    ///
    /// # Errors
    /// The machine gives no randomness.
    pub fn create() -> Result<Self, rcgen::Error> {
        Self::naming(&[])
    }

    /// A new key, and a request that asks for these URIs as names.
    ///
    /// # Errors
    /// The machine gives no randomness, or a URI cannot stand in a request.
    pub fn naming(uris: &[String]) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        for uri in uris {
            parameters.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        }
        let request = parameters.serialize_request(&key)?;
        Ok(Self { key: key.serialize_der(), der: request.der().to_vec() })
    }
}

/// Who a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its deployment.
    pub deployment: Id,
    /// Its role.
    pub role: String,
    /// Its id.
    pub id: Id,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lapwing://{}/{}/{}", hex(&self.deployment), self.role, hex(&self.id))
    }
}

impl Identity {
    /// Reads the one URI of a certificate (DER).
    ///
    /// # Errors
    /// There is none, there are two, or it is not of the form; the text says which.
    pub fn of_certificate(certificate: &[u8]) -> Result<Self, String> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
        let mut uris = Vec::new();
        for extension in parsed.extensions() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
                uris.extend(names.general_names.iter().filter_map(|name| match name {
                    GeneralName::URI(uri) => Some(*uri),
                    _ => None,
                }));
            }
        }
        match uris.as_slice() {
            [uri] => Self::of_uri(uri),
            uris => Err(format!("the certificate has {} URIs, not one", uris.len())),
        }
    }

    /// Reads `lapwing://DEPLOYMENT/ROLE/ID`.
    ///
    /// # Errors
    /// It is not of that form.
    pub fn of_uri(uri: &str) -> Result<Self, String> {
        let wrong = || format!("`{uri}` is not lapwing://DEPLOYMENT/ROLE/ID");
        let rest = uri.strip_prefix("lapwing://").ok_or_else(wrong)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [deployment, role, id] = parts.as_slice() else { return Err(wrong()) };
        let deployment = unhex(deployment).ok_or_else(wrong)?;
        Ok(Self { deployment, role: (*role).into(), id: unhex(id).ok_or_else(wrong)? })
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Id> {
    let is_lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 32 || !text.bytes().all(is_lower) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}
