//! The WebApp server: the analyst's page and the REST API.
//!
//! Not here: what any of the peers decides. Reading order: [`config`], `backend` (questions to
//! peers), `view` (their answers), `accounts` (users, sessions, tokens, audit), `web` (who may),
//! `api` and `page` (what is shown), `live` (what changed).
//!
//! Invariants: every string of a sensor is hostile and is escaped where it leaves us; no page has
//! inline script or style; what changes something needs a session with its request token from our
//! own origin, or a bearer token; what a peer cannot answer is said.
#![forbid(unsafe_code)]

mod accounts;
mod api;
mod backend;
pub mod config;
mod limits;
mod live;
mod page;
mod server;
mod view;
mod web;

pub use accounts::{AccountError, random_password};
pub use backend::{CallResult, Peer, Transport};
pub use config::Config;
pub use server::{RunError, run, run_over, site};
