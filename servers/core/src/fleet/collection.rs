//! Whether a sensor collects: from what it says of itself, and from the outcomes of start and stop.
//!
//! Both tell the truth of a moment. What changed last counts, so that neither an old Hello
//! outweighs an outcome nor an old outcome a new Hello.

use lapwing_protocol::command::Action;
use lapwing_protocol::fleet::CollectionState;
use serde::{Deserialize, Serialize};

/// What is known of a sensor's collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collection {
    /// Whether it collects, by what changed last.
    collects: Option<bool>,
    /// What it said of itself, and in which session.
    said: Option<(u64, bool)>,
    /// The last start or stop that it carried out: its number, and whether it was a start.
    obeyed: Option<(u64, bool)>,
}

impl Collection {
    /// The state to show.
    #[must_use]
    pub fn state(&self) -> CollectionState {
        match (self.collects, self.obeyed) {
            (None, _) => CollectionState::Unknown,
            (Some(true), _) => CollectionState::Enabled,
            (Some(false), Some((_, true))) => CollectionState::Suspended,
            (Some(false), _) => CollectionState::Disabled,
        }
    }

    /// What the sensor said of itself in the session `epoch`. Saying it again tells nothing new.
    pub(super) fn note_said(&mut self, epoch: u64, collects: bool) {
        if self.said != Some((epoch, collects)) {
            self.said = Some((epoch, collects));
            self.collects = Some(collects);
        }
    }

    /// The command `seq` was carried out. Of two, the one with the higher number counts, in
    /// whichever order they are told.
    pub(super) fn note_done(&mut self, seq: u64, action: Action) {
        let collects = match action {
            Action::StartCollection => true,
            Action::StopCollection => false,
            Action::Restart | Action::Isolate | Action::Unisolate | Action::Upgrade => return,
        };
        if self.obeyed.is_none_or(|(last, _)| seq > last) {
            self.obeyed = Some((seq, collects));
            self.collects = Some(collects);
        }
    }
}
