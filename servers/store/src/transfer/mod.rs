//! Stores on their way: as one file each, to another folder, another engine or a backup.
//!
//! What it is: copies of keys and sealed values, whole and checked, at bounded memory. What it is
//! not: it knows no records, but for the journal's own when a copy becomes a journal again.
//!
//! Invariants: a file says by its end that it is whole; what is made in a folder appears there by
//! one rename; nothing is copied over what exists.

mod backup;
mod copy;
mod error;
mod file;
mod folder;
mod manifest;
mod tap;

pub use backup::{BackupReport, Protected, Sources, back_up, finished, protected, restore};
pub use error::TransferError;
pub use folder::{Life, Summary, export, import, open_sources, sources};
pub use tap::Tap;

/// Told now and then how far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The store that is being copied, by its path in the folder.
    pub store: &'a str,
    /// Its entries so far.
    pub entries: u64,
}

/// Who is told.
pub type Teller<'a> = dyn FnMut(Progress<'_>) + 'a;

#[cfg(test)]
mod tests;
