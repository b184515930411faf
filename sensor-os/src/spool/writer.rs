//! The file of a log that is appended to, and what becomes of it when a sync fails.
//!
//! After a failed sync the system may have thrown away what it could not write, and say that the
//! next one succeeded. So what was not synced is kept in memory until a sync did succeed, and a
//! file that failed one is never synced again: a copy takes its place.
//!
//! Not here: which file comes next ([`super::log_folder`]). Invariants: what is said to be synced
//! was covered by a sync that succeeded, of the file and of its name; half a record never stands
//! before a whole one.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, DiskFile};
use super::format::{HEAD_BYTES, Head, Place, write_record};

/// Bytes that may wait for a sync: several times what is written between two. A disk that syncs
/// nothing for longer takes nothing more.
const WAITING_BYTES_MAX: usize = 2 << 20;
/// Memory that is kept for the next records; a burst's is given back after its sync.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// What a copy that took a file's place is worth.
#[derive(Debug)]
pub(super) enum Copied {
    /// It outlives a power cut.
    Durable,
    /// Its name may not.
    Unnamed(io::Error),
}

#[derive(Debug)]
pub(super) struct Writer {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    /// Nothing may be appended: what stands at its end is not a whole record, or a hole follows.
    is_closed: bool,
    /// A sync failed: another one would prove nothing.
    is_suspect: bool,
    bytes: u64,
    /// Behind the last record that outlives a power cut, and whether the file's name does.
    synced: Place,
    is_named: bool,
    /// Behind its last record.
    end: Place,
    /// The records between both, and whether the first of them may be decoded by itself.
    waiting: Vec<u8>,
    waiting_opens: bool,
    record: Vec<u8>,
}

impl Writer {
    /// A new file with its head.
    pub(super) fn begin(disk: &dyn Disk, path: PathBuf, head: Head) -> io::Result<Self> {
        // A file of this name can only be one whose head or first record failed before.
        disk.remove(&path)?;
        let mut file = disk.create(&path)?;
        if let Err(error) = file.append(&head.to_bytes()) {
            drop(file);
            let _ = disk.remove(&path);
            return Err(error);
        }
        Ok(Self {
            file,
            path,
            is_closed: false,
            is_suspect: false,
            bytes: HEAD_BYTES as u64,
            synced: head.before,
            is_named: false,
            end: head.before,
            waiting: Vec::new(),
            waiting_opens: head.opens,
            record: Vec::new(),
        })
    }

    /// Whether a record may be appended.
    pub(super) fn is_open(&self) -> bool {
        !self.is_closed
    }

    /// Nothing more is appended.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether all of it outlives a power cut.
    pub(super) fn is_synced(&self) -> bool {
        self.synced.seq == self.end.seq
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Behind the last record that outlives a power cut.
    pub(super) fn synced(&self) -> Place {
        self.synced
    }

    /// Appends a record. On an error the file is as it was, or is closed.
    pub(super) fn append(&mut self, chunk: &[u8], after: Place, opens: bool) -> io::Result<()> {
        write_record(&mut self.record, &after, chunk);
        if self.waiting.len() + self.record.len() > WAITING_BYTES_MAX {
            return Err(io::Error::other("it has synced nothing for too long"));
        }
        if let Err(error) = self.file.append(&self.record) {
            // Half a record must not stand before whole ones.
            if self.file.cut(self.bytes).is_err() {
                self.is_closed = true;
            }
            return Err(error);
        }
        if self.waiting.is_empty() {
            self.waiting_opens = opens;
        }
        self.waiting.extend_from_slice(&self.record);
        self.bytes += self.record.len() as u64;
        self.end = after;
        Ok(())
    }

    /// Makes all of it outlive a power cut; it is not tried where an earlier one failed. After an
    /// error a copy must take its place.
    pub(super) fn sync(&mut self, disk: &dyn Disk, folder: &Path) -> io::Result<()> {
        if self.is_synced() {
            return Ok(());
        }
        if self.is_suspect {
            return Err(io::Error::other("an earlier sync of this file failed"));
        }
        let is_named = self.is_named;
        let synced = self
            .file
            .sync()
            .and_then(|()| if is_named { Ok(()) } else { disk.sync_folder(folder) });
        match synced {
            Ok(()) => self.note_synced(),
            Err(_) => self.is_suspect = true,
        }
        synced
    }

    fn note_synced(&mut self) {
        self.is_named = true;
        self.synced = self.end;
        self.waiting.clear();
        self.waiting.shrink_to(KEPT_BYTES_MAX);
    }

    /// Puts a new file, which begins with `head` at the last synced place and holds all that waits
    /// for a sync, in the place of this one under `path`. On an error this file is as it was.
    pub(super) fn copy_forward(
        &mut self,
        disk: &dyn Disk,
        (folder, path): (&Path, PathBuf),
        head: Head,
    ) -> io::Result<Copied> {
        let temporary = path.with_extension("copy");
        let mut copy = Self::begin(disk, temporary.clone(), head)?;
        let copied = copy.file.append(&self.waiting).and_then(|()| copy.file.sync());
        let renamed = copied.and_then(|()| disk.rename(&temporary, &path));
        if let Err(error) = renamed {
            let _ = disk.remove(&temporary);
            return Err(error);
        }
        // From here on this is the file: the old one may have lost its name to it.
        self.file = copy.file;
        self.path = path;
        self.bytes = HEAD_BYTES as u64 + self.waiting.len() as u64;
        self.is_named = false;
        match disk.sync_folder(folder) {
            Ok(()) => {
                self.is_suspect = false;
                self.note_synced();
                Ok(Copied::Durable)
            }
            Err(error) => {
                self.is_suspect = true;
                Ok(Copied::Unnamed(error))
            }
        }
    }

    /// Whether the first record that waits for a sync may be decoded by itself.
    pub(super) fn waiting_opens(&self) -> bool {
        self.waiting_opens
    }
}
