//! The ledger of this server: what became of every fact that was sent here.
//!
//! [`Book`] keeps an account of every log, entry by entry behind the journal, so that reading it is
//! cheap. [`Scanner`] reads the whole journal instead and trusts nothing that was counted before.
//! Not here: what is produced and in flight is the sensor's own word (roster.rs); what other
//! servers hold is merged by whoever asks all of them.

mod answer;
mod book;
mod scan;

pub(crate) use answer::{page, verified};
pub(crate) use book::{Book, COUNTED_KEY, keep};
pub(crate) use scan::{Scan, Scanner};
