//! What the core wants done outside, one arm for each event.

use lapwing_protocol::call::Reply;
use lapwing_protocol::code::Code;
use lapwing_protocol::command::Outcome;
use lapwing_protocol::id::{Lane, LogId};
use lapwing_sensor_core::{CloseReason, DialTarget, Event, Now};

use super::core::random_bytes;
use super::{Machine, Notice, PROGRESS_MS};

/// Bytes of an answer: its frame without a body.
const REPLY_BYTES: usize = 64;

impl Machine<'_> {
    /// Does the next thing the core wants, and says whether there was one.
    pub(super) fn handle_event(&mut self, now: Now) -> Result<bool, String> {
        let Some(event) = self.core.sensor.poll_event(now) else { return Ok(false) };
        match event {
            Event::AskRegistration { reason, trouble_with } => {
                let member = self.setup.member.clone();
                let addresses = self.setup.registration.clone();
                self.asking = Some(Box::pin(member.assign(addresses, reason, trouble_with)));
            }
            Event::DialDetection(target) => self.dial(target),
            Event::Close(reason) => {
                if reason != CloseReason::Stopped {
                    self.trouble(&reason.to_string());
                }
                self.drop_link(now);
            }
            Event::Greeted { .. } => {
                self.core.tally.sessions += 1;
                if !self.has_connected {
                    self.has_connected = true;
                    self.notify(Notice::Connected);
                }
            }
            Event::Acked { lane, log, server, acked, safe_seq } => {
                let stored = self.core.spool.stored((lane, log), server, acked, safe_seq);
                if log == self.core.sensor.positions(lane).log {
                    let news = self.core.acked(lane, acked);
                    self.counted.acked(news);
                }
                for (lane, log, first_seq) in stored.map_err(|error| error.to_string())? {
                    self.core.sensor.handle_trimmed(lane, log, first_seq);
                }
                self.progress_due_ns.get_or_insert(now.after_ms(PROGRESS_MS));
            }
            Event::Fetch { lane, log, seq } => self.fetch(now, (lane, log), seq)?,
            Event::Locate { lane, log, find } => {
                let found = self.core.spool.locate((lane, log), find);
                let found = found.map_err(|error| error.to_string())?;
                self.core.sensor.handle_located(now, lane, found);
            }
            Event::OpenLog { lane, cause, parent } => {
                let log = LogId(random_bytes().map_err(|error| error.to_string())?);
                let opened = self.core.spool.open_log(lane, log, (cause, Some(parent)));
                let opened = opened.map_err(|error| error.to_string())?;
                self.core.spool.drained(lane, parent.log);
                self.core.opened(lane, opened);
            }
            Event::LogDrained { lane, log } => {
                self.core.spool.drained(lane, log);
                self.core.sensor.handle_tail(lane, None);
                self.core.next_tail(now, lane);
            }
            Event::AcceptCommand(number) => self.core.sensor.handle_accepted(number),
            Event::ExecuteCommand(command) => {
                let number = command.number;
                let detail = "a sensor of a load carries nothing out";
                let outcome = Outcome::NotSupported;
                while self.core.sensor.handle_outcome(now, number, outcome, detail).is_err() {
                    self.core.spool_chunks(now);
                }
            }
            Event::Call { call, .. } => self.refuse(call),
            Event::Reply { .. } => {}
        }
        Ok(true)
    }

    fn dial(&mut self, target: DialTarget) {
        let (addresses, server) = match (target, &self.assigned) {
            (DialTarget::Assigned(server), Some((known, address))) if *known == server => {
                (vec![address.clone()], Some(server))
            }
            (DialTarget::Assigned(_) | DialTarget::Package, _) => {
                (self.setup.detection.clone(), None)
            }
        };
        let member = self.setup.member.clone();
        self.dialing = Some(Box::pin(member.connect(addresses, server)));
    }

    fn fetch(&mut self, now: Now, name: (Lane, LogId), seq: u64) -> Result<(), String> {
        let mut chunk = Vec::new();
        let found = self.core.spool.fetch(name, seq, &mut chunk);
        let is_there = found.map_err(|error| error.to_string())?;
        if is_there && self.core.sensor.handle_fetched(name.0, seq, &chunk).is_ok() {
            return Ok(());
        }
        match self.core.spool.damage(name, seq) {
            Some(hole) => self.core.sensor.handle_hole(now, name.0, hole),
            None => {
                return Err(format!("chunk {seq} is not in the spool, and was not acknowledged"));
            }
        }
        Ok(())
    }

    /// A load's sensor answers no questions.
    fn refuse(&mut self, call: u32) {
        let reply = Reply { call, more: false, code: Code::UNSUPPORTED, body: &[] };
        let mut frame = [0; REPLY_BYTES];
        if let (Ok(length), Some(link)) =
            (self.core.sensor.encode_reply(&reply, &mut frame), self.link.as_mut())
        {
            link.send(frame.get(..length).unwrap_or_default());
        }
    }
}
