//! Enrolment: a token and a certificate signing request become a certificate and an identity.

use serde::{Deserialize, Serialize};

use crate::id::{DeploymentId, SensorId};

/// Sensor to Registration (or Detection where there is none), on the enrol plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest<'a> {
    /// The enrolment token, as text.
    pub token: &'a str,
    /// PKCS #10 request in DER; only its public key is used.
    pub request: &'a [u8],
    /// Name of the machine.
    pub name: &'a str,
    /// Operating system of the machine.
    pub os: &'a str,
    /// SHA-256 of the operating system's machine id: to notice clones, not to identify.
    pub machine_id: [u8; 32],
}

/// The answer to an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled<'a> {
    /// Who the sensor is from now on.
    pub sensor: SensorId,
    /// The deployment it belongs to.
    pub deployment: DeploymentId,
    /// Its certificate, DER.
    pub certificate: &'a [u8],
    /// The organisation's CA, DER.
    pub authority: &'a [u8],
    /// When the certificate ends, milliseconds since 1970.
    pub not_after_ms: u64,
}
