//! Sensor management and tagging over real TLS sockets; sensor management against a Detection
//! service that answers as the test wants.
#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

#[path = "../../../net/tests/deployment/mod.rs"]
mod deployment;
mod detection;
mod fleet;
mod tagging;
