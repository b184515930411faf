//! The export of stored facts: the journal read from its beginning, decoded, page by page.
//!
//! Not here: the live graph. A page goes on where the one before ended; its decoders are kept for
//! that, so that reading on costs no rebuilding. A cursor that is not kept is read up to from the
//! beginning, which gives the same answer later.
//!
//! Invariant: every stored fact once, in commit order; a hole, an undecoded chunk, one whose facts
//! do not fit a page and one that cannot be read have a row each.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use lapwing_protocol::console::EventView;
use lapwing_protocol::delivery::{Jump, JumpCause};
use lapwing_protocol::id::{DeploymentId, ElementGuid, Lane, LogId, SensorId};
use lapwing_protocol::items::Items;
use lapwing_server_core::change::Change;
use lapwing_server_core::view::{OwnedCell, OwnedNamedCell, named_cells_bytes, push_item};
use lapwing_store::StoreError;
use lapwing_store::journal::{Journal, PageLimit};

use crate::console::Facts;
use crate::damage::{self, Damaged, Owner, Step};
use crate::follow::{Content, Decoders, Followed};
use crate::roster::Roster;

/// Exports under way whose decoders are kept.
const READERS_MAX: usize = 4;
/// Bytes of events at which a page is full.
const PAGE_BYTES: usize = 2 << 20;
/// Bytes that the events of one entry may have; with more, one row says so in their place. A chunk
/// names a string of 255 bytes with two, and a page must stay below the bound of a reply.
const ENTRY_BYTES_MAX: usize = 4 << 20;
/// Entries read at a time.
const READ: PageLimit = PageLimit { entries: 64, bytes: 1 << 20 };

/// Exports the facts of one journal.
#[derive(Debug)]
pub(crate) struct Exporter {
    journal: Arc<Journal>,
    roster: Arc<Roster>,
    deployment: DeploymentId,
    rows_max: u32,
    readers: Mutex<Vec<Reader>>,
}

/// Where an export stands.
#[derive(Debug)]
struct Reader {
    next: u64,
    decoders: Decoders,
    /// Entries that were read and did not fit the page: at most [`READ`].
    waiting: VecDeque<Step>,
    /// Where the journal is read on.
    read_next: u64,
}

impl Reader {
    fn new(deployment: DeploymentId, rows_max: u32) -> Self {
        let decoders = Decoders::new(deployment, rows_max);
        Self { next: 1, decoders, waiting: VecDeque::new(), read_next: 1 }
    }

    /// The next entry, or what cannot be read in its place; `None` at the journal's end.
    fn step(&mut self, journal: &Journal) -> Result<Option<Step>, StoreError> {
        while self.waiting.is_empty() {
            let read = damage::read(journal, self.read_next, READ)?;
            if read.steps.is_empty() && read.next == self.read_next {
                return Ok(None);
            }
            // What retention took away is passed over.
            self.next = self.next.max(read.steps.first().map_or(read.next, Step::commit));
            self.read_next = read.next;
            self.waiting.extend(read.steps);
        }
        let step = self.waiting.pop_front();
        self.next = self.waiting.front().map_or(self.read_next, Step::commit);
        Ok(step)
    }
}

impl Exporter {
    pub(crate) fn new(
        journal: Arc<Journal>,
        roster: Arc<Roster>,
        deployment: DeploymentId,
        rows_max: u32,
    ) -> Self {
        Self { journal, roster, deployment, rows_max, readers: Mutex::default() }
    }

    /// The facts from `cursor` on, about `limit` of them. Blocks.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(crate) fn page(&self, cursor: u64, limit: usize) -> Result<Facts, StoreError> {
        let mut reader = self.reader(cursor)?;
        let mut page = Facts::default();
        let mut count = 0;
        while count < limit && page.items.len() < PAGE_BYTES {
            let Some(step) = reader.step(&self.journal)? else {
                page.at_end = true;
                break;
            };
            let entry = match step {
                Step::Entry(entry) => entry,
                Step::Damaged(damaged) => {
                    self.push_damaged(&mut page.items, &damaged);
                    count += 1;
                    continue;
                }
            };
            if let Some(followed) = reader.decoders.decode_behind(&self.journal, &entry)? {
                count += self.push(&mut page.items, &followed);
            }
        }
        page.next_cursor = reader.next;
        self.keep(reader);
        Ok(page)
    }

    fn reader(&self, cursor: u64) -> Result<Reader, StoreError> {
        let cursor = cursor.max(1);
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = readers.iter().position(|reader| reader.next == cursor) {
            return Ok(readers.swap_remove(found));
        }
        drop(readers);
        let mut reader = Reader::new(self.deployment, self.rows_max);
        while reader.next < cursor {
            let Some(step) = reader.step(&self.journal)? else { break };
            if let Step::Entry(entry) = step {
                reader.decoders.decode_behind(&self.journal, &entry)?;
            }
        }
        Ok(reader)
    }

    fn keep(&self, reader: Reader) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.push(reader);
        if readers.len() > READERS_MAX {
            readers.remove(0);
        }
    }

    /// The name of a sensor's machine.
    fn machine(&self, sensor: SensorId) -> String {
        let machine = self.roster.find(sensor);
        machine.map(|member| member.about().record.name.clone()).unwrap_or_default()
    }

    /// Appends the row of what cannot be read.
    fn push_damaged(&self, items: &mut Vec<u8>, damaged: &Damaged) {
        let Damaged { commits, what, owner } = damaged;
        let fields = named_cells_bytes(&[
            named("commit", OwnedCell::U64(commits.start)),
            named("count", OwnedCell::U64(commits.end - commits.start)),
            named("reason", OwnedCell::Text(what.clone())),
        ]);
        let nobody =
            Owner { sensor: SensorId([0; 16]), lane: Lane::Bulk, log: LogId([0; 16]), seq: 0 };
        let Owner { sensor, lane, log, seq } = owner.unwrap_or(nobody);
        let view = EventView {
            sensor,
            machine: &self.machine(sensor),
            lane,
            log,
            seq,
            index: 0,
            source_seq: None,
            time_ns: 0,
            received_ms: 0,
            kind: "",
            op: "damaged",
            element: ElementGuid([0; 16]),
            fields: Items::from_bytes(&fields),
        };
        push_item(items, &view);
    }

    /// Appends the rows of one entry; gives their number.
    fn push(&self, items: &mut Vec<u8>, followed: &Followed) -> usize {
        let machine = self.machine(followed.sensor);
        let row = Row { followed, machine: &machine };
        match &followed.content {
            Content::Changes(decoded) => {
                let facts = decoded.changes.iter().filter(|change| change.index.is_some());
                let before = items.len();
                let mut count = 0;
                for change in facts {
                    row.change(items, change);
                    count += 1;
                    if items.len() - before > ENTRY_BYTES_MAX {
                        items.truncate(before);
                        let facts = decoded.changes.iter().filter(|it| it.index.is_some()).count();
                        let count = OwnedCell::U64(facts as u64);
                        row.other(items, "oversized", &[named("count", count)]);
                        return 1;
                    }
                }
                for (reason, dropped) in &decoded.dropped {
                    let fields = [
                        named("count", OwnedCell::U64(*dropped)),
                        named("reason", OwnedCell::Text(format!("{reason:?}"))),
                    ];
                    row.other(items, "dropped", &fields);
                }
                count + decoded.dropped.len()
            }
            Content::Jump(jump) => {
                row.other(items, "jump", &jump_fields(jump));
                1
            }
            Content::Undecoded(error, count) => {
                let fields = [
                    named("count", OwnedCell::U64(*count)),
                    named("reason", OwnedCell::Text(error.to_string())),
                ];
                row.other(items, "undecoded", &fields);
                1
            }
            Content::Unreadable(error) => {
                let reason = OwnedCell::Text(error.to_string());
                row.other(items, "unreadable", &[named("reason", reason)]);
                1
            }
        }
    }
}

fn named(name: &str, value: OwnedCell) -> OwnedNamedCell {
    (name.to_owned(), value)
}

fn jump_fields(jump: &Jump) -> Vec<OwnedNamedCell> {
    let cause = match jump.cause {
        JumpCause::Dropped(reason) => format!("dropped: {reason:?}"),
        JumpCause::StoredElsewhere(server) => format!("stored elsewhere: {server}"),
        JumpCause::Lost(reason) => format!("lost: {reason:?}"),
    };
    vec![
        named("from_seq", OwnedCell::U64(jump.from_seq)),
        named("to_seq", OwnedCell::U64(jump.to_seq)),
        named("to_index", jump.to_index.map_or(OwnedCell::Absent, OwnedCell::U64)),
        named("cause", OwnedCell::Text(cause)),
    ]
}

/// Writes rows of one entry.
struct Row<'f> {
    followed: &'f Followed,
    machine: &'f str,
}

impl Row<'_> {
    fn change(&self, items: &mut Vec<u8>, change: &Change) {
        let fields: Vec<OwnedNamedCell> = change
            .fields
            .iter()
            .filter_map(|(feature, value)| {
                let model = change.model.feature(*feature)?;
                Some((model.name.to_string(), OwnedCell::from(value)))
            })
            .collect();
        let fields = named_cells_bytes(&fields);
        let view = EventView {
            index: change.index.unwrap_or_default(),
            source_seq: change.source_seq,
            time_ns: change.wall_ns,
            kind: &change.model.name,
            op: change.what.name(),
            element: change.guid,
            fields: Items::from_bytes(&fields),
            ..self.blank()
        };
        push_item(items, &view);
    }

    fn other(&self, items: &mut Vec<u8>, op: &str, fields: &[OwnedNamedCell]) {
        let fields = named_cells_bytes(fields);
        let view = EventView { op, fields: Items::from_bytes(&fields), ..self.blank() };
        push_item(items, &view);
    }

    fn blank(&self) -> EventView<'_> {
        EventView {
            sensor: self.followed.sensor,
            machine: self.machine,
            lane: self.followed.lane,
            log: self.followed.log,
            seq: self.followed.seq,
            index: self.followed.first_index,
            source_seq: None,
            time_ns: self.followed.received_ms.saturating_mul(1_000_000),
            received_ms: self.followed.received_ms,
            kind: "",
            op: "",
            element: ElementGuid([0; 16]),
            fields: Items::EMPTY,
        }
    }
}
