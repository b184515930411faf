//! Outcomes from the Detection servers' feeds close actions, each once.

use lapwing_protocol::command::Outcome;
use lapwing_protocol::console::OutcomeView;
use lapwing_protocol::fleet::ActionState;
use lapwing_protocol::id::{SensorId, ServerId};

use super::Fleet;
use super::limits::DETAIL_BYTES_MAX;
use super::record::{CursorRecord, key};
use super::sighting::cut;
use crate::rows::Row;

/// What a page of outcomes led to. Store the rows in one batch.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// Actions that got their outcome.
    pub closed: usize,
    /// Outcomes that were told before, or are of another issuer or of a forgotten batch.
    pub ignored: usize,
    /// What to store, the new cursor included.
    pub rows: Vec<Row>,
}

impl Fleet {
    /// A page of the feed of outcomes of `server`, and where it ends.
    pub fn handle_outcomes<'a>(
        &mut self,
        server: ServerId,
        next: CursorRecord,
        outcomes: impl Iterator<Item = OutcomeView<'a>>,
    ) -> Judged {
        let mut judged = Judged::default();
        for outcome in outcomes {
            let rows = self.judge(&outcome);
            match rows.is_empty() {
                true => judged.ignored += 1,
                false => judged.closed += 1,
            }
            judged.rows.extend(rows);
        }
        let known = self.server_mut(server);
        if known.cursor != next {
            known.cursor = next;
            judged.rows.push(Row::put(key::cursor(server), &next));
        }
        judged
    }

    fn judge(&mut self, view: &OutcomeView<'_>) -> Vec<Row> {
        let (sensor, seq) = (view.sensor, view.number.seq);
        let Some((record, batch)) = self.action(sensor, seq) else { return Vec::new() };
        if view.number.issuer != self.issuer || !record.takes(view.outcome) {
            return Vec::new();
        }
        let action = batch.action;
        let closed = self.change(sensor, seq, |record| {
            record.state = ActionState::Finished(view.outcome);
            record.detail = cut(view.detail, DETAIL_BYTES_MAX);
            record.updated_ms = view.received_ms;
        });
        let mut rows: Vec<Row> = closed.into_iter().collect();
        if view.outcome == Outcome::Done {
            rows.extend(self.done(sensor, seq, action));
        }
        rows
    }

    fn done(
        &mut self,
        sensor: SensorId,
        seq: u64,
        action: lapwing_protocol::command::Action,
    ) -> Option<Row> {
        let known = self.sensors.get_mut(&sensor)?;
        let before = known.record.collection;
        known.record.collection.note_done(seq, action);
        (known.record.collection != before).then(|| Row::put(key::sensor(sensor), &known.record))
    }
}
