//! Entries of the journal that cannot be read: reading on behind them, whose they are, and saying
//! so.
//!
//! Not here: a scan, which names each of them for itself (ledger/scan.rs).
//!
//! Invariants: a damaged entry takes nothing with it but itself and what builds on it; a store that
//! cannot be read at all is no damage, and ends who reads it. What was met is said until it can be
//! read again or retention has dropped it, over restarts too.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lapwing_net::metrics::Metrics;
use lapwing_net::notice::Notice;
use lapwing_protocol::delivery::Jump;
use lapwing_protocol::error::from_bytes;
use lapwing_protocol::id::{Lane, LogId, SensorId};
use lapwing_server_core::delivery::HeadRecord;
use lapwing_server_core::rows::{self, Row};
use lapwing_store::journal::{Entry, Journal, PageLimit};
use lapwing_store::{Operation, RowStore, StoreError};
use prometheus_client::metrics::counter::Counter;

use crate::ingest::{EntryForm, EntryHeader};
use crate::roster::lane_of;

/// Places that are kept and looked at again at each start; what is beyond is counted alone. So
/// their row stays far below the bound of a stored value.
const KEPT_MAX: usize = 16;
/// Letters of an error that are kept.
const TEXT_CHARS_MAX: usize = 160;
/// Damages of one read that an owner is looked for outside of it: where more are damaged, looking
/// would read the journal again and again.
const SEARCHED_MAX: usize = 16;
/// Pages behind a read in which the owner of a damaged entry is looked for.
const SEARCH_PAGES: usize = 8;
/// Entries that are read one by one there, where a page cannot be read.
const SINGLY: u64 = 64;
const KEPT_KEY: &[u8] = b"a/damaged";

/// Entries that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damaged {
    /// Which; more than one where a whole partition is damaged.
    pub(crate) commits: Range<u64>,
    /// What the store says of it.
    pub(crate) what: String,
    /// Whose it is, where another entry or a head tells.
    pub(crate) owner: Option<Owner>,
}

impl Damaged {
    fn is_one(&self) -> bool {
        self.commits.end - self.commits.start == 1
    }
}

/// Whose a damaged entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) sensor: SensorId,
    pub(crate) lane: Lane,
    pub(crate) log: LogId,
    /// Its sequence; the last one of a Jump.
    pub(crate) seq: u64,
}

/// One step of a read, in commit order.
#[derive(Debug)]
pub(crate) enum Step {
    /// An entry.
    Entry(Entry),
    /// Something that cannot be read in its place.
    Damaged(Damaged),
}

impl Step {
    /// Its first commit id.
    pub(crate) fn commit(&self) -> u64 {
        match self {
            Self::Entry(entry) => entry.commit_id,
            Self::Damaged(damaged) => damaged.commits.start,
        }
    }
}

/// What was read, past what could not be.
#[derive(Debug, Default)]
pub(crate) struct Passage {
    pub(crate) steps: Vec<Step>,
    /// Where to read on; where it began when there is nothing more.
    pub(crate) next: u64,
}

/// Reads from commit id `from` on. Blocks.
///
/// # Errors
/// The store cannot be read, and not for damage.
pub(crate) fn read(journal: &Journal, from: u64, limit: PageLimit) -> Result<Passage, StoreError> {
    match journal.read_from(from, limit) {
        Ok(page) => {
            let steps = page.entries.into_iter().map(Step::Entry).collect();
            Ok(Passage { steps, next: page.next })
        }
        Err(error) if error.is_damage() => one_by_one(journal, from.max(1), limit),
        Err(error) => Err(error),
    }
}

/// As [`read`], each entry by itself.
fn one_by_one(journal: &Journal, from: u64, limit: PageLimit) -> Result<Passage, StoreError> {
    let mut passage = Passage { steps: Vec::new(), next: from };
    let mut left = limit;
    while passage.next <= journal.durable() && left.entries > 0 && left.bytes > 0 {
        left.entries -= 1;
        let commit = passage.next;
        passage.next += 1;
        match journal.entry(commit) {
            Ok(Some(entry)) => {
                left.bytes = left.bytes.saturating_sub(entry.header.len() + entry.body.len());
                passage.steps.push(Step::Entry(entry));
            }
            Ok(None) => {}
            Err(error) if error.is_damage() => {
                if error.operation == Operation::Open {
                    passage.next = partition_end(journal, commit)?.max(passage.next);
                }
                let (commits, what) = (commit..passage.next, error.to_string());
                passage.steps.push(Step::Damaged(Damaged { commits, what, owner: None }));
            }
            Err(error) => return Err(error),
        }
    }
    find_owners(journal, &mut passage);
    Ok(passage)
}

/// The first commit id behind the partition that `commit` lies in: none of its entries opens.
fn partition_end(journal: &Journal, commit: u64) -> Result<u64, StoreError> {
    let partitions = journal.partitions()?;
    let behind = partitions.iter().map(|it| it.first).filter(|first| *first > commit).min();
    Ok(behind.unwrap_or(commit + 1))
}

/// Says whose the damaged entries are: the next entry of their log names each as the one before it,
/// or its head as its last.
fn find_owners(journal: &Journal, passage: &mut Passage) {
    let Passage { steps, next } = passage;
    let mut owners = BTreeMap::new();
    let mut wanted: Vec<u64> = Vec::new();
    for step in &*steps {
        match step {
            Step::Entry(entry) => note_owner(&mut owners, entry),
            // A whole partition is of many.
            Step::Damaged(damaged) if damaged.is_one() => wanted.push(damaged.commits.start),
            Step::Damaged(_) => {}
        }
    }
    wanted.retain(|commit| !owners.contains_key(commit));
    if !wanted.is_empty() && wanted.len() <= SEARCHED_MAX {
        let mut from = *next;
        for _ in 0..SEARCH_PAGES {
            let Ok(page) = journal.read_from(from, PageLimit::default()) else {
                // What is damaged there is met when it is read for itself.
                let singly = (from..from + SINGLY).filter_map(|commit| journal.entry(commit).ok());
                singly.flatten().for_each(|entry| note_owner(&mut owners, &entry));
                from += SINGLY;
                continue;
            };
            page.entries.iter().for_each(|entry| note_owner(&mut owners, entry));
            if page.next == from || wanted.iter().all(|commit| owners.contains_key(commit)) {
                break;
            }
            from = page.next;
        }
        if wanted.iter().any(|commit| !owners.contains_key(commit)) {
            note_heads(journal, &mut owners);
        }
    }
    for step in steps {
        if let Step::Damaged(damaged) = step
            && damaged.is_one()
        {
            damaged.owner = owners.get(&damaged.commits.start).copied();
        }
    }
}

/// Notes whose the entry before `entry` is.
fn note_owner(owners: &mut BTreeMap<u64, Owner>, entry: &Entry) {
    let (Some(lane), Ok(header)) =
        (lane_of(entry.log.lane.lane), EntryHeader::decode(&entry.header))
    else {
        return;
    };
    let (sensor, log) = (SensorId(entry.log.lane.sensor), LogId(entry.log.log));
    let first = match header.form {
        EntryForm::Chunk => header.seq,
        EntryForm::Jump => from_bytes::<Jump>(&entry.body).map_or(header.seq, |it| it.from_seq),
    };
    owners.insert(entry.previous, Owner { sensor, lane, log, seq: first.saturating_sub(1) });
}

/// Notes whose the last entry of each lane is.
fn note_heads(journal: &Journal, owners: &mut BTreeMap<u64, Owner>) {
    let mut after = None;
    while let Ok(page) = journal.heads(after.as_ref(), 1_024) {
        let Some((last, _)) = page.last() else { return };
        after = Some(*last);
        for (key, head) in page {
            let (Some(lane), Ok(record)) =
                (lane_of(key.lane), HeadRecord::from_bytes(&head.record))
            else {
                continue;
            };
            let seq = record.current.next_seq.saturating_sub(1);
            let (sensor, log) = (SensorId(key.sensor), LogId(head.log));
            owners.insert(head.last_commit, Owner { sensor, lane, log, seq });
        }
    }
}

/// What was met, for the log, the metrics and the status.
pub(crate) struct Damages {
    state: RowStore,
    notice: Notice,
    entries: Counter,
    kept: Mutex<Kept>,
}

/// First commit id: the one behind the last, and what is wrong there.
type Places = BTreeMap<u64, (u64, String)>;

#[derive(Default)]
struct Kept {
    places: Places,
    /// Entries that are not among the places.
    beyond: u64,
}

impl Damages {
    /// What was met before. Blocks.
    pub(crate) fn open(
        state: &RowStore,
        notice: &Notice,
        metrics: &Metrics,
    ) -> Result<Self, StoreError> {
        let kept = state.get(KEPT_KEY)?;
        let places = kept.and_then(|row| rows::read::<Places>(&row).ok()).unwrap_or_default();
        let entries = Counter::default();
        metrics.register(|registry| {
            let help = "Entries of the journal that cannot be read, met since the start";
            registry.register("journal_entries_unreadable", help, entries.clone());
        });
        let kept = Mutex::new(Kept { places, beyond: 0 });
        Ok(Self { state: state.clone(), notice: notice.clone(), entries, kept })
    }

    /// Looks at the places that are kept: what can be read again, or is dropped, is forgotten.
    /// Blocks.
    pub(crate) fn look_again(&self, journal: &Journal) {
        let before = self.lock().places.clone();
        let mut left = before.clone();
        left.retain(|commit, _| journal.entry(*commit).is_err());
        if left.len() < before.len() {
            log::info!("entries of the journal that could not be read are read again, or dropped");
            self.lock()
                .places
                .retain(|commit, _| left.contains_key(commit) || !before.contains_key(commit));
            self.keep();
        }
        self.say();
    }

    /// Tells of what was met; once, however often it is met.
    pub(crate) fn handle(&self, damaged: &Damaged) {
        let Damaged { commits, what, owner } = damaged;
        let mut kept = self.lock();
        if kept.places.contains_key(&commits.start) {
            return;
        }
        let whose = match owner {
            Some(Owner { sensor, lane, log, seq }) => {
                let lane = format!("{lane:?}").to_lowercase();
                format!(" (chunk {seq} of sensor {sensor}, lane {lane}, log {log})")
            }
            None => String::from(" (of an unknown sensor)"),
        };
        let text: String = format!("{whose}: {what}").chars().take(TEXT_CHARS_MAX).collect();
        let entries = commits.end - commits.start;
        if kept.places.len() < KEPT_MAX {
            kept.places.insert(commits.start, (commits.end, text));
        } else {
            kept.beyond += entries;
        }
        drop(kept);
        self.entries.inc_by(entries);
        log::error!("{} cannot be read and is passed over{whose}: {what}", name(commits));
        self.keep();
        self.say();
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody waits for it: what is not kept is met again by whoever reads there.
    fn keep(&self) {
        let row = Row::put(KEPT_KEY.to_vec(), &self.lock().places);
        if let Err(error) = self.state.submit(vec![row]) {
            log::error!("what cannot be read of the journal cannot be noted: {error}");
        }
    }

    fn say(&self) {
        let kept = self.lock();
        let entries: u64 = kept.places.iter().map(|(first, (end, _))| end - first).sum();
        let trouble = kept.places.first_key_value().map(|(first, (end, text))| {
            format!(
                "{} entries of the journal cannot be read, the first is {}{text}; facts in them \
                 are lost here; `lapwing ctl ledger --verify` names them; restore the backup",
                entries + kept.beyond,
                name(&(*first..*end))
            )
        });
        drop(kept);
        self.notice.set("damage", trouble);
    }
}

fn name(commits: &Range<u64>) -> String {
    match commits.end - commits.start {
        1 => format!("entry {}", commits.start),
        _ => format!("entries {} to {}", commits.start, commits.end - 1),
    }
}
