//! A bench for a server of our own: a deployment made for one run, and the product with a fault
//! built in.
//!
//! Not here: the cases. What is written into the server's configuration is what
//! `lapwing config example detection` explains.

pub mod deployment;
pub mod mutants;
