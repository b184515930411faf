//! What a Detection server answers on its console and malware ports.

use serde::{Deserialize, Serialize};

use crate::command::{Action, CommandNumber, Outcome};
use crate::digest::Chain;
use crate::element::Kind;
use crate::hello::Memory;
use crate::id::{ElementGuid, EvidenceId, Lane, LogId, SensorId};
use crate::items::Items;
use crate::ledger::{CollectorCount, LogStatement};

/// A sensor as its Detection server knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorView<'a> {
    /// Which sensor.
    pub sensor: SensorId,
    /// Its machine's name.
    pub name: &'a str,
    /// Its machine's operating system.
    pub os: &'a str,
    /// Its agent's name and version.
    pub agent: &'a str,
    /// Whether a session is open.
    pub connected: bool,
    /// The session's number.
    pub session_epoch: u64,
    /// Where it connects from.
    pub peer_address: &'a str,
    /// Last frame, milliseconds since 1970.
    pub last_seen_ms: u64,
    /// First Hello here, milliseconds since 1970.
    pub first_seen_ms: u64,
    /// Whether it said that it collects.
    pub collecting: bool,
    /// Whether its spool survives.
    pub memory: Memory,
    /// Rows of its table here.
    pub rows: u32,
    /// Whether its state here differs from its own until the next keyframe.
    pub divergent: bool,
    /// Its collectors and other parts.
    #[serde(borrow)]
    pub health: Items<'a, HealthView<'a>>,
    /// Where its logs stand.
    #[serde(borrow)]
    pub heads: Items<'a, HeadView>,
    /// The last command queued or sent for it.
    pub last_command: Option<CommandNumber>,
}

/// The state of one part of a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView<'a> {
    /// Which part.
    pub component: &'a str,
    /// active, degraded, missing or stopped.
    pub status: &'a str,
    /// Why it is not active.
    pub reason: &'a str,
    /// What mends it.
    pub remedy: &'a str,
    /// What it uses.
    pub mechanism: &'a str,
}

/// Where one log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadView {
    /// Which lane.
    pub lane: Lane,
    /// Which log.
    pub log: LogId,
    /// The sequence that is taken next.
    pub next_seq: u64,
    /// The index that is expected next.
    pub next_index: u64,
    /// The chain before `next_seq`.
    pub chain: Chain,
}

/// A value in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cell<'a> {
    /// Nothing.
    Absent,
    /// Unsigned integer.
    U64(u64),
    /// Signed integer.
    I64(i64),
    /// Yes or no.
    Bool(bool),
    /// Text; bytes that were not UTF-8 are replaced.
    Text(&'a str),
    /// Another element.
    Element(ElementGuid),
}

/// A named value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedCell<'a> {
    /// Its name: a feature's, or a column's.
    pub name: &'a str,
    /// Its value.
    #[serde(borrow)]
    pub value: Cell<'a>,
}

/// A question in the query language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementQuery<'a> {
    /// The expression.
    pub expression: &'a str,
    /// Rows at the most, unless the expression asks for fewer.
    pub limit: u32,
    /// How long it may take, in milliseconds.
    pub timeout_ms: u32,
}

/// The answer to a question in the query language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementRows<'a> {
    /// Names of the columns.
    #[serde(borrow)]
    pub columns: Items<'a, &'a str>,
    /// Each row's cells.
    #[serde(borrow)]
    pub rows: Items<'a, Items<'a, Cell<'a>>>,
    /// Why this is not the whole answer; empty when it is.
    pub partial: &'a str,
}

/// One element with all it is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementView<'a> {
    /// Which element.
    pub guid: ElementGuid,
    /// Its sensor.
    pub sensor: SensorId,
    /// The name of its kind.
    pub kind: &'a str,
    /// A short name for a person.
    pub label: &'a str,
    /// Whether it ended.
    pub ended: bool,
    /// First told of, server's clock, milliseconds since 1970.
    pub first_seen_ms: u64,
    /// Its features.
    #[serde(borrow)]
    pub fields: Items<'a, NamedCell<'a>>,
}

/// The chain of parents of a process, and its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessTreeRequest {
    /// Which process.
    pub process: ElementGuid,
    /// Parents at the most.
    pub parents_max: u32,
    /// Children at the most.
    pub children_max: u32,
}

/// One stored fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView<'a> {
    /// Which sensor.
    pub sensor: SensorId,
    /// The machine's name.
    pub machine: &'a str,
    /// Which lane.
    pub lane: Lane,
    /// Which log.
    pub log: LogId,
    /// Which chunk.
    pub seq: u64,
    /// Which fact.
    pub index: u64,
    /// The source's own number.
    pub source_seq: Option<u64>,
    /// When it happened by the sensor's claim, nanoseconds since 1970.
    pub time_ns: u64,
    /// When the server received it, milliseconds since 1970.
    pub received_ms: u64,
    /// The name of its kind.
    pub kind: &'a str,
    /// put, patch, remove, forget, event, dropped, jump, undecoded, oversized, unreadable, damaged.
    pub op: &'a str,
    /// Its element.
    pub element: ElementGuid,
    /// Its features.
    #[serde(borrow)]
    pub fields: Items<'a, NamedCell<'a>>,
}

/// How bad it is. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// Worth knowing.
    Low,
    /// Worth looking at today.
    Medium,
    /// Worth looking at now.
    High,
}

/// What sort of malicious activity it is. Append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActivityType {
    /// None in particular.
    None,
    /// Malware got in or ran.
    MaliciousInfection,
    /// More rights than due.
    PrivilegeEscalation,
    /// Looking around.
    Scanning,
    /// From machine to machine.
    LateralMovement,
    /// Talking to its master.
    CommandAndControl,
    /// Data leaves.
    DataTheft,
    /// Files held to ransom.
    Ransomware,
    /// Passwords and keys.
    StolenCredentials,
}

/// One evidence: a fact that a rule or intel found worth telling, with what it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceView<'a> {
    /// Which evidence.
    pub evidence: EvidenceId,
    /// The rule that raised it.
    pub rule: &'a str,
    /// What it says, for a person.
    pub title: &'a str,
    /// Which sensor.
    pub sensor: SensorId,
    /// The machine's name.
    pub machine: &'a str,
    /// The user concerned; empty when not known.
    pub user: &'a str,
    /// The element it is about.
    pub element: ElementGuid,
    /// That element's kind.
    pub kind: Kind,
    /// A short name of that element.
    pub label: &'a str,
    /// What shared cause it groups by, such as `hash:<hex>`.
    pub root_cause: &'a str,
    /// When it happened by the sensor's claim, milliseconds since 1970.
    pub happened_ms: u64,
    /// When it was raised, milliseconds since 1970.
    pub raised_ms: u64,
    /// How bad it is.
    pub severity: Severity,
    /// What sort of activity it is.
    pub activity: ActivityType,
    /// Whether it is a suspicion by itself.
    pub suspicious: bool,
    /// ATT&CK technique ids.
    #[serde(borrow)]
    pub techniques: Items<'a, &'a str>,
    /// The matching indicator's key, type, verdict and source; empty where none.
    #[serde(borrow)]
    pub reputation: Items<'a, NamedCell<'a>>,
    /// The element's features at that moment.
    #[serde(borrow)]
    pub fields: Items<'a, NamedCell<'a>>,
    /// The process concerned and its parents, nearest first.
    #[serde(borrow)]
    pub processes: Items<'a, ElementView<'a>>,
}

/// Fleet to Detection: queue this command for a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandPut {
    /// For which sensor.
    pub sensor: SensorId,
    /// Its number.
    pub number: CommandNumber,
    /// When it expires by the issuer's clock, milliseconds since 1970.
    pub expires_ms: u64,
    /// What is to be done.
    pub action: Action,
}

/// The outcome of a command, as it came up the road.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeView<'a> {
    /// Which sensor.
    pub sensor: SensorId,
    /// Which command.
    pub number: CommandNumber,
    /// What became of it.
    pub outcome: Outcome,
    /// What happened, for a person.
    pub detail: &'a str,
    /// When the server received it, milliseconds since 1970.
    pub received_ms: u64,
}

/// What a sensor says of itself when asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorReport<'a> {
    /// Whether it collects.
    pub collecting: bool,
    /// Facts produced on each lane, in the log that is written.
    pub produced: [u64; 2],
    /// Bytes in its spool.
    pub spool_bytes: u64,
    /// Its collectors and other parts.
    #[serde(borrow)]
    pub health: Items<'a, HealthView<'a>>,
    /// Its wall clock, milliseconds since 1970; 0 where it has none.
    pub wall_ms: u64,
    /// Where its logs stand, those included of which only a tail is left.
    #[serde(borrow)]
    pub logs: Items<'a, LogStatement>,
    /// Observations that said nothing new, and so are no facts, since it started.
    pub unchanged: u64,
    /// What its collectors counted since it started.
    #[serde(borrow)]
    pub collected: Items<'a, CollectorCount<'a>>,
}
