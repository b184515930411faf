//! The Detection server: ends the sensors' connections, keeps the graph, raises evidence.
//!
//! The path of a fact through this crate, in the order of its modules: `sessions` takes frames,
//! `ingest` makes them durable, `follow` reads them back decoded and in order, the analyst
//! updates the graph and raises evidence, the console answers questions about all of it.
//! Commands go the other way through `commands`.
//!
//! Not here: the rules of delivery, the decoder, the graph and the judge; they are pure and live in
//! `lapwing_server_core`.
//!
//! Invariants: nothing is acknowledged before the journal's ticket says it is durable; what the
//! analyst knows can be rebuilt from the journal; one process owns the data folder.
#![forbid(unsafe_code)]

mod analyst;
mod backup;
mod commands;
mod config;
mod console;
mod damage;
mod events;
mod fault;
mod follow;
mod health;
mod heartbeat;
mod ingest;
mod ledger;
mod limits;
mod malware;
mod mark;
mod metrics;
mod parting;
mod places;
mod retention;
mod roster;
mod server;
mod sessions;
mod sharing;
mod sources;
mod told;
mod watch;

pub use config::{Config, Detection, Journal, Peers};
pub use limits::SessionLimits;
pub use server::{Addresses, Server, run};

/// What a restored server makes anew, by store and key, so that whoever follows its feeds begins
/// again, and no command is sent twice to a sensor that could not tell.
pub const MADE_ANEW: &[(&str, &[u8])] =
    &[("state", analyst::INCARNATION_KEY), ("state", commands::LIFE_KEY)];

/// A complete configuration file with a comment above every key.
pub const EXAMPLE: &str = <Config as lapwing_net::config::Config>::EXAMPLE;
