//! Calls between peers over `lapwing-peer/1` frames, and on the enrol and sensor planes, whose
//! calls look the same.
//!
//! Not here: what methods do. Invariants: calls under way are bounded on both ends; a reply is
//! delivered whole or not at all; what a caller cannot know ("was it done?") has its own error;
//! bodies are one postcard message each.

mod client;
mod error;
mod server;
mod wire;

use serde::Serialize;
use serde::de::Deserialize;

pub use client::PeerClient;
pub use error::{CallError, Failure, PeerFault};
pub use server::{Caller, Service, serve};

use lapwing_protocol::code::Code;

/// Encodes a message as a call's or reply's body.
///
/// # Errors
/// The message cannot be encoded: a fault of this program.
pub fn to_body<T: Serialize + ?Sized>(message: &T) -> Result<Vec<u8>, Failure> {
    postcard::to_extend(message, Vec::new()).map_err(|error| {
        Failure::new(Code::INTERNAL, format!("a message cannot be encoded: {error}"))
    })
}

/// Decodes a call's body; trailing bytes are refused.
///
/// # Errors
/// The body is not a `T`.
pub fn from_body<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    lapwing_protocol::error::from_bytes(body).map_err(|error| {
        Failure::new(Code::MALFORMED, format!("the call's body is malformed: {error}"))
    })
}
