//! A spool in memory: what is not safe, and the segment that holds the acknowledged place.

use std::collections::VecDeque;

use lapwing_protocol::hello::{LogCause, LogParent, StoredRange};
use lapwing_protocol::id::{Lane, LogId, ServerId};
use lapwing_protocol::limits::LANES;
use lapwing_sensor_core::{Find, LogPositions, Position};
use lapwing_sensor_os::spool::SpoolError;

use super::{LogName, Owner};

#[derive(Debug)]
struct HeldChunk {
    bytes: Box<[u8]>,
    opens: bool,
    after: Position,
}

#[derive(Debug)]
struct Log {
    /// As it was opened.
    start: LogPositions,
    acked: Position,
    safe_seq: u64,
    made: Position,
    /// The place before the first of `chunks`.
    before: Position,
    chunks: VecDeque<HeldChunk>,
    ranges: Vec<StoredRange>,
}

impl Log {
    fn positions(&self) -> LogPositions {
        let first_seq = self.before.seq + 1;
        LogPositions { first_seq, acked: self.acked, made: self.made, ..self.start }
    }

    fn at(&self, seq: u64) -> Option<usize> {
        let at = seq.checked_sub(self.before.seq + 1)?;
        usize::try_from(at).ok().filter(|at| *at < self.chunks.len())
    }

    fn behind(&self, seq: u64) -> Option<Position> {
        let ends = [self.before, self.acked, self.made];
        let known = ends.into_iter().find(|known| known.seq == seq);
        known.or_else(|| self.at(seq).and_then(|at| self.chunks.get(at)).map(|held| held.after))
    }

    fn before_segment_of(&self, seq: u64) -> Option<Position> {
        let mut at = self.at(seq)?;
        while !self.chunks.get(at)?.opens {
            at = at.checked_sub(1)?;
        }
        match at.checked_sub(1) {
            Some(at) => self.chunks.get(at).map(|held| held.after),
            None => Some(self.before),
        }
    }

    /// Forgets what is safe, but for the segment that holds the acknowledged place; whether there
    /// was such.
    fn trim(&mut self) -> bool {
        let safe_seq = self.safe_seq.min(self.acked.seq);
        let segment = self.before_segment_of(self.acked.seq).map_or(self.before.seq, |it| it.seq);
        let mut any = false;
        while self.before.seq < safe_seq.min(segment) {
            let Some(gone) = self.chunks.pop_front() else { break };
            self.before = gone.after;
            any = true;
        }
        any
    }
}

/// The spool of one sensor; the last log of a lane is the current one.
#[derive(Debug)]
pub(in crate::load) struct MemorySpool {
    owner: Owner,
    lanes: [Vec<Log>; LANES],
}

impl MemorySpool {
    pub(super) fn new(owner: Owner) -> Self {
        Self { owner, lanes: Default::default() }
    }

    fn log(&self, (lane, log): LogName) -> Option<&Log> {
        self.lanes[lane.index()].iter().find(|known| known.start.log == log)
    }

    fn log_mut(&mut self, (lane, log): LogName) -> Option<&mut Log> {
        self.lanes[lane.index()].iter_mut().find(|known| known.start.log == log)
    }

    pub(super) fn open_log(
        &mut self,
        lane: Lane,
        log: LogId,
        (cause, parent): (LogCause, Option<LogParent>),
    ) -> LogPositions {
        let start = LogPositions::open(self.owner, lane, log, cause, parent);
        let chunks = VecDeque::new();
        let (acked, made, before) = (start.acked, start.made, start.made);
        let logs = &mut self.lanes[lane.index()];
        logs.push(Log { start, acked, safe_seq: 0, made, before, chunks, ranges: Vec::new() });
        start
    }

    pub(super) fn append(
        &mut self,
        lane: Lane,
        (bytes, opens): (&[u8], bool),
        after: Position,
    ) -> Result<(), SpoolError> {
        let log = self.lanes[lane.index()].last_mut().ok_or(SpoolError::NoLog)?;
        log.chunks.push_back(HeldChunk { bytes: bytes.into(), opens, after });
        log.made = after;
        Ok(())
    }

    pub(super) fn made(&self, lane: Lane) -> Option<Position> {
        self.lanes[lane.index()].last().map(|log| log.made)
    }

    pub(super) fn fetch(&self, log: LogName, seq: u64, chunk: &mut Vec<u8>) -> bool {
        let held = self.log(log).and_then(|log| log.chunks.get(log.at(seq)?));
        chunk.clear();
        held.inspect(|held| chunk.extend_from_slice(&held.bytes)).is_some()
    }

    pub(super) fn locate(&self, log: LogName, find: Find) -> Option<Position> {
        let log = self.log(log)?;
        match find {
            Find::Behind(seq) => log.behind(seq),
            Find::SegmentOf(seq) => log.before_segment_of(seq),
        }
    }

    pub(super) fn stored(
        &mut self,
        (lane, name): LogName,
        server: ServerId,
        acked: Position,
        safe_seq: u64,
    ) -> Vec<(Lane, LogId, u64)> {
        let Some(log) = self.log_mut((lane, name)) else { return Vec::new() };
        match log.ranges.last_mut().filter(|range| range.server == server) {
            Some(range) => range.to_seq = range.to_seq.max(acked.seq),
            None => {
                let from_seq = log.acked.seq + 1;
                log.ranges.push(StoredRange { server, from_seq, to_seq: acked.seq });
            }
        }
        if acked.seq >= log.acked.seq {
            log.acked = acked;
        }
        log.safe_seq = log.safe_seq.max(safe_seq);
        let trimmed = log.trim().then_some((lane, name, log.before.seq + 1));
        trimmed.into_iter().collect()
    }

    pub(super) fn drained(&mut self, lane: Lane, log: LogId) {
        let logs = &mut self.lanes[lane.index()];
        let last = logs.last().map(|log| log.start.log);
        logs.retain(|known| known.start.log != log || Some(log) == last);
    }

    pub(super) fn tail(&self, lane: Lane) -> Option<LogPositions> {
        let (_, old) = self.lanes[lane.index()].split_last()?;
        old.iter().find(|log| log.acked.seq < log.made.seq).map(Log::positions)
    }

    pub(super) fn ranges(&self, lane: Lane, log: LogId) -> Vec<StoredRange> {
        self.log((lane, log)).map_or(Vec::new(), |log| log.ranges.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapwing_protocol::id::{DeploymentId, SensorId};

    const LOG: LogId = LogId([3; 16]);
    const A: ServerId = ServerId([1; 16]);

    #[test]
    fn the_segment_that_holds_the_acknowledged_place_stays() {
        let mut spool = MemorySpool::new((DeploymentId([1; 16]), SensorId([2; 16])));
        let mut at = spool.open_log(Lane::Bulk, LOG, (LogCause::First, None)).made;
        for seq in 1..=6_u64 {
            at = Position { seq, next_index: seq * 10, chain: at.chain.next(&[seq as u8]) };
            let opens = seq % 3 == 1;
            spool.append(Lane::Bulk, (&[seq as u8], opens), at).unwrap();
        }
        let name = (Lane::Bulk, LOG);
        let behind = |spool: &MemorySpool, seq| spool.locate(name, Find::Behind(seq)).unwrap();
        let five = behind(&spool, 5);
        assert_eq!(spool.stored(name, A, five, 5), [(Lane::Bulk, LOG, 4)]);
        let before = spool.locate(name, Find::SegmentOf(5)).unwrap();
        assert_eq!(before.seq, 3);
        let mut chunk = Vec::new();
        assert!(!spool.fetch(name, 3, &mut chunk));
        assert!(spool.fetch(name, 4, &mut chunk));
        assert_eq!(chunk, [4]);
        assert_eq!(spool.ranges(Lane::Bulk, LOG)[0].to_seq, 5);
    }
}
