//! Holds any server and any sensor against docs/protocol.md.
//!
//! What this crate knows of the protocol it knows from the page: it shares no code with the
//! product, so that a fault of the product's codec is not a fault of its judge as well.
//!
//! Where things are: `wire` the bytes, `crypto` keys and TLS, `play` connections and parts, `cases`
//! what is looked at, `requirements` the page and what covers it, `run` and `report` around them,
//! `bench` a server of our own to look at, `command` the command line.

#![forbid(unsafe_code)]

pub mod bench;
pub mod cases;
pub mod command;
pub mod crypto;
pub mod play;
pub mod report;
pub mod requirements;
pub mod run;
pub mod wire;
