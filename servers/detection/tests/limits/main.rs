//! A whole Detection server over real TLS sockets, with bounds lowered so that each is reached:
//! what happens there, and that honest sensors do not feel it.
#![expect(clippy::unwrap_used, reason = "a test ends where a value is missing")]

#[path = "../../../net/tests/deployment/mod.rs"]
mod deployment;
#[path = "../scripted/mod.rs"]
mod scripted;

mod fair;
mod hostile;
mod running;
