//! From the core to the spool: append, make room, sync, and say what was lost.
//!
//! Invariants: a chunk that could not be appended becomes a hole that a Jump announces, together
//! with everything that builds upon it; with `sync = "each"` the core hears of a chunk only after
//! its sync.

use lapwing_protocol::delivery::JumpCause;
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::op::DropReason;
use lapwing_sensor_core::{Hole, LogPositions, Now, Position, Sensor, Stored};

use super::Runner;
use crate::config::Sync;
use crate::spool::{LogState, Place, Spool, SpoolError, StoredHole, Trimmed};

/// Why something was dropped, and what to do about it.
pub(super) const BOUND: &str = "the spool reached its bound; raise `spool.max` or reach the server";
const AGE: &str =
    "it was older than the spool may hold; raise `spool.max_age_days` or reach the server";

impl From<Place> for Position {
    fn from(place: Place) -> Self {
        let Place { seq, next_index, chain } = place;
        Self { seq, next_index, chain }
    }
}

impl From<Position> for Place {
    fn from(position: Position) -> Self {
        let Position { seq, next_index, chain } = position;
        Self { seq, next_index, chain }
    }
}

impl From<LogState> for LogPositions {
    fn from(state: LogState) -> Self {
        let LogState { log, cause, parent, first_seq, acked, made, .. } = state;
        Self { log, cause, parent, first_seq, acked: acked.into(), made: made.into() }
    }
}

pub(super) fn core_hole(log: LogId, hole: &StoredHole) -> Hole {
    let StoredHole { from_seq, to_seq, next_index, chain, cause } = *hole;
    Hole { log, from_seq, to_seq, next_index, chain, cause }
}

/// What earlier runs know of a log: who stored what of it, its holes, where a start went on with it
/// and how far it was sent.
pub(super) fn remind(sensor: &mut Sensor<'_>, now: Now, spool: &Spool, (lane, log): (Lane, LogId)) {
    if let Some(index) = spool.continued_index(lane, log) {
        sensor.note_continued(lane, log, index);
    }
    if let Some(seq) = spool.sent_seq(lane, log) {
        sensor.note_sent(lane, log, seq);
    }
    for range in spool.stored(lane, log) {
        sensor.note_stored(lane, Stored { log, range });
    }
    for hole in spool.holes(lane, log) {
        sensor.handle_hole(now, lane, core_hole(log, &hole));
    }
}

/// Facts that were lost and are still to be told of.
#[derive(Debug, Default)]
pub(super) struct Losses {
    pub(super) facts: u64,
    pub(super) reason: String,
    pub(super) told_ns: Option<u64>,
    /// The spool refused the last chunk.
    pub(super) is_failing: bool,
    /// All since the start.
    pub(super) total: u64,
    /// What the disk last refused; empty when it takes chunks.
    pub(super) trouble: String,
    /// Facts that full memory dropped, as far as they are told of.
    pub(super) memory_told: u64,
}

impl Losses {
    fn add(&mut self, facts: u64, reason: String) {
        self.facts += facts;
        self.total += facts;
        self.reason = reason;
    }
}

impl Runner<'_> {
    /// Appends what the core made, until it makes nothing more.
    pub(super) fn spool_chunks(&mut self, now: Now) {
        loop {
            let appended = self.append_offered(now);
            self.sync_if_due(now);
            if !appended {
                return;
            }
            // With `each` a sync reports; but where all that was made went into a hole, there was
            // nothing to sync, and the core would wait for ever.
            if self.config.spool.sync == Sync::Interval || self.spool.is_synced() {
                self.report_spooled(now);
            }
        }
    }

    /// Appends every chunk that the core offers now, and says whether there was one.
    fn append_offered(&mut self, now: Now) -> bool {
        let mut any = false;
        loop {
            let mut trimmed = Vec::new();
            let Some(chunk) = self.sensor.poll_chunk(now) else { return any };
            any = true;
            let (lane, seq) = (chunk.lane, chunk.seq);
            let made_seq = self.spool.current(lane).map_or(0, |log| log.made.seq);
            let after = Place { seq, next_index: chunk.next_index, chain: chunk.chain_after };
            let result = if seq <= made_seq {
                // It lies in a hole already.
                Ok(())
            } else {
                append(&mut self.spool, now, chunk.bytes, after, &mut trimmed)
            };
            self.unreported[lane.index()] = Some(seq);
            for trimmed in trimmed {
                self.tell_trimmed(now, &trimmed, BOUND);
            }
            match result {
                Ok(()) if seq > made_seq => {
                    self.losses.is_failing = false;
                    self.set_trouble(String::new());
                }
                Ok(()) => {}
                Err(error) => self.give_up_chunks(now, lane, &error),
            }
        }
    }

    /// The chunk behind the last one that is spooled, and all that build upon it, become a hole.
    fn give_up_chunks(&mut self, now: Now, lane: Lane, error: &SpoolError) {
        let reason = match error {
            SpoolError::Full => DropReason::SpoolFull,
            SpoolError::File { .. } | SpoolError::NoLog => DropReason::SpoolFailed,
        };
        let cause = JumpCause::Dropped(reason);
        let Some(log) = self.spool.current(lane) else { return };
        let made = self.sensor.positions(lane).made;
        let hole = StoredHole {
            from_seq: log.made.seq + 1,
            to_seq: made.seq,
            next_index: Some(made.next_index),
            chain: made.chain,
            cause,
        };
        self.sensor.handle_hole(now, lane, core_hole(log.log, &hole));
        // The core closes what was open: that is lost with the rest.
        let made = self.sensor.positions(lane).made;
        if !self.losses.is_failing {
            log::error!("{error}; facts are lost until this is mended");
        }
        self.losses.is_failing = true;
        self.set_trouble(error.to_string());
        self.losses.add(made.next_index.saturating_sub(log.made.next_index), error.to_string());
        if lane == Lane::Bulk {
            self.drop_receipts(log.log, log.made.next_index..made.next_index, reason);
        }
        if let Err(error) = self.spool.skip(lane, made.into(), cause) {
            log::debug!("{error}");
        }
    }

    /// What is too old goes, and is told of.
    pub(super) fn drop_aged(&mut self, now: Now) {
        let mut dropped = Vec::new();
        if let Err(error) = self.spool.drop_aged(now.monotonic_ns, &mut dropped) {
            log::error!("{error}");
        }
        for trimmed in dropped {
            self.tell_trimmed(now, &trimmed, AGE);
        }
    }

    pub(super) fn tell_trimmed(&mut self, now: Now, trimmed: &Trimmed, reason: &str) {
        self.sensor.handle_trimmed(trimmed.lane, trimmed.log, trimmed.first_seq);
        if let Some(hole) = &trimmed.hole {
            self.sensor.handle_hole(now, trimmed.lane, core_hole(trimmed.log, hole));
            self.losses.add(trimmed.facts, reason.into());
            if let Some(end) = hole.next_index.filter(|_| trimmed.lane == Lane::Bulk) {
                let indices = end.saturating_sub(trimmed.facts)..end;
                self.drop_receipts(trimmed.log, indices, DropReason::SpoolFull);
            }
        }
    }

    pub(super) fn sync_if_due(&mut self, now: Now) {
        if !self.spool.is_sync_due(now.monotonic_ns) {
            return;
        }
        match self.sync_spool(now) {
            Ok(()) if !self.losses.is_failing => self.set_trouble(String::new()),
            Ok(()) => {}
            Err(error) => {
                log::error!("{error}");
                self.set_trouble(error.to_string());
            }
        }
    }

    /// Syncs the spool, whoever wants that, and tells the core of it: with `each` nothing may be
    /// sent before, and after a sync of which it did not hear none is due.
    pub(super) fn sync_spool(&mut self, now: Now) -> Result<(), SpoolError> {
        self.spool.sync(now.monotonic_ns)?;
        self.report_spooled(now);
        Ok(())
    }

    /// What is wrong with the spool, for the status and for who asks for a report.
    fn set_trouble(&mut self, trouble: String) {
        if self.losses.trouble != trouble {
            self.losses.trouble = trouble;
            self.is_news = true;
        }
    }

    fn report_spooled(&mut self, now: Now) {
        for lane in Lane::BY_URGENCY {
            if let Some(seq) = self.unreported[lane.index()].take() {
                self.sensor.handle_spooled(now, lane, seq);
            }
        }
    }
}

/// Appends a chunk; at the bound room is made first.
fn append(
    spool: &mut Spool,
    now: Now,
    chunk: &[u8],
    after: Place,
    trimmed: &mut Vec<Trimmed>,
) -> Result<(), SpoolError> {
    loop {
        match spool.append(now.monotonic_ns, chunk, after) {
            Err(SpoolError::Full) => match spool.make_room()? {
                Some(room) => trimmed.push(room),
                None => return Err(SpoolError::Full),
            },
            other => return other,
        }
    }
}
