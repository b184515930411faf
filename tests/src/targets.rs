//! What a peer can send and what a damaged disk can hold, as functions that must hold for any
//! bytes.
//!
//! `fuzz/fuzz_targets` calls these under coverage, `tests/corpus.rs` on stable over the committed
//! seeds and over generated input. A law that does not hold is a panic; nothing else is checked
//! here, and no state is kept between two calls.

mod certificate;
mod export;
mod input;
mod journal;
mod lent;
mod manifest;
mod query;
mod sensor;
mod server;
mod spool;
mod wire;

pub use certificate::certificate;
pub use export::export;
pub use journal::journal;
pub use manifest::manifest;
pub use query::query;
pub use sensor::sensor;
pub use server::{decoder, server};
pub use spool::spool;
pub use wire::{BODIES, CUT_BYTES, frame, message};

/// What holds for any bytes, or panics.
pub type Target = fn(&[u8]);

/// Every target, by the name of its binary and of its folder of seeds.
pub const TARGETS: [(&str, Target); 11] = [
    ("frame", frame),
    ("message", message),
    ("decoder", decoder),
    ("sensor", sensor),
    ("server", server),
    ("spool", spool),
    ("journal", journal),
    ("export", export),
    ("query", query),
    ("manifest", manifest),
    ("certificate", certificate),
];
