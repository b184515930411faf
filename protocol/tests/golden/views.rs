//! What a Detection server answers on its console and malware ports, and what a sensor reports.

use lapwing_protocol::command::{Action, CommandNumber, Outcome};
use lapwing_protocol::console::{
    ActivityType, Cell, CommandPut, ElementQuery, ElementRows, ElementView, EventView,
    EvidenceView, HeadView, HealthView, NamedCell, OutcomeView, ProcessTreeRequest, SensorReport,
    SensorView, Severity,
};
use lapwing_protocol::element::process;
use lapwing_protocol::hello::Memory;
use lapwing_protocol::id::Lane;
use lapwing_protocol::items::Items;
use lapwing_protocol::ledger::{CollectorCount, LogStatement};

use crate::book::{Book, hold, items};
use crate::names::*;

const NUMBER: CommandNumber = CommandNumber { issuer: 2, seq: 42 };

fn health() -> Items<'static, HealthView<'static>> {
    let view = HealthView {
        component: "processes",
        status: "degraded",
        reason: "not root",
        remedy: "run as root",
        mechanism: "proc connector",
    };
    items![HealthView<'static>; view]
}

fn fields() -> Items<'static, NamedCell<'static>> {
    items![NamedCell<'static>;
        NamedCell { name: "pid", value: Cell::U64(4_711) },
        NamedCell { name: "image_path", value: Cell::Text("/bin/sleep") },
    ]
}

fn element() -> ElementView<'static> {
    ElementView {
        guid: ELEMENT,
        sensor: SENSOR,
        kind: "process",
        label: "sleep (4711)",
        ended: false,
        first_seen_ms: WALL_MS,
        fields: fields(),
    }
}

#[test]
fn cells() {
    let mut book = Book::new("cells");
    for (name, cell) in [
        ("absent", Cell::Absent),
        ("u64", Cell::U64(u64::MAX)),
        ("i64", Cell::I64(-2)),
        ("bool", Cell::Bool(true)),
        ("text", Cell::Text("sshd")),
        ("element", Cell::Element(ELEMENT)),
    ] {
        hold!(book, name, Cell<'_>, cell);
    }
    hold!(book, "named", NamedCell<'_>, NamedCell { name: "pid", value: Cell::U64(7) });
    book.close();
}

#[test]
fn sensors() {
    let mut book = Book::new("sensors");
    let heads = items![HeadView;
        HeadView {
            lane: Lane::Bulk,
            log: BULK_LOG,
            next_seq: 301,
            next_index: 4_000,
            chain: CHAIN,
        },
        HeadView { lane: Lane::Urgent, log: URGENT_LOG, next_seq: 2, next_index: 2, chain: CHAIN },
    ];
    let view = SensorView {
        sensor: SENSOR,
        name: "web-7",
        os: "Debian 12",
        agent: "lapwing-sensor/0.1.0",
        connected: true,
        session_epoch: 7 << 32 | 1,
        peer_address: "127.0.0.1:50000",
        last_seen_ms: WALL_MS,
        first_seen_ms: WALL_MS,
        collecting: true,
        memory: Memory::Disk,
        rows: 400,
        divergent: false,
        health: health(),
        heads,
        last_command: Some(NUMBER),
    };
    hold!(book, "sensor_view", SensorView<'_>, view);
    let report = SensorReport {
        collecting: true,
        produced: [4_000, 2],
        spool_bytes: 1 << 20,
        health: health(),
        wall_ms: WALL_MS,
        logs: items![LogStatement;
            LogStatement { lane: Lane::Bulk, log: BULK_LOG, next_index: 4_001, held: 12 },
            LogStatement { lane: Lane::Urgent, log: URGENT_LOG, next_index: 3, held: 0 },
        ],
        unchanged: 77,
        collected: items![CollectorCount<'static>;
            CollectorCount { component: "processes", seen: 4_078, refused: 1, overflowed: 0 },
        ],
    };
    hold!(book, "sensor_report", SensorReport<'_>, report);
    book.close();
}

#[test]
fn elements() {
    let mut book = Book::new("elements");
    let query = ElementQuery { expression: "process where pid = 1", limit: 100, timeout_ms: 5_000 };
    hold!(book, "element_query", ElementQuery<'_>, query);
    let row = items![Cell<'static>; Cell::Element(ELEMENT), Cell::U64(1), Cell::Absent];
    let rows = ElementRows {
        columns: items![&'static str; "element", "pid", "user"],
        rows: items![Items<'static, Cell<'static>>; row, row],
        partial: "the time was over",
    };
    hold!(book, "element_rows", ElementRows<'_>, rows);
    hold!(book, "element_view", ElementView<'_>, element());
    let tree = ProcessTreeRequest { process: ELEMENT, parents_max: 16, children_max: 64 };
    hold!(book, "process_tree_request", ProcessTreeRequest, tree);
    book.close();
}

#[test]
fn events_and_evidence() {
    let mut book = Book::new("evidence");
    let event = EventView {
        sensor: SENSOR,
        machine: "web-7",
        lane: Lane::Bulk,
        log: BULK_LOG,
        seq: 300,
        index: 3_999,
        source_seq: Some(12),
        time_ns: WALL_MS * 1_000_000,
        received_ms: WALL_MS,
        kind: "process",
        op: "put",
        element: ELEMENT,
        fields: fields(),
    };
    hold!(book, "event_view", EventView<'_>, event);
    hold!(
        book,
        "event_view_without_source",
        EventView<'_>,
        EventView { source_seq: None, ..event }
    );
    let kinds = [
        (Severity::Low, ActivityType::None),
        (Severity::Medium, ActivityType::MaliciousInfection),
        (Severity::High, ActivityType::PrivilegeEscalation),
        (Severity::Low, ActivityType::Scanning),
        (Severity::Medium, ActivityType::LateralMovement),
        (Severity::High, ActivityType::CommandAndControl),
        (Severity::Low, ActivityType::DataTheft),
        (Severity::Medium, ActivityType::Ransomware),
        (Severity::High, ActivityType::StolenCredentials),
    ];
    for (severity, activity) in kinds {
        let evidence = EvidenceView {
            evidence: EVIDENCE,
            rule: "blocklisted_hash",
            title: "a program on the blocklist ran",
            sensor: SENSOR,
            machine: "web-7",
            user: "root",
            element: ELEMENT,
            kind: process::KIND,
            label: "sleep (4711)",
            root_cause: "hash:cc",
            happened_ms: WALL_MS,
            raised_ms: WALL_MS,
            severity,
            activity,
            suspicious: true,
            techniques: items![&'static str; "T1204.002"],
            reputation: fields(),
            fields: fields(),
            processes: items![ElementView<'static>; element()],
        };
        hold!(book, format!("evidence_{activity:?}"), EvidenceView<'_>, evidence);
    }
    book.close();
}

#[test]
fn commands() {
    let mut book = Book::new("commands");
    let put = CommandPut {
        sensor: SENSOR,
        number: NUMBER,
        expires_ms: WALL_MS,
        action: Action::StopCollection,
    };
    hold!(book, "command_put", CommandPut, put);
    for outcome in Outcome::ALL {
        let view = OutcomeView {
            sensor: SENSOR,
            number: NUMBER,
            outcome,
            detail: "as asked",
            received_ms: WALL_MS,
        };
        hold!(book, format!("outcome_{}", outcome.name()), OutcomeView<'_>, view);
    }
    book.close();
}
