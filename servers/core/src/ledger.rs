//! The ledger: what became of every fact, by position.
//!
//! [`Account`] follows one log entry by entry, as it is stored; [`Verifier`] does the same over a
//! scan of the journal and compares with everything else that is known of the log; [`merge()`] puts
//! the rows of several servers together.
//!
//! Not here: reading a journal, decoding, asking a sensor. Invariants: the runs of an account have
//! no gap and begin at index 1; a position counts once, however often it was stored; nothing a
//! sensor says makes an account grow beyond its bound.

mod account;
pub mod limits;
mod merge;
mod verify;

pub use account::{Account, Sums, kind_name, pieces};
pub use merge::{Balance, Line, MergedLog, OwnedRow, merge};
pub use verify::{
    Damage, Fault, HeadWord, KeptAccount, LogPlace, Outcome, SensorWord, StoredEntry, StoredWhat,
    Verified, Verifier,
};
