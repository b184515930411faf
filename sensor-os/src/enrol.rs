//! Enrolment: a token and a signing request become a certificate and an identity.
//!
//! Not here: when to enrol. Invariants: the private key never leaves the state folder; the identity
//! is saved only when its certificate is for that key and under a trusted authority's answer; a
//! repeated enrolment of one folder uses one key.

use std::fmt;
use std::sync::Arc;

use futures_rustls::client::TlsStream;
use lapwing_protocol::call::{Call, Method};
use lapwing_protocol::code::Code;
use lapwing_protocol::enrol::{EnrolRequest, Enrolled};
use lapwing_protocol::frame::Deframer;
use lapwing_protocol::limits::{FRAME_BYTES_MAX, FRAME_BYTES_UNAUTHENTICATED_MAX};
use lapwing_protocol::message::Message;
use lapwing_protocol::registration::ServerRole;
use rcgen::PublicKeyData as _;
use smol::Timer;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::dial::{Counted, DIAL_TIME, dial};
use crate::escape::escaped;
use crate::identity::{Identity, StateError, StateFolder, signing_request};
use crate::machine;
use crate::tls::{Expected, PeerUri, Roots, TlsError, enrol_plane};

/// An answer: two certificates and what is around them.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Why a sensor did not enrol.
#[derive(Debug)]
pub(crate) enum EnrolError {
    /// There is no connection to the server.
    Connection(TlsError),
    /// The server refused.
    Refused { code: Code, detail: String },
    /// The server's answer is not what it should be.
    BadAnswer(&'static str),
    /// The state folder refuses.
    State(StateError),
    /// The signing request could not be made.
    Request(String),
}

impl EnrolError {
    /// Whether another server may do better.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connection(_))
    }

    /// Whether the same token will be refused again.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Refused { code: Code::BAD_TOKEN | Code::REVOKED, .. })
    }
}

impl fmt::Display for EnrolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => error.fmt(f),
            Self::Refused { code: Code::BAD_TOKEN, .. } => f.write_str(
                "the enrolment token is unknown, used up or expired; take the one that \
                 `lapwing up` wrote to its ready file, or make one with `lapwing ctl tokens create \
                 --enrol`",
            ),
            Self::Refused { code, detail } => {
                write!(f, "the server refused this sensor: {code}: {}", escaped(detail))
            }
            Self::BadAnswer(problem) => write!(f, "the server's answer cannot be used: {problem}"),
            Self::State(error) => error.fmt(f),
            Self::Request(problem) => write!(f, "the signing request was not made: {problem}"),
        }
    }
}

impl From<TlsError> for EnrolError {
    fn from(error: TlsError) -> Self {
        Self::Connection(error)
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
    let key = state.key()?;
    let request = signing_request(&key).map_err(|error| EnrolError::Request(error.to_string()))?;
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
    let exchange = async { exchange(&mut stream, &request).await };
    let late = async {
        Timer::after(DIAL_TIME).await;
        Err(TlsError::TimedOut.into())
    };
    let answer = smol::future::or(exchange, late).await?;
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
    check(&identity, &server, &key)?;
    state.save_identity(&identity)?;
    Ok(identity)
}

fn peer_of(stream: &TlsStream<Counted>) -> Option<PeerUri> {
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
    if is_for_key { Ok(()) } else { Err(EnrolError::BadAnswer("its certificate is of another key")) }
}

/// One call and its reply.
async fn exchange(
    stream: &mut TlsStream<Counted>,
    request: &EnrolRequest<'_>,
) -> Result<Vec<u8>, EnrolError> {
    let mut body = vec![0; FRAME_BYTES_UNAUTHENTICATED_MAX];
    let too_long = |_| EnrolError::Request("token, name or system are too long".into());
    let body = lapwing_protocol::error::to_slice(request, &mut body).map_err(too_long)?;
    let mut frame = vec![0; FRAME_BYTES_UNAUTHENTICATED_MAX];
    let call = Message::Call(Call { call: 1, method: Method::ENROL, body });
    let length = call.encode(&mut frame).map_err(too_long)?;
    let failed = |error: std::io::Error| EnrolError::Connection(TlsError::from_io(&error));
    stream.write_all(&frame[..length]).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;

    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut deframer = Deframer::new(&mut buffer);
    let mut answer = Vec::new();
    loop {
        while let Some(frame) =
            deframer.next_frame().map_err(|_| EnrolError::BadAnswer("it is not a frame"))?
        {
            let message = Message::decode(&frame)
                .map_err(|_| EnrolError::BadAnswer("it is not a message"))?;
            match message {
                Some(Message::Reply(reply)) if reply.call == 1 => {
                    answer.extend_from_slice(reply.body);
                    if answer.len() > ANSWER_BYTES_MAX {
                        return Err(EnrolError::BadAnswer("it is too long"));
                    }
                    if reply.more {
                        continue;
                    }
                    if reply.code == Code::OK {
                        return Ok(answer);
                    }
                    let detail = String::from_utf8_lossy(&answer).into_owned();
                    return Err(EnrolError::Refused { code: reply.code, detail });
                }
                Some(Message::Refused(refused)) => {
                    let detail = refused.detail.to_owned();
                    return Err(EnrolError::Refused { code: refused.code, detail });
                }
                None | Some(Message::Ping(_) | Message::Pong(_)) => {}
                Some(_) => return Err(EnrolError::BadAnswer("it is another message")),
            }
        }
        let length = stream.read(deframer.space()).await.map_err(failed)?;
        if length == 0 {
            return Err(TlsError::Closed.into());
        }
        deframer.filled(length);
    }
}
