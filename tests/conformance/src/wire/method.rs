//! The messages of the methods that cases call: enrolment, assignment, and what of a console is
//! looked at (docs/protocol-messages.md).
//!
//! Not here: the methods that no case calls.

use super::message::{Action, Chain, CommandNumber, DropReason, Id, Lane, LossReason};
use super::primitive::{Items, Malformed, Reader, Wire, Writer, choice, message};

/// `enrol`.
pub const ENROL: u16 = 1;
/// `assign`.
pub const ASSIGN: u16 = 2;
/// `report`.
pub const REPORT: u16 = 3;
/// `events`.
pub const EVENTS: u16 = 35;
/// `sensors`.
pub const SENSORS: u16 = 32;
/// `elements`.
pub const ELEMENTS: u16 = 33;
/// `evidence`.
pub const EVIDENCE: u16 = 34;
/// `heartbeat`.
pub const HEARTBEAT: u16 = 16;
/// `command`.
pub const COMMAND: u16 = 36;
/// `ledger`.
pub const LEDGER: u16 = 38;
/// `ledger_verify`.
pub const LEDGER_VERIFY: u16 = 40;
/// `status`.
pub const STATUS: u16 = 240;
/// `backup`.
pub const BACKUP: u16 = 241;

message! {
    /// Sensor to Registration, on the enrol plane.
    EnrolRequest {
        token: String, request: Vec<u8>, name: String, os: String, machine_id: [u8; 32],
    }
}

message! {
    /// The answer to an enrolment.
    Enrolled {
        sensor: Id, deployment: Id, certificate: Vec<u8>, authority: Vec<u8>, not_after_ms: u64,
    }
}

choice! {
    /// Why a sensor asks.
    AssignReason { First = 0, Unreachable = 1, Refused = 2, Draining = 3, NoProgress = 4 }
}

message! {
    /// Which Detection server is mine?
    AssignRequest { reason: AssignReason, trouble_with: Option<Id> }
}

message! {
    /// This one.
    Assignment { server: Id, name: String, address: String }
}

message! {
    /// Read a feed from a cursor on.
    FeedRequest { incarnation: Option<Id>, cursor: u64, limit: u32, wait_ms: u32 }
}

message! {
    /// One stored fact. `fields` stays as bytes.
    EventView {
        sensor: Id, machine: String, lane: Lane, log: Id, seq: u64, index: u64,
        source_seq: Option<u64>, time_ns: u64, received_ms: u64, kind: String, op: String,
        element: Id, fields: Vec<u8>,
    }
}

message! {
    /// A run of the feed of events.
    EventPage { incarnation: Id, next_cursor: u64, at_end: bool, items: Items<EventView> }
}

message! {
    /// One evidence. Severity and activity stay numbers, lists stay bytes.
    EvidenceView {
        evidence: Id, rule: String, title: String, sensor: Id, machine: String, user: String,
        element: Id, kind: u16, label: String, root_cause: String, happened_ms: u64,
        raised_ms: u64, severity: u16, activity: u16, suspicious: bool, techniques: Vec<u8>,
        reputation: Vec<u8>, fields: Vec<u8>, processes: Vec<u8>,
    }
}

message! {
    /// A run of the feed of evidence.
    EvidencePage { incarnation: Id, next_cursor: u64, at_end: bool, items: Items<EvidenceView> }
}

message! {
    /// Queue this command for a sensor.
    CommandPut { sensor: Id, number: CommandNumber, expires_ms: u64, action: Action }
}

message! {
    /// A question in the query language.
    ElementQuery { expression: String, limit: u32, timeout_ms: u32 }
}

message! {
    /// Detection to Registration, every two seconds.
    Heartbeat {
        server: Id, name: String, sensor_address: String, console_address: String,
        malware_address: String, capacity: u32, sensors: u32, load_permille: u16, draining: bool,
        version: String, incarnation: Id,
    }
}

message! {
    /// What a sensor says of itself; its lists stay bytes.
    SensorReport {
        collecting: bool, produced_bulk: u64, produced_urgent: u64, spool_bytes: u64,
        health: Vec<u8>, wall_ms: u64, logs: Vec<u8>, unchanged: u64, collected: Vec<u8>,
    }
}

message! {
    /// A place in the ledger.
    LedgerPlace { sensor: Id, lane: Lane, log: Id }
}

message! {
    /// Read the ledger as it is kept.
    LedgerRequest { sensor: Option<Id>, after: Option<LedgerPlace> }
}

message! {
    /// Where a log stands by its sensor's own word.
    LedgerTold { produced: u64, held: u64, at_ms: u64 }
}

/// What became of a run of facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunKind {
    /// In a stored chunk that decodes.
    Stored,
    /// In a stored chunk that does not decode.
    Undecoded,
    /// Dropped since because it was older than the server keeps it.
    Expired,
    /// Dropped by the sensor by rule.
    Dropped(DropReason),
    /// Lost, by a Jump that says so.
    Lost(LossReason),
    /// Acknowledged by another server, by a Jump that says so.
    Elsewhere(Id),
    /// Neither stored nor accounted for.
    Missing,
}

impl Wire for RunKind {
    fn write(&self, to: &mut Writer) {
        match self {
            Self::Stored => to.varint(0),
            Self::Undecoded => to.varint(1),
            Self::Expired => to.varint(2),
            Self::Dropped(reason) => {
                to.varint(3);
                reason.write(to);
            }
            Self::Lost(reason) => {
                to.varint(4);
                reason.write(to);
            }
            Self::Elsewhere(server) => {
                to.varint(5);
                server.write(to);
            }
            Self::Missing => to.varint(6),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match from.varint(32)? {
            0 => Ok(Self::Stored),
            1 => Ok(Self::Undecoded),
            2 => Ok(Self::Expired),
            3 => Wire::read(from).map(Self::Dropped),
            4 => Wire::read(from).map(Self::Lost),
            5 => Wire::read(from).map(Self::Elsewhere),
            6 => Ok(Self::Missing),
            other => Err(Malformed::Variant("RunKind", other)),
        }
    }
}

message! {
    /// A run of facts: from behind the run before it up to `to_index`.
    LedgerRun { kind: RunKind, to_index: u64 }
}

message! {
    /// The chain of a log at a place where another server may know it too.
    LedgerAnchor { seq: u64, chain: Chain }
}

message! {
    /// What a server knows of one log.
    LedgerRow {
        sensor: Id, lane: Lane, log: Id, runs: Items<LedgerRun>, lost_unknown: u64, undecoded: u64,
        next_seq: u64, anchors: Items<LedgerAnchor>, told: Option<LedgerTold>,
    }
}

message! {
    /// A part of the ledger; the collectors' counts stay bytes.
    LedgerPage {
        server: Id, behind: u64, at_end: bool, rows: Items<LedgerRow>, sensors: Vec<u8>,
    }
}

message! {
    /// Have the journal scanned, and read what it came to.
    LedgerVerify { scan: u64, after: Option<LedgerPlace>, wait_ms: u32 }
}

message! {
    /// Something that is not as it was acknowledged.
    LedgerFault { sensor: Id, lane: Lane, log: Id, seq: u64, commit: u64, what: String }
}

message! {
    /// How far a scan is, and once it ended a part of what it came to; the collectors' counts stay
    /// bytes.
    LedgerVerified {
        server: Id, scan: u64, scanned: u64, of: u64, ended: bool, partial: String, at_end: bool,
        rows: Items<LedgerRow>, sensors: Vec<u8>, faults: Items<LedgerFault>,
    }
}
