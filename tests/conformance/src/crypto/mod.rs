//! Hashes, keys, certificates and TLS, as the page asks for them.
//!
//! Not here: what is said over a connection.

pub mod authority;
pub mod chain;
pub mod digest;
pub mod identity;
pub mod tls;
