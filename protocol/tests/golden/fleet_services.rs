//! Requests and replies of the microservices: MalOps, asset tags, sensor management.

use lapwing_protocol::command::{Action, Outcome};
use lapwing_protocol::console::{ActivityType, EvidenceView, HealthView, Severity};
use lapwing_protocol::fleet::{
    ActionState, BatchQuery, BatchResult, CollectionState, FleetAction, FleetBatch, FleetSensor,
    SensorStatus,
};
use lapwing_protocol::id::SensorId;
use lapwing_protocol::items::Items;
use lapwing_protocol::malop::{
    AffectedMachine, MalOpAddComment, MalOpComment, MalOpDetail, MalOpFilter, MalOpSetStatus,
    MalOpShow, MalOpStatus, MalOpView,
};
use lapwing_protocol::tagging::{TagQuery, TagSet, TagView};

use crate::book::{Book, hold, items};
use crate::names::*;

fn malop(status: MalOpStatus) -> MalOpView<'static> {
    MalOpView {
        malop: MALOP,
        title: "a program on the blocklist ran",
        status,
        severity: Severity::High,
        activity: ActivityType::MaliciousInfection,
        root_cause: "hash:cc",
        rule: "blocklisted_hash",
        techniques: items![&'static str; "T1204.002", "T1496"],
        machines: items![AffectedMachine<'static>;
            AffectedMachine { sensor: SENSOR, name: "web-7" },
        ],
        users: items![&'static str; "root"],
        count: 3,
        first_seen_ms: WALL_MS,
        last_seen_ms: WALL_MS + 1,
        updated_ms: WALL_MS + 2,
    }
}

#[test]
fn malops() {
    let mut book = Book::new("malops");
    for status in MalOpStatus::ALL {
        hold!(book, format!("malop_{}", status.name()), MalOpView<'_>, malop(status));
    }
    let filter = MalOpFilter { status: Some(MalOpStatus::Reopened), limit: 300 };
    hold!(book, "filter", MalOpFilter, filter);
    hold!(book, "filter_none", MalOpFilter, MalOpFilter { status: None, limit: 300 });
    hold!(book, "show", MalOpShow, MalOpShow { malop: MALOP });
    let comment = MalOpComment { author: "admin", written_ms: WALL_MS, text: "known test" };
    hold!(book, "comment", MalOpComment<'_>, comment);
    let detail = MalOpDetail {
        malop: malop(MalOpStatus::New),
        evidence: Items::<EvidenceView<'_>>::EMPTY,
        comments: items![MalOpComment<'static>; comment],
    };
    hold!(book, "detail", MalOpDetail<'_>, detail);
    let set =
        MalOpSetStatus { malop: MALOP, status: MalOpStatus::UnderInvestigation, author: "admin" };
    hold!(book, "set_status", MalOpSetStatus<'_>, set);
    let add = MalOpAddComment { malop: MALOP, author: "admin", text: "known test" };
    hold!(book, "add_comment", MalOpAddComment<'_>, add);
    book.close();
}

#[test]
fn tags() {
    let mut book = Book::new("tags");
    let set = TagSet { sensor: SENSOR, name: "location", value: Some("Oslo"), author: "admin" };
    hold!(book, "tag_set", TagSet<'_>, set);
    hold!(book, "tag_off", TagSet<'_>, TagSet { value: None, ..set });
    hold!(book, "query_one", TagQuery, TagQuery { sensor: Some(SENSOR) });
    hold!(book, "query_all", TagQuery, TagQuery { sensor: None });
    let view = TagView {
        sensor: SENSOR,
        name: "location",
        value: "Oslo",
        author: "admin",
        set_ms: WALL_MS,
    };
    hold!(book, "tag_view", TagView<'_>, view);
    book.close();
}

#[test]
fn fleet() {
    let mut book = Book::new("fleet");
    let health = HealthView {
        component: "processes",
        status: "active",
        reason: "",
        remedy: "",
        mechanism: "fanotify",
    };
    for (status, collection) in [
        (SensorStatus::Online, CollectionState::Enabled),
        (SensorStatus::Offline, CollectionState::Disabled),
        (SensorStatus::Stale, CollectionState::Suspended),
        (SensorStatus::Archived, CollectionState::Unknown),
    ] {
        let sensor = FleetSensor {
            sensor: SENSOR,
            name: "web-7",
            os: "Debian 12",
            agent: "lapwing-sensor/0.1.0",
            status,
            collection,
            server: SERVER,
            server_name: "d1",
            last_seen_ms: WALL_MS,
            first_seen_ms: WALL_MS,
            pending: 1,
            health: items![HealthView<'static>; health],
        };
        hold!(book, format!("sensor_{}", status.name()), FleetSensor<'_>, sensor);
    }
    let action = FleetAction {
        sensors: items![SensorId; SENSOR, SensorId([0x23; 16])],
        action: Action::Isolate,
        expires_after_ms: 3_600_000,
        author: "admin",
    };
    hold!(book, "action", FleetAction<'_>, action);
    hold!(book, "batch", FleetBatch, FleetBatch { batch: 300, sensors: 2 });
    hold!(book, "batch_query", BatchQuery, BatchQuery { batch: 300 });
    for (name, state) in [
        ("pending", ActionState::Pending),
        ("queued", ActionState::Queued),
        ("expired", ActionState::Expired),
        ("finished", ActionState::Finished(Outcome::Interrupted)),
        ("unknown", ActionState::UnknownSensor),
    ] {
        let result = BatchResult {
            sensor: SENSOR,
            action: Action::Isolate,
            state,
            detail: "",
            updated_ms: WALL_MS,
        };
        hold!(book, format!("result_{name}"), BatchResult<'_>, result);
    }
    book.close();
}
