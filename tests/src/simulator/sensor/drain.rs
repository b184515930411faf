//! Draining the core as `sensor-os`'s runner does: chunks to the disk, events, frames.
//!
//! Invariants: a chunk that could not be appended becomes a hole, together with everything that
//! builds upon it; with `sync = "each"` the core hears of a chunk only after its sync.

use std::rc::Rc;

use lapwing_protocol::code::Code;
use lapwing_protocol::command::{Command, CommandNumber, Outcome};
use lapwing_protocol::delivery::{JumpCause, LossReason};
use lapwing_protocol::element::{Change, Fact, Field, Value, finding};
use lapwing_protocol::frame::Deframer;
use lapwing_protocol::hello::{LogCause, LogParent, Memory as Kept};
use lapwing_protocol::id::{Lane, LogId};
use lapwing_protocol::message::Message;
use lapwing_protocol::op::DropReason;
use lapwing_sensor_core::{
    CloseReason, DialTarget, Event, Hole, IntakeError, LogPositions, Now, Position,
};

use super::{Excuse, NotedCommand, PROGRESS_NS, RETRY_NS, Retry, SensorMachine, Wish};
use crate::simulator::DEPLOYMENT;
use crate::simulator::chance::Chance;
use crate::simulator::coverage::Reached;
use crate::simulator::disk::{Record, Refused, Trimmed};

impl SensorMachine<'_> {
    /// Drains the core in its order.
    pub(super) fn drain(&mut self, now: Now, chance: &mut Chance) {
        self.drain_events(now, chance);
        self.end_command(now);
        let mut buffer = vec![0; 2_048];
        while self.link.is_some() {
            let Some(sensor) = &mut self.life else { return };
            match sensor.poll_transmit(now, &mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    self.note_place_in_hole(&buffer[..length]);
                    self.wishes.push(Wish::Send(buffer[..length].to_vec()));
                }
                Err(_) => return self.truth.broken.push("a frame does not fit".into()),
            }
            // Sending wants chunks that left the memory.
            self.drain_events(now, chance);
        }
    }

    /// Counts a Jump that begins within a hole, however often it is said: the server stands there,
    /// and the hole was not yet acknowledged (HEL-038).
    fn note_place_in_hole(&mut self, frame: &[u8]) {
        let mut memory = [0; 256];
        if frame.len() > memory.len() {
            return;
        }
        let mut deframer = Deframer::new(&mut memory);
        deframer.feed(frame);
        let Ok(Some(frame)) = deframer.next_frame() else { return };
        let Ok(Some(Message::Jump(jump))) = Message::decode(&frame) else { return };
        let Some(sensor) = &self.life else { return };
        let log = self.disk.tail(jump.lane).map_or(sensor.positions(jump.lane).log, |log| log.log);
        let Some(log) = self.disk.find(jump.lane, log) else { return };
        // HEL-028: lost is what the spool does not hold, where a server lost what it had.
        let is_held = |seq: &u64| self.disk.fetch(jump.lane, log.id, *seq).is_some();
        if jump.cause == JumpCause::Lost(LossReason::ServerRolledBack)
            && let Some(held) = (jump.from_seq..=jump.to_seq).find(is_held)
        {
            let text = format!("{} chunk {held} is held, and said to be lost: {jump:?}", log.id);
            self.truth.broken.push(text);
        }
        let is_it = |hole: &Hole| hole.from_seq < jump.from_seq && hole.to_seq == jump.to_seq;
        let hole = log.hole_at(jump.from_seq).filter(is_it);
        let is_open = hole.is_some_and(|hole| log.progress.acked.seq < hole.to_seq);
        let place = Some((log.id, jump.from_seq));
        let known = &mut self.place_in_hole[jump.lane.index()];
        if is_open && *known != place {
            *known = place;
            self.notes.push(Reached::Hel038);
        }
    }

    fn drain_events(&mut self, now: Now, chance: &mut Chance) {
        for _ in 0..10_000 {
            self.spool_chunks(now);
            if !self.handle_event(now, chance) {
                // Looking for events may have made an outcome or a finding.
                return self.spool_chunks(now);
            }
        }
        self.truth.broken.push("the core wants things for ever".into());
    }

    // --- Chunks.

    /// Appends what the core made, until it makes nothing more.
    pub(super) fn spool_chunks(&mut self, now: Now) {
        if self.kept == Kept::RamOnly {
            if let Some(sensor) = &mut self.life {
                while sensor.poll_chunk(now).is_some() {}
            }
            return;
        }
        loop {
            let appended = self.append_offered(now);
            self.sync_if_due(now);
            if !appended {
                return;
            }
            if !self.is_syncing_each() || self.disk.is_synced() {
                self.report_spooled(now);
            }
        }
    }

    fn append_offered(&mut self, now: Now) -> bool {
        let mut any = false;
        loop {
            let mut trimmed = Vec::new();
            let Some(sensor) = &mut self.life else { return any };
            let Some(chunk) = sensor.poll_chunk(now) else { return any };
            any = true;
            let (lane, seq, opens) = (chunk.lane, chunk.seq, chunk.opens_segment);
            let after = Position { seq, next_index: chunk.next_index, chain: chunk.chain_after };
            let record = Record { bytes: Rc::from(chunk.bytes), after, is_damaged: false };
            let made_seq = self.disk.current(lane).map_or(0, |log| log.made.seq);
            let result = match seq <= made_seq {
                true => Ok(()), // It lies in a hole already.
                false => self.append(now, (lane, opens), record, &mut trimmed),
            };
            self.unreported[lane.index()] = Some(seq);
            for trimmed in trimmed {
                self.tell_trimmed(now, &trimmed);
            }
            if let Err(refused) = result {
                self.give_up_chunks(now, lane, refused);
            }
        }
    }

    fn append(
        &mut self,
        now: Now,
        place: (Lane, bool),
        record: Record,
        trimmed: &mut Vec<Trimmed>,
    ) -> Result<(), Refused> {
        loop {
            match self.disk.append(now.monotonic_ns, place, record.clone()) {
                Err(Refused::Full) => match self.disk.make_room()? {
                    Some(room) => trimmed.push(room),
                    None => return Err(Refused::Full),
                },
                other => return other,
            }
        }
    }

    /// The chunk behind the last one that is on the disk, and all that build upon it, are a hole.
    fn give_up_chunks(&mut self, now: Now, lane: Lane, refused: Refused) {
        let reason = match refused {
            Refused::Full => DropReason::SpoolFull,
            Refused::Failed => DropReason::SpoolFailed,
        };
        let cause = JumpCause::Dropped(reason);
        let Some(log) = self.disk.current(lane).map(|log| (log.id, log.made)) else { return };
        let Some(sensor) = &mut self.life else { return };
        let made = sensor.positions(lane).made;
        let hole = Hole {
            log: log.0,
            from_seq: log.1.seq + 1,
            to_seq: made.seq,
            next_index: Some(made.next_index),
            chain: made.chain,
            cause,
        };
        sensor.handle_hole(now, lane, hole);
        // The core closes what was open: that is lost with the rest.
        let made = sensor.positions(lane).made;
        self.losses.0 += made.next_index.saturating_sub(log.1.next_index);
        self.disk.skip(lane, made, cause);
        if lane == Lane::Bulk {
            self.truth.note_dropped(log.0, log.1.next_index..made.next_index);
        }
    }

    pub(super) fn tell_trimmed(&mut self, now: Now, trimmed: &Trimmed) {
        let Some(sensor) = &mut self.life else { return };
        sensor.handle_trimmed(trimmed.lane, trimmed.log, trimmed.first_seq);
        if let Some(hole) = trimmed.hole {
            sensor.handle_hole(now, trimmed.lane, hole);
            self.losses.0 += trimmed.facts;
            if let Some(end) = hole.next_index.filter(|_| trimmed.lane == Lane::Bulk) {
                self.truth.note_dropped(trimmed.log, end.saturating_sub(trimmed.facts)..end);
            }
        }
    }

    pub(super) fn sync_if_due(&mut self, now: Now) {
        if self.kept == Kept::Disk && self.disk.is_sync_due(now.monotonic_ns) {
            self.sync(now);
        }
    }

    /// Syncs the disk, whoever wants that, and tells the core of it; `false` when it refuses.
    fn sync(&mut self, now: Now) -> bool {
        let is_synced = self.disk.sync(now.monotonic_ns).is_ok();
        if is_synced {
            self.report_spooled(now);
        }
        is_synced
    }

    fn report_spooled(&mut self, now: Now) {
        let Some(sensor) = &mut self.life else { return };
        for lane in Lane::BY_URGENCY {
            if let Some(seq) = self.unreported[lane.index()].take() {
                sensor.handle_spooled(now, lane, seq);
            }
        }
    }

    /// Tells of losses by a finding, at most once a second.
    pub(super) fn tell_losses(&mut self, now: Now) {
        let (facts, told_ns) = self.losses;
        if facts == 0 || now.monotonic_ns < told_ns || self.disk.refuses_writes {
            return;
        }
        let fields = [
            Field::new(finding::code, Value::U64(u64::from(Code::STORE_FAILED.0))),
            Field::new(finding::component, Value::text("spool")),
            Field::new(finding::lost, Value::U64(facts)),
        ];
        let time_ns = now.monotonic_ns;
        let fact = Fact { kind: finding::KIND, change: Change::Event, time_ns, fields: &fields };
        let Some(sensor) = &mut self.life else { return };
        if sensor.handle_fact(now, Lane::Urgent, &fact).is_ok() {
            self.losses = (0, now.monotonic_ns + 1_000_000_000);
            let dropped = self.truth.placed.values_mut().filter(|placed| placed.is_dropped);
            dropped.for_each(|placed| placed.is_told = true);
        }
    }

    // --- Events.

    fn handle_event(&mut self, now: Now, chance: &mut Chance) -> bool {
        let Some(sensor) = &mut self.life else { return false };
        let Some(event) = sensor.poll_event(now) else { return false };
        let number = self.number;
        crate::simulator::timeline::tell(now.monotonic_ns, || {
            format!("machine {number}: {event:?}")
        });
        match event {
            Event::AskRegistration { reason, trouble_with } => {
                self.wishes.push(Wish::Ask { reason, trouble_with });
            }
            Event::DialDetection(DialTarget::Assigned(server)) => {
                self.wishes.push(Wish::Dial(server));
            }
            Event::DialDetection(DialTarget::Package) => {
                self.truth.broken.push("it dials a server that no package names".into());
            }
            Event::Close(reason) => self.close(now, reason),
            Event::Acked { lane, log, server, acked, safe_seq } => {
                self.disk.handle_stored((lane, log), server, acked, safe_seq);
                self.trim(now);
                let due_ns = now.monotonic_ns + PROGRESS_NS;
                self.progress_ns.get_or_insert(due_ns);
            }
            Event::Fetch { lane, log, seq } => self.fetch(now, (lane, log), seq),
            Event::Locate { lane, log, find } => {
                let found = self.disk.locate(lane, log, find);
                sensor.handle_located(now, lane, found);
            }
            Event::OpenLog { lane, cause, parent } => {
                self.note_given_up(lane, parent.log);
                self.open_log(now, (lane, cause, parent), chance);
            }
            Event::LogDrained { lane, log } => self.handle_drained(now, lane, log),
            Event::AcceptCommand(number) => self.accept(now, number),
            Event::ExecuteCommand(_)
                if self.may_die && self.kept == Kept::Disk && chance.once_in(4) =>
            {
                self.wishes.push(Wish::Die);
            }
            Event::ExecuteCommand(command) => self.execute(now, &command),
            Event::Greeted { .. } | Event::Call { .. } | Event::Reply { .. } => {}
        }
        true
    }

    fn close(&mut self, now: Now, reason: CloseReason) {
        if reason != CloseReason::Stopped {
            self.drop_link(now);
        }
    }

    fn drop_link(&mut self, now: Now) {
        self.link = None;
        self.wishes.push(Wish::HangUp);
        let _ = self.disk.save_progress();
        if let Some(sensor) = &mut self.life {
            sensor.handle_disconnected(now);
        }
    }

    fn trim(&mut self, now: Now) {
        for trimmed in self.disk.trim().unwrap_or_default() {
            self.tell_trimmed(now, &trimmed);
        }
        self.disk.retire();
    }

    fn fetch(&mut self, now: Now, (lane, log): (Lane, LogId), seq: u64) {
        let found = self.disk.fetch(lane, log, seq);
        let Some(sensor) = &mut self.life else { return };
        if found.is_some_and(|bytes| sensor.handle_fetched(lane, seq, &bytes).is_ok()) {
            return;
        }
        match self.disk.handle_damage(lane, log, seq) {
            Some(hole) => sensor.handle_hole(now, lane, hole),
            None => {
                self.truth.broken.push(format!("it wants chunk {seq} of {log}, which is gone"));
                self.drop_link(now);
            }
        }
    }

    /// What nobody acknowledged of a log that is given up is lost; the core must say how much.
    fn note_given_up(&mut self, lane: Lane, log: LogId) {
        let acked = match (self.kept, self.disk.find(lane, log), &self.life) {
            (Kept::Disk, Some(known), _) => known.progress.acked.next_index,
            (_, _, Some(sensor)) => sensor.positions(lane).acked.next_index,
            _ => return,
        };
        self.truth.given_up.insert(log);
        if lane == Lane::Bulk {
            self.excuse(Excuse::GivenUp, |placed| placed.log == log && placed.index >= acked);
        }
    }

    pub(super) fn open_log(
        &mut self,
        now: Now,
        (lane, cause, parent): (Lane, LogCause, LogParent),
        chance: &mut Chance,
    ) {
        let is_of_lane =
            |retry: &Retry| matches!(retry, Retry::OpenLog { lane: known, .. } if *known == lane);
        self.retries.retain(|retry| !is_of_lane(retry));
        let log = LogId(chance.id());
        let opened = match self.kept {
            Kept::Disk => self.disk.open_log(lane, log, cause, parent),
            Kept::RamOnly => {
                let ids = (DEPLOYMENT, self.sensor);
                Ok(LogPositions::open(ids, lane, log, cause, Some(parent)))
            }
        };
        match opened {
            Ok(opened) => {
                self.notes.push(match cause {
                    LogCause::Forked => Reached::OpenedForked,
                    _ => Reached::OpenedRolledBack,
                });
                // What came while the disk refused is in no log either.
                self.note_given_up(lane, parent.log);
                self.disk.handle_drained(lane, parent.log);
                self.current[lane.index()] = log;
                self.truth.logs.push((lane, log, cause));
                if let Some(sensor) = &mut self.life {
                    sensor.handle_open_log(lane, opened);
                }
            }
            Err(_) => self.retry_later(now, Retry::OpenLog { lane, cause, parent }),
        }
    }

    fn handle_drained(&mut self, now: Now, lane: Lane, log: LogId) {
        if self.disk.find(lane, log).is_some_and(|log| !log.is_all_stored()) {
            self.note_given_up(lane, log);
        }
        self.disk.handle_drained(lane, log);
        let Some(mut sensor) = self.life.take() else { return };
        sensor.handle_tail(lane, None);
        self.next_tail(&mut sensor, now, lane);
        self.life = Some(sensor);
    }

    fn retry_later(&mut self, now: Now, retry: Retry) {
        self.retries.push(retry);
        self.retry_ns = Some(now.monotonic_ns + RETRY_NS);
    }

    // --- Commands.

    pub(super) fn accept(&mut self, now: Now, number: CommandNumber) {
        let Some(action) = self.life.as_ref().and_then(|sensor| sensor.action(number)) else {
            return;
        };
        if self.kept == Kept::Disk {
            if self.disk.refuses_writes || self.disk.refuses_syncs {
                return self.retry_later(now, Retry::Accept(number));
            }
            let command = NotedCommand { number, action, is_ended: false };
            self.disk.notes.command = Some(command);
            self.command = Some(command);
        }
        if let Some(sensor) = &mut self.life {
            sensor.handle_accepted(number);
        }
    }

    fn execute(&mut self, now: Now, command: &Command) {
        let incarnation = self.truth.incarnation;
        *self.truth.executed.entry((incarnation, command.number)).or_default() += 1;
        for _ in 0..4 {
            let Some(sensor) = &mut self.life else { return };
            let told = sensor.handle_outcome(now, command.number, Outcome::Done, "");
            self.spool_chunks(now);
            if told != Err(IntakeError::Undrained) {
                break;
            }
        }
        self.end_command(now);
    }

    /// Marks the accepted command as ended once its outcome outlives a power cut.
    pub(super) fn end_command(&mut self, now: Now) {
        let (Some(command), Some(sensor)) = (self.command, &self.life) else { return };
        if sensor.action(command.number).is_some() {
            return;
        }
        self.command = None;
        if self.sync(now) && !self.disk.refuses_writes {
            self.disk.notes.command = Some(NotedCommand { is_ended: true, ..command });
        }
    }

    /// Tells of a command that an earlier process accepted and did not finish.
    pub(super) fn tell_interrupted(&mut self, now: Now) {
        let Some(command) = self.disk.notes.command.filter(|command| !command.is_ended) else {
            return;
        };
        if self.has_outcome(command.number) {
            self.disk.notes.command = Some(NotedCommand { is_ended: true, ..command });
            return;
        }
        for _ in 0..4 {
            let Some(sensor) = &mut self.life else { return };
            let told = sensor.handle_interrupted(now, command.number, command.action);
            self.spool_chunks(now);
            if told.is_ok() {
                break;
            }
        }
        self.command = Some(command);
        self.end_command(now);
    }
}
