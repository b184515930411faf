//! Commands: made durable before they are carried out, and their outcome told as a fact.
//!
//! Served here: start and stop of collection, restart. The others are answered as not supported.
//! Invariants: a command that this process does not finish is told as interrupted by the next one,
//! and is not run again; a command whose outcome is in the spool has ended, whatever the mark says.

use lapwing_protocol::command::{Action, Command, CommandNumber, Outcome};
use lapwing_protocol::id::Lane;
use lapwing_sensor_core::Now;

use super::limits::DETAIL_BYTES_MAX;
use super::{Ended, Retry, Runner};
use crate::config::Mode;
use crate::identity::{CommandState, StateError, StoredCommand};
use crate::spool::view::has_outcome;

impl Runner<'_> {
    /// Makes a command's number durable as the last accepted one.
    pub(super) fn accept(&mut self, now: Now, number: CommandNumber) {
        let Some(action) = self.sensor.action(number) else { return };
        let command = StoredCommand { number, action, state: CommandState::Accepted };
        if cfg!(mutant = "number_after_action") {
            self.sensor.handle_accepted(number);
            self.command = Some(command);
            return;
        }
        match self.state.save_command(&command) {
            Ok(()) => {
                self.sensor.handle_accepted(number);
                self.command = Some(command);
            }
            Err(error) => {
                log::error!("a command waits: {error}");
                self.retry_later(now, Retry::Accept(number));
            }
        }
    }

    pub(super) fn execute(&mut self, now: Now, command: &Command) {
        log::info!("command {}: {}", command.number.seq, command.action.name());
        let (outcome, detail) = match command.action {
            Action::StartCollection => done(self.set_collecting(true)),
            Action::StopCollection => done(self.set_collecting(false)),
            Action::Restart => {
                self.ended = Some(Ended::Restart);
                (Outcome::Done, "the sensor starts again".into())
            }
            Action::Isolate | Action::Unisolate | Action::Upgrade => {
                (Outcome::NotSupported, "this version of the sensor cannot do it".into())
            }
        };
        let end = detail.floor_char_boundary(detail.len().min(DETAIL_BYTES_MAX));
        for _ in 0..super::INTAKE_ATTEMPTS {
            let told = self.sensor.handle_outcome(now, command.number, outcome, &detail[..end]);
            self.spool_chunks(now);
            if told.is_ok() {
                break;
            }
        }
        self.end_command(now);
    }

    /// Marks the accepted command as ended once its outcome, whoever told it, is in the spool and
    /// outlives a power cut. Until then the next start looks for it there.
    pub(super) fn end_command(&mut self, now: Now) {
        let Some(command) = self.command else { return };
        if self.sensor.action(command.number).is_some() {
            return;
        }
        if self.config.spool.mode == Mode::Memory {
            let urgent = self.sensor.positions(Lane::Urgent);
            if urgent.acked.seq < urgent.made.seq {
                // Nothing but a server keeps it: it has ended when one has the outcome.
                return;
            }
        }
        if self.losses.is_failing {
            // The outcome may have gone into a hole; then the next start tells of it.
            self.command = None;
            return;
        }
        self.command = None;
        match self.sync_spool(now) {
            Ok(()) => self.save_ended(command),
            Err(error) => log::error!("{error}"),
        }
    }

    fn save_ended(&self, command: StoredCommand) {
        let ended = StoredCommand { state: CommandState::Ended, ..command };
        if let Err(error) = self.state.save_command(&ended) {
            log::error!("{error}");
        }
    }

    /// Starts or stops collection, durably.
    fn set_collecting(&mut self, is_collecting: bool) -> Result<(), StateError> {
        self.state.save_collection_stopped(!is_collecting)?;
        self.is_collecting = is_collecting;
        self.sensor.set_collecting(is_collecting);
        if let Some(collectors) = &mut self.collectors {
            if is_collecting { collectors.start() } else { collectors.stop() }
        }
        self.is_news = true;
        Ok(())
    }

    /// Tells of a command that an earlier process accepted and did not finish.
    pub(super) fn tell_interrupted(&mut self, now: Now) {
        let Some(command) = self.state.command() else { return };
        if command.state == CommandState::Ended || cfg!(mutant = "interrupted_unsaid") {
            return;
        }
        let folder = self.state.path().join("spool");
        match has_outcome(&folder, command.number) {
            Ok(true) => return self.save_ended(command),
            Ok(false) => {}
            Err(error) => log::error!("{}: {error}", folder.display()),
        }
        for _ in 0..super::INTAKE_ATTEMPTS {
            let told = self.sensor.handle_interrupted(now, command.number, command.action);
            self.spool_chunks(now);
            if told.is_ok() {
                break;
            }
        }
        self.command = Some(command);
        self.end_command(now);
    }
}

fn done(result: Result<(), StateError>) -> (Outcome, String) {
    match result {
        Ok(()) => (Outcome::Done, String::new()),
        Err(error) => (Outcome::Failed, error.to_string()),
    }
}
