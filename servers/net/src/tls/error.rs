//! What a failed handshake means, in a sentence an operator can act on.
//!
//! Not here: retrying. Invariant: no sentence contains text that the peer chose.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use rustls::{AlertDescription, CertificateError, Error};

use super::PeerMismatch;

/// Why a handshake failed.
#[derive(Debug)]
pub enum HandshakeError {
    /// Our own configuration cannot be used.
    Setup(String),
    /// Nobody answers at the address.
    Unreachable {
        /// Where we asked.
        address: SocketAddr,
        /// The operating system's word.
        error: io::Error,
    },
    /// The peer showed no certificate where one is required.
    NoCertificate,
    /// The peer's certificate is from an authority that is not trusted here.
    OtherAuthority,
    /// The peer's certificate ended this many seconds ago, by our clock.
    Expired {
        /// Seconds since its end.
        skew_s: u64,
    },
    /// The peer's certificate begins in this many seconds, by our clock.
    NotYetValid {
        /// Seconds to its beginning.
        skew_s: u64,
    },
    /// The certificate is good, but not of whom we want to speak with.
    Mismatch(PeerMismatch),
    /// The certificate cannot be used for another reason.
    BadCertificate(String),
    /// Nothing that the client offers is served here.
    NoCommonPlane,
    /// The peer refused *us* with a TLS alert.
    RefusedByPeer(AlertDescription),
    /// The peer does not speak TLS 1.3 rightly.
    NotTls(String),
    /// The handshake took too long.
    TimedOut,
    /// Newer connections needed the place of one that had not said its hello.
    CrowdedOut,
    /// The peer sent more than a handshake has.
    TooManyBytes,
    /// The peer closed the connection.
    Closed,
    /// The connection broke.
    Io(io::Error),
}

impl HandshakeError {
    /// What an I/O error of the TLS stream means.
    #[must_use]
    pub fn from_io(error: &io::Error) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            return Self::from_tls(tls);
        }
        if error.get_ref().is_some_and(|inner| inner.is::<crate::socket::BudgetSpent>()) {
            return Self::TooManyBytes;
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Closed,
            kind => Self::Io(kind.into()),
        }
    }

    fn from_tls(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(error) => Self::from_certificate(error),
            Error::AlertReceived(AlertDescription::NoApplicationProtocol)
            | Error::NoApplicationProtocol => Self::NoCommonPlane,
            Error::AlertReceived(alert) => Self::RefusedByPeer(*alert),
            other => Self::NotTls(other.to_string()),
        }
    }

    fn from_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::OtherAuthority
            }
            CertificateError::ExpiredContext { time, not_after } => {
                Self::Expired { skew_s: time.as_secs().saturating_sub(not_after.as_secs()) }
            }
            CertificateError::NotValidYetContext { time, not_before } => {
                Self::NotYetValid { skew_s: not_before.as_secs().saturating_sub(time.as_secs()) }
            }
            CertificateError::Other(other) => match other.0.downcast_ref::<PeerMismatch>() {
                Some(mismatch) => Self::Mismatch(*mismatch),
                None => Self::BadCertificate(String::from("it is unusable")),
            },
            CertificateError::InvalidPurposeContext { .. } | CertificateError::InvalidPurpose => {
                Self::BadCertificate(String::from("it is not meant for this side of a connection"))
            }
            other => Self::BadCertificate(other.to_string()),
        }
    }

    /// A short word for metrics; one of a fixed set.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Setup(_) => "setup",
            Self::Unreachable { .. } => "unreachable",
            Self::NoCertificate => "no_certificate",
            Self::OtherAuthority => "other_authority",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::Mismatch(_) => "mismatch",
            Self::BadCertificate(_) => "bad_certificate",
            Self::NoCommonPlane => "no_common_plane",
            Self::RefusedByPeer(_) => "refused_by_peer",
            Self::NotTls(_) => "not_tls",
            Self::TimedOut => "timed_out",
            Self::CrowdedOut => "crowded_out",
            Self::TooManyBytes => "too_many_bytes",
            Self::Closed => "closed",
            Self::Io(_) => "io",
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup(problem) => write!(f, "the TLS configuration cannot be used: {problem}"),
            Self::Unreachable { address, error } => write!(f, "{address} does not answer: {error}"),
            Self::NoCertificate => f.write_str("the peer showed no certificate"),
            Self::OtherAuthority => f.write_str("the peer's certificate is from another CA"),
            Self::Expired { skew_s } => write!(
                f,
                "the peer's certificate expired, clock skew {skew_s} s; \
                 renew it or set the clocks right"
            ),
            Self::NotYetValid { skew_s } => write!(
                f,
                "the peer's certificate is not valid yet, clock skew {skew_s} s; \
                 set the clocks right"
            ),
            Self::Mismatch(mismatch) => mismatch.fmt(f),
            Self::BadCertificate(problem) => {
                write!(f, "the peer's certificate cannot be used: {problem}")
            }
            Self::NoCommonPlane => f.write_str("the peer offers no protocol that is served here"),
            Self::RefusedByPeer(alert) => match alert {
                AlertDescription::CertificateRequired => {
                    f.write_str("the peer refused us: it requires a certificate and we showed none")
                }
                AlertDescription::UnknownCA => f.write_str(
                    "the peer refused us: our certificate is from another CA than it trusts",
                ),
                AlertDescription::CertificateExpired => {
                    f.write_str("the peer refused us: by its clock our certificate expired")
                }
                other => write!(f, "the peer refused us: {}", alert_name(*other)),
            },
            Self::NotTls(problem) => {
                write!(f, "the peer does not speak TLS 1.3 rightly: {problem}")
            }
            Self::TimedOut => f.write_str("the handshake took too long"),
            Self::CrowdedOut => {
                f.write_str("it had not said its ClientHello when others needed the place")
            }
            Self::TooManyBytes => f.write_str("the peer sent more than a handshake has"),
            Self::Closed => f.write_str("the peer closed the connection during the handshake"),
            Self::Io(error) => write!(f, "the connection broke: {error}"),
        }
    }
}

impl std::error::Error for HandshakeError {}

fn alert_name(alert: AlertDescription) -> &'static str {
    alert.as_str().unwrap_or("an alert without a name")
}
