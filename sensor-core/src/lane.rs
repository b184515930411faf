//! One lane of a session: how far it may send, what is in flight, and what goes out next.
//!
//! Everything here ends with the session. Credit is absolute: a sequence, and bytes of chunks
//! counted from the place named in HelloAck; a Nack moves the cursor and the count back to a place
//! in flight, and the same bytes go again.
//!
//! Invariants: `base.seq < cursor`; places in flight ascend and lie between the two; a chunk is
//! only sent while `seq <= limit_seq` and its bytes stay within `limit_bytes`.

use lapwing_protocol::buggify;
use lapwing_protocol::delivery::{Ack, ChainMark, Credit, Jump, Nack};
use lapwing_protocol::digest::Chain;
use lapwing_protocol::hello::LogCause;
use lapwing_protocol::id::Lane;
use lapwing_protocol::limits::CHAIN_MARK_CHUNKS;

use crate::error::PeerFault;
use crate::event::Find;
use crate::outbox::Outbox;
use crate::position::{Flight, Hole, Position};
use crate::time::Now;

/// What a lane waits for before it may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A HelloAck.
    Ungranted,
    /// The shell: where something lies in its spool. `base` is what the server has, on its word;
    /// `is_unknown` when that place itself was looked for in vain.
    Locating { find: Find, base: Position, is_unknown: bool, told: Told },
    /// The shell: a new log.
    Opening { cause: LogCause, told: Told },
    /// The shell: what comes after an old log that is all stored.
    Drained(Told),
    /// Nothing: it sends.
    Granted,
}

/// Whether the shell was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    NotYet,
    Already,
}

/// What goes out next on a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Nothing,
    Mark(ChainMark),
    Jump(Hole),
    Chunk(u64),
}

#[derive(Debug)]
pub(crate) struct LaneLink<'a> {
    pub(crate) phase: Phase,
    /// Behind the last chunk that the server stored.
    base: Position,
    base_bytes: u64,
    cursor: u64,
    credit: Credit,
    flight: Ring<'a>,
    episode: Option<u32>,
    retry_at_ns: Option<u64>,
    /// The hole with which this server begins.
    jump: Option<Hole>,
    mark: Option<ChainMark>,
    /// When something was last stored, or first in flight.
    progress_ns: u64,
}

impl<'a> LaneLink<'a> {
    pub(crate) fn new(flight: &'a mut [Flight], start: Position) -> Self {
        Self {
            phase: Phase::Ungranted,
            base: start,
            base_bytes: 0,
            cursor: start.seq + 1,
            credit: Credit::default(),
            flight: Ring { places: flight, head: 0, length: 0 },
            episode: None,
            retry_at_ns: None,
            jump: None,
            mark: None,
            progress_ns: 0,
        }
    }

    /// The log changes: nothing that was in flight counts any more.
    pub(crate) fn reset(&mut self) {
        self.disconnect();
        self.flight.clear();
    }

    /// The session is over, or a Hello begins it anew. What was in flight is remembered, to know
    /// its places when the server turns out to have stored it.
    pub(crate) fn disconnect(&mut self) {
        self.phase = Phase::Ungranted;
        self.credit = Credit::default();
        self.episode = None;
        self.retry_at_ns = None;
        self.jump = None;
        self.mark = None;
    }

    /// The server takes what follows `base`; with `jump` before it.
    pub(crate) fn grant(&mut self, now: Now, base: Position, jump: Option<Hole>) {
        self.phase = Phase::Granted;
        self.base = base;
        self.base_bytes = 0;
        self.cursor = base.seq + 1;
        self.jump = jump;
        self.flight.clear();
        self.progress_ns = now.monotonic_ns;
    }

    /// The credit a HelloAck states anew.
    pub(crate) fn set_credit(&mut self, credit: Credit) {
        self.credit = credit;
    }

    pub(crate) fn is_granted(&self) -> bool {
        self.phase == Phase::Granted
    }

    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    pub(crate) fn stored_seq(&self) -> u64 {
        self.base.seq
    }

    /// Whether something was sent that is not stored.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.is_granted() && self.flight.length > 0
    }

    /// Since when nothing was stored although something is in flight.
    pub(crate) fn stalled_since_ns(&self) -> Option<u64> {
        self.is_in_flight().then_some(self.progress_ns)
    }

    /// When a lane that was told to wait goes on.
    pub(crate) fn retry_at_ns(&self) -> Option<u64> {
        self.retry_at_ns
    }

    fn tip(&self) -> Flight {
        let base = Flight { position: self.base, bytes_after: self.base_bytes };
        self.flight.last().unwrap_or(base)
    }

    /// The chain behind the last chunk that was sent.
    pub(crate) fn tip_chain(&self) -> Chain {
        self.tip().position.chain
    }

    /// What goes out next; whether a chunk's bytes are within the credit is asked when they are
    /// at hand, by [`Self::permits`].
    pub(crate) fn next(&mut self, now: Now, outbox: &Outbox<'_>) -> Next {
        if !self.is_granted() {
            return Next::Nothing;
        }
        if self.retry_at_ns.is_some_and(|at| at > now.monotonic_ns) {
            return Next::Nothing;
        }
        self.retry_at_ns = None;
        if let Some(mark) = self.mark {
            return Next::Mark(mark);
        }
        if self.flight.is_full() || (self.is_in_flight() && buggify!("sensor.one_in_flight")) {
            return Next::Nothing;
        }
        let is_within = |hole: &Hole| hole.from_seq <= self.cursor && self.cursor <= hole.to_seq;
        if let Some(hole) = self.jump.filter(is_within).or_else(|| outbox.hole_at(self.cursor)) {
            // A server that stands within the hole is told of what is still to come alone.
            return Next::Jump(Hole { from_seq: self.cursor, ..hole });
        }
        if self.cursor > outbox.sendable_seq() || self.cursor > self.last_permitted() {
            return Next::Nothing;
        }
        Next::Chunk(self.cursor)
    }

    /// The last sequence within the credit.
    fn last_permitted(&self) -> u64 {
        self.credit.limit_seq + u64::from(cfg!(mutant = "sensor_credit_off_by_one"))
    }

    /// Whether `bytes` more stay within the credit.
    pub(crate) fn permits(&self, bytes: usize) -> bool {
        if cfg!(mutant = "credit_of_bytes_ignored") {
            return true;
        }
        self.tip().bytes_after.saturating_add(bytes as u64) <= self.credit.limit_bytes
    }

    /// The mark was sent.
    pub(crate) fn sent_mark(&mut self) {
        self.mark = None;
    }

    /// A chunk of `bytes` bytes was sent.
    pub(crate) fn sent_chunk(&mut self, now: Now, lane: Lane, position: Position, bytes: usize) {
        let bytes_after = self.tip().bytes_after + bytes as u64;
        self.advance(now, Flight { position, bytes_after });
        if position.seq.is_multiple_of(CHAIN_MARK_CHUNKS) && !cfg!(mutant = "mark_unsaid") {
            self.mark = Some(ChainMark { lane, seq: position.seq, chain: position.chain });
        }
    }

    /// A hole was announced.
    pub(crate) fn sent_jump(&mut self, now: Now, hole: &Hole) {
        let next_index = hole.next_index.unwrap_or(self.tip().position.next_index);
        let position = Position { seq: hole.to_seq, next_index, chain: hole.chain };
        self.advance(now, Flight { position, bytes_after: self.tip().bytes_after });
    }

    fn advance(&mut self, now: Now, flight: Flight) {
        if !self.is_in_flight() {
            self.progress_ns = now.monotonic_ns;
        }
        self.cursor = flight.position.seq + 1;
        self.flight.push(flight);
    }

    /// The server stored more; the answer is the place behind it, when that is news.
    pub(crate) fn handle_ack(
        &mut self,
        now: Now,
        ack: &Ack,
    ) -> Result<Option<Position>, PeerFault> {
        if ack.stored_seq >= self.cursor && !cfg!(mutant = "false_ack_accepted") {
            return Err(PeerFault::BeyondSent);
        }
        if cfg!(mutant = "credit_taken_back") {
            self.credit = ack.credit;
        }
        self.credit.limit_seq = self.credit.limit_seq.max(ack.credit.limit_seq);
        self.credit.limit_bytes = self.credit.limit_bytes.max(ack.credit.limit_bytes);
        let mut news = None;
        while let Some(flight) = self.flight.first()
            && flight.position.seq <= ack.stored_seq
        {
            self.base = flight.position;
            self.base_bytes = flight.bytes_after;
            self.flight.pop();
            self.progress_ns = now.monotonic_ns;
            news = Some(self.base);
        }
        Ok(news)
    }

    /// The server wants `next_seq` again: the cursor goes back to it.
    pub(crate) fn handle_nack(&mut self, now: Now, nack: &Nack) -> Result<(), PeerFault> {
        let is_old = self.episode.is_some_and(|known| nack.episode <= known);
        let is_old = is_old && !cfg!(mutant = "old_episode_accepted");
        if is_old || cfg!(mutant = "nack_ignored") {
            return Ok(());
        }
        if nack.next_seq == 0 || nack.next_seq > self.cursor {
            return Err(PeerFault::BeyondSent);
        }
        if nack.next_seq <= self.base.seq {
            // It took back what it had acknowledged: only a new Hello can mend that.
            return Err(PeerFault::OutOfPlace);
        }
        self.episode = Some(nack.episode);
        while let Some(last) = self.flight.last()
            && last.position.seq >= nack.next_seq
        {
            self.flight.pop_last();
        }
        self.cursor = self.tip().position.seq + 1;
        self.mark = None;
        let is_wait = nack.retry_after_ms > 0 && !cfg!(mutant = "retry_after_ignored");
        self.retry_at_ns = is_wait.then(|| now.after_ms(u64::from(nack.retry_after_ms)));
        self.progress_ns = now.monotonic_ns;
        Ok(())
    }

    /// The place behind `seq`, if that was sent in this session.
    pub(crate) fn position(&self, seq: u64) -> Option<Position> {
        if self.base.seq == seq {
            return Some(self.base);
        }
        self.flight.iter().map(|flight| flight.position).find(|position| position.seq == seq)
    }
}

/// A hole as the message that announces it.
pub(crate) fn jump(lane: Lane, hole: &Hole) -> Jump {
    Jump {
        lane,
        from_seq: hole.from_seq,
        to_seq: hole.to_seq,
        to_index: hole.next_index.map(|next| next.saturating_sub(1)),
        chain_at_to: hole.chain,
        cause: hole.cause,
    }
}

/// Places in flight, oldest first, in lent memory.
#[derive(Debug)]
struct Ring<'a> {
    places: &'a mut [Flight],
    head: usize,
    length: usize,
}

impl Ring<'_> {
    fn is_full(&self) -> bool {
        self.length >= self.places.len()
    }

    fn iter(&self) -> impl Iterator<Item = &Flight> {
        (0..self.length).map(|at| &self.places[(self.head + at) % self.places.len()])
    }

    fn first(&self) -> Option<Flight> {
        self.iter().next().copied()
    }

    fn last(&self) -> Option<Flight> {
        let at = self.length.checked_sub(1)?;
        Some(self.places[(self.head + at) % self.places.len()])
    }

    fn push(&mut self, flight: Flight) {
        if !self.is_full() {
            let at = (self.head + self.length) % self.places.len();
            self.places[at] = flight;
            self.length += 1;
        }
    }

    fn pop(&mut self) {
        if self.length > 0 {
            self.head = (self.head + 1) % self.places.len();
            self.length -= 1;
        }
    }

    fn pop_last(&mut self) {
        self.length = self.length.saturating_sub(1);
    }

    fn clear(&mut self) {
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapwing_protocol::delivery::NackReason;

    const START: Position = Position { seq: 0, next_index: 0, chain: Chain([0; 32]) };

    fn at(seq: u64) -> Position {
        Position { seq, next_index: seq * 10, chain: Chain([seq as u8; 32]) }
    }

    fn nack(next_seq: u64, episode: u32) -> Nack {
        let reason = NackReason::Throttled;
        Nack { lane: Lane::Bulk, next_seq, episode, reason, retry_after_ms: 50 }
    }

    fn ack(stored_seq: u64, limit_bytes: u64) -> Ack {
        let credit = Credit { limit_seq: 100, limit_bytes };
        Ack { lane: Lane::Bulk, stored_seq, safe_seq: stored_seq, credit }
    }

    fn with_three_in_flight(body: impl FnOnce(&mut LaneLink<'_>)) {
        let mut flight = [Flight::NONE; 4];
        let mut lane = LaneLink::new(&mut flight, START);
        lane.grant(Now::default(), START, None);
        lane.set_credit(Credit { limit_seq: 9, limit_bytes: 300 });
        for seq in 1..=3 {
            lane.sent_chunk(Now::default(), Lane::Bulk, at(seq), 90);
        }
        body(&mut lane);
    }

    #[test]
    fn bytes_count_by_place_so_that_sending_again_costs_no_credit() {
        with_three_in_flight(|lane| {
            assert!(lane.permits(30) && !lane.permits(31));
            lane.handle_nack(Now::default(), &nack(2, 1)).unwrap();
            assert_eq!(lane.cursor(), 2);
            assert!(lane.permits(210) && !lane.permits(211));
        });
    }

    #[test]
    fn an_old_episode_is_ignored_and_a_place_never_sent_is_a_fault() {
        with_three_in_flight(|lane| {
            lane.handle_nack(Now::default(), &nack(3, 5)).unwrap();
            lane.handle_nack(Now::default(), &nack(1, 5)).unwrap();
            assert_eq!(lane.cursor(), 3);
            assert_eq!(lane.handle_nack(Now::default(), &nack(9, 6)), Err(PeerFault::BeyondSent));
            assert_eq!(lane.handle_ack(Now::default(), &ack(3, 0)), Err(PeerFault::BeyondSent));
        });
    }

    #[test]
    fn acks_are_cumulative_and_credit_never_shrinks() {
        with_three_in_flight(|lane| {
            assert_eq!(lane.handle_ack(Now::default(), &ack(2, 10)), Ok(Some(at(2))));
            assert_eq!(lane.handle_ack(Now::default(), &ack(1, 10)), Ok(None));
            assert!(lane.permits(30) && !lane.permits(31));
            assert!(lane.is_in_flight());
            assert_eq!(lane.position(3), Some(at(3)));
        });
    }
}
