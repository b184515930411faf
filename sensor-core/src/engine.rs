//! The parts of a sensor behind its front door, and how one moves another.
//!
//! Everything but the deframer, so that a frame that borrows from it can be handled here.

use lapwing_protocol::buggify;
use lapwing_protocol::code::Code;
use lapwing_protocol::command::{Action, CommandNumber, Outcome};
use lapwing_protocol::delivery::Resync;
use lapwing_protocol::element::{Change, Fact, Field, Value, command_outcome, finding};
use lapwing_protocol::error::BufferFull;
use lapwing_protocol::hello::Memory;
use lapwing_protocol::id::Lane;
use lapwing_protocol::message::Message;

use crate::calls::CallSlot;
use crate::config::Config;
use crate::error::{CloseReason, IntakeError, PeerFault};
use crate::event::Event;
use crate::inbox::{Inbox, Receipt, Work};
use crate::limits::RESYNC_MS_MIN;
use crate::position::Hole;
use crate::recorder::{Intake, Recorder};
use crate::registration::{Registrar, Served, Want};
use crate::session::{Session, Standing};
use crate::time::{Now, nanoseconds};

#[derive(Debug)]
pub(crate) struct Engine<'a> {
    pub(crate) config: Config<'a>,
    pub(crate) recorder: Recorder<'a>,
    pub(crate) session: Session<'a>,
    pub(crate) registrar: Registrar,
    pub(crate) inbox: Inbox,
    pub(crate) calls: CallSlot<'a>,
    pub(crate) is_collecting: bool,
    pub(crate) receive_bytes_max: u32,
    /// When a segment was last begun because a server asked.
    pub(crate) resynced_ns: Option<u64>,
    /// A server asked too early; it gets its segment then.
    pub(crate) resync_due_ns: Option<u64>,
    /// The end of a hole in which changes of the table went: when the server has it, a segment
    /// follows, although nothing may have happened since.
    pub(crate) untold_seq: Option<u64>,
}

impl Engine<'_> {
    /// Takes in a fact; without an urgent lane the bulk lane takes all.
    pub(crate) fn take(
        &mut self,
        now: Now,
        lane: Lane,
        fact: &Fact<'_>,
    ) -> Result<Intake, IntakeError> {
        let [bulk, urgent] = &mut self.session.outboxes;
        if buggify!("sensor.close_chunk_early") {
            self.recorder.close(now, bulk);
        }
        if buggify!("sensor.begin_segment") && buggify!("sensor.begin_segment") {
            self.recorder.request_segment();
        }
        match lane {
            Lane::Urgent if !urgent.is_unused() => self.recorder.take_urgent(now, fact, urgent),
            Lane::Urgent | Lane::Bulk => self.recorder.take(now, fact, bulk),
        }
    }

    /// Handles one message of the server.
    ///
    /// # Errors
    /// Why the session ends.
    pub(crate) fn handle_message(
        &mut self,
        now: Now,
        message: &Message<'_>,
    ) -> Result<(), CloseReason> {
        let is_greeted = self.session.is_greeted();
        match message {
            Message::HelloAck(ack) => {
                self.session.handle_hello_ack(now, ack)?;
                self.inbox.handle_hello_ack();
                let bulk = &mut self.session.outboxes[Lane::Bulk.index()];
                self.recorder.set_rows_max(now, ack.rows_max.max(1), bulk);
                self.begin_wanted_segment(now);
            }
            Message::Ping(ping) => self.session.handle_ping(ping.nonce),
            Message::Refused(refused) => {
                let (code, retry_after_ms) = (refused.code, refused.retry_after_ms);
                return Err(CloseReason::Refused { code, retry_after_ms });
            }
            Message::Ack(ack) => {
                self.session.handle_ack(now, ack)?;
                self.tell_table(now);
            }
            Message::Nack(nack) => self.session.handle_nack(now, nack)?,
            Message::Pong(_) if is_greeted => {}
            Message::Resync(resync) if is_greeted => self.handle_resync(now, resync),
            Message::Draining(draining) => {
                self.session.handle_draining(now, draining.retry_after_ms);
            }
            Message::Command(command) if is_greeted => {
                match self.inbox.handle_command(now, *command) {
                    Receipt::Taken => {}
                    Receipt::Repeated => self.recorder.stats.commands_repeated += 1,
                    Receipt::TurnedAway => self.recorder.stats.commands_turned_away += 1,
                }
            }
            Message::Call(call) if is_greeted => self.calls.handle_call(call),
            Message::Reply(reply) if is_greeted => self.calls.handle_reply(reply),
            Message::Pong(_)
            | Message::Resync(_)
            | Message::Command(_)
            | Message::Call(_)
            | Message::Reply(_)
            | Message::Hello(_)
            | Message::Chunk(_)
            | Message::Jump(_)
            | Message::ChainMark(_)
            | Message::Auth(_) => return Err(PeerFault::OutOfPlace.into()),
        }
        Ok(())
    }

    /// A server that lacks the last keyframe gets one at once.
    pub(crate) fn begin_wanted_segment(&mut self, now: Now) {
        if core::mem::take(&mut self.session.is_segment_wanted) {
            let bulk = &mut self.session.outboxes[Lane::Bulk.index()];
            self.recorder.begin_segment(now, bulk);
        }
    }

    /// A server that has everything up to a hole lacks the changes in it: it gets a segment.
    fn tell_table(&mut self, now: Now) {
        let Some(untold_seq) = self.untold_seq else { return };
        let bulk = &self.session.outboxes[Lane::Bulk.index()];
        let (current, has_tail) = (*bulk.current(), bulk.has_tail());
        if self.recorder.segment_seq() > untold_seq {
            self.untold_seq = None;
        } else if !has_tail && current.acked.seq >= untold_seq.min(current.made.seq) {
            self.untold_seq = None;
            self.request_resync(now);
        }
    }

    fn handle_resync(&mut self, now: Now, resync: &Resync) {
        let is_past = resync.at_seq < self.recorder.segment_seq();
        if resync.lane != Lane::Bulk || is_past || cfg!(mutant = "resync_ignored") {
            self.recorder.stats.resyncs_ignored += 1;
            return;
        }
        self.request_resync(now);
    }

    /// A segment is due: at once, or a while after the last that was begun for a server.
    fn request_resync(&mut self, now: Now) {
        let earliest_ns = self.resynced_ns.map_or(0, |last| last + nanoseconds(RESYNC_MS_MIN));
        let earliest_ns = if cfg!(mutant = "resync_each_time") { 0 } else { earliest_ns };
        if cfg!(mutant = "resync_dropped") && earliest_ns > now.monotonic_ns {
            return;
        }
        self.resync_due_ns = Some(earliest_ns.max(now.monotonic_ns));
        self.resync_when_due(now);
    }

    fn resync_when_due(&mut self, now: Now) {
        if self.resync_due_ns.is_some_and(|due| due <= now.monotonic_ns) {
            self.resync_due_ns = None;
            self.resynced_ns = Some(now.monotonic_ns);
            let bulk = &mut self.session.outboxes[Lane::Bulk.index()];
            self.recorder.begin_segment(now, bulk);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) {
        self.session.handle_timeout(now);
        self.resync_when_due(now);
        let bulk = &mut self.session.outboxes[Lane::Bulk.index()];
        self.recorder.handle_timeout(now, bulk);
    }

    pub(crate) fn handle_disconnected(&mut self, now: Now) {
        let (reason, served) = self.session.handle_disconnected();
        self.registrar.handle_lost(now, reason, served);
        self.calls.clear();
        let is_spooled = self.config.memory == Memory::Disk && !cfg!(mutant = "segment_goes_on");
        if served != Served::Nothing && is_spooled {
            // What is spooled during an outage must decode by itself.
            self.recorder.request_segment();
        }
    }

    /// A run of a log is not sent. When it reaches the end of what was made, the next chunk opens
    /// a segment, and an open chunk, which builds upon what is lost, goes into the hole as well.
    pub(crate) fn handle_hole(&mut self, now: Now, lane: Lane, mut hole: Hole) {
        let outbox = &mut self.session.outboxes[lane.index()];
        let is_at_end =
            hole.log == outbox.current().log && hole.to_seq >= outbox.current().made.seq;
        if is_at_end && lane == Lane::Bulk {
            self.recorder.close(now, outbox);
            self.recorder.restart_segment();
            self.untold_seq = Some(outbox.current().made.seq);
        }
        if is_at_end {
            let made = outbox.current().made;
            hole.to_seq = made.seq;
            hole.next_index = Some(made.next_index);
            hole.chain = made.chain;
        }
        let stats = &mut self.recorder.stats;
        stats.holes_declared += 1;
        stats.chunks_in_holes += 1 + hole.to_seq.saturating_sub(hole.from_seq);
        stats.facts_in_holes += outbox.facts_in(&hole).unwrap_or(0);
        outbox.add_hole(hole);
        self.session.forget_fetch(lane, hole.log, (hole.from_seq, hole.to_seq));
    }

    /// Records what the core itself has to say: outcomes it decided, facts it had to give up.
    pub(crate) fn settle(&mut self, now: Now) {
        while let Some((command, outcome)) = self.inbox.decided() {
            let number = command.number;
            if self.record_outcome(now, (number, command.action), outcome, "").is_err() {
                break;
            }
            self.inbox.finish(number);
        }
        for lane in [Lane::Bulk, Lane::Urgent] {
            let facts = self.session.facts_given_up[lane.index()];
            if facts > 0 && self.record_loss(now, facts).is_ok() {
                self.session.facts_given_up[lane.index()] = 0;
            }
        }
    }

    /// Records what became of a command.
    pub(crate) fn record_outcome(
        &mut self,
        now: Now,
        (number, action): (CommandNumber, Action),
        outcome: Outcome,
        detail: &str,
    ) -> Result<Intake, IntakeError> {
        let fields = [
            Field::new(command_outcome::issuer, Value::U64(number.issuer)),
            Field::new(command_outcome::command_seq, Value::U64(number.seq)),
            Field::new(command_outcome::outcome, Value::U64(outcome as u64)),
            Field::new(command_outcome::detail, Value::text(detail)),
            Field::new(command_outcome::action, Value::text(action.name())),
        ];
        let time_ns = now.monotonic_ns;
        let kind = command_outcome::KIND;
        self.take(
            now,
            Lane::Urgent,
            &Fact { kind, change: Change::Event, time_ns, fields: &fields },
        )
    }

    fn record_loss(&mut self, now: Now, facts: u64) -> Result<Intake, IntakeError> {
        let detail = "facts nobody acknowledged, of a log given up or of a branch of it, are lost";
        let fields = [
            Field::new(finding::code, Value::U64(u64::from(Code::FACTS_LOST.0))),
            Field::new(finding::component, Value::text("delivery")),
            Field::new(finding::detail, Value::text(detail)),
            Field::new(finding::lost, Value::U64(facts)),
        ];
        let (kind, time_ns) = (finding::KIND, now.monotonic_ns);
        self.take(
            now,
            Lane::Urgent,
            &Fact { kind, change: Change::Event, time_ns, fields: &fields },
        )
    }

    /// What the shell is to do next, but for calls.
    pub(crate) fn poll_event(&mut self, now: Now) -> Option<Event<'static>> {
        if let Some(event) = self.session.poll_event() {
            return Some(event);
        }
        if let Some(want) = self.registrar.poll(now) {
            return Some(match want {
                Want::Ask { reason, trouble_with } => {
                    Event::AskRegistration { reason, trouble_with }
                }
                Want::Dial(target) => Event::DialDetection(target),
            });
        }
        let work = self.inbox.poll(now);
        self.settle(now);
        work.map(|work| match work {
            Work::Accept(number) => Event::AcceptCommand(number),
            Work::Execute(command) => Event::ExecuteCommand(command),
        })
    }

    /// Writes the next frame and returns its length; 0 when there is none.
    pub(crate) fn transmit(&mut self, now: Now, buffer: &mut [u8]) -> Result<usize, BufferFull> {
        if self.session.is_greeted()
            && let Some(reply) = self.calls.refusal()
        {
            let length = Message::Reply(reply).encode(buffer)?;
            self.calls.sent_refusal();
            return Ok(length);
        }
        let is_live = self.session.is_greeted();
        if self.inbox.wants_hello() || (is_live && self.greets_again()) {
            self.session.greet_again();
        }
        let standing = Standing {
            config: &self.config,
            receive_bytes_max: self.receive_bytes_max,
            is_collecting: self.is_collecting,
            last_command: self.inbox.last(),
        };
        self.session.transmit(now, &standing, buffer)
    }

    /// A Hello more than needed, now and then, in a simulation.
    fn greets_again(&self) -> bool {
        buggify!("sensor.greet_again")
            && buggify!("sensor.greet_again")
            && buggify!("sensor.greet_again")
    }

    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        let deadlines = [
            self.recorder.deadline_ns(),
            self.session.deadline_ns(),
            self.registrar.deadline_ns(),
            self.resync_due_ns,
        ];
        deadlines.into_iter().flatten().min()
    }
}
