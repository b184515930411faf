//! Whether files or folders changed since they were last looked at, told by what `stat` shows.
//!
//! Cheap enough to ask often. A change within one tick of the filesystem's clock that leaves size
//! and inode as they were is not seen; writers that rename a new file into place are always seen.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Inode, size, and seconds and nanoseconds of the content's and the inode's last change.
type Shown = (u64, u64, i64, i64, i64, i64);

/// What `stat` showed last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    shown: Option<Vec<Option<Shown>>>,
}

impl Stamp {
    /// Whether one of `paths` is not as it was when this was last asked. The first time all are
    /// new.
    pub(crate) fn changed<P: AsRef<Path>>(&mut self, paths: impl IntoIterator<Item = P>) -> bool {
        let shown = paths
            .into_iter()
            .map(|path| {
                let file = std::fs::metadata(path).ok()?;
                Some((
                    file.ino(),
                    file.size(),
                    file.mtime(),
                    file.mtime_nsec(),
                    file.ctime(),
                    file.ctime_nsec(),
                ))
            })
            .collect();
        let changed = self.shown.as_ref() != Some(&shown);
        self.shown = Some(shown);
        changed
    }
}
