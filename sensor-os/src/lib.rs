//! The sensor on an operating system: collectors, spool, TLS runner.

pub mod collect;
mod sys;

pub mod config;
mod clock;
mod dial;
mod durable_file;
mod enrol;
mod escape;
mod hexadecimal;
pub mod identity;
mod logging;
mod machine;
pub mod spool;
mod tls;
