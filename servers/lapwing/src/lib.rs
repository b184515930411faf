//! The multi-call binary: every role, the sensor, `up` and `ctl`.
//!
//! Not here: what any role does. Reading order: [`exit`], `command` (what there is to call),
//! `roles` (one server each), `up` (all of them on this machine), `ctl` (the operator's command).
//!
//! Invariants: JSON goes to standard output and nothing else does; logs go to standard error; the
//! exit code says who is to blame, by the table in [`exit`].
#![forbid(unsafe_code)]

mod command;
mod ctl;
pub mod exit;
mod roles;
mod storage;
pub mod up;

pub use command::main;
