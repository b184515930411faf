//! MalOps as their microservice tells of them.

use serde::{Deserialize, Serialize};

use crate::console::{ActivityType, EvidenceView, Severity};
use crate::id::{MalOpId, SensorId};
use crate::items::Items;

/// Where the work on a MalOp stands. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MalOpStatus {
    /// Nobody looked yet.
    New,
    /// Somebody is at it.
    UnderInvestigation,
    /// Waiting.
    OnHold,
    /// The cause is gone.
    Remediated,
    /// Done with.
    Closed,
    /// Not a MalOp.
    Excluded,
    /// New activity after it was closed.
    Reopened,
}

impl MalOpStatus {
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::New,
        Self::UnderInvestigation,
        Self::OnHold,
        Self::Remediated,
        Self::Closed,
        Self::Excluded,
        Self::Reopened,
    ];

    /// The status' name in API and command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::UnderInvestigation => "under_investigation",
            Self::OnHold => "on_hold",
            Self::Remediated => "remediated",
            Self::Closed => "closed",
            Self::Excluded => "excluded",
            Self::Reopened => "reopened",
        }
    }
}

/// Which MalOps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MalOpFilter {
    /// Only of this status.
    pub status: Option<MalOpStatus>,
    /// At the most.
    pub limit: u32,
}

/// A machine a MalOp touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AffectedMachine<'a> {
    /// Its sensor.
    pub sensor: SensorId,
    /// Its name.
    pub name: &'a str,
}

/// A MalOp in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MalOpView<'a> {
    /// Which MalOp.
    pub malop: MalOpId,
    /// What it says, for a person.
    pub title: &'a str,
    /// Where the work stands.
    pub status: MalOpStatus,
    /// How bad it is.
    pub severity: Severity,
    /// What sort of activity it is.
    pub activity: ActivityType,
    /// The shared cause, such as `hash:<hex>`.
    pub root_cause: &'a str,
    /// The rule that made it one.
    pub rule: &'a str,
    /// ATT&CK technique ids.
    #[serde(borrow)]
    pub techniques: Items<'a, &'a str>,
    /// Machines it touches.
    #[serde(borrow)]
    pub machines: Items<'a, AffectedMachine<'a>>,
    /// Users it touches.
    #[serde(borrow)]
    pub users: Items<'a, &'a str>,
    /// How many evidences, repeats counted once.
    pub count: u64,
    /// First happening, milliseconds since 1970.
    pub first_seen_ms: u64,
    /// Last happening, milliseconds since 1970.
    pub last_seen_ms: u64,
    /// Last change, milliseconds since 1970.
    pub updated_ms: u64,
}

/// A comment on a MalOp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MalOpComment<'a> {
    /// Who.
    pub author: &'a str,
    /// When, milliseconds since 1970.
    pub written_ms: u64,
    /// What.
    pub text: &'a str,
}

/// Which MalOp to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MalOpShow {
    /// Which.
    pub malop: MalOpId,
}

/// A MalOp with what it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MalOpDetail<'a> {
    /// The MalOp.
    #[serde(borrow)]
    pub malop: MalOpView<'a>,
    /// Its evidence, newest first, bounded.
    #[serde(borrow)]
    pub evidence: Items<'a, EvidenceView<'a>>,
    /// Its comments, oldest first.
    #[serde(borrow)]
    pub comments: Items<'a, MalOpComment<'a>>,
}

/// Move a MalOp on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MalOpSetStatus<'a> {
    /// Which.
    pub malop: MalOpId,
    /// To where.
    pub status: MalOpStatus,
    /// Who.
    pub author: &'a str,
}

/// Say something about a MalOp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MalOpAddComment<'a> {
    /// Which.
    pub malop: MalOpId,
    /// Who.
    pub author: &'a str,
    /// What.
    pub text: &'a str,
}
