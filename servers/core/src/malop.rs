//! MalOps: from evidence of many machines and servers to what an analyst works on.
//!
//! A state machine over groups of evidence with one cause. After `handle_*`, [`MalOps::poll_rows`]
//! gives the rows that make it durable, as one batch. [`fresh`] keeps repeats out: an evidence has
//! one id, however often and by whichever server it is told.
//!
//! What it is not: it judges no facts (`evidence`), reads no feed and no clock. `docs/malops.md`
//! says for people what is decided here.
//!
//! Invariants: an evidence is in one group, and counted there once; a change of a MalOp gives it
//! the next change number, and no two have the same; what is held is bounded by [`MalOpLimits`].

mod decision;
pub mod key;
pub mod limits;
mod record;
mod score;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{BTreeMap, BTreeSet};

use lapwing_protocol::error::DecodeError;
use lapwing_protocol::id::{EvidenceId, MalOpId};
use lapwing_protocol::malop::MalOpStatus;
use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::rows::{self, Row, StoredRow};
use crate::view::message_bytes;
pub use decision::{Decision, REPUTATION, decide, family, group_id};
pub use limits::MalOpLimits;
use limits::{BATCH_BYTES, BATCH_GROUPS, BATCH_ROWS, BODY_BYTES_MAX, FORGOTTEN_PER_BATCH};
pub use record::{Comment, Group, Kept, Lead};
pub use score::{POINTS_MAX, Score};
pub use work::WorkRefused;

/// Bytes of the id in front of a stored evidence.
const ID_BYTES: usize = 16;

/// How far numbers went, as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Numbers {
    /// Of the last evidence.
    evidence: u64,
    /// Of the last change.
    change: u64,
    /// Of the last evidence whose id is forgotten.
    forgotten: u64,
}

/// A group and how many parts its row has in the store.
#[derive(Debug)]
struct Held {
    group: Group,
    parts: u16,
}

/// All MalOps and causes under suspicion.
#[derive(Debug)]
pub struct MalOps {
    limits: MalOpLimits,
    groups: BTreeMap<MalOpId, Held>,
    /// MalOps by their last change.
    malops: BTreeMap<u64, MalOpId>,
    /// Causes under suspicion by their last change.
    suspicious: BTreeMap<u64, MalOpId>,
    /// Kept evidences of causes under suspicion, by when they were raised and by number.
    suspicions: BTreeMap<(u64, u64), MalOpId>,
    numbers: Numbers,
    rows: Vec<Row>,
    row_bytes: usize,
    touched: BTreeSet<MalOpId>,
    malops_removed: u64,
    suspicions_removed: u64,
}

/// Those of `evidences` that were never counted, each once; `is_stored` says whether the store has
/// the row under [`key::identity`].
///
/// # Errors
/// What `is_stored` says.
pub fn fresh<E>(
    evidences: Vec<Evidence>,
    mut is_stored: impl FnMut(EvidenceId) -> Result<bool, E>,
) -> Result<Vec<Evidence>, E> {
    let mut in_page = BTreeSet::new();
    let mut fresh = Vec::new();
    for evidence in evidences {
        // What is noted leaves no row, so that it is told again and changes nothing again.
        if in_page.insert(evidence.evidence) && !is_stored(evidence.evidence)? {
            fresh.push(evidence);
        }
    }
    Ok(fresh)
}

impl MalOps {
    /// With nothing in it.
    #[must_use]
    pub fn new(limits: MalOpLimits) -> Self {
        Self {
            limits,
            groups: BTreeMap::new(),
            malops: BTreeMap::new(),
            suspicious: BTreeMap::new(),
            suspicions: BTreeMap::new(),
            numbers: Numbers::default(),
            rows: Vec::new(),
            row_bytes: 0,
            touched: BTreeSet::new(),
            malops_removed: 0,
            suspicions_removed: 0,
        }
    }

    /// As it was stored: the entries of [`key::GROUPS`], and the value of [`key::NUMBERS`].
    ///
    /// # Errors
    /// A row is of another version, or damaged.
    pub fn restore(
        limits: MalOpLimits,
        groups: Vec<StoredRow>,
        numbers: Option<&[u8]>,
    ) -> Result<Self, DecodeError> {
        let mut this = Self::new(limits);
        if let Some(numbers) = numbers {
            this.numbers = rows::read(numbers)?;
        }
        for (_, bytes) in key::join_parts(groups) {
            let group: Group = rows::read(&bytes)?;
            let parts = bytes.len().div_ceil(limits::PART_BYTES_MAX);
            let parts = u16::try_from(parts).map_err(|_| DecodeError::Limit)?;
            this.numbers.change = this.numbers.change.max(group.change);
            this.index(&group);
            this.groups.insert(group.id, Held { group, parts });
        }
        Ok(this)
    }

    /// Takes an evidence that [`fresh`] let through, and says what became of it.
    pub fn handle_evidence(&mut self, now_ms: u64, evidence: &Evidence) -> Decision {
        let decision = decide(evidence);
        if decision == Decision::Noted {
            return decision;
        }
        let id = group_id(evidence);
        let mut held = match self.groups.remove(&id) {
            Some(held) => {
                self.unindex(&held.group);
                held
            }
            None => {
                if decision == Decision::Suspicion {
                    self.make_room_for_suspicion();
                }
                Held { group: Group::of(evidence), parts: 0 }
            }
        };
        if decision == Decision::MalOp && !held.group.is_malop {
            self.make_room_for_malop();
            held.group.is_malop = true;
        }
        let kept = self.keep(evidence);
        held.group.add(evidence, kept, self.limits.affected_max);
        while held.group.kept.len() > self.limits.evidence_kept_max {
            let oldest = held.group.kept.pop_front();
            oldest.into_iter().for_each(|oldest| self.drop_body(oldest));
        }
        self.put_back(now_ms, held);
        if held_is_malop(&self.groups, id) { Decision::MalOp } else { decision }
    }

    /// Whether the rows so far are enough for one batch.
    #[must_use]
    pub fn is_batch_full(&self) -> bool {
        self.rows.len() >= BATCH_ROWS
            || self.row_bytes >= BATCH_BYTES
            || self.touched.len() >= BATCH_GROUPS
    }

    /// The rows of everything handled since the last call; to be stored as one batch, in the order
    /// of the calls.
    pub fn poll_rows(&mut self) -> Vec<Row> {
        let mut rows = std::mem::take(&mut self.rows);
        self.row_bytes = 0;
        let touched = std::mem::take(&mut self.touched);
        if rows.is_empty() && touched.is_empty() {
            return rows;
        }
        for id in touched {
            let Some(held) = self.groups.get_mut(&id) else { continue };
            let record = key::group(id);
            let parts = key::put_parts(&mut rows, &record, (0, &message_bytes(&held.group)));
            key::remove_parts(&mut rows, &record, parts, held.parts);
            held.parts = parts;
        }
        rows.push(Row::put(key::NUMBERS.to_vec(), &self.numbers));
        rows
    }

    /// The numbers `from..to` of evidences whose ids are to be forgotten now, if any: hand what the
    /// store has between [`key::bodies`] of them to [`Self::handle_forgotten`].
    #[must_use]
    pub fn forgettable(&self) -> Option<(u64, u64)> {
        let from = self.numbers.forgotten + 1;
        let beyond = self.numbers.evidence.checked_sub(self.numbers.forgotten)?;
        let many = beyond.saturating_sub(self.limits.identities_max).min(FORGOTTEN_PER_BATCH);
        (many > 0).then_some((from, from + many))
    }

    /// Forgets the ids of the evidences before number `to`, whose rows are `entries`. An evidence
    /// that is kept stays.
    pub fn handle_forgotten(&mut self, to: u64, entries: Vec<StoredRow>) {
        for (record, bytes) in key::join_parts(entries) {
            if let Some(id) = bytes.first_chunk::<ID_BYTES>() {
                self.rows.push(Row::remove(key::identity(EvidenceId(*id))));
            }
            if bytes.len() <= ID_BYTES {
                key::remove_parts(&mut self.rows, &record, 0, 1);
            }
        }
        self.numbers.forgotten = self.numbers.forgotten.max(to.saturating_sub(1));
    }

    /// The MalOp of that id.
    #[must_use]
    pub fn malop(&self, id: MalOpId) -> Option<&Group> {
        self.groups.get(&id).map(|held| &held.group).filter(|group| group.is_malop)
    }

    /// MalOps of `status`, or all of them, the last changed first.
    pub fn malops(&self, status: Option<MalOpStatus>) -> impl Iterator<Item = &Group> {
        let all = self.malops.values().rev().filter_map(|id| self.malop(*id));
        all.filter(move |group| status.is_none_or(|wanted| wanted == group.status))
    }

    /// MalOps that changed after change number `cursor` and not after `last`, in order of change.
    pub fn changes(&self, cursor: u64, last: u64) -> impl Iterator<Item = &Group> {
        let from = cursor.saturating_add(1);
        let changed = (from <= last).then(|| self.malops.range(from..=last));
        changed.into_iter().flatten().filter_map(|(_, id)| self.malop(*id))
    }

    /// The number of the last change.
    #[must_use]
    pub fn last_change(&self) -> u64 {
        self.numbers.change
    }

    /// Numbers of the kept evidences that are suspicions and no part of a MalOp, newest first.
    pub fn suspicions(&self) -> impl ExactSizeIterator<Item = u64> {
        self.suspicions.keys().rev().map(|(_, number)| *number)
    }

    /// MalOps of each status.
    #[must_use]
    pub fn count_by_status(&self) -> [(MalOpStatus, usize); 7] {
        let mut counts = MalOpStatus::ALL.map(|status| (status, 0));
        for group in self.malops(None) {
            let found = counts.iter_mut().find(|(status, _)| *status == group.status);
            found.into_iter().for_each(|(_, count)| *count += 1);
        }
        counts
    }

    /// MalOps, and causes under suspicion, that were removed for want of room since the start.
    #[must_use]
    pub fn removed(&self) -> [u64; 2] {
        [self.malops_removed, self.suspicions_removed]
    }

    /// Writes a new number, identity and body for `evidence`.
    fn keep(&mut self, evidence: &Evidence) -> Kept {
        self.numbers.evidence += 1;
        let number = self.numbers.evidence;
        let mut body = evidence.to_bytes();
        if body.len() > BODY_BYTES_MAX {
            body = without_details(evidence).to_bytes();
        }
        self.row_bytes += body.len();
        self.rows.push(Row::put(key::identity(evidence.evidence), &number));
        // The id is a part of its own in front, so that it is there when the body has gone.
        let record = key::body(number);
        let id = evidence.evidence.0.to_vec();
        self.rows.push(Row { key: key::part(&record, 0), value: Some(id) });
        let parts = key::put_parts(&mut self.rows, &record, (1, &body));
        Kept { number, parts, raised_ms: evidence.raised_ms }
    }

    /// Leaves of a kept evidence its id alone, and nothing where that is forgotten.
    fn drop_body(&mut self, kept: Kept) {
        let first = u16::from(kept.number > self.numbers.forgotten);
        key::remove_parts(&mut self.rows, &key::body(kept.number), first, kept.parts);
    }

    /// Gives a changed group the next change number and puts it back.
    fn put_back(&mut self, now_ms: u64, mut held: Held) {
        self.numbers.change += 1;
        held.group.change = self.numbers.change;
        held.group.updated_ms = now_ms;
        self.index(&held.group);
        self.touched.insert(held.group.id);
        self.groups.insert(held.group.id, held);
    }

    fn index(&mut self, group: &Group) {
        if group.is_malop {
            self.malops.insert(group.change, group.id);
            return;
        }
        self.suspicious.insert(group.change, group.id);
        for kept in &group.kept {
            self.suspicions.insert((kept.raised_ms, kept.number), group.id);
        }
    }

    fn unindex(&mut self, group: &Group) {
        if group.is_malop {
            self.malops.remove(&group.change);
            return;
        }
        self.suspicious.remove(&group.change);
        for kept in &group.kept {
            self.suspicions.remove(&(kept.raised_ms, kept.number));
        }
    }

    fn make_room_for_suspicion(&mut self) {
        while self.suspicious.len() >= self.limits.suspicious_causes_max.max(1) {
            let Some((_, id)) = self.suspicious.first_key_value() else { return };
            self.remove(*id);
            self.suspicions_removed += 1;
        }
    }

    fn make_room_for_malop(&mut self) {
        while self.malops.len() >= self.limits.malops_max.max(1) {
            let least = self.malops(None).min_by_key(|group| {
                let open = match group.status {
                    MalOpStatus::Closed | MalOpStatus::Remediated => {
                        return (0, None, group.change);
                    }
                    MalOpStatus::Excluded => 2,
                    _ => 1,
                };
                (open, Some(group.severity()), group.change)
            });
            let Some(id) = least.map(|group| group.id) else { return };
            self.remove(id);
            self.malops_removed += 1;
        }
    }

    /// Removes a group; the ids of its evidences stay known.
    fn remove(&mut self, id: MalOpId) {
        let Some(Held { group, parts }) = self.groups.remove(&id) else { return };
        self.unindex(&group);
        self.touched.remove(&id);
        for kept in group.kept {
            self.drop_body(kept);
        }
        key::remove_parts(&mut self.rows, &key::group(id), 0, parts);
        for number in 0..group.comments {
            key::remove_parts(&mut self.rows, &key::comment(id, number), 0, work::COMMENT_PARTS);
        }
    }
}

fn held_is_malop(groups: &BTreeMap<MalOpId, Held>, id: MalOpId) -> bool {
    groups.get(&id).is_some_and(|held| held.group.is_malop)
}

/// `evidence` without what makes it long.
fn without_details(evidence: &Evidence) -> Evidence {
    let cut = |text: &str| record::cut(text, limits::TEXT_BYTES_MAX);
    Evidence {
        rule: cut(&evidence.rule),
        title: cut(&evidence.title),
        machine: cut(&evidence.machine),
        user: cut(&evidence.user),
        label: cut(&evidence.label),
        root_cause: cut(&evidence.root_cause),
        techniques: Vec::new(),
        reputation: Vec::new(),
        fields: Vec::new(),
        processes: Vec::new(),
        ..evidence.clone()
    }
}

/// The `EvidenceView` in the stored parts of an evidence, put together; `None` where only its id is
/// left.
#[must_use]
pub fn stored_evidence(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(ID_BYTES..).filter(|body| !body.is_empty())
}
