//! The sensor on an operating system: collectors, spool, TLS runner, and the command line.
//!
//! [`Agent`] is the front door for a program that links the sensor; [`cli()`] is the command line
//! that the binary `lapwing-sensor` and a multi-call binary host. What a sensor *decides* is in
//! `lapwing-sensor-core`; this crate is its shell: it holds the clock, the disk, the sockets and
//! the randomness that the core is handed as arguments.
//!
//! Reading order: [`config`], [`identity`], [`spool`], [`agent`], then `runner` (one loop), `dial`
//! with `tls`, and [`collect`] for what is observed.
//!
//! Invariants: TLS 1.3 alone, one crypto provider (ring), smol alone; `unsafe` stands in `sys` and
//! nowhere else; every queue has a bound in a limits file; nothing starts before it is asked to.
#![deny(unsafe_code)]

pub mod agent;
mod cli;
mod clock;
pub mod collect;
pub mod config;
mod dial;
mod durable_file;
mod enrol;
mod escape;
mod hexadecimal;
pub mod identity;
mod logging;
mod machine;
mod one_call;
pub mod own;
pub mod parts;
mod random;
mod runner;
pub mod spool;
pub mod status;
mod sys;
mod tls;

pub use agent::{Agent, AgentBuilder, AgentError, Ended, Handle, Receipt, SendError, Stored};
pub use cli::cli;
pub use config::Config;
pub use own::{OwnFact, OwnKind};
