//! Bringing commands to the Detection servers: one at a time for each sensor, in the order of their
//! numbers, again until they are queued, and again where the sensor moved meanwhile.

use lapwing_protocol::code::Code;
use lapwing_protocol::command::{CommandNumber, Outcome};
use lapwing_protocol::console::CommandPut;
use lapwing_protocol::fleet::ActionState;
use lapwing_protocol::id::{SensorId, ServerId};

use super::Fleet;
use super::limits::{DETAIL_BYTES_MAX, PUT_RETRY_MS};
use super::sighting::cut;
use crate::rows::Row;

/// A command to put, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    /// At which Detection server.
    pub server: ServerId,
    /// The command.
    pub command: CommandPut,
}

/// What became of a put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutAnswer {
    /// The server queued it durably.
    Queued,
    /// The server said no.
    Refused {
        /// The registry's number.
        code: Code,
        /// Its words.
        text: String,
    },
    /// The server was not reached, or did not answer; it may have queued it.
    Failed {
        /// Why, for a person.
        text: String,
    },
}

/// The putting of one sensor's commands.
#[derive(Debug)]
pub(super) struct Attempt {
    /// What was last tried.
    seq: u64,
    /// When it may be tried again, monotonic; `None` while an answer is awaited.
    again_ms: Option<u64>,
}

impl Fleet {
    /// The next command to put. Answer each by [`Self::handle_put`]. Sensors take turns, so that
    /// those behind many that wait are not looked at last each time.
    pub fn poll_put(&mut self, now_ms: u64, unix_ms: u64) -> Option<Put> {
        let start = self.turn;
        let put = self
            .due_between(now_ms, unix_ms, start, None)
            .or_else(|| self.due_between(now_ms, unix_ms, None, start))?;
        let sensor = put.command.sensor;
        self.turn = Some(sensor);
        let attempt = Attempt { seq: put.command.number.seq, again_ms: None };
        self.puts.insert(sensor, attempt);
        Some(put)
    }

    /// A put was answered, or was not. Returns the row to store, where something changed.
    pub fn handle_put(
        &mut self,
        now_ms: u64,
        unix_ms: u64,
        put: &Put,
        answer: &PutAnswer,
    ) -> Option<Row> {
        let (sensor, seq) = (put.command.sensor, put.command.number.seq);
        let (state, text) = match answer {
            // Its number is not above the last one there: an earlier put of it arrived.
            PutAnswer::Queued | PutAnswer::Refused { code: Code::STALE_COMMAND, .. } => {
                (ActionState::Queued, "")
            }
            PutAnswer::Refused { code: Code::EXPIRED, text } => (ActionState::Expired, &**text),
            PutAnswer::Refused {
                code: Code::BAD_ARGUMENT | Code::FORBIDDEN | Code::MALFORMED | Code::REVOKED,
                text,
            } => (ActionState::Finished(Outcome::Failed), &**text),
            PutAnswer::Refused { code: Code::UNSUPPORTED | Code::UNKNOWN_KIND, text } => {
                (ActionState::Finished(Outcome::NotSupported), &**text)
            }
            PutAnswer::Refused { text, .. } | PutAnswer::Failed { text } => {
                let attempt = Attempt { seq, again_ms: Some(now_ms.saturating_add(PUT_RETRY_MS)) };
                self.puts.insert(sensor, attempt);
                return self.note_waiting(unix_ms, sensor, seq, text);
            }
        };
        self.puts.remove(&sensor);
        let (record, _) = self.action(sensor, seq)?;
        if !record.is_open() {
            return None; // The outcome was faster than the answer.
        }
        self.change(sensor, seq, |record| {
            record.state = state;
            record.queued_at = (state == ActionState::Queued).then_some(put.server);
            record.detail = cut(text, DETAIL_BYTES_MAX);
            record.updated_ms = unix_ms;
        })
    }

    /// Whether a put of this command was begun whose result is not known.
    pub(super) fn was_tried(&self, sensor: SensorId, seq: u64) -> bool {
        self.puts.get(&sensor).is_some_and(|attempt| attempt.seq == seq)
    }

    /// Shows why a command still waits; stored once for each reason.
    fn note_waiting(
        &mut self,
        unix_ms: u64,
        sensor: SensorId,
        seq: u64,
        text: &str,
    ) -> Option<Row> {
        let detail = cut(text, DETAIL_BYTES_MAX);
        let (record, _) = self.action(sensor, seq)?;
        if !record.is_open() || record.detail == detail {
            return None;
        }
        self.change(sensor, seq, |record| {
            record.detail = detail;
            record.updated_ms = unix_ms;
        })
    }

    /// Looks at the sensors behind `after`, up to `last`.
    fn due_between(
        &self,
        now_ms: u64,
        unix_ms: u64,
        mut after: Option<SensorId>,
        last: Option<SensorId>,
    ) -> Option<Put> {
        loop {
            let mut rest = match after {
                Some(sensor) => self.open.range((sensor, u64::MAX)..),
                None => self.open.range((SensorId([0; 16]), 0)..),
            };
            let (sensor, _) = rest.next()?;
            if last.is_some_and(|last| *sensor > last) {
                return None;
            }
            if let Some(put) = self.due(now_ms, unix_ms, *sensor) {
                return Some(put);
            }
            after = Some(*sensor);
        }
    }

    fn due(&self, now_ms: u64, unix_ms: u64, sensor: SensorId) -> Option<Put> {
        if let Some(attempt) = self.puts.get(&sensor)
            && attempt.again_ms.is_none_or(|again_ms| now_ms < again_ms)
        {
            return None;
        }
        let known = self.sensors.get(&sensor)?;
        let server = self.best(now_ms, known).map_or(known.record.server, |(server, _)| server);
        self.open_of(sensor).find_map(|seq| {
            let batch_number = self.batch_by_number.get(&(sensor, seq))?;
            let (record, batch) = self.action(sensor, seq)?;
            let is_there = record.queued_at == Some(server);
            let may = !self.held.contains(batch_number) && unix_ms < batch.expires_ms;
            let command = CommandPut {
                sensor,
                number: CommandNumber { issuer: self.issuer, seq },
                expires_ms: batch.expires_ms,
                action: batch.action,
            };
            (may && !is_there).then_some(Put { server, command })
        })
    }
}
