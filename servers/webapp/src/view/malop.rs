//! MalOps, their evidence and comments; suspicions are evidence too.

use lapwing_protocol::console::{ActivityType, EvidenceView, Severity};
use lapwing_protocol::element::MODEL;
use lapwing_protocol::error::DecodeError;
use lapwing_protocol::malop::{self, MalOpComment, MalOpStatus, MalOpView};
use serde::Serialize;

use super::{Cell, Element, Fields, Time, fields, owned, texts};

/// A machine a MalOp touches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Machine {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// A MalOp. `evidence` is filled where the question asked for it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MalOp {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) status: &'static str,
    pub(crate) severity: &'static str,
    pub(crate) activity: &'static str,
    pub(crate) techniques: Vec<String>,
    pub(crate) root_cause: String,
    pub(crate) rule: String,
    pub(crate) machines: Vec<Machine>,
    pub(crate) users: Vec<String>,
    pub(crate) count: u64,
    pub(crate) first_seen: Time,
    pub(crate) last_seen: Time,
    pub(crate) updated: Time,
    pub(crate) evidence: Vec<Evidence>,
}

/// One evidence, with what it rests on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Evidence {
    pub(crate) id: String,
    pub(crate) rule: String,
    pub(crate) title: String,
    pub(crate) techniques: Vec<String>,
    /// The id of the element it is about.
    pub(crate) element: String,
    pub(crate) kind: String,
    pub(crate) label: String,
    pub(crate) sensor: String,
    pub(crate) machine: String,
    pub(crate) user: String,
    pub(crate) root_cause: String,
    pub(crate) time: Time,
    pub(crate) raised: Time,
    pub(crate) severity: &'static str,
    pub(crate) activity: &'static str,
    pub(crate) suspicious: bool,
    pub(crate) reputation: Fields,
    pub(crate) fields: Fields,
    /// The process concerned and its parents, nearest first.
    pub(crate) processes: Vec<Element>,
}

/// A comment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comment {
    pub(crate) author: String,
    pub(crate) written: Time,
    pub(crate) text: String,
}

/// A MalOp with what it rests on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MalOpDetail {
    #[serde(flatten)]
    pub(crate) malop: MalOp,
    pub(crate) comments: Vec<Comment>,
}

const fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "low",
        Severity::Medium => "medium",
        Severity::High => "high",
    }
}

const fn activity_name(activity: ActivityType) -> &'static str {
    match activity {
        ActivityType::None => "none",
        ActivityType::MaliciousInfection => "malicious_infection",
        ActivityType::PrivilegeEscalation => "privilege_escalation",
        ActivityType::Scanning => "scanning",
        ActivityType::LateralMovement => "lateral_movement",
        ActivityType::CommandAndControl => "command_and_control",
        ActivityType::DataTheft => "data_theft",
        ActivityType::Ransomware => "ransomware",
        ActivityType::StolenCredentials => "stolen_credentials",
    }
}

/// The status of that name, if there is one.
pub(crate) fn parse_status(name: &str) -> Option<MalOpStatus> {
    MalOpStatus::ALL.into_iter().find(|status| status.name() == name)
}

/// A name of the API as a person reads it: `under_investigation` is "Under investigation".
pub(crate) fn status_text(name: &str) -> String {
    let spaced = name.replace('_', " ");
    let mut letters = spaced.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

impl TryFrom<MalOpView<'_>> for MalOp {
    type Error = DecodeError;

    fn try_from(view: MalOpView<'_>) -> Result<Self, DecodeError> {
        let machines = owned(&view.machines, |machine| {
            Ok(Machine { id: machine.sensor.to_string(), name: machine.name.to_owned() })
        })?;
        Ok(Self {
            id: view.malop.to_string(),
            title: view.title.to_owned(),
            status: view.status.name(),
            severity: severity_name(view.severity),
            activity: activity_name(view.activity),
            techniques: texts(&view.techniques)?,
            root_cause: view.root_cause.to_owned(),
            rule: view.rule.to_owned(),
            machines,
            users: texts(&view.users)?,
            count: view.count,
            first_seen: Time::from_ms(view.first_seen_ms),
            last_seen: Time::from_ms(view.last_seen_ms),
            updated: Time::from_ms(view.updated_ms),
            evidence: Vec::new(),
        })
    }
}

impl TryFrom<EvidenceView<'_>> for Evidence {
    type Error = DecodeError;

    fn try_from(view: EvidenceView<'_>) -> Result<Self, DecodeError> {
        let kind = MODEL.iter().find(|spec| spec.kind == view.kind);
        Ok(Self {
            id: view.evidence.to_string(),
            rule: view.rule.to_owned(),
            title: view.title.to_owned(),
            techniques: texts(&view.techniques)?,
            element: view.element.to_string(),
            kind: kind.map_or_else(|| format!("kind {}", view.kind.0), |spec| spec.name.to_owned()),
            label: view.label.to_owned(),
            sensor: view.sensor.to_string(),
            machine: view.machine.to_owned(),
            user: view.user.to_owned(),
            root_cause: view.root_cause.to_owned(),
            time: Time::from_ms(view.happened_ms),
            raised: Time::from_ms(view.raised_ms),
            severity: severity_name(view.severity),
            activity: activity_name(view.activity),
            suspicious: view.suspicious,
            reputation: fields(&view.reputation)?,
            fields: fields(&view.fields)?,
            processes: owned(&view.processes, Element::try_from)?,
        })
    }
}

impl Evidence {
    /// The matching reputation as a person reads it: without what is empty, times as times.
    pub(crate) fn reputation(&self) -> Vec<(String, String)> {
        let pairs = self.reputation.iter().map(|(name, value)| match (name, value) {
            ("checked_ms", Cell::U64(ms)) => {
                (String::from("checked"), Time::from_ms(*ms).to_string())
            }
            (name, value) => (name.to_owned(), value.to_string()),
        });
        pairs.filter(|(_, value)| !value.is_empty()).collect()
    }

    /// What a person can read of the element: without moments of a clock since boot.
    pub(crate) fn known(&self) -> impl Iterator<Item = (&str, &Cell)> {
        self.fields.iter().filter(|(name, _)| !["started", "ended", "start_ticks"].contains(name))
    }

    /// The chain of processes from the eldest parent down to the process concerned.
    pub(crate) fn chain(&self) -> Vec<&Element> {
        self.processes.iter().rev().collect()
    }
}

impl From<MalOpComment<'_>> for Comment {
    fn from(view: MalOpComment<'_>) -> Self {
        Self {
            author: view.author.to_owned(),
            written: Time::from_ms(view.written_ms),
            text: view.text.to_owned(),
        }
    }
}

impl TryFrom<malop::MalOpDetail<'_>> for MalOpDetail {
    type Error = DecodeError;

    fn try_from(view: malop::MalOpDetail<'_>) -> Result<Self, DecodeError> {
        let mut malop = MalOp::try_from(view.malop)?;
        malop.evidence = owned(&view.evidence, Evidence::try_from)?;
        Ok(Self { malop, comments: owned(&view.comments, |comment| Ok(Comment::from(comment)))? })
    }
}

impl MalOp {
    /// Its status as a person reads it.
    pub(crate) fn status_text(&self) -> String {
        status_text(self.status)
    }

    /// Its severity as a person reads it.
    pub(crate) fn severity_text(&self) -> String {
        status_text(self.severity)
    }

    /// Its activity as a person reads it.
    pub(crate) fn activity_text(&self) -> String {
        if self.activity == "none" { String::new() } else { status_text(self.activity) }
    }

    /// The colour of its severity.
    pub(crate) fn severity_tone(&self) -> &'static str {
        match self.severity {
            "high" => "bad",
            "medium" => "warn",
            _ => "quiet",
        }
    }

    /// The colour of its status.
    pub(crate) fn status_tone(&self) -> &'static str {
        match self.status {
            "new" | "reopened" => "accent",
            "remediated" | "closed" => "good",
            "under_investigation" | "on_hold" => "warn",
            _ => "quiet",
        }
    }

    /// Whether work on it is not done.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.status, "remediated" | "closed" | "excluded")
    }
}
