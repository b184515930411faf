//! What can go wrong, by operation and by blame: the peer, the caller, or the room there is.
//!
//! A fact that cannot be recorded is not an error: it is counted and announced in the log. Errors
//! are small and `Copy`; whoever shows them to a person adds the thing, the place and the remedy.

use core::fmt;

use lapwing_protocol::code::Code;
use lapwing_protocol::error::DecodeError;

/// Why a fact was not taken. The caller still has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntakeError {
    /// Chunks wait for the shell: drain [`crate::Sensor::poll_chunk`], report what was spooled,
    /// and hand the fact in again.
    Undrained,
}

impl fmt::Display for IntakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undrained => f.write_str("chunks wait to be spooled before a fact is taken"),
        }
    }
}

impl core::error::Error for IntakeError {}

/// Why an agent's own kind was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefineError {
    /// The kind is built in, or its description is not well formed.
    Malformed,
    /// The kind is defined already, and otherwise; that takes a new log.
    Redefined,
    /// The memory lent for definitions is full, or a chunk has no room for this one.
    Full,
}

impl fmt::Display for DefineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the kind is built in or its description is not well formed",
            Self::Redefined => "the kind is defined already, and otherwise",
            Self::Full => "neither a chunk nor the memory for definitions has room for it",
        })
    }
}

impl core::error::Error for DefineError {}

/// Which part of the lent memory cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageError {
    /// `rows`: none, or more than [`crate::limits::ROWS_MAX`].
    Rows,
    /// `index`: not a power of two, or not larger than `rows`.
    Index,
    /// `strings`: not a power of two of at least 4, or more than the wire allows.
    Strings,
    /// `open` of a lane: smaller than [`crate::limits::CHUNK_BYTES_MIN`].
    Open,
    /// `window` of a lane: holds fewer than three of the largest chunks.
    Window,
    /// `flight` or `holes` of a lane: none.
    Flight,
    /// `receive`: smaller than the wire allows.
    Receive,
    /// `fetch`: smaller than a chunk, with a spool.
    Fetch,
    /// The bulk lane has no memory at all.
    NoLane,
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rows => "rows: between 1 and 65,535 are needed",
            Self::Index => "index: a power of two larger than the number of rows is needed",
            Self::Strings => "strings: 0 or a power of two from 4 to 4,096 is needed",
            Self::Open => "open: at least 192 bytes are needed",
            Self::Window => "window: room for three of the largest chunks is needed",
            Self::Flight => "flight, holes: at least one place is needed",
            Self::Receive => "receive: at least 512 bytes are needed",
            Self::Fetch => "fetch: room for the largest chunk is needed",
            Self::NoLane => "the bulk lane has no memory",
        })
    }
}

impl core::error::Error for StorageError {}

/// What the peer did that a session does not survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerFault {
    /// Its bytes are wrong.
    Malformed(DecodeError),
    /// A right message at the wrong moment.
    OutOfPlace,
    /// It acknowledged or asked for what was never sent.
    BeyondSent,
    /// It chose a protocol version that this sensor does not speak.
    Version,
    /// It does not take chunks as large as this sensor's.
    ChunkTooLarge,
    /// It goes on with no log, not even with an empty one.
    NoAgreement,
}

/// Why a session ends: the shell closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer broke the protocol.
    Peer(PeerFault),
    /// The server refused this sensor.
    Refused {
        /// What was wrong.
        code: Code,
        /// How long to wait first, in milliseconds; 0 = as the sensor likes.
        retry_after_ms: u32,
    },
    /// The server is going away.
    Draining {
        /// How long to wait before coming back, in milliseconds.
        retry_after_ms: u32,
    },
    /// Nothing came for too long.
    Idle,
    /// Data was in flight and nothing was acknowledged for too long.
    NoProgress,
    /// The server did not answer the Hello in time.
    GreetingTimedOut,
    /// The shell stopped the sensor.
    Stopped,
}

impl From<PeerFault> for CloseReason {
    fn from(fault: PeerFault) -> Self {
        Self::Peer(fault)
    }
}

impl From<DecodeError> for PeerFault {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(PeerFault::Malformed(error)) => write!(f, "the server sent bytes: {error}"),
            Self::Peer(PeerFault::OutOfPlace) => f.write_str("the server sent a message too early"),
            Self::Peer(PeerFault::BeyondSent) => {
                f.write_str("the server speaks of chunks that were never sent")
            }
            Self::Peer(PeerFault::Version) => f.write_str("no protocol version in common"),
            Self::Peer(PeerFault::ChunkTooLarge) => {
                f.write_str("the server does not take chunks of this size")
            }
            Self::Peer(PeerFault::NoAgreement) => f.write_str(
                "the server goes on with no log of this sensor, not even a new one: they do not \
                 agree on deployment, sensor or chain",
            ),
            Self::Refused { code, .. } => write!(f, "the server refused this sensor: {code}"),
            Self::Draining { .. } => f.write_str("the server is draining"),
            Self::Idle => f.write_str("nothing came from the server for too long"),
            Self::NoProgress => f.write_str("the server acknowledges nothing"),
            Self::GreetingTimedOut => f.write_str("the server did not answer the greeting"),
            Self::Stopped => f.write_str("the sensor was stopped"),
        }
    }
}
