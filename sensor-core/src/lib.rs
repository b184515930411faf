//! The sensor's state machines: no heap, no clock, no I/O.
//!
//! [`Sensor`] is the one front door. It is given facts, bytes, answers of its shell and the time,
//! and gives back chunks for a spool, frames for a connection, and things to do. All of its memory
//! is lent ([`Storage`]); nothing grows. The same type runs under an executor, on a
//! microcontroller, in a fuzzer and in the simulator.
//!
//! It refuses to: open a socket or a file, read a clock, draw random numbers, allocate, block.
//! Those are its shell's; `sensor-os` is one.
//!
//! Reading order: [`Sensor`] (four kinds of method, the order of draining), [`Event`], [`Storage`];
//! then, inside, `recorder` (fact to chunk), `outbox` (chunks on their way), `session` (greeting,
//! credit, acknowledgement). `docs/protocol.md` is the normative text of the wire.
//!
//! Invariants:
//! * a fact that says something new gets its index before table, bounds and chunker;
//! * a chunk's bytes are made once and never change;
//! * nothing is dropped in silence: a count in a chunk, or a Jump, says so;
//! * nothing a peer sends makes it panic.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod backoff;
mod calls;
mod chunker;
mod config;
mod definitions;
mod delta;
mod engine;
mod error;
mod event;
mod inbox;
mod lane;
mod lent;
pub mod limits;
mod outbox;
mod position;
mod press;
mod recorder;
mod registration;
mod sensor;
mod session;
mod stats;
mod storage;
mod strings;
mod table;
mod time;
mod window;

pub use backoff::Backoff;
pub use config::Config;
pub use error::{CloseReason, DefineError, IntakeError, PeerFault, StorageError};
pub use event::{DialTarget, Event, Find, Spool};
pub use outbox::Stored;
pub use position::{Flight, Hole, LogPositions, Position};
pub use recorder::Intake;
pub use registration::{Installation, Place};
pub use sensor::Sensor;
pub use stats::{LaneStats, Stats};
pub use storage::{LaneSizes, LaneStorage, SENSOR_BYTES_32_BIT, Sizes, Storage};
pub use strings::StringSlot;
pub use table::RowEntry;
pub use time::Now;
