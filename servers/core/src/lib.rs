//! The servers' state machines and policies: no I/O, no clock, no randomness.
//!
//! Each module is one noun of the path of a fact, in its order: `delivery` takes chunks,
//! `decode` turns them into [`change`]s, `graph` keeps what is known, `evidence` says what is
//! worth telling. Shells in the server crates feed them and carry out what they ask.
//!
//! Invariants: `now` is an argument; nothing iterates a map of undefined order; nothing panics on
//! what a peer sent.
#![forbid(unsafe_code)]

pub mod assignment;
pub mod change;
pub mod decode;
pub mod delivery;
pub mod engine;
pub mod enrolment;
pub mod evidence;
pub mod fleet;
pub mod graph;
pub mod intel_cache;
pub mod ledger;
pub mod malop;
pub mod manifest;
pub mod pressure;
pub mod query;
pub mod reputation;
pub mod rows;
pub mod tags;
pub mod view;
