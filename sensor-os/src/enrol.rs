//! Enrolment: a token and a signing request become a certificate and an identity.
//!
//! Not here: when to enrol. Invariants: the private key never leaves the state folder; the identity
//! is saved only when its certificate is for that key and under a trusted authority's answer; a
//! repeated enrolment of one folder uses one key.

use std::fmt;
use std::sync::Arc;

use lapwing_protocol::call::Method;
use lapwing_protocol::code::Code;
use lapwing_protocol::enrol::{EnrolRequest, Enrolled};
use lapwing_protocol::registration::ServerRole;
use rcgen::PublicKeyData as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::dial::{Stream, dial};
use crate::identity::{Identity, StateError, StateFolder, signing_request};
use crate::machine;
use crate::one_call::{CallError, call};
use crate::tls::{Expected, PeerUri, Roots, TlsError, enrol_plane};

/// Why a sensor did not enrol.
#[derive(Debug)]
pub(crate) enum EnrolError {
    /// There is no answer.
    Call(CallError),
    /// The server's answer is not what it should be.
    BadAnswer(&'static str),
    /// The state folder refuses.
    State(StateError),
    /// The signing request could not be made.
    Request(String),
}

impl EnrolError {
    /// Whether there was no connection, so that another server may do better.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Call(CallError::Connection(_)))
    }
}

impl fmt::Display for EnrolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(CallError::Refused { code: Code::BAD_TOKEN, .. }) => f.write_str(
                "the enrolment token is unknown, used up or expired; take the one that \
                 `lapwing up` wrote to its ready file, or make one with `lapwing ctl tokens create \
                 --enrol`",
            ),
            Self::Call(error) => error.fmt(f),
            Self::BadAnswer(problem) => write!(f, "its answer cannot be used: {problem}"),
            Self::State(error) => error.fmt(f),
            Self::Request(problem) => write!(f, "the signing request was not made: {problem}"),
        }
    }
}

impl From<TlsError> for EnrolError {
    fn from(error: TlsError) -> Self {
        Self::Call(CallError::Connection(error))
    }
}

impl From<StateError> for EnrolError {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

/// What an enrolment needs beside the folder it fills.
#[derive(Debug)]
pub(crate) struct Enrolment<'a> {
    /// `host:port` of a Registration or Detection server.
    pub(crate) address: &'a str,
    pub(crate) roots: &'a Roots,
    pub(crate) token: &'a str,
    pub(crate) name: &'a str,
}

/// Enrols and saves the identity.
///
/// # Errors
/// Why not; the folder then holds no identity, or the one it had.
pub(crate) async fn enrol(
    state: &StateFolder,
    enrolment: &Enrolment<'_>,
) -> Result<Identity, EnrolError> {
    let identity = enrol_key(&state.key()?, enrolment).await?;
    state.save_identity(&identity)?;
    Ok(identity)
}

/// Enrols `key`; the identity is nobody's until it is saved.
///
/// # Errors
/// Why not.
pub(crate) async fn enrol_key(
    key: &rcgen::KeyPair,
    enrolment: &Enrolment<'_>,
) -> Result<Identity, EnrolError> {
    let request = signing_request(key).map_err(|error| EnrolError::Request(error.to_string()))?;
    let expected = Expected {
        roles: &[ServerRole::Registration, ServerRole::Detection],
        deployment: None,
        server: None,
    };
    let config = enrol_plane(enrolment.roots, expected)?;
    let mut stream = dial(enrolment.address, Arc::new(config)).await?;
    let server = peer_of(&stream).ok_or(EnrolError::BadAnswer("it has no certificate"))?;
    let request = EnrolRequest {
        token: enrolment.token,
        request: &request,
        name: enrolment.name,
        os: &machine::os(),
        machine_id: machine::machine_id(),
    };
    let answer = call(&mut stream, Method::ENROL, &request).await.map_err(EnrolError::Call)?;
    let enrolled: Enrolled<'_> = lapwing_protocol::error::from_bytes(&answer)
        .map_err(|_| EnrolError::BadAnswer("it is not an enrolment"))?;
    let identity = Identity {
        sensor: enrolled.sensor,
        deployment: enrolled.deployment,
        certificate: enrolled.certificate.to_vec(),
        authority: enrolled.authority.to_vec(),
        not_after_ms: enrolled.not_after_ms,
        key: key.serialize_der(),
    };
    check(&identity, &server, key)?;
    Ok(identity)
}

fn peer_of(stream: &Stream) -> Option<PeerUri> {
    PeerUri::of(stream.get_ref().1.peer_certificates()?.first()?)
}

fn check(identity: &Identity, server: &PeerUri, key: &rcgen::KeyPair) -> Result<(), EnrolError> {
    let uri = PeerUri::of(&identity.certificate)
        .ok_or(EnrolError::BadAnswer("its certificate names no sensor"))?;
    if uri.role != "sensor" || uri.id.0 != identity.sensor.0 {
        return Err(EnrolError::BadAnswer("its certificate is of somebody else"));
    }
    if uri.deployment != identity.deployment || uri.deployment != server.deployment {
        return Err(EnrolError::BadAnswer("its certificate is of another deployment"));
    }
    let parsed = X509Certificate::from_der(&identity.certificate);
    let is_for_key = parsed.is_ok_and(|(_, certificate)| {
        certificate.public_key().raw == key.subject_public_key_info()
    });
    if is_for_key {
        Ok(())
    } else {
        Err(EnrolError::BadAnswer("its certificate is of another key"))
    }
}
