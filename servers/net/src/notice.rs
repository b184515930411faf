//! What a person should know about a server that works all the same: told with its status.
//!
//! Not here: failures, which end a server, and the log. Invariant: one line a subject, the newest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Troubles by subject. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Notice(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Notice {
    /// Tells of `trouble` in `subject`, or that there is none any more.
    pub fn set(&self, subject: &'static str, trouble: Option<String>) {
        match trouble {
            Some(trouble) => self.lock().insert(subject, trouble),
            None => self.lock().remove(subject),
        };
    }

    /// All troubles in one line; empty when all is well.
    #[must_use]
    pub fn text(&self) -> String {
        self.lock().values().map(String::as_str).collect::<Vec<_>>().join("; ")
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Notice;

    #[test]
    fn the_newest_word_on_each_subject_counts() {
        let notice = Notice::default();
        assert_eq!(notice.text(), "");
        notice.set("space", Some(String::from("little room")));
        notice.set("backup", Some(String::from("none yet")));
        notice.set("space", Some(String::from("no room")));
        assert_eq!(notice.clone().text(), "none yet; no room");
        notice.set("backup", None);
        assert_eq!(notice.text(), "no room");
    }
}
