//! What can go wrong with calls: by the caller's view, the service's, and the connection's.
//!
//! Not here: retrying. Invariant: `CallError` says whether the call can have been carried out.

use std::fmt;

use lapwing_protocol::code::Code;
use lapwing_protocol::error::DecodeError;

use crate::tls::HandshakeError;

/// A service's "no", as it travels in a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The number of the registry; never [`Code::OK`].
    pub code: Code,
    /// For a person.
    pub text: String,
}

impl Failure {
    /// A failure; `text` names the thing and the remedy.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}

impl std::error::Error for Failure {}

/// Why a call has no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The peer cannot be reached. The call was not sent.
    Unreachable {
        /// The peer's name.
        peer: String,
        /// Why.
        reason: String,
    },
    /// The peer refuses to speak with us at all. The call was not carried out.
    Refused {
        /// The peer's name.
        peer: String,
        /// Why.
        reason: String,
    },
    /// The connection was lost after the call was sent. It may have been carried out.
    Lost {
        /// The peer's name.
        peer: String,
        /// Why.
        reason: String,
    },
    /// No reply came in time. The call may have been carried out.
    TimedOut {
        /// The peer's name.
        peer: String,
    },
    /// Too many calls wait for the peer already. The call was not sent.
    TooManyCalls {
        /// The peer's name.
        peer: String,
    },
    /// The call's body is longer than a frame may be. It was not sent.
    TooLarge,
    /// The peer answered with a failure.
    Remote(Failure),
}

impl CallError {
    /// The registry's number for this, to pass on in an answer of our own.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } => Code::UNREACHABLE,
            Self::Refused { .. } => Code::FORBIDDEN,
            Self::TimedOut { .. } => Code::TIMED_OUT,
            Self::TooManyCalls { .. } => Code::BUSY,
            Self::TooLarge => Code::TOO_LARGE,
            Self::Remote(failure) => failure.code,
        }
    }

    /// Whether the call can have been carried out.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::TimedOut { .. })
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { peer, reason } => write!(f, "{peer} cannot be reached: {reason}"),
            Self::Refused { peer, reason } => write!(f, "{peer} refuses us: {reason}"),
            Self::Lost { peer, reason } => write!(f, "the connection to {peer} was lost: {reason}"),
            Self::TimedOut { peer } => write!(f, "{peer} did not reply in time"),
            Self::TooManyCalls { peer } => write!(f, "too many calls wait for {peer}"),
            Self::TooLarge => f.write_str("the call is longer than a frame may be"),
            Self::Remote(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for CallError {}

/// Why a connection ended, when it was not by the peer going away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerFault {
    /// The bytes are not frames, or a frame not its message.
    Malformed(DecodeError),
    /// A right message that has no place here.
    OutOfPlace(&'static str),
    /// A reply longer than it may be.
    ReplyTooLarge,
    /// A frame was begun and not ended in time.
    Dripping,
    /// Nothing came for too long, not even a Pong.
    Idle,
    /// The peer leaves our calls unanswered.
    Stuck,
    /// This server shuts down.
    Drained,
    /// The peer closed in the middle of a frame.
    CutShort,
    /// The peer went away between frames.
    Gone,
    /// The peer told us that it refuses us.
    Refused {
        /// The registry's number.
        code: Code,
        /// The peer's words.
        detail: String,
    },
    /// TLS failed after the handshake.
    Tls(String),
    /// The peer refused our certificate.
    CertificateRefused(String),
    /// The connection broke.
    Broken(std::io::ErrorKind),
}

impl PeerFault {
    pub(super) fn from_io(error: &std::io::Error) -> Self {
        match HandshakeError::from_io(error) {
            HandshakeError::Closed => Self::Gone,
            HandshakeError::Io(error) => Self::Broken(error.kind()),
            refused @ HandshakeError::RefusedByPeer(_) => {
                Self::CertificateRefused(refused.to_string())
            }
            other => Self::Tls(other.to_string()),
        }
    }

    /// Whether it is worth a line in the log: going away is normal.
    #[must_use]
    pub fn is_misbehaviour(&self) -> bool {
        !matches!(self, Self::Gone | Self::CutShort | Self::Broken(_) | Self::Idle | Self::Drained)
    }

    /// What to tell the peer of it: the registry's number, and how long to wait before trying
    /// again. Nothing where nobody would hear it.
    pub(super) fn refusal(&self) -> Option<(Code, u32)> {
        match self {
            Self::Malformed(DecodeError::Limit) | Self::ReplyTooLarge => Some((Code::TOO_LARGE, 0)),
            Self::Malformed(DecodeError::UnknownKind) => Some((Code::UNKNOWN_KIND, 0)),
            Self::Malformed(_) => Some((Code::MALFORMED, 0)),
            Self::OutOfPlace(_) => Some((Code::OUT_OF_PLACE, 0)),
            Self::Dripping => Some((Code::TIMED_OUT, 0)),
            Self::Idle | Self::Stuck => Some((Code::IDLE, 0)),
            Self::Drained => Some((Code::DRAINING, 1_000)),
            Self::CutShort
            | Self::Gone
            | Self::Refused { .. }
            | Self::Tls(_)
            | Self::CertificateRefused(_)
            | Self::Broken(_) => None,
        }
    }
}

impl fmt::Display for PeerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "malformed frame: {error}"),
            Self::OutOfPlace(message) => write!(f, "a {message} has no place here"),
            Self::ReplyTooLarge => f.write_str("a reply is longer than it may be"),
            Self::Dripping => f.write_str("a frame was begun and not ended in time"),
            Self::Idle => f.write_str("nothing came for too long"),
            Self::Stuck => f.write_str("calls stay unanswered"),
            Self::Drained => f.write_str("this server shuts down"),
            Self::CutShort => f.write_str("the connection ended inside a frame"),
            Self::Gone => f.write_str("the peer closed the connection"),
            Self::Refused { code, detail } => write!(f, "{code}: {detail}"),
            Self::Tls(reason) | Self::CertificateRefused(reason) => f.write_str(reason),
            Self::Broken(kind) => write!(f, "the connection broke: {kind}"),
        }
    }
}

impl std::error::Error for PeerFault {}
