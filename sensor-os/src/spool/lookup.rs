//! What a spool knows of its logs, and what it is told of them: where each stands, where a chunk
//! lies, who stored what, what is a hole.
//!
//! Not here: what is appended and removed. Invariant: a place that is named is one that was
//! written.

use lapwing_protocol::delivery::{JumpCause, LossReason};
use lapwing_protocol::hello::StoredRange;
use lapwing_protocol::id::{Lane, LogId, ServerId};

use super::log_folder::LogFolder;
use super::room::is_all_stored;
use super::{LogState, Place, Spool, SpoolError, StoredHole};

impl Spool {
    /// The log that is appended to; none at a first or an unclean start, until one is opened.
    #[must_use]
    pub fn current(&self, lane: Lane) -> Option<LogState> {
        self.lanes[lane.index()].current.as_ref().map(state)
    }

    /// The newest log of earlier starts: the parent of the next one.
    #[must_use]
    pub fn newest_old(&self, lane: Lane) -> Option<LogState> {
        self.lanes[lane.index()].old.back().map(state)
    }

    /// The oldest log of earlier starts of which something is not acknowledged.
    #[must_use]
    pub fn tail(&self, lane: Lane) -> Option<LogState> {
        let mut old = self.lanes[lane.index()].old.iter();
        old.find(|log| log.progress.acked.seq < log.made.seq).map(state)
    }

    /// The holes of a log that are not acknowledged.
    #[must_use]
    pub fn holes(&self, lane: Lane, log: LogId) -> Vec<StoredHole> {
        let mut logs = self.lanes[lane.index()].all();
        let Some(log) = logs.find(|known| known.log == log) else { return Vec::new() };
        let acked_seq = log.progress.acked.seq;
        log.progress.holes.iter().filter(|hole| hole.to_seq > acked_seq).copied().collect()
    }

    /// Reads the chunk `seq` of a log into `chunk`, and says what place is behind it; `None` when
    /// it is not there or is damaged.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn fetch(
        &mut self,
        (lane, log): (Lane, LogId),
        seq: u64,
        chunk: &mut Vec<u8>,
    ) -> Result<Option<Place>, SpoolError> {
        self.find(lane, log)?.fetch(seq, chunk)
    }

    /// The place behind the chunk `seq` of a log; `None` when it is not known here.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn behind(
        &mut self,
        (lane, log): (Lane, LogId),
        seq: u64,
    ) -> Result<Option<Place>, SpoolError> {
        let known = self.find(lane, log)?;
        let places = known.segments.iter().map(|segment| segment.before);
        let holes = known.progress.holes.iter().filter_map(|hole| {
            Some(Place { seq: hole.to_seq, next_index: hole.next_index?, chain: hole.chain })
        });
        let own = [known.made, known.progress.acked];
        if let Some(place) = places.chain(holes).chain(own).find(|place| place.seq == seq) {
            return Ok(Some(place));
        }
        self.fetch((lane, log), seq, &mut Vec::new())
    }

    /// The place before the first chunk of the segment that holds `seq`; where none does, of the
    /// segment behind it. Whether a hole is why may not be known any more: an acknowledged hole is
    /// forgotten, and a restored server asks for what lay in it.
    ///
    /// # Errors
    /// There is no such log.
    pub fn before_segment_of(
        &mut self,
        (lane, log): (Lane, LogId),
        seq: u64,
    ) -> Result<Option<Place>, SpoolError> {
        let known = self.find(lane, log)?;
        let Some(mut at) = known.segment_of(seq) else {
            let mut later = known.segments.iter();
            let next = later.find(|segment| segment.opens && segment.before.seq >= seq);
            return Ok(next.map(|next| next.before));
        };
        while at > 0 && !known.segments[at].opens {
            at -= 1;
        }
        Ok(Some(known.segments[at].before))
    }

    fn find(&mut self, lane: Lane, log: LogId) -> Result<&mut LogFolder, SpoolError> {
        let mut logs = self.lanes[lane.index()].all_mut();
        logs.find(|known| known.log == log).ok_or(SpoolError::NoLog)
    }

    /// What was made behind the last chunk of the current log is not appended and never will be: up
    /// to `to` there is a hole. What comes next must open a segment.
    ///
    /// # Errors
    /// The hole could not be made durable; it is known until the process ends.
    pub fn skip(&mut self, lane: Lane, to: Place, cause: JumpCause) -> Result<(), SpoolError> {
        let log = self.lanes[lane.index()].current.as_mut().ok_or(SpoolError::NoLog)?;
        let from_seq = log.made.seq + 1;
        let (to_seq, next_index) = (to.seq, Some(to.next_index));
        self.stats.dropped += to.seq.saturating_sub(log.made.seq);
        log.skip(StoredHole { from_seq, to_seq, next_index, chain: to.chain, cause }, to)
    }

    /// The chunk `seq` of a log cannot be read: it and what builds upon it is a hole from now on.
    /// Where it lies in one that was acknowledged, and a server asks again, that one is the answer.
    ///
    /// # Errors
    /// The hole could not be made durable; it is known until the process ends.
    pub fn handle_damage(
        &mut self,
        (lane, log): (Lane, LogId),
        seq: u64,
    ) -> Result<StoredHole, SpoolError> {
        let known = self.find(lane, log)?;
        if let Some(hole) = known.progress.hole_at(seq) {
            return Ok(hole);
        }
        if seq > known.made.seq {
            return Err(SpoolError::NoLog);
        }
        let mut later = known.segments.iter().filter(|segment| segment.opens);
        let next = later.find(|segment| segment.before.seq >= seq).map(|segment| segment.before);
        let to = next.unwrap_or(known.made);
        let hole = StoredHole {
            from_seq: seq,
            to_seq: to.seq,
            next_index: Some(to.next_index),
            chain: to.chain,
            cause: JumpCause::Lost(LossReason::SpoolDamaged),
        };
        known.progress.add_hole(hole);
        known.save_progress()?;
        Ok(hole)
    }

    /// Nothing more of an old log is sent, whether it was stored or given up; a power cut does not
    /// bring it back.
    ///
    /// # Errors
    /// It could not be made durable; it is known until the process ends.
    pub fn handle_drained(&mut self, lane: Lane, log: LogId) -> Result<(), SpoolError> {
        let Ok(log) = self.find(lane, log) else { return Ok(()) };
        log.progress.acked = log.made;
        log.save_progress()
    }

    /// The index of the first fact of a log that was made after a start went on with it, since it
    /// was last acknowledged; none where no start did.
    #[must_use]
    pub fn continued_index(&self, lane: Lane, log: LogId) -> Option<u64> {
        self.lanes[lane.index()].all().find(|known| known.log == log)?.continued_index
    }

    /// The last chunk of a log that earlier starts sent, as the stop before this start said it;
    /// none where that is not known.
    #[must_use]
    pub fn sent_seq(&self, lane: Lane, log: LogId) -> Option<u64> {
        self.lanes[lane.index()].all().find(|known| known.log == log)?.sent_seq
    }

    /// Nothing behind `seq` of the current log was sent: for the mark of a stop in good order.
    pub fn note_sent(&mut self, lane: Lane, seq: u64) {
        if let Some(current) = &mut self.lanes[lane.index()].current {
            current.sent_seq = Some(seq);
        }
    }

    /// What servers stored of a log, oldest first.
    #[must_use]
    pub fn stored(&self, lane: Lane, log: LogId) -> Vec<StoredRange> {
        let mut logs = self.lanes[lane.index()].all();
        logs.find(|known| known.log == log).map_or(Vec::new(), |log| log.progress.stored.clone())
    }

    /// `server` stored everything of a log up to `acked`, and backed it up to `safe_seq`.
    pub fn handle_stored(
        &mut self,
        (lane, log): (Lane, LogId),
        server: ServerId,
        acked: Place,
        safe_seq: u64,
    ) {
        let Ok(known) = self.find(lane, log) else { return };
        let first_seq = known.first_seq();
        let progress = &mut known.progress;
        progress.note_stored(server, acked.seq);
        if acked.seq >= progress.acked.seq {
            progress.acked = acked;
        }
        progress.safe_seq = progress.safe_seq.max(safe_seq.min(acked.seq));
        progress.forget_holes(first_seq);
        let is_safe = progress.safe_seq > 0;
        let logs = &mut self.lanes[lane.index()];
        if is_safe && logs.current.as_ref().is_some_and(|current| current.log == log) {
            // Old logs are stored before the current one begins, and a backup leaves nothing out.
            for old in logs.old.iter_mut().filter(|old| is_all_stored(old)) {
                old.progress.safe_seq = old.made.seq;
            }
        }
    }
}

pub(super) fn state(log: &LogFolder) -> LogState {
    LogState {
        lane: log.lane,
        log: log.log,
        cause: log.origin.cause,
        parent: log.origin.parent,
        first_seq: log.first_seq(),
        acked: log.progress.acked,
        made: log.made,
    }
}
