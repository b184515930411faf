//! The holes of a lane: how they come to be, how they become one, and why a server is told of one.

use lapwing_protocol::chunk::{Chunk, ChunkFlags};
use lapwing_protocol::delivery::{JumpCause, LossReason};
use lapwing_protocol::id::{LogId, ServerId};
use lapwing_protocol::op::DropReason;

use super::Outbox;
use crate::position::Hole;
use crate::window::Held;

impl Outbox<'_> {
    /// Makes the chunk `seq` a hole, together with the parts of a keyframe that build upon it.
    pub(super) fn drop_chunk(&mut self, seq: u64) {
        self.drop_one(seq);
        let mut next = seq + 1;
        while self.is_later_part(next) {
            self.drop_one(next);
            next += 1;
        }
    }

    /// Makes a hole of the chunk `seq` where it goes on with a keyframe whose beginning another
    /// server has: here it would decode to nothing. Its parts hold no facts.
    pub(crate) fn drop_rest_of_keyframe(&mut self, seq: u64) {
        if self.is_later_part(seq) {
            self.drop_chunk(seq);
        }
    }

    /// Whether the chunk `seq` is a part of a keyframe whose beginning lies before it.
    pub(super) fn is_later_part(&mut self, seq: u64) -> bool {
        let chunk = self.window.find(seq).and_then(|held| Chunk::decode(held.bytes).ok());
        chunk.is_some_and(|chunk| {
            chunk.header.flags.has(ChunkFlags::KEYFRAME) && chunk.header.part > 0
        })
    }

    fn drop_one(&mut self, seq: u64) {
        let log = self.current.log;
        let Some(Held { chain, bytes, .. }) = self.window.find(seq) else { return };
        let Ok(chunk) = Chunk::decode(bytes) else { return };
        let hole = Hole {
            log,
            from_seq: seq,
            to_seq: seq,
            next_index: Some(chunk.next_index()),
            chain,
            cause: JumpCause::Dropped(DropReason::MemoryFull),
        };
        self.facts_dropped += chunk.header.count;
        self.window.remove(seq);
        self.add_hole(hole);
    }

    /// Remembers a hole. Holes that meet become one; when there is no room for one more, the
    /// nearest becomes one with it, and what lies between is not sent either.
    pub(crate) fn add_hole(&mut self, mut hole: Hole) {
        while let Some(at) = self.nearest_hole(&hole, 1) {
            hole = union(&self.holes.take(at), &hole);
        }
        if self.holes.is_full() {
            // Holes of a log that is no longer sent make room first.
            let (current, sending) = (self.current.log, self.sending().log);
            self.holes.retain(|known| known.log == current || known.log == sending);
        }
        if self.holes.is_full()
            && let Some(at) = self.nearest_hole(&hole, u64::MAX)
        {
            hole = union(&self.holes.take(at), &hole);
            self.drop_within(&hole);
        }
        self.holes.push(hole);
    }

    /// The hole of the same log that is nearest to `hole`, at most `distance_max` away.
    fn nearest_hole(&self, hole: &Hole, distance_max: u64) -> Option<usize> {
        let distance = |known: &Hole| {
            let behind = hole.from_seq.saturating_sub(known.to_seq);
            behind.max(known.from_seq.saturating_sub(hole.to_seq))
        };
        let holes = self.holes.as_slice().iter().enumerate();
        let of_log = holes.filter(|(_, known)| known.log == hole.log);
        let near = of_log.map(|(at, known)| (distance(known), at));
        near.filter(|(distance, _)| *distance <= distance_max).min().map(|(_, at)| at)
    }

    /// Takes out and counts the chunks that a hole swallowed.
    fn drop_within(&mut self, hole: &Hole) {
        if self.has_spool() || hole.log != self.current.log {
            return;
        }
        while let Some(held) = self.window.find_from(hole.from_seq) {
            let seq = held.seq;
            if seq > hole.to_seq {
                return;
            }
            self.facts_dropped += Chunk::decode(held.bytes).map_or(0, |chunk| chunk.header.count);
            self.window.remove(seq);
        }
    }

    /// Facts in a hole that the shell declares, where it is known with which one it begins.
    pub(crate) fn facts_in(&mut self, hole: &Hole) -> Option<u64> {
        let first_index = self.first_index_of(hole)?;
        Some(hole.next_index?.saturating_sub(first_index))
    }

    /// The first index in a hole, where it is known.
    pub(crate) fn first_index_of(&mut self, hole: &Hole) -> Option<u64> {
        self.next_index_behind(hole.log, hole.from_seq.checked_sub(1)?)
    }

    fn next_index_behind(&mut self, log: LogId, seq: u64) -> Option<u64> {
        if seq == 0 {
            return Some(1);
        }
        let is_current = self.current.log == log;
        let known = self.tail.as_ref().filter(|_| !is_current).unwrap_or(&self.current);
        let mut places = [known.acked, known.made].into_iter();
        if let Some(place) = places.find(|place| known.log == log && place.seq == seq) {
            return Some(place.next_index);
        }
        let mut holes = self.holes.as_slice().iter();
        if let Some(known) = holes.find(|known| known.log == log && known.to_seq == seq) {
            return known.next_index;
        }
        let held = if is_current { self.window.find(seq) } else { None };
        Some(Chunk::decode(held?.bytes).ok()?.next_index())
    }

    /// The hole of the log that is sent, in which `seq` lies.
    pub(crate) fn hole_at(&self, seq: u64) -> Option<Hole> {
        let log = self.sending().log;
        let mut holes = self.holes.as_slice().iter().filter(|hole| hole.log == log);
        holes.find(|hole| hole.from_seq <= seq && seq <= hole.to_seq).copied()
    }

    /// Why `server` gets no `from_seq..=to_seq`: another one stored it, or it lost it itself.
    pub(crate) fn hole_cause(&self, server: ServerId, from_seq: u64, to_seq: u64) -> JumpCause {
        let mut elsewhere = None;
        for range in self.stored() {
            if range.to_seq < from_seq || range.from_seq > to_seq {
                continue;
            }
            if range.server == server {
                return JumpCause::Lost(LossReason::ServerRolledBack);
            }
            elsewhere = Some(range.server);
        }
        elsewhere.map_or(JumpCause::Lost(LossReason::ServerRolledBack), JumpCause::StoredElsewhere)
    }
}

/// One hole over both and what lies between; the older one's cause stands.
fn union(known: &Hole, hole: &Hole) -> Hole {
    let last = if hole.to_seq > known.to_seq { hole } else { known };
    Hole { from_seq: known.from_seq.min(hole.from_seq), cause: known.cause, ..*last }
}
