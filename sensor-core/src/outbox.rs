//! One lane's logs at the sensor: what was made, what is spooled, what is acknowledged, and the
//! chunks of it that are in memory.
//!
//! With a spool the window is a cache of the newest chunks: what is spooled may leave it and is
//! fetched from the shell again. Without one the window is all there is: it holds everything from
//! the acknowledged position on, and when it is full the oldest unsent chunk is dropped, as a hole
//! that a Jump announces before anything later goes.
//!
//! Not here: the connection and its credit ([`crate::lane`]); holes ([`holes`]); what of a log may
//! be another branch's ([`branches`]).
//!
//! Invariants: `acked <= spooled <= made`; two holes of one log do not meet.

mod branches;
mod holes;

use lapwing_protocol::buggify;
use lapwing_protocol::chunk::Chunk;
use lapwing_protocol::delivery::{JumpCause, LossReason};
use lapwing_protocol::hello::{LogCause, Memory, StoredRange};
use lapwing_protocol::id::{Lane, LogId, ServerId};

use crate::event::Spool;
use crate::lent::Lent;
use crate::limits::CHUNK_RECORD_BYTES;
use crate::position::{Hole, LogPositions, Position};
use crate::window::{Held, Window};

/// What one server acknowledged of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Which log.
    pub log: LogId,
    /// Who, from where to where.
    pub range: StoredRange,
}

impl Stored {
    /// An unused place, for the arrays that a shell lends.
    pub const NONE: Self = Self {
        log: LogId([0; 16]),
        range: StoredRange { server: ServerId([0; 16]), from_seq: 0, to_seq: 0 },
    };
}

impl Hole {
    /// An unused place, for the arrays that a shell lends.
    pub const NONE: Self = Self {
        log: LogId([0; 16]),
        from_seq: 0,
        to_seq: 0,
        next_index: None,
        chain: lapwing_protocol::digest::Chain([0; 32]),
        cause: JumpCause::Lost(LossReason::MemoryLost),
    };
}

#[derive(Debug)]
pub(crate) struct Outbox<'a> {
    pub(crate) lane: Lane,
    /// The largest chunk of this lane.
    pub(crate) chunk_bytes_max: usize,
    memory: Memory,
    /// Facts of `tail` that were made since a start went on with it: should a server be beyond its
    /// end, another branch than what the server has.
    tail_branch: u32,
    window: Window<'a>,
    /// The log that is written.
    current: LogPositions,
    /// An older log of which something is still to be sent; goes before `current`.
    tail: Option<LogPositions>,
    /// The highest chunk of `current` that the shell spooled. With a spool only.
    spooled_seq: u64,
    /// The highest chunk of `current` that was handed to the shell. With a spool only.
    offered_seq: u64,
    unspooled_bytes: usize,
    /// The index of the first fact of `current` that was made since a sensor started on it.
    started_index: u64,
    /// Whether a start went on with `current`, and so some other branch of it may be.
    is_continued: bool,
    holes: Lent<'a, Hole>,
    stored: Lent<'a, Stored>,
    /// The first chunk that was not sent in this session, and so may be dropped first.
    pub(crate) unsent_seq: u64,
    /// How many of the last chunks of `current` no server can have from here. Of what was made
    /// before this start only the shell knows, and where it does not, all may have been sent.
    never_sent: u32,
    /// To whom chunks last went (four bytes of its id, for memory's sake), and how many of the last
    /// ones no other server can have.
    sent_to: u32,
    never_sent_elsewhere: u32,
    /// Facts dropped because memory was full.
    pub(crate) facts_dropped: u64,
    pub(crate) chunks_made: u64,
    pub(crate) bytes_made: u64,
}

impl<'a> Outbox<'a> {
    pub(crate) fn new(
        (lane, memory, chunk_bytes_max): (Lane, Memory, usize),
        current: LogPositions,
        window: &'a mut [u8],
        (holes, stored): (&'a mut [Hole], &'a mut [Stored]),
    ) -> Self {
        Self {
            lane,
            chunk_bytes_max,
            memory,
            tail_branch: 0,
            window: Window::new(window),
            current,
            tail: None,
            spooled_seq: current.made.seq,
            offered_seq: current.made.seq,
            unspooled_bytes: 0,
            started_index: current.made.next_index,
            is_continued: current.made.seq > 0,
            holes: Lent::new(holes),
            stored: Lent::new(stored),
            unsent_seq: current.acked.seq + 1,
            never_sent: 0,
            sent_to: 0,
            never_sent_elsewhere: 0,
            facts_dropped: 0,
            chunks_made: 0,
            bytes_made: 0,
        }
    }

    pub(crate) fn has_spool(&self) -> bool {
        self.memory == Memory::Disk
    }

    /// Whether this lane has no memory and so is not used.
    pub(crate) fn is_unused(&self) -> bool {
        self.chunk_bytes_max == 0
    }

    /// The log that facts are written to.
    pub(crate) fn current(&self) -> &LogPositions {
        &self.current
    }

    /// The log that is sent: the tail of an older one first.
    pub(crate) fn sending(&self) -> &LogPositions {
        self.tail.as_ref().unwrap_or(&self.current)
    }

    pub(crate) fn has_tail(&self) -> bool {
        self.tail.is_some()
    }

    pub(crate) fn set_tail(&mut self, tail: Option<LogPositions>) {
        if let Some(old) = self.tail.take() {
            self.holes.retain(|hole| hole.log != old.log);
            self.stored.retain(|stored| stored.log != old.log);
        }
        self.tail = tail;
        self.tail_branch = 0;
        self.unsent_seq = self.sending().acked.seq + 1;
    }

    /// The last chunk that may be sent: with a spool, only what is in it.
    pub(crate) fn sendable_seq(&self) -> u64 {
        match &self.tail {
            Some(tail) => tail.made.seq,
            None if self.has_spool() => self.spooled_seq,
            None => self.current.made.seq,
        }
    }

    /// Whether two more of the largest chunks find room without one being lost.
    pub(crate) fn has_room(&self, chunk_bytes_max: usize) -> bool {
        let wanted = 2 * (chunk_bytes_max + CHUNK_RECORD_BYTES);
        !self.has_spool() || self.window.capacity().saturating_sub(self.unspooled_bytes) >= wanted
    }

    /// Takes the next chunk of the current log.
    pub(crate) fn push(&mut self, chunk: &[u8], next_index: u64) {
        let seq = self.current.made.seq + 1;
        let body_at = if cfg!(mutant = "sensor_chain_over_body") { 2 } else { 0 };
        let chain = self.current.made.chain.next(chunk.get(body_at..).unwrap_or_default());
        self.current.made = Position { seq, next_index, chain };
        self.never_sent = self.never_sent.saturating_add(1);
        self.never_sent_elsewhere = self.never_sent_elsewhere.saturating_add(1);
        self.chunks_made += 1;
        self.bytes_made += chunk.len() as u64;
        while !self.window.push(seq, chain, chunk) {
            if !self.make_room() {
                return;
            }
        }
        if self.has_spool() {
            self.unspooled_bytes += CHUNK_RECORD_BYTES + chunk.len();
        } else if self.hole_at(seq - 1).is_some() && self.is_later_part(seq) {
            // What it builds upon was dropped while the keyframe was still being made.
            self.drop_chunk(seq);
        }
    }

    /// The oldest chunk leaves the memory, if it is spooled: it is fetched when it is wanted.
    fn make_room_of_spooled(&mut self) {
        if self.window.front().is_some_and(|front| front.seq <= self.spooled_seq) {
            self.window.pop();
        }
    }

    fn make_room(&mut self) -> bool {
        let Some(front) = self.window.front() else { return false };
        if self.has_spool() && front.seq <= self.spooled_seq {
            self.window.pop();
            return true;
        }
        let oldest_unsent = self.window.find_from(self.unsent_seq).map(|held| held.seq);
        let seq = oldest_unsent.unwrap_or(front.seq);
        self.drop_chunk(seq);
        true
    }

    /// A chunk of the log that is sent, where it is in memory.
    pub(crate) fn find(&mut self, seq: u64) -> Option<Held<'_>> {
        if self.tail.is_some() { None } else { self.window.find(seq) }
    }

    /// Whether a chunk waits for the shell to spool it.
    pub(crate) fn has_offer(&self) -> bool {
        self.has_spool() && self.offered_seq < self.current.made.seq
    }

    /// The next chunk that the shell has to spool.
    pub(crate) fn offer(&mut self) -> Option<Spool<'_>> {
        if !self.has_offer() {
            return None;
        }
        self.offered_seq += 1;
        let (lane, log) = (self.lane, self.current.log);
        let Held { seq, chain, bytes } = self.window.find(self.offered_seq)?;
        let chunk = Chunk::decode(bytes).ok()?;
        let header = &chunk.header;
        Some(Spool {
            lane,
            log,
            seq,
            opens_segment: header.flags.opens(header.part),
            bytes,
            chain_after: chain,
            next_index: chunk.next_index(),
        })
    }

    /// The shell spooled everything up to `seq` of the current log.
    pub(crate) fn handle_spooled(&mut self, seq: u64) {
        if buggify!("sensor.forget_window") && self.window.front().is_some() {
            self.make_room_of_spooled();
        }
        while self.spooled_seq < seq.min(self.offered_seq) {
            self.spooled_seq += 1;
            let length = self.window.find(self.spooled_seq).map_or(0, |held| held.bytes.len());
            let record = CHUNK_RECORD_BYTES + length;
            self.unspooled_bytes = self.unspooled_bytes.saturating_sub(record);
        }
    }

    /// The server stored everything up to `position`; the answer is whether that is news.
    pub(crate) fn handle_stored(&mut self, server: ServerId, position: Position) -> bool {
        let is_tail = self.tail.is_some();
        let log = self.tail.as_mut().unwrap_or(&mut self.current);
        let from_seq = log.acked.seq + 1;
        if position.seq < from_seq {
            return false;
        }
        log.acked = position;
        let log = log.log;
        if !is_tail {
            while self.is_front_done() {
                self.window.pop();
            }
        }
        self.holes.retain(|hole| hole.log != log || hole.to_seq > position.seq);
        self.note_stored(Stored {
            log,
            range: StoredRange { server, from_seq, to_seq: position.seq },
        });
        true
    }

    fn is_front_done(&self) -> bool {
        let is_spooled = |seq| !self.has_spool() || seq <= self.spooled_seq;
        self.window
            .front()
            .is_some_and(|held| held.seq <= self.current.acked.seq && is_spooled(held.seq))
    }

    /// Remembers who stored what. Without room the two oldest runs of a log become one.
    pub(crate) fn note_stored(&mut self, stored: Stored) {
        if let Some(last) = self.stored.last_mut()
            && last.log == stored.log
            && last.range.server == stored.range.server
        {
            last.range.to_seq = last.range.to_seq.max(stored.range.to_seq);
            return;
        }
        if self.stored.is_full() {
            self.merge_oldest_stored();
        }
        self.stored.push(stored);
    }

    fn merge_oldest_stored(&mut self) {
        let (current, sending) = (self.current.log, self.sending().log);
        self.stored.retain(|known| known.log == current || known.log == sending);
        if !self.stored.is_full() {
            return;
        }
        if let [first, second, ..] = self.stored.items
            && !cfg!(mutant = "oldest_run_forgotten")
        {
            second.range.from_seq = second.range.from_seq.min(first.range.from_seq);
        }
        if self.stored.length > 0 {
            self.stored.items.copy_within(1..self.stored.length, 0);
            self.stored.length -= 1;
        }
    }

    /// Who stored what of the log that is sent, oldest first.
    pub(crate) fn stored(&self) -> impl Iterator<Item = StoredRange> {
        let log = self.sending().log;
        self.stored.as_slice().iter().filter(move |known| known.log == log).map(|known| known.range)
    }

    /// The place behind `seq` of the log that is sent, where it is known here.
    pub(crate) fn position(&mut self, seq: u64) -> Option<Position> {
        let log = self.sending();
        if let Some(known) = [log.acked, log.made].into_iter().find(|known| known.seq == seq) {
            return Some(known);
        }
        let holes = self.holes.as_slice().iter();
        let mut holes = holes.filter(|hole| hole.log == log.log && hole.to_seq == seq);
        if let Some(Hole { chain, next_index: Some(next_index), .. }) = holes.next().copied() {
            return Some(Position { seq, next_index, chain });
        }
        let held = self.find(seq)?;
        let next_index = Chunk::decode(held.bytes).ok()?.next_index();
        Some(Position { seq, next_index, chain: held.chain })
    }

    /// The oldest chunk that can still be sent.
    pub(crate) fn first_seq(&mut self) -> u64 {
        if self.has_spool() {
            return self.sending().first_seq;
        }
        self.window.front().map_or(self.current.made.seq + 1, |held| held.seq)
    }

    /// The shell no longer has what lies before `first_seq`.
    pub(crate) fn handle_trimmed(&mut self, log: LogId, first_seq: u64) {
        let tail = self.tail.as_mut().filter(|tail| tail.log == log);
        let known = tail.or_else(|| Some(&mut self.current).filter(|current| current.log == log));
        if let Some(known) = known {
            known.first_seq = known.first_seq.max(first_seq);
        }
    }

    /// Goes over to a new log and returns how many facts of the old one are lost: what nobody
    /// acknowledged. A server that holds more than a rolled-back disk has all that was on the disk;
    /// what was made since is another branch, and nowhere.
    pub(crate) fn open_log(&mut self, log: LogPositions) -> u64 {
        let acked_index = self.current.acked.next_index;
        let kept_index = match log.cause {
            LogCause::RolledBack => acked_index.max(self.started_index),
            _ => acked_index,
        };
        let lost = self.current.made.next_index.saturating_sub(kept_index);
        self.window.clear();
        self.holes.clear();
        self.stored.clear();
        self.current = log;
        self.tail = None;
        self.spooled_seq = 0;
        self.offered_seq = 0;
        self.unspooled_bytes = 0;
        self.started_index = log.made.next_index;
        self.is_continued = false;
        self.unsent_seq = 1;
        (self.never_sent, self.never_sent_elsewhere) = (0, 0);
        lost
    }
}

#[cfg(test)]
mod tests;
