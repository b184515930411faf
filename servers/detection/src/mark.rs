//! How far the journal is known to reach, and what it says when it does not any more.
//!
//! An engine may take damage for a torn tail and come back with an older state, and a folder may be
//! put back: then the journal ends before entries that were acknowledged, and nothing in it says
//! so. So its end is written to a small file beside it, again and again and at each clean end.
//! Of what was stored since the last time nobody here knows; the sensors do (HEL-027).
//!
//! Not here: counting and judging anew (ledger/book.rs, analyst.rs).
//!
//! Invariants: no acknowledgement waits for the file; a loss is written down before the journal is
//! given its new life, and stays said until a person removes what was written.

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lapwing_net::clock;
use lapwing_net::durable_file::{self, Access};
use lapwing_net::notice::Notice;
use lapwing_store::journal::Journal;
use smol::Timer;

/// How often the end is written, where it moved: what a rollback may hide. One write of some bytes
/// and two syncs, about a millisecond of the disk, on a thread of its own.
const EVERY: Duration = Duration::from_secs(1);
/// The journal's end.
const MARK: &str = "journal.mark";
/// What it lost.
const LOST: &str = "journal.lost";
/// The first line of the mark.
const TITLE: &str = "lapwing journal mark 1";

/// The two files beside a journal.
#[derive(Debug)]
pub(crate) struct Mark {
    mark: PathBuf,
    lost: PathBuf,
    notice: Notice,
    /// The last entry that the file names.
    written: AtomicU64,
    is_failing: AtomicBool,
}

impl Mark {
    /// The files in a server's data folder. Blocks on the disk.
    pub(crate) fn open(folder: &Path, notice: &Notice) -> Self {
        let (mark, lost) = (folder.join(MARK), folder.join(LOST));
        let written = AtomicU64::new(read(&mark));
        Self { mark, lost, notice: notice.clone(), written, is_failing: AtomicBool::new(false) }
    }

    /// The last entry that is known to have been durable; 0 where nothing is known.
    pub(crate) fn known(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Writes down that a journal ends with `end`, and that entries up to `known` were stored.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write_loss(&self, end: u64, known: u64) -> io::Result<()> {
        let what = format!(
            "the journal ends with entry {end}, and entries up to {known} were stored: facts that \
             were acknowledged are gone"
        );
        log::error!("{what}");
        let mut text = std::fs::read_to_string(&self.lost).unwrap_or_default();
        // A start that did not come to its end notices the same again.
        if text.trim_end().ends_with(&what) {
            return Ok(());
        }
        let now_ms = clock::unix_ms();
        text.push_str(&format!("{now_ms} (milliseconds since 1970): {what}\n"));
        durable_file::write(&self.lost, text.as_bytes(), Access::Everyone)
    }

    /// Says what was lost, as long as it is written down. Blocks on the disk.
    pub(crate) fn say(&self) {
        let trouble = std::fs::read_to_string(&self.lost).ok().map(|text| {
            let last = text.lines().next_back().unwrap_or_default();
            format!(
                "{last}; restore the server's backup, or see `lapwing ctl ledger --verify` for \
                 what is missing and delete {}",
                self.lost.display()
            )
        });
        self.notice.set("journal", trouble);
    }

    /// Writes the end of `journal`, where it is not what the file says. Blocks on the disk.
    pub(crate) fn write(&self, journal: &Journal) {
        let end = journal.durable();
        if end == self.known() {
            return;
        }
        let text = format!("{TITLE}\n{end}\nend\n");
        match durable_file::write(&self.mark, text.as_bytes(), Access::Everyone) {
            Ok(()) => {
                self.written.store(end, Ordering::Relaxed);
                self.is_failing.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    log::error!(
                        "{} cannot be written: {error}; a journal that is rolled back from here \
                         on is not noticed by it",
                        self.mark.display()
                    );
                }
            }
        }
    }
}

/// Writes the journal's end, again and again, and looks whether what it lost is still to be said.
/// Never ends.
pub(crate) async fn keep(mark: std::sync::Arc<Mark>, journal: std::sync::Arc<Journal>) {
    loop {
        Timer::after(EVERY).await;
        let (mark, journal) = (std::sync::Arc::clone(&mark), std::sync::Arc::clone(&journal));
        smol::unblock(move || {
            mark.write(&journal);
            mark.say();
        })
        .await;
    }
}

/// The entry that a mark names; 0 where there is none, or it is no mark.
fn read(path: &Path) -> u64 {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return 0,
        other => other.unwrap_or_default(),
    };
    match text.lines().collect::<Vec<_>>().as_slice() {
        [TITLE, end, "end"] => end.parse().ok(),
        _ => None,
    }
    .unwrap_or_else(|| {
        log::warn!("{} is damaged; how far the journal reached is not known by it", path.display());
        0
    })
}
