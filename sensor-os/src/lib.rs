//! The sensor on an operating system: collectors, spool, TLS runner.

pub mod collect;
mod sys;
