//! What of the journal is safe: as far as the last finished backup holds it.
//!
//! Not here: making backups (`lapwing_net::storage`). Invariant: nothing is called safe that was
//! not read back from the files of a finished backup of this life of the journal.

use std::sync::Arc;

use lapwing_net::storage::Storage;
use lapwing_store::journal::Journal;

use crate::roster::Roster;

/// The journal's folder in the server's folder.
pub(crate) const JOURNAL: &str = "journal";

/// Tells every sensor's receiver how far the last finished backup goes. Blocks on the disk.
pub(crate) fn protect(storage: &Storage, journal: &Journal, roster: &Roster) {
    let heads = storage.protected(JOURNAL, journal).unwrap_or_else(|error| {
        log::error!("{error}; until the next backup nothing counts as safe");
        Vec::new()
    });
    roster.protect(heads);
}

/// Does so after each backup.
pub(crate) async fn run(storage: Arc<Storage>, journal: Arc<Journal>, roster: Arc<Roster>) {
    let mut count = 0;
    loop {
        count = storage.backed_up_past(count).await;
        let (storage, journal, roster) =
            (Arc::clone(&storage), Arc::clone(&journal), Arc::clone(&roster));
        smol::unblock(move || protect(&storage, &journal, &roster)).await;
    }
}
