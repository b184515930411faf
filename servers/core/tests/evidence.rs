//! The path from changes to evidence, as a Detection server walks it: a shell starts a program
//! whose hash is on the blocklist, and exactly one evidence comes of it, whatever is said again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;

use lapwing_protocol::console::{ActivityType, Severity};
use lapwing_protocol::element::{Feature, Kind, connection, dns, kind, machine, process};
use lapwing_protocol::id::{ElementGuid, EvidenceId, SensorId};
use lapwing_protocol::intel::{Classification, Source};
use lapwing_server_core::change::{Change, KindModel, OwnedValue, What};
use lapwing_server_core::evidence::{Evidence, Judge};
use lapwing_server_core::graph::Graph;
use lapwing_server_core::graph::limits::GraphLimits;
use lapwing_server_core::intel_cache::{IndicatorKey, IntelCache, OwnedVerdict};
use lapwing_server_core::view::OwnedCell;

const SENSOR: SensorId = SensorId([1; 16]);
const NOW: u64 = 1_800_000_000_000;

#[test]
fn a_blocklisted_program_is_one_evidence_with_its_chain_however_often_it_is_told() {
    let mut server = Server::blocking(&format!("hash:{}", "bb".repeat(32)));
    server.take(vec![the_machine(), init(What::Put), shell(What::Put), program(What::Put)]);
    let evidence = server.only_evidence();

    assert_eq!(evidence.rule, "blocklisted_hash");
    assert_eq!(evidence.machine, "box");
    assert_eq!(evidence.user, "mallory");
    assert_eq!(evidence.root_cause, format!("hash:{}", "bb".repeat(32)));
    assert_eq!((evidence.severity, evidence.suspicious), (Severity::High, true));
    assert_eq!(evidence.activity, ActivityType::MaliciousInfection);
    assert_eq!(evidence.techniques, ["T1204.002"]);
    let chain: Vec<&str> = evidence.processes.iter().map(|it| it.label.as_str()).collect();
    assert_eq!(chain, ["evil (9)", "sh (7)", "init (1)"]);
    let verdict = evidence.reputation.iter().find(|(name, _)| name == "verdict");
    assert_eq!(verdict.unwrap().1, OwnedCell::Text("block".to_owned()));

    server.take(vec![init(What::Restated), shell(What::Restated), program(What::Restated)]);
    server.take(vec![change(
        What::Patched,
        9,
        process::KIND,
        vec![(process::exit_code, OwnedValue::I64(0))],
    )]);
    server.take(vec![program(What::Put)]);
    server.take(vec![change(What::Ended, 9, process::KIND, vec![])]);
    assert_eq!(server.only_evidence().evidence, evidence.evidence);

    let mut restarted = Server::blocking(&format!("hash:{}", "bb".repeat(32)));
    restarted.take(vec![program(What::Restated), shell(What::Restated), the_machine()]);
    assert_eq!(restarted.only_evidence().evidence, evidence.evidence);
}

#[test]
fn a_hash_that_comes_later_is_judged_then() {
    let mut server = Server::blocking(&format!("hash:{}", "bb".repeat(32)));
    let mut early = program(What::Put);
    early.fields.retain(|(feature, _)| *feature != process::image_hash);
    server.take(vec![shell(What::Put), early]);
    assert!(server.told.is_empty());
    let hash = vec![(process::image_hash, OwnedValue::Hash([0xbb; 32].as_slice().into()))];
    server.take(vec![change(What::Patched, 9, process::KIND, hash)]);
    assert_eq!(server.only_evidence().rule, "blocklisted_hash");
}

#[test]
fn a_program_that_starts_and_ends_within_one_chunk_is_judged() {
    let mut server = Server::blocking(&format!("hash:{}", "bb".repeat(32)));
    server.take(vec![
        shell(What::Put),
        program(What::Put),
        change(What::Ended, 9, process::KIND, vec![]),
    ]);
    assert_eq!(server.only_evidence().processes.len(), 2);
}

#[test]
fn a_blocklisted_address_is_one_cause_for_connections_and_answers() {
    let mut server = Server::blocking("ip:127.66.6.6");
    server.take(vec![shell(What::Put), program(What::Put), connection_to("127.66.6.6")]);
    let evidence = server.only_evidence();
    assert_eq!(evidence.rule, "blocklisted_address");
    assert_eq!(evidence.user, "mallory");
    assert_eq!(evidence.processes[0].label, "evil (9)");

    server.take(vec![lookup("other.example", "127.66.6.6")]);
    let causes: BTreeSet<_> = server.told.iter().map(|it| it.root_cause.as_str()).collect();
    assert_eq!((server.told.len(), causes.len()), (2, 1));
}

#[test]
fn a_blocklisted_domain_is_found_whatever_its_case() {
    let mut server = Server::blocking("domain:evil.example");
    server.take(vec![program(What::Put), lookup("Evil.Example.", "")]);
    let evidence = server.only_evidence();
    assert_eq!(
        (evidence.rule.as_str(), evidence.root_cause.as_str()),
        ("blocklisted_domain", "domain:evil.example")
    );
}

#[test]
fn what_is_blocklisted_after_it_was_seen_becomes_evidence_then() {
    let mut server = Server::blocking("ip:192.0.2.1");
    server.take(vec![shell(What::Put), program(What::Put), connection_to("127.66.6.6")]);
    assert!(server.told.is_empty());
    server.change_reputation("ip:127.66.6.6", Classification::Blocked);
    assert_eq!(server.only_evidence().rule, "blocklisted_address");
    server.change_reputation("ip:127.66.6.6", Classification::Allowed);
    assert_eq!(server.told.len(), 1);
}

/// A Detection server without its shell: it stores evidence by id and asks a blocklist of one.
struct Server {
    judge: Judge,
    blocked: String,
    now_ms: u64,
    position: u64,
    stored: BTreeSet<EvidenceId>,
    told: Vec<Evidence>,
}

impl Server {
    fn blocking(blocked: &str) -> Self {
        let judge = Judge::new(Graph::new(GraphLimits::default(), 7), IntelCache::default());
        let (stored, told) = (BTreeSet::new(), Vec::new());
        Self { judge, blocked: blocked.to_owned(), now_ms: NOW, position: 0, stored, told }
    }

    fn take(&mut self, changes: Vec<Change>) {
        self.now_ms += 1;
        self.position += 1;
        self.judge.handle_changes(self.now_ms, (SENSOR, self.position), changes);
        self.drain();
        while let Some(question) = self.judge.poll_questions(self.now_ms) {
            let answers = question.keys.iter().map(|key| {
                let is_blocked = key.root_cause() == self.blocked;
                let blocked =
                    if is_blocked { Classification::Blocked } else { Classification::Unknown };
                self.verdict(key, blocked)
            });
            let answers = answers.collect();
            self.judge.handle_verdicts(self.now_ms, question.number, answers);
            self.drain();
        }
        assert_eq!(self.judge.judged_before(self.position), self.position + 1);
    }

    fn change_reputation(&mut self, cause: &str, classification: Classification) {
        self.now_ms += 1;
        let address = cause.strip_prefix("ip:").unwrap().parse().unwrap();
        let verdict = self.verdict(&IndicatorKey::ip(address).unwrap(), classification);
        self.judge.handle_reputation_change(self.now_ms, verdict);
        self.drain();
    }

    fn verdict(&self, key: &IndicatorKey, classification: Classification) -> OwnedVerdict {
        OwnedVerdict {
            key: key.clone(),
            classification,
            source: Source::Private,
            comment: String::new(),
            checked_ms: self.now_ms,
            recheck_ms: self.now_ms + 86_400_000,
            stale: false,
        }
    }

    fn drain(&mut self) {
        while let Some(evidence) = self.judge.poll_evidence(self.now_ms) {
            if self.stored.insert(evidence.evidence) {
                self.told.push(Evidence::from_bytes(&evidence.to_bytes()).unwrap());
            }
        }
    }

    fn only_evidence(&self) -> Evidence {
        assert_eq!(self.told.len(), 1, "{:#?}", self.told);
        self.told[0].clone()
    }
}

fn change(what: What, number: u8, of: Kind, mut fields: Vec<(Feature, OwnedValue)>) -> Change {
    fields.sort_by_key(|(feature, _)| *feature);
    Change {
        guid: ElementGuid([number; 16]),
        model: Arc::new(KindModel::new(kind(of).unwrap())),
        what,
        time_ns: 1_000,
        wall_ns: NOW * 1_000_000,
        index: Some(1),
        source_seq: None,
        fields,
    }
}

fn text(text: &str) -> OwnedValue {
    OwnedValue::Text(text.as_bytes().into())
}

fn the_machine() -> Change {
    change(What::Put, 200, machine::KIND, vec![(machine::name, text("box"))])
}

fn a_process(what: What, pid: u8, parent: u8, image: &str, hash: u8) -> Change {
    let fields = vec![
        (process::pid, OwnedValue::U64(u64::from(pid))),
        (process::parent, OwnedValue::Element(ElementGuid([parent; 16]))),
        (process::image_path, text(image)),
        (process::user, text("mallory")),
        (process::image_hash, OwnedValue::Hash([hash; 32].as_slice().into())),
    ];
    change(what, pid, process::KIND, fields)
}

fn init(what: What) -> Change {
    a_process(what, 1, 0, "/sbin/init", 0x11)
}

fn shell(what: What) -> Change {
    a_process(what, 7, 1, "/bin/sh", 0x77)
}

fn program(what: What) -> Change {
    a_process(what, 9, 7, "/tmp/evil", 0xbb)
}

fn connection_to(address: &str) -> Change {
    let fields = vec![
        (connection::protocol, OwnedValue::U64(6)),
        (connection::remote_address, OwnedValue::Ip(address.parse().unwrap())),
        (connection::remote_port, OwnedValue::U64(443)),
        (connection::process, OwnedValue::Element(ElementGuid([9; 16]))),
    ];
    change(What::Put, 50, connection::KIND, fields)
}

fn lookup(question: &str, answers: &str) -> Change {
    let fields = vec![
        (dns::question, text(question)),
        (dns::answers, text(answers)),
        (dns::process, OwnedValue::Element(ElementGuid([9; 16]))),
    ];
    change(What::Happened, 60, dns::KIND, fields)
}
