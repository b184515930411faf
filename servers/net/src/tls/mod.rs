//! TLS: credentials, one server configuration per plane, client configurations, and what failed
//! handshakes mean.
//!
//! Not here: sockets and bounds on them (listener.rs), issuing (authority). Invariants: TLS 1.3
//! alone; ring alone; no early data; a client certificate is required on the sensor and peer planes
//! and never asked for elsewhere; who the peer is comes from the URI in its certificate, checked
//! inside the handshake.

mod client;
mod credentials;
mod error;
mod plane;
mod verify;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use client::{ClientTls, connect};
pub use credentials::{Credentials, CredentialsError};
pub use error::HandshakeError;
pub(crate) use plane::Choice;
pub use plane::{Plane, ServerPlanes};
pub use verify::{ExpectedPeer, PeerMismatch, key_digest};

/// The one provider of cryptography.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}
