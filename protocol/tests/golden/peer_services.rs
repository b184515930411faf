//! Requests and replies of enrolment, registration, threat intelligence, updates and supervision.

use lapwing_protocol::enrol::{EnrolRequest, Enrolled};
use lapwing_protocol::feed::{FeedPage, FeedRequest, Page, PageRequest};
use lapwing_protocol::intel::{
    Classification, ClassifyRequest, Indicator, KeyType, ReputationChange, ReputationPut,
    ReputationRemove, ReputationView, Source, Verdict,
};
use lapwing_protocol::registration::{
    AssignReason, AssignRequest, Assignment, AssignmentView, Heartbeat, HeartbeatReply,
    ServerChange, ServerRole, ServerSetting, ServerState, ServerStatus, ServerView,
};
use lapwing_protocol::supervision::{ChildChange, ChildState, ChildView, ChildWish};
use lapwing_protocol::update::{Part, PartRequest, SignedManifest};

use crate::book::{Book, hold, items};
use crate::names::*;

#[test]
fn enrolment() {
    let mut book = Book::new("enrolment");
    let request = EnrolRequest {
        token: "lw-0123456789abcdef",
        request: &[0x30, 0x82],
        name: "web-7",
        os: "Debian 12",
        machine_id: [0xcc; 32],
    };
    hold!(book, "enrol_request", EnrolRequest<'_>, request);
    let enrolled = Enrolled {
        sensor: SENSOR,
        deployment: DEPLOYMENT,
        certificate: &[0x30, 0x81],
        authority: &[0x30, 0x80],
        not_after_ms: WALL_MS,
    };
    hold!(book, "enrolled", Enrolled<'_>, enrolled);
    book.close();
}

#[test]
fn registration() {
    let mut book = Book::new("registration");
    for reason in [
        AssignReason::First,
        AssignReason::Unreachable,
        AssignReason::Refused,
        AssignReason::Draining,
        AssignReason::NoProgress,
    ] {
        let trouble_with = (reason != AssignReason::First).then_some(SERVER);
        let request = AssignRequest { reason, trouble_with };
        hold!(book, format!("assign_request_{reason:?}"), AssignRequest, request);
    }
    let assignment = Assignment { server: SERVER, name: "d1", address: "127.0.0.1:4430" };
    hold!(book, "assignment", Assignment<'_>, assignment);
    let heartbeat = Heartbeat {
        server: SERVER,
        name: "d1",
        sensor_address: "127.0.0.1:4430",
        console_address: "127.0.0.1:8443",
        malware_address: "127.0.0.1:7075",
        capacity: 10_000,
        sensors: 17,
        load_permille: 250,
        draining: false,
        version: "0.1.0",
        incarnation: INCARNATION,
    };
    hold!(book, "heartbeat", Heartbeat<'_>, heartbeat);
    let reply = HeartbeatReply { capacity: Some(500), drain: true };
    hold!(book, "heartbeat_reply", HeartbeatReply, reply);
    hold!(
        book,
        "heartbeat_reply_plain",
        HeartbeatReply,
        HeartbeatReply { capacity: None, drain: false }
    );
    for state in [ServerState::Up, ServerState::Draining, ServerState::Dead] {
        let view = ServerView {
            server: SERVER,
            name: "d1",
            state,
            sensor_address: "127.0.0.1:4430",
            console_address: "127.0.0.1:8443",
            malware_address: "127.0.0.1:7075",
            capacity: 10_000,
            sensors: 17,
            assigned: 20,
            load_permille: 250,
            version: "0.1.0",
            heartbeat_ms: WALL_MS,
        };
        hold!(book, format!("server_view_{state:?}"), ServerView<'_>, view);
    }
    what_operators_see(&mut book);
    book.close();
}

fn what_operators_see(book: &mut Book) {
    for (name, change) in [
        ("drain", ServerSetting::Drain),
        ("undrain", ServerSetting::Undrain),
        ("capacity", ServerSetting::Capacity(500)),
    ] {
        let change = ServerChange { name: "d1", change };
        hold!(book, format!("server_change_{name}"), ServerChange<'_>, change);
    }
    let view = AssignmentView {
        sensor: SENSOR,
        name: "web-7",
        server: Some(SERVER),
        assigned_ms: WALL_MS,
        enrolled_ms: WALL_MS,
    };
    hold!(book, "assignment_view", AssignmentView<'_>, view);
    hold!(book, "page_request", PageRequest, PageRequest { offset: 300, limit: 100 });
    let page = Page { total: 301, items: items![AssignmentView<'_>; view] };
    hold!(book, "page_of_assignments", Page<'_, AssignmentView<'_>>, page);
}

#[test]
fn server_status() {
    let mut book = Book::new("status");
    for role in [
        ServerRole::Registration,
        ServerRole::Detection,
        ServerRole::Update,
        ServerRole::IntelPrivate,
        ServerRole::IntelGlobal,
        ServerRole::WebApp,
        ServerRole::MalOps,
        ServerRole::Tagging,
        ServerRole::Fleet,
    ] {
        let status = ServerStatus {
            server: SERVER,
            name: "d1",
            role,
            version: "0.1.0",
            pid: 4_711,
            started_ms: WALL_MS,
            trouble: "",
        };
        hold!(book, format!("status_{}", role.name()), ServerStatus<'_>, status);
    }
    book.close();
}

#[test]
fn intel() {
    let mut book = Book::new("intel");
    let indicator = |key_type| Indicator {
        key_type,
        key: match key_type {
            KeyType::Hash => "d41d8cd98f00b204e9800998ecf8427e",
            KeyType::Ip => "127.66.6.6",
            KeyType::Domain => "bad.example",
        },
    };
    let all = [KeyType::Hash, KeyType::Ip, KeyType::Domain].map(indicator);
    let indicators = items![Indicator<'_>; all[0], all[1], all[2]];
    let request = ClassifyRequest { indicators };
    hold!(book, "classify_request", ClassifyRequest<'_>, request);
    let verdict = |classification, source| Verdict {
        indicator: all[2],
        classification,
        source,
        comment: "seen in phishing",
        checked_ms: WALL_MS,
        recheck_ms: WALL_MS + 86_400_000,
        stale: false,
    };
    for (classification, source) in [
        (Classification::Unknown, Source::None),
        (Classification::Indifferent, Source::Global),
        (Classification::Allowed, Source::Private),
        (Classification::Blocked, Source::Private),
        (Classification::Malware, Source::Global),
        (Classification::Ransomware, Source::Global),
        (Classification::Unwanted, Source::Global),
    ] {
        let name = format!("verdict_{}", classification.name());
        hold!(book, name, Verdict<'_>, verdict(classification, source));
    }
    let put = ReputationPut {
        indicator: all[1],
        classification: Classification::Blocked,
        comment: "command and control",
        owner: "admin",
        expires_ms: Some(WALL_MS),
    };
    hold!(book, "reputation_put", ReputationPut<'_>, put);
    let remove = ReputationRemove { indicator: all[0] };
    hold!(book, "reputation_remove", ReputationRemove<'_>, remove);
    let view = ReputationView { entry: put, updated_ms: WALL_MS };
    hold!(book, "reputation_view", ReputationView<'_>, view);
    let change = ReputationChange { verdict: verdict(Classification::Malware, Source::Global) };
    hold!(book, "reputation_change", ReputationChange<'_>, change);
    book.close();
}

#[test]
fn feeds() {
    let mut book = Book::new("feeds");
    let first = FeedRequest { incarnation: None, cursor: 0, limit: 1_024, wait_ms: 20_000 };
    hold!(book, "feed_request_first", FeedRequest, first);
    let next = FeedRequest { incarnation: Some(INCARNATION), cursor: 4_711, ..first };
    hold!(book, "feed_request_next", FeedRequest, next);
    let remove =
        ReputationRemove { indicator: Indicator { key_type: KeyType::Domain, key: "bad.example" } };
    let page = FeedPage {
        incarnation: INCARNATION,
        next_cursor: 4_713,
        at_end: true,
        items: items![ReputationRemove<'_>; remove, remove],
    };
    hold!(book, "feed_page", FeedPage<'_, ReputationRemove<'_>>, page);
    book.close();
}

#[test]
fn updates() {
    let mut book = Book::new("updates");
    let mut signature = [0xdd; 64];
    signature[32..].fill(0xee);
    let manifest = SignedManifest { manifest: b"{}", key: [0xcc; 32], signature };
    hold!(book, "signed_manifest", SignedManifest<'_>, manifest);
    let request = PartRequest { target: "lapwing-sensor", offset: 65_536, length: 4_096 };
    hold!(book, "part_request", PartRequest<'_>, request);
    let part = Part { offset: 65_536, total: 1_000_000, bytes: b"bytes" };
    hold!(book, "part", Part<'_>, part);
    book.close();
}

#[test]
fn supervision() {
    let mut book = Book::new("supervision");
    let states = [
        (ChildState::Starting, Some(ServerRole::Detection), Some(4_711)),
        (ChildState::Running, Some(ServerRole::Fleet), Some(4_712)),
        (ChildState::Waiting, Some(ServerRole::Update), None),
        (ChildState::Stopped, None, None),
    ];
    for (state, role, pid) in states {
        let view = ChildView {
            name: "d1",
            role,
            state,
            pid,
            starts: 2,
            log_file: "log/d1.log",
            ending: "signal 9",
        };
        hold!(book, format!("child_view_{}", state.name()), ChildView<'_>, view);
    }
    for wish in [ChildWish::Stop, ChildWish::Kill, ChildWish::Start] {
        let change = ChildChange { name: "d1", wish };
        hold!(book, format!("child_change_{wish:?}"), ChildChange<'_>, change);
    }
    book.close();
}
