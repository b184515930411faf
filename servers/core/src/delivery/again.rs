//! What an earlier session left on its way to the disk and now comes again: the same bytes, or
//! those of another branch.
//!
//! Two machines from one image fence each other, and the older one's chunks may not be durable when
//! the younger one says Hello: both go on from the same place. To take the younger one's chunks for
//! repeats would lose them without a word.

use lapwing_protocol::digest::Chain;

/// Places behind the entries of a log that were not durable at its Hello.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// The place before the first of them.
    before: Option<(u64, Chain)>,
    /// Sequence and chain, oldest first; no more than a session's window.
    behind: Vec<(u64, Chain)>,
}

impl Again {
    /// Entries behind `before`, a sequence and the chain behind it.
    pub(super) fn new(before: (u64, Chain), behind: Vec<(u64, Chain)>) -> Self {
        Self { before: Some(before), behind }
    }

    /// Whether the chunk `seq` may be what was taken under that number. Of what was durable at the
    /// Hello nothing is known here: it does not come again.
    pub(super) fn may_be(&self, seq: u64, bytes: &[u8]) -> bool {
        let Some(before) = self.before.filter(|before| seq > before.0) else { return true };
        if self.behind.last().is_none_or(|last| seq > last.0) {
            return true;
        }
        // Without a place of its own it lies in a Jump.
        let Some(at) = self.behind.iter().position(|behind| behind.0 == seq) else { return false };
        let previous = at.checked_sub(1).map_or(before, |at| self.behind[at]);
        previous.0 + 1 == seq && previous.1.next(bytes) == self.behind[at].1
    }
}
