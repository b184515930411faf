//! The bytes of the protocol, written from docs/protocol.md and docs/protocol-messages.md alone.
//!
//! Not here: sockets, TLS, and any judgement. Invariant: nothing of `lapwing-*` is used, so that
//! the two implementations can disagree.

pub mod chunk;
pub mod code;
pub mod decode;
pub mod frame;
pub mod message;
pub mod method;
pub mod model;
pub mod op;
pub mod primitive;
