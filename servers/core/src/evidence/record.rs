//! An evidence: what is stored, told in the feeds and shown.
//!
//! Its bytes are an `EvidenceView`, as the feeds send it. Invariant: the id follows from rule,
//! element and event key alone, so whoever judges the same thing twice adds nothing.

use lapwing_protocol::console::{ActivityType, EvidenceView, Severity};
use lapwing_protocol::digest::derived_id;
use lapwing_protocol::element::Kind;
use lapwing_protocol::error::{DecodeError, from_bytes};
use lapwing_protocol::id::{ElementGuid, EvidenceId, SensorId};
use lapwing_protocol::items::Items;

use crate::view::{
    OwnedElement, OwnedNamedCell, elements_bytes, message_bytes, named_cells, named_cells_bytes,
    push_item,
};

/// The id of the evidence that `rule` raises about `element`; `event_key` tells several of one rule
/// about one element apart.
#[must_use]
pub fn evidence_id(rule: &str, element: ElementGuid, event_key: &str) -> EvidenceId {
    let parts: [&[u8]; 3] = [rule.as_bytes(), &element.0, event_key.as_bytes()];
    EvidenceId(derived_id(b"lapwing-evidence-1", &parts))
}

/// The owned twin of an [`EvidenceView`]; its fields mean the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of EvidenceView, where they are described")]
pub struct Evidence {
    pub evidence: EvidenceId,
    pub rule: String,
    pub title: String,
    pub sensor: SensorId,
    pub machine: String,
    pub user: String,
    pub element: ElementGuid,
    pub kind: Kind,
    pub label: String,
    pub root_cause: String,
    pub happened_ms: u64,
    pub raised_ms: u64,
    pub severity: Severity,
    pub activity: ActivityType,
    pub suspicious: bool,
    pub techniques: Vec<String>,
    pub reputation: Vec<OwnedNamedCell>,
    pub fields: Vec<OwnedNamedCell>,
    pub processes: Vec<OwnedElement>,
}

impl Evidence {
    /// Its bytes, as stored and told.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut techniques = Vec::new();
        for technique in &self.techniques {
            push_item(&mut techniques, technique.as_str());
        }
        message_bytes(&EvidenceView {
            evidence: self.evidence,
            rule: &self.rule,
            title: &self.title,
            sensor: self.sensor,
            machine: &self.machine,
            user: &self.user,
            element: self.element,
            kind: self.kind,
            label: &self.label,
            root_cause: &self.root_cause,
            happened_ms: self.happened_ms,
            raised_ms: self.raised_ms,
            severity: self.severity,
            activity: self.activity,
            suspicious: self.suspicious,
            techniques: Items::from_bytes(&techniques),
            reputation: Items::from_bytes(&named_cells_bytes(&self.reputation)),
            fields: Items::from_bytes(&named_cells_bytes(&self.fields)),
            processes: Items::from_bytes(&elements_bytes(&self.processes)),
        })
    }

    /// The evidence of these bytes.
    ///
    /// # Errors
    /// When they, or one of its lists, do not decode.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::from_view(&from_bytes(bytes)?)
    }

    /// The owned twin of `view`.
    ///
    /// # Errors
    /// When one of its lists does not decode.
    pub fn from_view(view: &EvidenceView<'_>) -> Result<Self, DecodeError> {
        let techniques = view.techniques.iter().map(|it| it.map(str::to_owned));
        let processes = view.processes.iter().map(|it| OwnedElement::from_view(&it?));
        Ok(Self {
            evidence: view.evidence,
            rule: view.rule.to_owned(),
            title: view.title.to_owned(),
            sensor: view.sensor,
            machine: view.machine.to_owned(),
            user: view.user.to_owned(),
            element: view.element,
            kind: view.kind,
            label: view.label.to_owned(),
            root_cause: view.root_cause.to_owned(),
            happened_ms: view.happened_ms,
            raised_ms: view.raised_ms,
            severity: view.severity,
            activity: view.activity,
            suspicious: view.suspicious,
            techniques: techniques.collect::<Result<_, _>>()?,
            reputation: named_cells(&view.reputation)?,
            fields: named_cells(&view.fields)?,
            processes: processes.collect::<Result<_, _>>()?,
        })
    }
}

/// The rules that the malware feed tells of: verdicts on file hashes.
pub const MALWARE_RULES: [&str; 4] =
    ["blocklisted_hash", "malware_by_hash", "ransomware_by_hash", "unwanted_by_hash"];

/// Whether an evidence of `rule` belongs in the malware feed.
#[must_use]
pub fn is_malware_rule(rule: &str) -> bool {
    MALWARE_RULES.contains(&rule)
}
