//! The MalOp service over real TLS sockets, against Detection services that tell what the test
//! wants: every evidence counts exactly once, over restarts of either side.
#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

#[path = "../../../net/tests/deployment/mod.rs"]
mod deployment;
mod exactly_once;
mod peers;
mod service;
mod work;
