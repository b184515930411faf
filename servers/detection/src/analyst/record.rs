//! What the analyst writes: evidence, outcomes, and how far it came.
//!
//! Not here: when. Keys in the state store: `e` evidence, `i` ids of evidence, `o` outcomes, `q`
//! ids of outcomes, and `a` with a name for the rest. Invariant: the cursor is never written before
//! what was found in front of it, and never goes back, unless the journal is another one.

use std::sync::Arc;

use lapwing_protocol::command::{CommandNumber, Outcome};
use lapwing_protocol::console::OutcomeView;
use lapwing_protocol::element::command_outcome;
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::id::{Incarnation, SensorId};
use lapwing_server_core::change::{Change, What};
use lapwing_server_core::evidence::Evidence;
use lapwing_server_core::rows::Row;
use lapwing_server_core::view::message_bytes;
use lapwing_store::{RowStore, StoreError};

use super::AnalystError;
use super::feed::{Feed, Item, Letters};
use super::intel::Reading;
use super::limits::{EVIDENCE_MAX, OUTCOMES_MAX, RECORD_BYTES, RECORD_ITEMS_MAX};
use crate::watch;

pub(crate) const INCARNATION_KEY: &[u8] = b"a/incarnation";
pub(crate) const CURSOR_KEY: &[u8] = b"a/cursor";
/// The incarnation of the journal that the cursor is of.
const JOURNAL_KEY: &[u8] = b"a/journal";
const READING_KEY: &[u8] = b"a/reading";

/// What is to be written, and where writing stands.
pub(super) struct Record {
    state: RowStore,
    evidence: Arc<Feed>,
    outcomes: Arc<Feed>,
    new_evidence: Vec<Item>,
    new_outcomes: Vec<Item>,
    bytes: usize,
    /// Rows of findings that are in the feed with the next batch.
    settled: Vec<Row>,
    /// The first commit id that must be judged after a restart, as written.
    cursor: u64,
    reading: Reading,
    reading_written: Reading,
}

impl Record {
    /// Reads where writing stands; makes the feeds' incarnation where there is none. Blocks.
    pub(super) fn open(state: RowStore) -> Result<Self, AnalystError> {
        let read = |key: &[u8]| state.get(key).map_err(AnalystError::State);
        let incarnation = match read(INCARNATION_KEY)?.and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => Incarnation(bytes),
            None => make_incarnation(&state)?,
        };
        let cursor = read(CURSOR_KEY)?.and_then(|bytes| from_bytes(&bytes).ok()).unwrap_or(1);
        let reading: Reading =
            read(READING_KEY)?.and_then(|bytes| from_bytes(&bytes).ok()).unwrap_or_default();
        let feed = |letters, items_max| {
            Feed::open(state.clone(), letters, incarnation, items_max)
                .map(Arc::new)
                .map_err(AnalystError::State)
        };
        let mut record = Self {
            evidence: feed(Letters { item: b'e', id: b'i' }, EVIDENCE_MAX)?,
            outcomes: feed(Letters { item: b'o', id: b'q' }, OUTCOMES_MAX)?,
            new_evidence: Vec::new(),
            new_outcomes: Vec::new(),
            bytes: 0,
            settled: Vec::new(),
            cursor,
            reading,
            reading_written: reading,
            state,
        };
        record.find_again()?;
        Ok(record)
    }

    /// Findings that were stored and are not in the feed yet. Blocks.
    fn find_again(&mut self) -> Result<(), AnalystError> {
        let rows = self.state.scan(&[watch::FOUND], &[watch::FOUND + 1]);
        for (key, value) in rows.map_err(AnalystError::State)? {
            match Evidence::from_bytes(&value) {
                Ok(evidence) => self.add_found(&evidence),
                Err(_) => self.settled.push(Row::remove(key)),
            }
        }
        Ok(())
    }

    /// The feeds of evidence and of outcomes.
    pub(super) fn feeds(&self) -> (Arc<Feed>, Arc<Feed>) {
        (Arc::clone(&self.evidence), Arc::clone(&self.outcomes))
    }

    /// The first commit id that must be judged.
    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Whether the cursor is not one of the journal of this incarnation that ends with `end`.
    pub(super) fn is_of_another(
        &self,
        journal: Incarnation,
        end: u64,
    ) -> Result<bool, AnalystError> {
        let known = self.state.get(JOURNAL_KEY).map_err(AnalystError::State)?;
        // One that was written by an older version has no incarnation beside it.
        let differs = known.is_some_and(|known| known != journal.0);
        Ok(differs || self.cursor > end.saturating_add(1))
    }

    /// Writes whose the cursor is; one of another journal goes back to the beginning. Blocks.
    pub(super) fn begin(&mut self, journal: Incarnation, anew: bool) -> Result<(), AnalystError> {
        let mut rows = vec![Row { key: JOURNAL_KEY.to_vec(), value: Some(journal.0.to_vec()) }];
        if anew {
            self.cursor = 1;
            rows.push(Row::put(CURSOR_KEY.to_vec(), &self.cursor));
        }
        let committing = self.state.submit(rows).map_err(AnalystError::State)?;
        smol::block_on(committing.durable()).map(drop).map_err(AnalystError::State)
    }

    /// Where the feed of changed verdicts was read to.
    pub(super) fn reading(&self) -> Reading {
        self.reading
    }

    pub(super) fn set_reading(&mut self, reading: Reading) {
        self.reading = reading;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.new_evidence.is_empty() && self.new_outcomes.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.new_evidence.len() >= RECORD_ITEMS_MAX || self.bytes >= RECORD_BYTES
    }

    pub(super) fn add_evidence(&mut self, evidence: &Evidence) {
        let body = evidence.to_bytes();
        self.bytes += body.len();
        self.new_evidence.push(Item { id: evidence.evidence.0, body });
    }

    /// Adds a finding that has a row of its own, which goes once it is in the feed.
    pub(super) fn add_found(&mut self, evidence: &Evidence) {
        self.settled.push(Row::remove(watch::key(evidence)));
        self.add_evidence(evidence);
    }

    /// Keeps the outcome of a command, where the change is one.
    pub(super) fn handle_change(&mut self, sensor: SensorId, received_ms: u64, change: &Change) {
        if change.model.kind != command_outcome::KIND || change.what != What::Happened {
            return;
        }
        let number = |feature| change.value(feature)?.number();
        let (Some(issuer), Some(seq), Some(outcome)) = (
            number(command_outcome::issuer),
            number(command_outcome::command_seq),
            number(command_outcome::outcome),
        ) else {
            return;
        };
        let outcome = usize::try_from(outcome).ok().and_then(|at| Outcome::ALL.get(at));
        let Some(outcome) = outcome.copied() else { return };
        let detail = change.value(command_outcome::detail).and_then(|value| value.text());
        let number = CommandNumber { issuer, seq };
        let detail = &*detail.unwrap_or_default();
        let body = message_bytes(&OutcomeView { sensor, number, outcome, detail, received_ms });
        self.bytes += body.len();
        self.new_outcomes.push(Item { id: change.guid.0, body });
    }

    /// Writes what was added, durably, then shows it to readers. `cursor` is written with it.
    pub(super) async fn write(&mut self, cursor: Option<u64>) -> Result<(), AnalystError> {
        let evidence = std::mem::take(&mut self.new_evidence);
        let outcomes = std::mem::take(&mut self.new_outcomes);
        let settled = std::mem::take(&mut self.settled);
        self.bytes = 0;
        let cursor = cursor.filter(|cursor| *cursor > self.cursor);
        let reading = (self.reading != self.reading_written).then_some(self.reading);
        if evidence.is_empty() && outcomes.is_empty() && cursor.is_none() && reading.is_none() {
            return Ok(());
        }
        let (of_evidence, of_outcomes) = self.feeds();
        let state = self.state.clone();
        let submitting = smol::unblock(move || {
            let mut rows = Vec::new();
            let evidence = add_to(&of_evidence, &mut rows, evidence)?;
            let outcomes = add_to(&of_outcomes, &mut rows, outcomes)?;
            rows.extend(settled);
            rows.extend(cursor.map(|cursor| Row::put(CURSOR_KEY.to_vec(), &cursor)));
            rows.extend(reading.map(|reading| Row::put(READING_KEY.to_vec(), &reading)));
            Ok::<_, StoreError>((state.submit(rows)?, evidence, outcomes))
        });
        let (committing, evidence, outcomes) = submitting.await.map_err(AnalystError::State)?;
        committing.durable().await.map_err(AnalystError::State)?;
        self.evidence.publish(evidence.last, evidence.floor);
        self.outcomes.publish(outcomes.last, outcomes.floor);
        self.cursor = cursor.unwrap_or(self.cursor);
        self.reading_written = reading.unwrap_or(self.reading_written);
        Ok(())
    }
}

/// Where a feed stands once a batch is durable.
struct Standing {
    last: u64,
    floor: u64,
}

/// Adds the rows of those of `items` that the feed does not have. Blocks.
fn add_to(feed: &Feed, rows: &mut Vec<Row>, items: Vec<Item>) -> Result<Standing, StoreError> {
    let mut last = feed.durable();
    for item in feed.unknown(items)? {
        last += 1;
        rows.extend(feed.rows_of(last, &item));
    }
    let (removals, floor) = feed.trim(last)?;
    rows.extend(removals);
    Ok(Standing { last, floor })
}

fn make_incarnation(state: &RowStore) -> Result<Incarnation, AnalystError> {
    let mut bytes = [0; 16];
    // Without chance the time stands in: it must differ from other lives of this store only.
    if getrandom::fill(&mut bytes).is_err() {
        bytes[..8].copy_from_slice(&lapwing_net::clock::unix_ms().to_be_bytes());
    }
    let row = Row { key: INCARNATION_KEY.to_vec(), value: Some(bytes.to_vec()) };
    let committing = state.submit(vec![row]).map_err(AnalystError::State)?;
    smol::block_on(committing.durable()).map_err(AnalystError::State)?;
    Ok(Incarnation(bytes))
}
