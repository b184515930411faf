//! Hello and what follows from its answer: both ends compare where each log stands.
//!
//! The server's word is the sequence it takes next and its chain before that. Whatever its verdict
//! says, the sensor judges by these two, so that a mistaken verdict costs a new log at the worst:
//!
//! | the server is | then |
//! | --- | --- |
//! | at the acknowledged place, same chain | go on |
//! | beyond it, within what was made, same chain | that much is stored: trim, go on |
//! | within a hole | what it has of it is stored: the Jump begins there |
//! | beyond what was made | this disk was rolled back: a new log, this one its parent |
//! | anywhere, with another chain | the log forked: a new log, this one its parent |
//! | before it, within the kept segments | send again from there, where it lost them itself |
//! | before them | Jump to the segment that holds the acknowledged place, send from there |

use heapless::Vec;
use lapwing_protocol::delivery::JumpCause;
use lapwing_protocol::digest::Chain;
use lapwing_protocol::error::BufferFull;
use lapwing_protocol::hello::{
    Capability, Hello, HelloAck, LogCause, LogGrant, LogHead, LogVerdict, PROTOCOL_VERSION,
    StoredRange,
};
use lapwing_protocol::id::Lane;
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::{ELSEWHERE_MAX, FRAME_HEADER_BYTES, LANES};
use lapwing_protocol::message::Message;

use super::{Connection, Session, Stage, State};
use crate::config::Config;
use crate::error::{CloseReason, PeerFault};
use crate::event::Find;
use crate::lane::{LaneLink, Phase, Told};
use crate::outbox::Outbox;
use crate::position::{Hole, Position};
use crate::time::Now;

/// Largest encoding of a stored range: server and two sequences.
const RANGE_BYTES_MAX: usize = 16 + 10 + 10;

/// What of a Hello changes from one to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing<'h> {
    pub(crate) config: &'h Config<'h>,
    pub(crate) receive_bytes_max: u32,
    pub(crate) is_collecting: bool,
    pub(crate) last_command: Option<lapwing_protocol::command::CommandNumber>,
}

impl Session<'_> {
    /// Whether a Hello may go out: nothing is in flight, and no lane waits for the shell.
    pub(super) fn is_hello_ready(&self) -> bool {
        let is_due = self.connection().is_some_and(|open| open.stage == Stage::HelloDue);
        let is_waiting = |link: &LaneLink<'_>| {
            link.is_in_flight()
                || matches!(
                    link.phase,
                    Phase::Locating { .. } | Phase::Opening { .. } | Phase::Drained(_)
                )
        };
        is_due && !self.links.iter().any(is_waiting)
    }

    /// Writes a Hello.
    pub(super) fn write_hello(
        &mut self,
        now: Now,
        standing: &Standing<'_>,
        buffer: &mut [u8],
    ) -> Result<usize, BufferFull> {
        let mut ranges = [[0; RANGE_BYTES_MAX * ELSEWHERE_MAX]; LANES];
        let mut logs = Vec::new();
        let lanes = self.lanes();
        for (lane, ranges) in lanes.zip(&mut ranges) {
            let head = log_head(&mut self.outboxes[lane.index()], ranges)?;
            logs.push(head).map_err(|_| BufferFull)?;
        }
        let config = standing.config;
        let hello = Message::Hello(Hello {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            capabilities: Vec::<Capability, _>::new(),
            agent: config.agent,
            name: config.name,
            os: config.os,
            boot: config.boot,
            receive_bytes_max: standing.receive_bytes_max,
            memory: config.memory,
            collecting: standing.is_collecting,
            last_command: standing.last_command,
            logs,
        });
        let length = hello.encode(buffer)?;
        for link in &mut self.links {
            link.disconnect();
        }
        // What the shell had read may lie before what this server wants next: nobody would take it,
        // and the lane that shares the place would wait for ever.
        self.fetch.clear();
        if let State::Open(connection) = &mut self.state {
            connection.stage = Stage::Greeting { since_ns: now.monotonic_ns };
        }
        Ok(length)
    }

    /// Compares each log of the Hello with the server's word.
    pub(super) fn align_all(&mut self, now: Now, ack: &HelloAck<'_>) -> Result<(), PeerFault> {
        if ack.version != PROTOCOL_VERSION {
            return Err(PeerFault::Version);
        }
        let chunk_bytes = self.outboxes.iter().map(|outbox| outbox.chunk_bytes_max).max();
        let frame = chunk_bytes.unwrap_or(0) + FRAME_HEADER_BYTES;
        if (ack.receive_bytes_max as usize) < frame {
            return Err(PeerFault::ChunkTooLarge);
        }
        for lane in self.lanes() {
            let log = self.outboxes[lane.index()].sending().log;
            let mut grants = ack.logs.iter();
            let grant = grants.find(|grant| grant.lane == lane && grant.log == log);
            self.align(now, grant.ok_or(PeerFault::OutOfPlace)?)?;
        }
        Ok(())
    }

    fn align(&mut self, now: Now, grant: &LogGrant) -> Result<(), PeerFault> {
        let index = grant.lane.index();
        let log = *self.outboxes[index].sending();
        let before = grant.next_seq.checked_sub(1).ok_or(PeerFault::OutOfPlace)?;
        self.links[index].set_credit(grant.credit);
        match grant.verdict {
            _ if cfg!(mutant = "verdicts_ignored") => {}
            LogVerdict::SensorBehind => {
                self.give_up(index, LogCause::RolledBack);
                return Ok(());
            }
            LogVerdict::Forked => {
                self.give_up(index, LogCause::Forked);
                return Ok(());
            }
            LogVerdict::Resume | LogVerdict::New | LogVerdict::ServerBehind => {}
        }
        let has_spool = self.outboxes[index].has_spool();
        if before > log.made.seq {
            self.give_up(index, LogCause::RolledBack);
        } else if before < log.acked.seq && has_spool {
            let find = self.find_of_server_behind(index, before);
            self.locate(index, find, grant);
        } else if before < log.acked.seq {
            // Every chunk of such a log opens by itself, but for the later parts of a keyframe.
            self.outboxes[index].drop_rest_of_keyframe(log.acked.seq + 1);
            self.jump_to(now, index, base_of(grant), log.acked);
            self.is_segment_wanted |= grant.lane == Lane::Bulk;
        } else {
            let known = self.links[index].position(before).filter(|_| log.acked.seq != before);
            let known = known.or_else(|| self.outboxes[index].position(before));
            let is_open_end = self.is_open_end(index, before);
            let known = known.filter(|known| known.chain == grant.chain || !is_open_end);
            match (known, self.is_in_hole(index, grant)) {
                (Some(known), _) => self.go_on(now, index, known, grant.chain),
                (None, true) => self.stand_in_hole(now, index, grant),
                (None, false) if has_spool => self.locate(index, Find::Behind(before), grant),
                (None, false) => self.give_up(index, LogCause::Forked),
            }
        }
        Ok(())
    }

    /// Whether the server stands in a hole, on its word: it stored what was sent before that was
    /// dropped, and nothing is left here to compare its chain with. The Jump that follows, from
    /// there on, sets it. Behind the last chunk of a hole there is none, and the chain must be the
    /// hole's own; but for the end of a log of which nobody knows how it went on.
    /// What was never sent from here, and facts that the hole does not hold, are of another branch.
    fn is_in_hole(&mut self, index: usize, grant: &LogGrant) -> bool {
        let seq = grant.next_seq.saturating_sub(1);
        let is_open_end = self.is_open_end(index, seq);
        let (Some(server), outbox) = (self.server(), &mut self.outboxes[index]) else {
            return false;
        };
        let Some(hole) = outbox.hole_at(seq) else { return false };
        let begins = outbox.first_index_of(&hole);
        let is_of_it = hole.next_index.is_none_or(|end| grant.next_index <= end)
            && begins.is_none_or(|begins| begins <= grant.next_index);
        (seq < hole.to_seq || is_open_end) && is_of_it && outbox.may_be_sent(server, seq)
    }

    /// The server's word is taken within a hole. Of two branches it may have the other one's chunks
    /// there: then what was made of this one in their places is lost, and no Jump covers it.
    fn stand_in_hole(&mut self, now: Now, index: usize, grant: &LogGrant) {
        let base = base_of(grant);
        let from = self.server().and_then(|server| self.outboxes[index].doubtful_from(server));
        if let Some(from) = from
            && !cfg!(mutant = "facts_lost_unsaid")
        {
            self.facts_given_up[index] += base.next_index.saturating_sub(from);
        }
        self.go_on(now, index, base, base.chain);
    }

    /// Whether `seq` ends a hole of which nobody knows how much was in it.
    fn is_open_end(&self, index: usize, seq: u64) -> bool {
        let hole = self.outboxes[index].hole_at(seq);
        hole.is_some_and(|hole| hole.to_seq == seq && hole.next_index.is_none())
    }

    /// Where to go on with a server that lacks what was acknowledged: behind what it has, where it
    /// lost the rest itself and that is still held; else in the segment that is not acknowledged.
    fn find_of_server_behind(&self, index: usize, before: u64) -> Find {
        let outbox = &self.outboxes[index];
        let log = outbox.sending();
        let cause =
            self.server().map(|server| outbox.hole_cause(server, before + 1, log.acked.seq));
        if matches!(cause, Some(JumpCause::Lost(_))) {
            // What it lost and is still held goes again, also where some before it is trimmed.
            let is_trimmed = before < log.first_seq;
            return if is_trimmed { Find::SegmentOf(log.first_seq) } else { Find::Behind(before) };
        }
        let is_all = log.acked.seq == log.made.seq;
        Find::SegmentOf(if is_all { log.acked.seq } else { log.acked.seq + 1 })
    }

    fn locate(&mut self, index: usize, find: Find, grant: &LogGrant) {
        self.links[index].phase =
            Phase::Locating { find, base: base_of(grant), is_unknown: false, told: Told::NotYet };
    }

    /// The shell looked something up.
    pub(crate) fn handle_located(&mut self, now: Now, lane: Lane, found: Option<Position>) {
        let index = lane.index();
        let Phase::Locating { find, base, is_unknown, .. } = self.links[index].phase else {
            return;
        };
        let log = *self.outboxes[index].sending();
        let Position { seq: before, chain, .. } = base;
        let look = |find, is_unknown| {
            let told = Told::NotYet;
            Phase::Locating { find, base, is_unknown, told }
        };
        match (find, found) {
            (Find::Behind(seq), Some(found)) if found.seq == seq => {
                self.go_on(now, index, found, chain);
            }
            (Find::Behind(_), _) if before < log.acked.seq && !is_unknown => {
                // It was restored to a place within a hole that it had been told of since.
                self.links[index].phase = look(Find::SegmentOf(before + 1), true);
            }
            (Find::Behind(_), _) => self.give_up(index, LogCause::Forked),
            (Find::SegmentOf(_), Some(start)) if start.seq == before => {
                self.go_on(now, index, start, chain);
            }
            (Find::SegmentOf(_), Some(start)) if start.seq < before => {
                self.links[index].phase = look(Find::Behind(before), is_unknown);
            }
            (Find::SegmentOf(_), found) => {
                let to = found.filter(|start| start.seq <= log.acked.seq).unwrap_or(log.acked);
                self.is_segment_wanted |= to.seq == log.made.seq
                    && lane == Lane::Bulk
                    && !self.outboxes[index].has_tail();
                self.jump_to(now, index, base, to);
            }
        }
    }

    /// The server is at `known`, if its chain says so too.
    fn go_on(&mut self, now: Now, index: usize, known: Position, chain: Chain) {
        if known.chain != chain && !cfg!(mutant = "sensor_fork_unnoticed") {
            if known.seq == 0 {
                return self.close(CloseReason::Peer(PeerFault::NoAgreement));
            }
            return self.give_up(index, LogCause::Forked);
        }
        if let Some(server) = self.server() {
            self.note_stored(index, server, known);
        }
        self.links[index].grant(now, known, None);
        self.finish_grant(index);
    }

    /// The server gets nothing up to `to`: another one stored it, or it lost it. A server that has
    /// more facts in fewer chunks has them of another branch.
    fn jump_to(&mut self, now: Now, index: usize, base: Position, to: Position) {
        let Some(server) = self.server() else { return };
        if base.next_index > to.next_index {
            return self.give_up(index, LogCause::Forked);
        }
        let outbox = &self.outboxes[index];
        let to = if cfg!(mutant = "elsewhere_beyond") { outbox.sending().made } else { to };
        let from_seq = base.seq + 1;
        let hole = Hole {
            log: outbox.sending().log,
            from_seq,
            to_seq: to.seq,
            next_index: Some(to.next_index),
            chain: to.chain,
            cause: outbox.hole_cause(server, from_seq, to.seq),
        };
        self.links[index].grant(now, base, Some(hole));
        self.finish_grant(index);
    }

    fn finish_grant(&mut self, index: usize) {
        self.outboxes[index].unsent_seq = self.links[index].cursor();
        self.settle_tail(index);
    }

    /// This log cannot be gone on with. One log more in a session mends that; a server that does
    /// not go on with that one either would have them opened for ever.
    fn give_up(&mut self, index: usize, cause: LogCause) {
        if self.is_log_opened[index] && !self.outboxes[index].has_tail() {
            return self.close(CloseReason::Peer(PeerFault::NoAgreement));
        }
        let outbox = &self.outboxes[index];
        self.links[index].phase = if outbox.has_tail() {
            if !cfg!(mutant = "facts_lost_unsaid") {
                self.facts_given_up[index] += outbox.lost_with_tail(cause);
            }
            Phase::Drained(Told::NotYet)
        } else {
            Phase::Opening { cause, told: Told::NotYet }
        };
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(
            self.connection(),
            Some(Connection { stage: Stage::Live | Stage::Draining { .. }, .. })
        )
    }
}

/// What the server has of the log, on its word.
fn base_of(grant: &LogGrant) -> Position {
    let seq = grant.next_seq.saturating_sub(1);
    Position { seq, next_index: grant.next_index, chain: grant.chain }
}

fn log_head<'b>(outbox: &mut Outbox<'_>, buffer: &'b mut [u8]) -> Result<LogHead<'b>, BufferFull> {
    let first_seq = outbox.first_seq();
    let log = *outbox.sending();
    let skip = outbox.stored().count().saturating_sub(ELSEWHERE_MAX);
    let elsewhere = Items::<StoredRange>::encode(outbox.stored().skip(skip), buffer)?;
    Ok(LogHead {
        lane: outbox.lane,
        log: log.log,
        cause: log.cause,
        parent: log.parent,
        first_seq,
        next_seq: log.made.seq + 1,
        next_index: log.made.next_index,
        acked_seq: log.acked.seq,
        acked_chain: log.acked.chain,
        elsewhere,
    })
}
