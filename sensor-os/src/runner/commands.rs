//! Commands: made durable before they are carried out, and their outcome told as a fact.
//!
//! Served here: start and stop of collection, restart. The others are answered as not supported.
//! Invariant: a command that this process does not finish is told as interrupted by the next one,
//! and is not run again.

use lapwing_protocol::command::{Action, Command, CommandNumber, Outcome};
use lapwing_sensor_core::Now;

use super::limits::DETAIL_BYTES_MAX;
use super::{Ended, Retry, Runner};
use crate::identity::{CommandState, StateError, StoredCommand};

impl Runner<'_> {
    /// Makes a command's number durable as the last accepted one.
    pub(super) fn accept(&mut self, now: Now, number: CommandNumber) {
        let Some(action) = self.sensor.action(number) else { return };
        let command = StoredCommand { number, action, state: CommandState::Accepted };
        match self.state.save_command(&command) {
            Ok(()) => self.sensor.handle_accepted(number),
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
        let Command { number, action, .. } = *command;
        let ended = StoredCommand { number, action, state: CommandState::Ended };
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
        if command.state == CommandState::Ended {
            return;
        }
        for _ in 0..super::INTAKE_ATTEMPTS {
            let told = self.sensor.handle_interrupted(now, command.number, command.action);
            self.spool_chunks(now);
            if told.is_ok() {
                break;
            }
        }
        let ended = StoredCommand { state: CommandState::Ended, ..command };
        if let Err(error) = self.state.save_command(&ended) {
            log::error!("{error}");
        }
    }
}

fn done(result: Result<(), StateError>) -> (Outcome, String) {
    match result {
        Ok(()) => (Outcome::Done, String::new()),
        Err(error) => (Outcome::Failed, error.to_string()),
    }
}
