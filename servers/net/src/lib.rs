//! The shell that every server shares: configuration, identity, TLS planes, listeners, peer calls,
//! HTTP, metrics.
//!
//! Not here: what any one server does, and state machines (`lapwing-server-core`). This crate is
//! impure by trade: it holds the clock, the sockets and the randomness that the cores are handed as
//! arguments.
//!
//! Reading order: [`config`], [`identity`], [`authority`], [`tls`], [`listener`], then [`peer`] and
//! [`http`] for what is spoken on a connection.
//!
//! Invariants: TLS 1.3 alone, one crypto provider (ring), smol alone; a peer is who its certificate
//! says; every bound stands in [`limits`]; a peer that misbehaves loses its own connection and
//! nothing else.
#![forbid(unsafe_code)]

pub mod admission;
pub mod authority;
pub mod budget;
pub mod clock;
pub mod complaint;
pub mod config;
mod door;
pub mod durable_file;
pub mod enrolment;
mod gate;
pub mod hexadecimal;
pub mod host;
pub mod http;
pub mod identity;
pub mod limits;
pub mod listener;
pub mod logging;
pub mod metrics;
pub mod notice;
pub mod peer;
pub mod runtime;
pub mod shutdown;
pub mod socket;
pub mod storage;
pub mod tls;
mod waiting;
