//! What a failed connection means, in a sentence an operator can act on.
//!
//! Invariant: no sentence contains text that the peer chose freely.

use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use super::verify::Mismatch;

/// Why there is no connection, or no longer one.
#[derive(Debug)]
pub(crate) enum TlsError {
    /// Our own key or certificate cannot be used.
    Setup(String),
    /// Nobody answers at the address.
    Unreachable(io::Error),
    /// The name has no address.
    NoSuchName,
    /// It took too long.
    TimedOut,
    /// The server's certificate is from an authority that is not trusted here.
    OtherAuthority,
    /// The server's certificate ended this many seconds ago, by our clock.
    Expired { skew_s: u64 },
    /// The server's certificate begins in this many seconds, by our clock.
    NotYetValid { skew_s: u64 },
    /// The server is not whom we want to speak with.
    Mismatch(Mismatch),
    /// The server's certificate cannot be used for another reason.
    BadCertificate(String),
    /// The server does not serve this plane.
    NotServed,
    /// The server refused us with an alert.
    Refused(AlertDescription),
    /// What answers does not speak TLS 1.3.
    NotTls,
    /// The server closed the connection.
    Closed,
    /// The connection broke.
    Broken(io::ErrorKind),
}

impl TlsError {
    /// What an I/O error of a TLS stream means.
    pub(crate) fn from_io(error: &io::Error) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            return Self::from_tls(tls);
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Closed,
            kind => Self::Broken(kind),
        }
    }

    fn from_tls(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(error) => Self::from_certificate(error),
            Error::AlertReceived(AlertDescription::NoApplicationProtocol)
            | Error::NoApplicationProtocol => Self::NotServed,
            Error::AlertReceived(alert) => Self::Refused(*alert),
            _ => Self::NotTls,
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
            CertificateError::Other(other) => match other.0.downcast_ref::<Mismatch>() {
                Some(mismatch) => Self::Mismatch(mismatch.clone()),
                None => Self::BadCertificate("it cannot be read".into()),
            },
            other => Self::BadCertificate(other.to_string()),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup(problem) => {
                write!(f, "this sensor's own key or certificate cannot be used: {problem}")
            }
            Self::Unreachable(error) => write!(f, "nobody answers there: {error}"),
            Self::NoSuchName => f.write_str("the name has no address"),
            Self::TimedOut => f.write_str("it took too long to answer"),
            Self::OtherAuthority => f.write_str(
                "its certificate is from another CA than this sensor trusts; name the \
                 organisation's CA file in `servers.ca_file` or `--ca`",
            ),
            Self::Expired { skew_s } => write!(
                f,
                "its certificate ended {skew_s} s ago by this machine's clock; renew it, or set \
                 the clocks right"
            ),
            Self::NotYetValid { skew_s } => write!(
                f,
                "its certificate begins in {skew_s} s by this machine's clock; set the clocks right"
            ),
            Self::Mismatch(mismatch) => mismatch.fmt(f),
            Self::BadCertificate(problem) => write!(f, "its certificate is no good: {problem}"),
            Self::NotServed => f.write_str(
                "it does not serve sensors on this port; name the port that sensors connect to",
            ),
            Self::Refused(AlertDescription::UnknownCA) => {
                f.write_str("it refused this sensor: our certificate is from another CA")
            }
            Self::Refused(AlertDescription::CertificateExpired) => f.write_str(
                "it refused this sensor: by its clock our certificate ended; enrol again, or set \
                 the clocks right",
            ),
            Self::Refused(alert) => {
                write!(f, "it refused this sensor: {}", alert.as_str().unwrap_or("no reason given"))
            }
            Self::NotTls => f.write_str("what answers there does not speak TLS 1.3"),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Broken(kind) => write!(f, "the connection broke: {kind}"),
        }
    }
}

impl std::error::Error for TlsError {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::UnixTime;

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn a_clock_that_is_wrong_is_named_with_its_skew() {
        let late = CertificateError::ExpiredContext { time: at(100), not_after: at(40) };
        let early = CertificateError::NotValidYetContext { time: at(40), not_before: at(100) };
        let said = [late, early].map(|error| TlsError::from_certificate(&error).to_string());
        assert!(said[0].starts_with("its certificate ended 60 s ago by this machine's clock"));
        assert!(said[1].starts_with("its certificate begins in 60 s by this machine's clock"));
    }

    #[test]
    fn an_error_of_tls_is_found_inside_an_error_of_the_stream() {
        let inner = Error::AlertReceived(AlertDescription::NoApplicationProtocol);
        let error = io::Error::new(io::ErrorKind::InvalidData, inner);
        assert!(matches!(TlsError::from_io(&error), TlsError::NotServed));
        let gone = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(matches!(TlsError::from_io(&gone), TlsError::Closed));
    }
}
