//! The shell over real TLS sockets on the loopback address: planes, identities, bounds, calls,
//! HTTP.
//!
//! Not here: what any server does with it. Each test starts its own listener on a free port.

#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

mod bounds;
mod greeting;
mod http;
mod peer;
mod planes;
mod slow;
mod support;
mod wait;
