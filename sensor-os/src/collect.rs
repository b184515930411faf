//! The collectors: threads that observe the machine and give facts to one queue.
//!
//! [`Collectors`] starts and stops them. Each opens what it is permitted to, says in a health fact
//! what it uses and what it therefore misses, and runs in a thread of its own. Facts leave by one
//! bounded queue (`queue.rs` has its overflow rule) and are the runner's from there on: no
//! collector knows of tables, chunks or servers. What is decided is decided in pure state machines
//! (`join`, `sockets`) and parsers (`dns`, `procfs`, `btf`); the threads only read and feed.
//!
//! Reading order: `fact`, `queue`, `join` with `processes`, `sockets` with `connections`, then the
//! rest.
//!
//! Invariants: a collector never waits for the runner; what it could not see is marked as missing
//! and never guessed; what it lost is counted; a machine at rest gives no facts; a thread that ends
//! unasked is told of and started again, and one that hangs is told of and holds up nobody.

mod fact;
mod health;
mod limits;
mod period;
mod queue;
mod stamp;

#[cfg(target_os = "linux")]
mod btf;
#[cfg(target_os = "linux")]
mod connections;
#[cfg(target_os = "linux")]
mod dns;
#[cfg(target_os = "linux")]
mod folders;
#[cfg(target_os = "linux")]
mod hash;
#[cfg(target_os = "linux")]
mod inventory;
#[cfg(target_os = "linux")]
mod join;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod process_facts;
#[cfg(target_os = "linux")]
mod processes;
#[cfg(target_os = "linux")]
mod procfs;
#[cfg(target_os = "linux")]
mod services;
#[cfg(target_os = "linux")]
mod shared;
#[cfg(target_os = "linux")]
mod sockets;
#[cfg(target_os = "linux")]
mod supervise;
#[cfg(target_os = "linux")]
mod systemd;
#[cfg(target_os = "linux")]
mod thread;
#[cfg(target_os = "linux")]
mod unreadable;
#[cfg(target_os = "linux")]
mod users;

pub use fact::{CollectedFact, OwnedValue, ProcessKey, ScanMark};
pub use health::{Report, Status};
pub use queue::{Count, FactSender, Source, fact_queue};
#[cfg(target_os = "linux")]
pub use supervise::{CollectorConfig, Collectors};
