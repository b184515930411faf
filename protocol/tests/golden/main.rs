//! The wire, byte by byte: every message, op, chunk, row, key and digest has its exact bytes in
//! `bytes/`, so that none changes by accident and another implementation can compare.

#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod book;
mod digests;
mod fleet_services;
mod frames;
mod ledger;
mod names;
mod ops;
mod peer_services;
mod session;
mod views;
