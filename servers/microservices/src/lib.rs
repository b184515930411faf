//! The microservices: MalOp decisions, asset tagging, fleet management (sensor management).
//!
//! Each module is one service with a process, a store, a certificate and sockets of its own; they
//! share a crate and nothing else. This is the shell; what is decided is decided in
//! `lapwing_server_core`.
//!
//! Invariant: no reply before what it says is durable.
#![forbid(unsafe_code)]

pub mod fleet;
pub mod malops;
mod stored;
pub mod tagging;
