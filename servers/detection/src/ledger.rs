//! What the journal holds of each log, found by reading it, never by trusting a counter.
//!
//! Not here: what the sensor says it produced; whoever compares the two reads both.

use std::collections::BTreeMap;

use lapwing_protocol::console::{DroppedCount, LedgerRow};
use lapwing_protocol::delivery::{Jump, JumpCause};
use lapwing_protocol::id::{Lane, LogId, SensorId};
use lapwing_protocol::items::Items;
use lapwing_protocol::op::DropReason;
use lapwing_server_core::view::push_item;
use lapwing_store::StoreError;
use lapwing_store::journal::{Journal, PageLimit};

use crate::follow::{Content, Decoders, Followed};

/// What one log comes to.
#[derive(Debug, Default)]
struct Tally {
    produced: u64,
    stored: u64,
    dropped: BTreeMap<DropReason, u64>,
    elsewhere: u64,
    lost_unknown: u64,
    undecoded: u64,
}

/// Reads the whole journal and gives `Items<LedgerRow>`. Blocks.
///
/// # Errors
/// The journal cannot be read.
pub(crate) fn read(journal: &Journal, mut decoders: Decoders) -> Result<Vec<u8>, StoreError> {
    let mut tallies: BTreeMap<(SensorId, Lane, LogId), Tally> = BTreeMap::new();
    let limit = PageLimit { entries: 256, bytes: 1 << 20 };
    let mut next = 1;
    loop {
        let page = journal.read_from(next, limit)?;
        if page.entries.is_empty() && page.next == next {
            break;
        }
        next = page.next;
        for followed in page.entries.iter().filter_map(|entry| decoders.decode(entry)) {
            let log = (followed.sensor, followed.lane, followed.log);
            tallies.entry(log).or_default().add(&followed);
        }
    }
    let mut items = Vec::new();
    for ((sensor, lane, log), tally) in &tallies {
        tally.push(&mut items, (*sensor, *lane, *log));
    }
    Ok(items)
}

/// Adds what a sensor says, which may be any number.
fn add(sum: &mut u64, count: u64) {
    *sum = sum.saturating_add(count);
}

impl Tally {
    fn add(&mut self, followed: &Followed) {
        let first = followed.first_index;
        match &followed.content {
            Content::Changes(decoded) => {
                let facts = decoded.changes.iter().filter(|change| change.index.is_some()).count();
                add(&mut self.stored, facts as u64);
                let mut covered = facts as u64;
                for (reason, count) in &decoded.dropped {
                    add(self.dropped.entry(*reason).or_default(), *count);
                    add(&mut covered, *count);
                }
                self.reach(first, covered);
            }
            Content::Undecoded(_, count) => {
                add(&mut self.stored, *count);
                self.undecoded += 1;
                self.reach(first, *count);
            }
            Content::Jump(jump) => self.jump(first, jump),
            Content::Unreadable(_) => self.undecoded += 1,
        }
    }

    fn reach(&mut self, first_index: u64, count: u64) {
        self.produced = self.produced.max(first_index.saturating_add(count).saturating_sub(1));
    }

    fn jump(&mut self, first_index: u64, jump: &Jump) {
        let Some(to_index) = jump.to_index else {
            self.lost_unknown += 1;
            return;
        };
        let count = to_index.saturating_add(1).saturating_sub(first_index);
        self.reach(first_index, count);
        match jump.cause {
            JumpCause::Dropped(reason) => add(self.dropped.entry(reason).or_default(), count),
            JumpCause::StoredElsewhere(_) => add(&mut self.elsewhere, count),
            JumpCause::Lost(_) => self.lost_unknown += 1,
        }
    }

    fn push(&self, items: &mut Vec<u8>, (sensor, lane, log): (SensorId, Lane, LogId)) {
        let mut dropped = Vec::new();
        for (reason, count) in &self.dropped {
            push_item(&mut dropped, &DroppedCount { reason: *reason, count: *count });
        }
        push_item(
            items,
            &LedgerRow {
                sensor,
                lane,
                log,
                produced: self.produced,
                stored: self.stored,
                dropped: Items::from_bytes(&dropped),
                elsewhere: self.elsewhere,
                lost_unknown: self.lost_unknown,
                undecoded: self.undecoded,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use lapwing_protocol::delivery::LossReason;
    use lapwing_protocol::digest::Chain;

    use super::*;

    #[test]
    fn the_largest_numbers_that_a_sensor_can_say_are_counted_without_an_overflow() {
        let mut tally = Tally::default();
        let jump = |cause| Jump {
            lane: Lane::Bulk,
            from_seq: 1,
            to_seq: 1,
            to_index: Some(u64::MAX),
            chain_at_to: Chain([0; 32]),
            cause,
        };
        for cause in [
            JumpCause::Dropped(DropReason::SpoolFull),
            JumpCause::StoredElsewhere(lapwing_protocol::id::ServerId([1; 16])),
            JumpCause::Lost(LossReason::MemoryLost),
        ] {
            tally.jump(1, &jump(cause));
            tally.jump(2, &jump(cause));
        }
        tally.reach(u64::MAX, u64::MAX);
        assert_eq!((tally.produced, tally.elsewhere), (u64::MAX - 1, u64::MAX));
    }
}
