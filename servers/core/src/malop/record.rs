//! A group of evidence with one cause: a MalOp, or a cause under suspicion that may become one.
//!
//! Invariants: what a group says does not depend on the order in which its evidences came, but for
//! the bounds of its lists; its lead is its most severe evidence, of these the one that happened
//! first, so a title does not change with every repeat.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lapwing_protocol::console::{ActivityType, Severity};
use lapwing_protocol::id::{EvidenceId, MalOpId, SensorId};
use lapwing_protocol::items::Items;
use lapwing_protocol::limits::NAME_BYTES_MAX;
use lapwing_protocol::malop::{AffectedMachine, MalOpComment, MalOpDetail, MalOpStatus, MalOpView};
use serde::{Deserialize, Serialize};

use super::decision;
use super::limits::{TECHNIQUE_BYTES_MAX, TECHNIQUES_MAX, TEXT_BYTES_MAX};
use crate::evidence::Evidence;
use crate::view::{message_bytes, push_item};

/// Evidence with one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its id, whether it is a MalOp yet or not.
    pub id: MalOpId,
    /// Whether an evidence made it a MalOp; it stays one.
    pub is_malop: bool,
    /// The family of rules whose evidence it takes.
    pub family: String,
    /// The shared cause.
    pub root_cause: String,
    /// What it is called by.
    pub lead: Lead,
    /// Where the work stands.
    pub status: MalOpStatus,
    /// Who moved it there; empty for this service.
    pub status_author: String,
    /// ATT&CK techniques of all its evidences.
    pub techniques: BTreeSet<String>,
    /// Machines with their names.
    pub machines: BTreeMap<SensorId, String>,
    /// Users.
    pub users: BTreeSet<String>,
    /// Evidences whose machine or user found no place in the lists.
    pub unlisted: u64,
    /// Evidences, each counted once.
    pub count: u64,
    /// When the first happened by the sensors' claims, milliseconds since 1970.
    pub first_seen_ms: u64,
    /// When the last happened by the sensors' claims, milliseconds since 1970.
    pub last_seen_ms: u64,
    /// When anything of it last changed, milliseconds since 1970.
    pub updated_ms: u64,
    /// The number of its last change.
    pub change: u64,
    /// Comments written so far.
    pub comments: u32,
    /// The evidences that are kept whole, in the order in which they came.
    pub kept: VecDeque<Kept>,
}

/// The evidence that a group is called by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    /// Which.
    pub evidence: EvidenceId,
    /// Its severity: the group's.
    pub severity: Severity,
    /// When it happened, milliseconds since 1970.
    pub happened_ms: u64,
    /// The rule that raised it.
    pub rule: String,
    /// What it says.
    pub title: String,
    /// What sort of activity it is.
    pub activity: ActivityType,
}

impl Lead {
    fn of(evidence: &Evidence) -> Self {
        Self {
            evidence: evidence.evidence,
            severity: evidence.severity,
            happened_ms: evidence.happened_ms,
            rule: cut(&evidence.rule, NAME_BYTES_MAX),
            title: cut(&evidence.title, TEXT_BYTES_MAX),
            activity: evidence.activity,
        }
    }

    fn rank(&self) -> (Reverse<Severity>, u64, EvidenceId) {
        (Reverse(self.severity), self.happened_ms, self.evidence)
    }
}

/// An evidence that is kept whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its number.
    pub number: u64,
    /// The parts of its row.
    pub parts: u16,
    /// When it was raised, milliseconds since 1970.
    pub raised_ms: u64,
}

/// A comment, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comment {
    /// Who.
    pub author: String,
    /// When, milliseconds since 1970.
    pub written_ms: u64,
    /// What.
    pub text: String,
}

impl Comment {
    /// Appends it to a list of `MalOpComment`s.
    pub fn push_to(&self, list: &mut Vec<u8>) {
        let (author, text) = (self.author.as_str(), self.text.as_str());
        push_item(list, &MalOpComment { author, written_ms: self.written_ms, text });
    }
}

impl Group {
    /// An empty group of the cause of `evidence`, which is still to be added.
    pub(super) fn of(evidence: &Evidence) -> Self {
        Self {
            id: decision::group_id(evidence),
            is_malop: false,
            family: cut(decision::family(evidence), NAME_BYTES_MAX),
            root_cause: cut(&evidence.root_cause, TEXT_BYTES_MAX),
            lead: Lead::of(evidence),
            status: MalOpStatus::New,
            status_author: String::new(),
            techniques: BTreeSet::new(),
            machines: BTreeMap::new(),
            users: BTreeSet::new(),
            unlisted: 0,
            count: 0,
            first_seen_ms: evidence.happened_ms,
            last_seen_ms: evidence.happened_ms,
            updated_ms: 0,
            change: 0,
            comments: 0,
            kept: VecDeque::new(),
        }
    }

    /// Adds an evidence that is not in it; `affected_max` bounds its lists.
    pub(super) fn add(&mut self, evidence: &Evidence, kept: Kept, affected_max: usize) {
        let lead = Lead::of(evidence);
        if lead.rank() < self.lead.rank() {
            self.lead = lead;
        }
        for technique in &evidence.techniques {
            if self.techniques.len() < TECHNIQUES_MAX {
                self.techniques.insert(cut(technique, TECHNIQUE_BYTES_MAX));
            }
        }
        let has_machine =
            self.machines.contains_key(&evidence.sensor) || self.machines.len() < affected_max;
        if has_machine {
            let name = self.machines.entry(evidence.sensor).or_default();
            if !evidence.machine.is_empty() {
                *name = cut(&evidence.machine, NAME_BYTES_MAX);
            }
        }
        let user = cut(&evidence.user, NAME_BYTES_MAX);
        let has_user =
            user.is_empty() || self.users.contains(&user) || self.users.len() < affected_max;
        if has_user && !user.is_empty() {
            self.users.insert(user);
        }
        self.unlisted += u64::from(!has_machine || !has_user);
        self.count += 1;
        self.first_seen_ms = self.first_seen_ms.min(evidence.happened_ms);
        self.last_seen_ms = self.last_seen_ms.max(evidence.happened_ms);
        self.kept.push_back(kept);
        if matches!(self.status, MalOpStatus::Closed | MalOpStatus::Remediated) {
            self.status = MalOpStatus::Reopened;
            self.status_author.clear();
        }
    }

    /// The highest severity of its evidences.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.lead.severity
    }

    /// Shows `look` the view of it.
    pub fn with_view<T>(&self, look: impl FnOnce(&MalOpView<'_>) -> T) -> T {
        let (mut techniques, mut machines, mut users) = (Vec::new(), Vec::new(), Vec::new());
        for technique in &self.techniques {
            push_item(&mut techniques, technique.as_str());
        }
        for (sensor, name) in &self.machines {
            push_item(&mut machines, &AffectedMachine { sensor: *sensor, name });
        }
        for user in &self.users {
            push_item(&mut users, user.as_str());
        }
        look(&MalOpView {
            malop: self.id,
            title: &self.lead.title,
            status: self.status,
            severity: self.severity(),
            activity: self.lead.activity,
            root_cause: &self.root_cause,
            rule: &self.lead.rule,
            techniques: Items::from_bytes(&techniques),
            machines: Items::from_bytes(&machines),
            users: Items::from_bytes(&users),
            count: self.count,
            first_seen_ms: self.first_seen_ms,
            last_seen_ms: self.last_seen_ms,
            updated_ms: self.updated_ms,
        })
    }

    /// Appends it to a list of `MalOpView`s.
    pub fn push_to(&self, list: &mut Vec<u8>) {
        self.with_view(|view| push_item(list, view));
    }

    /// The bytes of its `MalOpDetail` with these lists of `EvidenceView`s and `MalOpComment`s.
    #[must_use]
    pub fn detail_bytes(&self, evidence: &[u8], comments: &[u8]) -> Vec<u8> {
        self.with_view(|view| {
            message_bytes(&MalOpDetail {
                malop: *view,
                evidence: Items::from_bytes(evidence),
                comments: Items::from_bytes(comments),
            })
        })
    }
}

/// `text`, or as much of it as `bytes_max` take, with a mark that it was cut.
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = bytes_max.saturating_sub(3);
    let end = (0..=end).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", text.get(..end).unwrap_or_default())
}
