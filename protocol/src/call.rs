//! Calls and replies: either end of a connection may ask the other.
//!
//! A call names a method of the table below; its body and the reply's body are the messages the
//! method says. A reply longer than a frame comes in parts, in order, all but the last with `more`.
//! A method never changes: a change is a new method.

use serde::{Deserialize, Serialize};

use crate::code::Code;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Method(pub u16);

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call<'a> {
    /// Comes back in the reply; unique among this end's calls under way.
    pub call: u32,
    /// What is asked.
    pub method: Method,
    /// The method's request message.
    pub body: &'a [u8],
}

/// An answer, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply<'a> {
    /// As in the call.
    pub call: u32,
    /// Whether another part follows.
    pub more: bool,
    /// [`Code::OK`], or what went wrong; then the body is a text for a person.
    pub code: Code,
    /// The method's reply message, or a part of it.
    pub body: &'a [u8],
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl Method {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// Every method with its name.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, $text)),*];
        }
    };
}

methods! {
    /// Enrol plane. `EnrolRequest` -> `Enrolled`.
    ENROL = 1, "enrol";
    /// Sensor plane of Registration. `AssignRequest` -> `Assignment`.
    ASSIGN = 2, "assign";
    /// Sensor plane, server to sensor. empty -> `SensorReport`.
    REPORT = 3, "report";

    /// Peer plane of Registration. `Heartbeat` -> `HeartbeatReply`.
    HEARTBEAT = 16, "heartbeat";
    /// Peer plane of Registration. empty -> `Items<ServerView>`.
    SERVERS = 17, "servers";
    /// Peer plane of Registration. `ServerChange` -> empty.
    SERVER_CHANGE = 18, "server_change";
    /// Peer plane of Registration. `PageRequest` -> `Page<AssignmentView>`.
    ASSIGNMENTS = 19, "assignments";

    /// Console of Detection. empty -> `Items<SensorView>`.
    SENSORS = 32, "sensors";
    /// Console of Detection. `ElementQuery` -> `ElementRows`.
    ELEMENTS = 33, "elements";
    /// Console of Detection. `FeedRequest` -> `FeedPage<EvidenceView>`.
    EVIDENCE = 34, "evidence";
    /// Console of Detection. `FeedRequest` -> `FeedPage<EventView>`.
    EVENTS = 35, "events";
    /// Console of Detection. `CommandPut` -> empty.
    COMMAND = 36, "command";
    /// Console of Detection. `FeedRequest` -> `FeedPage<OutcomeView>`.
    OUTCOMES = 37, "outcomes";
    /// Console of Detection. `LedgerRequest` -> `LedgerPage`.
    LEDGER = 38, "ledger";
    /// Console of Detection. `ProcessTreeRequest` -> `Items<ElementView>`.
    PROCESS_TREE = 39, "process_tree";
    /// Console of Detection. `LedgerVerify` -> `LedgerVerified`.
    LEDGER_VERIFY = 40, "ledger_verify";

    /// Malware port of Detection. `FeedRequest` -> `FeedPage<EvidenceView>`.
    MALWARE = 48, "malware";

    /// Peer plane of Threat Intel. `ClassifyRequest` -> `Items<Verdict>`.
    CLASSIFY = 64, "classify";
    /// Peer plane of Threat Intel. `ReputationPut` -> empty.
    REPUTATION_PUT = 65, "reputation_put";
    /// Peer plane of Threat Intel. `ReputationRemove` -> empty.
    REPUTATION_REMOVE = 66, "reputation_remove";
    /// Peer plane of Threat Intel. `PageRequest` -> `Page<ReputationView>`.
    REPUTATIONS = 67, "reputations";
    /// Peer plane of Threat Intel. `FeedRequest` -> `FeedPage<ReputationChange>`.
    REPUTATION_CHANGES = 68, "reputation_changes";

    /// Peer plane of malops. `MalOpFilter` -> `Items<MalOpView>`.
    MALOPS = 80, "malops";
    /// Peer plane of malops. `MalOpShow` -> `MalOpDetail`.
    MALOP = 81, "malop";
    /// Peer plane of malops. `MalOpSetStatus` -> empty.
    MALOP_STATUS = 82, "malop_status";
    /// Peer plane of malops. `MalOpAddComment` -> empty.
    MALOP_COMMENT = 83, "malop_comment";
    /// Peer plane of malops. `FeedRequest` -> `FeedPage<MalOpView>`.
    MALOP_CHANGES = 84, "malop_changes";
    /// Peer plane of malops. `PageRequest` -> `Page<EvidenceView>` of suspicions, of all servers.
    SUSPICIONS = 85, "suspicions";

    /// Peer plane of tagging. `TagSet` -> empty.
    TAG_SET = 96, "tag_set";
    /// Peer plane of tagging. `TagQuery` -> `Items<TagView>`.
    TAGS = 97, "tags";

    /// Peer plane of fleet. empty -> `Items<FleetSensor>`.
    FLEET_SENSORS = 112, "fleet_sensors";
    /// Peer plane of fleet. `FleetAction` -> `FleetBatch`.
    FLEET_ACTION = 113, "fleet_action";
    /// Peer plane of fleet. `BatchQuery` -> `Items<BatchResult>`.
    FLEET_BATCH = 114, "fleet_batch";

    /// Peer plane of update. empty -> `SignedManifest`.
    UPDATES = 128, "updates";
    /// Peer plane of update. `PartRequest` -> `Part`.
    UPDATE_PART = 129, "update_part";

    /// Peer plane, any server. empty -> `ServerStatus`.
    STATUS = 240, "status";
    /// Peer plane, any server with a store, for itself. empty -> empty, once it is backed up.
    BACKUP = 241, "backup";

    /// Peer plane of the supervisor. empty -> `Items<ChildView>`.
    CHILDREN = 248, "children";
    /// Peer plane of the supervisor. `ChildChange` -> empty, once the wish is fulfilled.
    CHILD_CHANGE = 249, "child_change";
}
