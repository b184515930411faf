//! HTTP over our TLS streams: an axum router served by hyper, and a small client for tools and
//! tests.
//!
//! Not here: routes (metrics.rs and the WebApp have them), pages, sessions. Invariants: head, body
//! and time of a request are bounded before a route sees it, and so is what all requests hold
//! together; no runtime but smol.

pub mod bearer;
mod body;
mod bounds;
mod client;
mod server;

pub use body::BodyError;
pub use bounds::{Bounds, HttpLimits};
pub use client::{Answer, Answering, Client, HttpError};
pub use server::{ClientAddress, serve};
