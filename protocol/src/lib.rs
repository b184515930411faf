//! The words both ends of Lapwing speak.
//!
//! This crate holds the frame, every message, the element model, the first chunk encoding, the
//! digests and every bound of the wire. It does no I/O, allocates nothing, reads no clock and
//! keeps no state beyond a lent buffer; what to *do* with a message is decided in `sensor-core`
//! and `servers/core`. `docs/protocol.md` is the normative text; this crate is its twin.
//!
//! Reading order: [`limits`], [`frame`], [`message`] (the table of messages), [`hello`],
//! [`chunk`], [`delivery`], then [`element`] and [`op`] for what is inside a chunk.
//!
//! Invariants:
//! * a message never changes: a change is a new kind or method, used when both ends list it;
//! * enums only ever gain variants at their end;
//! * nothing here panics on bytes a peer sent.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "buggify"))]
extern crate std;

pub mod buggify;
pub mod call;
pub mod chunk;
pub mod code;
pub mod command;
pub mod console;
pub mod delivery;
pub mod digest;
pub mod element;
pub mod enrol;
pub mod error;
pub mod feed;
pub mod fleet;
pub mod frame;
pub mod hello;
pub mod id;
pub mod intel;
pub mod items;
pub mod ledger;
pub mod limits;
pub mod malop;
pub mod message;
pub mod op;
pub mod registration;
pub mod row;
pub mod supervision;
pub mod tagging;
pub mod update;
pub mod varint;
