//! The error-code registry: one set of numbers for wire, API and command line.
//!
//! `docs/errors.md` lists the same numbers with the remedy for each. Append only.

use core::fmt;

use serde::{Deserialize, Serialize};

/// A number of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Code(pub u16);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// Every code of the registry with its name on the wire, API and command line.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, $text)),*];
        }
    };
}

codes! {
    /// All is well.
    OK = 0, "ok";
    /// The bytes are not a frame, or not a message of their kind.
    MALFORMED = 1, "malformed";
    /// A frame, list or text is beyond its bound.
    TOO_LARGE = 2, "too_large";
    /// The kind or method is not known, and may not be skipped.
    UNKNOWN_KIND = 3, "unknown_kind";
    /// A right message at the wrong moment.
    OUT_OF_PLACE = 4, "out_of_place";
    /// No protocol version in common.
    VERSION = 5, "version";
    /// The peer's role may not do this.
    FORBIDDEN = 6, "forbidden";
    /// The token is unknown, used up or expired.
    BAD_TOKEN = 7, "bad_token";
    /// The certificate signing request is not sound.
    BAD_REQUEST_FOR_CERTIFICATE = 8, "bad_request_for_certificate";
    /// The sensor or server is not known here.
    UNKNOWN_PEER = 9, "unknown_peer";
    /// A newer session of the same sensor took over.
    FENCED = 10, "fenced";
    /// No Detection server has room.
    ALL_FULL = 11, "all_full";
    /// This server is full or overloaded.
    BUSY = 12, "busy";
    /// This server is draining.
    DRAINING = 13, "draining";
    /// The store takes nothing more.
    STORE_FAILED = 14, "store_failed";
    /// There is no such thing.
    NOT_FOUND = 15, "not_found";
    /// The expression, key or argument is not well formed.
    BAD_ARGUMENT = 16, "bad_argument";
    /// A server that is needed cannot be reached.
    UNREACHABLE = 17, "unreachable";
    /// It took longer than allowed.
    TIMED_OUT = 18, "timed_out";
    /// The method is known but not served here.
    UNSUPPORTED = 19, "unsupported";
    /// The credential was revoked.
    REVOKED = 20, "revoked";
    /// The command's time was over before it could be done.
    EXPIRED = 21, "expired";
    /// The command's number is not above the last accepted one.
    STALE_COMMAND = 22, "stale_command";
    /// Something that cannot be, is: a fault of this program.
    INTERNAL = 23, "internal";
    /// Nothing came from the peer for too long.
    IDLE = 24, "idle";
    /// The chain of a log does not continue.
    CHAIN_BROKEN = 25, "chain_broken";
    /// Facts were lost, by rule or by fault.
    FACTS_LOST = 26, "facts_lost";
    /// A signature, hash or length is wrong.
    BAD_SIGNATURE = 27, "bad_signature";
    /// The state it would change has changed meanwhile.
    CONFLICT = 28, "conflict";
    /// The peer must log in or present a credential first.
    UNAUTHENTICATED = 29, "unauthenticated";
}

impl Code {
    /// The name of the code; `unknown` for a number newer than this program.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(code, _)| *code == self).map_or("unknown", |(_, name)| name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}
