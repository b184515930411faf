//! `lapwing-load`: a corpus of events through many real sensor cores over real TLS, and its cost.
//!
//! ```text
//! corpus   lines of JSON become events; each goes to the sensor `pid % N`
//! facts    an event becomes a fact of the element model, as a collector would tell it
//! machine  one sensor: the core, its spool, its connection; one task
//! spool    chunks until they are safe: in memory, or the product's own files
//! fleet    the threads, the phases of a run, progress
//! meter    what the servers' processes use;  malops  how long until a MalOp is seen
//! report   the figures;  sample  a small corpus for tests
//! ```
//!
//! Not here: collectors, and any shortcut past the protocol. Invariants: an event becomes exactly
//! one fact that carries its `seq` as `source_seq`; what the report calls acknowledged was
//! acknowledged to the core by a server.

mod arguments;
mod corpus;
mod facts;
mod fleet;
mod machine;
mod malops;
mod meter;
mod report;
pub mod sample;
mod spool;
mod target;
mod wait;
mod watch;

pub use arguments::Arguments;
pub use fleet::{Gate, run, run_gated};
pub use report::Report;
