//! Durable storage for the servers: one narrow trait, its back ends, group commit and the journal.
//!
//! What it is: the only crate that writes what a server must not lose. `docs/store.md` is the
//! normative description of everything that reaches the disk.
//! What it is not: it knows no messages, facts or clock; bytes, ids and wall times are given.
//!
//! Invariants: nothing is reported durable before `Store::sync` returned; every value carries a
//! version byte and a checksum bound to its key; after a failed sync nothing more is acknowledged.
//!
//! Everything here blocks on the disk except submitting to a writer and awaiting its tickets, so
//! an executor calls the reads through its pool for blocking work.
#![forbid(unsafe_code)]

mod batch;
mod condition;
mod disk;
mod envelope;
mod error;
mod guard;
pub mod journal;
pub mod limits;
mod memory;
mod parts;
mod redb;
mod rows;
mod sled;
mod space;
mod store;
pub mod suite;
mod ticket;
pub mod transfer;
mod writer;

pub use batch::{Batch, Misuse, Operation as BatchOperation};
pub use disk::{DiskOptions, DiskStore};
pub use envelope::{Damage, FORMAT_VERSION};
pub use error::{Blame, Operation, StoreError};
pub use lapwing_server_core::engine::Engine;
pub use memory::{MemoryDisk, MemoryStore};
pub use parts::{part_key, split_parts};
pub use rows::{Committing, RowStore};
pub use space::SpaceGauge;
pub use store::{Direction, Entry, Scan, Store, Visitor};
pub use ticket::Ticket;
pub use transfer::Tap;
pub use writer::{Refusal, Refused, Sink, StoreSink, Writer, WriterOptions};
